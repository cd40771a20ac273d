//! What both builders make of a tree of rules, each for itself, in a scanner of its own.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::num::NonZeroU16;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use attest::tree::{Links, Mode, Node, Tree, TreePath};
use attest::{BuildResult, EnvironmentKind, Lane, Position, ProductId, Statement, StatementId, Subject};
use detection::{
    BUNDLE_FILE, Behaviour, Corpora, Decision, INDEX_FILE, Index, Item, Limits, Report, RulesTree, Run, Worker,
    WorkerError,
};
use serde::{Deserialize, Serialize};
use stdx::Digest;

use crate::failure::Failure;

/// Where corpora lie, below an organisation's data: each in a folder named by its digest.
pub(crate) const CORPORA: &str = "corpora";
/// Half of what a tree of rules may have; samples are files of all kinds.
const SAMPLES_MAX: usize = 100_000;

/// A bundle, and what is known of it.
pub(crate) struct Made {
    pub(crate) bundle: Vec<u8>,
    pub(crate) report: Report,
    pub(crate) outline: Outline,
}

/// What a result says of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Outline {
    pub(crate) product: ProductId,
    pub(crate) bundle: Digest,
    pub(crate) index: Digest,
    pub(crate) recipe: Digest,
    pub(crate) inputs: Digest,
    pub(crate) environment: Digest,
}

/// What the rules are built with, besides the tree.
#[derive(Serialize)]
struct Inputs<'a> {
    engine: &'a str,
    known_bad: Option<Digest>,
    goodware: Option<Digest>,
}

impl Outline {
    /// The subjects of its result.
    pub(crate) fn subjects(&self) -> Vec<Subject> {
        vec![Subject::new(BUNDLE_FILE, self.bundle), Subject::new(INDEX_FILE, self.index)]
    }

    /// The statement that both builders sign, byte for byte.
    pub(crate) fn result(&self, of: &OfSource, lane: Option<Lane>, position: Position) -> Statement<BuildResult> {
        let predicate = BuildResult {
            position,
            product: self.product.clone(),
            version: of.version.clone(),
            source: of.source,
            recipe: self.recipe,
            inputs: self.inputs,
            environment: self.environment,
            environment_kind: EnvironmentKind::Pinned,
            sbom: self.index,
            lane,
        };
        Statement { subject: self.subjects(), predicate }
    }
}

/// Which logged source a result is of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct OfSource {
    pub(crate) version: String,
    pub(crate) source: StatementId,
}

/// Assembles `tree`, and tries the bundle on the corpora that its settings name.
pub(crate) fn make(tree: &RulesTree, data: &Path) -> anyhow::Result<Made> {
    let mut worker = start()?;
    let assembled = worker.assemble(&tree.sources())?;
    let index = Index::parse(&assembled.index)?;
    let (bundle, index_bytes) = (Digest::of(&assembled.bundle), Digest::of(&assembled.index));
    let behaviour = match tree.settings().corpus {
        Some(corpora) => Some(try_on(&mut worker, &assembled.bundle, corpora, &data.join(CORPORA))?),
        None => None,
    };
    let corpus = tree.settings().corpus;
    let (known_bad, goodware) = (corpus.map(|it| it.known_bad), corpus.map(|it| it.goodware));
    let inputs = serde_json::to_vec(&Inputs { engine: &index.engine, known_bad, goodware })?;
    let outline = Outline {
        product: tree.settings().product.clone(),
        bundle,
        index: index_bytes,
        recipe: tree.recipe().context("the tree has no settings")?,
        inputs: Digest::of(&inputs),
        environment: Digest::of(index.engine.as_bytes()),
    };
    Ok(Made { bundle: assembled.bundle, report: Report { index, behaviour }, outline })
}

/// Whether the rules themselves are to blame: hostile ones may end a scanner.
pub(crate) fn blames_rules(error: &anyhow::Error) -> Option<&'static str> {
    match error.downcast_ref::<WorkerError>()? {
        WorkerError::Rules { .. } => Some("not-compiled"),
        WorkerError::TooLarge { .. } => Some("tree-too-large"),
        WorkerError::Ended { .. } | WorkerError::Nonsense { .. } => Some("scanner-ended"),
        _ => None,
    }
}

/// A reason as statements have it.
pub(crate) fn logged(decision: &Decision) -> Vec<attest::Reason> {
    let Decision::Slow(reasons) = decision else { return Vec::new() };
    let logged = |it: &detection::Reason| attest::Reason {
        code: it.code.as_str().to_owned(),
        rule: it.rule.clone(),
        file: it.file.clone(),
        detail: it.detail.clone(),
    };
    reasons.iter().map(logged).collect()
}

fn start() -> anyhow::Result<Worker> {
    let threads = std::thread::available_parallelism().ok().and_then(|n| u16::try_from(n.get()).ok());
    let threads = threads.and_then(NonZeroU16::new).unwrap_or(NonZeroU16::MIN);
    let started = Worker::start(&detection::beside_this_program()?, Limits::new(threads));
    started.map_err(|error| {
        let hint = error.hint().to_owned();
        anyhow::Error::new(error).context(Failure::refused("rules can't be read").hint(hint))
    })
}

/// What the bundle finds in both corpora.
fn try_on(worker: &mut Worker, bundle: &[u8], corpora: Corpora, folder: &Path) -> anyhow::Result<Behaviour> {
    worker.load(bundle)?;
    let known_bad = run(worker, corpora.known_bad, folder)?;
    Ok(Behaviour { known_bad, goodware: run(worker, corpora.goodware, folder)? })
}

fn run(worker: &mut Worker, corpus: Digest, folder: &Path) -> anyhow::Result<Run> {
    let folder = folder.join(corpus.to_string());
    let samples = samples(&folder).with_context(|| {
        Failure::refused(format!("corpus {corpus} can't be used"))
            .hint("each builder needs its own copy of both corpora, in `corpora/DIGEST` below its data")
    })?;
    let found = samples.tree.digest();
    if found != corpus {
        return Err(Failure::refused(format!("`{}` is corpus {found}", folder.display()))
            .hint("a corpus never changes: give the new one a folder of its own, and name it in rules.toml")
            .into());
    }
    let mut run = Run { corpus, samples: Default::default(), unread: Default::default() };
    let mut failed = None;
    let mut items = samples.paths.iter().map_while(|path| match File::open(folder.join(path)) {
        Ok(file) => Some(Item { path: path.clone(), file }),
        Err(error) => {
            failed = Some((path.clone(), error));
            None
        }
    });
    worker.scan(&mut items, &mut |report| {
        let path = report.path.to_string_lossy().into_owned();
        let rules: BTreeSet<String> = report.matches.into_iter().map(|it| it.rule).collect();
        if let Some(note) = report.notes.first() {
            run.unread.insert(path.clone(), format!("{}: {}", note.code.as_str(), note.message));
        }
        run.samples.insert(path, rules);
    })?;
    drop(items);
    match failed {
        None => Ok(run),
        Some((path, error)) => Err(error).with_context(|| format!("can't read `{}`", folder.join(path).display())),
    }
}

struct Samples {
    tree: Tree,
    paths: Vec<PathBuf>,
}

/// The digest of a folder of samples, for `rules.toml`.
pub(crate) fn corpus_digest(folder: &Path) -> anyhow::Result<Digest> {
    let samples = samples(folder).with_context(|| {
        Failure::refused(format!("`{}` is no corpus", folder.display()))
            .hint("name a folder with samples in it: files and folders, no links")
    })?;
    Ok(samples.tree.digest())
}

fn samples(folder: &Path) -> anyhow::Result<Samples> {
    let mut samples = Samples { tree: Tree::new(Links::Inside), paths: Vec::new() };
    let mut pending = vec![String::new()];
    while let Some(inside) = pending.pop() {
        let at = if inside.is_empty() { folder.to_owned() } else { folder.join(&inside) };
        for entry in fs::read_dir(&at).with_context(|| format!("can't read `{}`", at.display()))? {
            let entry = entry?;
            let name = entry.file_name().into_string().ok().context("a sample's name is not UTF-8")?;
            let path = if inside.is_empty() { name } else { format!("{inside}/{name}") };
            let kind = entry.file_type()?;
            if kind.is_dir() {
                samples.tree.insert(TreePath::new(&path)?, Node::Folder)?;
                pending.push(path);
                continue;
            }
            let on_disk = entry.path();
            anyhow::ensure!(kind.is_file(), "`{}` is neither file nor folder", on_disk.display());
            let read = File::open(&on_disk).and_then(Digest::of_reader);
            let (digest, size) = read.with_context(|| format!("can't read `{}`", on_disk.display()))?;
            samples.tree.insert(TreePath::new(&path)?, Node::File { mode: Mode::Plain, digest, size })?;
            samples.paths.push(PathBuf::from(path));
            anyhow::ensure!(samples.paths.len() <= SAMPLES_MAX, "a corpus has at most {SAMPLES_MAX} samples");
        }
    }
    anyhow::ensure!(!samples.paths.is_empty(), "it has no sample, and shows nothing");
    samples.paths.sort();
    Ok(samples)
}
