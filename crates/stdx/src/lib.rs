//! The few things every crate needs and the standard library leaves to chance.
//!
//! # In scope
//! Time and randomness as arguments ([`Clock`], [`Entropy`]), content digests ([`Digest`]),
//! writes that survive a crash ([`durable`]), and a file that one process has alone ([`FileLock`]).
//!
//! # Out of scope
//! Anything that knows what Clerestory is.
//!
//! # Invariants
//! This is the only crate that reads the system clock, draws randomness, or renames a file;
//! clippy's `disallowed-methods` keeps it so.

pub mod durable;

mod clock;
mod digest;
mod entropy;
mod lock;

pub use clock::{Clock, ManualClock, SystemClock, TimeError, UnixTime};
pub use digest::{Digest, DigestError, Hasher};
pub use entropy::{Entropy, EntropyError, SystemEntropy};
pub use lock::FileLock;
