//! A small world with real keys, logs and witnesses, for tests of everything above `verify`.
//!
//! # In scope
//! [`World`]: vendor, supervisor, four witnesses (3 of 4, one faulty), two logs in memory, a policy,
//! and the statements of a release, each signed and proven by the same code that products use.
//! [`foreign`]: the programs in Python and JavaScript that look at all this with eyes of their own.
//! [`Custody`]: a region with two custodians. [`Dying`]: a store that fails at one call and from then on.
//! Real services on this machine: [`Postgres`], [`Seaweed`]. [`Strace`]: one file-system call of a
//! real process that fails. [`SmallDisk`]: one that is
//! soon full. [`Capture`]: the packets of a network of the test's own. [`Breadth`], [`figure`] and [`seed`]: how much a torture tries, what it found, and how to try it again. [`files`]: what lies in
//! a folder.
//!
//! # Out of scope
//! Our own processes. Nothing here weakens a check: what a test wants refused, it
//! makes wrong by signing or logging the wrong thing.
//!
//! # Invariants
//! Only tests and measurements depend on this crate.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::missing_panics_doc,
    reason = "a test world that can't be built is a failed test"
)]

mod capture;
mod custody;
mod dying;
mod files;
pub mod foreign;
mod memory_log;
mod party;
mod publisher;
mod release;
mod service;
mod small_disk;
mod strace;
mod torture;
mod world;

pub use capture::{Capture, Captured, Packet, add_address, in_own_network};
pub use custody::{APPROVED_CLASS, COMPACTION, Custody, OPEN_CLASS, PURPOSE, REGION, sealed_wrongly};
pub use dying::{Dying, Effect};
pub use files::files;
pub use memory_log::MemoryLog;
pub use party::Party;
pub use publisher::Publisher;
pub use release::{Build, ReleaseOptions, Released};
pub use service::{ACCESS_KEY_ID, Postgres, SECRET_ACCESS_KEY, Seaweed, write_section};
pub use small_disk::SmallDisk;
pub use strace::{Call, Fault, Strace};
pub use torture::{Breadth, figure, seed};
pub use world::{OTHER_PRODUCT, PRODUCT, RULES_PRODUCT, SUPERVISOR_LOG, VENDOR_LOG, WitnessRule, World};
