//! Stands between the gateway and a custodian, and holds a message until the test has done what it likes.

use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{Method, StatusCode, Uri};

use crate::raw;

/// When a message is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Held {
    /// Before the custodian has it.
    Before(&'static str),
    /// When the custodian has answered, before the gateway knows.
    After(&'static str),
}

struct Hold {
    held: Held,
    arrived: Sender<()>,
    go: Receiver<()>,
}

struct Between {
    custodian: SocketAddr,
    hold: Mutex<Option<Hold>>,
}

pub(crate) struct Proxy {
    pub(crate) url: String,
    between: Arc<Between>,
    _runtime: tokio::runtime::Runtime,
}

impl Proxy {
    pub(crate) fn to(custodian: SocketAddr) -> Self {
        let between = Arc::new(Between { custodian, hold: Mutex::default() });
        let router = Router::new().fallback(pass).with_state(Arc::clone(&between));
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        runtime.spawn(async { axum::serve(listener, router).await.unwrap() });
        Self { url, between, _runtime: runtime }
    }

    /// Holds the next message of this kind: says when it is there, and waits then.
    pub(crate) fn hold(&self, held: Held) -> (Receiver<()>, Sender<()>) {
        let ((arrived, arrives), (goes, go)) = (channel(), channel());
        *self.between.hold.lock().unwrap() = Some(Hold { held, arrived, go });
        (arrives, goes)
    }
}

async fn pass(State(between): State<Arc<Between>>, method: Method, uri: Uri, body: Bytes) -> (StatusCode, Vec<u8>) {
    let path = uri.path().to_owned();
    tokio::task::spawn_blocking(move || {
        between.wait(|held| held == Held::Before(held.path()) && held.path() == path);
        // HTTP/1.0 has no chunks: what comes is the body.
        let head = format!("{method} {path} HTTP/1.0\r\nHost: test\r\nContent-Length: {}\r\n\r\n", body.len());
        let answer = raw::send(between.custodian, &[head.as_bytes(), &body].concat());
        between.wait(|held| held == Held::After(held.path()) && held.path() == path);
        (StatusCode::from_u16(answer.status).unwrap(), answer.body)
    })
    .await
    .unwrap()
}

impl Held {
    const fn path(self) -> &'static str {
        match self {
            Self::Before(path) | Self::After(path) => path,
        }
    }
}

impl Between {
    fn wait(&self, is_it: impl Fn(Held) -> bool) {
        let hold = {
            let mut hold = self.hold.lock().unwrap();
            if hold.as_ref().is_some_and(|hold| is_it(hold.held)) { hold.take() } else { None }
        };
        if let Some(Hold { arrived, go, .. }) = hold {
            // Whoever waits may be gone.
            let _ = arrived.send(()).is_ok() && go.recv().is_ok();
        }
    }
}
