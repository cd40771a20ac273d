//! Names that come from metadata and go into file names and URLs.

use std::borrow::Cow;
use std::{fmt, str};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The longest role name in bytes: `%XX` for each, and `.json`, still fit a file name of 255.
const ROLE_NAME_BYTES_MAX: usize = 80;

/// The longest target path in bytes: well under the 4,096 of a Linux path.
const TARGET_PATH_BYTES_MAX: usize = 1_024;

/// The name of a role (TUF 4.5 `ROLENAME`): any text of 1 to 80 bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RoleName(Cow<'static, str>);

impl RoleName {
    /// The role that lists everybody's keys.
    pub const ROOT: Self = Self(Cow::Borrowed("root"));
    /// The role that says which snapshot is the latest.
    pub const TIMESTAMP: Self = Self(Cow::Borrowed("timestamp"));
    /// The role that lists the version of each targets file.
    pub const SNAPSHOT: Self = Self(Cow::Borrowed("snapshot"));
    /// The role at the top of all delegations.
    pub const TARGETS: Self = Self(Cow::Borrowed("targets"));

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is one of the four roles whose keys root lists.
    #[must_use]
    pub fn is_top_level(&self) -> bool {
        [Self::ROOT, Self::TIMESTAMP, Self::SNAPSHOT, Self::TARGETS].contains(self)
    }

    /// The name of this role's file without version, safe on any file system and in any URL.
    #[must_use]
    pub fn file_name(&self) -> String {
        format!("{}.json", percent_encoded(&self.0))
    }

    /// The name under which snapshot and timestamp list this role's file (4.4 `METAPATH`).
    pub(crate) fn meta_path(&self) -> String {
        format!("{}.json", self.0)
    }
}

impl fmt::Display for RoleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A text that can't be a role's name or a target's path.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum NameError {
    /// Empty or too long.
    #[error("a role's name has 1 to {ROLE_NAME_BYTES_MAX} bytes, not {0}")]
    RoleLength(usize),
    /// Empty or too long.
    #[error("a target's path has 1 to {TARGET_PATH_BYTES_MAX} bytes, not {0}")]
    TargetLength(usize),
    /// Absolute, or with an empty part, `.`, `..`, a backslash or a control character.
    #[error("`{0}` is no relative path of plain parts")]
    TargetShape(String),
}

impl str::FromStr for RoleName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if text.is_empty() || text.len() > ROLE_NAME_BYTES_MAX {
            return Err(NameError::RoleLength(text.len()));
        }
        Ok(Self(Cow::Owned(text.to_owned())))
    }
}

/// The path of a target (TUF 4.5 `TARGETPATH`): relative, of parts separated by `/`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TargetPath(String);

impl TargetPath {
    /// The path as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Where the file lies below the targets' base URL: as it is, or with consistent snapshots
    /// (6.2.1) with `hash.` before the last part.
    pub(crate) fn location(&self, hash: Option<&str>) -> String {
        let (folder, name) = match self.0.rsplit_once('/') {
            Some((folder, name)) => (format!("{}/", encoded_parts(folder)), name),
            None => (String::new(), self.0.as_str()),
        };
        let name = percent_encoded(name);
        match hash {
            Some(hash) => format!("{folder}{}.{name}", percent_encoded(hash)),
            None => format!("{folder}{name}"),
        }
    }
}

impl fmt::Display for TargetPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl str::FromStr for TargetPath {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if text.is_empty() || text.len() > TARGET_PATH_BYTES_MAX {
            return Err(NameError::TargetLength(text.len()));
        }
        let plain = |part: &str| !part.is_empty() && part != "." && part != "..";
        if !text.split('/').all(plain) || text.contains(|c: char| c.is_control() || c == '\\') {
            return Err(NameError::TargetShape(text.escape_default().to_string()));
        }
        Ok(Self(text.to_owned()))
    }
}

macro_rules! serde_as_text {
    ($name:ty) => {
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
            }
        }
    };
}

serde_as_text!(RoleName);
serde_as_text!(TargetPath);

fn encoded_parts(path: &str) -> String {
    path.split('/').map(percent_encoded).collect::<Vec<_>>().join("/")
}

/// RFC 3986 2.1: all but the unreserved characters as `%XX`.
fn percent_encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}
