//! The outputs of a build, in memory or in files, and whether two of them are the same bytes.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use stdx::Hasher;

use super::{CompareError, Excerpt, Measured};

/// One output of a build.
#[derive(Clone, Debug)]
pub enum Output {
    /// Its bytes.
    Bytes(Vec<u8>),
    /// The regular file that holds them; a link is refused, not followed.
    File(PathBuf),
}

/// The outputs of one build by name.
#[derive(Clone, Debug, Default)]
pub struct Outputs(BTreeMap<String, Output>);

impl Outputs {
    /// Outputs of one build; the four products have at most ten.
    pub const MAX: usize = 10_000;
    /// Bytes of a name: a path in a package.
    pub const MAX_NAME_BYTES: usize = 512;

    /// Adds an output.
    ///
    /// # Errors
    /// When there is one of that name, when the name is unfit, or beyond [`Outputs::MAX`].
    pub fn add(&mut self, name: &str, output: Output) -> Result<(), CompareError> {
        let unfit = name.is_empty() || name.len() > Self::MAX_NAME_BYTES || name.chars().any(char::is_control);
        if unfit {
            return Err(CompareError::Name { name: Excerpt::of(name.as_bytes()) });
        }
        if self.0.len() >= Self::MAX {
            return Err(CompareError::TooManyOutputs { max: Self::MAX });
        }
        if self.0.contains_key(name) {
            return Err(CompareError::Duplicate { name: name.to_owned() });
        }
        self.0.insert(name.to_owned(), output);
        Ok(())
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &Output)> {
        self.0.iter().map(|(name, output)| (name.as_str(), output))
    }

    pub(super) fn get(&self, name: &str) -> Option<&Output> {
        self.0.get(name)
    }
}

/// An output's bytes, if a diagnosis may hold them.
pub(super) enum Bytes {
    Whole(Vec<u8>),
    TooLarge,
}

/// Reads an output of at most `max` bytes.
pub(super) fn load(name: &str, output: &Output, max: u64) -> Result<Bytes, CompareError> {
    let mut bytes = Vec::new();
    open(name, output)?
        .take(max.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(|source| CompareError::Read { name: name.to_owned(), source })?;
    Ok(if u64::try_from(bytes.len()).is_ok_and(|size| size <= max) { Bytes::Whole(bytes) } else { Bytes::TooLarge })
}

/// The digest and size of two outputs with the same bytes; `None` when they differ.
pub(super) fn same(name: &str, left: &Output, right: &Output) -> Result<Option<Measured>, CompareError> {
    let (mut left, mut right) = (open(name, left)?, open(name, right)?);
    let broken = |source| CompareError::Read { name: name.to_owned(), source };
    // Large enough that reading costs little, small enough for the stack of any thread to be out of it.
    let (mut left_block, mut right_block) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    let (mut hasher, mut size) = (Hasher::default(), 0_u64);
    loop {
        let left_bytes = fill(&mut *left, &mut left_block).map_err(broken)?;
        let right_bytes = fill(&mut *right, &mut right_block).map_err(broken)?;
        if left_bytes != right_bytes {
            return Ok(None);
        }
        if left_bytes.is_empty() {
            return Ok(Some(Measured { sha256: hasher.finish(), size }));
        }
        hasher.update(left_bytes);
        size = size.saturating_add(u64::try_from(left_bytes.len()).unwrap_or(u64::MAX));
    }
}

/// As much of `block` as `reader` can fill; less only at the end.
fn fill<'b>(reader: &mut dyn Read, block: &'b mut [u8]) -> io::Result<&'b [u8]> {
    let mut filled = 0;
    while let Some(rest) = block.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match reader.read(rest) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(block.get(..filled).unwrap_or_default())
}

fn open<'a>(name: &str, output: &'a Output) -> Result<Box<dyn Read + 'a>, CompareError> {
    match output {
        Output::Bytes(bytes) => Ok(Box::new(bytes.as_slice())),
        Output::File(path) => open_file(name, path),
    }
}

fn open_file(name: &str, path: &Path) -> Result<Box<dyn Read>, CompareError> {
    let broken = |source| CompareError::Read { name: name.to_owned(), source };
    // Looked at before it is opened: opening a pipe would wait for ever.
    if !fs::symlink_metadata(path).map_err(broken)?.is_file() {
        return Err(CompareError::NotAFile { name: name.to_owned(), path: path.to_owned() });
    }
    Ok(Box::new(File::open(path).map_err(broken)?))
}
