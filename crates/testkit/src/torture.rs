//! How much a test tries, and what it found: `cargo xtask torture` sets the one and reads the other.

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

/// Reports a figure for `docs/torture.md`; `name` says what was counted and holds no `: `.
pub fn figure(name: &str, value: impl std::fmt::Display) {
    println!("figure: {name}: {value}");
}
