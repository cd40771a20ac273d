//! A region, its custodians, and people who read.

use std::time::Duration;

use attest::{
    AccessApproval, AccessIntent, AccessMode, AccessOutcome, AccessRedaction, AccessRequest, AccessReview, Budget,
    Commitment, CustodyReport, Ended, Envelope, Opening, PrivateField, ReaderKind, Statement, StatementId, Subject,
    Workers,
};
use ledger::{Filter, Found, Index, Page, Timeline, Wanted};
use policy::Role;
use seal::{Kem, PrivateKey};
use stdx::{Clock as _, Digest, SystemEntropy, UnixTime};
use testkit::{APPROVED_CLASS, Custody, PURPOSE, REGION, SUPERVISOR_LOG, World};
use tlog::{EntryIndex, SignerKey};

pub(crate) const BUDGET: Budget = Budget { objects: 2, rows: 100, bytes: 10_000 };

pub(crate) struct Scene {
    pub(crate) custody: Custody,
    pub(crate) world: World,
    /// What reviewers have answers sealed to.
    pub(crate) reviewer: PrivateKey,
}

/// A request, with what it says in private.
pub(crate) struct Asked {
    pub(crate) envelope: Envelope,
    pub(crate) reader: Opening,
    pub(crate) ticket: Opening,
}

pub(crate) fn opening(label: &'static str, value: &str) -> Opening {
    Opening::new(PrivateField { label, value }, &SystemEntropy).unwrap()
}

pub(crate) fn subject(name: &str) -> Vec<Subject> {
    vec![Subject::new(name, Digest::of(name.as_bytes()))]
}

impl Scene {
    pub(crate) fn new() -> Self {
        let custody = Custody::new();
        let world = World::with_policy(|policy| custody.put_into(policy));
        let reviewer = PrivateKey::generate(Kem::P256, &SystemEntropy).unwrap();
        Self { custody, world, reviewer }
    }

    pub(crate) fn now(&self) -> UnixTime {
        self.world.clock.now()
    }

    pub(crate) fn in_s(&self, seconds: u64) -> UnixTime {
        self.now().after(Duration::from_secs(seconds))
    }

    pub(crate) fn wait(&self, seconds: u64) {
        self.world.clock.advance(Duration::from_secs(seconds));
    }

    fn key(&self, organisation: &str, role: Role) -> &SignerKey {
        match organisation {
            "vendor" => self.world.vendor.key(role),
            "supervisor" => self.world.supervisor.key(role),
            _ => self.custody.member.key(role),
        }
    }

    pub(crate) fn record<P: attest::Predicate>(
        &mut self,
        name: &str,
        predicate: P,
        (organisation, role): (&str, Role),
    ) -> Envelope {
        let statement = Statement { subject: subject(name), predicate };
        let envelope = Envelope::sign(statement.encode().unwrap(), &[self.key(organisation, role)]).unwrap();
        self.world.append(statement.predicate.position().unwrap(), &envelope);
        envelope
    }

    pub(crate) fn request(&mut self, who: &str, countries: &[&str]) -> Asked {
        self.request_as(who, countries, |_| {})
    }

    pub(crate) fn request_as(
        &mut self,
        who: &str,
        countries: &[&str],
        change: impl FnOnce(&mut AccessRequest),
    ) -> Asked {
        let (reader, ticket) = (opening("reader", who), opening("ticket", "T-1"));
        let mut request = AccessRequest {
            position: self.world.position(SUPERVISOR_LOG, "data/vendor"),
            reader: reader.commitment(),
            kind: ReaderKind::Person,
            purpose: PURPOSE.parse().unwrap(),
            ticket: ticket.commitment(),
            region: REGION.parse().unwrap(),
            class: APPROVED_CLASS.parse().unwrap(),
            countries: countries.iter().map(|it| it.parse().unwrap()).collect(),
            budget: BUDGET,
            until: self.in_s(3600),
            mode: AccessMode::Ordinary,
            standing: None,
        };
        change(&mut request);
        Asked { envelope: self.record("query", request, ("vendor", Role::Reader)), reader, ticket }
    }

    pub(crate) fn approve(&mut self, request: StatementId, by: &str) -> (Envelope, Opening) {
        let comment = opening("comment", "yes");
        let approval = AccessApproval {
            position: self.world.position(SUPERVISOR_LOG, &format!("data/{by}")),
            request,
            comment: comment.commitment(),
        };
        (self.record("query", approval, (by, Role::Approver)), comment)
    }

    pub(crate) fn intent(&mut self, request: StatementId, change: impl FnOnce(&mut AccessIntent)) -> Envelope {
        let mut intent = AccessIntent {
            position: self.world.position(SUPERVISOR_LOG, "access/supervisor"),
            policy: self.world.policy().id(),
            request,
            region: REGION.parse().unwrap(),
            class: APPROVED_CLASS.parse().unwrap(),
            countries: vec!["DE".parse().unwrap()],
            workers: Workers::one(Digest::of(b"worker")),
            budget: BUDGET,
            expires: self.in_s(600),
            reader: None,
            parameters: None,
        };
        change(&mut intent);
        self.record("objects", intent, ("supervisor", Role::Gateway))
    }

    pub(crate) fn outcome(&mut self, intent: StatementId, ended: Ended, rows: u64) -> Envelope {
        let position = self.world.position(SUPERVISOR_LOG, "access/supervisor");
        let outcome = AccessOutcome { position, intent, ended, rows, bytes: rows * 10 };
        self.record("result", outcome, ("supervisor", Role::Gateway))
    }

    /// From the request to the result.
    pub(crate) fn access(&mut self, who: &str, countries: &[&str], rows: u64) -> Asked {
        let asked = self.request(who, countries);
        self.approve(asked.envelope.id(), "supervisor");
        let named = countries.iter().map(|it| it.parse().unwrap()).collect();
        let intent = self.intent(asked.envelope.id(), |intent| intent.countries = named);
        self.outcome(intent.id(), Ended::Done, rows);
        asked
    }

    pub(crate) fn report(&mut self, by: &str, uses: u64, opened: u64) {
        let position = self.world.position(SUPERVISOR_LOG, &format!("custody/{by}"));
        let report =
            CustodyReport { position, region: REGION.parse().unwrap(), uses, opened, moved: 0, missing: Vec::new() };
        self.record("uses", report, (by, Role::Custodian));
    }

    pub(crate) fn review(&mut self, change: impl FnOnce(&mut AccessReview)) -> (Envelope, Opening) {
        let (reviewer, question) = (opening("reviewer", "a supervisor"), opening("question", "{}"));
        let mut review = AccessReview {
            position: self.world.position(SUPERVISOR_LOG, "data/supervisor"),
            reviewer: reviewer.commitment(),
            question: question.commitment(),
            entries: self.world.supervisor_log.entries().len() as u64,
            key: self.reviewer.public().id(),
            until: self.in_s(600),
        };
        change(&mut review);
        (self.record("log", review, ("supervisor", Role::Approver)), reviewer)
    }

    pub(crate) fn redaction(&mut self, of: StatementId, fields: &[Commitment]) -> Envelope {
        let mut fields = fields.to_vec();
        fields.sort_unstable();
        let position = self.world.position(SUPERVISOR_LOG, "data/supervisor");
        let redaction = AccessRedaction { position, of, fields, reason: "asked for".to_owned() };
        self.record("request", redaction, ("supervisor", Role::Approver))
    }

    /// Reads what is new.
    pub(crate) fn read(&self, index: &mut Index) {
        let from = index.entries();
        let mut update = index.update(self.world.policy()).unwrap();
        for (entry, at) in self.world.supervisor_log.entries().iter().zip(0..).skip(usize::try_from(from).unwrap()) {
            update.entry(EntryIndex::new(at), entry).unwrap();
        }
        index.save(&self.world.checkpoint(SUPERVISOR_LOG).to_string()).unwrap();
    }

    pub(crate) fn index(&self) -> Index {
        let mut index = Index::in_memory(SUPERVISOR_LOG.parse().unwrap());
        self.read(&mut index);
        index
    }

    pub(crate) fn wanted(&self) -> Wanted {
        Wanted { now: self.now(), page: Page { rows: 10, before: None }, timeline: Timeline::Drawn }
    }

    pub(crate) fn find(&self, index: &Index, change: impl FnOnce(&mut Filter)) -> Found {
        let mut filter = Filter::default();
        change(&mut filter);
        index.search(&filter, &self.wanted()).unwrap()
    }
}
