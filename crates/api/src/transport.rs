//! How requests travel.

use std::collections::BTreeMap;
use std::io::{Cursor, Read};
use std::sync::Arc;
use std::time::Duration;

use stdx::Digest;

use crate::client::entity_tag;

/// Opening a connection takes a small part of a request's time, or the other side is not there.
const CONNECT_MAX: Duration = Duration::from_secs(10);

/// A request on its way.
pub struct Request<'a> {
    /// Where to.
    pub url: &'a str,
    /// What with.
    pub body: Body<'a>,
    /// When it ends with an error, its answer's body included.
    pub timeout: Duration,
}

/// The type of a body, where a protocol of others demands one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MediaType(pub &'static str);

/// What a request carries, which says its method too.
pub enum Body<'a> {
    /// `GET`.
    Nothing,
    /// `GET`, unless the body still has this entity tag (304).
    Unless(&'a str),
    /// `GET` of the bytes from the first to before the second (206).
    Piece(u64, u64),
    /// `POST` of bytes.
    Bytes(&'a [u8]),
    /// `POST` of bytes of another type.
    Typed(MediaType, &'a [u8]),
    /// `POST` of JSON.
    Json(&'a [u8]),
    /// `PUT` of bytes that are read as they are sent.
    Stream(&'a mut dyn Read),
}

/// What came back, whatever its status.
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// When to try again, where the server says so.
    pub retry_after: Option<Duration>,
    /// `type/subtype` in lower case, without parameters; empty if there is none.
    pub media_type: String,
    /// The body; it may end with an error.
    pub body: Box<dyn Read>,
}

/// The port behind [`crate::Client`]: HTTP in every product, something in memory where a
/// simulation carries requests itself.
///
/// - *Trust*: none; whatever it gives is checked by who asked.
/// - *Retry*: a request that ended with an error may still have had its effect.
pub trait Transport: Send + Sync {
    /// Sends a request and waits for the head of its answer.
    ///
    /// # Errors
    /// Why there is no answer, in words.
    fn send(&self, request: Request<'_>) -> Result<Answer, String>;
}

/// Connections to one server that wait for the next request. With fewer than there are requests at once (ureq keeps
/// three), most requests would make a connection of their own, and buffers for it.
const IDLE_PER_HOST_MAX: usize = 64;

/// HTTP/1.1 over TCP or TLS.
pub(crate) struct Http {
    agent: ureq::Agent,
}

impl Http {
    pub(crate) fn new() -> Self {
        let config = ureq::Agent::config_builder()
            // Statuses carry meaning (409 of a witness, say), so they are read, not thrown.
            .http_status_as_error(false)
            .max_redirects(0)
            .max_idle_connections_per_host(IDLE_PER_HOST_MAX)
            .max_idle_connections(4 * IDLE_PER_HOST_MAX)
            .user_agent(concat!("clerestory/", env!("CARGO_PKG_VERSION")))
            .build();
        Self { agent: config.into() }
    }
}

impl Transport for Http {
    fn send(&self, request: Request<'_>) -> Result<Answer, String> {
        let Request { url, body, timeout } = request;
        let get = || within(timeout, self.agent.get(url));
        let post = |media_type| within(timeout, self.agent.post(url)).content_type(media_type);
        let put = |media_type| within(timeout, self.agent.put(url)).content_type(media_type);
        let response = match body {
            Body::Nothing => get().call(),
            Body::Unless(tag) => get().header("if-none-match", tag).call(),
            // HTTP names the last byte, not the end.
            Body::Piece(start, end) => get().header("range", format!("bytes={start}-{}", end.saturating_sub(1))).call(),
            Body::Bytes(bytes) => post("application/octet-stream").send(bytes),
            Body::Typed(MediaType(media_type), bytes) => post(media_type).send(bytes),
            Body::Json(bytes) => post("application/json").send(bytes),
            Body::Stream(mut stream) => put("application/octet-stream").send(ureq::SendBody::from_reader(&mut stream)),
        };
        let response = response.map_err(|error| error.to_string())?;
        let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
        let retry_after = header("retry-after").and_then(|value| value.parse().ok()).map(Duration::from_secs);
        let content_type = header("content-type").unwrap_or_default();
        let media_type = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        let status = response.status().as_u16();
        Ok(Answer { status, retry_after, media_type, body: Box::new(response.into_body().into_reader()) })
    }
}

/// What a server gave before it was asked: requests for that are answered from here, all others travel on.
pub(crate) struct Ahead {
    /// By URL; `None` is what it has not.
    pub(crate) files: BTreeMap<String, Option<Vec<u8>>>,
    pub(crate) others: Arc<dyn Transport>,
}

impl Transport for Ahead {
    fn send(&self, request: Request<'_>) -> Result<Answer, String> {
        let asked = match &request.body {
            Body::Nothing => Some(None),
            Body::Unless(tag) => Some(Some(*tag)),
            _ => None,
        };
        let (Some(unless), Some(file)) = (asked, self.files.get(request.url)) else { return self.others.send(request) };
        let (status, body) = match file {
            None => (404, Vec::new()),
            Some(bytes) if unless == Some(&entity_tag(&Digest::of(bytes))) => (304, Vec::new()),
            Some(bytes) => (200, bytes.clone()),
        };
        Ok(Answer { status, retry_after: None, media_type: String::new(), body: Box::new(Cursor::new(body)) })
    }
}

fn within<B>(timeout: Duration, request: ureq::RequestBuilder<B>) -> ureq::RequestBuilder<B> {
    request.config().timeout_global(Some(timeout)).timeout_connect(Some(timeout.min(CONNECT_MAX))).build()
}
