//! Between workers: strangers, other workers, other addresses, and everybody who carries what they say.

use std::sync::{Arc, Mutex};

use api::{ResultEnd, RunRequest, path};
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use query::WorkerError;
use seal::{Hop, Kem, PrivateKey, PublicKey};
use stdx::SystemEntropy;
use testkit::APPROVED_CLASS;

use crate::crew::{Brought, Crew};
use crate::scene::{Question, Scene, collected, detection};

const TEXT: &str = "SELECT rule, count(*) AS n FROM detections GROUP BY rule ORDER BY rule";

async fn ready(workers: usize) -> (Scene, Crew, Question) {
    let scene = Scene::new().await;
    let batches: Vec<_> = (0..6).map(|n| scene.sealed(APPROVED_CLASS, "DE", detection("one", n))).collect();
    scene.take(&batches).await;
    let crew = Crew::of(&scene, workers).await;
    (scene, crew, Question::of(APPROVED_CLASS, TEXT))
}

async fn brought(scene: &mut Scene, crew: &Crew, question: &Question) -> Brought {
    let plan = scene.plan(question).await.unwrap();
    let request = crew.granted(scene, question, &plan).await;
    crew.held(request).await
}

async fn led(crew: &Crew, brought: &Brought) -> (String, ResultEnd) {
    let (bytes, end) = collected(crew.lead(brought).await.unwrap()).await;
    (String::from_utf8(bytes).unwrap(), end)
}

pub(crate) fn intent(request: &RunRequest) -> attest::StatementId {
    let evidence = attest::Bundle::parse(request.evidence.as_bytes()).unwrap();
    let mut entries = evidence.entries().iter().map(|entry| &entry.envelope);
    entries.find(|it| attest::Statement::<attest::AccessIntent>::decode(it.payload()).is_ok()).unwrap().id()
}

pub(crate) async fn post(url: &str, path: &str, body: Vec<u8>) -> (u16, Vec<u8>) {
    let response = reqwest::Client::new().post(format!("{url}{path}")).body(body).send().await.unwrap();
    (response.status().as_u16(), response.bytes().await.unwrap().to_vec())
}

/// A path, and what was sent there.
type Sent = (String, Vec<u8>);

/// What somebody between sees, and does.
#[derive(Clone)]
struct Between {
    to: String,
    seen: Arc<Mutex<Vec<Sent>>>,
    answered: Arc<Mutex<Vec<Vec<u8>>>>,
    change: fn(&str, Vec<u8>) -> Vec<u8>,
}

impl Between {
    /// Stands before the worker at `place`.
    async fn before(crew: &mut Crew, place: usize, change: fn(&str, Vec<u8>) -> Vec<u8>) -> Self {
        let between = Self { to: crew.urls[place].clone(), seen: Arc::default(), answered: Arc::default(), change };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        crew.urls[place] = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().fallback(Self::carry).with_state(between.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        between
    }

    async fn carry(State(between): State<Self>, uri: Uri, body: Bytes) -> Response {
        between.seen.lock().unwrap().push((uri.path().to_owned(), body.to_vec()));
        let (status, answer) = post(&between.to, uri.path(), body.to_vec()).await;
        between.answered.lock().unwrap().push(answer.clone());
        let answer = (between.change)(uri.path(), answer);
        (StatusCode::from_u16(status).unwrap(), Body::from(answer)).into_response()
    }

    fn seen(&self) -> Vec<Sent> {
        self.seen.lock().unwrap().clone()
    }
}

fn unchanged(_: &str, answer: Vec<u8>) -> Vec<u8> {
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_carries_what_workers_say_reads_nothing_and_replays_nothing() {
    let (mut scene, mut crew, question) = ready(2).await;
    let between = Between::before(&mut crew, 1, unchanged).await;
    let brought = brought(&mut scene, &crew, &question).await;
    let (answer, end) = led(&crew, &brought).await;
    assert_eq!((answer.as_str(), end.failed), ("rule,n\none,6\n", None));
    let seen = between.seen();
    assert_eq!(seen[0].0, path::HOPS);
    assert!(seen.len() > 3, "a session, a plan, what was read, and its end: {}", seen.len());
    let has = |body: &[u8]| body.windows(4).any(|it| it == b"rule");
    assert!(!seen.iter().any(|(_, body)| has(body)), "a plan names its columns");
    let answered = between.answered.lock().unwrap().clone();
    assert!(answered.len() == seen.len() && !answered.iter().any(|body| has(body)), "so do rows");
    // Everything again, in order, while the part is still held; each alone, and the whole session from its beginning.
    for (path, body) in &seen {
        let (status, _) = post(&between.to, path, body.clone()).await;
        assert_eq!(status, if path == path::HOPS { 200 } else { 422 }, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_changes_what_a_worker_answers_is_seen() {
    fn flipped(path: &str, mut answer: Vec<u8>) -> Vec<u8> {
        let at = answer.len() - 1;
        answer[at] ^= u8::from(path == path::QUESTIONS);
        answer
    }
    fn session(path: &str, mut answer: Vec<u8>) -> Vec<u8> {
        answer[40] ^= u8::from(path == path::HOPS);
        answer
    }
    fn cut(path: &str, mut answer: Vec<u8>) -> Vec<u8> {
        let kept = answer.len() - usize::from(path == path::QUESTIONS);
        answer.truncate(kept);
        answer
    }
    let other = "what answers in the place of worker 2 of the intent is not that worker";
    let gone = "worker 2 of the intent has ended, or can't be reached";
    for (change, expected) in [(flipped as fn(&str, Vec<u8>) -> Vec<u8>, other), (session, other), (cut, gone)] {
        let (mut scene, mut crew, question) = ready(2).await;
        Between::before(&mut crew, 1, change).await;
        let brought = brought(&mut scene, &crew, &question).await;
        let failed = match crew.lead(&brought).await {
            Ok(frames) => collected(frames).await.1.failed.unwrap().message,
            Err(error) => error.to_string(),
        };
        assert!(failed.contains(expected), "{failed}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_at_a_workers_address_gets_no_plan_and_gives_no_rows() {
    let (mut scene, mut crew, question) = ready(3).await;
    let heard = Arc::new(Mutex::new(Vec::new()));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    crew.urls[2] = format!("http://{}", listener.local_addr().unwrap());
    let says = Arc::clone(&heard);
    let stranger = move |body: Bytes| {
        says.lock().unwrap().push(body);
        async { vec![7_u8; 1168] }
    };
    tokio::spawn(async move { axum::serve(listener, Router::new().fallback(stranger)).await });
    let brought = brought(&mut scene, &crew, &question).await;
    let (answer, end) = led(&crew, &brought).await;
    assert_eq!(answer, "");
    assert!(end.failed.unwrap().message.contains("in the place of worker 3 of the intent is not that worker"));
    let heard = heard.lock().unwrap();
    assert!(!heard.is_empty() && heard.iter().all(|body| body.len() < 1300), "it was only greeted");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_the_intent_does_not_name_asks_and_answers_nothing() {
    let (mut scene, mut crew, question) = ready(3).await;
    let fourth = Crew::of(&scene, 1).await;
    let all = brought(&mut scene, &crew, &question).await;
    // It can't be brought the grant: the intent names no key of its.
    let refused = fourth.workers[0].run(all.request.clone()).await.unwrap_err();
    assert!(refused.to_string().contains("names another worker's key"), "{refused}");
    // It knows all that the gateway knows, and asks in another's name.
    let (own, named) = (PrivateKey::generate(Kem::XWing, &SystemEntropy).unwrap(), &all.request.workers);
    let key = |at: usize| named[at].key.parse::<PublicKey>().unwrap();
    let (id, leader, second) = (intent(&all.request), key(0), key(1));
    let hop = Hop { intent: id, asks: &leader, answers: &second };
    let (begun, message) = hop.begin(&SystemEntropy).unwrap();
    let body = |place: u8, message: &[u8]| [id.digest().as_bytes().as_slice(), &[place], message].concat();
    let (status, answer) = post(&crew.urls[1], path::HOPS, body(0, &message)).await;
    assert_eq!(status, 200, "anybody may begin");
    assert!(hop.finish(begun, &own, &answer).is_err(), "and nobody else goes on");
    // In its own name, at a place that there is not, or at the other's own.
    let hop = Hop { intent: id, asks: own.public(), answers: &second };
    let (_, message) = hop.begin(&SystemEntropy).unwrap();
    for place in [0, 1, 2, 3, 255] {
        assert_eq!(post(&crew.urls[1], path::HOPS, body(place, &message)).await.0, 422, "{place}");
    }
    // Put in another's place by the gateway, it gets nothing.
    crew.urls[1] = fourth.urls[0].clone();
    let brought = brought(&mut scene, &crew, &question).await;
    let failed = led(&crew, &brought).await.1.failed.unwrap().message;
    assert!(failed.contains("worker 2 of the intent does not hold its part"), "{failed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_in_another_order_are_not_believed() {
    let (mut scene, mut crew, question) = ready(3).await;
    crew.urls.swap(1, 2);
    let all = brought(&mut scene, &crew, &question).await;
    let failed = led(&crew, &all).await.1.failed.unwrap().message;
    assert!(failed.contains("does not hold its part of the grant"), "{failed}");
    // Keys in another order are another intent's.
    crew.urls.swap(1, 2);
    let plan = scene.plan(&question).await.unwrap();
    let mut request = crew.granted(&mut scene, &question, &plan).await;
    request.workers.swap(1, 2);
    for worker in &crew.workers {
        let refused = worker.run(request.clone()).await.unwrap_err();
        assert!(refused.to_string().contains("names other workers than came with it"), "{refused}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_let_go_of_or_over_is_held_no_more() {
    let (mut scene, crew, question) = ready(2).await;
    // Nobody was brought a part: the leader is alone.
    let plan = scene.plan(&question).await.unwrap();
    let alone = Brought { request: crew.granted(&mut scene, &question, &plan).await, holding: Vec::new() };
    let failed = led(&crew, &alone).await.1.failed.unwrap().message;
    assert!(failed.contains("worker 2 of the intent does not hold its part"), "{failed}");

    // Whoever has brought it has gone.
    let mut gone = brought(&mut scene, &crew, &question).await;
    gone.holding.clear();
    let id = intent(&gone.request);
    let key = |at: usize| gone.request.workers[at].key.parse::<PublicKey>().unwrap();
    let (leader, second) = (key(0), key(1));
    let hop = Hop { intent: id, asks: &leader, answers: &second };
    let mut status = 200;
    while status == 200 {
        let (_, message) = hop.begin(&SystemEntropy).unwrap();
        let body = [id.digest().as_bytes().as_slice(), &[0], &message].concat();
        status = post(&crew.urls[1], path::HOPS, body).await.0;
    }
    assert_eq!(status, 422);

    // The intent is over by the clock of who holds it.
    let over = brought(&mut scene, &crew, &question).await;
    scene.clock.advance(std::time::Duration::from_secs(601));
    let (id, key) = (intent(&over.request), over.request.workers[1].key.parse::<PublicKey>().unwrap());
    let leader = over.request.workers[0].key.parse::<PublicKey>().unwrap();
    let (_, message) = Hop { intent: id, asks: &leader, answers: &key }.begin(&SystemEntropy).unwrap();
    let body = [id.digest().as_bytes().as_slice(), &[0], &message].concat();
    assert_eq!(post(&crew.urls[1], path::HOPS, body).await.0, 422);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_worker_checks_the_grant_by_itself_and_once() {
    let (mut scene, crew, question) = ready(2).await;
    let all = brought(&mut scene, &crew, &question).await;
    for worker in &crew.workers[1..] {
        let again = worker.run(all.request.clone()).await.unwrap_err();
        assert!(matches!(again, WorkerError::Refused(query::Refused::Used(_))), "{again}");
    }
    let plan = scene.plan(&question).await.unwrap();
    let request = crew.granted(&mut scene, &question, &plan).await;
    let mut other = request.clone();
    other.query.push(' ');
    let mut fewer = request.clone();
    fewer.objects.pop();
    for worker in &crew.workers {
        assert!(worker.run(other.clone()).await.unwrap_err().to_string().contains("is for another query"));
        assert!(worker.run(fewer.clone()).await.unwrap_err().to_string().contains("names other objects"));
    }
    // Shares of the other's slice open nothing here: with them exchanged, neither opens its own.
    let mut turned = request.clone();
    for answer in turned.grants.values_mut() {
        let half = answer.granted.len() / 2;
        let names: Vec<String> = answer.granted.iter().map(|share| share.object.clone()).collect();
        answer.granted.rotate_left(half);
        answer.granted.iter_mut().zip(names).for_each(|(share, name)| share.object = name);
    }
    for worker in &crew.workers {
        assert!(matches!(worker.run(turned.clone()).await.unwrap_err(), WorkerError::Objects(_)));
    }
}
