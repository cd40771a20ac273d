//! Tells from two differing pieces of text what kind of thing differs.

use std::collections::BTreeSet;

use super::Cause;

/// What a differing token is. The order is from harmless to unexplained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Class {
    Time,
    Path,
    Version,
    Digest,
    Number,
    Content,
}

impl Class {
    pub(super) const fn cause(self) -> Cause {
        match self {
            Self::Time => Cause::Time,
            Self::Path => Cause::Path,
            Self::Version => Cause::VersionString,
            Self::Digest | Self::Number | Self::Content => Cause::Content,
        }
    }
}

/// Bytes of a text that is split into tokens: the longest lines of real manifests are some thousands.
const TEXT_MAX: usize = 1 << 16;

/// The kinds of differences between two texts, such as two lines.
pub(super) fn classes(left: &str, right: &str) -> BTreeSet<Class> {
    if left.len().max(right.len()) > TEXT_MAX {
        return BTreeSet::from([Class::Content]);
    }
    let (left_tokens, right_tokens) = (tokens(left), tokens(right));
    if left_tokens.len() == right_tokens.len() {
        let differing = left_tokens.iter().zip(&right_tokens).enumerate().filter(|(_, (left, right))| left != right);
        let mut classes: BTreeSet<_> = differing
            .map(|(at, (left, right))| {
                let context = Context { line: left_line(&left_tokens, at), whole: &left_tokens };
                context.class(left, right)
            })
            .collect();
        if classes.is_empty() {
            // Only what separates tokens differs.
            classes.insert(Class::Content);
        }
        return classes;
    }
    let same = left_tokens.iter().zip(&right_tokens).take_while(|(left, right)| left == right).count();
    let room = left_tokens.len().min(right_tokens.len()) - same;
    let end = left_tokens.iter().rev().zip(right_tokens.iter().rev()).take(room).take_while(|(l, r)| l == r).count();
    let left_middle = left_tokens.get(same..left_tokens.len() - end).unwrap_or_default();
    let right_middle = right_tokens.get(same..right_tokens.len() - end).unwrap_or_default();
    // Token by token as far as both go; what is left belongs to the last one.
    let single = left_middle.len().min(right_middle.len()).saturating_sub(1);
    let pairs =
        left_middle.iter().zip(right_middle).take(single).map(|(left, right)| (left.to_string(), right.to_string()));
    let tail = |middle: &[&str]| middle.get(single..).unwrap_or_default().join(" ");
    let context = Context { line: left_line(&left_tokens, same), whole: &left_tokens };
    pairs
        .chain([(tail(left_middle), tail(right_middle))])
        .filter(|(left, right)| left != right)
        .map(|(left, right)| context.class(&left, &right))
        .collect()
}

/// Splits at blanks, quotes, brackets and the like; keeps what paths, times and versions consist of.
fn tokens(text: &str) -> Vec<&str> {
    let splits = |c: char| c.is_whitespace() || c.is_control() || "\"'`=,;<>()[]{}|&".contains(c);
    text.split(splits).filter(|token| !token.is_empty()).collect()
}

/// The tokens around the one at `at`.
fn left_line<'t>(tokens: &'t [&'t str], at: usize) -> &'t [&'t str] {
    tokens.get(at.saturating_sub(3)..(at + 4).min(tokens.len())).unwrap_or_default()
}

/// What surrounds a token.
struct Context<'t> {
    /// A few tokens to either side.
    line: &'t [&'t str],
    whole: &'t [&'t str],
}

impl Context<'_> {
    fn class(&self, left: &str, right: &str) -> Class {
        let both = |test: fn(&str) -> bool| test(left) && test(right);
        let near_date = || self.line.iter().any(|token| is_month(token) || is_clock(token) || is_calendar(token));
        if both(is_digest) {
            Class::Digest
        } else if both(is_time) || both(is_day_or_year) && near_date() {
            Class::Time
        } else if both(is_path) {
            Class::Path
        } else if both(is_version) || both(starts_with_digit) && self.names_a_tool() {
            Class::Version
        } else if both(is_number) {
            Class::Number
        } else {
            Class::Content
        }
    }

    fn names_a_tool(&self) -> bool {
        const WORDS: [&str; 10] =
            ["version", "gcc", "gnu", "clang", "rustc", "debian", "ubuntu", "generator", "bdist_wheel", "release"];
        self.whole.iter().any(|token| {
            let token = token.to_ascii_lowercase();
            WORDS.iter().any(|word| token.contains(word))
        })
    }
}

fn is_number(token: &str) -> bool {
    !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_digit())
}

fn starts_with_digit(token: &str) -> bool {
    token.trim_start_matches('v').starts_with(|c: char| c.is_ascii_digit())
}

/// Hexadecimal of at least 128 bits, or base64 of at least 30 bytes that can't be a path.
fn is_digest(token: &str) -> bool {
    let token = token.rsplit_once(':').map_or(token, |(_, value)| value);
    let hex = token.len() >= 32 && token.bytes().all(|byte| byte.is_ascii_hexdigit());
    let alphabet = |byte: u8| byte.is_ascii_alphanumeric() || b"+/-_".contains(&byte);
    let mixed = [u8::is_ascii_digit, u8::is_ascii_lowercase, u8::is_ascii_uppercase];
    let base64 = token.len() >= 40
        && !token.starts_with('/')
        && token.bytes().all(alphabet)
        && mixed.iter().all(|kind| token.bytes().any(|byte| kind(&byte)));
    hex || base64
}

fn is_time(token: &str) -> bool {
    is_month(token)
        || is_weekday(token)
        || is_clock(token)
        || is_calendar(token)
        || is_epoch(token)
        || is_compact(token)
        || is_sentence_of_time(token)
}

/// Several tokens that together are a time, where the sides have different counts.
fn is_sentence_of_time(text: &str) -> bool {
    let mut parts = text.split(' ').peekable();
    text.contains(' ')
        && parts.peek().is_some()
        && text.split(' ').any(|part| is_month(part) || is_clock(part) || is_calendar(part))
        && parts.all(|part| {
            is_month(part) || is_weekday(part) || is_clock(part) || is_calendar(part) || is_day_or_year(part)
        })
}

fn is_month(token: &str) -> bool {
    const MONTHS: [&str; 12] = [
        "january",
        "february",
        "march",
        "april",
        "may",
        "june",
        "july",
        "august",
        "september",
        "october",
        "november",
        "december",
    ];
    let token = token.trim_end_matches('.').to_ascii_lowercase();
    MONTHS.iter().any(|month| token == *month || month.get(..3) == Some(&token))
}

fn is_weekday(token: &str) -> bool {
    const DAYS: [&str; 7] = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"];
    let token = token.trim_end_matches('.').to_ascii_lowercase();
    DAYS.iter().any(|day| token == *day || day.get(..3) == Some(&token))
}

/// A day of a month, a year, or an offset from UTC, next to something that is plainly a date.
fn is_day_or_year(token: &str) -> bool {
    let digits = token.trim_start_matches(['+', '-']);
    is_number(digits) && digits.len() <= 4 || matches!(token, "UTC" | "GMT" | "Z" | "AM" | "PM")
}

/// `03:49` or `03:49:56`, also at the end of a longer token.
fn is_clock(token: &str) -> bool {
    let mut parts = token.trim_end_matches('Z').split(':');
    let two = |part: &str| part.len() == 2 && is_number(part);
    let first = parts.next().is_some_and(|part| (1..=2).contains(&part.len()) && is_number(part));
    let rest: Vec<_> = parts.collect();
    first && (1..=2).contains(&rest.len()) && rest.iter().all(|part| two(part.split('.').next().unwrap_or_default()))
}

/// `2026-11-22`, `2026/11/22` or `22/11/2026`, alone or in front of a time.
fn is_calendar(token: &str) -> bool {
    let date = token.split(['T', 't', '_']).next().unwrap_or_default();
    ['-', '/', '.'].iter().any(|separator| {
        let parts: Vec<_> = date.split(*separator).collect();
        let number = |part: &str| part.parse::<u32>().ok().filter(|_| is_number(part));
        let [first, second, third] = parts.as_slice() else { return false };
        let (Some(a), Some(b), Some(c)) = (number(first), number(second), number(third)) else { return false };
        let (year, month, day) = if first.len() == 4 { (a, b, c) } else { (c, b, a) };
        // A version like 2026.11.22 reads as a date too; three numbers with points count only with a full month.
        (1970..=2200).contains(&year)
            && (1..=31).contains(&day)
            && (1..=31).contains(&month)
            && (*separator != '.' || second.len() == 2)
    })
}

/// Seconds since the Epoch, from 1986 to 2106.
fn is_epoch(token: &str) -> bool {
    let number = token.split('.').next().unwrap_or_default();
    is_number(token)
        && number.len() >= 9
        && number.parse::<u64>().is_ok_and(|n| (500_000_000..=4_294_967_295).contains(&n))
}

/// `20261122`, `20261122034956` or `20261122T034956Z`.
fn is_compact(token: &str) -> bool {
    let digits: String = token.trim_end_matches('Z').chars().filter(|c| *c != 'T').collect();
    let part = |from, to| digits.get(from..to).and_then(|part| part.parse::<u32>().ok());
    is_number(&digits)
        && matches!(digits.len(), 8 | 12 | 14)
        && part(0, 4).is_some_and(|year| (1970..=2200).contains(&year))
        && part(4, 6).is_some_and(|month| (1..=12).contains(&month))
        && part(6, 8).is_some_and(|day| (1..=31).contains(&day))
}

/// A path that a build could have left: from a root, or with two slashes. Not an address.
fn is_path(token: &str) -> bool {
    let rooted = ["/", "./", "../", "~/", "file:///"].iter().any(|start| token.starts_with(start));
    let letters = token.chars().any(char::is_alphanumeric);
    let option = token.starts_with("-I/") || token.starts_with("-L/");
    let address = token.contains("://") && !token.starts_with("file://");
    letters && !address && (rooted || option || !token.contains(' ') && token.matches('/').count() >= 2)
}

/// `1.2.3`, `v1.2.3-4+deb12u1`, `12.2.0-14)`, `name/1.2`, `name-1.2.3`.
fn is_version(token: &str) -> bool {
    let token = token.rsplit(['/', ' ']).next().unwrap_or_default();
    let start = token.find(|c: char| c.is_ascii_digit()).unwrap_or(token.len());
    let (name, number) = token.split_at_checked(start).unwrap_or(("", token));
    let named = name.is_empty() || name == "v" || name.ends_with(['-', '_', ':', 'v']);
    let dots = number.matches('.').count();
    let runs = number.split('.').take(2).all(|part| part.starts_with(|c: char| c.is_ascii_digit()));
    named && runs && (dots >= 2 || dots == 1 && number.contains(['-', '+', '~']))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(left: &str, right: &str, expected: &[Class]) {
        assert_eq!(classes(left, right), expected.iter().copied().collect(), "{left} | {right}");
        assert_eq!(classes(right, left), expected.iter().copied().collect(), "{right} | {left}");
    }

    #[test]
    fn times_in_their_forms() {
        for (left, right) in [
            ("built 2026-11-22", "built 2026-11-23"),
            ("Nov 22 2026", "Nov  3 2026"),
            ("Nov 22 2026", "Dec 22 2026"),
            ("03:49:56", "03:49:57"),
            ("Date: Sun, 22 Nov 2026 03:49:56 +0000", "Date: Mon, 23 Nov 2027 04:00:00 +0100"),
            ("stamp=1700000000", "stamp=1800000000"),
            ("20261122T034956Z", "20261122T034957Z"),
            ("2026-11-22T03:49:56Z", "2026-11-22T03:49:57Z"),
        ] {
            check(left, right, &[Class::Time]);
        }
    }

    #[test]
    fn paths_versions_and_digests() {
        check("/build/a/x.c", "/tmp/b/x.c", &[Class::Path]);
        check("-I/build/a", "-I/build/b", &[Class::Path]);
        check("2026-11-22 in /build/a", "2026-11-23 in /build/a (b)", &[Class::Time, Class::Path]);
        check("built in /a at 03:49:56", "built in /b at 03:49:57", &[Class::Time, Class::Path]);
        check("GCC: (Debian 12.2.0-14) 12.2.0", "GCC: (Debian 12.2.0-14+deb12u1) 12.2.0", &[Class::Version]);
        check("rustc version 1.95", "rustc version 1.96", &[Class::Version]);
        check("Generator: bdist_wheel (0.41.2)", "Generator: bdist_wheel (0.42.0)", &[Class::Version]);
        check(&format!("{:064x}  a", 7), &format!("{:064x}  a", 8), &[Class::Digest]);
    }

    #[test]
    fn what_is_none_of_these_is_content() {
        check("return true;", "return false;", &[Class::Content]);
        check("x = 1.0", "x = 1.5", &[Class::Content]);
        check("https://a.example/x", "https://b.example/x", &[Class::Content]);
        check("a b", "a  b", &[Class::Content]);
        check("n = 41", "n = 42", &[Class::Number]);
    }
}
