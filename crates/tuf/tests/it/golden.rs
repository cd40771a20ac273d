//! The bytes of every file of a small repository. They change only with the format: a test that
//! fails here means that published metadata would change too.

use tuf::{Metadata, Repository};

use crate::world::{Keys, NOW, PRODUCT, SUITE, World, first_change, online, path, product, role};

const GOLDEN: [(&str, &[u8]); 6] = [
    ("metadata/1.root.json", include_bytes!("golden/1.root.json")),
    ("metadata/1.targets.json", include_bytes!("golden/1.targets.json")),
    ("metadata/1.products.json", include_bytes!("golden/1.products.json")),
    ("metadata/1.rules.json", include_bytes!("golden/1.rules.json")),
    ("metadata/1.snapshot.json", include_bytes!("golden/1.snapshot.json")),
    ("metadata/timestamp.json", include_bytes!("golden/timestamp.json")),
];

#[test]
fn the_builder_writes_the_golden_bytes() {
    let keys = Keys::new();
    let (_, files) = Repository::create(first_change(&keys), online(&keys.online()), &SUITE, NOW).unwrap();
    for (name, bytes) in GOLDEN {
        let file = files.iter().find(|file| file.location.to_string() == name).unwrap();
        assert_eq!(String::from_utf8_lossy(&file.bytes), String::from_utf8_lossy(bytes), "{name}");
    }
}

#[test]
fn the_client_reads_the_golden_bytes() {
    let world = World::new();
    for (name, bytes) in GOLDEN {
        world.network.put(name, bytes);
    }
    let trusted = world.refresh().unwrap();
    let target = trusted.find(&path(PRODUCT)).unwrap();
    assert_eq!(trusted.fetch(&target).unwrap(), product(1));
    let products = trusted.delegated(&role("products")).unwrap();
    assert_eq!(products.bytes(), GOLDEN[2].1);
}

#[test]
fn no_bit_of_the_golden_root_can_change() {
    let (_, bytes) = GOLDEN[0];
    let store = tuf::MemoryStore::default();
    let client = tuf::Client::new(&store, &SUITE, tuf::Limits::default());
    let original = Metadata::<tuf::Root>::parse("root.json", bytes.to_vec()).unwrap();
    for position in 0..bytes.len() {
        let mut changed = bytes.to_vec();
        changed[position] ^= 1;
        // Each of the two signatures is needed; only their order in the text means nothing.
        if client.create(&changed).is_ok() {
            panic!("byte {position} of version {}", original.version());
        }
    }
}
