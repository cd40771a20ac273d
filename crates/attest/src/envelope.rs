//! DSSE 1.0.2 (`protocol.md`, `envelope.md`) in one canonical form.
//!
//! DSSE accepts any JSON and both base64 alphabets; we accept exactly what [`Envelope::to_bytes`]
//! writes: members in the order `payload`, `payloadType`, `signatures`, no white space, padded
//! standard base64, signatures strictly ascending by key. An envelope is a log entry, so it is at
//! most 65,535 bytes (C2SP tlog-tiles, "Log entries").

use std::{fmt, str};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use stdx::Digest;
use tlog::{KeyId, KeyName, Signature, SignerKey, VerifierKey};

/// The one payload type we sign: an in-toto Statement.
pub const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";

/// The tiles format gives an entry's length 16 bits.
pub const ENVELOPE_BYTES_MAX: usize = 65_535;

/// Two organisations, their approvers and a succession fit in 16 with room.
const SIGNATURES_MAX: usize = 16;

/// The identity of a statement: SHA-256 of its PAE.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StatementId(Digest);

impl StatementId {
    /// The identity of the in-toto statement with these payload bytes.
    #[must_use]
    pub fn of(payload: &[u8]) -> Self {
        Self(Digest::of(&pae(PAYLOAD_TYPE, payload)))
    }

    /// The statement with this digest, if there is one.
    #[must_use]
    pub const fn from_digest(digest: Digest) -> Self {
        Self(digest)
    }

    /// The digest.
    #[must_use]
    pub const fn digest(&self) -> &Digest {
        &self.0
    }
}

impl fmt::Display for StatementId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for StatementId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "statement:{}", self.0)
    }
}

impl str::FromStr for StatementId {
    type Err = stdx::DigestError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

/// DSSE's pre-authentication encoding (`protocol.md`, "Signature Definition").
#[must_use]
pub fn pae(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let mut bytes = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len()).into_bytes();
    bytes.extend_from_slice(payload);
    bytes
}

/// A signer as an envelope names it: key name and key ID of its `vkey`, joined by `+`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyRef(String);

impl KeyRef {
    /// The name of `key`.
    #[must_use]
    pub fn of(key: &VerifierKey) -> Self {
        Self::new(key.name(), key.id())
    }

    fn new(name: &KeyName, id: KeyId) -> Self {
        Self(format!("{name}+{id}"))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for KeyRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One signature over the PAE, not yet checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnvelopeSignature {
    /// Who claims to have signed.
    pub key: KeyRef,
    /// Ed25519 over the PAE.
    pub signature: Signature,
}

/// A signed statement whose signatures nobody has checked yet.
#[derive(Clone, PartialEq, Eq)]
pub struct Envelope {
    payload: Vec<u8>,
    signatures: Vec<EnvelopeSignature>,
}

/// Why bytes are not an envelope, or a signature can't join one.
#[derive(Debug, thiserror::Error)]
pub enum EnvelopeError {
    /// Too long for a log entry.
    #[error("the envelope has {0} bytes; a log entry holds at most {ENVELOPE_BYTES_MAX}")]
    TooLong(usize),
    /// Not JSON of the envelope's shape.
    #[error("not a DSSE envelope: {0}")]
    Syntax(String),
    /// JSON of the right shape in another encoding than ours.
    #[error("the envelope is not in canonical form (member order, white space, base64 or order of signatures)")]
    NotCanonical,
    /// Some other payload.
    #[error("the payload type is `{0}`, not {PAYLOAD_TYPE}")]
    PayloadType(String),
    /// No signature, or too many.
    #[error("{0} signatures; an envelope carries 1 to {SIGNATURES_MAX}")]
    SignatureCount(usize),
    /// A signature by this key is there already, and is another one.
    #[error("`{0}` has signed this statement already, with another signature")]
    Conflict(KeyRef),
    /// A signature that does not verify.
    #[error("the signature by `{0}` does not verify")]
    BadSignature(KeyRef),
    /// Envelopes of different statements can't be joined.
    #[error("the envelopes hold different statements: {0} and {1}")]
    OtherStatement(StatementId, StatementId),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    payload: String,
    #[serde(rename = "payloadType")]
    payload_type: String,
    signatures: Vec<WireSignature>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WireSignature {
    keyid: String,
    sig: String,
}

impl Envelope {
    /// Reads an envelope in canonical form. No signature is checked.
    ///
    /// # Errors
    /// [`EnvelopeError`] for anything but the one canonical encoding.
    pub fn parse(bytes: &[u8]) -> Result<Self, EnvelopeError> {
        if bytes.len() > ENVELOPE_BYTES_MAX {
            return Err(EnvelopeError::TooLong(bytes.len()));
        }
        let wire: Wire = serde_json::from_slice(bytes).map_err(|error| EnvelopeError::Syntax(error.to_string()))?;
        if wire.payload_type != PAYLOAD_TYPE {
            return Err(EnvelopeError::PayloadType(wire.payload_type.chars().take(80).collect()));
        }
        let payload = STANDARD.decode(&wire.payload).map_err(|_| EnvelopeError::NotCanonical)?;
        let signatures = wire
            .signatures
            .into_iter()
            .map(|WireSignature { keyid, sig }| {
                let bytes: [u8; 64] = STANDARD
                    .decode(&sig)
                    .ok()
                    .and_then(|raw| raw.try_into().ok())
                    .ok_or(EnvelopeError::NotCanonical)?;
                Ok(EnvelopeSignature { key: KeyRef(keyid), signature: Signature::from_bytes(bytes) })
            })
            .collect::<Result<Vec<_>, EnvelopeError>>()?;
        let envelope = Self { payload, signatures };
        envelope.check_signature_count()?;
        // The one test that every other spelling fails, whatever it consists in.
        if !envelope.is_sorted() || envelope.to_bytes() != bytes {
            return Err(EnvelopeError::NotCanonical);
        }
        Ok(envelope)
    }

    /// Signs `payload` with each of `keys`.
    ///
    /// # Errors
    /// [`EnvelopeError`] when there is no key, a key twice, or the result is too long.
    pub fn sign(payload: Vec<u8>, keys: &[&SignerKey]) -> Result<Self, EnvelopeError> {
        let message = pae(PAYLOAD_TYPE, &payload);
        let mut envelope = Self { payload, signatures: Vec::with_capacity(keys.len()) };
        for key in keys {
            let signature = key.sign(&message);
            envelope.insert(EnvelopeSignature { key: KeyRef::of(key.verifier()), signature })?;
        }
        envelope.check_signature_count()?;
        envelope.check_length()?;
        Ok(envelope)
    }

    /// Adds the signatures of `other`, which must hold the same statement.
    ///
    /// # Errors
    /// [`EnvelopeError`] for another statement, or another signature by the same key.
    pub fn merge(&mut self, other: &Self) -> Result<(), EnvelopeError> {
        if self.payload != other.payload {
            return Err(EnvelopeError::OtherStatement(self.id(), other.id()));
        }
        for signature in &other.signatures {
            self.insert(signature.clone())?;
        }
        self.check_signature_count()?;
        self.check_length()
    }

    /// The canonical encoding.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut text = String::with_capacity(self.payload.len() / 3 * 4 + 256);
        text.push_str("{\"payload\":\"");
        STANDARD.encode_string(&self.payload, &mut text);
        text.push_str("\",\"payloadType\":\"application/vnd.in-toto+json\",\"signatures\":[");
        for (index, signature) in self.signatures.iter().enumerate() {
            text.push_str(if index == 0 { "{\"keyid\":" } else { ",{\"keyid\":" });
            text.push_str(&serde_json::Value::from(signature.key.as_str()).to_string());
            text.push_str(",\"sig\":\"");
            STANDARD.encode_string(signature.signature.as_bytes(), &mut text);
            text.push_str("\"}");
        }
        text.push_str("]}");
        text.into_bytes()
    }

    /// The statement's bytes; parse them only after a signature has been checked.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// The statement's identity.
    #[must_use]
    pub fn id(&self) -> StatementId {
        StatementId::of(&self.payload)
    }

    /// The signatures, ascending by key.
    #[must_use]
    pub fn signatures(&self) -> &[EnvelopeSignature] {
        &self.signatures
    }

    /// Whether a signature names `key`; if so, it is checked.
    ///
    /// # Errors
    /// [`EnvelopeError::BadSignature`] when a signature names `key` and does not verify.
    pub fn signed_by(&self, key: &VerifierKey) -> Result<bool, EnvelopeError> {
        let reference = KeyRef::of(key);
        let Some(signature) = self.signatures.iter().find(|signature| signature.key == reference) else {
            return Ok(false);
        };
        match key.verify(&pae(PAYLOAD_TYPE, &self.payload), &signature.signature) {
            Ok(()) => Ok(true),
            Err(_) => Err(EnvelopeError::BadSignature(reference)),
        }
    }

    fn insert(&mut self, new: EnvelopeSignature) -> Result<(), EnvelopeError> {
        match self.signatures.binary_search_by(|old| old.key.cmp(&new.key)) {
            Ok(at) if self.signatures.get(at) == Some(&new) => Ok(()),
            Ok(_) => Err(EnvelopeError::Conflict(new.key)),
            Err(at) => {
                self.signatures.insert(at, new);
                Ok(())
            }
        }
    }

    fn is_sorted(&self) -> bool {
        self.signatures.is_sorted_by(|left, right| left.key < right.key)
    }

    fn check_signature_count(&self) -> Result<(), EnvelopeError> {
        match self.signatures.len() {
            1..=SIGNATURES_MAX => Ok(()),
            count => Err(EnvelopeError::SignatureCount(count)),
        }
    }

    fn check_length(&self) -> Result<(), EnvelopeError> {
        let length = self.to_bytes().len();
        if length > ENVELOPE_BYTES_MAX { Err(EnvelopeError::TooLong(length)) } else { Ok(()) }
    }
}

impl fmt::Debug for Envelope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let signers: Vec<_> = self.signatures.iter().map(|signature| signature.key.as_str()).collect();
        f.debug_struct("Envelope").field("id", &self.id()).field("signers", &signers).finish_non_exhaustive()
    }
}
