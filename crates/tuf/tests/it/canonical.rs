//! Canonical JSON.

use std::collections::BTreeMap;

use proptest::prelude::{Just, Strategy, any, prop, prop_oneof, proptest};
use tuf::Json;

/// The expected bytes were made by securesystemslib 1.4.0, the reference implementation's encoder.
#[test]
fn the_reference_encoder_agrees() {
    let json = Json::parse(include_bytes!("canonical-input.json")).unwrap();
    assert_eq!(json.canonical(), include_bytes!("canonical-output.bin"));
}

#[test]
fn what_has_no_canonical_form_is_refused() {
    for text in [
        "1.0",
        "1e3",
        "-0",
        "18446744073709551616",
        "-9223372036854775809",
        r#"{"a":1,"a":1}"#,
        "{",
        "[1,]",
        "nul",
        "",
        "\"\u{1}\"",
        r#""\ud800""#,
        "1 2",
        "{\"a\":1}x",
    ] {
        assert!(Json::parse(text.as_bytes()).is_err(), "{text}");
    }
    assert!(Json::parse(b"\"\xff\"").is_err());
}

#[test]
fn nesting_has_a_limit() {
    assert!(Json::parse("[".repeat(100_000).as_bytes()).is_err());
}

fn json(controls: bool) -> impl Strategy<Value = Json> {
    let text = move || any::<String>().prop_map(move |text| if controls { text } else { plain(&text) });
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::Bool),
        any::<u64>().prop_map(Json::Natural),
        (i64::MIN..0).prop_map(Json::Negative),
        text().prop_map(Json::String),
    ];
    leaf.prop_recursive(4, 64, 8, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..8).prop_map(Json::Array),
            prop::collection::btree_map(text(), inner, 0..8).prop_map(Json::Object),
        ]
    })
}

fn plain(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).collect()
}

/// The same value with its members in the opposite order and white space between.
fn other_spelling(json: &Json) -> String {
    match json {
        Json::Array(items) => format!("[ {} ]", items.iter().map(other_spelling).collect::<Vec<_>>().join(" ,\n")),
        Json::Object(members) => {
            let member = |(name, value): (&String, &Json)| {
                format!("{}\t: {}", serde_json::to_string(name).unwrap(), other_spelling(value))
            };
            format!("{{{}}}", members.iter().rev().map(member).collect::<Vec<_>>().join(" , "))
        }
        leaf => serde_json::to_string(leaf).unwrap(),
    }
}

proptest! {
    #[test]
    fn one_value_has_one_form(value in json(true)) {
        let again = Json::parse(other_spelling(&value).as_bytes()).unwrap();
        assert_eq!(again.canonical(), value.canonical());
        assert_eq!(again, value);
    }

    /// Without control characters the canonical form is JSON, and means the same.
    #[test]
    fn the_canonical_form_reads_back(value in json(false)) {
        assert_eq!(Json::parse(&value.canonical()).unwrap(), value);
    }

    #[test]
    fn different_values_have_different_forms(one in json(true), other in json(true)) {
        assert_eq!(one == other, one.canonical() == other.canonical());
    }

    #[test]
    fn nothing_panics_the_parsers(bytes in prop::collection::vec(any::<u8>(), 0..256)) {
        let _ = Json::parse(&bytes);
        let _ = tuf::Metadata::<tuf::Root>::parse("root.json", bytes);
    }

    /// Members sort by code point, which is not the order of UTF-16 units.
    #[test]
    fn members_are_sorted(names in prop::collection::btree_set("[a-zé\u{fffd}😀]{1,3}", 1..6)) {
        let members: BTreeMap<_, _> = names.iter().map(|name| (name.clone(), Json::Null)).collect();
        let mut sorted: Vec<_> = names.into_iter().collect();
        sorted.sort_by(|a, b| a.chars().cmp(b.chars()));
        let expected = sorted.iter().map(|name| format!("\"{name}\":null")).collect::<Vec<_>>().join(",");
        assert_eq!(Json::Object(members).canonical(), format!("{{{expected}}}").into_bytes());
    }
}
