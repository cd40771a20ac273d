//! `clerestory rules check | push | diff | test | corpus`: from a tree to a release.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use assembly::Version;
use attest::{Bundle, ProductId, Reason};
use clap::Args;
use detection::{
    Decision, Diff, HashesReport, Index, Rejected, Reports, Revision, RulesTree, RulesTreeError, Run, SET_FILE, decide,
    diff,
};
use serde::Serialize;
use stdx::Digest;

use crate::command::{Output, block_on, read_limited};
use crate::config::Config;
use crate::failure::Failure;
use crate::line::{Line, Pushed};
use crate::rules::Before;
use crate::{publish, rules};

/// Where trees of rules are.
#[derive(Debug, Args)]
pub(super) struct Trees {
    /// A git repository: trees are then commits of it
    #[arg(long, value_name = "FOLDER")]
    repository: Option<PathBuf>,
}

/// Arguments of `rules test`.
#[derive(Debug, Args)]
pub struct TestArguments {
    #[command(flatten)]
    trees: Trees,
    /// The tree: a folder with rules.toml in it, or a commit
    tree: String,
    /// The folder with `corpora/`: the data of an organisation
    #[arg(long, value_name = "FOLDER", default_value = ".")]
    data: PathBuf,
}

/// Arguments of `rules check`.
#[derive(Debug, Args)]
pub struct CheckArguments {
    #[command(flatten)]
    tested: TestArguments,
    /// The index (`rules.json`) of the release before; its set of hashes (`hashes.fuse`) is beside it
    #[arg(long, value_name = "FILE")]
    previous: Option<PathBuf>,
}

/// Arguments of `rules push`.
#[derive(Debug, Args)]
pub struct PushArguments {
    #[command(flatten)]
    trees: Trees,
    /// The vendor's configuration
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// The tree: a folder with rules.toml in it, or a commit
    tree: String,
    /// What the version is called, for people; a folder has its name
    #[arg(value_name = "VERSION")]
    of_version: Version,
}

/// Arguments of `rules diff`.
#[derive(Debug, Args)]
pub struct DiffArguments {
    #[command(flatten)]
    trees: Trees,
    /// The tree before: a folder, or a commit
    old: String,
    /// The tree now: a folder, or a commit
    new: String,
    /// The folder with `corpora/`: the data of an organisation
    #[arg(long, value_name = "FOLDER", default_value = ".")]
    data: PathBuf,
}

/// Arguments of `rules corpus`.
#[derive(Debug, Args)]
pub struct CorpusArguments {
    /// The folder of samples
    folder: PathBuf,
}

/// What of a long list people are shown; `--json` has all.
const SHOWN_MAX: usize = 50;

impl Trees {
    fn open(&self, tree: &str) -> anyhow::Result<RulesTree> {
        let opened = match &self.repository {
            Some(repository) => RulesTree::from_commit(repository, &Revision(tree.to_owned())),
            None => RulesTree::from_folder(Path::new(tree)),
        };
        opened.map_err(|error| {
            let of = match &self.repository {
                Some(repository) => format!("the tree `{tree}` of `{}`", repository.display()),
                None => format!("the tree `{tree}`"),
            };
            let failure = Failure::refused(of).hint(hint_of(&error));
            anyhow::Error::new(error).context(failure)
        })
    }
}

/// What to do about a tree that is none.
const fn hint_of(error: &RulesTreeError) -> &'static str {
    match error {
        RulesTreeError::Io { .. } => "name a folder that this user can read; a commit needs `--repository`",
        RulesTreeError::Git(_) => "name a commit that `git -C REPOSITORY rev-parse` finds",
        RulesTreeError::NoSettings | RulesTreeError::Settings(_) => {
            "`rules.toml` says what the rules are released as: docs/formats/rules.md has its fields"
        }
        RulesTreeError::List { .. } => "a list has one SHA-256 a line, in small letters; `#` begins a comment",
        RulesTreeError::FileTooLarge { .. } | RulesTreeError::TooLarge => {
            "a tree has rules and their licence; samples belong into a corpus beside it"
        }
        _ => "put a plain file of an ordinary name in its place",
    }
}

#[derive(Serialize)]
struct Checked {
    product: ProductId,
    bundle: Digest,
    bytes: u64,
    rules: usize,
    rejected: Vec<Rejected>,
    /// How many hashes the set has.
    hashes: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    hashes_changed: Option<HashesReport>,
    /// `fast`, or `slow` for the reasons below.
    lane: &'static str,
    reasons: Vec<detection::Reason>,
}

impl fmt::Display for Checked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { product, bundle, bytes, rules, rejected, hashes, hashes_changed, lane, reasons } = self;
        writeln!(f, "{product}: {rules} rules, {bytes} bytes, SHA-256 {bundle}")?;
        if let Some(HashesReport { added, removed, compared, known_good }) = hashes_changed {
            let good = known_good.len();
            writeln!(f, "{hashes} hashes, {added} new, {removed} gone; {good} of {compared} known-good ones in it")?;
        }
        for it in rejected.iter().take(SHOWN_MAX) {
            writeln!(f, "  rejected: {} ({}): {}", it.file, it.cause.as_str(), it.detail)?;
        }
        more(f, rejected.len())?;
        writeln!(f, "lane {lane}")?;
        reasons.iter().take(SHOWN_MAX).try_for_each(|reason| writeln!(f, "  {reason}"))?;
        more(f, reasons.len())
    }
}

fn more(f: &mut fmt::Formatter<'_>, all: usize) -> fmt::Result {
    match all.saturating_sub(SHOWN_MAX) {
        0 => Ok(()),
        more => writeln!(f, "  and {more} more (--json shows them)"),
    }
}

pub(super) fn check(arguments: &CheckArguments, output: Output) -> anyhow::Result<()> {
    let TestArguments { trees, tree, data } = &arguments.tested;
    let previous = arguments.previous.as_deref().map(read_index).transpose()?;
    let tree = trees.open(tree)?;
    let set = match (&previous, &arguments.previous) {
        (Some(Index { hashes: Some(_), .. }), Some(index)) => {
            Some(read_limited(&index.with_file_name(SET_FILE), reputation::SET_BYTES_MAX)?)
        }
        _ => None,
    };
    let report = rules::make(&tree, data, Before(set.as_deref()))?.report;
    let (lane, reasons) = match decide(&report, tree.settings(), previous.as_ref()) {
        Decision::Fast => ("fast", Vec::new()),
        Decision::Slow(reasons) => ("slow", reasons),
    };
    let Index { product, bundle, hashes, rules, rejected, .. } = report.index;
    let checked = Checked {
        product,
        bundle: bundle.digest,
        bytes: bundle.size,
        rules: rules.len(),
        rejected,
        hashes: hashes.map_or(0, |hashes| hashes.count),
        hashes_changed: report.hashes,
        lane,
        reasons,
    };
    output.print(&checked)?;
    if lane == "fast" { Ok(()) } else { Err(slow().into()) }
}

fn read_index(path: &Path) -> anyhow::Result<Index> {
    let bytes = read_limited(path, usize::try_from(detection::INDEX_BYTES_MAX)?)?;
    Index::parse(&bytes).with_context(|| {
        Failure::refused(format!("`{}` is no index of rules", path.display()))
            .hint("that of the release before is `builds/PRODUCT/VERSION/outputs/rules.json` of the vendor")
    })
}

fn slow() -> Failure {
    Failure::refused("these rules are not fit for the fast lane")
        .hint("change what the reasons name, or have people approve the result and release it through the slow lane")
}

#[derive(Serialize)]
struct Tested {
    known_bad: usize,
    goodware: usize,
    missed: Vec<String>,
    false_alarms: Vec<(String, Vec<String>)>,
    unread: Vec<(String, String)>,
    /// Hashes of the lists that are known to be good.
    known_good: Vec<(Digest, String)>,
}

impl fmt::Display for Tested {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} known-bad samples, {} not found", self.known_bad, self.missed.len())?;
        self.missed.iter().take(SHOWN_MAX).try_for_each(|sample| writeln!(f, "  missed: {sample}"))?;
        more(f, self.missed.len())?;
        writeln!(f, "{} harmless samples, {} with a false alarm", self.goodware, self.false_alarms.len())?;
        for (sample, rules) in self.false_alarms.iter().take(SHOWN_MAX) {
            writeln!(f, "  {sample}: {}", rules.join(", "))?;
        }
        more(f, self.false_alarms.len())?;
        self.unread.iter().take(SHOWN_MAX).try_for_each(|(sample, why)| writeln!(f, "  unread: {sample}: {why}"))?;
        self.known_good.iter().take(SHOWN_MAX).try_for_each(|(hash, by)| writeln!(f, "  {hash}: known good by {by}"))
    }
}

pub(super) fn test(arguments: &TestArguments, output: Output) -> anyhow::Result<()> {
    let report = rules::make(&arguments.trees.open(&arguments.tree)?, &arguments.data, Before::default())?.report;
    if report.behaviour.is_none() && (report.hashes.is_none() || !report.index.rules.is_empty()) {
        return Err(Failure::refused("rules.toml names no corpora")
            .hint("`clerestory rules corpus FOLDER` gives their digests")
            .into());
    }
    let (bad, good) = report.behaviour.map(|found| (found.known_bad, found.goodware)).unzip();
    let samples = |run: Option<Run>| run.map(|run| (run.samples, run.unread)).unwrap_or_default();
    let ((bad, bad_unread), (good, good_unread)) = (samples(bad), samples(good));
    let is_missed = |rules: &BTreeSet<String>| rules.is_empty() && !report.index.rules.is_empty();
    let missed: Vec<_> = bad.iter().filter(|(_, rules)| is_missed(rules)).map(|(it, _)| it.clone()).collect();
    let alarms = good.iter().filter(|(_, rules)| !rules.is_empty());
    let tested = Tested {
        known_bad: bad.len(),
        goodware: good.len(),
        missed,
        false_alarms: alarms.map(|(it, rules)| (it.clone(), rules.iter().cloned().collect())).collect(),
        unread: bad_unread.into_iter().chain(good_unread).collect(),
        known_good: report.hashes.map(|hashes| hashes.known_good.into_iter().collect()).unwrap_or_default(),
    };
    output.print(&tested)?;
    let behaves = tested.missed.is_empty() && tested.false_alarms.is_empty() && tested.unread.is_empty();
    if behaves && tested.known_good.is_empty() {
        return Ok(());
    }
    Err(Failure::refused("the rules do not behave").hint("each sample above says how").into())
}

pub(super) fn differ(arguments: &DiffArguments, output: Output) -> anyhow::Result<()> {
    let (old, new) = (arguments.trees.open(&arguments.old)?, arguments.trees.open(&arguments.new)?);
    let old = rules::make(&old, &arguments.data, Before::default())?;
    let new = rules::make(&new, &arguments.data, Before(old.set.as_deref()))?.report;
    let diff: Diff = diff(Reports { before: Some(&old.report), now: &new });
    output.print(&diff)
}

pub(super) fn corpus(arguments: &CorpusArguments, output: Output) -> anyhow::Result<()> {
    output.print(&rules::corpus_digest(&arguments.folder)?)
}

#[derive(Serialize)]
struct PushReport {
    product: ProductId,
    version: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    number: Option<u64>,
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    statement: Option<String>,
    bundle_bytes: usize,
    patches: Vec<u64>,
    reasons: Vec<Reason>,
    #[serde(skip_serializing_if = "Option::is_none")]
    refusal: Option<String>,
}

impl fmt::Display for PushReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} {}: {}", self.product, self.version, self.outcome)?;
        if let (Some(number), Some(statement)) = (self.number, &self.statement) {
            writeln!(f, "  release #{number}, statement {statement}, {} bytes of evidence", self.bundle_bytes)?;
        }
        for Reason { code, rule, file, detail } in self.reasons.iter().take(SHOWN_MAX) {
            let of = |name: &str, it: &Option<String>| it.as_ref().map_or(String::new(), |it| format!(" {name} {it}"));
            writeln!(f, "  {code}{}{}: {detail}", of("rule", rule), of("in", file))?;
        }
        more(f, self.reasons.len())
    }
}

pub(super) fn push(arguments: &PushArguments, output: Output) -> anyhow::Result<()> {
    let tree = arguments.trees.open(&arguments.tree)?;
    let (product, version) = (tree.settings().product.clone(), arguments.of_version.to_string());
    block_on(async {
        let config = Config::load(&arguments.config)?;
        let line = Line::open(&config).await?;
        let pushed = line.push(&tree, &version, |step| tracing::info!("{step}")).await?;
        match pushed {
            Pushed::Released(publication) => {
                tokio::task::block_in_place(|| publish::publish(&config, line.domain(), &publication))?;
                let release = publication.approved.release();
                output.print(&PushReport {
                    product,
                    version,
                    number: Some(release.number.get()),
                    outcome: "released to the canaries",
                    statement: Some(publication.approved.id().to_string()),
                    bundle_bytes: publication.bundle.to_bytes().len(),
                    patches: release.artifacts.iter().flat_map(|it| &it.deltas).map(|it| it.size).collect(),
                    reasons: Vec::new(),
                    refusal: None,
                })
            }
            Pushed::Refused { reasons, refusal, folder } => {
                let first = |refusal: Bundle| refusal.entries().first().map(|entry| entry.envelope.id().to_string());
                output.print(&PushReport {
                    product: product.clone(),
                    version: version.clone(),
                    number: None,
                    outcome: "not fit for the fast lane",
                    statement: None,
                    bundle_bytes: 0,
                    patches: Vec::new(),
                    reasons,
                    refusal: refusal.and_then(first),
                })?;
                let result = folder.join("result.bundle");
                let hint = format!(
                    "change what the reasons name; or have people approve `{}` (`clerestory release approve`), then \
                     `clerestory release publish {product} {version}`",
                    result.display()
                );
                Err(Failure::refused("these rules are not fit for the fast lane").hint(hint).into())
            }
        }
    })
}
