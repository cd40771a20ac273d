//! What the simulation has seen with its own eyes, and what must be true of it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use attest::{Approval, BuildResult, Envelope, Release, Statement, StatementId};
use bytes::Bytes;
use policy::Role;
use stdx::UnixTime;
use tlog::{
    EntryBundleId, EntryIndex, Frontier, Hash, Origin, SignedCheckpoint, TreeHead, TreeSize, VerifierKey,
    decode_bundle, leaf_hash,
};

/// A promise that was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which promise.
    pub oracle: &'static str,
    /// How.
    pub detail: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.oracle, self.detail)
    }
}

/// The one history of a log, as it was first published.
#[derive(Default)]
pub(crate) struct History {
    leaves: Vec<Hash>,
    /// The root of every size up to the largest published one.
    roots: Vec<Hash>,
    frontier: Frontier,
    places: BTreeMap<Hash, u64>,
    /// The newest published note, so that the same is not looked at twice.
    note: Bytes,
}

/// Everything that was seen.
#[derive(Default)]
pub(crate) struct Book {
    counts: BTreeMap<&'static str, u64>,
    violations: Vec<Violation>,
    logs: BTreeMap<Origin, History>,
    /// Two roots for one size by one honest witness are one too many.
    cosigned: BTreeMap<(u8, Origin, TreeSize), Hash>,
    /// The latest time that an honest witness ever gave.
    latest: UnixTime,
    statements: BTreeMap<StatementId, Envelope>,
    /// Every key that ever had a role, by organisation.
    keys: Vec<(String, Role, VerifierKey)>,
}

/// The book, open to everybody in the simulation.
#[derive(Default)]
pub(crate) struct Ledger(Mutex<Book>);

impl Ledger {
    pub(crate) fn new() -> Arc<Self> {
        Arc::default()
    }

    fn lock(&self) -> MutexGuard<'_, Book> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn count(&self, what: &'static str) {
        *self.lock().counts.entry(what).or_default() += 1;
    }

    pub(crate) fn counts(&self) -> BTreeMap<&'static str, u64> {
        self.lock().counts.clone()
    }

    pub(crate) fn violate(&self, oracle: &'static str, detail: String) {
        self.lock().violations.push(Violation { oracle, detail });
    }

    pub(crate) fn first_violation(&self) -> Option<Violation> {
        self.lock().violations.first().cloned()
    }

    pub(crate) fn add_key(&self, organisation: &str, role: Role, key: &VerifierKey) {
        self.lock().keys.push((organisation.to_owned(), role, key.clone()));
    }

    /// The latest time that an honest witness ever gave.
    pub(crate) fn latest(&self) -> UnixTime {
        self.lock().latest
    }

    /// A store of a log was written to: what it publishes must continue what it published before.
    pub(crate) fn look(&self, objects: &BTreeMap<String, Bytes>) {
        let Some(note) = objects.get("checkpoint") else { return };
        let mut book = self.lock();
        if book.logs.values().any(|log| log.note == *note) {
            return;
        }
        let Ok(signed) = SignedCheckpoint::parse(note) else {
            let detail = "a published checkpoint is no checkpoint".to_owned();
            return book.violations.push(Violation { oracle: "one history", detail });
        };
        let (origin, head) = (signed.checkpoint().origin().clone(), *signed.checkpoint().head());
        let mut problems = Vec::new();
        let mut found = Vec::new();
        let log = book.logs.entry(origin.clone()).or_default();
        log.note = note.clone();
        for index in log.leaves.len() as u64..head.size.get() {
            match entry(objects, index, head.size) {
                Some(bytes) => {
                    problems.extend(log.append(&leaf_hash(&bytes)));
                    found.push(bytes);
                }
                None => {
                    problems.push(format!("`{origin}` published size {} without entry {index}", head.size));
                    break;
                }
            }
        }
        if log.root(head.size).is_some_and(|root| root != head.root) {
            problems.push(format!("`{origin}` published two roots for size {}", head.size));
        }
        let broken = problems.into_iter().map(|detail| Violation { oracle: "one history", detail });
        book.violations.extend(broken);
        for bytes in found {
            if let Ok(envelope) = Envelope::parse(&bytes) {
                book.statements.insert(envelope.id(), envelope);
            }
        }
        *book.counts.entry("checkpoints published").or_default() += 1;
    }

    /// A log has said that an entry is in it.
    pub(crate) fn acknowledge(&self, origin: &Origin, index: EntryIndex, leaf: &Hash) {
        let mut book = self.lock();
        *book.counts.entry("entries acknowledged").or_default() += 1;
        let at = book.logs.get(origin).and_then(|log| log.leaves.get(usize::try_from(index.get()).unwrap()));
        if at != Some(leaf) {
            let detail = format!("`{origin}` acknowledged an entry at {index}, which is not there");
            book.violations.push(Violation { oracle: "acknowledged", detail });
        }
    }

    /// An honest witness has cosigned.
    pub(crate) fn cosigned(&self, witness: u8, origin: &Origin, head: &TreeHead, time: UnixTime) {
        let mut book = self.lock();
        *book.counts.entry("cosignatures").or_default() += 1;
        book.latest = book.latest.max(time);
        let before = book.cosigned.insert((witness, origin.clone(), head.size), head.root);
        if before.is_some_and(|root| root != head.root) {
            let detail = format!("witness {witness} cosigned two roots of `{origin}` at size {}", head.size);
            book.violations.push(Violation { oracle: "one root a size", detail });
        }
    }

    /// A tree that an honest party accepted must be of the one history.
    pub(crate) fn accepted(&self, who: &dyn fmt::Display, origin: &Origin, head: &TreeHead) {
        let mut book = self.lock();
        let known = book.logs.get(origin).and_then(|log| log.root(head.size));
        if known != Some(head.root) {
            let detail = format!("{who} accepted a tree of `{origin}` at size {} that never was published", head.size);
            book.violations.push(Violation { oracle: "no forks", detail });
        }
    }

    /// Whether the log holds all that a release needs, judged without the product's own rules.
    pub(crate) fn deserves(&self, id: &StatementId) -> Result<Statement<Release>, String> {
        let book = self.lock();
        let envelope = book.statements.get(id).ok_or("the release is not in the log")?;
        book.both(envelope, Role::Release)?;
        let release = Statement::<Release>::decode(envelope.payload()).map_err(|error| error.to_string())?;
        let result = book.statements.get(&release.predicate.result).ok_or("its result is not in the log")?;
        book.both(result, Role::Builder)?;
        let built = Statement::<BuildResult>::decode(result.payload()).map_err(|error| error.to_string())?;
        if built.subject != release.subject {
            return Err("its files are not those that were built".to_owned());
        }
        for organisation in ["vendor", "supervisor"] {
            let is_approval = |envelope: &&Envelope| {
                let approval = Statement::<Approval>::decode(envelope.payload());
                approval.is_ok_and(|it| it.predicate.result == release.predicate.result)
                    && book.signed(envelope, organisation, Role::Approver)
            };
            if !book.statements.values().any(|envelope| is_approval(&envelope)) {
                return Err(format!("{organisation} did not approve it"));
            }
        }
        Ok(release)
    }

    /// What the store must hold at the end: every published entry, at its place.
    pub(crate) fn compare(&self, origin: &Origin, objects: &BTreeMap<String, Bytes>) -> Vec<Bytes> {
        let mut book = self.lock();
        let Some(log) = book.logs.get(origin) else { return Vec::new() };
        let size = TreeSize::new(log.leaves.len() as u64);
        let entries: Vec<_> = (0..size.get()).map_while(|index| entry(objects, index, size)).collect();
        let same = entries.iter().map(|bytes| leaf_hash(bytes)).eq(log.leaves.iter().copied());
        if !same {
            let detail = format!("`{origin}` does not hold the {size} entries that it published");
            book.violations.push(Violation { oracle: "one history", detail });
        }
        entries
    }
}

impl History {
    fn append(&mut self, leaf: &Hash) -> Option<String> {
        if self.roots.is_empty() {
            self.roots.push(self.frontier.root());
        }
        let index = self.leaves.len() as u64;
        self.frontier.append(leaf);
        self.leaves.push(*leaf);
        self.roots.push(self.frontier.root());
        let before = self.places.insert(*leaf, index)?;
        Some(format!("one entry is at {before} and at {index}"))
    }

    fn root(&self, size: TreeSize) -> Option<Hash> {
        if size.is_zero() {
            return Some(tlog::empty_root());
        }
        self.roots.get(usize::try_from(size.get()).unwrap()).copied()
    }
}

impl Book {
    fn signed(&self, envelope: &Envelope, organisation: &str, role: Role) -> bool {
        let mut keys = self.keys.iter().filter(|(of, its, _)| of == organisation && *its == role);
        keys.any(|(_, _, key)| envelope.signed_by(key).unwrap_or(false))
    }

    fn both(&self, envelope: &Envelope, role: Role) -> Result<(), String> {
        for organisation in ["vendor", "supervisor"] {
            if !self.signed(envelope, organisation, role) {
                return Err(format!("{organisation}'s {role} key did not sign"));
            }
        }
        Ok(())
    }
}

/// One entry of a log, from its bundles: the full one, or the one of this size.
fn entry(objects: &BTreeMap<String, Bytes>, index: u64, size: TreeSize) -> Option<Bytes> {
    let partial = EntryBundleId::of_entry(EntryIndex::new(index), size)?;
    let full = partial.tile().full().and_then(|tile| tile.bundle());
    let (id, bytes) =
        [Some(partial), full].into_iter().flatten().find_map(|id| Some((id, objects.get(&id.path())?)))?;
    let entries = decode_bundle(id, bytes).ok()?;
    let place = usize::try_from(index % 256).unwrap();
    entries.get(place).map(|entry| bytes.slice_ref(entry))
}
