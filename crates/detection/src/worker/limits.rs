//! What a child may use.

use std::num::NonZeroU16;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::unpacking::Unpacking;

/// What a child may use, and how much of each file it looks at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// How many files are scanned at the same time.
    pub threads: NonZeroU16,
    /// The most addresses that the whole child may have, in bytes; past it, it dies.
    pub memory: u64,
    /// How many bytes of a file are read; the rest of a longer one is not looked at, and that is said.
    pub file_bytes: u64,
    /// How long one file may take, with everything inside it.
    pub file_time: Duration,
    /// What is taken out of containers.
    pub unpacking: Unpacking,
}

/// The largest program that Debian ships has 150 MiB.
const FILE_BYTES: u64 = 256 << 20;

/// Half a megabyte a second is what a slow rule makes of a small machine.
const FILE_TIME: Duration = Duration::from_secs(60);

/// 7,000 rules take 66 MB compiled, and several times that while they are compiled.
const RULES_MEMORY: u64 = 1 << 30;

impl Limits {
    /// For so many threads. Each may hold a file, in a buffer that doubled, and what is inside it.
    #[must_use]
    pub fn new(threads: NonZeroU16) -> Self {
        let unpacking = Unpacking::default();
        let memory = RULES_MEMORY + (2 * FILE_BYTES + unpacking.memory()) * u64::from(threads.get());
        Self { threads, memory, file_bytes: FILE_BYTES, file_time: FILE_TIME, unpacking }
    }

    /// As many files wait in the child as keep all threads busy while we talk.
    #[must_use]
    pub fn files_under_way(&self) -> usize {
        usize::from(self.threads.get()) * 4
    }
}
