//! How far containers are opened.

use serde::{Deserialize, Serialize};

/// How far containers are opened. All bounds hold at the same time; together with `Limits::file_time` they
/// bound what a bomb costs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unpacking {
    /// Containers within containers; the file itself is at depth 0.
    pub depth: u32,
    /// Members of one file, at all depths.
    pub members: u64,
    /// Bytes of one member; what lies behind them is not looked at.
    pub member_bytes: u64,
    /// Bytes taken out of one file, at all depths.
    pub bytes: u64,
    /// Bytes of decoded members in memory at the same time: one member at each depth.
    pub held_bytes: u64,
    /// Bytes taken out for each byte of the file, beyond `free_bytes`.
    pub ratio: u64,
    /// Bytes taken out that need no justification by the file's size.
    pub free_bytes: u64,
    /// The window that a compressed stream may ask for.
    pub window_bytes: u32,
    /// Notes about one file that are told; more are only counted.
    pub notes: u64,
}

/// A mail with an archive with an installer with a cabinet with a document with a macro is 6, a compressed
/// tar counts twice; and 4 to spare.
const DEPTH: u32 = 16;

/// The largest archives of source code have 85,000 files (Linux 6).
const MEMBERS: u64 = 100_000;

/// As much as is read of a file that is in no container.
const MEMBER_BYTES: u64 = 256 << 20;

/// The largest installers and images hold a few GiB; more than that takes longer than `Limits::file_time`.
const BYTES: u64 = 4 << 30;

/// A compressed tar of the largest size, and a member of half of it.
const HELD_BYTES: u64 = 384 << 20;

/// Deflate gives 1,032 for 1 at most; documents and logs stay below 50 in one layer and 100 in two.
const RATIO: u64 = 250;

/// A packed file of zeros of this size is nothing to worry about.
const FREE_BYTES: u64 = 64 << 20;

/// `xz -9` asks for 64 MiB, and `zstd --ultra -22` for 128 MiB where there is so much to compress.
const WINDOW_BYTES: u32 = 128 << 20;

/// With names of 255 bytes at 16 depths, and every byte escaped, they take 4 MB of an answer's 16 MiB.
const NOTES: u64 = 500;

impl Unpacking {
    /// What a file of `file_bytes` may give in all before it counts as a bomb.
    #[must_use]
    pub fn justified(&self, file_bytes: u64) -> u64 {
        self.free_bytes.saturating_add(self.ratio.saturating_mul(file_bytes))
    }

    /// What unpacking one file holds at most: members in buffers that grow by half, and two windows, because
    /// one that grows is there twice for a moment.
    pub(super) fn memory(&self) -> u64 {
        self.held_bytes / 2 * 3 + 2 * u64::from(self.window_bytes)
    }
}

impl Default for Unpacking {
    fn default() -> Self {
        Self {
            depth: DEPTH,
            members: MEMBERS,
            member_bytes: MEMBER_BYTES,
            bytes: BYTES,
            held_bytes: HELD_BYTES,
            ratio: RATIO,
            free_bytes: FREE_BYTES,
            window_bytes: WINDOW_BYTES,
            notes: NOTES,
        }
    }
}
