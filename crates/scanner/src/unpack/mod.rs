//! Opens containers: archives, compressed streams, mail and documents, one inside the other.
//!
//! # In scope
//! Finding out by their bytes what containers a file is, handing out every member, depth first, and telling
//! what could not be opened or was ended by a bound.
//! # Out of scope
//! Rules (the visitor's work), executable packers, passwords, and archives in several volumes.
//! # Invariants
//! - Names are labels. Nothing is written anywhere, and no name is ever a path of this machine.
//! - Memory grows with bytes that came out, never with sizes that a header claims.
//! - Whatever ends early leaves a [`Note`](detection::Note), and what had come out by then is handed out all the same.
//!
//! `docs/formats/scan.md` lists the formats and what is covered of each.

mod arj;
mod cab;
mod codecs;
mod detect;
mod fields;
mod label;
mod mail;
mod note;
mod office;
mod ole;
mod pdf;
mod sequences;
mod seven;
mod streams;
mod tar;
mod text;
mod timed;
mod walk;
mod zip;

pub use walk::{Totals, Visitor, unpack};
