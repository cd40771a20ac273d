//! What the endpoint must never forget: the largest trees, the latest evidence time, the newest
//! status. It only grows.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use attest::{Lane, OrganisationId, Status};
use policy::{Policy, Role};
use serde::{Deserialize, Serialize};
use stdx::UnixTime;
use tlog::{Checkpoint, ConsistencyProof, Hash, Origin, SignedCheckpoint, TreeHead, TreeSize, VerifierKey};
use verify::{Advance, CurrentStatus, Refusal, Seen, StatusMark};

use crate::disk::Disk;
use crate::failure::Failure;

/// Of trees that no proof has tied to the largest one, so many are kept; then the oldest are
/// counted only. A month offline with an hour between looks is 720; they fit in 64 KB.
const UNPROVEN_MAX: usize = 720;

/// Everything remembered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Memory {
    /// The latest evidence time: moves by cosignatures only.
    pub(crate) evidence: UnixTime,
    /// The owner's part of the configuration when it was last read.
    pub(crate) owner: String,
    pub(crate) logs: Vec<LogMemory>,
    pub(crate) status: BTreeMap<Lane, KnownStatus>,
}

/// What was seen of a log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LogMemory {
    pub(crate) seen: Seen,
    /// The largest checkpoint as it was signed: one half of a proof of misbehaviour.
    pub(crate) note: String,
    /// Trees that only a quorum has vouched for; to be proven when online.
    pub(crate) unproven: Vec<Head>,
    /// How many were dropped from there.
    pub(crate) dropped: u64,
}

/// A tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Head {
    pub(crate) size: TreeSize,
    pub(crate) root: Hash,
}

/// The newest status of a lane.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct KnownStatus {
    pub(crate) mark: StatusMark,
    /// Who could give it. The mark binds their successors no more than their keys do: otherwise a
    /// stolen key would have the last word.
    pub(crate) authority: Authority,
    pub(crate) time: UnixTime,
    pub(crate) status: Status,
}

/// Who gives a lane's status.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Authority {
    pub(crate) organisation: OrganisationId,
    pub(crate) keys: BTreeSet<VerifierKey>,
}

impl Authority {
    fn of(policy: &Policy, lane: Lane) -> Option<Self> {
        let organisation = policy.lane(lane)?.status.clone();
        let keys = policy.keys_of(Role::Status).filter(|(holder, _)| **holder == organisation);
        let keys = keys.map(|(_, key)| key.clone()).collect();
        Some(Self { organisation, keys })
    }
}

/// Gets consistency proofs; without one the quorum stands in.
pub(crate) trait Prover {
    /// The proof between two trees of a log, if it can be had.
    fn prove(&self, log: &Origin, growth: Between) -> Option<ConsistencyProof>;
}

/// A smaller tree's size and a larger tree.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Between {
    pub(crate) old: TreeSize,
    pub(crate) new: TreeHead,
}

/// Nobody to ask: offline, or no mirror is configured.
pub(crate) struct NoProver;

impl Prover for NoProver {
    fn prove(&self, _: &Origin, _: Between) -> Option<ConsistencyProof> {
        None
    }
}

impl Memory {
    pub(crate) fn path(state: &Path) -> PathBuf {
        state.join("memory.json")
    }

    pub(crate) fn load(state: &Path) -> Result<Self, Failure> {
        let path = Self::path(state);
        let bytes = std::fs::read(&path).map_err(|error| Failure::file(&path, &error))?;
        serde_json::from_slice(&bytes).map_err(|error| Failure::state(&path, error))
    }

    pub(crate) fn save(&self, state: &Path, disk: &dyn Disk) -> Result<(), Failure> {
        let path = Self::path(state);
        let bytes = serde_json::to_vec(self).expect("maps with text keys are always JSON");
        disk.write(&path, &bytes).map_err(|error| Failure::file(&path, &error))
    }

    /// Takes in a checkpoint that a quorum cosigned.
    pub(crate) fn see(&mut self, signed: &SignedCheckpoint, prover: &dyn Prover) -> Result<(), Refusal> {
        let checkpoint = signed.checkpoint();
        match self.logs.iter_mut().find(|log| log.seen.origin == *checkpoint.origin()) {
            Some(log) => log.see(signed, prover),
            None => {
                let seen = Seen::first(checkpoint);
                self.logs.push(LogMemory { seen, note: signed.to_string(), unproven: Vec::new(), dropped: 0 });
                Ok(())
            }
        }
    }

    /// Remembers a status that holds under `policy`.
    pub(crate) fn keep_status(&mut self, current: &CurrentStatus, policy: &Policy) {
        let (mark, time, status) = (current.mark(), current.recorded().time(), current.status().clone());
        if let Some(authority) = Authority::of(policy, status.lane) {
            self.status.insert(status.lane, KnownStatus { mark, authority, time, status });
        }
    }

    /// The mark of a lane's newest status, unless `policy` has given its status to other keys since.
    /// What that status forbids stays forbidden until there is a newer one.
    pub(crate) fn mark(&self, lane: Lane, policy: &Policy) -> Option<StatusMark> {
        let known = self.status.get(&lane)?;
        (Authority::of(policy, lane).as_ref() == Some(&known.authority)).then_some(known.mark)
    }
}

impl LogMemory {
    fn see(&mut self, signed: &SignedCheckpoint, prover: &dyn Prover) -> Result<(), Refusal> {
        let checkpoint = signed.checkpoint();
        let (seen, found) = (self.head(), *checkpoint.head());
        let head = Head { size: found.size, root: found.root };
        if found == seen || self.unproven.contains(&head) {
            return Ok(());
        }
        if let Some(other) = self.unproven.iter().find(|other| other.size == found.size) {
            let detail = format!("two roots at size {}: {} and {}", found.size, other.root, found.root);
            return Err(Refusal::SplitView { origin: self.seen.origin.clone(), detail });
        }
        let (small, large) = if found.size < seen.size { (found, seen) } else { (seen, found) };
        let proof = (small.size != large.size)
            .then(|| prover.prove(&self.seen.origin, Between { old: small.size, new: large }))
            .flatten();
        let advance = self.seen.advance(checkpoint, proof.as_ref())?;
        if matches!(advance, Advance::Gap(_)) {
            self.unproven.push(Head { size: small.size, root: small.root });
            if self.unproven.len() > UNPROVEN_MAX {
                self.unproven.remove(0);
                self.dropped += 1;
            }
        }
        self.seen = advance.seen().clone();
        if found == large {
            self.note = signed.to_string();
        }
        Ok(())
    }

    /// Ties trees that only a quorum vouched for to the largest one. Whether the gap is closed: one
    /// with trees that were dropped never is.
    pub(crate) fn settle(&mut self, prover: &dyn Prover) -> Result<bool, Refusal> {
        if !self.seen.gap {
            return Ok(false);
        }
        let new = self.head();
        let mut left = Vec::new();
        for head in std::mem::take(&mut self.unproven) {
            let Some(proof) = prover.prove(&self.seen.origin, Between { old: head.size, new }) else {
                left.push(head);
                continue;
            };
            let refuse = |error: &dyn std::fmt::Display| Refusal::SplitView {
                origin: self.seen.origin.clone(),
                detail: format!("size {}: {error}", head.size),
            };
            let old = Checkpoint::new(self.seen.origin.clone(), TreeHead { size: head.size, root: head.root });
            let old = old.map_err(|error| refuse(&error))?;
            self.seen.advance(&old, Some(&proof))?;
        }
        self.unproven = left;
        self.seen.gap = !self.unproven.is_empty() || self.dropped > 0;
        Ok(!self.seen.gap)
    }

    const fn head(&self) -> TreeHead {
        TreeHead { size: self.seen.size, root: self.seen.root }
    }
}

#[cfg(test)]
mod tests;
