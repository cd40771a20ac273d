//! Reading the archives that sources and packages come in: tar (plain, gzip, xz, zstd), deb, wheel.
//!
//! Everything here is foreign: names, links, kinds, counts and sizes are checked before a sink sees
//! them, and nothing is ever written through a link.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek};

use attest::tree::{Mode, NODES_MAX, TreeError, TreePath};

/// Largest single file in an archive. The largest in a Rust toolchain is about 200 MB.
const FILE_BYTES_MAX: u64 = 2 * 1024 * 1024 * 1024;
/// Most bytes an archive may unpack to: twice the largest file. A toolchain's largest package has 0.5 GB.
const UNPACKED_BYTES_MAX: u64 = 2 * FILE_BYTES_MAX;

/// An archive that we do not accept.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The container is damaged, or uses what we do not read.
    #[error("{archive}: {reason}")]
    Malformed {
        /// Which archive.
        archive: String,
        /// What is wrong.
        reason: String,
    },
    /// A member with a bad name or link.
    #[error("{archive}: {source}")]
    Member {
        /// Which archive.
        archive: String,
        /// What is wrong with the member.
        source: TreeError,
    },
    /// Too many members or bytes.
    #[error("{archive} unpacks to more than {limit} {unit}")]
    TooLarge {
        /// Which archive.
        archive: String,
        /// The most that is accepted.
        limit: u64,
        /// What was counted.
        unit: &'static str,
    },
    /// The sink could not take a member.
    #[error("cannot unpack {archive}")]
    Sink {
        /// Which archive.
        archive: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// Where members go. Paths and link targets have been checked for form only; where links lead is
/// for the sink to judge.
pub(crate) trait Sink {
    type Error: std::error::Error + Send + Sync + 'static;
    fn folder(&mut self, path: TreePath) -> Result<(), Self::Error>;
    fn file(&mut self, path: TreePath, mode: Mode, reader: &mut dyn Read) -> Result<(), Self::Error>;
    fn link(&mut self, path: TreePath, target: &str) -> Result<(), Self::Error>;
    fn hard_link(&mut self, path: TreePath, target: TreePath) -> Result<(), Self::Error>;
}

/// How member names become paths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Naming {
    /// As they are.
    Whole,
    /// Without the first name, as sdists and crates have one folder around everything.
    WithoutFirst,
}

/// Unpacks a tar archive, its compression told by its first bytes.
pub(crate) fn unpack_tar<S: Sink>(
    archive: &str,
    reader: impl Read,
    naming: Naming,
    sink: &mut S,
) -> Result<(), ArchiveError> {
    let malformed =
        |error: io::Error| ArchiveError::Malformed { archive: archive.to_owned(), reason: error.to_string() };
    let member = |source| ArchiveError::Member { archive: archive.to_owned(), source };
    let mut budget = Budget::new(archive);
    let mut tar = tar::Archive::new(decompress(archive, reader)?);
    for entry in tar.entries().map_err(malformed)? {
        let mut entry = entry.map_err(malformed)?;
        let Some(path) = member_path(&entry.path_bytes(), naming).map_err(member)? else { continue };
        budget.spend(entry.size())?;
        let kind = entry.header().entry_type();
        match kind {
            tar::EntryType::Directory => sink.folder(path).map_err(|e| budget.sink(e))?,
            tar::EntryType::Regular | tar::EntryType::Continuous | tar::EntryType::GNUSparse => {
                let mode = Mode::from_bits(entry.header().mode().map_err(malformed)?);
                sink.file(path, mode, &mut entry).map_err(|e| budget.sink(e))?;
            }
            tar::EntryType::Symlink | tar::EntryType::Link => {
                let bytes = entry.link_name_bytes().unwrap_or_default().into_owned();
                if kind == tar::EntryType::Symlink {
                    let target = utf8(&bytes).map_err(member)?;
                    sink.link(path, target).map_err(|e| budget.sink(e))?;
                } else if let Some(target) = member_path(&bytes, naming).map_err(member)? {
                    sink.hard_link(path, target).map_err(|e| budget.sink(e))?;
                }
            }
            tar::EntryType::XGlobalHeader => {}
            other => {
                let reason = format!("`{path}` is of kind {other:?}; only files, folders and links are accepted");
                return Err(ArchiveError::Malformed { archive: archive.to_owned(), reason });
            }
        }
    }
    Ok(())
}

/// The two tar archives of a Debian binary package, in one pass each.
pub(crate) fn unpack_deb<S: Sink>(archive: &str, file: File, part: DebPart, sink: &mut S) -> Result<(), ArchiveError> {
    let malformed = |reason: String| ArchiveError::Malformed { archive: archive.to_owned(), reason };
    let mut ar = ar::Archive::new(BufReader::new(file));
    while let Some(entry) = ar.next_entry() {
        let entry = entry.map_err(|error| malformed(error.to_string()))?;
        if entry.header().identifier().starts_with(part.prefix()) {
            return unpack_tar(archive, entry, Naming::Whole, sink);
        }
    }
    Err(malformed(format!("it has no {} member", String::from_utf8_lossy(part.prefix()))))
}

/// A part of a Debian binary package.
#[derive(Clone, Copy, Debug)]
pub(crate) enum DebPart {
    Control,
    Data,
}

impl DebPart {
    const fn prefix(self) -> &'static [u8] {
        match self {
            Self::Control => b"control.tar",
            Self::Data => b"data.tar",
        }
    }
}

/// Unpacks a zip archive (a wheel).
pub(crate) fn unpack_zip<S: Sink>(archive: &str, file: impl Read + Seek, sink: &mut S) -> Result<(), ArchiveError> {
    let malformed = |error: &dyn std::fmt::Display| ArchiveError::Malformed {
        archive: archive.to_owned(),
        reason: error.to_string(),
    };
    let mut budget = Budget::new(archive);
    let mut zip = zip::ZipArchive::new(file).map_err(|error| malformed(&error))?;
    for number in 0..zip.len() {
        let mut entry = zip.by_index(number).map_err(|error| malformed(&error))?;
        let path = member_path(entry.name().as_bytes(), Naming::Whole)
            .map_err(|source| ArchiveError::Member { archive: archive.to_owned(), source })?;
        let Some(path) = path else { continue };
        budget.spend(entry.size())?;
        if entry.is_dir() {
            sink.folder(path).map_err(|e| budget.sink(e))?;
        } else if entry.is_symlink() {
            return Err(malformed(&format!("`{path}` is a link, which a wheel has not")));
        } else {
            let mode = entry.unix_mode().map_or(Mode::Plain, Mode::from_bits);
            // The announced size may lie; the budget was charged with it, so no more than it is read.
            let mut limited = entry.by_ref().take(FILE_BYTES_MAX);
            sink.file(path, mode, &mut limited).map_err(|e| budget.sink(e))?;
        }
    }
    Ok(())
}

fn utf8(bytes: &[u8]) -> Result<&str, TreeError> {
    std::str::from_utf8(bytes).map_err(|_| TreeError::Path {
        path: String::from_utf8_lossy(bytes).chars().take(120).collect(),
        reason: "it is not UTF-8",
    })
}

fn member_path(bytes: &[u8], naming: Naming) -> Result<Option<TreePath>, TreeError> {
    let text = utf8(bytes)?;
    let text = text.strip_prefix("./").unwrap_or(text);
    let text = match naming {
        Naming::Whole => text,
        Naming::WithoutFirst => text.split_once('/').map_or("", |(_, rest)| rest),
    };
    if matches!(text, "" | "." | "/") { Ok(None) } else { TreePath::new(text).map(Some) }
}

/// Counts what an archive unpacks to.
struct Budget<'a> {
    archive: &'a str,
    members: usize,
    bytes: u64,
}

impl<'a> Budget<'a> {
    const fn new(archive: &'a str) -> Self {
        Self { archive, members: 0, bytes: 0 }
    }

    fn spend(&mut self, size: u64) -> Result<(), ArchiveError> {
        let too_large = |limit, unit| Err(ArchiveError::TooLarge { archive: self.archive.to_owned(), limit, unit });
        self.members = self.members.saturating_add(1);
        self.bytes = self.bytes.saturating_add(size);
        if self.members > NODES_MAX {
            too_large(NODES_MAX as u64, "members")
        } else if size > FILE_BYTES_MAX || self.bytes > UNPACKED_BYTES_MAX {
            too_large(UNPACKED_BYTES_MAX, "bytes")
        } else {
            Ok(())
        }
    }

    fn sink(&self, error: impl std::error::Error + Send + Sync + 'static) -> ArchiveError {
        ArchiveError::Sink { archive: self.archive.to_owned(), source: Box::new(error) }
    }
}

/// `xz -9` takes a dictionary of 64 MiB, which the archive announces and the decoder then allocates;
/// a little more is the decoder itself.
const XZ_WINDOW_KIB_MAX: u32 = 65 << 10;

fn decompress<'r>(archive: &str, reader: impl Read + 'r) -> Result<Box<dyn Read + 'r>, ArchiveError> {
    let malformed =
        |error: io::Error| ArchiveError::Malformed { archive: archive.to_owned(), reason: error.to_string() };
    let mut reader = BufReader::with_capacity(128 * 1024, reader);
    let magic: Vec<u8> = io::BufRead::fill_buf(&mut reader).map_err(malformed)?.iter().take(6).copied().collect();
    Ok(match magic.as_slice() {
        [0x1f, 0x8b, ..] => Box::new(flate2::read::MultiGzDecoder::new(reader)),
        [0xfd, b'7', b'z', b'X', b'Z', 0] => {
            Box::new(lzma_rust2::XzReader::new_mem_limit(reader, true, XZ_WINDOW_KIB_MAX))
        }
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Box::new(zstd::Decoder::new(reader).map_err(malformed)?),
        _ => Box::new(reader),
    })
}
