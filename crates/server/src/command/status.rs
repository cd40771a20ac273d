//! `clerestory status`: what the supervisor revokes and stops.

use std::path::PathBuf;

use attest::{Lane, ProductId, ReleaseNumber, StopScope};
use clap::{Args, Subcommand};
use stdx::Digest;

use crate::command::{Output, block_on};
use crate::config::Config;
use crate::failure::Failure;
use crate::supervise::{Negative, Supervisor};

/// What the supervisor says.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show what is revoked and stopped now
    Show(Common),
    /// Revoke content: endpoints stop installing it, whatever it is called
    Revoke(RevokeArguments),
    /// Stop a lane or a product: nothing new is signed or installed
    Stop(StopArguments),
    /// Lift a stop
    Lift(StopArguments),
    /// Publish a fresh status now
    Publish(Common),
}

/// Arguments of every subcommand.
#[derive(Debug, Args)]
pub struct Common {
    /// The supervisor's configuration
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

/// Arguments of `status revoke`.
#[derive(Debug, Args)]
pub struct RevokeArguments {
    #[command(flatten)]
    common: Common,
    /// The product
    product: ProductId,
    /// SHA-256 of the content; may be given several times
    #[arg(required = true)]
    content: Vec<Digest>,
    /// The lowest release that may still be installed
    #[arg(long, value_name = "NUMBER")]
    floor: Option<u64>,
    /// Why
    #[arg(long)]
    reason: String,
}

/// Arguments of `status stop` and `status lift`.
#[derive(Debug, Args)]
pub struct StopArguments {
    #[command(flatten)]
    common: Common,
    /// The product
    #[arg(long, conflicts_with = "lane", required_unless_present = "lane")]
    product: Option<ProductId>,
    /// The whole lane: slow or fast
    #[arg(long, value_parser = lane)]
    lane: Option<Lane>,
    /// Why
    #[arg(long)]
    reason: String,
}

fn lane(text: &str) -> Result<Lane, String> {
    match text {
        "slow" => Ok(Lane::Slow),
        "fast" => Ok(Lane::Fast),
        _ => Err("a lane is `slow` or `fast`".to_owned()),
    }
}

impl StopArguments {
    fn scope(&self) -> anyhow::Result<StopScope> {
        match (&self.product, self.lane) {
            (Some(product), None) => Ok(StopScope::Product(product.clone())),
            (None, Some(lane)) => Ok(StopScope::Lane(lane)),
            _ => Err(Failure::usage("name either a product or a lane").into()),
        }
    }
}

/// Runs the command.
///
/// # Errors
/// Why it did not do what was asked.
pub fn run(command: &Command, output: Output) -> anyhow::Result<()> {
    let (common, negative) = match command {
        Command::Show(common) | Command::Publish(common) => (common, None),
        Command::Revoke(it) => (
            &it.common,
            Some(Negative::Revoke {
                product: it.product.clone(),
                content: it.content.clone(),
                floor: it.floor.map(ReleaseNumber::new),
                reason: it.reason.clone(),
            }),
        ),
        Command::Stop(it) => (&it.common, Some(Negative::Stop { scope: it.scope()?, reason: it.reason.clone() })),
        Command::Lift(it) => (&it.common, Some(Negative::Lift { scope: it.scope()?, reason: it.reason.clone() })),
    };
    block_on(async {
        let supervisor = Supervisor::open(&Config::load(&common.config)?).await?;
        match (command, &negative) {
            (Command::Publish(_), _) => supervisor.publish_all().await?,
            (_, Some(negative)) => supervisor.say(negative).await?,
            _ => {}
        }
        output.print(&supervisor.shown().await?)
    })
}
