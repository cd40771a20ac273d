//! What is asked and answered.

use std::fs::File;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use stdx::Digest;

use super::limits::Limits;
use crate::rules::MetaValue;

/// What is asked of the child. What is about a file comes with its descriptor, open for reading.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "request")]
pub enum Request {
    /// The first: confine yourself to this.
    Start(Limits),
    /// Make a bundle of the files in the descriptor ([`encode_files`](super::encode_files)).
    Assemble,
    /// Compile the bundle in the descriptor.
    Load,
    /// From now on say which contents the set of hashes in the descriptor may have; without one, of none.
    Know,
    /// Scan the file in the descriptor.
    Scan {
        /// What the answer is to be called; never used twice.
        id: u64,
        /// The file's path, as far as it is text: rules may ask for it.
        path: String,
    },
    /// Say what a rule of the bundle in use says of itself.
    Describe {
        /// The rule.
        rule: String,
    },
}

/// What the child answers.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "answer")]
pub enum Answer {
    /// It is confined, and waits.
    Ready(Isolation),
    /// It could not be confined, and ends.
    Unready {
        /// What could not be had.
        problem: String,
        /// What could be done.
        hint: String,
    },
    /// The bundle and the index, one behind the other in the payload.
    Assembled {
        /// Where the index begins.
        bundle_bytes: u64,
        /// What is not in the bundle.
        rejected: Vec<RejectedFile>,
    },
    /// The bundle is compiled and in use.
    Loaded(Loaded),
    /// The rules are refused as a whole; what was in use stays.
    Refused {
        /// Why.
        problem: String,
    },
    /// The set is in use.
    Known,
    /// One file was scanned.
    Scanned(Scanned),
    /// The rule that was asked for.
    Described {
        /// None if there is no such rule.
        rule: Option<Declared>,
    },
}

/// The isolation that a child has put itself in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Isolation {
    /// Landlock's ABI in force.
    pub landlock_abi: u32,
    /// SHA-256 of the filters of system calls.
    pub seccomp: Digest,
}

/// A bundle made of a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assembled {
    /// `rules.yar`.
    pub bundle: Vec<u8>,
    /// `rules.json`.
    pub index: Vec<u8>,
    /// Files that are not in the bundle, each with its cause.
    pub rejected: Vec<RejectedFile>,
}

/// A file of a tree that is not in the bundle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RejectedFile {
    /// Its path in the tree.
    pub path: String,
    /// Why.
    pub cause: String,
}

/// What a rule says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Declared {
    /// Its name.
    pub rule: String,
    /// Its tags.
    pub tags: Vec<String>,
    /// Its metadata, as written: author, links, what it collects.
    pub meta: Vec<(String, MetaValue)>,
}

impl Declared {
    /// The first text of this name.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        self.meta.iter().find_map(|(found, value)| match value {
            MetaValue::Text(text) if found == name => Some(text.as_str()),
            _ => None,
        })
    }

    /// The class of data that it may lead to the collection of.
    #[must_use]
    pub fn collects(&self) -> Option<&str> {
        self.text("collects")
    }
}

/// What a bundle turned out to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loaded {
    /// How many rules it has.
    pub rules: u64,
    /// What the test of the engine with these rules gave.
    pub self_test: SelfTest,
}

/// What rules say of two samples made on the spot: the EICAR test file and a harmless text.
///
/// That the engine, with these rules beside its own, finds the first by its own is not here: without
/// that nothing loads. A bundle need not find it, whatever its rules are called: a well-known
/// collection has rules named after it that look for something else.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SelfTest {
    /// The bundle's rules that find the EICAR test file.
    pub found: Vec<String>,
    /// Rules that fire on the harmless text.
    pub harmless: Vec<String>,
}

impl SelfTest {
    /// Whether rules that passed this test may go into service.
    #[must_use]
    pub const fn is_passed(&self) -> bool {
        self.harmless.is_empty()
    }
}

/// A file to be scanned, already open: who opens it decides what may be read.
#[derive(Debug)]
pub struct Item {
    /// What it is called; rules may ask for it, and nothing is opened by it.
    pub path: PathBuf,
    /// Its content: a regular file.
    pub file: File,
}

/// What the child says of one file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scanned {
    /// Which.
    pub id: u64,
    /// How many of its bytes were looked at.
    pub bytes: u64,
    /// Of the content, if a rule matches and all of it was read.
    pub sha256: Option<Digest>,
    /// The rules that match.
    pub matches: Vec<Match>,
    /// The contents that the set may have.
    pub listed: Vec<Listed>,
    /// What was not looked at, and why.
    pub notes: Vec<Note>,
}

/// What is known of one file that was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileReport {
    /// As it was given.
    pub path: PathBuf,
    /// How many of its bytes were looked at.
    pub bytes: u64,
    /// Of the content, if a rule matches and all of it was read.
    pub sha256: Option<Digest>,
    /// The rules that match.
    pub matches: Vec<Match>,
    /// The contents that the set may have.
    pub listed: Vec<Listed>,
    /// What was not looked at, and why.
    pub notes: Vec<Note>,
}

/// A content that the set of known-bad hashes may have: it has it, or it is one in 65,536 that it takes for others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// Where in the file: the containers' members from the outermost, none for the file itself.
    pub inside: Vec<String>,
    /// Of the content.
    pub sha256: Digest,
}

/// A rule matches.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Match {
    /// The rule.
    pub rule: String,
    /// Its tags.
    pub tags: Vec<String>,
    /// Where in the file: the containers' members from the outermost, none for the file itself.
    pub inside: Vec<String>,
    /// Its strings that were found; no more than the first of each, and of them.
    pub strings: Vec<StringHit>,
}

/// A string of a rule was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StringHit {
    /// The string's name, without `$`.
    pub name: String,
    /// Where it begins.
    pub offset: u64,
    /// How long it is.
    pub length: u64,
}

/// Something was not looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// Where in the file, as in [`Match::inside`].
    pub inside: Vec<String>,
    /// Why, for machines.
    pub code: NoteCode,
    /// Why, for people.
    pub message: String,
}

/// Why something was not looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NoteCode {
    /// It could not be read.
    Unreadable,
    /// It is longer than is read, or needs more memory; what there was of it was looked at.
    TooLarge,
    /// A container at the last depth, which was looked at but not opened.
    TooDeep,
    /// More members than are opened; the rest of the file was not looked at.
    TooMany,
    /// Far more bytes come out than the file's size explains; the rest of the file was not looked at.
    Bomb,
    /// The container ends before its time.
    Truncated,
    /// What the container's format does not allow.
    Malformed,
    /// It takes a password.
    Encrypted,
    /// A method or a format that isn't known here.
    Unsupported,
    /// The container says two different things, and other programs may believe the other one.
    Mismatch,
    /// It took too long; what was found until then counts.
    Timeout,
    /// The scanner ended at this file, twice.
    Ended,
    /// The engine failed at it.
    Engine,
}

impl NoteCode {
    /// As it is written in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unreadable => "unreadable",
            Self::TooLarge => "too-large",
            Self::TooDeep => "too-deep",
            Self::TooMany => "too-many",
            Self::Bomb => "bomb",
            Self::Truncated => "truncated",
            Self::Malformed => "malformed",
            Self::Encrypted => "encrypted",
            Self::Unsupported => "unsupported",
            Self::Mismatch => "mismatch",
            Self::Timeout => "timeout",
            Self::Ended => "ended",
            Self::Engine => "engine",
        }
    }
}
