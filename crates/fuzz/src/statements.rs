//! Envelopes, statements of every kind, bundles, policies, and what domains say to each other.

use attest::{
    Approval, BuildResult, Bundle, Envelope, Heartbeat, Mismatch, Predicate, Promotion, Provenance, Release,
    Revocation, Source, Statement, Status, Stop, Vsa, open_foreign,
};
use policy::{Policy, PolicyDocument};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tlog::VerifierKey;

use crate::Target;

pub(crate) const TARGETS: &[Target] = &[
    ("envelope", envelope),
    ("statement", statement),
    ("bundle", bundle),
    ("foreign-envelope", foreign_envelope),
    ("policy", policy),
    ("policy-toml", policy_toml),
    ("api", api_bodies),
];

fn envelope(bytes: &[u8]) {
    if let Ok(envelope) = Envelope::parse(bytes) {
        assert_eq!(envelope.to_bytes(), bytes);
    }
}

fn statement(bytes: &[u8]) {
    one::<Source>(bytes);
    one::<BuildResult>(bytes);
    one::<Mismatch>(bytes);
    one::<Vsa>(bytes);
    one::<Approval>(bytes);
    one::<Release>(bytes);
    one::<Promotion>(bytes);
    one::<Revocation>(bytes);
    one::<Stop>(bytes);
    one::<Status>(bytes);
    one::<Heartbeat>(bytes);
    one::<Provenance>(bytes);
    one::<PolicyDocument>(bytes);
}

fn one<P: Predicate>(bytes: &[u8]) -> Option<Statement<P>> {
    let statement = Statement::<P>::decode(bytes).ok()?;
    assert_eq!(statement.encode().expect("a statement that was read"), bytes);
    Some(statement)
}

fn bundle(bytes: &[u8]) {
    if let Ok(bundle) = Bundle::parse(bytes) {
        assert_eq!(bundle.to_bytes(), bytes);
    }
}

/// Another's envelope has no canonical form; nothing is signed by this key in it.
fn foreign_envelope(bytes: &[u8]) {
    let key: VerifierKey =
        "log.example/one+aa441aac+AYqI4910CfGV/VLbLTy6XXLKZwm/HZQSG/N0iAG0D29c".parse().expect("a key");
    let _ = open_foreign(bytes, &key);
}

fn policy(bytes: &[u8]) {
    let Some(statement) = one::<PolicyDocument>(bytes) else { return };
    let _ = statement.predicate.policy.check();
}

fn policy_toml(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(policy) = toml::from_str::<Policy>(text) else { return };
    let _ = policy.check();
    let again = toml::to_string(&policy).expect("a policy that was read");
    assert_eq!(toml::from_str::<Policy>(&again).expect("a policy that we wrote"), policy);
}

fn api_bodies(bytes: &[u8]) {
    body::<api::ErrorBody>(bytes);
    body::<api::Appended>(bytes);
    body::<api::RebuildRequest>(bytes);
    body::<api::RebuildState>(bytes);
    body::<api::DraftRequest>(bytes);
    body::<api::ReleaseRequest>(bytes);
    body::<api::Health>(bytes);
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = text.parse::<api::BaseUrl>();
    }
}

/// What was read and written is read again as the same.
pub(crate) fn body<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(bytes: &[u8]) {
    let Ok(value) = serde_json::from_slice::<T>(bytes) else { return };
    let written = serde_json::to_vec(&value).expect("a body that was read");
    assert_eq!(serde_json::from_slice::<T>(&written).expect("a body that we wrote"), value);
}
