//! The program `clerestory-sandbox`: which stage this process is.

use std::io::Write;
use std::process::ExitCode;

use anyhow::{Context, bail};

use crate::attempt::{ATTEMPTS, attempt};
use crate::job::Job;
use crate::run::{Cancel, Sandbox};
use crate::{init, supervise, unshare};

/// The whole of `clerestory-sandbox`.
///
/// `run JOB.json` runs one job: what the command prints goes to standard error, the outcome as
/// JSON to standard output; the exit code is 0 after success, 1 otherwise, 2 for wrong usage.
/// `attempt WHAT` confines itself and tries what then is forbidden: a signal ends it. The other subcommands are stages that the program starts by itself.
#[must_use]
pub fn program() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["run", path] => return exit(run(path)),
        ["attempt", what] if ATTEMPTS.contains(what) => attempt(what),
        ["supervise"] => supervise::supervise(),
        ["unshare"] => unshare::unshare_and_wait(),
        ["init"] => init::init(),
        ["confine"] => init::confine_and_execute(),
        _ => {
            eprintln!("usage: clerestory-sandbox run JOB.json");
            eprintln!("       clerestory-sandbox attempt {}", ATTEMPTS.join("|"));
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("clerestory-sandbox: {}: {error}", words.join(" "));
            ExitCode::FAILURE
        }
    }
}

fn exit(done: anyhow::Result<ExitCode>) -> ExitCode {
    done.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

fn run(path: &str) -> anyhow::Result<ExitCode> {
    let text = std::fs::read(path).with_context(|| format!("cannot read `{path}`"))?;
    let job: Job = serde_json::from_slice(&text).with_context(|| format!("`{path}` is no job"))?;
    let sandbox = Sandbox::new(std::env::current_exe()?);
    let outcome = sandbox.run(&job, &Cancel::default(), &mut |chunk| {
        // A reader that went away does not end the job; its outcome still counts.
        let _ = std::io::stderr().write_all(chunk.bytes);
    });
    let outcome = match outcome {
        Ok(outcome) => outcome,
        Err(error) => bail!("{error}\nhint: {}", error.hint()),
    };
    println!("{}", serde_json::to_string(&outcome)?);
    if outcome.status.is_success() {
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("error: {}", outcome.status);
    if let Some(hint) = outcome.status.hint() {
        eprintln!("hint: {hint}");
    }
    Ok(ExitCode::FAILURE)
}
