//! The program itself, asked over HTTP, with the vault's HTTP behind it: and nothing of what it read is on a disk.

use std::io::Read as _;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use api::{BodyLimit, Client, ErrorBody, PlanRequest, path};
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use query::program_digest;
use rustix::process::{Pid, Signal, kill_process};
use stdx::{Clock as _, Digest};
use storage::ObjectStore;
use testkit::APPROVED_CLASS;

use crate::scene::{Question, Scene, detection, enrol, read};

const MARK: &str = "a-word-that-nobody-else-writes";

/// The vault's paths, over the objects on the disk.
async fn vault(State(objects): State<Arc<dyn ObjectStore>>, uri: Uri, headers: HeaderMap) -> Response {
    let parts: Vec<&str> = uri.path().trim_start_matches("/v1/vault/").split('/').collect();
    let key = match parts[..] {
        [region, "manifests", number] => format!("manifest/{region}/{:016}", number.parse::<u64>().unwrap()),
        [region, "segments", class, segment] => format!("segment/{region}/{class}/{segment}"),
        _ => panic!("{uri}"),
    };
    let Some(bytes) = objects.get(&key.parse().unwrap()).await.unwrap() else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let Some(range) = headers.get("range") else { return bytes.into_response() };
    let (first, last) = range.to_str().unwrap().strip_prefix("bytes=").unwrap().split_once('-').unwrap();
    let (first, last): (usize, usize) = (first.parse().unwrap(), last.parse().unwrap());
    let piece: Bytes = bytes.slice(first..bytes.len().min(last + 1));
    (StatusCode::PARTIAL_CONTENT, piece).into_response()
}

async fn serve_vault(objects: Arc<dyn ObjectStore>) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, Router::new().fallback(vault).with_state(objects)).await });
    format!("http://{address}")
}

/// The program, and where it answers.
struct Program {
    child: Child,
    url: String,
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const PROGRAM: &str = env!("CARGO_BIN_EXE_clerestory-query");

/// SHA-256 of the program, as it prints it.
fn code() -> Digest {
    let output = Command::new(PROGRAM).arg("code").output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap().trim().parse().unwrap()
}

impl Program {
    /// Starts it in a folder of its own, which is all that it may write into, with cores wanted.
    fn start(scene: &Scene, folder: &Path, vault: &str) -> Self {
        let genesis = scene.world.genesis().id();
        stdx::durable::write_private(&folder.join("host.key"), scene.host.to_secret_text().as_bytes()).unwrap();
        let bundle = scene.world.bundle(&[(testkit::SUPERVISOR_LOG, &scene.enrolment)]);
        stdx::durable::write(&folder.join("enrolment.bundle"), &bundle.to_bytes()).unwrap();
        let config = format!(
            "listen = \"stdin\"\nregion = \"{}\"\npolicies = \"{}\"\ngenesis = \"{genesis}\"\nhost_key = \"host.key\"\n\
             enrolment = \"enrolment.bundle\"\nvault = \"{vault}\"\nmemory_mb = 64\n",
            testkit::REGION,
            scene.folder.path().join("policies").display(),
        );
        stdx::durable::write(&folder.join("worker.toml"), config.as_bytes()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let child = Command::new(PROGRAM)
            .args(["serve", "--config", "worker.toml"])
            .current_dir(folder)
            .env("TMPDIR", folder)
            .stdin(Stdio::from(OwnedFd::from(listener)))
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Self { child, url }
    }

    fn client() -> Client {
        Client::new(std::time::Duration::from_secs(60))
    }

    /// What it has said until its end.
    fn said(&mut self) -> String {
        let mut said = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        said
    }
}

fn holds(path: &Path, mark: &str) -> bool {
    std::fs::read(path).unwrap().windows(mark.len()).any(|window| window == mark.as_bytes())
}

fn files(folder: &Path) -> Vec<PathBuf> {
    testkit::files(folder).into_values().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_program_answers_and_leaves_nothing_of_what_it_read_on_a_disk() {
    let mut scene = Scene::of_today().await;
    assert_ne!(code(), program_digest().unwrap(), "that of the program, not of this test");
    scene.enrolment = enrol(&mut scene.world, &scene.host, code());
    let lines: String = (0..500).map(|n| detection(&format!("{MARK}-{n}-{}", "x".repeat(400)), n)).collect();
    let batches: Vec<_> = (0..4).map(|_| scene.sealed(APPROVED_CLASS, "DE", &lines)).collect();
    scene.take(&batches).await;
    let url = serve_vault(Arc::clone(&scene.objects)).await;
    let folder = tempfile::tempdir().unwrap();
    let mut program = Program::start(&scene, folder.path(), &url);

    let mut question = Question::of(APPROVED_CLASS, "SELECT count(*) AS events, max(rule) AS greatest FROM detections");
    let (answer, end) = asked(&mut scene, &program, &question).await;
    assert!(answer.starts_with(&format!("events,greatest\n2000,{MARK}-")), "{answer}");
    assert_eq!(end.failed, None);

    // Four million rows are more than a query may have in memory: what would spill must stop instead.
    question.text =
        "SELECT concat(a.rule, b.rule) AS x FROM detections a CROSS JOIN detections b ORDER BY x".to_owned();
    let (_, end) = asked(&mut scene, &program, &question).await;
    let expected = ErrorBody::too_much("it needs more memory than this worker gives to one query");
    assert_eq!(end.failed, Some(expected));

    question.text = "SELECT CAST(rule AS BIGINT) AS n FROM detections".to_owned();
    let (_, end) = asked(&mut scene, &program, &question).await;
    assert!(end.failed.is_some_and(|failed| !failed.message.contains(MARK)));

    // It dies, and what it had in memory goes with it. (SIGABRT: the first SIGSEGV from outside only takes the handler of
    // the standard library away.)
    let pid = Pid::from_child(&program.child);
    kill_process(pid, Signal::ABORT).unwrap();
    let status = program.child.wait().unwrap();
    assert!(!std::os::unix::process::ExitStatusExt::core_dumped(&status), "{status}");
    let said = program.said();
    assert!(said.contains("a query ended") && !said.contains(MARK), "{said}");
    for path in files(folder.path()).into_iter().chain(files(scene.folder.path())) {
        assert!(!holds(&path, MARK), "{}", path.display());
    }
    let names: Vec<String> = testkit::files(folder.path()).into_keys().collect();
    assert_eq!(names, ["enrolment.bundle", "host.key", "worker.toml"], "it wrote nothing at all");
}

/// A question over HTTP; the statements come from the scene, with the program's key.
async fn asked(scene: &mut Scene, program: &Program, question: &Question) -> (String, api::ResultEnd) {
    let (client, url) = (Program::client(), program.url.clone());
    let get = {
        let (client, url) = (client.clone(), url.clone());
        move || client.get_json(&format!("{url}{}", path::WORKER), BodyLimit(1 << 20))
    };
    let certificate: api::Worker = tokio::task::spawn_blocking(get).await.unwrap().unwrap();
    assert_eq!(certificate.code, code());
    let request = PlanRequest {
        query: question.text.clone(),
        parameters: question.parameters.clone(),
        class: question.class.parse().unwrap(),
        countries: question.countries.iter().map(|it| it.parse().unwrap()).collect(),
        objects: 8,
    };
    let post = {
        let (client, url) = (client.clone(), url.clone());
        move || client.post_json(&format!("{url}{}", path::PLAN), &request, BodyLimit(64 << 20))
    };
    let plan: api::Plan = tokio::task::spawn_blocking(post).await.unwrap().unwrap();
    // Everybody else's clock goes with the program's.
    scene.world.clock.set(stdx::SystemClock::new().now());
    let run = scene.granted_to(&certificate, question, &plan).await;
    let body = serde_json::to_vec(&run).unwrap();
    let post = move || client.post(&format!("{url}{}", path::RUN), &body, BodyLimit(64 << 20));
    let stream = tokio::task::spawn_blocking(post).await.unwrap().unwrap();
    let (bytes, end) = read(&stream);
    (String::from_utf8(bytes).unwrap(), end)
}

#[test]
fn a_program_that_can_not_serve_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str]| {
        let output = Command::new(PROGRAM).args(arguments).current_dir(folder.path()).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (status, said) = run(&["serve", "--config", "missing.toml"]);
    assert_eq!(status, Some(2));
    assert!(said.starts_with("error: can't read `missing.toml`") && said.contains("\nhint: "), "{said}");
    let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/samples/worker.toml");
    let (status, said) = run(&["serve", "--check-config", "--config", sample.to_str().unwrap()]);
    assert_eq!((status, said.as_str()), (Some(0), ""));
    let (status, said) = run(&["serve", "--config", sample.to_str().unwrap()]);
    assert_eq!(status, Some(1));
    assert!(said.contains("host.key"), "{said}");
    assert_eq!(run(&["dance"]).0, Some(2));
}
