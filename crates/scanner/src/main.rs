//! The executable.

use std::process::ExitCode;

fn main() -> ExitCode {
    scanner::work()
}
