//! Buckets: everything known of the files whose hashes begin alike, given out together.

use stdx::Digest;

use crate::{Prefix, PrefixBits};

/// Whoever asks is hidden among so many known hashes, besides all that nobody knows.
pub const BUCKET_MIN: usize = 1000;

/// Sixteen thousand hashes; with the longest prefix that [`BUCKET_MIN`] allows, a bucket has some
/// two thousand.
pub const ANSWER_BYTES_MAX: usize = 256 << 10;

/// Answers are padded to a multiple of this.
const PAD_BYTES: usize = 1024;

const VERSION: u8 = 1;

/// Version, bits, the prefix, and how many hashes of each verdict follow.
const HEADER_BYTES: usize = 2 + 4 + 4 + 4;

/// Of each hash its last sixteen bytes: nobody finds a second file for them, and half is saved.
const SUFFIX_BYTES: usize = 16;

type Suffix = [u8; SUFFIX_BYTES];

/// What is known of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// Known to be bad.
    Malicious,
    /// Known to be what it claims to be.
    Clean,
}

/// What a gateway knows.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// Hashes of bad files.
    pub malicious: Vec<Digest>,
    /// Hashes of good ones.
    pub clean: Vec<Digest>,
}

/// Why a gateway may not serve what it knows.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum KnownError {
    /// Somebody who asks could be told apart.
    #[error("bucket {prefix} has {has} known hashes; each needs {BUCKET_MIN}, so prefixes of {longest} bits at most", longest = .longest.get())]
    Thin {
        /// The smallest bucket.
        prefix: Prefix,
        /// What it has.
        has: usize,
        /// The longest prefix that these hashes allow.
        longest: PrefixBits,
    },
    /// Fewer hashes than one bucket needs.
    #[error("{0} known hashes; even without a prefix {BUCKET_MIN} are needed")]
    TooFew(usize),
    /// Answers would be longer than endpoints read.
    #[error("bucket {prefix} has {has} known hashes, more than an answer holds; ask with a longer prefix")]
    Full {
        /// The largest bucket.
        prefix: Prefix,
        /// What it has.
        has: usize,
    },
    /// Good and bad at once.
    #[error("{0} is known as malicious and as clean")]
    Conflict(Digest),
}

/// Everything a gateway knows, in buckets.
#[derive(Clone, Debug)]
pub struct Known {
    bits: PrefixBits,
    malicious: Sorted,
    clean: Sorted,
    answer_bytes: usize,
}

/// Suffixes, bucket after bucket.
#[derive(Clone, Debug)]
struct Sorted {
    suffixes: Vec<Suffix>,
    /// Where each bucket ends.
    ends: Vec<usize>,
}

impl Sorted {
    /// Of digests that are sorted and distinct.
    fn new(digests: &[Digest], bits: PrefixBits) -> Self {
        let mut ends = vec![0; bits.buckets()];
        for digest in digests {
            if let Some(end) = ends.get_mut(Prefix::of(digest, bits).value() as usize) {
                *end += 1;
            }
        }
        let mut total = 0;
        for end in &mut ends {
            total += *end;
            *end = total;
        }
        let mut sorted = Self { suffixes: digests.iter().map(suffix).collect(), ends };
        for at in 0..sorted.ends.len() {
            let range = sorted.range(at);
            sorted.suffixes.get_mut(range).unwrap_or_default().sort_unstable();
        }
        sorted
    }

    fn range(&self, at: usize) -> std::ops::Range<usize> {
        let start = at.checked_sub(1).and_then(|before| self.ends.get(before)).copied().unwrap_or(0);
        start..self.ends.get(at).copied().unwrap_or(start)
    }

    fn bucket(&self, prefix: &Prefix) -> &[Suffix] {
        self.suffixes.get(self.range(prefix.value() as usize)).unwrap_or_default()
    }
}

impl Known {
    /// Puts what is known into buckets by prefixes of `bits`.
    ///
    /// # Errors
    /// [`KnownError`]: there is no serving of thin buckets.
    pub fn new(sources: Sources, bits: PrefixBits) -> Result<Self, KnownError> {
        let Sources { mut malicious, mut clean } = sources;
        for digests in [&mut malicious, &mut clean] {
            digests.sort_unstable();
            digests.dedup();
        }
        if let Some(both) = malicious.iter().find(|digest| clean.binary_search(digest).is_ok()) {
            return Err(KnownError::Conflict(*both));
        }
        let sizes = sizes(&malicious, &clean, bits);
        let numbered = |value: usize| Prefix::numbered(bits, u32::try_from(value).unwrap_or(u32::MAX));
        let by_size = || sizes.iter().enumerate().filter_map(|(value, has)| Some((*has, numbered(value)?)));
        if let Some((has, prefix)) = by_size().min().filter(|(has, _)| *has < BUCKET_MIN) {
            let longest = longest(&malicious, &clean).ok_or(KnownError::TooFew(malicious.len() + clean.len()))?;
            return Err(KnownError::Thin { prefix, has, longest });
        }
        let (has, prefix) = by_size().max().ok_or(KnownError::TooFew(0))?;
        let answer_bytes = (HEADER_BYTES + SUFFIX_BYTES * has).next_multiple_of(PAD_BYTES);
        if answer_bytes > ANSWER_BYTES_MAX {
            return Err(KnownError::Full { prefix, has });
        }
        Ok(Self { bits, malicious: Sorted::new(&malicious, bits), clean: Sorted::new(&clean, bits), answer_bytes })
    }

    /// How long the prefixes are.
    #[must_use]
    pub const fn bits(&self) -> PrefixBits {
        self.bits
    }

    /// How long each answer is.
    #[must_use]
    pub const fn answer_bytes(&self) -> usize {
        self.answer_bytes
    }

    /// The bucket of `prefix`; nothing for a prefix of another length.
    #[must_use]
    pub fn answer(&self, prefix: &Prefix) -> Option<Vec<u8>> {
        if prefix.bits() != self.bits {
            return None;
        }
        let (malicious, clean) = (self.malicious.bucket(prefix), self.clean.bucket(prefix));
        let mut bytes = Vec::with_capacity(self.answer_bytes);
        bytes.extend_from_slice(&[VERSION, self.bits.get()]);
        bytes.extend_from_slice(&prefix.value().to_be_bytes());
        for suffixes in [malicious, clean] {
            bytes.extend_from_slice(&u32::try_from(suffixes.len()).unwrap_or(u32::MAX).to_be_bytes());
        }
        for suffixes in [malicious, clean] {
            bytes.extend_from_slice(suffixes.as_flattened());
        }
        bytes.resize(self.answer_bytes, 0);
        Some(bytes)
    }
}

fn sizes(malicious: &[Digest], clean: &[Digest], bits: PrefixBits) -> Vec<usize> {
    let mut sizes = vec![0; bits.buckets()];
    for digest in malicious.iter().chain(clean) {
        if let Some(size) = sizes.get_mut(Prefix::of(digest, bits).value() as usize) {
            *size += 1;
        }
    }
    sizes
}

/// The longest prefix by which each bucket has enough.
fn longest(malicious: &[Digest], clean: &[Digest]) -> Option<PrefixBits> {
    let all = (0..=crate::BITS_MAX).rev().filter_map(|bits| PrefixBits::new(bits).ok());
    all.into_iter().find(|bits| sizes(malicious, clean, *bits).iter().all(|size| *size >= BUCKET_MIN))
}

fn suffix(digest: &Digest) -> Suffix {
    digest.as_bytes().last_chunk().copied().unwrap_or_default()
}

/// A bucket as an endpoint got it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    malicious: Vec<Suffix>,
    clean: Vec<Suffix>,
}

/// Why an answer is not believed.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum AnswerError {
    /// Not of this format.
    #[error("not a bucket of this format: {0}")]
    Format(&'static str),
    /// Another bucket than the one asked for.
    #[error("the bucket of another prefix than {0}")]
    Other(Prefix),
    /// Fewer known hashes than asking safely needs.
    #[error("{0} known hashes in the bucket; asking is safe among {BUCKET_MIN} at least")]
    Thin(usize),
}

impl Answer {
    /// Reads the answer to `asked`.
    ///
    /// # Errors
    /// [`AnswerError`].
    pub fn parse(bytes: &[u8], asked: &Prefix) -> Result<Self, AnswerError> {
        let format = AnswerError::Format;
        if bytes.len() > ANSWER_BYTES_MAX {
            return Err(format("too long"));
        }
        let Some((header, rest)) = bytes.split_first_chunk::<HEADER_BYTES>() else { return Err(format("too short")) };
        let [version, bits, v0, v1, v2, v3, m0, m1, m2, m3, c0, c1, c2, c3] = *header;
        if version != VERSION {
            return Err(format("another version"));
        }
        if bits != asked.bits().get() || u32::from_be_bytes([v0, v1, v2, v3]) != asked.value() {
            return Err(AnswerError::Other(*asked));
        }
        let (malicious, rest) = take(rest, u32::from_be_bytes([m0, m1, m2, m3]))?;
        let (clean, padding) = take(rest, u32::from_be_bytes([c0, c1, c2, c3]))?;
        if padding.iter().any(|byte| *byte != 0) {
            return Err(format("its padding is not zero"));
        }
        let has = malicious.len() + clean.len();
        if has < BUCKET_MIN {
            return Err(AnswerError::Thin(has));
        }
        if malicious.iter().any(|suffix| clean.binary_search(suffix).is_ok()) {
            return Err(format("one hash is both"));
        }
        Ok(Self { malicious, clean })
    }

    /// What is known of the file with this hash, which has the prefix that was asked for.
    #[must_use]
    pub fn verdict(&self, digest: &Digest) -> Option<Verdict> {
        let among = |suffixes: &[Suffix]| suffixes.binary_search(&suffix(digest)).is_ok();
        if among(&self.malicious) {
            Some(Verdict::Malicious)
        } else if among(&self.clean) {
            Some(Verdict::Clean)
        } else {
            None
        }
    }

    /// Among how many known hashes the question hid.
    #[must_use]
    pub const fn hashes(&self) -> usize {
        self.malicious.len() + self.clean.len()
    }
}

/// So many suffixes, each greater than the one before, and what follows them.
fn take(bytes: &[u8], count: u32) -> Result<(Vec<Suffix>, &[u8]), AnswerError> {
    let length = (count as usize).checked_mul(SUFFIX_BYTES);
    let (head, rest) =
        length.and_then(|length| bytes.split_at_checked(length)).ok_or(AnswerError::Format("cut off"))?;
    let suffixes = head.as_chunks::<SUFFIX_BYTES>().0;
    if suffixes.is_sorted_by(|one, next| one < next) {
        Ok((suffixes.to_vec(), rest))
    } else {
        Err(AnswerError::Format("not in order"))
    }
}
