//! `clerestory data retire`: keys whose time is over are destroyed.

use std::fmt;

use serde::Serialize;

use super::Common;
use crate::command::{Output, block_on};
use crate::config::Config;
use crate::custodian::{Desk, Destroyed};
use crate::stores::{Access, State};

#[derive(Debug, Serialize)]
struct Retired {
    destroyed: Vec<Destroyed>,
}

impl fmt::Display for Retired {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.destroyed.is_empty() {
            return writeln!(f, "no key's time is over");
        }
        for it in &self.destroyed {
            let Destroyed { region, key, until, moved, false_ones } = it;
            writeln!(f, "region `{region}`: key {key} (until {until}) is destroyed; {moved} shares are in the table")?;
            if *false_ones > 0 {
                writeln!(
                    f,
                    "{false_ones} objects had a share that was made for something else; nobody can open these"
                )?;
            }
        }
        Ok(())
    }
}

pub(super) fn run(common: &Common, output: Output) -> anyhow::Result<()> {
    block_on(async {
        let config = Config::load(&common.config)?;
        let state = State::open(&config).await?;
        let destroyed = Desk::over(&config, &state, Access::Read).await?.retire().await;
        state.close().await;
        output.print(&Retired { destroyed: destroyed? })
    })
}
