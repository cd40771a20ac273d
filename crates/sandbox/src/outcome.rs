//! What a job came to.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use stdx::Digest;

use crate::job::{ByteSize, Hostname, Layout, Limits, Network, User};

/// How a job ended and what it used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// How it ended.
    pub status: Status,
    /// Time on the wall, from the start of the command.
    pub wall: Duration,
    /// Processor time of the command and its descendants.
    pub cpu: Duration,
    /// The most memory seen in use at one time (sampled; anonymous pages).
    pub peak_memory: ByteSize,
    /// What it wrote to standard output.
    pub stdout: Captured,
    /// What it wrote to standard error.
    pub stderr: Captured,
    /// What was copied out, if the job asked for an output folder and ended with code 0.
    pub output: Option<Copied>,
    /// What was enforced.
    pub evidence: Evidence,
}

/// How a job ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// The command ended by itself with this code.
    Exited(u8),
    /// The command was ended by this signal, which did not come from the sandbox.
    Signalled(u8),
    /// It ran longer than `limits.wall`.
    TimeLimit,
    /// It used more processor time than `limits.cpu`.
    CpuLimit,
    /// It used more memory than `limits.memory`.
    MemoryLimit,
    /// It reached `limits.processes`.
    ProcessLimit,
    /// It filled `limits.disk` or `limits.inodes`, or wrote a file above `limits.file_size`.
    DiskLimit,
    /// It wrote more than `limits.all_output` to standard output and error.
    OutputLimit,
    /// The caller cancelled it.
    Cancelled,
    /// It left something in its output folder that is not copied out.
    BadOutput {
        /// The path in the output folder.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
}

impl Status {
    /// Whether the command ended with code 0 and its output, if any, was copied out.
    #[must_use]
    pub const fn is_success(&self) -> bool {
        matches!(self, Self::Exited(0))
    }

    /// What the user can do about it, if anything beyond reading the command's own messages.
    #[must_use]
    pub const fn hint(&self) -> Option<&'static str> {
        Some(match self {
            Self::Exited(_) => return None,
            Self::Signalled(31) => "a 32-bit program or a forbidden system call was ended",
            Self::Signalled(_) => "the command crashed, or ended itself by a signal",
            Self::TimeLimit => "if it was not stuck, raise limits.wall",
            Self::CpuLimit => "if it was not stuck, raise limits.cpu",
            Self::MemoryLimit => "raise limits.memory, or run fewer jobs in parallel",
            Self::ProcessLimit => "raise limits.processes, or run fewer jobs in parallel",
            Self::DiskLimit => "raise limits.disk, limits.inodes or limits.file_size",
            Self::OutputLimit => "make the command less verbose, or raise limits.all_output",
            Self::Cancelled => "start it again when it is wanted",
            Self::BadOutput { .. } => "leave only files, folders and relative links inside",
        })
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(0) => f.write_str("the command succeeded"),
            Self::Exited(code) => write!(f, "the command failed with code {code}"),
            Self::Signalled(signal) => write!(f, "the command was ended by signal {signal}"),
            Self::TimeLimit => f.write_str("time limit: the command ran too long"),
            Self::CpuLimit => f.write_str("cpu limit: the command used too much processor time"),
            Self::MemoryLimit => f.write_str("memory limit: the command used too much memory"),
            Self::ProcessLimit => f.write_str("process limit: too many processes at one time"),
            Self::DiskLimit => f.write_str("disk limit: the command wrote too much"),
            Self::OutputLimit => f.write_str("output limit: the command printed too much"),
            Self::Cancelled => f.write_str("cancelled by the caller"),
            Self::BadOutput { path, problem } => {
                write!(f, "bad output: `{}` {problem}", path.display())
            }
        }
    }
}

/// The beginning and the end of a stream.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Captured {
    /// The first bytes, at most `limits.kept_output`.
    #[serde(with = "lossy")]
    pub head: Vec<u8>,
    /// The last bytes after `head`, at most `limits.kept_output`.
    #[serde(with = "lossy")]
    pub tail: Vec<u8>,
    /// How many bytes between the two were dropped.
    pub dropped: u64,
}

impl Captured {
    /// Both parts as text, with a line that says what was dropped between them.
    #[must_use]
    pub fn to_text(&self) -> String {
        let head = String::from_utf8_lossy(&self.head);
        let tail = String::from_utf8_lossy(&self.tail);
        if self.dropped == 0 {
            let whole = [self.head.as_slice(), &self.tail].concat();
            return String::from_utf8_lossy(&whole).into_owned();
        }
        format!("{head}\n[... {} bytes dropped ...]\n{tail}", self.dropped)
    }

    /// How many bytes were written in all.
    #[must_use]
    pub fn total(&self) -> u64 {
        let kept = u64::try_from(self.head.len() + self.tail.len()).unwrap_or(u64::MAX);
        kept.saturating_add(self.dropped)
    }
}

impl fmt::Debug for Captured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.to_text(), f)
    }
}

/// Output is for people; in JSON, bytes that are no UTF-8 become U+FFFD.
mod lossy {
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&String::from_utf8_lossy(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        String::deserialize(from).map(String::into_bytes)
    }
}

/// What was copied out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Copied {
    /// Files, folders and links, without the output folder itself.
    pub entries: u64,
    /// Bytes of all files.
    pub bytes: u64,
}

/// What was enforced, as the stages that enforced it report; it belongs into provenance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// The landlock ABI in force.
    pub landlock_abi: u32,
    /// SHA-256 of the seccomp programs, in the order in which they were installed.
    pub seccomp: Digest,
    /// The command's namespaces with their inode numbers; each differs from the caller's.
    pub namespaces: BTreeMap<String, u64>,
    /// The user inside.
    pub user: User,
    /// The user on the host.
    pub host_user: User,
    /// The host name inside.
    pub hostname: Hostname,
    /// The network inside.
    pub network: Network,
    /// Address space layout.
    pub layout: Layout,
    /// The limits.
    pub limits: Limits,
    /// The control groups that helped: controller, then version (`v1` or `v2`).
    pub cgroups: BTreeMap<String, String>,
    /// The kernel's bound on process ids in the namespace, where the kernel has it by namespace.
    pub pid_max: Option<u32>,
    /// The kernel's release.
    pub kernel: String,
}
