//! Private fields: the log has a commitment, value and key lie beside it, and can be taken away.

use std::{fmt, str};

use hmac::{Hmac, KeyInit as _, Mac as _};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use stdx::{Digest, DigestError, Entropy, EntropyError};

/// A name, a ticket's number, a sentence or two.
const VALUE_BYTES_MAX: usize = 4096;

/// The name of a statement's member.
const LABEL_BYTES_MAX: usize = 64;

/// The longest opening: JSON writes a byte in six at most, and the rest has under 512.
pub const OPENING_BYTES_MAX: usize = 6 * VALUE_BYTES_MAX + 512;

/// HMAC-SHA-256 of a field's label and value under a key of its own. Without the key nobody can tell which
/// value it is, not even by trying all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Commitment(Digest);

/// A field's value, with what it is.
#[derive(Clone, Copy, Debug)]
pub struct PrivateField<'a> {
    /// The field's name in its statement.
    pub label: &'a str,
    /// Its value.
    pub value: &'a str,
}

impl Commitment {
    /// The commitment to `field` under `key`, 32 bytes of randomness that are used for nothing else.
    #[must_use]
    pub fn new(field: PrivateField<'_>, key: &[u8; 32]) -> Self {
        commit(field.label, field.value, key)
    }

    /// The commitment with these bytes.
    #[must_use]
    pub const fn from_digest(digest: Digest) -> Self {
        Self(digest)
    }

    /// Its bytes.
    #[must_use]
    pub const fn digest(&self) -> &Digest {
        &self.0
    }
}

fn commit(label: &str, value: &str, key: &[u8; 32]) -> Commitment {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes a key of any length");
    // A label has no zero in it, so that no label and value give what others do.
    mac.update(label.as_bytes());
    mac.update(&[0]);
    mac.update(value.as_bytes());
    Commitment(Digest::from_bytes(mac.finalize().into_bytes().into()))
}

impl fmt::Display for Commitment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl str::FromStr for Commitment {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        text.parse().map(Self)
    }
}

/// What opens a commitment: it lies beside the log, and whoever takes it away leaves a number that says
/// nothing. Its one encoding stands in `docs/formats/ledger.md`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Opening {
    label: String,
    value: String,
    /// 32 bytes; a digest is how this crate writes those.
    key: Digest,
}

/// Why there is no opening.
#[derive(Debug, thiserror::Error)]
pub enum OpeningError {
    /// A value, or a label, that is empty or too long.
    #[error("a private field has 1 to {VALUE_BYTES_MAX} bytes, and a name of lower-case letters")]
    Field,
    /// Bytes that are none, or not as they are written.
    #[error("not an opening, or not in its one encoding")]
    Form,
    /// No randomness.
    #[error(transparent)]
    Entropy(#[from] EntropyError),
}

impl Opening {
    /// Commits to `field` under a fresh key.
    ///
    /// # Errors
    /// [`OpeningError`], when there is no randomness or the value is empty or too long.
    pub fn new(field: PrivateField<'_>, entropy: &dyn Entropy) -> Result<Self, OpeningError> {
        let mut key = [0; 32];
        entropy.fill(&mut key)?;
        Self { label: field.label.to_owned(), value: field.value.to_owned(), key: Digest::from_bytes(key) }.check()
    }

    /// What the statement says instead of the value.
    #[must_use]
    pub fn commitment(&self) -> Commitment {
        commit(&self.label, &self.value, self.key.as_bytes())
    }

    /// The field's name in its statement.
    #[must_use]
    pub fn label(&self) -> &str {
        &self.label
    }

    /// The value.
    #[must_use]
    pub fn value(&self) -> &str {
        &self.value
    }

    /// Its one encoding.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("texts have an encoding")
    }

    /// Reads what [`Opening::to_bytes`] gave, and nothing else. What it opens says [`Opening::commitment`].
    ///
    /// # Errors
    /// [`OpeningError::Form`], [`OpeningError::Field`].
    pub fn parse(bytes: &[u8]) -> Result<Self, OpeningError> {
        let opening: Self = serde_json::from_slice(bytes).map_err(|_| OpeningError::Form)?;
        let opening = opening.check()?;
        if opening.to_bytes() == bytes { Ok(opening) } else { Err(OpeningError::Form) }
    }

    fn check(self) -> Result<Self, OpeningError> {
        let named = !self.label.is_empty()
            && self.label.len() <= LABEL_BYTES_MAX
            && self.label.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
        let good = named && !self.value.is_empty() && self.value.len() <= VALUE_BYTES_MAX;
        if good { Ok(self) } else { Err(OpeningError::Field) }
    }
}

/// Neither value nor key: this is what logs and messages get.
impl fmt::Debug for Opening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Opening({})", self.label)
    }
}

#[cfg(test)]
mod tests {
    use super::{Commitment, Opening, OpeningError, PrivateField};
    use stdx::{Entropy, EntropyError};

    struct Sevens;

    impl Entropy for Sevens {
        fn fill(&self, buffer: &mut [u8]) -> Result<(), EntropyError> {
            buffer.fill(7);
            Ok(())
        }
    }

    #[test]
    fn another_label_value_or_key_is_another_commitment() {
        let of = |label, value, key| Commitment::new(PrivateField { label, value }, &[key; 32]);
        let one = of("reader", "an analyst", 1);
        assert_eq!(one, of("reader", "an analyst", 1));
        for other in [of("ticket", "an analyst", 1), of("reader", "an analyst ", 1), of("reader", "an analyst", 2)] {
            assert_ne!(one, other);
        }
        // RFC 4231's construction over these bytes, from another implementation (Python's hmac).
        let expected = "\"c9d3ed76e9296100929484a74192cbe56bc40fad86e3a4cb367a1a54a8b6fc52\"";
        assert_eq!(serde_json::to_string(&one).unwrap(), expected);
    }

    #[test]
    fn an_opening_has_one_encoding_and_opens_one_commitment() {
        let field = PrivateField { label: "reader", value: "an \"analyst\"" };
        let opening = Opening::new(field, &Sevens).unwrap();
        assert_eq!(opening.commitment(), Commitment::new(field, &[7; 32]));
        let text = String::from_utf8(opening.to_bytes()).unwrap();
        let key = "07".repeat(32);
        assert_eq!(text, format!(r#"{{"label":"reader","value":"an \"analyst\"","key":"{key}"}}"#));
        assert_eq!(Opening::parse(text.as_bytes()).unwrap(), opening);
        assert_eq!(format!("{opening:?}"), "Opening(reader)");
        for other in [
            text.replace("\"label\":", "\"label\": "),
            text.replace("an ", "\\u0061n "),
            text.replace("\"reader\"", "\"Reader\""),
            text.replace("\"reader\"", "\"\""),
            text.replace(&key, &key[2..]),
            format!("{text}\n"),
            text.replacen('{', "{\"more\":1,", 1),
        ] {
            assert_ne!(other, text);
            Opening::parse(other.as_bytes()).unwrap_err();
        }
        for value in ["", &"x".repeat(4097)] {
            let made = Opening::new(PrivateField { label: "reader", value }, &Sevens);
            assert!(matches!(made, Err(OpeningError::Field)));
        }
        let longest = Opening::new(PrivateField { label: "reader", value: &"\u{1}".repeat(4096) }, &Sevens).unwrap();
        assert!(longest.to_bytes().len() <= super::OPENING_BYTES_MAX);
    }
}
