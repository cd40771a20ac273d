//! The stages of the sandbox, each a fresh start of this program.

use std::process::ExitCode;

fn main() -> ExitCode {
    sandbox::program()
}
