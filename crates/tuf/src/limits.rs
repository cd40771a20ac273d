//! How much a repository may make a client read.

/// Limits on what comes from a repository. The default suits our channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a root (the specification's W, 5.3.3). A key takes about 250 bytes and a signature
    /// 220: 512 KiB hold a thousand of each.
    pub root_bytes: u64,
    /// New roots in one update (Y, 5.3.3): a root every month for 85 years.
    pub roots: u32,
    /// Bytes of a timestamp (X, 5.4.1): one entry of 150 bytes and some signatures.
    pub timestamp_bytes: u64,
    /// Bytes of a snapshot (5.5.1): 150 for each role, so 4 MiB list 25,000 roles.
    pub snapshot_bytes: u64,
    /// Bytes of a targets file (5.6.1): about 400 for each target, so 16 MiB list 40,000.
    pub targets_bytes: u64,
    /// Roles visited in one search (5.6.7.1); our channel has three.
    pub visited_roles: usize,
    /// Bytes of a target: the largest product with room to grow.
    pub target_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        const KIB: u64 = 1 << 10;
        const MIB: u64 = 1 << 20;
        Self {
            root_bytes: 512 * KIB,
            roots: 1 << 10,
            timestamp_bytes: 16 * KIB,
            snapshot_bytes: 4 * MIB,
            targets_bytes: 16 * MIB,
            visited_roles: 32,
            target_bytes: 4 << 30,
        }
    }
}
