//! What its owner has erased goes from columns, too: nothing else does, and nobody leaves anything out by himself.

use std::sync::Arc;

use attest::{Rewriting, Statement};
use bytes::Bytes;
use query::WorkerError;
use seal::BatchId;
use stdx::{Digest, UnixTime};
use storage::{FileObjects, ObjectStore};
use testkit::{APPROVED_CLASS, Dying, Effect, REGION, SUPERVISOR_LOG, files};
use vault::{Lineage, ManifestError, Manifests, NotRenounced, Renounced, RewritingError, evidence_key, manifest_key};

use crate::rewriting::{ALL, copy, id, opened, signed, statement, with_batches};
use crate::scene::{Scene, detection};

/// Batches of two countries as columns, and one of Germany's, which is to go.
async fn with_columns() -> (Scene, Bytes) {
    let mut scene = with_batches().await;
    let one = scene.sealed(APPROVED_CLASS, "DE", format!("{}{}", detection("five", 60), detection("six", 70)));
    scene.take(std::slice::from_ref(&one)).await;
    scene.compact(APPROVED_CLASS).await;
    (scene, one)
}

async fn lineage(scene: &Scene, of: BatchId) -> Lineage {
    let mut lineage = Lineage::new(REGION.parse().unwrap(), move |kept| kept.id == of);
    let key = |number| manifest_key(&REGION.parse().unwrap(), number).unwrap();
    while let Some(manifest) = scene.objects.get(&key(lineage.chain().next())).await.unwrap() {
        lineage.read(&manifest).unwrap();
    }
    lineage
}

#[tokio::test(flavor = "multi_thread")]
async fn erased_events_go_from_columns_and_all_others_stay() {
    let (mut scene, one) = with_columns().await;
    let (name, before) = (id(&one), scene.answer(APPROVED_CLASS, ALL).await);
    assert_eq!(before.lines().count(), 7);
    let old: Vec<BatchId> = lineage(&scene, name).await.found().filter(|(_, it)| it.is_made).map(|it| *it.0).collect();
    assert_eq!(old.len(), 1, "Germany's columns, not Japan's");
    let erased = scene.erase(vec![name]).await;
    assert_eq!((erased.objects, erased.made_of_them.len()), (0, 1));
    assert_eq!(scene.erase(vec![name]).await, erased, "the same again");
    // The next to be written anew is this, before any lines.
    scene.take(&[scene.sealed(APPROVED_CLASS, "JP", detection("seven", 80))]).await;
    let (_, end) = scene.rewritten(&scene.compaction(APPROVED_CLASS)).await.unwrap();
    let says = statement(end.made.as_ref().unwrap()).predicate;
    assert_eq!((says.events, says.omitted, &says.left_out[..], says.owners.len()), (4, 2, &[name][..], 2));
    scene.compact(APPROVED_CLASS).await;
    let left = scene.answer(APPROVED_CLASS, ALL).await;
    let stays = |line: &&str| !line.contains(",five,") && !line.contains(",six,");
    assert_eq!(left.lines().filter(|line| !line.contains(",seven,")).count(), 5);
    assert_eq!(before.lines().filter(stays).filter(|line| left.contains(*line)).count(), 5, "{left}");
    let manifests = scene.manifests().await;
    assert!(manifests.chain().unclean().is_empty());
    assert_eq!(scene.compact(APPROVED_CLASS).await, 0);
    assert_eq!(vault::check(&scene.objects).await.unwrap().damages, []);
    // Whoever reads the manifests knows which columns had them, and what these are erased with.
    let lineage = lineage(&scene, name).await;
    let made: Vec<BatchId> = lineage.found().filter(|(_, it)| it.is_made).map(|it| *it.0).collect();
    assert_eq!((&made, lineage.there().len()), (&old, 0));
    assert_eq!(seal::OwnerSecret::from_bytes(*lineage.owner(&old[0]).unwrap().as_bytes()).name(), old[0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_erased_and_is_sent_again_is_neither_read_nor_kept() {
    let (mut scene, one) = with_columns().await;
    scene.erase(vec![id(&one)]).await;
    scene.compact(APPROVED_CLASS).await;
    let left = scene.answer(APPROVED_CLASS, ALL).await;
    scene.take(&[one.clone(), scene.sealed(APPROVED_CLASS, "JP", "")]).await;
    assert_eq!(scene.answer(APPROVED_CLASS, ALL).await, left);
    assert_eq!(scene.compact(APPROVED_CLASS).await, 0, "no custodian opens it: first it has to go");
    let mut manifests = scene.manifests().await;
    assert_eq!(manifests.leave_out().await.unwrap(), 1);
    assert_eq!(manifests.leave_out().await.unwrap(), 0);
    assert_eq!(scene.compact(APPROVED_CLASS).await, 2);
    assert_eq!(scene.answer(APPROVED_CLASS, ALL).await, left);
    let name = id(&one).to_string();
    for (file, path) in files(&scene.folder.path().join("store")).into_iter().filter(|it| it.0.contains("segment/")) {
        let bytes = std::fs::read(path).unwrap();
        assert!(!bytes.windows(name.len()).any(|it| it == name.as_bytes()), "{file}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vault_erases_nothing_without_the_word_of_a_custodian() {
    let (mut scene, one) = with_columns().await;
    let request = scene.erasure_request(vec![id(&one)]);
    let other = scene.erasure_request(vec![id(&one)]);
    let (word, others) = (scene.erasure(request.id()), scene.erasure(other.id()));
    let refused = |evidence: &[&attest::Envelope]| scene.renounced(evidence).unwrap_err();
    assert!(matches!(refused(&[&request]), NotRenounced::Kept(_)), "a gateway alone");
    assert!(matches!(refused(&[&request, &others]), NotRenounced::Kept(_)), "of another request");
    assert!(matches!(refused(&[&word]), NotRenounced::Evidence(_)));
    assert!(matches!(refused(&[&request, &other, &word]), NotRenounced::Evidence(_)));
    let forged = Renounced::check(scene.world.policy(), b"{}").unwrap_err();
    assert!(matches!(forged, NotRenounced::Form(_)));
    let good = scene.renounced(&[&request, &others, &word]).unwrap();
    assert_eq!(good.objects().iter().copied().collect::<Vec<_>>(), [id(&one)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_leaves_nothing_out_because_a_vault_says_so() {
    let (mut scene, one) = with_columns().await;
    let request = scene.erasure_request(vec![id(&one)]);
    let bundle = Bytes::from(scene.world.bundle(&[(SUPERVISOR_LOG, &request)]).to_bytes());
    let (region, evidence) = (REGION.parse().unwrap(), Digest::of(&bundle));
    scene.objects.put(&evidence_key(&region, &evidence).unwrap(), bundle).await.unwrap();
    let number = scene.manifests().await.chain().next();
    let last = scene.objects.get(&manifest_key(&region, number - 1).unwrap()).await.unwrap().unwrap();
    let forged = format!(
        "{{\"type\":\"https://clerestory.example/manifest/v1\",\"region\":\"{REGION}\",\"number\":{number},\
         \"previous\":\"{}\",\"erased\":{{\"evidence\":\"{evidence}\",\"objects\":[\"{}\"]}}}}",
        Digest::of(&last),
        id(&one)
    );
    scene.objects.put(&manifest_key(&region, number).unwrap(), forged.into()).await.unwrap();
    assert_eq!(scene.manifests().await.chain().unclean().len(), 1);
    let question = scene.compaction(APPROVED_CLASS);
    let plan = scene.plan(&question).await.unwrap();
    let granted = scene.granted(&question, &plan).await;
    let refused = scene.worker.run(granted).await.unwrap_err();
    assert!(matches!(refused, WorkerError::Erasure(NotRenounced::Kept(_))), "{refused}");
    assert_eq!(scene.answer(APPROVED_CLASS, ALL).await.lines().count(), 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vault_takes_no_less_and_no_more_than_what_was_erased() {
    let (mut scene, one) = with_columns().await;
    let question = scene.compaction(APPROVED_CLASS);
    // Not erased: whoever leaves something out, even the host, is refused.
    scene.take(&[scene.sealed(APPROVED_CLASS, "DE", detection("seven", 80))]).await;
    let (segment, end) = scene.rewritten(&question).await.unwrap();
    let made = end.made.unwrap();
    let chain = scene.manifests().await;
    let by_host = |change: &dyn Fn(&mut Statement<Rewriting>)| signed(&made, &scene.host, change);
    let less = by_host(&|it| it.predicate.left_out = vec![id(&one)]);
    let refused = scene.check(chain.chain(), &segment, &less).unwrap_err();
    assert!(refused.to_string().contains("leaves out what nobody has erased"), "{refused}");
    drop(chain);
    // Erased, while a worker was at it that did not know.
    scene.compact(APPROVED_CLASS).await;
    scene.take(&[scene.sealed(APPROVED_CLASS, "DE", detection("eight", 90))]).await;
    scene.compact(APPROVED_CLASS).await;
    scene.erase(vec![id(&one)]).await;
    let (segment, end) = scene.rewritten(&question).await.unwrap();
    let (made, mut manifests) = (end.made.unwrap(), scene.manifests().await);
    let by_host = |change: &dyn Fn(&mut Statement<Rewriting>)| signed(&made, &scene.host, change);
    for (wrong, why) in [
        (by_host(&|it| it.predicate.left_out.clear()), "not all that is"),
        (by_host(&|it| it.predicate.owners.clear()), "what the names of the columns were made of"),
        (by_host(&|it| it.predicate.owners[0] = Digest::of(b"none")), "what the names of the columns were made of"),
    ] {
        let refused = scene.check(manifests.chain(), &segment, &wrong).unwrap_err();
        assert!(matches!(refused, RewritingError::Unfit(_)) && refused.to_string().contains(why), "{refused}");
    }
    let replacement = scene.check(manifests.chain(), &segment, &made).unwrap();
    // More is erased before it is there.
    let two = scene.manifests().await.chain().unclean().first().copied().unwrap();
    let another = *manifests.chain().inherited(&two).find(|it| **it != id(&one)).unwrap();
    scene.erase(vec![another]).await;
    let refused = manifests.replace(&replacement).await;
    assert!(matches!(refused, Err(ManifestError::Unclean(..))), "{refused:?}");
    assert_eq!(scene.manifests().await.chain().announced().count(), 0);
    scene.compact(APPROVED_CLASS).await;
    assert!(scene.manifests().await.chain().unclean().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn whichever_call_to_the_store_fails_the_next_one_ends_it() {
    let (mut scene, one) = with_columns().await;
    let [first, second] = ["seven", "eight"].map(|rule| scene.sealed(APPROVED_CLASS, "JP", detection(rule, 80)));
    scene.take(&[first.clone(), second]).await;
    let request = scene.erasure_request(vec![id(&one), id(&first)]);
    let word = scene.erasure(request.id());
    let mut failed = 0;
    for calls in 1.. {
        let mut ended = true;
        for effect in [Effect::NotApplied, Effect::Applied] {
            let folder = tempfile::tempdir().unwrap();
            copy(&scene.folder.path().join("store"), folder.path());
            let store: Arc<dyn ObjectStore> = Arc::new(FileObjects::open(folder.path()).await.unwrap());
            let dying = Arc::new(Dying::new(Arc::clone(&store), calls, effect));
            let dying_store: Arc<dyn ObjectStore> = Arc::clone(&dying) as _;
            let renounced = scene.renounced(&[&request, &word]).unwrap();
            if let Ok(mut manifests) = Manifests::open(dying_store, REGION.parse().unwrap()).await {
                let _ = manifests.erase(&renounced).await;
            }
            ended &= !dying.gone();
            failed += usize::from(dying.gone());
            assert_eq!(vault::check(&store).await.unwrap().damages, [], "call {calls}, {effect:?}");
            let mut manifests = opened(&store).await;
            manifests.erase(&renounced).await.unwrap();
            let chain = manifests.chain();
            let names: Vec<BatchId> = chain.segments().flat_map(|it| &it.objects).map(|kept| kept.id).collect();
            assert_eq!((names.len(), chain.unclean().len()), (3, 1), "call {calls}, {effect:?}");
            assert!(!names.contains(&id(&first)));
            manifests.retain(UnixTime::EPOCH, &[].into()).await.unwrap();
            let there = files(folder.path()).into_keys().filter(|name| name.contains("segment/")).count();
            assert_eq!(there, 2, "call {calls}, {effect:?}: nothing is left over");
        }
        if ended {
            break;
        }
    }
    assert!(failed >= 12, "{failed}: get, list, evidence, manifest, segment, manifest, deletion");
}
