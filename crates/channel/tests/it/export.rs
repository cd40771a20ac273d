//! The one-file form.

use attest::Ring;
use channel::{Error, Export, ExportError, ExportRequest, write_export};
use proptest::prelude::{any, proptest};
use testkit::{OTHER_PRODUCT, PRODUCT};

use crate::vendor::Vendor;

fn exported() -> Vec<u8> {
    let mut vendor = Vendor::new();
    vendor.publish(PRODUCT, b"old").1.unwrap();
    vendor.publish(PRODUCT, b"new").1.unwrap();
    vendor.publish(OTHER_PRODUCT, b"other").1.unwrap();
    let (status, bundle) = vendor.status();
    vendor.channel.publish_status(&status, &bundle).unwrap();
    let products = [PRODUCT.parse().unwrap(), OTHER_PRODUCT.parse().unwrap()];
    let mut bytes = Vec::new();
    write_export(&vendor.channel, &ExportRequest { products: &products, ring: Ring::All }, &mut bytes).unwrap();
    bytes
}

/// Everything in an export, or why it is refused.
fn read(bytes: &[u8]) -> Result<Vec<(String, Vec<u8>)>, ExportError> {
    let mut export = Export::open(bytes)?;
    let mut members = Vec::new();
    while let Some((member, content)) = export.read_next(1 << 20)? {
        members.push((member.path, content));
    }
    export.finish()?;
    Ok(members)
}

#[test]
fn the_newest_releases_come_with_their_evidence_first() {
    let members = read(&exported()).unwrap();
    let names: Vec<_> = members.iter().map(|(path, _)| path.as_str()).collect();
    assert_eq!(
        names,
        [
            "status/slow.bundle",
            "products/libexample/2/bundle",
            "products/libexample/2/0-a_file_1.bin",
            "products/other/1/bundle",
            "products/other/1/0-a_file_1.bin",
        ]
    );
    assert_eq!((&members[2].1[..], &members[4].1[..]), (&b"new"[..], &b"other"[..]));
}

#[test]
fn a_product_without_a_release_is_named() {
    let vendor = Vendor::new();
    let products = [PRODUCT.parse().unwrap()];
    let request = ExportRequest { products: &products, ring: Ring::All };
    let refused = write_export(&vendor.channel, &request, &mut Vec::new());
    assert!(matches!(refused, Err(Error::NoRelease(product)) if product == PRODUCT));
}

#[test]
fn damaged_exports_are_refused() {
    let good = exported();
    read(&good).unwrap();
    for length in 0..good.len() {
        assert!(read(&good[..length]).is_err(), "{length} bytes");
    }
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 1 << (at % 8);
        // A flipped bit in a path names another file, which the importer will not expect.
        let same_bytes = read(&bad).is_ok_and(|members| {
            let good = read(&good).unwrap();
            members.len() == good.len() && members.iter().zip(&good).all(|(bad, good)| bad.1 == good.1)
        });
        assert!(read(&bad).is_err() || same_bytes, "byte {at}");
    }
    assert!(matches!(read(&[&good[..], b"x"].concat()), Err(ExportError::Trailing)));
    let text = String::from_utf8_lossy(&good).into_owned();
    let long = text.replacen("\"size\":3", "\"size\":9000000000", 1);
    assert!(matches!(read(long.as_bytes()), Err(ExportError::TooLong { .. })));
    // All bytes of the last member are there, and it says that there are more.
    let (members, end) = text.rsplit_once("\"size\":").unwrap();
    let (size, end) = end.split_once(',').unwrap();
    let longer = format!("{members}\"size\":{},{end}", size.parse::<u64>().unwrap() + 1);
    assert!(matches!(read(longer.as_bytes()), Err(ExportError::Read(_))));
    let mut endless = b"clerestory-export/v1\n".to_vec();
    endless.resize(2 << 20, b' ');
    assert!(matches!(read(&endless), Err(ExportError::Header(_))));
}

#[test]
fn a_member_is_read_up_to_the_callers_limit_and_may_be_skipped() {
    let bytes = exported();
    let mut export = Export::open(&bytes[..]).unwrap();
    assert!(matches!(export.read_next(10), Err(ExportError::TooLong { .. })));
    let count = export.ahead().len();
    export.skip_next().unwrap();
    assert_eq!(export.ahead().len(), count - 1);
    assert!(matches!(export.finish(), Err(ExportError::Trailing)));
}

proptest! {
    #[test]
    fn nothing_from_outside_panics(tail in any::<Vec<u8>>()) {
        let _ = read(&tail);
        let _ = read(&[b"clerestory-export/v1\n{\"members\":[", &tail[..]].concat());
    }
}
