use attest::{Release, Source, Statement, StatementError, TYPE_BASE};
use proptest::prelude::any;
use proptest::proptest;

use crate::samples;

const DOCUMENT: &str = include_str!("../../../../docs/formats/statements.md");

/// The block of the document that begins with "```json NAME".
fn golden(name: &str) -> &'static str {
    let start = format!("```json {name}\n");
    let (_, rest) = DOCUMENT.split_once(&start).unwrap_or_else(|| panic!("no block `{name}`"));
    rest.split_once("\n```").unwrap().0
}

#[test]
fn the_document_shows_the_bytes_of_each_statement() {
    for (name, payload) in samples::all() {
        assert_eq!(payload, golden(name), "{name}");
    }
}

#[test]
fn the_document_shows_the_bytes_of_an_envelope() {
    let (_, heartbeat) = samples::all().into_iter().find(|(name, _)| *name == "heartbeat").unwrap();
    let key = samples::key("vendor.example/recorder", 1);
    let envelope = attest::Envelope::sign(heartbeat.into_bytes(), &[&key]).unwrap();
    assert_eq!(String::from_utf8(envelope.to_bytes()).unwrap(), golden("envelope"));
    assert!(DOCUMENT.contains(&envelope.id().to_string()), "{}", envelope.id());
    assert!(DOCUMENT.contains(&key.verifier().to_string()), "{}", key.verifier());
}

#[test]
fn the_extension_field_of_a_vsa_is_below_our_type_base() {
    assert!(golden("vsa").contains(&format!("\"{TYPE_BASE}position\":{{")));
}

#[test]
fn other_encodings_of_a_statement_are_refused() {
    let text = golden("source");
    let decode = |text: &str| Statement::<Source>::decode(text.as_bytes());
    decode(text).unwrap();
    let others = [
        format!("{text}\n"),
        text.replacen("\"files\":12", "\"files\": 12", 1),
        text.replacen("\"files\":12", "\"files\":1.2e1", 1),
        text.replacen("\"files\":12", "\"files\":\"12\"", 1),
        text.replacen("\"files\":12,\"bytes\":34567", "\"bytes\":34567,\"files\":12", 1),
        text.replacen("\"files\":12", "\"files\":12,\"files\":12", 1),
        text.replacen("\"files\":12", "\"files\":12,\"more\":0", 1),
        text.replacen("1.2.3", "1.2.\\u0033", 1),
        text.replacen("2026-11-22T03:25:34Z", "2026-11-22T03:25:34+00:00", 1),
        text.replacen("https://in-toto.io/Statement/v1", "https://in-toto.io/Statement/v0.1", 1),
        text.replacen("\"subject\":[{", "\"subject\":[],\"x\":[{", 1),
    ];
    for other in others {
        assert_ne!(other, text);
        decode(&other).unwrap_err();
    }
}

#[test]
fn a_statement_of_one_type_is_none_of_another() {
    let error = Statement::<Release>::decode(golden("promotion").as_bytes()).unwrap_err();
    assert!(matches!(error, StatementError::OtherType { .. }), "{error}");
}

proptest! {
    #[test]
    fn foreign_bytes_never_panic(bytes: Vec<u8>, at in any::<proptest::sample::Index>(), byte: u8) {
        let _ = Statement::<Release>::decode(&bytes);
        let _ = attest::Envelope::parse(&bytes);
        let _ = attest::Bundle::parse(&bytes);
        let mut mutated = golden("release").as_bytes().to_vec();
        let at = at.index(mutated.len());
        mutated[at] = byte;
        if let Ok(statement) = Statement::<Release>::decode(&mutated) {
            assert_eq!(statement.encode().unwrap(), mutated);
        }
    }
}
