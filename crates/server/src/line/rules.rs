//! Rules from a tree to a release: both organisations assemble at the same time, and what both find
//! fit goes out at once. Each step leaves a file, so that a push that was interrupted goes on.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Context as _;
use api::{BodyLimit, DraftRequest, RulesRequest, RulesState, path};
use assembly::Depot;
use attest::tree::Node;
use attest::{
    BuildResult, Bundle, BundleEntry, Delta, Envelope, Lane, ProductId, Reason, Refused, Release, ReleaseNumber, Ring,
    Source, Statement, StatementId, Subject,
};
use bytes::Bytes;
use detection::{
    BUNDLE_BYTES_MAX, BUNDLE_FILE, Decision, INDEX_BYTES_MAX, INDEX_FILE, Index, Patch, RulesFile, RulesTree, SET_FILE,
    Step, decide, encode_files,
};
use policy::{Policy, Role};
use serde::{Deserialize, Serialize};
use stdx::{Digest, durable};
use storage::RecordKey;
use tokio::runtime::Handle;
use verify::Evidence;

use super::{Line, Publication, bundle_text, read_bundle, write};
use crate::domain::BuildFolder;
use crate::failure::Failure;
use crate::rules::{self, Before, Made, OfSource};

/// A state carries a statement.
const STATE_BYTES_MAX: BodyLimit = BodyLimit(1 << 20);
/// How many releases back patches begin: whoever has missed a few gets one patch whatever their number, and
/// of those who come back after weeks some. Each is 120 bytes more of evidence for everyone.
const DISTANCES: [usize; 11] = [1, 2, 3, 4, 5, 6, 7, 8, 16, 32, 64];
const HISTORY_MAX: usize = 64;
/// A patch that is longer than a tenth of the whole saves little, and costs every endpoint the line that
/// pins it.
const PATCH_PART: u64 = 10;

/// What came of a push.
pub enum Pushed {
    /// It is released to the canaries.
    Released(Box<Publication>),
    /// People must look at it: its result is signed by both, and waits for approvals.
    Refused {
        /// Why, as the vendor finds.
        reasons: Vec<Reason>,
        /// The supervisor's refusal, as logged, if it refuses too.
        refusal: Option<Bundle>,
        /// Where the result is.
        folder: PathBuf,
    },
}

/// The releases of a product of rules so far, in the catalog.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct History {
    /// SHA-256 of the bundles, oldest first.
    bundles: Vec<Digest>,
    /// SHA-256 of the last one's index.
    index: Option<Digest>,
}

impl Line {
    /// Logs the tree, has it assembled here and by the supervisor, and releases what comes out.
    /// `step` is told what is being done.
    ///
    /// # Errors
    /// When one of both can't assemble it, or the bytes differ.
    pub async fn push(&self, tree: &RulesTree, version: &str, mut step: impl FnMut(&str)) -> anyhow::Result<Pushed> {
        let product = &tree.settings().product;
        if self.lane_of(product)? != Lane::Fast {
            return Err(Failure::refused(format!("the policy has `{product}` in the slow lane, for code"))
                .hint("give the rules a product of their own in lane `fast`")
                .into());
        }
        let (folder, depot) = (self.folder(product, version), self.domain.depot(None)?);
        self.domain.pull(&folder)?;
        durable::create_folder(&folder.file("outputs"))?;
        step("logging the source");
        let source = self.log_tree(tree, version, &folder).await?;
        let of = OfSource { version: version.to_owned(), source: source.envelope.id() };
        let history = self.history(product).await?;
        let previous = self.previous_index(&history, &depot).await?;
        let set = rules::set_before(&self.domain, previous.as_ref(), &depot).await?;
        step("both assemble");
        let (made, state) = tokio::task::block_in_place(|| {
            std::thread::scope(|scope| {
                let theirs = scope.spawn(|| self.ask_assembly(tree, &source));
                let own = rules::make(tree, self.domain.data.path(), Before(set.as_deref()));
                let theirs = theirs.join().map_err(|_| anyhow::anyhow!("the thread that asks the supervisor failed"));
                Ok::<_, anyhow::Error>((own, theirs??))
            })
        })?;
        let RulesState::Assembled { refusal } = state else {
            anyhow::bail!("the supervisor wants the same files again")
        };
        let refusal = refusal.map(|text| Bundle::parse(text.as_bytes())).transpose().context("the refusal")?;
        if let Some(refusal) = &refusal {
            write(&folder.file("refusal.bundle"), &refusal.to_bytes())?;
        }
        let made = match made {
            Ok(made) => made,
            Err(error) => return self.not_assembled(&error, refusal, &folder).map_err(|_| error),
        };
        let decision = decide(&made.report, tree.settings(), previous.as_ref());
        let lane = (decision == Decision::Fast && refusal.is_none()).then_some(Lane::Fast);
        step("signing the result");
        let starts = self.patches_begin(&made, &history, &depot).await?;
        // Logging waits for disks and witnesses, keeping for the disk, making patches for the processor.
        let runtime = Handle::current();
        let patches = tokio::task::block_in_place(|| {
            std::thread::scope(|scope| {
                let making = scope.spawn(|| make_patches(&made, &starts, &depot));
                let keeping = scope.spawn(|| runtime.block_on(self.keep_made(&made, &folder, &depot)));
                let logged = runtime.block_on(self.log_rules(&made, &of, lane, &folder));
                let kept = keeping.join().map_err(|_| anyhow::anyhow!("the thread that keeps the rules failed"));
                let patches = making.join().map_err(|_| anyhow::anyhow!("the thread that makes patches failed"));
                logged.and(kept?).and(patches?)
            })
        })?;
        keep_patches(&patches, &made, &folder)?;
        self.domain.save(&folder)?;
        if lane.is_none() {
            let mut reasons = rules::logged(&decision);
            reasons.extend(refusal.as_ref().map(reasons_of).unwrap_or_default());
            let mut known = BTreeSet::new();
            reasons.retain(|it| known.insert((it.code.clone(), it.rule.clone(), it.detail.clone())));
            return Ok(Pushed::Refused { reasons, refusal, folder: folder.path().to_owned() });
        }
        step("releasing");
        Ok(Pushed::Released(Box::new(self.release(product, version, Ring::Canary).await?)))
    }

    /// What is released now is what the next rules are compared with, and where patches begin.
    pub(super) async fn note_released(&self, product: &ProductId, evidence: &Bundle) -> anyhow::Result<()> {
        let result = Evidence::open(&self.domain.policy, evidence)?.one::<BuildResult>(Role::Builder)?;
        let of = |name: &str| result.statement().subject.iter().find(|it| it.name == name).map(Subject::sha256);
        let (Some(bundle), Some(index)) = (of(BUNDLE_FILE), of(INDEX_FILE)) else { return Ok(()) };
        let mut history = self.history(product).await?;
        history.enter(bundle, index);
        let bytes = Bytes::from(serde_json::to_vec(&history)?);
        Ok(self.domain.catalog().put(&history_key(product)?, bytes).await?)
    }

    /// What is in the last release of a product, and what that is called; nothing of one that is stopped, revoked,
    /// or none of rules.
    pub(crate) async fn rules_in_force(&self, product: &ProductId) -> anyhow::Result<Option<(Index, String)>> {
        let depot = self.domain.depot(None)?;
        let history = self.history(product).await?;
        let Some(index) = self.previous_index(&history, &depot).await? else { return Ok(None) };
        let status = self.status(Lane::Fast)?;
        if status.status().stops(product) || status.status().revokes(&index.bundle.digest) {
            return Ok(None);
        }
        let number = self.last(product).await?.map_or(0, |last| last.number.get());
        Ok(Some((index, format!("{product} {number}"))))
    }

    fn not_assembled(
        &self,
        error: &anyhow::Error,
        refusal: Option<Bundle>,
        folder: &BuildFolder,
    ) -> Result<Pushed, ()> {
        let code = rules::blames_rules(error).ok_or(())?;
        let detail = format!("{error:#}");
        let reasons = vec![Reason { code: code.to_owned(), rule: None, file: None, detail }];
        Ok(Pushed::Refused { reasons, refusal, folder: folder.path().to_owned() })
    }

    /// Logs the `source` statement; once for a version and its tree.
    async fn log_tree(&self, tree: &RulesTree, version: &str, folder: &BuildFolder) -> anyhow::Result<BundleEntry> {
        let path = folder.file("source.bundle");
        if let Some(entry) = read_bundle(&path)?.and_then(|bundle| bundle.entries().first().cloned())
            && let Ok(statement) = Statement::<Source>::decode(entry.envelope.payload())
            && statement.subject.iter().any(|subject| subject.sha256() == tree.digest())
        {
            return Ok(entry);
        }
        let manifest = detection::parse_manifest(&tree.manifest())?;
        let sizes = manifest.iter().filter_map(|(_, node)| match node {
            Node::File { size, .. } => Some(*size),
            _ => None,
        });
        let (files, bytes) = sizes.fold((0_u64, 0_u64), |(files, bytes), size| (files + 1, bytes.saturating_add(size)));
        let stream = self.domain.stream(&format!("assembly/{}", self.domain.organisation))?;
        let entry = stream
            .write(|position| {
                let predicate = Source {
                    position,
                    product: tree.settings().product.clone(),
                    version: version.to_owned(),
                    files,
                    bytes,
                    revision: None,
                };
                let subject = vec![Subject::new("source", tree.digest())];
                Ok(Envelope::sign(Statement { subject, predicate }.encode()?, &[&self.recorder])?)
            })
            .await?;
        write(&folder.file("tree.manifest"), tree.manifest().as_bytes())?;
        write(&path, &Bundle::new(vec![entry.clone()])?.to_bytes())?;
        Ok(entry)
    }

    /// Has the supervisor assemble the tree, with the files that it lacks.
    fn ask_assembly(&self, tree: &RulesTree, source: &BundleEntry) -> anyhow::Result<RulesState> {
        let url = self.supervisor.join(path::RULES);
        let source_text = bundle_text(&Bundle::new(vec![source.clone()])?)?;
        let request = RulesRequest { source: source_text, manifest: tree.manifest() };
        let state: RulesState = self.domain.client.post_json(&url, &request, STATE_BYTES_MAX)?;
        let RulesState::Wanting { objects } = &state else { return Ok(state) };
        let file = |digest: &Digest| {
            let bytes = tree.content(digest).with_context(|| {
                Failure::refused(format!("the supervisor wants object {digest}, which is no part of the tree"))
            })?;
            Ok(RulesFile { path: digest.to_string(), bytes: bytes.to_vec() })
        };
        let files = objects.iter().map(file).collect::<anyhow::Result<Vec<_>>>()?;
        let url = format!("{url}/{}/files", source.envelope.id());
        let answer = self.domain.client.post(&url, &encode_files(&files)?, STATE_BYTES_MAX)?;
        serde_json::from_slice(&answer).context("the supervisor's answer")
    }

    async fn keep_made(&self, made: &Made, folder: &BuildFolder, depot: &Depot) -> anyhow::Result<()> {
        let index = made.report.index.to_bytes();
        write(&folder.file("outputs").join(BUNDLE_FILE), &made.bundle)?;
        write(&folder.file("outputs").join(INDEX_FILE), &index)?;
        write(&folder.file("report.json"), &made.report.to_bytes())?;
        if let Some(set) = &made.set {
            write(&folder.file("outputs").join(SET_FILE), set)?;
            self.domain.keep(depot, set.clone().into()).await?;
        }
        self.domain.keep(depot, made.bundle.clone().into()).await?;
        self.domain.keep(depot, index.into()).await?;
        Ok(())
    }

    /// Drafts the `result`, has the supervisor sign the same payload, and logs it; once for what came
    /// out of a source.
    async fn log_rules(
        &self,
        made: &Made,
        of: &OfSource,
        lane: Option<Lane>,
        folder: &BuildFolder,
    ) -> anyhow::Result<()> {
        let path = folder.file("result.bundle");
        if let Some(entry) = read_bundle(&path)?.and_then(|bundle| bundle.entries().first().cloned())
            && let Ok(signed) = self.domain.policy.verify::<attest::BuildResult>(&entry.envelope, Role::Builder)
            && *signed.statement() == made.outline.result(of, lane, signed.statement().predicate.position.clone())
        {
            return Ok(());
        }
        let url = format!("{}/{}/result", path::RULES, of.source);
        let stream = self.domain.stream(&format!("assembly/{}", self.domain.organisation))?;
        let entry = stream
            .write(|position| {
                let draft = made.outline.result(of, lane, position);
                let mut envelope = Envelope::sign(draft.encode()?, &[&self.builder])?;
                let text = String::from_utf8(envelope.to_bytes())?;
                let request = DraftRequest { ticket: *of.source.digest(), envelope: text };
                envelope.merge(&self.second_signature(&url, &request)?)?;
                let signed = self.domain.policy.verify::<attest::BuildResult>(&envelope, Role::Builder)?;
                Policy::decide(Role::Builder, &self.domain.lane(Lane::Fast)?.builders, signed.signers())?;
                Ok(envelope)
            })
            .await?;
        write(&path, &Bundle::new(vec![entry])?.to_bytes())
    }

    /// The bundles at which patches begin, as far as they are here still; nearest first.
    async fn patches_begin(&self, made: &Made, history: &History, depot: &Depot) -> anyhow::Result<Vec<Digest>> {
        let mut starts: Vec<Digest> = Vec::new();
        for from in history.ancestors() {
            let known = from == made.outline.bundle || starts.contains(&from);
            if !known && self.domain.bring(depot, &from).await? {
                starts.push(from);
            }
        }
        Ok(starts)
    }

    /// The index of the release before; one that is not here any more is none.
    async fn previous_index(&self, history: &History, depot: &Depot) -> anyhow::Result<Option<Index>> {
        let Some(digest) = history.index else { return Ok(None) };
        if !self.domain.bring(depot, &digest).await? {
            return Ok(None);
        }
        Ok(Some(Index::parse(&depot.content().get(&digest, INDEX_BYTES_MAX)?)?))
    }

    async fn history(&self, product: &ProductId) -> anyhow::Result<History> {
        let bytes = self.domain.catalog().record(&history_key(product)?).await?;
        Ok(bytes.map(|bytes| serde_json::from_slice(&bytes)).transpose()?.unwrap_or_default())
    }
}

/// Makes a patch from each of `starts`, by as many threads as there are processors: each takes tens of megabytes.
fn make_patches(made: &Made, starts: &[Digest], depot: &Depot) -> anyhow::Result<Vec<Patch>> {
    let next = AtomicUsize::new(0);
    let work = || -> anyhow::Result<Vec<(usize, Patch)>> {
        let mut patches = Vec::new();
        loop {
            let place = next.fetch_add(1, Ordering::Relaxed);
            let Some(from) = starts.get(place) else { return Ok(patches) };
            let old = depot.content().get(from, BUNDLE_BYTES_MAX)?;
            patches.push((place, Patch::make(Step { old: &old, new: &made.bundle })?));
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let mut patches = std::thread::scope(|scope| {
        let making: Vec<_> = (0..threads.min(starts.len())).map(|_| scope.spawn(work)).collect();
        let mut patches = Vec::new();
        for thread in making {
            let made = thread.join().map_err(|_| anyhow::anyhow!("a thread that makes patches failed"))?;
            patches.extend(made?);
        }
        anyhow::Ok(patches)
    })?;
    patches.sort_by_key(|(place, _)| *place);
    Ok(patches.into_iter().map(|(_, patch)| patch).collect())
}

/// Keeps those that are worth it, and what the release says of them.
fn keep_patches(patches: &[Patch], made: &Made, folder: &BuildFolder) -> anyhow::Result<()> {
    durable::create_folder(&folder.file("patches"))?;
    let mut deltas: Vec<Delta> = Vec::new();
    for Patch { from, bytes, .. } in patches {
        let size = bytes.len() as u64;
        if size.saturating_mul(PATCH_PART) > made.bundle.len() as u64 {
            continue;
        }
        let digest = Digest::of(bytes);
        write(&folder.file("patches").join(digest.to_string()), bytes)?;
        deltas.push(Delta { from: *from, patch: digest, size });
    }
    write(&folder.file(DELTAS), &serde_json::to_vec(&deltas)?)
}

/// The deltas of a build's bundle, which its release pins.
const DELTAS: &str = "deltas.json";

/// What was made for the release of this version, if it is one of rules.
pub(super) fn deltas(folder: &BuildFolder) -> anyhow::Result<Vec<Delta>> {
    match std::fs::read(folder.file(DELTAS)) {
        Ok(bytes) => Ok(serde_json::from_slice(&bytes)?),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error).context("the deltas can't be read"),
    }
}

impl History {
    fn enter(&mut self, bundle: Digest, index: Digest) {
        self.index = Some(index);
        // A push that went on where another was interrupted has entered it before.
        if self.bundles.last() != Some(&bundle) {
            self.bundles.push(bundle);
        }
        let many = self.bundles.len().saturating_sub(HISTORY_MAX);
        self.bundles.drain(..many);
    }

    /// The bundles at [`DISTANCES`] before the next.
    fn ancestors(&self) -> Vec<Digest> {
        let of = |back: &usize| self.bundles.get(self.bundles.len().checked_sub(*back)?).copied();
        DISTANCES.iter().filter_map(of).collect()
    }
}

/// The rules that were released so far, as logs have them, for a state that was lost.
#[derive(Default)]
pub(crate) struct LoggedRules {
    /// Bundle and index of each result of rules.
    results: BTreeMap<StatementId, (Digest, Digest)>,
    products: BTreeMap<ProductId, (ReleaseNumber, History)>,
}

impl LoggedRules {
    /// Takes in a statement, if it is a result of rules. A release names it by its content, so that it
    /// makes no difference here who has signed it.
    pub(crate) fn result(&mut self, envelope: &Envelope) {
        let Ok(statement) = Statement::<BuildResult>::decode(envelope.payload()) else { return };
        let of = |name: &str| statement.subject.iter().find(|it| it.name == name).map(Subject::sha256);
        if let (Some(bundle), Some(index)) = (of(BUNDLE_FILE), of(INDEX_FILE)) {
            self.results.insert(envelope.id(), (bundle, index));
        }
    }

    /// Takes in a statement of the organisation's that is restored, if it is a release of rules.
    pub(crate) fn release(&mut self, envelope: &Envelope) {
        let Ok(Statement { predicate: release, .. }) = Statement::<Release>::decode(envelope.payload()) else { return };
        let Some((bundle, index)) = self.results.get(&release.result) else { return };
        let (number, history) = self.products.entry(release.product).or_insert((release.number, History::default()));
        if *number <= release.number {
            *number = release.number;
            history.enter(*bundle, *index);
        }
    }

    /// The index of each product's last release.
    pub(crate) fn indexes(&self) -> impl Iterator<Item = (&ProductId, &Digest)> {
        self.products.iter().filter_map(|(product, (_, history))| Some((product, history.index.as_ref()?)))
    }

    /// What a vendor keeps of them.
    pub(crate) fn records(&self) -> anyhow::Result<Vec<(RecordKey, Bytes)>> {
        let records = self.products.iter();
        let record = |(product, (_, history)): (&ProductId, &(ReleaseNumber, History))| {
            Ok((history_key(product)?, serde_json::to_vec(history)?.into()))
        };
        records.map(record).collect()
    }
}

fn reasons_of(refusal: &Bundle) -> Vec<Reason> {
    let first = refusal.entries().first().map(|entry| Statement::<Refused>::decode(entry.envelope.payload()));
    first.and_then(Result::ok).map(|refused| refused.predicate.reasons).unwrap_or_default()
}

fn history_key(product: &ProductId) -> anyhow::Result<RecordKey> {
    Ok(RecordKey { table: "rules".parse()?, key: product.as_str().parse()? })
}
