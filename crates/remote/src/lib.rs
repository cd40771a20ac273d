//! Stores beyond one machine: objects on any S3, locks and the catalog in PostgreSQL.
//!
//! # In scope
//! [`S3Objects`] and [`PostgresStore`], behind the ports of `storage` and with its contracts, for
//! any number of processes at once.
//!
//! # Out of scope
//! Who may write when: an engine decides that with a lock. Running the services, and how often they
//! copy what they hold.
//!
//! # Invariants
//! - A store comes into being by `create` only; `open` of what isn't there is an error, and says
//!   whether it was the bucket, the schema or the store that is missing.
//! - A write is reported as done only when the service said so; after any other end the caller is
//!   told that it doesn't know.
//! - `replace` never puts an older content over one that another process put there meanwhile.
//!
//! This is no part of `storage` because of its weight: two clients with HTTP and TLS of their own,
//! about 60 crates that no engine needs to be compiled and tested.

mod error;
mod postgres;
mod s3;

pub use postgres::{PostgresSettings, PostgresStore};
pub use s3::{S3Objects, S3Settings};
