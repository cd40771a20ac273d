//! Sharing: off until the owner agrees, and readable by the owner byte for byte.
//!
//! What is to be shared waits in an outbox, one durable file an event. A batch is made of it, sealed,
//! and durable with its plaintext before its first byte is on the wire; the same sealed bytes are sent
//! until the intake has them, under their own digest, so that nothing is lost and nothing counts twice.

mod agreement;
mod batch;
mod class;
mod content;
mod desk;
mod erase;
mod event;
mod outbox;
mod region;
mod send;
mod show;

pub use agreement::{Agreement, Consent, Decision, STATEMENT, statement_digest};
pub use class::{Class, Mode};
pub use content::{CONTENT_BYTES_MAX, Collects, FileOffer, FoundBy, InstalledRules};
pub use desk::{Recorded, Share, SharePorts};
pub use event::{Body, EventId, Found, ShareEvent, Statistic, Tally};
pub use outbox::Bounds;
pub use region::RegionSeal;
pub use send::{Outcome, Seal, SealRefused, Sending};
pub use show::{After, SentObjects, ShareState, Shown};
