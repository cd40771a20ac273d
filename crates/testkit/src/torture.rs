//! How much a test tries, and what it found: `cargo xtask torture` sets the one and reads the other.

use stdx::{Entropy as _, SystemEntropy};

/// How much of what could be tried is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Breadth {
    /// Some of it, always the same: `cargo xtask test`.
    Sample,
    /// All of it: `cargo xtask torture`.
    Full,
}

impl Breadth {
    /// What this run asks for.
    #[must_use]
    pub fn of_this_run() -> Self {
        #[expect(clippy::disallowed_methods, reason = "set by `cargo xtask torture` for the tests it runs")]
        match std::env::var("CLERESTORY_TORTURE") {
            Ok(_) => Self::Full,
            Err(_) => Self::Sample,
        }
    }

    /// Every `step`th of `all` from the first on, or all of them.
    pub fn of<T>(self, all: Vec<T>, step: usize) -> Vec<T> {
        match self {
            Self::Full => all,
            Self::Sample => all.into_iter().step_by(step).collect(),
        }
    }
}

/// What a test draws its moments from: `CLERESTORY_SEED`, or a new one. It is printed, so that a failure can be tried
/// again.
#[must_use]
pub fn seed() -> u64 {
    #[expect(clippy::disallowed_methods, reason = "set by whoever tries a failure again")]
    let given = std::env::var("CLERESTORY_SEED").ok().map(|seed| seed.parse().unwrap());
    let seed = given.unwrap_or_else(|| {
        let mut drawn = [0; 8];
        SystemEntropy.fill(&mut drawn).unwrap();
        u64::from_be_bytes(drawn)
    });
    println!("CLERESTORY_SEED={seed}");
    seed
}

/// Reports a figure for `docs/torture.md`; `name` says what was counted and holds no `: `.
pub fn figure(name: &str, value: impl std::fmt::Display) {
    println!("figure: {name}: {value}");
}
