//! Envelopes, statements of every kind, bundles, policies, and what domains say to each other.

use attest::{
    AccessApproval, AccessCall, AccessIntent, AccessOutcome, AccessRedaction, AccessRequest, AccessReview, Agreement,
    Approval, Bake, BuildResult, Bundle, CustodyReport, Enrolment, EnrolmentEnd, Envelope, Erasure, ErasureRequest,
    Health, Heartbeat, Mismatch, Opening, Predicate, Promotion, Provenance, Receipt, Refused, RegionStatus, Release,
    Revocation, Rewriting, Source, Statement, Status, Stop, Vsa, WorkerEnrolment, WorkerKey, open_foreign,
};
use policy::{Policy, PolicyDocument};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tlog::VerifierKey;

use crate::Target;

pub(crate) const TARGETS: &[Target] = &[
    ("envelope", envelope),
    ("statement", statement),
    ("access-statement", access_statement),
    ("opening", opening),
    ("bundle", bundle),
    ("foreign-envelope", foreign_envelope),
    ("policy", policy),
    ("policy-toml", policy_toml),
    ("api", api_bodies),
    ("api-data", api_data_bodies),
    ("result-stream", result_stream),
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
    one::<Refused>(bytes);
    one::<Agreement>(bytes);
    one::<Bake>(bytes);
    one::<Enrolment>(bytes);
    one::<EnrolmentEnd>(bytes);
    one::<Health>(bytes);
}

/// What is said about access to data.
fn access_statement(bytes: &[u8]) {
    one::<AccessRequest>(bytes);
    one::<AccessApproval>(bytes);
    one::<AccessCall>(bytes);
    one::<AccessIntent>(bytes);
    one::<AccessOutcome>(bytes);
    one::<AccessRedaction>(bytes);
    one::<AccessReview>(bytes);
    one::<CustodyReport>(bytes);
    one::<Erasure>(bytes);
    one::<ErasureRequest>(bytes);
    one::<Receipt>(bytes);
    one::<RegionStatus>(bytes);
    one::<Rewriting>(bytes);
    one::<WorkerEnrolment>(bytes);
    one::<WorkerKey>(bytes);
}

/// What a statement commits to, as its holder gives it.
fn opening(bytes: &[u8]) {
    if let Ok(opening) = Opening::parse(bytes) {
        assert_eq!(opening.to_bytes(), bytes);
    }
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

fn api_data_bodies(bytes: &[u8]) {
    body::<api::StreamEnd>(bytes);
    body::<api::DataRequest>(bytes);
    body::<api::DataApproval>(bytes);
    body::<api::DataRequestState>(bytes);
    body::<api::PrivateParts>(bytes);
    body::<api::DataQuery>(bytes);
    body::<api::PlanRequest>(bytes);
    body::<api::Plan>(bytes);
    body::<api::GrantRequest>(bytes);
    body::<api::GrantAnswer>(bytes);
    body::<api::OutcomeNote>(bytes);
    body::<api::StatusNote>(bytes);
    body::<api::ErasureNote>(bytes);
    body::<api::ErasureAnswer>(bytes);
    body::<api::VaultErasure>(bytes);
    body::<api::VaultErased>(bytes);
    body::<api::CustodyState>(bytes);
    body::<api::RunRequest>(bytes);
    body::<api::Replaced>(bytes);
}

/// What a reader gets is what lies in the stream, in its order.
fn result_stream(bytes: &[u8]) {
    let mut reader = api::ResultReader::new(bytes);
    let mut out = Vec::new();
    while let Ok(api::ResultPiece::Bytes(piece)) = reader.piece() {
        out.extend(api::result_frame(&piece));
    }
    assert!(bytes.starts_with(&out));
}

/// What was read and written is read again as the same.
pub(crate) fn body<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(bytes: &[u8]) {
    let Ok(value) = serde_json::from_slice::<T>(bytes) else { return };
    let written = serde_json::to_vec(&value).expect("a body that was read");
    assert_eq!(serde_json::from_slice::<T>(&written).expect("a body that we wrote"), value);
}
