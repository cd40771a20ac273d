//! Paths of tiles and bundles, and the bundles' content.

use proptest::{prop_assert_eq, proptest};
use tlog::{
    EntryBundleId, EntryIndex, MAX_BUNDLE_BYTES, MAX_ENTRY_BYTES, TileError, TileId, TreeSize, bundles_for_growth,
    decode_bundle, encode_bundle, tiles_for_growth,
};

#[test]
fn paths_are_those_of_the_specification() {
    for (tile, path) in [
        (TileId::new(0, 0, 256), "tile/0/000"),
        (TileId::new(0, 1_234_067, 256), "tile/0/x001/x234/067"),
        (TileId::new(1, 1000, 17), "tile/1/x001/000.p/17"),
        (TileId::new(7, 0, 255), "tile/7/000.p/255"),
        (TileId::new(0, u64::MAX / 256, 255), "tile/0/x072/x057/x594/x037/x927/935.p/255"),
    ] {
        let tile = tile.unwrap();
        assert_eq!(tile.path(), path);
        assert_eq!(path.parse::<TileId>().unwrap(), tile);
    }
    let bundle = EntryBundleId::new(1_234_067, 3).unwrap();
    assert_eq!(bundle.path(), "tile/entries/x001/x234/067.p/3");
    assert_eq!(bundle.path().parse::<EntryBundleId>().unwrap(), bundle);
}

#[test]
fn one_tile_has_one_path() {
    for path in [
        "",
        "tile",
        "tile/0",
        "tile/0/",
        "/tile/0/000",
        "tile/0/0",
        "tile/0/00",
        "tile/0/0000",
        "tile/00/000",
        "tile/0/x000/001",
        "tile/0/001/002",
        "tile/0/x001",
        "tile/0/X001/002",
        "tile/0/000/",
        "tile/0/000.p/0",
        "tile/0/000.p/256",
        "tile/0/000.p/07",
        "tile/0/000.p/",
        "tile/0/000.p/5.p/5",
        "tile/0/+01",
        "tile/8/000",
        "tile/63/000",
        "tile/256/000",
        "tile/-1/000",
        "tile/0/x999/x999/x999/x999/x999/x999/999",
        "tile/7/000",
        "tile/7/001.p/1",
        "tile/0/x072/x057/x594/x037/x927/935",
        "tile/0/../000",
        "tile/entries/000",
    ] {
        assert!(path.parse::<TileId>().is_err(), "{path}");
    }
    for path in ["tile/entries/", "tile/entries/000.p/256", "tile/0/000", "tile/entries/x000/000", "entries/000"] {
        assert!(path.parse::<EntryBundleId>().is_err(), "{path}");
    }
    for (level, index, width) in [(0, 0, 0), (0, 0, 257), (8, 0, 1), (7, 0, 256), (7, u64::MAX, 1), (0, u64::MAX, 1)] {
        assert_eq!(TileId::new(level, index, width), Err(TileError::Impossible { level, index, width }));
    }
}

#[test]
fn widths_are_those_of_the_specifications_example() {
    let size = TreeSize::new(70_000);
    let tiles: Vec<_> = tiles_for_growth(TreeSize::ZERO..size).collect();
    let of_level = |level| tiles.iter().filter(move |tile| tile.level() == level);
    assert_eq!(of_level(0).filter(|tile| tile.is_full()).count(), 273);
    assert_eq!(of_level(0).next_back().unwrap().width(), 112);
    assert_eq!(of_level(1).map(|tile| tile.width()).collect::<Vec<_>>(), [256, 17]);
    assert_eq!(of_level(2).map(|tile| tile.width()).collect::<Vec<_>>(), [1]);
    let small: Vec<_> = tiles_for_growth(TreeSize::ZERO..TreeSize::new(256)).map(TileId::path).collect();
    assert_eq!(small, ["tile/0/000", "tile/1/000.p/1"]);
    assert_eq!(tiles_for_growth(size..size).count(), 0);
    assert_eq!(tiles_for_growth(size..TreeSize::ZERO).count(), 0);
    let bundles: Vec<_> = bundles_for_growth(TreeSize::new(255)..TreeSize::new(258)).map(EntryBundleId::path).collect();
    assert_eq!(bundles, ["tile/entries/000", "tile/entries/001.p/2"]);
    assert_eq!(
        EntryBundleId::of_entry(EntryIndex::new(257), TreeSize::new(258)).unwrap().path(),
        "tile/entries/001.p/2"
    );
    assert_eq!(EntryBundleId::of_entry(EntryIndex::new(258), TreeSize::new(258)), None);
    assert_eq!(EntryBundleId::of_entry(EntryIndex::new(u64::MAX), TreeSize::new(u64::MAX)), None);
}

#[test]
fn bundles_hold_exactly_their_entries() {
    let entries: [&[u8]; 3] = [b"one", b"", b"three"];
    let bytes = encode_bundle(&entries).unwrap();
    assert_eq!(bytes, b"\0\x03one\0\0\0\x05three");
    let id = |width| EntryBundleId::new(0, width).unwrap();
    assert_eq!(decode_bundle(id(3), &bytes).unwrap(), entries);
    assert_eq!(decode_bundle(id(4), &bytes), Err(TileError::Entries { expected: 4, found: 3 }));
    assert_eq!(decode_bundle(id(2), &bytes), Err(TileError::Bundle(7)));
    assert_eq!(decode_bundle(id(3), &bytes[..13]), Err(TileError::Bundle(7)));
    assert_eq!(decode_bundle(id(4), &[&bytes[..], &[0]].concat()), Err(TileError::Bundle(14)));
    let largest = vec![0; MAX_ENTRY_BYTES];
    assert_eq!(encode_bundle(&vec![&largest; 256]).unwrap().len(), MAX_BUNDLE_BYTES);
    assert_eq!(encode_bundle(&[vec![0; MAX_ENTRY_BYTES + 1]]), Err(TileError::EntryTooLarge(65_536)));
    assert!(encode_bundle::<&[u8]>(&[]).is_err());
    assert!(encode_bundle(&[b""; 257]).is_err());
}

proptest! {
    #[test]
    fn every_tile_has_a_path_and_its_entries(level in 0_u8..9, index: u64, shift in 0_u32..64, width in 0_u16..300) {
        if let Ok(tile) = TileId::new(level, index >> shift, width) {
            prop_assert_eq!(tile.path().parse::<TileId>(), Ok(tile));
            let entries = tile.entries();
            prop_assert_eq!(entries.end.get() - entries.start.get(), u64::from(width) << (8 * level));
            prop_assert_eq!(TileId::in_tree(level, tile.index(), TreeSize::new(entries.end.get())), Some(tile));
        }
    }

    #[test]
    fn what_is_read_is_written_back(path in "tile/(entries|[0-9]{1,2})/(x?[0-9]{3}/){0,3}[0-9]{3}(\\.p/[0-9]{1,3})?") {
        if let Ok(tile) = path.parse::<TileId>() {
            prop_assert_eq!(tile.path(), path.clone());
        }
        if let Ok(bundle) = path.parse::<EntryBundleId>() {
            prop_assert_eq!(bundle.path(), path);
        }
    }

    #[test]
    fn foreign_bundles_never_panic(bytes: Vec<u8>, width in 1_u16..=256) {
        if let Ok(entries) = decode_bundle(EntryBundleId::new(0, width).unwrap(), &bytes) {
            prop_assert_eq!(encode_bundle(&entries).unwrap(), bytes);
        }
    }
}
