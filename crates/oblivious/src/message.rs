//! The two messages inside, as binary HTTP (RFC 9292): `GET /BITS/HEX`, and 200 with a bucket.

use std::io::Cursor;

use bhttp::{Message, Mode, StatusCode};
use reputation::Prefix;

/// Why a message is none of these.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum MessageError {
    /// Not binary HTTP.
    #[error("no binary HTTP: {0}")]
    Syntax(String),
    /// Something else than a question about a prefix.
    #[error("not a question about a prefix: {0}")]
    Question(String),
    /// An answer that is no bucket.
    #[error("the gateway answers {0}")]
    Status(u16),
}

/// A question: which bucket?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question(pub Prefix);

impl Question {
    /// As binary HTTP.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let path = format!("/{}", self.0).into_bytes();
        write(&Message::request(b"GET".to_vec(), b"https".to_vec(), Vec::new(), path))
    }

    /// Reads a question. Whatever else a request could carry makes it none: there is nothing that
    /// could tell one asker from another.
    ///
    /// # Errors
    /// [`MessageError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, MessageError> {
        let message = read(bytes)?;
        let path = message.control().path().and_then(|path| std::str::from_utf8(path).ok()).unwrap_or_default();
        let prefix = path.strip_prefix('/').unwrap_or_default().parse::<Prefix>();
        let question = Self(prefix.map_err(|error| MessageError::Question(error.to_string()))?);
        if question.to_bytes() == bytes {
            Ok(question)
        } else {
            Err(MessageError::Question("it carries more than a prefix".to_owned()))
        }
    }
}

/// An answer: a status, and a bucket if that is 200.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answered {
    status: u16,
    bucket: Vec<u8>,
}

impl Answered {
    /// With a bucket.
    #[must_use]
    pub const fn bucket(bucket: Vec<u8>) -> Self {
        Self { status: 200, bucket }
    }

    /// Without one: 400 for what is no question, 404 for a prefix of another length.
    #[must_use]
    pub const fn refusal(status: u16) -> Self {
        Self { status, bucket: Vec::new() }
    }

    /// As binary HTTP.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let status = StatusCode::try_from(self.status).unwrap_or(StatusCode::OK);
        let mut message = Message::response(status);
        message.write_content(&self.bucket);
        write(&message)
    }

    /// Reads an answer and gives its bucket.
    ///
    /// # Errors
    /// [`MessageError`].
    pub fn parse(bytes: &[u8]) -> Result<Vec<u8>, MessageError> {
        let message = read(bytes)?;
        match message.control().status().map(StatusCode::code) {
            Some(200) => Ok(message.content().to_vec()),
            Some(status) => Err(MessageError::Status(status)),
            None => Err(MessageError::Syntax("a request".to_owned())),
        }
    }
}

fn write(message: &Message) -> Vec<u8> {
    let mut bytes = Vec::new();
    message.write_bhttp(Mode::KnownLength, &mut bytes).expect("a vector takes everything");
    bytes
}

fn read(bytes: &[u8]) -> Result<Message, MessageError> {
    Message::read_bhttp(&mut Cursor::new(bytes)).map_err(|error| MessageError::Syntax(error.to_string()))
}
