//! Timestamped Ed25519 cosignatures (C2SP tlog-cosignature, type 0x04).

use stdx::UnixTime;

use crate::{Checkpoint, KeyKind, KeyName, NoteSignature, Signature, SignatureError, SignerKey, VerifierKey};

/// Why a cosignature was refused or not made.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum CosignatureError {
    /// Not 8 bytes of time and 64 of signature.
    #[error("a cosignature has 72 bytes, this one has {0}")]
    Length(usize),
    /// Zero (no time), above 2^63-1, or after the year 9999.
    #[error("a cosignature can't be made at second {0}")]
    Time(u64),
    /// The key is of another kind; one key has one role.
    #[error("key `{0}` is not a cosigner's")]
    NotACosigner(KeyName),
    /// The line claims another key.
    #[error("the line is by `{found}`, not by `{expected}`")]
    OtherKey {
        /// The key it was to be by.
        expected: KeyName,
        /// The name in the line.
        found: KeyName,
    },
    /// The key did not make it.
    #[error("the cosignature is wrong")]
    Wrong(#[from] SignatureError),
}

/// What a cosignature line carries after the key id: `u64be time ‖ Ed25519 signature`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cosignature {
    /// When the cosigner knew no larger tree of this log; never zero.
    pub time: UnixTime,
    /// Over `cosignature/v1`, the time, and the checkpoint's text.
    pub signature: Signature,
}

impl Cosignature {
    /// Reads the 72 bytes.
    ///
    /// # Errors
    /// [`CosignatureError::Length`], [`CosignatureError::Time`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, CosignatureError> {
        let length = || CosignatureError::Length(bytes.len());
        let (time, signature) = bytes.split_first_chunk::<8>().ok_or_else(length)?;
        let signature: &[u8; 64] = signature.try_into().map_err(|_| length())?;
        let seconds = u64::from_be_bytes(*time);
        let time = UnixTime::from_seconds(seconds);
        // `UnixTime` ends with year 9999, far below the specification's 2^63-1.
        if seconds == 0 || time.seconds() != seconds {
            return Err(CosignatureError::Time(seconds));
        }
        Ok(Self { time, signature: Signature::from_bytes(*signature) })
    }

    /// The 72 bytes.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; 72] {
        let mut bytes = [0; 72];
        let (time, signature) = bytes.split_at_mut(8);
        time.copy_from_slice(&self.time.seconds().to_be_bytes());
        signature.copy_from_slice(self.signature.as_bytes());
        bytes
    }

    /// Checks it over a checkpoint's text.
    pub(crate) fn verify_text(&self, text: &str, key: &VerifierKey) -> Result<(), CosignatureError> {
        if key.kind() != KeyKind::Cosignature {
            return Err(CosignatureError::NotACosigner(key.name().clone()));
        }
        Ok(key.verify(message(self.time, text).as_bytes(), &self.signature)?)
    }
}

/// Cosigns `checkpoint` at `time`. The caller has verified it, and knows no larger one.
///
/// # Errors
/// When `key` is not of kind [`KeyKind::Cosignature`], or `time` is the Epoch.
pub fn cosign(checkpoint: &Checkpoint, key: &SignerKey, time: UnixTime) -> Result<NoteSignature, CosignatureError> {
    let verifier = key.verifier();
    if verifier.kind() != KeyKind::Cosignature {
        return Err(CosignatureError::NotACosigner(verifier.name().clone()));
    }
    if time == UnixTime::EPOCH {
        return Err(CosignatureError::Time(0));
    }
    let signature = key.sign(message(time, &checkpoint.to_text()).as_bytes());
    let cosignature = Cosignature { time, signature };
    Ok(NoteSignature::by(verifier, cosignature.to_bytes().to_vec()))
}

/// Checks that `key` cosigned `checkpoint` with this line, and says when.
///
/// # Errors
/// [`CosignatureError`] saying what is wrong with the line or the key.
pub fn verify_cosignature(
    checkpoint: &Checkpoint,
    line: &NoteSignature,
    key: &VerifierKey,
) -> Result<UnixTime, CosignatureError> {
    if !line.claims(key) {
        return Err(CosignatureError::OtherKey { expected: key.name().clone(), found: line.name().clone() });
    }
    let cosignature = Cosignature::from_bytes(line.bytes())?;
    cosignature.verify_text(&checkpoint.to_text(), key)?;
    Ok(cosignature.time)
}

/// tlog-cosignature, "Ed25519 signed message".
fn message(time: UnixTime, text: &str) -> String {
    format!("cosignature/v1\ntime {}\n{text}", time.seconds())
}
