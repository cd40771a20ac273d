//! The channel and its evidence in the eyes of strangers: PyPI's `tuf`, npm's `tuf-js`, and a
//! verifier in Python on `securesystemslib`, `in-toto-attestation` and `cryptography` (`foreign/`).

use std::path::Path;
use std::process::Command;

use stdx::{Clock as _, Digest, SystemClock, durable};
use testkit::foreign::{node, python, succeed};
use testkit::{OTHER_PRODUCT, PRODUCT, World};

use crate::vendor::Vendor;

const TARGETS: [&str; 7] = [
    "products/libexample/releases",
    "products/libexample/1/bundle",
    "products/libexample/1/0-a_file_1.bin",
    "products/libexample/2/bundle",
    "products/libexample/2/0-a_file_1.bin",
    "products/other/1/bundle",
    "products/other/1/0-a_file_1.bin",
];

/// Two releases of one product and one of another, now: strangers look at the real clock.
fn published() -> Vendor {
    let world = World::new();
    world.clock.set(SystemClock::new().now());
    let mut vendor = Vendor::of(world);
    for (product, content) in [(PRODUCT, &b"old"[..]), (OTHER_PRODUCT, b"other"), (PRODUCT, b"new")] {
        vendor.publish(product, content).1.unwrap();
    }
    vendor
}

/// What our own client gets, in the form that the strangers print.
fn expected(vendor: &Vendor) -> String {
    TARGETS.iter().map(|path| format!("{} {path}\n", Digest::of(&vendor.fetch(path).unwrap()))).collect()
}

fn read(mut client: Command, vendor: &Vendor) -> String {
    let state = vendor.folder.path().join("state");
    succeed(client.arg(vendor.channel.folder()).arg(state).args(TARGETS))
}

#[test]
fn python_tuf_reads_what_we_publish() {
    let vendor = published();
    assert_eq!(read(python("read_tuf.py"), &vendor), expected(&vendor));
}

#[test]
fn tuf_js_reads_what_we_publish() {
    let vendor = published();
    assert_eq!(read(node("read_tuf.js"), &vendor), expected(&vendor));
}

/// Runs the stranger's verifier; what it printed, or why it refused.
fn verify(vendor: &Vendor, bundle: &[u8], file: &[u8]) -> Result<String, String> {
    let folder = vendor.folder.path();
    let at = |name: &str, bytes: &[u8]| {
        let path = folder.join(name);
        durable::write(&path, bytes).unwrap();
        path
    };
    let world = &vendor.world;
    let files: [&Path; 3] = [&at("bundle", bundle), &at("genesis", &world.genesis().to_bytes()), &at("file", file)];
    let id = world.genesis().id().to_string();
    let output = python("verify_bundle.py").args(&files[..2]).arg(id).arg(files[2]).output().unwrap();
    let said = |bytes| String::from_utf8(bytes).unwrap();
    if output.status.success() { Ok(said(output.stdout)) } else { Err(said(output.stderr)) }
}

#[test]
fn a_verifier_in_python_accepts_a_release_by_its_bundle_alone() {
    let vendor = published();
    let bundle = vendor.fetch("products/libexample/2/bundle").unwrap();
    assert_eq!(verify(&vendor, &bundle, b"new").unwrap(), "libexample 1.0, release 2, 4 entries\n");

    // It is no rubber stamp.
    assert_eq!(verify(&vendor, &bundle, b"old").unwrap_err(), "error: the file is not what was released\n");
    let text = String::from_utf8(bundle).unwrap();
    let refused = |text: &str| verify(&vendor, text.as_bytes(), b"new").unwrap_err();
    assert_eq!(
        refused(&text.replacen(',', ", ", 1)),
        format!("error: {} is not in canonical form\n", bundle_path(&vendor))
    );
    let one_less = text.replacen("\\n\u{2014} w1.example/witness ", "\\n\u{2014} w9.example/witness ", 1);
    assert_eq!(refused(&one_less), "error: ['w2', 'w3'] are no quorum\n");
    let signature = text.find("\"sig\":\"").unwrap() + 7;
    let mut forged = text.clone();
    let other = if forged[signature..].starts_with('A') { "B" } else { "A" };
    forged.replace_range(signature..=signature, other);
    assert!(refused(&forged).ends_with(" is not under the root\n"));
}

fn bundle_path(vendor: &Vendor) -> String {
    vendor.folder.path().join("bundle").display().to_string()
}

#[test]
fn a_verifier_in_python_wants_both_organisations() {
    let world = World::new();
    world.clock.set(SystemClock::new().now());
    let mut vendor = Vendor::of(world);
    for (options, missing) in [
        (testkit::ReleaseOptions { releasers: vec!["vendor"], ..Default::default() }, "Found: 0, Expected 1"),
        (testkit::ReleaseOptions { builders: vec!["supervisor"], ..Default::default() }, "Found: 0, Expected 1"),
        (
            testkit::ReleaseOptions { approvers: vec!["vendor"], ..Default::default() },
            "too few approvals of supervisor",
        ),
    ] {
        let released = vendor.world.release_with(PRODUCT, "1.0", &[("a", b"content")], &options);
        let refused = verify(&vendor, &released.bundle.to_bytes(), b"content").unwrap_err();
        assert!(refused.contains(missing), "{refused}");
    }
}
