//! The threat cloud: from what endpoints share to a verdict that protects all of them, and look-ups.

mod crowd;
mod intake;
mod lookups;
mod query;
mod verdicts;
mod worker;

pub(super) use intake::{growth, intake};
pub(super) use lookups::lookups;
pub(super) use query::query;
pub(super) use verdicts::verdicts;
