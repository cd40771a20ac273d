//! Who read what, told by our program and by one in Python, and what both say when root has had the log.

use std::path::Path;

use api::path;
use attest::{Bundle, Envelope, Opening};
use ledger::{BringOpenings, Disclose};
use serde_json::Value;
use stdx::durable;
use testkit::foreign::python;
use tlog::{Checkpoint, SignedCheckpoint, TreeEdge, leaf_hash};

use super::scene::{Scene, opening};
use crate::mirror;
use crate::process::Done;
use crate::raw;

const AUDIT: [&str; 5] = ["--json", "audit", "--config", "vendor/clerestory.toml", "--state"];

fn accesses(scene: &Scene, arguments: &[&str]) -> Done {
    let command = ["--json", "data", "accesses", "--config", "vendor/clerestory.toml", "--index", "index"];
    scene.system.run(&[&command[..], arguments].concat())
}

/// The same told by a stranger, who is shown a log at `url`, and has seen it before.
fn strangers(scene: &Scene, url: &str, earlier: &[&Path]) -> (bool, String) {
    let mut command = python("read_accesses.py");
    command.arg(url).arg(scene.system.file("vendor/policy/1.envelope")).arg(scene.system.genesis.to_string());
    let output = command.args(earlier).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(said).unwrap())
}

fn checkpoint(scene: &Scene) -> Vec<u8> {
    raw::get(scene.system.supervisor.address(), "/checkpoint").body
}

/// Streams that are silent in a system that has just begun are no news here.
fn findings(answer: &Value) -> Vec<&str> {
    let all = answer["findings"].as_array().unwrap().iter();
    all.filter(|it| it["kind"] != "silent").map(|it| it["detail"].as_str().unwrap()).collect()
}

#[test]
fn our_program_and_a_stranger_tell_the_same_of_the_same_log() {
    let scene = Scene::running();
    for _ in 0..2 {
        let made = scene.make();
        scene.outcome(&made);
    }
    let answer = accesses(&scene, &["--timeline"]).ok().json();
    assert_eq!(findings(&answer), [""; 0], "{answer:#}");
    let open = scene.make();
    let answer = accesses(&scene, &["--timeline", "--picture", "timeline.svg"]).ok().json();
    let (good, said) = strangers(&scene, &scene.system.supervisor.url(), &[]);
    let stranger: Value = serde_json::from_str(&said).unwrap();
    assert!(good, "{said}");
    assert_eq!((&answer["total"], &answer["entries"]), (&stranger["accesses"], &stranger["entries"]));
    assert_eq!((&answer["sums"]["rows"], &answer["sums"]["bytes"]), (&stranger["rows"], &stranger["bytes"]));
    let states: Vec<&str> =
        answer["accesses"].as_array().unwrap().iter().map(|it| it["state"].as_str().unwrap()).collect();
    assert_eq!(states, ["open", "done", "done"]);
    assert_eq!(answer["accesses"][0]["id"], open.intent.envelope.id().to_string());
    assert!(std::fs::read_to_string(scene.system.file("timeline.svg")).unwrap().starts_with("<svg"));

    let found = |arguments: &[&str]| accesses(&scene, arguments).ok().json()["total"].as_u64().unwrap();
    assert_eq!(found(&["--country", "JP", "--state", "done", "--employer", "vendor"]), 2);
    assert_eq!(found(&["--country", "CH"]), 0);
    assert_eq!(found(&["--what", "request", "--state", "used"]), 3);
    assert_eq!(found(&["--bytes-min", "36", "--class", "detections", "--approvals-min", "1"]), 2);
    let page = accesses(&scene, &["--limit", "1"]).ok().json();
    let next = page["next"].as_u64().unwrap().to_string();
    let page = accesses(&scene, &["--limit", "9", "--before", &next]).ok().json();
    assert_eq!(page["accesses"].as_array().unwrap().len(), 2);
    let text = scene.system.run(&["data", "accesses", "--config", "vendor/clerestory.toml"]).ok().stdout;
    assert!(
        text.contains("done     (private) of vendor, detections of DE JP in zurich, for detection-quality"),
        "{text}"
    );

    // The gateway's own key can put an intent into the log that nobody asked for: it opens nothing, and shows.
    let unasked = scene.intent(scene.enrolment, &open.objects).envelope.id();
    let answer = accesses(&scene, &[]).ok().json();
    let expected = format!("intent {unasked}: request {} is not logged, or is over", scene.enrolment);
    assert_eq!(findings(&answer), [expected]);
    assert_eq!(accesses(&scene, &["--check"]).code, 1);
    let (good, said) = strangers(&scene, &scene.system.supervisor.url(), &[]);
    assert!(!good && said.contains(&format!("intent {unasked}: its request is not logged")), "{said}");
}

/// A log in the hands of root, who has its files and its key, and no witness.
struct Stolen {
    entries: Vec<Vec<u8>>,
    objects: std::path::PathBuf,
}

impl Stolen {
    fn of(scene: &Scene) -> Self {
        let objects = scene.system.file("stolen");
        std::fs::create_dir_all(&objects).unwrap();
        let head = SignedCheckpoint::parse(checkpoint(scene)).unwrap();
        let size = head.checkpoint().size().get();
        let path = format!("tile/entries/000.p/{size}");
        let bundle = raw::get(scene.system.supervisor.address(), &format!("/{path}")).body;
        let mut entries = Vec::new();
        let mut rest = &bundle[..];
        while let Some((length, after)) = rest.split_first_chunk::<2>() {
            let (entry, after) = after.split_at(usize::from(u16::from_be_bytes(*length)));
            entries.push(entry.to_vec());
            rest = after;
        }
        assert_eq!(entries.len() as u64, size);
        Self { entries, objects }
    }

    fn write(&self, path: &str, bytes: &[u8]) {
        let path = self.objects.join(path);
        durable::create_folder(path.parent().unwrap()).unwrap();
        durable::write(&path, bytes).unwrap();
    }

    /// Shows the world these entries: with this checkpoint, or one that the log's key signs now.
    fn show(&self, scene: &Scene, entries: &[Vec<u8>], checkpoint: Option<&[u8]>) {
        let mut edge = TreeEdge::new();
        let mut bundle = Vec::new();
        for entry in entries {
            edge.append(&leaf_hash(entry), |_, _| panic!("fewer than 256"));
            bundle.extend_from_slice(&u16::try_from(entry.len()).unwrap().to_be_bytes());
            bundle.extend_from_slice(entry);
        }
        for (tile, bytes) in edge.partial_tiles() {
            self.write(&tile.path(), bytes);
        }
        self.write(&format!("tile/entries/000.p/{}", entries.len()), &bundle);
        let signed = || {
            let origin = testkit::SUPERVISOR_LOG.parse().unwrap();
            let checkpoint = Checkpoint::new(origin, edge.head()).unwrap();
            let signed = SignedCheckpoint::sign(checkpoint, &scene.system.key("supervisor", "log")).unwrap();
            signed.to_string().into_bytes()
        };
        self.write("checkpoint", &checkpoint.map_or_else(signed, <[u8]>::to_vec));
    }
}

#[test]
fn rewriting_truncating_forking_and_reordering_as_root_is_found_by_both() {
    let mut scene = Scene::running();
    let made = scene.make();
    let early = checkpoint(&scene);
    scene.outcome(&made);
    let late = checkpoint(&scene);
    let earlier = scene.system.file("earlier");
    durable::write(&earlier, &late).unwrap();
    let stolen = Stolen::of(&scene);
    let good = &stolen.entries;
    let before = accesses(&scene, &[]).ok().json();
    assert_eq!(before["total"], 1);
    scene.system.beat(&crate::statement::Place::vendor());
    let audited = |scene: &Scene, state: &str| {
        let done = scene.system.run(&[&AUDIT[..], &[state]].concat());
        let report = done.json();
        let log = report["logs"].as_array().unwrap().iter().find(|it| it["origin"] == testkit::SUPERVISOR_LOG).unwrap();
        log["findings"].as_array().unwrap().iter().map(|it| it["kind"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(audited(&scene, "state.json"), [""; 0]);
    // From now on root answers in the log's place, at its address.
    scene.system.supervisor.kill();
    mirror::serve_at(scene.system.supervisor.listener().try_clone().unwrap(), &stolen.objects);
    let url = scene.system.supervisor.url();

    stolen.show(&scene, good, Some(&late));
    assert_eq!(audited(&scene, "state.json"), [""; 0], "the very log, shown by another");
    assert!(strangers(&scene, &url, &[&earlier]).0);

    let outcome = String::from_utf8(good.last().unwrap().clone()).unwrap();
    let rewritten = {
        // Fewer rows than were read, signed by the gateway as it should be: root has its key, too.
        let envelope = Envelope::parse(outcome.as_bytes()).unwrap();
        let payload = String::from_utf8(envelope.payload().to_vec()).unwrap();
        let less = payload.replacen("\"rows\":2", "\"rows\":1", 1);
        assert_ne!(less, payload);
        Envelope::sign(less.into_bytes(), &[&scene.system.key("supervisor", "gateway")]).unwrap().to_bytes()
    };
    let with = |last: Vec<u8>| [&good[..good.len() - 1], &[last]].concat();
    let swapped = {
        let mut entries = good.clone();
        entries.swap(2, 3);
        entries
    };
    let cut = good.len() - 1;
    let fork = with(good[0].clone());
    type Attack<'a> = (&'a str, &'a [Vec<u8>], Option<&'a [u8]>);
    let attacks: [Attack<'_>; 7] = [
        ("rewritten below the witnessed root", &with(rewritten.clone()), Some(&late)),
        ("rewritten, and signed anew", &with(rewritten), None),
        ("the tail cut off, as the witnesses saw it before", &good[..cut], Some(&early)),
        ("the tail cut off, and signed anew", &good[..cut], None),
        ("forked", &fork, None),
        ("reordered below the witnessed root", &swapped, Some(&late)),
        ("reordered, and signed anew", &swapped, None),
    ];
    for (what, entries, checkpoint) in attacks {
        stolen.show(&scene, entries, checkpoint);
        let found = audited(&scene, "state.json");
        assert!(!found.is_empty(), "{what}");
        // Who audits for the first time finds it as well: the witnesses know more.
        assert!(!audited(&scene, "none.json").is_empty(), "{what}");
        let _ = std::fs::remove_file(scene.system.file("none.json"));
        let anew = scene.system.run(&["data", "accesses", "--config", "vendor/clerestory.toml"]);
        assert_eq!((anew.code, anew.stdout.as_str()), (1, ""), "{what}: {anew:?}");
        // Who has read it all before goes on knowing what was there.
        let kept = accesses(&scene, &[]);
        let same =
            kept.code == 0 && kept.json()["root"] == before["root"] && kept.json()["accesses"] == before["accesses"];
        assert!(same || (kept.code, kept.stdout.as_str()) == (1, ""), "{what}: {kept:?}");
        assert!(same == (checkpoint == Some(&late[..])), "{what}");
        let (good, said) = strangers(&scene, &url, &[&earlier]);
        assert!(!good, "{what}: {said}");
    }
    stolen.show(&scene, good, Some(&late));
    assert_eq!(audited(&scene, "state.json"), [""; 0], "nothing of it has stayed with the auditor");
    assert_eq!(accesses(&scene, &[]).ok().json()["total"], 1);
}

#[test]
fn a_custodian_names_readers_to_logged_reviews_alone_until_they_are_redacted() {
    let mut scene = Scene::running();
    let made = scene.make();
    scene.outcome(&made);
    let holder = scene.custodian("member").url();
    let evidence = String::from_utf8(Bundle::new(vec![made.request.clone()]).unwrap().to_bytes()).unwrap();
    let bring = |scene: &mut Scene, openings: Vec<Opening>| {
        let body = BringOpenings { evidence: evidence.clone(), openings };
        raw::post(scene.custodian("member").address(), path::OPENINGS, &serde_json::to_vec(&body).unwrap())
    };
    let mine = || vec![opening("reader", "an analyst"), opening("ticket", "a ticket")];
    let answer = bring(&mut scene, mine());
    assert_eq!(answer.status, 200, "{}", answer.text());
    let foreign = bring(&mut scene, vec![opening("reader", "somebody else")]);
    assert_eq!(foreign.status, 403, "{}", foreign.text());
    // The vendor is gone. Its log takes nothing, its people have no say in this.
    scene.system.vendor.kill();

    let config = ["--json", "data", "accesses", "--config", "supervisor/clerestory.toml", "--names", &holder];
    let review = |scene: &Scene, key: &str, more: &[&str]| {
        scene.system.run(&[&config[..], &["--reviewer", "a supervisor", "--key", key], more].concat())
    };
    let approver = "supervisor/keys/approver.key";
    let answer = review(&scene, approver, &["--who", "ANALYST"]).ok().json();
    assert_eq!((&answer["total"], &answer["accesses"][0]["who"]), (&1.into(), &"an analyst".into()), "{answer:#}");
    let reviews = review(&scene, approver, &["--what", "review"]).ok().json();
    assert_eq!((&reviews["total"], &reviews["accesses"][0]["who"]), (&2.into(), &"a supervisor".into()));
    assert_eq!(reviews["accesses"][1]["id"], answer["review"], "the first one stands in the log, too");
    assert_eq!(review(&scene, "supervisor/keys/recorder.key", &[]).code, 1);
    let plain = scene.system.run(&config[..5]).ok().json();
    assert_eq!(plain["accesses"][0]["who"], Value::Null, "without a review there is no name");
    assert_eq!(findings(&plain), [""; 0]);
    // A review that is in no log opens nothing.
    let unlogged = Disclose {
        review: evidence.clone(),
        key: scene.worker.public().to_string(),
        commitments: vec![opening("reader", "an analyst").commitment()],
    };
    let address = scene.custodian("member").address();
    let refused = raw::post(address, path::DISCLOSURES, &serde_json::to_vec(&unlogged).unwrap());
    assert_eq!(refused.status, 403, "{}", refused.text());

    let redact = |scene: &Scene, step: &[&str]| {
        scene.system.run(&[&["--json", "data", "redact", "--config", "supervisor/clerestory.toml"], step].concat())
    };
    let request = made.request.envelope.id().to_string();
    let ask = ["ask", "--key", approver, "--field", "reader", "--reason", "has left", &request];
    let asked = redact(&scene, &ask).ok().json();
    let id = asked["statement"].as_str().unwrap();
    let carry_out = ["carry-out", "--at", &holder, id];
    assert_eq!(redact(&scene, &carry_out).code, 1, "nobody has agreed");
    redact(&scene, &["approve", "--key", approver, id]).ok();
    assert_eq!(redact(&scene, &carry_out).code, 1, "one of two has agreed");
    redact(&scene, &["approve", "--key", "vendor/keys/approver.key", id]).ok();
    redact(&scene, &carry_out).ok();
    let answer = review(&scene, approver, &[]).ok().json();
    let access = &answer["accesses"][0];
    assert_eq!((&access["who"], &access["redacted"]), (&Value::Null, &true.into()), "{answer:#}");
    let again = bring(&mut scene, mine());
    assert!(again.error().contains("was redacted"), "{}", again.text());
    // No file of the custodian's has the name any more; the ticket, which nobody named, is there.
    let name = opening("ticket", "a ticket").commitment().to_string();
    let place = format!("custodian-member/beside/objects/private/{}/{}", &name[..2], &name[2..4]);
    assert!(scene.system.file(&place).join(&name).exists());
    let name = opening("reader", "an analyst").commitment().to_string();
    let place = format!("custodian-member/beside/objects/private/{}/{}", &name[..2], &name[2..4]);
    assert!(!scene.system.file(&place).join(&name).exists());
}
