//! What can go wrong in a log, by consequence.

use std::sync::Arc;
use std::time::Duration;

use stdx::UnixTime;
use storage::Key;
use tlog::{KeyName, MAX_ENTRY_BYTES, TreeSize};

use crate::ReadError;

/// What an error means to the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// The caller's fault; trying again won't help.
    Rejected,
    /// Nothing is lost; try again later.
    Unavailable,
    /// The log stopped and signs nothing more; an operator must look.
    Fatal,
}

/// Why a log didn't do as asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Empty, or larger than an entry bundle can hold.
    #[error("an entry has 1 to {MAX_ENTRY_BYTES} bytes, this one has {0}")]
    EntrySize(usize),
    /// The log can't be run with these parts.
    #[error("the log's configuration is unusable")]
    Config(#[from] ConfigError),
    /// The log exists already, or does not exist yet.
    #[error("the log {found}")]
    Existence {
        /// What was found instead.
        found: &'static str,
    },
    /// The pool is full: entries come faster than they are witnessed, or nothing is witnessed.
    #[error("the pool is full; try again in {} s", retry_after.as_secs())]
    Full {
        /// When to try again.
        retry_after: Duration,
    },
    /// The log has this entry already, under a checkpoint that is not yet published.
    #[error("the entry is in the log, but not yet published")]
    NotYetPublished,
    /// Too few witnesses answered to rule out that this log was restored from an old backup.
    #[error("{answered} witnesses answered, {needed} are needed before anything is signed")]
    TooFewAnswers {
        /// How many answered.
        answered: usize,
        /// How many must.
        needed: usize,
    },
    /// Too few witnesses cosigned. The checkpoint stays unpublished until enough do.
    #[error("the checkpoint of size {size} has no quorum of cosignatures: {cosigned} of {needed}")]
    NoQuorum {
        /// The checkpoint.
        size: TreeSize,
        /// How many cosigned.
        cosigned: usize,
        /// How many must.
        needed: usize,
    },
    /// As [`NoQuorum`](Self::NoQuorum), and more witnesses than may be faulty cosigned at times
    /// that this log's clock doesn't believe: so it is probably this log's clock that is wrong.
    #[error(
        "this log's clock and the witnesses' differ by {} s ({ours} here, {theirs} there): the checkpoint of size \
         {size} has no quorum of cosignatures",
        ours.seconds().abs_diff(theirs.seconds())
    )]
    ClockApart {
        /// The checkpoint.
        size: TreeSize,
        /// What this log's clock says.
        ours: UnixTime,
        /// The median of what those witnesses say.
        theirs: UnixTime,
    },
    /// The store failed before anything was signed.
    #[error("the log's store failed")]
    Store(#[from] storage::Error),
    /// The store failed where it matters whether the write happened: only a restart can tell.
    #[error("the log's store failed while {doing}; restart to see what was written")]
    Unknown {
        /// What was being done.
        doing: &'static str,
        /// How it failed.
        source: storage::Error,
    },
    /// Another process signed for this log.
    #[error("another process has signed a checkpoint of this log")]
    LockLost,
    /// A witness knows a checkpoint that this log signed and doesn't remember, or that
    /// contradicts its tree: this is an old backup, or someone else has the key.
    #[error("witness `{witness}` knows a checkpoint of size {size} that {contradiction}")]
    Contradicted {
        /// The witness.
        witness: KeyName,
        /// The size it knows.
        size: TreeSize,
        /// How it contradicts this log.
        contradiction: &'static str,
    },
    /// What is stored is not what this log wrote.
    #[error("object `{key}` {problem}")]
    Corrupt {
        /// The object.
        key: Key,
        /// What is wrong with it.
        problem: String,
    },
    /// The log's own tiles or entries can't be read, or are not what was signed.
    #[error("the log can't read itself")]
    Read(#[from] ReadError),
    /// The log was closed, or is being closed; the entry may or may not be in it.
    #[error("the log is closed")]
    Closed,
    /// The log has stopped for this reason.
    #[error("the log has stopped")]
    Stopped(#[source] Arc<Error>),
}

impl Error {
    /// What the error means to the caller.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Self::EntrySize(_) | Self::Config(_) | Self::Existence { .. } => Class::Rejected,
            Self::Full { .. }
            | Self::NotYetPublished
            | Self::TooFewAnswers { .. }
            | Self::NoQuorum { .. }
            | Self::ClockApart { .. }
            | Self::Store(_)
            | Self::Closed => Class::Unavailable,
            Self::Read(ReadError::Source(error)) => error.class,
            Self::Stopped(reason) => reason.class(),
            Self::Unknown { .. }
            | Self::LockLost
            | Self::Contradicted { .. }
            | Self::Corrupt { .. }
            | Self::Read(_) => Class::Fatal,
        }
    }
}

/// Why a log can't be run with its parts.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ConfigError {
    /// The key is not a log's (type 0x01).
    #[error("key `{0}` is not a log's")]
    NotALog(KeyName),
    /// The policy names other logs, not this one.
    #[error("the policy doesn't name the key `{0}` as a log")]
    LogNotInPolicy(KeyName),
    /// The quorum is not k of n witnesses.
    #[error("the quorum is not k of n witnesses, so what it survives can't be said")]
    QuorumShape,
    /// The quorum doesn't survive as many faulty witnesses as declared.
    #[error("{threshold} of {witnesses} witnesses don't survive {faulty} faulty ones: 2k-n > f and n-k >= f must hold")]
    QuorumTooWeak {
        /// k.
        threshold: usize,
        /// n.
        witnesses: usize,
        /// f.
        faulty: usize,
    },
    /// A witness is given that the policy doesn't know, or one that it knows is not given.
    #[error("the witness `{0}` is in the policy or in the configuration, but not in both")]
    WitnessMismatch(KeyName),
}
