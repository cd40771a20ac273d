//! The files that are scanned.

use std::fmt;
use std::fs::{self, File};
use std::io::Write as _;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use detection::{Note, Unpacking};
use scanner::{Visitor, unpack};
use stdx::durable;

use crate::bench::{Bench, Scale};
use crate::history::KNOWN_BAD;

const FOLDERS: [&str; 3] = ["/usr/bin", "/usr/lib", CONTAINERS];
/// Debian's `clamav-testfiles`: one program in many containers. All of them are in the sample.
const CONTAINERS: &str = "/usr/share/clamav-testfiles";
/// So many bytes of files without containers, and of containers with what is in them: a run takes seconds.
const PLAIN_BYTES: u64 = 160 << 20;
const CONTAINERS_BYTES: u64 = 40 << 20;
/// One file of this size would be most of the sample.
const FILE_BYTES_MAX: u64 = 32 << 20;
/// A quick sample has this much of each.
const QUICK_BYTES: u64 = 200 << 10;
/// One file in so many is looked at.
const STRIDE: usize = 23;

/// Some files, and what is in them.
pub(super) struct Sample {
    files: Vec<PathBuf>,
    /// What is in them, as files of its own: for those who open no containers.
    members: Vec<PathBuf>,
    lists: [PathBuf; 2],
    /// All of it.
    pub(super) bytes: u64,
}

impl Sample {
    pub(super) fn new(files: Vec<PathBuf>, members: Vec<PathBuf>, folder: &Path) -> anyhow::Result<Self> {
        durable::create_folder(folder)?;
        let lists = ["files", "contents"].map(|name| folder.join(name));
        let [of_files, of_contents] = &lists;
        let mut bytes = 0;
        for path in files.iter().chain(&members) {
            bytes += fs::metadata(path).with_context(|| path.display().to_string())?.len();
        }
        let lines = |paths: &[PathBuf]| paths.iter().map(|path| format!("{}\n", path.display())).collect::<String>();
        durable::write(of_files, lines(&files).as_bytes())?;
        durable::write(of_contents, (lines(&files) + &lines(&members)).as_bytes())?;
        Ok(Self { files, members, lists, bytes })
    }

    pub(super) fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// A list of the files, one a line.
    pub(super) const fn list(&self) -> &PathBuf {
        let [files, _] = &self.lists;
        files
    }

    /// The same with what is in them.
    pub(super) const fn contents(&self) -> &PathBuf {
        let [_, contents] = &self.lists;
        contents
    }

    /// Both.
    pub(super) fn and(mut self, other: Self, bench: &Bench) -> anyhow::Result<Self> {
        self.files.extend(other.files);
        self.members.extend(other.members);
        Self::new(self.files, self.members, &bench.folder().join("all"))
    }
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (files, members, bytes) = (self.files.len(), self.members.len(), self.bytes as f64 / 1e6);
        write!(f, "{files} files, {members} in containers, {bytes:.1} MB in all")
    }
}

/// Files in which there is nothing to open, and those that are containers.
pub(super) fn split(bench: &Bench) -> anyhow::Result<(Sample, Sample)> {
    let mut all = Vec::new();
    for folder in FOLDERS {
        collect(Path::new(folder), &mut all);
    }
    all.sort();
    let full = bench.scale() == Scale::Full;
    let (plain_max, containers_max) = if full { (PLAIN_BYTES, CONTAINERS_BYTES) } else { (QUICK_BYTES, QUICK_BYTES) };
    // By strides, each of which begins one file further: an even choice, however much is wanted.
    let by_strides = (0..STRIDE).flat_map(|first| all.iter().skip(first).step_by(STRIDE));
    let wanted = |path: &&PathBuf| fs::metadata(path).is_ok_and(|found| found.len() <= FILE_BYTES_MAX.min(plain_max));
    let tests = all.iter().filter(|path| path.starts_with(CONTAINERS) && full);
    let candidates = tests.chain(by_strides.filter(|path| !path.starts_with(CONTAINERS)).filter(wanted));
    let found = bench.folder().join("sample.php");
    durable::write(&found, KNOWN_BAD.as_bytes())?;
    let (mut plain, mut containers, mut sizes) = (vec![found], Vec::new(), (0, 0));
    let mut taken = Taken { folder: bench.folder().join("members"), members: Vec::new(), failed: None };
    durable::create_folder(&taken.folder)?;
    for path in candidates {
        if sizes.0 >= plain_max && sizes.1 >= containers_max {
            break;
        }
        let bytes = fs::read(path).with_context(|| path.display().to_string())?;
        let (size, before) = (bytes.len() as u64, taken.members.len());
        let totals = unpack(&path.to_string_lossy(), &bytes, &Unpacking::default(), &|| false, &mut taken);
        if let Some(error) = taken.failed.take() {
            return Err(error).context("a member");
        }
        // What is full takes no more.
        let (sample, room) = if totals.members == 0 {
            (&mut plain, sizes.0 < plain_max)
        } else {
            (&mut containers, sizes.1 < containers_max)
        };
        if !room {
            for member in taken.members.drain(before..) {
                fs::remove_file(member)?;
            }
            continue;
        }
        sample.push(path.clone());
        let of = if totals.members == 0 { &mut sizes.0 } else { &mut sizes.1 };
        *of += size + totals.bytes;
    }
    let of = |name: &str, files, members| Sample::new(files, members, &bench.folder().join(name));
    Ok((of("plain", plain, Vec::new())?, of("containers", containers, taken.members)?))
}

/// Writes down what is in containers.
struct Taken {
    folder: PathBuf,
    members: Vec<PathBuf>,
    failed: Option<std::io::Error>,
}

impl Visitor for Taken {
    fn member(&mut self, _: &[String], bytes: &[u8]) -> ControlFlow<()> {
        let path = self.folder.join(self.members.len().to_string());
        match File::create(&path).and_then(|mut file| file.write_all(bytes)) {
            Ok(()) => self.members.push(path),
            Err(error) => {
                self.failed = Some(error);
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    }

    fn note(&mut self, _: Note) {}
}

/// Files that can be read; no links, and no path that a list of lines could not name.
fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let (path, kind) = (entry.path(), entry.file_type());
        if path.to_str().is_none_or(|path| path.contains('\n')) {
            continue;
        }
        match kind {
            Ok(kind) if kind.is_dir() => collect(&path, files),
            Ok(kind) if kind.is_file() && File::open(&path).is_ok() => files.push(path),
            _ => {}
        }
    }
}
