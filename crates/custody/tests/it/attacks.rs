//! Attempts to have something opened that may not be.

use std::time::Duration;

use attest::{AccessStop, Budget, Bundle, BundleEntry, Envelope};
use custody::{Ask, FileKeys, LedgerError, Refusal, STATUS_AGE_MAX, Seen};
use seal::{Header, Kem, PrivateKey};
use stdx::{Digest, ManualClock, SystemEntropy, UnixTime};
use testkit::{APPROVED_CLASS, SUPERVISOR_LOG};
use tlog::{KeyKind, SignerKey};

use crate::grant::ledger;
use crate::scene::{BUDGET, Made, Scene};

fn refusal(scene: &Scene, made: &Made) -> Refusal {
    scene.decide_as("member", &made.ask()).map(drop).unwrap_err()
}

fn under(scene: &Scene, made: &Made, witnesses: usize) -> Bundle {
    let cosigners: Vec<_> = scene.world.witnesses.iter().take(witnesses).collect();
    let checkpoint = scene.world.supervisor_log.checkpoint(&cosigners, scene.now());
    let prove = |envelope: &&Envelope| scene.world.supervisor_log.prove(envelope, &checkpoint);
    Bundle::new(made.envelopes().iter().map(prove).collect()).unwrap()
}

#[test]
fn the_honest_path_is_admitted_by_both() {
    let mut scene = Scene::new();
    let made = scene.make();
    for custodian in ["supervisor", "member"] {
        let admitted = scene.decide_as(custodian, &made.ask()).unwrap();
        assert_eq!((admitted.intent(), admitted.objects().count()), (made.intent.id(), 2));
    }
    assert!(matches!(scene.decide_as("vendor", &made.ask()), Err(Refusal::NotCustodian(..))));
}

#[test]
fn without_a_quorum_nothing_is_opened() {
    let mut scene = Scene::new();
    let mut made = scene.make();
    for witnesses in 0..3 {
        made.bundle = under(&scene, &made, witnesses);
        let refusal = refusal(&scene, &made);
        assert!(matches!(refusal, Refusal::Evidence(verify::Refusal::Checkpoint { .. })), "{witnesses}: {refusal}");
    }
    made.bundle = under(&scene, &made, 3);
    scene.decide_as("member", &made.ask()).unwrap();
}

#[test]
fn an_intent_that_is_not_in_the_log_opens_nothing() {
    let mut scene = Scene::new();
    let mut made = scene.make();
    let logged = made.intent.clone();
    // Signed by the gateway, and never appended: with the proof of the one that was.
    let payload = String::from_utf8(logged.payload().to_vec()).unwrap().replace("\"rows\":100", "\"rows\":101");
    let gateway = scene.world.supervisor.key(policy::Role::Gateway);
    made.intent = Envelope::sign(payload.into_bytes(), &[gateway]).unwrap();
    let entries = made.bundle.entries().iter().map(|entry| {
        let envelope = if entry.envelope == logged { made.intent.clone() } else { entry.envelope.clone() };
        BundleEntry { envelope, proof: entry.proof.clone() }
    });
    made.bundle = Bundle::new(entries.collect()).unwrap();
    let refusal = refusal(&scene, &made);
    assert!(matches!(refusal, Refusal::Evidence(verify::Refusal::NotIncluded(_))), "{refusal}");
    // Or left out, with all the rest: no custodian opens anything without an entry.
    let without: Vec<_> = made.bundle.entries().iter().filter(|it| it.envelope != made.intent).cloned().collect();
    made.bundle = Bundle::new(without).unwrap();
    let refused = self::refusal(&scene, &made);
    assert!(matches!(refused, Refusal::Evidence(verify::Refusal::Shape(_))), "{refused}");
}

#[test]
fn nobody_but_the_gateway_intends_and_nobody_approves_for_another() {
    let forged = Scene::refused(|plan| plan.gateway = "vendor");
    assert!(forged.contains("has no signature by a `gateway` key"), "{forged}");
    let nobody = Scene::refused(|plan| plan.approvers.clear());
    assert!(nobody.contains("needs 1 `approver` signature(s) of `supervisor`, has 0"), "{nobody}");
    let another = Scene::refused(|plan| plan.approvers = vec!["vendor"]);
    assert!(another.contains("of `supervisor`, has 0"), "{another}");
    // An approval of another request, of the same reader for the same.
    let mut scene = Scene::new();
    let old = scene.make();
    scene.plan.approvers.clear();
    let mut made = scene.make();
    made.others.push(old.others[0].clone());
    made.bundle = scene.prove(&made);
    let refusal = refusal(&scene, &made);
    assert!(refusal.to_string().contains("is of another request"), "{refusal}");
}

#[test]
fn a_request_is_for_its_purpose_its_countries_and_its_budget() {
    let purpose = Scene::refused(|plan| plan.purpose = "curiosity".to_owned());
    assert!(purpose.contains("a purpose for which the class is not read"), "{purpose}");
    let more = Budget { rows: 101, ..BUDGET };
    let request = Scene::refused(|plan| plan.budget = more);
    assert!(request.contains("more than the request allows"), "{request}");
    let more = Budget { rows: 1001, ..BUDGET };
    let class = Scene::refused(|plan| (plan.asked, plan.budget) = (more, more));
    assert!(class.contains("more than the class allows"), "{class}");
    let class = Scene::refused(|plan| plan.intent_class = "statistics".to_owned());
    assert!(class.contains("for another region or class"), "{class}");
    let class = Scene::refused(|plan| plan.intent_class = "diaries".to_owned());
    assert!(class.contains("a class that the policy lacks"), "{class}");
    let region = Scene::refused(|plan| plan.intent_region = "moscow".to_owned());
    assert!(region.contains("is for another region"), "{region}");
    let country = Scene::refused(|plan| plan.countries = vec!["DE".to_owned()]);
    assert!(country.contains("from a country that the intent does not name"), "{country}");
    let standing = attest::Standing { code: stdx::Digest::of(b"other"), schema: stdx::Digest::of(b""), uses: 9 };
    let standing = Scene::refused(|plan| plan.standing = Some(standing));
    assert!(standing.contains("stands for other code"), "{standing}");
}

#[test]
fn what_is_over_is_over() {
    let lease = Scene::refused(|plan| plan.expires_s = 901);
    assert!(lease.contains("lasts for longer than the class allows"), "{lease}");
    let request = Scene::refused(|plan| plan.until_s = 0);
    assert!(request.contains("the request is for the time"), "{request}");
    let status = Scene::refused(|plan| plan.status_s = 0);
    assert!(status.contains("the status is for the time"), "{status}");
    let worker = Scene::refused(|plan| plan.worker_s = 0);
    assert!(worker.contains("the worker's key is for the time"), "{worker}");
    let week = Scene::refused(|plan| plan.worker_s = 7 * 86_400);
    assert!(week.contains("longer than a day"), "{week}");
    let mut scene = Scene::new();
    let made = scene.make();
    let at = |seconds| ManualClock::new(scene.now().after(Duration::from_secs(seconds)));
    let decide = |seconds| scene.decide_at("member", &made.ask(), &at(seconds), Seen::default());
    decide(299).unwrap();
    assert!(matches!(decide(301), Err(Refusal::Stale { what: "the status", .. })), "no newer one came");
    scene.world.clock.advance(Duration::from_secs(301));
    scene.status();
    let refused = refusal(&scene, &made);
    assert!(matches!(refused, Refusal::Stale { what: "the intent", .. }), "somebody kept it back: {refused}");
}

#[test]
fn a_clock_that_was_set_back_opens_nothing() {
    let mut scene = Scene::new();
    let made = scene.make();
    let back = ManualClock::new(UnixTime::from_seconds(scene.now().seconds() - 3600));
    let refused = scene.decide_at("member", &made.ask(), &back, Seen::default()).map(drop).unwrap_err();
    assert!(matches!(refused, Refusal::Clock { .. }), "the witnesses' clocks are ahead: {refused}");
    // Old evidence with an old clock: the ledger has seen later times.
    let refused = scene.decide_at(
        "member",
        &made.ask(),
        &ManualClock::new(scene.now()),
        Seen { time: scene.now().after(Duration::from_secs(3600)), status: None },
    );
    assert!(matches!(refused, Err(Refusal::Clock { .. })));
}

#[test]
fn a_stop_stops() {
    let mut scene = Scene::new();
    let mut made = scene.make();
    let enrolment = made.others[1].id();
    for stop in [
        AccessStop::Region,
        AccessStop::Class(APPROVED_CLASS.parse().unwrap()),
        AccessStop::Request(made.request.id()),
        AccessStop::Worker(enrolment),
    ] {
        scene.plan.stopped = vec![stop.clone()];
        *made.others.last_mut().unwrap() = scene.status();
        made.bundle = scene.prove(&made);
        let refusal = refusal(&scene, &made);
        assert!(matches!(&refusal, Refusal::Stopped(found) if *found == stop), "{refusal}");
    }
    scene.plan.stopped = vec![AccessStop::Class("statistics".parse().unwrap()), AccessStop::Request(enrolment)];
    *made.others.last_mut().unwrap() = scene.status();
    made.bundle = scene.prove(&made);
    scene.decide_as("member", &made.ask()).unwrap();
}

/// A gateway keeps the status with the stop back, and proves the one before under checkpoints of now.
#[tokio::test]
async fn a_status_from_before_a_stop_opens_nothing() {
    let mut scene = Scene::new();
    let mut made = scene.make();
    let before = scene.newest.clone();
    let folder = tempfile::tempdir().unwrap();
    let ledger = ledger(folder.path(), "state.sqlite").await;
    // Decided before the custodian heard of the stop, and noted after.
    let late = scene.decide_as("member", &made.ask()).unwrap();
    let renewed = scene.status();
    ledger.learn(&scene.current(&renewed).unwrap()).await.unwrap();
    scene.plan.stopped = vec![AccessStop::Region];
    let stop = scene.status();
    made.bundle = scene.prove(&made);
    assert!(matches!(refusal(&scene, &made), Refusal::Stopped(AccessStop::Region)), "it asks for itself");
    ledger.learn(&scene.current(&stop).unwrap()).await.unwrap();
    assert!(matches!(ledger.note(late).await, Err(LedgerError::Changed)));
    assert_eq!(ledger.totals(scene.now()).await.unwrap().uses, 0);
    // Whoever answers it lies as well: it has seen a newer one, and that is on its disk.
    drop(ledger);
    let ledger = crate::grant::reopened(folder.path(), "state.sqlite").await;
    let seen = ledger.seen().await.unwrap();
    let number = seen.status.unwrap();
    for lie in [&before, &renewed] {
        scene.newest = lie.clone();
        ledger.learn(&scene.current(lie).unwrap()).await.unwrap();
        let clock = ManualClock::new(scene.now());
        let refused = scene.decide_at("member", &made.ask(), &clock, seen).map(drop).unwrap_err();
        assert!(matches!(refused, Refusal::Superseded { seen, .. } if seen == number), "{refused}");
    }
    assert_eq!(ledger.seen().await.unwrap().status, Some(number), "nobody made it forget");
    // A custodian that has seen nothing: for some minutes, whatever the checkpoint's age and the status's own end.
    scene.world.clock.advance(STATUS_AGE_MAX + Duration::from_secs(1));
    made.intent = scene.intent(made.request.id(), &made.headers);
    made.bundle = scene.prove(&made);
    assert!(matches!(refusal(&scene, &made), Refusal::Stale { what: "the status", .. }));
}

#[test]
fn a_status_counts_in_its_own_stream_and_not_ahead_of_time() {
    let mut scene = Scene::new();
    let made = scene.make();
    scene.decide_as("member", &made.ask()).unwrap();
    scene.plan.status_stream = "access/supervisor".to_owned();
    let elsewhere = scene.status();
    let refused = scene.current(&elsewhere).map(drop).unwrap_err();
    assert!(refused.to_string().contains("in another stream than its region's"), "{refused}");
    scene.plan.status_stream = format!("region/{}", testkit::REGION);
    // Its signer's clock was an hour ahead: it would stay fresh for an hour.
    let now = scene.now();
    scene.world.clock.advance(Duration::from_secs(3600));
    let ahead = scene.status();
    scene.world.clock.set(now);
    scene.newest = ahead;
    assert!(matches!(refusal(&scene, &made), Refusal::OutOfTime { what: "the status", .. }));
}

#[test]
fn a_worker_is_the_one_that_the_intent_names_in_its_region_with_its_code() {
    let region = Scene::refused(|plan| plan.worker_region = "moscow".to_owned());
    assert!(region.contains("it is not in this region"), "{region}");
    let code = Scene::refused(|plan| plan.worker_code = "other code");
    assert!(code.contains("other code than the host was enrolled with"), "{code}");
    let mut scene = Scene::new();
    let mut made = scene.make();
    let enrolment = made.others[1].id();
    let name = "host-2.example/host".parse().unwrap();
    let stranger = SignerKey::generate(name, KeyKind::Ed25519, &SystemEntropy).unwrap();
    made.workers[0] = scene.certify(enrolment, &stranger);
    assert!(refusal(&scene, &made).to_string().contains("not certified by the enrolled host"));
    made.workers[0] = scene.certify(made.request.id(), &scene.host);
    assert!(refusal(&scene, &made).to_string().contains("not certified by the enrolled host"));
    // One intent for two workers: the second has a key of the same host, and the intent names the first.
    scene.worker = PrivateKey::generate(Kem::P256, &SystemEntropy).unwrap();
    made.workers[0] = scene.certify(enrolment, &scene.host);
    assert!(refusal(&scene, &made).to_string().contains("not the one that the intent names"));
}

#[test]
fn every_worker_of_an_intent_is_checked_like_the_only_one() {
    let mut scene = Scene::of_workers(3);
    let made = scene.make();
    scene.decide_as("member", &made.ask()).unwrap();
    let refused = |scene: &Scene, made: &Made| refusal(scene, made).to_string();
    let enrolments: Vec<_> = made.others[1..4].iter().map(Envelope::id).collect();

    // One too few, in another order, one of them twice, a fourth one's key in a place.
    let with = |scene: &Scene, workers: Vec<Envelope>| {
        let ask = Ask { workers: &workers, ..made.ask() };
        scene.decide_as("member", &ask).map(drop).unwrap_err().to_string()
    };
    let given = |places: &[usize]| places.iter().map(|at| made.workers[*at].clone()).collect::<Vec<_>>();
    assert!(with(&scene, given(&[0, 1])).contains("2 keys came, and the intent names 3"));
    assert!(with(&scene, given(&[0, 1, 2, 2])).contains("4 keys came, and the intent names 3"));
    assert!(with(&scene, given(&[0, 2, 1])).contains("not the one that the intent names"));
    assert!(with(&scene, given(&[0, 1, 1])).contains("not the one that the intent names"));
    let fourth = PrivateKey::generate(Kem::XWing, &SystemEntropy).unwrap();
    let mut workers = given(&[0, 1]);
    workers.push(scene.certify_key(enrolments[2], &scene.others[1].0, &fourth));
    assert!(with(&scene, workers).contains("not the one that the intent names"));
    // The third, certified by the second's host.
    let mut workers = given(&[0, 1]);
    workers.push(scene.certify_key(enrolments[2], &scene.others[0].0, &scene.others[1].1));
    assert!(with(&scene, workers).contains("not certified by the enrolled host"));

    // An enrolment too few, and one that nobody needs.
    let mut fewer = scene.make();
    fewer.others.remove(3);
    fewer.bundle = scene.prove(&fewer);
    assert!(refused(&scene, &fewer).contains("not certified by the enrolled host"));
    let mut more = scene.make();
    more.others.push(scene.enrol());
    more.bundle = scene.prove(&more);
    assert!(refused(&scene, &more).contains("an enrolment that no worker needs"));

    // A stop of any of them stops all.
    for number in 1..4 {
        let made = scene.make();
        scene.plan.stopped = vec![attest::AccessStop::Worker(made.others[number].id())];
        scene.status();
        assert!(matches!(refusal(&scene, &made), Refusal::Stopped(_)), "{number}");
        scene.plan.stopped.clear();
        scene.status();
    }
}

#[test]
fn a_request_that_stands_binds_the_code_of_all_workers() {
    let mut scene = Scene::of_workers(2);
    let standing = attest::Standing { code: Digest::of(b"code"), schema: Digest::of(b"schema"), uses: 3 };
    scene.plan.standing = Some(standing);
    let mut made = scene.make();
    scene.decide_as("member", &made.ask()).unwrap();
    // The second host is enrolled with other code, and its worker has it.
    let key = scene.others[0].0.verifier().clone();
    let enrolment = scene.enrol_host(key, "other code");
    scene.plan.worker_code = "other code";
    made.workers[1] = scene.certify_key(enrolment.id(), &scene.others[0].0, &scene.others[0].1);
    made.others[2] = enrolment;
    made.bundle = scene.prove(&made);
    assert!(refusal(&scene, &made).to_string().contains("stands for other code than the worker has"));
}

#[test]
fn an_intent_opens_its_own_objects_and_no_others() {
    let mut scene = Scene::new();
    let made = scene.make();
    let others = scene.objects();
    let others: Vec<Header> = others.iter().map(|object| Header::parse(object).unwrap().0).collect();
    let refused = |headers: &[Header]| {
        let ask = Ask { headers, ..made.ask() };
        scene.decide_as("supervisor", &ask).map(drop).unwrap_err().to_string()
    };
    for headers in [&others[..], &made.headers[..1], &[made.headers[0].clone(), others[1].clone()]] {
        let mut headers = headers.to_vec();
        headers.sort_by_key(|header| header.bound.id);
        assert!(refused(&headers).contains("not those that the intent names"));
    }
    let mut swapped = made.headers.clone();
    swapped.swap(0, 1);
    assert!(refused(&swapped).contains("not ascending"));
    assert!(refused(&[made.headers[0].clone(), made.headers[0].clone()]).contains("not ascending"));
    assert!(refused(&[]).contains("there must be 1 to"));
    // As many as it says: what the gateway asked for is what the log shows.
    let fewer = Scene::refused(|plan| plan.budget = Budget { objects: 1, ..BUDGET });
    assert!(fewer.contains("more than the intent allows"), "{fewer}");
}

/// A gateway that relabels an object gets a grant for a label that its share was not made for.
#[tokio::test]
async fn a_false_label_is_found_by_the_key() {
    let mut scene = Scene::new();
    scene.plan.countries = vec!["JP".to_owned()];
    let mut made = scene.make();
    let japan = "JP".parse().unwrap();
    let others = made.headers.iter().map(|header| &header.bound).filter(|bound| bound.country != japan);
    let others: Vec<_> = others.map(|bound| bound.id).collect();
    for header in &mut made.headers {
        header.bound.country = japan;
    }
    made.intent = scene.intent(made.request.id(), &made.headers);
    made.bundle = scene.prove(&made);
    let admitted = scene.decide_as("supervisor", &made.ask()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let noted = ledger(folder.path(), "state.sqlite").await.note(admitted).await.unwrap();
    let key = PrivateKey::from_text(&scene.custody.supervisor_key.to_text()).unwrap();
    let grant = noted.open(&FileKeys::new(vec![key]), &|_| false, &SystemEntropy).unwrap();
    assert!(!others.is_empty());
    assert_eq!((grant.granted.len(), grant.closed), (made.headers.len() - others.len(), others));
}

#[test]
fn another_policy_than_the_one_in_force_opens_nothing() {
    let mut scene = Scene::new();
    let made = scene.make();
    scene.world.succeed(|_| {});
    let refused = refusal(&scene, &made);
    assert!(refused.to_string().contains("under another policy"), "{refused}");
    let made = scene.make();
    scene.decide_as("member", &made.ask()).unwrap();
}

#[test]
fn what_nobody_asked_for_spoils_the_whole() {
    let mut scene = Scene::new();
    let mut made = scene.make();
    let more = scene.request();
    made.others.push(more);
    made.bundle = scene.prove(&made);
    assert!(matches!(refusal(&scene, &made), Refusal::Evidence(verify::Refusal::Shape(_))));
    let mut made = scene.make();
    let heartbeat = scene.world.genesis().clone();
    let entries = scene.world.bundle(&[(testkit::VENDOR_LOG, &heartbeat)]);
    made.bundle = made.bundle.with(&entries).unwrap();
    assert!(matches!(refusal(&scene, &made), Refusal::Evidence(verify::Refusal::Shape(_))));
    assert_eq!(SUPERVISOR_LOG, scene.world.supervisor_log.origin().as_str());
}
