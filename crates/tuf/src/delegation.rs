//! Delegations (TUF 4.5): to whom, and for which targets.

use std::collections::BTreeSet;

use serde::{Deserialize, Deserializer, Serialize, de};
use stdx::Digest;

use crate::key::{KeyRing, RoleKeys};
use crate::name::{RoleName, TargetPath};

/// To whom a targets role delegates (TUF 4.5 `DELEGATIONS`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delegations {
    /// The keys of the delegated roles.
    pub keys: KeyRing,
    /// The roles; the first is trusted most.
    #[serde(deserialize_with = "roles_of_different_names")]
    pub roles: Vec<DelegatedRole>,
}

/// A delegated role.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DelegatedRole {
    /// Its name.
    pub name: RoleName,
    /// Who signs for it.
    #[serde(flatten)]
    pub keys: RoleKeys,
    /// Which targets it may describe.
    #[serde(flatten)]
    pub paths: Paths,
    /// Whether a target within `paths` is looked for in this role only.
    #[serde(default)]
    pub terminating: bool,
}

/// The targets that a delegation covers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "WrittenPaths", into = "WrittenPaths")]
pub enum Paths {
    /// Those whose path matches one of these patterns: `*` and `?` within a part, nothing else.
    Patterns(Vec<String>),
    /// Those whose path's SHA-256 in hexadecimal begins with one of these.
    HashPrefixes(Vec<String>),
    /// None: neither member was given.
    Nothing,
}

#[derive(Clone, Serialize, Deserialize)]
struct WrittenPaths {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    paths: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    path_hash_prefixes: Option<Vec<String>>,
}

impl TryFrom<WrittenPaths> for Paths {
    type Error = &'static str;

    fn try_from(written: WrittenPaths) -> Result<Self, &'static str> {
        match (written.paths, written.path_hash_prefixes) {
            (Some(patterns), None) => Ok(Self::Patterns(patterns)),
            (None, Some(prefixes)) => Ok(Self::HashPrefixes(prefixes)),
            (None, None) => Ok(Self::Nothing),
            (Some(_), Some(_)) => Err("a delegation with both paths and path_hash_prefixes"),
        }
    }
}

impl From<Paths> for WrittenPaths {
    fn from(paths: Paths) -> Self {
        match paths {
            Paths::Patterns(patterns) => Self { paths: Some(patterns), path_hash_prefixes: None },
            Paths::HashPrefixes(prefixes) => Self { paths: None, path_hash_prefixes: Some(prefixes) },
            Paths::Nothing => Self { paths: None, path_hash_prefixes: None },
        }
    }
}

impl Paths {
    /// Whether the delegation covers `path`.
    #[must_use]
    pub fn cover(&self, path: &TargetPath) -> bool {
        match self {
            Self::Patterns(patterns) => patterns.iter().any(|pattern| pattern_matches(pattern, path)),
            Self::HashPrefixes(prefixes) => {
                let hash = Digest::of(path.as_str().as_bytes()).to_string();
                prefixes.iter().any(|prefix| hash.starts_with(prefix.as_str()))
            }
            Self::Nothing => false,
        }
    }
}

/// 4.5 `PATHPATTERN`: a wildcard never matches a `/`, so both sides have as many parts.
fn pattern_matches(pattern: &str, path: &TargetPath) -> bool {
    let (mut patterns, mut parts) = (pattern.split('/'), path.as_str().split('/'));
    loop {
        match (patterns.next(), parts.next()) {
            (None, None) => return true,
            (Some(pattern), Some(part)) if part_matches(pattern, part) => {}
            _ => return false,
        }
    }
}

/// Row by row: `reachable` holds the places in `part` that the pattern so far can end at. Its time
/// is the product of the lengths, whatever a hostile pattern looks like.
fn part_matches(pattern: &str, part: &str) -> bool {
    let part: Vec<char> = part.chars().collect();
    let mut reachable = BTreeSet::from([0]);
    for symbol in pattern.chars() {
        reachable = match symbol {
            '*' => reachable.first().map_or_else(BTreeSet::new, |&first| (first..=part.len()).collect()),
            '?' => reachable.iter().filter(|&&place| place < part.len()).map(|&place| place + 1).collect(),
            _ => {
                let matches = |place: &&usize| part.get(**place) == Some(&symbol);
                reachable.iter().filter(matches).map(|&place| place + 1).collect()
            }
        };
    }
    reachable.contains(&part.len())
}

fn roles_of_different_names<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<DelegatedRole>, D::Error> {
    let roles = Vec::<DelegatedRole>::deserialize(deserializer)?;
    let names: BTreeSet<_> = roles.iter().map(|role| &role.name).collect();
    if names.len() != roles.len() {
        return Err(de::Error::custom("two delegations to one role"));
    }
    // Its file would take the place of a top-level role's.
    match roles.iter().find(|role| role.name.is_top_level()) {
        Some(role) => Err(de::Error::custom(format_args!("a delegation to the top-level role {}", role.name))),
        None => Ok(roles),
    }
}
