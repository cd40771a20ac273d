//! An append-only log: entries go in, and come back with a proof under a checkpoint that a quorum
//! of witnesses cosigned.
//!
//! # In scope
//! Sequencing ([`Log`], [`Sequencer`]): pool, stage, compare-and-swap, apply, read back, cosign,
//! publish, with recovery as the same path; going on from what was published when the lock is lost
//! ([`Log::resume`]). Reading under a verified checkpoint ([`Reader`]),
//! checking a whole store ([`fsck`]), auditing a log from outside ([`audit`]), and proofs of
//! misbehaviour that a stranger can verify ([`Misbehaviour`]).
//!
//! # Out of scope
//! HTTP (the server implements [`Witness`] and [`TileSource`] over it), what entries mean, and
//! who may append them.
//!
//! # Invariants
//! - Nothing is signed unless the lock store gave this process, and no other, the right to.
//! - Nothing is signed before the log has compared itself with its own history and with so many
//!   witnesses that an honest one of every earlier quorum is among them.
//! - Nothing is published without a quorum; there is no switch for it.
//! - Every cosignature that counts has about this log's own time: a witness that lies about it
//!   counts as silent, and a log whose own clock is wrong publishes nothing and says so.
//! - What was written is read back, and the tree computed from it, before it is published and so
//!   before the next checkpoint is signed.
//! - An appender learns an index only once it can't change.

mod audit;
mod config;
mod dedup;
mod engine;
mod error;
mod fsck;
mod growth;
mod layout;
mod locked;
mod misbehaviour;
mod nodes;
mod open;
mod pool;
mod port;
mod reader;
mod receipt;
mod resume;
mod sequencer;
mod source;
mod staged;
mod witnesses;

pub use audit::{Audit, AuditError, AuditFinding, AuditReport, Auditor, audit};
pub use config::{Faulty, Limits, LogParts};
pub use engine::Log;
pub use error::{Class, ConfigError, Error};
pub use fsck::{Damage, FsckError, FsckParts, FsckReport, fsck};
pub use misbehaviour::{MAX_MISBEHAVIOUR_BYTES, Misbehaviour, MisbehaviourError};
pub use pool::Waiting;
pub use port::{WITNESS_TIMEOUT, Witness, WitnessError};
pub use reader::{ReadError, Reader};
pub use receipt::{Receipt, Ticket};
pub use sequencer::{Observer, Sequencer, Step, Stepped};
pub use source::{ObjectSource, SourceError, TileSource};
