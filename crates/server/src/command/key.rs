//! `clerestory key`: make and show keys.

use std::fmt;
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use serde::Serialize;
use stdx::SystemEntropy;
use tlog::{KeyKind, KeyName, VerifierKey};

use crate::command::Output;
use crate::key_file::{self, NewKey};

/// Make and show keys
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Draw a key; the public half goes beside the file, with the extension `pub`
    Generate {
        /// The key's name, such as `vendor.example/builder`
        #[arg(long)]
        name: KeyName,
        /// What the key signs
        #[arg(long, value_enum, default_value_t = Kind::Statements)]
        kind: Kind,
        /// The file, which must not exist
        #[arg(value_name = "FILE")]
        path: PathBuf,
    },
    /// Show the public half of a key
    Show {
        /// A file that `key generate` or `init` made
        #[arg(value_name = "FILE")]
        path: PathBuf,
    },
}

/// What a key signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// Statements, and checkpoints of its own log (Ed25519, 0x01)
    Statements,
    /// Cosignatures of a witness (0x04)
    Cosignatures,
    /// A channel's TUF metadata; such a key has no name of its own
    Metadata,
}

/// A public key.
#[derive(Debug, Serialize)]
struct Shown {
    name: KeyName,
    id: String,
    vkey: VerifierKey,
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.vkey.fmt(f)
    }
}

/// # Errors
/// When a file is there already, or is no key.
pub fn run(arguments: &Arguments, output: Output) -> anyhow::Result<()> {
    let key = match &arguments.command {
        Command::Generate { name, kind, path } => {
            let kind = match kind {
                Kind::Statements => KeyKind::Ed25519,
                Kind::Cosignatures => KeyKind::Cosignature,
                Kind::Metadata => {
                    key_file::generate_tuf(path, &SystemEntropy)?;
                    return output.print(&key_file::public_half(path)?);
                }
            };
            key_file::generate(&NewKey { name: name.clone(), kind, path: path.clone() }, &SystemEntropy)?
        }
        Command::Show { path } => key_file::load(path)?,
    };
    let vkey = key.verifier().clone();
    output.print(&Shown { name: vkey.name().clone(), id: vkey.id().to_string(), vkey })
}
