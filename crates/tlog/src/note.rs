//! Signed notes (C2SP signed-note v1.0.0).

use std::{fmt, str};

use stdx::UnixTime;

use crate::cosignature::Cosignature;
use crate::text;
use crate::{Checkpoint, KeyId, KeyKind, KeyName, NameError, Signature, SignerKey, VerifierKey};

/// 100 post-quantum signatures of 5 kB, twice, for the text.
pub const MAX_NOTE_BYTES: usize = 1 << 20;

/// The specification asks for at least 16: room for a log, its witnesses and key changes.
pub const MAX_SIGNATURES: usize = 100;

/// What a signature line begins with: an em dash and a space.
const LINE_PREFIX: &str = "\u{2014} ";

/// Why a note was refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum NoteError {
    /// More bytes than [`MAX_NOTE_BYTES`].
    #[error("the note has {0} bytes, the limit is {MAX_NOTE_BYTES}")]
    TooLarge(usize),
    /// More lines than [`MAX_SIGNATURES`].
    #[error("the note has {0} signatures, the limit is {MAX_SIGNATURES}")]
    TooManySignatures(usize),
    /// Not UTF-8, or with a control character other than newline.
    #[error("the note is not plain UTF-8 text: bad byte at {0}")]
    NotText(usize),
    /// The text does not end in a newline, or nothing separates it from signatures.
    #[error("the note is not text, an empty line and signature lines")]
    NoSignatures,
    /// A damaged signature line.
    #[error("`{0}` is not a signature line")]
    BadLine(String),
    /// A signature line's name is unusable.
    #[error("a signature line names no key")]
    Name(#[from] NameError),
    /// The same signature line twice.
    #[error("the signature line of `{name}` ({id}) appears twice")]
    Duplicate {
        /// The key's name.
        name: KeyName,
        /// The key's id.
        id: KeyId,
    },
    /// Two different known keys share name and id.
    #[error("two trusted keys share the name `{name}` and the id {id}")]
    AmbiguousKeys {
        /// The shared name.
        name: KeyName,
        /// The shared id.
        id: KeyId,
    },
    /// A line claims a known key that did not make it; the whole note is refused.
    #[error("the signature of the trusted key `{name}` ({id}) is wrong")]
    WrongSignature {
        /// The key's name.
        name: KeyName,
        /// The key's id.
        id: KeyId,
    },
    /// No line is by a known key.
    #[error("no signature is by a trusted key")]
    NoTrustedSignature,
    /// A key of another kind than the note needs.
    #[error("key `{name}` is of kind {kind:?}, which can't sign this")]
    WrongKind {
        /// The key's name.
        name: KeyName,
        /// Its kind.
        kind: KeyKind,
    },
}

/// One signature line: who is said to have signed, and the bytes after the key id.
///
/// Its text is the whole line with its newline: `— name base64(id ‖ signature)`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NoteSignature {
    name: KeyName,
    id: KeyId,
    bytes: Vec<u8>,
}

impl NoteSignature {
    /// The line that `key` would own, with these signature bytes.
    pub(crate) fn by(key: &VerifierKey, bytes: Vec<u8>) -> Self {
        Self { name: key.name().clone(), id: key.id(), bytes }
    }

    /// The name of the key that is said to have signed.
    #[must_use]
    pub const fn name(&self) -> &KeyName {
        &self.name
    }

    /// The id of the key that is said to have signed.
    #[must_use]
    pub const fn id(&self) -> KeyId {
        self.id
    }

    /// The signature as its type defines it, without the key id; never empty.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Whether the line claims to be by `key`.
    #[must_use]
    pub fn claims(&self, key: &VerifierKey) -> bool {
        self.id == key.id() && self.name == *key.name()
    }
}

impl fmt::Display for NoteSignature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut material = Vec::with_capacity(4 + self.bytes.len());
        material.extend_from_slice(self.id.as_bytes());
        material.extend_from_slice(&self.bytes);
        writeln!(f, "{LINE_PREFIX}{} {}", self.name, text::base64_display(&material))
    }
}

impl str::FromStr for NoteSignature {
    type Err = NoteError;

    fn from_str(line: &str) -> Result<Self, NoteError> {
        let refuse = || NoteError::BadLine(text::excerpt(line));
        let (name, material) = line
            .strip_prefix(LINE_PREFIX)
            .and_then(|rest| rest.strip_suffix('\n'))
            .and_then(|rest| rest.split_once(' '))
            .ok_or_else(refuse)?;
        let name = name.parse()?;
        let material = text::base64_decode(material).ok_or_else(refuse)?;
        match material.split_first_chunk::<4>() {
            Some((id, bytes)) if !bytes.is_empty() => {
                Ok(Self { name, id: KeyId::from_bytes(*id), bytes: bytes.to_vec() })
            }
            _ => Err(refuse()),
        }
    }
}

/// A text and the signature lines under it; nothing of it is verified until
/// [`verified_by`](Note::verified_by) says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    text: String,
    signatures: Vec<NoteSignature>,
}

/// A line that a known key did make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VerifiedSignature<'a> {
    /// The key.
    pub key: &'a VerifierKey,
    /// The line.
    pub line: &'a NoteSignature,
    /// When a cosignature says that it was made; other kinds carry no time.
    pub time: Option<UnixTime>,
}

impl Note {
    /// A note without signatures.
    ///
    /// # Errors
    /// When `text` does not end in a newline, is too large, or holds control characters.
    pub fn new(text: impl Into<String>) -> Result<Self, NoteError> {
        let text = text.into();
        check_text(text.as_bytes())?;
        if !text.ends_with('\n') {
            return Err(NoteError::NoSignatures);
        }
        Ok(Self { text, signatures: Vec::new() })
    }

    /// Reads a note with at least one signature line. The text ends at the *last* empty line.
    ///
    /// # Errors
    /// Whatever is not the one form that [`Display`](fmt::Display) writes.
    pub fn parse(bytes: impl AsRef<[u8]>) -> Result<Self, NoteError> {
        let whole = check_text(bytes.as_ref())?;
        let split = whole.rfind("\n\n").ok_or(NoteError::NoSignatures)?;
        let (text, rest) = whole.split_at_checked(split + 1).ok_or(NoteError::NoSignatures)?;
        let lines = rest.strip_prefix('\n').ok_or(NoteError::NoSignatures)?;
        let signatures = parse_lines(lines)?;
        if signatures.is_empty() {
            return Err(NoteError::NoSignatures);
        }
        Ok(Self { text: text.to_owned(), signatures })
    }

    /// What was signed, with its final newline.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The lines in their order.
    #[must_use]
    pub fn signatures(&self) -> &[NoteSignature] {
        &self.signatures
    }

    /// Adds a signature of the note's text.
    ///
    /// # Errors
    /// When the key is not of kind [`KeyKind::Ed25519`], signed already, or the note is full.
    pub fn sign(&mut self, key: &SignerKey) -> Result<(), NoteError> {
        let verifier = key.verifier();
        if verifier.kind() != KeyKind::Ed25519 {
            return Err(NoteError::WrongKind { name: verifier.name().clone(), kind: verifier.kind() });
        }
        let signature = key.sign(self.text.as_bytes());
        self.add(NoteSignature::by(verifier, signature.as_bytes().to_vec()))
    }

    /// Adds a line as it is, unverified.
    ///
    /// # Errors
    /// When it is there already, or the note is full.
    pub fn add(&mut self, line: NoteSignature) -> Result<(), NoteError> {
        if self.signatures.contains(&line) {
            return Err(NoteError::Duplicate { name: line.name, id: line.id });
        }
        if self.signatures.len() >= MAX_SIGNATURES {
            return Err(NoteError::TooManySignatures(self.signatures.len() + 1));
        }
        self.signatures.push(line);
        Ok(())
    }

    /// The same text under other lines.
    ///
    /// # Errors
    /// As [`add`](Note::add).
    pub fn with_signatures(&self, lines: impl IntoIterator<Item = NoteSignature>) -> Result<Self, NoteError> {
        let mut note = Self { text: self.text.clone(), signatures: Vec::new() };
        lines.into_iter().try_for_each(|line| note.add(line))?;
        Ok(note)
    }

    /// The lines that `keys` made, in the note's order. Lines of other keys are ignored, even if
    /// they share a name or an id with one of `keys`. A key of kind [`KeyKind::Cosignature`]
    /// counts only on a checkpoint.
    ///
    /// # Errors
    /// [`NoteError::WrongSignature`] when a line claims one of `keys` that did not make it,
    /// [`NoteError::NoTrustedSignature`] when none is by `keys`, [`NoteError::AmbiguousKeys`].
    pub fn verified_by<'a>(&'a self, keys: &'a [VerifierKey]) -> Result<Vec<VerifiedSignature<'a>>, NoteError> {
        let mut verified = Vec::new();
        for line in &self.signatures {
            let mut claimed = keys.iter().filter(|key| line.claims(key));
            let Some(key) = claimed.next() else { continue };
            if claimed.any(|other| other != key) {
                return Err(NoteError::AmbiguousKeys { name: line.name.clone(), id: line.id });
            }
            let time = self.verify_line(line, key)?;
            verified.push(VerifiedSignature { key, line, time });
        }
        if verified.is_empty() { Err(NoteError::NoTrustedSignature) } else { Ok(verified) }
    }

    fn verify_line(&self, line: &NoteSignature, key: &VerifierKey) -> Result<Option<UnixTime>, NoteError> {
        let wrong = || NoteError::WrongSignature { name: line.name.clone(), id: line.id };
        match key.kind() {
            KeyKind::Ed25519 => {
                let bytes: &[u8; 64] = line.bytes.as_slice().try_into().map_err(|_| wrong())?;
                key.verify(self.text.as_bytes(), &Signature::from_bytes(*bytes)).map_err(|_| wrong())?;
                Ok(None)
            }
            KeyKind::Cosignature => {
                // A cosignature has a meaning on a checkpoint only.
                Checkpoint::parse(&self.text).map_err(|_| wrong())?;
                let cosignature = Cosignature::from_bytes(&line.bytes).map_err(|_| wrong())?;
                cosignature.verify_text(&self.text, key).map_err(|_| wrong())?;
                Ok(Some(cosignature.time))
            }
        }
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.text)?;
        self.signatures.iter().try_for_each(|line| line.fmt(f))
    }
}

impl str::FromStr for Note {
    type Err = NoteError;

    fn from_str(text: &str) -> Result<Self, NoteError> {
        Self::parse(text)
    }
}

/// Signature lines, each ended by a newline, none twice.
pub(crate) fn parse_lines(lines: &str) -> Result<Vec<NoteSignature>, NoteError> {
    let count = lines.split_inclusive('\n').count();
    if count > MAX_SIGNATURES {
        return Err(NoteError::TooManySignatures(count));
    }
    let mut signatures: Vec<NoteSignature> = Vec::with_capacity(count);
    for line in lines.split_inclusive('\n') {
        let signature: NoteSignature = line.parse()?;
        if signatures.contains(&signature) {
            return Err(NoteError::Duplicate { name: signature.name, id: signature.id });
        }
        signatures.push(signature);
    }
    Ok(signatures)
}

/// UTF-8 within the size limit, without ASCII control characters other than newline.
pub(crate) fn check_text(bytes: &[u8]) -> Result<&str, NoteError> {
    if bytes.len() > MAX_NOTE_BYTES {
        return Err(NoteError::TooLarge(bytes.len()));
    }
    if let Some(position) = bytes.iter().position(|&byte| byte < 0x20 && byte != b'\n') {
        return Err(NoteError::NotText(position));
    }
    str::from_utf8(bytes).map_err(|error| NoteError::NotText(error.valid_up_to()))
}
