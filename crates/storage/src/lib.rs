//! Where bytes outlive the process: objects, locks and the catalog, as ports.
//!
//! # In scope
//! The ports [`ObjectStore`], [`LockStore`] and [`Catalog`] with their contracts in prose, their
//! implementations on one machine ([`FileObjects`], [`SqliteStore`]), and one set of tests for
//! every implementation ([`conformance`]).
//!
//! # Out of scope
//! What the bytes mean. Whoever reads them back checks them.
//!
//! # Invariants
//! - What a write reported as done is on disk: it survives the process and the machine.
//! - An immutable object never changes; a key holds one content or none.
//! - Of several compare-and-swaps from one version exactly one wins, and versions are never
//!   used twice.
//! - A store comes into being by `create` only; `open` of what isn't there is an error.

pub mod conformance;

mod catalog;
mod error;
mod file;
mod key;
mod lock;
mod objects;
mod sqlite;

pub use catalog::{Catalog, Enqueued, Job, JobKey, Lease, Record, RecordKey, Term};
pub use error::Error;
pub use file::FileObjects;
pub use key::{Folder, Key, KeyError, Listing, Name};
pub use lock::{LockBatch, LockStore, Swap, Swapping, Version, Versioned};
pub use objects::{MAX_OBJECT_BYTES, Move, ObjectStore, Piece, Put};
pub use sqlite::SqliteStore;
