//! Makes archives for the tests of `compare`, with the crates that others write archives with.

use std::io::{Cursor, Write};

use flate2::{Compression, GzBuilder};

/// A file to pack.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) bytes: Vec<u8>,
    pub(crate) mtime: u64,
    pub(crate) mode: u32,
    pub(crate) uid: u64,
    pub(crate) link: Option<&'static str>,
}

impl Entry {
    pub(crate) fn new(name: &str, bytes: &[u8]) -> Self {
        Self { name: name.to_owned(), bytes: bytes.to_vec(), mtime: 1_700_000_000, mode: 0o644, uid: 0, link: None }
    }
}

pub(crate) fn tar(entries: &[Entry]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for entry in entries {
        let mut header = tar::Header::new_gnu();
        header.set_mtime(entry.mtime);
        header.set_mode(entry.mode);
        header.set_uid(entry.uid);
        header.set_gid(0);
        if let Some(target) = entry.link {
            header.set_entry_type(tar::EntryType::Symlink);
            header.set_size(0);
            builder.append_link(&mut header, &entry.name, target).unwrap();
        } else {
            header.set_size(entry.bytes.len() as u64);
            builder.append_data(&mut header, &entry.name, entry.bytes.as_slice()).unwrap();
        }
    }
    builder.into_inner().unwrap()
}

pub(crate) fn ar(entries: &[Entry]) -> Vec<u8> {
    let mut builder = ar::Builder::new(Vec::new());
    for entry in entries {
        let name = entry.name.rsplit('/').next().unwrap();
        let mut header = ar::Header::new(name.as_bytes().to_vec(), entry.bytes.len() as u64);
        header.set_mtime(entry.mtime);
        header.set_mode(entry.mode);
        header.set_uid(entry.uid as u32);
        builder.append(&header, entry.bytes.as_slice()).unwrap();
    }
    builder.into_inner().unwrap()
}

pub(crate) fn gzip(bytes: &[u8], mtime: u32, level: u32) -> Vec<u8> {
    let mut writer = GzBuilder::new().mtime(mtime).filename("x").write(Vec::new(), Compression::new(level));
    writer.write_all(bytes).unwrap();
    writer.finish().unwrap()
}

pub(crate) fn xz(bytes: &[u8], level: u32) -> Vec<u8> {
    let mut writer = lzma_rust2::XzWriter::new(Vec::new(), lzma_rust2::XzOptions::with_preset(level)).unwrap();
    writer.write_all(bytes).unwrap();
    writer.finish().unwrap()
}

pub(crate) fn zstd(bytes: &[u8], level: i32) -> Vec<u8> {
    zstd::stream::encode_all(bytes, level).unwrap()
}

/// Level 0 stores.
pub(crate) fn zip(entries: &[Entry], level: i64) -> Vec<u8> {
    let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for entry in entries {
        let day = 1 + (entry.mtime / 86_400 % 28) as u8;
        let method = if level == 0 { zip::CompressionMethod::Stored } else { zip::CompressionMethod::Deflated };
        let options = zip::write::SimpleFileOptions::default()
            .compression_method(method)
            .compression_level((level > 0).then_some(level))
            .last_modified_time(zip::DateTime::from_date_and_time(2026, 11, day, 3, 4, 6).unwrap())
            .unix_permissions(entry.mode);
        writer.start_file(&entry.name, options).unwrap();
        writer.write_all(&entry.bytes).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

/// A Debian package; `mtime` is that of the outer members.
pub(crate) fn deb(entries: &[Entry], mtime: u64) -> Vec<u8> {
    let sums: String =
        entries.iter().map(|e| format!("{}  {}\n", &stdx::Digest::of(&e.bytes).to_string()[..32], e.name)).collect();
    let control = tar(&[Entry::new("./control", b"Package: hello\n"), Entry::new("./md5sums", sums.as_bytes())]);
    let outer = [
        Entry::new("debian-binary", b"2.0\n"),
        Entry::new("control.tar.xz", &xz(&control, 6)),
        Entry::new("data.tar.xz", &xz(&tar(entries), 6)),
    ];
    ar(&outer.map(|entry| Entry { mtime, ..entry }))
}

/// A wheel with one module; `seed` makes the digest in RECORD.
pub(crate) fn wheel(name: &str, bytes: &[u8], seed: u8) -> Vec<u8> {
    let record = format!("{name},sha256={},{}\n", stdx::Digest::of(&[seed]), bytes.len());
    zip(&[Entry::new(name, bytes), Entry::new("pkg-1.dist-info/RECORD", record.as_bytes())], 6)
}
