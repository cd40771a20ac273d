//! Rules as the second builder: assembled from the logged tree by a scanner of its own, decided by
//! itself. What does not match or is not fit is said in the log, for good.

use std::io;

use anyhow::Context as _;
use api::{DraftRequest, RulesRequest, RulesState};
use assembly::Depot;
use attest::tree::Node;
use attest::{
    BuildResult, Bundle, BundleEntry, Cause, Envelope, Lane, Mismatch, Position, Reason, Refused, Release, Source,
    Statement, Subject,
};
use bytes::Bytes;
use detection::{
    Decision, INDEX_BYTES_MAX, INDEX_FILE, Index, RulesFile, RulesTree, decide, decode_files, parse_manifest,
};
use policy::Role;
use serde::{Deserialize, Serialize};
use stdx::Digest;
use storage::{Key, RecordKey};
use tokio::sync::Semaphore;
use verify::Evidence;

use super::Supervisor;
use super::second::SecondError;
use super::status::Rebuilt;
use crate::line::bundle_text;
use crate::rules::{self, Before, Made, OfSource, Outline};

/// A scanner may take a gigabyte.
static ASSEMBLING: Semaphore = Semaphore::const_new(1);
/// A statement's reasons; the report has all.
const REASONS_MAX: usize = 32;
/// What of a reason's detail a statement has.
const DETAIL_CHARS_MAX: usize = 300;

/// What is kept of an assembly.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Job {
    request: RulesRequest,
    /// Once it was assembled: what came out.
    outline: Option<Outline>,
    state: RulesState,
}

/// What a request was checked to be.
struct Claim {
    of: OfSource,
    product: attest::ProductId,
    /// The subject of the source.
    subject: Vec<Subject>,
}

/// The release before.
#[derive(Clone, Copy)]
struct Previous<'a> {
    index: Option<&'a Index>,
    set: Option<&'a [u8]>,
}

/// What came of the assembly of a claim.
struct Judged {
    outline: Option<Outline>,
    reasons: Vec<Reason>,
    report: Vec<u8>,
}

impl Supervisor {
    /// Takes in a tree of rules: says which files are missing, or what came of it.
    ///
    /// # Errors
    /// When the source is not logged, or is another tree.
    pub async fn take_rules(&self, request: RulesRequest) -> anyhow::Result<RulesState> {
        let claim = self.check_rules(&request)?;
        let ticket = *claim.of.source.digest();
        if let Some(job) = self.rules_job(&ticket).await?
            && !matches!(job.state, RulesState::Wanting { .. })
        {
            return Ok(job.state);
        }
        let missing = self.missing(&request.manifest).await?;
        if !missing.is_empty() {
            let state = RulesState::Wanting { objects: missing };
            self.save_rules(&ticket, &Job { request, outline: None, state: state.clone() }).await?;
            return Ok(state);
        }
        self.assemble_rules(request, &claim).await
    }

    /// Takes in the files that an assembly wants, and goes on with it.
    ///
    /// # Errors
    /// When nobody wants them.
    pub async fn take_files(&self, ticket: &Digest, body: &[u8]) -> anyhow::Result<RulesState> {
        let job = self.rules_job(ticket).await?.with_context(|| format!("there are no rules `{ticket}`"))?;
        let RulesState::Wanting { objects } = &job.state else { return Ok(job.state) };
        let depot = self.domain.depot(None)?;
        for RulesFile { path, bytes } in decode_files(body)? {
            let digest: Digest = path.parse()?;
            anyhow::ensure!(objects.contains(&digest), "rules `{ticket}` do not want object {digest}");
            anyhow::ensure!(Digest::of(&bytes) == digest, "object {digest} has other bytes");
            self.domain.keep(&depot, bytes.into()).await?;
        }
        self.take_rules(job.request).await
    }

    /// Whether an assembly wants files; asked before their body is read.
    ///
    /// # Errors
    /// When the catalog can't be read.
    pub async fn wants_files(&self, ticket: &Digest) -> anyhow::Result<bool> {
        let job = self.rules_job(ticket).await?;
        Ok(job.is_some_and(|job| matches!(job.state, RulesState::Wanting { .. })))
    }

    /// Signs the `result` that this supervisor came to by itself: the same payload, byte for byte.
    ///
    /// # Errors
    /// [`SecondError`]; a claim of other bytes is on record then.
    pub async fn sign_rules(&self, request: &DraftRequest) -> Result<Envelope, SecondError> {
        let job = self.rules_job(&request.ticket).await.map_err(unavailable)?;
        let none = || SecondError::Refused(format!("there are no rules `{}`", request.ticket));
        let Job { request: of, outline, state } = job.ok_or_else(none)?;
        let RulesState::Assembled { refusal } = &state else {
            return Err(SecondError::Refused(format!("rules `{}` are not assembled", request.ticket)));
        };
        let drafted = Envelope::parse(request.envelope.as_bytes()).map_err(refused)?;
        let verified = self.domain.policy.verify::<BuildResult>(&drafted, Role::Builder)?;
        let draft = verified.statement();
        self.check_position(&draft.predicate.position, verified.signers())?;
        let claim = self.check_rules(&of).map_err(|error| refused(format!("{error:#}")))?;
        let lane = draft.predicate.lane;
        let expected = outline.as_ref().map(|it| it.result(&claim.of, lane, draft.predicate.position.clone()));
        if expected.as_ref() != Some(draft) {
            let mismatch = self.rules_mismatch(draft, &claim, outline.as_ref()).await.map_err(unavailable)?;
            let id = mismatch.envelope.id();
            return Err(SecondError::Refused(format!("the draft is not what was assembled here; mismatch {id}")));
        }
        if lane == Some(Lane::Fast) && refusal.is_some() {
            return Err(SecondError::Refused("these rules are not fit for the fast lane".to_owned()));
        }
        Envelope::sign(drafted.payload().to_vec(), &[&self.builder]).map_err(refused)
    }

    /// What is released now is what the next rules are compared with.
    pub(super) async fn note_rules(&self, release: &Release, evidence: &Evidence<'_>) -> anyhow::Result<()> {
        let result = evidence.one::<BuildResult>(Role::Builder)?;
        let index = result.statement().subject.iter().find(|it| it.name == INDEX_FILE);
        let Some(index) = index.map(Subject::sha256) else { return Ok(()) };
        let (key, bytes) = released_record(&release.product, &index)?;
        Ok(self.domain.catalog().put(&key, bytes).await?)
    }

    /// The source must be logged by another organisation, and be this tree.
    fn check_rules(&self, request: &RulesRequest) -> anyhow::Result<Claim> {
        let bundle = Bundle::parse(request.source.as_bytes()).context("the source's bundle")?;
        let source = Evidence::open(&self.domain.policy, &bundle)?.one::<Source>(Role::Recorder)?;
        let says = &source.statement().predicate;
        let listed = self.domain.policy.policy().product(&says.product);
        anyhow::ensure!(
            listed.is_some_and(|it| it.lane == Lane::Fast),
            "the policy has no rules `{}` in the fast lane",
            says.product
        );
        anyhow::ensure!(
            source.signers().iter().all(|signer| signer.organisation != self.domain.organisation),
            "a supervisor does not assemble its own rules"
        );
        let tree = Digest::of(request.manifest.as_bytes());
        let subject = source.statement().subject.clone();
        anyhow::ensure!(subject.iter().any(|it| it.sha256() == tree), "the logged source is another tree");
        let of = OfSource { version: says.version.clone(), source: source.id() };
        Ok(Claim { of, product: says.product.clone(), subject })
    }

    async fn missing(&self, manifest: &str) -> anyhow::Result<Vec<Digest>> {
        let (tree, depot) = (parse_manifest(manifest)?, self.domain.depot(None)?);
        let mut missing = Vec::new();
        for (_, node) in tree.iter() {
            if let Node::File { digest, .. } = node
                && !missing.contains(digest)
                && !self.domain.bring(&depot, digest).await?
            {
                missing.push(*digest);
            }
        }
        Ok(missing)
    }

    async fn assemble_rules(&self, request: RulesRequest, claim: &Claim) -> anyhow::Result<RulesState> {
        let _one = ASSEMBLING.acquire().await?;
        let ticket = *claim.of.source.digest();
        // Another request of the same may have come first.
        if let Some(Job { state: state @ RulesState::Assembled { .. }, .. }) = self.rules_job(&ticket).await? {
            return Ok(state);
        }
        let depot = self.domain.depot(None)?;
        let previous = self.previous(claim, &depot).await?;
        let set = rules::set_before(&self.domain, previous.as_ref(), &depot).await?;
        let judged = tokio::task::block_in_place(|| {
            self.judge_rules(&request, claim, Previous { index: previous.as_ref(), set: set.as_deref() }, &depot)
        })?;
        let report = self.domain.keep(&depot, judged.report.into()).await?;
        let refusal = match judged.reasons.is_empty() {
            true => None,
            false => Some(bundle_text(&Bundle::new(vec![self.refuse(claim, judged.reasons, report).await?])?)?),
        };
        let state = RulesState::Assembled { refusal };
        self.save_rules(&ticket, &Job { request, outline: judged.outline, state: state.clone() }).await?;
        Ok(state)
    }

    fn judge_rules(
        &self,
        request: &RulesRequest,
        claim: &Claim,
        previous: Previous<'_>,
        depot: &Depot,
    ) -> anyhow::Result<Judged> {
        let read = |digest: &Digest| depot.content().get(digest, detection::FILE_BYTES_MAX).map_err(io::Error::other);
        let tree = RulesTree::from_manifest(&request.manifest, read)?;
        anyhow::ensure!(tree.settings().product == claim.product, "rules.toml is of `{}`", tree.settings().product);
        match rules::make(&tree, self.domain.data.path(), Before(previous.set)) {
            Ok(Made { bundle, set, report, outline }) => {
                let index = report.index.to_bytes();
                let objects: Vec<&[u8]> = [&bundle[..], &index].into_iter().chain(set.as_deref()).collect();
                // Each waits for the disk.
                let decision = std::thread::scope(|scope| {
                    let keep = |object| scope.spawn(move || depot.content().put(object));
                    let keeping: Vec<_> = objects.into_iter().map(keep).collect();
                    let decision = decide(&report, tree.settings(), previous.index);
                    for kept in keeping {
                        kept.join().map_err(|_| anyhow::anyhow!("the thread that keeps the rules failed"))??;
                    }
                    Ok::<_, anyhow::Error>(decision)
                })?;
                let reasons = rules::logged(&decision);
                tracing::info!(product = %claim.product, version = claim.of.version, fast = decision == Decision::Fast, "assembled");
                Ok(Judged { outline: Some(outline), reasons, report: report.to_bytes() })
            }
            Err(error) => match rules::blames_rules(&error) {
                Some(code) => {
                    let detail = format!("{error:#}");
                    let reason = Reason { code: code.to_owned(), rule: None, file: None, detail: detail.clone() };
                    Ok(Judged { outline: None, reasons: vec![reason], report: detail.into_bytes() })
                }
                None => Err(error),
            },
        }
    }

    /// The index of the release before. One that is not here any more is none: rules that can't be
    /// compared need people.
    async fn previous(&self, claim: &Claim, depot: &Depot) -> anyhow::Result<Option<Index>> {
        let Some(noted) = self.domain.catalog().record(&released_key(&claim.product)?).await? else { return Ok(None) };
        let digest: Digest = std::str::from_utf8(&noted)?.parse()?;
        if !self.domain.bring(depot, &digest).await? {
            tracing::warn!(product = %claim.product, "the last release's index {digest} is missing here");
            return Ok(None);
        }
        Ok(Some(Index::parse(&depot.content().get(&digest, INDEX_BYTES_MAX)?)?))
    }

    async fn refuse(&self, claim: &Claim, reasons: Vec<Reason>, report: Digest) -> anyhow::Result<BundleEntry> {
        let cut = |reason: &Reason| Reason {
            detail: reason.detail.chars().take(DETAIL_CHARS_MAX).collect(),
            ..reason.clone()
        };
        let reasons: Vec<_> = reasons.iter().take(REASONS_MAX).map(cut).collect();
        let make = |position: Position| -> anyhow::Result<Envelope> {
            let (OfSource { version, source }, product) = (claim.of.clone(), claim.product.clone());
            let predicate = Refused { position, product, version, source, reasons: reasons.clone(), report };
            Ok(Envelope::sign(Statement { subject: claim.subject.clone(), predicate }.encode()?, &[&self.builder])?)
        };
        let once: Key = format!("refused/{}", claim.of.source).parse()?;
        let stream = self.domain.stream(&format!("rebuild/{}", self.domain.organisation))?;
        Ok(stream.write_once(&once, make).await?)
    }

    async fn rules_mismatch(
        &self,
        draft: &Statement<BuildResult>,
        claim: &Claim,
        own: Option<&Outline>,
    ) -> anyhow::Result<BundleEntry> {
        let rebuilt = own.map(Outline::subjects).unwrap_or_default();
        let says = &draft.predicate;
        let same_inputs = own.is_some_and(|own| {
            (own.recipe, own.inputs, own.environment) == (says.recipe, says.inputs, says.environment)
        });
        let mut causes = Vec::new();
        if own.is_none() {
            causes.push(Cause::BuildFailed);
        } else if !same_inputs {
            causes.push(Cause::Inputs);
        }
        if rebuilt != draft.subject {
            causes.push(Cause::Content);
        }
        let summary = format!("claimed {}, assembled {}", names(&draft.subject), names(&rebuilt));
        let diagnosis = self.domain.keep(&self.domain.depot(None)?, summary.clone().into()).await?;
        let make = |position: Position| -> anyhow::Result<Envelope> {
            let predicate = Mismatch {
                position,
                product: claim.product.clone(),
                version: claim.of.version.clone(),
                source: claim.of.source,
                recipe: says.recipe,
                rebuilt: rebuilt.clone(),
                causes: causes.clone(),
                diagnosis,
                summary: summary.chars().take(DETAIL_CHARS_MAX).collect(),
            };
            Ok(Envelope::sign(Statement { subject: draft.subject.clone(), predicate }.encode()?, &[&self.builder])?)
        };
        // Once for each claim.
        let claimed = serde_json::to_vec(&(&draft.subject, says.recipe, says.inputs, says.environment))?;
        let once: Key = format!("mismatched/{}/{}", claim.of.source, Digest::of(&claimed)).parse()?;
        let stream = self.domain.stream(&format!("rebuild/{}", self.domain.organisation))?;
        let entry = stream.write_once(&once, make).await?;
        let (product, version) = (claim.product.clone(), claim.of.version.clone());
        self.say_rebuilt(&Rebuilt { product, version, mismatch: Some(entry.envelope.id()) }).await?;
        Ok(entry)
    }

    async fn rules_job(&self, ticket: &Digest) -> anyhow::Result<Option<Job>> {
        let bytes = self.domain.catalog().record(&job_key(ticket)?).await?;
        Ok(bytes.map(|bytes| serde_json::from_slice(&bytes)).transpose()?)
    }

    async fn save_rules(&self, ticket: &Digest, job: &Job) -> anyhow::Result<()> {
        Ok(self.domain.catalog().put(&job_key(ticket)?, Bytes::from(serde_json::to_vec(job)?)).await?)
    }
}

fn names(subjects: &[Subject]) -> String {
    let name = |it: &Subject| format!("{} {}", it.name, it.sha256());
    let names: Vec<_> = subjects.iter().map(name).collect();
    if names.is_empty() { "nothing".to_owned() } else { names.join(", ") }
}

fn job_key(ticket: &Digest) -> anyhow::Result<RecordKey> {
    Ok(RecordKey { table: "rules".parse()?, key: ticket.to_string().parse()? })
}

/// What a supervisor keeps of the rules that were released last: SHA-256 of their index.
pub(crate) fn released_record(product: &attest::ProductId, index: &Digest) -> anyhow::Result<(RecordKey, Bytes)> {
    Ok((released_key(product)?, Bytes::from(index.to_string())))
}

fn released_key(product: &attest::ProductId) -> anyhow::Result<RecordKey> {
    Ok(RecordKey { table: "released-rules".parse()?, key: product.as_str().parse()? })
}

fn unavailable(error: anyhow::Error) -> SecondError {
    SecondError::Unavailable(format!("{error:#}"))
}

fn refused(error: impl std::fmt::Display) -> SecondError {
    SecondError::Refused(error.to_string())
}
