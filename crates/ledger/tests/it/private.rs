//! Private parts: who may bring them, who gets them, when they are gone.

use std::sync::Arc;

use attest::{Envelope, Opening};
use ledger::{Private, PrivateError, Redacting, RedactionError, Reviewing, open_disclosure};
use seal::{Kem, PrivateKey};
use stdx::{Digest, SystemEntropy, UnixTime};
use storage::FileObjects;
use testkit::SUPERVISOR_LOG;
use verify::Evidence;

use crate::scene::{Scene, opening};

async fn holder(folder: &tempfile::TempDir) -> Private {
    let path = folder.path().join("private");
    Private::new(Arc::new(FileObjects::create(&path).await.unwrap()))
}

async fn bring(
    scene: &Scene,
    holder: &Private,
    envelopes: &[&Envelope],
    openings: &[&Opening],
) -> Result<(), PrivateError> {
    let bundle = bundle(scene, envelopes);
    let evidence = Evidence::open(scene.world.policy(), &bundle).unwrap();
    let openings: Vec<Opening> = openings.iter().copied().cloned().collect();
    holder.bring(&evidence, &openings).await.map(drop)
}

fn bundle(scene: &Scene, envelopes: &[&Envelope]) -> attest::Bundle {
    scene.world.bundle(&envelopes.iter().map(|it| (SUPERVISOR_LOG, *it)).collect::<Vec<_>>())
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_a_logged_statement_commits_to_is_stored() {
    let folder = tempfile::tempdir().unwrap();
    let (mut scene, holder) = (Scene::new(), holder(&folder).await);
    let (one, other) = (scene.request("Ada", &["DE"]), scene.request("Ada", &["DE"]));
    bring(&scene, &holder, &[&one.envelope], &[&one.reader, &one.ticket]).await.unwrap();
    bring(&scene, &holder, &[&one.envelope], &[&one.reader]).await.unwrap();
    assert_eq!(holder.opening(&one.reader.commitment()).await.unwrap(), Some(one.reader.clone()));
    assert_eq!(holder.opening(&other.reader.commitment()).await.unwrap(), None);
    for foreign in [&other.reader, &opening("reader", "Ada")] {
        let refused = bring(&scene, &holder, &[&one.envelope], &[foreign]).await.unwrap_err();
        assert!(matches!(refused, PrivateError::Foreign { .. }), "{refused}");
    }
    let mut listed = holder.list(None, 9).await.unwrap();
    assert_eq!(listed, holder.list(None, 2).await.unwrap());
    assert_eq!(holder.list(Some(&listed.remove(0)), 9).await.unwrap(), listed);
    // As the page says where it lies.
    let name = one.reader.commitment().to_string();
    let path = folder.path().join("private/objects/private").join(&name[..2]).join(&name[2..4]).join(&name);
    assert_eq!(std::fs::read(&path).unwrap(), one.reader.to_bytes());
    stdx::durable::write(&path, &other.reader.to_bytes()).unwrap();
    assert!(matches!(holder.opening(&one.reader.commitment()).await, Err(PrivateError::Damaged(_))));
}

#[test]
fn a_review_in_the_log_is_the_only_way_to_a_name_and_only_its_key_opens_it() {
    let mut scene = Scene::new();
    let asked = scene.request("Ada", &["DE"]);
    let (review, _) = scene.review(|_| {});
    let key = scene.reviewer.public().to_string();
    let evidence = bundle(&scene, &[&review]);
    let evidence = Evidence::open(scene.world.policy(), &evidence).unwrap();
    let reviewing = Reviewing::of(&evidence, &key, scene.now()).unwrap();
    let disclosed = reviewing.disclose(&asked.reader, &SystemEntropy).unwrap();
    assert_eq!(open_disclosure(&disclosed, review.id(), &scene.reviewer), Some(asked.reader.clone()));
    let stranger = PrivateKey::generate(Kem::P256, &SystemEntropy).unwrap();
    assert_eq!(open_disclosure(&disclosed, review.id(), &stranger), None);
    assert_eq!(open_disclosure(&disclosed, asked.envelope.id(), &scene.reviewer), None, "of another review");
    let swapped = ledger::Disclosure { commitment: asked.ticket.commitment(), ..disclosed };
    assert_eq!(open_disclosure(&swapped, review.id(), &scene.reviewer), None, "in another's place");

    let refused = |key: &str, now| Reviewing::of(&evidence, key, now).unwrap_err().to_string();
    assert!(refused(&stranger.public().to_string(), scene.now()).ends_with("names another key"));
    assert!(refused(&key, scene.in_s(600)).ends_with("is over"));
    assert!(refused("p256:AAAA", scene.now()).contains("key"));
}

#[test]
fn reviews_that_are_none_open_nothing() {
    let refused = |make: &dyn Fn(&mut Scene) -> Vec<Envelope>| {
        let mut scene = Scene::new();
        let envelopes = make(&mut scene);
        let bundle = bundle(&scene, &envelopes.iter().collect::<Vec<_>>());
        let evidence = Evidence::open(scene.world.policy(), &bundle).unwrap();
        Reviewing::of(&evidence, &scene.reviewer.public().to_string(), UnixTime::EPOCH).unwrap_err().to_string()
    };
    let long = refused(&|scene| {
        let until = scene.in_s(24 * 3600 + 1);
        vec![scene.review(|it| it.until = until).0]
    });
    assert!(long.ends_with("is good for longer than a day"), "{long}");
    let over = refused(&|scene| {
        let review = scene.review(|_| {}).0;
        scene.wait(600);
        vec![review]
    });
    assert!(over.ends_with("is over"), "the witnesses' time counts, whatever the clock says: {over}");
    let stream = refused(&|scene| {
        let position = scene.world.position(SUPERVISOR_LOG, "data/vendor");
        vec![scene.review(|it| it.position = position).0]
    });
    assert!(stream.ends_with("whose stream it is in"), "{stream}");
    let none = refused(&|scene| vec![scene.request("Ada", &["DE"]).envelope]);
    assert!(none.contains("access-review"), "{none}");
    let more = refused(&|scene| vec![scene.review(|_| {}).0, scene.request("Ada", &["DE"]).envelope]);
    assert!(more.ends_with("holds entries that nobody asked for"), "{more}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_redaction_names_is_gone_once_it_is_approved_and_comes_back_from_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let (mut scene, holder) = (Scene::new(), holder(&folder).await);
    let (asked, same) = (scene.access("Ada", &["DE"], 5), scene.access("Ada", &["DE"], 5));
    for it in [&asked, &same] {
        bring(&scene, &holder, &[&it.envelope], &[&it.reader, &it.ticket]).await.unwrap();
    }
    let mut index = scene.index();
    let name = |it: &crate::scene::Asked| (it.reader.commitment(), "Ada".to_owned());
    index.name(&[name(&asked), name(&same)].into()).unwrap();
    let redaction = scene.redaction(asked.envelope.id(), &[asked.reader.commitment()]);
    let one = scene.approve(redaction.id(), "supervisor").0;
    let redacting = |scene: &Scene, envelopes: &[&Envelope]| {
        let bundle = bundle(scene, envelopes);
        let evidence = Evidence::open(scene.world.policy(), &bundle).unwrap();
        Redacting::of(&evidence)
    };
    let refused = redacting(&scene, &[&redaction, &one]).unwrap_err();
    assert!(matches!(refused, RedactionError::NotApproved { .. }), "{refused}");
    let foreign = scene.approve(asked.envelope.id(), "vendor").0;
    let refused = redacting(&scene, &[&redaction, &one, &foreign]).unwrap_err();
    assert!(matches!(refused, RedactionError::Unfit(..)), "{refused}");
    scene.read(&mut index);
    assert_eq!(scene.find(&index, |it| it.who = Some("Ada".to_owned())).total, 2, "nothing is approved");

    let other = scene.approve(redaction.id(), "vendor").0;
    let approved = redacting(&scene, &[&redaction, &one, &other]).unwrap();
    for _ in 0..2 {
        holder.redact(&approved).await.unwrap();
    }
    assert_eq!(holder.opening(&asked.reader.commitment()).await.unwrap(), None);
    assert_eq!(holder.opening(&asked.ticket.commitment()).await.unwrap(), Some(asked.ticket.clone()), "not named");
    let refused = bring(&scene, &holder, &[&asked.envelope], &[&asked.reader]).await.unwrap_err();
    assert!(matches!(refused, PrivateError::Redacted(_)), "{refused}");
    // Nor from who keeps openings before their statement is logged, and is brought the same again.
    let refused = holder.keep(&asked.reader).await.unwrap_err();
    assert!(matches!(refused, PrivateError::Redacted(_)), "{refused}");

    scene.read(&mut index);
    let found = scene.find(&index, |_| {});
    let shown: Vec<_> = found.accesses.iter().map(|it| (it.who.as_deref(), it.redacted)).collect();
    assert_eq!(shown, [(Some("Ada"), false), (None, true)]);
    assert_eq!(scene.find(&index, |it| it.what = vec![ledger::What::Redaction]).accesses[0].approvals, 2);
    // Whoever still has the name can't put it back.
    index.name(&[name(&asked)].into()).unwrap();
    assert!(scene.find(&index, |_| {}).accesses[1].redacted);
    // The other one, too: now nobody of this name is left, in no file.
    let path = folder.path().join("index");
    let mut kept = ledger::Index::open(&path, SUPERVISOR_LOG.parse().unwrap()).unwrap();
    let head = || std::fs::read_to_string(path.join("head")).unwrap();
    scene.read(&mut kept);
    kept.name(&[name(&asked), name(&same)].into()).unwrap();
    scene.read(&mut kept);
    assert!(head().contains("Ada"));
    let redaction = scene.redaction(same.envelope.id(), &[same.reader.commitment()]);
    scene.approve(redaction.id(), "supervisor");
    scene.approve(redaction.id(), "vendor");
    scene.read(&mut kept);
    assert!(!head().contains("Ada"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_intents_objects_are_those_of_its_root() {
    let folder = tempfile::tempdir().unwrap();
    let (mut scene, holder) = (Scene::new(), holder(&folder).await);
    let headers = [Digest::of(b"one"), Digest::of(b"two"), Digest::of(b"three")];
    let root = ledger::object_list_root(&headers).unwrap();
    let asked = scene.request("Ada", &["DE"]).envelope;
    let statement = {
        let envelope = scene.intent(asked.id(), |_| {});
        let mut statement = attest::Statement::<attest::AccessIntent>::decode(envelope.payload()).unwrap();
        statement.subject = vec![attest::Subject::new("objects", root)];
        statement.predicate.position = scene.world.position(SUPERVISOR_LOG, "access/supervisor");
        statement
    };
    let key = scene.world.supervisor.key(policy::Role::Gateway).to_secret_text().parse().unwrap();
    let intent = scene.world.record(&statement, &[&key]);
    let bundle = bundle(&scene, &[&intent]);
    let evidence = Evidence::open(scene.world.policy(), &bundle).unwrap();
    let recorded = evidence.one(policy::Role::Gateway).unwrap();
    for other in [&headers[1..], &[], &[headers[1], headers[0], headers[2]]] {
        assert!(matches!(holder.bring_objects(&recorded, other).await, Err(PrivateError::Objects)));
    }
    holder.bring_objects(&recorded, &headers).await.unwrap();
    assert_eq!(holder.objects(&root).await.unwrap(), Some(headers.to_vec()));
    assert_eq!(holder.objects(&headers[0]).await.unwrap(), None);
}

#[test]
fn the_page_shows_an_opening_and_what_it_opens() {
    let page = include_str!("../../../../docs/formats/ledger.md");
    let (_, rest) = page.split_once("```json opening\n").unwrap();
    let (golden, rest) = rest.split_once("\n```").unwrap();
    let opening = Opening::parse(golden.as_bytes()).unwrap();
    assert!(rest.contains(&format!("opens `{}`", opening.commitment())));
}
