//! The first bits of a hash: all that an endpoint ever sends of it.

use std::fmt;
use std::str::FromStr;

use stdx::Digest;

/// With 2^24 buckets of [`crate::BUCKET_MIN`] each, 17 thousand million hashes are known.
pub const BITS_MAX: u8 = 24;

/// How many bits of a hash are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PrefixBits(u8);

/// A text or number that is no prefix.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PrefixError {
    /// Longer than any that is asked with.
    #[error("{0} bits; a prefix has at most {BITS_MAX}")]
    Bits(u64),
    /// Not `BITS/HEX`.
    #[error("`{0}` is not a prefix like 12/0a3")]
    Syntax(String),
}

impl PrefixBits {
    /// So many bits.
    ///
    /// # Errors
    /// [`PrefixError::Bits`] above [`BITS_MAX`].
    pub const fn new(bits: u8) -> Result<Self, PrefixError> {
        if bits > BITS_MAX { Err(PrefixError::Bits(bits as u64)) } else { Ok(Self(bits)) }
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u8 {
        self.0
    }

    /// How many prefixes of this length there are.
    #[must_use]
    pub const fn buckets(self) -> usize {
        1 << self.0
    }

    /// Hexadecimal digits of a value.
    fn digits(self) -> usize {
        usize::from(self.0.div_ceil(4)).max(1)
    }
}

/// The first bits of a hash, as a number. In a path it is written `BITS/HEX`, in as many digits as
/// the bits need, so that all prefixes of one length are equally long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix {
    bits: PrefixBits,
    value: u32,
}

impl Prefix {
    /// The first bits of `digest`.
    #[must_use]
    pub fn of(digest: &Digest, bits: PrefixBits) -> Self {
        let [first, second, third, fourth, ..] = *digest.as_bytes();
        let head = u64::from(u32::from_be_bytes([first, second, third, fourth]));
        // At most 24 bits are left of 32.
        let value = u32::try_from(head >> (32 - u32::from(bits.0))).unwrap_or(0);
        Self { bits, value }
    }

    /// The prefix with this number, if there is one.
    #[must_use]
    pub fn numbered(bits: PrefixBits, value: u32) -> Option<Self> {
        (u64::from(value) < 1 << bits.0).then_some(Self { bits, value })
    }

    /// Its length.
    #[must_use]
    pub const fn bits(&self) -> PrefixBits {
        self.bits
    }

    /// Its bits as a number.
    #[must_use]
    pub const fn value(&self) -> u32 {
        self.value
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{:0digits$x}", self.bits.0, self.value, digits = self.bits.digits())
    }
}

impl FromStr for Prefix {
    type Err = PrefixError;

    fn from_str(text: &str) -> Result<Self, PrefixError> {
        let syntax = || PrefixError::Syntax(text.chars().take(40).collect());
        let (bits, value) = text.split_once('/').ok_or_else(syntax)?;
        let bits = PrefixBits::new(bits.parse().map_err(|_| syntax())?)?;
        let value = u32::from_str_radix(value, 16).map_err(|_| syntax())?;
        let prefix = Self::numbered(bits, value).ok_or_else(syntax)?;
        // One prefix has one form.
        if prefix.to_string() == text { Ok(prefix) } else { Err(syntax()) }
    }
}

#[cfg(test)]
mod tests {
    use super::{Prefix, PrefixBits};
    use stdx::Digest;

    #[test]
    fn a_prefix_has_one_form_of_one_length() {
        let digest: Digest = format!("0a3f{}", "0".repeat(60)).parse().unwrap();
        for (bits, text) in [(0, "0/0"), (2, "2/0"), (12, "12/0a3"), (13, "13/0147"), (16, "16/0a3f")] {
            let prefix = Prefix::of(&digest, PrefixBits::new(bits).unwrap());
            assert_eq!(prefix.to_string(), text);
            assert_eq!(text.parse(), Ok(prefix));
        }
        for bad in ["", "12", "12/", "12/a3", "12/0A3", "12/+a3", "+2/1", "02/1", "2/4", "25/0000000", "300/0"] {
            assert!(bad.parse::<Prefix>().is_err(), "{bad}");
        }
    }
}
