//! One file for machines without a network: policies, status, bundles and artifacts of a channel.
//!
//! Two lines of text, then the members' bytes one after the other (`docs/formats/channel.md`). TUF
//! metadata is left out: it is about transport over a network, expires within a day, and grants
//! nothing; what counts is the evidence, which the importer checks as always.

use std::fs::File;
use std::io::{self, BufRead, Read, Write};

use attest::{Lane, ProductId, Ring};
use serde::{Deserialize, Serialize};
use stdx::{Digest, Hasher};
use tuf::Repository;

use crate::error::Error;
use crate::layout::{self, Product};
use crate::publish::Channel;

const FIRST_LINE: &str = "clerestory-export/v1\n";

/// A thousand products with four files each.
const MEMBERS_MAX: usize = 4_096;

/// Each member's line takes less than 300 bytes; 4,096 of them and a bit.
const HEADER_BYTES_MAX: u64 = 1_300 * 1_024;

/// The largest target of a channel.
const MEMBER_BYTES_MAX: u64 = 4 << 30;

/// What to export.
#[derive(Clone, Copy, Debug)]
pub struct ExportRequest<'a> {
    /// The newest release of each of these.
    pub products: &'a [ProductId],
    /// As far as it has come to this ring.
    pub ring: Ring,
}

/// A file within an export.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Member {
    /// Its path: below the channel's URL, or that of a target.
    pub path: String,
    /// Size in bytes.
    pub size: u64,
    /// SHA-256.
    pub sha256: Digest,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    members: Vec<Member>,
}

/// Why an export can't be read.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// It could not be read, or ended too early.
    #[error("the export could not be read: {0}")]
    Read(#[from] io::Error),
    /// It is something else.
    #[error("not an export of a channel, or one of another version")]
    Version,
    /// Its list of members is damaged, in another form, or too long.
    #[error("the export's list of members is refused: {0}")]
    Header(String),
    /// A member with other bytes than the list says.
    #[error("member `{0}` does not have the SHA-256 that the list names")]
    OtherContent(String),
    /// A member that is larger than what it claims to be can be.
    #[error("member `{path}` has {size} bytes; at most {limit} are read")]
    TooLong {
        /// Which.
        path: String,
        /// Its size.
        size: u64,
        /// The limit.
        limit: u64,
    },
    /// Something follows the last member.
    #[error("the export goes on after its last member")]
    Trailing,
    /// The member could not be written where the caller wanted it.
    #[error("the member could not be written: {0}")]
    Output(io::Error),
}

/// Writes the export of `request` to `output`; gives its members.
///
/// # Errors
/// [`Error`], also when a product has no release for the ring.
pub fn write_export(
    channel: &Channel,
    request: &ExportRequest<'_>,
    output: &mut dyn Write,
) -> Result<Vec<Member>, Error> {
    let mut files = Vec::new();
    for version in 2.. {
        let file = layout::policy(version);
        if !channel.tree().path(&file).is_file() {
            break;
        }
        files.push((file.clone(), file));
    }
    let status = [Lane::Slow, Lane::Fast].map(layout::status);
    files
        .extend(status.into_iter().filter(|file| channel.tree().path(file).is_file()).map(|file| (file.clone(), file)));
    for product in request.products {
        files.extend(release_files(channel, product, request.ring)?);
    }
    let mut members = Vec::with_capacity(files.len());
    for (path, location) in &files {
        let found = channel.tree().path(location);
        let (sha256, size) =
            File::open(&found).and_then(Digest::of_reader).map_err(|error| Error::File { path: found, error })?;
        members.push(Member { path: path.clone(), size, sha256 });
    }
    let written = |error| Error::File { path: "the export".into(), error };
    output.write_all(FIRST_LINE.as_bytes()).map_err(written)?;
    output.write_all(&header_line(&members)).map_err(written)?;
    for (_, location) in &files {
        let found = channel.tree().path(location);
        let mut file = File::open(&found).map_err(|error| Error::File { path: found, error })?;
        io::copy(&mut file, output).map_err(written)?;
    }
    output.flush().map_err(written)?;
    Ok(members)
}

/// Path and file of each target of a product's newest release, the bundle first, then the
/// artifacts by their place.
fn release_files(channel: &Channel, product: &ProductId, ring: Ring) -> Result<Vec<(String, String)>, Error> {
    let mut newest = None;
    // Rules may have come through either lane.
    for lane in [Lane::Slow, Lane::Fast] {
        let releases = channel.releases(Product { lane, id: product })?;
        let of_lane = releases.releases().iter().rev().find(|it| it.ring >= ring).map(|it| (it.number, lane));
        newest = newest.max(of_lane);
    }
    let Some((number, lane)) = newest else { return Err(Error::NoRelease(product.to_string())) };
    let prefix = Product { lane, id: product }.release_prefix(number);
    let mut found = Vec::new();
    for (path, file) in channel.delegated(lane)?.content().targets.iter().filter(|(path, _)| path.starts_with(&prefix))
    {
        let name = path.strip_prefix(&prefix).unwrap_or_default();
        // `bundle` has no number, and comes first.
        let place = name.split('-').next().and_then(|place| place.parse::<u64>().ok());
        let Ok(target) = path.parse() else { continue };
        found.push((place, path.clone(), Repository::location(&target, file).to_string()));
    }
    found.sort();
    Ok(found.into_iter().map(|(_, path, location)| (path, location)).collect())
}

fn header_line(members: &[Member]) -> Vec<u8> {
    let mut line = serde_json::to_vec(&Header { members: members.to_vec() }).expect("strings and integers are JSON");
    line.push(b'\n');
    line
}

/// An export that is being read, member by member. Nothing in it is trusted: a member's digest
/// tells only that the file is whole.
#[derive(Debug)]
pub struct Export<R> {
    reader: R,
    members: std::vec::IntoIter<Member>,
}

impl<R: BufRead> Export<R> {
    /// Reads the list of members.
    ///
    /// # Errors
    /// [`ExportError`].
    pub fn open(mut reader: R) -> Result<Self, ExportError> {
        let mut first = vec![0; FIRST_LINE.len()];
        reader.read_exact(&mut first)?;
        if first != FIRST_LINE.as_bytes() {
            return Err(ExportError::Version);
        }
        let mut line = Vec::new();
        reader.by_ref().take(HEADER_BYTES_MAX + 1).read_until(b'\n', &mut line)?;
        if line.len() as u64 > HEADER_BYTES_MAX {
            return Err(ExportError::Header(format!("longer than {HEADER_BYTES_MAX} bytes")));
        }
        let header: Header = serde_json::from_slice(&line).map_err(|error| ExportError::Header(error.to_string()))?;
        if header_line(&header.members) != line {
            return Err(ExportError::Header("not in canonical form".to_owned()));
        }
        if header.members.len() > MEMBERS_MAX {
            return Err(ExportError::Header(format!("{} members, at most {MEMBERS_MAX}", header.members.len())));
        }
        if let Some(long) = header.members.iter().find(|member| member.size > MEMBER_BYTES_MAX) {
            return Err(too_long(long, MEMBER_BYTES_MAX));
        }
        Ok(Self { reader, members: header.members.into_iter() })
    }

    /// The members that are still to be read, in order.
    #[must_use]
    pub fn ahead(&self) -> &[Member] {
        self.members.as_slice()
    }

    /// The next member, whole, if it has at most `limit` bytes.
    ///
    /// # Errors
    /// [`ExportError`].
    pub fn read_next(&mut self, limit: usize) -> Result<Option<(Member, Vec<u8>)>, ExportError> {
        if let Some(long) = self.ahead().first().filter(|member| member.size > limit as u64) {
            return Err(too_long(long, limit as u64));
        }
        let mut bytes = Vec::new();
        Ok(self.copy_next(&mut bytes)?.map(|member| (member, bytes)))
    }

    /// Writes the next member to `output` as it comes. **Until this returns, what was written is
    /// not verified**, not even that it is whole.
    ///
    /// # Errors
    /// [`ExportError`].
    pub fn copy_next(&mut self, output: &mut dyn Write) -> Result<Option<Member>, ExportError> {
        let Some(member) = self.members.next() else { return Ok(None) };
        let mut rest = self.reader.by_ref().take(member.size);
        let mut hasher = Hasher::default();
        loop {
            let part = rest.fill_buf()?;
            if part.is_empty() {
                break;
            }
            hasher.update(part);
            output.write_all(part).map_err(ExportError::Output)?;
            let count = part.len();
            rest.consume(count);
        }
        // A size may also be a lie about bytes that are all there.
        if rest.limit() > 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        if hasher.finish() == member.sha256 { Ok(Some(member)) } else { Err(ExportError::OtherContent(member.path)) }
    }

    /// Reads past the next member.
    ///
    /// # Errors
    /// [`ExportError`].
    pub fn skip_next(&mut self) -> Result<Option<Member>, ExportError> {
        self.copy_next(&mut io::sink())
    }

    /// Ends the export: nothing may follow its last member.
    ///
    /// # Errors
    /// [`ExportError::Trailing`] also when members were not read.
    pub fn finish(mut self) -> Result<(), ExportError> {
        if self.members.len() == 0 && self.reader.fill_buf()?.is_empty() { Ok(()) } else { Err(ExportError::Trailing) }
    }
}

fn too_long(member: &Member, limit: u64) -> ExportError {
    ExportError::TooLong { path: member.path.chars().take(200).collect(), size: member.size, limit }
}
