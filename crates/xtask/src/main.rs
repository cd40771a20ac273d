//! The project's own commands: `cargo xtask demo`, `test`, `torture`, `bench`, `ci`, `tidy`, `setup`.
//!
//! # In scope
//! Everything between a fresh checkout and a green result, with nothing installed but Rust and git.
//!
//! # Out of scope
//! Anything a product needs at run time.
//!
//! # Invariants
//! Depends on no crate of ours and on few others, so that it builds in seconds and can say what is
//! wrong with the rest. Results go to stdout, everything else to stderr.
//! Exit codes: 0 done, 1 refused, 2 usage or something missing, 75 try again.

mod bench;
mod ci;
mod demo;
mod fuzz;
mod refusal;
mod setup;
mod test;
mod tidy;
mod torture;
mod workspace;

use std::process::ExitCode;

use clap::Parser;

use crate::refusal::Refusal;

/// The project's own commands.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
enum Command {
    Demo(demo::Arguments),
    Test(test::Arguments),
    Torture(torture::Arguments),
    Bench(bench::Arguments),
    Ci(ci::Arguments),
    Tidy(tidy::Arguments),
    Setup(setup::Arguments),
}

fn main() -> ExitCode {
    let done = match Command::parse() {
        Command::Demo(arguments) => demo::run(arguments),
        Command::Test(arguments) => test::run(&arguments),
        Command::Torture(arguments) => torture::run(&arguments),
        Command::Bench(arguments) => bench::run(arguments),
        Command::Ci(arguments) => ci::run(&arguments),
        Command::Tidy(arguments) => tidy::run(&arguments),
        Command::Setup(arguments) => setup::run(&arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            let refusal = error.downcast_ref::<Refusal>();
            if let Some(hint) = refusal.and_then(Refusal::hint) {
                eprintln!("hint: {hint}");
            }
            ExitCode::from(refusal.map_or(1, Refusal::code))
        }
    }
}
