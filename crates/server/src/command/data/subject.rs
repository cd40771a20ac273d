//! `clerestory data subject`: who has read what one owner has sent. The owner alone knows which objects these are;
//! nobody is asked about one of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use api::{BaseUrl, BodyLimit, Client};
use attest::{AccessIntent, BatchId, Envelope, Statement, StatementId};
use bytes::Bytes;
use clap::Args;
use ledger::{Access, Filter, Index, OBJECT_LIST_BYTES_MAX, Page, Timeline, Wanted, parse_object_list};
use log::Reader;
use serde::Serialize;
use stdx::{Clock as _, Digest, SystemClock};
use tlog::{EntryIndex, SignedCheckpoint};
use vault::Lineage;
use verify::TrustedPolicy;

use super::accesses::{Line, log_at};
use crate::accesses::{no_residency, read};
use crate::command::trust::{LogAt, TrustArguments};
use crate::command::{Output, block_on};
use crate::failure::Failure;
use crate::supervise::read_manifests;

/// A million objects, one a line.
const OBJECTS_BYTES_MAX: u64 = 80 << 20;
/// For a manifest.
const PATIENCE: Duration = Duration::from_secs(60);
/// Rows of the index that are read at a time.
const ROWS: usize = 4096;

/// Arguments of `data subject`.
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    trust: TrustArguments,
    /// What `clerestory-agent share objects` has printed
    #[arg(value_name = "FILE")]
    objects: PathBuf,
    /// Who has the lists of what was read: the supervisor, a custodian
    #[arg(long, value_name = "URL", required = true)]
    at: Vec<BaseUrl>,
    /// Where the vault is: the vendor's URL. It is asked for all that it lists, so that it does not learn either
    #[arg(long, value_name = "URL")]
    vault: BaseUrl,
    /// Where the log is, if not where the policy says: any copy of it, such as a mirror's
    #[arg(long, value_name = "URL")]
    url: Option<BaseUrl>,
    /// Where proofs of misbehaviour go
    #[arg(long, value_name = "DIR", default_value = ".")]
    proofs: PathBuf,
}

/// What was read of somebody's.
#[derive(Debug, Serialize)]
struct Answer {
    /// How many objects were looked for.
    objects: usize,
    /// How many of them the vault never listed: of these only accesses to themselves are found.
    never_listed: usize,
    /// What workers have made of them, by the SHA-256 of the headers.
    made_of_them: Vec<Digest>,
    /// Accesses that named one of them, newest first.
    accesses: Vec<Read>,
    /// Accesses of which nobody who was asked has the list.
    unlisted: Vec<StatementId>,
    /// How much of the log this rests on.
    entries: u64,
    /// Its root.
    root: String,
}

#[derive(Debug, Serialize)]
struct Read {
    /// How many of the owner's objects it named, or may have had events of in columns.
    of_owner: usize,
    /// Whether it was, for some, in columns that a worker has made of them.
    in_columns: bool,
    #[serde(flatten)]
    access: Access,
}

pub(super) fn run(arguments: &Arguments, output: Output) -> anyhow::Result<()> {
    let answer = block_on(answer(arguments))?;
    output.print(&answer)?;
    match answer.unlisted.len() {
        0 => Ok(()),
        count => Err(Failure::refused(format!("{count} accesses may have read these objects, or not"))
            .hint("name others with `--at`: the supervisor and every custodian keep the lists of what they opened")
            .into()),
    }
}

async fn answer(arguments: &Arguments) -> anyhow::Result<Answer> {
    let mine = objects(arguments)?;
    let policy = arguments.trust.load()?;
    let Lines { of, made, never_listed } = descent(arguments, &policy, &mine)?;
    let residency = policy.policy().residency.as_ref().ok_or_else(no_residency)?;
    let log = log_at(&policy, &residency.log, arguments.url.as_ref())?;
    let mut index = Index::in_memory(log.origin.clone());
    let report = read(&policy, &log, &mut index, &arguments.proofs).await?;
    let accesses = all(&index)?;
    let roots = roots(&log, &index, &accesses).await?;
    let mut counts: BTreeMap<Digest, Option<(usize, bool)>> = BTreeMap::new();
    let (mut found, mut unlisted) = (Vec::new(), Vec::new());
    for access in accesses {
        let root = roots.get(&access.id).with_context(|| format!("access {} is not in the log any more", access.id))?;
        let count = match counts.get(root) {
            Some(count) => *count,
            None => {
                let list = list(arguments, &log, root)?;
                let count = list.map(|list| {
                    let named = list.iter().filter_map(|object| of.get(object));
                    let of_owner: BTreeSet<&Digest> = named.flatten().collect();
                    (of_owner.len(), list.iter().any(|object| made.contains(object)))
                });
                *counts.entry(*root).or_insert(count)
            }
        };
        match count {
            Some((0, _)) => {}
            Some((of_owner, in_columns)) => found.push(Read { of_owner, in_columns, access }),
            None => unlisted.push(access.id),
        }
    }
    Ok(Answer {
        objects: mine.len(),
        never_listed,
        made_of_them: made.into_iter().collect(),
        accesses: found,
        unlisted,
        entries: report.size,
        root: report.root,
    })
}

/// What became of the owner's objects. All by the SHA-256 of headers.
struct Lines {
    /// The objects, and what workers have made of them: each with which of the owner's objects it is, or has events of.
    of: BTreeMap<Digest, BTreeSet<Digest>>,
    /// Those that workers have made.
    made: BTreeSet<Digest>,
    /// How many of the owner's the vault never listed.
    never_listed: usize,
}

fn descent(arguments: &Arguments, policy: &TrustedPolicy, mine: &BTreeSet<Digest>) -> anyhow::Result<Lines> {
    let mut of: BTreeMap<Digest, BTreeSet<Digest>> = mine.iter().map(|object| (*object, [*object].into())).collect();
    let (mut made, mut listed) = (BTreeSet::new(), 0);
    let client = Client::new(PATIENCE);
    for region in policy.policy().residency.iter().flat_map(|it| &it.regions) {
        let sought = mine.clone();
        let mut lineage = Lineage::new(region.id.clone(), move |kept| sought.contains(&kept.header));
        read_manifests(&client, &arguments.vault, &mut lineage)
            .with_context(|| format!("what became of objects in region `{}` is not known", region.id))?;
        let own: BTreeMap<BatchId, Digest> =
            lineage.found().filter(|(_, it)| !it.is_made).map(|(id, it)| (*id, it.header)).collect();
        listed += own.len();
        for (_, it) in lineage.found().filter(|(_, it)| it.is_made) {
            of.insert(it.header, it.of.iter().filter_map(|id| own.get(id).copied()).collect());
            made.insert(it.header);
        }
    }
    Ok(Lines { of, made, never_listed: mine.len().saturating_sub(listed) })
}

fn objects(arguments: &Arguments) -> anyhow::Result<BTreeSet<Digest>> {
    let path = &arguments.objects;
    let name = || format!("`{}`", path.display());
    let length = fs::metadata(path).with_context(name)?.len();
    if length > OBJECTS_BYTES_MAX {
        return Err(Failure::refused(format!("{} has {length} bytes; at most {OBJECTS_BYTES_MAX}", name())).into());
    }
    let hashes = reputation::parse_list(&fs::read(path).with_context(name)?);
    let hashes = hashes.map_err(|error| {
        Failure::refused(format!("{}: {error}", name())).hint("`clerestory-agent share objects` prints such a list")
    })?;
    if hashes.is_empty() {
        return Err(Failure::refused(format!("{} names no object", name()))
            .hint("nothing was sent, or its record was taken away with `share export --remove`")
            .into());
    }
    Ok(hashes.into_iter().collect())
}

/// Every access, newest first.
fn all(index: &Index) -> anyhow::Result<Vec<Access>> {
    let (mut all, mut before) = (Vec::new(), None);
    loop {
        let page = Page { rows: ROWS, before };
        let wanted = Wanted { now: SystemClock::new().now(), page, timeline: Timeline::Left };
        let found = index.search(&Filter::default(), &wanted)?;
        all.extend(found.accesses);
        before = found.next;
        if before.is_none() {
            return Ok(all);
        }
    }
}

/// What each access names, from the entries themselves: a statement's name is the hash of what it says.
async fn roots(log: &LogAt, index: &Index, accesses: &[Access]) -> anyhow::Result<BTreeMap<StatementId, Digest>> {
    let mut roots = BTreeMap::new();
    let Some(first) = accesses.iter().map(|access| access.entry).min() else { return Ok(roots) };
    let wanted: BTreeSet<StatementId> = accesses.iter().map(|access| access.id).collect();
    let checkpoint = SignedCheckpoint::parse(index.checkpoint().context("the log was read")?)?;
    let reader = Reader::new(log.source(), *checkpoint.checkpoint().head());
    let visit = &mut |_, entry: &Bytes| {
        let intent = Envelope::parse(entry).ok().filter(|envelope| wanted.contains(&envelope.id()));
        let says = intent.and_then(|it| Some((it.id(), Statement::<AccessIntent>::decode(it.payload()).ok()?)));
        roots.extend(says.and_then(|(id, says)| Some((id, says.subject.first()?.sha256()))));
        ControlFlow::Continue(())
    };
    reader.entries(EntryIndex::new(first)..EntryIndex::new(index.entries()), visit).await?;
    Ok(roots)
}

/// The list below `root`, from the first who has it whole.
fn list(arguments: &Arguments, log: &LogAt, root: &Digest) -> anyhow::Result<Option<Vec<Digest>>> {
    let mut failed = None;
    for holder in &arguments.at {
        let name = root.to_string();
        let (first, second) = (name.get(..2).unwrap_or_default(), name.get(2..4).unwrap_or_default());
        let url = holder.join(&format!("/addenda/{first}/{second}/{name}"));
        let limit = BodyLimit(OBJECT_LIST_BYTES_MAX as u64);
        match tokio::task::block_in_place(|| log.client.find(&url, limit)) {
            Ok(Some(bytes)) => match parse_object_list(&bytes, root) {
                Some(list) => return Ok(Some(list)),
                None => tracing::warn!("`{holder}` gives another list than {root}"),
            },
            Ok(None) => {}
            Err(error) => failed = Some(error),
        }
    }
    match failed {
        Some(error) => Err(error).context("who could have the lists of objects can't be asked"),
        None => Ok(None),
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Read { of_owner, in_columns, access } in &self.accesses {
            let how = if *in_columns { " in columns" } else { "" };
            write!(f, "{of_owner} of yours{how}: {}", Line(access))?;
        }
        for id in &self.unlisted {
            writeln!(f, "UNKNOWN: nobody who was asked says what access {id} has read")?;
        }
        if self.never_listed > 0 {
            writeln!(f, "the vault never listed {} of these objects", self.never_listed)?;
        }
        let (accesses, made) = (self.accesses.len(), self.made_of_them.len());
        writeln!(f, "{accesses} accesses to one of {} objects, or to {made} that have events of them", self.objects)?;
        writeln!(f, "in {} entries, root {}", self.entries, self.root)
    }
}
