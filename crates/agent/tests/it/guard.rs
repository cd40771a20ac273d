//! The long-lived agent: what changes is scanned, with the rules that are in use at that time.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ChildStdout, Command, Stdio};

use stdx::{Clock as _, Digest, SystemClock, durable};
use testkit::RULES_PRODUCT;

use crate::rules::Rules;

/// Writes in place, as most programs do.
fn put(path: &Path, text: &str) {
    File::create(path).unwrap().write_all(text.as_bytes()).unwrap();
}

/// A rule that looks for this text.
fn rule(name: &str, text: &str) -> Vec<u8> {
    format!("rule {name} {{ strings: $a = \"{text}\" condition: $a }}\n").into_bytes()
}

/// Rules whose time is the machine's, and the folder `watched` beside them.
fn present_day() -> Rules {
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

fn agent(rules: &Rules) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_clerestory-agent"));
    command.arg("--config").arg(rules.scene.folder.path().join("agent.toml"));
    command
}

/// `clerestory-agent run`.
struct Running {
    child: Child,
    says: BufReader<ChildStdout>,
    tells: BufReader<ChildStderr>,
    watched: PathBuf,
}

impl Running {
    fn start(rules: &Rules) -> Self {
        let mut command = agent(rules);
        let mut child = command.arg("run").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (says, tells) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        let watched = rules.scene.folder.path().join("watched");
        Self { child, says: BufReader::new(says), tells: BufReader::new(tells), watched }
    }

    /// The next line on standard output with this in it.
    fn says(&mut self, what: &str) -> String {
        next(|line| self.says.read_line(line), what)
    }

    /// The next line on standard error with this in it.
    fn tells(&mut self, what: &str) -> String {
        next(|line| self.tells.read_line(line), what)
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

fn next(mut read: impl FnMut(&mut String) -> std::io::Result<usize>, what: &str) -> String {
    let mut line = String::new();
    while !line.contains(what) {
        line.clear();
        assert_ne!(read(&mut line).unwrap(), 0, "it ended before `{what}`");
    }
    line
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
