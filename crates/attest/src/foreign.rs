//! DSSE envelopes as others write them (DSSE 1.0.2 `envelope.md`): any JSON, either base64.
//!
//! They are read once, where a vendor's own CI hands over its provenance, and are never logged,
//! revoked or named by digest; for all that there is [`Envelope`](crate::Envelope).

use base64::Engine as _;
use base64::alphabet::{STANDARD, URL_SAFE};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::Deserialize;
use tlog::{Signature, VerifierKey};

use crate::{PAYLOAD_TYPE, pae};

/// Provenance of builds with 10,000 dependencies has 3 MB, and base64 makes 4 of it.
const FOREIGN_BYTES_MAX: usize = 16 << 20;
/// More than anybody signs with.
const SIGNATURES_MAX: usize = 64;

/// Why a foreign envelope is not believed.
#[derive(Debug, thiserror::Error)]
pub enum ForeignEnvelopeError {
    /// Too long.
    #[error("the envelope has {0} bytes; at most {FOREIGN_BYTES_MAX} are read")]
    TooLong(usize),
    /// Not JSON of an envelope's shape.
    #[error("not a DSSE envelope: {0}")]
    Syntax(String),
    /// Some other payload.
    #[error("the payload type is `{0}`, not {PAYLOAD_TYPE}")]
    PayloadType(String),
    /// The key has not signed it.
    #[error("none of its {count} signatures is by `{key}`")]
    NotSigned {
        /// How many signatures there are.
        count: usize,
        /// The key that should have signed.
        key: String,
    },
}

#[derive(Deserialize)]
struct Wire {
    payload: String,
    #[serde(rename = "payloadType")]
    payload_type: String,
    signatures: Vec<WireSignature>,
}

#[derive(Deserialize)]
struct WireSignature {
    sig: String,
}

/// The payload of `envelope`, if `key` has signed it (Ed25519 over the PAE). `keyid` is a hint by
/// the specification, and no hint is needed for one key.
///
/// # Errors
/// [`ForeignEnvelopeError`].
pub fn open_foreign(envelope: &[u8], key: &VerifierKey) -> Result<Vec<u8>, ForeignEnvelopeError> {
    if envelope.len() > FOREIGN_BYTES_MAX {
        return Err(ForeignEnvelopeError::TooLong(envelope.len()));
    }
    let syntax = |error: String| ForeignEnvelopeError::Syntax(error);
    let wire: Wire = serde_json::from_slice(envelope).map_err(|error| syntax(error.to_string()))?;
    if wire.payload_type != PAYLOAD_TYPE {
        return Err(ForeignEnvelopeError::PayloadType(wire.payload_type.chars().take(80).collect()));
    }
    let payload = decode(&wire.payload).ok_or_else(|| syntax("its payload is not base64".to_owned()))?;
    let message = pae(PAYLOAD_TYPE, &payload);
    let is_ours = |signature: &WireSignature| {
        let bytes: Option<[u8; 64]> = decode(&signature.sig).and_then(|bytes| bytes.try_into().ok());
        bytes.is_some_and(|bytes| key.verify(&message, &Signature::from_bytes(bytes)).is_ok())
    };
    if wire.signatures.iter().take(SIGNATURES_MAX).any(is_ours) {
        return Ok(payload);
    }
    Err(ForeignEnvelopeError::NotSigned { count: wire.signatures.len(), key: key.to_string() })
}

fn decode(text: &str) -> Option<Vec<u8>> {
    let config = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    [STANDARD, URL_SAFE].iter().find_map(|alphabet| GeneralPurpose::new(alphabet, config).decode(text).ok())
}
