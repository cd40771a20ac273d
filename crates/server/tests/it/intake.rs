//! The intake of what endpoints share: by digest, durable before the receipt, each batch once.

use api::EventReceipt;
use stdx::Digest;

use crate::raw::post;
use crate::system::System;

fn receipt(system: &System, body: &[u8]) -> EventReceipt {
    let response = post(system.vendor.address(), api::path::EVENTS, body);
    assert_eq!(response.status, 200, "{response:?}");
    serde_json::from_slice(&response.body).unwrap()
}

fn stored(system: &System, digest: &Digest) -> Vec<u8> {
    let name = digest.to_string();
    let path = system.path().join("vendor/intake/objects").join(&name[..2]).join(&name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn a_batch_is_stored_once_by_its_digest_and_outlives_a_power_cut() {
    let mut system = System::running();
    let sealed = vec![7; 100_000];
    let expected = EventReceipt { batch: Digest::of(&sealed), bytes: 100_000 };
    assert_eq!(receipt(&system, &sealed), expected);
    system.vendor.kill();
    assert_eq!(stored(&system, &expected.batch), sealed);
    system.vendor.start();
    assert_eq!(receipt(&system, &sealed), expected, "the same bytes are the same batch");
    let other = receipt(&system, b"another");
    assert_eq!(stored(&system, &other.batch), b"another");

    let empty = post(system.vendor.address(), api::path::EVENTS, b"");
    assert!(empty.error().starts_with("400 body"));
    let long = post(system.vendor.address(), api::path::EVENTS, &vec![1; (16 << 20) + 1]);
    assert!(long.error().starts_with("413 too-long"));
    // Supervisors take none of it.
    assert_eq!(post(system.supervisor.address(), api::path::EVENTS, b"x").status, 404);
}
