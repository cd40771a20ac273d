//! What stands in front of a domain: takes each connection to one of its front ends, in turns.

use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// Serves in the background for as long as the test runs.
#[derive(Clone)]
pub(crate) struct Balancer(Arc<Mutex<Vec<SocketAddr>>>);

impl Balancer {
    /// Takes what comes to `listener` to the addresses that it is given later.
    pub(crate) fn start(listener: TcpListener) -> Self {
        let fronts: Arc<Mutex<Vec<SocketAddr>>> = Arc::default();
        let asked = Arc::clone(&fronts);
        std::thread::spawn(move || {
            for (turn, client) in listener.incoming().enumerate() {
                let front = {
                    let fronts = asked.lock().unwrap();
                    fronts[turn % fronts.len()]
                };
                // A connection that breaks off is its client's matter.
                std::thread::spawn(move || drop(carry(client.unwrap(), front)));
            }
        });
        Self(fronts)
    }

    /// From now on, connections go to these.
    pub(crate) fn ask(&self, fronts: &[SocketAddr]) {
        fronts.clone_into(&mut self.0.lock().unwrap());
    }
}

fn carry(client: TcpStream, front: SocketAddr) -> std::io::Result<()> {
    let server = TcpStream::connect(front)?;
    let (from, to) = (server.try_clone()?, client.try_clone()?);
    let back = std::thread::spawn(move || copy(from, to));
    copy(client, server);
    let _ = back.join();
    Ok(())
}

/// One that breaks off ends both ways at once.
fn copy(mut from: TcpStream, mut to: TcpStream) {
    let end = match std::io::copy(&mut from, &mut to) {
        Ok(_) => Shutdown::Write,
        Err(_) => Shutdown::Both,
    };
    let _ = to.shutdown(end);
}
