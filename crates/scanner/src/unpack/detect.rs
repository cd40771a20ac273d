//! What a file is, by its bytes alone. It may be several things at once.

use detection::NoteCode;

use super::codecs::Codec;
use super::fields::Fields;
use super::note::Fault;
use super::walk::{Step, Walk};
use super::{arj, cab, mail, office, ole, pdf, sequences, seven, streams, tar, text, zip};

/// A container's format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// One compressed stream.
    Stream(Codec),
    Zip,
    Tar,
    Ar,
    Cpio,
    Rpm,
    Arj,
    Lha,
    SevenZip {
        offset: usize,
    },
    Cab {
        offset: usize,
    },
    Iso,
    Ole,
    Szdd,
    Tnef,
    Rtf,
    Pdf,
    Mail,
    Text,
    /// Known by name, and not opened.
    Closed(&'static str),
}

impl Format {
    pub(super) fn open(self, walk: &mut Walk<'_>, bytes: &[u8]) -> Step {
        let from = |offset| bytes.get(offset..).unwrap_or_default();
        match self {
            Self::Stream(codec) => streams::open(walk, codec, bytes),
            Self::Zip => zip::open(walk, bytes),
            Self::Tar => tar::open(walk, bytes),
            Self::Ar => sequences::open_ar(walk, bytes),
            Self::Cpio => sequences::open_cpio(walk, bytes),
            Self::Rpm => sequences::open_rpm(walk, bytes),
            Self::Arj => arj::open(walk, bytes),
            Self::Lha => arj::open_lha(walk, bytes),
            Self::SevenZip { offset } => seven::open(walk, from(offset)),
            Self::Cab { offset } => cab::open(walk, from(offset)),
            Self::Iso => sequences::open_iso(walk, bytes),
            Self::Ole => ole::open(walk, bytes),
            Self::Szdd => streams::open_szdd(walk, bytes),
            Self::Tnef => office::open_tnef(walk, bytes),
            Self::Rtf => office::open_rtf(walk, bytes),
            Self::Pdf => pdf::open(walk, bytes),
            Self::Mail => mail::open(walk, bytes),
            Self::Text => text::open(walk, bytes),
            Self::Closed(name) => {
                walk.note(Fault { code: NoteCode::Unsupported, detail: name.into() });
                Ok(())
            }
        }
    }
}

/// What begins like this, at the very start.
const MAGICS: &[(&[u8], Format)] = &[
    (b"\x1f\x8b\x08", Format::Stream(Codec::Gzip)),
    (b"\xfd7zXZ\0", Format::Stream(Codec::Xz)),
    (b"\x28\xb5\x2f\xfd", Format::Stream(Codec::Zstd)),
    (b"BZh", Format::Stream(Codec::Bzip2)),
    (b"LZIP\x01", Format::Stream(Codec::Lzip)),
    (SEVEN_ZIP, Format::SevenZip { offset: 0 }),
    (CABINET, Format::Cab { offset: 0 }),
    (b"!<arch>\n", Format::Ar),
    (b"070701", Format::Cpio),
    (b"070702", Format::Cpio),
    (b"070707", Format::Cpio),
    (b"\xc7\x71", Format::Cpio),
    (b"\x71\xc7", Format::Cpio),
    (b"\xed\xab\xee\xdb", Format::Rpm),
    (b"\x60\xea", Format::Arj),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", Format::Ole),
    (b"SZDD\x88\xf0\x27\x33", Format::Szdd),
    (b"\x78\x9f\x3e\x22", Format::Tnef),
    (RAR, Format::Closed("rar: the only full decoder isn't free software")),
    (b"**ACE**", Format::Closed("ace: its format was never published")),
    (b"\x1f\x9d", Format::Closed("compress (.Z)")),
];

const SEVEN_ZIP: &[u8] = b"7z\xbc\xaf\x27\x1c";
const CABINET: &[u8] = b"MSCF\0\0\0\0";
const RAR: &[u8] = b"Rar!\x1a\x07";

/// A format that begins at some place of the file.
type At = fn(usize) -> Format;

/// What programs carry behind themselves, apart from zip, which is found from its end.
const CARRIED: &[(&[u8], At)] = &[
    (SEVEN_ZIP, |offset| Format::SevenZip { offset }),
    (CABINET, |offset| Format::Cab { offset }),
    (RAR, |_| Format::Closed("rar: the only full decoder isn't free software")),
];

/// Everything that `bytes` are.
pub(super) fn formats(bytes: &[u8]) -> impl Iterator<Item = Format> {
    let by_magic = MAGICS.iter().filter(|(magic, _)| bytes.starts_with(magic)).map(|(_, format)| *format);
    let by_layout = [
        (zip::is_zip as fn(&[u8]) -> bool, Format::Zip),
        (tar::is_tar, Format::Tar),
        (sequences::is_iso, Format::Iso),
        (arj::is_lha, Format::Lha),
        (is_zstd_skippable, Format::Stream(Codec::Zstd)),
        (is_lzma_alone, Format::Stream(Codec::LzmaAlone)),
        (pdf::is_pdf, Format::Pdf),
        (office::is_rtf, Format::Rtf),
        (mail::is_mail, Format::Mail),
        // The parts of a mail are texts of their own.
        (|bytes| !mail::is_mail(bytes) && text::is_text(bytes), Format::Text),
    ];
    let by_layout = by_layout.into_iter().filter(|(is, _)| is(bytes)).map(|(_, format)| format);
    by_magic.chain(by_layout).chain(carried(bytes))
}

/// Self-extracting archives: the first of each kind behind a program.
fn carried(bytes: &[u8]) -> impl Iterator<Item = Format> {
    let is_program = bytes.starts_with(b"MZ") || bytes.starts_with(b"\x7fELF") || bytes.starts_with(b"#!");
    CARRIED.iter().filter_map(move |(magic, format)| {
        let offset = is_program.then(|| memchr::memmem::find(bytes, magic)).flatten()?;
        Some(format(offset))
    })
}

fn is_zstd_skippable(bytes: &[u8]) -> bool {
    Fields::new(bytes).u32().is_some_and(|magic| magic & 0xffff_fff0 == 0x184d_2a50)
}

/// There is no magic; so everything that the header can say is asked for (as xz does), and that the first
/// byte of the range coder is zero.
fn is_lzma_alone(bytes: &[u8]) -> bool {
    let mut fields = Fields::new(bytes);
    let header = (fields.u8(), fields.u32(), fields.u64(), fields.u8());
    let (Some(properties), Some(window), Some(size), Some(0)) = header else {
        return false;
    };
    let halves = window.count_ones() == 2 && (window & (window >> 1)) != 0;
    properties < 225
        && window >= 4096
        && (window.is_power_of_two() || halves || window == u32::MAX)
        && (size == u64::MAX || size < 1 << 38)
}
