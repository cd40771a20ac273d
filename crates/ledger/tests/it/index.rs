//! What is found, by whatever people ask.

use std::collections::BTreeMap;

use attest::{AccessMode, Ended, ReaderKind, Standing};
use ledger::{AccessState, Found, Index, What};
use stdx::Digest;
use testkit::SUPERVISOR_LOG;

use crate::scene::Scene;

/// Whose accesses were found, newest first.
fn who(found: &Found) -> Vec<&str> {
    found.accesses.iter().map(|access| access.who.as_deref().unwrap_or("?")).collect()
}

/// Three people, each with one access, and their names.
fn three(scene: &mut Scene) -> Index {
    let mut names = BTreeMap::new();
    for (who, countries, rows) in [("Ada", &["DE"][..], 5), ("Grace", &["DE", "JP"], 50), ("Alan", &["CH"], 7)] {
        let asked = scene.access(who, countries, rows);
        names.insert(asked.reader.commitment(), who.to_owned());
        scene.wait(3600);
    }
    let mut index = scene.index();
    index.name(&names).unwrap();
    index
}

#[test]
fn each_filter_finds_what_it_says() {
    let mut scene = Scene::new();
    let index = three(&mut scene);
    let all = scene.find(&index, |_| {});
    assert_eq!((all.total, who(&all)), (3, vec!["Alan", "Grace", "Ada"]));
    let sums = all.sums.unwrap();
    assert_eq!((sums.objects, sums.rows, sums.bytes), (6, 62, 620));
    let first = &all.accesses[2];
    assert_eq!(
        (first.employer.as_str(), first.class.as_str(), first.region.as_str()),
        ("vendor", "detections", "zurich")
    );
    assert_eq!((first.state, first.approvals, first.kind), (AccessState::Done, 1, Some(ReaderKind::Person)));
    let times: Vec<_> = all.accesses.iter().map(|it| it.time).collect();

    let found = |change: &dyn Fn(&mut ledger::Filter)| scene.find(&index, change);
    assert_eq!(who(&found(&|it| it.who = Some("gra".to_owned()))), ["Grace"]);
    assert_eq!(who(&found(&|it| it.who = Some("nobody".to_owned()))), [""; 0]);
    assert_eq!(who(&found(&|it| it.country = vec!["JP".parse().unwrap()])), ["Grace"]);
    assert_eq!(who(&found(&|it| it.country = vec!["CH".parse().unwrap(), "JP".parse().unwrap()])), ["Alan", "Grace"]);
    assert_eq!(who(&found(&|it| it.country = vec!["FR".parse().unwrap()])), [""; 0]);
    assert_eq!(found(&|it| it.employer = vec!["vendor".parse().unwrap()]).total, 3);
    assert_eq!(found(&|it| it.employer = vec!["supervisor".parse().unwrap()]).total, 0);
    assert_eq!(found(&|it| it.purpose = vec!["detection-quality".parse().unwrap()]).total, 3);
    assert_eq!(found(&|it| it.purpose = vec!["curiosity".parse().unwrap()]).total, 0);
    assert_eq!(found(&|it| it.class = vec!["statistics".parse().unwrap()]).total, 0);
    assert_eq!(found(&|it| it.region = vec!["zurich".parse().unwrap()]).total, 3);
    assert_eq!(who(&found(&|it| it.from = Some(times[1]))), ["Alan", "Grace"]);
    assert_eq!(who(&found(&|it| it.until = Some(times[1]))), ["Ada"]);
    assert_eq!(who(&found(&|it| it.bytes_min = Some(70))), ["Alan", "Grace"]);
    assert_eq!(who(&found(&|it| it.rows_min = Some(50))), ["Grace"]);
    assert_eq!(found(&|it| it.approvals_min = Some(2)).total, 0);
    assert_eq!(found(&|it| it.approvals_max = Some(1)).total, 3);
    assert_eq!(found(&|it| it.kind = Some(ReaderKind::Service)).total, 0);
    assert_eq!(found(&|it| it.mode = Some(AccessMode::BreakGlass)).total, 0);
    assert_eq!(found(&|it| it.state = vec![AccessState::Done]).total, 3);
    assert_eq!(found(&|it| it.what = vec![What::Request]).total, 3);
    assert_eq!(found(&|it| it.id = Some(all.accesses[1].id)).accesses, [all.accesses[1].clone()]);
}

#[test]
fn pages_follow_each_other_and_the_timeline_counts_all() {
    let mut scene = Scene::new();
    let index = three(&mut scene);
    let mut wanted = scene.wanted();
    wanted.page.rows = 2;
    let first = index.search(&ledger::Filter::default(), &wanted).unwrap();
    assert_eq!((first.total, who(&first)), (3, vec!["Alan", "Grace"]));
    wanted.page.before = Some(first.next.unwrap());
    let second = index.search(&ledger::Filter::default(), &wanted).unwrap();
    assert_eq!((second.total, who(&second), second.next), (3, vec!["Ada"], None));
    assert_eq!(first.timeline, second.timeline);
    assert_eq!(first.timeline.iter().map(|bucket| bucket.total).sum::<u64>(), 3);
    assert!(first.timeline.is_sorted_by(|left, right| left.until == right.from));
    let svg = ledger::svg(&first.timeline);
    assert!(svg.starts_with("<svg") && svg.ends_with("</svg>\n") && svg.matches("<rect").count() >= 6, "{svg}");
    assert!(ledger::bars(&first.timeline).contains('█'));
}

#[test]
fn an_access_is_open_then_missing_and_done_when_its_outcome_comes() {
    let mut scene = Scene::new();
    let asked = scene.request("Ada", &["DE"]);
    scene.approve(asked.envelope.id(), "supervisor");
    let intent = scene.intent(asked.envelope.id(), |_| {});
    let mut index = scene.index();
    let state = |scene: &Scene, index: &Index| scene.find(index, |_| {}).accesses[0].state;
    assert_eq!(state(&scene, &index), AccessState::Open);
    scene.wait(600 + 601);
    assert_eq!(state(&scene, &index), AccessState::Missing);
    assert_eq!(scene.find(&index, |it| it.state = vec![AccessState::Missing]).total, 1);
    assert_eq!(scene.find(&index, |it| it.state = vec![AccessState::Open]).total, 0);
    scene.outcome(intent.id(), Ended::Failed, 0);
    scene.read(&mut index);
    assert_eq!(state(&scene, &index), AccessState::Failed);
    assert_eq!(scene.find(&index, |_| {}).timeline.iter().map(|it| it.bad).sum::<u64>(), 1);
}

#[test]
fn a_standing_request_has_as_many_accesses_as_intents_and_each_its_reader() {
    let mut scene = Scene::new();
    let standing = Standing { code: Digest::of(b"code"), schema: Digest::of(b"schema"), uses: 9 };
    let asked = scene.request_as("prevalence", &["DE"], |it| {
        (it.standing, it.kind) = (Some(standing), ReaderKind::Service);
    });
    scene.approve(asked.envelope.id(), "supervisor");
    let reader = crate::scene::opening("reader", "Ada");
    for named in [None, Some(reader.commitment()), None] {
        let intent = scene.intent(asked.envelope.id(), |it| it.reader = named);
        scene.outcome(intent.id(), Ended::Done, 1);
    }
    let mut index = scene.index();
    let names = [(asked.reader.commitment(), "prevalence".to_owned()), (reader.commitment(), "Ada".to_owned())];
    assert_eq!(index.unnamed(10).unwrap().len(), 2);
    index.name(&names.into()).unwrap();
    assert_eq!(index.unnamed(10).unwrap(), []);
    let found = scene.find(&index, |it| it.kind = Some(ReaderKind::Service));
    assert_eq!(who(&found), ["prevalence", "Ada", "prevalence"]);
    // What is named before the intent comes is known of it, too.
    let intent = scene.intent(asked.envelope.id(), |_| {});
    scene.outcome(intent.id(), Ended::Done, 1);
    scene.read(&mut index);
    assert_eq!(who(&scene.find(&index, |_| {}))[0], "prevalence");
}

#[test]
fn an_index_that_was_closed_and_opened_is_the_same_as_one_that_was_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("index");
    let mut scene = Scene::new();
    let mut names = BTreeMap::new();
    for (who, rows) in [("Ada", 3), ("Grace", 4), ("Alan", 5)] {
        let asked = scene.access(who, &["DE"], rows);
        names.insert(asked.reader.commitment(), who.to_owned());
        let mut index = Index::open(&path, SUPERVISOR_LOG.parse().unwrap()).unwrap();
        scene.read(&mut index);
        index.name(&names).unwrap();
        let checkpoint = index.checkpoint().unwrap().to_owned();
        index.save(&checkpoint).unwrap();
    }
    let mut fresh = scene.index();
    fresh.name(&names).unwrap();
    let kept = Index::open(&path, SUPERVISOR_LOG.parse().unwrap()).unwrap();
    assert_eq!(scene.find(&kept, |_| {}), scene.find(&fresh, |_| {}));
    assert_eq!(kept.findings(scene.world.policy(), scene.now()), fresh.findings(scene.world.policy(), scene.now()));
    // One head and one block: what was written before is gone.
    assert_eq!(std::fs::read_dir(&path).unwrap().count(), 2);
    assert!(Index::open(&path, "other.example/log".parse().unwrap()).is_err());
    let block = std::fs::read_dir(&path).unwrap().map(|it| it.unwrap().path()).find(|it| it.extension().is_some());
    let block = block.unwrap();
    let bytes = std::fs::read(&block).unwrap();
    stdx::durable::write(&block, &bytes[1..]).unwrap();
    let error = kept.search(&ledger::Filter::default(), &scene.wanted()).unwrap_err();
    assert!(error.to_string().contains("is damaged"), "{error}");
}
