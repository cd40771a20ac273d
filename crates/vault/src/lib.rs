//! What endpoints share, kept sealed: taken in once, durable before the receipt, gone after its time.
//!
//! # In scope
//! Which sealed objects a region takes ([`Admission`]); the write-ahead log ([`Wal`]) and the intake with
//! back-pressure over it ([`Intake`], [`Writer`]); segments and the chain of manifests that says which of them
//! a region has ([`Manifests`]), on any [`storage::ObjectStore`]; retention; what workers have written anew, and with
//! which evidence it takes the place of what was there ([`Replacement`]); what goes because its owner wants it
//! ([`Renounced`]); what became of an object ([`Lineage`]). `docs/formats/vault.md` has the bytes.
//!
//! # Out of scope
//! Opening anything: there is no private key here, and who writes can't read back. HTTP (`server`). Who may
//! read (`custody`).
//!
//! # Invariants
//! - A receipt follows the sync of what it is for. After a failed sync nothing more is acknowledged.
//! - An object is in the manifests of its region once, however often it was sent and to however many intakes.
//! - A manifest never changes: of two that would follow one, one is there, and the other follows it.
//! - A segment that a manifest names is there until a later manifest takes it back.
//! - Nothing is left out of what takes another's place but what a custodian has logged that it opens no more.
//! - A segment's name that was taken back never comes again, so that deleting what has it is safe however late.
//! - Nothing takes the place of anything without the word of an enrolled host that it is all of it, and then at once.
//! - What another region, a country without one, or a stranger sealed is not taken.

mod admission;
mod chain;
mod check;
mod intake;
mod lineage;
mod manifest;
mod renounced;
mod rewriting;
mod segment;
mod wal;
mod writer;

pub use admission::{Admission, Refused};
pub use chain::{Announced, Chain, ChainError, Kept, MANIFEST_BYTES_MAX, Manifest, Segment, ToErase, Unread};
pub use check::{Checked, Damage, check, check_wal, copy};
pub use intake::{Intake, IntakeError, Limits, News, Taken};
pub use lineage::{Descent, Lineage};
pub use manifest::{Erased, MANIFESTS_AT_ONCE_MAX, ManifestError, Manifests, evidence_key, manifest_key, segment_key};
pub use renounced::{NotRenounced, Renounced};
pub use rewriting::{Offer, Replacement, RewritingError, Vouched};
pub use segment::{SEGMENT_MARK, SegmentError, objects_of};
pub use wal::{Closed, Wal, WalError};
pub use writer::{Parts, Writer, WriterError, open};
