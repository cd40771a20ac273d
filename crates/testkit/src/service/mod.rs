//! Real services for tests: each in a temporary folder, ended by its process id.
//!
//! A test binary starts each once: [`Postgres::shared`] and [`Seaweed::shared`] give the running one
//! while anybody still holds it. The process is a child of a thread of its own, with a parent-death
//! signal, so that it ends with the test binary whatever ends that.

mod postgres;
mod process;
mod seaweed;

pub use postgres::Postgres;
pub use seaweed::{ACCESS_KEY_ID, SECRET_ACCESS_KEY, Seaweed};

use std::sync::{Arc, Mutex, PoisonError, Weak};

/// The one that runs, or a new one.
fn shared<T>(slot: &Mutex<Weak<T>>, start: impl FnOnce() -> T) -> Arc<T> {
    // A test that panicked meanwhile leaves nothing half done here.
    let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(running) = slot.upgrade() {
        return running;
    }
    let started = Arc::new(start());
    *slot = Arc::downgrade(&started);
    started
}
