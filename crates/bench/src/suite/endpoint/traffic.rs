//! Counts what goes over the wire: heads and bodies, both ways.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Passes connections on to a server and counts the bytes.
pub(super) struct Relay {
    address: String,
    bytes: Arc<AtomicU64>,
}

impl Relay {
    pub(super) fn before(server: &str) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?.to_string();
        let bytes = Arc::new(AtomicU64::new(0));
        let (counted, server) = (Arc::clone(&bytes), server.to_owned());
        // It ends with the process.
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(&server) else { continue };
                for (from, to) in [(&client, &server), (&server, &client)] {
                    let (Ok(from), Ok(to)) = (from.try_clone(), to.try_clone()) else { continue };
                    let counted = Arc::clone(&counted);
                    std::thread::spawn(move || pass(from, to, &counted));
                }
            }
        });
        Ok(Self { address, bytes })
    }

    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// The bytes since the last call.
    pub(super) fn take(&self) -> u64 {
        self.bytes.swap(0, Ordering::SeqCst)
    }
}

/// Until either side is gone; that is how connections end.
fn pass(mut from: TcpStream, mut to: TcpStream, counted: &AtomicU64) {
    let mut buffer = [0; 16 << 10];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        counted.fetch_add(count as u64, Ordering::SeqCst);
        if to.write_all(buffer.get(..count).unwrap_or_default()).is_err() {
            break;
        }
    }
    // The other side learns that no more comes; if it is gone, there is nobody to tell.
    let _ = to.shutdown(Shutdown::Write);
}
