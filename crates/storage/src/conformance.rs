//! What every implementation of the ports must do, as functions that tests call.
//!
//! Each wants an empty store and says in words what it saw wrong. Races run on the caller's
//! runtime: give it several threads.

mod catalog;
mod locks;
mod objects;

pub use catalog::catalog;
pub use locks::locks;
pub use objects::objects;

use crate::{Error, Key, Name};

/// How many tasks race: as many as object stores of others were probed with.
const RACERS: usize = 32;

/// A contract that doesn't hold.
#[derive(Debug, thiserror::Error)]
pub enum Violation {
    /// A call did something else than its contract says.
    #[error("{0}")]
    Contract(String),
    /// A call failed that should not.
    #[error("the store failed")]
    Store(#[from] Error),
    /// A task of a race was lost.
    #[error("a task was lost")]
    Task(#[from] tokio::task::JoinError),
}

fn require(what: &str, holds: Holds) -> Result<(), Violation> {
    match holds {
        Holds::Yes => Ok(()),
        Holds::No => Err(Violation::Contract(format!("not so: {what}"))),
    }
}

enum Holds {
    Yes,
    No,
}

impl From<bool> for Holds {
    fn from(holds: bool) -> Self {
        if holds { Self::Yes } else { Self::No }
    }
}

fn key(text: &str) -> Result<Key, Violation> {
    text.parse().map_err(|error| Violation::Contract(format!("{error}")))
}

fn name(text: &str) -> Result<Name, Violation> {
    text.parse().map_err(|error| Violation::Contract(format!("{error}")))
}
