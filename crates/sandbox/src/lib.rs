//! Runs one untrusted command in isolation, within bounds, and leaves nothing behind; and confines
//! a program of ours that reads what it must not trust.
//!
//! ```no_run
//! use sandbox::{Cancel, Job, Program, Root, Sandbox, Writing};
//! # fn main() -> Result<(), sandbox::SandboxError> {
//! let root = Root { tree: "/srv/root".into(), writing: Writing::Refused };
//! let mut job = Job::new(root, Program("/bin/sh".into()));
//! job.arguments = vec!["-c".to_owned(), "echo hello".to_owned()];
//! let outcome = Sandbox::beside_this_program()?.run(&job, &Cancel::default(), &mut |_| {})?;
//! assert!(outcome.status.is_success(), "{}", outcome.status);
//! # Ok(()) }
//! ```
//!
//! # In scope
//! User, mount, PID, network, UTS, IPC and cgroup namespaces; a root file system from a folder of
//! the host; landlock, seccomp, rlimits, control groups; supervision of time, processor, memory,
//! processes, disk and printed output; copying results out; evidence of all that.
//! It works as root (which it drops) and as an ordinary user. [`confine_self`]: this process, for good.
//!
//! # Out of scope
//! Which root, command and limits to take; a network that leads anywhere; hiding the machine's
//! clock, kernel and processor; protection from flaws of the kernel itself.
//!
//! # Invariants
//! - Isolation that cannot be had is an error, and the command is not started.
//! - The command never holds a capability, a descriptor above 2, or a way to gain a privilege.
//! - When [`Sandbox::run`] returns, no process, mount, control group or temporary folder is left;
//!   the same holds, a moment later, when the caller is killed.
//! - Output is read only after every process inside has ended, and no link in it is followed.

mod attempt;
mod calls;
mod cgroup;
mod collect;
mod computing;
mod confine;
mod descriptors;
mod error;
mod init;
mod itself;
mod job;
mod outcome;
mod program;
mod root;
mod run;
mod sample;
mod supervise;
mod unshare;
mod wire;

pub use error::SandboxError;
pub use itself::{Confined, Confinement, confine_self};
pub use job::{
    Access, ByteSize, Cgroups, HostUser, Hostname, Job, Layout, Limits, Mount, Network, Output, Program, Root, Umask,
    User, Writing,
};
pub use outcome::{Captured, Copied, Evidence, Outcome, Status};
pub use program::program;
pub use run::{Cancel, Chunk, Sandbox, Stream};
