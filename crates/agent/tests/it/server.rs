//! A static web server on loopback, honest or not.

use std::io::{BufRead, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use stdx::Digest;

/// How it answers requests whose path contains a text.
#[derive(Clone, Debug)]
pub(crate) enum Manner {
    /// These bytes instead.
    Bytes(Vec<u8>),
    /// The file, then zeroes until the client hangs up.
    Endless,
    /// The head and half of the file; then nothing until the client hangs up.
    Stalling,
    /// This status.
    Status(u16),
    /// Nothing until the client hangs up.
    Silent,
    /// The head, then ten bytes of the file a second.
    Trickling,
    /// Headers without end, ten bytes a second.
    TricklingHead,
    /// Half of the file, and then the end.
    CutShort,
    /// The file with one bit in its middle flipped.
    Flipped,
    /// To the same place again.
    Redirecting,
}

#[derive(Debug)]
struct Shared {
    folder: Mutex<PathBuf>,
    manners: Mutex<Vec<(String, Manner)>>,
    bytes: AtomicU64,
    requests: AtomicU64,
}

#[derive(Debug)]
pub(crate) struct Server {
    shared: Arc<Shared>,
    url: String,
}

impl Server {
    pub(crate) fn new(folder: &Path) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let shared = Arc::new(Shared {
            folder: Mutex::new(folder.to_owned()),
            manners: Mutex::default(),
            bytes: AtomicU64::new(0),
            requests: AtomicU64::new(0),
        });
        let server = Arc::clone(&shared);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let server = Arc::clone(&server);
                // A client that hangs up is no fault of the server's.
                thread::spawn(move || drop(serve(stream, &server)));
            }
        });
        Self { shared, url }
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Serves another folder from now on.
    pub(crate) fn show(&self, folder: &Path) {
        *self.shared.folder.lock().unwrap() = folder.to_owned();
    }

    /// Behaves like this for paths that contain `part`.
    pub(crate) fn misbehave(&self, part: &str, manner: Manner) {
        self.shared.manners.lock().unwrap().push((part.to_owned(), manner));
    }

    pub(crate) fn behave(&self) {
        self.shared.manners.lock().unwrap().clear();
    }

    /// Bytes of bodies, and requests, since the last call.
    pub(crate) fn traffic(&self) -> (u64, u64) {
        (self.shared.bytes.swap(0, Ordering::SeqCst), self.shared.requests.swap(0, Ordering::SeqCst))
    }
}

/// What is asked for.
struct Request {
    path: String,
    /// The entity tag that the client knows.
    known: Option<String>,
    /// Where the piece begins that it wants.
    from: Option<usize>,
}

/// The next request; none when the client is gone.
fn request(reader: &mut impl BufRead) -> std::io::Result<Option<Request>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let path = line.split(' ').nth(1).unwrap_or("/").to_owned();
    let (mut known, mut from) = (None, None);
    loop {
        let mut header = String::new();
        reader.read_line(&mut header)?;
        if let Some((_, tag)) = header.split_once(": ").filter(|(name, _)| name.eq_ignore_ascii_case("if-none-match")) {
            known = Some(tag.trim().to_owned());
        }
        if let Some(range) = header.to_ascii_lowercase().strip_prefix("range: bytes=") {
            from = range.split('-').next().and_then(|first| first.parse().ok());
        }
        if header.trim().is_empty() {
            return Ok(Some(Request { path, known, from }));
        }
    }
}

fn serve(mut stream: TcpStream, shared: &Shared) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    stream.set_nodelay(true)?;
    while let Some(Request { path, known, from }) = request(&mut reader)? {
        shared.requests.fetch_add(1, Ordering::SeqCst);
        let manner = shared.manners.lock().unwrap().iter().find(|(part, _)| path.contains(part)).cloned();
        let file = shared.folder.lock().unwrap().join(path.trim_start_matches('/'));
        let content = std::fs::read(&file).ok();
        match manner.map(|(_, manner)| manner) {
            Some(Manner::Status(status)) => respond(&mut stream, shared, status, b"no")?,
            Some(Manner::Bytes(bytes)) => respond(&mut stream, shared, 200, &bytes)?,
            Some(Manner::Endless) => {
                write!(stream, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")?;
                stream.write_all(&content.unwrap_or_default())?;
                loop {
                    stream.write_all(&[0; 4096])?;
                    shared.bytes.fetch_add(4096, Ordering::SeqCst);
                }
            }
            Some(Manner::Stalling) => {
                let content = content.unwrap_or_default();
                write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", content.len() + 1)?;
                stream.write_all(&content[..content.len() / 2])?;
                // The client's next byte is its end.
                return reader.read(&mut [0; 1]).map(drop);
            }
            Some(Manner::Silent) => return reader.read(&mut [0; 1]).map(drop),
            Some(Manner::Trickling) => {
                let content = content.unwrap_or_default();
                write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", content.len() + 1)?;
                return trickle(&mut stream, &content);
            }
            Some(Manner::TricklingHead) => {
                write!(stream, "HTTP/1.1 200 OK\r\n")?;
                return trickle(&mut stream, "X-Filler: nothing\r\n".repeat(1 << 20).as_bytes());
            }
            Some(Manner::CutShort) => {
                let content = content.unwrap_or_default();
                write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", content.len())?;
                stream.write_all(&content[..content.len() / 2])?;
                return stream.shutdown(std::net::Shutdown::Both);
            }
            Some(Manner::Flipped) => {
                let mut content = content.unwrap_or_default();
                let middle = content.len() / 2;
                content.get_mut(middle).into_iter().for_each(|byte| *byte ^= 1);
                respond(&mut stream, shared, 200, &content)?;
            }
            Some(Manner::Redirecting) => {
                let head = format!("HTTP/1.1 302 X\r\nLocation: {path}\r\nContent-Length: 0\r\n\r\n");
                stream.write_all(head.as_bytes())?;
            }
            None => match content {
                Some(content) if known == Some(api::entity_tag(&Digest::of(&content))) => {
                    stream.write_all(b"HTTP/1.1 304 X\r\n\r\n")?;
                }
                Some(content) => match from.and_then(|from| content.get(from..)) {
                    Some(piece) => respond(&mut stream, shared, 206, piece)?,
                    None => respond(&mut stream, shared, 200, &content)?,
                },
                None => respond(&mut stream, shared, 404, b"")?,
            },
        }
    }
    Ok(())
}

/// A byte every tenth of a second, until the client hangs up.
fn trickle(stream: &mut TcpStream, bytes: &[u8]) -> std::io::Result<()> {
    stream.set_read_timeout(Some(std::time::Duration::from_millis(100)))?;
    for byte in bytes {
        stream.write_all(&[*byte])?;
        // Nothing comes from the client but its end: waiting for that is what takes the time.
        if stream.read(&mut [0; 1]).is_ok() {
            return Ok(());
        }
    }
    Ok(())
}

fn respond(stream: &mut TcpStream, shared: &Shared, status: u16, body: &[u8]) -> std::io::Result<()> {
    shared.bytes.fetch_add(body.len() as u64, Ordering::SeqCst);
    let mut response = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n", body.len()).into_bytes();
    response.extend_from_slice(body);
    stream.write_all(&response)
}
