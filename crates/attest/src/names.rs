//! Names that statements use, each with one spelling.

use std::{fmt, str};

use serde::{Deserialize, Serialize};

/// Names are file names and log lines too, so they stay short.
const NAME_BYTES_MAX: usize = 128;

/// A text that is not a name.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{text}` is not a {what}: lower-case letters, digits and `.-_/` inside, at most 128 bytes")]
pub struct NameError {
    what: &'static str,
    text: String,
}

/// Lower-case letters and digits, with `.`, `-`, `_` and (where a name has parts) `/` inside.
fn check(text: &str, what: &'static str, separator: Option<char>) -> Result<(), NameError> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let inner = |c: char| plain(c) || matches!(c, '.' | '-' | '_');
    let part_is_good = |part: &str| {
        part.starts_with(plain)
            && part.ends_with(|c| plain(c) || c == '_')
            && part.chars().all(inner)
            && !part.contains("..")
    };
    let good = text.len() <= NAME_BYTES_MAX
        && match separator {
            Some(separator) => text.split(separator).all(part_is_good),
            None => part_is_good(text),
        };
    if good { Ok(()) } else { Err(NameError { what, text: text.chars().take(80).collect() }) }
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $what:literal, $separator:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl str::FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                check(text, $what, $separator).map(|()| Self(text.to_owned()))
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;

            fn try_from(text: String) -> Result<Self, NameError> {
                check(&text, $what, $separator).map(|()| Self(text))
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name!(
    /// An organisation in a policy, such as `vendor` or `supervisor`.
    OrganisationId, "name of an organisation", None
);
name!(
    /// A product, such as `libcjson`. An endpoint never lets one product take another's place.
    ProductId, "name of a product", None
);
name!(
    /// A host that goes first, as its owner calls it.
    HostId, "name of a host", None
);
name!(
    /// A stream of an enforcement point in a log, such as `assembly/main` or `status/slow`.
    StreamName, "name of a stream", Some('/')
);
name!(
    /// Where data is stored and processed, such as `zurich`. Countries are assigned to one.
    RegionId, "name of a region", None
);
name!(
    /// A kind of data that people share or don't, such as `detections` or `files`.
    DataClass, "name of a class of data", None
);
name!(
    /// What people say they want data for, such as `detection-quality`; a policy lists them for each class.
    Purpose, "name of a purpose", None
);

/// The lanes of DESIGN section 3: code needs people's approval, declarative rules do not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Lane {
    /// Code.
    Slow,
    /// Declarative detection rules.
    Fast,
}

impl Lane {
    /// The lane's name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Slow => "slow",
            Self::Fast => "fast",
        }
    }
}

impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How far a release has been rolled out; each ring contains the ones before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ring {
    /// Hosts whose owners agreed to go first and to sign health reports.
    Canary,
    /// Hosts that go second.
    Early,
    /// Everyone.
    All,
}

impl fmt::Display for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Canary => "canary",
            Self::Early => "early",
            Self::All => "all",
        })
    }
}

impl str::FromStr for Ring {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        match text {
            "canary" => Ok(Self::Canary),
            "early" => Ok(Self::Early),
            "all" => Ok(Self::All),
            _ => Err(NameError { what: "ring (canary, early or all)", text: text.chars().take(80).collect() }),
        }
    }
}

/// The number of a product's release: 1, 2, 3 without gaps. Rollback and floors compare these;
/// a version is only a text for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Release(u64);

impl Release {
    /// The first release.
    pub const FIRST: Self = Self(1);

    /// Release number `number`.
    #[must_use]
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The release after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_one_spelling() {
        for good in ["vendor", "libcjson1", "a.b-c_d", "7zip", "clerestory-verify"] {
            assert_eq!(good.parse::<ProductId>().unwrap().as_str(), good);
        }
        for bad in ["", "Vendor", "a/b", "../a", "a..b", ".a", "a.", "-a", "a b", "ä", "a\n"] {
            assert!(bad.parse::<ProductId>().is_err(), "{bad}");
        }
        assert!("status/slow".parse::<StreamName>().is_ok());
        for bad in ["status/", "/status", "a//b", "a/../b"] {
            assert!(bad.parse::<StreamName>().is_err(), "{bad}");
        }
        assert!("a".repeat(129).parse::<ProductId>().is_err());
    }

    #[test]
    fn each_ring_contains_the_ones_before_it() {
        assert!(Ring::Canary < Ring::Early && Ring::Early < Ring::All);
    }
}
