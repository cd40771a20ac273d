//! Every call to the store fails in turn, before or after it took effect; then all goes on from what is there.

use std::sync::Arc;

use bytes::Bytes;
use testkit::{Dying, Effect};

use crate::scene::{Scene, sealed};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_and_nothing_is_there_twice_whichever_call_fails() {
    let objects: Vec<Bytes> = (0..3).map(|number| sealed(&format!("text {number}"))).collect();
    let mut calls = 1;
    loop {
        let mut ended = true;
        for effect in [Effect::NotApplied, Effect::Applied] {
            let scene = Scene::new().await;
            let running = scene.run("wal").await;
            for object in &objects {
                running.intake.take(object.clone()).await.unwrap();
            }
            running.kill().await;
            // The next process dies while it puts what was left into the store.
            let dying = Arc::new(Dying::new(Arc::clone(&scene.objects), calls, effect));
            let outcome = scene.run_on("wal", dying.clone()).await;
            if dying.gone() {
                ended = false;
            }
            if let Ok(running) = outcome {
                running.kill().await;
            }
            let kept = scene.kept_after_restart("wal").await;
            assert_eq!(kept.len(), 3, "call {calls}, {effect:?}");
            assert_eq!(scene.kept_after_restart("wal").await, kept, "call {calls}, {effect:?}");
        }
        if ended {
            break;
        }
        calls += 1;
    }
    assert_eq!(calls, 5, "get, list, and two puts fail in turn; the fifth call is one too many");
}
