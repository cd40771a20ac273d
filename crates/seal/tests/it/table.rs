//! Rows of a custodian's own table.

use seal::{DataKey, Sealed, TableKey};
use stdx::{Digest, SystemEntropy};

use crate::scene::Scene;

#[test]
fn a_row_opens_in_its_place_under_its_name_with_its_tables_key_alone() {
    let scene = Scene::new(&SystemEntropy);
    let object = scene.seal(b"telemetry");
    let shares = scene.shares(&object);
    let table = TableKey::generate(&SystemEntropy).unwrap();
    let (name, other) = (Digest::of(b"name"), Digest::of(b"other"));
    let row = table.close(&shares[0], 7, &name);
    let moved = TableKey::from_text(&table.to_text()).unwrap().open(&row, 7, &name).unwrap();
    assert_eq!(Sealed::read(&object, &DataKey::join([&moved, &shares[1]])).unwrap(), b"telemetry");
    assert!(table.open(&row, 8, &name).is_none() && table.open(&row, 7, &other).is_none());
    assert!(TableKey::generate(&SystemEntropy).unwrap().open(&row, 7, &name).is_none());
    assert!(TableKey::from_text("p256:AAAA").is_err());
    let mut flipped = row;
    flipped[0] ^= 1;
    assert!(table.open(&flipped, 7, &name).is_none());
}
