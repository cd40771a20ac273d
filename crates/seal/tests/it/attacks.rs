//! What must not open.

use std::sync::LazyLock;

use proptest::prelude::{any, prop, proptest};
use seal::{DataKey, FRAME_BYTES, Header, OpenError, Sealed, Share};
use stdx::{Entropy, EntropyError, SystemEntropy};

use crate::scene::{Scene, bound};

#[test]
fn one_custodian_alone_opens_nothing() {
    let scene = Scene::new(&SystemEntropy);
    let object = scene.seal(b"telemetry");
    for share in scene.shares(&object) {
        let alone = DataKey::join([&share]);
        assert!(matches!(Sealed::read(&object, &alone), Err(OpenError::Shares(_))));
    }
    assert!(matches!(Sealed::read(&object, &DataKey::join([])), Err(OpenError::Shares(_))));
}

#[test]
fn shares_of_another_object_open_nothing() {
    let scene = Scene::new(&SystemEntropy);
    let (first, second) = (scene.seal(b"first"), scene.seal(b"second"));
    let (mine, others) = (scene.shares(&first), scene.shares(&second));
    assert!(matches!(Sealed::read(&first, &DataKey::join([&mine[0], &others[1]])), Err(OpenError::Shares(_))));
    assert!(matches!(Sealed::read(&first, &DataKey::join(&others)), Err(OpenError::Shares(_))));
}

#[test]
fn a_share_opens_only_for_what_it_was_made_for() {
    let scene = Scene::new(&SystemEntropy);
    let object = scene.seal(b"telemetry");
    let (header, _) = Header::parse(&object).unwrap();
    let share = &header.shares[0];
    let wrapped = share.wrapped().unwrap();
    assert!(Share::open(&wrapped, &scene.member, &header.bound.info(&share.custodian)).is_some());
    // A custodian that believes a false label opens nothing.
    let mut other_region = header.bound.clone();
    other_region.region = "moscow".parse().unwrap();
    let mut other_country = header.bound.clone();
    other_country.country = "JP".parse().unwrap();
    let mut other_class = header.bound.clone();
    other_class.class = "statistics".parse().unwrap();
    let other_object = bound("detections", &SystemEntropy);
    for labelled in [other_region, other_country, other_class, other_object] {
        assert!(Share::open(&wrapped, &scene.member, &labelled.info(&share.custodian)).is_none());
    }
    let other_name = header.bound.info(&"supervisor".parse().unwrap());
    assert!(Share::open(&wrapped, &scene.member, &other_name).is_none());
    assert!(Share::open(&wrapped, &scene.supervisor, &header.bound.info(&share.custodian)).is_none());
}

#[test]
fn frames_can_not_be_moved_dropped_doubled_or_cut_off() {
    let scene = Scene::new(&SystemEntropy);
    let object = scene.seal(&vec![7; 4 * FRAME_BYTES]);
    let key = scene.key(&object);
    let (_, start) = Header::parse(&object).unwrap();
    let (head, frames) = object.split_at(start);
    let frames: Vec<&[u8]> = frames.chunks(FRAME_BYTES + 16).collect();
    let rebuilt = |order: &[usize]| {
        let mut bytes = head.to_vec();
        order.iter().for_each(|at| bytes.extend_from_slice(frames[*at]));
        Sealed::read(&bytes, &key)
    };
    assert!(rebuilt(&[0, 1, 2, 3]).is_ok());
    assert!(matches!(rebuilt(&[1, 0, 2, 3]), Err(OpenError::Frame(0))));
    assert!(matches!(rebuilt(&[0, 1, 1, 3]), Err(OpenError::Frame(2))));
    assert!(matches!(rebuilt(&[0, 1, 2]), Err(OpenError::Length { .. })));
    assert!(matches!(rebuilt(&[0, 1, 2, 3, 3]), Err(OpenError::Length { .. })));
    let other = scene.seal(&vec![7; 4 * FRAME_BYTES]);
    let (_, other_start) = Header::parse(&other).unwrap();
    let mut mixed = object.clone();
    mixed.truncate(start);
    mixed.extend_from_slice(&other[other_start..]);
    assert!(matches!(Sealed::read(&mixed, &key), Err(OpenError::Frame(0))));
}

#[test]
fn an_object_that_one_custodian_could_open_or_a_quantum_computer_is_none() {
    let scene = Scene::new(&SystemEntropy);
    let object = scene.seal(b"telemetry");
    let (header, start) = Header::parse(&object).unwrap();
    for kept in [vec![0], vec![1], vec![]] {
        let mut thin = header.clone();
        thin.shares = kept.iter().map(|at: &usize| header.shares[*at].clone()).collect();
        assert!(matches!(Header::parse(&framed(&thin, &object[start..])), Err(OpenError::Header(_))), "{kept:?}");
    }
    let mut classical = header.clone();
    classical.shares.iter_mut().for_each(|share| share.kem = seal::Kem::P256);
    assert!(matches!(Header::parse(&framed(&classical, &object[start..])), Err(OpenError::Header(_))));
    assert!(Header::parse(&framed(&header, &object[start..])).is_ok());
}

fn framed(header: &Header, frames: &[u8]) -> Vec<u8> {
    let header = header.to_bytes();
    [&u32::try_from(header.len()).unwrap().to_be_bytes(), &header[..], frames].concat()
}

#[test]
fn without_randomness_nothing_is_sealed() {
    struct Dry;
    impl Entropy for Dry {
        fn fill(&self, _: &mut [u8]) -> Result<(), EntropyError> {
            Err(EntropyError::new("dry"))
        }
    }
    let scene = Scene::new(&SystemEntropy);
    let sealed = scene.custodians.seal(bound("detections", &SystemEntropy), b"telemetry", &Dry);
    assert!(sealed.is_err());
    for kem in [seal::Kem::P256, seal::Kem::XWing] {
        assert!(seal::PrivateKey::generate(kem, &Dry).is_err());
    }
}

/// Making keys takes longer than all the rest.
static SCENE: LazyLock<Scene> = LazyLock::new(|| Scene::new(&SystemEntropy));

proptest! {
    #[test]
    fn a_flipped_bit_anywhere_is_refused(at in any::<prop::sample::Index>(), bit in 0..8_u8) {
        let scene = &*SCENE;
        let object = scene.seal(b"telemetry of one machine");
        let key = scene.key(&object);
        let mut flipped = object.clone();
        let at = at.index(flipped.len());
        flipped[at] ^= 1 << bit;
        assert!(Sealed::read(&flipped, &key).is_err(), "byte {at}");
    }
}
