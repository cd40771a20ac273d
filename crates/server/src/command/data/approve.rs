//! `clerestory data approve`: "this may be read".

use api::{DataApproval, path};
use attest::{AccessApproval, Envelope, Statement, StatementId};
use clap::Args;
use policy::Role;

use super::ask::{Asker, Common, private, text};
use super::requests::Shown;
use crate::command::Output;
use crate::failure::Failure;

/// Arguments of `data approve`.
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    common: Common,
    /// The request
    request: StatementId,
    /// What you have to say; private, the log has a commitment
    #[arg(long)]
    comment: Option<String>,
    /// Only show what you would agree to: who asks, for which ticket, with which query
    #[arg(long)]
    show: bool,
}

pub(super) fn run(arguments: &Arguments, output: Output) -> anyhow::Result<()> {
    let asker = Asker::open(&arguments.common, Role::Approver)?;
    // Nobody agrees to what can't be shown.
    let (state, statement) = asker.request(arguments.request)?;
    if arguments.show {
        return output.print(&Shown(state));
    }
    let comment = arguments.comment.as_deref().ok_or_else(|| {
        Failure::usage("an approval has a comment").hint("`--comment WHY`; `--show` shows what you would agree to")
    })?;
    let comment = private("comment", comment)?;
    let state = asker.bring(path::DATA_APPROVALS, |position| {
        let predicate = AccessApproval { position, request: arguments.request, comment: comment.commitment() };
        let approval = Statement { subject: statement.subject.clone(), predicate };
        let envelope = Envelope::sign(approval.encode()?, &[&asker.key])?;
        Ok(DataApproval { envelope: text(&envelope)?, openings: vec![comment.clone()] })
    })?;
    output.print(&Shown(state))
}
