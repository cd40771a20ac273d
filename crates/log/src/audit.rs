//! Watching a log from outside: is it what it was, and the same to everybody?

use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;
use tlog::{
    Cosigned, EntryIndex, LogPolicy, Origin, PolicyError, SignedCheckpoint, TreeSize, VerifierKey, verify_cosignature,
};
use tokio::time::timeout;

use crate::{
    Misbehaviour, MisbehaviourError, ReadError, Reader, SourceError, TileSource, WITNESS_TIMEOUT, Witness, layout,
};

/// What an audit is made with.
pub struct Audit {
    /// The log's published objects.
    pub source: Arc<dyn TileSource>,
    /// The log's key.
    pub key: VerifierKey,
    /// Which cosignatures the log's checkpoint must carry.
    pub policy: LogPolicy,
    /// Whom to ask what they know of the log.
    pub witnesses: Vec<Arc<dyn Witness>>,
    /// The checkpoint of the last audit, if there was one.
    pub last: Option<SignedCheckpoint>,
}

/// Looks at the entries that are new since the last audit, in order.
pub trait Auditor: Send {
    /// One entry; its place in the tree is verified.
    fn entry(&mut self, index: EntryIndex, entry: &Bytes);

    /// What the auditor found in the entries, in words.
    fn findings(&mut self) -> Vec<String>;
}

/// What an audit found wrong.
#[derive(Debug)]
pub enum AuditFinding {
    /// The log's key signed two checkpoints that can't both be true.
    Misbehaviour(Box<Misbehaviour>),
    /// The log shows a smaller tree than it has shown before.
    Shrunk {
        /// The size before.
        before: TreeSize,
        /// The size now.
        now: TreeSize,
    },
    /// The published checkpoint lacks a quorum, or a signature is wrong.
    NoQuorum(PolicyError),
    /// A witness has cosigned a larger tree than the log shows, and the log doesn't have its
    /// tiles: something is withheld.
    Withheld {
        /// The witness.
        witness: VerifierKey,
        /// What it cosigned.
        checkpoint: Box<SignedCheckpoint>,
        /// Why the two could not be compared.
        reason: String,
    },
    /// A witness gave no answer that could be verified.
    Silent {
        /// The witness.
        witness: VerifierKey,
        /// Why not.
        reason: String,
    },
    /// The tiles or entries are not those of the checkpoint.
    Unreadable(ReadError),
    /// The auditor's own finding.
    Entries(String),
}

/// Why there was no audit.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The log gives no checkpoint.
    #[error("the log can't be read")]
    Source(#[from] SourceError),
    /// There is no checkpoint.
    #[error("the log has no checkpoint")]
    NoCheckpoint,
    /// The checkpoint is not signed by the log.
    #[error("the log's checkpoint is damaged or not signed by it")]
    Checkpoint(#[from] tlog::CheckpointError),
    /// The checkpoint of the last audit is not signed by the log.
    #[error("the checkpoint of the last audit is not one of this log")]
    Last(#[source] tlog::CheckpointError),
}

/// What an audit saw.
#[derive(Debug)]
pub struct AuditReport {
    /// The published checkpoint; keep it for the next audit if `findings` is empty.
    pub checkpoint: SignedCheckpoint,
    /// Who cosigned it and when, if a quorum did.
    pub cosigned: Option<Cosigned>,
    /// What is wrong.
    pub findings: Vec<AuditFinding>,
}

/// Audits a log: quorum, growth since the last audit, the same tree at every witness, and every
/// new entry.
///
/// # Errors
/// [`AuditError`] when there is nothing to audit. Whatever is wrong with the log is a finding.
pub async fn audit(audit: &Audit, auditor: &mut dyn Auditor) -> Result<AuditReport, AuditError> {
    let bytes = audit.source.get(&layout::checkpoint()).await?.ok_or(AuditError::NoCheckpoint)?;
    let checkpoint = SignedCheckpoint::open(&bytes, &audit.key)?;
    if let Some(last) = &audit.last {
        last.verify_log(&audit.key).map_err(AuditError::Last)?;
    }
    let reader = Reader::new(Arc::clone(&audit.source), *checkpoint.checkpoint().head());
    let mut findings = Vec::new();
    let cosigned = audit.policy.verify_checkpoint(&checkpoint);
    let cosigned = cosigned.map_err(|error| findings.push(AuditFinding::NoQuorum(error))).ok();

    let mut start = TreeSize::ZERO;
    if let Some(last) = &audit.last {
        start = last.checkpoint().size();
        if start > reader.head().size {
            findings.push(AuditFinding::Shrunk { before: start, now: reader.head().size });
        }
        findings.extend(audit.compare(last, &checkpoint).await.err());
    }
    for witness in &audit.witnesses {
        findings.extend(audit.ask(witness.as_ref(), &checkpoint).await.err());
    }
    let range = EntryIndex::new(start.get())..EntryIndex::new(reader.head().size.get());
    let visit = &mut |index, entry: &Bytes| {
        auditor.entry(index, entry);
        ControlFlow::Continue(())
    };
    findings.extend(reader.entries(range, visit).await.err().map(AuditFinding::Unreadable));
    findings.extend(auditor.findings().into_iter().map(AuditFinding::Entries));
    Ok(AuditReport { checkpoint, cosigned, findings })
}

impl Audit {
    /// Compares two checkpoints of the log, in whichever order they grew.
    async fn compare(&self, one: &SignedCheckpoint, other: &SignedCheckpoint) -> Result<(), AuditFinding> {
        let (old, new) = if one.checkpoint().size() <= other.checkpoint().size() { (one, other) } else { (other, one) };
        let (old_head, new_head) = (old.checkpoint().head(), new.checkpoint().head());
        let pair = || [old.clone(), new.clone()];
        let proof = if old_head.size == new_head.size {
            if old_head.root == new_head.root {
                return Ok(());
            }
            Misbehaviour::same_size(pair(), &self.key)
        } else {
            let reader = Reader::new(Arc::clone(&self.source), *new_head);
            let (found, proof) = reader.consistency(old_head.size).await.map_err(AuditFinding::Unreadable)?;
            if found == *old_head {
                return Ok(());
            }
            Misbehaviour::not_grown(pair(), (found.root, proof), &self.key)
        };
        Err(proof.map_or_else(unproven, |proof| AuditFinding::Misbehaviour(Box::new(proof))))
    }

    async fn ask(&self, witness: &dyn Witness, ours: &SignedCheckpoint) -> Result<(), AuditFinding> {
        let silent = |reason| AuditFinding::Silent { witness: witness.key().clone(), reason };
        let origin: &Origin = ours.checkpoint().origin();
        let found = match timeout(WITNESS_TIMEOUT, witness.checkpoint(origin)).await {
            Ok(found) => found.map_err(|error| silent(error.to_string()))?,
            Err(_) => return Err(silent("no answer in time".to_owned())),
        };
        // Nothing cosigned: it is no part of any quorum.
        let Some(found) = found else { return Ok(()) };
        found.verify_log(&self.key).map_err(|error| silent(error.to_string()))?;
        let cosigned = |line| verify_cosignature(found.checkpoint(), line, witness.key()).is_ok();
        if !found.signatures().iter().any(cosigned) {
            return Err(silent("its checkpoint lacks its own cosignature".to_owned()));
        }
        match self.compare(ours, &found).await {
            Err(AuditFinding::Unreadable(error)) if found.checkpoint().size() > ours.checkpoint().size() => {
                // A log that is just about to publish has its tiles in place already.
                Err(AuditFinding::Withheld {
                    witness: witness.key().clone(),
                    checkpoint: Box::new(found),
                    reason: error.to_string(),
                })
            }
            outcome => outcome,
        }
    }
}

/// A contradiction that its own proof doesn't show can't be; if it is, say so rather than hide it.
fn unproven(error: MisbehaviourError) -> AuditFinding {
    AuditFinding::Entries(format!("two checkpoints differ, but no proof could be made: {error}"))
}
