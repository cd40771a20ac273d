//! `clerestory demo`: the whole system on this machine, on real input.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;

use crate::command::Output;
use crate::demo::{self, Options};
use crate::failure::Failure;

/// Show the whole system on this machine, on real third-party source
#[derive(Debug, Args)]
pub struct Arguments {
    /// Where it keeps what it fetched, and what this run makes [default: clerestory/demo in the cache folder]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// The cache folder of this user
    #[arg(long, env = "XDG_CACHE_HOME", hide = true)]
    cache_home: Option<PathBuf>,
    /// The home folder of this user
    #[arg(long, env = "HOME", hide = true)]
    home: Option<PathBuf>,
    /// The folder with the products' recipes
    #[arg(long, value_name = "DIR", default_value = "products")]
    products: PathBuf,
    /// What to build; may be given several times [default: cjson and pysigma]
    #[arg(long = "product", value_name = "NAME")]
    names: Vec<String>,
    /// Do not ask upstream: use what an earlier run found and fetched
    #[arg(long)]
    offline: bool,
    /// End when everything has been shown, instead of serving on
    #[arg(long)]
    once: bool,
}

/// # Errors
/// When something does not go as it must.
pub fn run(arguments: &Arguments, output: Output) -> anyhow::Result<()> {
    let cache = arguments.cache_home.clone().or_else(|| arguments.home.as_ref().map(|home| home.join(".cache")));
    let folder = match (&arguments.dir, cache) {
        (Some(dir), _) => dir.clone(),
        (None, Some(cache)) => cache.join("clerestory/demo"),
        (None, None) => return Err(Failure::usage("there is no home folder").hint("give `--dir DIR`").into()),
    };
    let names = if arguments.names.is_empty() {
        ["pysigma", "cjson"].map(str::to_owned).to_vec()
    } else {
        arguments.names.clone()
    };
    if !arguments.products.is_dir() {
        let message = format!("`{}` is no folder", arguments.products.display());
        return Err(Failure::usage(message).hint("run it in the project's folder, or give `--products DIR`").into());
    }
    let options = Options { folder, products: arguments.products.clone(), names, offline: arguments.offline };
    let (report, running) = demo::run(&options)?;
    output.print(&report)?;
    if arguments.once {
        return Ok(());
    }
    for (name, url) in running.addresses() {
        eprintln!("  {name:<11} {url}");
    }
    eprintln!("serving on; Ctrl-C ends it");
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("can't start the runtime")?;
    runtime.block_on(tokio::signal::ctrl_c()).context("can't wait for Ctrl-C")?;
    drop(running);
    Ok(())
}
