//! Two workers of one intent, and everybody between them.

use attest::StatementId;
use seal::{Answered, Answering, Asking, Hop, HopError, Kem, PrivateKey};
use stdx::{Digest, SystemEntropy};

use crate::scene::Counting;

struct Pair {
    asks: PrivateKey,
    answers: PrivateKey,
    intent: StatementId,
}

impl Pair {
    fn new() -> Self {
        let key = || PrivateKey::generate(Kem::XWing, &SystemEntropy).unwrap();
        Self { asks: key(), answers: key(), intent: StatementId::of(b"an intent") }
    }

    fn hop(&self) -> Hop<'_> {
        Hop { intent: self.intent, asks: self.asks.public(), answers: self.answers.public() }
    }

    fn session(&self) -> (Asking, Answering) {
        let (begun, first) = self.hop().begin(&SystemEntropy).unwrap();
        let (answering, second) = self.hop().answer(&self.answers, &first, &SystemEntropy).unwrap();
        (self.hop().finish(begun, &self.asks, &second).unwrap(), answering)
    }
}

#[test]
fn a_question_and_its_answer_have_these_bytes() {
    let entropy = Counting::new();
    let (asks, answers) =
        (PrivateKey::generate(Kem::XWing, &entropy).unwrap(), PrivateKey::generate(Kem::XWing, &entropy).unwrap());
    let hop = Hop { intent: StatementId::of(b"an intent"), asks: asks.public(), answers: answers.public() };
    let (begun, first) = hop.begin(&entropy).unwrap();
    let (answering, second) = hop.answer(&answers, &first, &entropy).unwrap();
    let asking = hop.finish(begun, &asks, &second).unwrap();
    let (question, _) = asking.ask(b"a question").unwrap();
    let (_, mut replies) = answering.take(&question).unwrap();
    let frames = [replies.frame(b"an answer").unwrap(), replies.last(b"")];
    assert_eq!((first.len(), second.len(), question.len()), (1168, 1168, 30));
    let all = [first, second, question, frames.concat()].concat();
    assert_eq!(Digest::of(&all).to_string(), GOLDEN_SHA256);
}

const GOLDEN_SHA256: &str = "82fb9483b9519983be6ff449c07e9ce4b866a1a819eb08e9e3a975e8266b8dae";

#[test]
fn questions_are_answered_in_any_order() {
    let (asking, answering) = Pair::new().session();
    let (one, mut of_one) = asking.ask(b"one").unwrap();
    let (two, mut of_two) = asking.ask(b"").unwrap();
    let (text, mut to_two) = answering.take(&two).unwrap();
    assert_eq!(text, b"");
    let (text, to_one) = answering.take(&one).unwrap();
    assert_eq!(text, b"one");
    let frame = to_two.frame(b"part").unwrap();
    assert_eq!(of_two.read(&frame).unwrap(), Answered::Frame(b"part".to_vec()));
    assert_eq!(of_one.read(&to_one.last(b"all")).unwrap(), Answered::Last(b"all".to_vec()));
    assert!(of_one.is_ended() && !of_two.is_ended());
    assert_eq!(of_two.read(&to_two.last(b"")).unwrap(), Answered::Last(Vec::new()));
}

#[test]
fn nobody_answers_without_the_key_that_the_intent_names() {
    let pair = Pair::new();
    let stranger = PrivateKey::generate(Kem::XWing, &SystemEntropy).unwrap();
    let (begun, first) = pair.hop().begin(&SystemEntropy).unwrap();
    assert!(matches!(pair.hop().answer(&stranger, &first, &SystemEntropy), Err(HopError::Forged)));
    // Whoever answers with something of its own can seal to who asks, and reads no question.
    let (_, other) = Hop { answers: stranger.public(), ..pair.hop() }.begin(&SystemEntropy).unwrap();
    assert!(pair.hop().finish(begun, &pair.asks, &other).is_err());
    let (begun, _) = pair.hop().begin(&SystemEntropy).unwrap();
    let mine = Hop { intent: pair.intent, asks: pair.asks.public(), answers: stranger.public() };
    let (_, to_stranger) = mine.begin(&SystemEntropy).unwrap();
    let (impostor, second) = mine.answer(&stranger, &to_stranger, &SystemEntropy).unwrap();
    match pair.hop().finish(begun, &pair.asks, &second) {
        Err(error) => assert_eq!(error, HopError::Forged),
        Ok(asking) => assert!(impostor.take(&asking.ask(b"a secret").unwrap().0).is_err()),
    }
}

#[test]
fn nobody_asks_without_the_key_that_the_intent_names() {
    let pair = Pair::new();
    let stranger = PrivateKey::generate(Kem::XWing, &SystemEntropy).unwrap();
    // It knows all that is public, and begins in the other's name.
    let (begun, first) = pair.hop().begin(&SystemEntropy).unwrap();
    let (answering, second) = pair.hop().answer(&pair.answers, &first, &SystemEntropy).unwrap();
    assert!(matches!(pair.hop().finish(begun, &stranger, &second), Err(HopError::Forged)));
    // What it can make by itself opens nothing there.
    let other = Pair { asks: stranger, answers: pair.answers, intent: pair.intent };
    let (asking, _) = other.session();
    assert!(matches!(answering.take(&asking.ask(b"a plan").unwrap().0), Err(HopError::Forged)));
}

#[test]
fn another_intent_and_the_other_direction_are_other_sessions() {
    let pair = Pair::new();
    let (_, first) = pair.hop().begin(&SystemEntropy).unwrap();
    let other = Hop { intent: StatementId::of(b"another intent"), ..pair.hop() };
    assert!(matches!(other.answer(&pair.answers, &first, &SystemEntropy), Err(HopError::Forged)));
    let turned = Hop { asks: pair.answers.public(), answers: pair.asks.public(), ..pair.hop() };
    assert!(matches!(turned.answer(&pair.answers, &first, &SystemEntropy), Err(HopError::Forged)));
    // A session with oneself, and what was said in another session of the same two.
    let ((asking, answering), (again, _)) = (pair.session(), pair.session());
    assert!(answering.take(&again.ask(b"x").unwrap().0).is_err());
    let (question, mut answers) = asking.ask(b"x").unwrap();
    assert!(matches!(answers.read(&[&[1], &question[4..]].concat()), Err(HopError::Forged)), "sent back");
    assert!(answering.take(&question).is_ok());
}

#[test]
fn a_recorded_session_can_not_be_replayed() {
    let pair = Pair::new();
    let (begun, first) = pair.hop().begin(&SystemEntropy).unwrap();
    let (answering, second) = pair.hop().answer(&pair.answers, &first, &SystemEntropy).unwrap();
    let asking = pair.hop().finish(begun, &pair.asks, &second).unwrap();
    let (question, _) = asking.ask(b"read all").unwrap();
    assert!(answering.take(&question).is_ok());
    assert!(matches!(answering.take(&question), Err(HopError::Replayed)));
    // The whole from its beginning: the answer is another one, so the question is none.
    let (later, other) = pair.hop().answer(&pair.answers, &first, &SystemEntropy).unwrap();
    assert_ne!(other, second);
    assert!(matches!(later.take(&question), Err(HopError::Forged)));
    // And to who asks: an old answer to a new beginning.
    let (begun, _) = pair.hop().begin(&SystemEntropy).unwrap();
    let asking = pair.hop().finish(begun, &pair.asks, &second).unwrap();
    assert!(matches!(answering.take(&asking.ask(b"read all").unwrap().0), Err(HopError::Forged)));
}

#[test]
fn frames_can_not_be_changed_moved_dropped_doubled_or_cut_off() {
    let (asking, answering) = Pair::new().session();
    let (question, _) = asking.ask(b"q").unwrap();
    for at in 0..question.len() {
        let mut changed = question.clone();
        changed[at] ^= 1;
        assert!(answering.take(&changed).is_err(), "{at}");
        assert!(answering.take(&question[..at]).is_err(), "{at}");
    }
    let (_, mut replies) = answering.take(&question).unwrap();
    let frames = [replies.frame(b"1").unwrap(), replies.frame(b"2").unwrap(), replies.last(b"3")];
    // The same three for another question.
    let (other, mut theirs) = asking.ask(b"q").unwrap();
    let (_, mut replies) = answering.take(&other).unwrap();
    let others = [replies.frame(b"1").unwrap(), replies.frame(b"2").unwrap(), replies.last(b"3")];
    for wrong in [&frames[0], &others[1], &others[2]] {
        assert_eq!(theirs.read(wrong), Err(HopError::Forged));
    }
    assert!(theirs.read(&others[0]).is_ok());
    assert!(!theirs.is_ended(), "what was cut off has no end");
    assert_eq!(theirs.read(&others[0]), Err(HopError::Forged), "doubled");
    assert_eq!(theirs.read(&others[2]), Err(HopError::Forged), "one was dropped");
    let mut ended = others[1].clone();
    ended[0] = 1;
    assert_eq!(theirs.read(&ended), Err(HopError::Forged), "called the last");
    assert!(theirs.read(&others[1]).is_ok() && theirs.read(&others[2]).is_ok() && theirs.is_ended());
    assert_eq!(theirs.read(&others[2]), Err(HopError::Forged), "after the end");
}
