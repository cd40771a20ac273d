//! Frames: 64 KiB of plaintext each, so that any part can be read without the rest, and none can be
//! moved, dropped, doubled or cut off (the STREAM construction: place and end are in the nonce).

use aes_gcm::aead::{AeadInOut as _, KeyInit as _};
use aes_gcm::{Aes256Gcm, Nonce};
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
    fn nonce(self) -> Nonce<aes_gcm::aead::consts::U12> {
        let mut nonce = [0; 12];
        let [.., last] = &mut nonce;
        *last = u8::from(self.number + 1 == self.of);
        for (byte, digit) in nonce.iter_mut().zip(self.number.to_be_bytes()) {
            *byte = digit;
        }
        nonce.into()
    }
}

/// Opens and closes the frames of one object.
pub(crate) struct Frames {
    cipher: Aes256Gcm,
    header: Digest,
}

impl Frames {
    pub(crate) fn new(key: &Zeroizing<[u8; 32]>, header: Digest) -> Self {
        Self { cipher: Aes256Gcm::new((&**key).into()), header }
    }

    /// Encrypts `buffer` and puts the tag behind it.
    pub(crate) fn close(&self, frame: Frame, buffer: &mut Vec<u8>) {
        self.cipher
            .encrypt_in_place(&frame.nonce(), self.header.as_bytes(), buffer)
            .expect("a frame is far below AES-GCM's limit");
    }

    /// Checks and decrypts `buffer`; false if it is not this frame of this object.
    #[must_use]
    pub(crate) fn open(&self, frame: Frame, buffer: &mut Vec<u8>) -> bool {
        self.cipher.decrypt_in_place(&frame.nonce(), self.header.as_bytes(), buffer).is_ok()
    }
}
