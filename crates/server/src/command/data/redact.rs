//! `clerestory data redact`: deleting private parts of access statements, by an approved entry only.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::path::PathBuf;

use anyhow::Context as _;
use api::{BaseUrl, BodyLimit, path};
use attest::{
    AccessApproval, AccessRedaction, AccessRequest, Bundle, BundleEntry, Commitment, Envelope, Opening, Predicate,
    PrivateField, Statement, StatementId, Subject,
};
use bytes::Bytes;
use clap::{Args, Subcommand, ValueEnum};
use ledger::{Filter, Index, Page, Redact, Timeline, Wanted, What};
use log::Reader;
use serde::Serialize;
use stdx::{Clock as _, SystemClock, SystemEntropy};
use tlog::{EntryIndex, LogProof, SignedCheckpoint};
use verify::TrustedPolicy;

use super::Logged;
use super::accesses::log_at;
use crate::accesses::{Voice, no_residency, read};
use crate::command::trust::{LogAt, TrustArguments};
use crate::command::{Output, block_on};
use crate::failure::Failure;

const ANSWER_BYTES_MAX: BodyLimit = BodyLimit(4096);

/// Arguments of `data redact`.
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    trust: TrustArguments,
    /// Where proofs of misbehaviour go
    #[arg(long, value_name = "DIR", default_value = ".")]
    proofs: PathBuf,
    #[command(subcommand)]
    step: Step,
}

#[derive(Debug, Subcommand)]
enum Step {
    /// Ask for it: nothing is deleted before enough others agree
    Ask {
        /// Your key, which may approve
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
        /// What to delete of the request
        #[arg(long, value_enum, required = true)]
        field: Vec<Field>,
        /// Why, for everybody to read
        #[arg(long)]
        reason: String,
        /// The request
        request: StatementId,
    },
    /// Agree to it
    Approve {
        /// Your key
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
        /// The redaction
        redaction: StatementId,
    },
    /// Have it done, at everybody who has copies
    CarryOut {
        /// Who has copies: the supervisor, each custodian
        #[arg(long, value_name = "URL", required = true)]
        at: Vec<BaseUrl>,
        /// The redaction
        redaction: StatementId,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Field {
    Reader,
    Ticket,
}

/// What was deleted, and where.
#[derive(Debug, Serialize)]
struct CarriedOut {
    redaction: StatementId,
    at: Vec<BaseUrl>,
}

impl std::fmt::Display for CarriedOut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.at.iter().try_for_each(|at| writeln!(f, "redaction {}: carried out at {at}", self.redaction))
    }
}

/// The log, as it is now.
struct Ledger<'a> {
    policy: &'a TrustedPolicy,
    log: LogAt,
    index: Index,
    proofs: &'a PathBuf,
}

pub(super) fn run(arguments: &Arguments, output: Output) -> anyhow::Result<()> {
    let policy = arguments.trust.load()?;
    block_on(async {
        let residency = policy.policy().residency.as_ref().ok_or_else(no_residency)?;
        let log = log_at(&policy, &residency.log, None)?;
        let index = Index::in_memory(log.origin.clone());
        let mut ledger = Ledger { policy: &policy, log, index, proofs: &arguments.proofs };
        read(&policy, &ledger.log, &mut ledger.index, ledger.proofs).await?;
        match &arguments.step {
            Step::Ask { key, field, reason, request } => {
                output.print(&Logged::of(&ledger.ask(key, field, reason, *request).await?))
            }
            Step::Approve { key, redaction } => output.print(&Logged::of(&ledger.approve(key, *redaction).await?)),
            Step::CarryOut { at, redaction } => {
                ledger.carry_out(at, *redaction).await?;
                output.print(&CarriedOut { redaction: *redaction, at: at.clone() })
            }
        }
    })
}

impl Ledger<'_> {
    async fn ask(
        &mut self,
        key: &std::path::Path,
        field: &[Field],
        reason: &str,
        request: StatementId,
    ) -> anyhow::Result<BundleEntry> {
        let (_, envelope) = self.entry(request, What::Request).await?;
        let says = Statement::<AccessRequest>::decode(envelope.payload())?.predicate;
        let fields: BTreeSet<Commitment> = field
            .iter()
            .map(|field| match field {
                Field::Reader => says.reader,
                Field::Ticket => says.ticket,
            })
            .collect();
        let voice = Voice::open(self.policy, &self.log, key)?;
        let make = |position, _: &Index| {
            let (of, fields, reason) = (request, fields.iter().copied().collect(), reason.to_owned());
            let subject = vec![Subject::new("request", *request.digest())];
            Ok(Statement { subject, predicate: AccessRedaction { position, of, fields, reason } })
        };
        voice.say(&self.log, &mut self.index, self.proofs, make).await
    }

    async fn approve(&mut self, key: &std::path::Path, redaction: StatementId) -> anyhow::Result<BundleEntry> {
        let (_, envelope) = self.entry(redaction, What::Redaction).await?;
        let subject = Statement::<AccessRedaction>::decode(envelope.payload())?.subject;
        let voice = Voice::open(self.policy, &self.log, key)?;
        let comment = Opening::new(PrivateField { label: "comment", value: "redaction" }, &SystemEntropy)?;
        let comment = comment.commitment();
        let make = |position, _: &Index| {
            let predicate = AccessApproval { position, request: redaction, comment };
            Ok(Statement { subject: subject.clone(), predicate })
        };
        voice.say(&self.log, &mut self.index, self.proofs, make).await
    }

    /// Brings the redaction and its approvals to every holder, each of which decides by itself.
    async fn carry_out(&self, at: &[BaseUrl], redaction: StatementId) -> anyhow::Result<()> {
        let (first, envelope) = self.entry(redaction, What::Redaction).await?;
        let mut found = vec![(first, envelope)];
        let reader = self.reader()?;
        let visit = &mut |index: EntryIndex, entry: &Bytes| {
            found.extend(envelope_of::<AccessApproval>(entry, |it| it.request == redaction).map(|it| (index, it)));
            ControlFlow::Continue(())
        };
        let end = EntryIndex::new(self.index.entries());
        reader.entries(EntryIndex::new(first.get() + 1)..end, visit).await?;
        let checkpoint = self.checkpoint()?;
        let mut entries = Vec::new();
        for (index, envelope) in found {
            let (_, path) = reader.inclusion(index).await?;
            entries.push(BundleEntry { envelope, proof: LogProof::new(index, path, checkpoint.clone()) });
        }
        let evidence = String::from_utf8(Bundle::new(entries)?.to_bytes())?;
        let ask = Redact { evidence };
        for holder in at {
            let url = holder.join(path::REDACTIONS);
            tokio::task::block_in_place(|| self.log.client.post_json::<()>(&url, &ask, ANSWER_BYTES_MAX))
                .with_context(|| format!("`{holder}` has deleted nothing"))?;
        }
        Ok(())
    }

    /// The entry of a statement.
    async fn entry(&self, id: StatementId, what: What) -> anyhow::Result<(EntryIndex, Envelope)> {
        let filter = Filter { id: Some(id), what: vec![what], ..Filter::default() };
        let now = SystemClock::new().now();
        let wanted = Wanted { now, page: Page { rows: 1, before: None }, timeline: Timeline::Left };
        let found = self.index.search(&filter, &wanted)?;
        let found = found.accesses.first().ok_or_else(|| {
            Failure::refused(format!("`{id}` is not in the log, or is something else"))
                .hint("`clerestory data accesses --what request` shows requests, `--what redaction` redactions")
        })?;
        let index = EntryIndex::new(found.entry);
        Ok((index, Envelope::parse(&self.reader()?.entry(index).await?)?))
    }

    fn checkpoint(&self) -> anyhow::Result<SignedCheckpoint> {
        Ok(SignedCheckpoint::parse(self.index.checkpoint().context("the log was read")?)?)
    }

    fn reader(&self) -> anyhow::Result<Reader> {
        Ok(Reader::new(self.log.source(), *self.checkpoint()?.checkpoint().head()))
    }
}

/// The entry's envelope, if it says this.
fn envelope_of<P: Predicate>(entry: &Bytes, is: impl Fn(&P) -> bool) -> Option<Envelope> {
    let envelope = Envelope::parse(entry).ok()?;
    let statement = Statement::<P>::decode(envelope.payload()).ok()?;
    is(&statement.predicate).then_some(envelope)
}
