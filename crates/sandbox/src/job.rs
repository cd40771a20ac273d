//! What the caller asks for: root, mounts, command, identity and limits.

use std::collections::BTreeMap;
use std::num::NonZeroU16;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::SandboxError;

/// One command to be run in isolation.
///
/// Every path "inside" is absolute, normal (no `.`, no `..`), and seen from the command.
/// Standard input is always `/dev/null`; nothing of the caller's environment is inherited.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Job {
    /// The root file system.
    pub root: Root,
    /// Folders and files of the host that are shown inside.
    #[serde(default)]
    pub mounts: Vec<Mount>,
    /// Empty writable folders inside, in the same bounded memory file system as `/tmp`, which is
    /// always there. They are made where the root lacks them if their parent is writable or `/`.
    #[serde(default)]
    pub scratch: Vec<PathBuf>,
    /// A writable folder whose content is copied out after the command ended with code 0.
    #[serde(default)]
    pub output: Option<Output>,
    /// The program, as a path inside.
    pub program: PathBuf,
    /// Its arguments, without the program's name.
    #[serde(default)]
    pub arguments: Vec<String>,
    /// Its whole environment.
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
    /// Its working folder inside.
    pub folder: PathBuf,
    /// The user it believes to be.
    pub user: User,
    /// The user of the host that it really is.
    #[serde(default)]
    pub host_user: HostUser,
    /// Its host name.
    pub hostname: Hostname,
    /// Its file mode creation mask.
    #[serde(default)]
    pub umask: Umask,
    /// How many processors it may use and sees in `sched_getaffinity`; all, if none is given.
    #[serde(default)]
    pub processors: Option<NonZeroU16>,
    /// Whether addresses are the same each time.
    #[serde(default)]
    pub layout: Layout,
    /// What network it has.
    #[serde(default)]
    pub network: Network,
    /// What it may use up.
    #[serde(default)]
    pub limits: Limits,
    /// Whether control groups help to bound it.
    #[serde(default)]
    pub cgroups: Cgroups,
}

impl Job {
    /// A job that runs `program` in `root`, with defaults for everything else: user 1000, host name
    /// `sandbox`, working folder `/tmp`, no environment, no network, [`Limits::default`].
    #[must_use]
    pub fn new(root: Root, program: Program) -> Self {
        Self {
            root,
            mounts: Vec::new(),
            scratch: Vec::new(),
            output: None,
            program: program.0,
            arguments: Vec::new(),
            environment: BTreeMap::new(),
            folder: PathBuf::from("/tmp"),
            user: User::default(),
            host_user: HostUser::default(),
            hostname: Hostname("sandbox".to_owned()),
            umask: Umask::default(),
            processors: None,
            layout: Layout::default(),
            network: Network::default(),
            limits: Limits::default(),
            cgroups: Cgroups::default(),
        }
    }

    /// Whether every path inside is absolute and normal and every list within its bound.
    ///
    /// # Errors
    /// [`SandboxError::Job`], naming the first field that is not.
    pub fn validate(&self) -> Result<(), SandboxError> {
        inside("program", &self.program)?;
        inside("folder", &self.folder)?;
        for path in &self.scratch {
            inside("scratch", path)?;
        }
        for mount in &self.mounts {
            inside("mounts.target", &mount.target)?;
        }
        if let Some(output) = &self.output {
            inside("output.inside", &output.inside)?;
        }
        // Each is one mount; the kernel allows 100,000 a namespace, and nobody needs more than this.
        if self.mounts.len() + self.scratch.len() > MOUNTS_MAX {
            return Err(SandboxError::Job {
                field: "mounts".to_owned(),
                problem: format!("more than {MOUNTS_MAX} mounts"),
            });
        }
        for name in self.environment.keys() {
            if name.is_empty() || name.contains(['=', '\0']) {
                return Err(SandboxError::Job {
                    field: "environment".to_owned(),
                    problem: format!("`{name}` is no name of a variable"),
                });
            }
        }
        self.limits.validate()
    }
}

/// See [`Job::validate`].
const MOUNTS_MAX: usize = 256;

fn inside(field: &'static str, path: &Path) -> Result<(), SandboxError> {
    let text = path.to_str().unwrap_or_default();
    let normal = text == "/"
        || text
            .strip_prefix('/')
            .is_some_and(|rest| rest.split('/').all(|part| !matches!(part, "" | "." | "..") && !part.contains('\0')));
    if normal {
        return Ok(());
    }
    Err(SandboxError::Job {
        field: field.to_owned(),
        problem: format!("`{}` is not an absolute path without `.` and `..`", path.display()),
    })
}

/// The path inside of the program to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program(pub PathBuf);

/// The lower root file system.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Root {
    /// A folder of the host. Its files must be readable by the job's [`HostUser`].
    pub tree: PathBuf,
    /// Whether the command can write over it.
    #[serde(default)]
    pub writing: Writing,
}

/// Whether the command can write into its root.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Writing {
    /// The root is read-only; mount points that it lacks are made only directly below `/`.
    #[default]
    Refused,
    /// Writes go to a bounded overlay that is thrown away. The kernel copies a file up only for a
    /// user that exists inside, so the tree must belong to the job's [`HostUser`].
    Overlay,
}

/// A folder or file of the host shown inside. It must have no mount below it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mount {
    /// The path on the host.
    pub source: PathBuf,
    /// The path inside.
    pub target: PathBuf,
    /// Whether the command can change it.
    #[serde(default)]
    pub access: Access,
}

/// What the command may do with a mount.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Access {
    /// Read and execute.
    #[default]
    ReadOnly,
    /// Also write. The host's disk is *not* bounded by [`Limits::disk`] there.
    Writable,
}

/// A writable folder inside, copied out after success.
///
/// Only regular files, folders and relative links that stay inside are copied; anything else ends
/// the job as [`Status::BadOutput`](crate::Status::BadOutput). Files come out with mode 644 or 755,
/// folders with 755, times are those of the copy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Output {
    /// The folder inside, made empty.
    pub inside: PathBuf,
    /// The folder on the host, which must not exist yet while its parent does.
    pub to: PathBuf,
}

/// The user and group that the command sees as its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct User {
    /// The user id inside; also 0 is powerless.
    pub uid: u32,
    /// The group id inside.
    pub gid: u32,
}

impl Default for User {
    fn default() -> Self {
        Self { uid: 1000, gid: 1000 }
    }
}

/// Which user of the host the command is, for file permissions and accounting.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HostUser {
    /// The caller's own user; `nobody` (65534) when the caller is root.
    #[default]
    Automatic,
    /// This one, which only root may choose. Root itself is refused: it owns `/proc/sys`.
    Chosen {
        /// The user id on the host.
        uid: u32,
        /// The group id on the host.
        gid: u32,
    },
}

/// A host name of at most 64 letters, digits, `-` and `.`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Hostname(String);

impl Hostname {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Hostname {
    type Error = SandboxError;

    fn try_from(text: String) -> Result<Self, SandboxError> {
        let fits = (1..=64).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.'));
        if fits {
            return Ok(Self(text));
        }
        Err(SandboxError::Job { field: "hostname".to_owned(), problem: format!("`{text}` is no host name") })
    }
}

impl From<Hostname> for String {
    fn from(name: Hostname) -> Self {
        name.0
    }
}

/// A file mode creation mask.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Umask(pub u16);

impl Default for Umask {
    fn default() -> Self {
        Self(0o022)
    }
}

/// Address space layout randomisation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Layout {
    /// Addresses are the same each time, so that a build cannot depend on them.
    #[default]
    Fixed,
    /// Addresses are random, as suits a program that parses hostile files.
    Random,
}

/// The network inside. There is never a way out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Network {
    /// Nothing, not even loopback.
    #[default]
    Empty,
    /// A loopback interface of its own.
    Loopback,
}

/// Whether control groups are used beside the other bounds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cgroups {
    /// Where this process may make them; the evidence tells which were had.
    #[default]
    Auto,
    /// Never. Everything stays bounded by rlimits, namespaces and supervision.
    Without,
}

/// A number of bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ByteSize(pub u64);

impl ByteSize {
    /// So many mebibytes.
    #[must_use]
    pub const fn mebibytes(count: u32) -> Self {
        // 2^32 MiB is 2^52 bytes, so this cannot overflow.
        Self((count as u64) << 20)
    }
}

/// What the command and all its descendants together may use up, unless said otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Time on the wall, from the start of the command.
    pub wall: Duration,
    /// Processor time, user and system. It is sampled, so that of many very short processes for
    /// which nobody waits is partly missed; `wall` bounds those.
    pub cpu: Duration,
    /// Processes and threads at one time.
    pub processes: u32,
    /// Memory, without files in memory file systems.
    pub memory: ByteSize,
    /// Bytes of everything written: `/tmp`, scratch, output, overlay. It lies in memory.
    pub disk: ByteSize,
    /// Files, folders and links in the same places.
    pub inodes: u64,
    /// The size of one file (also a sparse one).
    pub file_size: ByteSize,
    /// Open files of one process.
    pub open_files: u64,
    /// How much of the beginning and of the end of each of stdout and stderr is kept.
    pub kept_output: ByteSize,
    /// Bytes of stdout and stderr together; above it the job ends.
    pub all_output: ByteSize,
}

impl Default for Limits {
    /// A middle-sized build: an hour, two hours of processor time, 512 processes, 4 GiB of memory,
    /// 4 GiB in 400,000 files, 1 MiB kept at either end of each
    /// stream, at most 256 MiB printed.
    fn default() -> Self {
        Self {
            wall: Duration::from_secs(3_600),
            cpu: Duration::from_secs(7_200),
            processes: 512,
            memory: ByteSize::mebibytes(4_096),
            disk: ByteSize::mebibytes(4_096),
            inodes: 400_000,
            file_size: ByteSize::mebibytes(4_096),
            open_files: 4_096,
            kept_output: ByteSize::mebibytes(1),
            all_output: ByteSize::mebibytes(256),
        }
    }
}

impl Limits {
    fn validate(&self) -> Result<(), SandboxError> {
        let refused = |field: &str, problem: &str| {
            Err(SandboxError::Job { field: field.to_owned(), problem: problem.to_owned() })
        };
        // Two years; keeps every sum of durations far from overflow.
        if self.wall.is_zero() || self.wall > Duration::from_secs(63_072_000) {
            return refused("limits.wall", "is zero or above two years");
        }
        if self.cpu < Duration::from_secs(1) || self.cpu > Duration::from_secs(63_072_000) {
            return refused("limits.cpu", "is below a second or above two years");
        }
        // The kernel's own bound on process ids is 2^22.
        if self.processes < 4 || self.processes > 4_194_304 {
            return refused("limits.processes", "is below 4 or above 4194304");
        }
        // A page for each of the few folders that every sandbox has.
        if self.disk < ByteSize::mebibytes(1) || self.inodes < 64 {
            return refused("limits.disk", "is below 1 MiB or below 64 inodes");
        }
        if self.memory < ByteSize::mebibytes(8) {
            return refused("limits.memory", "is below 8 MiB");
        }
        // Twice two streams of this are held in the caller's memory.
        if self.kept_output > ByteSize::mebibytes(256) {
            return refused("limits.kept_output", "is above 256 MiB");
        }
        if self.open_files < 16 {
            return refused("limits.open_files", "is below 16");
        }
        Ok(())
    }
}
