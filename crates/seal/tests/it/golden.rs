//! The format's bytes: `docs/formats/seal.md` prints this digest, and it changes only with the format.

use seal::{Header, Sealed};
use stdx::Digest;

use crate::scene::{Counting, Scene, bound};

#[test]
fn an_object_has_these_bytes() {
    let entropy = Counting::new();
    let scene = Scene::new(&entropy);
    let object = scene.custodians.seal(bound("detections", &entropy), b"one event\n", &entropy).unwrap();
    assert_eq!(Sealed::read(&object, &scene.key(&object)).unwrap(), b"one event\n");
    let (header, start) = Header::parse(&object).unwrap();
    assert_eq!(header.bound.id.to_string(), GOLDEN_ID);
    let seen = (object.len(), object.len() - start, Digest::of(&object).to_string());
    assert_eq!(seen, (GOLDEN_BYTES, 26, GOLDEN_SHA256.to_owned()));
}

const GOLDEN_ID: &str = "cd04a4754498e06db5a13c5f371f1f04";
const GOLDEN_BYTES: usize = 2355;
const GOLDEN_SHA256: &str = "0d8c95aa9cf5da6c35a0aaf341111fe0ee02b120acba1ca67d4529ce899309f1";
