//! The program over a real SoftHSM2 token (Debian's `softhsm2`), and HPKE's other half in `seal`.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, missing_docs, reason = "tests")]

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use seal::{AgreedSecret, PublicKey, Share};
use serde_json::{Value, json};
use stdx::SystemEntropy;
use zeroize::Zeroizing;

const MODULE: &str = "/usr/lib/softhsm/libsofthsm2.so";

/// A token in a folder, with the PIN `1234`.
fn make_token(folder: &Path) {
    std::fs::create_dir_all(folder.join("tokens")).unwrap();
    let config = format!("directories.tokendir = {}\nobjectstore.backend = file\n", folder.join("tokens").display());
    stdx::durable::write(&folder.join("softhsm2.conf"), config.as_bytes()).unwrap();
    stdx::durable::write_private(&folder.join("pin"), b"1234\n").unwrap();
    let made = Command::new("/usr/bin/softhsm2-util")
        .args(["--init-token", "--free", "--label", "custodian", "--so-pin", "4321", "--pin", "1234"])
        .env("SOFTHSM2_CONF", folder.join("softhsm2.conf"))
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
}

fn program(folder: &Path, pin: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_clerestory-token"));
    command.args(["--module", MODULE, "--label", "custodian", "--pin"]).arg(folder.join(pin));
    command.env_clear().env("SOFTHSM2_CONF", folder.join("softhsm2.conf"));
    command
}

struct Talk(Child, BufReader<ChildStdout>);

impl Talk {
    fn start(folder: &Path) -> Self {
        let mut child = program(folder, "pin").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Self(child, output)
    }

    fn ask(&mut self, question: &Value) -> Value {
        writeln!(self.0.stdin.as_mut().unwrap(), "{question}").unwrap();
        let mut line = String::new();
        self.1.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    }
}

impl Drop for Talk {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

#[test]
fn a_share_that_is_sealed_to_a_tokens_key_opens_with_what_the_token_agrees_on() {
    let folder = tempfile::tempdir().unwrap();
    make_token(folder.path());
    let mut talk = Talk::start(folder.path());
    let point = talk.ask(&json!("generate"))["key"].as_str().unwrap().to_owned();
    let key = PublicKey::of_point(&STANDARD.decode(&point).unwrap()).unwrap();
    assert_eq!(key.to_string(), format!("p256:{point}"));
    // Sealed as every endpoint does; opened with the token's secret.
    let other = seal::PrivateKey::generate(seal::Kem::P256, &SystemEntropy).unwrap();
    let object = |info: &str| {
        let custodian =
            |name: &str, key: &PublicKey| seal::Custodian { organisation: name.parse().unwrap(), key: key.clone() };
        let hybrid = seal::PrivateKey::generate(seal::Kem::XWing, &SystemEntropy).unwrap();
        let bound = seal::Bound {
            id: seal::BatchId::draw(&SystemEntropy).unwrap(),
            region: info.parse().unwrap(),
            country: "CH".parse().unwrap(),
            class: "detections".parse().unwrap(),
            policy: "00".repeat(32).parse().unwrap(),
        };
        let custodians =
            seal::Custodians::new(vec![custodian("token", &key), custodian("other", hybrid.public())]).unwrap();
        let object = custodians.seal(bound.clone(), b"an event", &SystemEntropy).unwrap();
        (object, bound, hybrid)
    };
    let (object, bound, hybrid) = object("zurich");
    let (header, _) = seal::Header::parse(&object).unwrap();
    let share = |name: &str| header.shares.iter().find(|it| it.custodian.as_str() == name).unwrap().wrapped().unwrap();
    let wrapped = share("token");
    let points = vec![STANDARD.encode(&wrapped.encapsulated), STANDARD.encode(other.public().point().unwrap())];
    let secrets = talk.ask(&json!({"derive": {"key": point, "points": points}}));
    let secret = STANDARD.decode(secrets["secrets"][0].as_str().unwrap()).unwrap();
    let agreed = AgreedSecret::new(Zeroizing::new(secret.try_into().unwrap()));
    let info = bound.info(&"token".parse().unwrap());
    let ours = Share::open_agreed(&wrapped, &key, &info, &agreed).unwrap();
    assert!(Share::open_agreed(&wrapped, &key, b"other", &agreed).is_none());
    assert!(Share::open_agreed(&wrapped, other.public(), &info, &agreed).is_none());
    let theirs = Share::open(&share("other"), &hybrid, &bound.info(&"other".parse().unwrap())).unwrap();
    assert_eq!(seal::Sealed::read(&object, &seal::DataKey::join([&ours, &theirs])).unwrap(), b"an event");
    // Two uses, on the token; a process that starts anew finds key and counter.
    drop(talk);
    let mut talk = Talk::start(folder.path());
    assert_eq!(talk.ask(&json!("keys")), json!({"keys": {"keys": [point], "uses": 2}}));
    assert!(talk.ask(&json!({"derive": {"key": point, "points": [point]}}))["secrets"].is_array());
    assert_eq!(talk.ask(&json!("keys")), json!({"keys": {"keys": [point], "uses": 3}}));
    // A point that is none, and questions that are none, are answered and end nothing.
    let bad = [4_u8; 65];
    for question in [
        json!({"derive": {"key": point, "points": [STANDARD.encode(bad)]}}),
        json!({"derive": {"key": point, "points": ["AA=="]}}),
        json!({"derive": {"key": other.public().to_string(), "points": []}}),
        json!({"export": {"key": point}}),
    ] {
        assert!(talk.ask(&question)["error"].is_string(), "{question}");
    }
    assert_eq!(talk.ask(&json!({"destroy": {"key": point}})), json!("done"));
    assert_eq!(talk.ask(&json!("keys"))["keys"]["keys"], json!([]));
    assert!(talk.ask(&json!({"derive": {"key": point, "points": [points[0]]}}))["error"].is_string());
}

#[test]
fn what_is_not_as_it_must_be_ends_it_with_a_reason() {
    let folder = tempfile::tempdir().unwrap();
    make_token(folder.path());
    stdx::durable::write_private(&folder.path().join("wrong"), b"0000\n").unwrap();
    stdx::durable::write(&folder.path().join("open"), b"1234\n").unwrap();
    std::fs::set_permissions(folder.path().join("open"), std::fs::Permissions::from_mode(0o644)).unwrap();
    for (pin, why) in [("wrong", "refuses the PIN"), ("open", "can be read by others"), ("none", "the PIN's file")] {
        let done = program(folder.path(), pin).stdin(Stdio::null()).output().unwrap();
        let said = String::from_utf8(done.stderr).unwrap();
        assert!(!done.status.success() && said.contains(why), "{said}");
        assert!(!said.contains("1234"), "{said}");
    }
}
