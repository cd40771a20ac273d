//! Seals what an endpoint shares, so that nobody reads it without every custodian of its region.
//!
//! # In scope
//! The sealed object: AES-256-GCM frames under a data key of its own, and one share of that key for
//! each custodian, sealed to it by HPKE (RFC 9180): DHKEM(P-256), which an HSM can hold, or X-Wing, so
//! that who keeps the bytes until quantum computers come still lacks a share. Opening a share, joining
//! shares, reading any frame. `docs/formats/seal.md` has the bytes. For whom a country's data is sealed, as the
//! policy says ([`Destination`]). What workers of one intent say to each other ([`Hop`]).
//!
//! # Out of scope
//! Whether anybody may open anything: that is `custody`'s. Where objects lie. Keys in an HSM: only what
//! such a key has agreed on is used here ([`AgreedSecret`]).
//!
//! # Invariants
//! - A data key is made here, used for one object, and never written, printed or given out by whoever
//!   seals: who writes can't read back.
//! - A share opens only for the very object, region, country and class that it was made for: these are
//!   HPKE's `info`.
//! - A country without a region, a region without all its keys, a class that the policy lacks: nothing is
//!   sealed.
//! - Shares that are not all of one object's are refused before a frame is opened, by the key's
//!   commitment; frames that were moved, dropped, doubled or cut off are refused.
//! - Nothing allocates more than the bytes that are there.

mod agreed;
mod curve;
mod destination;
mod frames;
mod header;
mod hop;
mod key;
mod object;
mod owner;
mod share;
mod table;

pub use agreed::AgreedSecret;
pub use attest::BatchId;
pub use destination::{Destination, check_keys};
pub use frames::{FRAME_BYTES, Frame};
pub use header::{Bound, CUSTODIANS_MAX, HEADER_BYTES_MAX, Header, SealedShare};
pub use hop::{Answered, Answering, Answers, Asking, Begun, Hop, HopError, Replies};
pub use key::{Kem, KeyError, PrivateKey, PublicKey};
pub use object::{Custodian, Custodians, OBJECT_BYTES_MAX, OpenError, SealError, Sealed};
pub use owner::{ErasureFile, ErasureFileError, OwnerSecret, OwnerSecretError};
pub use share::{DataKey, Share, Wrapped};
pub use table::{TABLE_ROW_BYTES, TableKey};
