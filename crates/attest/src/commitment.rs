//! Private fields: the log has a commitment, value and key lie beside it, and can be taken away.

use hmac::{Hmac, KeyInit as _, Mac as _};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use stdx::Digest;

/// HMAC-SHA-256 of a field's label and value under a key of its own. Without the key nobody can tell which
/// value it is, not even by trying all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Commitment(Digest);

/// A field's value, with what it is.
#[derive(Clone, Copy, Debug)]
pub struct PrivateField<'a> {
    /// The field's name in its statement.
    pub label: &'static str,
    /// Its value.
    pub value: &'a str,
}

impl Commitment {
    /// The commitment to `field` under `key`, 32 bytes of randomness that are used for nothing else.
    #[must_use]
    pub fn new(field: PrivateField<'_>, key: &[u8; 32]) -> Self {
        let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes a key of any length");
        // A label has no zero in it, so that no label and value give what others do.
        mac.update(field.label.as_bytes());
        mac.update(&[0]);
        mac.update(field.value.as_bytes());
        Self(Digest::from_bytes(mac.finalize().into_bytes().into()))
    }
}

#[cfg(test)]
mod tests {
    use super::{Commitment, PrivateField};

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
}
