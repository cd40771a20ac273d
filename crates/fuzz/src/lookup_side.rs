//! What is known of files, and how it is asked for.

use oblivious::{Answered, GatewayKey, KeyConfiguration, Question, open};
use reputation::{Answer, Prefix, ReputationSet, parse_list};
use stdx::Digest;

use crate::Target;

pub(crate) const TARGETS: &[Target] = &[
    ("hash-list", hash_list),
    ("reputation-set", reputation_set),
    ("prefix", prefix),
    ("bucket", bucket),
    ("key-configuration", key_configuration),
    ("oblivious-request", oblivious_request),
    ("oblivious-message", oblivious_message),
];

fn hash_list(bytes: &[u8]) {
    let Ok(hashes) = parse_list(bytes) else { return };
    let written: Vec<String> = hashes.iter().map(ToString::to_string).collect();
    assert_eq!(parse_list(written.join("\n").as_bytes()).expect("what was read"), hashes);
}

/// Any hash can be looked up in whatever was accepted, and it is written back as it was.
fn reputation_set(bytes: &[u8]) {
    let Ok(set) = ReputationSet::parse(bytes) else { return };
    assert_eq!(set.to_bytes(), bytes);
    for number in 0..64_u8 {
        let _ = set.may_contain(&Digest::of(&[number]));
    }
}

fn prefix(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(prefix) = text.parse::<Prefix>() {
        assert_eq!(prefix.to_string(), text);
    }
}

/// The first byte says which prefix was asked for.
fn bucket(bytes: &[u8]) {
    let Some((first, answer)) = bytes.split_first() else { return };
    let Ok(asked) = format!("2/{:x}", first & 3).parse::<Prefix>() else { return };
    if let Ok(answer) = Answer::parse(answer, &asked) {
        assert!(answer.hashes() >= reputation::BUCKET_MIN);
        let _ = answer.verdict(&Digest::of(bytes));
    }
}

fn key_configuration(bytes: &[u8]) {
    if let Ok(configuration) = KeyConfiguration::parse(bytes) {
        assert_eq!(KeyConfiguration::parse(&configuration.to_bytes()).as_ref(), Ok(&configuration));
    }
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Ok(key) = text.parse::<GatewayKey>()
    {
        let again: GatewayKey = key.to_secret_text().parse().expect("what was written");
        assert_eq!(again.configuration(), key.configuration());
    }
}

/// Nobody without randomness of the right kind makes a request that opens.
fn oblivious_request(bytes: &[u8]) {
    let key = GatewayKey::from_bytes(1, &[7; 32]).expect("any 32 bytes are a key");
    let _ = open(&key, bytes);
}

fn oblivious_message(bytes: &[u8]) {
    if let Ok(question) = Question::parse(bytes) {
        assert_eq!(question.to_bytes(), bytes);
    }
    let _ = Answered::parse(bytes);
}
