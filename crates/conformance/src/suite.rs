//! The algorithms of the specification's examples, which the endpoint does without.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::digest::{self, SHA512};
use ring::signature::{ECDSA_P256_SHA256_ASN1, RSA_PSS_2048_8192_SHA256, UnparsedPublicKey, VerificationAlgorithm};
use tuf::{Ed25519Sha256, PublicKey, RunningHash, SignedMessage, Suite};

/// Ed25519, RSASSA-PSS and ECDSA P-256; SHA-256 and SHA-512.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Everything;

impl Suite for Everything {
    fn verifies(&self, key: &PublicKey, signed: SignedMessage<'_>) -> bool {
        let algorithm: &'static dyn VerificationAlgorithm = match (key.key_type(), key.scheme()) {
            ("rsa", "rsassa-pss-sha256") => &RSA_PSS_2048_8192_SHA256,
            ("ecdsa", "ecdsa-sha2-nistp256") => &ECDSA_P256_SHA256_ASN1,
            _ => return Ed25519Sha256.verifies(key, signed),
        };
        let Some(public) = key.public().and_then(subject_public_key) else { return false };
        UnparsedPublicKey::new(algorithm, public).verify(signed.message, signed.signature).is_ok()
    }

    fn hash(&self, name: &str) -> Option<Box<dyn RunningHash>> {
        match name {
            "sha512" => Some(Box::new(Sha512(digest::Context::new(&SHA512)))),
            _ => Ed25519Sha256.hash(name),
        }
    }
}

struct Sha512(digest::Context);

impl RunningHash for Sha512 {
    fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(self: Box<Self>) -> String {
        hex::encode(self.0.finish())
    }
}

/// The key inside a PEM `SubjectPublicKeyInfo` (RFC 5280, 4.1), which is what ring takes: a point
/// or an RSA public key. Its algorithm is not looked at: the scheme has said it, and a key of
/// another kind doesn't parse.
fn subject_public_key(pem: &str) -> Option<Vec<u8>> {
    const SEQUENCE: u8 = 0x30;
    const BIT_STRING: u8 = 0x03;
    let body = pem.trim().strip_prefix("-----BEGIN PUBLIC KEY-----")?.strip_suffix("-----END PUBLIC KEY-----")?;
    let der = STANDARD.decode(body.split_ascii_whitespace().collect::<String>()).ok()?;
    let (info, rest) = element(SEQUENCE, &der)?;
    let (_algorithm, key) = element(SEQUENCE, info)?;
    let (key, end) = element(BIT_STRING, key)?;
    // The first byte counts the unused bits.
    let (unused, key) = key.split_first()?;
    (rest.is_empty() && end.is_empty() && *unused == 0).then(|| key.to_vec())
}

/// One DER element with this tag: its content and what follows it.
fn element(tag: u8, der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (found, der) = der.split_first()?;
    let (first, der) = der.split_first()?;
    let (length, der) = match first {
        0..=0x7f => (usize::from(*first), der),
        0x81 | 0x82 => {
            let (bytes, der) = der.split_at_checked(usize::from(first & 0x7f))?;
            (bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), der)
        }
        // A key of over 65,535 bytes is no key.
        _ => return None,
    };
    if *found == tag { der.split_at_checked(length) } else { None }
}
