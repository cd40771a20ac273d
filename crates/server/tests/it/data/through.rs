//! The whole path, by the programs that users run: sealed events from several countries, the vendor's vault, two
//! custodians, the gateway, and a worker on an enrolled host.

use std::path::Path;
use std::process::Command;

use attest::{AccessIntent, AccessOutcome, Ended};
use seal::Destination;
use stdx::{Clock as _, Digest, Entropy as _, SystemClock, SystemEntropy, durable};
use testkit::{APPROVED_CLASS, REGION};
use tlog::{KeyKind, SignerKey};

use super::gateway::{Desk, QUERY_FILE};
use super::scene::Scene;
use crate::process::Server;

/// `cargo test -p server` alone builds no worker.
pub(super) fn program() -> std::path::PathBuf {
    let program = Path::new(env!("CARGO_BIN_EXE_clerestory")).with_file_name("clerestory-query");
    assert!(program.is_file(), "build it first: cargo build -p query");
    program
}

/// What its enrolment names.
pub(super) fn code() -> String {
    let code = Command::new(program()).arg("code").output().unwrap();
    String::from_utf8(code.stdout).unwrap().trim_end().to_owned()
}

/// Everything runs, with a worker as users run it.
pub(super) fn with_real_worker(scene: Scene) -> (Desk<()>, Server) {
    let mut worker = None;
    let desk = Desk::of(scene, &code(), |scene| {
        let server = started(scene);
        let url = server.url();
        worker = Some(server);
        url
    });
    (desk, worker.unwrap())
}

/// Everything runs, with three workers, the last on a host of its own; the gateway asks them at these addresses.
pub(super) fn with_three_workers(
    scene: Scene,
    addresses: impl FnOnce(&[Server]) -> Vec<String>,
) -> (Desk<()>, Vec<Server>) {
    let (mut workers, code) = (Vec::new(), code());
    let desk = Desk::of(scene, &code, |scene| {
        let host = SignerKey::generate("host-2.example/host".parse().unwrap(), KeyKind::Ed25519, &SystemEntropy);
        let host = host.unwrap();
        let enrol = ["data", "enrol", "--config", "supervisor/clerestory.toml", "--region", REGION, "--code", &code];
        let key = host.verifier().to_string();
        scene.system.run(&[&enrol[..], &["--key", &key, "--out", "enrolment-2", "host-2"]].concat()).ok();
        workers.extend((1..3).map(|n| started_in(scene, &format!("worker-{n}"))));
        workers.push(started_on(scene, "worker-3", (&host, "enrolment-2")));
        addresses(&workers).join(" ")
    });
    (desk, workers)
}

pub(super) const COUNTED: &str =
    "select country, rule, count(*) as events from detections group by country, rule order by country\n";

/// A worker on this scene's host, which serves.
pub(super) fn started(scene: &Scene) -> Server {
    started_in(scene, "worker")
}

/// Another one, in a folder of its own.
pub(super) fn started_in(scene: &Scene, folder: &str) -> Server {
    started_on(scene, folder, (&scene.host, "enrolment"))
}

/// Another one, on a host that was enrolled like this.
fn started_on(scene: &Scene, folder: &str, host: (&SignerKey, &str)) -> Server {
    let mut server = installed_in(scene, folder, host);
    start(&mut server);
    server
}

/// Starts a worker that was installed, or has ended.
pub(super) fn start(worker: &mut Server) {
    let mut command = Command::new(program());
    command.env_clear().args(["serve", "--config", worker.config()]);
    worker.start_as(command);
}

/// The same as the first, not started yet.
pub(super) fn installed(scene: &Scene) -> Server {
    installed_in(scene, "worker", (&scene.host, "enrolment"))
}

fn installed_in(scene: &Scene, folder: &str, (host, enrolment): (&SignerKey, &str)) -> Server {
    let system = &scene.system;
    let folder = system.file(folder);
    std::fs::create_dir_all(folder.join("policies")).unwrap();
    std::fs::copy(system.file("vendor/policy/1.envelope"), folder.join("policies/1.envelope")).unwrap();
    durable::write(&folder.join("host.key"), host.to_secret_text().as_bytes()).unwrap();
    std::fs::copy(system.file(enrolment), folder.join("enrolment.bundle")).unwrap();
    let text = format!(
        "listen = \"stdin\"\nregion = \"{REGION}\"\npolicies = \"policies\"\ngenesis = \"{}\"\nhost_key = \
         \"host.key\"\nenrolment = \"enrolment.bundle\"\nvault = \"{}\"\nmemory_mb = 256\n",
        system.genesis,
        system.vendor.url()
    );
    let config = folder.join("worker.toml");
    durable::write(&config, text.as_bytes()).unwrap();
    Server::bound(config)
}

/// A batch of detections, as an endpoint in this country seals them.
pub(super) fn sealed<W>(desk: &Desk<W>, country: &str, count: usize) -> Vec<u8> {
    sealed_as(desk, APPROVED_CLASS, country, &lines(country, count))
}

/// These lines, as an endpoint in this country seals them.
pub(super) fn sealed_as<W>(desk: &Desk<W>, class: &str, country: &str, lines: &str) -> Vec<u8> {
    let policy = desk.scene.system.policy();
    let residency = policy.policy().residency.as_ref().unwrap();
    let to = Destination::new(residency, policy.id(), country.parse().unwrap(), SystemClock::new().now()).unwrap();
    to.seal(&class.parse().unwrap(), lines.as_bytes(), &SystemEntropy).unwrap()
}

/// Detections, as an endpoint writes them.
pub(super) fn lines(country: &str, count: usize) -> String {
    let event = |_| {
        let (mut id, sha256) = ([0; 16], Digest::of(country.as_bytes()));
        SystemEntropy.fill(&mut id).unwrap();
        format!(
            "{{\"id\":\"{:032x}\",\"hour\":\"2026-11-22T14:00:00Z\",\"body\":{{\"detection\":{{\"rule\":\
             \"a_marked_rule\",\"sha256\":\"{sha256}\",\"size\":68}}}}}}\n",
            u128::from_be_bytes(id)
        )
    };
    (0..count).map(event).collect()
}

/// Three of Germany, two of Japan, one of Switzerland, in segments.
pub(super) fn taken(desk: &mut Desk<()>) {
    durable::write(&desk.scene.system.file(QUERY_FILE), COUNTED.as_bytes()).unwrap();
    let batches = [("DE", 3), ("JP", 2), ("CH", 1)].map(|(country, count)| sealed(desk, country, count));
    desk.scene.keep(&batches);
}

#[test]
fn events_of_three_countries_come_to_who_was_approved_and_to_nobody_else() {
    let (mut desk, worker) = with_real_worker(Scene::made());
    taken(&mut desk);
    let request = desk.request();
    assert_eq!(desk.query(&request).code, 1);
    assert!(desk.logged::<AccessIntent>().is_empty());
    desk.approve(&request);
    let read = desk.data("query", "reader", &[&request, "--format", "csv"]).ok();
    // Switzerland's was not asked for.
    assert_eq!(read.stdout.trim_end(), "country,rule,events\nDE,a_marked_rule,3\nJP,a_marked_rule,2");
    let intents = desk.logged::<AccessIntent>();
    assert_eq!((intents.len(), intents[0].1.predicate.budget.objects), (1, 2));
    assert_eq!(desk.outcomes(), [(Ended::Done, 2, read.stdout.len() as u64)]);
    assert_eq!(desk.logged::<AccessOutcome>()[0].1.predicate.intent, intents[0].0.id());
    desk.settled();
    drop(worker);
}
