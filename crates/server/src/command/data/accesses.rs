//! `clerestory data accesses`: who read what.

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use api::BaseUrl;
use attest::{AccessMode, CountryCode, DataClass, OrganisationId, Purpose, ReaderKind, RegionId, StatementId};
use clap::{Args, ValueEnum};
use ledger::{Access, AccessState, Filter, Finding, Found, Index, Page, Timeline, Wanted, What};
use serde::Serialize;
use stdx::{Clock as _, SystemClock, UnixTime, durable};

use crate::accesses::{Review, Voice, no_residency, read};
use crate::command::trust::{LogAt, TrustArguments, all_logs};
use crate::command::{Output, block_on};
use crate::failure::Failure;

/// Rows of a page.
const ROWS_MAX: u64 = 1000;

/// Findings that people are shown; `--json` has all.
const SHOWN_MAX: usize = 20;

/// Arguments of `data accesses`.
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    trust: TrustArguments,
    /// Where the log is, if not where the policy says: any copy of it, such as a mirror's
    #[arg(long, value_name = "URL")]
    url: Option<BaseUrl>,
    /// Keeps what was read in this folder; without it all of the log is read each time
    #[arg(long, value_name = "DIR")]
    index: Option<PathBuf>,
    /// Where proofs of misbehaviour go
    #[arg(long, value_name = "DIR", default_value = ".")]
    proofs: PathBuf,
    #[command(flatten)]
    filter: FilterArguments,
    /// How many to show, newest first
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(..=ROWS_MAX))]
    limit: u64,
    /// Show those before this one: `next` of the page before
    #[arg(long, value_name = "ROW")]
    before: Option<u64>,
    /// Draw a timeline, and add everything up
    #[arg(long)]
    timeline: bool,
    /// Write the timeline as a picture (SVG)
    #[arg(long, value_name = "FILE")]
    picture: Option<PathBuf>,
    /// Look in your name, and learn the readers' names: logged, with what is looked for, before anybody is asked
    #[arg(long, value_name = "NAME", requires_all = ["key", "names"])]
    reviewer: Option<String>,
    /// Your key, which may approve
    #[arg(long, value_name = "FILE", requires = "reviewer")]
    key: Option<PathBuf>,
    /// Who has the names: the supervisor, a custodian
    #[arg(long, value_name = "URL", requires = "reviewer")]
    names: Vec<BaseUrl>,
    /// End with 1 if anything is missing or does not agree
    #[arg(long)]
    check: bool,
}

/// What is looked for. Given several times, any of the values is good.
#[derive(Debug, Args)]
struct FilterArguments {
    /// What to list
    #[arg(long, value_enum, default_value = "access")]
    what: Vec<Kind>,
    /// A part of the reader's name, as far as names are known here
    #[arg(long, value_name = "TEXT")]
    who: Option<String>,
    /// The reader's organisation
    #[arg(long, value_name = "ORGANISATION")]
    employer: Vec<OrganisationId>,
    /// People only, or services only
    #[arg(long, value_enum)]
    kind: Option<Reader>,
    /// What for
    #[arg(long)]
    purpose: Vec<Purpose>,
    /// Where it lies
    #[arg(long)]
    region: Vec<RegionId>,
    /// What kind of data
    #[arg(long)]
    class: Vec<DataClass>,
    /// Whose data (two letters)
    #[arg(long)]
    country: Vec<CountryCode>,
    /// From this time on
    #[arg(long, value_name = "TIME")]
    from: Option<UnixTime>,
    /// Before this time
    #[arg(long, value_name = "TIME")]
    until: Option<UnixTime>,
    /// Approved by so many people at least
    #[arg(long, value_name = "COUNT")]
    approvals_min: Option<u8>,
    /// Approved by so many at most
    #[arg(long, value_name = "COUNT")]
    approvals_max: Option<u8>,
    /// At least so many bytes were given out
    #[arg(long, value_name = "BYTES")]
    bytes_min: Option<u64>,
    /// At least so many rows were given out
    #[arg(long, value_name = "ROWS")]
    rows_min: Option<u64>,
    /// How it stands
    #[arg(long, value_enum)]
    state: Vec<State>,
    /// Emergencies only
    #[arg(long)]
    break_glass: bool,
    /// This very statement
    #[arg(long, value_name = "ID")]
    id: Option<StatementId>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Kind {
    Access,
    Request,
    Review,
    Redaction,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Reader {
    Person,
    Service,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum State {
    Open,
    Done,
    Failed,
    Refused,
    Missing,
    Asked,
    Used,
}

impl FilterArguments {
    fn filter(&self) -> Filter {
        let what = |kind: &Kind| match kind {
            Kind::Access => What::Access,
            Kind::Request => What::Request,
            Kind::Review => What::Review,
            Kind::Redaction => What::Redaction,
        };
        let state = |state: &State| match state {
            State::Open => AccessState::Open,
            State::Done => AccessState::Done,
            State::Failed => AccessState::Failed,
            State::Refused => AccessState::Refused,
            State::Missing => AccessState::Missing,
            State::Asked => AccessState::Asked,
            State::Used => AccessState::Used,
        };
        let kind = |kind| match kind {
            Reader::Person => ReaderKind::Person,
            Reader::Service => ReaderKind::Service,
        };
        Filter {
            what: self.what.iter().map(what).collect(),
            who: self.who.clone(),
            employer: self.employer.clone(),
            kind: self.kind.map(kind),
            purpose: self.purpose.clone(),
            region: self.region.clone(),
            class: self.class.clone(),
            country: self.country.clone(),
            from: self.from,
            until: self.until,
            approvals_min: self.approvals_min,
            approvals_max: self.approvals_max,
            bytes_min: self.bytes_min,
            rows_min: self.rows_min,
            state: self.state.iter().map(state).collect(),
            mode: self.break_glass.then_some(AccessMode::BreakGlass),
            id: self.id,
        }
    }
}

/// What was found, and what it rests on.
#[derive(Debug, Serialize)]
struct Answer {
    /// The log.
    log: String,
    /// How much of it.
    entries: u64,
    /// Its root.
    root: String,
    /// As of when.
    time: Option<String>,
    /// The review that was logged for this.
    #[serde(skip_serializing_if = "Option::is_none")]
    review: Option<StatementId>,
    #[serde(flatten)]
    found: Found,
    /// What is missing, or does not agree.
    findings: Vec<Finding>,
    /// Findings that there was no room for.
    more_findings: u64,
}

pub(super) fn run(arguments: &Arguments, output: Output) -> anyhow::Result<()> {
    let answer = block_on(answer(arguments))?;
    if let Some(path) = &arguments.picture {
        let svg = ledger::svg(&answer.found.timeline);
        durable::write(path, svg.as_bytes()).with_context(|| format!("can't write `{}`", path.display()))?;
    }
    output.print(&answer)?;
    match answer.findings.len() {
        count @ 1.. if arguments.check => Err(Failure::refused(format!("{count} findings")).into()),
        _ => Ok(()),
    }
}

async fn answer(arguments: &Arguments) -> anyhow::Result<Answer> {
    let policy = arguments.trust.load()?;
    let residency = policy.policy().residency.as_ref().ok_or_else(no_residency)?;
    let log = log_at(&policy, &residency.log, arguments.url.as_ref())?;
    let mut index = open(arguments.index.as_deref(), &log)?;
    let filter = arguments.filter.filter();
    let review = review(&policy, &log, &mut index, arguments, &filter).await?;
    let report = read(&policy, &log, &mut index, &arguments.proofs).await?;
    let now = SystemClock::new().now();
    let rows = usize::try_from(arguments.limit).unwrap_or(usize::MAX);
    let drawn = arguments.timeline || arguments.picture.is_some();
    let timeline = if drawn { Timeline::Drawn } else { Timeline::Left };
    let wanted = Wanted { now, page: Page { rows, before: arguments.before }, timeline };
    let found = index.search(&filter, &wanted)?;
    let (findings, more_findings) = index.findings(&policy, now);
    let (log, root, time) = (report.origin, report.root, report.time);
    Ok(Answer { log, entries: report.size, root, time, review, found, findings, more_findings })
}

/// Logs who looks, if anybody wants names for it.
async fn review(
    policy: &verify::TrustedPolicy,
    log: &LogAt,
    index: &mut Index,
    arguments: &Arguments,
    filter: &Filter,
) -> anyhow::Result<Option<StatementId>> {
    let (Some(who), Some(key)) = (&arguments.reviewer, &arguments.key) else { return Ok(None) };
    let question = serde_json::to_string(filter)?;
    // Entries go to the log itself, whatever copy of it is read.
    let own = log_at(policy, &log.origin, None)?;
    let voice = Voice::open(policy, &own, key)?;
    let review = Review { who, question: &question, holders: &arguments.names };
    voice.review(log, index, &arguments.proofs, &review).await.map(Some)
}

/// The log of accesses.
pub(super) fn log_at(
    policy: &verify::TrustedPolicy,
    origin: &tlog::Origin,
    url: Option<&BaseUrl>,
) -> anyhow::Result<LogAt> {
    let mut logs = all_logs(policy)?;
    let at = logs.iter().position(|log| log.origin == *origin);
    let log = at.map(|at| logs.swap_remove(at));
    let log = log.ok_or_else(|| Failure::refused(format!("the policy has no log `{origin}`")))?;
    Ok(LogAt { url: url.cloned().unwrap_or(log.url), ..log })
}

fn open(folder: Option<&Path>, log: &LogAt) -> anyhow::Result<Index> {
    Ok(match folder {
        Some(folder) => Index::open(folder, log.origin.clone())?,
        None => Index::in_memory(log.origin.clone()),
    })
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for access in &self.found.accesses {
            Line(access).fmt(f)?;
        }
        write!(f, "{} found", self.found.total)?;
        if let Some(sums) = &self.found.sums {
            write!(f, ": {} objects, {} rows, {} bytes", sums.objects, sums.rows, sums.bytes)?;
        }
        match self.found.next {
            Some(next) => writeln!(f, "; more with `--before {next}`")?,
            None => writeln!(f)?,
        }
        f.write_str(&ledger::bars(&self.found.timeline))?;
        let time = self.time.as_deref().unwrap_or("?");
        writeln!(f, "in {} entries of `{}`, root {}, cosigned at {time}", self.entries, self.log, self.root)?;
        for finding in self.findings.iter().take(SHOWN_MAX) {
            let entry = finding.entry.map_or_else(String::new, |entry| format!("entry {entry}: "));
            writeln!(f, "FINDING: {entry}{}", finding.detail)?;
        }
        let hidden = (self.findings.len().saturating_sub(SHOWN_MAX) as u64).saturating_add(self.more_findings);
        if hidden > 0 {
            writeln!(f, "and {hidden} more findings")?;
        }
        Ok(())
    }
}

/// One row for people.
pub(super) struct Line<'a>(pub(super) &'a Access);

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let it = self.0;
        let who = match (&it.who, it.redacted) {
            (Some(who), _) => who.as_str(),
            (None, true) => "(redacted)",
            (None, false) => "(private)",
        };
        let state = serde_json::to_value(it.state).ok();
        let state = state.as_ref().and_then(|it| it.as_str()).unwrap_or("?");
        write!(f, "{} {state:<8} {who} of {}", it.time, it.employer)?;
        if it.mode == Some(AccessMode::BreakGlass) {
            f.write_str(" BREAK-GLASS")?;
        }
        match it.what {
            What::Access | What::Request => {
                let countries: Vec<&str> = it.countries.iter().map(|country| country.as_str()).collect();
                write!(f, ", {} of {} in {}, for {}", it.class, countries.join(" "), it.region, it.purpose)?;
                write!(f, ": {} objects, {} rows, {} bytes", it.objects, it.rows, it.bytes)?;
                write!(f, ", {} approvals", it.approvals)?;
            }
            What::Review => f.write_str(" has looked at this")?,
            What::Redaction => write!(f, " wants private parts deleted, {} approvals", it.approvals)?,
        }
        writeln!(f, ", entry {}", it.entry)
    }
}
