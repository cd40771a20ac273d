//! What this process knows of objects that are replaced.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use object_store::UpdateVersion;
use storage::Key;

/// So many keys that were only read are remembered. A process replaces a handful, and reads them
/// shortly before; those that it has replaced are remembered for good.
const READ_MAX: usize = 1024;

/// The last state of an object that this process has seen, by ETag.
///
/// An ETag is the digest of the content, so A-B-A would pass for A. What is replaced holds times or
/// version numbers that never come again.
#[derive(Debug, Default)]
pub(super) struct Seen(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    known: BTreeMap<Key, Known>,
    /// Keys that were only read, oldest first.
    read: VecDeque<Key>,
}

#[derive(Debug, Default)]
struct Known {
    version: Option<UpdateVersion>,
    /// What this process tried to write last; whether it did may be unknown.
    attempted: Option<Bytes>,
}

impl Seen {
    fn state(&self) -> MutexGuard<'_, State> {
        // Each change below is one step, so that a panic elsewhere leaves nothing half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn version(&self, key: &Key) -> Option<UpdateVersion> {
        self.state().known.get(key).and_then(|known| known.version.clone())
    }

    pub(super) fn read(&self, key: &Key, version: UpdateVersion) {
        let mut state = self.state();
        if !state.known.contains_key(key) {
            state.read.push_back(key.clone());
        }
        state.known.entry(key.clone()).or_default().version = Some(version);
        while state.read.len() > READ_MAX {
            let Some(oldest) = state.read.pop_front() else { break };
            if state.known.get(&oldest).is_some_and(|known| known.attempted.is_none()) {
                state.known.remove(&oldest);
            }
        }
    }

    pub(super) fn attempt(&self, key: &Key, bytes: &Bytes) {
        self.state().known.entry(key.clone()).or_default().attempted = Some(bytes.clone());
    }

    pub(super) fn attempted(&self, key: &Key, bytes: &Bytes) -> bool {
        self.state().known.get(key).is_some_and(|known| known.attempted.as_ref() == Some(bytes))
    }

    pub(super) fn wrote(&self, key: &Key, version: UpdateVersion) {
        self.state().known.entry(key.clone()).or_default().version = version.e_tag.is_some().then_some(version);
    }
}
