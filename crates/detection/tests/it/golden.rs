//! The golden bytes of `docs/formats/rules.md`, and that nothing else is read.

use detection::{Index, MetaValue, Patch, Pin, Step};
use stdx::Digest;

const DOCUMENT: &str = include_str!("../../../../docs/formats/rules.md");

/// The code block behind the line that ends with `MARK:`.
fn block(mark: &str) -> &'static str {
    let (_, rest) = DOCUMENT.split_once(mark).unwrap_or_else(|| panic!("{mark} is not in the document"));
    let (_, rest) = rest.split_once("```").unwrap();
    let (_, rest) = rest.split_once('\n').unwrap();
    rest.split_once("\n```").unwrap().0
}

#[test]
fn the_index_is_as_written() {
    let bundle = format!("{}\n", block("Golden bundle"));
    let index = Index::parse(block("Golden index").as_bytes()).unwrap();
    assert!(index.bundle.is_of(bundle.as_bytes()), "the bundle's digest is {}", Digest::of(bundle.as_bytes()));
    for rule in &index.rules {
        let start = bundle.find(&format!("rule {}", rule.name)).unwrap();
        let text = &bundle[start..start + usize::try_from(rule.text.size).unwrap()];
        assert!(rule.text.is_of(text.as_bytes()), "{text}");
    }
    assert_eq!(
        index.collecting().map(|(rule, class)| (rule.name.as_str(), class)).collect::<Vec<_>>(),
        [("second", "documents")]
    );
}

#[test]
fn another_form_of_an_index_is_refused() {
    let golden = block("Golden index");
    for other in [
        golden.replace("\":", "\": "),
        format!("{golden}\n"),
        golden.replace("index-v1", "index-v2"),
        golden.replace("\"rejected\":[", "\"more\":1,\"rejected\":["),
        golden.replace("\"name\":\"second\"", "\"name\":\"first\""),
        golden.replace("\"uses\":[\"first\"]", "\"uses\":[\"second\",\"first\"]"),
        golden.replace("\"tags\":[\"tag\"]", "\"tags\":[\"tag\"],\"private\":false"),
    ] {
        assert_ne!(other, golden);
        assert!(Index::parse(other.as_bytes()).is_err(), "{other}");
    }
}

#[test]
fn a_rules_own_words_are_truths_numbers_and_texts() {
    let read = |text: &str| serde_json::from_str::<MetaValue>(text);
    for (text, value) in [
        ("true", MetaValue::Boolean(true)),
        ("-9223372036854775808", MetaValue::Integer(i64::MIN)),
        ("9223372036854775807", MetaValue::Integer(i64::MAX)),
        ("\"\\u0061 \\\"b\\\"\"", MetaValue::Text("a \"b\"".to_owned())),
    ] {
        assert_eq!(read(text).unwrap(), value);
    }
    for text in ["9223372036854775808", "1.5", "null", "[]", "{}"] {
        assert!(read(text).is_err(), "{text}");
    }
}

#[test]
fn the_patch_is_as_written() {
    let new = format!("{}\n", block("Golden bundle"));
    let old = new.replace("1.0", "2.0");
    let bytes = hex::decode(block("Golden patch")).unwrap();
    let patch = Patch { from: Digest::of(old.as_bytes()), to: Pin::of(new.as_bytes()), bytes };
    assert_eq!(patch.apply(old.as_bytes()).unwrap(), new.as_bytes());
    // What another version of zstd makes may differ; what ours makes leads to the same.
    let made = Patch::make(Step { old: old.as_bytes(), new: new.as_bytes() }).unwrap();
    assert_eq!(made.apply(old.as_bytes()).unwrap(), new.as_bytes());
}
