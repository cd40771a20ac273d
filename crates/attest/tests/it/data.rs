//! One statement of each kind about access to data.

use attest::{
    AccessApproval, AccessCall, AccessIntent, AccessMode, AccessOutcome, AccessRedaction, AccessRequest, AccessReview,
    AccessStop, Budget, Commitment, CustodyReport, Ended, Erasure, ErasureRequest, PrivateField, ReaderKind, Receipt,
    RegionStatus, Rewriting, Standing, WORKERS_MAX, WorkerEnrolment, WorkerKey, Workers,
};
use stdx::UnixTime;

use crate::samples::{TIME, digest, id, key, payload, supervisor};

const BUDGET: Budget = Budget { objects: 3, rows: 1000, bytes: 65_536 };
const PARAMETERS: &str = r#"{"rule":"a rule"}"#;
const CODE: (&str, &str) = ("clerestory-query", "code");

fn private(label: &'static str, value: &str) -> Commitment {
    Commitment::new(PrivateField { label, value }, &[7; 32])
}

fn until() -> UnixTime {
    UnixTime::from_seconds(TIME)
}

fn request(kind: ReaderKind, mode: AccessMode, standing: Option<Standing>) -> AccessRequest {
    AccessRequest {
        position: supervisor("data/vendor"),
        reader: private("reader", "an analyst"),
        kind,
        purpose: "detection-quality".parse().unwrap(),
        ticket: private("ticket", "a ticket"),
        region: "zurich".parse().unwrap(),
        class: "detections".parse().unwrap(),
        countries: vec!["DE".parse().unwrap(), "JP".parse().unwrap()],
        budget: BUDGET,
        until: until(),
        mode,
        standing,
    }
}

fn intent() -> AccessIntent {
    AccessIntent {
        position: supervisor("access/supervisor"),
        policy: id("policy"),
        request: id("request"),
        region: "zurich".parse().unwrap(),
        class: "detections".parse().unwrap(),
        countries: vec!["DE".parse().unwrap(), "JP".parse().unwrap()],
        workers: Workers::one(digest("the worker's key")),
        budget: BUDGET,
        expires: until(),
        reader: None,
        parameters: None,
    }
}

/// For a template: who reads, and with which values.
fn intent_by_template() -> AccessIntent {
    let (reader, parameters) = (private("reader", "an analyst"), private("parameters", PARAMETERS));
    AccessIntent { reader: Some(reader), parameters: Some(parameters), ..intent() }
}

/// For three workers.
fn intent_of_several() -> AccessIntent {
    let workers = ["the worker's key", "another worker's key", "a third worker's key"].map(digest);
    AccessIntent { workers: Workers::new(workers.to_vec()).unwrap(), ..intent() }
}

fn call() -> AccessCall {
    AccessCall {
        request: id("request"),
        reader: private("reader", "an analyst"),
        parameters: Some(private("parameters", PARAMETERS)),
        time: until(),
        nonce: digest("nonce"),
    }
}

fn status() -> RegionStatus {
    RegionStatus {
        position: supervisor("region/zurich"),
        policy: id("policy"),
        region: "zurich".parse().unwrap(),
        expires: until(),
        stopped: vec![AccessStop::Class("content".parse().unwrap()), AccessStop::Request(id("request"))],
    }
}

fn enrolment() -> WorkerEnrolment {
    WorkerEnrolment {
        position: supervisor("access/supervisor"),
        host: "host-1".parse().unwrap(),
        key: key("host-1.example/host", 9).verifier().clone(),
        region: "zurich".parse().unwrap(),
        until: until(),
    }
}

fn worker() -> WorkerKey {
    WorkerKey {
        enrolment: id("enrolment"),
        key: "p256:BASE64".to_owned(),
        region: "zurich".parse().unwrap(),
        from: UnixTime::from_seconds(TIME - 86_400),
        until: until(),
    }
}

fn rewriting() -> Rewriting {
    Rewriting {
        enrolment: id("enrolment"),
        intent: id("intent"),
        region: "zurich".parse().unwrap(),
        class: "detections".parse().unwrap(),
        replaced: vec![digest("segment")],
        events: 511,
        doubles: 1,
        unread: vec![digest("header")],
        left_out: Vec::new(),
        omitted: 0,
        owners: Vec::new(),
    }
}

fn rewriting_of_columns() -> Rewriting {
    let left_out = vec![attest::BatchId::from_bytes(digest("one").as_bytes()[..16].try_into().unwrap())];
    Rewriting { events: 500, left_out, omitted: 11, owners: vec![digest("owner")], ..rewriting() }
}

fn report() -> CustodyReport {
    CustodyReport {
        position: supervisor("custody/member"),
        region: "zurich".parse().unwrap(),
        uses: 2,
        opened: 6,
        moved: 0,
        missing: vec![id("intent")],
    }
}

pub(crate) fn all() -> Vec<(&'static str, String)> {
    let by_person = request(ReaderKind::Person, AccessMode::BreakGlass, None);
    let standing = Standing { code: digest("code"), schema: digest("schema"), uses: 24 };
    let by_service = request(ReaderKind::Service, AccessMode::Ordinary, Some(standing));
    let approval = AccessApproval {
        position: supervisor("data/supervisor"),
        request: id("request"),
        comment: private("comment", "the detection is new"),
    };
    let outcome = AccessOutcome {
        position: supervisor("access/supervisor"),
        intent: id("intent"),
        ended: Ended::Done,
        rows: 12,
        bytes: 3456,
    };
    let object = |name: &str| attest::BatchId::from_bytes(digest(name).as_bytes()[..16].try_into().unwrap());
    let mut objects = vec![object("one"), object("another")];
    objects.sort();
    let erase = ErasureRequest {
        position: supervisor("access/supervisor"),
        region: "zurich".parse().unwrap(),
        objects,
        deadline: until(),
    };
    let erased = Erasure {
        position: supervisor("custody/member"),
        request: id("erasure"),
        region: "zurich".parse().unwrap(),
        rows: 2,
        horizon: until(),
    };
    let review = AccessReview {
        position: supervisor("data/supervisor"),
        reviewer: private("reviewer", "a supervisor"),
        question: private("question", r#"{"country":"DE"}"#),
        entries: 1000,
        key: digest("the reviewer's key"),
        until: until(),
    };
    let redaction = AccessRedaction {
        position: supervisor("data/supervisor"),
        of: id("request"),
        fields: vec![private("reader", "an analyst")],
        reason: "the analyst has left".to_owned(),
    };
    vec![
        ("access-review", payload(&[("log", "root")], review)),
        ("access-redaction", payload(&[("request", "request")], redaction)),
        ("access-request", payload(&[("query", "select")], by_person)),
        ("access-request-standing", payload(&[("query", "select")], by_service)),
        ("access-approval", payload(&[("query", "select")], approval)),
        ("access-intent", payload(&[("objects", "root")], intent())),
        ("access-intent-several", payload(&[("objects", "root")], intent_of_several())),
        ("access-intent-template", payload(&[("objects", "root")], intent_by_template())),
        ("access-call", payload(&[("query", "select")], call())),
        ("access-outcome", payload(&[("result", "rows")], outcome)),
        ("region-status", payload(&[("zurich", "zurich")], status())),
        ("worker-enrolment", payload(&[CODE], enrolment())),
        ("receipt", payload(&[("object", "sealed")], Receipt { region: "zurich".parse().unwrap(), bytes: 4321 })),
        ("worker-key", payload(&[CODE], worker())),
        ("rewriting", payload(&[("objects", "root"), ("segment", "made")], rewriting())),
        ("rewriting-of-columns", payload(&[("objects", "root"), ("segment", "made")], rewriting_of_columns())),
        ("custody-report", payload(&[("uses", "head")], report())),
        ("erasure-request", payload(&[("objects", "names")], erase)),
        ("erasure", payload(&[("objects", "names")], erased)),
    ]
}

#[test]
fn an_intent_names_one_to_eight_different_workers_in_one_spelling() {
    let keys: Vec<_> = (0..=WORKERS_MAX).map(|n| digest(&n.to_string())).collect();
    assert!(Workers::new(keys.clone()).is_err() && Workers::new(Vec::new()).is_err());
    assert!(Workers::new(vec![keys[0], keys[1], keys[0]]).is_err());
    for text in ["[]".to_owned(), format!("[\"{}\"]", keys[0]), format!("[\"{0}\",\"{0}\"]", keys[0])] {
        assert!(serde_json::from_str::<Workers>(&text).is_err(), "{text}");
    }
    for count in 1..=WORKERS_MAX {
        let workers = Workers::new(keys[..count].to_vec()).unwrap();
        let text = serde_json::to_string(&workers).unwrap();
        assert_eq!(text.starts_with('"'), count == 1);
        assert_eq!(serde_json::from_str::<Workers>(&text).unwrap(), workers);
    }
}

#[test]
fn every_object_is_in_one_slice() {
    let keys: Vec<_> = (0..WORKERS_MAX).map(|n| digest(&n.to_string())).collect();
    for count in 1..=WORKERS_MAX {
        let workers = Workers::new(keys[..count].to_vec()).unwrap();
        for objects in (0..40).chain([4095, 4096]) {
            let slices: Vec<_> = (0..count).map(|place| workers.slice(place, objects)).collect();
            let all: Vec<usize> = slices.iter().cloned().flatten().collect();
            assert_eq!(all, (0..objects).collect::<Vec<_>>());
            let sizes = slices.iter().map(ExactSizeIterator::len);
            assert!(sizes.clone().max().unwrap() - sizes.min().unwrap() <= 1, "{count} {objects}");
        }
    }
}
