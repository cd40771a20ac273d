//! Names of keys and logs, and the short key ids of signed notes.

use std::{fmt, str};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::text;

/// Names are schema-less URLs; cosignatures of type 0x06 can't carry more than 255 bytes.
pub const MAX_NAME_BYTES: usize = 255;

/// A text that can't name a key or a log.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{0}` is not a name: 1 to 255 bytes without spaces, `+` and control characters")]
pub struct NameError(String);

fn checked(name: &str) -> Result<String, NameError> {
    let allowed = |c: char| !c.is_whitespace() && !c.is_control() && c != '+';
    if name.is_empty() || name.len() > MAX_NAME_BYTES || !name.chars().all(allowed) {
        return Err(NameError(text::excerpt(name)));
    }
    Ok(name.to_owned())
}

/// The name of a key (C2SP signed-note, "Format"): not empty, no Unicode space, no plus.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyName(String);

/// The name of a log as it stands in the first line of its checkpoints.
///
/// The specification only recommends the rules for key names; we demand them, because our logs
/// are named like their keys.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin(String);

impl KeyName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Origin {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether `name` is this log's name.
    #[must_use]
    pub fn is(&self, name: &KeyName) -> bool {
        self.0 == name.0
    }
}

impl From<KeyName> for Origin {
    fn from(name: KeyName) -> Self {
        Self(name.0)
    }
}

impl From<Origin> for KeyName {
    fn from(origin: Origin) -> Self {
        Self(origin.0)
    }
}

impl fmt::Display for KeyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl str::FromStr for KeyName {
    type Err = NameError;

    fn from_str(name: &str) -> Result<Self, NameError> {
        checked(name).map(Self)
    }
}

impl str::FromStr for Origin {
    type Err = NameError;

    fn from_str(name: &str) -> Result<Self, NameError> {
        checked(name).map(Self)
    }
}

impl Serialize for KeyName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for KeyName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl Serialize for Origin {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Origin {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// The first four bytes of the hash of a key's name, type and material; written as 8 lower-case
/// hexadecimal digits. An identifier, not a commitment: anyone can make another key with it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId([u8; 4]);

impl KeyId {
    /// The id with these bytes, most significant first.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 4]) -> Self {
        Self(bytes)
    }

    /// The bytes, most significant first.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 4] {
        &self.0
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", u32::from_be_bytes(self.0))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl str::FromStr for KeyId {
    type Err = NameError;

    fn from_str(digits: &str) -> Result<Self, NameError> {
        let mut bytes = [0; 4];
        let lower = !digits.bytes().any(|byte| byte.is_ascii_uppercase());
        match hex::decode_to_slice(digits, &mut bytes) {
            Ok(()) if lower => Ok(Self(bytes)),
            _ => Err(NameError(text::excerpt(digits))),
        }
    }
}
