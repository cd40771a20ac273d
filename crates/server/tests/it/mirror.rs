//! Any web server with a folder of files, as mirrors are.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};

/// Serves the files below `folder` in the background for as long as the test runs.
pub(crate) fn start(folder: &Path) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    serve_at(listener, folder);
    address
}

/// The same at a socket that is open already.
pub(crate) fn serve_at(listener: TcpListener, folder: &Path) {
    let folder = folder.to_owned();
    listener.set_nonblocking(false).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (stream, folder) = (stream.unwrap(), folder.clone());
            // A connection that breaks off is its client's matter.
            std::thread::spawn(move || drop(serve(stream, &folder)));
        }
    });
}

/// One request a connection.
fn serve(mut stream: TcpStream, folder: &Path) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let request = lines.next().transpose()?.unwrap_or_default();
    while lines.next().transpose()?.is_some_and(|line| !line.is_empty()) {}
    let path: PathBuf = request.split(' ').nth(1).unwrap_or_default().trim_start_matches('/').into();
    let (status, body) =
        std::fs::read(folder.join(&path)).map_or(("404 Not Found", Vec::new()), |body| ("200 OK", body));
    let kind = if path.ends_with("checkpoint") { "text/plain; charset=utf-8" } else { "application/octet-stream" };
    let length = body.len();
    let head =
        format!("HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
    stream.write_all(&[head.as_bytes(), &body].concat())
}
