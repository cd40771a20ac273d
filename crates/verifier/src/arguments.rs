//! The command line.

use std::path::PathBuf;

use attest::{ProductId, StatementId};
use clap::Parser;

/// Verify offline that FILE belongs to the product, was built from its source by two organisations,
/// released by both, and recorded under a quorum of witnesses
#[derive(Clone, Debug, Parser)]
#[command(
    name = "clerestory-verify",
    version,
    after_help = "Exit codes: 0 verified, 1 not verified, 2 wrong usage.\n\
                  The genesis hash must come from another channel than the file."
)]
pub struct Arguments {
    /// The file to verify
    pub file: PathBuf,
    /// The product that the file must be: a genuine release of another one is refused
    #[arg(long, value_name = "NAME")]
    pub product: ProductId,
    /// The release's bundle
    #[arg(long, value_name = "FILE")]
    pub bundle: PathBuf,
    /// The policy: a folder with `1.envelope`, `2.bundle`, …, or the genesis envelope alone
    #[arg(long, value_name = "PATH")]
    pub policy: PathBuf,
    /// SHA-256 that identifies the genesis policy
    #[arg(long, value_name = "HASH")]
    pub genesis: StatementId,
    /// A bundle with the lane's status, if the release's bundle has none that is recent
    #[arg(long, value_name = "FILE")]
    pub status: Option<PathBuf>,
    /// Accept a status of at most this age instead of the policy's age for imports
    #[arg(long, value_name = "DAYS")]
    pub age_days: Option<u32>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}
