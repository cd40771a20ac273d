//! `clerestory completions` and `clerestory man`: what is generated from the command line itself.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, CommandFactory as _};
use clap_complete::Shell;
use stdx::durable;

use crate::cli::Cli;
use crate::command::write_line;

/// Print completions for a shell
#[derive(Debug, Args)]
pub struct CompletionsArguments {
    /// The shell
    #[arg(value_enum)]
    pub shell: Shell,
}

/// Write manual pages
#[derive(Debug, Args)]
pub struct ManArguments {
    /// The folder that the pages go to
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
}

/// # Errors
/// When standard output is closed.
pub fn completions(arguments: &CompletionsArguments) -> anyhow::Result<()> {
    let mut text = Vec::new();
    clap_complete::generate(arguments.shell, &mut Cli::command(), "clerestory", &mut text);
    write_line(String::from_utf8_lossy(&text).trim_end_matches('\n'))
}

/// # Errors
/// When the folder can't be written.
pub fn man(arguments: &ManArguments) -> anyhow::Result<()> {
    let folder = &arguments.dir;
    durable::create_folder(folder).with_context(|| format!("can't create `{}`", folder.display()))?;
    clap_mangen::generate_to(Cli::command(), folder).with_context(|| format!("can't write to `{}`", folder.display()))
}
