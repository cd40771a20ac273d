//! Whom anyone may ask what is known of a file's hash, and through whom.

use attest::OrganisationId;
use serde::{Deserialize, Serialize};

use crate::{MirrorUrl, Policy, PolicyError};

/// An endpoint picks one; a list of all members would help nobody.
const RELAYS_MAX: usize = 8;

/// Longer prefixes than `reputation` knows.
const PREFIX_BITS_MAX: u8 = 24;

/// A key configuration is 41 bytes, in base64.
const KEY_CHARS_MAX: usize = 256;

/// The gateway that answers look-ups, and the relays through which it is asked. All of it stands in
/// the policy because everybody then has the same: an endpoint with a key of its own, or a longer
/// prefix than others, could be told from them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LookupPolicy {
    /// Who runs the gateway, and learns what is asked, but not who asks.
    pub gateway: OrganisationId,
    /// The gateway's key configuration (RFC 9458, section 3), in base64.
    pub key: String,
    /// How many bits of a hash are asked with.
    pub prefix_bits: u8,
    /// Who passes questions on, and learns who asks, but not what.
    pub relays: Vec<Relay>,
}

/// A relay.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Relay {
    /// Who runs it: never who runs the gateway.
    pub organisation: OrganisationId,
    /// Where it is asked.
    pub url: MirrorUrl,
}

/// Why look-ups by a policy would not be private.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum LookupError {
    /// One party would learn both who asks and what.
    #[error("relay and gateway are both run by `{0}`, which would learn who asks what")]
    Alone(OrganisationId),
    /// None, or too many.
    #[error("{0} relays; there must be 1 to {RELAYS_MAX}")]
    Relays(usize),
    /// Too many bits.
    #[error("prefixes of {0} bits; at most {PREFIX_BITS_MAX}")]
    Prefix(u8),
    /// Not base64.
    #[error("the gateway's key is no key configuration in base64")]
    Key,
}

impl LookupPolicy {
    pub(crate) fn check(&self, policy: &Policy) -> Result<(), PolicyError> {
        let defined = |what: &str, id: &OrganisationId| {
            let found = policy.organisations.iter().any(|it| it.id == *id);
            let undefined =
                || PolicyError::Undefined { what: what.to_owned(), kind: "an organisation", name: id.to_string() };
            found.then_some(()).ok_or_else(undefined)
        };
        defined("lookup", &self.gateway)?;
        if !(1..=RELAYS_MAX).contains(&self.relays.len()) {
            return Err(LookupError::Relays(self.relays.len()).into());
        }
        for relay in &self.relays {
            defined("a relay", &relay.organisation)?;
            if relay.organisation == self.gateway {
                return Err(LookupError::Alone(self.gateway.clone()).into());
            }
        }
        if self.prefix_bits > PREFIX_BITS_MAX {
            return Err(LookupError::Prefix(self.prefix_bits).into());
        }
        let base64 = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=');
        if self.key.is_empty() || self.key.len() > KEY_CHARS_MAX || !self.key.bytes().all(base64) {
            return Err(LookupError::Key.into());
        }
        Ok(())
    }
}
