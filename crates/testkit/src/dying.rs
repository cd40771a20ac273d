//! A store that dies in the middle.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use storage::{Error, Key, Listing, ObjectStore, Put};

/// Whether a call that fails has done what it was to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It has changed nothing.
    NotApplied,
    /// It has done what it was to do, and nobody knows.
    Applied,
}

/// A store whose calls fail from the n-th on, as if the machine had gone.
pub struct Dying {
    inner: Arc<dyn ObjectStore>,
    left: AtomicUsize,
    effect: Effect,
}

impl Dying {
    /// A store that works for one call less than `calls`.
    #[must_use]
    pub fn new(inner: Arc<dyn ObjectStore>, calls: usize, effect: Effect) -> Self {
        Self { inner, left: AtomicUsize::new(calls), effect }
    }

    /// Whether this call is the one that fails; after it none works.
    fn step(&self) -> Option<Effect> {
        let left = self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        match left {
            Ok(1) => Some(self.effect),
            Ok(_) => None,
            Err(_) => Some(Effect::NotApplied),
        }
    }

    /// Whether the call that fails has come.
    #[must_use]
    pub fn gone(&self) -> bool {
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
            Some(effect) => {
                if effect == Effect::Applied {
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
        panic!("nothing that dies so replaces anything")
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
