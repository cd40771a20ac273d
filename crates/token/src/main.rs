//! `clerestory-token`: a custodian's keys in hardware, or in SoftHSM2, through PKCS#11.
//!
//! # In scope
//! Keys that are made on a token and can't leave it: P-256, for ECDH. One process, started by a custodian, which
//! asks on its standard input and reads its standard output, a JSON object a line (`docs/formats/custody.md`).
//! A counter of uses, on the token, raised before anything is used.
//!
//! # Out of scope
//! Who may have anything opened (`custody`). What HPKE makes of an agreed secret (`seal`).
//!
//! # Invariants
//! - The vendor's module is loaded here and nowhere else: foreign code is in no process that holds other keys.
//! - Every key is made with `CKA_EXTRACTABLE` false and `CKA_SENSITIVE` true, and looked at before it counts.

mod talk;
mod token;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

/// Keys on a PKCS#11 token, for a custodian that asks on standard input.
#[derive(Debug, Parser)]
#[command(name = "clerestory-token", version)]
struct Arguments {
    /// The PKCS#11 module, a shared library
    #[arg(long, value_name = "FILE")]
    module: PathBuf,
    /// The token's label
    #[arg(long)]
    label: String,
    /// A file with the user's PIN, which nobody else can read
    #[arg(long, value_name = "FILE")]
    pin: PathBuf,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match token::Token::open(&arguments.module, &arguments.label, &arguments.pin).and_then(|token| talk::talk(&token)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
