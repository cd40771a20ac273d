//! What follows from the logs: what a supervisor has revoked, stopped, and signed second; a vendor's
//! last numbers; and where the streams of either end.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use attest::{Envelope, OrganisationId, Position, StatementId, StreamName};
use bytes::Bytes;
use policy::Role as KeyRole;
use storage::{Key, LockStore, RecordKey, Swap};
use tlog::{Origin, TreeHead, VerifierKey};
use verify::{LogRules, TrustedPolicy};

use super::copies::Copies;
use crate::config::Role;
use crate::line::{LoggedRules, logged_release};
use crate::stores::State;
use crate::stream::reopened;
use crate::supervise::{LoggedHosts, SHOWN, Shown, Signed, released_record};

/// What the logs of a policy say to one organisation.
///
/// Others write into the same logs, and a log asks only who writes a stream, not what: so a stop
/// that is lifted elsewhere is not lifted. What this organisation has signed second stands in the
/// streams of others, and counts by its signature.
pub(super) struct Derived {
    organisation: OrganisationId,
    own: BTreeSet<(Origin, StreamName)>,
    /// The release keys of this organisation, of every version of the policy.
    keys: BTreeSet<VerifierKey>,
    shown: Shown,
    releases: BTreeMap<String, (RecordKey, Bytes)>,
    signed: Signed,
    hosts: LoggedHosts,
    rules: LoggedRules,
    /// The last entry of each of its own streams.
    ends: BTreeMap<StreamName, (Position, StatementId)>,
}

impl Derived {
    /// Nothing yet, for `organisation` under these versions of a policy, the last of which is in force.
    pub(super) fn of(organisation: &OrganisationId, versions: &[TrustedPolicy]) -> Self {
        let keys = versions.iter().flat_map(|it| {
            let policy = it.policy();
            policy.keys(organisation, KeyRole::Release).chain(policy.keys(organisation, KeyRole::Rules))
        });
        let streams = versions.last().into_iter().flat_map(|it| &it.policy().streams);
        let own = streams.filter(|it| it.organisation == *organisation);
        Self {
            organisation: organisation.clone(),
            own: own.map(|it| (it.log.clone(), it.stream.clone())).collect(),
            keys: keys.cloned().collect(),
            shown: Shown::default(),
            releases: BTreeMap::new(),
            signed: Signed::default(),
            hosts: LoggedHosts::default(),
            rules: LoggedRules::default(),
            ends: BTreeMap::new(),
        }
    }

    /// Whether another organisation's log has something to say to this one.
    pub(super) fn reads(&self, role: Role, policy: &TrustedPolicy, origin: &Origin) -> bool {
        let mut streams = policy.policy().streams.iter().filter(|it| it.log == *origin);
        streams.any(|it| role == Role::Supervisor || it.organisation == self.organisation)
    }

    /// Reads a whole log.
    pub(super) async fn read(&mut self, log: &Arc<Copies>, rules: &LogRules, head: TreeHead) -> anyhow::Result<()> {
        log.visit(head, &mut |entry| {
            if let Ok(judged) = rules.judge(entry) {
                self.take(&judged.position, &judged.envelope);
            }
        })
        .await
    }

    fn take(&mut self, position: &Position, envelope: &Envelope) {
        let Position { log, stream, .. } = position;
        self.rules.result(envelope);
        if !self.own.contains(&(log.clone(), stream.clone())) {
            if self.keys.iter().any(|key| envelope.signed_by(key).unwrap_or(false)) {
                self.signed.replay(envelope);
                self.rules.release(envelope);
            }
            return;
        }
        let place = |position: &Position| (position.epoch, position.sequence);
        // Of two entries for one place, a stream goes on from the first.
        if self.ends.get(stream).is_none_or(|(end, _)| place(end) < place(position)) {
            self.ends.insert(stream.clone(), (position.clone(), envelope.id()));
        }
        let is_own = |kind: &str| stream.as_str() == format!("{kind}/{}", self.organisation);
        if is_own("desk") {
            self.shown.replay(envelope.payload());
        } else if is_own("canary") {
            self.hosts.replay(envelope);
        } else if is_own("release")
            && let Some((key, last)) = logged_release(envelope)
        {
            self.releases.insert(key.key.to_string(), (key, last));
            self.rules.release(envelope);
        }
    }

    /// Puts what was found into a new state; what that was, in words.
    pub(super) async fn write(&self, state: &State) -> anyhow::Result<Vec<String>> {
        let (locks, mut rebuilt) = (state.locks(), Vec::new());
        if self.shown != Shown::default() {
            put(&*locks, SHOWN.parse()?, serde_json::to_vec(&self.shown)?.into()).await?;
            rebuilt.push("what is revoked and stopped".to_owned());
        }
        for (key, bytes) in self.signed.locks()? {
            put(&*locks, key, bytes).await?;
        }
        rebuilt.extend(self.signed.products().map(|product| format!("what was signed second of {product}")));
        for (product, (key, last)) in &self.releases {
            state.catalog().put(key, last.clone()).await?;
            rebuilt.push(format!("the last release of {product}"));
        }
        for (key, bytes) in self.hosts.locks()? {
            put(&*locks, key, bytes).await?;
        }
        if self.hosts.count() > 0 {
            rebuilt.push(format!("{} enrolled host(s)", self.hosts.count()));
        }
        // Whoever drafts releases keeps where patches begin, whoever signs second what is compared.
        let compared = || self.rules.indexes().map(|(product, index)| released_record(product, index));
        let records = if self.releases.is_empty() { compared().collect() } else { self.rules.records() };
        for (key, bytes) in records? {
            rebuilt.push(format!("the rules of {} so far", key.key));
            state.catalog().put(&key, bytes).await?;
        }
        Ok(rebuilt)
    }

    /// Opens this organisation's streams in the log `origin` again, each in the epoch after its last
    /// entry: something may have been signed for a place that nobody remembers, and everybody sees
    /// that there was a break.
    pub(super) async fn reopen(&self, origin: &Origin, state: &State) -> anyhow::Result<Vec<String>> {
        let mut rebuilt = Vec::new();
        for (stream, (end, id)) in self.ends.iter().filter(|(_, (end, _))| end.log == *origin) {
            let (key, bytes) = reopened(end, *id)?;
            put(&*state.locks(), key, bytes).await?;
            rebuilt.push(format!("the place of stream {stream}"));
        }
        Ok(rebuilt)
    }
}

async fn put(locks: &dyn LockStore, key: Key, bytes: Bytes) -> anyhow::Result<()> {
    match locks.compare_and_swap(&key, None, bytes).await? {
        Swap::Won(_) => Ok(()),
        Swap::Lost => anyhow::bail!("the new state is not empty"),
    }
}

#[cfg(test)]
mod tests {
    use attest::{ProductId, Statement, Stop, StopScope, Subject};
    use stdx::{Digest, SystemEntropy, UnixTime};
    use tlog::{KeyKind, SignerKey};

    use super::*;

    #[test]
    fn a_stop_is_lifted_only_where_it_was_made() {
        let organisation: OrganisationId = "supervisor".parse().unwrap();
        let signer = SignerKey::generate("recorder".parse().unwrap(), KeyKind::Ed25519, &SystemEntropy).unwrap();
        let scope = StopScope::Product("sample".parse::<ProductId>().unwrap());
        let log: Origin = "supervisor.example/log".parse().unwrap();
        let said = |stream: &StreamName, lifted| {
            let position = Position {
                log: log.clone(),
                stream: stream.clone(),
                epoch: 0,
                sequence: 0,
                previous: None,
                time: UnixTime::from_seconds(1_800_000_000),
            };
            let predicate =
                Stop { position: position.clone(), scope: scope.clone(), lifted, reason: "a test".to_owned() };
            let subject = vec![Subject::new("sample", Digest::of(b"sample"))];
            (position, Envelope::sign(Statement { subject, predicate }.encode().unwrap(), &[&signer]).unwrap())
        };
        let mut derived = Derived::of(&organisation, &[]);
        let desk: StreamName = "desk/supervisor".parse().unwrap();
        derived.own = ["desk/supervisor", "rebuild/supervisor"].map(|it| (log.clone(), it.parse().unwrap())).into();
        let mut say = |stream: &StreamName, lifted| {
            let (position, envelope) = said(stream, lifted);
            derived.take(&position, &envelope);
            derived.shown.stops.clone()
        };
        assert_eq!(say(&desk, false), std::slice::from_ref(&scope));
        for other in ["desk/vendor", "approval/vendor", "rebuild/supervisor"] {
            let other = other.parse().unwrap();
            assert_eq!(say(&other, true), std::slice::from_ref(&scope), "lifted in {other}");
        }
        assert!(say(&desk, true).is_empty());
    }
}
