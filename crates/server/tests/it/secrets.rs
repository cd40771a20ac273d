//! What a process says never holds a secret: not at the most verbose level, not in numbers, errors,
//! or backups.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver};
use std::thread::JoinHandle;

use stdx::durable;
use testkit::SECRET_ACCESS_KEY;

use crate::previous::Previous;
use crate::process::{Done, Server, run_with};
use crate::raw;
use crate::shared::vendor::Vendor;
use crate::statement::Place;

const LOUD: (&str, &str) = ("RUST_LOG", "trace");

/// Secrets in every form that somebody might write them in, each with its name.
#[derive(Default)]
struct Secrets(BTreeMap<Vec<u8>, String>);

impl Secrets {
    /// The secret keys in all files below `folder`.
    fn below(folder: &Path) -> Self {
        let mut secrets = Self::default();
        for path in files(folder).iter().filter(|path| path.extension().is_some_and(|it| it == "key")) {
            let text = std::fs::read_to_string(path).unwrap();
            let (name, text) = (path.display().to_string(), text.trim_end());
            let seed = if let Some(rest) = text.strip_prefix("PRIVATE+KEY+") {
                // Behind the name and the id; digits of Base64 may be `+`, too.
                let digits = rest.splitn(3, '+').last().unwrap();
                secrets.add(&name, digits.as_bytes());
                // One byte says what kind of key it is.
                base64(digits)[1..].to_vec()
            } else {
                (0..32).map(|n| u8::from_str_radix(&text[2 * n..2 * n + 2], 16).unwrap()).collect()
            };
            assert_eq!(seed.len(), 32, "{name}");
            secrets.add(&name, &seed);
        }
        assert!(secrets.0.len() > 30);
        secrets
    }

    fn add(&mut self, name: &str, secret: &[u8]) {
        assert!(secret.len() > 10, "{name} is too short to be looked for");
        let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
        let list: Vec<String> = secret.iter().map(u8::to_string).collect();
        let mut forms = vec![secret.to_vec(), hex.to_uppercase().into(), hex.into(), list.join(", ").into()];
        // Whole groups of three bytes, wherever in a text they begin.
        forms.extend((0..3).map(|skip| to_base64(&secret[skip..skip + (secret.len() - skip) / 3 * 3]).into_bytes()));
        forms.into_iter().for_each(|form| drop(self.0.insert(form, name.to_owned())));
    }

    /// The name of a secret that `bytes` hold.
    fn find(&self, bytes: &[u8]) -> Option<&str> {
        // A look at two bytes rules out almost every place.
        let pair = |bytes: &[u8]| usize::from(bytes[0]) << 8 | usize::from(bytes[1]);
        let mut begins = vec![false; 1 << 16];
        self.0.keys().for_each(|form| begins[pair(form)] = true);
        let places = (1..bytes.len()).map(|end| &bytes[end - 1..]).filter(|rest| begins[pair(rest)]);
        places
            .into_iter()
            .find_map(|rest| self.0.iter().find(|(form, _)| rest.starts_with(form)).map(|(_, name)| name.as_str()))
    }

    #[track_caller]
    fn check(&self, what: &str, bytes: &[u8]) {
        if let Some(name) = self.find(bytes) {
            panic!("{what} holds the secret of `{name}`");
        }
    }

    fn check_done(&self, done: &Done) {
        self.check("standard output", done.stdout.as_bytes());
        self.check("standard error", done.stderr.as_bytes());
    }
}

const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

fn base64(text: &str) -> Vec<u8> {
    let digits = text.bytes().filter_map(|digit| DIGITS.iter().position(|it| *it == digit));
    let bits: Vec<bool> = digits.flat_map(|digit| (0..6).rev().map(move |bit| digit >> bit & 1 == 1)).collect();
    bits.chunks_exact(8).map(|byte| byte.iter().fold(0, |byte, bit| byte << 1 | u8::from(*bit))).collect()
}

fn to_base64(bytes: &[u8]) -> String {
    let bits: Vec<bool> = bytes.iter().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1 == 1)).collect();
    let digit = |six: &[bool]| six.iter().fold(0, |digit, bit| digit << 1 | usize::from(*bit));
    bits.chunks_exact(6).map(|six| char::from(DIGITS[digit(six)])).collect()
}

/// All files below `folder`.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// A process whose every word is kept.
struct Heard {
    addresses: Receiver<SocketAddr>,
    words: JoinHandle<Vec<u8>>,
}

impl Heard {
    fn start(server: &mut Server) -> Self {
        server.set_env(LOUD.0, LOUD.1);
        server.start();
        let (found, addresses) = mpsc::channel();
        let mut stderr = BufReader::new(server.stderr());
        let words = std::thread::spawn(move || {
            let (mut all, mut line) = (Vec::new(), Vec::new());
            while stderr.read_until(b'\n', &mut line).unwrap() > 0 {
                let text = String::from_utf8_lossy(&line);
                let address = text.split("listening http.address=").nth(1).and_then(|it| it.trim().parse().ok());
                // Nobody may be listening any more.
                if let Some(address) = address {
                    let _ = found.send(address);
                }
                all.append(&mut line);
            }
            all
        });
        Self { addresses, words }
    }

    /// What it has said when it has ended, and its numbers before that.
    fn stop(self, server: &mut Server) -> Vec<Vec<u8>> {
        let numbers = self.addresses.try_iter().filter(|address| *address != server.address());
        let mut texts: Vec<_> = numbers.map(|address| raw::get(address, "/metrics").body).collect();
        assert!(texts.iter().any(|page| page.starts_with(b"# ")), "no numbers");
        texts.push(raw::get(server.address(), "/readyz").body);
        assert_eq!(server.stop().code, 0);
        let words = self.words.join().unwrap();
        assert!(String::from_utf8_lossy(&words).contains("DEBUG"), "it says all: {}", String::from_utf8_lossy(&words));
        texts.push(words);
        texts
    }
}

#[test]
fn whoever_looks_for_secrets_finds_them() {
    assert_eq!(base64(&to_base64(b"abcdef")), b"abcdef");
    let mut secrets = Secrets::default();
    secrets.add("a password", b"correct horse battery staple");
    for text in ["x correct horse battery staple", "636f727265637420686f727365206261747465727920737461706c65"] {
        assert_eq!(secrets.find(text.as_bytes()), Some("a password"), "{text}");
    }
    for skip in 0..3 {
        let text = to_base64(&[&vec![b'-'; skip], &b"correct horse battery staple--"[..]].concat());
        assert_eq!(secrets.find(text.as_bytes()), Some("a password"), "{text}");
    }
    assert_eq!(secrets.find(b"correct horse battery"), None);
}

#[test]
fn roles_on_shared_stores_keep_their_secrets() {
    let mut vendor = Vendor::made("secrets");
    let mut secrets = Secrets::below(vendor.system.path());
    secrets.add("S3", SECRET_ACCESS_KEY.as_bytes());
    secrets.add("PostgreSQL", vendor.postgres.password().as_bytes());
    for name in ["vendor", "supervisor", "w1"] {
        vendor.system.set(name, "data = ", "metrics = \"127.0.0.1:0\"\ndata = ");
    }
    let system = &mut vendor.system;
    system.witnesses.iter_mut().skip(1).for_each(Server::start);
    let heard = [&mut system.witnesses[0], &mut system.supervisor, &mut system.vendor].map(Heard::start);
    let first = system.beat(&Place::vendor());
    system.beat(&Place::vendor().after(&first));
    system.beat(&Place::supervisor());
    let config = "vendor/clerestory.toml";
    let run = |arguments: &[&str]| run_with(system.path(), arguments, &[LOUD]);
    let commands: [&[&str]; 5] = [
        &["backup", "make", "--config", config, "--out", "copy"],
        &["backup", "drill", "--config", config, "--from", "copy"],
        &["fsck", "--config", config],
        &["check-config", "--config", config],
        &["audit", "--config", config],
    ];
    for command in commands {
        secrets.check_done(&run(command));
    }
    for path in files(&system.file("copy")) {
        secrets.check(&path.display().to_string(), &std::fs::read(&path).unwrap());
    }
    let [witness, supervisor, of_vendor] = heard;
    let texts = [witness.stop(&mut system.witnesses[0]), supervisor.stop(&mut system.supervisor)];
    for text in texts.into_iter().flatten().chain(of_vendor.stop(&mut system.vendor)) {
        secrets.check("a process", &text);
    }
    // What goes wrong is said without what it was tried with.
    let run = |arguments: &[&str]| run_with(vendor.system.path(), arguments, &[LOUD]);
    for file in ["s3-secret", "postgres-password"] {
        let path = vendor.system.file(file);
        let right = std::fs::read(&path).unwrap();
        durable::write_private(&path, b"a wrong secret, tried in vain\n").unwrap();
        secrets.add("what was tried", b"a wrong secret, tried in vain");
        let done = run(&["fsck", "--config", config]);
        assert!(done.code != 0, "{file}: {done:?}");
        secrets.check_done(&done);
        durable::write_private(&path, &right).unwrap();
    }
    let key = vendor.system.file("vendor/keys/log.key");
    durable::write_private(&key, b"PRIVATE+KEY+a broken key, in which a secret stands\n").unwrap();
    secrets.add("a broken key", b"in which a secret stands");
    let done = run(&["check-config", "--config", config]);
    assert_eq!(done.code, 1, "{done:?}");
    secrets.check_done(&done);
}

#[test]
fn releasing_keeps_its_secrets() {
    let mut previous = Previous::unpacked();
    let secrets = Secrets::below(previous.path());
    let names = ["w1", "w2", "w3", "w4", "supervisor", "vendor"];
    let mut heard = Vec::new();
    for name in names {
        let path = previous.path().join(name).join("clerestory.toml");
        let text = std::fs::read_to_string(&path).unwrap();
        let loud = text.replacen("\ndata = ", "\nmetrics = \"127.0.0.1:0\"\ndata = ", 1);
        assert_ne!(text, loud);
        durable::write(&path, loud.as_bytes()).unwrap();
        heard.push(Heard::start(previous.server(name)));
    }
    let supervisor = ["--config", "supervisor/clerestory.toml"];
    let vendor = ["--config", "vendor/clerestory.toml"];
    let result = "vendor/builds/sample/2.0.1/result.bundle";
    let approve = ["--key", "vendor/keys/approver.key", "--result", result, "--comment", "again", "--out", "new"];
    let commands = [
        [&["status", "lift", "--product", "sample", "--reason", "a test"][..], &supervisor].concat(),
        [&["release", "approve"][..], &vendor, &approve].concat(),
        [&["release", "freshen"][..], &vendor].concat(),
        [&["backup", "make", "--out", "copy"][..], &supervisor].concat(),
        [&["backup", "drill", "--from", "copy"][..], &supervisor].concat(),
    ];
    for command in &commands {
        secrets.check_done(&previous.run_with(command, &[LOUD]).ok());
    }
    secrets.check_done(&previous.agent_with(&["update"], &[LOUD]).ok());
    for path in files(&previous.path().join("copy")) {
        secrets.check(&path.display().to_string(), &std::fs::read(&path).unwrap());
    }
    for (name, heard) in names.into_iter().zip(heard) {
        for text in heard.stop(previous.server(name)) {
            secrets.check(name, &text);
        }
    }
}
