//! Microsoft cabinets, read folder by folder: every member of a folder comes out of one stream.
//!
//! Own headers, because the crate for them starts a folder anew for each of its members, which takes a
//! cabinet's number of members times its size.

use std::io::{self, Read};

use detection::NoteCode;
use flate2::{Decompress, FlushDecompress, Status};
use lzxd::{Lzxd, WindowSize};

use super::fields::{Fields, index};
use super::note::Fault;
use super::walk::{Step, Walk};

const RESERVED: u16 = 4;
const PREVIOUS: u16 = 1;
const NEXT: u16 = 2;

struct Cabinet<'a> {
    folders: Vec<Folder>,
    files: Vec<File<'a>>,
    data_reserve: usize,
}

struct Folder {
    start: usize,
    blocks: u16,
    method: u16,
}

struct File<'a> {
    name: &'a [u8],
    size: u32,
    /// In what comes out of the folder.
    offset: u32,
    folder: u16,
}

pub(super) fn open(walk: &mut Walk<'_>, bytes: &[u8]) -> Step {
    let Some((mut cabinet, is_whole)) = headers(bytes) else {
        walk.note(Fault::new(NoteCode::Truncated, "the headers end early"));
        return Ok(());
    };
    if !is_whole {
        walk.note(Fault::new(NoteCode::Unsupported, "it goes on in another file"));
    }
    cabinet.files.sort_by_key(|file| (file.folder, file.offset));
    for (number, folder) in (0u16..).zip(&cabinet.folders) {
        let members = cabinet.files.iter().filter(|file| file.folder == number);
        let blocks = match Blocks::new(bytes, folder, cabinet.data_reserve) {
            Ok(blocks) => blocks,
            Err(fault) => {
                walk.note(fault);
                continue;
            }
        };
        open_folder(walk, blocks, members)?;
    }
    Ok(())
}

fn open_folder<'a>(walk: &mut Walk<'_>, mut blocks: Blocks<'_>, members: impl Iterator<Item = &'a File<'a>>) -> Step {
    let mut at: u64 = 0;
    for member in members {
        walk.tick()?;
        let skip = u64::from(member.offset).checked_sub(at);
        let Some(skip) = skip else {
            walk.note_of(member.name, Fault::malformed("it overlaps the member before it"));
            continue;
        };
        // What no member claims is looked at, too.
        if skip > 0 {
            let between = walk.decode(&mut (&mut blocks).take(skip))?;
            at += u64::try_from(between.bytes.len()).unwrap_or(u64::MAX);
            let fails = between.fault.is_some();
            walk.member(b"unclaimed", between)?;
            if fails || at < u64::from(member.offset) {
                walk.note_of(member.name, Fault::new(NoteCode::Truncated, "the folder ends before it"));
                return Ok(());
            }
        }
        let decoded = walk.decode(&mut (&mut blocks).take(member.size.into()))?;
        let came = u64::try_from(decoded.bytes.len()).unwrap_or(u64::MAX);
        at += came;
        let fails = decoded.fault.is_some();
        let is_short = came < u64::from(member.size);
        let early = is_short.then(|| Fault::new(NoteCode::Truncated, "the folder ends before its end"));
        walk.member(member.name, decoded.or_fault(early))?;
        if fails || is_short {
            return Ok(());
        }
    }
    Ok(())
}

/// `false`: parts of it are in other cabinets.
fn headers(bytes: &[u8]) -> Option<(Cabinet<'_>, bool)> {
    let mut fields = Fields::at(bytes, 16)?;
    let first_file = index(fields.u32()?);
    fields.take(4 + 2)?;
    let (folder_count, file_count, flags) = (fields.u16()?, fields.u16()?, fields.u16()?);
    fields.take(4)?;
    let (mut folder_reserve, mut data_reserve) = (0, 0);
    if flags & RESERVED != 0 {
        let header_reserve = fields.u16()?;
        (folder_reserve, data_reserve) = (fields.u8()?, fields.u8()?);
        fields.take(header_reserve.into())?;
    }
    for neighbour in [PREVIOUS, NEXT] {
        if flags & neighbour != 0 {
            fields.text()?;
            fields.text()?;
        }
    }
    let mut folders = Vec::new();
    for _ in 0..folder_count {
        let (start, blocks, method) = (index(fields.u32()?), fields.u16()?, fields.u16()?);
        fields.take(folder_reserve.into())?;
        folders.push(Folder { start, blocks, method });
    }
    let (mut files, mut is_whole) = (Vec::new(), flags & (PREVIOUS | NEXT) == 0);
    let mut fields = Fields::at(bytes, first_file)?;
    for _ in 0..file_count {
        let Some(file) = file(&mut fields) else {
            is_whole = false;
            break;
        };
        files.push(file);
    }
    Some((Cabinet { folders, files, data_reserve: data_reserve.into() }, is_whole))
}

fn file<'a>(fields: &mut Fields<'a>) -> Option<File<'a>> {
    let (size, offset, folder) = (fields.u32()?, fields.u32()?, fields.u16()?);
    fields.take(2 + 2 + 2)?;
    Some(File { name: fields.text()?, size, offset, folder })
}

enum Method {
    None,
    MsZip { inflate: Box<Decompress> },
    Lzx(Box<Lzxd>),
}

/// What comes out of a folder's blocks.
struct Blocks<'a> {
    fields: Fields<'a>,
    left: u16,
    data_reserve: usize,
    method: Method,
    /// The block that is being read, and how far.
    block: Vec<u8>,
    at: usize,
}

/// What a block gives at most; only the last one may give less.
const BLOCK_BYTES: usize = 32 << 10;

impl<'a> Blocks<'a> {
    fn new(bytes: &'a [u8], folder: &Folder, data_reserve: usize) -> Result<Self, Fault> {
        let fields = Fields::at(bytes, folder.start).ok_or(Fault::new(NoteCode::Truncated, "a folder is missing"))?;
        let method = match folder.method & 0x0f {
            0 => Method::None,
            1 => Method::MsZip { inflate: Box::new(Decompress::new(false)) },
            2 => return Err(Fault::new(NoteCode::Unsupported, "a cabinet's method 2, Quantum")),
            3 => Method::Lzx(Box::new(Lzxd::new(window(folder.method >> 8).ok_or(UNKNOWN)?))),
            _ => return Err(UNKNOWN),
        };
        Ok(Self { fields, left: folder.blocks, data_reserve, method, block: Vec::new(), at: 0 })
    }

    /// The next block, decoded.
    fn next(&mut self) -> io::Result<()> {
        let cut = || io::Error::from(io::ErrorKind::UnexpectedEof);
        self.left = self.left.saturating_sub(1);
        self.fields.take(4).ok_or_else(cut)?;
        let packed = self.fields.u16().ok_or_else(cut)?;
        let size = usize::from(self.fields.u16().ok_or_else(cut)?);
        self.fields.take(self.data_reserve).ok_or_else(cut)?;
        let data = self.fields.take(packed.into()).ok_or_else(cut)?;
        if size > BLOCK_BYTES {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let block = match &mut self.method {
            Method::None => data.to_vec(),
            Method::MsZip { inflate } => mszip(inflate, &self.block, data)?,
            Method::Lzx(lzx) => lzx.decompress_next(data, size).map_err(|_| io::ErrorKind::InvalidData)?.to_vec(),
        };
        (self.block, self.at) = (block, 0);
        Ok(())
    }
}

/// The block before is the window of the next one, which is told to the decoder as a stored block.
fn mszip(inflate: &mut Decompress, before: &[u8], data: &[u8]) -> io::Result<Vec<u8>> {
    let wrong = || io::Error::from(io::ErrorKind::InvalidData);
    let data = data.strip_prefix(b"CK").ok_or_else(wrong)?;
    inflate.reset(false);
    let mut out = Vec::with_capacity(before.len() + BLOCK_BYTES);
    if let Some(length) = u16::try_from(before.len()).ok().filter(|length| *length > 0) {
        let mut stored = vec![0];
        stored.extend_from_slice(&length.to_le_bytes());
        stored.extend_from_slice(&(!length).to_le_bytes());
        stored.extend_from_slice(before);
        inflate.decompress_vec(&stored, &mut out, FlushDecompress::Sync).map_err(|_| wrong())?;
        if out.len() != before.len() {
            return Err(wrong());
        }
    }
    let status = inflate.decompress_vec(data, &mut out, FlushDecompress::Finish).map_err(|_| wrong())?;
    if status != Status::StreamEnd && out.len() == before.len() {
        return Err(wrong());
    }
    out.drain(..before.len());
    Ok(out)
}

const UNKNOWN: Fault = Fault::new(NoteCode::Unsupported, "a method that cabinets don't have");

fn window(bits: u16) -> Option<WindowSize> {
    Some(match bits & 0x1f {
        15 => WindowSize::KB32,
        16 => WindowSize::KB64,
        17 => WindowSize::KB128,
        18 => WindowSize::KB256,
        19 => WindowSize::KB512,
        20 => WindowSize::MB1,
        21 => WindowSize::MB2,
        _ => return None,
    })
}

impl Read for Blocks<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at >= self.block.len() {
            if self.left == 0 {
                return Ok(0);
            }
            self.next()?;
        }
        let rest = self.block.get(self.at..).unwrap_or_default();
        let count = rest.len().min(buffer.len());
        if let (Some(to), Some(from)) = (buffer.get_mut(..count), rest.get(..count)) {
            to.copy_from_slice(from);
        }
        self.at += count;
        Ok(count)
    }
}
