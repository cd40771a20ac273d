//! `clerestory data requests`: how requests stand.

use std::fmt;

use api::{DataRequestState, path};
use attest::{AccessMode, StatementId};
use clap::Args;
use policy::Role;
use serde::Serialize;

use super::ask::{Asker, Common};
use crate::command::Output;

/// Arguments of `data requests`.
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    common: Common,
    /// This one, with its query and who asks, for its reader
    request: Option<StatementId>,
}

/// How a request stands.
#[derive(Debug, Serialize)]
#[serde(transparent)]
pub(super) struct Shown(pub(super) DataRequestState);

#[derive(Debug, Serialize)]
#[serde(transparent)]
struct List(Vec<Shown>);

impl Shown {
    fn stands(&self) -> String {
        if self.0.missing.is_empty() {
            return match self.0.intents.len() {
                0 => "may be read".to_owned(),
                count => format!("read {count} times"),
            };
        }
        let missing = self.0.missing.iter().map(|(who, count)| format!("{count} of `{who}`"));
        format!("approvals missing: {}", missing.collect::<Vec<_>>().join(", "))
    }
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let it = &self.0;
        let countries: Vec<String> = it.countries.iter().map(ToString::to_string).collect();
        writeln!(f, "request   {}", it.id)?;
        if it.mode == AccessMode::BreakGlass {
            writeln!(f, "mode      BREAK-GLASS")?;
        }
        writeln!(f, "by        {}", it.organisation)?;
        writeln!(f, "for       {}", it.purpose)?;
        writeln!(f, "data      `{}` of {} in region `{}`", it.class, countries.join(", "), it.region)?;
        let budget = it.budget;
        writeln!(f, "at most   {} objects, {} rows, {} bytes", budget.objects, budget.rows, budget.bytes)?;
        if let Some(private) = &it.private {
            for opening in private.request.iter().chain(private.approvals.values().flatten()) {
                writeln!(f, "{:<9} {}", opening.label(), opening.value())?;
            }
            writeln!(f, "query     {}", private.query.trim_end().replace('\n', "\n          "))?;
        }
        writeln!(f, "stands    {}", self.stands())
    }
}

impl fmt::Display for List {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            writeln!(f, "nobody has asked for anything")?;
        }
        for shown in &self.0 {
            let it = &shown.0;
            let loud = if it.mode == AccessMode::BreakGlass { "BREAK-GLASS " } else { "" };
            writeln!(f, "{}  {loud}{} for {} by {}: {}", it.id, it.class, it.purpose, it.organisation, shown.stands())?;
        }
        Ok(())
    }
}

pub(super) fn run(arguments: &Arguments, output: Output) -> anyhow::Result<()> {
    let asker =
        Asker::open(&arguments.common, Role::Reader).or_else(|_| Asker::open(&arguments.common, Role::Approver))?;
    match arguments.request {
        Some(id) => output.print(&Shown(asker.request(id)?.0)),
        None => {
            let states: Vec<DataRequestState> = asker.get(path::DATA_REQUESTS)?;
            output.print(&List(states.into_iter().map(Shown).collect()))
        }
    }
}
