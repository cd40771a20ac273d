//! One blocking client for everybody.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;
use std::{fmt, str};

use serde::Serialize;
use serde::de::DeserializeOwned;
use stdx::Digest;

use crate::error::{ErrorBody, ErrorClass};
use crate::transport::{Ahead, Answer, Body, Http, MediaType, Request, Transport};

/// An error body is a few lines; more of it is cut off.
const ERROR_BYTES_MAX: u64 = 64 << 10;

/// Where a service is: `http://host:port` or `https://host/prefix`, without a final slash.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BaseUrl(String);

/// A text that is no base URL.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{0}` is not a URL like http://host:port or https://host/prefix")]
pub struct UrlError(String);

impl str::FromStr for BaseUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        let rest = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
        let good = rest.is_some_and(|rest| {
            !rest.is_empty()
                && !rest.starts_with('/')
                && !rest.contains(|c: char| c.is_whitespace() || matches!(c, '?' | '#' | '@'))
        });
        if good {
            Ok(Self(text.trim_end_matches('/').to_owned()))
        } else {
            Err(UrlError(text.chars().take(200).collect()))
        }
    }
}

impl fmt::Display for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl BaseUrl {
    /// The URL of `path`, which begins with a slash.
    #[must_use]
    pub fn join(&self, path: &str) -> String {
        format!("{}{path}", self.0)
    }
}

impl serde::Serialize for BaseUrl {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for BaseUrl {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// At most so many bytes of a body are read; a longer one is an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BodyLimit(pub u64);

/// The body of an error as it came, cut off after 64 KiB.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RawBody {
    /// `type/subtype` in lower case, without parameters; empty if there is none.
    pub media_type: String,
    /// The bytes.
    pub bytes: Vec<u8>,
}

/// Why a request gave nothing usable. `url` names the object in each.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No answer.
    #[error("{url}: no answer: {error}")]
    Unreachable {
        /// The URL.
        url: String,
        /// Why.
        error: String,
    },
    /// The server refused, or can't now.
    #[error("{url}: {status}: {message}", message = body.message)]
    Status {
        /// The URL.
        url: String,
        /// The HTTP status.
        status: u16,
        /// What the server says.
        body: Box<ErrorBody>,
        /// The same as it came: protocols of others put more than words there.
        raw: Box<RawBody>,
        /// When to try again, where the server says so.
        retry_after: Option<Duration>,
    },
    /// A body longer than it may be.
    #[error("{url}: the answer is longer than {limit} bytes")]
    TooLong {
        /// The URL.
        url: String,
        /// The limit.
        limit: u64,
    },
    /// A body that is not what was asked for.
    #[error("{url}: the answer can't be read: {error}")]
    Syntax {
        /// The URL.
        url: String,
        /// Why.
        error: String,
    },
}

impl ClientError {
    /// What the caller can do.
    #[must_use]
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Unreachable { .. } => ErrorClass::Unavailable,
            Self::Status { status, .. } => ErrorClass::of_status(*status).unwrap_or(ErrorClass::Rejected),
            Self::TooLong { .. } | Self::Syntax { .. } => ErrorClass::Rejected,
        }
    }

    /// The HTTP status, if the server answered with one.
    #[must_use]
    pub const fn status(&self) -> Option<u16> {
        match self {
            Self::Status { status, .. } => Some(*status),
            _ => None,
        }
    }

    /// The code, if the server answered with one of ours.
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        match self {
            Self::Status { body, .. } => Some(&body.code),
            _ => None,
        }
    }
}

/// What a conditional request gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// What the caller has.
    None,
    /// Another body.
    Body(Vec<u8>),
}

/// The entity tag of a body whose server names it by content.
#[must_use]
pub fn entity_tag(body: &Digest) -> String {
    format!("\"{body}\"")
}

/// A client; cheap to clone, keeps connections open. It blocks.
#[derive(Clone)]
pub struct Client {
    transport: Arc<dyn Transport>,
    timeout: Duration,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

impl Client {
    /// A client whose requests end, with an error, after `timeout`.
    #[must_use]
    pub fn new(timeout: Duration) -> Self {
        Self::over(Arc::new(Http::new()), timeout)
    }

    /// A client whose requests go another way than HTTP.
    #[must_use]
    pub fn over(transport: Arc<dyn Transport>, timeout: Duration) -> Self {
        Self { transport, timeout }
    }

    /// The same client with more or less patience.
    #[must_use]
    pub fn with_timeout(&self, timeout: Duration) -> Self {
        Self { transport: Arc::clone(&self.transport), timeout }
    }

    /// The same client with what a server gave before it was asked: `GET` of these URLs is answered by that. `None` is
    /// what the server has not.
    #[must_use]
    pub fn ahead(&self, files: BTreeMap<String, Option<Vec<u8>>>) -> Self {
        let others = Arc::clone(&self.transport);
        Self { transport: Arc::new(Ahead { files, others }), timeout: self.timeout }
    }

    /// `GET`, at most `limit` bytes.
    ///
    /// # Errors
    /// [`ClientError`], also for every status from 300 on.
    pub fn get(&self, url: &str, limit: BodyLimit) -> Result<Vec<u8>, ClientError> {
        read(url, self.send(url, Body::Nothing)?, limit)
    }

    /// `GET`, as a stream. The caller bounds how much of it is read; the client's timeout bounds
    /// the whole of it.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub fn open(&self, url: &str) -> Result<impl std::io::Read + use<>, ClientError> {
        let answer = self.send(url, Body::Nothing)?;
        match answer.status {
            300.. => Err(refused(url, answer)),
            _ => Ok(answer.body),
        }
    }

    /// `POST` of JSON, answered with a stream. As for [`Client::open`], the caller bounds how much of it is read.
    ///
    /// # Errors
    /// As [`Client::get`], and [`ClientError::Syntax`].
    pub fn post_open(&self, url: &str, body: &impl Serialize) -> Result<Box<dyn std::io::Read>, ClientError> {
        let syntax = |error: serde_json::Error| ClientError::Syntax { url: url.to_owned(), error: error.to_string() };
        let body = serde_json::to_vec(body).map_err(syntax)?;
        let answer = self.send(url, Body::Json(&body))?;
        match answer.status {
            300.. => Err(refused(url, answer)),
            _ => Ok(answer.body),
        }
    }

    /// `GET`, where 404 is an answer.
    ///
    /// # Errors
    /// As [`Client::get`], but for 404.
    pub fn find(&self, url: &str, limit: BodyLimit) -> Result<Option<Vec<u8>>, ClientError> {
        match self.get(url, limit) {
            Ok(body) => Ok(Some(body)),
            Err(ClientError::Status { status: 404, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// `GET`, unless the server still has the body that the caller has. Servers that don't name
    /// bodies by their content send it again.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub fn get_changed(&self, url: &str, known: Option<&Digest>, limit: BodyLimit) -> Result<Change, ClientError> {
        let tag = known.map(entity_tag);
        let answer = self.send(url, tag.as_deref().map_or(Body::Nothing, Body::Unless))?;
        match (answer.status, known) {
            (304, Some(_)) => Ok(Change::None),
            _ => read(url, answer, limit).map(Change::Body),
        }
    }

    /// `GET` of one piece: exactly the bytes of `range`, which is not empty.
    ///
    /// # Errors
    /// As [`Client::get`], and [`ClientError::Syntax`] for any other piece, or the whole.
    pub fn get_piece(&self, url: &str, range: Range<u64>) -> Result<Vec<u8>, ClientError> {
        let other = |error: String| ClientError::Syntax { url: url.to_owned(), error };
        let answer = self.send(url, Body::Piece(range.start, range.end))?;
        if answer.status < 300 && answer.status != 206 {
            return Err(other(format!("it is no piece (status {})", answer.status)));
        }
        let wanted = range.end.saturating_sub(range.start);
        let piece = read(url, answer, BodyLimit(wanted))?;
        if piece.len() as u64 == wanted {
            Ok(piece)
        } else {
            Err(other(format!("it has {} bytes, not {wanted}", piece.len())))
        }
    }

    /// `GET` of JSON.
    ///
    /// # Errors
    /// As [`Client::get`], and [`ClientError::Syntax`].
    pub fn get_json<T: DeserializeOwned>(&self, url: &str, limit: BodyLimit) -> Result<T, ClientError> {
        parse(url, &self.get(url, limit)?)
    }

    /// `POST` of bytes.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub fn post(&self, url: &str, body: &[u8], limit: BodyLimit) -> Result<Vec<u8>, ClientError> {
        read(url, self.send(url, Body::Bytes(body))?, limit)
    }

    /// `POST` of bytes of another type.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub fn post_as(
        &self,
        url: &str,
        media_type: MediaType,
        body: &[u8],
        limit: BodyLimit,
    ) -> Result<Vec<u8>, ClientError> {
        read(url, self.send(url, Body::Typed(media_type, body))?, limit)
    }

    /// `PUT` of a body that is read as it is sent.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub fn put(&self, url: &str, body: impl std::io::Read) -> Result<(), ClientError> {
        let mut body = body;
        read(url, self.send(url, Body::Stream(&mut body))?, BodyLimit(ERROR_BYTES_MAX)).map(drop)
    }

    /// `POST` of JSON, answered with JSON.
    ///
    /// # Errors
    /// As [`Client::get`], and [`ClientError::Syntax`].
    pub fn post_json<T: DeserializeOwned>(
        &self,
        url: &str,
        body: &impl Serialize,
        limit: BodyLimit,
    ) -> Result<T, ClientError> {
        let syntax = |error: serde_json::Error| ClientError::Syntax { url: url.to_owned(), error: error.to_string() };
        let body = serde_json::to_vec(body).map_err(syntax)?;
        parse(url, &read(url, self.send(url, Body::Json(&body))?, limit)?)
    }

    fn send<'a>(&self, url: &'a str, body: Body<'a>) -> Result<Answer, ClientError> {
        let request = Request { url, body, timeout: self.timeout };
        self.transport.send(request).map_err(|error| ClientError::Unreachable { url: url.to_owned(), error })
    }
}

fn read(url: &str, answer: Answer, limit: BodyLimit) -> Result<Vec<u8>, ClientError> {
    if answer.status >= 300 {
        return Err(refused(url, answer));
    }
    let mut body = Vec::new();
    answer
        .body
        .take(limit.0.saturating_add(1))
        .read_to_end(&mut body)
        .map_err(|error| ClientError::Unreachable { url: url.to_owned(), error: error.to_string() })?;
    if body.len() as u64 > limit.0 {
        return Err(ClientError::TooLong { url: url.to_owned(), limit: limit.0 });
    }
    Ok(body)
}

fn refused(url: &str, answer: Answer) -> ClientError {
    let Answer { status, retry_after, media_type, body } = answer;
    let mut bytes = Vec::new();
    // The status is the news; a body that breaks off says nothing.
    if body.take(ERROR_BYTES_MAX).read_to_end(&mut bytes).is_err() {
        bytes.clear();
    }
    let body = serde_json::from_slice(&bytes).unwrap_or_else(|_| ErrorBody {
        code: "http".to_owned(),
        message: String::from_utf8_lossy(&bytes).trim().chars().take(500).collect(),
        hint: None,
    });
    let raw = Box::new(RawBody { media_type, bytes });
    ClientError::Status { url: url.to_owned(), status, body: Box::new(body), raw, retry_after }
}

fn parse<T: DeserializeOwned>(url: &str, body: &[u8]) -> Result<T, ClientError> {
    serde_json::from_slice(body).map_err(|error| ClientError::Syntax { url: url.to_owned(), error: error.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base_urls_have_no_final_slash_and_nothing_odd() {
        assert_eq!("http://127.0.0.1:80/".parse::<BaseUrl>().unwrap().join("/a"), "http://127.0.0.1:80/a");
        for bad in ["", "ftp://a", "http://", "http:///a", "http://a b", "http://a?x", "http://u@h"] {
            assert!(bad.parse::<BaseUrl>().is_err(), "{bad}");
        }
    }
}
