//! Which segments are written anew next: whole ones, of one day, so that nothing is kept for more than a day beyond its
//! time because of what it lies with.

use std::collections::{BTreeMap, BTreeSet};

use attest::{CountryCode, DataClass};
use stdx::Digest;
use vault::Segment;

const DAY_S: u64 = 86_400;

/// Segments in columns that are put together with others. Larger ones gain nothing.
const SMALL_BYTES_MAX: u64 = 16 << 20;

/// What may be written anew at once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wish<'a> {
    /// Of this class,
    pub(crate) class: &'a DataClass,
    /// from no other countries than these,
    pub(crate) countries: &'a [CountryCode],
    /// no more objects,
    pub(crate) objects: u64,
    /// and no more bytes.
    pub(crate) bytes: u64,
    /// What this code has failed to read it need not try again.
    pub(crate) code: Digest,
}

/// What is left to be written anew, and does not fit.
#[derive(Debug, thiserror::Error)]
#[error(
    "segment {segment} has {objects} objects and {bytes} bytes; at once no more than {objects_max} and {bytes_max} are \
     written anew"
)]
pub struct TooLarge {
    segment: Digest,
    objects: usize,
    bytes: u64,
    objects_max: u64,
    bytes_max: u64,
}

/// The oldest day's segments of columns with events that are to be erased (`unclean`), as far as they fit; where there are
/// none, those in lines; and then small ones in columns that become one. Nothing, if there is nothing to do.
///
/// # Errors
/// When nothing is left of the first two but what fits not even alone.
pub(crate) fn choose<'a>(
    segments: impl Iterator<Item = &'a Segment>,
    unclean: &BTreeSet<Digest>,
    wish: &Wish<'_>,
) -> Result<Vec<&'a Segment>, TooLarge> {
    let (mut erased, mut lines, mut columns): (Days<'a>, Days<'a>, Days<'a>) = Default::default();
    for segment in segments.filter(|segment| wish.covers(segment)) {
        let day = segment.until.seconds() / DAY_S;
        let tried = segment.unread.as_ref().is_none_or(|unread| unread.code == wish.code);
        if unclean.contains(&segment.segment) {
            erased.entry(day).or_default().push(segment);
        } else if segment.from.is_none() || !tried {
            lines.entry(day).or_default().push(segment);
        } else if segment.bytes <= SMALL_BYTES_MAX {
            columns.entry(day).or_default().push(segment);
        }
    }
    let must = || erased.values().chain(lines.values());
    let first = must().map(|day| wish.fit(day.clone())).find(|day| !day.is_empty());
    if let (None, Some(left)) = (&first, must().flatten().next()) {
        return Err(wish.too_large(left));
    }
    let merged = || columns.into_values().map(|day| wish.fit(day)).find(|day| day.len() > 1);
    Ok(first.or_else(merged).unwrap_or_default())
}

type Days<'a> = BTreeMap<u64, Vec<&'a Segment>>;

impl Wish<'_> {
    fn covers(&self, segment: &Segment) -> bool {
        segment.class == *self.class && segment.objects.iter().all(|kept| self.countries.contains(&kept.country))
    }

    const fn too_large(&self, segment: &Segment) -> TooLarge {
        let Segment { segment, bytes, ref objects, .. } = *segment;
        TooLarge { segment, objects: objects.len(), bytes, objects_max: self.objects, bytes_max: self.bytes }
    }

    /// As many of a day's as fit, the earliest first.
    fn fit<'a>(&self, mut day: Vec<&'a Segment>) -> Vec<&'a Segment> {
        day.sort_by_key(|segment| (segment.until, segment.segment));
        let (mut objects, mut bytes) = (0, 0);
        day.retain(|segment| {
            let more = (objects + segment.objects.len() as u64, bytes + segment.bytes);
            let fits = more.0 <= self.objects && more.1 <= self.bytes;
            if fits {
                (objects, bytes) = more;
            }
            fits
        });
        day
    }
}

#[cfg(test)]
mod tests {
    use attest::CountryCode;
    use stdx::{Digest, UnixTime};
    use vault::{Kept, Segment, Unread};

    use super::{Wish, choose};

    const CODE: &[u8] = b"code";

    fn segment(name: &str, day: u64, country: &str, objects: usize) -> Segment {
        let kept = Kept {
            id: "00".repeat(16).parse().unwrap(),
            country: country.parse().unwrap(),
            at: 0,
            bytes: 10,
            object: Digest::of(b""),
            header: Digest::of(b""),
        };
        Segment {
            segment: Digest::of(name.as_bytes()),
            class: "detections".parse().unwrap(),
            bytes: 10 * objects as u64,
            from: None,
            until: UnixTime::from_seconds(day * 86_400 + 7),
            unread: None,
            objects: vec![kept; objects],
        }
    }

    fn columns(name: &str, day: u64, unread: Option<&[u8]>) -> Segment {
        let unread = unread.map(|code| Unread { code: Digest::of(code), objects: Vec::new() });
        Segment { from: Some(UnixTime::from_seconds(day * 86_400)), unread, ..segment(name, day, "DE", 1) }
    }

    fn chosen(segments: &[(&str, Segment)]) -> Vec<String> {
        chosen_with(segments, &[])
    }

    fn chosen_with(segments: &[(&str, Segment)], unclean: &[&str]) -> Vec<String> {
        tried(segments, unclean).unwrap()
    }

    fn tried(segments: &[(&str, Segment)], unclean: &[&str]) -> Result<Vec<String>, String> {
        let countries: [CountryCode; 2] = ["DE", "JP"].map(|it| it.parse().unwrap());
        let class = "detections".parse().unwrap();
        let wish = Wish { class: &class, countries: &countries, objects: 4, bytes: 100, code: Digest::of(CODE) };
        let unclean = unclean.iter().map(|name| Digest::of(name.as_bytes())).collect();
        let found = choose(segments.iter().map(|(_, segment)| segment), &unclean, &wish);
        let found = found.map_err(|error| error.to_string())?;
        let name = |it: &&Segment| segments.iter().find(|(_, segment)| segment.segment == it.segment).unwrap().0;
        let mut names: Vec<String> = found.iter().map(|it| name(it).to_owned()).collect();
        names.sort();
        Ok(names)
    }

    fn named(segments: Vec<(&'static str, u64, &str, usize)>) -> Vec<(&'static str, Segment)> {
        segments.into_iter().map(|(name, day, country, objects)| (name, segment(name, day, country, objects))).collect()
    }

    #[test]
    fn one_day_is_taken_as_far_as_it_fits_and_as_it_was_asked_for() {
        let all = named(vec![("a", 2, "DE", 2), ("b", 1, "DE", 1), ("c", 1, "JP", 2), ("d", 1, "CH", 1)]);
        assert_eq!(chosen(&all), ["b", "c"], "the oldest day, and no country that was not asked for");
        let all = named(vec![("a", 1, "DE", 3), ("b", 1, "DE", 3), ("c", 1, "DE", 9)]);
        assert_eq!(chosen(&all).len(), 1, "four objects at most");
        assert!(chosen(&[]).is_empty());
    }

    #[test]
    fn what_fits_not_even_alone_is_named_when_all_else_is_done() {
        let (many, long) = (("c", segment("c", 1, "DE", 9)), Segment { bytes: 101, ..segment("d", 2, "DE", 1) });
        assert_eq!(chosen(&[many.clone(), ("a", segment("a", 3, "DE", 1))]), ["a"]);
        let error = tried(&[many.clone(), ("b", columns("b", 1, None))], &[]).unwrap_err();
        let name = Digest::of(b"c");
        let said =
            format!("segment {name} has 9 objects and 90 bytes; at once no more than 4 and 100 are written anew");
        assert_eq!(error, said);
        assert!(tried(&[("d", long.clone())], &[]).unwrap_err().contains("has 1 objects and 101 bytes"));
        let erased = Segment { from: Some(UnixTime::from_seconds(0)), ..long };
        assert!(chosen(&[("d", erased.clone())]).is_empty(), "in columns, and alone: it is as it should be");
        assert!(tried(&[("d", erased)], &["d"]).unwrap_err().contains("101 bytes"));
    }

    #[test]
    fn columns_are_put_together_and_what_was_not_read_waits_for_other_code() {
        let two = [("a", columns("a", 1, None)), ("b", columns("b", 1, None)), ("c", columns("c", 2, None))];
        assert_eq!(chosen(&two), ["a", "b"]);
        assert!(chosen(&two[1..]).is_empty(), "one of a day is as good as it gets");
        assert!(chosen(&[("a", columns("a", 1, Some(CODE)))]).is_empty());
        assert_eq!(chosen(&[("a", columns("a", 1, Some(b"older code")))]), ["a"]);
        let lines = ("d", segment("d", 3, "DE", 1));
        assert_eq!(chosen(&[two[0].clone(), two[1].clone(), lines]), ["d"], "lines come first");
    }

    #[test]
    fn what_has_erased_events_comes_before_all_else_however_large_it_is_and_alone() {
        let large = Segment { bytes: 90, ..columns("c", 2, Some(CODE)) };
        let all = [("a", columns("a", 1, None)), ("b", segment("b", 1, "DE", 1)), ("c", large)];
        assert_eq!(chosen_with(&all, &["c"]), ["c"]);
        assert_eq!(chosen_with(&all, &["a", "c"]), ["a"], "one day at a time");
        assert_eq!(chosen_with(&all, &[]), ["b"]);
    }
}
