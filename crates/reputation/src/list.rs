//! Lists of hashes, as people and feeds write them.

use stdx::Digest;

/// Why a list is refused, and where.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("line {line}: `{text}` is not a SHA-256 in 64 lower-case hexadecimal digits")]
pub struct ListError {
    /// The line, counted from 1.
    pub line: usize,
    /// Its beginning.
    pub text: String,
}

/// More of a wrong line helps nobody.
const SHOWN_CHARS_MAX: usize = 80;

/// The hashes of a list: one a line, in any order; empty lines and those that begin with `#` say
/// nothing. Lines may end in CRLF. The caller bounds the list's length.
///
/// # Errors
/// [`ListError`] for the first line that is anything else: a feed that has changed its form must not
/// quietly become an empty one.
pub fn parse_list(bytes: &[u8]) -> Result<Vec<Digest>, ListError> {
    let lines = bytes.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let lines = lines.enumerate().filter(|(_, line)| !line.is_empty() && !line.starts_with(b"#"));
    lines
        .map(|(at, line)| {
            let digest = std::str::from_utf8(line).ok().and_then(|text| text.parse().ok());
            digest.ok_or_else(|| ListError {
                line: at + 1,
                text: String::from_utf8_lossy(line).chars().take(SHOWN_CHARS_MAX).collect(),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::parse_list;
    use stdx::Digest;

    #[test]
    fn a_list_is_hashes_comments_and_nothing_else() {
        let hash = Digest::of(b"a");
        assert_eq!(parse_list(format!("# feed\r\n\r\n{hash}\r\n{hash}\n").as_bytes()), Ok(vec![hash, hash]));
        assert_eq!(parse_list(b""), Ok(Vec::new()));
        let error = parse_list(format!("{hash}\n{}\n", hash.to_string().to_uppercase()).as_bytes());
        assert_eq!(error.map_err(|error| error.line), Err(2));
        assert!(parse_list(format!("{hash} evil.exe").as_bytes()).is_err(), "no second column");
    }
}
