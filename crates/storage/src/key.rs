//! The names of what is stored.

use std::{fmt, str};

/// The longest key. The deepest key we make (a tile path of a tree with 2^63 entries below a
/// staging or history folder) has under 100 bytes; 512 fits S3, SQLite and every file system.
const MAX_KEY_BYTES: usize = 512;

/// The longest part of a key: file systems stop at 255, and temporary names add a little.
const MAX_PART_BYTES: usize = 200;

/// A `/`-separated path of parts made of `A-Z a-z 0-9 . _ -`. No part is empty or starts with a
/// dot, so that no key can leave its store or collide with a file of the store's own.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(String);

/// A text that is no [`Key`] or no [`Name`].
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{0}` can't name a stored object (parts of A-Z a-z 0-9 . _ - separated by `/`, none starting with a dot)")]
pub struct KeyError(String);

impl KeyError {
    fn of(text: &str) -> Self {
        // A hostile text may be long; the message shows its beginning.
        Self(text.chars().take(80).collect())
    }
}

fn is_part(part: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    !part.is_empty() && part.len() <= MAX_PART_BYTES && !part.starts_with('.') && part.bytes().all(allowed)
}

impl Key {
    /// The key as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The key `name` below this one.
    ///
    /// # Errors
    /// [`KeyError`] when the result is too long.
    pub fn join(&self, name: &Name) -> Result<Self, KeyError> {
        format!("{}/{name}", self.0).parse()
    }
}

impl str::FromStr for Key {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        if text.len() <= MAX_KEY_BYTES && text.split('/').all(is_part) {
            Ok(Self(text.to_owned()))
        } else {
            Err(KeyError::of(text))
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One part of a key: names a table, a queue, a holder.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(String);

impl Name {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl str::FromStr for Name {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        if is_part(text) { Ok(Self(text.to_owned())) } else { Err(KeyError::of(text)) }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<Name> for Key {
    fn from(name: Name) -> Self {
        Self(name.0)
    }
}

/// Everything, or everything below a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Folder {
    /// The whole store (or table).
    Root,
    /// The keys that start with this one and a `/`.
    Below(Key),
}

impl Folder {
    /// What every key in this folder starts with.
    #[must_use]
    pub fn prefix(&self) -> String {
        match self {
            Self::Root => String::new(),
            Self::Below(key) => format!("{key}/"),
        }
    }
}

/// A page of a listing: at most `limit` keys of `folder`, in byte order, that come after `after`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    /// Where to look.
    pub folder: Folder,
    /// The last key of the page before; `None` for the first page.
    pub after: Option<Key>,
    /// How many at most; [`Listing::PAGE`] is a good size.
    pub limit: usize,
}

impl Listing {
    /// A page as large as S3's largest.
    pub const PAGE: usize = 1000;

    /// The first page of `folder`.
    #[must_use]
    pub const fn of(folder: Folder) -> Self {
        Self { folder, after: None, limit: Self::PAGE }
    }

    /// The page that follows the one which ended with `last`.
    #[must_use]
    pub fn after(self, last: Key) -> Self {
        Self { after: Some(last), ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_stay_inside_their_store() {
        for good in ["checkpoint", "tile/0/x001/234.p/5", "a/b-c_d.E"] {
            assert_eq!(good.parse::<Key>().unwrap().as_str(), good);
        }
        let long = "a".repeat(201);
        for bad in ["", "/a", "a/", "a//b", "..", "a/../b", ".tmp-1", "a b", "ä", "a\0", "a\\b", &long] {
            assert!(bad.parse::<Key>().is_err(), "{bad:?}");
        }
        assert!("a/b".parse::<Name>().is_err());
    }
}
