//! A region, a reader, an approver, a gateway and a worker, each with keys of its own.

use std::collections::BTreeSet;
use std::time::Duration;

use attest::{
    AccessApproval, AccessIntent, AccessMode, AccessRequest, AccessStop, Budget, Bundle, Commitment, Envelope,
    PrivateField, ReaderKind, RegionStatus, Standing, Statement, StatementId, Subject, WorkerEnrolment, WorkerKey,
    Workers,
};
use custody::{Admitted, Ask, Concluded, Current, Custodian, Refusal, Seen, conclude, current, decide, objects_root};
use policy::Role;
use seal::{Destination, Header, Kem, PrivateKey};
use stdx::{Clock as _, Digest, ManualClock, SystemEntropy, UnixTime};
use testkit::{APPROVED_CLASS, Custody, PURPOSE, REGION, SUPERVISOR_LOG, World};
use tlog::{KeyKind, SignerKey};

pub(crate) struct Scene {
    pub(crate) custody: Custody,
    pub(crate) world: World,
    pub(crate) host: SignerKey,
    pub(crate) worker: PrivateKey,
    /// More workers of the same intent, each with its host.
    pub(crate) others: Vec<(SignerKey, PrivateKey)>,
    /// What is asked for, before anybody signs it.
    pub(crate) plan: Plan,
    /// The newest status that there is.
    pub(crate) newest: Envelope,
}

/// What the statements say, for tests to change.
#[derive(Clone)]
pub(crate) struct Plan {
    pub(crate) purpose: String,
    pub(crate) countries: Vec<String>,
    pub(crate) asked: Budget,
    pub(crate) budget: Budget,
    pub(crate) until_s: u64,
    pub(crate) expires_s: u64,
    pub(crate) standing: Option<Standing>,
    pub(crate) approvers: Vec<&'static str>,
    pub(crate) requester: &'static str,
    pub(crate) gateway: &'static str,
    pub(crate) stopped: Vec<AccessStop>,
    pub(crate) status_s: u64,
    pub(crate) status_stream: String,
    pub(crate) worker_region: String,
    pub(crate) worker_code: &'static str,
    pub(crate) worker_s: u64,
    pub(crate) intent_region: String,
    pub(crate) intent_class: String,
}

/// Everything that a gateway brings, signed, logged and proven.
pub(crate) struct Made {
    pub(crate) bundle: Bundle,
    pub(crate) intent: Envelope,
    pub(crate) request: Envelope,
    pub(crate) others: Vec<Envelope>,
    pub(crate) workers: Vec<Envelope>,
    pub(crate) headers: Vec<Header>,
    pub(crate) objects: Vec<Vec<u8>>,
}

impl Made {
    pub(crate) fn ask(&self) -> Ask<'_> {
        Ask { evidence: &self.bundle, workers: &self.workers, headers: &self.headers }
    }

    pub(crate) fn envelopes(&self) -> Vec<&Envelope> {
        [&self.intent, &self.request].into_iter().chain(&self.others).collect()
    }
}

pub(crate) const BUDGET: Budget = Budget { objects: 2, rows: 100, bytes: 10_000 };

impl Scene {
    pub(crate) fn new() -> Self {
        let custody = Custody::new();
        let world = World::with_policy(|policy| custody.put_into(policy));
        let host = host(1);
        let worker = PrivateKey::generate(Kem::P256, &SystemEntropy).unwrap();
        let plan = Plan {
            purpose: PURPOSE.to_owned(),
            countries: vec!["DE".to_owned(), "JP".to_owned()],
            asked: BUDGET,
            budget: BUDGET,
            until_s: 3600,
            expires_s: 600,
            standing: None,
            approvers: vec!["supervisor"],
            requester: "vendor",
            gateway: "supervisor",
            stopped: Vec::new(),
            status_s: 3600,
            status_stream: format!("region/{REGION}"),
            worker_region: REGION.to_owned(),
            worker_code: "code",
            worker_s: 3600,
            intent_region: REGION.to_owned(),
            intent_class: APPROVED_CLASS.to_owned(),
        };
        let newest = world.genesis().clone();
        Self { custody, world, host, worker, others: Vec::new(), plan, newest }
    }

    pub(crate) fn now(&self) -> UnixTime {
        self.world.clock.now()
    }

    /// With so many workers, each on a host of its own.
    pub(crate) fn of_workers(count: usize) -> Self {
        let mut scene = Self::new();
        let other = |number| (host(number), PrivateKey::generate(Kem::XWing, &SystemEntropy).unwrap());
        scene.others = (2..=count).map(other).collect();
        scene
    }

    /// The workers' keys, in the intent's order.
    pub(crate) fn keys(&self) -> Vec<&PrivateKey> {
        std::iter::once(&self.worker).chain(self.others.iter().map(|(_, key)| key)).collect()
    }

    fn in_s(&self, seconds: u64) -> UnixTime {
        self.now().after(Duration::from_secs(seconds))
    }

    /// Objects from two countries, ascending by name.
    pub(crate) fn objects(&self) -> Vec<Vec<u8>> {
        let (id, policy) = (self.world.policy().id(), self.world.policy().policy());
        let residency = policy.residency.as_ref().unwrap();
        let mut objects: Vec<Vec<u8>> = ["DE", "JP"]
            .iter()
            .map(|country| {
                let destination = Destination::new(residency, id, country.parse().unwrap(), self.now()).unwrap();
                let text = format!("an event from {country}");
                destination.seal(&APPROVED_CLASS.parse().unwrap(), text.as_bytes(), &SystemEntropy).unwrap()
            })
            .collect();
        objects.sort_by_key(|object| Header::parse(object).unwrap().0.bound.id);
        objects
    }

    fn key_of(&self, organisation: &str, role: Role) -> &SignerKey {
        match organisation {
            "vendor" => self.world.vendor.key(role),
            "supervisor" => self.world.supervisor.key(role),
            _ => self.custody.member.key(role),
        }
    }

    pub(crate) fn record<P: attest::Predicate>(
        &mut self,
        subject: Vec<Subject>,
        predicate: P,
        signers: &[(&str, Role)],
    ) -> Envelope {
        let statement = Statement { subject, predicate };
        let keys: Vec<&SignerKey> = signers.iter().map(|(who, role)| self.key_of(who, *role)).collect();
        let envelope = Envelope::sign(statement.encode().unwrap(), &keys).unwrap();
        self.world.append(statement.predicate.position().unwrap(), &envelope);
        envelope
    }

    pub(crate) fn request(&mut self) -> Envelope {
        let plan = self.plan.clone();
        let private = |label, value| Commitment::new(PrivateField { label, value }, &[7; 32]);
        let request = AccessRequest {
            position: self.world.position(SUPERVISOR_LOG, &format!("data/{}", plan.requester)),
            reader: private("reader", "an analyst"),
            kind: ReaderKind::Person,
            purpose: plan.purpose.parse().unwrap(),
            ticket: private("ticket", "a ticket"),
            region: REGION.parse().unwrap(),
            class: APPROVED_CLASS.parse().unwrap(),
            countries: plan.countries.iter().map(|it| it.parse().unwrap()).collect(),
            budget: plan.asked,
            until: self.in_s(plan.until_s),
            mode: AccessMode::Ordinary,
            standing: plan.standing,
        };
        self.record(query(), request, &[(plan.requester, Role::Reader)])
    }

    pub(crate) fn approval(&mut self, request: StatementId, approver: &str) -> Envelope {
        let approval = AccessApproval {
            position: self.world.position(SUPERVISOR_LOG, &format!("data/{approver}")),
            request,
            comment: Commitment::new(PrivateField { label: "comment", value: "yes" }, &[7; 32]),
        };
        self.record(query(), approval, &[(approver, Role::Approver)])
    }

    pub(crate) fn enrol(&mut self) -> Envelope {
        self.enrol_host(self.host.verifier().clone(), "code")
    }

    pub(crate) fn enrol_host(&mut self, key: tlog::VerifierKey, program: &str) -> Envelope {
        let enrolment = WorkerEnrolment {
            position: self.world.position(SUPERVISOR_LOG, "access/supervisor"),
            host: "host-1".parse().unwrap(),
            key,
            region: self.plan.worker_region.parse().unwrap(),
            until: self.in_s(86_400),
        };
        self.record(code(program), enrolment, &[("supervisor", Role::Recorder)])
    }

    pub(crate) fn status(&mut self) -> Envelope {
        let status = RegionStatus {
            position: self.world.position(SUPERVISOR_LOG, &self.plan.status_stream),
            policy: self.world.policy().id(),
            region: REGION.parse().unwrap(),
            expires: self.in_s(self.plan.status_s),
            stopped: self.plan.stopped.clone(),
        };
        let subject = vec![Subject::new(REGION, Digest::of(REGION.as_bytes()))];
        self.newest = self.record(subject, status, &[("supervisor", Role::Status)]);
        self.newest.clone()
    }

    pub(crate) fn intent(&mut self, request: StatementId, headers: &[Header]) -> Envelope {
        let plan = self.plan.clone();
        let countries: BTreeSet<_> = plan.countries.iter().map(|it| it.parse().unwrap()).collect();
        let intent = AccessIntent {
            position: self.world.position(SUPERVISOR_LOG, &format!("access/{}", plan.gateway)),
            policy: self.world.policy().id(),
            request,
            region: plan.intent_region.parse().unwrap(),
            class: plan.intent_class.parse().unwrap(),
            countries: countries.into_iter().collect(),
            workers: Workers::new(self.keys().iter().map(|key| key.public().id()).collect()).unwrap(),
            budget: plan.budget,
            expires: self.in_s(plan.expires_s),
            reader: None,
            parameters: None,
        };
        let subject = vec![Subject::new("objects", objects_root(headers).unwrap())];
        self.record(subject, intent, &[(plan.gateway, Role::Gateway)])
    }

    pub(crate) fn certify(&self, enrolment: StatementId, by: &SignerKey) -> Envelope {
        self.certify_key(enrolment, by, &self.worker)
    }

    pub(crate) fn certify_key(&self, enrolment: StatementId, by: &SignerKey, key: &PrivateKey) -> Envelope {
        let certificate = WorkerKey {
            enrolment,
            key: key.public().to_string(),
            region: self.plan.worker_region.parse().unwrap(),
            from: self.now(),
            until: self.in_s(self.plan.worker_s),
        };
        let statement = Statement { subject: code(self.plan.worker_code), predicate: certificate };
        Envelope::sign(statement.encode().unwrap(), &[by]).unwrap()
    }

    /// The whole path, as the plan has it.
    pub(crate) fn make(&mut self) -> Made {
        let objects = self.objects();
        let headers: Vec<Header> = objects.iter().map(|object| Header::parse(object).unwrap().0).collect();
        let request = self.request();
        let approvers = self.plan.approvers.clone();
        let mut others: Vec<Envelope> = approvers.iter().map(|it| self.approval(request.id(), it)).collect();
        let enrolment = self.enrol();
        let mut workers = vec![self.certify(enrolment.id(), &self.host)];
        others.push(enrolment);
        let more: Vec<tlog::VerifierKey> = self.others.iter().map(|(host, _)| host.verifier().clone()).collect();
        for (at, key) in more.into_iter().enumerate() {
            let enrolment = self.enrol_host(key, "code");
            workers.push(self.certify_key(enrolment.id(), &self.others[at].0, &self.others[at].1));
            others.push(enrolment);
        }
        others.push(self.status());
        let intent = self.intent(request.id(), &headers);
        let mut made = Made { bundle: Bundle::default(), intent, request, others, workers, headers, objects };
        made.bundle = self.prove(&made);
        made
    }

    /// Proofs under a checkpoint of now.
    pub(crate) fn prove(&self, made: &Made) -> Bundle {
        let entries: Vec<(&str, &Envelope)> = made.envelopes().into_iter().map(|it| (SUPERVISOR_LOG, it)).collect();
        self.world.bundle(&entries)
    }

    pub(crate) fn decide_as(&self, organisation: &str, ask: &Ask<'_>) -> Result<Admitted, Refusal> {
        self.decide_at(organisation, ask, &ManualClock::new(self.now()), Seen::default())
    }

    pub(crate) fn decide_at(
        &self,
        organisation: &str,
        ask: &Ask<'_>,
        clock: &ManualClock,
        seen: Seen,
    ) -> Result<Admitted, Refusal> {
        let (organisation, region) = (organisation.parse().unwrap(), REGION.parse().unwrap());
        let policy = self.world.policy();
        let custodian = Custodian { organisation: &organisation, region: &region, policy, clock, seen };
        decide(&custodian, &self.current(&self.newest)?, ask)
    }

    /// The status that a custodian got when it asked.
    pub(crate) fn current(&self, status: &Envelope) -> Result<Current, Refusal> {
        let (organisation, region) = ("member".parse().unwrap(), REGION.parse().unwrap());
        let (policy, clock, seen) = (self.world.policy(), &ManualClock::new(self.now()), Seen::default());
        let custodian = Custodian { organisation: &organisation, region: &region, policy, clock, seen };
        current(&custodian, &self.world.bundle(&[(SUPERVISOR_LOG, status)]))
    }

    pub(crate) fn conclude_as(&self, organisation: &str, bundle: &Bundle) -> Result<Concluded, Refusal> {
        let (organisation, region) = (organisation.parse().unwrap(), REGION.parse().unwrap());
        let (policy, clock) = (self.world.policy(), &ManualClock::new(self.now()));
        let seen = Seen::default();
        conclude(&Custodian { organisation: &organisation, region: &region, policy, clock, seen }, bundle)
    }

    /// Why the path, with the plan changed like this, is refused by both custodians alike.
    pub(crate) fn refused(change: impl FnOnce(&mut Plan)) -> String {
        let mut scene = Self::new();
        change(&mut scene.plan);
        let made = scene.make();
        let [one, other] =
            ["supervisor", "member"].map(|it| scene.decide_as(it, &made.ask()).map(drop).unwrap_err().to_string());
        assert_eq!(one, other);
        one
    }
}

pub(crate) fn host(number: usize) -> SignerKey {
    let name = format!("host-{number}.example/host").parse().unwrap();
    SignerKey::generate(name, KeyKind::Ed25519, &SystemEntropy).unwrap()
}

fn query() -> Vec<Subject> {
    vec![Subject::new("query", Digest::of(b"select"))]
}

fn code(text: &str) -> Vec<Subject> {
    vec![Subject::new("clerestory-query", Digest::of(text.as_bytes()))]
}
