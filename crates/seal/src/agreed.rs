//! Opening a share with a key that is elsewhere, in hardware: it does the Diffie-Hellman, and HPKE's receiver
//! (RFC 9180) is finished here, for the one suite that such keys have. Everything else opens with `hpke`, and what
//! `hpke` has sealed is what a real token's secret must open (`crates/token/tests`).

use aes_gcm::aead::{AeadInOut as _, KeyInit as _};
use aes_gcm::{Aes256Gcm, Nonce};
use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::key::PublicKey;
use crate::share::{KEY_BYTES, Share, Wrapped};

/// `"KEM"` and DHKEM(P-256, HKDF-SHA256).
const KEM_SUITE: &[u8] = b"KEM\x00\x10";
/// `"HPKE"`, the KEM, HKDF-SHA256, AES-256-GCM.
const HPKE_SUITE: &[u8] = b"HPKE\x00\x10\x00\x01\x00\x02";

type Secret = Zeroizing<[u8; KEY_BYTES]>;

/// The x coordinate of the point that both sides come to (RFC 9180, 7.1.4): what a token gives.
pub struct AgreedSecret(Secret);

impl AgreedSecret {
    /// These bytes.
    #[must_use]
    pub const fn new(bytes: Zeroizing<[u8; KEY_BYTES]>) -> Self {
        Self(bytes)
    }
}

impl Share {
    /// Opens what was sealed to `key`, a P-256 one, if it was bound to `info`; `None` if it wasn't. `agreed` is what the
    /// key's owner and `wrapped.encapsulated` come to.
    #[must_use]
    pub fn open_agreed(wrapped: &Wrapped, key: &PublicKey, info: &[u8], agreed: &AgreedSecret) -> Option<Self> {
        let point = key.point()?;
        // 4.1: Decap
        let context = [&*wrapped.encapsulated, &point].concat();
        let secret: Secret =
            expand(&extract(&[], KEM_SUITE, "eae_prk", &*agreed.0), KEM_SUITE, "shared_secret", &context)?;
        // 5.1: KeySchedule, mode_base
        let psk_id_hash = hash("psk_id_hash", b"");
        let info_hash = hash("info_hash", info);
        let context = [&[0], &psk_id_hash[..], &info_hash[..]].concat();
        let secret = extract(&*secret, HPKE_SUITE, "secret", b"");
        let cipher_key: Secret = expand(&secret, HPKE_SUITE, "key", &context)?;
        let nonce: Zeroizing<[u8; 12]> = expand(&secret, HPKE_SUITE, "base_nonce", &context)?;
        // 5.2: Open, with sequence number 0
        let mut opened = Zeroizing::new(wrapped.sealed.clone());
        let cipher = Aes256Gcm::new((&*cipher_key).into());
        cipher.decrypt_in_place(&Nonce::from(*nonce), b"", &mut *opened).ok()?;
        Some(Self::from_bytes(Zeroizing::new(<[u8; KEY_BYTES]>::try_from(opened.as_slice()).ok()?)))
    }
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
fn expand<const N: usize>(prk: &Prk, suite: &[u8], label: &str, info: &[u8]) -> Option<Zeroizing<[u8; N]>> {
    let mut bytes = Zeroizing::new([0; N]);
    let length = u16::try_from(N).ok()?.to_be_bytes();
    let info = [&length[..], &labeled(suite, label, info)].concat();
    prk.expand(&info, &mut *bytes).ok()?;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use hpke::kem::DhP256HkdfSha256;
    use hpke::{Kem as _, Serializable as _};
    use stdx::SystemEntropy;

    use super::*;
    use crate::key::{Kem, PrivateKey, Public};

    /// That the right one opens is tried with a real token (`crates/token/tests`).
    #[test]
    fn a_secret_that_is_not_the_right_one_opens_nothing() {
        let key = PrivateKey::generate(Kem::P256, &SystemEntropy).unwrap();
        let share = Share::draw(&SystemEntropy).unwrap();
        let wrapped = share.seal(key.public(), b"info", &SystemEntropy).unwrap();
        let wrong = AgreedSecret::new(Zeroizing::new([7; 32]));
        assert!(Share::open_agreed(&wrapped, key.public(), b"info", &wrong).is_none());
        let hybrid = PrivateKey::generate(Kem::XWing, &SystemEntropy).unwrap();
        assert!(Share::open_agreed(&wrapped, hybrid.public(), b"info", &wrong).is_none());
        let Public::P256(point) = &key.public().0 else { panic!("another key") };
        assert_eq!(point.to_bytes().len(), 65);
        assert_eq!(DhP256HkdfSha256::KEM_ID, 0x10);
    }
}
