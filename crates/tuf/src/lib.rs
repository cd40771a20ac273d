//! The Update Framework 1.0.34: a client that follows the specification step by step, and a
//! repository that a client of ours would accept.
//!
//! # In scope
//! Metadata and its canonical form, threshold signatures, the client workflow (specification,
//! section 5), delegations, publishing with consistent snapshots (section 6).
//!
//! # Out of scope
//! HTTP (a [`Fetch`]), what time it is (an argument), RSA, ECDSA and SHA-512 (another [`Suite`];
//! the endpoint has [`Ed25519Sha256`] only), mirrors, TAPs, and what a target means.
//!
//! # Invariants
//! - Nothing is written to the [`Store`] before it has passed every check of its step, and it is
//!   written byte for byte as received.
//! - [`Trusted`] is made only by [`Client::refresh`] and [`Client::cached`].
//! - No more bytes are read than a named limit or a signed length allows.
//! - Neither an id nor a key is counted twice towards a threshold.

mod client;
mod delegation;
mod error;
mod json;
mod key;
mod limits;
mod metadata;
mod name;
mod ports;
mod repository;
mod roles;
mod search;
mod sign;

pub use client::Client;
pub use delegation::{DelegatedRole, Delegations, Paths};
pub use error::Error;
pub use json::{Json, JsonError};
pub use key::{Ed25519Sha256, KeyId, KeyRing, PublicKey, RoleKeys, RunningHash, SignedMessage, Suite};
pub use limits::Limits;
pub use metadata::{Authority, Metadata, Signed};
pub use name::{NameError, RoleName, TargetPath};
pub use ports::{Fetch, FetchError, FolderFetch, FolderStore, Location, MemoryStore, Offline, Store, StoreError};
pub use repository::{Change, OnlineKeys, PublishError, PublishedFile, Repository};
pub use roles::{
    Content, Hashes, MetaFile, Root, Signers, Snapshot, TargetFile, Targets, Timestamp, TimestampMeta, TopLevelRoles,
    TopLevelSigners, Version,
};
pub use search::{Target, Trusted};
pub use sign::{Ed25519Signer, SignError, Signer};
