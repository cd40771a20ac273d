//! Classes of data, each agreed to by itself, and what is done with them.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A class of data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// The first bits of a file's hash, through a relay
    Lookups,
    /// What rules found
    Detections,
    /// Files that are known to be malicious, and looked-up ones of which nothing is known
    Verdicts,
    /// How many files were looked up and found
    Statistics,
    /// The content of files, each named by the owner
    Content,
}

impl Class {
    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Lookups => "lookups",
            Self::Detections => "detections",
            Self::Verdicts => "verdicts",
            Self::Statistics => "statistics",
            Self::Content => "content",
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What is done with what was agreed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Everything agreed to is sent
    Full,
    /// The same without statistics
    Verdicts,
    /// Nothing is sent; all of it is kept for the owner to look at
    File,
}

impl Mode {
    /// Whether anything of `class` may be kept at all.
    #[must_use]
    pub const fn has(self, class: Class) -> bool {
        match self {
            Self::Full => true,
            Self::Verdicts => !matches!(class, Class::Statistics),
            // A look-up that is not sent is none.
            Self::File => !matches!(class, Class::Lookups),
        }
    }

    /// Whether anything leaves this machine.
    #[must_use]
    pub const fn sends(self) -> bool {
        !matches!(self, Self::File)
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full => "full",
            Self::Verdicts => "verdicts",
            Self::File => "file",
        })
    }
}
