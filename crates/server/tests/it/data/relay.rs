//! Between a worker and whoever asks it.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;

/// Carries every byte between a worker and whoever asks it, keeps what was asked, and stops when it is told to.
pub(super) struct Relay {
    pub(super) url: String,
    state: Arc<State>,
}

struct State {
    to: Mutex<SocketAddr>,
    asked: Mutex<Vec<Arc<Mutex<Vec<u8>>>>>,
    hold: Mutex<Option<(Sender<()>, Receiver<()>)>>,
}

/// What goes from worker to worker.
const QUESTION: &[u8] = b"POST /v1/hops/questions";

impl Relay {
    pub(super) fn to(to: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::new(State { to: Mutex::new(to), asked: Mutex::default(), hold: Mutex::default() });
        let carries = Arc::clone(&state);
        thread::spawn(move || listener.incoming().for_each(|client| carry(&carries, client.unwrap())));
        Self { url, state }
    }

    /// The next question waits: says when it is there.
    pub(super) fn hold(&self) -> (Receiver<()>, Sender<()>) {
        let ((arrived, arrives), (goes, go)) = (channel(), channel());
        *self.state.hold.lock().unwrap() = Some((arrived, go));
        (arrives, goes)
    }

    /// Who comes from now on is sent away.
    pub(super) fn close(&self) {
        let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        self.redirect(nobody);
    }

    /// Who comes from now on is brought there.
    pub(super) fn redirect(&self, to: SocketAddr) {
        *self.state.to.lock().unwrap() = to;
    }

    /// Everything that was posted: a connection carries several requests.
    pub(super) fn posted(&self) -> Vec<Vec<u8>> {
        let mut posted = Vec::new();
        for asked in self.state.asked.lock().unwrap().iter() {
            let asked = asked.lock().unwrap();
            let begins = |at: &usize| [&b"POST /v1/"[..], b"GET /v1/"].iter().any(|it| asked[*at..].starts_with(it));
            let mut begins: Vec<usize> = (0..asked.len()).filter(begins).collect();
            begins.push(asked.len());
            posted.extend(begins.windows(2).map(|pair| asked[pair[0]..pair[1]].to_vec()));
        }
        posted.retain(|it| it.starts_with(b"POST"));
        posted
    }
}

fn carry(state: &Arc<State>, client: TcpStream) {
    // Nobody may be there any more.
    let Ok(server) = TcpStream::connect(*state.to.lock().unwrap()) else { return };
    let asked = Arc::<Mutex<Vec<u8>>>::default();
    state.asked.lock().unwrap().push(Arc::clone(&asked));
    let (mut from, mut back) = (server.try_clone().unwrap(), client.try_clone().unwrap());
    thread::spawn(move || {
        let _ = std::io::copy(&mut from, &mut back);
        let _ = back.shutdown(Shutdown::Both);
    });
    let (state, mut client, mut server) = (Arc::clone(state), client, server);
    thread::spawn(move || {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(count @ 1..) = client.read(&mut buffer) {
            asked.lock().unwrap().extend_from_slice(&buffer[..count]);
            if buffer[..count].windows(QUESTION.len()).any(|it| it == QUESTION) {
                let hold = state.hold.lock().unwrap().take();
                if let Some((arrived, go)) = hold {
                    let _ = arrived.send(()).is_ok() && go.recv().is_ok();
                }
            }
            if server.write_all(&buffer[..count]).is_err() {
                break;
            }
        }
        let _ = server.shutdown(Shutdown::Both);
    });
}
