//! The long-lived agent: what changes is scanned, with the rules that are in use at that time.

use std::ffi::OsString;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use agent::{Body, ShareEvent};
use notify::{RecursiveMode, Watcher as _};
use reputation::ReputationSet;
use stdx::{Clock as _, Digest, SystemClock, durable};
use testkit::RULES_PRODUCT;

use crate::rules::Rules;

/// Writes in place, as most programs do.
pub(crate) fn put(path: &Path, text: &str) {
    File::create(path).unwrap().write_all(text.as_bytes()).unwrap();
}

/// A rule that looks for this text.
pub(crate) fn rule(name: &str, text: &str) -> Vec<u8> {
    format!("rule {name} {{ strings: $a = \"{text}\" condition: $a }}\n").into_bytes()
}

/// Rules whose time is the machine's, and the folder `watched` beside them.
pub(crate) fn present_day() -> Rules {
    let mut rules = Rules::new();
    let scene = &mut rules.scene;
    scene.pass(SystemClock::new().now().since(scene.world.clock.now()));
    let folder = scene.folder.path().display();
    let text = format!(
        "state = \"{folder}/state\"\ninstall = \"{folder}/install\"\nchannel = [\"{}\"]\nring = \"canary\"\n\
         interval_s = 1\n[scan]\nrules = \"{RULES_PRODUCT}\"\nfolders = [\"{folder}/watched\"]\n\
         [[product]]\nid = \"{RULES_PRODUCT}\"\n",
        scene.server.url()
    );
    durable::write(&scene.folder.path().join("agent.toml"), text.as_bytes()).unwrap();
    std::fs::create_dir(scene.folder.path().join("watched")).unwrap();
    rules
}

pub(crate) fn agent(rules: &Rules) -> Command {
    agent_behind(rules, &[])
}

/// The same, with this before the program on the command line.
pub(crate) fn agent_behind(rules: &Rules, prefix: &[OsString]) -> Command {
    let program = OsString::from(env!("CARGO_BIN_EXE_clerestory-agent"));
    let line: Vec<_> = prefix.iter().cloned().chain([program]).collect();
    let mut command = Command::new(&line[0]);
    command.args(&line[1..]).arg("--config").arg(rules.scene.folder.path().join("agent.toml"));
    command
}

/// `clerestory-agent run`.
pub(crate) struct Running {
    child: Child,
    says: Receiver<String>,
    tells: Receiver<String>,
    watched: PathBuf,
}

impl Running {
    fn start(rules: &Rules) -> Self {
        Self::start_as(rules, agent(rules))
    }

    pub(crate) fn start_as(rules: &Rules, mut command: Command) -> Self {
        let mut child = command.arg("run").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (says, tells) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        let watched = rules.scene.folder.path().join("watched");
        Self { child, says: lines(says), tells: lines(tells), watched }
    }

    /// The next line on standard output with this in it.
    pub(crate) fn says(&mut self, what: &str) -> String {
        next(&self.says, what)
    }

    /// The next line on standard error with this in it.
    pub(crate) fn tells(&mut self, what: &str) -> String {
        next(&self.tells, what)
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.watched.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        put(&path, text);
    }

    /// The scanner that it keeps.
    fn scanner(&self) -> u32 {
        let id = self.child.id();
        let children = std::fs::read_dir(format!("/proc/{id}/task")).unwrap();
        let of = |task: std::fs::DirEntry| std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
        let all: String = children.flatten().map(of).collect();
        let mut scanners = all.split_whitespace();
        let one = scanners.next().unwrap().parse().unwrap();
        assert_eq!(scanners.next(), None, "one engine");
        one
    }
}

/// The lines of a program's output, as they come.
fn lines(output: impl Read + Send + 'static) -> Receiver<String> {
    let (line, lines) = mpsc::channel();
    std::thread::spawn(move || {
        BufReader::new(output).lines().map_while(Result::ok).try_for_each(|text| line.send(text))
    });
    lines
}

fn next(lines: &Receiver<String>, what: &str) -> String {
    let mut before = Vec::new();
    loop {
        match lines.recv_timeout(Duration::from_secs(120)) {
            Ok(line) if line.contains(what) => return line,
            Ok(line) => before.push(line),
            Err(error) => panic!("no `{what}` ({error}) after {before:#?}"),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

#[test]
fn what_changes_is_scanned_with_the_rules_in_use() {
    let mut rules = present_day();
    let watched = rules.scene.folder.path().join("watched");
    put(&watched.join("old"), "first second third");
    rules.release(&rule("one", "first"));
    let mut running = Running::start(&rules);
    running.says("signatures 1 (#1) installed");
    // What was there before, and what comes, also in new folders.
    running.tells("watched/old\",\"detail\":\"one\"");
    running.write("new", "first");
    running.tells("watched/new\",\"detail\":\"one\"");
    running.write("deep/in/here", "the first");
    running.tells("watched/deep/in/here\",\"detail\":\"one\"");
    assert!(running.scanner() > 0);

    // New rules take over while it runs.
    rules.release(&rule("two", "second"));
    running.says("signatures 2 (#2) installed");
    running.write("later", "first second");
    running.tells("watched/later\",\"detail\":\"two\"");

    // Nothing may run: what changes waits for rules that may.
    rules.scene.world.revoked.extend([rule("one", "first"), rule("two", "second")].map(|it| Digest::of(&it)));
    rules.scene.pass(std::time::Duration::from_secs(1));
    running.says("signatures DISABLED");
    running.write("waiting", "first second third");
    rules.release(&rule("three", "third"));
    running.says("signatures 3 (#3) installed");
    running.tells("watched/waiting\",\"detail\":\"three\"");
    let journal = rules.scene.journal();
    assert!(journal.contains("\"event\":\"found\"") && journal.contains("watched/later"), "{journal}");
}

/// An archive with one member.
fn archive(name: &str, content: &str) -> String {
    let (name, length) = (format!("{name}/"), content.len());
    format!("!<arch>\n{name:<16}{:<12}{:<6}{:<6}{:<8}{length:<10}`\n{content}", 0, 0, 0, 100_644)
}

#[test]
fn what_the_set_knows_is_said_also_inside_of_containers() {
    let mut rules = present_day();
    let config = rules.scene.folder.path().join("agent.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    let text = text.replace("[scan]", &format!("[lookup]\nrules = \"{RULES_PRODUCT}\"\n[scan]"));
    durable::write(&config, text.as_bytes()).unwrap();
    let set = |content: &str| ReputationSet::build(vec![Digest::of(content.as_bytes())]).unwrap().to_bytes();
    let watched = rules.scene.folder.path().join("watched");
    let (bad, worse) = (Digest::of(b"a bad file"), Digest::of(b"a worse file"));
    put(&watched.join("old"), "a bad file");
    rules.release_with_set(&rule("one", "first"), &set("a bad file"));
    let mut running = Running::start(&rules);
    running.says("signatures 1 (#1) installed");
    running.tells(&format!("\"event\":\"listed\",\"object\":\"{}\"", watched.join("old").display()));
    running.write("in.a", &archive("offer.exe", "a bad file"));
    assert!(running.tells("watched/in.a").contains(&format!("{bad} in offer.exe")));

    // Another set takes over with the same rules, which are not compiled again.
    let scanner = running.scanner();
    rules.release_with_set(&rule("one", "first"), &set("a worse file"));
    running.says("signatures 2 (#2) installed");
    running.write("later", "a worse file");
    assert!(running.tells("watched/later").contains(&worse.to_string()));
    running.write("then", "a bad file, and the first");
    running.write("last", "a bad file");
    running.write("end", "first");
    running.tells("watched/end\",\"detail\":\"one\"");
    let journal = rules.scene.journal();
    assert!(!journal.contains("watched/last"), "what the set does not know any more: {journal}");

    // The scanner is another one after its end, and knows the same.
    let process = rustix::process::Pid::from_raw(running.scanner().try_into().unwrap()).unwrap();
    rustix::process::kill_process(process, rustix::process::Signal::KILL).unwrap();
    running.write("again", "a worse file");
    assert!(running.tells("\"listed\"").contains("watched/again"));
    drop((running, scanner));

    let scan = |name: &str| agent(&rules).args(["--json", "scan"]).arg(watched.join(name)).output().unwrap();
    let output = scan("later");
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains(&format!("\"listed\":[{{\"inside\":[],\"sha256\":\"{worse}\"}}]")), "{said}");
    assert_eq!(scan("old").status.code(), Some(0));
}

#[test]
fn a_damaged_set_does_not_end_the_scanning() {
    let mut rules = present_day();
    let folder = rules.scene.folder.path().to_owned();
    let config = folder.join("agent.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    let text = text.replace("[scan]", &format!("[lookup]\nrules = \"{RULES_PRODUCT}\"\n[scan]"));
    durable::write(&config, text.as_bytes()).unwrap();
    let set = ReputationSet::build(vec![Digest::of(b"a bad file")]).unwrap().to_bytes();
    rules.release_with_set(&rule("one", "first"), &set);
    assert!(agent(&rules).arg("update").status().unwrap().success());
    // Nobody is there who could mend it.
    let text = text.replace(rules.scene.server.url(), "http://127.0.0.1:1");
    durable::write(&config, text.as_bytes()).unwrap();
    durable::write(&folder.join("install").join(RULES_PRODUCT).join("current/hashes.fuse"), b"garbage").unwrap();
    put(&folder.join("watched/old"), "first");
    let mut running = Running::start(&rules);
    running.tells("watched/old\",\"detail\":\"one\"");
    running.tells("lookup-set");
}

/// What waits to be shared.
fn waiting(rules: &Rules) -> Vec<Body> {
    waiting_by(agent(rules))
}

pub(crate) fn waiting_by(mut agent: Command) -> Vec<Body> {
    let output = agent.args(["--json", "share", "show"]).output().unwrap();
    let shown: Vec<Shown> =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    shown.iter().map(|it| serde_json::from_str::<ShareEvent>(&it.plain).unwrap().body).collect()
}

#[derive(serde::Deserialize)]
struct Shown {
    plain: String,
}

pub(crate) fn detection(rule: &str, content: &str) -> Body {
    Body::Detection { rule: rule.to_owned(), sha256: Digest::of(content.as_bytes()), size: content.len() as u64 }
}

/// Waits until so many events lie there.
pub(crate) fn wait_for(events: usize, outbox: &Path) {
    let (tell, heard) = std::sync::mpsc::channel();
    let told = move |_: notify::Result<notify::Event>| {
        // Whoever listened has seen enough.
        let _ = tell.send(());
    };
    let mut watcher = notify::recommended_watcher(told).unwrap();
    watcher.watch(outbox, RecursiveMode::NonRecursive).unwrap();
    let whole = |entry: &std::fs::DirEntry| !durable::is_temporary(&entry.path());
    while std::fs::read_dir(outbox).unwrap().flatten().filter(whole).count() < events {
        heard.recv_timeout(Duration::from_secs(60)).unwrap();
    }
}

pub(crate) fn agree(rules: &Rules, classes: &[&str]) {
    let statement = agent::statement_digest().to_string();
    let mut command = agent(rules);
    command.args(["share", "agree", "--statement", &statement, "--mode", "full"]);
    for class in classes {
        command.args(["--class", class]);
    }
    assert!(command.status().unwrap().success());
}

#[test]
fn what_is_found_waits_to_be_shared_where_the_owner_agreed() {
    let mut rules = present_day();
    let file = rules.scene.folder.path().join("watched/by-hand");
    put(&file, "a text");
    rules.release(
        b"rule one { strings: $a = \"text\" condition: $a } rule two { strings: $a = \"text\" condition: $a }",
    );
    assert!(agent(&rules).arg("update").status().unwrap().success());
    let scan = |rules: &Rules| agent(rules).args(["scan", file.to_str().unwrap()]).output().unwrap();
    let before = scan(&rules);
    assert_eq!(before.status.code(), Some(1));
    let mut running = Running::start(&rules);
    running.tells("watched/by-hand");
    drop(running);
    assert!(!rules.scene.config.state.join("share").exists(), "nothing is kept without an agreement");

    // Agreed to something else.
    agree(&rules, &["statistics"]);
    assert_eq!((scan(&rules).stdout, waiting(&rules)), (before.stdout.clone(), Vec::new()));

    agree(&rules, &["detections"]);
    let by_hand = scan(&rules);
    assert_eq!((by_hand.status.code(), by_hand.stdout), (Some(1), before.stdout), "it says and ends as ever");
    let once = vec![detection("one", "a text"), detection("two", "a text")];
    assert_eq!(waiting(&rules), once);

    // What the guard finds is there while it runs, and goes on being found after a restart.
    let outbox = rules.scene.config.state.join("share/outbox");
    let mut running = Running::start(&rules);
    running.tells("watched/by-hand");
    wait_for(4, &outbox);
    running.write("new", "another text");
    running.tells("watched/new");
    wait_for(6, &outbox);
    drop(running);
    let new = [detection("one", "another text"), detection("two", "another text")];
    assert_eq!(waiting(&rules), [once.clone(), once, new.to_vec()].concat());
}

#[test]
fn content_is_given_for_a_rule_that_finds_it_and_collects() {
    let mut rules = present_day();
    let file = rules.scene.folder.path().join("watched/document");
    put(&file, "a letter, SECRET");
    rules.release(
        b"rule label { meta: author = \"A. Nobody\" strings: $a = \"SECRET\" condition: $a } \
          rule greedy { meta: collects = \"documents\" strings: $a = \"SECRET\" condition: $a } \
          rule other { meta: collects = \"documents\" strings: $a = \"PUBLIC\" condition: $a }",
    );
    assert!(agent(&rules).arg("update").status().unwrap().success());
    agree(&rules, &["content"]);
    let sha256 = Digest::of(b"a letter, SECRET").to_string();
    let give = |rule: &str| {
        let arguments = ["share", "send-file", file.to_str().unwrap(), "--rule", rule, "--sha256", &sha256];
        let output = agent(&rules).args(arguments).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    for (rule, says) in [
        ("label", "the rule `label` does not declare that it collects"),
        ("nowhere", "the rule `nowhere` does not declare that it collects"),
        ("other", "the rule `other` does not find this file"),
    ] {
        let (code, said) = give(rule);
        assert!(code == Some(1) && said.contains(says), "{said}");
    }
    assert!(waiting(&rules).is_empty());
    assert_eq!(give("greedy").0, Some(0));
    assert!(matches!(&waiting(&rules)[..], [Body::Content { rule, .. }] if rule == "greedy"));
}

#[test]
fn a_rule_is_followed_to_the_release_that_brought_it() {
    let mut rules = present_day();
    let content = b"rule label { meta: author = \"A. Nobody\" collects = \"documents\" condition: filesize == 7000 }";
    let released = rules.release(content);
    assert!(agent(&rules).arg("update").status().unwrap().success());
    let origin = |rule: &str| agent(&rules).args(["--json", "rule", rule]).output().unwrap();
    let says: serde_json::Value = serde_json::from_slice(&origin("label").stdout).unwrap();
    for (member, value) in [
        ("author", "A. Nobody"),
        ("collects", "documents"),
        ("product", RULES_PRODUCT),
        ("log", testkit::VENDOR_LOG),
        ("release", &released.release.id().to_string()),
        ("rules", &Digest::of(content).to_string()),
    ] {
        assert_eq!(says[member], value, "{says}");
    }
    let none = String::from_utf8(origin("other").stderr).unwrap();
    assert!(none.starts_with("error: the rules in use have no rule `other`"), "{none}");
}

#[test]
fn an_engine_that_keeps_ending_goes_back() {
    let mut rules = present_day();
    rules.release(&rule("one", "text"));
    let mut running = Running::start(&rules);
    running.says("signatures 1 (#1) installed");
    rules.release(&rule("two", "text"));
    running.says("signatures 2 (#2) installed");
    running.write("first", "text");
    running.tells("watched/first\",\"detail\":\"two\"");
    for time in 0..3 {
        let scanner = rustix::process::Pid::from_raw(running.scanner().try_into().unwrap()).unwrap();
        rustix::process::kill_process(scanner, rustix::process::Signal::KILL).unwrap();
        running.write(&format!("then{time}"), "text");
        running.tells("the scanner ended 1 time(s)");
    }
    running.says("signatures put back to #1");
    running.write("last", "text");
    running.tells("watched/last\",\"detail\":\"one\"");
    // It is not taken again; the next one is.
    rules.release(&rule("three", "text"));
    running.says("signatures 3 (#3) installed");
}

#[test]
fn files_are_scanned_with_the_rules_in_use() {
    let mut rules = present_day();
    let file = rules.scene.folder.path().join("watched/-file");
    put(&file, "a text");
    let scan = |rules: &Rules, more: &[&str]| agent(rules).args(more).arg("scan").arg(&file).output().unwrap();
    let output = scan(&rules, &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stderr).unwrap().starts_with("error: no rules are in use"));

    rules.release(&rule("one", "a text"));
    assert!(agent(&rules).arg("update").status().unwrap().success());
    let output = scan(&rules, &["--json"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stdout).unwrap().contains("\"rule\":\"one\""));

    let altered = rules.scene.folder.path().join("install").join(RULES_PRODUCT).join("a/rules.yar");
    put(&altered, "rule none { condition: false }");
    let output = scan(&rules, &[]);
    assert!(String::from_utf8(output.stderr).unwrap().contains("SHA-256 is"), "altered rules find nothing");
}
