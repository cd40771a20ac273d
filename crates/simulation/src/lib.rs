//! The whole product in one process, on time that stands still unless nobody has anything to do;
//! people, faults and chance are drawn from a seed.
//!
//! # In scope
//! A vendor and a supervisor with their real logs, stream writers, desks, second signatures and
//! channel, four real witnesses (one of which may lie), real endpoints, an auditor, mirrors; storage
//! and network that fail within their contracts; [`run`] with what must hold after each step and at
//! the end, shrinking of what fails, and reproduction from a seed or a written plan.
//!
//! # Out of scope
//! Sandboxed builds, sockets, files that lose pages, and threads: a result is signed by the keys of
//! both builders without a build, requests are carried in memory to the routers that HTTP serves,
//! and what blocks runs by turns with everything else. Other tests have these.
//!
//! # Invariants
//! - The same seed and plan give the same trace, to the letter.
//! - Nothing in a product knows that it is simulated: it gets other ports, never other rules.
//! - What holds is judged by this crate's own eyes, not by the code that is tried.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::missing_panics_doc,
    reason = "a world that can't be built is a failed test"
)]

mod audit;
mod commands;
mod coroutine;
mod endpoint;
mod host;
mod http;
mod ledger;
mod machines;
mod mirror;
mod network;
mod organisation;
mod plan;
mod run;
mod runs;
mod seed;
mod shrink;
mod time;
mod witnesses;
mod world;

pub use ledger::Violation;
pub use plan::Step;
pub use run::{Outcome, run};
pub use runs::{Failure, Summary, run_all};

/// What is broken on purpose, to see that it is caught.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Broken {
    /// Nothing.
    #[default]
    Nothing,
    /// Two witnesses, one more than may be faulty, forget what they cosigned.
    ForgetfulWitnesses,
    /// The vendor's store loses entries that it had acknowledged. (A write lost at once is noticed by
    /// the log itself, which reads back before it acknowledges anything.)
    LosingStore,
    /// Endpoints forget what they have seen, after each update.
    ForgetfulEndpoint,
}

/// The plan of a seed.
#[must_use]
pub fn plan_of(seed: u64) -> Vec<Step> {
    plan::draw(seed)
}

/// A plan as it was printed.
///
/// # Errors
/// The line that is none, in words.
pub fn parse_plan(text: &str) -> Result<Vec<Step>, String> {
    plan::parse(text)
}

/// A smaller plan that breaks the same promise, found in at most so many runs.
#[must_use]
pub fn shrink(seed: u64, plan: Vec<Step>, broken: Broken, tries: usize) -> Vec<Step> {
    let Some(violation) = run(seed, &plan, broken).violation else { return plan };
    let fails = |plan: &[Step]| run(seed, plan, broken).violation.is_some_and(|it| it.oracle == violation.oracle);
    shrink::shrink(plan, tries, fails)
}
