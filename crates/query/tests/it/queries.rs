//! What honest people get.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use api::{Parameter, ResultFormat};
use async_trait::async_trait;
use attest::{RegionId, Standing};
use bytes::Bytes;
use query::{Place, Vault, VaultError};
use stdx::Digest;
use testkit::{APPROVED_CLASS, OPEN_CLASS};

use crate::scene::{CODE, OnDisk, Question, Scene, collected, detection, header, statistic};

async fn with_detections() -> Scene {
    let scene = Scene::new().await;
    let first = scene.sealed(APPROVED_CLASS, "DE", format!("{}{}", detection("one", 10), detection("two", 20)));
    let second = scene.sealed(APPROVED_CLASS, "JP", detection("one", 30));
    scene.take(&[first, second]).await;
    scene
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_reads_what_was_sealed_on_two_continents() {
    let mut scene = with_detections().await;
    let text = "SELECT country, rule, count(*) AS found, sum(size) AS bytes FROM detections GROUP BY country, rule \
                ORDER BY country, rule";
    let answer = scene.answer(APPROVED_CLASS, text).await;
    assert_eq!(answer, "country,rule,found,bytes\nDE,one,1,10\nDE,two,1,20\nJP,one,1,30\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_objects_that_a_query_needs_are_asked_for() {
    let scene = with_detections().await;
    let countries = async |text: &str| {
        let plan = scene.plan(&Question::of(APPROVED_CLASS, text)).await.unwrap();
        plan.objects.iter().map(|object| header(&object.header).bound.country.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(countries("SELECT rule FROM detections WHERE country = 'JP'").await, ["JP"]);
    assert_eq!(countries("SELECT rule FROM detections WHERE country IN ('DE') AND size > 3").await, ["DE"]);
    assert_eq!(countries("SELECT rule FROM detections WHERE country IN ('DE', 'JP')").await.len(), 2);
    assert_eq!(countries("SELECT rule FROM detections WHERE taken > '2027-01-01T00:00:00Z'").await.len(), 0);
    assert_eq!(countries("SELECT rule FROM detections WHERE taken >= '2026-01-01T00:00:00Z'").await.len(), 2);
    assert_eq!(countries("SELECT rule FROM detections WHERE taken < '2026-01-01T00:00:00Z'").await.len(), 0);
    let text = "SELECT a.rule FROM detections a JOIN detections b ON a.rule = b.rule WHERE a.country = 'DE' \
                AND b.country = 'JP'";
    assert_eq!(countries(text).await.len(), 2, "both sides' objects");
    let mut question = Question::of(APPROVED_CLASS, "SELECT rule FROM detections");
    question.countries = vec!["DE".to_owned()];
    let plan = scene.plan(&question).await.unwrap();
    assert_eq!(plan.objects.len(), 1, "the request's countries count, too");
    assert_eq!(plan.columns, [("rule".to_owned(), "Utf8View".to_owned())]);
    assert_eq!(plan.bytes, plan.objects[0].bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_format_says_the_same() {
    let mut scene = with_detections().await;
    let mut question = Question::of(APPROVED_CLASS, "SELECT rule, size, taken FROM detections WHERE size = 20");
    question.format = ResultFormat::Json;
    let (json, _) = scene.ask(&question).await;
    assert_eq!(json, "{\"rule\":\"two\",\"size\":20,\"taken\":\"2026-01-01T00:00:00Z\"}\n");
    question.format = ResultFormat::Table;
    let (table, _) = scene.ask(&question).await;
    assert!(table.contains("| two  | 20   | 2026-01-01T00:00:00Z |"), "{table}");
    question.format = ResultFormat::Arrow;
    let plan = scene.plan(&question).await.unwrap();
    let request = scene.granted(&question, &plan).await;
    let (arrow, end) = collected(scene.worker.run(request).await.unwrap()).await;
    assert_eq!((end.rows, end.failed), (1, None));
    let reader = datafusion::arrow::ipc::reader::StreamReader::try_new(&arrow[..], None).unwrap();
    let rows: usize = reader.map(|batch| batch.unwrap().num_rows()).sum();
    assert_eq!(rows, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_without_rows_has_its_names() {
    let mut scene = with_detections().await;
    let mut question = Question::of(APPROVED_CLASS, "SELECT rule FROM detections WHERE size = 7");
    assert_eq!(scene.ask(&question).await.0, "rule\n");
    question.format = ResultFormat::Table;
    assert!(scene.ask(&question).await.0.contains("| rule |"));
}

#[tokio::test(flavor = "multi_thread")]
async fn values_are_given_by_name_and_the_intent_commits_to_them() {
    let mut scene = with_detections().await;
    let mut question = Question::of(APPROVED_CLASS, "SELECT size FROM detections WHERE rule = $rule AND size > $least");
    question.parameters.insert("rule".to_owned(), Parameter::Text("one".to_owned()));
    question.parameters.insert("least".to_owned(), Parameter::Integer(15));
    assert_eq!(scene.ask(&question).await.0, "size\n30\n");
    // A value is never SQL.
    question.parameters.insert("rule".to_owned(), Parameter::Text("one' OR 'a' = 'a".to_owned()));
    assert_eq!(scene.ask(&question).await.0, "size\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standing_request_is_bound_to_code_and_schema() {
    let mut scene = Scene::new().await;
    scene
        .take(&[scene.sealed(OPEN_CLASS, "DE", format!("{}{}", statistic("scans", 5, 1), statistic("scans", 7, 0)))])
        .await;
    let mut question = Question::of(OPEN_CLASS, "SELECT counted, sum(files) AS files FROM statistics GROUP BY counted");
    let plan = scene.plan(&question).await.unwrap();
    question.standing = Some(Standing { code: Digest::of(CODE), schema: plan.schema, uses: 3 });
    assert_eq!(scene.ask(&question).await.0, "counted,files\nscans,12\n");
    question.standing = Some(Standing { code: Digest::of(CODE), schema: Digest::of(b"another"), uses: 3 });
    let request = scene.granted(&question, &plan).await;
    let refused = scene.worker.run(request).await.unwrap_err();
    assert!(matches!(refused, query::WorkerError::Schema { .. }), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_endpoint_sealed_wrongly_hides_nobody_elses_events() {
    let mut scene = with_detections().await;
    let text = "text that says <b>nothing</b>";
    let more = [scene.sealed(APPROVED_CLASS, "DE", text), scene.sealed(APPROVED_CLASS, "DE", "PAR1 and so on PAR1")];
    scene.take(&more).await;
    let question = Question::of(APPROVED_CLASS, "SELECT count(*) AS events FROM detections");
    let (answer, end) = scene.ask(&question).await;
    assert_eq!((answer.as_str(), end.unreadable, end.failed), ("events\n3\n", 2, None));
    // Nor does what can't be opened at all, which no intake can see.
    let wrongly = testkit::sealed_wrongly(|| scene.sealed(APPROVED_CLASS, "DE", text));
    scene.take(&wrongly.map(Into::into)).await;
    let (answer, end) = scene.ask(&question).await;
    assert_eq!((answer.as_str(), end.unreadable, end.failed), ("events\n3\n", 5, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_has_a_new_key_after_half_a_day_and_the_old_one_for_a_while() {
    let scene = Scene::new().await;
    let key = async || scene.worker.certificate().await.unwrap().key;
    let first = key().await;
    assert_eq!(key().await, first);
    scene.clock.advance(std::time::Duration::from_secs(13 * 3600));
    assert_ne!(key().await, first);
}

/// A vault where everybody who asks for a manifest lets others ask first.
#[derive(Debug)]
struct Queue {
    vault: OnDisk,
    asked: AtomicUsize,
    waiting: AtomicUsize,
    most: AtomicUsize,
}

#[async_trait]
impl Vault for Queue {
    async fn manifest(&self, region: &RegionId, number: u64) -> Result<Option<Bytes>, VaultError> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        self.most.fetch_max(self.waiting.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        tokio::task::yield_now().await;
        self.waiting.fetch_sub(1, Ordering::SeqCst);
        self.vault.manifest(region, number).await
    }

    async fn evidence(&self, region: &RegionId, evidence: &Digest) -> Result<Bytes, VaultError> {
        self.vault.evidence(region, evidence).await
    }

    async fn read(&self, place: &Place, range: Range<u64>) -> Result<Bytes, VaultError> {
        self.vault.read(place, range).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_behind_asks_for_several_manifests_at_once_and_nobody_else_does() {
    let scene = Scene::new().await;
    for number in 0..20 {
        scene.take(&[scene.sealed(APPROVED_CLASS, "DE", detection("one", number))]).await;
    }
    let count = AtomicUsize::default;
    let vault = OnDisk(Arc::clone(&scene.objects));
    let queue = Arc::new(Queue { vault, asked: count(), waiting: count(), most: count() });
    let worker = scene.another_worker_with(Arc::clone(&queue) as Arc<dyn Vault>);
    let asked = || (queue.asked.swap(0, Ordering::SeqCst), queue.most.swap(0, Ordering::SeqCst));
    worker.catch_up().await;
    // One, two, four, eight, and eight of which five are there.
    assert_eq!(asked(), (23, 8));
    worker.catch_up().await;
    assert_eq!(asked(), (1, 1));
    scene.take(&[scene.sealed(APPROVED_CLASS, "DE", detection("one", 20))]).await;
    worker.catch_up().await;
    assert_eq!(asked(), (3, 2));
}
