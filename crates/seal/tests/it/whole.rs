//! What was sealed is read back, whole and in parts.

use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::{any, prop, proptest};
use seal::{
    AgreedSecret, Custodian, Custodians, FRAME_BYTES, Header, Kem, PrivateKey, PublicKey, SealError, Sealed, Share,
    Wrapped,
};
use stdx::SystemEntropy;
use zeroize::Zeroizing;

use crate::scene::{Scene, bound};

#[test]
fn every_length_around_a_frame_is_read_back() {
    let scene = Scene::new(&SystemEntropy);
    for length in [0, 1, FRAME_BYTES - 1, FRAME_BYTES, FRAME_BYTES + 1, 2 * FRAME_BYTES, 2 * FRAME_BYTES + 77] {
        let plaintext: Vec<u8> = (0..length).map(|at| (at % 251) as u8).collect();
        let object = scene.seal(&plaintext);
        assert_eq!(Sealed::read(&object, &scene.key(&object)).unwrap(), plaintext, "{length}");
        let (header, start) = Header::parse(&object).unwrap();
        assert_eq!(header.frames_bytes(), (object.len() - start) as u64);
        assert_eq!(header.bytes, length as u64);
    }
}

#[test]
fn a_frame_is_read_without_the_others() {
    let scene = Scene::new(&SystemEntropy);
    let plaintext: Vec<u8> = (0..5 * FRAME_BYTES + 9).map(|at| (at % 249) as u8).collect();
    let object = scene.seal(&plaintext);
    let (header, start) = Header::parse(&object).unwrap();
    let sealed = Sealed::open(&object[..start], &scene.key(&object)).unwrap();
    for number in [3, 0, 5] {
        let place = header.place(number).unwrap();
        let bytes = &object[start + place.start as usize..start + place.end as usize];
        let expected = plaintext.chunks(FRAME_BYTES).nth(number as usize).unwrap();
        let mut found = b"before".to_vec();
        sealed.frame(number, bytes, &mut found).unwrap();
        assert_eq!(found, [b"before", expected].concat());
        // Of one that isn't this frame nothing is given out.
        assert!(sealed.frame(number, &[&bytes[..9], &[bytes[9] ^ 1], &bytes[10..]].concat(), &mut found).is_err());
        assert!(sealed.frame((number + 1) % 6, bytes, &mut found).is_err());
        assert_eq!(found, [b"before", expected].concat());
    }
    assert_eq!(header.place(6), None);
}

#[test]
fn nothing_of_the_plaintext_or_of_a_key_is_in_the_object() {
    let scene = Scene::new(&SystemEntropy);
    let plaintext = b"a marked value that must not be found".repeat(100);
    let object = scene.seal(&plaintext);
    assert!(!object.windows(12).any(|window| plaintext.windows(12).any(|marked| marked == window)));
    assert_ne!(object, scene.seal(&plaintext), "each object has a key of its own");
}

#[test]
fn a_region_needs_two_custodians_and_one_of_them_hybrid() {
    let key = |kem| PrivateKey::generate(kem, &SystemEntropy).unwrap().public().clone();
    let of = |name: &str, key: PublicKey| Custodian { organisation: name.parse().unwrap(), key };
    let (p256, x_wing) = (key(Kem::P256), key(Kem::XWing));
    let refused = |custodians| Custodians::new(custodians).unwrap_err();
    assert!(matches!(refused(vec![]), SealError::Count(0)));
    assert!(matches!(refused(vec![of("a", x_wing.clone())]), SealError::Count(1)));
    assert!(matches!(refused(vec![of("a", p256.clone()), of("b", key(Kem::P256))]), SealError::NotHybrid));
    assert!(matches!(refused(vec![of("a", p256.clone()), of("a", x_wing.clone())]), SealError::Twice(_)));
    assert!(matches!(refused(vec![of("a", x_wing.clone()), of("b", x_wing.clone())]), SealError::Twice(_)));
    assert!(Custodians::new(vec![of("a", p256), of("b", x_wing)]).is_ok());
}

#[test]
fn keys_have_one_text() {
    for kem in [Kem::P256, Kem::XWing] {
        let key = PrivateKey::generate(kem, &SystemEntropy).unwrap();
        let read = PrivateKey::from_text(&key.to_text()).unwrap();
        assert_eq!(read.public(), key.public());
        let public = key.public().to_string();
        assert_eq!(&public.parse::<PublicKey>().unwrap(), key.public());
        assert!(!format!("{key:?}").contains(&key.to_text()[8..]));
        for bad in [
            public[1..].to_owned(),
            public.replace(':', ";"),
            format!("{public}A"),
            public[..public.len() - 4].to_owned(),
            format!("{public}\n"),
        ] {
            assert!(bad.parse::<PublicKey>().is_err(), "{bad}");
        }
    }
    assert!("p256:AAAA".parse::<PublicKey>().is_err());
    let infinity = format!("p256:{}", "A".repeat(88));
    assert!(infinity.parse::<PublicKey>().is_err());
}

/// The order of P-256's points, and numbers beside it (SEC 2, 2.4.2).
#[test]
fn a_secret_that_has_no_point_is_no_key() {
    let order = "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc6325";
    let key = |digits: &str| PrivateKey::from_text(&format!("p256:{}", STANDARD.encode(hex::decode(digits).unwrap())));
    for (digits, is_one) in [
        (&format!("{order}50"), true),
        (&format!("{order}51"), false),
        (&format!("{order}52"), false),
        (&format!("{:064}", 1), true),
        (&format!("{:064}", 0), false),
        (&format!("{:062}", 1), false),
        (&format!("{:066}", 1), false),
    ] {
        assert_eq!(key(digits).is_ok(), is_one, "{digits}");
    }
}

#[test]
fn what_is_encapsulated_is_a_point() {
    let key = PrivateKey::generate(Kem::P256, &SystemEntropy).unwrap();
    let wrapped = Wrapped::seal(b"a message", key.public(), b"info", &SystemEntropy).unwrap();
    assert_eq!(*wrapped.open(&key, b"info").unwrap(), b"a message");
    let point = wrapped.encapsulated.clone();
    let parity = 2 + (point[64] & 1);
    let mut wrong: Vec<Vec<u8>> = [0, 1, 33, 64].map(|length| point[..length].to_vec()).into();
    wrong.push([&[parity], &point[1..33]].concat());
    wrong.push([&[parity + 4], &point[1..]].concat());
    wrong.push([&point[..], &[0]].concat());
    wrong.push([&point[..64], &[point[64] ^ 1]].concat());
    wrong.push([&[4], &[0xff; 64][..]].concat());
    let agreed = || AgreedSecret::new(Zeroizing::new([7; 32]));
    for encapsulated in wrong {
        let wrapped = Wrapped { encapsulated, ..wrapped.clone() };
        assert!(wrapped.open(&key, b"info").is_none(), "{wrapped:?}");
        assert!(Share::open_agreed(&wrapped, key.public(), b"info", &agreed()).is_none(), "{wrapped:?}");
    }
}

/// Making keys takes longer than all the rest.
static SCENE: LazyLock<Scene> = LazyLock::new(|| Scene::new(&SystemEntropy));

proptest! {
    #[test]
    fn anything_is_read_back(plaintext in prop::collection::vec(any::<u8>(), 0..2000)) {
        let scene = &*SCENE;
        let object = scene.custodians.seal(bound("files", &SystemEntropy), &plaintext, &SystemEntropy).unwrap();
        assert_eq!(Sealed::read(&object, &scene.key(&object)).unwrap(), plaintext);
    }

    #[test]
    fn no_header_panics(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = Header::parse(&bytes);
    }
}
