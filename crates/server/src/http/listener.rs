//! Where connections come from, and how many at once and for how long.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use anyhow::Context as _;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::config::Listen;
use crate::failure::Failure;

/// Two for each request that is worked on: the other one is idle.
const CONNECTIONS_PER_REQUEST: usize = 2;

/// How long to wait when the system has no more descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Opens the listening socket, or takes over the one on standard input.
///
/// # Errors
/// When the address is in use, or standard input is no listening socket.
pub fn bind(listen: Listen) -> anyhow::Result<TcpListener> {
    let listener = match listen {
        Listen::Address(address) => std::net::TcpListener::bind(address).with_context(|| {
            Failure::refused(format!("can't listen on {address}"))
                .hint("another process may use it; change `listen` in the configuration")
        })?,
        Listen::Stdin => {
            let socket = std::io::stdin().as_fd().try_clone_to_owned().context("can't take over standard input")?;
            let listener = std::net::TcpListener::from(socket);
            listener.local_addr().with_context(|| {
                Failure::usage("standard input is no listening socket")
                    .hint("`listen = \"stdin\"` is for inetd and systemd (StandardInput=socket); else give IP:PORT")
            })?;
            listener
        }
    };
    listener.set_nonblocking(true).context("can't use the listening socket")?;
    TcpListener::from_std(listener).context("can't use the listening socket")
}

/// Gives out at most so many connections at once; further ones wait in the kernel's queue.
#[derive(Debug)]
pub struct LimitedListener {
    listener: TcpListener,
    permits: Arc<Semaphore>,
    idle: Duration,
}

/// How many requests are worked on at once.
#[derive(Clone, Copy, Debug)]
pub struct RequestsMax(pub usize);

/// How many requests wait at once until there is something.
#[derive(Clone, Copy, Debug)]
pub struct WaitingMax(pub usize);

impl LimitedListener {
    /// Limits `listener`. A connection on which nothing moves for `idle` is closed.
    #[must_use]
    pub fn new(listener: TcpListener, limits: (RequestsMax, WaitingMax), idle: Duration) -> Self {
        let (RequestsMax(requests), WaitingMax(waiting)) = limits;
        let permits = requests.saturating_mul(CONNECTIONS_PER_REQUEST).saturating_add(waiting);
        let permits = permits.clamp(1, Semaphore::MAX_PERMITS);
        Self { listener, permits: Arc::new(Semaphore::new(permits)), idle }
    }
}

impl axum::serve::Listener for LimitedListener {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        let permit = Arc::clone(&self.permits).acquire_owned().await.expect("the semaphore is never closed");
        loop {
            match self.listener.accept().await {
                Ok((stream, address)) => {
                    // A head and its body are two writes: the second would wait for the client's
                    // delayed acknowledgement of the first, 40 ms. A connection that is gone already
                    // needs no setting.
                    let _ = stream.set_nodelay(true);
                    let deadline = Box::pin(sleep_until(Instant::now() + self.idle));
                    let connection = Connection { stream, deadline, idle: self.idle, _permit: permit };
                    return (connection, address);
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection that ends when nothing moves on it for too long.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    deadline: Pin<Box<Sleep>>,
    idle: Duration,
    _permit: OwnedSemaphorePermit,
}

impl Connection {
    /// Something moved: the time starts again. Nothing can: the time runs.
    fn watch<T>(&mut self, cx: &mut Context<'_>, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        match polled {
            Poll::Ready(outcome) => {
                let idle = self.idle;
                self.deadline.as_mut().reset(Instant::now() + idle);
                Poll::Ready(outcome)
            }
            Poll::Pending => {
                ready!(self.deadline.as_mut().poll(cx));
                Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
            }
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_read(cx, buffer);
        self.watch(cx, polled)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.watch(cx, polled)
    }

    // Without these, hyper would copy each body into a buffer of each connection.
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, parts);
        self.watch(cx, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
