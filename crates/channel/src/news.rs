//! What is new, in one answer: the files that an endpoint would ask for one by one (`docs/formats/channel.md`).
//!
//! Nothing in it is trusted for having come so. An endpoint takes each file for what the same mirror would have given
//! under its name, and decides by the evidence as always.

use std::collections::{BTreeMap, BTreeSet};

use attest::{Lane, ProductId, Ring};
use serde::{Deserialize, Serialize};
use stdx::{Digest, Hasher};

use crate::error::Error;
use crate::layout::{self, Product};
use crate::publish::Channel;

const FIRST_LINE: &[u8] = b"clerestory-news/v1\n";

/// More is for whoever looks at everything: what a machine has missed in weeks.
pub const NEWS_BYTES_MAX: usize = 256 << 10;

/// Evidence, lists, patches and sets of hashes are smaller; an artifact that is not is asked for by who has no patch.
const FILE_BYTES_MAX: usize = 64 << 10;

/// Each file's line takes less than 300 bytes.
const FILES_MAX: usize = 256;
const HEADER_BYTES_MAX: usize = 80 << 10;

const RINGS: [Ring; 3] = [Ring::Canary, Ring::Early, Ring::All];
const LANES: [Lane; 2] = [Lane::Slow, Lane::Fast];

/// What the tree has. A mirror's word is taken for nothing else, whatever lies behind the same URL.
const FOLDERS: [&str; 5] = ["metadata/", "patches/", "policy/", "status/", "targets/"];

/// What came after a state of the channel, for one ring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct News {
    /// The state that this leads to.
    pub state: Digest,
    /// What an endpoint asks for, and the channel has not.
    pub absent: BTreeSet<String>,
    /// By their paths below the channel's URL.
    pub files: BTreeMap<String, Vec<u8>>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    state: Digest,
    absent: BTreeSet<String>,
    files: BTreeMap<String, u64>,
}

/// Why bytes are no news.
#[derive(Debug, thiserror::Error)]
pub enum NewsError {
    /// Too long.
    #[error("news of {0} bytes; at most {NEWS_BYTES_MAX} are read")]
    TooLong(usize),
    /// It is something else.
    #[error("not a channel's news, or of another version")]
    Version,
    /// Its list of files is damaged, in another form, or too long.
    #[error("the list of files in news is refused: {0}")]
    Header(String),
    /// The files have other sizes than the list says.
    #[error("news with other files than its list says")]
    OtherContent,
}

impl News {
    /// Nothing but where the channel is.
    #[must_use]
    pub const fn none(state: Digest) -> Self {
        Self { state, absent: BTreeSet::new(), files: BTreeMap::new() }
    }

    /// The canonical encoding.
    ///
    /// # Panics
    /// Never: strings and integers are JSON.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let files = self.files.iter().map(|(path, bytes)| (path.clone(), bytes.len() as u64)).collect();
        let mut bytes = FIRST_LINE.to_vec();
        bytes.extend(header_line(&Header { state: self.state, absent: self.absent.clone(), files }));
        self.files.values().for_each(|file| bytes.extend(file));
        bytes
    }

    /// Reads news in canonical form.
    ///
    /// # Errors
    /// [`NewsError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, NewsError> {
        if bytes.len() > NEWS_BYTES_MAX {
            return Err(NewsError::TooLong(bytes.len()));
        }
        let rest = bytes.strip_prefix(FIRST_LINE).ok_or(NewsError::Version)?;
        let end = rest.iter().take(HEADER_BYTES_MAX).position(|byte| *byte == b'\n');
        let end = end.ok_or_else(|| NewsError::Header(format!("longer than {HEADER_BYTES_MAX} bytes")))?;
        let (line, mut rest) = rest.split_at(end + 1);
        let header: Header = serde_json::from_slice(line).map_err(|error| NewsError::Header(error.to_string()))?;
        if header_line(&header) != line {
            return Err(NewsError::Header("not in canonical form".to_owned()));
        }
        if header.files.len() > FILES_MAX || header.absent.len() > FILES_MAX {
            return Err(NewsError::Header(format!("more than {FILES_MAX} files")));
        }
        let mut paths = header.files.keys().chain(&header.absent);
        if let Some(path) = paths.find(|path| !FOLDERS.iter().any(|folder| path.starts_with(folder))) {
            return Err(NewsError::Header(format!(
                "`{}` is not in the tree",
                path.chars().take(200).collect::<String>()
            )));
        }
        let mut files = BTreeMap::new();
        for (path, size) in header.files {
            let size = usize::try_from(size).map_err(|_| NewsError::OtherContent)?;
            let (file, behind) = rest.split_at_checked(size).ok_or(NewsError::OtherContent)?;
            rest = behind;
            files.insert(path, file.to_vec());
        }
        if !rest.is_empty() {
            return Err(NewsError::OtherContent);
        }
        Ok(Self { state: header.state, absent: header.absent, files })
    }
}

fn header_line(header: &Header) -> Vec<u8> {
    let mut line = serde_json::to_vec(header).expect("strings and integers are JSON");
    line.push(b'\n');
    line
}

/// What a channel shows at one moment.
#[derive(Clone, Debug)]
pub struct Shown {
    rings: BTreeMap<Ring, ForRing>,
    /// Files that never change, by their paths.
    names: BTreeSet<String>,
    /// Those that are replaced in place.
    replaced: BTreeMap<String, Vec<u8>>,
    absent: BTreeSet<String>,
}

/// What matters to endpoints that have a product in this ring, and perhaps others in later ones.
#[derive(Clone, Debug)]
struct ForRing {
    state: Digest,
    /// What the files of the newest releases begin with.
    releases: BTreeSet<String>,
}

impl Shown {
    /// What the channel is, as far as it matters to endpoints of a ring: the newest release of each product in this and
    /// each later ring, the status of each lane, and the newest policy and root. Renewed timestamps do not matter.
    #[must_use]
    pub fn state(&self, ring: Ring) -> Option<Digest> {
        self.rings.get(&ring).map(|it| it.state)
    }

    /// Files that were not there before.
    #[must_use]
    pub fn added(&self, before: &Self) -> BTreeSet<String> {
        self.names.difference(&before.names).cloned().collect()
    }
}

impl Channel {
    /// Looks at all of it.
    ///
    /// # Errors
    /// [`Error`].
    pub fn shown(&self) -> Result<Shown, Error> {
        let names = self.tree().names()?;
        let next = |first: u64, path: &dyn Fn(u64) -> String| (first..).map(path).find(|path| !names.contains(path));
        // The first policy is where trust begins; nobody asks for it.
        let absent = [next(2, &layout::policy), next(1, &|version| format!("metadata/{version}.root.json"))];
        let absent: BTreeSet<String> = absent.into_iter().flatten().collect();
        let mut replaced = BTreeMap::new();
        for file in LANES.map(layout::status).into_iter().chain([layout::TIMESTAMP.to_owned()]) {
            if let Some(bytes) = self.tree().read(&file, NEWS_BYTES_MAX)? {
                replaced.insert(file, bytes);
            }
        }
        let mut common = Hasher::default();
        for (path, bytes) in replaced.iter().filter(|(path, _)| *path != layout::TIMESTAMP) {
            common.update(format!("{path} {}\n", Digest::of(bytes)).as_bytes());
        }
        absent.iter().for_each(|path| common.update(format!("{path}\n").as_bytes()));
        let mut rings = BTreeMap::new();
        for ring in RINGS {
            let (mut hasher, mut releases) = (common.clone(), BTreeSet::new());
            for (newest, bundle) in self.newest(ring)? {
                hasher.update(format!("{newest} {bundle}\n").as_bytes());
                releases.insert(newest);
            }
            rings.insert(ring, ForRing { state: hasher.finish(), releases });
        }
        Ok(Shown { rings, names, replaced, absent })
    }

    /// What the files of the newest releases for a ring and each later one begin with, and their bundles.
    fn newest(&self, ring: Ring) -> Result<BTreeMap<String, String>, Error> {
        let mut newest = BTreeMap::new();
        for lane in LANES {
            let targets = &self.delegated(lane)?.content().targets;
            let end = |path: &String| path.strip_suffix("/releases")?.rsplit('/').next()?.parse().ok();
            for id in targets.keys().filter_map(end).collect::<Vec<ProductId>>() {
                let product = Product { lane, id: &id };
                let list = self.releases(product)?;
                for least in RINGS.into_iter().filter(|least| *least >= ring) {
                    let Some(listed) = list.releases().iter().rev().find(|it| it.ring >= least) else { continue };
                    let bundle = targets.get(product.bundle(listed.number).as_str());
                    let bundle = bundle.and_then(|file| file.hashes.sha256()).map(|it| it.to_string());
                    let prefix = format!("targets/{}", product.release_prefix(listed.number));
                    newest.insert(prefix, bundle.unwrap_or_default());
                }
            }
        }
        Ok(newest)
    }

    /// What leads to `shown` from where the files `added` were not there yet: the smallest first, as far as it fits. An
    /// endpoint asks for what it misses.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn news(&self, shown: &Shown, ring: Ring, added: &BTreeSet<String>) -> Result<Option<News>, Error> {
        let Some(ForRing { state, releases }) = shown.rings.get(&ring) else { return Ok(None) };
        let mut news = News { state: *state, absent: shown.absent.clone(), files: shown.replaced.clone() };
        let of_release = |path: &str| path.split('/').count() > 4 && path.starts_with("targets/");
        let is_for = |path: &String| !of_release(path) || releases.iter().any(|prefix| path.starts_with(prefix));
        let mut found = Vec::new();
        for path in added.iter().filter(|path| is_newest(path, added) && is_for(path)) {
            let bytes = self.tree().read(path, FILE_BYTES_MAX)?.filter(|bytes| bytes.len() <= FILE_BYTES_MAX);
            found.extend(bytes.map(|bytes| (path, bytes)));
        }
        found.sort_by_key(|(_, bytes)| bytes.len());
        let mut left = NEWS_BYTES_MAX - HEADER_BYTES_MAX;
        left = news.files.values().fold(left, |left, file| left.saturating_sub(file.len()));
        for (path, bytes) in found {
            if bytes.len() > left || news.files.len() == FILES_MAX {
                break;
            }
            left -= bytes.len();
            news.files.insert(path.clone(), bytes);
        }
        Ok(Some(news))
    }
}

/// Of metadata only the newest of each role is asked for; of roots, all.
fn is_newest(path: &str, added: &BTreeSet<String>) -> bool {
    let split = |path: &str| {
        let (number, role) = path.strip_prefix("metadata/")?.split_once('.')?;
        Some((role.to_owned(), number.parse::<u64>().ok()?))
    };
    let Some((role, number)) = split(path).filter(|(role, _)| role != "root.json") else { return true };
    !added.iter().filter_map(|other| split(other)).any(|(other, later)| other == role && later > number)
}
