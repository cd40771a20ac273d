//! P-256: secrets, points, and what one's secret and another's point come to. `graviola` multiplies where the processor
//! has what it needs, in the assembly of s2n-bignum, which is proven correct; elsewhere `p256` does, in a sixth of the
//! speed.

use graviola::util::is_cpu_supported;
use zeroize::Zeroizing;

use crate::agreed::AgreedSecret;

pub(crate) const SECRET_BYTES: usize = 32;
pub(crate) const POINT_BYTES: usize = 65;

/// A number above 0 and below the curve's order, big-endian.
pub(crate) type Secret = Zeroizing<[u8; SECRET_BYTES]>;

/// A point on the curve, uncompressed (SEC 1, 2.3.3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Point([u8; POINT_BYTES]);

impl Point {
    /// `None` if it is none, or is not on the curve.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.try_into().ok()?;
        let is_one = if is_cpu_supported() { assembly::is_point(&bytes) } else { portable::is_point(&bytes) };
        is_one.then_some(Self(bytes))
    }

    /// The one that belongs to this secret; `None` if it is not below the order, or 0.
    pub(crate) fn of(secret: &Secret) -> Option<Self> {
        if is_cpu_supported() { assembly::point(secret) } else { portable::point(secret) }.map(Self)
    }

    /// What the owner of `secret` and this point's owner come to. `None` if the secret is not below the order, or 0.
    pub(crate) fn agree(&self, secret: &Secret) -> Option<AgreedSecret> {
        let agree = if is_cpu_supported() { assembly::agree } else { portable::agree };
        agree(secret, &self.0).map(AgreedSecret::new)
    }

    pub(crate) const fn as_bytes(&self) -> &[u8; POINT_BYTES] {
        &self.0
    }
}

mod assembly {
    use graviola::key_agreement::p256::{PublicKey, StaticPrivateKey};

    use super::{POINT_BYTES, SECRET_BYTES, Secret, Zeroizing};

    pub(super) fn is_point(bytes: &[u8; POINT_BYTES]) -> bool {
        PublicKey::from_x962_uncompressed(bytes).is_ok()
    }

    pub(super) fn point(secret: &Secret) -> Option<[u8; POINT_BYTES]> {
        Some(StaticPrivateKey::from_bytes(&**secret).ok()?.public_key_uncompressed())
    }

    pub(super) fn agree(secret: &Secret, point: &[u8; POINT_BYTES]) -> Option<Zeroizing<[u8; SECRET_BYTES]>> {
        let point = PublicKey::from_x962_uncompressed(point).ok()?;
        let agreed = StaticPrivateKey::from_bytes(&**secret).ok()?.diffie_hellman(&point).ok()?;
        Some(Zeroizing::new(agreed.0))
    }
}

mod portable {
    use p256::ecdh::diffie_hellman;
    use p256::elliptic_curve::sec1::ToSec1Point as _;
    use p256::{PublicKey, SecretKey};

    use super::{POINT_BYTES, SECRET_BYTES, Secret, Zeroizing};

    pub(super) fn is_point(bytes: &[u8; POINT_BYTES]) -> bool {
        PublicKey::from_sec1_bytes(bytes).is_ok()
    }

    pub(super) fn point(secret: &Secret) -> Option<[u8; POINT_BYTES]> {
        let point = SecretKey::from_slice(&**secret).ok()?.public_key().to_sec1_point(false);
        point.as_bytes().try_into().ok()
    }

    pub(super) fn agree(secret: &Secret, point: &[u8; POINT_BYTES]) -> Option<Zeroizing<[u8; SECRET_BYTES]>> {
        let (secret, point) = (SecretKey::from_slice(&**secret).ok()?, PublicKey::from_sec1_bytes(point).ok()?);
        let agreed = diffie_hellman(secret.to_nonzero_scalar(), point.as_affine());
        Some(Zeroizing::new((*agreed.raw_secret_bytes()).into()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sha2::{Digest as _, Sha256};

    use super::*;

    /// The order of the curve's points (SEC 2, 2.4.2).
    const ORDER: [u8; SECRET_BYTES] = [
        0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc, 0xe6, 0xfa, 0xad,
        0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
    ];

    /// So far below the order.
    fn below(difference: u8) -> Secret {
        let mut number = ORDER;
        number[SECRET_BYTES - 1] -= difference;
        Zeroizing::new(number)
    }

    fn small(number: u8) -> Secret {
        let mut bytes = [0; SECRET_BYTES];
        bytes[SECRET_BYTES - 1] = number;
        Zeroizing::new(bytes)
    }

    fn both_agree(secret: &Secret, with: &Secret) {
        let (ours, theirs) = (assembly::point(secret).unwrap(), assembly::point(with).unwrap());
        assert_eq!(portable::point(secret), Some(ours));
        assert_eq!(portable::point(with), Some(theirs));
        assert!(assembly::is_point(&ours) && portable::is_point(&ours));
        let agreed = assembly::agree(secret, &theirs).unwrap();
        assert_eq!(portable::agree(secret, &theirs).unwrap(), agreed);
        assert_eq!(assembly::agree(with, &ours).unwrap(), agreed);
    }

    proptest! {
        #[test]
        fn both_come_to_the_same(one: [u8; 32], other: [u8; 32]) {
            // Numbers above the order are a case of their own, and one in 2^32.
            both_agree(&Zeroizing::new(Sha256::digest(one).into()), &Zeroizing::new(Sha256::digest(other).into()));
        }

        #[test]
        fn both_take_the_same_for_points(mut bytes in proptest::collection::vec(any::<u8>(), POINT_BYTES)) {
            bytes[0] = 4;
            let bytes = bytes.try_into().unwrap();
            prop_assert_eq!(assembly::is_point(&bytes), portable::is_point(&bytes));
        }
    }

    #[test]
    fn numbers_at_the_ends() {
        let ends = [small(1), small(2), small(3), below(1), below(2), below(3)];
        for one in &ends {
            ends.iter().for_each(|other| both_agree(one, other));
        }
        let base = assembly::point(&small(1)).unwrap();
        for wrong in [small(0), below(0), Zeroizing::new([0xff; SECRET_BYTES])] {
            assert!(assembly::point(&wrong).is_none() && portable::point(&wrong).is_none());
            assert!(assembly::agree(&wrong, &base).is_none() && portable::agree(&wrong, &base).is_none());
        }
    }

    #[test]
    fn what_is_no_point() {
        let base = assembly::point(&small(1)).unwrap();
        let mut wrong: Vec<[u8; POINT_BYTES]> = Vec::new();
        // Off the curve, written otherwise, beyond the field.
        for (at, byte) in [(POINT_BYTES - 1, base[POINT_BYTES - 1] ^ 1), (0, 2), (0, 3), (0, 0), (0, 6)] {
            let mut one = base;
            one[at] = byte;
            wrong.push(one);
        }
        wrong.push([0; POINT_BYTES]);
        wrong.push([0xff; POINT_BYTES]);
        wrong[0][0] = 4;
        for bytes in wrong {
            assert!(!assembly::is_point(&bytes), "{bytes:?}");
            assert!(!portable::is_point(&bytes), "{bytes:?}");
            assert!(assembly::agree(&small(1), &bytes).is_none() && portable::agree(&small(1), &bytes).is_none());
        }
        assert!(Point::from_bytes(&base[..64]).is_none());
    }
}
