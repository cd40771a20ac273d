//! A folder with files, and a worker on the program that was just built.

use std::fs::File;
use std::io::Write as _;
use std::num::NonZeroU16;
use std::path::{Path, PathBuf};

use detection::{FileReport, Item, Limits, Worker};

pub(crate) const RULES: &str = r#"
rule marked : tag another { strings: $mark = "find me" condition: $mark }
rule eicar_file { strings: $text = "EICAR-STANDARD-ANTIVIRUS-TEST-FILE" condition: $text }
rule by_name { condition: filename == "named.txt" and extension == ".txt" }
"#;

/// The EICAR test file, which stands in no file of ours.
pub(crate) fn eicar() -> String {
    ["X5O!P%@AP[4\\PZX54(P^)7CC)7}", "$EICAR-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*"].concat()
}

pub(crate) fn program() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_clerestory-scan"))
}

pub(crate) fn limits(threads: u16) -> Limits {
    Limits::new(NonZeroU16::new(threads).unwrap())
}

pub(crate) fn worker(limits: Limits) -> Worker {
    let mut worker = Worker::start(program(), limits).unwrap();
    worker.load(RULES.as_bytes()).unwrap();
    worker
}

pub(crate) struct Place(pub(crate) tempfile::TempDir);

impl Place {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.path().join(name);
        File::create(&path).unwrap().write_all(bytes).unwrap();
        path
    }

    pub(crate) fn item(&self, name: &str, bytes: &[u8]) -> Item {
        let path = self.file(name, bytes);
        Item { file: File::open(&path).unwrap(), path }
    }
}

/// All reports, by path.
pub(crate) fn scan(worker: &mut Worker, items: Vec<Item>) -> Vec<FileReport> {
    let mut reports = Vec::new();
    worker.scan(&mut items.into_iter(), &mut |report| reports.push(report)).unwrap();
    reports.sort_by(|a, b| a.path.cmp(&b.path));
    reports
}

/// The names of the rules that match.
pub(crate) fn rules(report: &FileReport) -> Vec<&str> {
    report.matches.iter().map(|one| one.rule.as_str()).collect()
}
