//! One statement of each kind, with keys that are the same in every run.

use attest::{
    Agreement, Approval, Artifact, Bake, BuildResult, Cause, Delta, Enrolment, EnrolmentEnd, EnvironmentKind, Floor,
    Health, Heartbeat, Lane, Mismatch, Mismatched, Outcome, Position, Predicate, Promotion, Reason, Refused, Release,
    ReleaseNumber, Revision, Revocation, Ring, Source, Statement, StatementId, Status, Stop, StopScope, Subject, Vsa,
    VsaInput, VsaPolicy, VsaResult, VsaVerifier,
};
use stdx::{Digest, Entropy, EntropyError, UnixTime};
use tlog::{KeyKind, SignerKey};

/// "Randomness" that golden bytes can rest on.
struct Fixed(u8);

impl Entropy for Fixed {
    fn fill(&self, buffer: &mut [u8]) -> Result<(), EntropyError> {
        buffer.fill(self.0);
        Ok(())
    }
}

pub(crate) fn key(name: &str, seed: u8) -> SignerKey {
    SignerKey::generate(name.parse().unwrap(), KeyKind::Ed25519, &Fixed(seed)).unwrap()
}

pub(crate) fn digest(text: &str) -> Digest {
    Digest::of(text.as_bytes())
}

pub(crate) fn id(text: &str) -> StatementId {
    digest(text).to_string().parse().unwrap()
}

fn position(log: &str, stream: &str) -> Position {
    Position {
        log: log.parse().unwrap(),
        stream: stream.parse().unwrap(),
        epoch: 0,
        sequence: 7,
        previous: Some(id("the entry before")),
        time: "2026-11-22T03:25:34Z".parse().unwrap(),
    }
}

fn vendor(stream: &str) -> Position {
    position("vendor.example/log", stream)
}

pub(crate) fn supervisor(stream: &str) -> Position {
    position("supervisor.example/log", stream)
}

pub(crate) fn payload<P: Predicate>(subject: &[(&str, &str)], predicate: P) -> String {
    let subject = subject.iter().map(|(name, content)| Subject::new(*name, digest(content))).collect();
    let bytes = Statement { subject, predicate }.encode().unwrap();
    assert_eq!(Statement::<P>::decode(&bytes).unwrap().encode().unwrap(), bytes);
    String::from_utf8(bytes).unwrap()
}

const LIBRARY: (&str, &str) = ("libexample.so", "code");
pub(crate) const TIME: u64 = 1_800_000_000;

/// Name and canonical payload of each.
pub(crate) fn all() -> Vec<(&'static str, String)> {
    let mut all = assembly();
    all.extend(rules());
    all.extend(canary());
    all.extend(others());
    all.extend(release());
    all.extend(status());
    all.extend(crate::data::all());
    all
}

fn assembly() -> Vec<(&'static str, String)> {
    let product = || "libexample".parse().unwrap();
    let version = || "1.2.3".to_owned();
    vec![
        (
            "source",
            payload(
                &[("source", "manifest")],
                Source {
                    position: vendor("assembly/vendor"),
                    product: product(),
                    version: version(),
                    files: 12,
                    bytes: 34_567,
                    revision: Some(Revision { commit: "c0".repeat(20), tree: "7e".repeat(20) }),
                },
            ),
        ),
        (
            "result",
            payload(
                &[LIBRARY],
                BuildResult {
                    position: vendor("assembly/vendor"),
                    product: product(),
                    version: version(),
                    source: id("source"),
                    recipe: digest("recipe"),
                    inputs: digest("inputs"),
                    environment: digest("environment"),
                    environment_kind: EnvironmentKind::Pinned,
                    sbom: digest("sbom"),
                    lane: None,
                },
            ),
        ),
        (
            "mismatch",
            payload(
                &[LIBRARY],
                Mismatch {
                    position: supervisor("rebuild/supervisor"),
                    product: product(),
                    version: version(),
                    source: id("source"),
                    recipe: digest("recipe"),
                    rebuilt: vec![Subject::new("libexample.so", digest("other code"))],
                    causes: vec![Cause::Content, Cause::BuildId],
                    diagnosis: digest("diagnosis"),
                    summary: "libexample.so ▸ .text differs".to_owned(),
                },
            ),
        ),
    ]
}

const RULES: (&str, &str) = ("rules.yar", "rules");

fn rules() -> Vec<(&'static str, String)> {
    let product = || "signatures".parse().unwrap();
    vec![
        (
            "result-rules",
            payload(
                &[RULES, ("rules.json", "index")],
                BuildResult {
                    position: vendor("assembly/vendor"),
                    product: product(),
                    version: "2026.11.22".to_owned(),
                    source: id("source"),
                    recipe: digest("rules.toml"),
                    inputs: digest("inputs"),
                    environment: digest("engine"),
                    environment_kind: EnvironmentKind::Pinned,
                    sbom: digest("index"),
                    lane: Some(Lane::Fast),
                },
            ),
        ),
        (
            "refusal",
            payload(
                &[("source", "manifest")],
                Refused {
                    position: supervisor("rebuild/supervisor"),
                    product: product(),
                    version: "2026.11.22".to_owned(),
                    source: id("source"),
                    reasons: vec![Reason {
                        code: "goodware".to_owned(),
                        rule: Some("every_document".to_owned()),
                        file: Some("yara/documents.yar".to_owned()),
                        detail: "it fires on `letter.pdf`".to_owned(),
                    }],
                    report: digest("report"),
                },
            ),
        ),
    ]
}

fn canary() -> Vec<(&'static str, String)> {
    let host = || "canary-1".parse().unwrap();
    let (time, until) = (UnixTime::from_seconds(TIME), UnixTime::from_seconds(TIME + 90 * 86_400));
    let vkey = key("canary-1", 2).verifier().clone();
    let agreed = |predicate: Agreement| {
        let bytes = Statement { subject: vec![Agreement::subject()], predicate }.encode().unwrap();
        String::from_utf8(bytes).unwrap()
    };
    let enrolment = Enrolment {
        position: supervisor("canary/supervisor"),
        host: host(),
        key: vkey.clone(),
        agreement: id("agreement"),
        until,
    };
    vec![
        ("agreement", agreed(Agreement { host: host(), key: vkey, time, until })),
        ("enrolment", payload(&[("agreement", Agreement::text())], enrolment)),
        (
            "enrolment-end",
            payload(
                &[("enrolment", "enrolment")],
                EnrolmentEnd {
                    position: supervisor("canary/supervisor"),
                    host: host(),
                    enrolment: id("enrolment"),
                    reason: "the machine is retired".to_owned(),
                },
            ),
        ),
        (
            "health",
            payload(
                &[RULES],
                Health {
                    enrolment: id("enrolment"),
                    sequence: 12,
                    time,
                    product: "signatures".parse().unwrap(),
                    release: id("release"),
                    ring: Ring::Canary,
                    outcome: Outcome::Active,
                    crashes: 0,
                    detections: 3,
                },
            ),
        ),
        (
            "bake",
            payload(
                &[RULES],
                Bake {
                    position: supervisor("canary/supervisor"),
                    product: "signatures".parse().unwrap(),
                    release: id("release"),
                    ring: Ring::Canary,
                    since: time,
                    healthy: 3,
                    detections: 5,
                },
            ),
        ),
    ]
}

fn others() -> Vec<(&'static str, String)> {
    vec![
        (
            "heartbeat",
            payload(
                &[("stream", "assembly/vendor")],
                Heartbeat { position: vendor("assembly/vendor"), interval_s: 3_600 },
            ),
        ),
        (
            "approval",
            payload(
                &[LIBRARY],
                Approval {
                    position: vendor("approval/supervisor"),
                    product: "libexample".parse().unwrap(),
                    version: "1.2.3".to_owned(),
                    result: id("result"),
                    comment: "read the difference to 1.2.2".to_owned(),
                },
            ),
        ),
    ]
}

fn release() -> Vec<(&'static str, String)> {
    let product = || "libexample".parse().unwrap();
    vec![
        (
            "release",
            payload(
                &[LIBRARY],
                Release {
                    position: vendor("release/vendor"),
                    product: product(),
                    version: "1.2.3".to_owned(),
                    number: ReleaseNumber::new(4),
                    previous: Some(id("release 3")),
                    lane: Lane::Slow,
                    ring: Ring::Canary,
                    result: id("result"),
                    policy: id("policy"),
                    artifacts: vec![Artifact {
                        size: 4,
                        deltas: vec![Delta { from: digest("old code"), patch: digest("patch"), size: 2 }],
                    }],
                    not_before: UnixTime::from_seconds(TIME),
                    expires: UnixTime::from_seconds(TIME + 86_400),
                    minimum_engine: None,
                },
            ),
        ),
        (
            "promotion",
            payload(
                &[LIBRARY],
                Promotion {
                    position: vendor("release/vendor"),
                    product: product(),
                    release: id("release"),
                    ring: Ring::All,
                },
            ),
        ),
        (
            "vsa",
            payload(
                &[LIBRARY],
                Vsa {
                    verifier: VsaVerifier { id: "https://supervisor.example/rebuilder".to_owned() },
                    time_verified: UnixTime::from_seconds(TIME),
                    resource_uri: "pkg:generic/libexample@1.2.3".to_owned(),
                    policy: VsaPolicy {
                        uri: "sample".to_owned(),
                        digest: attest::Sha256Map { sha256: digest("policy") },
                    },
                    input_attestations: vec![VsaInput {
                        uri: "result".to_owned(),
                        digest: attest::Sha256Map { sha256: digest("result") },
                    }],
                    verification_result: VsaResult::Passed,
                    verified_levels: vec!["SLSA_BUILD_REPRODUCED".to_owned()],
                    slsa_version: "1.1".to_owned(),
                    position: supervisor("rebuild/supervisor"),
                },
            ),
        ),
    ]
}

fn status() -> Vec<(&'static str, String)> {
    let product = || "libexample".parse().unwrap();
    vec![
        (
            "revocation",
            payload(
                &[LIBRARY],
                Revocation {
                    position: supervisor("desk/supervisor"),
                    product: product(),
                    floor: Some(ReleaseNumber::new(4)),
                    reason: "crashes on start".to_owned(),
                },
            ),
        ),
        (
            "stop",
            payload(
                &[("stop", "lane slow")],
                Stop {
                    position: supervisor("desk/supervisor"),
                    scope: StopScope::Lane(Lane::Slow),
                    lifted: false,
                    reason: "a builder is under investigation".to_owned(),
                },
            ),
        ),
        (
            "status",
            payload(
                &[("slow", "slow")],
                Status {
                    position: supervisor("status/slow"),
                    lane: Lane::Slow,
                    policy: id("policy"),
                    expires: UnixTime::from_seconds(TIME),
                    revoked: vec![digest("code")],
                    floors: vec![Floor { product: product(), number: ReleaseNumber::new(4) }],
                    stops: vec![StopScope::Lane(Lane::Slow), StopScope::Product(product())],
                    mismatches: Vec::new(),
                },
            ),
        ),
        (
            "status-mismatched",
            payload(
                &[("slow", "slow")],
                Status {
                    position: supervisor("status/slow"),
                    lane: Lane::Slow,
                    policy: id("policy"),
                    expires: UnixTime::from_seconds(TIME),
                    revoked: Vec::new(),
                    floors: Vec::new(),
                    stops: Vec::new(),
                    mismatches: vec![Mismatched {
                        product: product(),
                        version: "1.7.15".to_owned(),
                        statement: id("mismatch"),
                    }],
                },
            ),
        ),
    ]
}
