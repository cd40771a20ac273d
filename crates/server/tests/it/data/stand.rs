//! A worker that opens sealed objects with what custodians have given, for real, and gives out their lines.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use api::{Plan, PlanRequest, PlannedObject, ResultEnd, RunRequest, path, result_end, result_frame};
use attest::{AccessIntent, Bundle, Envelope, Statement};
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, State};
use axum::routing::{get, post};
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use custody::grant_info;
use futures::stream;
use seal::{DataKey, Header, PrivateKey, Sealed, Share, Wrapped};
use stdx::Digest;

/// What the worker has.
pub(crate) struct Stand {
    pub(crate) url: String,
    pub(crate) schema: Digest,
    objects: Arc<Mutex<Vec<Vec<u8>>>>,
    pace: Arc<Mutex<Option<Pace>>>,
    _runtime: tokio::runtime::Runtime,
}

/// A run waits in the middle until somebody says that it may go on.
struct Pace {
    arrived: Sender<()>,
    go: Receiver<()>,
}

struct Worker {
    presented: api::Worker,
    key: PrivateKey,
    schema: Digest,
    objects: Arc<Mutex<Vec<Vec<u8>>>>,
    pace: Arc<Mutex<Option<Pace>>>,
}

impl Stand {
    /// Serves with this key, certified by `certificate` of the host that `enrolment` is about.
    pub(crate) fn new(key: PrivateKey, certificate: &Envelope, enrolment: String, code: Digest) -> Self {
        let presented = api::Worker { key: text(certificate), enrolment, code };
        Self::at(TcpListener::bind("127.0.0.1:0").unwrap(), key, presented, Digest::of(b"line: text"))
    }

    /// Serves there, presents itself so, and plans with this schema whatever is asked.
    pub(crate) fn at(listener: TcpListener, key: PrivateKey, presented: api::Worker, schema: Digest) -> Self {
        let (objects, pace) = (Arc::<Mutex<Vec<Vec<u8>>>>::default(), Arc::<Mutex<Option<Pace>>>::default());
        let worker = Worker { presented, key, schema, objects: Arc::clone(&objects), pace: Arc::clone(&pace) };
        let router = Router::new()
            .route(path::WORKER, get(|State(worker): State<Arc<Worker>>| async move { Json(worker.presented.clone()) }))
            .route(path::PLAN, post(plan))
            .route(path::RUN, post(run).layer(DefaultBodyLimit::max(64 << 20)))
            .with_state(Arc::new(worker));
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        listener.set_nonblocking(true).unwrap();
        let listener = runtime.block_on(async { tokio::net::TcpListener::from_std(listener).unwrap() });
        runtime.spawn(async { axum::serve(listener, router).await.unwrap() });
        Self { url, schema, objects, pace, _runtime: runtime }
    }

    /// It has these objects now.
    pub(crate) fn keep(&self, objects: Vec<Vec<u8>>) {
        *self.objects.lock().unwrap() = objects;
    }

    /// The next run says when it has given out one frame, and waits then.
    pub(crate) fn pause(&self) -> (Receiver<()>, Sender<()>) {
        let ((arrived, arrives), (goes, go)) = (channel(), channel());
        *self.pace.lock().unwrap() = Some(Pace { arrived, go });
        (arrives, goes)
    }
}

pub(crate) fn text(envelope: &Envelope) -> String {
    String::from_utf8(envelope.to_bytes()).unwrap()
}

async fn plan(State(worker): State<Arc<Worker>>, Json(asked): Json<PlanRequest>) -> Json<Plan> {
    let mut objects: Vec<(Header, Vec<u8>)> =
        worker.objects.lock().unwrap().iter().map(|it| (Header::parse(it).unwrap().0, it.clone())).collect();
    objects.retain(|(header, _)| header.bound.class == asked.class && asked.countries.contains(&header.bound.country));
    objects.sort_by_key(|(header, _)| header.bound.id);
    let planned = objects.iter().map(|(header, object)| PlannedObject {
        id: header.bound.id.to_string(),
        header: STANDARD.encode(header.to_bytes()),
        segment: Digest::of(object),
        at: 0,
        bytes: object.len() as u64,
    });
    let columns = vec![("line".to_owned(), "text".to_owned())];
    Json(Plan { objects: planned.collect(), columns, bytes: 1000, schema: worker.schema, is_for_one: false })
}

async fn run(State(worker): State<Arc<Worker>>, Json(asked): Json<RunRequest>) -> Body {
    let evidence = Bundle::parse(asked.evidence.as_bytes()).unwrap();
    let mut intents = evidence.entries().iter().map(|entry| &entry.envelope);
    let intent = intents.find(|it| Statement::<AccessIntent>::decode(it.payload()).is_ok()).unwrap();
    let says = Statement::<AccessIntent>::decode(intent.payload()).unwrap().predicate;
    assert_eq!(says.workers.keys(), [worker.key.public().id()]);
    let mut shares: BTreeMap<String, Vec<Share>> = BTreeMap::new();
    for (custodian, answer) in &asked.grants {
        for granted in &answer.granted {
            let decode = |text: &String| STANDARD.decode(text).unwrap();
            let wrapped = Wrapped { encapsulated: decode(&granted.encapsulated), sealed: decode(&granted.sealed) };
            let info = grant_info(intent.id(), granted.object.parse().unwrap(), custodian);
            shares.entry(granted.object.clone()).or_default().push(Share::open(&wrapped, &worker.key, &info).unwrap());
        }
    }
    let mut lines = Vec::new();
    for object in worker.objects.lock().unwrap().iter() {
        let id = Header::parse(object).unwrap().0.bound.id.to_string();
        if asked.objects.iter().any(|it| it.id == id) {
            lines.push([&Sealed::read(object, &DataKey::join(&shares[&id])).unwrap()[..], b"\n"].concat());
        }
    }
    if let Some(parameters) = &asked.parameters {
        assert_eq!(Some(parameters.commitment()), says.parameters);
        lines.push(format!("with {}\n", parameters.value()).into_bytes());
    }
    let bytes = lines.iter().map(|line| line.len() as u64).sum();
    let end = ResultEnd::new(lines.len() as u64, bytes, Digest::of(&lines.concat()));
    let pace = worker.pace.lock().unwrap().take();
    let mut frames: Vec<Vec<u8>> = lines.iter().map(|line| result_frame(line)).collect();
    frames.push(result_end(&end));
    let state = (frames.into_iter(), pace, 0);
    Body::from_stream(stream::unfold(state, |(mut frames, mut pace, count)| async move {
        if count == 1
            && let Some(Pace { arrived, go }) = pace.take()
        {
            // Whoever waits may be gone; so is the run then.
            tokio::task::block_in_place(|| arrived.send(()).is_ok() && go.recv().is_ok());
        }
        frames.next().map(|frame| (Ok::<_, std::io::Error>(Bytes::from(frame)), (frames, pace, count + 1)))
    }))
}
