//! Once each, durable before the receipt, bounded, and for a time.

use std::sync::Arc;

use bytes::Bytes;
use stdx::Digest;
use testkit::files;
use vault::{IntakeError, Refused};

use crate::scene::{Scene, sealed};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_outlives_the_process_and_is_there_once() {
    let scene = Scene::new().await;
    let running = scene.run("wal").await;
    let objects: Vec<Bytes> = (0..5).map(|number| sealed(&format!("text {number}"))).collect();
    for object in &objects {
        let taken = running.intake.take(object.clone()).await.unwrap();
        assert_eq!((taken.object, taken.bytes), (Digest::of(object), object.len() as u64));
    }
    let again = running.intake.take(objects[2].clone()).await.unwrap();
    assert_eq!(again.object, Digest::of(&objects[2]), "the same bytes get the same receipt");
    running.kill().await;
    assert!(scene.kept().await.is_empty(), "nothing was in the store yet");
    let kept = scene.kept_after_restart("wal").await;
    assert_eq!(kept.keys().cloned().collect::<Vec<_>>(), (0..5).map(|n| format!("text {n}")).collect::<Vec<_>>());
    // Sent once more, to the process that began anew.
    let running = scene.run("wal").await;
    running.intake.take(objects[2].clone()).await.unwrap();
    running.kill().await;
    assert_eq!(scene.kept_after_restart("wal").await, kept);
    // Nothing of what was said is on the disk, in any form that reads.
    for (name, path) in files(scene.folder.path()) {
        let bytes = std::fs::read(&path).unwrap();
        let found = bytes.windows(5).any(|window| window == b"text ");
        assert!(!found, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_at_once_and_two_intakes_over_one_store_keep_each_once() {
    let mut scene = Scene::new().await;
    scene.limits.segment_bytes = 20_000;
    let (first, second) = (scene.run("first").await, scene.run("second").await);
    let mut tasks = Vec::new();
    for number in 0..40 {
        let object = sealed(&format!("text {number:02}"));
        for intake in [first.intake.clone(), second.intake.clone(), first.intake.clone()] {
            let object = object.clone();
            tasks.push(tokio::spawn(async move { intake.take(object).await.unwrap().object }));
        }
    }
    for task in tasks {
        task.await.unwrap();
    }
    first.end().await;
    second.end().await;
    scene.run("first").await.end().await;
    let kept = scene.kept_after_restart("second").await;
    assert_eq!(kept.into_keys().collect::<Vec<_>>(), (0..40).map(|n| format!("text {n:02}")).collect::<Vec<_>>());
}

#[tokio::test]
async fn who_comes_when_too_much_waits_is_told_to_come_back() {
    let mut scene = Scene::new().await;
    scene.limits.waiting_bytes = 8 << 10;
    // Nobody writes: the disk is as slow as a disk can be.
    let (intake, writer) = vault::open(scene.parts("wal", Arc::clone(&scene.objects))).await.unwrap();
    let mut waiting = Vec::new();
    loop {
        let object = sealed(&format!("text {}", waiting.len()));
        let intake = intake.clone();
        let mut take = Box::pin(async move { intake.take(object).await });
        match futures_poll(&mut take) {
            None => waiting.push(take),
            Some(outcome) => {
                assert!(matches!(outcome, Err(IntakeError::Busy)), "{outcome:?}");
                break;
            }
        }
    }
    assert!((1..4).contains(&waiting.len()), "{} wait", waiting.len());
    drop(writer);
    for take in waiting {
        assert!(matches!(take.await, Err(IntakeError::Stopped)), "no receipt without the disk");
    }
}

/// Polls once.
fn futures_poll<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match std::pin::Pin::new(future).poll(&mut context) {
        std::task::Poll::Ready(output) => Some(output),
        std::task::Poll::Pending => None,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_object_under_the_same_name_is_refused() {
    let scene = Scene::new().await;
    let running = scene.run("wal").await;
    let object = sealed("text");
    running.intake.take(object.clone()).await.unwrap();
    let mut other = object.to_vec();
    *other.last_mut().unwrap() ^= 1;
    let outcome = running.intake.take(other.into()).await;
    assert!(matches!(outcome, Err(IntakeError::Refused(Refused::Name(_)))), "{outcome:?}");
    running.kill().await;
    assert_eq!(scene.kept_after_restart("wal").await.into_keys().collect::<Vec<_>>(), ["text"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_has_had_its_time_is_gone_from_manifests_and_store() {
    let scene = Scene::new().await;
    let running = scene.run("wal").await;
    running.intake.take(sealed("early")).await.unwrap();
    running.kill().await;
    scene.kept_after_restart("wal").await;
    scene.later(20);
    let running = scene.run("wal").await;
    running.intake.take(sealed("late")).await.unwrap();
    running.kill().await;
    assert_eq!(scene.kept_after_restart("wal").await.len(), 2);
    scene.later(11);
    let kept_s = [("statistics".parse().unwrap(), 30 * 86_400)].into();
    let mut manifests = scene.manifests().await;
    let now = stdx::Clock::now(&*scene.clock);
    assert_eq!(manifests.retain(now, &kept_s).await.unwrap(), 1);
    assert_eq!(manifests.retain(now, &kept_s).await.unwrap(), 0);
    assert_eq!(scene.kept().await.into_keys().collect::<Vec<_>>(), ["late"]);
    let segments = files(scene.folder.path()).keys().filter(|name| name.contains("segment/")).count();
    assert_eq!(segments, 1, "the file is gone, too");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_slow_to_delete_deletes_nothing_that_came_again() {
    let scene = Scene::new().await;
    let object = sealed("text");
    let take = async || {
        let running = scene.run("wal").await;
        running.intake.take(object.clone()).await.unwrap();
        running.kill().await;
        scene.kept_after_restart("wal").await
    };
    let before = take().await;
    // Its time is over: one machine deletes it, another has yet to.
    let mut slow = scene.manifests().await;
    scene.later(31);
    let (now, kept_s) = (stdx::Clock::now(&*scene.clock), [("statistics".parse().unwrap(), 30 * 86_400)].into());
    assert_eq!(scene.manifests().await.retain(now, &kept_s).await.unwrap(), 1);
    slow.refresh().await.unwrap();
    // The endpoint has it still, and sends it again: the same bytes, and so the same segment.
    assert_eq!(take().await, before);
    slow.retain(now, &[].into()).await.unwrap();
    assert_eq!(scene.kept().await, before);
    assert_eq!(vault::check(&scene.objects).await.unwrap().damages, []);
    assert_eq!(take().await, before, "once");
}
