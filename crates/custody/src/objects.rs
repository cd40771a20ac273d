//! The objects that an intent names, by one hash.

use seal::Header;
use stdx::Digest;

use crate::refusal::Refusal;

/// A grant's headers are 10 MB at most.
pub const OBJECTS_MAX: usize = 4096;

/// The root of a Merkle tree (RFC 6962) over the SHA-256 of each header, in this order, which must be that of
/// the objects' names.
///
/// # Errors
/// [`Refusal::Objects`] when there are none or too many, or they are in another order, or one stands twice.
pub fn objects_root(headers: &[Header]) -> Result<Digest, Refusal> {
    if headers.is_empty() || headers.len() > OBJECTS_MAX {
        return Err(Refusal::Objects(format!("{}; there must be 1 to {OBJECTS_MAX}", headers.len())));
    }
    if !headers.is_sorted_by(|left, right| left.bound.id < right.bound.id) {
        return Err(Refusal::Objects("they are not ascending by name".to_owned()));
    }
    Ok(attest::objects_root(headers.iter().map(|header| Digest::of(&header.to_bytes()))))
}
