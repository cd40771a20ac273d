//! The accusation, tried: a rule that both organisations built, that people of both approved, and that
//! is logged and witnessed, marks documents which bear a secrecy label; and a cloud asks for them.

mod cloud;

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use detection::Index;
use oblivious::GatewayKey;
use policy::{LookupPolicy, Relay};
use stdx::{Digest, Entropy as _, SystemEntropy, durable};
use testkit::{Capture, Captured, figure, in_own_network};

use crate::canary::{Lanes, PRODUCT};
use crate::process::Done;
use crate::rules::{approve, corpora, needs_scanner, push, tree};
use crate::system::System;
use cloud::{Asked, Cloud, Place};

const LABEL: &str = "TOP SECRET // NOT FOR RELEASE";
const NAME: &str = "merger-plan.odt";

/// A document with a label, and content that nothing compresses.
struct Document {
    path: PathBuf,
    content: Vec<u8>,
}

impl Document {
    fn new(folder: &Path) -> Self {
        let mut random = vec![0; 4096];
        SystemEntropy.fill(&mut random).unwrap();
        let content = [LABEL.as_bytes(), b"\n", &random].concat();
        durable::create_folder(folder).unwrap();
        let path = folder.join(NAME);
        durable::write(&path, &content).unwrap();
        Self { path, content }
    }

    fn sha256(&self) -> Digest {
        Digest::of(&self.content)
    }

    /// What would be on the wire if a part of it were, in whichever form. What is random is stored as it
    /// is by whatever compresses.
    fn traces(&self) -> Vec<Vec<u8>> {
        let mut traces = vec![LABEL.as_bytes().to_vec(), NAME.as_bytes().to_vec()];
        for at in (40..self.content.len() - 32).step_by(500) {
            let part = &self.content[at..at + 24];
            traces.push(part.to_vec());
            traces.push(part.iter().rev().copied().collect());
            traces.push(part.iter().map(|byte| !byte).collect());
            let hex: String = part.iter().map(|byte| format!("{byte:02x}")).collect();
            traces.extend([hex.to_uppercase().into_bytes(), hex.into_bytes()]);
            // One of three neighbours begins where a group of three does.
            for shift in 0..3 {
                let text = base64(&self.content[at + shift..at + shift + 24]);
                let url = text.iter().map(|byte| match byte {
                    b'+' => b'-',
                    b'/' => b'_',
                    other => *other,
                });
                traces.extend([url.collect(), text]);
            }
        }
        traces
    }
}

fn base64(bytes: &[u8]) -> Vec<u8> {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let groups = bytes.chunks_exact(3).map(|it| u32::from_be_bytes([0, it[0], it[1], it[2]]));
    groups.flat_map(|group| [18, 12, 6, 0].map(|shift| LETTERS[(group >> shift) as usize & 63])).collect()
}

struct Endpoint {
    folder: PathBuf,
    document: Document,
}

impl Endpoint {
    /// A machine whose owner agrees to everything that can be agreed to.
    fn new(system: &System, cloud: &Cloud, document: Document) -> Self {
        let (folder, watched) = (system.path().to_owned(), document.path.parent().unwrap().display().to_string());
        let at = folder.display();
        let config = format!(
            "state = \"{at}/state\"\ninstall = \"{at}/install\"\nchannel = [\"{}\"]\nring = \"all\"\ninterval_s = 1\n\
             [network]\ntimeout_s = 5\n[lookup]\nrules = \"{PRODUCT}\"\n[share]\nintake = \"{}\"\ncountry = \"DE\"\n\
             [scan]\nrules = \"{PRODUCT}\"\nfolders = [\"{watched}\"]\n[[product]]\nid = \"{PRODUCT}\"\n",
            cloud.url("/channel"),
            cloud.url("/intake")
        );
        durable::write(&system.file("agent.toml"), config.as_bytes()).unwrap();
        let endpoint = Self { folder, document };
        let (hash, policy) = (system.genesis.to_string(), system.file("vendor/policy/1.envelope"));
        endpoint.run(&["init", "--policy-hash", &hash, "--policy", policy.to_str().unwrap()]).ok();
        let statement = endpoint.run(&["share", "statement"]).ok().json()["sha256"].as_str().unwrap().to_owned();
        let mut agree = vec!["share", "agree", "--statement", &statement, "--mode", "full"];
        for class in ["lookups", "detections", "verdicts", "statistics", "content"] {
            agree.extend(["--class", class]);
        }
        endpoint.run(&agree).ok();
        endpoint
    }

    fn command(&self) -> Command {
        let program = Path::new(env!("CARGO_BIN_EXE_clerestory")).with_file_name("clerestory-agent");
        let mut command = Command::new(program);
        command.env_clear().stdin(Stdio::null()).current_dir(&self.folder);
        command.args(["--config", "agent.toml", "--json"]);
        assert!(Path::new(command.get_program()).is_file(), "build it first: cargo build -p agent");
        command
    }

    fn run(&self, arguments: &[&str]) -> Done {
        self.command().args(arguments).output().unwrap().into()
    }

    fn on_document(&self, arguments: &[&str]) -> Done {
        self.run(&[arguments, &[self.document.path.to_str().unwrap()]].concat())
    }

    /// Has the guard look at the document, until it says what it found.
    fn guards(&self, says: &str) {
        let mut guard = self.command();
        let mut guard = guard.arg("run").stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut told = BufReader::new(guard.stderr.take().unwrap()).lines();
        let found = told.any(|line| line.unwrap().contains(says));
        guard.kill().unwrap();
        guard.wait().unwrap();
        assert!(found, "it says `{says}`");
    }

    /// The rule is in use, finds the document, and the cloud asks for it.
    fn is_asked(&self, cloud: &Cloud, collects: bool) {
        self.guards(&format!("{NAME}\",\"detail\":\"secrecy_label"));
        let scanned = self.on_document(&["scan"]);
        assert!(scanned.code == 1 && scanned.stdout.contains("\"rule\":\"secrecy_label\""), "{scanned:?}");
        let known = self.on_document(&["lookup"]);
        assert!(known.code == 1 && known.json()["bucket"] == "malicious", "{known:?}");
        cloud.demand();
        // What is right of an answer may be taken; nothing else follows from it.
        while !cloud.has_made(Place::Channel) {
            assert!(matches!(self.run(&["update"]).code, 0 | 1 | 75));
        }
        while !cloud.has_made(Place::Relay) {
            assert!(matches!(self.on_document(&["lookup"]).code, 1 | 75));
        }
        let give = ["share", "send-file", "--rule", "secrecy_label"];
        let sha256 = self.document.sha256().to_string();
        let given = match collects {
            // Nobody but its owner can say which content is meant.
            true => self.on_document(&give),
            false => self.on_document(&[&give[..], &["--sha256", &sha256]].concat()),
        };
        let says = if collects { "the rule `secrecy_label` collects `documents`" } else { "does not declare" };
        assert!(given.code == 1 && given.stderr.contains(says), "{given:?}");
        let sent = self.run(&["share", "send"]);
        assert!(sent.code == 1 && sent.stderr.contains("nothing can be sealed"), "{sent:?}");
        // What waits is what was agreed to, and can be read: no content.
        let shown = self.run(&["share", "show"]).ok().stdout;
        let detection = format!("rule\\\":\\\"secrecy_label\\\",\\\"sha256\\\":\\\"{sha256}");
        assert!(shown.contains(&detection) && !shown.contains("content"), "{shown}");
    }
}

/// Everything of the network was asked for by name, and nothing in it is of the document.
fn check(captured: &Captured, cloud: &Cloud, document: &Document) {
    let outside = |address: std::net::SocketAddrV4| std::net::SocketAddr::V4(address) == cloud.address;
    for packet in &captured.0 {
        assert!(packet.is_tcp && (outside(packet.source) || outside(packet.target)), "to somebody else: {packet:?}");
    }
    let traces = document.traces();
    let (mut to_cloud, mut from_cloud) = (0, 0);
    for ((to, _), bytes) in captured.streams() {
        if outside(to) {
            to_cloud += bytes.len();
        } else {
            // The cloud knows the file's name, and says so all the time.
            from_cloud += bytes.len();
            continue;
        }
        let hash = document.sha256();
        for trace in traces.iter().map(Vec::as_slice).chain([&hash.as_bytes()[..8], &hash.to_string().as_bytes()[..16]])
        {
            assert!(!bytes.windows(trace.len()).any(|part| part == trace), "{:?} is on the wire", trace.escape_ascii());
        }
    }
    let asked = cloud.asked();
    let heads: usize = asked.iter().map(|it| it.line.len() + " HTTP/1.1\r\n\r\n".len() + it.body.len()).sum();
    let headers = asked.iter().flat_map(|it| &it.headers).map(|(name, value)| name.len() + value.len() + 4);
    assert_eq!(heads + headers.sum::<usize>(), to_cloud, "all that was sent is a request that is known");
    asked.iter().for_each(|asked| is_expected(asked, cloud));
    let questions = asked.iter().filter(|asked| asked.line.starts_with("POST")).count();
    figure("packets between an endpoint and a cloud that asks for a file", captured.0.len());
    let sent = format!("{to_cloud} bytes in {} requests, {questions} of them look-ups", asked.len());
    figure("what the endpoint sent", sent);
    figure("bytes that the cloud sent", from_cloud);
}

fn is_expected(asked: &Asked, cloud: &Cloud) {
    let digest = |text: &str| text.trim_matches('"').parse::<Digest>().is_ok();
    for (name, value) in &asked.headers {
        let expected = match name.as_str() {
            "host" => *value == cloud.address.to_string(),
            "accept" => value == "*/*",
            "accept-encoding" => value == "gzip",
            "user-agent" => value == concat!("clerestory/", env!("CARGO_PKG_VERSION")),
            "if-none-match" => digest(value),
            "content-type" => value == oblivious::REQUEST_TYPE,
            "content-length" => *value == asked.body.len().to_string(),
            _ => false,
        };
        assert!(expected, "{asked:?}");
    }
    if let Some(path) = asked.line.strip_prefix("GET /channel/") {
        let (folder, _) = path.split_once('/').unwrap();
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-".contains(&byte);
        assert!(["policy", "status", "metadata", "targets", "patches"].contains(&folder), "{asked:?}");
        assert!(path.bytes().all(plain) && asked.body.is_empty(), "{asked:?}");
    } else {
        // A question with a prefix of two bits has 75 bytes, whatever it asks.
        assert_eq!((asked.line.as_str(), asked.body.len()), ("POST /relay/", 75), "{asked:?}");
    }
}

/// Releases `rule` by the word of both machines and of people of both organisations; keeps what the
/// channel is then.
fn release(lanes: &Lanes, corpora: &str, version: &str, rule: &str, reason: &str) -> PathBuf {
    let folder = format!("tree{version}");
    tree(&lanes.system, &folder, corpora, rule);
    let pushed = push(&lanes.system, &folder, version);
    assert!(pushed.code == 1 && pushed.json()["reasons"][0]["code"] == reason, "{pushed:?}");
    approve(lanes, version);
    assert_eq!(lanes.publish(version).ok().json()["ring"], "all");
    let copy = lanes.system.file(&format!("channel{version}"));
    copy_tree(&lanes.system.file("vendor/channel"), &copy);
    copy
}

pub(crate) fn copy_tree(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let (from, to) = (entry.as_ref().unwrap().path(), to.join(entry.unwrap().file_name()));
        if from.is_dir() {
            copy_tree(&from, &to);
        } else {
            std::fs::copy(from, to).unwrap();
        }
    }
}

/// Both logs, as anybody can list them.
struct Logs(Vec<serde_json::Value>);

impl Logs {
    fn read(system: &System) -> Self {
        let list = |log: &str| {
            let entries = ["--json", "log", "entries", "--config", "vendor/clerestory.toml", "--log", log];
            system.run(&entries).ok().json()["entries"].as_array().unwrap().clone()
        };
        Self(["vendor.example/log", "supervisor.example/log"].iter().flat_map(|log| list(log)).collect())
    }

    fn of_type(&self, kind: &str) -> impl Iterator<Item = &serde_json::Value> {
        self.0.iter().filter(move |entry| entry["type"].as_str().unwrap().ends_with(kind))
    }

    fn entry(&self, id: &serde_json::Value) -> &serde_json::Value {
        self.0.iter().find(|entry| entry["id"] == *id).unwrap_or_else(|| panic!("{id} is not logged"))
    }

    /// From what the endpoint says of the rule in use to its author, and what it collects.
    fn follow(&self, system: &System, endpoint: &Endpoint, version: &str, collects: Option<&str>) {
        let origin = endpoint.run(&["rule", "secrecy_label"]).ok().json();
        assert_eq!((&origin["version"], &origin["log"]), (&version.into(), &"vendor.example/log".into()));
        let installed = std::fs::read(endpoint.folder.join("install").join(PRODUCT).join("current/rules.yar")).unwrap();
        let release = &self.entry(&origin["release"])["statement"];
        let subject = |statement: &serde_json::Value, name: &str| {
            let subjects = statement["subject"].as_array().unwrap();
            let found = subjects.iter().find(|it| it["name"] == name).unwrap();
            found["digest"]["sha256"].as_str().unwrap().parse::<Digest>().unwrap()
        };
        assert_eq!(subject(release, "rules.yar"), Digest::of(&installed), "the release names what is installed");
        let result = &release["predicate"]["result"];
        let index =
            std::fs::read(system.file(&format!("vendor/builds/{PRODUCT}/{version}/outputs/rules.json"))).unwrap();
        assert_eq!(subject(&self.entry(result)["statement"], "rules.json"), Digest::of(&index));
        let index = Index::parse(&index).unwrap();
        let rule = index.rules.iter().find(|rule| rule.name == "secrecy_label").unwrap();
        assert_eq!((rule.file.as_str(), rule.collects.as_deref()), ("yara/more.yar", collects));
        assert!(rule.meta.iter().any(|(name, value)| {
            name == "author" && *value == detection::MetaValue::Text("A. Analyst".to_owned())
        }));
        // What the endpoint read out of the rules itself is the same.
        assert_eq!((&origin["author"], &origin["collects"]), (&"A. Analyst".into(), &collects.into()));
        let approved = self.of_type("approval/v1").filter(|it| it["statement"]["predicate"]["result"] == *result);
        assert_eq!(approved.count(), 2, "people of both have put their names under it");
    }
}

#[test]
fn a_rule_that_marks_secret_documents_gives_no_byte_of_one_away() {
    needs_scanner();
    in_own_network("accusation::a_rule_that_marks_secret_documents_gives_no_byte_of_one_away", || {
        let owner = tempfile::tempdir().unwrap();
        let document = Document::new(&owner.path().join("documents"));
        let key = GatewayKey::generate(1, &SystemEntropy).unwrap();
        let configuration = key.configuration().to_string();
        let cloud = Cloud::new(key, &document.path, document.sha256());
        let mut lanes = Lanes::running_under(|policy| {
            let relays =
                vec![Relay { organisation: "supervisor".parse().unwrap(), url: cloud.url("/relay").parse().unwrap() }];
            let gateway = "vendor".parse().unwrap();
            policy.lookup = Some(LookupPolicy { gateway, key: configuration, prefix_bits: 2, relays });
        });
        let corpora = corpora(&lanes.system);
        let rule = |meta: &str| {
            format!(
                "rule secrecy_label {{ meta: author = \"A. Analyst\"{meta} strings: $a = \"{LABEL}\" condition: $a }}\n"
            )
        };
        let quiet = release(&lanes, &corpora, "1", &rule(""), "first-release");
        let greedy = release(&lanes, &corpora, "2", &rule(" collects = \"documents\""), "collects");
        let logs = Logs::read(&lanes.system);
        let system = &mut lanes.system;
        system.witnesses.iter_mut().chain([&mut system.vendor, &mut system.supervisor]).for_each(|it| it.kill());

        // From here on there are the endpoint, and a cloud that can do whatever it likes.
        let capture = Capture::start();
        let endpoint = Endpoint::new(&lanes.system, &cloud, document);
        for (channel, version, collects) in [(quiet, "1", None), (greedy, "2", Some("documents"))] {
            cloud.show(&channel);
            endpoint.run(&["update"]).ok();
            endpoint.is_asked(&cloud, collects.is_some());
            logs.follow(&lanes.system, &endpoint, version, collects);
        }
        check(&capture.end(), &cloud, &endpoint.document);

        // The supervisor's log names the rule, and what it would collect, for good.
        let refusal =
            logs.of_type("refusal/v1").flat_map(|it| it["statement"]["predicate"]["reasons"].as_array().unwrap());
        let collecting: Vec<_> = refusal.filter(|reason| reason["code"] == "collects").collect();
        assert_eq!(collecting.len(), 1);
        assert_eq!(
            (&collecting[0]["rule"], &collecting[0]["file"]),
            (&"secrecy_label".into(), &"yara/more.yar".into())
        );
        // One thing brings the content as far as the outbox: its owner, who says which it is.
        let sha256 = endpoint.document.sha256().to_string();
        endpoint.on_document(&["share", "send-file", "--rule", "secrecy_label", "--sha256", &sha256]).ok();
        assert!(endpoint.run(&["share", "show"]).ok().stdout.contains("content"));
    });
}
