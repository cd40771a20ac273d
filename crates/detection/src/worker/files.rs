//! A tree's files in one descriptor: each path and content behind its length, 32 bits, big-endian.

use super::wire::WireError;

/// A file of a tree of rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RulesFile {
    /// Its path in the tree, with `/`.
    pub path: String,
    /// Its content.
    pub bytes: Vec<u8>,
}

/// The rules of 740 real files have 5 MB.
pub(crate) const FILES_BYTES_MAX: usize = 256 << 20;

/// Some 140 times of what real trees have.
const FILES_MAX: usize = 100_000;

/// What [`decode_files`] reads.
///
/// # Errors
/// If it would be larger than is ever sent.
pub fn encode_files(files: &[RulesFile]) -> Result<Vec<u8>, WireError> {
    let mut encoded = Vec::new();
    for file in files {
        for part in [file.path.as_bytes(), &file.bytes] {
            let length = u32::try_from(part.len()).map_err(|_| WireError::TooLong)?;
            encoded.extend(length.to_be_bytes());
            encoded.extend_from_slice(part);
        }
        if encoded.len() > FILES_BYTES_MAX {
            return Err(WireError::TooLong);
        }
    }
    if files.len() > FILES_MAX { Err(WireError::TooLong) } else { Ok(encoded) }
}

/// The files in `encoded`.
///
/// # Errors
/// If it is nothing that [`encode_files`] writes.
pub fn decode_files(mut encoded: &[u8]) -> Result<Vec<RulesFile>, WireError> {
    let mut files = Vec::new();
    while !encoded.is_empty() {
        let path = part(&mut encoded).ok_or(WireError::Malformed)?;
        let path = str::from_utf8(path).map_err(|_| WireError::Malformed)?.to_owned();
        let bytes = part(&mut encoded).ok_or(WireError::Malformed)?.to_vec();
        files.push(RulesFile { path, bytes });
        if files.len() > FILES_MAX {
            return Err(WireError::TooLong);
        }
    }
    Ok(files)
}

fn part<'a>(encoded: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, rest) = encoded.split_first_chunk::<4>()?;
    let (part, rest) = rest.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)?;
    *encoded = rest;
    Some(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_come_back_and_nothing_else_is_read() {
        let files = vec![
            RulesFile { path: "a/b.yar".to_owned(), bytes: b"rule a { condition: true }".to_vec() },
            RulesFile { path: "empty".to_owned(), bytes: Vec::new() },
        ];
        let encoded = encode_files(&files).unwrap();
        assert_eq!(decode_files(&encoded).unwrap(), files);
        assert_eq!(decode_files(&[]).unwrap(), []);
        for cut in 1..encoded.len() {
            if let Ok(some) = decode_files(&encoded[..cut]) {
                assert_eq!(some, files[..1], "only a whole file may stand before the cut");
            }
        }
        assert!(decode_files(&[0, 0, 0, 1, 0xff, 0, 0, 0, 0]).is_err(), "a path that is no text");
    }
}
