//! The world: who there is, and what they have logged.

use std::collections::BTreeMap;
use std::time::Duration;

use attest::{Bundle, Envelope, Floor, Lane, Position, Predicate, Statement, StatementId, StreamName, Subject};
use policy::{
    Ages, CanaryPolicy, LanePolicy, LogPolicyEntry, Policy, PolicyDocument, ProductPolicy, Role, StreamPolicy,
    Threshold, Witnessing,
};
use stdx::{Clock as _, Digest, ManualClock, UnixTime};
use tlog::{KeyKind, Origin, SignedCheckpoint, SignerKey};
use verify::{Evidence, Moment, TrustedPolicy};

use crate::memory_log::MemoryLog;
use crate::party::{Party, key};

/// The vendor's log.
pub const VENDOR_LOG: &str = "vendor.example/log";
/// The supervisor's log.
pub const SUPERVISOR_LOG: &str = "supervisor.example/log";
/// A product of the slow lane.
pub const PRODUCT: &str = "libexample";
/// Another one.
pub const OTHER_PRODUCT: &str = "other";
/// A product of the fast lane.
pub const RULES_PRODUCT: &str = "signatures";

/// Two hosts, an hour; one bad host or 100 detections are too many.
const CANARY: CanaryPolicy = CanaryPolicy { healthy: 2, bake_s: 3600, unhealthy: 1, fires: 100 };

/// 2026-01-01T00:00:00Z.
const START: u64 = 1_767_225_600;
const DAY_S: u64 = 24 * 60 * 60;

/// Of so many witnesses so many are needed, and so many may be faulty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WitnessRule {
    /// n
    pub count: usize,
    /// k
    pub needed: usize,
    /// f
    pub faulty: usize,
}

impl WitnessRule {
    /// The rule, over the logs and witnesses of another tlog-policy text.
    #[must_use]
    pub fn witnessing(&self, text: &str) -> Witnessing {
        let (keys, _) = text.split_once("group ").unwrap();
        let names: Vec<_> = (1..=self.count).map(|n| format!("w{n}")).collect();
        let rule = format!("group witnesses {} {}\nquorum witnesses\n", self.needed, names.join(" "));
        Witnessing { faulty: self.faulty, policy: format!("{keys}{rule}") }
    }
}

/// Vendor, supervisor, four witnesses and their logs.
#[derive(Debug)]
pub struct World {
    /// Everybody's clock; it starts at 2026-01-01.
    pub clock: ManualClock,
    /// The vendor.
    pub vendor: Party,
    /// The supervisor.
    pub supervisor: Party,
    /// Four witnesses, of which three are a quorum.
    pub witnesses: Vec<SignerKey>,
    /// The vendor's log.
    pub vendor_log: MemoryLog,
    /// The supervisor's log.
    pub supervisor_log: MemoryLog,
    /// What the next status revokes.
    pub revoked: Vec<Digest>,
    /// The floors of the next status.
    pub floors: Vec<Floor>,
    /// The stops of the next status.
    pub stops: Vec<attest::StopScope>,
    /// The mismatches of the next status.
    pub mismatches: Vec<attest::Mismatched>,
    pub(crate) releases: BTreeMap<String, (u64, Option<StatementId>)>,
    genesis: Envelope,
    trusted: TrustedPolicy,
    streams: BTreeMap<(Origin, StreamName), (u64, StatementId)>,
}

impl Default for World {
    fn default() -> Self {
        Self::new()
    }
}

impl World {
    /// A world whose policy is the sample: two organisations, 3 of 4 witnesses.
    #[must_use]
    pub fn new() -> Self {
        Self::with_policy(|_| {})
    }

    /// A world whose policy was changed by `change` before it was signed.
    #[must_use]
    pub fn with_policy(change: impl FnOnce(&mut Policy)) -> Self {
        Self::with_witnesses(&WitnessRule { count: 4, needed: 3, faulty: 1 }, change)
    }

    /// A world with another number of witnesses, whose policy was changed by `change`.
    #[must_use]
    pub fn with_witnesses(rule: &WitnessRule, change: impl FnOnce(&mut Policy)) -> Self {
        let (vendor, supervisor) = (Party::new("vendor"), Party::new("supervisor"));
        let witness = |n| key(&format!("w{n}.example/witness"), KeyKind::Cosignature);
        let witnesses: Vec<_> = (1..=rule.count).map(witness).collect();
        let (mut vendor_log, supervisor_log) = (MemoryLog::new(VENDOR_LOG), MemoryLog::new(SUPERVISOR_LOG));
        let mut policy = sample(&[&vendor, &supervisor], &witnesses, &[&vendor_log, &supervisor_log]);
        policy.witnessing = rule.witnessing(&policy.witnessing.policy);
        change(&mut policy);
        let position = Position {
            log: vendor_log.origin(),
            stream: "policy".parse().unwrap(),
            epoch: 0,
            sequence: 0,
            previous: None,
            time: UnixTime::from_seconds(START),
        };
        let document = PolicyDocument { position: position.clone(), previous: None, policy };
        let subject = vec![Subject::new("policy", Digest::of(b"policy"))];
        let payload = Statement { subject, predicate: document }.encode().unwrap();
        let genesis = Envelope::sign(payload, &[vendor.key(Role::Policy), supervisor.key(Role::Policy)]).unwrap();
        vendor_log.append(genesis.to_bytes());
        let trusted = TrustedPolicy::bootstrap(&genesis, &genesis.id()).unwrap();
        let streams = BTreeMap::from([((position.log, position.stream), (1, genesis.id()))]);
        Self {
            clock: ManualClock::new(UnixTime::from_seconds(START)),
            vendor,
            supervisor,
            witnesses,
            vendor_log,
            supervisor_log,
            revoked: Vec::new(),
            floors: Vec::new(),
            stops: Vec::new(),
            mismatches: Vec::new(),
            releases: BTreeMap::new(),
            genesis,
            trusted,
            streams,
        }
    }

    /// The genesis policy.
    #[must_use]
    pub const fn genesis(&self) -> &Envelope {
        &self.genesis
    }

    /// The policy in force, trusted: the genesis, or what [`World::succeed`] put there.
    #[must_use]
    pub const fn policy(&self) -> &TrustedPolicy {
        &self.trusted
    }

    /// Both organisations put the next policy into force; its bundle, as the channel publishes it.
    pub fn succeed(&mut self, change: impl FnOnce(&mut Policy)) -> Bundle {
        let mut policy = self.trusted.policy().clone();
        policy.version += 1;
        change(&mut policy);
        let position = self.position(VENDOR_LOG, "policy");
        let document = PolicyDocument { position, previous: Some(self.trusted.id()), policy };
        let subject = vec![Subject::new("policy", Digest::of(b"policy"))];
        let statement = Statement { subject, predicate: document };
        let envelope = self.sign_as(&statement, Role::Policy, &["vendor", "supervisor"]);
        let bundle = self.bundle(&[(VENDOR_LOG, &envelope)]);
        self.trusted = self.trusted.succeed(&Evidence::open(&self.trusted, &bundle).unwrap()).unwrap();
        bundle
    }

    /// The supervisor's `status` key is replaced by a fresh one, by way of the next policy.
    pub fn replace_status_key(&mut self) -> Bundle {
        self.supervisor.replace(Role::Status);
        let organisation = self.supervisor.organisation();
        self.succeed(|policy| {
            for it in policy.organisations.iter_mut().filter(|it| it.id == organisation.id) {
                *it = organisation.clone();
            }
        })
    }

    /// Now, with evidence at most a day old.
    #[must_use]
    pub fn moment(&self) -> Moment {
        Moment::new(&self.clock, UnixTime::EPOCH, Duration::from_secs(DAY_S))
    }

    /// The log of this origin.
    #[must_use]
    pub fn log(&self, origin: &str) -> &MemoryLog {
        if origin == VENDOR_LOG { &self.vendor_log } else { &self.supervisor_log }
    }

    /// The next place in `stream` of the log `origin`.
    #[must_use]
    pub fn position(&self, origin: &str, stream: &str) -> Position {
        let (log, stream): (Origin, StreamName) = (origin.parse().unwrap(), stream.parse().unwrap());
        let end = self.streams.get(&(log.clone(), stream.clone()));
        Position {
            log,
            stream,
            epoch: 0,
            sequence: end.map_or(0, |(next, _)| *next),
            previous: end.map(|(_, previous)| *previous),
            time: self.clock.now(),
        }
    }

    /// Signs a statement and appends it to the log that its position names.
    pub fn record<P: Predicate>(&mut self, statement: &Statement<P>, keys: &[&SignerKey]) -> Envelope {
        let envelope = Envelope::sign(statement.encode().unwrap(), keys).unwrap();
        let position = statement.predicate.position().unwrap();
        self.append(position, &envelope);
        envelope
    }

    /// Appends an envelope to the log that `position` names.
    pub fn append(&mut self, position: &Position, envelope: &Envelope) {
        let log = if position.log.as_str() == VENDOR_LOG { &mut self.vendor_log } else { &mut self.supervisor_log };
        log.append(envelope.to_bytes());
        let stream = (position.log.clone(), position.stream.clone());
        self.streams.insert(stream, (position.sequence + 1, envelope.id()));
    }

    /// A checkpoint of the log `origin`, cosigned by as many witnesses as are needed, now.
    #[must_use]
    pub fn checkpoint(&self, origin: &str) -> SignedCheckpoint {
        let quorum: Vec<_> = self.witnesses.iter().take(self.trusted.quorum().needed).collect();
        self.log(origin).checkpoint(&quorum, self.clock.now())
    }

    /// A bundle of logged envelopes under fresh checkpoints.
    #[must_use]
    pub fn bundle(&self, entries: &[(&str, &Envelope)]) -> Bundle {
        let checkpoints = [VENDOR_LOG, SUPERVISOR_LOG].map(|origin| (origin, self.checkpoint(origin)));
        let prove = |(origin, envelope): &(&str, &Envelope)| {
            let (_, checkpoint) = checkpoints.iter().find(|(it, _)| it == origin).unwrap();
            self.log(origin).prove(envelope, checkpoint)
        };
        Bundle::new(entries.iter().map(prove).collect()).unwrap()
    }
}

fn sample(parties: &[&Party], witnesses: &[SignerKey], logs: &[&MemoryLog]) -> Policy {
    let each = |count| -> Vec<Threshold> {
        parties.iter().map(|party| Threshold { organisation: party.id.clone(), count }).collect()
    };
    let owner = |origin: &str| {
        let party = parties.iter().find(|party| origin.starts_with(party.id.as_str())).unwrap();
        party.id.clone()
    };
    let mut text = String::new();
    for log in logs {
        text.push_str(&format!("log {}\n", log.key().verifier()));
    }
    for (n, witness) in (1..).zip(witnesses) {
        text.push_str(&format!("witness w{n} {}\n", witness.verifier()));
    }
    text.push_str("group witnesses 3 w1 w2 w3 w4\nquorum witnesses\n");
    let stream = |log: &str, stream: &str, organisation: &str| StreamPolicy {
        log: log.parse().unwrap(),
        stream: stream.parse().unwrap(),
        organisation: organisation.parse().unwrap(),
        interval_s: DAY_S,
    };
    let lane = |lane, approvals| LanePolicy {
        lane,
        builders: each(1),
        release: each(1),
        approvals,
        log: VENDOR_LOG.parse().unwrap(),
        status: "supervisor".parse().unwrap(),
        status_log: SUPERVISOR_LOG.parse().unwrap(),
        canary: (lane == Lane::Fast).then_some(CANARY),
    };
    Policy {
        name: "sample".to_owned(),
        version: 1,
        channel_root: None,
        mirrors: Vec::new(),
        lookup: None,
        residency: None,
        ages: Ages::default(),
        witnessing: Witnessing { faulty: 1, policy: text },
        organisations: parties.iter().map(|party| party.organisation()).collect(),
        logs: logs
            .iter()
            .map(|log| LogPolicyEntry { origin: log.origin(), organisation: owner(log.origin().as_str()) })
            .collect(),
        lanes: vec![lane(Lane::Slow, each(1)), lane(Lane::Fast, Vec::new())],
        products: [(PRODUCT, Lane::Slow), (OTHER_PRODUCT, Lane::Slow), (RULES_PRODUCT, Lane::Fast)]
            .map(|(id, lane)| ProductPolicy { id: id.parse().unwrap(), lane })
            .to_vec(),
        streams: vec![
            stream(VENDOR_LOG, "policy", "vendor"),
            stream(VENDOR_LOG, "assembly/vendor", "vendor"),
            stream(VENDOR_LOG, "release/vendor", "vendor"),
            stream(VENDOR_LOG, "approval/vendor", "vendor"),
            stream(VENDOR_LOG, "approval/supervisor", "supervisor"),
            stream(SUPERVISOR_LOG, "rebuild/supervisor", "supervisor"),
            stream(SUPERVISOR_LOG, "desk/supervisor", "supervisor"),
            stream(SUPERVISOR_LOG, "status/slow", "supervisor"),
            stream(SUPERVISOR_LOG, "status/fast", "supervisor"),
            stream(SUPERVISOR_LOG, "canary/supervisor", "supervisor"),
        ],
        change: each(1),
    }
}
