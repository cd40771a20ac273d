//! C2SP tlog-witness over real HTTP: each status with its content type.

use std::net::SocketAddr;

use tlog::witness_protocol::{AddCheckpoint, Cosignatures, origin_hash};
use tlog::{
    Checkpoint, ConsistencyProof, Frontier, Hash, Origin, SignedCheckpoint, SignerKey, TreeHead, TreeSize, leaf_hash,
    verify_cosignature,
};

use crate::raw::{Response, get, post};
use crate::system::System;

struct Log {
    origin: Origin,
    key: SignerKey,
}

impl Log {
    fn checkpoint(&self, head: TreeHead) -> SignedCheckpoint {
        SignedCheckpoint::sign(Checkpoint::new(self.origin.clone(), head).unwrap(), &self.key).unwrap()
    }
}

/// The head of a tree whose entries are their own numbers.
fn head(size: u64) -> TreeHead {
    let mut tree = Frontier::new();
    (0..size).for_each(|n| tree.append(&leaf_hash(&n.to_be_bytes())));
    tree.head()
}

/// The same for other entries.
fn other_head(size: u64) -> TreeHead {
    let mut tree = Frontier::new();
    (0..size).for_each(|n| tree.append(&leaf_hash(&(n + 100).to_be_bytes())));
    tree.head()
}

fn add(address: SocketAddr, old: u64, hashes: Vec<Hash>, checkpoint: SignedCheckpoint) -> Response {
    let proof = ConsistencyProof::new(hashes).unwrap();
    let request = AddCheckpoint::new(TreeSize::new(old), proof, checkpoint).unwrap();
    post(address, "/add-checkpoint", request.to_string().as_bytes())
}

#[test]
fn each_answer_has_the_status_and_type_of_the_specification() {
    let mut system = System::made();
    system.witnesses[0].start();
    let address = system.witnesses[0].address();
    let log = Log { origin: "vendor.example/log".parse().unwrap(), key: system.key("vendor", "log") };
    let monitoring = format!("/{}/checkpoint", origin_hash(&log.origin));
    assert_eq!(get(address, &monitoring).status, 404);

    // 200, and the line verifies.
    let one = log.checkpoint(head(1));
    let added = add(address, 0, Vec::new(), one.clone());
    assert_eq!((added.status, added.header("content-type")), (200, Some("text/plain; charset=utf-8")));
    let key = system.vkey("w1", "witness").parse().unwrap();
    let lines = Cosignatures::parse(&added.body).unwrap();
    verify_cosignature(one.checkpoint(), &lines.lines()[0], &key).unwrap();

    // 409 with the size, and its type.
    let stale = add(address, 0, Vec::new(), log.checkpoint(head(2)));
    assert_eq!((stale.status, stale.header("content-type")), (409, Some("text/x.tlog.size")));
    assert_eq!(stale.text(), "1\n");

    // Growth by one entry needs one hash.
    let second = leaf_hash(&1_u64.to_be_bytes());
    assert_eq!(add(address, 1, vec![second], log.checkpoint(head(2))).status, 200);
    let monitored = get(address, &monitoring);
    assert_eq!((monitored.status, monitored.header("content-type")), (200, Some("text/plain; charset=utf-8")));
    let seen = SignedCheckpoint::parse(&monitored.body).unwrap();
    assert_eq!(seen.checkpoint().head(), &head(2));
    assert_eq!(seen.signatures().len(), 2);

    // 422 for a proof that does not hold.
    let wrong = add(address, 2, vec![second], log.checkpoint(head(3)));
    assert_eq!(wrong.status, 422);
    // 409 without a size for a fork: an alarm.
    let fork = log.checkpoint(TreeHead { size: TreeSize::new(2), root: Hash::from_bytes([1; 32]) });
    let alarm = add(address, 2, Vec::new(), fork);
    assert_eq!((alarm.status, alarm.header("content-type")), (409, Some("application/json")));
    assert!(alarm.error().contains("signed two roots for size 2"), "{}", alarm.error());
}

#[test]
fn each_bad_request_is_refused_by_the_right_name() {
    let mut system = System::made();
    system.witnesses[0].start();
    let address = system.witnesses[0].address();
    let log = Log { origin: "vendor.example/log".parse().unwrap(), key: system.key("vendor", "log") };
    let unknown = Log { origin: "vendor.example/builder".parse().unwrap(), key: system.key("vendor", "builder") };
    let body = |log: &Log| {
        AddCheckpoint::new(TreeSize::ZERO, ConsistencyProof::empty(), log.checkpoint(head(1))).unwrap().to_string()
    };
    let good = body(&log);
    let signature = good.rfind(' ').unwrap() + 20;
    let mut forged = good.clone();
    let other = if forged[signature..].starts_with('A') { "B" } else { "A" };
    forged.replace_range(signature..=signature, other);
    let unsigned = good.replace("\u{2014} vendor.example/log ", "\u{2014} stranger.example/log ");
    let empty_root = good.replace("vendor.example/log\n1\n", "vendor.example/log\n0\n");
    let cases = [
        ("empty", String::new()),
        ("no note", "old 0\n\n".to_owned()),
        ("old above size", good.replace("old 0\n", "old 2\n")),
        ("leading zero", good.replace("old 0\n", "old 00\n")),
        (
            "64 hashes",
            good.replace("old 0\n", &format!("old 0\n{}", format!("{}\n", Hash::from_bytes([0; 32])).repeat(64))),
        ),
        ("extension line", good.replacen("\n\n\u{2014}", "\nextension\n\n\u{2014}", 1)),
        ("unknown origin", body(&unknown)),
        ("no known signature", unsigned),
        ("forged signature", forged),
        ("size 0 with a root", empty_root),
        ("proof from nothing", good.replace("old 0\n", &format!("old 0\n{}\n", Hash::from_bytes([0; 32])))),
        ("too long", "x".repeat(2 << 20)),
    ];
    let answers: Vec<String> = cases
        .iter()
        .map(|(name, body)| format!("{name}: {}", post(address, "/add-checkpoint", body.as_bytes()).status))
        .collect();
    insta::assert_snapshot!(answers.join("\n"), @r"
    empty: 400
    no note: 400
    old above size: 400
    leading zero: 400
    64 hashes: 400
    extension line: 400
    unknown origin: 404
    no known signature: 403
    forged signature: 403
    size 0 with a root: 422
    proof from nothing: 422
    too long: 413
    ");
    assert_eq!(get(address, "/add-checkpoint").status, 405);
    assert_eq!(get(address, "/0000/checkpoint").status, 404);
    // Nothing of all that was kept.
    assert_eq!(post(address, "/add-checkpoint", good.as_bytes()).status, 200);
}

/// What one witness saw of a fork proves it to a stranger, whatever becomes of log and witness.
#[test]
fn a_witness_proves_a_fork() {
    let mut system = System::made();
    system.witnesses[0].start();
    let address = system.witnesses[0].address();
    let log = Log { origin: "vendor.example/log".parse().unwrap(), key: system.key("vendor", "log") };
    let evidence = ["witness", "evidence", "--config", "w1/clerestory.toml", "--proofs", "proofs"];
    assert_eq!(add(address, 0, Vec::new(), log.checkpoint(head(2))).status, 200);
    // Growth without a proof, stale questions and another log are no evidence.
    let wrong = leaf_hash(&9_u64.to_be_bytes());
    assert_eq!(add(address, 2, vec![wrong], log.checkpoint(head(3))).status, 422);
    assert_eq!(add(address, 0, Vec::new(), log.checkpoint(head(1))).status, 409);
    let other = Log { origin: "supervisor.example/log".parse().unwrap(), key: system.key("supervisor", "log") };
    assert_eq!(add(address, 0, Vec::new(), other.checkpoint(other_head(2))).status, 200);
    let none = system.run(&evidence).ok();
    assert_eq!(none.stdout, "2 logs witnessed, 0 signed two trees of one size\n");
    assert!(!system.file("proofs").exists());

    // Another tree of the same size, for somebody else; and a third, which changes nothing.
    assert_eq!(add(address, 2, Vec::new(), log.checkpoint(other_head(2))).status, 409);
    let third = TreeHead { size: TreeSize::new(2), root: Hash::from_bytes([1; 32]) };
    assert_eq!(add(address, 2, Vec::new(), log.checkpoint(third)).status, 409);
    system.witnesses[0].kill();
    let shown = system.run(&[&["--json"], &evidence[..]].concat());
    let report = shown.json();
    let fork = &report["forks"][0];
    assert_eq!((shown.code, &fork["origin"], &fork["size"]), (1, &"vendor.example/log".into(), &2.into()), "{report}");
    let roots = [head(2), other_head(2)].map(|head| head.root.to_string());
    assert_eq!(fork["roots"], serde_json::json!(roots));
    let text = system.run(&evidence);
    assert!(text.stdout.starts_with("vendor.example/log: signed two trees of 2 entries\n"), "{text:?}");

    // Offline, by the log's key alone.
    let (proof, key) = (fork["proof"].as_str().unwrap(), system.vkey("vendor", "log"));
    assert_eq!(fork["log_key"], key);
    system.run(&["audit", "--proof", proof, "--log-key", &key]).ok();
    let other = system.vkey("supervisor", "log");
    assert_eq!(system.run(&["audit", "--proof", proof, "--log-key", &other]).code, 1);
    let usage = system.run(&["witness", "evidence", "--config", "vendor/clerestory.toml"]);
    assert_eq!((usage.code, usage.stderr.starts_with("error: a vendor is no witness")), (2, true), "{usage:?}");
}

#[test]
fn a_restarted_witness_remembers() {
    let mut system = System::made();
    system.witnesses[0].start();
    let address = system.witnesses[0].address();
    let log = Log { origin: "vendor.example/log".parse().unwrap(), key: system.key("vendor", "log") };
    assert_eq!(add(address, 0, Vec::new(), log.checkpoint(head(3))).status, 200);
    system.witnesses[0].kill();
    system.witnesses[0].start();
    let smaller = add(address, 0, Vec::new(), log.checkpoint(head(2)));
    assert_eq!((smaller.status, smaller.text()), (409, "3\n".to_owned()));
}
