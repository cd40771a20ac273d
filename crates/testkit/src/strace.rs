//! One file-system call of a real process fails, or the process dies at it.
//!
//! A first run under [`Strace::watch`] lists the calls; each further run, from the same state, gets
//! one of them with [`Strace::inject`]. The program runs in a process namespace of its own, so that
//! its process id, and with it the names of temporary files, is the same in each run.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

/// Calls that change something; a process may die before any of these.
const CHANGING: &[&str] = &[
    "write",
    "pwrite64",
    "writev",
    "fsync",
    "fdatasync",
    "rename",
    "renameat",
    "renameat2",
    "unlink",
    "unlinkat",
    "rmdir",
    "mkdir",
    "mkdirat",
    "ftruncate",
    "fallocate",
    "link",
    "linkat",
    "symlink",
    "symlinkat",
    "chmod",
    "fchmod",
    "fchmodat",
    "copy_file_range",
];
/// Calls that fail on a disk that can't be read.
const READING: &[&str] = &["openat", "read", "pread64", "statx", "newfstatat", "getdents64", "flock"];

/// What happens at the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is not done, and gives this error (`EIO`).
    Error(&'static str),
    /// It is not done, and the process is gone.
    Kill,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Error(name) => f.write_str(name),
            Self::Kill => f.write_str("killed"),
        }
    }
}

/// A call that can be hit again.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Call {
    /// The system call.
    pub name: String,
    /// The path by which strace finds it, as the program gave it.
    pub path: String,
    /// Which of those that one thread makes with this path, from 1.
    pub nth: usize,
    /// Whether it changes something.
    pub changes: bool,
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} #{}", self.name, self.path, self.nth)
    }
}

impl Call {
    /// What may go wrong at it.
    #[must_use]
    pub fn faults(&self) -> Vec<Fault> {
        let mut faults = vec![Fault::Error("EIO")];
        if self.changes {
            if !matches!(self.name.as_str(), "fsync" | "fdatasync" | "unlink" | "unlinkat" | "rmdir") {
                faults.push(Fault::Error("ENOSPC"));
            }
            faults.push(Fault::Kill);
        }
        faults
    }
}

/// How a program is run, and where strace writes what it saw.
#[derive(Clone, Debug)]
pub struct Strace {
    out: PathBuf,
    arguments: Vec<OsString>,
}

impl Strace {
    /// Lists the calls of a program.
    #[must_use]
    pub fn watch(out: &Path) -> Self {
        let names: Vec<String> = CHANGING.iter().chain(READING).map(|name| format!("?{name}")).collect();
        Self::new(out, &["--seccomp-bpf".to_owned(), "-e".to_owned(), format!("trace={}", names.join(","))])
    }

    /// Lets `fault` happen at `call`.
    #[must_use]
    pub fn inject(out: &Path, call: &Call, fault: Fault) -> Self {
        let (what, speed) = match fault {
            Fault::Error(name) => (format!("error={name}"), Some("--seccomp-bpf")),
            // With a filter, strace 6.1 loses the signal.
            Fault::Kill => ("signal=SIGKILL".to_owned(), None),
        };
        let Call { name, path, nth, .. } = call;
        let inject = format!("inject={name}:{what}:when={nth}");
        let arguments = ["-P", path, "-e", &format!("trace={name}"), "-e", &inject];
        Self::new(out, &arguments.into_iter().chain(speed).map(str::to_owned).collect::<Vec<_>>())
    }

    fn new(out: &Path, more: &[String]) -> Self {
        let fixed = ["strace", "-f", "-y", "-q", "-s", "0", "-e", "signal=SIGKILL", "-o"];
        let own = ["--", "unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child"];
        let arguments = fixed.iter().map(OsString::from).chain([out.into()]);
        let arguments = arguments.chain(more.iter().map(OsString::from)).chain(own.iter().map(OsString::from));
        Self { out: out.to_owned(), arguments: arguments.collect() }
    }

    /// What stands before the program on the command line.
    #[must_use]
    pub fn prefix(&self) -> &[OsString] {
        &self.arguments
    }

    /// The calls that were seen on paths below `folder`, in the order of their first appearance.
    #[must_use]
    pub fn calls(&self, folder: &Path) -> Vec<Call> {
        let folder = folder.to_str().expect("a test's folder is text");
        let text = fs::read_to_string(&self.out).expect("strace wrote its output");
        // How often a thread has made a call that this path finds.
        let mut counted: BTreeMap<(String, String, String), usize> = BTreeMap::new();
        let (mut seen, mut calls) = (BTreeSet::new(), Vec::new());
        for line in text.lines() {
            let Some(found) = Line::parse(line) else { continue };
            let names: BTreeSet<&str> = found.findable().into_iter().collect();
            for path in names {
                let key = (found.thread.to_owned(), found.name.to_owned(), path.to_owned());
                *counted.entry(key).or_default() += 1;
            }
            if !found.paths().any(|path| path.starts_with(folder)) {
                continue;
            }
            let Some(path) = found.findable().last().copied() else { continue };
            let key = (found.thread.to_owned(), found.name.to_owned(), path.to_owned());
            let call = Call {
                name: found.name.to_owned(),
                path: path.to_owned(),
                nth: counted.get(&key).copied().unwrap_or(1),
                changes: CHANGING.contains(&found.name) || found.arguments.contains("O_CREAT"),
            };
            if seen.insert(call.clone()) {
                calls.push(call);
            }
        }
        calls
    }

    /// How often the fault happened.
    #[must_use]
    pub fn hits(&self) -> usize {
        let text = fs::read_to_string(&self.out).expect("strace wrote its output");
        let killed = text.lines().any(|line| line.ends_with("+++ killed by SIGKILL +++"));
        text.lines().filter(|line| line.ends_with("(INJECTED)")).count().max(usize::from(killed))
    }
}

/// One line of strace's output: `THREAD NAME(ARGUMENTS…`.
struct Line<'a> {
    thread: &'a str,
    name: &'a str,
    arguments: &'a str,
}

impl<'a> Line<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let (thread, rest) = line.split_once(' ')?;
        let (name, arguments) = rest.trim_start().split_once('(')?;
        // What stands after the arguments (the new descriptor, say) finds no call.
        let arguments =
            arguments.rsplit_once(") = ").or_else(|| arguments.rsplit_once(")  ")).map_or(arguments, |it| it.0);
        let known = CHANGING.contains(&name) || READING.contains(&name);
        known.then_some(Self { thread, name, arguments })
    }

    /// Paths of descriptors, and paths that were given.
    fn paths(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        self.descriptors().into_iter().chain(self.given())
    }

    fn descriptors(&self) -> Vec<&'a str> {
        let parts = self.arguments.split('<').skip(1);
        parts
            .filter_map(|part| part.split_once('>'))
            .map(|(path, _)| path)
            .filter(|path| path.starts_with('/'))
            .collect()
    }

    fn given(&self) -> Vec<&'a str> {
        self.arguments.split('"').skip(1).step_by(2).filter(|text| !text.is_empty()).collect()
    }

    /// Those by which `strace -P` finds the call; the last one says best what it is about.
    fn findable(&self) -> Vec<&'a str> {
        let given = self.given();
        match self.name {
            // Only its first path is looked at.
            "rename" => given.into_iter().take(1).collect(),
            "symlink" => given.into_iter().skip(1).collect(),
            _ if given.is_empty() => self.descriptors(),
            _ => given,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_listed_as_they_can_be_found_again() {
        let out = std::env::temp_dir().join(format!("strace-test-{}", std::process::id()));
        let text = "\
            7  openat(AT_FDCWD</w>, \"/w/a\", O_WRONLY|O_CREAT|O_CLOEXEC, 0666) = 3</w/a>\n\
            7  write(3</w/a>, \"\"..., 2) = 2\n\
            8  write(3</w/a>, \"\"..., 2 <unfinished ...>\n\
            7  write(3</w/a>, \"\"..., 2) = 2\n\
            8  <... write resumed>) = 2\n\
            7  read(4</other>, \"\"..., 2) = 2\n\
            7  rename(\"/w/a\", \"/w/b\")   = 0\n\
            7  unlinkat(5</w/c>, \"d\", 0) = 0\n";
        stdx::durable::write(&out, text.as_bytes()).unwrap();
        let calls: Vec<_> = Strace::watch(&out).calls(Path::new("/w")).iter().map(Call::to_string).collect();
        fs::remove_file(&out).unwrap();
        let expected = ["openat /w/a #1", "write /w/a #1", "write /w/a #2", "rename /w/a #1", "unlinkat d #1"];
        assert_eq!(calls, expected);
    }
}
