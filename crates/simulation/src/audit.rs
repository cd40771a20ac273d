//! The auditor, and somebody who has a log's key and tries to fork it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use log::{Audit, AuditFinding, Auditor, Class, SourceError, TileSource, audit};
use storage::Key;
use tlog::witness_protocol::AddCheckpoint;
use tlog::{Checkpoint, ConsistencyProof, EntryIndex, SignedCheckpoint, TreeHead, TreeSize, leaf_hash};
use verify::TrustedPolicy;

use crate::machines::hide;
use crate::network::{Network, Node, Parcel};
use crate::witnesses::remotes;
use crate::world::World;

/// A log's objects over the simulated network.
struct RemoteTiles {
    network: Arc<Network>,
    log: Node,
}

#[async_trait]
impl TileSource for RemoteTiles {
    async fn get(&self, path: &Key) -> Result<Option<Bytes>, SourceError> {
        let (body, timeout) = (Vec::new(), Duration::from_secs(10));
        let parcel = Parcel { from: Node::Auditor, to: self.log, post: false, path: format!("/{path}"), body, timeout };
        let failed = |reason| SourceError { key: path.clone(), reason, class: Class::Unavailable };
        let reply = Arc::clone(&self.network).carry(parcel).await.map_err(failed)?;
        match reply.status {
            200 => Ok(Some(reply.body.into())),
            404 => Ok(None),
            status => {
                Err(SourceError { key: path.clone(), reason: format!("status {status}"), class: Class::Unavailable })
            }
        }
    }
}

/// Reads entries and finds nothing: streams are checked at the end of a simulation.
struct Reading;

impl Auditor for Reading {
    fn entry(&mut self, _: EntryIndex, _: &Bytes) {}

    fn findings(&mut self) -> Vec<String> {
        Vec::new()
    }
}

/// What the auditor remembers of a log.
#[derive(Default)]
pub(crate) struct Audited(Mutex<Option<SignedCheckpoint>>);

impl Audited {
    /// Audits a log as it is now; what it found, in words.
    pub(crate) async fn look(&self, world: &World, policy: &TrustedPolicy, log: Node) -> Vec<String> {
        let last = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let parts = Audit {
            source: Arc::new(RemoteTiles { network: Arc::clone(&world.network), log }),
            key: world.log_key(log).verifier().clone(),
            policy: policy.witnessing().clone(),
            witnesses: remotes(world, Node::Auditor),
            last,
        };
        let report = match audit(&parts, &mut Reading).await {
            Ok(report) => report,
            Err(error) => return vec![format!("silent: {error}")],
        };
        let checkpoint = report.checkpoint.checkpoint();
        if report.cosigned.is_some() {
            world.ledger.accepted(&Node::Auditor, checkpoint.origin(), checkpoint.head());
        }
        if report.findings.is_empty() {
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(report.checkpoint);
        }
        report.findings.iter().map(words).collect()
    }
}

fn words(finding: &AuditFinding) -> String {
    match finding {
        AuditFinding::Misbehaviour(_) => "misbehaviour".to_owned(),
        AuditFinding::Shrunk { before, now } => format!("shrunk from {before} to {now}"),
        AuditFinding::NoQuorum(error) => format!("no quorum: {error}"),
        AuditFinding::Withheld { witness, reason, .. } => format!("withheld from {}: {reason}", witness.name()),
        AuditFinding::Silent { witness, reason } => format!("silent: {}: {reason}", witness.name()),
        AuditFinding::Unreadable(error) => format!("unreadable: {error}"),
        AuditFinding::Entries(words) => words.clone(),
    }
}

/// Asks every witness to cosign another tree of the size that is published; a quorum must not.
pub(crate) async fn fork(world: &World, policy: &TrustedPolicy, log: Node) -> Option<String> {
    let note = world.hosts[&log].disk().objects.get("checkpoint").cloned()?;
    let published = SignedCheckpoint::parse(&note).ok()?;
    let size = published.checkpoint().size();
    let root = leaf_hash(&note);
    let head = TreeHead { size, root };
    if size.is_zero() {
        return None;
    }
    let hide = hide(world);
    let forked = Checkpoint::new(published.checkpoint().origin().clone(), head).ok()?;
    let mut forked = SignedCheckpoint::sign(forked, &world.log_key(log)).ok()?;
    for witness in remotes(world, Node::Auditor) {
        for old in [TreeSize::ZERO, size] {
            let request = AddCheckpoint::new(old, ConsistencyProof::empty(), forked.clone()).ok()?;
            if let Ok(lines) = witness.add_checkpoint(&request).await {
                // A second line of one witness adds nothing.
                let _ = forked.merge(lines);
            }
        }
    }
    // A liar doesn't show what it has done.
    hide();
    if policy.witnessing().verify_checkpoint(&forked).is_ok() {
        world.ledger.violate("no forks", format!("a quorum cosigned another tree of {log}'s log at size {size}"));
    }
    Some(format!("{} cosignatures under a forked tree of size {size}", forked.signatures().len() - 1))
}
