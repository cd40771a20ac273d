//! What is said, by whom: DSSE envelopes, in-toto statements, and Clerestory's predicates.
//!
//! # In scope
//! One canonical encoding of an envelope ([`Envelope`]), of a statement ([`Statement`]) and of a
//! file of evidence ([`Bundle`]); the types of the predicates; the SLSA predicates that others read;
//! the tree manifest whose digest a `source` statement names ([`tree`]).
//!
//! # Out of scope
//! Whether a signer may say it (`policy`), and whether it is true enough to act on (`verify`).
//! Nothing in this crate makes a `Verified`.
//!
//! # Invariants
//! - `parse(bytes)` succeeds only if encoding the result gives the same bytes: a statement has
//!   one encoding, so nothing that names it by digest can be evaded by writing it another way.
//! - A statement's identity is the SHA-256 of its PAE; signatures are no part of it.

pub mod tree;

mod batch_id;
mod bundle;
mod commitment;
mod country;
mod envelope;
mod foreign;
mod names;
mod predicate;
mod statement;

pub use batch_id::{BatchId, BatchIdError};
pub use bundle::{BUNDLE_BYTES_MAX, Bundle, BundleEntry, BundleError};
pub use commitment::{Commitment, OPENING_BYTES_MAX, Opening, OpeningError, PrivateField};
pub use country::{CountryCode, CountryError};
pub use envelope::{
    ENVELOPE_BYTES_MAX, Envelope, EnvelopeError, EnvelopeSignature, KeyRef, PAYLOAD_TYPE, StatementId, pae,
};
pub use foreign::{ForeignEnvelopeError, open_foreign};
pub use names::{
    DataClass, HostId, Lane, NameError, OrganisationId, ProductId, Purpose, RegionId, Release as ReleaseNumber, Ring,
    StreamName,
};
pub use predicate::approval::Approval;
pub use predicate::assembly::{
    BuildResult, Cause, EnvironmentKind, Heartbeat, Mismatch, Reason, Refused, Revision, Source,
};
pub use predicate::canary::{Agreement, Bake, Enrolment, EnrolmentEnd, Health, Outcome};
pub use predicate::data::{
    AccessApproval, AccessCall, AccessIntent, AccessMode, AccessOutcome, AccessRedaction, AccessRequest, AccessReview,
    AccessStop, Budget, CustodyReport, Ended, Erasure, ErasureRequest, ReaderKind, Receipt, RegionStatus, Rewriting,
    Standing, WORKERS_MAX, WorkerEnrolment, WorkerKey, Workers, WorkersError, objects_root,
};
pub use predicate::release::{Artifact, Delta, Promotion, Release};
pub use predicate::slsa::{
    BuildDefinition, BuildMetadata, Builder, Provenance, ResourceDescriptor, RunDetails, Sha256Map, Vsa, VsaInput,
    VsaPolicy, VsaResult, VsaVerifier,
};
pub use predicate::status::{Floor, Mismatched, Revocation, Status, Stop, StopScope};
pub use statement::{Position, Predicate, Statement, StatementError, Subject, TYPE_BASE, predicate_type};
