//! The names of tiles and entry bundles, and the bundles' content (C2SP tlog-tiles v0.1.0).

use std::ops::Range;
use std::{fmt, str};

use crate::text;
use crate::{EntryIndex, TreeSize};

/// How many hashes a full tile has, and how many entries a full bundle.
pub const TILE_WIDTH: u16 = 256;

/// The length of an entry is written in 16 bits.
pub const MAX_ENTRY_BYTES: usize = 65_535;

/// 256 entries, each with its length in two bytes.
pub const MAX_BUNDLE_BYTES: usize = 256 * (2 + MAX_ENTRY_BYTES);

/// A tile of level 8 would have a hash over 2^64 entries.
pub(crate) const LEVELS: u8 = 8;

/// Why a tile's name or a bundle was refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum TileError {
    /// No tile of this level, index and width exists in a tree with a 64-bit size.
    #[error("no tree has a tile of level {level}, index {index} and width {width}")]
    Impossible {
        /// The level.
        level: u8,
        /// The index within the level.
        index: u64,
        /// The number of hashes.
        width: u16,
    },
    /// Not a path like `tile/0/x001/234.p/5` or `tile/entries/x001/234.p/5`.
    #[error("`{0}` is not the path of a tile or of an entry bundle")]
    Path(String),
    /// An entry longer than [`MAX_ENTRY_BYTES`].
    #[error("an entry has {0} bytes, the limit is {MAX_ENTRY_BYTES}")]
    EntryTooLarge(usize),
    /// More entries than a bundle holds, or fewer than its width says.
    #[error("a bundle of {expected} entries has {found}")]
    Entries {
        /// The bundle's width.
        expected: u16,
        /// The entries found.
        found: usize,
    },
    /// The bundle ends within an entry, or goes on after the last.
    #[error("the bundle is damaged at byte {0}")]
    Bundle(usize),
}

/// A tile: the `width` hashes from `index`·256 on in the row of subtrees with 256^`level` leaves.
/// Its text is its path below the log's prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TileId {
    level: u8,
    index: u64,
    width: u16,
}

impl TileId {
    /// This tile.
    ///
    /// # Errors
    /// [`TileError::Impossible`]: the width is not 1 to 256, or the tile ends beyond 2^64 entries.
    pub fn new(level: u8, index: u64, width: u16) -> Result<Self, TileError> {
        // The end, (index·256 + width)·256^level, fits into 64 bits.
        let row_end = u128::from(index) * 256 + u128::from(width);
        let possible = level < LEVELS
            && (1..=TILE_WIDTH).contains(&width)
            && row_end <= u128::from(u64::MAX >> (8 * u32::from(level)));
        if possible { Ok(Self { level, index, width }) } else { Err(TileError::Impossible { level, index, width }) }
    }

    /// The tile of this level and index as it stands in a tree of `size`; none if it is empty.
    #[must_use]
    pub fn in_tree(level: u8, index: u64, size: TreeSize) -> Option<Self> {
        if level >= LEVELS {
            return None;
        }
        let row = size.get() >> (8 * u32::from(level));
        let width = row.saturating_sub(index.checked_mul(256)?).min(u64::from(TILE_WIDTH));
        let width = u16::try_from(width).ok()?;
        (width > 0).then_some(Self { level, index, width })
    }

    /// The level: 0 holds leaf hashes.
    #[must_use]
    pub const fn level(self) -> u8 {
        self.level
    }

    /// The index within the level.
    #[must_use]
    pub const fn index(self) -> u64 {
        self.index
    }

    /// How many hashes, 1 to 256.
    #[must_use]
    pub const fn width(self) -> u16 {
        self.width
    }

    /// Whether all 256 hashes are there.
    #[must_use]
    pub const fn is_full(self) -> bool {
        self.width == TILE_WIDTH
    }

    /// The full tile that replaces this one; none if it would end beyond 2^64 entries.
    #[must_use]
    pub fn full(self) -> Option<Self> {
        Self::new(self.level, self.index, TILE_WIDTH).ok()
    }

    /// The length of the tile: 32 bytes a hash.
    #[must_use]
    pub fn bytes(self) -> usize {
        usize::from(self.width) * 32
    }

    /// The entries below this tile's hashes.
    #[must_use]
    pub fn entries(self) -> Range<EntryIndex> {
        let shift = 8 * u32::from(self.level);
        let start = (self.index * 256) << shift;
        EntryIndex::new(start)..EntryIndex::new(start + (u64::from(self.width) << shift))
    }

    /// The bundle with the entries that a tile of level 0 has the hashes of.
    #[must_use]
    pub const fn bundle(self) -> Option<EntryBundleId> {
        if self.level == 0 { Some(EntryBundleId { index: self.index, width: self.width }) } else { None }
    }

    /// The path below the log's prefix, without a leading slash.
    #[must_use]
    pub fn path(self) -> String {
        self.to_string()
    }
}

/// The entries whose leaf hashes a tile of level 0 has. Its text is its path below the log's
/// prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryBundleId {
    index: u64,
    width: u16,
}

impl EntryBundleId {
    /// This bundle.
    ///
    /// # Errors
    /// [`TileError::Impossible`].
    pub fn new(index: u64, width: u16) -> Result<Self, TileError> {
        TileId::new(0, index, width).map(|tile| Self { index: tile.index, width: tile.width })
    }

    /// The bundle that holds `entry` as it stands in a tree of `size`; none if the entry lies
    /// beyond it.
    #[must_use]
    pub fn of_entry(entry: EntryIndex, size: TreeSize) -> Option<Self> {
        if entry.get() >= size.get() {
            return None;
        }
        TileId::in_tree(0, entry.get() / 256, size)?.bundle()
    }

    /// The index.
    #[must_use]
    pub const fn index(self) -> u64 {
        self.index
    }

    /// How many entries, 1 to 256.
    #[must_use]
    pub const fn width(self) -> u16 {
        self.width
    }

    /// The tile with the leaf hashes of these entries.
    #[must_use]
    pub const fn tile(self) -> TileId {
        TileId { level: 0, index: self.index, width: self.width }
    }

    /// The path below the log's prefix, without a leading slash.
    #[must_use]
    pub fn path(self) -> String {
        self.to_string()
    }
}

/// The tiles that a tree of size `end` has and one of size `start` had not (or had narrower), by
/// level and index: what a log writes when it grows.
pub fn tiles_for_growth(sizes: Range<TreeSize>) -> impl Iterator<Item = TileId> {
    (0..LEVELS).flat_map(move |level| tiles_of_level(level, &sizes))
}

/// The entry bundles of [`tiles_for_growth`].
pub fn bundles_for_growth(sizes: Range<TreeSize>) -> impl Iterator<Item = EntryBundleId> {
    tiles_of_level(0, &sizes).filter_map(TileId::bundle)
}

fn tiles_of_level(level: u8, sizes: &Range<TreeSize>) -> impl Iterator<Item = TileId> + use<> {
    let end = sizes.end;
    let shift = 8 * u32::from(level);
    let (old_row, new_row) = (sizes.start.get() >> shift, end.get() >> shift);
    let indexes = if old_row < new_row { old_row / 256..new_row.div_ceil(256) } else { 0..0 };
    indexes.filter_map(move |index| TileId::in_tree(level, index, end))
}

/// Writes entries one after the other, each behind its length in two bytes.
///
/// # Errors
/// [`TileError::EntryTooLarge`]; [`TileError::Entries`] for more than 256 or none.
pub fn encode_bundle<E: AsRef<[u8]>>(entries: &[E]) -> Result<Vec<u8>, TileError> {
    if entries.is_empty() || entries.len() > usize::from(TILE_WIDTH) {
        return Err(TileError::Entries { expected: TILE_WIDTH, found: entries.len() });
    }
    let mut bundle = Vec::with_capacity(entries.iter().map(|entry| 2 + entry.as_ref().len()).sum());
    for entry in entries {
        let entry = entry.as_ref();
        let length = u16::try_from(entry.len()).map_err(|_| TileError::EntryTooLarge(entry.len()))?;
        bundle.extend_from_slice(&length.to_be_bytes());
        bundle.extend_from_slice(entry);
    }
    Ok(bundle)
}

/// The entries of a bundle, without copying. Who read it from outside compares their leaf hashes
/// with the tile.
///
/// # Errors
/// [`TileError::Entries`], [`TileError::Bundle`]: there are not exactly as many entries as the
/// bundle's width says.
pub fn decode_bundle(id: EntryBundleId, bundle: &[u8]) -> Result<Vec<&[u8]>, TileError> {
    let damaged = |rest: &[u8]| TileError::Bundle(bundle.len() - rest.len());
    let mut entries = Vec::with_capacity(usize::from(id.width));
    let mut rest = bundle;
    while !rest.is_empty() {
        if entries.len() == usize::from(id.width) {
            return Err(damaged(rest));
        }
        let (length, after) = rest.split_first_chunk::<2>().ok_or_else(|| damaged(rest))?;
        let length = usize::from(u16::from_be_bytes(*length));
        let (entry, after) = after.split_at_checked(length).ok_or_else(|| damaged(rest))?;
        entries.push(entry);
        rest = after;
    }
    if entries.len() == usize::from(id.width) {
        Ok(entries)
    } else {
        Err(TileError::Entries { expected: id.width, found: entries.len() })
    }
}

/// `<N>[.p/<W>]`: the index in groups of three digits, all but the last after an `x`.
fn write_index(f: &mut fmt::Formatter<'_>, index: u64, width: u16) -> fmt::Result {
    // 2^64 has 20 digits: seven groups.
    let mut groups = [0; 7];
    let mut rest = index;
    for group in &mut groups {
        *group = rest % 1000;
        rest /= 1000;
    }
    let highest = groups.iter().rposition(|&group| group != 0).unwrap_or(0);
    for (position, group) in groups.iter().enumerate().take(highest + 1).rev() {
        if position == 0 { write!(f, "{group:03}")? } else { write!(f, "x{group:03}/")? }
    }
    if width < TILE_WIDTH { write!(f, ".p/{width}") } else { Ok(()) }
}

/// Reads what [`write_index`] wrote; the caller compares the spelling.
fn read_index(path: &str) -> Option<(u64, u16)> {
    let (index, width) = match path.split_once(".p/") {
        Some((index, width)) => (index, u16::try_from(text::decimal(width)?).ok()?),
        None => (path, TILE_WIDTH),
    };
    let mut value: u64 = 0;
    for group in index.split('/') {
        let digits = group.strip_prefix('x').unwrap_or(group);
        if digits.len() != 3 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        value = value.checked_mul(1000)?.checked_add(digits.parse().ok()?)?;
    }
    Some((value, width))
}

impl fmt::Display for TileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tile/{}/", self.level)?;
        write_index(f, self.index, self.width)
    }
}

impl str::FromStr for TileId {
    type Err = TileError;

    fn from_str(path: &str) -> Result<Self, TileError> {
        let refuse = || TileError::Path(text::excerpt(path));
        let (level, rest) = path.strip_prefix("tile/").and_then(|rest| rest.split_once('/')).ok_or_else(refuse)?;
        let level = text::decimal(level).and_then(|level| u8::try_from(level).ok()).ok_or_else(refuse)?;
        let (index, width) = read_index(rest).ok_or_else(refuse)?;
        let tile = Self::new(level, index, width)?;
        // One tile has one path: no needless groups, no missing `x`, no `.p/256`.
        if tile.path() == path { Ok(tile) } else { Err(refuse()) }
    }
}

impl fmt::Display for EntryBundleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("tile/entries/")?;
        write_index(f, self.index, self.width)
    }
}

impl str::FromStr for EntryBundleId {
    type Err = TileError;

    fn from_str(path: &str) -> Result<Self, TileError> {
        let refuse = || TileError::Path(text::excerpt(path));
        let (index, width) = path.strip_prefix("tile/entries/").and_then(read_index).ok_or_else(refuse)?;
        let bundle = Self::new(index, width)?;
        if bundle.path() == path { Ok(bundle) } else { Err(refuse()) }
    }
}
