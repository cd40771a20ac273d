//! Sharing: nothing before the owner agrees, nothing lost, nothing twice, nothing hidden.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use agent::{
    After, Body, Bounds, Class, Collects, Consent, Disk, Failure, FileOffer, Found, FoundBy, Mode, Outcome, RealDisk,
    Recorded, Seal, SealRefused, Sending, Share, SharePorts, Shown, Statistic, Tally, statement_digest,
};
use api::{BaseUrl, Client};
use attest::{Envelope, Receipt, Statement, Subject};
use stdx::{Clock as _, Digest, Entropy, EntropyError, ManualClock, SystemEntropy, UnixTime, durable};
use testkit::REGION;
use tlog::{KeyKind, SignerKey};

use crate::crash::{Dying, Last};
use crate::scene::{Scene, copy_tree};

/// How the intake behaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Manner {
    /// Takes a batch and gives its receipt.
    Honest,
    /// Takes it, and hangs up before the receipt is out.
    Deaf,
    /// 503.
    Busy,
    /// 503, and not before so many seconds are over.
    Later(u64),
    /// Asks for files with its receipt.
    Greedy,
    /// Gives the receipt of something else.
    Wrong,
    /// Gives the receipt of less.
    Short,
    /// Says that it is kept in another region.
    Elsewhere,
    /// Says that it has it, and signs nothing.
    Unsigned,
    /// One of [`DEMANDS`], with a demand as its body.
    Demand(usize),
}

/// Ways in which HTTP lets a server ask for something.
const DEMANDS: [&str; 13] = [
    "200 OK\r\nContent-Type: text/html",
    "200 OK\r\nContent-Type: application/json",
    "206 Partial Content\r\nContent-Range: bytes 0-9/10",
    "301 Moved\r\nLocation: /collect",
    "303 See Other\r\nLocation: /collect",
    "307 There\r\nLocation: /collect",
    "308 There for Good\r\nLocation: /collect",
    "401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"the file\"",
    "407 Proxy\r\nProxy-Authenticate: Basic realm=\"the file\"",
    "417 Expectation Failed\r\nExpect: 100-continue",
    "426 Upgrade Required\r\nUpgrade: websocket, h2c",
    "429 Too Many\r\nRetry-After: 0",
    "503 Later\r\nRetry-After: 0",
];

/// An intake on loopback that keeps what came, by digest, and every byte as it came.
pub(crate) struct Intake {
    pub(crate) url: BaseUrl,
    recorder: Recorder,
    manner: Arc<Mutex<Manner>>,
    taken: Arc<Mutex<Vec<Vec<u8>>>>,
    wire: Arc<Mutex<Vec<u8>>>,
}

/// Who signs receipts.
pub(crate) type Recorder = Arc<Mutex<SignerKey>>;

/// The same in every process of a test.
struct Fixed;

impl Entropy for Fixed {
    fn fill(&self, buffer: &mut [u8]) -> Result<(), EntropyError> {
        buffer.fill(7);
        Ok(())
    }
}

fn test_recorder() -> SignerKey {
    SignerKey::generate("vendor.example/recorder".parse().unwrap(), KeyKind::Ed25519, &Fixed).unwrap()
}

fn receipt(recorder: &SignerKey, digest: Digest, bytes: usize, region: &str) -> String {
    let predicate = Receipt { region: region.parse().unwrap(), bytes: bytes as u64 };
    let statement = Statement { subject: vec![Subject::new("object", digest)], predicate };
    let envelope = Envelope::sign(statement.encode().unwrap(), &[recorder]).unwrap();
    String::from_utf8(envelope.to_bytes()).unwrap()
}

impl Intake {
    pub(crate) fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        let (recorder, manner) = (Arc::new(Mutex::new(test_recorder())), Arc::new(Mutex::new(Manner::Honest)));
        let intake = Self { url, recorder, manner, taken: Arc::default(), wire: Arc::default() };
        let recorder = Arc::clone(&intake.recorder);
        let (manner, taken, wire) = (Arc::clone(&intake.manner), Arc::clone(&intake.taken), Arc::clone(&intake.wire));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let manner = *manner.lock().unwrap();
                serve(stream, manner, &recorder.lock().unwrap(), &taken, &wire);
            }
        });
        intake
    }

    /// Receipts are signed by another key from now on.
    pub(crate) fn sign_with(&self, recorder: SignerKey) {
        *self.recorder.lock().unwrap() = recorder;
    }

    pub(crate) fn set(&self, manner: Manner) {
        *self.manner.lock().unwrap() = manner;
    }

    /// Batches as a real intake has them: once each.
    pub(crate) fn batches(&self) -> BTreeMap<Digest, Vec<u8>> {
        self.taken.lock().unwrap().iter().map(|sealed| (Digest::of(sealed), sealed.clone())).collect()
    }

    pub(crate) fn sending<'a>(&'a self, client: &'a Client) -> Sending<'a> {
        Sending { intake: &self.url, seal: &TestSeal, client }
    }
}

fn serve(
    mut stream: TcpStream,
    manner: Manner,
    recorder: &SignerKey,
    taken: &Mutex<Vec<Vec<u8>>>,
    wire: &Mutex<Vec<u8>>,
) {
    let (mut seen, mut buffer) = (Vec::new(), [0; 16384]);
    let body = loop {
        let Ok(count @ 1..) = stream.read(&mut buffer) else { return };
        seen.extend_from_slice(&buffer[..count]);
        let text = String::from_utf8_lossy(&seen).to_lowercase();
        let Some(end) = seen.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
        let length = text.split("content-length: ").nth(1).and_then(|rest| rest.split("\r\n").next()?.parse().ok());
        if seen.len() >= end + 4 + length.unwrap_or(0) {
            break seen[end + 4..].to_vec();
        }
    };
    wire.lock().unwrap().extend_from_slice(&seen);
    let (digest, bytes) = (Digest::of(&body), body.len());
    if !matches!(manner, Manner::Busy | Manner::Later(_)) {
        taken.lock().unwrap().push(body);
    }
    let (status, answer) = match manner {
        Manner::Honest => ("200 OK", receipt(recorder, digest, bytes, REGION)),
        Manner::Deaf => return,
        Manner::Busy => ("503 No", String::new()),
        Manner::Later(3000) => ("503 No\r\nRetry-After: 3000", String::new()),
        Manner::Later(_) => ("503 No\r\nRetry-After: 999999999", String::new()),
        Manner::Greedy => {
            let collect = "[\"/home/owner/secret.odt\"]";
            ("200 OK", receipt(recorder, digest, bytes, REGION).replacen('{', &format!("{{\"collect\":{collect},"), 1))
        }
        Manner::Demand(at) => {
            let collect = format!("{{\"collect\":[\"/home/owner/secret.odt\"],\"batch\":\"{digest}\"}}");
            // The first one never ends, as far as anybody would read.
            (DEMANDS[at], if at == 0 { collect.repeat(1 << 14) } else { collect })
        }
        Manner::Wrong => ("200 OK", receipt(recorder, Digest::of(b"other"), bytes, REGION)),
        Manner::Short => ("200 OK", receipt(recorder, digest, bytes - 1, REGION)),
        Manner::Elsewhere => ("200 OK", receipt(recorder, digest, bytes, "moscow")),
        Manner::Unsigned => ("200 OK", format!("{{\"batch\":\"{digest}\",\"bytes\":{bytes}}}")),
    };
    let length = answer.len();
    let _ = write!(stream, "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{answer}");
}

/// Sealed for tests: a random pad, and the plaintext under it. It opens with what it carries, so that
/// tests can read the wire; and it gives other bytes each time, as a real seal does.
pub(crate) struct TestSeal;

impl Seal for TestSeal {
    fn seal(&self, _: &seal::OwnerSecret, class: Class, plaintext: &[u8]) -> Result<Vec<u8>, SealRefused> {
        let mut pad = vec![0; plaintext.len()];
        stdx::Entropy::fill(&SystemEntropy, &mut pad).map_err(|error| SealRefused(error.to_string()))?;
        let hidden = plaintext.iter().zip(&pad).map(|(byte, pad)| byte ^ pad);
        Ok([class.as_str().as_bytes(), b"\n", &pad, &hidden.collect::<Vec<_>>()].concat())
    }

    fn receipt(&self, _: &[u8], envelope: &Envelope) -> Result<Statement<Receipt>, SealRefused> {
        match envelope.signed_by(test_recorder().verifier()) {
            Ok(true) => Ok(Statement::decode(envelope.payload()).unwrap()),
            other => Err(SealRefused(format!("not signed by the recorder: {other:?}"))),
        }
    }
}

pub(crate) fn opened(sealed: &[u8]) -> String {
    let start = sealed.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    let (pad, hidden) = sealed[start..].split_at((sealed.len() - start) / 2);
    String::from_utf8(pad.iter().zip(hidden).map(|(pad, byte)| pad ^ byte).collect()).unwrap()
}

struct Machine {
    scene: Scene,
    clock: ManualClock,
    client: Client,
}

impl Machine {
    fn new() -> Self {
        let scene = Scene::new();
        let clock = ManualClock::new(scene.world.clock.now());
        Self { scene, clock, client: Client::new(Duration::from_secs(5)) }
    }

    fn state(&self) -> &Path {
        &self.scene.config.state
    }

    fn on<'a>(&'a self, disk: &'a dyn Disk, bounds: Bounds) -> Result<Share<'a>, Failure> {
        Share::open(self.state(), SharePorts { clock: &self.clock, disk, entropy: &SystemEntropy }, bounds)
    }

    fn share(&self) -> Share<'_> {
        self.on(&RealDisk, Bounds::default()).unwrap()
    }

    fn agree(&self, mode: Mode, classes: &[Class]) {
        self.share().agree(&statement_digest(), mode, classes.iter().copied().collect()).unwrap();
    }

    fn journal(&self) -> String {
        std::fs::read_to_string(self.state().join("journal.jsonl")).unwrap()
    }
}

fn detection(number: u64) -> Body {
    let sha256 = Digest::of(&number.to_be_bytes());
    Body::Detection { rule: format!("rule_{number}"), sha256, size: number }
}

fn statistic(files: u64) -> Body {
    Body::Statistic { of: Statistic::Lookups, tally: Tally { files, found: 0 } }
}

fn verdict(number: u64) -> Body {
    Body::Verdict { sha256: Digest::of(&number.to_be_bytes()), found: Found::Bucket }
}

const EVENTS: [Class; 3] = [Class::Detections, Class::Verdicts, Class::Statistics];

#[test]
fn before_the_owner_agrees_nothing_is_kept_and_nothing_is_sent() {
    let (machine, intake) = (Machine::new(), Intake::new());
    assert!(!Share::exists(machine.state()));
    let mut share = machine.share();
    assert_eq!(share.record(detection(1)).unwrap(), Recorded::NotAgreed);
    assert_eq!(share.send(intake.sending(&machine.client)).unwrap(), Outcome::Off);
    assert_eq!(share.about_to_ask("relay", "2/1").unwrap_err().code, "share-not-agreed");
    assert!(share.show().unwrap().is_empty());
    assert!(intake.wire.lock().unwrap().is_empty());

    // Another text than this version's is agreed to by nobody.
    let error = share.agree(&Digest::of(b"other"), Mode::Full, BTreeSet::from(EVENTS)).unwrap_err();
    assert_eq!(error.code, "share-statement");
    let error = share.agree(&statement_digest(), Mode::Verdicts, BTreeSet::from(EVENTS)).unwrap_err();
    assert_eq!(error.code, "share-mode", "this mode has no statistics");
    assert_eq!(*share.consent(), Consent::None);
}

#[test]
fn what_was_agreed_to_is_what_is_shared_and_what_is_shown_is_what_the_wire_carried() {
    let (machine, intake) = (Machine::new(), Intake::new());
    machine.agree(Mode::Verdicts, &[Class::Detections, Class::Verdicts]);
    let mut share = machine.share();
    assert!(matches!(share.record(detection(1)).unwrap(), Recorded::Waits(_)));
    assert!(matches!(share.record(verdict(2)).unwrap(), Recorded::Waits(_)));
    assert_eq!(share.record(statistic(3)).unwrap(), Recorded::NotAgreed);
    let waiting: BTreeSet<String> = share.show().unwrap().iter().map(plain).collect();
    assert_eq!(share.send(intake.sending(&machine.client)).unwrap(), Outcome::Sent(2), "a batch for each class");
    let shown = share.show().unwrap();
    assert_eq!(shown.iter().map(plain).collect::<BTreeSet<_>>(), waiting, "what was to be sent was sent");
    let batches = intake.batches();
    assert_eq!(batches.len(), shown.len());
    for it in &shown {
        let Shown::Sent { sealed, bytes, plain, .. } = it else { panic!("{it}") };
        let carried = &batches[sealed];
        assert_eq!((opened(carried), carried.len() as u64), (plain.clone(), *bytes));
    }
    // Nothing of it tells this machine from others, save the events' own random numbers.
    let wire = String::from_utf8_lossy(&intake.wire.lock().unwrap()).to_lowercase();
    let heads: BTreeSet<&str> = wire.lines().filter_map(|line| line.split_once(": ").map(|it| it.0)).collect();
    let allowed = ["accept", "accept-encoding", "content-length", "content-type", "host", "user-agent"];
    assert!(heads.iter().filter(|name| name.is_ascii()).all(|name| allowed.contains(name)), "{heads:?}");
    assert_eq!(share.send(intake.sending(&machine.client)).unwrap(), Outcome::Sent(0));
}

fn plain(shown: &Shown) -> String {
    match shown {
        Shown::Sent { plain, .. } | Shown::UnderWay { plain, .. } | Shown::Waiting { plain, .. } => plain.clone(),
    }
}

#[test]
fn an_intake_that_says_when_to_come_back_is_left_alone_so_long_and_for_six_hours_at_most() {
    let (machine, intake) = (Machine::new(), Intake::new());
    machine.agree(Mode::Full, &EVENTS);
    let mut share = machine.share();
    share.record(detection(1)).unwrap();
    for (asked, seconds) in [(3000, 3000), (999_999_999, 6 * 3600)] {
        intake.set(Manner::Later(asked));
        assert!(share.send(intake.sending(&machine.client)).is_err());
        let until = machine.clock.now().after(Duration::from_secs(seconds));
        intake.set(Manner::Honest);
        machine.clock.set(UnixTime::from_seconds(until.seconds() - 1));
        assert_eq!(share.send(intake.sending(&machine.client)).unwrap(), Outcome::Later(until));
        machine.clock.set(until);
    }
    assert_eq!(share.send(intake.sending(&machine.client)).unwrap(), Outcome::Sent(1));
}

#[test]
fn a_withdrawal_ends_it_at_once_and_takes_away_what_waits() {
    let (machine, intake) = (Machine::new(), Intake::new());
    machine.agree(Mode::Full, &EVENTS);
    let mut share = machine.share();
    share.record(detection(1)).unwrap();
    intake.set(Manner::Busy);
    assert!(share.send(intake.sending(&machine.client)).is_err(), "a batch is under way");
    share.record(detection(2)).unwrap();
    share.withdraw().unwrap();
    intake.set(Manner::Honest);
    machine.clock.advance(Duration::from_secs(7 * 3600));
    assert_eq!(share.send(intake.sending(&machine.client)).unwrap(), Outcome::Off);
    assert!(share.show().unwrap().is_empty() && intake.batches().is_empty());
    drop(share);
    assert_eq!(*machine.share().consent(), Consent::None, "after a restart, too");
    let journal = machine.journal();
    for event in ["sharing-agreed", "sharing-withdrawn", "sharing-dropped"] {
        assert!(journal.contains(event), "{journal}");
    }
    assert!(journal.contains(&statement_digest().to_string()), "which text was agreed to");
}

#[test]
fn an_agreement_that_somebody_changed_agrees_to_nothing() {
    let machine = Machine::new();
    machine.agree(Mode::File, &[Class::Detections]);
    let path = machine.state().join("share/agreements/000001.envelope");
    let envelope = attest::Envelope::parse(&std::fs::read(&path).unwrap()).unwrap();
    let payload = String::from_utf8(envelope.payload().to_vec()).unwrap();
    assert!(payload.contains("agreement/v1") && payload.contains(&statement_digest().to_string()), "{payload}");
    let stranger = tlog::SignerKey::generate("a/b".parse().unwrap(), tlog::KeyKind::Ed25519, &SystemEntropy).unwrap();
    let forged = payload.replace("\"file\"", "\"full\"");
    let forged = attest::Envelope::sign(forged.into_bytes(), &[&stranger]).unwrap();
    durable::write(&path, &forged.to_bytes()).unwrap();
    let error = machine.on(&RealDisk, Bounds::default()).map(drop).unwrap_err();
    assert_eq!(error.code, "state");
}

#[test]
fn a_full_outbox_drops_statistics_first_and_never_silently() {
    let machine = Machine::new();
    machine.agree(Mode::File, &EVENTS);
    let bounds = Bounds { events: 4, bytes: 1 << 20 };
    let mut share = machine.on(&RealDisk, bounds).unwrap();
    for body in [statistic(1), verdict(2), statistic(3), detection(4), detection(5), detection(6), detection(7)] {
        assert!(matches!(share.record(body).unwrap(), Recorded::Waits(_)));
    }
    let shown: String = share.show().unwrap().iter().map(plain).collect();
    assert_eq!(shown.matches("detection").count(), 4, "{shown}");
    assert_eq!(share.record(statistic(8)).unwrap(), Recorded::Dropped, "it is worth less than all that wait");
    assert_eq!(share.record(verdict(8)).unwrap(), Recorded::Dropped);
    share.record(detection(8)).unwrap();
    let dropped = machine.journal().matches("sharing-dropped").count();
    assert_eq!(dropped, 3 + 2 + 1, "each is journalled: {}", machine.journal());
}

#[test]
fn a_failure_is_waited_out_and_the_same_bytes_go_again() {
    let (machine, intake) = (Machine::new(), Intake::new());
    machine.agree(Mode::Full, &EVENTS);
    let mut share = machine.share();
    share.record(detection(1)).unwrap();
    intake.set(Manner::Deaf);
    let mut pauses = Vec::new();
    for _ in 0..12 {
        assert_eq!(share.send(intake.sending(&machine.client)).unwrap_err().code, "unavailable");
        let now = machine.clock.now();
        let Outcome::Later(later) = share.send(intake.sending(&machine.client)).unwrap() else { panic!("at once") };
        pauses.push(later.since(now).as_secs());
        machine.clock.set(later);
    }
    assert!((30..=60).contains(&pauses[0]) && pauses.iter().all(|pause| *pause <= 6 * 3600), "{pauses:?}");
    assert!(pauses[11] >= 3 * 3600, "{pauses:?}");
    let times = intake.taken.lock().unwrap().len();
    assert_eq!((times, intake.batches().len()), (12, 1), "one batch, sent again");
    // Clocks go back; a pause does not become a year.
    machine.clock.set(stdx::UnixTime::from_seconds(0));
    intake.set(Manner::Honest);
    assert_eq!(share.send(intake.sending(&machine.client)).unwrap(), Outcome::Sent(1));
    assert_eq!(intake.batches().len(), 1);
}

#[test]
fn an_intake_can_ask_for_nothing() {
    let (machine, intake) = (Machine::new(), Intake::new());
    let secret = b"a document with a secrecy label";
    let document = machine.scene.folder.path().join("secret.odt");
    durable::write(&document, secret).unwrap();
    machine.agree(Mode::Full, &EVENTS);
    let mut share = machine.share();
    for manner in [Manner::Greedy, Manner::Wrong] {
        intake.set(manner);
        share.record(detection(1)).unwrap();
        assert_eq!(share.send(intake.sending(&machine.client)).unwrap_err().code, "share-receipt");
        machine.clock.advance(Duration::from_secs(7 * 3600));
    }
    for (at, demand) in DEMANDS.iter().enumerate() {
        intake.set(Manner::Demand(at));
        let refused = share.send(intake.sending(&machine.client)).unwrap_err().code;
        assert!(["share-receipt", "share-refused", "unavailable"].contains(&refused), "{demand}: {refused}");
        machine.clock.advance(Duration::from_secs(7 * 3600));
    }
    intake.set(Manner::Honest);
    share.send(intake.sending(&machine.client)).unwrap();
    assert!(intake.batches().values().all(|sealed| !opened(sealed).contains("content")));
    // One batch, again and again, and nothing else.
    let wire = String::from_utf8_lossy(&intake.wire.lock().unwrap()).to_lowercase();
    let requests = wire.matches(" http/1.1\r\n").count();
    assert_eq!((requests, wire.matches("post /v1/events http/1.1\r\n").count()), (DEMANDS.len() + 4, requests));
}

/// The rules in use, as far as these tests need them.
struct Rules;

impl Collects for Rules {
    fn collects(&self, found: &FoundBy<'_>) -> Result<Option<String>, Failure> {
        Ok((found.rule == "collecting").then(|| "samples".to_owned()))
    }
}

#[test]
fn content_leaves_only_for_a_collecting_rule_an_agreed_class_and_a_named_hash() {
    let (machine, intake) = (Machine::new(), Intake::new());
    let secret = b"a document with a secrecy label, which a rule marks";
    let path = machine.scene.folder.path().join("secret.odt");
    durable::write(&path, secret).unwrap();
    let offer = |rule, sha256| FileOffer { path: &path, rule, sha256 };
    machine.agree(Mode::Full, &EVENTS);
    let mut share = machine.share();
    let digest = Digest::of(secret);
    let refused = |share: &mut Share<'_>, rule, sha256| share.give_file(&Rules, offer(rule, sha256)).unwrap_err().code;
    assert_eq!(refused(&mut share, "collecting", Some(digest)), "share-not-agreed", "the class was not agreed to");
    let classes = [Class::Detections, Class::Content].into();
    share.agree(&statement_digest(), Mode::Full, classes).unwrap();
    // A fully approved rule that marks documents, and does not declare that it collects.
    assert_eq!(refused(&mut share, "secrecy_label", Some(digest)), "share-not-collecting");
    assert_eq!(refused(&mut share, "collecting", None), "share-confirm");
    assert_eq!(refused(&mut share, "collecting", Some(Digest::of(b"other"))), "share-confirm");
    assert_eq!(share.send(intake.sending(&machine.client)).unwrap(), Outcome::Sent(0));
    assert!(intake.wire.lock().unwrap().is_empty(), "not a byte of it left");
    assert!(machine.journal().contains("secrecy_label"), "the journal names the rule");

    assert!(matches!(share.give_file(&Rules, offer("collecting", Some(digest))).unwrap(), Recorded::Waits(_)));
    assert_eq!(share.send(intake.sending(&machine.client)).unwrap(), Outcome::Sent(1));
    assert!(share.show().unwrap().iter().any(|shown| plain(shown).contains(&digest.to_string())));
    assert!(machine.journal().contains(&format!("\"object\":\"{digest}\"")), "and the file");
    drop(share);
    assert!(matches!(machine.share().consent(), Consent::Given(it) if it.mode == Mode::Full), "one file is one file");
}

#[test]
fn the_mode_file_sends_nothing_and_gives_all_of_it_to_the_owner() {
    let (machine, intake) = (Machine::new(), Intake::new());
    machine.agree(Mode::File, &EVENTS);
    let mut share = machine.share();
    share.record(detection(1)).unwrap();
    share.record(statistic(2)).unwrap();
    assert_eq!(share.send(intake.sending(&machine.client)).unwrap(), Outcome::Off);
    assert!(intake.wire.lock().unwrap().is_empty());
    let file: PathBuf = machine.scene.folder.path().join("export.jsonl");
    assert_eq!(share.export(&file, After::Remove).unwrap(), 2);
    let lines = std::fs::read_to_string(&file).unwrap();
    assert_eq!(lines.lines().count(), 2);
    assert!(share.show().unwrap().is_empty());
    assert!(share.export(&file, After::Keep).is_err(), "nothing is overwritten");
}

/// All that was recorded, sent in a machine whose disk dies at every step in turn, arrives once.
#[test]
fn nothing_is_lost_and_nothing_doubled_by_a_crash_at_any_step() {
    let machine = Machine::new();
    machine.agree(Mode::Full, &EVENTS);
    let mut share = machine.share();
    for number in 0..3 {
        share.record(detection(number)).unwrap();
    }
    share.record(statistic(9)).unwrap();
    let expected: BTreeSet<String> = share.show().unwrap().iter().map(plain).collect();
    drop(share);
    let saved = machine.scene.folder.path().join("saved");
    copy_tree(machine.state(), &saved);
    let mut steps = 1;
    loop {
        let mut ended = true;
        for last in [Last::Undone, Last::Done] {
            let intake = Intake::new();
            let disk = Dying::new(steps, last);
            let outcome =
                machine.on(&disk, Bounds::default()).and_then(|mut share| share.send(intake.sending(&machine.client)));
            if disk.is_dead() {
                ended = false;
                assert!(outcome.is_err(), "step {steps} {last:?}");
            }
            let mut share = machine.share();
            machine.clock.advance(Duration::from_secs(7 * 3600));
            share.send(intake.sending(&machine.client)).unwrap();
            let arrived: Vec<String> = intake
                .batches()
                .values()
                .flat_map(|it| opened(it).lines().map(|it| format!("{it}\n")).collect::<Vec<_>>())
                .collect();
            let once: BTreeSet<String> = arrived.iter().cloned().collect();
            assert_eq!((arrived.len(), &once), (4, &expected), "step {steps} {last:?}");
            let shown = share.show().unwrap();
            assert!(shown.iter().all(|it| matches!(it, Shown::Sent { .. })), "step {steps} {last:?}");
            let shown: BTreeSet<String> =
                shown.iter().flat_map(|it| plain(it).lines().map(|it| format!("{it}\n")).collect::<Vec<_>>()).collect();
            assert_eq!(shown, expected, "step {steps} {last:?}");
            drop(share);
            std::fs::remove_dir_all(machine.state()).unwrap();
            copy_tree(&saved, machine.state());
        }
        if ended {
            break;
        }
        steps += 1;
    }
    assert!(steps > 10, "{steps} steps");
}
