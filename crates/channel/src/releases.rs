//! The list of a product's releases: a look-up aid. What it says is believed by nobody; an
//! endpoint takes from it only what to ask for first.

use attest::{Lane, ProductId, ReleaseNumber, Ring, TYPE_BASE};
use serde::{Deserialize, Serialize};

const TYPE: &str = "releases/v1";

/// About 60 bytes for each of the 34 releases that are kept at most, and long versions.
pub const RELEASES_BYTES_MAX: usize = 16 << 10;

/// Endpoints of all rings find theirs among these, and metadata stays small: at 400 bytes for each
/// target, 32 releases of four files take 64 KB.
pub(crate) const RETAINED: usize = 32;

/// Rules change many times an hour, and every endpoint fetches their metadata each time: it gets
/// the newest of its ring, or the one before where that can't be used here.
const RETAINED_FAST: usize = 2;

/// The releases of a product that the channel offers, ascending.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Releases {
    #[serde(rename = "type")]
    list_type: String,
    product: ProductId,
    lane: Lane,
    releases: Vec<Listed>,
}

/// What the list says of a release.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listed {
    /// Its number.
    pub number: ReleaseNumber,
    /// Its version, for people.
    pub version: String,
    /// How far it has come.
    pub ring: Ring,
}

/// Why bytes are not a list of releases.
#[derive(Debug, thiserror::Error)]
pub enum ReleasesError {
    /// Too long.
    #[error("the list of releases has {0} bytes; at most {RELEASES_BYTES_MAX} are read")]
    TooLong(usize),
    /// Not JSON of the list's shape.
    #[error("not a list of releases: {0}")]
    Syntax(String),
    /// Another encoding, type or order.
    #[error("the list of releases is not in canonical form")]
    NotCanonical,
}

impl Releases {
    /// An empty list.
    #[must_use]
    pub fn new(product: ProductId, lane: Lane) -> Self {
        Self { list_type: format!("{TYPE_BASE}{TYPE}"), product, lane, releases: Vec::new() }
    }

    /// Reads a list in canonical form.
    ///
    /// # Errors
    /// [`ReleasesError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, ReleasesError> {
        if bytes.len() > RELEASES_BYTES_MAX {
            return Err(ReleasesError::TooLong(bytes.len()));
        }
        let list: Self = serde_json::from_slice(bytes).map_err(|error| ReleasesError::Syntax(error.to_string()))?;
        let ascending = list.releases.is_sorted_by(|left, right| left.number < right.number);
        if !ascending || list.list_type != format!("{TYPE_BASE}{TYPE}") || list.to_bytes() != bytes {
            return Err(ReleasesError::NotCanonical);
        }
        Ok(list)
    }

    /// The canonical encoding.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("strings and integers are always JSON")
    }

    /// The product.
    #[must_use]
    pub const fn product(&self) -> &ProductId {
        &self.product
    }

    /// The releases, ascending by number.
    #[must_use]
    pub fn releases(&self) -> &[Listed] {
        &self.releases
    }

    /// Enters a release in place of what was said of it.
    pub(crate) fn enter(&mut self, listed: Listed) {
        match self.releases.binary_search_by_key(&listed.number, |it| it.number) {
            Ok(at) => self.releases.splice(at..=at, [listed]),
            Err(at) => self.releases.splice(at..at, [listed]),
        };
    }

    /// Drops all but the newest releases and the newest of each ring; gives what was dropped.
    pub(crate) fn retire(&mut self) -> Vec<ReleaseNumber> {
        let newest_of = |ring| self.releases.iter().rev().find(|it| it.ring >= ring).map(|it| it.number);
        let kept: Vec<_> = [Ring::Canary, Ring::Early, Ring::All].into_iter().filter_map(newest_of).collect();
        let retained = match self.lane {
            Lane::Slow => RETAINED,
            Lane::Fast => RETAINED_FAST,
        };
        let old = self.releases.len().saturating_sub(retained);
        let is_dropped = |(at, it): (usize, &Listed)| (at < old && !kept.contains(&it.number)).then_some(it.number);
        let dropped: Vec<_> = self.releases.iter().enumerate().filter_map(is_dropped).collect();
        self.releases.retain(|it| !dropped.contains(&it.number));
        dropped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(count: u64, ring: impl Fn(u64) -> Ring) -> Releases {
        let mut list = Releases::new("a".parse().unwrap(), Lane::Slow);
        for number in 1..=count {
            list.enter(Listed { number: ReleaseNumber::new(number), version: number.to_string(), ring: ring(number) });
        }
        list
    }

    #[test]
    fn a_list_has_one_form() {
        let bytes = list(2, |_| Ring::All).to_bytes();
        assert_eq!(Releases::parse(&bytes).unwrap().to_bytes(), bytes);
        let text = String::from_utf8(bytes).unwrap();
        for bad in [
            format!("{text} "),
            text.replace("releases/v1", "releases/v2"),
            text.replacen("\"number\":1", "\"number\":3", 1),
            text.replacen("\"number\":1", "\"number\":2", 1),
            text.replace("\"lane\":", "\"x\":1,\"lane\":"),
        ] {
            assert!(Releases::parse(bad.as_bytes()).is_err(), "{bad}");
        }
        assert!(Releases::parse(&vec![b' '; RELEASES_BYTES_MAX + 1]).is_err());
    }

    #[test]
    fn the_newest_of_each_ring_is_kept_however_old() {
        let count = RETAINED as u64 + 10;
        let mut list = list(count, |number| match number {
            3 => Ring::All,
            7 => Ring::Early,
            _ => Ring::Canary,
        });
        let dropped: Vec<_> = list.retire().iter().map(|number| number.get()).collect();
        assert_eq!(dropped, [1, 2, 4, 5, 6, 8, 9, 10]);
        assert_eq!(list.releases().len(), RETAINED + 2);
    }

    #[test]
    fn of_rules_few_are_kept() {
        let mut list = Releases::new("a".parse().unwrap(), Lane::Fast);
        for number in 1..=9 {
            let ring = match number {
                2 => Ring::All,
                5 => Ring::Early,
                _ => Ring::Canary,
            };
            list.enter(Listed { number: ReleaseNumber::new(number), version: number.to_string(), ring });
            list.retire();
        }
        assert_eq!(list.releases().iter().map(|it| it.number.get()).collect::<Vec<_>>(), [2, 5, 8, 9]);
    }

    #[test]
    fn entering_again_replaces() {
        let mut list = list(2, |_| Ring::Canary);
        list.enter(Listed { number: ReleaseNumber::FIRST, version: "1".to_owned(), ring: Ring::All });
        assert_eq!(list.releases().iter().map(|it| it.ring).collect::<Vec<_>>(), [Ring::All, Ring::Canary]);
    }
}
