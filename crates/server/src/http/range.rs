//! One range of bytes (RFC 9110, section 14); several at once are nobody's need here.

use std::ops::Range;

use axum::body::Bytes;
use axum::response::{IntoResponse as _, Response};
use http::{HeaderMap, HeaderValue, StatusCode, header};

use crate::http::error::{Code, HttpError};

/// The range that is asked for, if one is; its end may lie behind the object's.
///
/// # Errors
/// [`Code::Range`] when it is no single range.
pub(crate) fn asked(headers: &HeaderMap) -> Result<Option<Range<u64>>, HttpError> {
    let Some(range) = headers.get(header::RANGE) else { return Ok(None) };
    let range = range.to_str().ok().and_then(range_of);
    range.map(Some).ok_or_else(|| HttpError::new(Code::Range, "this is no single range of bytes"))
}

/// Says which piece of an object of `size` bytes a response has.
pub(crate) fn mark(response: &mut Response, given: &Range<u64>, size: u64) {
    let range = format!("bytes {}-{}/{size}", given.start, given.end.saturating_sub(1));
    response.headers_mut().extend(HeaderValue::from_str(&range).map(|range| (header::CONTENT_RANGE, range)));
    *response.status_mut() = StatusCode::PARTIAL_CONTENT;
}

/// What is asked for of a small object.
///
/// # Errors
/// [`Code::Range`] when it begins behind the end.
pub(crate) fn piece(name: &str, bytes: &Bytes, headers: &HeaderMap) -> Result<Response, HttpError> {
    let Some(wanted) = asked(headers)? else { return Ok(bytes.clone().into_response()) };
    let size = bytes.len() as u64;
    if wanted.start >= size {
        return Err(HttpError::new(Code::Range, format!("`{name}` has {size} bytes")));
    }
    let given = wanted.start..wanted.end.min(size);
    let place = |at: u64| usize::try_from(at).unwrap_or(bytes.len());
    let mut response = bytes.slice(place(given.start)..place(given.end)).into_response();
    mark(&mut response, &given, size);
    Ok(response)
}

/// `bytes=FIRST-LAST` or `bytes=FIRST-`.
fn range_of(text: &str) -> Option<Range<u64>> {
    let (first, last) = text.strip_prefix("bytes=")?.split_once('-')?;
    let first = first.parse().ok()?;
    let end = if last.is_empty() { u64::MAX } else { last.parse::<u64>().ok()?.checked_add(1)? };
    (first < end).then_some(first..end)
}

#[cfg(test)]
mod tests {
    use super::range_of;

    #[test]
    fn one_range_is_read_and_nothing_else() {
        assert_eq!(range_of("bytes=0-0"), Some(0..1));
        assert_eq!(range_of("bytes=7-"), Some(7..u64::MAX));
        for bad in [
            "",
            "bytes",
            "bytes=",
            "bytes=-5",
            "bytes=5-4",
            "bytes=0-1,3-4",
            "lines=0-1",
            "bytes=0-18446744073709551615",
        ] {
            assert_eq!(range_of(bad), None, "{bad}");
        }
    }
}
