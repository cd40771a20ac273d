//! A real process that agrees, records, sends or withdraws, at whose every file-system call the disk
//! fails, or which dies there: no event is lost, none is doubled, and nothing leaves without agreement.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use agent::{
    Body, Bounds, Class, Consent, Findings, Mode, Outcome, RealDisk, Seal, SealRefused, Sending, Share, SharePorts,
    Shown, Statistic, Tally, statement_digest,
};
use api::Client;
use attest::{Envelope, Receipt, Statement};
use stdx::{Clock, Digest, ManualClock, SystemClock, SystemEntropy};
use testkit::{Breadth, Call, Fault, Strace, figure};

use crate::scene::{Scene, copy_tree};
use crate::sharing::{Intake, TestSeal, opened};

/// What the process that this test starts again as itself is to do: the act, the state, the intake.
const ACT: &str = "CLERESTORY_TEST_SHARING";

const CLASSES: [Class; 2] = [Class::Detections, Class::Statistics];

/// Gives the same bytes each time, so that the files have the same names in each run.
struct SameSeal;

impl Seal for SameSeal {
    fn seal(&self, _: &seal::OwnerSecret, class: Class, plaintext: &[u8]) -> Result<Vec<u8>, SealRefused> {
        let pad = vec![0xa5; plaintext.len()];
        let hidden: Vec<u8> = plaintext.iter().map(|byte| byte ^ 0xa5).collect();
        Ok([class.as_str().as_bytes(), b"\n", &pad, &hidden].concat())
    }

    fn receipt(&self, sealed: &[u8], envelope: &Envelope) -> Result<Statement<Receipt>, SealRefused> {
        TestSeal.receipt(sealed, envelope)
    }
}

fn detection(number: u64) -> Body {
    Body::Detection { rule: format!("rule_{number}"), sha256: Digest::of(&number.to_be_bytes()), size: number }
}

fn findings(numbers: impl IntoIterator<Item = u64>) -> Findings {
    let mut findings = Findings::default();
    numbers.into_iter().for_each(|number| findings.push(detection(number)));
    findings
}

fn open<'a>(state: &Path, clock: &'a dyn Clock) -> Result<Share<'a>, agent::Failure> {
    Share::open(state, SharePorts { clock, disk: &RealDisk, entropy: &SystemEntropy }, Bounds::default())
}

/// In the process under strace. What fails is tried once more, as `run` would.
fn act(act: &str, state: &Path, intake: &str) -> Result<(), agent::Failure> {
    let (clock, client) = (SystemClock::new(), Client::new(Duration::from_secs(5)));
    match act {
        "agree" => open(state, &clock)?.agree(&statement_digest(), Mode::Full, CLASSES.into()),
        "withdraw" => open(state, &clock)?.withdraw(),
        "record" => {
            let mut found = findings([4, 5]);
            let first = open(state, &clock).and_then(|mut share| share.record_all(&mut found));
            first.or_else(|_| open(state, &clock)?.record_all(&mut found))
        }
        "send" => {
            let intake = intake.parse().unwrap();
            let sending = Sending { intake: &intake, seal: &SameSeal, client: &client };
            open(state, &clock)?.send(sending).map(drop)
        }
        other => panic!("{other}"),
    }
}

struct Trial<'a> {
    scene: &'a Scene,
    act: &'static str,
    /// What waits before the act.
    before: BTreeSet<String>,
}

impl Trial<'_> {
    fn state(&self) -> &Path {
        &self.scene.config.state
    }

    fn restore(&self) {
        std::fs::remove_dir_all(self.state()).unwrap();
        copy_tree(&self.scene.folder.path().join("saved"), self.state());
    }

    fn process(&self, strace: Option<&Strace>, intake: &Intake) -> Output {
        let program = std::env::current_exe().unwrap().into_os_string();
        let line: Vec<_> = strace.map_or(&[][..], Strace::prefix).iter().cloned().chain([program]).collect();
        let mut command = Command::new(&line[0]);
        command.args(&line[1..]).args(["--exact", NAME, "--nocapture"]);
        let what = format!("{}\n{}\n{}", self.act, self.state().display(), intake.url);
        command.env(ACT, what).output().unwrap()
    }

    /// One fault at one call; whether it happened.
    fn run(&self, call: &Call, fault: Fault) -> bool {
        let intake = Intake::new();
        let strace = Strace::inject(&self.scene.folder.path().join("strace"), call, fault);
        let output = self.process(Some(&strace), &intake);
        let what = format!("{} {call} {fault}: {output:?}", self.act);
        let done = output.status.success();
        if fault != Fault::Kill {
            assert!(done || String::from_utf8_lossy(&output.stderr).contains("error: "), "{what}");
        }
        self.check(done, &intake, &what);
        strace.hits() > 0
    }

    /// What is there afterwards, and that it goes on.
    fn check(&self, done: bool, intake: &Intake, what: &str) {
        let clock = ManualClock::new(SystemClock::new().now().after(Duration::from_secs(7 * 3600)));
        let client = Client::new(Duration::from_secs(5));
        let mut share = open(self.state(), &clock).unwrap_or_else(|error| panic!("{what}, then: {error}"));
        let agreed = matches!(share.consent(), Consent::Given(_));
        let journal = self.scene.journal();
        match self.act {
            "agree" => {
                assert!(agreed || !done, "{what}");
                assert!(!agreed || journal.contains("sharing-agreed"), "the journal has it first: {what}");
                if !agreed {
                    share.record_all(&mut findings([4])).unwrap();
                    let sending = Sending { seal: &TestSeal, ..intake.sending(&client) };
                    assert_eq!(share.send(sending).unwrap(), Outcome::Off, "{what}");
                    assert!(share.show().unwrap().is_empty() && intake.batches().is_empty(), "{what}");
                }
                share.agree(&statement_digest(), Mode::Full, CLASSES.into()).unwrap();
                assert!(matches!(share.consent(), Consent::Given(_)), "{what}");
            }
            "withdraw" => {
                assert!(!agreed || !done, "{what}");
                assert_eq!(lines(&share), if agreed { self.before.clone() } else { BTreeSet::new() }, "{what}");
                share.withdraw().unwrap();
                assert_eq!(share.send(intake.sending(&client)).unwrap(), Outcome::Off, "{what}");
                assert!(lines(&share).is_empty() && intake.batches().is_empty(), "{what}");
            }
            _ => {
                let found = lines(&share);
                assert!(found.is_superset(&self.before), "nothing is lost: {what}");
                let rules: Vec<String> = found.difference(&self.before).cloned().collect();
                let new = |number: u64| rules.iter().filter(|line| line.contains(&format!("rule_{number}"))).count();
                let expected = if self.act == "record" && done { 1..=1 } else { 0..=usize::from(self.act == "record") };
                assert!(expected.contains(&new(4)) && expected.contains(&new(5)), "none is doubled: {rules:?} {what}");
                share.send(intake.sending(&client)).unwrap_or_else(|error| panic!("{what}, then: {error}"));
                let batches = intake.batches();
                let arrived: Vec<String> =
                    batches.values().flat_map(|it| opened(it).lines().map(str::to_owned).collect::<Vec<_>>()).collect();
                assert_eq!((arrived.len(), arrived.into_iter().collect()), (found.len(), found.clone()), "{what}");
                let shown = share.show().unwrap();
                assert!(shown.iter().all(|it| matches!(it, Shown::Sent { .. })), "{what}");
                assert_eq!(lines(&share), found, "{what}");
            }
        }
    }
}

/// Every event of which there is a trace; none of them may be there twice.
fn lines(share: &Share<'_>) -> BTreeSet<String> {
    let shown = share.show().unwrap();
    let plain = |shown: &Shown| match shown {
        Shown::Sent { plain, .. } | Shown::UnderWay { plain, .. } | Shown::Waiting { plain, .. } => plain.clone(),
    };
    let all: Vec<String> =
        shown.iter().flat_map(|it| plain(it).lines().map(str::to_owned).collect::<Vec<_>>()).collect();
    let once: BTreeSet<String> = all.iter().cloned().collect();
    assert_eq!(once.len(), all.len(), "{all:?}");
    once
}

const NAME: &str = "strace::sharing::sharing_survives_each_failed_call";

#[test]
fn sharing_survives_each_failed_call() {
    if let Some(what) = std::env::var_os(ACT) {
        let mut what = what.to_str().unwrap().lines();
        let (act, state, intake) = (what.next().unwrap(), what.next().unwrap(), what.next().unwrap());
        return self::act(act, Path::new(state), intake).unwrap_or_else(|error| panic!("error: {error}"));
    }
    for act in ["agree", "record", "send", "withdraw"] {
        let scene = Scene::new();
        let clock = SystemClock::new();
        let mut before = BTreeSet::new();
        if act != "agree" {
            let mut share = open(&scene.config.state, &clock).unwrap();
            share.agree(&statement_digest(), Mode::Full, CLASSES.into()).unwrap();
            share.record_all(&mut findings(1..=3)).unwrap();
            let tally = Tally { files: 9, found: 0 };
            share.record(Body::Statistic { of: Statistic::Lookups, tally }).unwrap();
            before = lines(&share);
        }
        let trial = Trial { scene: &scene, act, before };
        copy_tree(trial.state(), &scene.folder.path().join("saved"));
        let strace = Strace::watch(&scene.folder.path().join("strace"));
        let intake = Intake::new();
        let output = trial.process(Some(&strace), &intake);
        assert!(output.status.success(), "{output:?}");
        trial.check(true, &intake, act);
        let calls = strace.calls(trial.state());
        assert!(calls.iter().filter(|call| call.changes).count() > 5, "{act}: {calls:#?}");
        let cases = calls.iter().flat_map(|call| call.faults().into_iter().map(move |fault| (call, fault))).collect();
        let cases = Breadth::of_this_run().of(cases, 19);
        let missed = cases.iter().filter(|(call, fault)| {
            trial.restore();
            !trial.run(call, *fault)
        });
        let missed: Vec<_> = missed.map(|(call, fault)| format!("{call} {fault}")).collect();
        figure(&format!("sharing, {act}"), format!("{} calls, {} faults", calls.len(), cases.len()));
        assert!(missed.is_empty(), "these did not happen: {missed:#?}");
    }
}
