//! Witnesses of a policy: real ones, and up to f that lie or were restored from an old state.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use stdx::{Clock, ManualClock, UnixTime};
use storage::{Error as StoreError, Key, LockStore, Swap, Version, Versioned};
use testkit::{MemoryLog, World};
use tlog::witness_protocol::AddCheckpoint;
use tlog::{NoteSignature, SignerKey, TreeSize, VerifierKey, cosign};
use witness::{Error, Witness, WitnessParts};

type Values = BTreeMap<String, (u64, Bytes)>;

/// A store that can be put back to what it was.
#[derive(Default)]
struct Locks(Mutex<Values>);

#[async_trait]
impl LockStore for Locks {
    async fn get(&self, key: &Key) -> Result<Option<Versioned>, StoreError> {
        let found = self.0.lock().unwrap().get(key.as_str()).cloned();
        Ok(found.map(|(version, bytes)| Versioned { bytes, version: Version::new(version.to_string()) }))
    }

    async fn compare_and_swap(&self, key: &Key, expected: Option<&Version>, bytes: Bytes) -> Result<Swap, StoreError> {
        let mut locks = self.0.lock().unwrap();
        let found = locks.get(key.as_str()).map(|(version, _)| version.to_string());
        if found.as_deref() != expected.map(Version::as_str) {
            return Ok(Swap::Lost);
        }
        let version = locks.values().map(|(version, _)| *version).max().unwrap_or(0) + 1;
        locks.insert(key.to_string(), (version, bytes));
        Ok(Swap::Won(Version::new(version.to_string())))
    }
}

/// What a faulty witness does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It signs whatever it is shown, at this time.
    Lies(UnixTime),
    /// It is an honest program whose state was put back.
    Restored,
}

struct Member {
    witness: Witness,
    locks: Arc<Locks>,
    key: SignerKey,
}

/// All witnesses of a world; the last `faulty` of them have the fault.
pub(crate) struct Cohort {
    runtime: tokio::runtime::Runtime,
    members: Vec<Member>,
    faulty: usize,
    fault: Fault,
}

fn copy(key: &SignerKey) -> SignerKey {
    key.to_secret_text().parse().unwrap()
}

impl Cohort {
    pub(crate) fn new(world: &World, faulty: usize, fault: Fault) -> Self {
        let clock: Arc<dyn Clock> = Arc::new(ManualClock::new(world.clock.now()));
        let logs: Vec<VerifierKey> =
            [&world.vendor_log, &world.supervisor_log].map(|log| log.key().verifier().clone()).into();
        let member = |key: &SignerKey| {
            let locks = Arc::new(Locks::default());
            let parts = WitnessParts {
                locks: Arc::clone(&locks) as Arc<dyn LockStore>,
                clock: Arc::clone(&clock),
                signer: copy(key),
                logs: logs.clone(),
            };
            Member { witness: Witness::new(parts).unwrap(), locks, key: copy(key) }
        };
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        Self { runtime, members: world.witnesses.iter().map(member).collect(), faulty, fault }
    }

    fn honest(&self) -> usize {
        self.members.len() - self.faulty
    }

    /// What an honest witness says of the log's present tree, if it goes on from what it cosigned.
    fn ask(&self, member: &Member, log: &MemoryLog) -> Option<NoteSignature> {
        let size = log.head().size;
        let mut old = TreeSize::ZERO;
        for _ in 0..2 {
            let checkpoint = log.checkpoint(&[], UnixTime::EPOCH);
            let request = AddCheckpoint::new(old, log.consistency(old), checkpoint).unwrap();
            match self.runtime.block_on(member.witness.add_checkpoint(request.to_string().as_bytes())) {
                Ok(lines) => return lines.into_lines().pop(),
                Err(Error::Stale { latest }) if latest <= size => old = latest,
                Err(_) => return None,
            }
        }
        None
    }

    /// Everybody is shown a log that hides nothing; liars do as they do.
    pub(crate) fn cosign(&self, log: &MemoryLog) -> Vec<NoteSignature> {
        let honest = self.members.iter().take(self.honest()).filter_map(|member| self.ask(member, log));
        let faulty = self.members.iter().skip(self.honest()).filter_map(|member| match self.fault {
            Fault::Lies(time) => Some(lie(member, log, time)),
            Fault::Restored => self.ask(member, log),
        });
        honest.chain(faulty).collect()
    }

    /// The first `first` honest ones are shown `left` before `right`, the others `right` before
    /// `left`. Gives who cosigned which.
    pub(crate) fn split(&self, first: usize, left: &MemoryLog, right: &MemoryLog) -> [Vec<NoteSignature>; 2] {
        let mut lines = [Vec::new(), Vec::new()];
        for (at, member) in self.members.iter().enumerate() {
            let faulty = at >= self.honest();
            if let (true, Fault::Lies(time)) = (faulty, self.fault) {
                lines[0].push(lie(member, left, time));
                lines[1].push(lie(member, right, time));
                continue;
            }
            let before = member.locks.0.lock().unwrap().clone();
            let order = if at < first { [(0, left), (1, right)] } else { [(1, right), (0, left)] };
            for (branch, log) in order {
                lines[branch].extend(self.ask(member, log));
                if faulty {
                    *member.locks.0.lock().unwrap() = before.clone();
                }
            }
        }
        lines
    }

    /// From now on nobody lies; who did goes on from what the log shows.
    pub(crate) fn repent(&mut self, log: &MemoryLog) {
        for member in &self.members[self.honest()..] {
            member.locks.0.lock().unwrap().clear();
            self.ask(member, log);
        }
        self.faulty = 0;
    }
}

fn lie(member: &Member, log: &MemoryLog, time: UnixTime) -> NoteSignature {
    cosign(log.checkpoint(&[], UnixTime::EPOCH).checkpoint(), &member.key, time).unwrap()
}
