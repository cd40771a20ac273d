//! What is inside.

use oblivious::{Answered, GatewayKey, MessageError, Question, ask, open};
use proptest::prelude::{any, proptest};
use reputation::{Known, Prefix, PrefixBits, Sources};
use stdx::{Digest, SystemEntropy};

fn prefix(text: &str) -> Prefix {
    text.parse().unwrap()
}

/// `docs/formats/lookup.md`.
#[test]
fn a_question_is_these_bytes() {
    let bytes = Question(prefix("12/0a3")).to_bytes();
    assert_eq!(bytes, b"\0\x03GET\x05https\0\x07/12/0a3\0\0\0");
    assert_eq!(Question::parse(&bytes), Ok(Question(prefix("12/0a3"))));
}

#[test]
fn a_question_carries_nothing_but_its_prefix() {
    for (what, bytes) in [
        ("an authority", &b"\0\x03GET\x05https\x01a\x07/12/0a3\0\0\0"[..]),
        ("a header", b"\0\x03GET\x05https\0\x07/12/0a3\x04\x01a\x01b\0\0"),
        ("content", b"\0\x03GET\x05https\0\x07/12/0a3\0\x01x\0"),
        ("another method", b"\0\x03PUT\x05https\0\x07/12/0a3\0\0\0"),
        ("another path", b"\0\x03GET\x05https\0\x05/file\0\0\0"),
        ("padding", b"\0\x03GET\x05https\0\x07/12/0a3\0\0\0\0\0"),
        ("an answer", b"\x01\x40\xc8"),
        ("nothing", b""),
    ] {
        assert!(Question::parse(bytes).is_err(), "{what}");
    }
}

/// The figures of `docs/formats/lookup.md`.
#[test]
fn all_questions_are_equally_long_and_all_answers_too() {
    let key = GatewayKey::generate(1, &SystemEntropy).unwrap();
    let hashes: Vec<_> = (0..9000_u32).map(|number| Digest::of(&number.to_be_bytes())).collect();
    let bits = PrefixBits::new(3).unwrap();
    let known = Known::new(Sources { malicious: hashes.clone(), clean: Vec::new() }, bits).unwrap();
    let lengths = hashes.iter().take(20).map(|hash| {
        let asked = Question(Prefix::of(hash, bits));
        let (request, pending) = ask(key.configuration(), &asked.to_bytes(), &SystemEntropy).unwrap();
        let (question, reply) = open(&key, &request).unwrap();
        let Question(prefix) = Question::parse(&question).unwrap();
        let answered = Answered::bucket(known.answer(&prefix).unwrap());
        let response = reply.seal(&answered.to_bytes(), &SystemEntropy).unwrap();
        let bucket = Answered::parse(&pending.open(&response).unwrap()).unwrap();
        let answer = reputation::Answer::parse(&bucket, &asked.0).unwrap();
        assert_eq!(answer.verdict(hash), Some(reputation::Verdict::Malicious));
        (request.len(), response.len())
    });
    let mut lengths: Vec<_> = lengths.collect();
    lengths.dedup();
    assert_eq!(lengths, [(75, 16 + 16 + 9 + known.answer_bytes())]);
}

#[test]
fn a_refusal_is_no_bucket() {
    assert_eq!(Answered::parse(&Answered::refusal(404).to_bytes()), Err(MessageError::Status(404)));
}

proptest! {
    #[test]
    fn whatever_comes_is_a_message_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
        let _ = Question::parse(&bytes);
        let _ = Answered::parse(&bytes);
        let _ = oblivious::KeyConfiguration::parse(&bytes);
    }
}
