//! A mirror that withholds, slows or lies, for each kind of file, before the real program: it takes
//! the next mirror, in bounded time and bytes, or says what is wrong and leaves everything as it was.

use std::path::Path;
use std::process::{Command, Output};
use std::thread;
use std::time::Duration;

use stdx::{Clock as _, SystemClock, durable};
use testkit::{Breadth, OTHER_PRODUCT, PRODUCT, ReleaseOptions, figure};

use crate::scene::{Scene, copy_tree};
use crate::server::{Manner, Server};

/// What a part of a path stands for.
const KINDS: [(&str, &str); 9] = [
    ("the next policy", "policy/2"),
    ("the status", "status/"),
    ("the next root", "2.root.json"),
    ("the timestamp", "timestamp.json"),
    ("the snapshot", "snapshot.json"),
    ("the delegated metadata", "products.json"),
    ("the list of releases", ".releases"),
    ("the bundle", ".bundle"),
    ("the artifact", ".0-product"),
];

/// A request's patience; a body of some kilobytes may earn a second.
const TIMEOUT_S: u64 = 2;

/// What is expected of an update that meets a liar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// Refused, unless another mirror has it; the journal says who it was.
    Found,
    /// The same, but who lied may never have been heard.
    Outrun,
    /// What is withheld need not exist: nothing is wrong.
    Harmless,
    /// As if there were nothing new, until the timestamp expires.
    Frozen,
}

fn outcome(kind: &str, manner: &str) -> Outcome {
    match (kind, manner) {
        ("the next root", "404") => Outcome::Harmless,
        ("the timestamp", "the one before") => Outcome::Frozen,
        // Whose policy comes first ends the round; that there is none is no lie as such.
        ("the next policy", _) | (_, "404") => Outcome::Outrun,
        _ => Outcome::Found,
    }
}

/// What bad files and answers look like.
fn manners(scene: &Scene) -> Vec<(&'static str, Manner)> {
    let swapped = std::fs::read(scene.channel.folder().join("metadata/1.root.json")).unwrap();
    vec![
        ("404", Manner::Status(404)),
        ("503", Manner::Status(503)),
        ("other bytes", Manner::Bytes(b"{\"signed\":{},\"signatures\":[]}".to_vec())),
        ("nothing in it", Manner::Bytes(Vec::new())),
        ("another file's bytes", Manner::Bytes(swapped)),
        ("cut short", Manner::CutShort),
        ("a flipped bit", Manner::Flipped),
        ("endless", Manner::Endless),
        ("half, then silence", Manner::Stalling),
        ("no answer", Manner::Silent),
        ("a byte now and then", Manner::Trickling),
        ("headers now and then", Manner::TricklingHead),
        ("redirected for ever", Manner::Redirecting),
    ]
}

/// An endpoint with the first release, its mirror, and another with all that the mirror should have.
struct Place {
    scene: Scene,
    honest: Server,
    /// Timestamp and status as they were with the first release.
    old: [(&'static str, Vec<u8>); 2],
}

/// Both mirrors have a second release, at the machine's own time.
fn place() -> Place {
    let mut scene = Scene::new();
    scene.world.clock.set(SystemClock::new().now());
    scene.pass(Duration::ZERO);
    scene.release_with(OTHER_PRODUCT, b"other", &ReleaseOptions::default());
    scene.release(b"first");
    scene.publish_status();
    assert_eq!(scene.update().exit_code(), 0);
    let file = |name: &str| std::fs::read(scene.channel.folder().join(name)).unwrap();
    let old = [("the timestamp", file("metadata/timestamp.json")), ("the status", file("status/slow.bundle"))];
    let policy = scene.world.succeed(|_| {});
    scene.channel.publish_policy(scene.world.policy(), &policy).unwrap();
    scene.release(b"second");
    scene.publish_status();
    let honest = Server::new(scene.channel.folder());
    Place { scene, honest, old }
}

/// A part of a path, and what becomes of it, with their names.
type Case = ((&'static str, &'static str), (&'static str, Manner));

/// Every manner for every kind, or each manner and each kind at least once.
fn cases(scene: &Scene, old: &[(&'static str, Vec<u8>)]) -> Vec<Case> {
    let manners = manners(scene);
    let all = KINDS.iter().flat_map(|kind| manners.iter().map(move |manner| (*kind, manner.clone())));
    // 9 is prime to the number of manners, so a sample has each of them, and each kind.
    let mut cases = Breadth::of_this_run().of(all.collect::<Vec<_>>(), 9);
    for (name, bytes) in old {
        let kind = KINDS.iter().find(|(kind, _)| kind == name).unwrap();
        cases.push((*kind, ("the one before", Manner::Bytes(bytes.clone()))));
    }
    cases
}

fn run(mirrors: &[&Server], folder: &Path) -> Output {
    let config = folder.join("agent.toml");
    let urls: Vec<_> = mirrors.iter().map(|server| format!("\"{}\"", server.url())).collect();
    let text = format!(
        "state = \"{0}/state\"\ninstall = \"{0}/install\"\nchannel = [{1}]\nring = \"all\"\n\
         [network]\ntimeout_s = {TIMEOUT_S}\n[[product]]\nid = \"{PRODUCT}\"\n",
        folder.display(),
        urls.join(", ")
    );
    durable::write(&config, text.as_bytes()).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_clerestory-agent"));
    command.arg("--config").arg(config).arg("update").output().unwrap()
}

/// One update from `mirrors`, of which the first lies, by a copy of the endpoint called `name`; gives
/// how long it took, in milliseconds, and what the liar sent.
fn meet(scene: &Scene, case: &Case, mirrors: &[&Server], name: &str) -> (u128, u64) {
    let ((kind, part), (manner, how)) = case;
    let what = format!("{kind}: {manner}, {} mirror(s)", mirrors.len());
    let (liar, copy) = (mirrors[0], scene.folder.path().join(name));
    liar.behave();
    liar.misbehave(part, how.clone());
    liar.traffic();
    copy_tree(&scene.config.state, &copy.join("state"));
    copy_tree(&scene.config.install, &copy.join("install"));
    let clock = SystemClock::new();
    let before = clock.monotonic();
    let output = run(mirrors, &copy);
    let took = (clock.monotonic() - before).as_millis();
    // Policy and status, then metadata and files: each has the patience once; the rest is work.
    assert!(took < u128::from(10 * TIMEOUT_S) * 1000, "{what}: {took} ms");
    let said = String::from_utf8_lossy(&output.stderr);
    let installed = std::fs::read(copy.join("install").join(PRODUCT).join("current/product")).unwrap();
    let found = (output.status.code(), String::from_utf8(installed).unwrap());
    let journal = std::fs::read_to_string(copy.join("state/journal.jsonl")).unwrap();
    let named = journal.contains(liar.url());
    match (outcome(kind, manner), mirrors.len()) {
        (Outcome::Harmless, _) => assert_eq!(found, (Some(0), "second".to_owned()), "{what}: {said}"),
        (Outcome::Frozen, _) => assert_eq!(found, (Some(0), "first".to_owned()), "{what}: {said}"),
        (outcome, 2) => {
            assert_eq!(found, (Some(0), "second".to_owned()), "{what}: {said}");
            assert!(named || outcome == Outcome::Outrun, "{what}: the journal does not say who: {journal}");
        }
        (..) => {
            assert!(matches!(found.0, Some(1 | 75)) && found.1 == "first", "{what}: {found:?} {said}");
            assert!(said.contains("error: ") && said.contains("hint: "), "{what}: {said}");
            assert!(named, "{what}: {journal}");
        }
    }
    std::fs::remove_dir_all(&copy).unwrap();
    (took, liar.traffic().0)
}

#[test]
fn each_file_of_a_lying_mirror_is_had_from_the_next_or_refused() {
    let Place { scene, honest, old } = &place();
    let (alone, cases) = (Server::new(scene.channel.folder()), cases(scene, old));
    let (mut slowest, mut most) = (0, 0);
    for case in &cases {
        // Both mostly wait.
        let met = thread::scope(|scope| {
            let alone = scope.spawn(|| meet(scene, case, &[&alone], "alone"));
            [meet(scene, case, &[&scene.server, honest], "both"), alone.join().unwrap()]
        });
        for (took, bytes) in met {
            (slowest, most) = (took.max(slowest), bytes.max(most));
        }
    }
    figure("lies and delays of a mirror, of each kind of file, with and without another mirror", cases.len() * 2);
    figure("slowest update among them (ms, requests have 2 s)", slowest);
    figure("most bytes that a mirror sent for one update, what the kernel kept included", most);
}
