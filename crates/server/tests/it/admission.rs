//! What a log takes in: the next entry of a stream, signed by known keys only, or one it has.

use attest::{Envelope, KeyRef};
use stdx::durable;
use tlog::SignerKey;

use crate::raw;
use crate::statement::{Place, heartbeat, heartbeat_by};
use crate::system::System;

/// The answer without the ids, which differ each time.
fn answer(system: &System, bytes: &[u8]) -> String {
    let response = raw::post(system.vendor.address(), "/v1/entries", bytes);
    if response.status == 200 {
        let appended: api::Appended = serde_json::from_slice(&response.body).unwrap();
        return format!("200 at {}", appended.index);
    }
    let error = response.error();
    let mut parts = error.split('`');
    let mut text = parts.next().unwrap().to_owned();
    while let (Some(quoted), Some(after)) = (parts.next(), parts.next()) {
        let shown = if quoted.len() == 64 { "ID" } else { quoted };
        text.push_str(&format!("`{shown}`{after}"));
    }
    text
}

fn last_index(system: &System) -> String {
    raw::get(system.vendor.address(), "/checkpoint").text().lines().nth(1).unwrap().to_owned()
}

#[test]
fn a_public_envelope_has_no_variants() {
    let system = System::running();
    let (vendor, supervisor) = (system.key("vendor", "recorder"), system.key("supervisor", "recorder"));
    let place = Place::vendor();
    let good = heartbeat_by(&place, &[&vendor, &supervisor]);
    let with = |key: &SignerKey| {
        let mut envelope = good.clone();
        envelope.merge(&Envelope::sign(good.payload().to_vec(), &[key]).unwrap()).unwrap();
        envelope.to_bytes()
    };
    // Nobody knows the witness's key as an organisation's.
    let unknown = with(&system.key("w1", "witness"));
    let stripped = |key: &SignerKey| Envelope::sign(good.payload().to_vec(), &[key]).unwrap().to_bytes();
    // The supervisor's signature is another's, under its name.
    let mut wrong = String::from_utf8(good.to_bytes()).unwrap();
    let name = KeyRef::of(supervisor.verifier());
    let at = wrong.find(&format!("{name}\",\"sig\":\"")).unwrap() + name.as_str().len() + 9;
    let other = if wrong[at..].starts_with('A') { "B" } else { "A" };
    wrong.replace_range(at..=at, other);
    let wrong = wrong.into_bytes();
    Envelope::parse(&wrong).unwrap();

    let unknown_key = KeyRef::of(system.key("w1", "witness").verifier()).to_string();
    let refusals = |system: &System| {
        assert_eq!(answer(system, &unknown), format!("403 entry-signer: the policy names no key `{unknown_key}`"));
        assert_eq!(answer(system, &wrong), format!("403 entry-signer: the signature by `{name}` does not verify"));
        assert_eq!(
            answer(system, &stripped(&supervisor)),
            "403 entry-signer: stream `test/vendor`: no key of `vendor` has signed it"
        );
    };
    refusals(&system);
    assert_eq!(answer(&system, &good.to_bytes()), "200 at 0");
    refusals(&system);
    insta::assert_snapshot!(answer(&system, &stripped(&vendor)), @"422 entry-position: stream `test/vendor`: number 0 of epoch 0 where number 1 of epoch 0 was due");
    let more = with(&system.key("vendor", "approver"));
    insta::assert_snapshot!(answer(&system, &more), @"422 entry-position: stream `test/vendor`: number 0 of epoch 0 where number 1 of epoch 0 was due");
    assert_eq!(answer(&system, &good.to_bytes()), "200 at 0");
    assert_eq!(last_index(&system), "1");
}

#[test]
fn only_the_next_place_is_free() {
    let mut system = System::running();
    // Another key than that of the entries taken in: within one second they would be the same bytes.
    let key = system.key("vendor", "approver");
    let start = Place::vendor();
    let at = |epoch, sequence, previous| Place { epoch, sequence, previous, ..Place::vendor() };
    let stray = heartbeat(&Place::supervisor(), &key).id();
    let refusals = |system: &System, places: &[Place]| -> String {
        let answers = places.iter().map(|place| answer(system, &heartbeat(place, &key).to_bytes()));
        answers.collect::<Vec<_>>().join("\n")
    };
    let places = [at(0, 1, None), at(1, 0, None), at(u64::MAX, u64::MAX, None), at(0, 0, Some(stray))];
    insta::assert_snapshot!(refusals(&system, &places), @r"
    422 entry-position: stream `test/vendor`: number 1 of epoch 0 where number 0 of epoch 0 was due
    422 entry-position: stream `test/vendor`: number 0 of epoch 1 where number 0 of epoch 0 was due
    422 entry-position: stream `test/vendor`: number 18446744073709551615 of epoch 18446744073709551615 where number 0 of epoch 0 was due
    422 entry-position: stream `test/vendor`: it names `ID` as the one before it, where no entry was due
    ");

    let first = system.beat(&start);
    let second_place = start.after(&first);
    let second = system.beat(&second_place);
    let (one, two) = (Some(first.id()), Some(second.id()));
    let places = [
        at(0, 3, two),
        at(0, u64::MAX, two),
        at(0, 1, one),
        at(0, 0, None),
        at(0, 2, one),
        at(0, 2, None),
        at(1, 0, one),
        at(1, 1, two),
        at(2, 0, two),
        at(u64::MAX, 0, two),
    ];
    let before = refusals(&system, &places);
    insta::assert_snapshot!(before, @r"
    422 entry-position: stream `test/vendor`: number 3 of epoch 0 where number 2 of epoch 0 was due
    422 entry-position: stream `test/vendor`: number 18446744073709551615 of epoch 0 where number 2 of epoch 0 was due
    422 entry-position: stream `test/vendor`: number 1 of epoch 0 where number 2 of epoch 0 was due
    422 entry-position: stream `test/vendor`: number 0 of epoch 0 where number 2 of epoch 0 was due
    422 entry-position: stream `test/vendor`: it names `ID` as the one before it, where `ID` was due
    422 entry-position: stream `test/vendor`: it names no entry as the one before it, where `ID` was due
    422 entry-position: stream `test/vendor`: it names `ID` as the one before it, where `ID` was due
    422 entry-position: stream `test/vendor`: number 1 of epoch 1 where number 0 of epoch 1 was due
    422 entry-position: stream `test/vendor`: number 0 of epoch 2 where number 0 of epoch 1 was due
    422 entry-position: stream `test/vendor`: number 0 of epoch 18446744073709551615 where number 0 of epoch 1 was due
    ");

    // A restart knows the ends again, and what was taken in keeps its place.
    assert_eq!(system.vendor.stop().code, 0);
    system.vendor.start();
    assert_eq!(refusals(&system, &places), before);
    assert_eq!(answer(&system, &first.to_bytes()), "200 at 0");
    assert_eq!(answer(&system, &second.to_bytes()), "200 at 1");

    // A new epoch names the old end; after it, the old epoch is over.
    let epoch = system.beat(&at(1, 0, two));
    insta::assert_snapshot!(refusals(&system, &[at(0, 2, two), at(1, 0, two)]), @r"
    422 entry-position: stream `test/vendor`: number 2 of epoch 0 where number 1 of epoch 1 was due
    422 entry-position: stream `test/vendor`: number 0 of epoch 1 where number 1 of epoch 1 was due
    ");
    system.beat(&at(1, 1, Some(epoch.id())));
    assert_eq!(answer(&system, &first.to_bytes()), "200 at 0");
    assert_eq!(last_index(&system), "4");
}

#[test]
fn what_is_signed_and_not_yet_published_has_its_place() {
    let mut system = System::running();
    let first = system.beat(&Place::vendor());
    let checkpoint = system.file("vendor/log/objects/checkpoint");
    let published = std::fs::read(&checkpoint).unwrap();
    let second = system.beat(&Place::vendor().after(&first));
    // As if the power had gone just before the second checkpoint was published, and then too few
    // witnesses were there to publish it.
    system.vendor.kill();
    durable::write(&checkpoint, &published).unwrap();
    for witness in &mut system.witnesses[..2] {
        witness.kill();
    }
    system.vendor.start();
    assert_eq!(last_index(&system), "1");
    let rival = Envelope::sign(second.payload().to_vec(), &[&system.key("vendor", "approver")]).unwrap();
    insta::assert_snapshot!(answer(&system, &rival.to_bytes()), @"422 entry-position: stream `test/vendor`: number 1 of epoch 0 where number 2 of epoch 0 was due");
    assert!(answer(&system, &second.to_bytes()).starts_with("503 not-witnessed"));

    // The witnesses are back, and the place is still the same.
    system.vendor.kill();
    for witness in &mut system.witnesses[..2] {
        witness.start();
    }
    system.vendor.start();
    assert!(answer(&system, &rival.to_bytes()).starts_with("422 entry-position"));
    let third = heartbeat(&Place::vendor().after(&first).after(&second), &system.key("vendor", "recorder"));
    let mut answered = answer(&system, &third.to_bytes());
    for _ in 0..20 {
        if answered.starts_with("200") {
            break;
        }
        // Each of these waits for the witnesses.
        answered = answer(&system, &third.to_bytes());
    }
    assert_eq!(answered, "200 at 2");
    assert_eq!(answer(&system, &second.to_bytes()), "200 at 1");
}
