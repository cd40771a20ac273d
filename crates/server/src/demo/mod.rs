//! `clerestory demo`: the whole system on this machine, on real third-party source.
//!
//! Everything runs as it would anywhere: separate processes with separate keys and folders, talking
//! over HTTP, driven by the same commands that people type. The demo adds no way around a check.

mod attacks;
mod ci;
mod cloud;
mod data;
mod endpoint;
mod erasure;
mod guard;
mod indicators;
mod path;
mod report;
mod rules;
mod stage;
mod trees;
mod verify;

use std::path::PathBuf;

use anyhow::Context as _;

pub use cloud::Cloud;
pub use path::{build_or_pin, copy_recipe};
pub use report::{Narrator, Report, Row};
pub use stage::Stage;

use crate::demo::path::Shown;

/// What the demo is asked to do.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where it keeps what it fetched, and what this run makes.
    pub folder: PathBuf,
    /// Where the products' recipes are.
    pub products: PathBuf,
    /// What to build; the first is the one that is attacked.
    pub names: Vec<String>,
    /// Do not ask upstream: use what an earlier run found and fetched.
    pub offline: bool,
}

/// Runs the demo and says what was shown. The processes run on until [`Running`] is dropped.
///
/// # Errors
/// When something does not go as it must: a release that is not accepted, or an attack that is.
pub fn run(options: &Options) -> anyhow::Result<(Report, Running)> {
    let narrator = Narrator::new();
    let program = std::env::current_exe().context("can't find this program")?;
    let stage = Stage::set(&program, options, &narrator)?;
    let mut report = Report::new(stage.folder(), narrator.clock());
    let shown: Shown = path::walk(&stage, options, &narrator, &mut report).context("the main path")?;
    attacks::run(&stage, options, &shown, &narrator, &mut report).context("the attacks")?;
    ci::run(&stage, &shown, &narrator, &mut report).context("the vendor's CI")?;
    rules::run(&stage, options, &narrator, &mut report).context("the rules")?;
    data::run(&stage, options, &narrator, &mut report).context("the data")?;
    cloud::run(&stage, options, &narrator, &mut report).context("the threat cloud")?;
    path::audit(&stage, &narrator, &mut report).context("the audit")?;
    report.finish();
    Ok((report, Running(stage)))
}

/// The processes of a demo that is over.
pub struct Running(Stage);

impl Running {
    /// Where they can be reached: who, and URL.
    #[must_use]
    pub fn addresses(&self) -> Vec<(String, String)> {
        self.0.addresses()
    }
}
