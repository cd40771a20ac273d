//! The endpoint: installs what the evidence allows, keeps the last good version, and remembers.
//!
//! # In scope
//! Fetching from the channel's mirrors, asking `verify`, installing into two slots, reverting,
//! imports from a stick, the endpoint's own monotonic state with its journal; testing rules before they
//! are used, keeping a scanner with them, having it look at what changes, and reporting how rules fare
//! where the owner agreed to that; looking files up, and sharing what the owner agrees to.
//!
//! # Out of scope
//! What a product does, scanning itself (other crates), sealing (a port), and every decision on evidence:
//! those are made in `verify`.
//!
//! # Invariants
//! - Content gets into a slot only by an `Approved<Release>`, verified while it streamed in.
//! - What was seen (checkpoints, evidence time, status, metadata) only grows.
//! - Each change of a slot is an intent that is durable before it is applied; opening the state
//!   applies what is pending, by the same code.
//! - Not a byte is shared that the owner did not agree to; what is shared lies in the journal first.
//! - Rules are switched to only after a confined child has compiled and tested them.
//! - Stale is not dead: what is installed stays; only what is new is refused, and that is said.

mod canary;
mod channel_source;
mod config;
mod disk;
mod endpoint;
mod failure;
mod guard;
mod health;
mod import;
mod journal;
mod lookup;
mod memory;
mod mirrors;
mod news;
mod origin;
mod patience;
mod report;
mod round;
mod rules;
mod share;
mod slots;
mod status;
mod tiles;
mod trust;
mod update;
mod watch;

pub use canary::{Canary, CanaryStatus, Offer};
pub use channel_source::Progress;
pub use config::{
    CanarySection, Config, ConfigError, Health, LimitAges, LogMirror, LookupSection, Network, Product, ScanSection,
    ShareSection,
};
pub use disk::{Disk, Move, RealDisk};
pub use endpoint::{Endpoint, Genesis, Ports};
pub use failure::Failure;
pub use guard::{Findings, Guard, Told};
pub use journal::Event;
pub use lookup::{BucketSays, Known, SetSays, Target, look_up};
pub use origin::RuleOrigin;
pub use report::{Change, Report};
pub use round::round;
pub use rules::Gate;
pub use share::{
    After, Agreement, Body, Bounds, CONTENT_BYTES_MAX, Class, Collects, Consent, Decision, EventId, FileOffer, Found,
    FoundBy, InstalledRules, Mode, Outcome, Recorded, RegionSeal, STATEMENT, Seal, SealRefused, Sending, SentObjects,
    Share, ShareEvent, SharePorts, ShareState, Shown, Statistic, Tally, statement_digest,
};
pub use slots::{Installed, InstalledFile, Slot};
pub use status::{LaneState, LogState, ProductState, StatusReport};
pub use watch::{Ahead, Watch};

/// Doors for `crates/fuzz` to parsers that no caller needs.
#[cfg(fuzzing)]
pub mod fuzzing {
    /// Reads the endpoint's memory and a product's record; what is read and written is read as the same.
    pub fn state(bytes: &[u8]) {
        same::<crate::memory::Memory>(bytes);
        same::<crate::slots::Record>(bytes);
    }

    fn same<T: serde::Serialize + serde::de::DeserializeOwned + PartialEq + std::fmt::Debug>(bytes: &[u8]) {
        let Ok(value) = serde_json::from_slice::<T>(bytes) else { return };
        let written = serde_json::to_vec(&value).expect("what was read");
        assert_eq!(serde_json::from_slice::<T>(&written).expect("what was written"), value);
    }
}
