//! Trees of rules, their settings, indexes, reports, and the patches that endpoints apply.

use std::io;

use detection::{
    Index, Patch, PatchError, Pin, Report, RulesTree, Settings, Step, decide, decode_files, diff, encode_files,
    hidden_character, parse_manifest, skeleton, visible,
};
use stdx::Digest;

use crate::Target;

pub(crate) const TARGETS: &[Target] = &[
    ("rules-settings", settings),
    ("rules-index", index),
    ("rules-report", report),
    ("rules-tree", tree),
    ("rules-files", files),
    ("rules-patch", patch),
    ("rules-text", text),
];

fn settings(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(settings) = Settings::parse(text) else { return };
    assert!(settings.limits.bundle_bytes > 0 && !settings.is_source("rules.toml"));
}

fn index(bytes: &[u8]) {
    let Ok(index) = Index::parse(bytes) else { return };
    assert_eq!(index.to_bytes(), bytes);
    assert_eq!(index.names().len(), index.rules.len());
}

/// What is accepted is written back; a report decides the same however often it is asked, and nothing
/// changes between it and itself.
fn report(bytes: &[u8]) {
    let Ok(report) = Report::parse(bytes) else { return };
    assert_eq!(report.to_bytes(), bytes);
    let settings = Settings::parse("product = \"p\"\nnotice = \"n\"").expect("settings of ours");
    let first = decide(&report, &settings, None);
    assert_ne!(first, detection::Decision::Fast, "the first release is for people");
    assert_eq!(first, decide(&report, &settings, None));
    let _ = decide(&report, &settings, Some(&report.index));
    let none = diff(detection::Reports { before: Some(&report), now: &report });
    assert!(none.to_string().is_empty(), "{none}");
}

/// Whatever files are handed over for a manifest, the tree is the manifest's or there is none.
fn tree(bytes: &[u8]) {
    let Ok(manifest) = std::str::from_utf8(bytes) else { return };
    let Ok(tree) = parse_manifest(manifest) else { return };
    assert_eq!(tree.to_manifest(), manifest);
    let known: &[&[u8]] = &[b"", b"product = \"p\"\nnotice = \"rules.toml\"", b"rule a { condition: true }\n"];
    let read = |digest: &Digest| {
        let found = known.iter().find(|bytes| Digest::of(bytes) == *digest);
        found.map(|bytes| bytes.to_vec()).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    };
    if let Ok(rules) = RulesTree::from_manifest(manifest, read) {
        assert_eq!(rules.manifest(), manifest);
        assert_eq!(rules.digest(), Digest::of(bytes));
    }
    let hostile = |_: &Digest| Ok(b"product = \"p\"\nnotice = \"rules.toml\"\n# another".to_vec());
    if let Ok(rules) = RulesTree::from_manifest(manifest, hostile) {
        assert_eq!(rules.digest(), Digest::of(bytes));
    }
}

fn files(bytes: &[u8]) {
    let Ok(files) = decode_files(bytes) else { return };
    assert_eq!(encode_files(&files).expect("files that were sent"), bytes);
}

/// The first two bytes say how long the old file is; the rest after it is the patch. What comes out is
/// what was named, or an error; and a way back from it can be made.
fn patch(bytes: &[u8]) {
    let Some((length, rest)) = bytes.split_first_chunk::<2>() else { return };
    let (old, frame) = rest.split_at(usize::from(u16::from_be_bytes(*length)).min(rest.len()));
    // The size is what a release names; here, whatever the frame says, up to a MiB.
    for size in [0, 26, 1_024, 1 << 20] {
        let to = Pin { digest: Digest::of(old), size };
        let patch = Patch { from: Digest::of(old), to, bytes: frame.to_vec() };
        match patch.apply(old) {
            Ok(new) => assert!(to.is_of(&new)),
            Err(PatchError::End { got, .. }) => assert_ne!(got, to.digest),
            Err(_) => {}
        }
    }
    let there = Patch::make(Step { old, new: frame }).expect("both are small");
    assert_eq!(there.apply(old).expect("our own patch"), frame);
}

fn text(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let shown = visible(&text);
    assert!(hidden_character(&shown).is_none() && !shown.contains(['\n', '\r']));
    assert_eq!(visible(&shown), shown);
    assert_eq!(skeleton(&text), skeleton(&text.to_ascii_uppercase()));
}
