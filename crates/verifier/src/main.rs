//! The executable: parses, proves, prints.

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;
use stdx::SystemClock;
use verifier::{Arguments, Failure, Proof, prove};

fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    let outcome = prove(&arguments, &SystemClock::new());
    let mut stdout = std::io::stdout().lock();
    if arguments.json {
        let json = outcome.as_ref().map_or_else(refusal_json, Proof::to_json);
        writeln!(stdout, "{json:#}")?;
    } else if let Ok(proof) = &outcome {
        writeln!(stdout, "{proof}")?;
    }
    stdout.flush()?;
    match outcome {
        Ok(_) => Ok(ExitCode::SUCCESS),
        Err(failure) => {
            eprintln!("{failure}");
            Ok(ExitCode::FAILURE)
        }
    }
}

fn refusal_json(failure: &Failure) -> serde_json::Value {
    serde_json::json!({
        "verified": false,
        "code": failure.code,
        "message": failure.message,
        "hint": failure.hint,
    })
}
