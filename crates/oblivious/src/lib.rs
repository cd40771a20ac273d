//! A question that its relay can't read, to a gateway that does not learn who asks (RFC 9458).
//!
//! # In scope
//! Oblivious HTTP's encapsulation with X25519, HKDF-SHA256 and AES-128-GCM, the gateway's key and
//! its configuration, and the two messages inside: a prefix, and its bucket (RFC 9292).
//!
//! # Out of scope
//! HTTP itself (`server`, `agent`), which key is to be trusted (`policy`), and what is in a bucket
//! (`reputation`).
//!
//! # Invariants
//! - Every question of one prefix length has the same length; so has every answer of one gateway.
//! - A question holds a prefix and nothing else: no header, no authority, no content.
//! - Nothing that comes from outside is longer than a named limit before it is opened.

mod encapsulation;
mod key;
mod message;

pub use encapsulation::{Asked, OpenError, Reply, SealError, ask, open};
pub use key::{GatewayKey, GatewayKeyError, KeyConfiguration, KeyConfigurationError};
pub use message::{Answered, MessageError, Question};

/// What relays are sent and pass on (RFC 9458 §4.2).
pub const REQUEST_TYPE: &str = "message/ohttp-req";

/// What comes back.
pub const RESPONSE_TYPE: &str = "message/ohttp-res";

/// A question is some 80 bytes; another gateway's might be longer.
pub const REQUEST_BYTES_MAX: usize = 1024;

/// A bucket, and less than a hundred bytes around it.
pub const RESPONSE_BYTES_MAX: usize = reputation::ANSWER_BYTES_MAX + 128;
