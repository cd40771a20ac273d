//! What a process took, with all that it started and waited for.

use std::ffi::OsString;
use std::fs::File;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::Context as _;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike as _;
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use stdx::{Clock as _, SystemClock};

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// Let it have so many processors only
    #[arg(long)]
    cores: Option<usize>,
    /// Its standard input
    #[arg(long)]
    input: Option<PathBuf>,
    /// Where its standard output goes
    #[arg(long)]
    output: Option<PathBuf>,
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
    command: Vec<OsString>,
}

/// What a process took.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Cost {
    /// From its start to its end.
    pub(crate) seconds: f64,
    /// User and system, of it and of its children.
    pub(crate) processor_seconds: f64,
    /// The largest resident memory that it or one of its children had. The kernel counts the pages
    /// that this small program had before it became the other one; more than that any program has.
    pub(crate) peak_mib: f64,
    /// How it ended; none for a signal.
    pub(crate) code: Option<i32>,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    if let Some(cores) = arguments.cores {
        confine(cores)?;
    }
    let (program, rest) = arguments.command.split_first().context("no program is named")?;
    let mut command = Command::new(program);
    command.args(rest).stdin(Stdio::null()).stdout(Stdio::null());
    if let Some(input) = &arguments.input {
        command.stdin(File::open(input).with_context(|| format!("`{}`", input.display()))?);
    }
    if let Some(output) = &arguments.output {
        command.stdout(File::create(output).with_context(|| format!("`{}`", output.display()))?);
    }
    let clock = SystemClock::new();
    let begun = clock.monotonic();
    let status = command.status().with_context(|| format!("can't run {command:?}"))?;
    let seconds = (clock.monotonic() - begun).as_secs_f64();
    let used = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let microseconds = used.user_time().num_microseconds() + used.system_time().num_microseconds();
    let cost = Cost {
        seconds,
        processor_seconds: microseconds as f64 / 1e6,
        peak_mib: used.max_rss() as f64 / 1024.0,
        code: status.code(),
    };
    println!("{}", serde_json::to_string(&cost)?);
    Ok(())
}

/// The last ones: what else the machine does begins at the first.
fn confine(cores: usize) -> anyhow::Result<()> {
    let this = Pid::from_raw(0);
    let usable = sched_getaffinity(this)?;
    let mut wanted = CpuSet::new();
    let numbers = (0..CpuSet::count()).rev().filter(|number| usable.is_set(*number) == Ok(true));
    for number in numbers.take(cores) {
        wanted.set(number)?;
    }
    Ok(sched_setaffinity(this, &wanted)?)
}
