//! A batch on its way into the tree, as one object: all that will be written, and nothing that
//! must still be computed.
//!
//! ```text
//! "clerestory-staged/1\n"
//! for each object:  u16be key length, key, u32be length, bytes
//! SHA-256 of all before
//! ```

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use stdx::Digest;
use storage::Key;

const MAGIC: &[u8] = b"clerestory-staged/1\n";
const DIGEST_BYTES: usize = 32;

/// Puts the objects of a batch into one.
pub(crate) fn encode(objects: &[(Key, Bytes)]) -> Bytes {
    let size: usize = objects.iter().map(|(key, bytes)| 6 + key.as_str().len() + bytes.len()).sum();
    let mut staged = BytesMut::with_capacity(MAGIC.len() + size + DIGEST_BYTES);
    staged.put_slice(MAGIC);
    for (key, bytes) in objects {
        let key_length = u16::try_from(key.as_str().len()).expect("a key has at most 512 bytes");
        let length = u32::try_from(bytes.len()).expect("a tile or bundle has under 17 MB");
        staged.put_u16(key_length);
        staged.put_slice(key.as_str().as_bytes());
        staged.put_u32(length);
        staged.put_slice(bytes);
    }
    let digest = Digest::of(&staged);
    staged.put_slice(digest.as_bytes());
    staged.freeze()
}

/// Takes them apart again; `None` for anything that [`encode`] didn't write.
pub(crate) fn decode(mut staged: Bytes) -> Option<Vec<(Key, Bytes)>> {
    let digest = staged.split_off(staged.len().checked_sub(DIGEST_BYTES)?);
    if Digest::of(&staged).as_bytes() != digest.as_ref() || !staged.starts_with(MAGIC) {
        return None;
    }
    staged.advance(MAGIC.len());
    let mut objects = Vec::new();
    while !staged.is_empty() {
        let length = usize::from(staged.try_get_u16().ok()?);
        let key = split(&mut staged, length)?;
        let key = std::str::from_utf8(&key).ok()?.parse().ok()?;
        let length = usize::try_from(staged.try_get_u32().ok()?).ok()?;
        objects.push((key, split(&mut staged, length)?));
    }
    Some(objects)
}

fn split(bytes: &mut Bytes, length: usize) -> Option<Bytes> {
    (length <= bytes.len()).then(|| bytes.split_to(length))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{any, prop, proptest};

    fn objects() -> Vec<(Key, Bytes)> {
        let key = |text: &str| text.parse().unwrap();
        vec![(key("tile/0/000.p/1"), Bytes::from_static(b"abc")), (key("empty"), Bytes::new())]
    }

    #[test]
    fn what_is_staged_is_read_back() {
        assert_eq!(decode(encode(&objects())).unwrap(), objects());
        assert_eq!(decode(encode(&[])).unwrap(), []);
    }

    #[test]
    fn every_flipped_bit_is_seen() {
        let whole = encode(&objects());
        for bit in 0..whole.len() * 8 {
            let mut flipped = whole.to_vec();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(flipped.into()).is_none());
        }
        for length in 0..whole.len() {
            assert!(decode(whole.slice(..length)).is_none());
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut staged = MAGIC.to_vec();
            staged.extend(bytes);
            let digest = Digest::of(&staged);
            staged.extend(digest.as_bytes());
            let _ = decode(staged.into());
        }
    }
}
