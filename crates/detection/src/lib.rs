//! What is asked of `clerestory-scan`, the one program that parses rules and files of foreign
//! origin, and what it answers.
//!
//! # In scope
//! The messages between the scanner and who uses it, and [`Worker`]: a handle on a confined child
//! that assembles rules, loads them and scans with them, and that survives the child's end.
//!
//! # Out of scope
//! Parsing rules or files (crate `scanner`, which runs as another process), and what follows from
//! a match.
//!
//! # Invariants
//! - Nothing here interprets a byte of a rule or of a scanned file.
//! - The child gets descriptors, never paths that it could open.
//! - A file that was given is reported once, whatever happens to the child; what was not looked at
//!   is said, with the reason.
//! - Every wait for the child, and all that it says, has a named limit.

mod worker;

pub use worker::{
    Answer, Assembled, Connection, FileReport, Isolation, Item, Limits, Loaded, Match, Note, NoteCode, Received,
    RejectedFile, Request, RulesFile, Scanned, SelfTest, StringHit, Unpacking, WireError, Worker, WorkerError,
    beside_this_program, decode_files, encode_files,
};
