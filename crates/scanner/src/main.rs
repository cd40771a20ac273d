//! The executable: finds files, has them scanned by a confined child, says what was found.

mod cli;
mod output;
mod progress;
mod walk;

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, Read as _};
use std::num::NonZeroU16;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{CommandFactory as _, Parser as _};
use detection::{Limits, Loaded, Worker, WorkerError};

use crate::cli::{Arguments, Command};
use crate::output::Output;
use crate::progress::Progress;
use crate::walk::{Met, Walk};

/// What the worker reads of a bundle, and one byte more.
const RULES_BYTES_MAX: u64 = (256 << 20) + 1;

/// Wrong usage, and rules that can't be had are an argument.
const USAGE: u8 = 2;

/// Not everything, or nothing, could be looked at.
const INCOMPLETE: u8 = 75;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = match &arguments.command {
        Some(Command::Worker) => return scanner::work(),
        Some(Command::Completions { shell }) => {
            clap_complete::generate(*shell, &mut Arguments::command(), "clerestory-scan", &mut io::stdout());
            Ok(0)
        }
        Some(Command::Man { folder }) => man(folder),
        None => scan(&arguments),
    };
    match done {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("error: {error:#}");
            let worker = error.downcast_ref::<WorkerError>();
            eprintln!(
                "hint: {}",
                worker.map_or("give a file or folder that exists and that you may read", |it| it.hint())
            );
            // 1 is said of a file only: a script may act on it.
            let rules = matches!(worker, Some(WorkerError::Rules { .. } | WorkerError::TooLarge { .. }));
            ExitCode::from(if rules { USAGE } else { INCOMPLETE })
        }
    }
}

fn man(folder: &Path) -> anyhow::Result<u8> {
    std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    clap_mangen::generate_to(Arguments::command(), folder)?;
    Ok(0)
}

fn scan(arguments: &Arguments) -> anyhow::Result<u8> {
    let rules = read_rules(&arguments.rules).with_context(|| arguments.rules.display().to_string())?;
    let limits = Limits::new(threads(arguments));
    let file_bytes = limits.file_bytes;
    let mut worker = Worker::start(&std::env::current_exe()?, limits)?;
    let loaded = worker.load(&rules).with_context(|| arguments.rules.display().to_string())?;
    drop(rules);
    if let Some(path) = &arguments.set {
        let known = read_rules(path).map_err(anyhow::Error::from).and_then(|set| Ok(worker.know(Some(&set))?));
        known.with_context(|| path.display().to_string())?;
    }
    warn(&loaded);
    let progress = Progress::new(arguments);
    let output = Output::new(arguments, &progress).context("--json-to")?;
    let output = RefCell::new(output);
    let mut items = Walk::new(&arguments.paths, arguments.into(), file_bytes).filter_map(|met| match met {
        Met::File(item) => Some(item),
        Met::Other(passed) => {
            output.borrow_mut().passed(&passed);
            None
        }
    });
    let scanned = worker.scan(&mut items, &mut |report| output.borrow_mut().report(&report));
    progress.end();
    let code = output.into_inner().finish(&loaded)?;
    scanned?;
    Ok(code)
}

fn read_rules(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(RULES_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn threads(arguments: &Arguments) -> NonZeroU16 {
    let all = || std::thread::available_parallelism().ok().and_then(|count| NonZeroU16::try_from(count).ok());
    arguments.threads.or_else(all).unwrap_or(NonZeroU16::MIN)
}

/// Rules that fail this test are still what the user asked for; an agent would not take them.
fn warn(loaded: &Loaded) {
    for rule in &loaded.self_test.harmless {
        eprintln!("warning: rule `{rule}` fires on a harmless text");
    }
}
