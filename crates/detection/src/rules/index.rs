//! `rules.json`: what is in a bundle, rule by rule, and what is not.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use attest::ProductId;
use serde::de::{self, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use stdx::Digest;

use super::settings::{BUNDLE_BYTES_MAX, Module, RULES_MAX};

/// The index's file name.
pub const INDEX_FILE: &str = "rules.json";
/// The bundle's file name.
pub const BUNDLE_FILE: &str = "rules.yar";
/// The file name of the set of hashes.
pub const SET_FILE: &str = "hashes.fuse";
/// First line of a bundle, inside its comment.
pub const BUNDLE_FORMAT: &str = "clerestory-rules 1";
/// What an index calls itself.
const INDEX_FORMAT: &str = "clerestory-rules-index-v1";
/// An index repeats of each rule what is in its text, and adds 300 bytes.
pub const INDEX_BYTES_MAX: u64 = BUNDLE_BYTES_MAX + 300 * RULES_MAX as u64;

/// A text that is not a canonical index.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// Not JSON of this shape.
    #[error("the index is not what is expected")]
    Shape(#[from] serde_json::Error),
    /// Not the one encoding, or more than is ever written.
    #[error("the index {0}")]
    Form(&'static str),
}

/// A file's digest and size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pin {
    /// SHA-256.
    pub digest: Digest,
    /// In bytes.
    pub size: u64,
}

impl Pin {
    /// Of these bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self { digest: Digest::of(bytes), size: bytes.len() as u64 }
    }

    /// Whether these are the bytes.
    #[must_use]
    pub fn is_of(&self, bytes: &[u8]) -> bool {
        self.size == bytes.len() as u64 && self.digest == Digest::of(bytes)
    }
}

/// What is in a bundle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Index {
    format: String,
    /// The product.
    pub product: ProductId,
    /// The engine that read the rules, with its version.
    pub engine: String,
    /// SHA-256 of the tree's `rules.toml`.
    pub settings: Digest,
    /// The bundle.
    pub bundle: Pin,
    /// The set of the tree's lists, if it has some.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub hashes: Option<IndexedHashes>,
    /// Files that are not in the bundle, by path.
    pub rejected: Vec<Rejected>,
    /// The rules, in the bundle's order.
    pub rules: Vec<IndexedRule>,
}

/// The set of bad files that a tree's lists make (`hashes.fuse`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IndexedHashes {
    /// The file.
    pub set: Pin,
    /// How many hashes it was made of.
    pub count: u32,
}

/// What makes an index, but for its rules.
#[derive(Clone, Debug)]
pub struct IndexHead {
    /// The product.
    pub product: ProductId,
    /// The engine that read the rules, with its version.
    pub engine: String,
    /// SHA-256 of the tree's `rules.toml`.
    pub settings: Digest,
    /// The bundle.
    pub bundle: Pin,
}

/// One rule of a bundle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IndexedRule {
    /// Its name.
    pub name: String,
    /// The first file, by path, that has it.
    pub file: String,
    /// Its text in the bundle.
    pub text: Pin,
    /// Its tags, as written.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub tags: Vec<String>,
    /// Its metadata, as written: authors and links are a condition of many licences.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub meta: Vec<(String, MetaValue)>,
    /// The class of data that it may lead to the collection of (its metadata `collects`).
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub collects: Option<String>,
    /// Whether other rules alone see its match.
    #[serde(skip_serializing_if = "is_false", default)]
    pub private: bool,
    /// Whether every other rule is silent where this one does not match.
    #[serde(skip_serializing_if = "is_false", default)]
    pub global: bool,
    /// The modules that its condition asks.
    #[serde(skip_serializing_if = "BTreeSet::is_empty", default)]
    pub modules: BTreeSet<Module>,
    /// The rules that its condition asks.
    #[serde(skip_serializing_if = "BTreeSet::is_empty", default)]
    pub uses: BTreeSet<String>,
    /// What it costs to look for.
    pub cost: Cost,
    /// The built-in harmless samples on which it fires.
    #[serde(skip_serializing_if = "BTreeSet::is_empty", default)]
    pub broad: BTreeSet<String>,
}

// serde asks with a reference.
#[expect(clippy::trivially_copy_pass_by_ref)]
const fn is_false(value: &bool) -> bool {
    !*value
}

/// A value of a rule's metadata.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum MetaValue {
    /// `true` or `false`.
    Boolean(bool),
    /// A number.
    Integer(i64),
    /// A text. What is not UTF-8 in it is replaced; the bundle has the text as it is.
    Text(String),
}

/// By what it is. Tried one after the other, as serde does it, each text would be written into two errors first.
impl<'de> Deserialize<'de> for MetaValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(MetaValueVisitor)
    }
}

struct MetaValueVisitor;

impl Visitor<'_> for MetaValueVisitor {
    type Value = MetaValue;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a truth value, a number of 64 bits, or a text")
    }

    fn visit_bool<E>(self, value: bool) -> Result<MetaValue, E> {
        Ok(MetaValue::Boolean(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<MetaValue, E> {
        Ok(MetaValue::Integer(value))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<MetaValue, E> {
        let number = i64::try_from(value).map_err(|_| E::invalid_value(Unexpected::Unsigned(value), &self))?;
        Ok(MetaValue::Integer(number))
    }

    fn visit_str<E>(self, value: &str) -> Result<MetaValue, E> {
        Ok(MetaValue::Text(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<MetaValue, E> {
        Ok(MetaValue::Text(value))
    }
}

/// What the engine says of a rule's strings.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cost {
    /// How many strings it has.
    pub strings: u32,
    /// How many literal texts are looked for on their behalf.
    pub literals: u32,
    /// The shortest part of those that the engine searches for, in bytes; none without literals.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub atom: Option<u32>,
    /// The strings without any literal: each is tried at every place of every file.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub slow: Vec<String>,
    /// The most parts of one string that may be as long as they like; one within another counts double.
    #[serde(skip_serializing_if = "is_zero", default)]
    pub gaps: u32,
    /// How often the innermost part of its condition is evaluated at most.
    pub steps: u64,
}

// serde asks with a reference.
#[expect(clippy::trivially_copy_pass_by_ref)]
const fn is_zero(value: &u32) -> bool {
    *value == 0
}

/// A file that is not in the bundle.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rejected {
    /// Its path.
    pub file: String,
    /// Why, for machines.
    pub cause: Cause,
    /// Where and why, for people: `LINE: …` or `…`.
    pub detail: String,
}

/// Why a file of a tree is not in the bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// It is not UTF-8.
    NotText,
    /// It is a file of compiled rules, which can carry code.
    Compiled,
    /// It has a character that people do not see.
    HiddenCharacter,
    /// It is larger than a file may be.
    FileTooLarge,
    /// One of its rules is larger than a rule may be.
    RuleTooLarge,
    /// It wants another file to be read in its place.
    Include,
    /// It imports a module that the settings do not allow.
    Import,
    /// It is not YARA.
    Syntax,
    /// Another rule has the name of one of its rules.
    DuplicateName,
    /// One of its rules asks a rule that is not there.
    UnknownRule,
    /// Its rules ask each other in a circle.
    Circle,
    /// The engine does not compile one of its rules.
    Compile,
    /// The condition of one of its rules may go round without an end that anybody waits for.
    Endless,
    /// It declares a class of data to collect that is no name.
    Collects,
}

impl Cause {
    /// As it is written in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotText => "not-text",
            Self::Compiled => "compiled",
            Self::HiddenCharacter => "hidden-character",
            Self::FileTooLarge => "file-too-large",
            Self::RuleTooLarge => "rule-too-large",
            Self::Include => "include",
            Self::Import => "import",
            Self::Syntax => "syntax",
            Self::DuplicateName => "duplicate-name",
            Self::UnknownRule => "unknown-rule",
            Self::Circle => "circle",
            Self::Compile => "compile",
            Self::Endless => "endless",
            Self::Collects => "collects",
        }
    }

    /// Whether the file may be more than a mistake: no declarative rule at all, one in disguise, or one
    /// that is made to break something. What does not parse or compile harms nobody: it stays out.
    #[must_use]
    pub const fn is_suspicious(self) -> bool {
        !matches!(self, Self::NotText | Self::Syntax | Self::UnknownRule | Self::Compile)
    }
}

impl Index {
    /// An index of these rules, in the bundle's order.
    #[must_use]
    pub fn new(head: IndexHead, mut rejected: Vec<Rejected>, rules: Vec<IndexedRule>) -> Self {
        rejected.sort();
        let IndexHead { product, engine, settings, bundle } = head;
        Self { format: INDEX_FORMAT.to_owned(), product, engine, settings, bundle, hashes: None, rejected, rules }
    }

    /// The one encoding.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        // Maps have text keys and nothing in it can fail, so that only memory could be missing.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Reads an index; only the canonical form is accepted.
    ///
    /// # Errors
    /// [`IndexError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, IndexError> {
        if bytes.len() as u64 > INDEX_BYTES_MAX {
            return Err(IndexError::Form("is longer than any bundle's"));
        }
        let index: Self = serde_json::from_slice(bytes)?;
        if index.format != INDEX_FORMAT {
            return Err(IndexError::Form("is of another format"));
        }
        if index.rules.len() > RULES_MAX as usize {
            return Err(IndexError::Form("has too many rules"));
        }
        if index.names().len() != index.rules.len() {
            return Err(IndexError::Form("names a rule twice"));
        }
        if index.to_bytes() != bytes {
            return Err(IndexError::Form("is not in its canonical form"));
        }
        Ok(index)
    }

    /// The rules by name.
    #[must_use]
    pub fn names(&self) -> BTreeMap<&str, &IndexedRule> {
        self.rules.iter().map(|rule| (rule.name.as_str(), rule)).collect()
    }

    /// The files that its rules are from.
    #[must_use]
    pub fn files(&self) -> BTreeSet<&str> {
        self.rules.iter().map(|rule| rule.file.as_str()).collect()
    }

    /// The rules that may lead to the collection of data, with its class.
    pub fn collecting(&self) -> impl Iterator<Item = (&IndexedRule, &str)> {
        self.rules.iter().filter_map(|rule| rule.collects.as_deref().map(|class| (rule, class)))
    }
}
