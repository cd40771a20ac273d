//! `policy`: every step refuses what makes no sense.

use stdx::durable;

use crate::statement::Place;
use crate::system::System;

fn write_policy(system: &System, change: impl FnOnce(&mut policy::Policy)) {
    let mut policy = system.policy_document();
    change(&mut policy);
    durable::write(&system.file("next.toml"), toml::to_string_pretty(&policy).unwrap().as_bytes()).unwrap();
}

#[test]
fn a_policy_is_handed_on_by_those_it_names() {
    let system = System::running();
    let config = ["--config", "vendor/clerestory.toml"];
    write_policy(&system, |policy| policy.version = 2);
    let draft = ["policy", "draft", "next.toml", "--log", "vendor.example/log", "--out", "payload2"];
    let refused = system.run(&draft);
    assert_eq!(refused.code, 1);
    assert!(refused.stderr.contains("version 1 has no predecessor"), "{refused:?}");

    // The new version opens the stream that it is logged in under the old one, so that is drafted first.
    // It also gives the vendor another policy key, which signs besides the old one.
    let rotated = ["--name", "vendor.example/policy-2", "vendor/keys/policy-2.key"];
    system.run(&[&["key", "generate"][..], &rotated].concat()).ok();
    let next_key = std::fs::read_to_string(system.file("vendor/keys/policy-2.pub")).unwrap().trim().parse().unwrap();
    write_policy(&system, |policy| {
        policy.version = 2;
        let key = policy.organisations[0].keys.iter_mut().find(|key| key.role == policy::Role::Policy).unwrap();
        key.key = next_key;
    });
    let stream = ["--previous", "vendor/policy/1.envelope", "--stream", "test/vendor"];
    system.run(&[&draft[..], &stream].concat()).ok();
    for (key, out) in
        [("vendor/keys/policy", "old2"), ("vendor/keys/policy-2", "vendor2"), ("supervisor/keys/policy", "supervisor2")]
    {
        let (key, out) = (format!("{key}.key"), format!("{out}.signed"));
        let previous = ["--previous", "vendor/policy/1.envelope"];
        system.run(&[&["policy", "sign", "--key", &key, "payload2", "--out", &out][..], &previous].concat()).ok();
    }
    system
        .run(&["policy", "assemble", "old2.signed", "vendor2.signed", "supervisor2.signed", "--out", "2.envelope"])
        .ok();
    // The first version is the stream's first entry.
    let genesis = ["log", "append", "--log", "vendor.example/log", "vendor/policy/1.envelope"];
    system.run(&[&genesis[..], &config].concat()).ok();
    let append = ["log", "append", "--log", "vendor.example/log", "--proof", "2.proof", "2.envelope"];
    system.run(&[&append[..], &config].concat()).ok();
    let bundle = ["policy", "assemble", "2.envelope", "--proof", "2.proof", "--out", "vendor/policy/2.bundle"];
    system.run(&bundle).ok();
    let checked = system.run(&[&["--json", "policy", "check"][..], &config].concat()).ok().json();
    assert_eq!((&checked["version"], &checked["needed"]), (&2.into(), &3.into()));
    let shown = system.run(&["policy", "show", "vendor/policy/2.bundle"]).ok().stdout;
    assert!(shown.contains("version 2") && shown.contains("signed by supervisor.example/policy+"), "{shown}");

    // One organisation alone hands nothing on.
    let alone = ["policy", "assemble", "vendor2.signed", "--proof", "2.proof", "--out", "vendor/policy/2.bundle"];
    system.run(&alone).ok();
    let refused = system.run(&[&["policy", "check"][..], &config].concat());
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.stderr.contains("2.bundle` is refused"), "{refused:?}");
}

#[test]
fn a_genesis_needs_both_signatures_and_its_hash() {
    let system = System::made();
    let done = system.run(&["policy", "assemble", "vendor.signed", "--out", "alone.envelope"]);
    assert_eq!(done.code, 1);
    assert!(done.stderr.contains("needs 1 `policy` signature(s) of `supervisor`, has 0"), "{done:?}");
    assert!(!system.file("alone.envelope").exists());

    let wrong_key = ["policy", "sign", "--key", "vendor/keys/builder.key", "payload", "--out", "x"];
    let done = system.run(&wrong_key);
    assert_eq!(done.code, 1);
    assert!(done.stderr.contains("`vendor.example/builder` is no policy key of this policy"), "{done:?}");

    let other = stdx::Digest::of(b"other").to_string();
    let done = system.run(&["policy", "check", "--policy", "vendor/policy", "--genesis", &other]);
    assert_eq!(done.code, 1);
    assert!(done.stderr.contains("hint: compare the policy's hash"), "{done:?}");
}

#[test]
fn senseless_policies_are_named() {
    let system = System::made();
    let check = |change: fn(&mut policy::Policy)| {
        write_policy(&system, change);
        let done = system.run(&["policy", "check", "next.toml"]);
        assert_eq!(done.code, 1, "{done:?}");
        done.stderr.lines().next().unwrap().to_owned()
    };
    assert!(check(|policy| policy.witnessing.faulty = 2).contains("does not survive 2 faulty witnesses"));
    assert!(check(|policy| policy.change.truncate(1)).contains("at least two must agree"));
    assert!(check(|policy| policy.lanes[0].approvals.clear()).contains("names no approvals"));
    const CANARY: policy::CanaryPolicy = policy::CanaryPolicy { healthy: 1, bake_s: 1, unhealthy: 1, fires: 1 };
    assert!(check(|policy| policy.lanes[0].canary = Some(CANARY)).contains("`canary` belongs to the fast lane"));
    assert!(
        check(|policy| {
            System::with_fast_lane(policy, CANARY);
            policy.lanes[1].canary = None;
        })
        .contains("the fast lane needs it")
    );
    assert!(
        check(|policy| System::with_fast_lane(policy, policy::CanaryPolicy { healthy: 0, ..CANARY }))
            .contains("healthy must not be zero")
    );
    assert!(
        check(|policy| {
            System::with_fast_lane(policy, CANARY);
            policy.streams.retain(|it| !it.stream.as_str().starts_with("canary/"));
        })
        .contains("a stream `canary/supervisor`")
    );
    assert!(
        check(|policy| policy.organisations[0].keys[1] = policy.organisations[0].keys[0].clone()).contains("one key")
    );
}

#[test]
fn a_log_is_read_through_its_policy() {
    let system = System::running();
    let first = system.beat(&Place::vendor());
    let config = ["--config", "vendor/clerestory.toml"];
    let which = system.run(&[&["log", "checkpoint"][..], &config].concat());
    assert_eq!(which.code, 2);
    assert!(which.stderr.contains("the policy has: vendor.example/log, supervisor.example/log"), "{which:?}");
    let log = ["--log", "vendor.example/log"];
    let with = |command: &[&str]| system.run(&[command, &log, &config].concat());
    let shown = with(&["--json", "log", "checkpoint"]).ok().json();
    assert_eq!(shown["size"], 1);
    let proof = with(&["log", "proof", "--index", "0"]).ok().stdout;
    let proof = tlog::LogProof::parse(&proof).unwrap();
    proof.verify(&tlog::leaf_hash(&first.to_bytes()), system.policy().witnessing()).unwrap();
    assert_eq!(with(&["log", "proof", "--index", "1"]).code, 1);
    let listed = with(&["--json", "log", "entries"]).ok().json();
    assert_eq!(listed["entries"][0]["id"], first.id().to_string());
    // Another log's server is not this log.
    let url = ["--url", &system.supervisor.url()];
    let other = system.run(&[&["log", "checkpoint"][..], &log, &config, &url].concat());
    assert_eq!(other.code, 1, "{other:?}");
}

/// The sample of residency, in the policy of a system whose member is the vendor: what counts here is that
/// people see what a policy would change, and sign none that nobody could seal by.
#[test]
fn what_a_policy_would_change_is_shown_before_anybody_signs_it() {
    let system = System::made();
    let custody = testkit::Custody::new();
    let with_residency = |policy: &mut policy::Policy| {
        for (organisation, role) in [
            ("supervisor", policy::Role::Gateway),
            ("supervisor", policy::Role::Custodian),
            ("supervisor", policy::Role::Reader),
        ] {
            let it = policy.organisations.iter_mut().find(|it| it.id.as_str() == organisation).unwrap();
            let name = format!("{organisation}.example/{role}").parse().unwrap();
            let key = tlog::SignerKey::generate(name, tlog::KeyKind::Ed25519, &stdx::SystemEntropy).unwrap();
            it.keys.push(policy::RoleKey { role, key: key.verifier().clone() });
        }
        custody.put_into(policy);
        policy.version = 2;
    };
    write_policy(&system, |_| {});
    std::fs::copy(system.file("next.toml"), system.file("old.toml")).unwrap();
    write_policy(&system, with_residency);
    assert!(system.run(&["policy", "check", "next.toml"]).ok().stdout.contains("makes sense"));
    let at = ["--at", "2026-06-01T00:00:00Z"];
    let told = system.run(&[&["policy", "diff", "old.toml", "next.toml"][..], &at].concat()).ok().stdout;
    assert!(told.contains("from 2026-06-01T00:00:00Z: refused → zurich: CH DE JP"), "{told}");
    assert!(told.contains("region zurich: custodian member is added") && told.contains("`organisations`"), "{told}");
    let told = system.run(&["--json", "policy", "diff", "next.toml", "old.toml"]).ok().json();
    let countries = told["changes"].as_array().unwrap().iter().find(|it| it["change"] == "class").unwrap();
    assert_eq!(countries["before"], "accepted", "{told}");
    let same = system.run(&["policy", "diff", "next.toml", "next.toml"]).ok().stdout;
    assert!(same.starts_with("nothing would change on "), "{same}");

    write_policy(&system, |policy| {
        with_residency(policy);
        let key = &mut policy.residency.as_mut().unwrap().regions[0].custodians[0].keys[0].key;
        *key = format!("p256:{}", "/".repeat(88)).parse().unwrap();
    });
    let refused = system.run(&["policy", "check", "next.toml"]);
    assert_eq!(refused.code, 1);
    assert!(refused.stderr.contains("not a valid `p256` key"), "{refused:?}");
    let draft = ["policy", "draft", "next.toml", "--log", "vendor.example/log", "--out", "payload"];
    system.run(&[&draft[..], &["--previous", "vendor/policy/1.envelope"]].concat()).ok();
    let refused = system.run(&["policy", "sign", "--key", "vendor/keys/policy.key", "payload", "--out", "signed"]);
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.stderr.contains("nothing is signed"), "{refused:?}");
}
