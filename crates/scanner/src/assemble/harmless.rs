//! Samples in which there is nothing to find: a rule that fires on one of them fires on nothing in particular.

/// The samples, each with its name.
pub(super) fn samples() -> Vec<(&'static str, Vec<u8>)> {
    let text = "The quick brown fox jumps over the lazy dog. 0123456789\n".repeat(64);
    vec![
        ("empty", Vec::new()),
        ("newline", b"\n".to_vec()),
        ("text", text.clone().into_bytes()),
        ("wide-text", text.encode_utf16().flat_map(u16::to_le_bytes).collect()),
        ("zeros", vec![0; 64 << 10]),
        ("every-byte", (0..=u8::MAX).cycle().take(64 << 10).collect()),
        ("program", program()),
    ]
}

/// The smallest program of Windows that has the headers which rules ask first: `MZ`, `PE`, no code.
fn program() -> Vec<u8> {
    let mut bytes = vec![0; 1_024];
    let mut put = |at: usize, what: &[u8]| {
        if let Some(place) = bytes.get_mut(at..at + what.len()) {
            place.copy_from_slice(what);
        }
    };
    put(0, b"MZ");
    put(0x3c, &0x80_u32.to_le_bytes());
    put(0x80, b"PE\0\0");
    // COFF: i386, no sections, an optional header of 224 bytes, an executable.
    put(0x84, &0x014c_u16.to_le_bytes());
    put(0x94, &224_u16.to_le_bytes());
    put(0x96, &0x0102_u16.to_le_bytes());
    // Optional header: PE32, 16 directories.
    put(0x98, &0x010b_u16.to_le_bytes());
    put(0xf4, &16_u32.to_le_bytes());
    bytes
}
