//! Who read what: the entries about access to data, found again, counted, and held against each other.
//!
//! # In scope
//! An index of the log's access statements, built from verified entries alone and searched without the log
//! ([`Index`], [`Filter`]); what is missing or does not agree, in the streams, the outcomes and the custodians'
//! reports ([`Finding`]); a timeline and its picture. The private parts beside the log ([`Private`]): who may
//! bring them, who gets them, and when they are deleted (`docs/formats/ledger.md`).
//!
//! # Out of scope
//! Fetching the log and comparing it with what was seen before and with the witnesses (`log`), asking anybody
//! anything, and the decision to open data (`custody`).
//!
//! # Invariants
//! - The index is derived: who deletes it loses nothing.
//! - No private part is stored without a logged statement that commits to it, given out without a logged
//!   review whose key it is sealed to, or deleted without a logged, approved redaction.

mod names;
mod row;

mod custodians;
mod facts;
mod streams;

mod apply;
mod index;

mod filter;
mod picture;
mod search;

mod message;
mod private;
mod redaction;
mod review;

pub use apply::Update;
pub use facts::{Finding, FindingKind};
pub use filter::{AccessState, Filter, What};
pub use index::{Index, IndexError};
pub use message::{BringObjects, BringOpenings, Disclose, Disclosed, Redact};
pub use picture::{bars, svg};
pub use private::{Brought, OBJECT_LIST_BYTES_MAX, Private, PrivateError, object_list_root, parse_object_list};
pub use redaction::{Redacting, RedactionError};
pub use review::{DISCLOSED_MAX, Disclosure, ReviewError, Reviewing, open_disclosure};
pub use search::{Access, Bucket, Found, Page, Sums, Timeline, Wanted};
