//! The gateway: nothing is read that was not asked for, approved and announced, and everything has an outcome.

use std::time::Duration;

use api::{CustodyState, DataQuery, ResultFormat};
use attest::{
    AccessCall, AccessIntent, AccessOutcome, Ended, Envelope, Opening, Predicate, PrivateField, Statement, Subject,
};
use stdx::{Clock as _, Digest, Entropy as _, SystemClock, SystemEntropy, durable};
use testkit::{APPROVED_CLASS, OPEN_CLASS, PURPOSE, REGION};

use super::proxy::{Held, Proxy};
use super::scene::{CUSTODIANS, Scene, Setting, signed};
use super::stand::Stand;
use crate::process::{Done, spawn};
use crate::raw;

pub(super) const CODE: &[u8] = b"the worker's program";
const QUERY: &str = "select line from detections where country = $country\n";

/// Everything runs, with a gateway and a worker.
pub(crate) struct Desk<W = Stand> {
    pub(crate) scene: Scene,
    worker: W,
}

pub(super) const QUERY_FILE: &str = "query.sql";

impl Desk {
    pub(crate) fn running() -> Self {
        let mut stand = None;
        let desk = Desk::of(Scene::made(), &Digest::of(CODE).to_string(), |scene| {
            let enrolment = std::fs::read_to_string(scene.system.file("enrolment")).unwrap();
            let worker = Stand::new(scene.take_worker(), &scene.certify_code(CODE), enrolment, Digest::of(CODE));
            worker.keep(scene.objects());
            let url = worker.url.clone();
            stand = Some(worker);
            url
        });
        Self { scene: desk.scene, worker: stand.unwrap() }
    }
}

impl Desk<()> {
    /// Everything runs but a worker.
    pub(crate) fn with_keys(setting: &Setting) -> Self {
        Self::of(Scene::made_with(setting), &Digest::of(CODE).to_string(), |_| "http://127.0.0.1:9".to_owned())
    }

    /// Everything runs in this scene, with a worker of this code, which `start` starts; it says where that is.
    pub(crate) fn of(mut scene: Scene, code: &str, start: impl FnOnce(&Scene) -> String) -> Self {
        durable::write(&scene.system.file(QUERY_FILE), QUERY.as_bytes()).unwrap();
        scene.start_logs();
        scene.enrolment = scene.enrol(code, "enrolment");
        // One address, or several between blanks.
        let urls = start(&scene);
        let workers: Vec<&str> = urls.split(' ').collect();
        let workers = if let [one] = workers[..] { format!("{one:?}") } else { format!("{workers:?}") };
        let custodians = CUSTODIANS.map(|who| format!("{who} = \"{}\"", scene.custodian(who).url()));
        let section = format!(
            "[access]\nkey = \"keys/gateway.key\"\nrules = \"access.cedar\"\nworkers = {{ {REGION} = {workers} }}\n\
             custodians = {{ {} }}\n\n[http]",
            custodians.join(", ")
        );
        assert_eq!(scene.system.supervisor.stop().code, 0);
        scene.system.set("supervisor", "\n[http]", &format!("\n{section}"));
        scene.system.supervisor.start();
        scene.custodians.iter_mut().for_each(crate::process::Server::start);
        Self { scene, worker: () }
    }
}

impl<W> Desk<W> {
    /// With another line in the supervisor's configuration.
    fn restart_with(&mut self, line: &str, value: &str) {
        assert_eq!(self.scene.system.supervisor.stop().code, 0);
        self.scene.system.set("supervisor", line, value);
        self.scene.system.supervisor.start();
    }

    pub(crate) fn data(&self, command: &str, role: &str, arguments: &[&str]) -> Done {
        let organisation = if role == "reader" { "vendor" } else { "supervisor" };
        let (config, key) = (format!("{organisation}/clerestory.toml"), format!("{organisation}/keys/{role}.key"));
        let begins = ["--json", "data", command, "--config", &config, "--key", &key];
        self.scene.system.run(&[&begins[..], arguments].concat())
    }

    fn request_with(&self, class: &str, further: &[&str]) -> Done {
        let common = ["--query", "query.sql", "--reader", "an analyst", "--ticket", "T-1", "--class", class];
        let common = [&common[..], &["--country", "DE", "--country", "JP"]].concat();
        let common = if further.contains(&"--objects") { common } else { [&common[..], &["--objects", "2"]].concat() };
        let purpose = if further.contains(&"--purpose") { &[][..] } else { &["--purpose", PURPOSE] };
        self.data("request", "reader", &[&common[..], purpose, further].concat())
    }

    pub(crate) fn request(&self) -> String {
        self.request_with(APPROVED_CLASS, &[]).ok().json()["id"].as_str().unwrap().to_owned()
    }

    /// For so many objects.
    pub(super) fn request_for(&self, objects: u64) -> String {
        let done = self.request_with(APPROVED_CLASS, &["--objects", &objects.to_string()]).ok();
        done.json()["id"].as_str().unwrap().to_owned()
    }

    pub(crate) fn approve(&self, request: &str) {
        self.data("approve", "approver", &[request, "--comment", "seen"]).ok();
    }

    pub(crate) fn query(&self, request: &str) -> Done {
        self.data("query", "reader", &[request])
    }

    /// Statements of one kind in the log, in its order.
    pub(crate) fn logged<P: Predicate>(&self) -> Vec<(Envelope, Statement<P>)> {
        let address = self.scene.system.supervisor.address();
        let checkpoint = raw::get(address, "/checkpoint").text();
        let size: usize = checkpoint.lines().nth(1).unwrap().parse().unwrap();
        let bundle = |first: usize| match size - first {
            256.. => raw::get(address, &format!("/tile/entries/{:03}", first / 256)).body,
            count => raw::get(address, &format!("/tile/entries/{:03}.p/{count}", first / 256)).body,
        };
        let entries: Vec<u8> = (0..size).step_by(256).flat_map(bundle).collect();
        let mut rest = &entries[..];
        let mut found = Vec::new();
        while let Some((length, after)) = rest.split_first_chunk::<2>() {
            let (entry, after) = after.split_at(usize::from(u16::from_be_bytes(*length)));
            rest = after;
            let envelope = Envelope::parse(entry).unwrap();
            if let Ok(statement) = Statement::decode(envelope.payload()) {
                found.push((envelope, statement));
            }
        }
        found
    }

    pub(crate) fn outcomes(&self) -> Vec<(Ended, u64, u64)> {
        let outcomes = self.logged::<AccessOutcome>();
        outcomes.iter().map(|(_, it)| (it.predicate.ended, it.predicate.rows, it.predicate.bytes)).collect()
    }

    /// Every intent has one outcome, and every custodian knows it; waits for what is still under way.
    pub(crate) fn settled(&self) {
        let clock = SystemClock::new();
        let begun = clock.monotonic();
        loop {
            let intents: Vec<_> = self.logged::<AccessIntent>().iter().map(|(it, _)| it.id()).collect();
            let mut outcomes: Vec<_> =
                self.logged::<AccessOutcome>().iter().map(|(_, it)| it.predicate.intent).collect();
            let known = CUSTODIANS.iter().all(|who| self.custody(who).regions[0].open.is_empty());
            outcomes.sort();
            let mut expected = intents.clone();
            expected.sort();
            if outcomes == expected && known {
                return;
            }
            assert!(clock.monotonic() - begun < Duration::from_secs(60), "{intents:?} {outcomes:?} {known}");
            std::thread::yield_now();
        }
    }

    fn custody(&self, who: &str) -> CustodyState {
        let at = CUSTODIANS.iter().position(|it| *it == who).unwrap();
        serde_json::from_slice(&raw::get(self.scene.custodians[at].address(), "/v1/custody").body).unwrap()
    }

    pub(super) fn call(&self, request: &str, reader: &Opening) -> Envelope {
        let mut nonce = [0; 32];
        SystemEntropy.fill(&mut nonce).unwrap();
        let call = AccessCall {
            request: request.parse().unwrap(),
            reader: reader.commitment(),
            parameters: None,
            time: SystemClock::new().now(),
            nonce: Digest::from_bytes(nonce),
        };
        let subject = vec![Subject::new("query", Digest::of(QUERY.as_bytes()))];
        signed(Statement { subject, predicate: call }, &self.scene.system.key("vendor", "reader"))
    }

    pub(super) fn post(&self, call: &Envelope, openings: Vec<Opening>) -> raw::Response {
        let call = String::from_utf8(call.to_bytes()).unwrap();
        let query = DataQuery { call, openings, format: ResultFormat::Json };
        raw::post(self.scene.system.supervisor.address(), "/v1/data/queries", &serde_json::to_vec(&query).unwrap())
    }
}

pub(super) fn opening(label: &str, value: &str) -> Opening {
    Opening::new(PrivateField { label, value }, &SystemEntropy).unwrap()
}

#[test]
fn what_was_asked_for_and_approved_is_read_once_and_the_log_says_what_came_of_it() {
    let desk = Desk::running();
    let request = desk.request();
    let refused = desk.query(&request);
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.stderr.contains("1 approval(s) of `supervisor` missing"), "{}", refused.stderr);
    // Nor does the gateway itself run it, for whoever leaves the command out.
    let reader = opening("reader", "an analyst");
    let by_hand = desk.post(&desk.call(&request, &reader), vec![reader]);
    assert_eq!(by_hand.status, 403, "{}", by_hand.text());
    assert!(desk.logged::<AccessIntent>().is_empty());
    // Who approves sees what it is.
    let shown = desk.data("approve", "approver", &[&request, "--show"]).ok().json();
    assert_eq!(shown["private"]["query"], QUERY);
    let values: Vec<_> = shown["private"]["request"].as_array().unwrap().iter().map(|it| it["value"].clone()).collect();
    assert_eq!(values, ["an analyst", "T-1"]);
    desk.approve(&request);
    let read = desk.query(&request).ok();
    let mut lines: Vec<_> = read.stdout.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["an event from DE", "an event from JP"]);
    let intents = desk.logged::<AccessIntent>();
    let [(intent, says)] = &intents[..] else { panic!("{intents:?}") };
    assert_eq!((says.predicate.request.to_string(), says.predicate.budget.objects), (request.clone(), 2));
    assert_eq!(desk.outcomes(), [(Ended::Done, 2, read.stdout.len() as u64)]);
    let outcomes = desk.logged::<AccessOutcome>();
    assert_eq!(outcomes[0].1.predicate.intent, intent.id());
    assert_eq!(outcomes[0].1.subject, [Subject::new("result", Digest::of(read.stdout.as_bytes()))]);
    desk.settled();
    for who in CUSTODIANS {
        assert_eq!((desk.custody(who).regions[0].uses, desk.custody(who).regions[0].opened), (1, 2), "{who}");
    }
    // Once: custodians open nothing for it any more, and that is on record as well.
    let again = desk.query(&request);
    assert_eq!(again.code, 1, "{again:?}");
    assert!(again.stderr.contains("as often as it may be") && again.stdout.is_empty(), "{again:?}");
    assert_eq!(desk.outcomes()[1..], [(Ended::Refused, 0, 0)]);
    let stands = desk.data("requests", "reader", &[]).ok().json();
    assert_eq!(stands[0]["intents"].as_array().unwrap().len(), 2);
}

#[test]
fn what_nobody_may_ask_is_not_logged_and_a_call_counts_once() {
    let desk = Desk::running();
    let refused = |done: &Done, why: &str| {
        assert_eq!(done.code, 1, "{done:?}");
        assert!(done.stderr.contains(why), "{}", done.stderr);
    };
    refused(&desk.request_with(APPROVED_CLASS, &["--service"]), "no rule of access allows");
    refused(&desk.request_with(APPROVED_CLASS, &["--purpose", "curiosity"]), "is not read for the purpose");
    refused(&desk.request_with("content", &[]), "the policy has no class `content`");
    refused(&desk.request_with(APPROVED_CLASS, &["--rows", "1001"]), "1000 rows");
    refused(&desk.request_with(APPROVED_CLASS, &["--country", "FR"]), "no region has the data of `FR`");
    assert!(desk.logged::<attest::AccessRequest>().is_empty());
    // Somebody else's request is no template, whoever approves it.
    let request = desk.request();
    desk.approve(&request);
    let other = desk.data("query", "reader", &[&request, "--template", "another analyst"]);
    refused(&other, "by another than has asked");
    // A call is taken once, and the result of the first one stands.
    let statement = desk.logged::<attest::AccessRequest>().remove(0).1;
    let call = {
        let reader = statement.predicate.reader;
        let call = desk.call(&request, &opening("reader", "nobody"));
        let mut call = Statement::<AccessCall>::decode(call.payload()).unwrap();
        call.predicate.reader = reader;
        signed(call, &desk.scene.system.key("vendor", "reader"))
    };
    let first = desk.post(&call, Vec::new());
    assert_eq!(first.status, 200, "{}", first.text());
    assert_eq!(desk.post(&call, Vec::new()).error().split(':').next(), Some("403 call"));
    let mut late = Statement::<AccessCall>::decode(call.payload()).unwrap();
    late.predicate.time = stdx::UnixTime::from_seconds(late.predicate.time.seconds() - 120);
    late.predicate.nonce = Digest::of(b"another");
    let late = signed(late, &desk.scene.system.key("vendor", "reader"));
    assert_eq!(desk.post(&late, Vec::new()).error().split(':').next(), Some("403 call"));
    desk.settled();
    assert_eq!(desk.logged::<AccessIntent>().len(), 1);
    // An emergency is told to everybody, and stands first.
    let loud = desk.request_with(APPROVED_CLASS, &["--break-glass"]).ok().json()["id"].clone();
    let stands = desk.data("requests", "reader", &[]).ok().json();
    assert_eq!((&stands[0]["id"], &stands[0]["mode"]), (&loud, &serde_json::json!("break-glass")));
}

#[test]
fn a_template_is_read_by_others_and_the_intent_says_who_in_private() {
    let desk = Desk::running();
    let (code, schema) = (Digest::of(CODE).to_string(), desk.worker.schema.to_string());
    let standing = ["--service", "--uses", "2", "--code", &code, "--schema"];
    let other = Digest::of(b"another schema").to_string();
    let template = |schema: &str| {
        let done = desk.request_with(OPEN_CLASS, &[&standing[..], &[schema]].concat()).ok();
        done.json()["id"].as_str().unwrap().to_owned()
    };
    let (good, bad) = (template(&schema), template(&other));
    desk.worker.keep(desk.scene.objects_of(OPEN_CLASS));
    let query = |request: &str| {
        desk.data("query", "reader", &[request, "--template", "another analyst", "--set", "country=DE"])
    };
    let refused = query(&bad);
    assert!(refused.stderr.contains("another schema"), "{refused:?}");
    let read = query(&good).ok();
    assert!(read.stdout.contains("with {\"country\":\"DE\"}"), "{read:?}");
    let says = desk.logged::<AccessIntent>().remove(0).1.predicate;
    let (reader, parameters) = (says.reader.unwrap(), says.parameters.unwrap());
    for (commitment, value) in [(reader, "another analyst"), (parameters, "{\"country\":\"DE\"}")] {
        let name = commitment.to_string();
        let path = format!("supervisor/beside/objects/private/{}/{}/{name}", &name[..2], &name[2..4]);
        let opening = Opening::parse(&std::fs::read(desk.scene.system.file(&path)).unwrap()).unwrap();
        assert_eq!((opening.commitment(), opening.value()), (commitment, value));
    }
    query(&good).ok();
    let over = query(&good);
    assert!(over.stderr.contains("as often as it may be"), "{over:?}");
    desk.settled();
}

#[test]
fn a_gateway_that_is_killed_in_the_middle_says_so_when_it_is_back() {
    let mut desk = Desk::running();
    let request = desk.request();
    desk.approve(&request);
    let (arrives, _goes) = desk.worker.pause();
    let arguments =
        ["data", "query", "--config", "vendor/clerestory.toml", "--key", "vendor/keys/reader.key", &request];
    let mut reading = spawn(desk.scene.system.path(), &arguments);
    arrives.recv_timeout(Duration::from_secs(60)).unwrap();
    desk.scene.system.supervisor.kill();
    assert!(!reading.wait().unwrap().success());
    desk.scene.system.supervisor.start();
    desk.settled();
    // Nobody knows how much of it was seen: as much as was allowed.
    assert_eq!(desk.outcomes(), [(Ended::Failed, 1000, 1 << 20)]);
}

/// At each step at which something is on its way, and what is on record when the gateway is back.
#[test]
fn a_gateway_that_is_killed_at_any_step_leaves_no_intent_without_its_outcome() {
    const GRANTS: &str = api::path::GRANTS;
    const OUTCOMES: &str = api::path::OUTCOMES;
    let mut desk = Desk::running();
    let here = desk.scene.custodian("member").url();
    let proxy = Proxy::to(desk.scene.custodian("member").address());
    desk.restart_with(&here, &proxy.url);
    let lost = (Ended::Failed, 1000, 1 << 20);
    let read = (Ended::Done, 2, "an event from DE\nan event from JP\n".len() as u64);
    // What the log says, and how often the member's key was used by then.
    let steps = [
        (Held::Before(GRANTS), lost, 0),
        (Held::After(GRANTS), lost, 1),
        (Held::Before(OUTCOMES), read, 2),
        (Held::After(OUTCOMES), read, 3),
    ];
    for (number, (held, outcome, uses)) in steps.into_iter().enumerate() {
        let request = desk.request();
        desk.approve(&request);
        let (arrives, goes) = proxy.hold(held);
        let key = "vendor/keys/reader.key";
        let arguments = ["data", "query", "--config", "vendor/clerestory.toml", "--key", key, &request];
        let mut reading = spawn(desk.scene.system.path(), &arguments);
        arrives.recv_timeout(Duration::from_secs(60)).unwrap();
        // The entry is there before the key is used, and not one more afterwards.
        assert_eq!(desk.logged::<AccessIntent>().len(), number + 1, "{held:?}");
        desk.scene.system.supervisor.kill();
        drop(goes);
        assert!(!reading.wait().unwrap().success());
        desk.scene.system.supervisor.start();
        desk.settled();
        assert_eq!(desk.outcomes().get(number), Some(&outcome), "{held:?}");
        // What was on its way when the gateway died may still arrive.
        assert!((uses..=uses + 1).contains(&desk.custody("member").regions[0].uses), "{held:?}");
    }
}

#[test]
fn a_custodian_that_is_away_opens_nothing_and_gets_the_outcome_later() {
    let mut desk = Desk::running();
    let request = desk.request();
    desk.approve(&request);
    let (here, away) = (desk.scene.custodian("member").url(), "http://127.0.0.1:1");
    desk.restart_with(&here, away);
    let refused = desk.query(&request);
    assert_ne!(refused.code, 0, "{refused:?}");
    assert!(refused.stderr.contains("custodian `member`") && refused.stdout.is_empty(), "{refused:?}");
    assert_eq!(desk.outcomes(), [(Ended::Refused, 0, 0)]);
    // The other one has opened its share, which is worth nothing alone, and says so.
    assert_eq!(desk.custody("supervisor").regions[0].uses, 1);
    desk.restart_with(away, &here);
    desk.settled();
    assert_eq!(desk.outcomes().len(), 1);
}
