//! Buckets: what a gateway may serve, and what an endpoint believes.

use proptest::prelude::{any, proptest};
use reputation::{Answer, AnswerError, BUCKET_MIN, Known, KnownError, Prefix, PrefixBits, Sources, Verdict};
use stdx::Digest;

use crate::hashes;

fn bits(bits: u8) -> PrefixBits {
    PrefixBits::new(bits).unwrap()
}

fn known() -> (Known, Sources) {
    let sources = Sources { malicious: hashes(0, 4000), clean: hashes(100_000, 5000) };
    (Known::new(sources.clone(), bits(3)).unwrap(), sources)
}

#[test]
fn every_known_hash_has_its_verdict_and_no_other_has_one() {
    let (known, sources) = known();
    let ask = |digest: &Digest| {
        let prefix = Prefix::of(digest, known.bits());
        let answer = known.answer(&prefix).unwrap();
        assert_eq!(answer.len(), known.answer_bytes(), "all answers are of one length");
        let answer = Answer::parse(&answer, &prefix).unwrap();
        assert!(answer.hashes() >= BUCKET_MIN);
        answer.verdict(digest)
    };
    assert!(sources.malicious.iter().step_by(97).all(|hash| ask(hash) == Some(Verdict::Malicious)));
    assert!(sources.clean.iter().step_by(97).all(|hash| ask(hash) == Some(Verdict::Clean)));
    assert!(hashes(900_000, 200).iter().all(|hash| ask(hash).is_none()));
}

#[test]
fn thin_buckets_are_not_served() {
    let sources = Sources { malicious: hashes(0, 9000), clean: Vec::new() };
    let Err(KnownError::Thin { has, longest, .. }) = Known::new(sources.clone(), bits(4)) else { panic!("served") };
    assert!(has < BUCKET_MIN);
    assert_eq!(longest, bits(3));
    assert!(Known::new(sources, longest).is_ok());
    let few = Sources { malicious: hashes(0, 999), clean: Vec::new() };
    assert_eq!(Known::new(few, bits(0)).map(drop), Err(KnownError::TooFew(999)));
}

#[test]
fn buckets_that_no_answer_holds_and_contradictions_are_refused() {
    let many = Sources { malicious: hashes(0, 20_000), clean: Vec::new() };
    assert!(matches!(Known::new(many, bits(0)), Err(KnownError::Full { has: 20_000, .. })));
    let both = Sources { malicious: hashes(0, 2000), clean: hashes(1999, 1) };
    assert_eq!(Known::new(both, bits(0)).map(drop), Err(KnownError::Conflict(hashes(1999, 1)[0])));
}

#[test]
fn a_question_of_another_length_has_no_answer() {
    let (known, _) = known();
    assert!(known.answer(&Prefix::numbered(bits(4), 0).unwrap()).is_none());
}

#[test]
fn an_answer_that_lies_is_not_believed() {
    let (known, _) = known();
    let [asked, other] = [1, 2].map(|value| Prefix::numbered(bits(3), value).unwrap());
    let bytes = known.answer(&asked).unwrap();
    assert_eq!(Answer::parse(&bytes, &other), Err(AnswerError::Other(other)));
    for at in [0, 1, 2, 5, 6, 9, 10, 13] {
        let mut changed = bytes.clone();
        changed[at] ^= 0x55;
        assert!(Answer::parse(&changed, &asked).is_err(), "byte {at}");
    }
    let mut swapped = bytes.clone();
    swapped[14..46].rotate_left(16);
    assert_eq!(Answer::parse(&swapped, &asked), Err(AnswerError::Format("not in order")));
    let mut padded = bytes.clone();
    *padded.last_mut().unwrap() = 1;
    assert!(Answer::parse(&padded, &asked).is_err());
    let mut thin = bytes[..14].to_vec();
    thin[6..14].fill(0);
    assert_eq!(Answer::parse(&thin, &asked), Err(AnswerError::Thin(0)));
}

/// `docs/formats/lookup.md`: the head of an answer.
#[test]
fn the_format_is_these_bytes() {
    let sources = Sources { malicious: hashes(0, 1000), clean: hashes(5000, 1) };
    let known = Known::new(sources.clone(), bits(0)).unwrap();
    let answer = known.answer(&Prefix::numbered(bits(0), 0).unwrap()).unwrap();
    assert_eq!(answer.len(), 16 * 1024);
    assert_eq!(answer[..14], [1, 0, 0, 0, 0, 0, 0, 0, 3, 0xe8, 0, 0, 0, 1]);
    let last: [u8; 16] = sources.clean[0].as_bytes()[16..].try_into().unwrap();
    assert_eq!(answer[14 + 16_000..14 + 16_016], last);
    assert!(answer[14 + 16_016..].iter().all(|byte| *byte == 0));
}

proptest! {
    #[test]
    fn whatever_comes_is_an_answer_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..200), value in 0u32..8) {
        let asked = Prefix::numbered(bits(3), value).unwrap();
        let _ = Answer::parse(&bytes, &asked);
        let _ = reputation::ReputationSet::parse(&bytes);
    }
}
