//! Requests that are answered before their body was read.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use axum::body::{Body, HttpBody};
use axum::extract::Request;
use axum::response::Response;
use bytes::Bytes;
use http::{HeaderValue, header};
use http_body::{Frame, SizeHint};

/// Whether a request's body was read to its end.
pub(super) struct Unread(Arc<AtomicBool>);

impl Unread {
    /// Looks on while the body is read.
    pub(super) fn watch(request: Request) -> (Self, Request) {
        let read = Arc::new(AtomicBool::new(request.body().is_end_stream()));
        let watched = Arc::clone(&read);
        (Self(read), request.map(|body| Body::new(Watched { body, read: watched })))
    }

    /// Tells the client not to use the connection again if some of its body was left: whether the server can go on with
    /// it depends on what has come by then, and a client that isn't told loses its next request (RFC 9112, section 9.6).
    pub(super) fn close(&self, response: &mut Response) {
        if !self.0.load(Ordering::Relaxed) {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
    }
}

struct Watched {
    body: Body,
    read: Arc<AtomicBool>,
}

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        if matches!(frame, Poll::Ready(None)) || self.body.is_end_stream() {
            self.read.store(true, Ordering::Relaxed);
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
