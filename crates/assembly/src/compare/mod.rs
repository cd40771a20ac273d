//! Compares what two builds made: bytes decide, and a diagnosis for people names the cause of a difference.
//!
//! # In scope
//! - [`compare`]: two sets of outputs are [`Verdict::Identical`] when names and bytes are equal, else
//!   [`Verdict::Different`].
//! - A diagnosis that takes ar, tar, zip, gzip, xz, zstd, ELF and text apart, in bounds ([`Limits`]).
//! - [`Summary`]: at most [`Summary::MAX_BYTES`] of stable JSON, for a signed `mismatch`.
//!
//! # Out of scope
//! - Judging whether a difference matters. [`Remark`] is a hint for a reader and has no way back to a match.
//!
//! # Invariants
//! - [`Identical`] is made in one place, after every byte of every output was compared. It has no public
//!   constructor, no `Default` and no `Deserialize`; nothing turns a [`Difference`] into it:
//!
//! ```compile_fail,E0451
//! let forged = assembly::compare::Identical { outputs: Default::default() };
//! ```
//! ```compile_fail,E0277
//! fn wants<T: serde::de::DeserializeOwned>() {}
//! wants::<assembly::compare::Identical>();
//! ```
//! ```compile_fail,E0277
//! fn excuse(difference: assembly::compare::Difference) -> assembly::compare::Identical {
//!     difference.into()
//! }
//! ```
//! - A [`Difference`] has at least one finding that is a cause and not a consequence.
//! - The diagnosis writes nothing to disk and holds a small multiple of [`Limits::bytes`].

mod ar;
mod budget;
mod bytes;
mod compressed;
mod elf;
mod finding;
mod members;
mod outputs;
mod render;
mod strings;
mod summary;
mod tarball;
mod text;
mod token;
mod walk;
mod zip;

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Serialize;
use stdx::{Clock, Digest};

pub use budget::{Limits, Stop};
pub use finding::{Cause, Excerpt, Finding, MemberPath, Remark, Role};
pub use outputs::{Output, Outputs};
pub use summary::{Summary, SummaryError, SummaryFinding};

use outputs::Bytes;
use walk::{Pair, Walk};

/// The two builds whose outputs are compared.
#[derive(Clone, Copy, Debug)]
pub struct Builds<'a> {
    /// The first build, by convention the vendor's.
    pub left: &'a Outputs,
    /// The second build, by convention the rebuilder's.
    pub right: &'a Outputs,
}

/// Whether two builds made the same bytes.
#[derive(Debug, Serialize)]
#[serde(tag = "verdict", rename_all = "kebab-case")]
#[must_use]
pub enum Verdict {
    /// The same names with the same bytes.
    Identical(Identical),
    /// Anything else.
    Different(Box<Difference>),
}

/// What both builds made, byte for byte. Only [`compare`] makes it.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Identical {
    outputs: BTreeMap<String, Measured>,
}

impl Identical {
    /// Every output by name.
    #[must_use]
    pub const fn outputs(&self) -> &BTreeMap<String, Measured> {
        &self.outputs
    }
}

/// The digest and size of one output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Measured {
    /// SHA-256 of the bytes.
    pub sha256: Digest,
    /// In bytes.
    pub size: u64,
}

/// That two builds differ, and where and why.
#[derive(Debug, Serialize)]
pub struct Difference {
    findings: Vec<Finding>,
    causes: Vec<Cause>,
    stops: Vec<Stop>,
    left_out: u64,
}

impl Difference {
    /// The causes, without consequences, in the order of [`Cause`]; never empty.
    #[must_use]
    pub fn causes(&self) -> &[Cause] {
        &self.causes
    }

    /// What differs, in the order of the outputs and of their members.
    #[must_use]
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// The limits that cut the diagnosis short.
    #[must_use]
    pub fn stops(&self) -> &[Stop] {
        &self.stops
    }

    /// How many findings [`Limits::findings`] left out.
    #[must_use]
    pub const fn left_out(&self) -> u64 {
        self.left_out
    }

    /// A hint for a reader: how deep the difference goes.
    #[must_use]
    pub fn remark(&self) -> Remark {
        Remark::of(&self.causes, &self.stops)
    }

    /// The compact form that a signed `mismatch` carries.
    #[must_use]
    pub fn summary(&self) -> Summary {
        Summary::of(self)
    }
}

/// Why two sets of outputs can't be compared.
#[derive(Debug, thiserror::Error)]
pub enum CompareError {
    /// A match of nothing would prove nothing.
    #[error("neither build has an output")]
    NoOutputs,
    /// More outputs than [`Outputs::MAX`].
    #[error("more than {max} outputs")]
    TooManyOutputs {
        /// The limit.
        max: usize,
    },
    /// An output's name is empty, too long or has control characters.
    #[error("`{name}` is not a name for an output")]
    Name {
        /// The name, made safe to print.
        name: Excerpt,
    },
    /// One build names an output twice.
    #[error("the output `{name}` is there twice")]
    Duplicate {
        /// The name.
        name: String,
    },
    /// An output is a folder, a link or a device.
    #[error("the output `{name}` ({path}) is not a regular file")]
    NotAFile {
        /// The output's name.
        name: String,
        /// Where it should be.
        path: PathBuf,
    },
    /// An output can't be read.
    #[error("reading the output `{name}`")]
    Read {
        /// The output's name.
        name: String,
        /// Why.
        source: std::io::Error,
    },
}

/// Compares what two builds made.
///
/// # Errors
/// When an output can't be read, or when there is none. What an output holds is never an error.
pub fn compare(builds: &Builds<'_>, limits: &Limits, clock: &dyn Clock) -> Result<Verdict, CompareError> {
    if builds.left.is_empty() && builds.right.is_empty() {
        return Err(CompareError::NoOutputs);
    }
    let mut walk = Walk::new(limits, clock);
    let mut equal = BTreeMap::new();
    for (name, left) in builds.left.iter() {
        match builds.right.get(name) {
            Some(right) => match outputs::same(name, left, right)? {
                Some(measured) => drop(equal.insert(name.to_owned(), measured)),
                None => diagnose(&mut walk, name, (left, right))?,
            },
            None => walk.output_missing(name, members::Side::Left),
        }
    }
    for (name, _) in builds.right.iter().filter(|(name, _)| builds.left.get(name).is_none()) {
        walk.output_missing(name, members::Side::Right);
    }
    Ok(match walk.finish() {
        None => Verdict::Identical(Identical { outputs: equal }),
        Some(difference) => Verdict::Different(Box::new(difference)),
    })
}

/// Takes two outputs with different bytes apart.
fn diagnose(walk: &mut Walk<'_>, name: &str, (left, right): (&Output, &Output)) -> Result<(), CompareError> {
    let (left, right) = (outputs::load(name, left, walk.input_max())?, outputs::load(name, right, walk.input_max())?);
    walk.output(name, |walk| match (&left, &right) {
        (Bytes::Whole(left), Bytes::Whole(right)) => walk.differ(Pair { left, right }),
        _ => walk.stop(Stop::Bytes),
    });
    Ok(())
}
