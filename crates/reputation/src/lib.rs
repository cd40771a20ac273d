//! What is known of files by their SHA-256 alone: a small set for endpoints, and buckets for asking.
//!
//! # In scope
//! Lists of hashes as people write them, the set of known-bad files that a rules release carries
//! (`hashes.fuse`), prefixes of hashes, and the buckets that answer them (`docs/formats/lookup.md`). What is made of
//! what endpoints report (`docs/formats/cloud.md`).
//!
//! # Out of scope
//! How a question travels without its asker's address (`oblivious`), and what follows from a verdict.
//!
//! # Invariants
//! - One list of hashes gives one file, byte for byte, whoever makes it and in whatever order.
//! - A set never misses a hash that it was made of; one in 65,536 others is in it by accident.
//! - No bucket with fewer than [`BUCKET_MIN`] known hashes is given out, and none is believed.
//! - Every answer of one gateway is of one length.
//! - What is known to be good is never malicious, whatever and however much is reported; a verdict rests on rules
//!   of releases, never on somebody's word alone; what was not believed is said.

mod bucket;
mod history;
mod judge;
mod list;
mod prefix;
mod set;

pub use bucket::{ANSWER_BYTES_MAX, Answer, AnswerError, BUCKET_MIN, Known, KnownError, Sources, Verdict};
pub use history::{Counted, FILES_MAX, History, Report, Said};
pub use judge::{Bounds, Grounds, Judged, Standing, Why, judge};
pub use list::{ListError, parse_list};
pub use prefix::{BITS_MAX, Prefix, PrefixBits, PrefixError};
pub use set::{BuildError, HASHES_MAX, ReputationSet, SET_BYTES_MAX, SetError};
