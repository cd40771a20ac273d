use attest::{ENVELOPE_BYTES_MAX, Envelope, EnvelopeError, pae};

use crate::samples::key;

/// DSSE `protocol.md`, "Test Vectors".
#[test]
fn the_vector_of_the_specification() {
    let bytes = pae("http://example.com/HelloWorld", b"hello world");
    assert_eq!(bytes, b"DSSEv1 29 http://example.com/HelloWorld 11 hello world");
}

#[test]
fn signatures_come_in_one_order() {
    let (a, b) = (key("a.example/builder", 1), key("b.example/builder", 2));
    let envelope = Envelope::sign(b"{}".to_vec(), &[&b, &a]).unwrap();
    assert_eq!(envelope, Envelope::sign(b"{}".to_vec(), &[&a, &b]).unwrap());
    assert_eq!(Envelope::parse(&envelope.to_bytes()).unwrap(), envelope);
    assert!(envelope.signed_by(a.verifier()).unwrap() && envelope.signed_by(b.verifier()).unwrap());
    assert!(!envelope.signed_by(key("c.example/builder", 3).verifier()).unwrap());

    let mut merged = Envelope::sign(b"{}".to_vec(), &[&a]).unwrap();
    merged.merge(&Envelope::sign(b"{}".to_vec(), &[&b]).unwrap()).unwrap();
    assert_eq!(merged, envelope);
    let other = Envelope::sign(b"[]".to_vec(), &[&b]).unwrap();
    assert!(matches!(merged.merge(&other), Err(EnvelopeError::OtherStatement(..))));
}

#[test]
fn a_key_of_the_same_name_does_not_count() {
    let (real, imposter) = (key("a.example/builder", 1), key("a.example/builder", 2));
    let envelope = Envelope::sign(b"{}".to_vec(), &[&imposter]).unwrap();
    assert!(!envelope.signed_by(real.verifier()).unwrap());
    // With the real key's id on the imposter's signature, the envelope is spoilt.
    let text = String::from_utf8(envelope.to_bytes()).unwrap();
    let (from, to) = (imposter.verifier().id().to_string(), real.verifier().id().to_string());
    let forged = Envelope::parse(text.replace(&from, &to).as_bytes()).unwrap();
    assert!(matches!(forged.signed_by(real.verifier()), Err(EnvelopeError::BadSignature(_))));
}

#[test]
fn what_dsse_allows_and_we_do_not_is_refused() {
    let envelope = Envelope::sign(b"{\"a\":\"???>>>\"}".to_vec(), &[&key("a.example/builder", 1)]).unwrap();
    let text = String::from_utf8(envelope.to_bytes()).unwrap();
    let payload = text.split('"').nth(3).unwrap();
    assert!(payload.contains('/') || payload.contains('+'), "{payload}");
    let others = [
        text.replacen(payload, &payload.replace('/', "_").replace('+', "-"), 1),
        text.replacen(payload, payload.trim_end_matches('='), 1),
        text.replace(',', ", "),
        text.replacen("{\"payload\"", "{\"extra\":1,\"payload\"", 1),
        text.replacen("\"keyid\"", "\"keyId\"", 1),
        text.replacen("application/vnd.in-toto+json", "application/json", 1),
        text.replacen("application/vnd.in-toto+json", "application\\/vnd.in-toto+json", 1),
        format!("{}}}", text.strip_suffix("]}").unwrap()),
        text.replacen("\"signatures\":[{", "\"signatures\":[{\"keyid\":\"z\",\"sig\":\"\"},{", 1),
    ];
    for other in others {
        assert_ne!(other, text);
        assert!(Envelope::parse(other.as_bytes()).is_err(), "{other}");
    }
    let line = text.split_once('[').unwrap().1.trim_end_matches("]}");
    for doubled in [format!("{line},{line}"), String::new()] {
        let other = text.replacen(line, &doubled, 1);
        assert!(Envelope::parse(other.as_bytes()).is_err(), "{other}");
    }
}

#[test]
fn an_envelope_fits_a_log_entry() {
    let key = key("a.example/builder", 1);
    assert!(matches!(Envelope::sign(vec![b'x'; ENVELOPE_BYTES_MAX / 4 * 3], &[&key]), Err(EnvelopeError::TooLong(_))));
    let largest = Envelope::sign(vec![b'x'; 48_900], &[&key]).unwrap();
    assert!(largest.to_bytes().len() <= ENVELOPE_BYTES_MAX);
}

#[test]
fn the_envelopes_of_others_are_read_in_any_json_and_either_base64() {
    let (ci, other) = (key("ci.example/builder", 1), key("ci.example/builder", 2));
    let envelope = Envelope::sign(b"{\"a\":\"???>>>\"}".to_vec(), &[&ci]).unwrap();
    let text = String::from_utf8(envelope.to_bytes()).unwrap();
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    let pretty = serde_json::to_string_pretty(&value).unwrap();
    let url_safe_text = |text: &serde_json::Value| text.as_str().unwrap().replace('/', "_").replace('+', "-");
    let mut url_safe = value.clone();
    url_safe["payload"] = url_safe_text(&value["payload"]).into();
    url_safe["signatures"][0]["sig"] = url_safe_text(&value["signatures"][0]["sig"]).into();
    let url_safe = url_safe.to_string();
    assert_ne!(url_safe, text);
    for form in [text.clone(), pretty, url_safe, text.replace('=', "")] {
        assert_eq!(attest::open_foreign(form.as_bytes(), ci.verifier()).unwrap(), envelope.payload(), "{form}");
    }
    assert!(attest::open_foreign(text.as_bytes(), other.verifier()).is_err());
    let changed = text.replacen("eyJh", "eyJi", 1);
    assert_ne!(changed, text);
    for bad in [changed.as_str(), "", "{}", "[]", &text.replacen("in-toto", "other", 1)] {
        assert!(attest::open_foreign(bad.as_bytes(), ci.verifier()).is_err(), "{bad}");
    }
}
