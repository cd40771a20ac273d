//! Frames: 64 KiB of plaintext each, so that any part can be read without the rest, and none can be
//! moved, dropped, doubled or cut off (the STREAM construction: place and end are in the nonce).

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use stdx::Digest;
use zeroize::Zeroizing;

/// Plaintext bytes of every frame but the last.
pub const FRAME_BYTES: usize = 64 << 10;

/// What a frame is longer than its plaintext.
pub(crate) const TAG_BYTES: usize = 16;

/// A frame's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// 0, 1, 2 …
    pub number: u64,
    /// How many the object has.
    pub of: u64,
}

impl Frame {
    /// How many frames hold `plaintext` bytes; an empty object has one, so that it has an end too.
    pub(crate) const fn count(plaintext: u64) -> u64 {
        let full = plaintext.div_ceil(FRAME_BYTES as u64);
        if full == 0 { 1 } else { full }
    }

    /// Its number, and whether it is the last: a nonce is never used twice under one key.
    fn nonce(self) -> Nonce {
        let mut nonce = [0; 12];
        let [.., last] = &mut nonce;
        *last = u8::from(self.number + 1 == self.of);
        for (byte, digit) in nonce.iter_mut().zip(self.number.to_be_bytes()) {
            *byte = digit;
        }
        Nonce::assume_unique_for_key(nonce)
    }
}

/// Opens and closes the frames of one object.
pub(crate) struct Frames {
    cipher: LessSafeKey,
    header: Digest,
}

impl Frames {
    pub(crate) fn new(key: &Zeroizing<[u8; 32]>, header: Digest) -> Self {
        let key = UnboundKey::new(&AES_256_GCM, &**key).expect("AES-256 has keys of 32 bytes");
        Self { cipher: LessSafeKey::new(key), header }
    }

    /// Appends a frame: `part` encrypted, and its tag.
    pub(crate) fn close(&self, frame: Frame, part: &[u8], object: &mut Vec<u8>) {
        let start = object.len();
        object.extend_from_slice(part);
        let (_, part) = object.split_at_mut(start);
        let tag = self.cipher.seal_in_place_separate_tag(frame.nonce(), Aad::from(self.header.as_bytes()), part);
        object.extend_from_slice(tag.expect("a frame is far below AES-GCM's limit").as_ref());
    }

    /// Appends what a frame holds; false, and nothing is appended, if it is not this frame of this object.
    #[must_use]
    pub(crate) fn open(&self, frame: Frame, bytes: &[u8], plaintext: &mut Vec<u8>) -> bool {
        let start = plaintext.len();
        plaintext.extend_from_slice(bytes);
        let (_, part) = plaintext.split_at_mut(start);
        let opened = self.cipher.open_in_place(frame.nonce(), Aad::from(self.header.as_bytes()), part);
        let length = opened.as_ref().map_or(0, |part| part.len());
        let is_good = opened.is_ok();
        plaintext.truncate(start + length);
        is_good
    }
}
