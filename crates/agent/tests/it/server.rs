//! A static web server on loopback, honest or not.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
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

fn serve(mut stream: TcpStream, shared: &Shared) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    stream.set_nodelay(true)?;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let path = line.split(' ').nth(1).unwrap_or("/").to_owned();
        let mut known = None;
        loop {
            let mut header = String::new();
            reader.read_line(&mut header)?;
            if let Some((_, tag)) =
                header.split_once(": ").filter(|(name, _)| name.eq_ignore_ascii_case("if-none-match"))
            {
                known = Some(tag.trim().to_owned());
            }
            if header.trim().is_empty() {
                break;
            }
        }
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
                }
            }
            Some(Manner::Stalling) => {
                let content = content.unwrap_or_default();
                write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", content.len() + 1)?;
                stream.write_all(&content[..content.len() / 2])?;
                // The client's next byte is its end.
                return reader.read(&mut [0; 1]).map(drop);
            }
            None => match content {
                Some(content) if known == Some(api::entity_tag(&Digest::of(&content))) => {
                    stream.write_all(b"HTTP/1.1 304 X\r\n\r\n")?;
                }
                Some(content) => respond(&mut stream, shared, 200, &content)?,
                None => respond(&mut stream, shared, 404, b"")?,
            },
        }
    }
}

fn respond(stream: &mut TcpStream, shared: &Shared, status: u16, body: &[u8]) -> std::io::Result<()> {
    shared.bytes.fetch_add(body.len() as u64, Ordering::SeqCst);
    let mut response = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n", body.len()).into_bytes();
    response.extend_from_slice(body);
    stream.write_all(&response)
}
