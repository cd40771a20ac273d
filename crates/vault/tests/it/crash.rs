//! Every call to the store fails in turn, before or after it took effect; then all goes on from what is there.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use storage::{Error, Key, Listing, ObjectStore, Put};

use crate::scene::{Scene, sealed};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    NotApplied,
    Applied,
}

/// A store whose calls fail from the n-th on, as if the machine had gone.
struct Dying {
    inner: Arc<dyn ObjectStore>,
    left: AtomicUsize,
    fault: Fault,
}

impl Dying {
    fn new(inner: Arc<dyn ObjectStore>, calls: usize, fault: Fault) -> Self {
        Self { inner, left: AtomicUsize::new(calls), fault }
    }

    /// Whether this call is the one that fails; after it none works.
    fn step(&self) -> Option<Fault> {
        let left = self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        match left {
            Ok(1) => Some(self.fault),
            Ok(_) => None,
            Err(_) => Some(Fault::NotApplied),
        }
    }

    fn gone(&self) -> bool {
        self.left.load(Ordering::SeqCst) == 0
    }
}

fn gone() -> Error {
    Error::Setup { service: "the store".to_owned(), problem: "is gone".to_owned(), hint: "" }
}

#[async_trait]
impl ObjectStore for Dying {
    async fn put(&self, key: &Key, bytes: Bytes) -> Result<Put, Error> {
        match self.step() {
            None => self.inner.put(key, bytes).await,
            Some(fault) => {
                if fault == Fault::Applied {
                    self.inner.put(key, bytes).await?;
                }
                Err(gone())
            }
        }
    }

    async fn put_all(&self, objects: Vec<(Key, Bytes)>) -> Result<(), Error> {
        for (key, bytes) in objects {
            self.put(&key, bytes).await?;
        }
        Ok(())
    }

    async fn replace(&self, _: &Key, _: Bytes) -> Result<(), Error> {
        panic!("a vault replaces nothing")
    }

    async fn get(&self, key: &Key) -> Result<Option<Bytes>, Error> {
        if self.step().is_some() { Err(gone()) } else { self.inner.get(key).await }
    }

    async fn list(&self, listing: &Listing) -> Result<Vec<Key>, Error> {
        if self.step().is_some() { Err(gone()) } else { self.inner.list(listing).await }
    }

    async fn delete(&self, key: &Key) -> Result<(), Error> {
        if self.step().is_some() { Err(gone()) } else { self.inner.delete(key).await }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_and_nothing_is_there_twice_whichever_call_fails() {
    let objects: Vec<Bytes> = (0..3).map(|number| sealed(&format!("text {number}"))).collect();
    let mut calls = 1;
    loop {
        let mut ended = true;
        for fault in [Fault::NotApplied, Fault::Applied] {
            let scene = Scene::new().await;
            let running = scene.run("wal").await;
            for object in &objects {
                running.intake.take(object.clone()).await.unwrap();
            }
            running.kill().await;
            // The next process dies while it puts what was left into the store.
            let dying = Arc::new(Dying::new(Arc::clone(&scene.objects), calls, fault));
            let outcome = scene.run_on("wal", dying.clone()).await;
            if dying.gone() {
                ended = false;
            }
            if let Ok(running) = outcome {
                running.kill().await;
            }
            let kept = scene.kept_after_restart("wal").await;
            assert_eq!(kept.len(), 3, "call {calls}, {fault:?}");
            assert_eq!(scene.kept_after_restart("wal").await, kept, "call {calls}, {fault:?}");
        }
        if ended {
            break;
        }
        calls += 1;
    }
    assert_eq!(calls, 5, "get, list, and two puts fail in turn; the fifth call is one too many");
}
