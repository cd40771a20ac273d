//! Custodians over the wire, asked by an honest gateway and by others.

use std::path::{Path, PathBuf};
use std::process::Command;

use attest::{AccessIntent, Bundle, BundleEntry, CustodyReport, Envelope, Opening, Position, Statement};
use seal::{DataKey, Header, Kem, PrivateKey, Sealed, Share};
use stdx::{Digest, SystemEntropy, durable};
use testkit::REGION;

use super::scene::{CUSTODIANS, Scene, Setting, folder, headers, opening, read};
use crate::process::Server;
use crate::raw;
use crate::statement::Place;

/// Refused, with a text that says why.
fn refused(scene: &Scene, who: &str, ask: &api::GrantRequest, why: &str) {
    let answer = scene.grant(who, ask);
    assert_eq!(answer.status, 403, "{}", answer.text());
    assert!(answer.error().contains(why), "{}", answer.error());
}

#[test]
fn both_custodians_open_what_the_log_names_once_and_report_it() {
    let mut scene = Scene::running();
    let made = scene.make();
    let ask = scene.ask(&made);
    let [one, other] = CUSTODIANS.map(|who| scene.shares(who, &made, &scene.grant(who, &ask)));
    let mut texts = read(&made, [&one, &other]);
    texts.sort();
    assert_eq!(texts, ["an event from DE", "an event from JP"]);
    // Replayed; and again after a power cut: it is on disk.
    for who in CUSTODIANS {
        refused(&scene, who, &ask, "was used already");
        scene.custodian(who).kill();
        scene.custodian(who).start();
        refused(&scene, who, &ask, "was used already");
        let state = scene.state(who);
        assert_eq!((state.uses, state.opened, state.open), (1, 2, vec![made.intent.envelope.id()]));
    }
    // Another intent for the same request, which was good for one.
    let again = super::scene::Made { intent: scene.intent(made.request.envelope.id(), &made.objects), ..made.clone() };
    refused(&scene, "member", &scene.ask(&again), "as often as it may be");
    let outcome = scene.outcome(&made);
    for who in CUSTODIANS {
        for _ in 0..2 {
            assert_eq!(scene.conclude(who, &outcome).status, 200);
        }
        assert!(scene.state(who).open.is_empty());
        let config = format!("{}/clerestory.toml", folder(who));
        let logged = scene.system.run(&["--json", "data", "report", "--config", &config]).ok().json();
        assert_eq!(logged.as_array().unwrap().len(), 1);
        let numbers = raw::get(scene.custodian(who).address(), "/readyz");
        assert_eq!(numbers.status, 200, "{}", numbers.text());
    }
    for place in [Place::vendor(), Place::supervisor()] {
        scene.system.beat(&place);
    }
    let audited = scene.system.run(&["--json", "audit", "--config", "supervisor/clerestory.toml", "--state", "a.json"]);
    assert_eq!(audited.code, 0, "{audited:#?}");
    assert!(report_in_log(&scene).iter().any(|it| (it.uses, it.opened) == (1, 2)), "the log has it, too");
}

/// Every report in the supervisor's log.
fn report_in_log(scene: &Scene) -> Vec<CustodyReport> {
    let checkpoint = raw::get(scene.system.supervisor.address(), "/checkpoint").text();
    let size: usize = checkpoint.lines().nth(1).unwrap().parse().unwrap();
    let bundle = raw::get(scene.system.supervisor.address(), &format!("/tile/entries/000.p/{size}")).body;
    let mut rest = &bundle[..];
    let mut reports = Vec::new();
    while let Some((length, after)) = rest.split_first_chunk::<2>() {
        let (entry, after) = after.split_at(usize::from(u16::from_be_bytes(*length)));
        rest = after;
        let envelope = Envelope::parse(entry).unwrap();
        reports.extend(Statement::<CustodyReport>::decode(envelope.payload()).ok().map(|it| it.predicate));
    }
    reports
}

#[test]
fn nothing_is_opened_before_the_custodian_knows_who_reads() {
    let mut scene = Scene::running();
    let made = scene.make();
    let honest = scene.ask(&made);
    for (openings, why) in [
        (vec![], "nothing opens the statement's `reader`"),
        (honest.openings[1..].to_vec(), "nothing opens the statement's `reader`"),
        (honest.openings[..2].to_vec(), "nothing opens the statement's `comment`"),
        ([&honest.openings[..], &[opening("reader", "somebody else")]].concat(), "no statement that was brought"),
        (
            vec![opening("reader", "somebody else"), opening("ticket", "a ticket"), opening("comment", "yes")],
            "no statement",
        ),
    ] {
        let ask = api::GrantRequest { openings, ..honest.clone() };
        CUSTODIANS.iter().for_each(|who| refused(&scene, who, &ask, why));
    }
    assert_eq!(scene.state("member").uses, 0, "the intent is not used up");
    for who in CUSTODIANS {
        assert_eq!(scene.grant(who, &honest).status, 200);
    }
    // From here on it can say who has read what, whoever else is gone.
    let digests: Vec<u8> =
        headers(&made.objects).iter().flat_map(|it| *Digest::of(&it.to_bytes()).as_bytes()).collect();
    let Statement { subject, .. } = Statement::<AccessIntent>::decode(made.intent.envelope.payload()).unwrap();
    let root = subject[0].sha256().to_string();
    let list =
        raw::get(scene.custodian("member").address(), &format!("/addenda/{}/{}/{root}", &root[..2], &root[2..4]));
    assert_eq!((list.status, list.body), (200, digests));
    // So does the owner of one of the objects, who tells nobody which one it is.
    let at = scene.custodian("member").url();
    let subject = |scene: &Scene, object: &[u8]| {
        let (header, _) = Header::parse(object).unwrap();
        let mine = format!("# mine\n{}\n", Digest::of(&header.to_bytes()));
        durable::write(&scene.system.file("mine.txt"), mine.as_bytes()).unwrap();
        let vault = scene.system.vendor.url();
        let command = ["--json", "data", "subject", "--config", "vendor/clerestory.toml", "--vault", &vault];
        scene.system.run(&[&command[..], &["--at", &at, "mine.txt"]].concat())
    };
    let found = subject(&scene, &made.objects[0]).ok().json();
    let id = made.intent.envelope.id().to_string();
    assert_eq!((&found["accesses"][0]["id"], &found["accesses"][0]["of_owner"]), (&id.into(), &1.into()), "{found:#}");
    assert_eq!(subject(&scene, &scene.objects()[0]).ok().json()["accesses"].as_array().unwrap().len(), 0);
    // An access that this custodian never saw may have been one, too: that is said, and is no success.
    let unseen = scene.make();
    let told = subject(&scene, &made.objects[0]);
    assert_eq!(told.code, 1, "{told:?}");
    assert!(told.stdout.contains(&unseen.intent.envelope.id().to_string()), "{told:?}");
    for it in &honest.openings {
        let name = it.commitment().to_string();
        let place = format!("custodian-member/beside/objects/private/{}/{}/{name}", &name[..2], &name[2..4]);
        assert_eq!(Opening::parse(&std::fs::read(scene.system.file(&place)).unwrap()).unwrap(), *it);
    }
}

#[test]
fn one_custodian_is_not_enough_down_or_rogue() {
    let mut scene = Scene::running();
    let made = scene.make();
    let ask = scene.ask(&made);
    scene.custodian("supervisor").kill();
    let share = scene.shares("member", &made, &scene.grant("member", &ask));
    for (object, share) in made.objects.iter().zip(&share) {
        assert!(Sealed::open(object, &DataKey::join([share])).is_err());
    }
    // All of one custodian's files, in the hand of whoever has the ciphertext.
    let keys: Vec<PrivateKey> = std::fs::read_dir(scene.system.file("custodian-member/keys/regions"))
        .unwrap()
        .map(|entry| PrivateKey::from_text(&std::fs::read_to_string(entry.unwrap().path()).unwrap()).unwrap())
        .collect();
    assert_eq!(keys.len(), 3);
    for (object, header) in made.objects.iter().zip(headers(&made.objects)) {
        let opened: Vec<Share> = header
            .shares
            .iter()
            .flat_map(|share| keys.iter().map(move |key| (share, key)))
            .filter_map(|(share, key)| Share::open(&share.wrapped()?, key, &header.bound.info(&share.custodian)))
            .collect();
        assert_eq!(opened.len(), 1, "its own, and nobody else's");
        assert!(Sealed::open(object, &DataKey::join(&opened)).is_err());
    }
    // Its ledger and its config are no key either: nothing in its folder opens the other's share.
    assert!(!scene.system.file("custodian-member/keys/supervisor.key").exists());
}

#[test]
fn what_is_not_logged_and_witnessed_opens_nothing() {
    let scene = Scene::running();
    let made = scene.make();
    // Signed by the gateway, never appended, with the proof of one that was.
    let Statement { predicate, .. } = Statement::<AccessIntent>::decode(made.intent.envelope.payload()).unwrap();
    let position = Position { time: predicate.position.time, ..predicate.position.clone() };
    let other = scene.objects();
    let envelope = scene.intent_at(position, made.request.envelope.id(), &other);
    let forged = BundleEntry { envelope, proof: made.intent.proof.clone() };
    let mut ask = scene.ask(&made);
    let honest = Bundle::parse(ask.evidence.as_bytes()).unwrap();
    let entries = honest.entries().iter().map(|it| {
        let envelope = if it.envelope == made.intent.envelope { &forged.envelope } else { &it.envelope };
        BundleEntry { envelope: envelope.clone(), proof: it.proof.clone() }
    });
    ask.evidence = String::from_utf8(Bundle::new(entries.collect()).unwrap().to_bytes()).unwrap();
    for who in CUSTODIANS {
        refused(&scene, who, &ask, "not");
    }
    // Nobody but the gateway's organisation gets one into the log.
    let reader = scene.system.key("vendor", "reader");
    let alien = scene.write("access/supervisor", |position| {
        let unsigned = scene.intent_at(position, made.request.envelope.id(), &made.objects);
        Envelope::sign(unsigned.payload().to_vec(), &[&reader]).unwrap()
    });
    assert!(alien.is_err());
    // Without a quorum there is no entry, and so nothing to ask with.
    let mut scene = Scene::running();
    let before = scene.make();
    for witness in &mut scene.system.witnesses[..2] {
        witness.kill();
    }
    let answer = scene.write("access/supervisor", |position| {
        scene.intent_at(position, before.request.envelope.id(), &before.objects)
    });
    assert!(format!("{:?}", answer.unwrap_err()).contains("not-witnessed"));
}

#[test]
fn a_grant_is_for_its_objects_its_worker_and_its_time() {
    let mut scene = Scene::running();
    let made = scene.make();
    let honest = scene.ask(&made);
    let mut other = honest.clone();
    other.headers = scene.ask(&super::scene::Made { objects: scene.objects(), ..made.clone() }).headers;
    refused(&scene, "member", &other, "not those that the intent names");
    // One intent for two workers.
    let worker = std::mem::replace(&mut scene.worker, PrivateKey::generate(Kem::P256, &SystemEntropy).unwrap());
    let mut other = honest.clone();
    other.workers = vec![String::from_utf8(scene.certify().to_bytes()).unwrap()];
    refused(&scene, "member", &other, "not the one that the intent names");
    scene.worker = worker;
    // A clock that was set back, and one that is far ahead: what was fresh is stale.
    for (shift, why) in [("-2d", "the clock says"), ("+10m", "old, at most")] {
        let server: &mut Server = scene.custodian("member");
        server.kill();
        let mut command = Command::new(env!("CARGO_BIN_EXE_clerestory"));
        command.env_clear().env("LD_PRELOAD", library()).env("FAKETIME", shift);
        command.args(["serve", "--config", server.config()]);
        server.start_as(command);
        refused(&scene, "member", &honest, why);
    }
    scene.custodian("member").kill();
    scene.custodian("member").start();
    assert_eq!(scene.grant("member", &honest).status, 200);
    // Garbage is no reason to fall over.
    let address = scene.custodian("member").address();
    for body in [&b""[..], b"{}", b"null", &[b'['; 100_000]] {
        assert_eq!(raw::post(address, "/v1/custody/grants", body).status, 422);
    }
    let headers = vec![String::new(); 5000];
    let many = api::GrantRequest { headers, ..honest };
    assert_eq!(scene.grant("member", &many).status, 422);
}

/// What Debian's `faketime` loads. The program itself would stand between a test and its server.
fn library() -> PathBuf {
    let folders = std::fs::read_dir("/usr/lib").unwrap();
    let mut found = folders.map(|entry| entry.unwrap().path().join("faketime/libfaketime.so.1"));
    found.find(|path| path.exists()).expect("Debian's package `faketime`")
}

#[test]
fn a_stop_stops_at_once_and_until_it_is_lifted() {
    let scene = Scene::running();
    let stopped = scene.supervisor_data(&["stop", REGION, "--class", testkit::APPROVED_CLASS]).ok().json();
    assert_eq!(stopped["stopped"].as_array().unwrap().len(), 1);
    let made = scene.make();
    for who in CUSTODIANS {
        refused(&scene, who, &scene.ask(&made), "stopped: class `detections`");
    }
    scene.supervisor_data(&["stop", REGION, "--worker", &scene.enrolment.to_string()]).ok();
    scene.supervisor_data(&["resume", REGION, "--class", testkit::APPROVED_CLASS]).ok();
    let made = scene.make();
    refused(&scene, "member", &scene.ask(&made), "stopped: worker");
    let lifted = scene.supervisor_data(&["resume", REGION, "--worker", &scene.enrolment.to_string()]).ok();
    assert_eq!(lifted.json()["stopped"].as_array().unwrap().len(), 0);
    let made = scene.make();
    assert_eq!(scene.grant("member", &scene.ask(&made)).status, 200);
    let nowhere = scene.supervisor_data(&["stop", "moscow"]);
    assert!(nowhere.code == 1 && nowhere.stderr.contains("gives no status of a region `moscow`"), "{nowhere:?}");
    let other = scene.system.run(&["data", "stop", "--config", "custodian-member/clerestory.toml", REGION]);
    assert!(other.code == 2 && other.stderr.contains("only a supervisor"), "{other:?}");
}

#[test]
fn a_key_that_is_gone_opens_nothing_and_is_an_alarm() {
    let mut scene = Scene::running();
    let made = scene.make();
    let member = scene.custodian("member").address();
    assert_eq!(raw::get(member, "/readyz").status, 200);
    let keys = std::fs::read_dir(scene.system.file("custodian-member/keys/regions")).unwrap();
    let keys: Vec<_> = keys.map(|entry| entry.unwrap().path()).collect();
    // One that the disk does not give is not gone.
    for key in &keys {
        durable::remove(key).unwrap();
        std::os::unix::fs::symlink(key, key).unwrap();
    }
    let answer = scene.grant("member", &scene.ask(&scene.make()));
    assert!(answer.status >= 500 && !answer.text().contains("is not here"), "{}", answer.text());
    scene.custodian("member").kill();
    for key in &keys {
        durable::remove(key).unwrap();
    }
    scene.custodian("member").start();
    refused(&scene, "member", &scene.ask(&made), "sealed to a key that is not here");
    let ready = raw::get(member, "/readyz");
    assert!(ready.status == 503 && ready.text().contains("is not here"), "{}", ready.text());
}

/// A custodian whose key is on a token: the same over the wire, and every use is counted there.
#[test]
fn a_key_on_a_token_opens_and_its_counter_agrees_with_the_ledger() {
    let tokens = tempfile::tempdir().unwrap();
    let token = super::token::made(tokens.path());
    let softhsm = token.softhsm.clone();
    let scene = Scene::running_with(&Setting { token: Some(token), ..Setting::default() });
    // No key of the supervisor's is in a file.
    let files = std::fs::read_dir(scene.system.file("custodian-supervisor/keys/regions")).unwrap();
    assert_eq!(files.count(), 0);
    let made = scene.make();
    let ask = scene.ask(&made);
    let [one, other] = CUSTODIANS.map(|who| scene.shares(who, &made, &scene.grant(who, &ask)));
    assert_eq!(read(&made, [&one, &other]).len(), 2);
    refused(&scene, "supervisor", &ask, "was used already");
    let supervisor = scene.custodians[0].address();
    assert_eq!(raw::get(supervisor, "/readyz").status, 200, "{}", raw::get(supervisor, "/readyz").text());
    // Somebody with the PIN uses the key beside the custodian: the counters differ.
    let config = scene.system.file("custodian-supervisor");
    let mut thief = Command::new(Path::new(env!("CARGO_BIN_EXE_clerestory")).with_file_name("clerestory-token"))
        .args(["--module", "/usr/lib/softhsm/libsofthsm2.so", "--label", "custodian", "--pin"])
        .arg(config.join("keys/pin"))
        .env("SOFTHSM2_CONF", &softhsm)
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let policy = scene.system.policy();
    let key = &policy.policy().residency.as_ref().unwrap().regions[0].custodians[0].keys[0].key;
    let point = key.as_str().strip_prefix("p256:").unwrap();
    let question = format!("{{\"derive\":{{\"key\":\"{point}\",\"points\":[\"{point}\"]}}}}\n");
    std::io::Write::write_all(thief.stdin.as_mut().unwrap(), question.as_bytes()).unwrap();
    drop(thief.stdin.take());
    assert!(thief.wait().unwrap().success());
    let ready = raw::get(supervisor, "/readyz");
    assert!(ready.status == 503 && ready.text().contains("counted 3 uses of its keys, and the ledger 2"), "{ready:?}");
}
