//! A proxy that takes `NAME.example` to the process of that name, so that stores which name hosts
//! in a signed policy run on whatever ports are free.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};

/// Serves in the background for as long as the test runs; gives the proxy's URL.
pub(crate) fn start(hosts: BTreeMap<String, SocketAddr>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (stream, hosts) = (stream.unwrap(), hosts.clone());
            // A connection that breaks off is its client's matter.
            std::thread::spawn(move || drop(tunnel(stream, &hosts)));
        }
    });
    url
}

/// `CONNECT HOST:PORT`, answered, then bytes both ways.
fn tunnel(mut client: TcpStream, hosts: &BTreeMap<String, SocketAddr>) -> std::io::Result<()> {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        client.read_exact(&mut byte)?;
        head.extend_from_slice(&byte);
    }
    let head = String::from_utf8_lossy(&head);
    let target = head.strip_prefix("CONNECT ").and_then(|rest| rest.split(':').next()).unwrap_or_default();
    let Some(address) = hosts.get(target) else { return client.write_all(b"HTTP/1.1 502 Unknown\r\n\r\n") };
    let mut server = TcpStream::connect(address)?;
    client.write_all(b"HTTP/1.1 200 OK\r\n\r\n")?;
    let (mut from, mut to) = (server.try_clone()?, client.try_clone()?);
    let back = std::thread::spawn(move || {
        let _ = std::io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Write);
    });
    let _ = std::io::copy(&mut client, &mut server);
    let _ = server.shutdown(Shutdown::Write);
    let _ = back.join();
    Ok(())
}
