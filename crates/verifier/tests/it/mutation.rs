//! Every change of the bundle's or the file's bytes is refused.

use std::thread;

use attest::{Bundle, BundleEntry};
use tlog::{InclusionProof, LogProof};

use crate::files::{CONTENT, Files, edited};

/// A bit of each byte of the bundle, another one from byte to byte. The world's bundles carry
/// exactly a quorum, and no signature that nobody needs, so that there is no bit that a verifier
/// may overlook.
#[test]
fn a_flipped_bit_anywhere_in_the_bundle_is_refused() {
    let bytes = Files::new().bundle_bytes().len();
    thread::scope(|scope| {
        for half in 0..2 {
            scope.spawn(move || {
                let files = Files::new();
                let good = files.bundle_bytes();
                assert!(good.len().abs_diff(bytes) < 64, "bundles differ by a few digits only");
                for at in (half..good.len()).step_by(2) {
                    let mut bad = good.clone();
                    bad[at] ^= 1 << ((at / 2) % 8);
                    files.write("bundle", &bad);
                    assert!(files.prove().is_err(), "byte {at}, bit {}", (at / 2) % 8);
                }
            });
        }
    });
}

#[test]
fn every_flipped_bit_of_the_file_is_refused() {
    let files = Files::new();
    for at in 0..CONTENT.len() {
        for bit in 0..8 {
            let mut bad = CONTENT.to_vec();
            bad[at] ^= 1 << bit;
            files.write("product", &bad);
            assert_eq!(files.refusal(), "other-content");
        }
    }
}

#[test]
fn a_cut_or_lengthened_bundle_is_refused() {
    let files = Files::new();
    let good = files.bundle_bytes();
    for length in (0..good.len()).step_by(7) {
        files.write("bundle", &good[..length]);
        assert_eq!(files.refusal(), "malformed", "{length} bytes");
    }
    for tail in [&b"\n"[..], b" ", b"\0", b"{}", &good] {
        files.write("bundle", &[&good[..], tail].concat());
        assert_eq!(files.refusal(), "malformed");
    }
    files.write("bundle", &vec![b' '; attest::BUNDLE_BYTES_MAX + 2]);
    assert_eq!(files.refusal(), "malformed");
}

#[test]
fn other_encodings_are_refused() {
    let files = Files::new();
    let good = String::from_utf8(files.bundle_bytes()).unwrap();
    let value: serde_json::Value = serde_json::from_str(&good).unwrap();
    let mut shuffled = serde_json::Map::new();
    for (name, member) in value.as_object().unwrap().iter().rev() {
        shuffled.insert(name.clone(), member.clone());
    }
    let others = [
        serde_json::to_string_pretty(&value).unwrap(),
        serde_json::Value::Object(shuffled).to_string(),
        good.replacen("{\"type\"", "{\"other\":1,\"type\"", 1),
        good.replacen("bundle/v1", "bundle\\/v1", 1),
        good.replacen("clerestory", "\\u0063lerestory", 1),
        good.replacen("\"index\":", "\"index\": ", 1),
        good.replacen("\"entries\":", "\"entries\":[],\"entries\":", 1),
        good.replacen("application/vnd.in-toto+json", "application/vnd.in-toto\\u002bjson", 1),
        format!("\u{feff}{good}"),
    ];
    for other in others {
        assert_ne!(other, good);
        files.write("bundle", other.as_bytes());
        assert_eq!(files.refusal(), "malformed", "{other:.200}");
    }
    // DSSE allows URL-safe base64; this profile does not.
    let envelope = &files.released.release;
    for sign in ['+', '/'] {
        let safe = edited(envelope, |text| text.replacen(&format!("{sign}"), if sign == '+' { "-" } else { "_" }, 2));
        let original = edited(envelope, |text| text);
        files.write("bundle", good.replace(&original, &safe).as_bytes());
        assert!(safe == original || files.refusal() == "malformed");
    }
}

#[test]
fn signatures_in_another_order_are_refused() {
    let files = Files::new();
    let good = String::from_utf8(files.bundle_bytes()).unwrap();
    let value: serde_json::Value = serde_json::from_str(&good).unwrap();
    let signatures = value["entries"][0]["envelope"]["signatures"].as_array().unwrap();
    let (first, second) = (signatures[0].to_string(), signatures[1].to_string());
    for other in [format!("{second},{first}"), format!("{first},{first}"), first.clone()] {
        let bad = good.replacen(&format!("{first},{second}"), &other, 1);
        assert_ne!(bad, good);
        files.write("bundle", bad.as_bytes());
        assert!(files.prove().is_err());
    }
    // Nor the lines of a checkpoint: a cosignature less is no quorum, one doubled is no note.
    let note = value["checkpoints"][0].as_str().unwrap();
    let lines: Vec<_> = note.lines().collect();
    let last = lines.last().unwrap();
    for other in [note.replace(&format!("{last}\n"), ""), format!("{note}{last}\n")] {
        let bad = good.replacen(&serde_json::json!(note).to_string(), &serde_json::json!(other).to_string(), 1);
        assert_ne!(bad, good);
        files.write("bundle", bad.as_bytes());
        assert!(files.prove().is_err());
    }
}

#[test]
fn missing_doubled_and_foreign_entries_are_refused() {
    let mut files = Files::new();
    let good = files.entries();
    for left_out in 0..good.len() {
        let mut entries = good.clone();
        entries.remove(left_out);
        files.refusal_of(entries);
    }
    for doubled in 0..good.len() {
        let mut entries = good.clone();
        entries.push(good[doubled].clone());
        assert_eq!(files.refusal_of(entries), "bundle-shape");
    }
    // Members of another release, all of them good in their own bundle.
    let other = files.world.release(testkit::PRODUCT, "1.1", &[("product", b"another")]);
    for (at, foreign) in other.bundle.entries().iter().enumerate() {
        let mut entries = good.clone();
        entries[at] = foreign.clone();
        files.refusal_of(entries);
        let mut entries = good.clone();
        entries.push(foreign.clone());
        files.refusal_of(entries);
    }
}

#[test]
fn replayed_proofs_are_refused() {
    let files = Files::new();
    let good = files.entries();
    for (at, from) in (0..good.len()).flat_map(|at| (0..good.len()).map(move |from| (at, from))) {
        if at == from {
            continue;
        }
        // Another entry's proof, whole, under its own good checkpoint.
        let mut entries = good.clone();
        entries[at] = BundleEntry { envelope: good[at].envelope.clone(), proof: good[from].proof.clone() };
        assert_eq!(files.refusal_of(entries), "not-included");
    }
    // A right path at a wrong index, a path cut short, a path made longer.
    let proof = &good[0].proof;
    let hashes = proof.path().hashes().to_vec();
    let cut = hashes[..hashes.len() - 1].to_vec();
    let long = [&hashes[..], &hashes[..1]].concat();
    let next = tlog::EntryIndex::new(proof.index().get() + 1);
    for (index, path) in [(next, hashes), (proof.index(), cut), (proof.index(), long)] {
        let proof = LogProof::new(index, InclusionProof::new(path).unwrap(), proof.checkpoint().clone());
        let mut entries = good.clone();
        entries[0] = BundleEntry { envelope: good[0].envelope.clone(), proof };
        assert_eq!(files.refusal_of(entries), "not-included");
    }
}

/// Order within the bundle carries no meaning, so it must not change any either.
#[test]
fn entries_in_another_order_prove_the_same() {
    let files = Files::new();
    let expected = files.prove().unwrap().to_json();
    let mut entries = files.entries();
    entries.reverse();
    files.write("bundle", &Bundle::new(entries).unwrap().to_bytes());
    let mut proven = files.prove().unwrap().to_json();
    let (mut expected, order) = (expected, |json: &mut serde_json::Value| {
        json["approvals"].as_array_mut().unwrap().sort_by_key(ToString::to_string);
    });
    order(&mut proven);
    order(&mut expected);
    assert_eq!(proven, expected);
}
