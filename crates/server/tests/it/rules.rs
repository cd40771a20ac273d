//! Rules from a tree to an endpoint's patch, with real processes and the real scanner.

use std::path::Path;

use attest::{BuildResult, Bundle, Envelope, Lane, Refused, Ring, Source, Statement, Subject};
use detection::{Patch, Pin};
use stdx::{Digest, durable};

use crate::accusation::copy_tree;
use crate::canary::{Lanes, PRODUCT};
use crate::mirror;
use crate::process::Done;
use crate::raw;
use crate::system::System;

/// The string that only the known-bad sample has.
const MARK: &str = "clerestory-known-bad-sample";

/// `cargo test -p server` alone builds no scanner.
pub(crate) fn needs_scanner() {
    let server = Path::new(env!("CARGO_BIN_EXE_clerestory"));
    assert!(server.with_file_name("clerestory-scan").is_file(), "build it first: cargo build -p scanner");
}

/// The same corpora on both sides, as each organisation would have copied them.
pub(crate) fn corpora(system: &System) -> String {
    let sample = |corpus: &str, name: &str, content: &str| {
        durable::create_folder(&system.file(corpus)).unwrap();
        durable::write(&system.file(&format!("{corpus}/{name}")), content.as_bytes()).unwrap();
    };
    sample("bad", "sample.bin", MARK);
    sample("good", "letter.txt", "Dear reader, nothing is wrong with this letter.");
    let digests = ["bad", "good"].map(|corpus| {
        let digest = system.run(&["--json", "rules", "corpus", corpus]).ok().json().as_str().unwrap().to_owned();
        for side in ["vendor", "supervisor"] {
            let copy = system.file(&format!("{side}/corpora/{digest}"));
            durable::create_folder(&copy).unwrap();
            for entry in std::fs::read_dir(system.file(corpus)).unwrap() {
                let from = entry.unwrap().path();
                std::fs::copy(&from, copy.join(from.file_name().unwrap())).unwrap();
            }
        }
        digest
    });
    format!("[corpus]\nknown_bad = \"{}\"\ngoodware = \"{}\"\n", digests[0], digests[1])
}

/// Some hundred rules, so that a patch is worth it; `more` is one of its own.
pub(crate) fn tree(system: &System, name: &str, corpora: &str, more: &str) {
    durable::create_folder(&system.file(&format!("{name}/yara"))).unwrap();
    let write = |file: &str, text: &str| {
        durable::write(&system.file(&format!("{name}/{file}")), text.as_bytes()).unwrap();
    };
    write("NOTICE", "Rules of a test.\n");
    write("rules.toml", &format!("product = \"{PRODUCT}\"\nnotice = \"NOTICE\"\n{corpora}"));
    let rule = |n: u32| {
        let text = Digest::of(&n.to_be_bytes());
        format!("rule known_{n} {{ meta: author = \"nobody\" strings: $a = \"{text}\" condition: $a }}\n")
    };
    write("yara/many.yar", &(0..300).map(rule).collect::<String>());
    write("yara/bad.yar", &format!("rule bad_sample {{ strings: $a = \"{MARK}\" condition: $a }}\n"));
    write("yara/more.yar", more);
}

pub(crate) fn push(system: &System, tree: &str, version: &str) -> Done {
    system.run(&["--json", "rules", "push", "--config", "vendor/clerestory.toml", tree, version])
}

/// The first release has nothing to compare with, so people look at it.
fn first_release(lanes: &Lanes, corpora: &str) {
    let system = &lanes.system;
    tree(system, "tree1", corpora, "rule more { strings: $a = \"a text of its own\" condition: $a }\n");
    let done = push(system, "tree1", "1");
    assert_eq!(done.code, 1, "{done:?}");
    let report = done.json();
    let codes: Vec<_> = report["reasons"].as_array().unwrap().iter().map(|it| it["code"].as_str().unwrap()).collect();
    assert_eq!(codes, ["first-release"]);
    assert!(report["refusal"].is_string(), "the supervisor finds the same, and has logged it: {report}");
    approve(lanes, "1");
    assert_eq!(lanes.publish("1").ok().json()["ring"], "all");
}

/// Somebody of each organisation approves.
pub(crate) fn approve(lanes: &Lanes, version: &str) {
    let result = format!("vendor/builds/{PRODUCT}/{version}/result.bundle");
    for name in ["vendor", "supervisor"] {
        let (config, key) = (format!("{name}/clerestory.toml"), format!("{name}/keys/approver.key"));
        let out = format!("vendor/builds/{PRODUCT}/{version}/approvals/{name}.bundle");
        let approve = ["release", "approve", "--config", &config, "--key", &key, "--result", &result, "--out", &out];
        lanes.system.run(&approve).ok();
    }
}

#[test]
fn rules_are_pushed_and_an_endpoint_needs_only_a_patch() {
    needs_scanner();
    let mut lanes = Lanes::running();
    let corpora = corpora(&lanes.system);
    first_release(&lanes, &corpora);
    let more = "rule more { strings: $a = \"another text of its own\" condition: $a }\n";
    tree(&lanes.system, "tree2", &corpora, more);
    let report = push(&lanes.system, "tree2", "2").ok().json();
    assert_eq!((&report["number"], &report["patches"].as_array().unwrap().len()), (&2.into(), &1));
    assert_eq!(lanes.ring("2"), Ring::Canary);
    // Again is the same.
    assert_eq!(push(&lanes.system, "tree2", "2").ok().json()["statement"], report["statement"]);

    let (release, _) = lanes.release("2");
    assert_eq!(release.predicate.lane, Lane::Fast);
    assert_eq!(release.subject.iter().map(|it| it.name.as_str()).collect::<Vec<_>>(), ["rules.yar"]);
    let artifact = &release.predicate.artifacts[0];
    let delta = &artifact.deltas[0];
    let address = lanes.system.vendor.address();
    let path = channel::layout::patch(&PRODUCT.parse().unwrap(), &delta.patch);
    let bytes = raw::get(address, &format!("/channel/{path}")).body;
    assert_eq!((Digest::of(&bytes), bytes.len() as u64), (delta.patch, delta.size));
    let old = std::fs::read(lanes.system.file(&format!("vendor/builds/{PRODUCT}/1/outputs/rules.yar"))).unwrap();
    let to = Pin { digest: release.subject[0].sha256(), size: artifact.size };
    let new = Patch { from: delta.from, to, bytes }.apply(&old).unwrap();
    assert!(String::from_utf8(new).unwrap().contains("another text of its own"));

    lanes.all_is_well("2");
    lanes.wait_for("promoted");
    assert_eq!(lanes.ring("2"), Ring::Early);
}

#[test]
fn what_the_machine_refuses_is_on_record() {
    needs_scanner();
    let lanes = Lanes::running();
    let corpora = corpora(&lanes.system);
    first_release(&lanes, &corpora);
    let greedy = "rule more { meta: collects = \"documents\" strings: $a = \"Dear reader\" condition: $a }\n";
    tree(&lanes.system, "tree2", &corpora, greedy);
    let done = push(&lanes.system, "tree2", "2");
    assert_eq!(done.code, 1, "{done:?}");
    let path = lanes.system.file(&format!("vendor/builds/{PRODUCT}/2/refusal.bundle"));
    let bundle = Bundle::parse(&std::fs::read(path).unwrap()).unwrap();
    let refused = Statement::<Refused>::decode(bundle.entries()[0].envelope.payload()).unwrap();
    let codes: Vec<_> = refused.predicate.reasons.iter().map(|it| it.code.as_str()).collect();
    assert_eq!(codes, ["collects", "fires-on-goodware"]);
    assert_eq!(logged(&lanes.system, "refusal/v1").len(), 2, "this one, and that of the first release");
    assert!(lanes.system.run(&["release", "publish", "--config", "vendor/clerestory.toml", PRODUCT, "2"]).code == 1);
}

/// What the supervisor has logged of this kind, as text.
fn logged(system: &System, kind: &str) -> Vec<String> {
    let entries = ["--json", "log", "entries", "--log", "supervisor.example/log", "--config", "vendor/clerestory.toml"];
    let listed = system.run(&entries).ok().json();
    let entries = listed["entries"].as_array().unwrap().iter().map(ToString::to_string);
    entries.filter(|entry| entry.contains(kind)).collect()
}

#[test]
fn a_claim_of_other_bytes_is_a_mismatch_for_good() {
    needs_scanner();
    let lanes = Lanes::running();
    let corpora = corpora(&lanes.system);
    tree(&lanes.system, "tree1", &corpora, "rule more { strings: $a = \"a text of its own\" condition: $a }\n");
    assert_eq!(push(&lanes.system, "tree1", "1").code, 1);
    // The vendor claims, over the same logged source, that something else came out.
    let folder = lanes.system.file(&format!("vendor/builds/{PRODUCT}/1"));
    let entry = |name: &str| {
        let bundle = Bundle::parse(&std::fs::read(folder.join(name)).unwrap()).unwrap();
        bundle.entries()[0].envelope.clone()
    };
    let source = entry("source.bundle");
    assert!(Statement::<Source>::decode(source.payload()).is_ok());
    let honest = Statement::<BuildResult>::decode(entry("result.bundle").payload()).unwrap();
    let claim = |change: &dyn Fn(&mut Statement<BuildResult>)| {
        let mut draft = honest.clone();
        change(&mut draft);
        let envelope = Envelope::sign(draft.encode().unwrap(), &[&lanes.system.key("vendor", "builder")]).unwrap();
        let request = api::DraftRequest {
            ticket: *source.id().digest(),
            envelope: String::from_utf8(envelope.to_bytes()).unwrap(),
        };
        let path = format!("/v1/rules/{}/result", source.id());
        raw::post(lanes.system.supervisor.address(), &path, &serde_json::to_vec(&request).unwrap())
    };
    assert_eq!(claim(&|_| {}).status, 200, "what both made is signed again");
    let other = claim(&|draft| draft.subject[0] = Subject::new("rules.yar", Digest::of(b"a back door")));
    assert!(other.error().contains("mismatch"), "{}", other.error());
    let other = claim(&|draft| draft.predicate.lane = Some(Lane::Fast));
    assert!(other.error().contains("not fit for the fast lane"), "{}", other.error());
    let logged = logged(&lanes.system, "mismatch/v1");
    assert_eq!(logged.len(), 1);
    assert!(logged[0].contains(&Digest::of(b"a back door").to_string()), "{logged:?}");
    let shown = lanes.system.run(&["status", "show", "--config", "supervisor/clerestory.toml"]).ok();
    assert!(shown.stdout.contains(&format!("mismatch {PRODUCT} 1")), "{shown:?}");
}

/// The disk is gone; keys and corpora come from elsewhere.
fn lose(system: &mut System, name: &str) {
    let server = if name == "vendor" { &mut system.vendor } else { &mut system.supervisor };
    assert_eq!(server.stop().code, 0);
    server.hang_up();
    let (place, lost) = (system.file(name), system.file(&format!("{name}.lost")));
    durable::rename(&place, &lost).unwrap();
    for part in ["keys", "policy", "corpora"] {
        copy_tree(&lost.join(part), &place.join(part));
    }
    std::fs::copy(lost.join("clerestory.toml"), place.join("clerestory.toml")).unwrap();
}

#[test]
fn enrolments_and_what_rules_are_compared_with_outlive_a_restore() {
    needs_scanner();
    let mut lanes = Lanes::running();
    let corpora = corpora(&lanes.system);
    first_release(&lanes, &corpora);
    let supervisor = ["--config", "supervisor/clerestory.toml"];
    let hosts = |system: &System| system.run(&[&["--json", "rules", "hosts"], &supervisor[..]].concat()).ok().json();
    let dismiss = [&["rules", "dismiss"], &supervisor[..], &["two", "--reason", "retired"]].concat();
    lanes.system.run(&dismiss).ok();
    let before = hosts(&lanes.system);
    for name in ["vendor", "supervisor"] {
        let (config, out) = (format!("{name}/clerestory.toml"), format!("{name}.backup"));
        lanes.system.run(&["backup", "make", "--config", &config, "--out", &out]).ok();
    }
    for name in ["vendor", "supervisor"] {
        lose(&mut lanes.system, name);
    }
    let mirror = mirror::start(lanes.system.path());
    let mirrors = ["vendor", "supervisor"].map(|name| format!("http://{mirror}/{name}.lost/log/objects"));
    for name in ["vendor", "supervisor"] {
        let (config, from) = (format!("{name}/clerestory.toml"), format!("{name}.backup"));
        let mut restore = vec!["--json", "backup", "restore", "--config", &config, "--from", &from];
        mirrors.iter().for_each(|url| restore.extend(["--from-mirror", url]));
        let done = lanes.system.run(&restore).ok().json();
        assert_eq!(done["done"], "restored", "{done}");
        assert!(done["rebuilt"].to_string().contains("the rules of signatures so far"), "{done}");
        assert_eq!(done["rebuilt"].to_string().contains("1 enrolled host(s)"), name == "supervisor", "{done}");
    }
    lanes.system.supervisor.start();
    lanes.system.run(&["status", "publish", "--config", "supervisor/clerestory.toml"]).ok();
    // Who was enrolled is, and who was dismissed is not.
    assert_eq!(hosts(&lanes.system), before);
}

/// Lists alone, of these hashes.
fn lists(system: &System, name: &str, hashes: &[Digest]) {
    durable::create_folder(&system.file(&format!("{name}/hashes"))).unwrap();
    let write = |file: &str, text: &str| {
        durable::write(&system.file(&format!("{name}/{file}")), text.as_bytes()).unwrap();
    };
    write("NOTICE", "Hashes of a test.\n");
    write("rules.toml", &format!("product = \"{PRODUCT}\"\nnotice = \"NOTICE\"\n"));
    write("hashes/feed.txt", &hashes.iter().map(|hash| format!("{hash}\n")).collect::<String>());
}

/// What `side` knows to be good.
fn known_good(system: &System, side: &str, hash: &Digest) {
    let folder = system.file(&format!("{side}/known-good"));
    durable::create_folder(&folder).unwrap();
    durable::write(&folder.join("own.txt"), format!("# {side}\n{hash}\n").as_bytes()).unwrap();
}

#[test]
fn lists_of_hashes_are_a_product_and_accuse_nothing_that_either_side_knows_to_be_good() {
    needs_scanner();
    let lanes = Lanes::running();
    let system = &lanes.system;
    let hash = |name: &str| Digest::of(name.as_bytes());
    let codes = |done: &Done| -> Vec<String> {
        let report = done.json();
        report["reasons"].as_array().unwrap().iter().map(|it| it["code"].as_str().unwrap().to_owned()).collect()
    };
    lists(system, "tree1", &[hash("bad")]);
    // Who knows nothing to be good has nothing to compare with.
    let done = push(system, "tree1", "0");
    assert_eq!((done.code, codes(&done)), (1, vec!["untried".to_owned(), "first-release".to_owned()]));
    known_good(system, "vendor", &hash("good of the vendor"));
    known_good(system, "supervisor", &hash("good of the supervisor"));
    let done = push(system, "tree1", "1");
    assert_eq!((done.code, codes(&done)), (1, vec!["first-release".to_owned()]), "{done:?}");
    approve(&lanes, "1");
    assert_eq!(lanes.publish("1").ok().json()["ring"], "all");
    let (release, _) = lanes.release("1");
    let names: Vec<_> = release.subject.iter().map(|it| it.name.as_str()).collect();
    assert_eq!(names, ["rules.yar", "hashes.fuse"]);
    let outputs = |version: &str| system.file(&format!("vendor/builds/{PRODUCT}/{version}/outputs"));
    let set = std::fs::read(outputs("1").join("hashes.fuse")).unwrap();
    assert_eq!(release.subject[1].sha256(), Digest::of(&set));
    let set = reputation::ReputationSet::parse(&set).unwrap();
    assert!(set.may_contain(&hash("bad")) && set.hashes() == 1);

    // Only the supervisor knows that one.
    lists(system, "tree2", &[hash("bad"), hash("good of the supervisor")]);
    let previous = outputs("1").join("rules.json");
    let check = |side: &str| {
        let previous = ["--previous", previous.to_str().unwrap()];
        system.run(&[&["--json", "rules", "check", "--data", side, "tree2"], &previous[..]].concat())
    };
    let checked = check("vendor").ok().json();
    assert_eq!((&checked["lane"], &checked["hashes"]), (&"fast".into(), &2.into()));
    assert_eq!(checked["hashes_changed"]["added"], 1);
    assert_eq!(check("supervisor").code, 1);
    let diff = system.run(&["rules", "diff", "--data", "supervisor", "tree1", "tree2"]).ok().stdout;
    let expected =
        format!("# 1 hashes added, 0 removed, compared with 1 known to be good\n! {}", hash("good of the supervisor"));
    assert!(diff.starts_with(&expected), "{diff}");
    let tested = system.run(&["rules", "test", "--data", "supervisor", "tree2"]);
    assert!(tested.code == 1 && tested.stdout.contains("known good by known-good/own.txt"), "{tested:?}");
    let done = push(system, "tree2", "2");
    assert_eq!((done.code, codes(&done)), (1, vec!["known-good".to_owned()]), "{done:?}");
    assert!(done.json()["refusal"].is_string(), "it is the supervisor that refuses, on record");

    lists(system, "tree3", &[hash("bad"), hash("worse")]);
    let done = push(system, "tree3", "3").ok();
    assert_eq!(done.json()["number"], 2);
    assert_eq!(lanes.ring("3"), Ring::Canary);
    // Nothing in it is no release.
    std::fs::remove_dir_all(system.file("tree3/hashes")).unwrap();
    let done = push(system, "tree3", "4");
    assert!(done.code == 1 && done.stderr.contains("no list of hashes"), "{done:?}");
}
