//! `clerestory data report`: a custodian's report, now.

use std::fmt;

use serde::Serialize;

use super::{Common, Logged};
use crate::command::{Output, block_on};
use crate::config::Config;
use crate::custodian::Desk;
use crate::stores::{Access, State};

#[derive(Debug, Serialize)]
#[serde(transparent)]
struct Reports(Vec<Logged>);

impl fmt::Display for Reports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|logged| logged.fmt(f))
    }
}

pub(super) fn run(common: &Common, output: Output) -> anyhow::Result<()> {
    block_on(async {
        let config = Config::load(&common.config)?;
        let state = State::open(&config).await?;
        let entries = Desk::over(&config, &state, Access::Read).await?.report().await;
        state.close().await;
        output.print(&Reports(entries?.iter().map(Logged::of).collect()))
    })
}
