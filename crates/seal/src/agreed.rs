//! HPKE (RFC 9180) in base mode for DHKEM(P-256, HKDF-SHA256), HKDF-SHA256 and AES-256-GCM, from what two keys come to: a
//! receiver's key may be elsewhere, in hardware, which does no more than the Diffie-Hellman.

use aes_gcm::aead::consts::U12;
use aes_gcm::aead::{AeadInOut as _, KeyInit as _};
use aes_gcm::{Aes256Gcm, Nonce};
use hkdf::Hkdf;
use sha2::Sha256;
use stdx::{Entropy, EntropyError};
use zeroize::Zeroizing;

use crate::curve::{Point, SECRET_BYTES, Secret};
use crate::share::Wrapped;

/// `"KEM"` and DHKEM(P-256, HKDF-SHA256).
const KEM_SUITE: &[u8] = b"KEM\x00\x10";
/// `"HPKE"`, the KEM, HKDF-SHA256, AES-256-GCM.
const HPKE_SUITE: &[u8] = b"HPKE\x00\x10\x00\x01\x00\x02";

/// The x coordinate of the point that both sides come to (RFC 9180, 7.1.4): what a token gives.
pub struct AgreedSecret(Zeroizing<[u8; SECRET_BYTES]>);

impl AgreedSecret {
    /// These bytes.
    #[must_use]
    pub const fn new(bytes: Zeroizing<[u8; SECRET_BYTES]>) -> Self {
        Self(bytes)
    }

    /// `ExtractAndExpand` (4.1).
    fn shared_secret(&self, encapsulated: &[u8], receiver: &Point) -> Zeroizing<[u8; 32]> {
        let context = [encapsulated, receiver.as_bytes()].concat();
        expand(&extract(&[], KEM_SUITE, "eae_prk", &*self.0), KEM_SUITE, "shared_secret", &context)
    }

    /// The cipher for the first and only message, and its nonce.
    fn cipher(&self, encapsulated: &[u8], receiver: &Point, info: &[u8]) -> (Aes256Gcm, Nonce<U12>) {
        let secret = self.shared_secret(encapsulated, receiver);
        // 5.1: KeySchedule, mode_base
        let psk_id_hash = hash("psk_id_hash", b"");
        let info_hash = hash("info_hash", info);
        let context = [&[0], &psk_id_hash[..], &info_hash[..]].concat();
        let secret = extract(&*secret, HPKE_SUITE, "secret", b"");
        let key: Zeroizing<[u8; 32]> = expand(&secret, HPKE_SUITE, "key", &context);
        let nonce: Zeroizing<[u8; 12]> = expand(&secret, HPKE_SUITE, "base_nonce", &context);
        (Aes256Gcm::new((&*key).into()), Nonce::from(*nonce))
    }
}

/// A fresh secret and its point.
///
/// # Errors
/// When there is no randomness.
pub(crate) fn generate(entropy: &dyn Entropy) -> Result<(Secret, Point), EntropyError> {
    let mut seed = Zeroizing::new([0; SECRET_BYTES]);
    entropy.fill(&mut *seed)?;
    Ok(derive(&seed))
}

/// `DeriveKeyPair` (7.1.3).
fn derive(seed: &[u8; SECRET_BYTES]) -> (Secret, Point) {
    let prk = extract(&[], KEM_SUITE, "dkp_prk", seed);
    let mut candidates = (0..=u8::MAX).map(|counter| expand(&prk, KEM_SUITE, "candidate", &[counter]));
    let made = candidates.find_map(|secret| Point::of(&secret).map(|point| (secret, point)));
    made.expect("of 256 numbers, each below the curve's order with all but one in 2^32, one is")
}

/// Seals a message to `to`, bound to `info`: `Seal`, with sequence number 0 and no additional data (5.2).
///
/// # Errors
/// When there is no randomness.
pub(crate) fn seal(message: &[u8], to: &Point, info: &[u8], entropy: &dyn Entropy) -> Result<Wrapped, EntropyError> {
    let (secret, point) = generate(entropy)?;
    let agreed = to.agree(&secret).expect("a secret that has a point, and a point on the curve");
    let (cipher, nonce) = agreed.cipher(point.as_bytes(), to, info);
    let mut sealed = message.to_vec();
    cipher.encrypt_in_place(&nonce, b"", &mut sealed).expect("a message in memory");
    Ok(Wrapped { encapsulated: point.as_bytes().to_vec(), sealed })
}

/// Opens what was sealed to `key` and bound to `info`. `agreed` is what the key's owner and what was encapsulated come to.
pub(crate) fn open(wrapped: &Wrapped, key: &Point, info: &[u8], agreed: &AgreedSecret) -> Option<Zeroizing<Vec<u8>>> {
    let (cipher, nonce) = agreed.cipher(&wrapped.encapsulated, key, info);
    let mut opened = Zeroizing::new(wrapped.sealed.clone());
    cipher.decrypt_in_place(&nonce, b"", &mut *opened).ok()?;
    Some(opened)
}

type Prk = Hkdf<Sha256>;

fn labeled(suite: &[u8], label: &str, bytes: &[u8]) -> Zeroizing<Vec<u8>> {
    Zeroizing::new([b"HPKE-v1", suite, label.as_bytes(), bytes].concat())
}

/// `LabeledExtract`.
fn extract(salt: &[u8], suite: &[u8], label: &str, bytes: &[u8]) -> Prk {
    Prk::new(Some(salt), &labeled(suite, label, bytes))
}

fn hash(label: &str, bytes: &[u8]) -> [u8; 32] {
    let (prk, _) = Prk::extract(None, &labeled(HPKE_SUITE, label, bytes));
    prk.into()
}

/// `LabeledExpand`.
fn expand<const N: usize>(prk: &Prk, suite: &[u8], label: &str, info: &[u8]) -> Zeroizing<[u8; N]> {
    let mut bytes = Zeroizing::new([0; N]);
    let length = u16::try_from(N).expect("32 or 12").to_be_bytes();
    let info = [&length[..], &labeled(suite, label, info)].concat();
    prk.expand(&info, &mut *bytes).expect("no more than a hash");
    bytes
}

#[cfg(test)]
mod tests {
    use hpke::aead::AesGcm256;
    use hpke::kdf::HkdfSha256;
    use hpke::kem::DhP256HkdfSha256;
    use hpke::{Deserializable as _, Kem as _, OpModeR, OpModeS, Serializable as _};
    use hpke::{single_shot_open, single_shot_seal_with_rng};
    use stdx::SystemEntropy;

    use super::*;
    use crate::key::{Kem, PrivateKey};
    use crate::share::{Drawn, Share};

    fn bytes<const N: usize>(digits: &str) -> [u8; N] {
        hex::decode(digits).unwrap().try_into().unwrap()
    }

    /// RFC 9180, A.3.1: what does not depend on the cipher.
    #[test]
    fn the_standards_vectors() {
        let (secret, sender) = derive(&bytes("4270e54ffd08d79d5928020af4686d8f6b7d35dbe470265f1f5aa22816ce860e"));
        assert_eq!(*secret, bytes("4995788ef4b9d6132b249ce59a77281493eb39af373d236a1fe415cb0c2d7beb"));
        let point = "04a92719c6195d5085104f469a8b9814d5838ff72b60501e2c4466e5e67b325ac9\
                     8536d7b61a1af4b78e5b7f951c0900be863c403ce65c9bfcb9382657222d18c4";
        assert_eq!(*sender.as_bytes(), bytes(point));
        let (private, receiver) = derive(&bytes("668b37171f1072f3cf12ea8a236a45df23fc13b82af3609ad1e354f6ef817550"));
        assert_eq!(*private, bytes("f3ce7fdae57e1a310d87f1ebbde6f328be0a99cdbcadf4d6589cf29de4b8ffd2"));
        let point = "04fe8c19ce0905191ebc298a9245792531f26f0cece2460639e8bc39cb7f706a82\
                     6a779b4cf969b8a0e539c7f62fb3d30ad6aa8f80e30f1d128aafd68a2ce72ea0";
        assert_eq!(*receiver.as_bytes(), bytes(point));
        let shared = bytes("c0d26aeab536609a572b07695d933b589dcf363ff9d93c93adea537aeabb8cb8");
        for (secret, with) in [(&secret, &receiver), (&private, &sender)] {
            let agreed = with.agree(secret).unwrap();
            assert_eq!(*agreed.shared_secret(sender.as_bytes(), &receiver), shared);
        }
    }

    /// A key, and the same in the words of `hpke`.
    fn key() -> (Secret, Point, <DhP256HkdfSha256 as hpke::Kem>::PrivateKey) {
        let (secret, point) = generate(&SystemEntropy).unwrap();
        let theirs = <DhP256HkdfSha256 as hpke::Kem>::PrivateKey::from_bytes(&*secret).unwrap();
        assert_eq!(DhP256HkdfSha256::sk_to_pk(&theirs).to_bytes().as_slice(), point.as_bytes());
        (secret, point, theirs)
    }

    #[test]
    fn hpke_opens_what_is_sealed_here() {
        let (_, point, theirs) = key();
        for length in [0, 1, 32, 5000] {
            let message = vec![7; length];
            let wrapped = seal(&message, &point, b"info", &SystemEntropy).unwrap();
            let enc = <DhP256HkdfSha256 as hpke::Kem>::EncappedKey::from_bytes(&wrapped.encapsulated).unwrap();
            let open = |info| {
                let mode = OpModeR::Base;
                single_shot_open::<AesGcm256, HkdfSha256, DhP256HkdfSha256>(
                    &mode,
                    &theirs,
                    &enc,
                    info,
                    &wrapped.sealed,
                    b"",
                )
            };
            assert_eq!(open(b"info").unwrap(), message);
            assert!(open(b"other").is_err());
        }
    }

    #[test]
    fn what_hpke_seals_is_opened_here() {
        let (secret, point, theirs) = key();
        let (public, mut drawn) = (DhP256HkdfSha256::sk_to_pk(&theirs), Drawn::new(&SystemEntropy));
        for length in [0, 1, 32, 5000] {
            let message = vec![7; length];
            let (encapsulated, sealed) = single_shot_seal_with_rng::<AesGcm256, HkdfSha256, DhP256HkdfSha256>(
                &OpModeS::Base,
                &public,
                b"info",
                &message,
                b"",
                &mut drawn,
            )
            .unwrap();
            let wrapped = Wrapped { encapsulated: encapsulated.to_bytes().to_vec(), sealed };
            let agreed = Point::from_bytes(&wrapped.encapsulated).unwrap().agree(&secret).unwrap();
            assert_eq!(*open(&wrapped, &point, b"info", &agreed).unwrap(), message);
            assert!(open(&wrapped, &point, b"other", &agreed).is_none());
            assert!(open(&wrapped, &key().1, b"info", &agreed).is_none(), "another's");
            let wrong = AgreedSecret::new(Zeroizing::new([7; 32]));
            assert!(open(&wrapped, &point, b"info", &wrong).is_none());
            let hybrid = PrivateKey::generate(Kem::XWing, &SystemEntropy).unwrap();
            assert!(Share::open_agreed(&wrapped, hybrid.public(), b"info", &agreed).is_none());
        }
    }
}
