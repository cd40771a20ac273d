//! Why a job could not be run at all.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Why a job could not be run. What the *command* does wrong is a [`Status`](crate::Status).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum SandboxError {
    /// A field of the job is not acceptable.
    #[error("job field `{field}`: {problem}")]
    Job {
        /// The field.
        field: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The sandbox's program could not be started.
    #[error("cannot start the sandbox program `{}`: {problem}", path.display())]
    Program {
        /// The program.
        path: PathBuf,
        /// The system's message.
        problem: String,
    },
    /// The machine forbids user namespaces.
    #[error("this machine forbids user namespaces ({setting}): {problem}")]
    Forbidden {
        /// The setting that forbids them, as far as it can be told.
        setting: String,
        /// The system's message.
        problem: String,
    },
    /// A kind of isolation could not be had; the command was not started.
    #[error("cannot isolate: {isolation}: {problem}")]
    Isolation {
        /// What was to be set up.
        isolation: String,
        /// The system's message.
        problem: String,
    },
    /// A folder or file of the host could not be mounted.
    #[error("cannot mount `{}`: {problem}", path.display())]
    Source {
        /// The path on the host.
        path: PathBuf,
        /// The system's message.
        problem: String,
    },
    /// A mount point could not be made.
    #[error("cannot make the mount point `{}`: {problem}", path.display())]
    Target {
        /// The path inside.
        path: PathBuf,
        /// The system's message.
        problem: String,
    },
    /// The command could not be executed.
    #[error("cannot execute `{}`: {problem}", path.display())]
    Command {
        /// The program inside.
        path: PathBuf,
        /// The system's message.
        problem: String,
    },
    /// The output could not be written on the host.
    #[error("cannot copy the output to `{}`: {problem}", path.display())]
    Output {
        /// The path on the host.
        path: PathBuf,
        /// The system's message.
        problem: String,
    },
    /// A stage of the sandbox ended without a word.
    #[error("the sandbox ended unexpectedly: {problem}")]
    Lost {
        /// What is known.
        problem: String,
    },
}

impl SandboxError {
    /// What the user can do about it.
    #[must_use]
    pub const fn hint(&self) -> &'static str {
        match self {
            Self::Job { .. } => "correct the job",
            Self::Program { .. } => "install clerestory-sandbox beside the program that calls it",
            Self::Forbidden { .. } => {
                "an administrator allows them with `sysctl -w user.max_user_namespaces=10000`, \
                 `sysctl -w kernel.unprivileged_userns_clone=1` (Debian) or \
                 `sysctl -w kernel.apparmor_restrict_unprivileged_userns=0` (Ubuntu)"
            }
            Self::Isolation { .. } => {
                "Linux 6.2 or newer with landlock, seccomp, overlayfs and an unmasked /proc is \
                 needed; in a container, allow these or run on the host"
            }
            Self::Source { .. } => {
                "the path must exist, hold no mounts below it, and be readable by the user that \
                 the command runs as"
            }
            Self::Target { .. } => "the root lacks it; mount points are made only below `/` or in writable folders",
            Self::Command { .. } => "the program and its interpreter must exist in the root",
            Self::Output { .. } => "the folder must not exist yet, and its parent must",
            Self::Lost { .. } => "see the messages of clerestory-sandbox on standard error",
        }
    }
}

/// Shortens an error of the system to the text that the variants hold.
pub(crate) fn isolation<E: std::fmt::Display>(what: &str) -> impl FnOnce(E) -> SandboxError {
    let isolation = what.to_owned();
    move |error| SandboxError::Isolation { isolation, problem: error.to_string() }
}

pub(crate) fn lost<E: std::fmt::Display>(what: &str) -> impl FnOnce(E) -> SandboxError {
    let what = what.to_owned();
    move |error| SandboxError::Lost { problem: format!("{what}: {error}") }
}
