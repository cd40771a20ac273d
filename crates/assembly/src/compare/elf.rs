//! ELF files, section by section: strings, tool versions and the build-id apart from code.

use std::collections::BTreeMap;

use object::elf::{FileHeader32, FileHeader64, SHF_COMPRESSED};
use object::read::elf::{FileHeader, ProgramHeader};
use object::{CompressionFormat, Endianness, Object, ObjectSection, ObjectSymbol, SectionFlags, SectionKind};

use super::budget::Stop;
use super::compressed::{self, Broken};
use super::strings::Pieces;
use super::walk::{Format, Note, Pair, Walk};
use super::{Cause, Role, bytes};

pub(super) fn compare(walk: &mut Walk<'_>, pair: Pair<'_>) -> Result<(), Stop> {
    let (left, right) = match (Elf::read(pair.left, walk), Elf::read(pair.right, walk)) {
        (Ok(left), Ok(right)) => (left, right),
        (Err(Broken::Stop(stop)), _) | (_, Err(Broken::Stop(stop))) => return Err(stop),
        (Err(Broken::Stream(why)), _) | (_, Err(Broken::Stream(why))) => {
            return walk.unreadable(pair, Format::Elf, &why);
        }
    };
    let before = walk.found();
    compare_layout(walk, &left, &right);
    // From what explains to what follows: a build-id hashes everything else, debug data point into the strings.
    for role in [Part::Plain, Part::Strings, Part::Refers, Part::Id] {
        let explained = walk.found() > before;
        for (key, section) in &left.sections {
            let Some(other) = right.sections.get(key) else { continue };
            if section.part == role && section.bytes != other.bytes {
                walk.budget.member()?;
                walk.within(&key.0, |walk| {
                    let both = Both { left: &left, right: &right, pair: (section, other), explained };
                    both.compare(walk)
                })?;
            }
        }
        missing_sections(walk, (&left, &right), role, explained);
    }
    if walk.found() == before && left.addresses != right.addresses {
        walk.note(Note::new(Cause::Content, "addresses"));
    }
    Ok(())
}

/// What a section is to a diagnosis.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    /// Loaded code and data, tool versions, and everything unknown.
    Plain,
    /// Lists of strings that other parts point into.
    Strings,
    /// Debug data and symbol tables.
    Refers,
    /// The build-id and the link to separate debug data, whose checksum covers it.
    Id,
}

impl Part {
    fn of(name: &[u8]) -> Self {
        match name {
            b".note.gnu.build-id" | b".gnu_debuglink" => Self::Id,
            b".debug_str" | b".debug_line_str" | b".strtab" | b".dynstr" | b".shstrtab" => Self::Strings,
            b".symtab" | b".dynsym" => Self::Refers,
            other
                if [&b".debug_"[..], b".rel.debug_", b".rela.debug_"].iter().any(|start| other.starts_with(start)) =>
            {
                Self::Refers
            }
            _ => Self::Plain,
        }
    }
}

struct Section<'b> {
    part: Part,
    kind: SectionKind,
    bytes: &'b [u8],
    format: CompressionFormat,
}

struct Elf<'b> {
    file: object::File<'b>,
    /// By name, the n-th of a name apart from the first.
    sections: BTreeMap<(Vec<u8>, usize), Section<'b>>,
    order: Vec<Vec<u8>>,
    /// Type, machine, flags, kinds and permissions of segments and sections.
    layout: String,
    /// Entry point and the addresses of sections.
    addresses: Vec<u64>,
    /// What is in no section and no header.
    loose: Vec<u8>,
}

impl<'b> Elf<'b> {
    fn read(bytes: &'b [u8], walk: &Walk<'_>) -> Result<Self, Broken> {
        let broken = |error: object::Error| Broken::Stream(error.to_string());
        let file = object::File::parse(bytes).map_err(broken)?;
        let (mut layout, mut covered) = match bytes.get(4) {
            Some(1) => tables::<FileHeader32<Endianness>>(bytes).map_err(broken)?,
            _ => tables::<FileHeader64<Endianness>>(bytes).map_err(broken)?,
        };
        let mut seen = BTreeMap::<Vec<u8>, usize>::new();
        let (mut sections, mut order, mut addresses) = (BTreeMap::new(), Vec::new(), vec![file.entry()]);
        for section in file.sections() {
            walk.budget.take_members(1)?;
            let name = section.name_bytes().map_err(broken)?.to_vec();
            // Names may overlap; each is kept four times.
            walk.budget.take_bytes(name.len().saturating_mul(4))?;
            let stored = section.compressed_data().map_err(broken)?;
            let count = seen.entry(name.clone()).or_default();
            *count += 1;
            covered.extend(section.file_range().map(|(start, size)| (start, start.saturating_add(size))));
            addresses.push(section.address());
            layout.push(format!(
                "{} {:?} {}",
                String::from_utf8_lossy(&name),
                section.kind(),
                permissions(section.flags())
            ));
            order.push(name.clone());
            let (part, kind) = (Part::of(&name), section.kind());
            sections.insert((name, *count), Section { part, kind, bytes: stored.data, format: stored.format });
        }
        layout.sort();
        Ok(Self { file, sections, order, layout: layout.join("\n"), addresses, loose: uncovered(bytes, covered) })
    }

    fn symbols(&self, section: &[u8], walk: &Walk<'_>) -> Result<Vec<&[u8]>, Stop> {
        let table = if section == b".dynsym" { self.file.dynamic_symbols() } else { self.file.symbols() };
        let mut names = Vec::new();
        for symbol in table {
            walk.budget.take_members(1)?;
            names.push(symbol.name_bytes().unwrap_or_default());
        }
        Ok(names)
    }
}

/// A section's flags but for the one that says that it is compressed.
fn permissions(flags: SectionFlags) -> String {
    match flags {
        SectionFlags::Elf { sh_flags } => format!("{:x}", sh_flags & !u64::from(SHF_COMPRESSED)),
        other => format!("{other:?}"),
    }
}

type Tables = (Vec<String>, Vec<(u64, u64)>);

/// What the headers say apart from addresses, and where they lie.
fn tables<H: FileHeader<Endian = Endianness>>(bytes: &[u8]) -> object::Result<Tables> {
    let header = H::parse(bytes)?;
    let endian = header.endian()?;
    let mut layout = vec![format!(
        "type {} machine {} flags {:x} ident {:x?}",
        header.e_type(endian),
        header.e_machine(endian),
        header.e_flags(endian),
        header.e_ident(),
    )];
    for segment in header.program_headers(endian, bytes)? {
        layout.push(format!("segment {:x} {:x}", segment.p_type(endian), segment.p_flags(endian)));
    }
    let table =
        |offset: u64, size: u16, count: u64| (offset, offset.saturating_add(u64::from(size).saturating_mul(count)));
    let segments = u64::try_from(header.phnum(endian, bytes)?).unwrap_or(u64::MAX);
    let sections = u64::try_from(header.shnum(endian, bytes)?).unwrap_or(u64::MAX);
    let covered = vec![
        (0, u64::from(header.e_ehsize(endian))),
        table(header.e_phoff(endian).into(), header.e_phentsize(endian), segments),
        table(header.e_shoff(endian).into(), header.e_shentsize(endian), sections),
    ];
    Ok((layout, covered))
}

/// Bytes in none of the ranges, without the zeroes that align.
fn uncovered(bytes: &[u8], mut covered: Vec<(u64, u64)>) -> Vec<u8> {
    covered.sort_unstable();
    let mut loose = Vec::new();
    let mut at = 0;
    for (start, end) in covered {
        let [start, end] = [start, end].map(|place| usize::try_from(place).unwrap_or(usize::MAX).min(bytes.len()));
        loose.extend(bytes.get(at..start).unwrap_or_default().iter().filter(|byte| **byte != 0));
        at = at.max(end);
    }
    loose.extend(bytes.get(at..).unwrap_or_default().iter().filter(|byte| **byte != 0));
    loose
}

fn compare_layout(walk: &mut Walk<'_>, left: &Elf<'_>, right: &Elf<'_>) {
    let same_sections = left.sections.keys().eq(right.sections.keys());
    let moved = left.order.iter().zip(&right.order).find(|(left, right)| left != right);
    if let Some((left, right)) = moved.filter(|_| same_sections) {
        walk.note(Note::new(Cause::Order, "order of sections").excerpts(left, right));
    }
    if same_sections && left.layout != right.layout {
        let changed = left.layout.lines().zip(right.layout.lines()).find(|(left, right)| left != right);
        let (left, right) = changed.unwrap_or((&left.layout, &right.layout));
        walk.note(Note::new(Cause::Content, "headers").excerpts(left.as_bytes(), right.as_bytes()));
    }
    if left.loose != right.loose {
        walk.note(Note::new(Cause::Content, "bytes outside the sections").excerpts(&left.loose, &right.loose));
    }
}

fn missing_sections(walk: &mut Walk<'_>, (left, right): (&Elf<'_>, &Elf<'_>), part: Part, explained: bool) {
    for (these, others, side) in [(left, right, super::members::Side::Left), (right, left, super::members::Side::Right)]
    {
        let only = |(key, section): &(&(Vec<u8>, usize), &Section<'_>)| {
            section.part == part && !others.sections.contains_key(*key)
        };
        for (key, section) in these.sections.iter().filter(only) {
            let cause = match (section.part, key.0.as_slice()) {
                (Part::Id, _) => Cause::BuildId,
                (_, b".comment") => Cause::VersionString,
                _ => Cause::Content,
            };
            let role = if explained && part == Part::Id { Role::Consequence } else { Role::Cause };
            let note = Note::new(cause, format!("section {}", side.only())).role(role);
            walk.within(&key.0, |walk| walk.note(note));
        }
    }
}

/// One section of both files.
struct Both<'e, 'b> {
    left: &'e Elf<'b>,
    right: &'e Elf<'b>,
    pair: (&'e Section<'b>, &'e Section<'b>),
    /// Whether findings so far explain a difference in what refers to them.
    explained: bool,
}

impl Both<'_, '_> {
    fn compare(&self, walk: &mut Walk<'_>) -> Result<(), Stop> {
        let (left, right) = self.pair;
        let pair = Pair { left: left.bytes, right: right.bytes };
        if left.format == CompressionFormat::None && right.format == CompressionFormat::None {
            return self.contents(walk, pair);
        }
        match (unpack(left, walk), unpack(right, walk)) {
            (Ok(left), Ok(right)) if left == right => {
                walk.note(Note::new(Cause::Compression, "the same section, compressed otherwise"));
                Ok(())
            }
            (Ok(left), Ok(right)) => self.contents(walk, Pair { left: &left, right: &right }),
            (Err(Broken::Stop(stop)), _) | (_, Err(Broken::Stop(stop))) => Err(stop),
            (Err(Broken::Stream(_)), _) | (_, Err(Broken::Stream(_))) => {
                bytes::note_bytes(walk, pair);
                Ok(())
            }
        }
    }

    fn contents(&self, walk: &mut Walk<'_>, pair: Pair<'_>) -> Result<(), Stop> {
        let before = walk.found();
        if self.pair.0.part == Part::Strings {
            let count = |bytes: &[u8]| bytes.iter().filter(|byte| **byte == 0).count();
            walk.budget.take_members(count(pair.left).saturating_add(count(pair.right)))?;
        }
        let name = walk.place().as_bytes().to_vec();
        let pieces = |left, right, what, always| Pieces { left, right, what, always, is_manifest: false };
        match self.pair.0.part {
            Part::Id => {
                let role = if self.explained { Role::Consequence } else { Role::Cause };
                let note = Note::new(Cause::BuildId, if name == b".gnu_debuglink" { "debug link" } else { "build-id" });
                let (left, right) = (identity(&name, pair.left), identity(&name, pair.right));
                walk.note(note.role(role).excerpts(&left, &right));
            }
            Part::Strings => pieces(split(pair.left), split(pair.right), "string", None).compare(walk)?,
            Part::Plain if name == b".comment" => {
                pieces(split(pair.left), split(pair.right), "string", Some(Cause::VersionString)).compare(walk)?;
            }
            Part::Refers if name == b".symtab" || name == b".dynsym" => {
                let (left, right) = (self.left.symbols(&name, walk)?, self.right.symbols(&name, walk)?);
                // Names are in the string table, which explains them; their order is this table's own.
                if !self.explained {
                    pieces(left, right, "symbol", None).compare(walk)?;
                }
            }
            Part::Refers if self.explained => {}
            Part::Refers => bytes::compare(walk, pair)?,
            Part::Plain if holds_text(&name, self.pair.0.kind) => bytes::compare(walk, pair)?,
            Part::Plain => bytes::note_bytes(walk, pair),
        }
        if walk.found() == before {
            if self.explained && self.pair.0.part == Part::Refers {
                let note = Note::new(Cause::Content, "refers to what differs above").role(Role::Consequence);
                walk.note(note);
            } else {
                bytes::note_bytes(walk, pair);
            }
        }
        Ok(())
    }
}

/// Data that programs' texts lie in; in code and in tables of addresses, letters are chance.
fn holds_text(name: &[u8], kind: SectionKind) -> bool {
    let tables = [&b".eh_frame"[..], b".rel", b".dynamic", b".got", b".plt", b".gnu.hash", b".gnu.version", b".hash"];
    kind != SectionKind::Text && !tables.iter().any(|start| name.starts_with(start))
}

/// Strings that end with NUL.
fn split(bytes: &[u8]) -> Vec<&[u8]> {
    bytes.split(|byte| *byte == 0).filter(|piece| !piece.is_empty()).collect()
}

/// The build-id without its note's header, or the debug link's name and checksum, in a readable form.
fn identity(name: &[u8], bytes: &[u8]) -> Vec<u8> {
    // Three words of sizes and type, then `GNU\0`.
    const NOTE_HEADER: usize = 16;
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    if name == b".gnu_debuglink" {
        let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
        let (file, checksum) = bytes.split_at_checked(end).unwrap_or((bytes, &[]));
        let checksum = checksum.last_chunk::<4>().map_or_else(String::new, |sum| hex(sum));
        return [file, b" checksum ", checksum.as_bytes()].concat();
    }
    hex(bytes.get(NOTE_HEADER..).unwrap_or(bytes)).into_bytes()
}

fn unpack(section: &Section<'_>, walk: &Walk<'_>) -> Result<Vec<u8>, Broken> {
    match section.format {
        CompressionFormat::None => {
            walk.budget.take_bytes(section.bytes.len())?;
            Ok(section.bytes.to_vec())
        }
        CompressionFormat::Zlib => compressed::unzlib(section.bytes, &walk.budget),
        CompressionFormat::Zstandard => compressed::unzstd(section.bytes, &walk.budget),
        _ => Err("an unknown compression".into()),
    }
}
