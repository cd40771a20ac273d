//! `clerestory-scan`: the one program that parses detection rules and files of foreign origin.
//!
//! # In scope
//! The confined child that assembles, compiles and scans ([`work`]); the engine (boreal); what is
//! inside containers; and the scanner for people at a keyboard, which is a caller of that child
//! like any other.
//!
//! # Out of scope
//! Which rules may be used, and what follows from a match: those who start the child decide that.
//!
//! # Invariants
//! - No byte of a rule or of a scanned file is parsed outside of a child that has confined itself.
//! - The child opens nothing: it reads what it is handed, and answers over one socket.
//! - What was not looked at is said; nothing is skipped in silence.
//! - Compiled rules are never read or written: rules are source.

mod assemble;
mod content;
mod engine;
mod self_test;
mod unpack;
mod work;

pub use unpack::{Totals, Visitor, unpack};
pub use work::work;
