//! The two encodings that all formats here share, in their one accepted form.

use base64::Engine as _;
use base64::display::Base64Display;
use base64::engine::GeneralPurpose;
use base64::engine::general_purpose::STANDARD;

/// Decodes padded standard base64 (RFC 4648, section 4). Other paddings, other alphabets and
/// trailing bits that are not zero are refused, so that each value has one spelling.
pub(crate) fn base64_decode(text: &str) -> Option<Vec<u8>> {
    STANDARD.decode(text).ok()
}

/// Decodes exactly `N` bytes without allocating.
pub(crate) fn base64_decode_array<const N: usize>(text: &str) -> Option<[u8; N]> {
    // decode_slice wants room for its own upper estimate, which exceeds N by up to 2.
    let mut buffer = [0; 128];
    if text.len() > 128 {
        return None;
    }
    let length = STANDARD.decode_slice(text, &mut buffer).ok()?;
    buffer.get(..length)?.try_into().ok()
}

pub(crate) fn base64_encode(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// The same, to be written into another text: a proof has some twenty of them.
pub(crate) fn base64_display(bytes: &[u8]) -> Base64Display<'_, 'static, GeneralPurpose> {
    Base64Display::new(bytes, &STANDARD)
}

/// Reads an ASCII decimal without sign, without leading zeroes, within 64 bits.
pub(crate) fn decimal(text: &str) -> Option<u64> {
    let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !plain || (text.starts_with('0') && text.len() > 1) {
        return None;
    }
    text.parse().ok()
}

/// The beginning of a text from outside, for an error message.
pub(crate) fn excerpt(text: &str) -> String {
    text.chars().take(80).collect()
}
