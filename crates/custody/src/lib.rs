//! A custodian: opens its share of a data key when the log already says who reads what, and never before.
//!
//! # In scope
//! What a custodian checks by itself ([`decide`]), without a network and without waiting; its ledger of uses,
//! leases and alarms ([`Ledger`]); the port to its keys ([`ShareKeys`], [`FileKeys`]); sealing what it opened to
//! the workers that the log names. The table of shares that outlives a region's key ([`Table`], [`retire`]).
//! What an owner has erased ([`Erasable`]). `docs/formats/custody.md` says which checks there are, in their order.
//!
//! # Out of scope
//! Who may make a `Recorded` (`verify`). HTTP, and writing the custodian's reports (`server`). What the worker
//! does with what it was given: rows and bytes are its own discipline.
//!
//! # Invariants
//! - [`Admitted`] is made by [`decide`] alone, [`Noted`] by [`Ledger::note`] alone, and only a `Noted` opens
//!   anything: so the entry, the approvals and the custodian's own durable record come before the key.
//! - An intent is used once. Whoever loses the answer makes another intent.
//! - Nobody's word is taken, the gateway's included: what is not in the evidence is not so.
//! - A clock that was set back opens nothing, nor does a status that an older one was put in place of.
//! - Data keys are never joined here.
//! - Nothing is erased but by who knows what the object's name was made of; what was erased is opened for nobody.

mod decide;
mod erase;
mod grant;
mod ledger;
mod objects;
mod outcome;
mod refusal;
mod retire;
mod status;
mod table;

pub use decide::{Admitted, Ask, Custodian, GRANT_AGE_MAX, Seen, decide};
pub use erase::{ERASED_MAX, Erasable, erasable, erasure_subject};
pub use grant::{Closed, ClosedShare, FileKeys, Grant, GrantError, Granted, ShareKeys, grant_info};
pub use ledger::{Erasing, Ledger, LedgerError, Noted, OUTCOME_GRACE, Totals};
pub use objects::{OBJECTS_MAX, objects_root};
pub use outcome::{Concluded, conclude};
pub use refusal::Refusal;
pub use retire::{Live, RetireError, Retired, retire};
pub use status::{Current, STATUS_AGE_MAX, StatusNumber, current};
pub use table::{Change, Table, TableError, TableFolders};
