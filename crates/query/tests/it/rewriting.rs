//! Lines that become columns: nothing is lost, nothing is there twice, nobody else can do it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use api::{Made, ResultFormat};
use attest::{Envelope, Rewriting, Standing, Statement};
use bytes::Bytes;
use query::WorkerError;
use seal::Header;
use stdx::{Digest, SystemEntropy};
use storage::{FileObjects, ObjectStore};
use testkit::{APPROVED_CLASS, Dying, Effect, REGION, files};
use tlog::{KeyKind, SignerKey};
use vault::{ManifestError, Manifests, RewritingError, objects_of};

use crate::scene::{CODE, Question, Scene, detection};

pub(crate) const ALL: &str = "SELECT country, rule, size, taken FROM detections ORDER BY size, country";

/// Three batches of two countries, taken in over a minute.
pub(crate) async fn with_batches() -> Scene {
    let scene = Scene::new().await;
    let first = scene.sealed(APPROVED_CLASS, "DE", format!("{}{}", detection("one", 10), detection("two", 20)));
    let second = scene.sealed(APPROVED_CLASS, "JP", detection("one", 30));
    scene.take(&[first, second]).await;
    scene.pass(Duration::from_secs(60));
    scene.take(&[scene.sealed(APPROVED_CLASS, "DE", detection("three", 40))]).await;
    scene
}

/// Names of what is in the store, and how many manifests say so.
fn stored(scene: &Scene) -> Vec<String> {
    files(&scene.folder.path().join("store")).into_keys().filter(|name| name.contains("segment/")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_become_columns_and_every_answer_stays_the_same() {
    let mut scene = with_batches().await;
    let before = scene.answer(APPROVED_CLASS, ALL).await;
    assert_eq!(before.lines().count(), 5);
    assert_eq!(scene.compact(APPROVED_CLASS).await, 1);
    assert_eq!(scene.answer(APPROVED_CLASS, ALL).await, before);
    let manifests = scene.manifests().await;
    let segments: Vec<_> = manifests.chain().segments().collect();
    assert_eq!((segments.len(), segments[0].objects.len(), stored(&scene).len()), (1, 2, 1), "one for each country");
    assert_eq!(segments[0].from.map(|from| segments[0].until.since(from).as_secs()), Some(60));
    let needed = async |condition: &str| {
        let text = format!("SELECT rule FROM detections WHERE {condition}");
        scene.plan(&Question::of(APPROVED_CLASS, &text)).await.unwrap().objects.len()
    };
    assert_eq!(needed("taken <= '2026-01-01T00:00:00Z'").await, 2, "the first was taken then");
    assert_eq!(needed("taken < '2026-01-01T00:00:00Z'").await, 0);
    assert_eq!(needed("country = 'JP'").await, 1);
    // More lines come, and small columns become one.
    scene.take(&[scene.sealed(APPROVED_CLASS, "JP", detection("four", 50))]).await;
    let before = scene.answer(APPROVED_CLASS, ALL).await;
    assert_eq!(before.lines().count(), 6);
    assert_eq!(scene.compact(APPROVED_CLASS).await, 2, "lines first, then what there is in columns");
    assert_eq!(scene.answer(APPROVED_CLASS, ALL).await, before);
    assert_eq!(stored(&scene).len(), 1);
    assert_eq!(scene.compact(APPROVED_CLASS).await, 0);
    let checked = vault::check(&scene.objects).await.unwrap();
    assert_eq!(checked.damages, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_again_is_kept_once_before_and_after() {
    let mut scene = Scene::new().await;
    let batch = scene.sealed(APPROVED_CLASS, "DE", detection("one", 10));
    // The same event in another batch, as no endpoint sends it.
    let other = scene.sealed(APPROVED_CLASS, "DE", format!("{}{}", detection("one", 10), detection("two", 20)));
    scene.take(&[batch.clone(), other.clone()]).await;
    let (_, end) = scene.rewritten(&scene.compaction(APPROVED_CLASS)).await.unwrap();
    let says = statement(end.made.as_ref().unwrap()).predicate;
    assert_eq!((says.events, says.doubles, says.unread), (2, 1, vec![]));
    scene.compact(APPROVED_CLASS).await;
    let answer = scene.answer(APPROVED_CLASS, ALL).await;
    assert_eq!(answer.lines().count(), 3, "{answer}");
    scene.take(&[batch.clone(), other]).await;
    scene.compact(APPROVED_CLASS).await;
    scene.take(&[batch]).await;
    assert_eq!(scene.answer(APPROVED_CLASS, ALL).await, answer);
    assert_eq!(scene.manifests().await.chain().segments().count(), 1);
}

pub(crate) fn statement(made: &Made) -> Statement<Rewriting> {
    Statement::decode(Envelope::parse(made.statement.as_bytes()).unwrap().payload()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_not_be_read_stays_as_it_is_and_other_code_may_try() {
    let mut scene = with_batches().await;
    let odd = scene.sealed(APPROVED_CLASS, "DE", "{\"of\":\"a later version\"}\n");
    scene.take(&[odd.clone(), scene.sealed(APPROVED_CLASS, "JP", "")]).await;
    let before = scene.ask(&Question::of(APPROVED_CLASS, ALL)).await;
    assert_eq!(before.1.unreadable, 1);
    assert_eq!(scene.compact(APPROVED_CLASS).await, 1, "nobody tries again and again");
    assert_eq!(scene.ask(&Question::of(APPROVED_CLASS, ALL)).await, before);
    let manifests = scene.manifests().await;
    let segment = manifests.chain().segments().next().unwrap();
    let unread = segment.unread.as_ref().unwrap();
    let name = Header::parse(&odd).unwrap().0.bound.id;
    assert_eq!((unread.code, &unread.objects[..]), (Digest::of(CODE), &[name][..]));
    let kept = segment.objects.iter().find(|kept| kept.id == name).unwrap();
    let key = format!("segment/{REGION}/{APPROVED_CLASS}/{}", segment.segment).parse().unwrap();
    let bytes = scene.objects.get(&key).await.unwrap().unwrap();
    assert_eq!(bytes[kept.at as usize..][..kept.bytes as usize], odd, "to the byte");
    // What nobody can read is no reason to lose it with the next.
    scene.take(&[scene.sealed(APPROVED_CLASS, "DE", detection("four", 50))]).await;
    scene.compact(APPROVED_CLASS).await;
    assert_eq!(scene.ask(&Question::of(APPROVED_CLASS, ALL)).await.1.unreadable, 1);
    // Neither is what nobody can open, and it keeps nothing else from becoming columns.
    let wrongly = testkit::sealed_wrongly(|| scene.sealed(APPROVED_CLASS, "DE", detection("five", 60)));
    scene.take(&wrongly.map(Into::into)).await;
    scene.take(&[scene.sealed(APPROVED_CLASS, "DE", detection("five", 60))]).await;
    scene.compact(APPROVED_CLASS).await;
    let after =
        scene.ask(&Question::of(APPROVED_CLASS, "SELECT count(*) AS n FROM detections WHERE rule = 'five'")).await;
    assert_eq!((after.0.as_str(), after.1.unreadable), ("n\n1\n", 4));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_writes_nothing_anew_but_for_its_own_code_and_gives_out_nothing() {
    let mut scene = with_batches().await;
    let good = scene.compaction(APPROVED_CLASS);
    let plan = scene.plan(&good).await.unwrap();
    let standing = good.standing.unwrap();
    let refused = async |scene: &mut Scene, question: &Question| {
        let request = scene.granted(question, &plan).await;
        scene.worker.run(request).await.unwrap_err()
    };
    for (rows, bytes) in [(1, 0), (0, 1)] {
        let error = refused(&mut scene, &Question { rows, bytes, ..good.clone() }).await;
        assert!(error.to_string().contains("give out nothing"), "{error}");
    }
    let error = refused(&mut scene, &Question { standing: None, ..good.clone() }).await;
    assert!(error.to_string().contains("must stand"), "{error}");
    let schema = Digest::of(b"other columns");
    let question = Question { standing: Some(Standing { schema, ..standing }), ..good.clone() };
    assert!(matches!(refused(&mut scene, &question).await, WorkerError::Schema { .. }));
    for (text, format) in [(good.text.as_str(), ResultFormat::Csv), (ALL, ResultFormat::Sealed)] {
        let question = Question { format, ..Question { text: text.to_owned(), ..good.clone() } };
        let error = refused(&mut scene, &question).await;
        assert!(error.to_string().contains("nothing else, is given out sealed"), "{error}");
    }
    // The grant names objects; others are not written.
    let mut request = scene.granted(&good, &plan).await;
    request.objects.pop();
    assert!(matches!(scene.worker.run(request).await, Err(WorkerError::Refused(_))));
    assert_eq!(scene.compact(APPROVED_CLASS).await, 1);
}

/// A statement that this key has signed.
pub(crate) fn signed(made: &Made, key: &SignerKey, change: impl FnOnce(&mut Statement<Rewriting>)) -> Made {
    let mut statement = statement(made);
    change(&mut statement);
    let envelope = Envelope::sign(statement.encode().unwrap(), &[key]).unwrap();
    Made { statement: String::from_utf8(envelope.to_bytes()).unwrap(), ..made.clone() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vault_takes_nothing_without_the_word_of_the_enrolled_host_for_all_of_it() {
    let mut scene = with_batches().await;
    scene.take(&[scene.sealed(APPROVED_CLASS, "DE", "nothing that reads")]).await;
    let (segment, end) = scene.rewritten(&scene.compaction(APPROVED_CLASS)).await.unwrap();
    let (good, manifests) = (end.made.unwrap(), scene.manifests().await);
    let question = Question::of(APPROVED_CLASS, ALL);
    let plan = scene.plan(&question).await.unwrap();
    let evidence = scene.granted(&question, &plan).await.evidence;
    let refused = |segment: &Bytes, made: &Made| match scene.check(manifests.chain(), segment, made) {
        Ok(_) => panic!("it was taken"),
        Err(error) => error,
    };
    let stranger = SignerKey::generate("host-1.example/host".parse().unwrap(), KeyKind::Ed25519, &SystemEntropy);
    let forged = signed(&good, &stranger.unwrap(), |_| {});
    assert!(refused(&segment, &forged).to_string().contains("not the enrolled host's"));
    // The host's own key, and a statement that does not fit what is there.
    let by_host = |change: &dyn Fn(&mut Statement<Rewriting>)| signed(&good, &scene.host, change);
    let less = by_host(&|it| it.predicate.replaced.truncate(1));
    assert!(refused(&segment, &less).to_string().contains("other objects"));
    let unlogged = by_host(&|it| it.predicate.intent = attest::StatementId::of(b"none"));
    assert!(refused(&segment, &unlogged).to_string().contains("than the one in the log"));
    let others = by_host(&|it| it.subject[0].digest.sha256 = Digest::of(b"other objects"));
    assert!(refused(&segment, &others).to_string().contains("than the one in the log"));
    let gone = by_host(&|it| it.predicate.replaced = vec![Digest::of(b"none")]);
    assert!(matches!(refused(&segment, &gone), RewritingError::Gone(_)));
    let elsewhere = by_host(&|it| it.predicate.region = "moscow".parse().unwrap());
    assert!(refused(&segment, &elsewhere).to_string().contains("another region"));
    let class = by_host(&|it| it.predicate.class = testkit::OPEN_CLASS.parse().unwrap());
    assert!(refused(&segment, &class).to_string().contains("than the intent"));
    // A reader's own query, logged and announced, allows nobody to replace anything.
    let read = by_host(&|it| it.predicate.intent = intent_of(&evidence));
    let reading = refused(&segment, &Made { evidence: evidence.clone(), ..read });
    assert!(reading.to_string().contains("not about writing anew"), "{reading}");
    let unread = by_host(&|it| it.predicate.unread.push(Digest::of(b"none")));
    assert!(refused(&segment, &unread).to_string().contains("lost what it can't read"));
    let dropped = by_host(&|it| it.predicate.unread.clear());
    assert!(refused(&segment, &dropped).to_string().contains("is there already"));
    // What comes is not what the host has signed, or nothing that anybody may keep.
    let naming = |segment: &[u8]| by_host(&|it| it.subject[1].digest.sha256 = Digest::of(segment));
    let cut = segment.slice(..segment.len() - 1);
    assert!(refused(&cut, &good).to_string().contains("another segment"));
    assert!(matches!(refused(&cut, &naming(&cut)), RewritingError::Segment(_)));
    let objects = objects_of(&segment).unwrap();
    assert_eq!(objects.len(), 3);
    let made_of = |objects: &[Bytes]| -> Bytes {
        let one = |object: &Bytes| [&(object.len() as u32).to_be_bytes()[..], object].concat();
        [b"clerestory-segment 1\n".to_vec(), objects.iter().flat_map(one).collect()].concat().into()
    };
    assert_eq!(made_of(&objects), segment);
    let plain = made_of(&[Bytes::from_static(b"plaintext")]);
    assert!(matches!(refused(&plain, &naming(&plain)), RewritingError::Refused(_)));
    let twice = made_of(&[&objects[..], &objects[..1]].concat());
    assert!(matches!(refused(&twice, &naming(&twice)), RewritingError::Object(..)));
    let foreign = made_of(&[&objects[..], &[scene.sealed(APPROVED_CLASS, "CH", "")]].concat());
    assert!(refused(&foreign, &naming(&foreign)).to_string().contains("country that was not read"));
    let other = made_of(&[scene.sealed(testkit::OPEN_CLASS, "DE", "")]);
    assert!(refused(&other, &naming(&other)).to_string().contains("another region or class"));
    let old: Vec<Bytes> = objects.iter().filter(|it| manifests.chain().object(&id(it)).is_some()).cloned().collect();
    let old = made_of(&old);
    assert!(refused(&old, &naming(&old)).to_string().contains("nothing new"));
    assert!(scene.check(manifests.chain(), &segment, &good).is_ok());
}

fn intent_of(evidence: &str) -> attest::StatementId {
    let bundle = attest::Bundle::parse(evidence.as_bytes()).unwrap();
    let mut all = bundle.entries().iter().map(|entry| &entry.envelope);
    all.find(|it| Statement::<attest::AccessIntent>::decode(it.payload()).is_ok()).unwrap().id()
}

pub(crate) fn id(object: &Bytes) -> seal::BatchId {
    Header::parse(object).unwrap().0.bound.id
}

pub(crate) fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to.join("incoming")).unwrap();
    for (name, path) in files(from) {
        let to = to.join(name);
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::fs::copy(path, to).unwrap();
    }
}

pub(crate) async fn opened(store: &Arc<dyn ObjectStore>) -> Manifests {
    Manifests::open(Arc::clone(store), REGION.parse().unwrap()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn whichever_call_to_the_store_fails_everything_is_there_once() {
    let mut scene = with_batches().await;
    let question = scene.compaction(APPROVED_CLASS);
    let (segment, end) = scene.rewritten(&question).await.unwrap();
    let made = end.made.unwrap();
    let raw = scene.manifests().await.chain().segments().map(|it| it.segment).collect::<Vec<_>>();
    let mut failed = 0;
    for calls in 1.. {
        let mut ended = true;
        for effect in [Effect::NotApplied, Effect::Applied] {
            let folder = tempfile::tempdir().unwrap();
            copy(&scene.folder.path().join("store"), folder.path());
            let store: Arc<dyn ObjectStore> = Arc::new(FileObjects::open(folder.path()).await.unwrap());
            let replacement = scene.check(opened(&store).await.chain(), &segment, &made).unwrap();
            let dying = Arc::new(Dying::new(Arc::clone(&store), calls, effect));
            let dying_store: Arc<dyn ObjectStore> = Arc::clone(&dying) as _;
            if let Ok(mut manifests) = Manifests::open(dying_store, REGION.parse().unwrap()).await {
                let _ = manifests.replace(&replacement).await;
            }
            ended &= !dying.gone();
            failed += usize::from(dying.gone());
            // Who comes next sees one or the other, whole, and takes away what was left.
            let mut manifests = opened(&store).await;
            let names: Vec<Digest> = manifests.chain().segments().map(|it| it.segment).collect();
            let new = vec![replacement.segment().segment];
            assert!(names == raw || names == new, "call {calls}, {effect:?}: {names:?}");
            assert_eq!(vault::check(&store).await.unwrap().damages, [], "call {calls}, {effect:?}");
            manifests.withdraw().await.unwrap();
            manifests.retain(stdx::UnixTime::EPOCH, &[].into()).await.unwrap();
            let there = || files(folder.path()).into_keys().filter(|name| name.contains("segment/")).count();
            assert_eq!(there(), names.len(), "call {calls}, {effect:?}: nothing is left over");
            // And it comes to its end after all.
            if names == raw {
                let (segment, end) = scene.rewritten(&question).await.unwrap();
                let again = scene.check(manifests.chain(), &segment, &end.made.unwrap()).unwrap();
                manifests.replace(&again).await.unwrap();
                assert_eq!(there(), 1);
            }
            assert!(matches!(scene.check(manifests.chain(), &segment, &made), Err(RewritingError::Gone(_))));
        }
        if ended {
            break;
        }
    }
    assert!(failed >= 12, "{failed}: get, list, announcement, segment, manifest, two deletions");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_or_goes_meanwhile_is_neither_lost_nor_there_twice() {
    let mut scene = with_batches().await;
    let (segment, end) = scene.rewritten(&scene.compaction(APPROVED_CLASS)).await.unwrap();
    let (made, mut manifests) = (end.made.unwrap(), scene.manifests().await);
    let replacement = scene.check(manifests.chain(), &segment, &made).unwrap();
    // An intake goes on.
    scene.take(&[scene.sealed(APPROVED_CLASS, "DE", detection("late", 90))]).await;
    let before = scene.answer(APPROVED_CLASS, ALL).await;
    manifests.replace(&replacement).await.unwrap();
    manifests.replace(&replacement).await.unwrap();
    assert_eq!(scene.answer(APPROVED_CLASS, ALL).await, before);
    assert_eq!(stored(&scene).len(), 2);
    // What is written anew has had its time in between: it does not come back.
    let (segment, end) = scene.rewritten(&scene.compaction(APPROVED_CLASS)).await.unwrap();
    let replacement = scene.check(manifests.chain(), &segment, &end.made.unwrap()).unwrap();
    let mut other = scene.manifests().await;
    let kept_s = [(APPROVED_CLASS.parse().unwrap(), 86_400)].into();
    other.retain(stdx::Clock::now(&*scene.clock).after(Duration::from_secs(3 * 86_400)), &kept_s).await.unwrap();
    let refused = manifests.replace(&replacement).await;
    assert!(matches!(refused, Err(ManifestError::NoSegment(..))), "{refused:?}");
    assert_eq!(stored(&scene), [""; 0]);
    assert_eq!(scene.manifests().await.chain().announced().count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_withdrawn_does_not_come_whoever_was_slow() {
    let mut scene = with_batches().await;
    let (segment, end) = scene.rewritten(&scene.compaction(APPROVED_CLASS)).await.unwrap();
    let made = end.made.unwrap();
    // It was announced, and the segment put; then the machine was gone.
    let dying: Arc<dyn ObjectStore> = Arc::new(Dying::new(Arc::clone(&scene.objects), 7, Effect::NotApplied));
    let mut died = Manifests::open(dying, REGION.parse().unwrap()).await.unwrap();
    let replacement = scene.check(died.chain(), &segment, &made).unwrap();
    died.replace(&replacement).await.unwrap_err();
    let mut slow = scene.manifests().await;
    assert_eq!((slow.chain().announced().count(), stored(&scene).len()), (1, 3));
    assert_eq!(scene.manifests().await.withdraw().await.unwrap(), 1);
    assert_eq!(stored(&scene).len(), 2);
    // Somebody who still believes in it puts it there again.
    let refused = slow.replace(&replacement).await;
    assert!(matches!(refused, Err(ManifestError::Withdrawn(..))), "{refused:?}");
    assert_eq!(stored(&scene).len(), 2);
    let before = scene.answer(APPROVED_CLASS, ALL).await;
    assert_eq!(before.lines().count(), 5);
    assert_eq!(scene.compact(APPROVED_CLASS).await, 1);
    assert_eq!(scene.answer(APPROVED_CLASS, ALL).await, before);
}
