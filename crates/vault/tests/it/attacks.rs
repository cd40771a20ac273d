//! What is not taken, and what does not go unseen.

use attest::StatementId;
use bytes::Bytes;
use policy::Residency;
use storage::Key;
use testkit::{Custody, REGION};
use vault::{IntakeError, ManifestError, Manifests, Refused, objects_of};

use crate::scene::{CUSTODY, Scene, policy_id, sealed, sealed_by};

async fn refused(object: impl Into<Bytes>) -> Refused {
    let scene = Scene::new().await;
    let (intake, _writer) = vault::open(scene.parts("wal", scene.objects.clone())).await.unwrap();
    match intake.take(object.into()).await {
        Err(IntakeError::Refused(refused)) => refused,
        other => panic!("{other:?}"),
    }
}

fn changed(change: impl FnOnce(&mut Residency)) -> Residency {
    let mut residency = CUSTODY.residency();
    change(&mut residency);
    residency
}

#[tokio::test]
async fn what_the_policy_does_not_let_endpoints_seal_is_not_taken() {
    assert!(matches!(refused(b"plaintext".as_slice()).await, Refused::Form(_)));
    assert!(matches!(refused(Bytes::new()).await, Refused::Form(_)));
    let whole = sealed("text");
    assert!(matches!(refused(whole.slice(..whole.len() - 1)).await, Refused::Form(_)), "cut off");
    assert!(matches!(refused([&whole[..], b"x"].concat()).await, Refused::Form(_)), "with something behind it");

    let elsewhere = changed(|it| {
        it.regions[0].id = "moscow".parse().unwrap();
        it.assignments[0].region = "moscow".parse().unwrap();
    });
    let object = sealed_by(&elsewhere, policy_id(), "DE", "text");
    assert!(matches!(refused(object).await, Refused::Region(..)), "sealed for another region");
    let assigned = changed(|it| it.assignments[0].countries = vec!["BR".parse().unwrap()]);
    let object = sealed_by(&assigned, policy_id(), "BR", "text");
    assert!(matches!(refused(object).await, Refused::Country(..)), "a country that is assigned to none");
    let class = changed(|it| it.classes[1].id = "diaries".parse().unwrap());
    let at = stdx::UnixTime::from_seconds(crate::scene::NOW);
    let destination = seal::Destination::new(&class, policy_id(), "DE".parse().unwrap(), at).unwrap();
    let object = destination.seal(&"diaries".parse().unwrap(), b"text", &stdx::SystemEntropy).unwrap();
    assert!(matches!(refused(object).await, Refused::Class(..)), "a kind of data that the policy lacks");
    let object = sealed_by(&CUSTODY.residency(), StatementId::of(b"another policy"), "DE", "text");
    assert!(matches!(refused(object).await, Refused::Policy(..)), "a policy of somebody's own");
    // An endpoint that was given other keys than the policy's: whoever has those would read it.
    let strangers = Custody::new().residency();
    assert!(matches!(refused(sealed_by(&strangers, policy_id(), "DE", "text")).await, Refused::Custodians(_)));
    let half = changed(|it| it.regions[0].custodians[1].keys = strangers.regions[0].custodians[1].keys.clone());
    assert!(matches!(refused(sealed_by(&half, policy_id(), "DE", "text")).await, Refused::Custodians(_)));
}

/// Three manifests with a segment each.
async fn three() -> Scene {
    let scene = Scene::new().await;
    for text in ["one", "two", "three"] {
        let running = scene.run("wal").await;
        running.intake.take(sealed(text)).await.unwrap();
        running.kill().await;
        scene.kept_after_restart("wal").await;
    }
    scene
}

fn key(number: u64) -> Key {
    format!("manifest/{REGION}/{number:016}").parse().unwrap()
}

async fn damaged(scene: &Scene) -> String {
    match Manifests::open(scene.objects.clone(), REGION.parse().unwrap()).await {
        Err(ManifestError::Chain(error)) => error.to_string(),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it was opened"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manifest_that_was_taken_away_changed_or_swapped_is_seen() {
    let scene = three().await;
    scene.objects.delete(&key(2)).await.unwrap();
    assert!(damaged(&scene).await.contains("manifest 2 of region `zurich` is missing"));

    let scene = three().await;
    let second = scene.objects.get(&key(2)).await.unwrap().unwrap();
    scene.objects.replace(&key(3), second.clone()).await.unwrap();
    assert!(damaged(&scene).await.contains("is another's"));
    let text = String::from_utf8(second.to_vec()).unwrap();
    let forged = text.replace("\"country\":\"DE\"", "\"country\":\"JP\"");
    assert_ne!(text, forged);
    let scene = three().await;
    scene.objects.replace(&key(2), forged.into()).await.unwrap();
    assert!(damaged(&scene).await.contains("does not follow"), "the third still names the second as it was");
    let scene = three().await;
    scene.objects.replace(&key(2), text.replacen('{', "{ ", 1).into()).await.unwrap();
    assert!(damaged(&scene).await.contains("canonical"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn segments_alone_tell_what_was_in_them() {
    let scene = three().await;
    let kept = scene.kept().await;
    let mut found = 0;
    for segment in scene.manifests().await.chain().segments() {
        let key = format!("segment/{REGION}/{}/{}", segment.class, segment.segment).parse().unwrap();
        let bytes = scene.objects.get(&key).await.unwrap().unwrap();
        let objects = objects_of(&bytes).unwrap();
        assert_eq!(objects.len(), segment.objects.len());
        found += objects.len();
        assert!(objects_of(&bytes.slice(..bytes.len() - 1)).is_err() && objects_of(&bytes.slice(1..)).is_err());
    }
    assert_eq!(found, kept.len());
}
