//! Workers that an intent names, and whose program is another than ours: what they ask of the others.

use std::sync::Arc;

use api::{RunRequest, path};
use attest::{Envelope, Statement, StatementId, Subject, WorkerKey};
use datafusion::arrow::datatypes::Schema;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::datasource::physical_plan::{CsvSource, FileGroup, FileScanConfigBuilder};
use datafusion::datasource::source::DataSourceExec;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::empty::EmptyExec;
use datafusion_proto::bytes::physical_plan_to_bytes;
use query::Frames;
use seal::{Answered, Asking, Hop, Kem, PrivateKey, PublicKey};
use serde_json::{Value, json};
use stdx::{Clock as _, Digest, SystemEntropy};
use testkit::{APPROVED_CLASS, REGION};

use crate::crew::Crew;
use crate::hops::{intent, post};
use crate::scene::{CODE, Question, Scene, detection};

/// A worker at one place of an intent with three, whose key the test has. The others hold their parts.
struct Rogue {
    key: PrivateKey,
    at: usize,
    request: RunRequest,
    urls: Vec<String>,
    #[expect(dead_code, reason = "parts are held as long as it is there")]
    holding: Vec<Frames>,
}

/// A session of its with another.
struct Session {
    name: Digest,
    asking: Asking,
    url: String,
    intent: StatementId,
}

impl Rogue {
    async fn at(scene: &mut Scene, at: usize) -> Self {
        let key = PrivateKey::generate(Kem::XWing, &SystemEntropy).unwrap();
        let crew = Crew::of(scene, 3).await;
        let question = Question::of(APPROVED_CLASS, "SELECT rule FROM detections");
        let plan = scene.plan(&question).await.unwrap();
        let mut certificates = Vec::new();
        for (place, worker) in crew.workers.iter().enumerate() {
            let own = worker.certificate().await.unwrap();
            certificates.push(if place == at { certified(scene, &key) } else { own });
        }
        let mut request = scene.granted_to_all(&certificates, &question, &plan).await;
        request.workers = crew.brought(&certificates);
        let mut holding = Vec::new();
        for worker in crew.workers.iter().enumerate().filter(|(place, _)| *place != at && *place != 0) {
            holding.push(worker.1.run(request.clone()).await.unwrap());
        }
        Self { key, at, request, urls: crew.urls, holding }
    }

    async fn session(&self, with: usize) -> Session {
        let key = |at: usize| -> PublicKey { self.request.workers[at].key.parse().unwrap() };
        let (asks, answers, intent) = (key(self.at), key(with), intent(&self.request));
        let hop = Hop { intent, asks: &asks, answers: &answers };
        let (begun, message) = hop.begin(&SystemEntropy).unwrap();
        let body = [intent.digest().as_bytes().as_slice(), &[self.at as u8], &message].concat();
        let (status, answer) = post(&self.urls[with], path::HOPS, body).await;
        assert_eq!(status, 200);
        let asking = hop.finish(begun, &self.key, &answer).unwrap();
        Session { name: Digest::of(&answer), asking, url: self.urls[with].clone(), intent }
    }
}

impl Session {
    /// The answer's bytes, and its end; the status, if it is none.
    async fn ask(&self, question: &Value, rest: &[u8]) -> Result<(Vec<u8>, Value), u16> {
        let question = [question.to_string().as_bytes(), b"\n", rest].concat();
        let (closed, mut answers) = self.asking.ask(&question).unwrap();
        let body = [self.intent.digest().as_bytes().as_slice(), self.name.as_bytes(), &closed].concat();
        let (status, answer) = post(&self.url, path::QUESTIONS, body).await;
        if status != 200 {
            return Err(status);
        }
        let (mut rest, mut all) = (&answer[..], Vec::new());
        while let Some((length, after)) = rest.split_first_chunk::<4>() {
            let (frame, after) = after.split_at(u32::from_be_bytes(*length) as usize);
            rest = after;
            match answers.read(frame).unwrap() {
                Answered::Frame(bytes) => all.extend(bytes),
                Answered::Last(end) => {
                    assert!(rest.is_empty() && end.ends_with(b"\n"), "nothing follows the end");
                    return Ok((all, serde_json::from_slice(&end).unwrap()));
                }
            }
        }
        panic!("the answer has no end");
    }

    async fn end_of(&self, question: &Value, rest: &[u8]) -> Value {
        let (bytes, end) = self.ask(question, rest).await.unwrap();
        assert!(bytes.is_empty());
        end
    }
}

/// The host certifies this key, as it does its workers'.
fn certified(scene: &Scene, key: &PrivateKey) -> api::Worker {
    let now = scene.clock.now();
    let predicate = WorkerKey {
        enrolment: scene.enrolment.id(),
        key: key.public().to_string(),
        region: REGION.parse().unwrap(),
        from: now,
        until: now.after(std::time::Duration::from_secs(86_400)),
    };
    let statement = Statement { subject: vec![Subject::new("code", Digest::of(CODE))], predicate };
    let envelope = Envelope::sign(statement.encode().unwrap(), &[&scene.host]).unwrap();
    api::Worker {
        key: String::from_utf8(envelope.to_bytes()).unwrap(),
        enrolment: String::new(),
        code: Digest::of(CODE),
    }
}

async fn ready() -> Scene {
    let scene = Scene::new().await;
    let batches: Vec<_> = (0..6).map(|n| scene.sealed(APPROVED_CLASS, "DE", detection("one", n))).collect();
    scene.take(&batches).await;
    scene
}

fn task(at: usize) -> Value {
    json!({"plan": 7, "stage": 1, "at": at})
}

fn plan_for(at: usize) -> Value {
    json!({"plan": {"task": task(at), "tasks": 3}})
}

fn read_of(at: usize) -> Value {
    json!({"read": {"task": task(at), "partition": 0, "head": "nothing"}})
}

fn refused(place: usize) -> Value {
    json!({"unreadable": 0, "stopped": {"refused": place + 1}})
}

fn bytes(plan: Arc<dyn ExecutionPlan>) -> Vec<u8> {
    physical_plan_to_bytes(plan).unwrap().to_vec()
}

fn harmless() -> Arc<dyn ExecutionPlan> {
    Arc::new(EmptyExec::new(Arc::new(Schema::empty())))
}

/// Reads a file of the host's.
fn file() -> Arc<dyn ExecutionPlan> {
    let source = Arc::new(CsvSource::new(Arc::new(Schema::empty())));
    let config = FileScanConfigBuilder::new(ObjectStoreUrl::local_filesystem(), source)
        .with_file_groups(vec![FileGroup::new(vec![PartitionedFile::new("/etc/passwd", 1)])])
        .build();
    DataSourceExec::from_data_source(config)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_does_not_lead_brings_no_plan_and_ends_nothing() {
    let mut scene = ready().await;
    let rogue = Rogue::at(&mut scene, 1).await;
    let session = rogue.session(2).await;
    for question in [plan_for(2), json!("end")] {
        assert_eq!(session.end_of(&question, &bytes(harmless())).await, refused(2), "{question}");
    }
    // A part of another worker's is not read here either.
    for at in [0, 1, 3] {
        assert_eq!(session.end_of(&read_of(at), b"").await, refused(2));
    }
    for odd in [json!("plan"), json!({"read": {}}), json!({"open": "/etc/passwd"}), json!(null)] {
        assert_eq!(session.end_of(&odd, b"").await, refused(2), "{odd}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_with_a_step_that_is_not_known_is_not_taken() {
    let mut scene = ready().await;
    let values = MemorySourceConfig::try_new_exec(&[vec![]], Arc::new(Schema::empty()), None).unwrap();
    let below: Arc<dyn ExecutionPlan> = Arc::new(CoalescePartitionsExec::new(file()));
    for plan in [file(), below, values] {
        let rogue = Rogue::at(&mut scene, 0).await;
        let session = rogue.session(1).await;
        // What is known is taken.
        assert_eq!(session.end_of(&plan_for(1), &bytes(harmless())).await, json!({"unreadable": 0}));
        let (rows, end) = session.ask(&read_of(1), b"").await.unwrap();
        assert_eq!((rows.is_empty(), end), (false, json!({"unreadable": 0})));
        // For another worker's place, or for more workers than there are, it is not.
        for odd in [
            plan_for(2),
            json!({"plan": {"task": task(1), "tasks": 4}}),
            json!({"plan": {"task": task(1), "tasks": 1}}),
        ] {
            assert_eq!(session.end_of(&odd, &bytes(harmless())).await, refused(1), "{odd}");
        }
        let other = json!({"plan": {"task": {"plan": 8, "stage": 1, "at": 1}, "tasks": 3}});
        assert_eq!(session.end_of(&other, &bytes(plan)).await, refused(1));
        let read = json!({"read": {"task": {"plan": 8, "stage": 1, "at": 1}, "partition": 0, "head": "nothing"}});
        assert_eq!(session.end_of(&read, b"").await, refused(1));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_plan_is_called_so() {
    let mut scene = ready().await;
    for odd in [b"".as_slice(), b"no plan", &[0xff; 64]] {
        let rogue = Rogue::at(&mut scene, 0).await;
        let session = rogue.session(2).await;
        let odd = session.end_of(&plan_for(2), odd).await;
        assert_eq!(odd, json!({"unreadable": 0, "stopped": {"plan": 3}}));
        assert_eq!(session.end_of(&read_of(2), b"").await, odd);
    }
}
