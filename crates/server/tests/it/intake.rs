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

#[test]
fn a_full_intake_takes_nothing_more_and_loses_nothing() {
    let mut system = System::made();
    system.set("vendor", "intake_bytes_max = 68719476736", "intake_bytes_max = 250000");
    system.witnesses.iter_mut().for_each(|it| it.start());
    system.vendor.start();
    let batch = |byte: u8| vec![byte; 100_000];
    let (first, second) = (receipt(&system, &batch(1)), receipt(&system, &batch(2)));
    let refused = post(system.vendor.address(), api::path::EVENTS, &batch(3));
    assert!(refused.error().starts_with("503 intake-full"), "{refused:?}");
    assert_eq!(refused.header("retry-after"), Some("600"));
    // What it has it acknowledges again, and what is small enough fits.
    assert_eq!(receipt(&system, &batch(1)), first);
    receipt(&system, &[4; 50_000]);
    assert!(post(system.vendor.address(), api::path::EVENTS, b"5").error().starts_with("503"));
    // Somebody takes a batch away; a start counts anew.
    let name = second.batch.to_string();
    let path = system.path().join("vendor/intake/objects").join(&name[..2]).join(&name);
    stdx::durable::remove(&path).unwrap();
    system.vendor.kill();
    system.vendor.start();
    assert_eq!(receipt(&system, &batch(3)).bytes, 100_000);
    assert_eq!(stored(&system, &first.batch), batch(1));
}
