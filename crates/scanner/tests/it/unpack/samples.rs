//! One small container of each format, made here.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};

/// What every sample holds: letters of all kinds, with something for compressors to find.
pub(super) const CONTENT: &[u8] =
    b"\0\x01\xfe\xffcontent to be found, content to be found, and not by its container's bytes \x90\x90";

pub(super) struct Sample {
    pub(super) name: &'static str,
    pub(super) bytes: Vec<u8>,
    /// Where the content is, by the members' names.
    pub(super) place: &'static str,
    /// A format that says how much there is, so that less of it is noticed.
    pub(super) is_exact: bool,
}

pub(super) fn samples() -> Vec<Sample> {
    let exact = |name, bytes, place| Sample { name, bytes, place, is_exact: true };
    let loose = |name, bytes, place| Sample { name, bytes, place, is_exact: false };
    let cpio = cpio(&[("dir/inner", CONTENT)]);
    vec![
        exact("zip, deflated", zip(&[Member::deflated("dir/inner", CONTENT)]), "dir/inner"),
        exact("zip, stored", zip(&[Member::stored("inner", CONTENT)]), "inner"),
        exact("zip, bzip2", zip(&[Member::coded("inner", 12, bzip2(CONTENT))]), "inner"),
        exact("zip, lzma", zip(&[Member::coded("inner", 14, zip_lzma(CONTENT))]), "inner"),
        exact("zip, zstd", zip(&[Member::coded("inner", 93, zstd(CONTENT))]), "inner"),
        exact("zip, xz", zip(&[Member::coded("inner", 95, xz(CONTENT))]), "inner"),
        exact("gzip", gzip(CONTENT), "content"),
        exact("bzip2", bzip2(CONTENT), "content"),
        exact("xz", xz(CONTENT), "content"),
        exact("lzma", lzma(CONTENT), "content"),
        exact("lzip", lzip(CONTENT), "content"),
        exact("zstd", zstd(CONTENT), "content"),
        exact("tar", tar(&[("dir/inner", CONTENT)]), "dir/inner"),
        exact("tar.gz", gzip(&tar(&[("inner", CONTENT)])), "content!inner"),
        exact("ar", ar(&[("inner", CONTENT), ("a name that is longer than sixteen", b"x")]), "inner"),
        loose(
            "deb",
            ar(&[("debian-binary", b"2.0\n"), ("data.tar.xz", &xz(&tar(&[("./inner", CONTENT)])))]),
            "data.tar.xz!data.tar!./inner",
        ),
        exact("cpio", cpio.clone(), "dir/inner"),
        loose("rpm", rpm(&gzip(&cpio)), "payload!content!dir/inner"),
        exact("iso", iso("INNER.EXE;1", CONTENT), "DIR/INNER.EXE"),
        exact("cab, stored", cab(0, CONTENT, CONTENT), "inner"),
        exact("cab, mszip", cab(1, &[b"CK", deflate(CONTENT).as_slice()].concat(), CONTENT), "inner"),
        exact("arj, stored", arj("inner", CONTENT), "inner"),
        exact("lha, stored", lha("inner", CONTENT), "inner"),
        exact("szdd", szdd(CONTENT), "content"),
        exact("tnef", tnef("inner", CONTENT), "inner"),
        loose("mail", mail(CONTENT), "inner"),
        loose(
            "mailbox",
            [b"From a@b Thu Jul 31 13:51:21 2008\n", mail(CONTENT).as_slice()].concat(),
            "message-1!inner",
        ),
        exact("uuencode", uu(CONTENT), "inner"),
        loose("data address", data_address(CONTENT), "data-1"),
        loose("rtf", rtf(CONTENT), "object-1"),
        exact("pdf", pdf(CONTENT), "stream-1"),
    ]
}

/// One member of a zip, with everything that its two headers say.
#[derive(Clone)]
pub(super) struct Member {
    pub(super) name: Vec<u8>,
    pub(super) flags: u16,
    pub(super) method: u16,
    pub(super) data: Vec<u8>,
    pub(super) size: u32,
    /// What the local header says instead.
    pub(super) local_name: Option<Vec<u8>>,
    pub(super) local_method: Option<u16>,
}

impl Member {
    pub(super) fn stored(name: &str, content: &[u8]) -> Self {
        Self::of(name, 0, content.to_vec(), content.len())
    }

    pub(super) fn deflated(name: &str, content: &[u8]) -> Self {
        Self::of(name, 8, deflate(content), content.len())
    }

    pub(super) fn coded(name: &str, method: u16, data: Vec<u8>) -> Self {
        Self::of(name, method, data, CONTENT.len())
    }

    fn of(name: &str, method: u16, data: Vec<u8>, size: usize) -> Self {
        let name = name.as_bytes().to_vec();
        Self { name, flags: 0, method, data, size: size as u32, local_name: None, local_method: None }
    }

    /// Flags, method, time, checksum, sizes, length of the name, no extra field.
    fn fields(&self, method: u16, name: &[u8]) -> Vec<u8> {
        let mut fields = [self.flags.to_le_bytes(), method.to_le_bytes()].concat();
        fields.extend([0; 8]);
        fields.extend((self.data.len() as u32).to_le_bytes());
        fields.extend(self.size.to_le_bytes());
        fields.extend((name.len() as u16).to_le_bytes());
        fields.extend([0; 2]);
        fields
    }

    pub(super) fn local(&self) -> Vec<u8> {
        let name = self.local_name.as_ref().unwrap_or(&self.name);
        let fields = self.fields(self.local_method.unwrap_or(self.method), name);
        [b"PK\x03\x04\x14\0", fields.as_slice(), name, &self.data].concat()
    }

    fn central(&self, offset: usize) -> Vec<u8> {
        let fields = self.fields(self.method, &self.name);
        [b"PK\x01\x02\x14\0\x14\0", fields.as_slice(), &[0; 10], &(offset as u32).to_le_bytes(), &self.name].concat()
    }
}

pub(super) fn zip(members: &[Member]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut offsets = Vec::new();
    for member in members {
        offsets.push(bytes.len());
        bytes.extend(member.local());
    }
    with_directory(bytes, &members.iter().zip(offsets).collect::<Vec<_>>())
}

/// A directory that says of each member where its local header is.
pub(super) fn with_directory(mut bytes: Vec<u8>, members: &[(&Member, usize)]) -> Vec<u8> {
    let start = bytes.len();
    members.iter().for_each(|(member, offset)| bytes.extend(member.central(*offset)));
    let length = (bytes.len() - start) as u32;
    let count = (members.len() as u16).to_le_bytes();
    bytes.extend([b"PK\x05\x06\0\0\0\0", count.as_slice(), &count].concat());
    bytes.extend([length.to_le_bytes(), (start as u32).to_le_bytes()].concat());
    bytes.extend([0, 0]);
    bytes
}

pub(super) fn deflate(content: &[u8]) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

pub(super) fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

pub(super) fn bzip2(content: &[u8]) -> Vec<u8> {
    let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::best());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

pub(super) fn xz(content: &[u8]) -> Vec<u8> {
    let mut encoder = lzma_rust2::XzWriter::new(Vec::new(), lzma_rust2::XzOptions::with_preset(6)).unwrap();
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

pub(super) fn lzma(content: &[u8]) -> Vec<u8> {
    let options = lzma_rust2::LzmaOptions::with_preset(6);
    let mut encoder = lzma_rust2::LzmaWriter::new_use_header(Vec::new(), &options, None).unwrap();
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

fn lzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = lzma_rust2::LzipWriter::new(Vec::new(), lzma_rust2::LzipOptions::with_preset(6));
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

/// Version, length of the properties, and what follows the size in a file of its own.
fn zip_lzma(content: &[u8]) -> Vec<u8> {
    let bytes = lzma(content);
    [&[9, 20, 5, 0], &bytes[..5], &bytes[13..]].concat()
}

pub(super) fn zstd(content: &[u8]) -> Vec<u8> {
    zstd::encode_all(content, 19).unwrap()
}

pub(super) fn tar(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, content) in members {
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        // The field itself, because the crate refuses names that are hostile.
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_cksum();
        builder.append(&header, *content).unwrap();
    }
    builder.into_inner().unwrap()
}

fn ar(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = ar::Builder::new(Vec::new());
    for (name, content) in members {
        builder.append(&ar::Header::new(name.as_bytes().to_vec(), content.len() as u64), *content).unwrap();
    }
    builder.into_inner().unwrap()
}

fn cpio(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, content) in members.iter().chain(&[("TRAILER!!!", b"".as_slice())]) {
        let mut fields = [0; 13];
        (fields[6], fields[11]) = (content.len(), name.len() + 1);
        bytes.extend(b"070701");
        fields.iter().for_each(|field| bytes.extend(format!("{field:08x}").bytes()));
        bytes.extend([name.as_bytes(), b"\0"].concat());
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes.extend(*content);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }
    bytes
}

fn rpm(payload: &[u8]) -> Vec<u8> {
    let mut lead = b"\xed\xab\xee\xdb\x03\0".to_vec();
    lead.resize(96, 0);
    // No entries, and five bytes of values, which the first header rounds up.
    let header = b"\x8e\xad\xe8\x01\0\0\0\0\0\0\0\0\0\0\0\x05abcde";
    [&lead, header.as_slice(), &[0; 3], header, payload].concat()
}

/// A disc with one directory with one file.
fn iso(name: &str, content: &[u8]) -> Vec<u8> {
    let record = |sector: u32, bytes: usize, flags: u8, name: &[u8]| {
        let mut record = vec![0; 33 + name.len() + (name.len() + 1) % 2];
        record[0] = record.len() as u8;
        record[2..6].copy_from_slice(&sector.to_le_bytes());
        record[10..14].copy_from_slice(&(bytes as u32).to_le_bytes());
        record[25] = flags;
        record[32] = name.len() as u8;
        record[33..33 + name.len()].copy_from_slice(name);
        record
    };
    let mut bytes = vec![0; 20 * 2048];
    bytes[16 * 2048] = 1;
    bytes[16 * 2048 + 1..][..5].copy_from_slice(b"CD001");
    let root = record(17, 2048, 2, b"\0");
    bytes[16 * 2048 + 156..][..root.len()].copy_from_slice(&root);
    for (sector, inner) in [(17, record(18, 2048, 2, b"DIR")), (18, record(19, content.len(), 0, name.as_bytes()))] {
        let records = [record(sector, 2048, 2, b"\0"), record(17, 2048, 2, b"\x01"), inner].concat();
        bytes[sector as usize * 2048..][..records.len()].copy_from_slice(&records);
    }
    bytes.truncate(19 * 2048);
    bytes.extend(content);
    bytes
}

fn cab(method: u16, packed: &[u8], content: &[u8]) -> Vec<u8> {
    let mut bytes = b"MSCF\0\0\0\0".to_vec();
    let file_at = 36 + 8;
    let data_at = file_at + 16 + 6;
    bytes.extend((data_at + 8 + packed.len() as u32).to_le_bytes());
    bytes.extend([0; 4]);
    bytes.extend(file_at.to_le_bytes());
    bytes.extend([0, 0, 0, 0, 3, 1, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
    bytes.extend(data_at.to_le_bytes());
    bytes.extend([1, 0]);
    bytes.extend(method.to_le_bytes());
    bytes.extend((content.len() as u32).to_le_bytes());
    bytes.extend([0; 12]);
    bytes.extend(b"inner\0");
    bytes.extend([0; 4]);
    bytes.extend([(packed.len() as u16).to_le_bytes(), (content.len() as u16).to_le_bytes()].concat());
    bytes.extend(packed);
    bytes
}

fn arj(name: &str, content: &[u8]) -> Vec<u8> {
    let header = |kind: u8, name: &str| {
        let mut basic = vec![30, 11, 1, 2, 0, 0, kind, 0];
        basic.extend([0; 4]);
        basic.extend([(content.len() as u32).to_le_bytes(), (content.len() as u32).to_le_bytes()].concat());
        basic.resize(30, 0);
        basic.extend([name.as_bytes(), b"\0\0"].concat());
        [b"\x60\xea", (basic.len() as u16).to_le_bytes().as_slice(), &basic, &[0; 6]].concat()
    };
    [header(2, "archive"), header(0, name), content.to_vec(), b"\x60\xea\0\0".to_vec()].concat()
}

/// A header of level 0.
fn lha(name: &str, content: &[u8]) -> Vec<u8> {
    let mut header = b"-lh0-".to_vec();
    header.extend([(content.len() as u32).to_le_bytes(), (content.len() as u32).to_le_bytes()].concat());
    header.extend([0, 0, 0x21, 0x28, 0x20, 0, name.len() as u8]);
    header.extend([name.as_bytes(), &[0; 2]].concat());
    let sum = header.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
    [&[header.len() as u8, sum], header.as_slice(), content, &[0]].concat()
}

/// All letters as they are.
fn szdd(content: &[u8]) -> Vec<u8> {
    let mut bytes = b"SZDD\x88\xf0\x27\x33A\0".to_vec();
    bytes.extend((content.len() as u32).to_le_bytes());
    content.chunks(8).for_each(|eight| bytes.extend([&[0xff], eight].concat()));
    bytes
}

fn tnef(name: &str, content: &[u8]) -> Vec<u8> {
    let attribute = |id: u32, data: &[u8]| {
        [&[2], id.to_le_bytes().as_slice(), &(data.len() as u32).to_le_bytes(), data, &[0; 2]].concat()
    };
    let title = [name.as_bytes(), b"\0"].concat();
    [b"\x78\x9f\x3e\x22\0\0".to_vec(), attribute(0x0006_800f, content), attribute(0x0001_8010, &title)].concat()
}

pub(super) fn base64(content: &[u8]) -> String {
    const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for three in content.chunks(3) {
        let bits = three.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - three.len()));
        for place in 0..4 {
            let letter = LETTERS[(bits >> (18 - 6 * place) & 63) as usize];
            text.push(if place <= three.len() { letter as char } else { '=' });
        }
    }
    text
}

pub(super) fn mail(content: &[u8]) -> Vec<u8> {
    format!(
        "From: a@example.org\r\nTo: b@example.org\r\nMIME-Version: 1.0\r\n\
         Content-Type: multipart/mixed; boundary=\"limit\"\r\n\r\n\
         --limit\r\nContent-Type: text/plain\r\n\r\nsee below\r\n\
         --limit\r\nContent-Type: application/octet-stream; name=inner\r\nContent-Transfer-Encoding: base64\r\n\r\n\
         {}\r\n--limit--\r\n",
        base64(content)
    )
    .into_bytes()
}

fn uu(content: &[u8]) -> Vec<u8> {
    let letter = |value: u8| if value == 0 { '`' } else { (value + b' ') as char };
    let mut text = "some words first\nbegin 644 inner\n".to_owned();
    for line in content.chunks(45) {
        text.push(letter(line.len() as u8));
        for three in line.chunks(3) {
            let byte = |place: usize| three.get(place).copied().unwrap_or(0);
            let (a, b, c) = (byte(0), byte(1), byte(2));
            text.extend([a >> 2, (a << 4 | b >> 4) & 63, (b << 2 | c >> 6) & 63, c & 63].map(letter));
        }
        text.push('\n');
    }
    text.push_str("`\nend\n");
    text.into_bytes()
}

fn data_address(content: &[u8]) -> Vec<u8> {
    format!("<a href=\"data:application/octet-stream;base64,{}\">x</a>", base64(content)).into_bytes()
}

fn rtf(content: &[u8]) -> Vec<u8> {
    let mut object = [1u32, 2, 5].map(u32::to_le_bytes).concat();
    object.extend(b"Other");
    object.extend([0; 8]);
    object.extend((content.len() as u32).to_le_bytes());
    object.extend(content);
    let digits: String = object.iter().map(|byte| format!("{byte:02x}\n")).collect();
    format!("{{\\rtf1{{\\object{{\\*\\objdata {digits}}}}}}}").into_bytes()
}

fn pdf(content: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(content).unwrap();
    let stream = encoder.finish().unwrap();
    let head = format!("%PDF-1.7\n1 0 obj <</Length {}/Filter/FlateDecode>>\nstream\n", stream.len());
    [head.as_bytes(), &stream, b"\nendstream endobj\n%%EOF\n"].concat()
}
