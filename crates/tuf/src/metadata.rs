//! A signed metadata file (TUF 4.2.1): its bytes, its signatures, what they are over.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use stdx::UnixTime;

use crate::error::Error;
use crate::json::Json;
use crate::key::{KeyId, KeyRing, RoleKeys, SignedMessage, Suite, distinct};
use crate::roles::{Content, Version};
use crate::sign::{SignError, Signer};

/// The specification that we write, and whose major version we read.
const SPEC_VERSION: &str = "1.0.34";

/// A metadata file whose form is right; whether its signatures are is for [`Metadata::verify`].
#[derive(Clone, Debug)]
pub struct Metadata<T> {
    bytes: Vec<u8>,
    canonical: Vec<u8>,
    envelope: Envelope,
    content: T,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Envelope {
    signatures: Vec<SignatureLine>,
    signed: Json,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct SignatureLine {
    keyid: KeyId,
    /// Any text: one bad signature must not spoil the good ones beside it.
    sig: String,
}

/// The same bytes again, read as what `T` knows of them.
#[derive(Deserialize)]
struct Typed<T> {
    signed: T,
}

/// The keys that must have signed a file.
#[derive(Clone, Copy, Debug)]
pub struct Authority<'a> {
    /// Where the keys are listed.
    pub keys: &'a KeyRing,
    /// Whose they are and how many must sign.
    pub role: &'a RoleKeys,
}

/// How many signatures a file has of those it needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signed {
    /// How many different keys of the role signed it.
    pub valid: usize,
    /// How many must.
    pub threshold: usize,
}

impl Signed {
    /// Whether they are enough.
    #[must_use]
    pub const fn is_enough(self) -> bool {
        self.valid >= self.threshold
    }
}

impl<T: Content> Metadata<T> {
    /// Reads a file, which is kept byte for byte. `file` names it in errors.
    ///
    /// # Errors
    /// [`Error::Malformed`] if it isn't metadata of this kind: JSON, `_type`, `spec_version` 1.x,
    /// each key id at most once in `signatures`.
    pub fn parse(file: &str, bytes: Vec<u8>) -> Result<Self, Error> {
        let malformed = |reason: String| Error::Malformed { file: file.to_owned(), reason };
        let envelope: Envelope = serde_json::from_slice(&bytes).map_err(|error| malformed(error.to_string()))?;
        let text = |name| envelope.signed.member(name).and_then(Json::text).unwrap_or_default();
        if text("_type") != T::TYPE {
            return Err(malformed(format!("its _type is not `{}`", T::TYPE)));
        }
        if text("spec_version").split('.').next() != Some("1") {
            return Err(malformed("its spec_version is not 1.x".to_owned()));
        }
        // 4.2.1: multiple signatures with the same keyid are not allowed.
        let ids: BTreeSet<_> = envelope.signatures.iter().map(|line| &line.keyid).collect();
        if ids.len() != envelope.signatures.len() {
            return Err(malformed("two signatures with one keyid".to_owned()));
        }
        let typed: Typed<T> = serde_json::from_slice(&bytes).map_err(|error| malformed(error.to_string()))?;
        let canonical = envelope.signed.canonical();
        Ok(Self { bytes, canonical, envelope, content: typed.signed })
    }

    /// Writes `content` and signs it with each of `signers`.
    ///
    /// # Errors
    /// [`SignError`] if a signer fails or makes a signature that doesn't verify.
    pub fn sign(content: &T, signers: &[&dyn Signer]) -> Result<Self, SignError> {
        let mut signed = to_json(content)?;
        if let Json::Object(members) = &mut signed {
            members.insert("_type".to_owned(), Json::String(T::TYPE.to_owned()));
            members.insert("spec_version".to_owned(), Json::String(SPEC_VERSION.to_owned()));
        }
        let mut metadata = Self::assemble(Envelope { signatures: Vec::new(), signed })?;
        for signer in signers {
            metadata.add_signature(*signer)?;
        }
        Ok(metadata)
    }

    /// Adds `signer`'s signature, or replaces its earlier one. The members that we don't know
    /// stay as they were.
    ///
    /// # Errors
    /// As [`Metadata::sign`].
    pub fn add_signature(&mut self, signer: &dyn Signer) -> Result<(), SignError> {
        let signature = signer.sign(&self.canonical)?;
        let key = signer.public_key();
        // What we wouldn't accept must not leave.
        if !signer.suite().verifies(key, SignedMessage { message: &self.canonical, signature: &signature }) {
            return Err(SignError::Wrong(key.id().clone()));
        }
        let mut envelope = self.envelope.clone();
        envelope.signatures.retain(|line| line.keyid != *key.id());
        envelope.signatures.push(SignatureLine { keyid: key.id().clone(), sig: hex::encode(signature) });
        envelope.signatures.sort();
        *self = Self::assemble(envelope)?;
        Ok(())
    }

    fn assemble(envelope: Envelope) -> Result<Self, SignError> {
        let bytes = serde_json::to_vec(&envelope).map_err(|error| SignError::Unwritable(error.to_string()))?;
        Self::parse(T::TYPE, bytes).map_err(|error| SignError::Unwritable(error.to_string()))
    }

    /// How many different keys of `authority` signed this.
    #[must_use]
    pub fn signed_by(&self, authority: Authority<'_>, suite: &dyn Suite) -> Signed {
        let ours = self.envelope.signatures.iter().filter(|line| authority.role.keyids.contains(&line.keyid));
        let valid = ours.filter_map(|line| {
            let key = authority.keys.get(&line.keyid)?;
            let signature = hex::decode(&line.sig).ok()?;
            suite.verifies(key, SignedMessage { message: &self.canonical, signature: &signature }).then_some(key)
        });
        let threshold = usize::try_from(authority.role.threshold.get()).unwrap_or(usize::MAX);
        Signed { valid: distinct(valid), threshold }
    }

    /// Checks that a threshold of `authority`'s keys signed this. `file` names it in errors.
    ///
    /// # Errors
    /// [`Error::Unsigned`] if fewer did.
    pub fn verify(&self, file: &str, authority: Authority<'_>, suite: &dyn Suite) -> Result<(), Error> {
        let signed = self.signed_by(authority, suite);
        if signed.is_enough() { Ok(()) } else { Err(Error::Unsigned { file: file.to_owned(), signed }) }
    }

    /// The file, byte for byte.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// What it says.
    #[must_use]
    pub const fn content(&self) -> &T {
        &self.content
    }

    /// Its version.
    #[must_use]
    pub fn version(&self) -> Version {
        self.content.version()
    }

    /// When it expires.
    #[must_use]
    pub fn expires(&self) -> UnixTime {
        self.content.expires()
    }
}

fn to_json<T: Serialize>(content: &T) -> Result<Json, SignError> {
    let bytes = serde_json::to_vec(content).map_err(|error| SignError::Unwritable(error.to_string()))?;
    Json::parse(&bytes).map_err(|error| SignError::Unwritable(error.to_string()))
}
