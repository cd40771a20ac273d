//! `rules.toml`: what a tree of rules is, and what the fast lane may let through.

use std::collections::BTreeSet;

use attest::ProductId;
use attest::tree::TreePath;
use serde::{Deserialize, Serialize};
use stdx::Digest;

/// Name of the settings in a tree of rules.
pub const SETTINGS_FILE: &str = "rules.toml";
/// Longest settings: 60 lines of text are 3 KB.
pub(super) const SETTINGS_BYTES_MAX: usize = 64 << 10;

/// Largest bundle that is ever assembled or fetched: nine times a real one (7 MB of 5,900 rules).
pub const BUNDLE_BYTES_MAX: u64 = 64 << 20;
/// Most rules of a bundle: nine times as many as a real one has.
pub const RULES_MAX: u32 = 50_000;
/// Largest rule. The largest real one has 37 KB. Its bytes also bound how deep the engine's parser can go
/// into it, which has one stack frame for each operator of a chain.
pub const RULE_BYTES_MAX: u32 = 128 << 10;
/// The folder whose `.txt` files are lists of hashes.
pub(super) const LISTS: &str = "hashes";
/// Largest file of a tree: four times the largest real one (1 MB).
pub const FILE_BYTES_MAX: u64 = 4 << 20;

/// Settings that we do not accept.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SettingsError {
    /// Not the TOML that is expected; the message names line and column.
    #[error("{SETTINGS_FILE}: {0}")]
    Syntax(String),
    /// A field that is out of bounds or contradicts another one.
    #[error("{SETTINGS_FILE}: `{field}` {problem}")]
    Field {
        /// Its name.
        field: &'static str,
        /// What is wrong, and what to write instead.
        problem: String,
    },
}

/// What `rules.toml` says. A change of it goes through the slow lane.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The product that these rules are released as.
    pub product: ProductId,
    /// The folder whose `.yar` and `.yara` files are the rules; the whole tree, if not given.
    #[serde(default)]
    pub sources: Option<TreePath>,
    /// The file whose text stands at the head of the bundle: the licence, for most trees.
    pub notice: TreePath,
    /// The engine's modules that rules may import.
    #[serde(default)]
    pub imports: BTreeSet<Module>,
    /// What the fast lane lets through.
    #[serde(default)]
    pub limits: RuleLimits,
    /// What the rules are tried on. Without it nothing passes the fast lane.
    #[serde(default)]
    pub corpus: Option<Corpora>,
}

/// A module of the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Module {
    /// Android's compiled programs.
    Dex,
    /// .NET programs.
    Dotnet,
    /// Linux programs.
    Elf,
    /// MD5, SHA-1, SHA-256 and checksums of parts of a file.
    Hash,
    /// macOS programs.
    Macho,
    /// Entropy, means and deviations.
    Math,
    /// Windows programs.
    Pe,
    /// Conversions of text.
    String,
}

impl Module {
    /// Every module that can be allowed: those that look at the file alone. `time` (the clock makes a
    /// verdict unrepeatable), `console` (it writes), `cuckoo` and `magic` (not in the engine) are not among them.
    pub const ALL: [Self; 8] =
        [Self::Dex, Self::Dotnet, Self::Elf, Self::Hash, Self::Macho, Self::Math, Self::Pe, Self::String];

    /// Its name in an `import`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Dex => "dex",
            Self::Dotnet => "dotnet",
            Self::Elf => "elf",
            Self::Hash => "hash",
            Self::Macho => "macho",
            Self::Math => "math",
            Self::Pe => "pe",
            Self::String => "string",
        }
    }
}

/// What the fast lane lets through. A release beyond any of these needs people.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RuleLimits {
    /// The bundle, in bytes.
    pub bundle_bytes: u64,
    /// By how many bytes a release may be larger than the one before.
    pub growth_bytes: u64,
    /// How many rules a release may have.
    pub rules: u32,
    /// How many rules a release may change or add.
    pub changed_rules: u32,
    /// How many rules a release may take away.
    pub removed_rules: u32,
    /// One rule, in bytes.
    pub rule_bytes: u32,
    /// How many texts the engine looks for on behalf of one rule.
    pub literals: u32,
    /// The shortest text that the engine may have to look for, in bytes.
    pub atom_bytes: u32,
    /// How many parts of one string may be as long as they like.
    pub gaps: u32,
    /// How often the innermost part of a condition may be evaluated.
    pub steps: u64,
    /// How many hashes the set may have.
    pub hashes: u32,
    /// How many hashes a release may add.
    pub added_hashes: u32,
    /// How many hashes a release may take away.
    pub removed_hashes: u32,
}

impl Default for RuleLimits {
    /// Twice what a real tree of 5,900 rules has, and what 95 of a hundred of its commits stay below.
    fn default() -> Self {
        Self {
            bundle_bytes: 16 << 20,
            growth_bytes: 128 << 10,
            rules: 12_000,
            changed_rules: 100,
            removed_rules: 20,
            rule_bytes: RULE_BYTES_MAX,
            literals: 2_000,
            atom_bytes: 2,
            gaps: 3,
            steps: 100_000,
            hashes: 1_000_000,
            added_hashes: 10_000,
            removed_hashes: 10_000,
        }
    }
}

/// The folders of samples, each named by the digest of its tree manifest; they are kept beside the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Corpora {
    /// Some rule must fire on each of these.
    pub known_bad: Digest,
    /// No rule may fire on any of these.
    pub goodware: Digest,
}

impl Settings {
    /// Reads settings.
    ///
    /// # Errors
    /// [`SettingsError`].
    pub fn parse(text: &str) -> Result<Self, SettingsError> {
        if text.len() > SETTINGS_BYTES_MAX {
            return Err(SettingsError::Syntax(format!("longer than {SETTINGS_BYTES_MAX} bytes")));
        }
        let settings: Self =
            toml::from_str(text).map_err(|error| SettingsError::Syntax(error.to_string().trim_end().to_owned()))?;
        let limits = &settings.limits;
        let at_most = |field, value: u64, most: u64| {
            let problem = format!("must be 1 to {most}");
            if (1..=most).contains(&value) { Ok(()) } else { Err(SettingsError::Field { field, problem }) }
        };
        at_most("limits.bundle_bytes", limits.bundle_bytes, BUNDLE_BYTES_MAX)?;
        at_most("limits.growth_bytes", limits.growth_bytes, BUNDLE_BYTES_MAX)?;
        at_most("limits.rules", limits.rules.into(), RULES_MAX.into())?;
        at_most("limits.changed_rules", limits.changed_rules.into(), RULES_MAX.into())?;
        at_most("limits.removed_rules", limits.removed_rules.into(), RULES_MAX.into())?;
        at_most("limits.rule_bytes", limits.rule_bytes.into(), RULE_BYTES_MAX.into())?;
        at_most("limits.literals", limits.literals.into(), 100_000)?;
        at_most("limits.atom_bytes", limits.atom_bytes.into(), 4)?;
        at_most("limits.gaps", limits.gaps.into(), 100)?;
        at_most("limits.steps", limits.steps, 1 << 40)?;
        at_most("limits.hashes", limits.hashes.into(), reputation::HASHES_MAX as u64)?;
        at_most("limits.added_hashes", limits.added_hashes.into(), reputation::HASHES_MAX as u64)?;
        at_most("limits.removed_hashes", limits.removed_hashes.into(), reputation::HASHES_MAX as u64)?;
        Ok(settings)
    }

    /// Whether `path` is one of the files that rules are taken from.
    #[must_use]
    pub fn is_source(&self, path: &str) -> bool {
        let below = self
            .sources
            .as_ref()
            .is_none_or(|folder| path.strip_prefix(folder.as_str()).is_some_and(|rest| rest.starts_with('/')));
        below && (path.ends_with(".yar") || path.ends_with(".yara"))
    }

    /// Whether `path` is a list of hashes of bad files.
    #[must_use]
    pub fn is_list(path: &str) -> bool {
        let name = path.strip_prefix(LISTS).and_then(|rest| rest.strip_prefix('/'));
        name.is_some_and(|name| name.ends_with(".txt") && !name.contains('/'))
    }
}
