//! For whom data is sealed: as the policy says, or not at all.

use attest::StatementId;
use policy::{Residency, TimedKey};
use seal::{Destination, Header, Kem, PrivateKey, SealError, Sealed, check_keys};
use stdx::{SystemEntropy, UnixTime};

use crate::scene::{Counting, Scene};

const SAMPLE: &str = include_str!("../../../../docs/samples/residency.toml");
const IN_FORCE: &str = "2026-11-25T12:00:00Z";

#[derive(serde::Deserialize)]
struct Section {
    residency: Residency,
}

fn sample() -> Residency {
    toml::from_str::<Section>(SAMPLE).unwrap().residency
}

fn at(text: &str) -> UnixTime {
    text.parse().unwrap()
}

fn destination(residency: &Residency, country: &str, time: &str) -> Result<Destination, SealError> {
    Destination::new(residency, StatementId::of(b"a policy"), country.parse().unwrap(), at(time))
}

/// The sample, with keys whose secret halves are at hand.
fn ours(scene: &Scene) -> Residency {
    let mut residency = sample();
    let (from, until) = (at("2026-11-23T00:00:00Z"), at("2026-11-30T00:00:00Z"));
    for (custodian, key) in residency.regions[0].custodians.iter_mut().zip([&scene.supervisor, &scene.member]) {
        let key = key.public().to_string().parse().unwrap();
        custodian.keys = vec![TimedKey { key, from, until }];
    }
    residency
}

/// The sample's keys are keys: drawn with randomness that counts, so that they are the same each time.
#[test]
fn the_samples_keys_are_real() {
    let residency = sample();
    check_keys(&residency).unwrap();
    let entropy = Counting::new();
    for (custodian, kem) in residency.regions[0].custodians.iter().zip([Kem::P256, Kem::XWing]) {
        for key in &custodian.keys {
            let drawn = PrivateKey::generate(kem, &entropy).unwrap();
            assert_eq!(key.key.as_str(), drawn.public().to_string());
        }
    }
}

#[test]
fn what_is_sealed_says_where_it_belongs_and_opens_with_all_its_custodians() {
    let scene = Scene::new(&SystemEntropy);
    let residency = ours(&scene);
    let zurich = destination(&residency, "KR", IN_FORCE).unwrap();
    assert_eq!(zurich.region().as_str(), "zurich");
    let class = "detections".parse().unwrap();
    let object = zurich.seal(&class, b"telemetry", &SystemEntropy).unwrap();
    let (header, _) = Header::parse(&object).unwrap();
    let bound = &header.bound;
    let labels = (bound.region.as_str(), bound.country.as_str(), bound.class.as_str(), bound.policy);
    assert_eq!(labels, ("zurich", "KR", "detections", StatementId::of(b"a policy")));
    assert_eq!(Sealed::read(&object, &scene.key(&object)).unwrap(), b"telemetry");
    let again = zurich.seal(&class, b"telemetry", &SystemEntropy).unwrap();
    assert_ne!(Header::parse(&again).unwrap().0.bound.id, bound.id, "each has a name of its own");
}

#[test]
fn without_a_place_nothing_is_sealed() {
    let scene = Scene::new(&SystemEntropy);
    let residency = ours(&scene);
    for country in ["RU", "CN", "BR"] {
        let error = destination(&residency, country, IN_FORCE).unwrap_err();
        assert!(matches!(error, SealError::Unassigned { .. }), "{error}");
    }
    let early = destination(&residency, "DE", "2026-11-22T23:59:59Z").unwrap_err();
    assert!(matches!(early, SealError::Unassigned { .. }), "{early}");
    let late = destination(&residency, "DE", "2026-11-30T00:00:00Z").unwrap_err();
    assert!(matches!(late, SealError::NoKey(_)), "{late}");
    let other = destination(&residency, "DE", IN_FORCE).unwrap().seal(
        &"diaries".parse().unwrap(),
        b"telemetry",
        &SystemEntropy,
    );
    assert!(matches!(other, Err(SealError::Class(_))));
}

/// A policy that was signed with a key that is none seals nothing, for anybody.
#[test]
fn a_key_that_is_no_point_is_refused() {
    let scene = Scene::new(&SystemEntropy);
    for (custodian, text) in [(0, format!("p256:{}=", "A".repeat(87))), (0, format!("p256:{}", "/".repeat(88)))] {
        let mut residency = ours(&scene);
        residency.regions[0].custodians[custodian].keys[0].key = text.parse().unwrap();
        assert!(matches!(destination(&residency, "DE", IN_FORCE), Err(SealError::Key(..))), "{text}");
        assert!(matches!(check_keys(&residency), Err(SealError::Key(..))), "{text}");
    }
}
