//! TUF: canonical JSON, each role's metadata, a whole refresh; and the channel's own files.

use std::collections::BTreeMap;
use std::io::{Cursor, Read};

use channel::{Export, News, Releases};
use stdx::UnixTime;
use tuf::{
    Client, Content, Ed25519Sha256, Fetch, FetchError, Json, Limits, Location, MemoryStore, Metadata, PublicKey, Root,
    RunningHash, SignedMessage, Snapshot, Suite, TargetPath, Targets, Timestamp,
};

use crate::Target;

pub(crate) const TARGETS: &[Target] = &[
    ("tuf-json", json),
    ("tuf-metadata", metadata),
    ("tuf-refresh", refresh),
    ("channel-releases", releases),
    ("channel-export", export),
    ("channel-news", news),
];

/// The canonical form is its own canonical form.
fn json(bytes: &[u8]) {
    let Ok(value) = Json::parse(bytes) else { return };
    let canonical = value.canonical();
    // Strings are written raw in OLPC's form, so not every one can be read as JSON again.
    if let Ok(again) = Json::parse(&canonical) {
        if again == value {
            assert_eq!(again.canonical(), canonical);
        }
    }
}

fn metadata(bytes: &[u8]) {
    role::<Root>(bytes);
    role::<Timestamp>(bytes);
    role::<Snapshot>(bytes);
    role::<Targets>(bytes);
}

/// Metadata is kept as it came.
fn role<T: Content>(bytes: &[u8]) {
    if let Ok(metadata) = Metadata::<T>::parse("fuzz.json", bytes.to_vec()) {
        assert_eq!(metadata.bytes(), bytes);
        let _ = metadata.version();
    }
}

/// Takes every signature for good: what signatures keep out is what is wanted here.
struct Credulous;

impl Suite for Credulous {
    fn verifies(&self, _: &PublicKey, _: SignedMessage<'_>) -> bool {
        true
    }

    fn hash(&self, name: &str) -> Option<Box<dyn RunningHash>> {
        Ed25519Sha256.hash(name)
    }
}

struct Files<'a>(BTreeMap<String, &'a [u8]>);

impl Fetch for Files<'_> {
    fn open(&self, location: &Location) -> Result<Box<dyn Read + '_>, FetchError> {
        let found = self.0.get(&location.to_string()).ok_or(FetchError::NotFound)?;
        Ok(Box::new(*found))
    }
}

/// The input is files: `=== PATH` on a line, then the bytes up to the next such line. The first is the
/// root that is trusted.
fn refresh(bytes: &[u8]) {
    let mut files = BTreeMap::new();
    let mut first = None;
    for part in split(bytes, b"=== ") {
        let Some(end) = part.iter().position(|byte| *byte == b'\n') else { continue };
        let content = part[end + 1..].strip_suffix(b"\n").unwrap_or(&part[end + 1..]);
        first.get_or_insert(content);
        if let Ok(path) = std::str::from_utf8(&part[..end]) {
            files.insert(path.to_owned(), content);
        }
    }
    let Some(root) = first else { return };
    let (store, fetch) = (MemoryStore::default(), Files(files));
    let limits = Limits { roots: 8, target_bytes: 1 << 16, ..Limits::default() };
    let client = Client::new(&store, &Credulous, limits);
    if client.create(root).is_err() {
        return;
    }
    let now = UnixTime::from_seconds(1_767_225_600);
    let Ok(trusted) = client.refresh(&fetch, now) else { return };
    for path in ["products/libexample/releases", "products/libexample/1/bundle", "a"] {
        let path: TargetPath = path.parse().expect("a path");
        if let Ok(target) = trusted.find(&path) {
            if let Ok(content) = trusted.fetch(&target) {
                assert!(trusted.matches(&target, &content));
            }
        }
    }
    // What was trusted once is trusted again without the repository.
    client.cached(now).expect("what was just trusted");
}

/// The parts that begin with `mark` at the start of a line, without it.
fn split<'a>(bytes: &'a [u8], mark: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
    let starts = |at: &usize| bytes[*at..].starts_with(mark) && (*at == 0 || bytes[*at - 1] == b'\n');
    let at: Vec<usize> = (0..bytes.len()).filter(starts).collect();
    let ends: Vec<usize> = at.iter().skip(1).copied().chain([bytes.len()]).collect();
    at.into_iter().zip(ends).map(move |(from, to)| &bytes[from + mark.len()..to])
}

fn releases(bytes: &[u8]) {
    if let Ok(releases) = Releases::parse(bytes) {
        assert_eq!(releases.to_bytes(), bytes);
    }
}

fn news(bytes: &[u8]) {
    if let Ok(news) = News::parse(bytes) {
        assert_eq!(news.to_bytes(), bytes);
    }
}

fn export(bytes: &[u8]) {
    let Ok(mut export) = Export::open(Cursor::new(bytes)) else { return };
    let mut read = 0;
    while let Ok(Some((member, content))) = export.read_next(1 << 16) {
        assert_eq!(member.size, content.len() as u64);
        read += content.len();
        assert!(read <= bytes.len());
    }
    let _ = export.finish();
}
