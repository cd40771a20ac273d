//! Mirrors of the channel: copies of the vendor's folder, made when told to, honest or not.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};

use crate::network::{Parcel, Reply};
use crate::seed::Draw;

/// How a mirror answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    /// It follows the vendor's folder.
    Fresh,
    /// It stays as it is now.
    Old,
    /// Each file is the present one or the one of its last copy.
    Mixed,
    /// It has nothing below `status/` and `policy/`.
    Withholding,
    /// Every file ends early.
    Cut,
    /// Every file has a flipped bit.
    Flipped,
}

const MANNERS: [(Manner, &str); 6] = [
    (Manner::Fresh, "fresh"),
    (Manner::Old, "old"),
    (Manner::Mixed, "mixed"),
    (Manner::Withholding, "withholding"),
    (Manner::Cut, "cut"),
    (Manner::Flipped, "flipped"),
];

impl Manner {
    pub(crate) const ALL: [Self; 6] =
        [Self::Fresh, Self::Old, Self::Mixed, Self::Withholding, Self::Cut, Self::Flipped];
}

impl fmt::Display for Manner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MANNERS.iter().find(|(manner, _)| manner == self).unwrap().1)
    }
}

impl FromStr for Manner {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = MANNERS.iter().find(|(_, name)| *name == text);
        found.map(|(manner, _)| *manner).ok_or_else(|| format!("`{text}` is no manner of a mirror"))
    }
}

/// All mirrors.
pub(crate) struct Mirrors {
    /// The vendor's folder.
    origin: PathBuf,
    state: Mutex<State>,
}

struct State {
    draw: Draw,
    copies: BTreeMap<u8, (Manner, BTreeMap<String, Vec<u8>>)>,
}

impl Mirrors {
    pub(crate) fn new(origin: PathBuf, seed: u64) -> Self {
        let state = State { draw: Draw::new(seed ^ 0x6d69_7272_6f72), copies: BTreeMap::new() };
        Self { origin, state: Mutex::new(state) }
    }

    /// Changes how a mirror answers from now on; it takes a copy of what is there now.
    pub(crate) fn set(&self, mirror: u8, manner: Manner) {
        let mut copy = BTreeMap::new();
        if manner == Manner::Old || manner == Manner::Mixed {
            read_all(&self.origin, "", &mut copy);
        }
        self.state.lock().unwrap_or_else(PoisonError::into_inner).copies.insert(mirror, (manner, copy));
    }

    /// The vendor's own answer.
    pub(crate) fn original(&self, path: &str) -> Reply {
        found(self.read(path))
    }

    fn read(&self, path: &str) -> Option<Vec<u8>> {
        let path = path.trim_start_matches('/');
        std::fs::read(self.origin.join(path)).ok()
    }

    /// A mirror's.
    pub(crate) fn answer(&self, mirror: u8, parcel: &Parcel) -> Reply {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let State { draw, copies } = &mut *state;
        let path = parcel.path.trim_start_matches('/');
        let now = || self.read(path);
        let Some((manner, copy)) = copies.get(&mirror) else { return found(now()) };
        found(match manner {
            Manner::Fresh => now(),
            Manner::Old => copy.get(path).cloned(),
            Manner::Mixed => match draw.happens(500) {
                true => now(),
                false => copy.get(path).cloned(),
            },
            Manner::Withholding => now().filter(|_| !path.starts_with("status/") && !path.starts_with("policy/")),
            Manner::Cut => now().map(|mut bytes| {
                bytes.truncate(bytes.len() / 2);
                bytes
            }),
            Manner::Flipped => now().map(|mut bytes| {
                let at = usize::try_from(draw.below(bytes.len().max(1) as u64)).unwrap();
                bytes.get_mut(at).into_iter().for_each(|byte| *byte ^= 1);
                bytes
            }),
        })
    }
}

fn found(bytes: Option<Vec<u8>>) -> Reply {
    let status = if bytes.is_some() { 200 } else { 404 };
    Reply { status, media_type: "application/octet-stream".to_owned(), body: bytes.unwrap_or_default() }
}

fn read_all(folder: &Path, prefix: &str, into: &mut BTreeMap<String, Vec<u8>>) {
    let mut entries: Vec<_> = std::fs::read_dir(folder).into_iter().flatten().flatten().collect();
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let name = format!("{prefix}{}", entry.file_name().display());
        match entry.path().is_dir() {
            true => read_all(&entry.path(), &format!("{name}/"), into),
            false => drop(into.insert(name, std::fs::read(entry.path()).unwrap_or_default())),
        }
    }
}
