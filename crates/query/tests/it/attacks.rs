//! Gateways, vaults and thieves that lie. Nothing is given out, or the result says that it is not whole.

use std::ops::Range;
use std::sync::Arc;

use api::ErrorBody;
use async_trait::async_trait;
use attest::{Opening, RegionId};
use bytes::Bytes;
use query::{Place, Refused, Vault, VaultError, WorkerError};
use stdx::{Digest, SystemEntropy};
use testkit::APPROVED_CLASS;

use crate::scene::{OnDisk, Question, Scene, collected, detection};

const TEXT: &str = "SELECT rule FROM detections ORDER BY rule";

async fn ready() -> (Scene, Question) {
    let scene = Scene::new().await;
    let first = scene.sealed(APPROVED_CLASS, "DE", detection("one", 10));
    scene.take(&[first, scene.sealed(APPROVED_CLASS, "JP", detection("two", 20))]).await;
    (scene, Question::of(APPROVED_CLASS, TEXT))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_intent_is_answered_once() {
    let (mut scene, question) = ready().await;
    let plan = scene.plan(&question).await.unwrap();
    let request = scene.granted(&question, &plan).await;
    assert_eq!(collected(scene.worker.run(request.clone()).await.unwrap()).await.0, b"rule\none\ntwo\n");
    let again = scene.worker.run(request.clone()).await.unwrap_err();
    assert!(matches!(again, WorkerError::Refused(Refused::Used(_))), "{again}");
    // Another process on the same host, with the same enrolment, has another key.
    let other = scene.another_worker();
    other.certificate().await.unwrap();
    let stolen = other.run(request).await.unwrap_err();
    assert!(stolen.to_string().contains("names another worker's key"), "{stolen}");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_query_other_values_or_other_objects_are_refused() {
    let (mut scene, question) = ready().await;
    let plan = scene.plan(&question).await.unwrap();
    let request = scene.granted(&question, &plan).await;

    let mut other = request.clone();
    other.query = "SELECT rule FROM detections ORDER BY rule ".to_owned();
    let refused = scene.worker.run(other).await.unwrap_err();
    assert!(refused.to_string().contains("is for another query"), "{refused}");

    let mut other = request.clone();
    let field = attest::PrivateField { label: "parameters", value: "{}" };
    other.parameters = Some(Opening::new(field, &SystemEntropy).unwrap());
    let refused = scene.worker.run(other).await.unwrap_err();
    assert!(refused.to_string().contains("commits to other values"), "{refused}");

    let mut fewer = request.clone();
    fewer.objects.pop();
    let refused = scene.worker.run(fewer).await.unwrap_err();
    assert!(refused.to_string().contains("names other objects"), "{refused}");

    let mut swapped = request.clone();
    swapped.objects.reverse();
    assert!(scene.worker.run(swapped).await.is_err());

    // None of these has used the intent up.
    assert!(scene.worker.run(request).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_every_custodians_shares_nothing_opens() {
    let (mut scene, question) = ready().await;
    let plan = scene.plan(&question).await.unwrap();
    for custodian in ["supervisor", "member"] {
        let mut request = scene.granted(&question, &plan).await;
        request.grants.remove(&custodian.parse().unwrap());
        let refused = scene.worker.run(request).await.unwrap_err();
        assert!(matches!(refused, WorkerError::Objects(_)), "{refused}");
    }
    // Shares of another intent's.
    let (first, mut second) = (scene.granted(&question, &plan).await, scene.granted(&question, &plan).await);
    second.grants = first.grants;
    assert!(matches!(scene.worker.run(second).await.unwrap_err(), WorkerError::Objects(_)));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_intent_that_is_over_is_refused_and_its_time_ends_a_query() {
    let (mut scene, question) = ready().await;
    let plan = scene.plan(&question).await.unwrap();
    let request = scene.granted(&question, &plan).await;
    scene.clock.advance(std::time::Duration::from_secs(601));
    let refused = scene.worker.run(request).await.unwrap_err();
    assert!(refused.to_string().contains("is over"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn evidence_that_is_not_witnessed_or_not_the_gateways_is_refused() {
    let (mut scene, question) = ready().await;
    let plan = scene.plan(&question).await.unwrap();
    let request = scene.granted(&question, &plan).await;
    for from in ["\"sequence\"", "cosignature", "\u{2014} w1.example/witness "] {
        let mut forged = request.clone();
        forged.evidence = forged.evidence.replacen(from, "x", 1);
        assert!(forged.evidence == request.evidence || scene.worker.run(forged).await.is_err(), "{from}");
    }
    let mut nothing = request.clone();
    nothing.evidence = String::new();
    assert!(scene.worker.run(nothing).await.is_err());
    // Every byte of the signed part counts: the whole, cut at a hundred places.
    for cut in 1..100 {
        let mut cut_off = request.clone();
        cut_off.evidence.truncate(cut_off.evidence.len() * cut / 100);
        assert!(scene.worker.run(cut_off).await.is_err(), "{cut}");
    }
    assert!(scene.worker.run(request).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn budgets_end_a_result_that_says_so() {
    let (mut scene, mut question) = ready().await;
    question.rows = 1;
    let (answer, end) = scene.ask(&question).await;
    assert_eq!((answer.as_str(), end.rows, end.bytes), ("", 0, 0));
    assert_eq!(end.failed, Some(ErrorBody::too_much("the budget of the intent is used up: rows")));
    (question.rows, question.bytes) = (1000, 5);
    let (answer, end) = scene.ask(&question).await;
    assert_eq!((answer.as_str(), end.bytes), ("", 0));
    assert_eq!(end.failed, Some(ErrorBody::too_much("the budget of the intent is used up: bytes")));
    question.bytes = 13;
    let (answer, end) = scene.ask(&question).await;
    assert_eq!((answer.as_str(), end.bytes, end.failed), ("rule\none\ntwo\n", 13, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_changed_in_the_vault_is_not_read() {
    let (mut scene, question) = ready().await;
    let plan = scene.plan(&question).await.unwrap();
    let segments = scene.folder.path().join("store");
    let (name, path) = testkit::files(&segments).into_iter().find(|(name, _)| name.contains("segment/")).unwrap();
    let whole = std::fs::read(&path).unwrap();
    let object = &plan.objects[0];
    for at in [object.at + 10, object.at + object.bytes - 1, object.at + object.bytes - 200] {
        let request = scene.granted(&question, &plan).await;
        let mut changed = whole.clone();
        changed[at as usize] ^= 1;
        stdx::durable::write(&path, &changed).unwrap();
        // A header that was changed is seen at the next plan; frames when they are read.
        let planned = scene.plan(&question).await;
        if let Ok(frames) = scene.worker.run(request).await {
            let (answer, end) = collected(frames).await;
            let sound = end.failed.is_none() && answer == b"rule\none\ntwo\n" && planned.is_err();
            assert!(end.failed.is_some() || sound, "{name} {at}: {end:?}");
            // It is not the endpoint's: that the segment is another tells.
            assert_eq!(end.unreadable, 0, "{name} {at}: {end:?}");
        }
        stdx::durable::write(&path, &whole).unwrap();
    }
}

/// A vault that says what there is, and gives nothing of it.
#[derive(Debug)]
struct Mute(OnDisk);

#[async_trait]
impl Vault for Mute {
    async fn manifest(&self, region: &RegionId, number: u64) -> Result<Option<Bytes>, VaultError> {
        self.0.manifest(region, number).await
    }

    async fn evidence(&self, region: &RegionId, evidence: &Digest) -> Result<Bytes, VaultError> {
        self.0.evidence(region, evidence).await
    }

    async fn read(&self, place: &Place, _: Range<u64>) -> Result<Bytes, VaultError> {
        Err(VaultError::Failed { what: place.segment.to_string(), why: "it is away".to_owned() })
    }
}

/// Who looks for damage where there is none looks in vain.
#[tokio::test(flavor = "multi_thread")]
async fn a_vault_that_is_away_is_no_object_that_was_changed() {
    let (mut scene, question) = ready().await;
    let plan = scene.plan(&question).await.unwrap();
    let worker = scene.another_worker_with(Arc::new(Mute(OnDisk(Arc::clone(&scene.objects)))));
    let request = scene.granted_to(&worker.certificate().await.unwrap(), &question, &plan).await;
    let (answer, end) = collected(worker.run(request).await.unwrap()).await;
    assert_eq!(
        (&*answer, end.failed.as_ref().map(|it| &*it.message)),
        (&b""[..], Some("the vault did not give an object"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_does_not_repeat_what_was_read() {
    let mut scene = Scene::new().await;
    scene.take(&[scene.sealed(APPROVED_CLASS, "DE", detection("a-secret-word", 10))]).await;
    let question = Question::of(APPROVED_CLASS, "SELECT CAST(rule AS BIGINT) AS n FROM detections");
    let (answer, end) = scene.ask(&question).await;
    let failed = end.failed.unwrap().message;
    assert!(answer.is_empty() && failed.contains("a value does not allow"), "{failed}");
    let question = Question::of(APPROVED_CLASS, "SELECT size / (size - 10) AS n FROM detections");
    assert!(scene.ask(&question).await.1.failed.unwrap().message.contains("a value does not allow"));
}
