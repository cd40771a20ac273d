//! What the stages tell each other: length-prefixed JSON over socket pairs that only they hold.

use std::io::{self, Read, Write};
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::SandboxError;
use crate::job::{ByteSize, Job, User};
use crate::outcome::{Copied, Evidence, Status};

/// A job with 256 mounts of 4 KiB paths, twice, and an environment of 2 MiB (Linux's `ARG_MAX`).
const FRAME_BYTES_MAX: u32 = 6 << 20;

/// The first frame to the stage that unshares: who the command is.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Identity {
    pub(crate) inside: User,
    pub(crate) host: User,
    /// Who writes the maps of the user namespace.
    pub(crate) mapper: Mapper,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Mapper {
    /// The stage itself, an ordinary user, may map only itself.
    Itself,
    /// The supervisor, as root, maps an unprivileged user of the host.
    Supervisor,
}

/// From the stages inside to the supervisor.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Message {
    /// The namespaces exist; the user namespace may now be mapped.
    Unshared,
    /// The next byte carries the folder that holds everything the command writes.
    Scratch,
    /// The command was executed, under this isolation.
    Started(Evidence),
    /// The command ended, and so did everything else inside.
    Ended(Ended),
    /// A stage failed before the command was executed.
    Failed(SandboxError),
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Ended {
    pub(crate) status: Status,
    pub(crate) cpu: Duration,
    pub(crate) peak_memory: ByteSize,
}

/// From the supervisor, or from the first process inside, to the stage below it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Order {
    /// The maps are written.
    Mapped,
    /// Run this.
    Run(Box<Job>, User),
    /// The root is ready: confine yourself and execute the command.
    Execute,
}

/// What the runner says of itself, up to its last words before it becomes the command.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Confined {
    /// It runs: its loader has found everything, and looks for nothing any more.
    Ready,
    /// It enforced this.
    Done {
        landlock_abi: u32,
        seccomp: stdx::Digest,
    },
    Failed(SandboxError),
}

/// From the supervisor to the caller.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) ended: Ended,
    pub(crate) wall: Duration,
    pub(crate) output: Option<Copied>,
    pub(crate) evidence: Evidence,
}

pub(crate) fn send<T: Serialize>(mut to: impl Write, value: &T) -> io::Result<()> {
    let mut bytes = vec![0; 4];
    serde_json::to_writer(&mut bytes, value)?;
    let length = u32::try_from(bytes.len() - 4).ok().filter(|length| *length <= FRAME_BYTES_MAX);
    let length = length.ok_or_else(|| io::Error::other("a message is too long"))?;
    for (byte, value) in bytes.iter_mut().zip(length.to_be_bytes()) {
        *byte = value;
    }
    to.write_all(&bytes)
}

/// The next message, or none if the other side is gone.
pub(crate) fn receive<T: DeserializeOwned>(mut from: impl Read) -> io::Result<Option<T>> {
    let mut length = [0; 4];
    match from.read_exact(&mut length) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
        Err(error) => return Err(error),
    }
    let length = u32::from_be_bytes(length);
    if length > FRAME_BYTES_MAX {
        return Err(io::Error::other("a message is too long"));
    }
    let mut bytes = Vec::new();
    from.take(u64::from(length)).read_to_end(&mut bytes)?;
    Ok(Some(serde_json::from_slice(&bytes)?))
}
