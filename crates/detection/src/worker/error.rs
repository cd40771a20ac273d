//! Why the scanner could not do what was asked.

use std::path::PathBuf;

use super::wire::WireError;

/// Why the scanner could not do what was asked. What is wrong with one scanned file is a
/// [`Note`](super::Note) of its report instead.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// The scanner's program could not be started.
    #[error("cannot start the scanner `{}`: {problem}", path.display())]
    Program {
        /// The program.
        path: PathBuf,
        /// The system's message.
        problem: String,
    },
    /// The child could not be isolated, so it does nothing.
    #[error("{problem}")]
    Isolation {
        /// What could not be had.
        problem: String,
        /// What could be done.
        hint: String,
    },
    /// What the child is to read could not be put into memory.
    #[error("cannot keep rules in memory: {problem}")]
    Memory {
        /// The system's message.
        problem: String,
    },
    /// A tree of rules is larger than is ever sent.
    #[error("the rules' files are too large: {problem}")]
    TooLarge {
        /// Which limit.
        problem: String,
    },
    /// The engine does not take the rules.
    #[error("the rules do not load: {problem}")]
    Rules {
        /// The engine's message.
        problem: String,
    },
    /// The child ended, or was ended because it did not answer.
    #[error("the scanner ended while {during}: {problem}")]
    Ended {
        /// What it was asked for.
        during: &'static str,
        /// How it ended.
        problem: String,
    },
    /// The child answered what was not asked.
    #[error("the scanner gave no proper answer while {during}")]
    Nonsense {
        /// What it was asked for.
        during: &'static str,
    },
}

impl WorkerError {
    /// What could be done.
    #[must_use]
    pub fn hint(&self) -> &str {
        match self {
            Self::Program { .. } => "install clerestory-scan beside the program that calls it",
            Self::Isolation { hint, .. } => hint,
            Self::Memory { .. } => "look at the machine's memory and at its limits on open files",
            Self::TooLarge { .. } => "split the tree, or leave out what is no rule",
            Self::Rules { .. } => "correct the rules",
            Self::Ended { .. } | Self::Nonsense { .. } => {
                "the rules may be hostile, or need more memory or time than is allowed; look at what changed last"
            }
        }
    }
}

impl From<WireError> for WorkerError {
    fn from(error: WireError) -> Self {
        Self::TooLarge { problem: error.to_string() }
    }
}
