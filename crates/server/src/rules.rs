//! What both builders make of a tree of rules, each for itself, in a scanner of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Read as _;
use std::num::NonZeroU16;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use assembly::Depot;
use attest::tree::{Links, Mode, Node, Tree, TreePath};
use attest::{BuildResult, EnvironmentKind, Lane, Position, ProductId, Statement, StatementId, Subject};
use detection::{
    BUNDLE_FILE, Behaviour, Corpora, Decision, HashesReport, INDEX_FILE, Index, IndexedHashes, Item,
    KNOWN_GOOD_NAMED_MAX, Limits, Pin, Report, RulesTree, Run, SET_FILE, Worker, WorkerError,
};
use reputation::{ReputationSet, SET_BYTES_MAX, parse_list};
use serde::{Deserialize, Serialize};
use stdx::Digest;

use crate::domain::Domain;
use crate::failure::Failure;

/// Where corpora lie, below an organisation's data: each in a folder named by its digest.
pub(crate) const CORPORA: &str = "corpora";
/// Where lists of files that are known to be good lie, below an organisation's data: each has its own.
pub(crate) const KNOWN_GOOD: &str = "known-good";
/// Four million hashes of known-good files; what is on none of the lists may be looked up where more are known.
const KNOWN_GOOD_BYTES_MAX: u64 = 65 * (4 << 20);
/// Half of what a tree of rules may have; samples are files of all kinds.
const SAMPLES_MAX: usize = 100_000;

/// A bundle, and what is known of it.
pub(crate) struct Made {
    pub(crate) bundle: Vec<u8>,
    /// The set of the tree's lists, if it has some.
    pub(crate) set: Option<Vec<u8>>,
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
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) set: Option<Digest>,
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
        let made = [Subject::new(BUNDLE_FILE, self.bundle), Subject::new(INDEX_FILE, self.index)];
        made.into_iter().chain(self.set.map(|set| Subject::new(SET_FILE, set))).collect()
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

/// The set of the release before, if it had one that is here still.
#[derive(Clone, Copy, Default)]
pub(crate) struct Before<'a>(pub(crate) Option<&'a [u8]>);

/// Assembles `tree`, tries the bundle on the corpora that its settings name, and compares its hashes with what
/// is known to be good here, and with the set before.
pub(crate) fn make(tree: &RulesTree, data: &Path, before: Before<'_>) -> anyhow::Result<Made> {
    let mut worker = start()?;
    let assembled = worker.assemble(&tree.sources())?;
    let mut index = Index::parse(&assembled.index)?;
    let mut good = BTreeMap::new();
    let behaviour = match tree.settings().corpus {
        Some(corpora) => Some(try_on(&mut worker, &assembled.bundle, corpora, &data.join(CORPORA), &mut good)?),
        None => None,
    };
    let (set, hashes) = hashes(tree.hashes(), good, data, before)?;
    index.hashes = set
        .as_ref()
        .map(|set| IndexedHashes { set: Pin::of(set), count: u32::try_from(tree.hashes().len()).unwrap_or(u32::MAX) });
    let (bundle, index_bytes) = (Digest::of(&assembled.bundle), Digest::of(&index.to_bytes()));
    let corpus = tree.settings().corpus;
    let (known_bad, goodware) = (corpus.map(|it| it.known_bad), corpus.map(|it| it.goodware));
    let inputs = serde_json::to_vec(&Inputs { engine: &index.engine, known_bad, goodware })?;
    let outline = Outline {
        product: tree.settings().product.clone(),
        bundle,
        index: index_bytes,
        set: set.as_deref().map(Digest::of),
        recipe: tree.recipe().context("the tree has no settings")?,
        inputs: Digest::of(&inputs),
        environment: Digest::of(index.engine.as_bytes()),
    };
    Ok(Made { bundle: assembled.bundle, set, report: Report { index, behaviour, hashes }, outline })
}

/// The set of these hashes, and what is to be said of it. `good` are samples of the goodware.
fn hashes(
    all: &[Digest],
    good: BTreeMap<Digest, String>,
    data: &Path,
    before: Before<'_>,
) -> anyhow::Result<(Option<Vec<u8>>, Option<HashesReport>)> {
    let before = before.0.map(ReputationSet::parse).transpose().context("the set of the release before")?;
    let set = match all {
        [] => None,
        some => Some(ReputationSet::build(some.to_vec())?.to_bytes()),
    };
    if set.is_none() && before.is_none() {
        return Ok((None, None));
    }
    let had = |hash: &&Digest| before.as_ref().is_some_and(|before| before.may_contain(hash));
    let kept = u32::try_from(all.iter().filter(had).count())?;
    let mut report = HashesReport {
        added: u32::try_from(all.len())?.saturating_sub(kept),
        removed: before.as_ref().map_or(0, ReputationSet::hashes).saturating_sub(kept),
        compared: good.len() as u64,
        known_good: BTreeMap::new(),
    };
    let mut name = |hash: &Digest, by: String| {
        if all.binary_search(hash).is_ok() && report.known_good.len() < KNOWN_GOOD_NAMED_MAX {
            report.known_good.insert(*hash, by);
        }
    };
    good.iter().for_each(|(hash, sample)| name(hash, format!("the goodware's {sample}")));
    for (list, hashes) in known_good(data)? {
        hashes.iter().for_each(|hash| name(hash, list.clone()));
        report.compared += hashes.len() as u64;
    }
    Ok((set, Some(report)))
}

/// The set of the release before; one that is not here any more is none, so that every hash is a new one.
pub(crate) async fn set_before(
    domain: &Domain,
    previous: Option<&Index>,
    depot: &Depot,
) -> anyhow::Result<Option<Vec<u8>>> {
    let Some(hashes) = previous.and_then(|previous| previous.hashes) else { return Ok(None) };
    let digest = hashes.set.digest;
    if !domain.bring(depot, &digest).await? {
        return Ok(None);
    }
    Ok(Some(depot.content().get(&digest, SET_BYTES_MAX as u64)?))
}

/// What tells one version of those lists from another.
pub(crate) fn known_good_stamp(data: &Path) -> anyhow::Result<BTreeSet<(PathBuf, u64, Option<std::time::SystemTime>)>> {
    let folder = data.join(KNOWN_GOOD);
    let entries = match fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
        Err(error) => return Err(error).with_context(|| format!("can't read `{}`", folder.display())),
    };
    let of = |entry: std::io::Result<fs::DirEntry>| {
        let entry = entry?;
        let found = entry.metadata()?;
        Ok((entry.path(), found.len(), found.modified().ok()))
    };
    entries.map(of).collect::<std::io::Result<_>>().with_context(|| format!("can't read `{}`", folder.display()))
}

/// The lists of files that are known to be good, of this organisation's own choosing.
pub(crate) fn known_good(data: &Path) -> anyhow::Result<BTreeMap<String, Vec<Digest>>> {
    let folder = data.join(KNOWN_GOOD);
    let entries = match fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(error) => return Err(error).with_context(|| format!("can't read `{}`", folder.display())),
    };
    let (mut lists, mut room) = (BTreeMap::new(), KNOWN_GOOD_BYTES_MAX);
    for entry in entries {
        let path = entry?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()).filter(|name| name.ends_with(".txt")) else {
            continue;
        };
        let mut bytes = Vec::new();
        let read = File::open(&path).and_then(|file| file.take(room + 1).read_to_end(&mut bytes));
        read.with_context(|| format!("can't read `{}`", path.display()))?;
        room = room.checked_sub(bytes.len() as u64).with_context(|| {
            Failure::refused(format!("`{}` has more than {KNOWN_GOOD_BYTES_MAX} bytes of lists", folder.display()))
                .hint("keep the lists there that matter most: others can be known where files are looked up")
        })?;
        // A list that is wrong must not become one that knows nothing.
        let list = parse_list(&bytes).with_context(|| format!("the list `{}` is wrong", path.display()))?;
        lists.insert(format!("{KNOWN_GOOD}/{name}"), list);
    }
    Ok(lists)
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
fn try_on(
    worker: &mut Worker,
    bundle: &[u8],
    corpora: Corpora,
    folder: &Path,
    good: &mut BTreeMap<Digest, String>,
) -> anyhow::Result<Behaviour> {
    worker.load(bundle)?;
    let known_bad = run(worker, corpora.known_bad, folder)?.0;
    let (goodware, samples) = run(worker, corpora.goodware, folder)?;
    let hashes = samples.iter().filter_map(|(path, node)| match node {
        Node::File { digest, .. } => Some((*digest, path.to_string())),
        _ => None,
    });
    good.extend(hashes);
    Ok(Behaviour { known_bad, goodware })
}

/// What it finds in a corpus, and the corpus.
fn run(worker: &mut Worker, corpus: Digest, folder: &Path) -> anyhow::Result<(Run, Tree)> {
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
        None => Ok((run, samples.tree)),
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
