//! P-256: secrets, points, and what one's secret and another's point come to. `graviola` multiplies where the processor
//! has what it needs, in the assembly of s2n-bignum, which is proven correct; elsewhere `p256` does, in a sixth of the
//! speed.

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
        (fastest().is_point)(&bytes).then_some(Self(bytes))
    }

    /// The one that belongs to this secret; `None` if it is not below the order, or 0.
    pub(crate) fn of(secret: &Secret) -> Option<Self> {
        (fastest().point)(secret).map(Self)
    }

    /// What the owner of `secret` and this point's owner come to. `None` if the secret is not below the order, or 0.
    pub(crate) fn agree(&self, secret: &Secret) -> Option<AgreedSecret> {
        (fastest().agree)(secret, &self.0).map(AgreedSecret::new)
    }

    pub(crate) const fn as_bytes(&self) -> &[u8; POINT_BYTES] {
        &self.0
    }
}

/// Three functions that somebody has.
struct Arithmetic {
    is_point: fn(&[u8; POINT_BYTES]) -> bool,
    /// `None` for a number that is no secret.
    point: fn(&Secret) -> Option<[u8; POINT_BYTES]>,
    /// `None` for a number that is no secret, or bytes that are no point.
    agree: fn(&Secret, &[u8; POINT_BYTES]) -> Option<Secret>,
}

fn fastest() -> &'static Arithmetic {
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    if assembly::is_here() {
        return &assembly::ARITHMETIC;
    }
    &portable::ARITHMETIC
}

/// The x coordinate that was agreed on, without a copy that stays.
fn wiped(coordinate: &[u8; SECRET_BYTES]) -> Secret {
    let mut agreed = Zeroizing::new([0; SECRET_BYTES]);
    agreed.copy_from_slice(coordinate);
    agreed
}

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod assembly {
    use graviola::key_agreement::p256::{PublicKey, StaticPrivateKey};

    use super::{Arithmetic, POINT_BYTES, Secret, wiped};

    pub(super) const ARITHMETIC: Arithmetic = Arithmetic { is_point, point, agree };

    /// Whether the processor has all that is used. `graviola` does not ask for all of it.
    pub(super) fn is_here() -> bool {
        #[cfg(target_arch = "x86_64")]
        let has_more = is_x86_feature_detected!("bmi2") && is_x86_feature_detected!("adx");
        #[cfg(target_arch = "aarch64")]
        let has_more = true;
        has_more && graviola::util::is_cpu_supported()
    }

    fn is_point(bytes: &[u8; POINT_BYTES]) -> bool {
        PublicKey::from_x962_uncompressed(bytes).is_ok()
    }

    fn point(secret: &Secret) -> Option<[u8; POINT_BYTES]> {
        Some(StaticPrivateKey::from_bytes(secret.as_slice()).ok()?.public_key_uncompressed())
    }

    fn agree(secret: &Secret, point: &[u8; POINT_BYTES]) -> Option<Secret> {
        let point = PublicKey::from_x962_uncompressed(point).ok()?;
        let agreed = StaticPrivateKey::from_bytes(secret.as_slice()).ok()?.diffie_hellman(&point).ok()?;
        Some(wiped(&agreed.0))
    }
}

mod portable {
    use p256::ecdh::diffie_hellman;
    use p256::elliptic_curve::sec1::ToSec1Point as _;
    use p256::{PublicKey, SecretKey};

    use super::{Arithmetic, POINT_BYTES, Secret, wiped};

    pub(super) const ARITHMETIC: Arithmetic = Arithmetic { is_point, point, agree };

    fn is_point(bytes: &[u8; POINT_BYTES]) -> bool {
        PublicKey::from_sec1_bytes(bytes).is_ok()
    }

    fn point(secret: &Secret) -> Option<[u8; POINT_BYTES]> {
        let point = SecretKey::from_slice(secret.as_slice()).ok()?.public_key().to_sec1_point(false);
        point.as_bytes().try_into().ok()
    }

    fn agree(secret: &Secret, point: &[u8; POINT_BYTES]) -> Option<Secret> {
        let (secret, point) = (SecretKey::from_slice(secret.as_slice()).ok()?, PublicKey::from_sec1_bytes(point).ok()?);
        let agreed = diffie_hellman(secret.to_nonzero_scalar(), point.as_affine());
        Some(wiped(agreed.raw_secret_bytes().as_ref()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop_assert_eq, proptest};
    use sha2::{Digest as _, Sha256};

    use super::*;

    /// The order of the curve's points (SEC 2, 2.4.2).
    const ORDER: &str = "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551";
    /// Of the field.
    const PRIME: &str = "ffffffff00000001000000000000000000000000ffffffffffffffffffffffff";

    fn bytes(digits: &str) -> [u8; SECRET_BYTES] {
        hex::decode(digits).unwrap().try_into().unwrap()
    }

    /// So far below the order.
    fn below(difference: u8) -> Secret {
        let mut number = bytes(ORDER);
        let (mut at, mut left) = (SECRET_BYTES - 1, difference);
        while left > number[at] {
            number[at] = number[at].wrapping_sub(left);
            (at, left) = (at - 1, 1);
        }
        number[at] -= left;
        Zeroizing::new(number)
    }

    fn small(number: u8) -> Secret {
        let mut bytes = [0; SECRET_BYTES];
        bytes[SECRET_BYTES - 1] = number;
        Zeroizing::new(bytes)
    }

    /// 2 to the `bit`, and those below and above it.
    fn around(bit: usize) -> [Secret; 3] {
        let mut power = [0; SECRET_BYTES];
        power[SECRET_BYTES - 1 - bit / 8] = 1 << (bit % 8);
        let mut above = power;
        above[SECRET_BYTES - 1] |= 1;
        let mut less = [0; SECRET_BYTES];
        (0..bit).for_each(|it| less[SECRET_BYTES - 1 - it / 8] |= 1 << (it % 8));
        [less, power, above].map(Zeroizing::new)
    }

    fn uncompressed(first: u8, x: &str, y: &str) -> [u8; POINT_BYTES] {
        let mut point = [first; POINT_BYTES];
        point[1..33].copy_from_slice(&bytes(x));
        point[33..].copy_from_slice(&bytes(y));
        point
    }

    /// What this processor takes, and the other, which must come to the same.
    fn each() -> [&'static Arithmetic; 2] {
        [fastest(), &portable::ARITHMETIC]
    }

    fn point(secret: &Secret) -> [u8; POINT_BYTES] {
        let [ours, theirs] = each().map(|it| (it.point)(secret).unwrap());
        assert_eq!(ours, theirs);
        assert!(each().iter().all(|it| (it.is_point)(&ours)));
        ours
    }

    fn both_agree(secret: &Secret, with: &[u8; POINT_BYTES]) -> Secret {
        let [ours, theirs] = each().map(|it| (it.agree)(secret, with).unwrap());
        assert_eq!(ours, theirs);
        ours
    }

    fn is_point(bytes: &[u8; POINT_BYTES]) -> bool {
        let [ours, theirs] = each().map(|it| (it.is_point)(bytes));
        assert_eq!(ours, theirs, "{bytes:02x?}");
        let agrees = each().map(|it| (it.agree)(&small(1), bytes).is_some());
        assert_eq!(agrees, [ours; 2], "{bytes:02x?}");
        ours
    }

    fn secret(seed: [u8; 32]) -> Secret {
        // Numbers beyond the order are a case of their own, and one in 2^32.
        Zeroizing::new(Sha256::digest(seed).into())
    }

    proptest! {
        #[test]
        fn both_come_to_the_same(one: [u8; 32], other: [u8; 32]) {
            let (one, other) = (secret(one), secret(other));
            prop_assert_eq!(both_agree(&one, &point(&other)), both_agree(&other, &point(&one)));
        }

        #[test]
        fn both_take_the_same_for_points(seed: [u8; 32], at in 1..POINT_BYTES, by: u8) {
            let mut bytes = point(&secret(seed));
            bytes[at] ^= by;
            prop_assert_eq!(is_point(&bytes), by == 0);
        }
    }

    #[test]
    fn numbers_at_the_ends_and_where_windows_end() {
        let with = point(&secret([1; 32]));
        let powers = (0..51).map(|it| 5 * it).chain((0..36).map(|it| 7 * it + 6)).flat_map(around);
        for one in (1..=65).flat_map(|it| [small(it), below(it)]).chain(powers.filter(|it| it.iter().any(|it| *it > 0)))
        {
            point(&one);
            both_agree(&one, &with);
        }
        let mut above = bytes(ORDER);
        above[SECRET_BYTES - 1] += 1;
        for wrong in [small(0), below(0), Zeroizing::new(above), Zeroizing::new([0xff; SECRET_BYTES])] {
            assert_eq!(each().map(|it| (it.point)(&wrong)), [None; 2]);
            assert_eq!(each().map(|it| (it.agree)(&wrong, &with)), [None, None]);
        }
    }

    #[test]
    fn what_is_no_point() {
        let base = point(&small(1));
        for first in 0..=u8::MAX {
            let mut one = base;
            one[0] = first;
            assert_eq!(is_point(&one), first == 4);
        }
        let mut ones = [0xff; POINT_BYTES];
        ones[0] = 4;
        let mut zeros = [0; POINT_BYTES];
        assert!(!is_point(&ones) && !is_point(&zeros));
        zeros[0] = 4;
        assert!(!is_point(&zeros));
        for wrong in [&base[..0], &base[..33], &base[..64], &[&base[..], &[0]].concat()] {
            assert!(Point::from_bytes(wrong).is_none());
        }
    }

    /// The same coordinates, and the field's prime more.
    #[test]
    fn coordinates_beyond_the_field() {
        let zero = &small(0).iter().map(|it| format!("{it:02x}")).collect::<String>();
        let y = "66485c780e2f83d72433bd5d84a06bb6541c2af31dae871728bf856a174f93f4";
        assert!(is_point(&uncompressed(4, zero, y)));
        assert!(!is_point(&uncompressed(4, PRIME, y)));
        let x = "d7325d7646cd60d80a92738ceb345f844cffaf35841022cab176f692de8de1d7";
        let five = format!("{:0>64}", 5);
        assert!(is_point(&uncompressed(4, x, &five)));
        let beyond = "ffffffff00000001000000000000000000000001000000000000000000000004";
        assert!(!is_point(&uncompressed(4, x, beyond)));
    }
}
