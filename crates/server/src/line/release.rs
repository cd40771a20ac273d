//! From a result to a release that endpoints accept.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use api::{BodyLimit, ReleaseRequest, path};
use attest::{
    Approval, Artifact, BUNDLE_BYTES_MAX, BuildResult, Bundle, BundleEntry, Envelope, Lane, Position, ProductId,
    Promotion, Release, ReleaseNumber, Ring, Statement, StatementId, Subject, predicate_type,
};
use bytes::Bytes;
use detection::{BUNDLE_FILE, INDEX_FILE};
use policy::Role;
use serde::{Deserialize, Serialize};
use stdx::Digest;
use storage::RecordKey;
use tlog::SignerKey;
use verify::{Approved, CurrentStatus, Draft, Evidence, Recorded, Request};

use super::rules::deltas;
use super::{Line, bundle_text, read_bundle, write};
use crate::domain::{BuildFolder, Domain};
use crate::failure::Failure;
use crate::prove::under_one_checkpoint;

const STATUS_BYTES_MAX: BodyLimit = BodyLimit(BUNDLE_BYTES_MAX as u64);

/// Everything that endpoints check, beside the build.
const RELEASE_BUNDLE: &str = "release.bundle";

/// A release may be newly installed for so long; status ends it earlier.
const LIFETIME: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// What is approved, and with which words.
#[derive(Clone, Debug)]
pub struct ApprovalOf<'a> {
    /// A bundle with the result.
    pub result: &'a Bundle,
    /// What the approver has to say.
    pub comment: String,
}

/// A release, signed, recorded and approved by the same rules as at an endpoint.
pub struct Publication {
    /// The release.
    pub approved: Approved<Release>,
    /// What endpoints check.
    pub bundle: Bundle,
    /// Where its artifacts are, and the patches that lead to them, by their content.
    pub files: BTreeMap<Digest, PathBuf>,
}

/// Where a release goes.
#[derive(Clone, Copy)]
struct To {
    lane: Lane,
    ring: Ring,
}

/// The last release of a product, in the catalog.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Last {
    pub(super) number: ReleaseNumber,
    id: StatementId,
}

/// Signs an approval with a person's key and logs it.
///
/// # Errors
/// When the result is not what both builders signed, or the log refuses.
pub async fn approve(domain: &Domain, approver: &SignerKey, approval: &ApprovalOf<'_>) -> anyhow::Result<Bundle> {
    let evidence = Evidence::open(&domain.policy, approval.result)?;
    let result = evidence.one::<BuildResult>(Role::Builder)?;
    let says = &result.statement().predicate;
    let listed = domain.policy.policy().product(&says.product);
    let lane = domain.lane(listed.with_context(|| format!("the policy knows no product `{}`", says.product))?.lane)?;
    policy::Policy::decide(Role::Builder, &lane.builders, result.signers())?;
    let stream = domain.stream(&format!("approval/{}", domain.organisation))?;
    let entry = stream
        .write(|position| {
            let predicate = Approval {
                position,
                product: says.product.clone(),
                version: says.version.clone(),
                result: result.id(),
                comment: approval.comment.clone(),
            };
            let statement = Statement { subject: result.statement().subject.clone(), predicate };
            Ok(Envelope::sign(statement.encode()?, &[approver])?)
        })
        .await?;
    Ok(Bundle::new(vec![entry])?)
}

impl Line {
    /// The evidence folder of a version.
    #[must_use]
    pub fn folder(&self, product: &ProductId, version: &str) -> BuildFolder {
        BuildFolder::new(&self.domain.data, product.as_str(), version)
    }

    /// Keeps an approval beside the result that it is of.
    ///
    /// # Errors
    /// When there is no such result here, or the approval is of another.
    pub fn keep_approval(&self, product: &ProductId, version: &str, approval: &Bundle) -> anyhow::Result<()> {
        let folder = self.folder(product, version);
        let approvals = folder.file("approvals");
        stdx::durable::create_folder(&approvals)?;
        for approval in Evidence::open(&self.domain.policy, approval)?.all::<Approval>(Role::Approver)? {
            let says = &approval.statement().predicate;
            if says.product != *product || says.version != version {
                return Err(Failure::refused(format!("the approval is of `{}` {}", says.product, says.version)).into());
            }
        }
        let name = approval.entries().first().map(|entry| entry.envelope.id().to_string()).unwrap_or_default();
        write(&approvals.join(format!("{name}.bundle")), &approval.to_bytes())?;
        self.domain.save(&folder)
    }

    /// Drafts the release, checks that it may be signed, signs, has the supervisor sign, logs it,
    /// and checks the whole as an endpoint would.
    ///
    /// # Errors
    /// Whatever is missing, by name.
    pub async fn release(&self, product: &ProductId, version: &str, ring: Ring) -> anyhow::Result<Publication> {
        let folder = self.folder(product, version);
        self.domain.pull(&folder)?;
        let evidence = self.evidence(&folder)?;
        let last = self.last(product).await?;
        if let Some((released, this)) = self.released(&folder, &evidence)? {
            // Or else the next one would be drafted under this one's number, for good.
            if last.is_none_or(|last| last.number < this.number) {
                self.note_released(product, &evidence).await?;
                self.remember(product, this).await?;
            }
            return self.finish(product, version, released.entries(), ring).await;
        }
        let lane = self.lane_of_result(&evidence)?;
        // Rules go to those first who agreed to it.
        let ring = if lane == Lane::Fast { Ring::Canary } else { ring };
        let (status, key) = (self.status(lane)?, self.release_key(lane)?);
        let stream = self.domain.stream(&format!("release/{}", self.domain.organisation))?;
        let entry = stream
            .write(|position| {
                let draft = self.draft(&evidence, position, To { lane, ring }, last)?;
                let mut envelope = sign_draft(&self.check_draft(&evidence, &draft, &status)?, key)?;
                envelope.merge(&self.release_signature(lane, &envelope, &evidence)?)?;
                Ok(envelope)
            })
            .await?;
        let number = last.map_or(ReleaseNumber::FIRST, |last| last.number.next());
        let id = entry.envelope.id();
        let entries: Vec<BundleEntry> = std::iter::once(entry).chain(evidence.entries().iter().cloned()).collect();
        // In this order: who finds the bundle finishes this release, and drafts no other. Who finds
        // neither drafts the same number again, which the supervisor signs again.
        write(&folder.file(RELEASE_BUNDLE), &Bundle::new(entries.clone())?.to_bytes())?;
        self.domain.save(&folder)?;
        self.note_released(product, &evidence).await?;
        self.remember(product, Last { number, id }).await?;
        self.finish(product, version, &entries, ring).await
    }

    /// The release of the present result, if an earlier run has logged it and could not finish.
    fn released(&self, folder: &BuildFolder, evidence: &Bundle) -> anyhow::Result<Option<(Bundle, Last)>> {
        let Some(bundle) = read_bundle(&folder.file(RELEASE_BUNDLE))? else { return Ok(None) };
        let result = Evidence::open(&self.domain.policy, evidence)?.one::<BuildResult>(Role::Builder)?.id();
        let release = recorded(&Evidence::open(&self.domain.policy, &bundle)?)?;
        let says = &release.statement().predicate;
        if says.result != result {
            // A version that was built again has another result.
            return Ok(None);
        }
        Ok(Some((with_present(&bundle, evidence)?, Last { number: says.number, id: release.id() })))
    }

    /// Widens the ring of a release.
    ///
    /// # Errors
    /// When there is no such release, or the supervisor does not agree.
    pub async fn promote(&self, product: &ProductId, version: &str, ring: Ring) -> anyhow::Result<Publication> {
        self.promote_with(product, version, ring, &Bundle::default()).await
    }

    /// Widens the ring of a release of rules, for which `bake` says that it fared well.
    ///
    /// # Errors
    /// When there is no such release, or the supervisor does not agree.
    pub(crate) async fn promote_with(
        &self,
        product: &ProductId,
        version: &str,
        ring: Ring,
        bake: &Bundle,
    ) -> anyhow::Result<Publication> {
        let folder = self.folder(product, version);
        self.domain.pull(&folder)?;
        let bundle = read_bundle(&folder.file(RELEASE_BUNDLE))?.ok_or_else(|| {
            Failure::refused(format!("`{product}` {version} has not been released")).hint("release it first")
        })?;
        let bundle = with_present(&bundle, &self.evidence(&folder)?)?.with(bake)?;
        let released = recorded(&Evidence::open(&self.domain.policy, &bundle)?)?;
        let lane = released.statement().predicate.lane;
        let key = self.release_key(lane)?;
        let stream = self.domain.stream(&format!("release/{}", self.domain.organisation))?;
        let entry = stream
            .write(|position| {
                let predicate = Promotion { position, product: product.clone(), release: released.id(), ring };
                let statement = Statement { subject: released.statement().subject.clone(), predicate };
                let mut envelope = Envelope::sign(statement.encode()?, &[key])?;
                envelope.merge(&self.release_signature(lane, &envelope, &bundle)?)?;
                Ok(envelope)
            })
            .await?;
        let entries: Vec<BundleEntry> = bundle.entries().iter().cloned().chain(std::iter::once(entry)).collect();
        self.finish(product, version, &entries, ring).await
    }

    /// How far a version has come, by what is recorded here; `None` if it was not released here.
    pub(crate) fn ring_of(&self, product: &ProductId, version: &str) -> anyhow::Result<Option<Ring>> {
        let folder = self.folder(product, version);
        self.domain.pull(&folder)?;
        let Some(bundle) = read_bundle(&folder.file(RELEASE_BUNDLE))? else { return Ok(None) };
        let evidence = Evidence::open(&self.domain.policy, &bundle)?;
        let mut ring = recorded(&evidence)?.statement().predicate.ring;
        for promotion in evidence.all::<Promotion>(Role::Rules)? {
            ring = ring.max(promotion.statement().predicate.ring);
        }
        Ok(Some(ring))
    }

    async fn finish(
        &self,
        product: &ProductId,
        version: &str,
        entries: &[BundleEntry],
        ring: Ring,
    ) -> anyhow::Result<Publication> {
        let bundle = self.prove(entries)?;
        let evidence = Evidence::open(&self.domain.policy, &bundle)?;
        let lane = recorded(&evidence)?.statement().predicate.lane;
        let (status, at) = (self.status(lane)?, self.domain.moment());
        let request = Request { product, ring, status: &status, at: &at, installed: None };
        let approved = self.domain.policy.approve(&evidence, &request)?;
        let folder = self.folder(product, version);
        write(&folder.file(RELEASE_BUNDLE), &bundle.to_bytes())?;
        self.domain.save(&folder)?;
        let outputs = folder.file("outputs");
        let artifacts = approved.artifacts().iter().map(|it| (it.sha256(), outputs.join(&it.name)));
        let deltas = approved.release().artifacts.iter().flat_map(|it| &it.deltas);
        let patches = deltas.map(|delta| (delta.patch, folder.file("patches").join(delta.patch.to_string())));
        let files = artifacts.chain(patches).collect();
        Ok(Publication { approved, bundle, files })
    }

    /// Each log's entries under one checkpoint of it.
    fn prove(&self, entries: &[BundleEntry]) -> anyhow::Result<Bundle> {
        let mut of_logs: Vec<(tlog::Origin, Vec<BundleEntry>)> = Vec::new();
        for entry in entries {
            let origin = entry.proof.checkpoint().checkpoint().origin();
            match of_logs.iter_mut().find(|(log, _)| log == origin) {
                Some((_, of_log)) => of_log.push(entry.clone()),
                None => of_logs.push((origin.clone(), vec![entry.clone()])),
            }
        }
        let mut bundle = Bundle::default();
        for (origin, entries) in of_logs {
            let url = self.domain.log_url(&origin)?;
            let proven = tokio::task::block_in_place(|| under_one_checkpoint(&entries, &url, &self.domain.client))?;
            bundle = bundle.with(&proven)?;
        }
        Ok(bundle)
    }

    /// What both builders found the result fit for.
    fn lane_of_result(&self, evidence: &Bundle) -> anyhow::Result<Lane> {
        let result = Evidence::open(&self.domain.policy, evidence)?.one::<BuildResult>(Role::Builder)?;
        Ok(result.statement().predicate.lane.unwrap_or(Lane::Slow))
    }

    /// Result and approvals under one checkpoint.
    fn evidence(&self, folder: &BuildFolder) -> anyhow::Result<Bundle> {
        let result = read_bundle(&folder.file("result.bundle"))?.ok_or_else(|| {
            Failure::refused(format!("`{}` holds no result that both builders signed", folder.path().display()))
                .hint("build it, and have it rebuilt: `clerestory assembly build`")
        })?;
        let mut entries: Vec<BundleEntry> = result.entries().to_vec();
        let result_id = entries.first().map(|entry| entry.envelope.id());
        let approvals = folder.file("approvals");
        if approvals.is_dir() {
            let mut paths: Vec<PathBuf> =
                std::fs::read_dir(&approvals)?.map(|entry| entry.map(|it| it.path())).collect::<Result<_, _>>()?;
            paths.sort();
            for path in paths {
                // A version that was built again has another result; approvals of the old one stay
                // in the folder and say nothing of the new one.
                let approvals = read_bundle(&path)?.unwrap_or_default();
                // Nor do those of a key that the policy has replaced since: one of them would have
                // the whole refused, and nothing of this version could ever be released.
                let holds = |entry: &&BundleEntry| {
                    self.domain.policy.verify::<Approval>(&entry.envelope, Role::Approver).is_ok()
                };
                let approvals = approvals.entries().iter().filter(|entry| is_of(entry, result_id)).filter(holds);
                entries.extend(approvals.cloned());
            }
        }
        self.prove(&entries)
    }

    pub(super) fn status(&self, lane: Lane) -> anyhow::Result<CurrentStatus> {
        let url = self.supervisor.join(&format!("{}/{lane}", path::STATUS));
        let bytes = tokio::task::block_in_place(|| self.domain.client.get(&url, STATUS_BYTES_MAX))?;
        let bundle = Bundle::parse(&bytes).context("the supervisor's status")?;
        let evidence = Evidence::open(&self.domain.policy, &bundle)?;
        Ok(self.domain.policy.current_status(&evidence, lane, None, &self.domain.moment())?)
    }

    fn draft(
        &self,
        evidence: &Bundle,
        position: Position,
        to: To,
        last: Option<Last>,
    ) -> anyhow::Result<Statement<Release>> {
        let result = Evidence::open(&self.domain.policy, evidence)?.one::<BuildResult>(Role::Builder)?;
        let says = &result.statement().predicate;
        let folder = self.folder(&says.product, &says.version);
        let outputs = folder.file("outputs");
        let (mut artifacts, mut subjects) = (Vec::new(), Vec::new());
        // What is said of each rule lies beside the log: an endpoint finds it in the rules themselves.
        let is_released = |it: &&Subject| self.lane_of(&says.product).ok() == Some(Lane::Slow) || it.name != INDEX_FILE;
        for subject in result.statement().subject.iter().filter(is_released) {
            let path = outputs.join(&subject.name);
            let file = std::fs::File::open(&path).with_context(|| format!("can't read `{}`", path.display()))?;
            let (digest, size) = stdx::Digest::of_reader(file)?;
            if digest != subject.sha256() {
                return Err(Failure::refused(format!("`{}` is not what was built: SHA-256 {digest}", path.display()))
                    .hint("build it again, or restore the file; nothing was signed")
                    .into());
            }
            let deltas = if subject.name == BUNDLE_FILE { deltas(&folder)? } else { Vec::new() };
            artifacts.push(Artifact { size, deltas });
            subjects.push(subject.clone());
        }
        let now = self.domain.clock.now();
        let predicate = Release {
            position,
            product: says.product.clone(),
            version: says.version.clone(),
            number: last.map_or(ReleaseNumber::FIRST, |last| last.number.next()),
            previous: last.map(|last| last.id),
            lane: to.lane,
            ring: to.ring,
            result: result.id(),
            policy: self.domain.policy.id(),
            artifacts,
            not_before: now,
            expires: now.after(LIFETIME),
            minimum_engine: None,
        };
        Ok(Statement { subject: subjects, predicate })
    }

    /// The vendor's own discipline: nothing leaves unless it may be signed.
    fn check_draft(
        &self,
        evidence: &Bundle,
        draft: &Statement<Release>,
        status: &CurrentStatus,
    ) -> anyhow::Result<Approved<Draft>> {
        let evidence = Evidence::open(&self.domain.policy, evidence)?;
        Ok(self.domain.policy.approve_draft(&evidence, draft, status, &self.domain.moment())?)
    }

    fn release_signature(&self, lane: Lane, envelope: &Envelope, evidence: &Bundle) -> anyhow::Result<Envelope> {
        let request = ReleaseRequest {
            lane,
            envelope: String::from_utf8(envelope.to_bytes())?,
            evidence: bundle_text(evidence)?,
        };
        self.second_signature(path::RELEASES, &request)
    }

    pub(super) async fn last(&self, product: &ProductId) -> anyhow::Result<Option<Last>> {
        let bytes = self.domain.catalog().record(&last_key(product)?).await?;
        Ok(bytes.map(|bytes| serde_json::from_slice(&bytes)).transpose()?)
    }

    async fn remember(&self, product: &ProductId, last: Last) -> anyhow::Result<()> {
        self.domain.catalog().put(&last_key(product)?, Bytes::from(serde_json::to_vec(&last)?)).await?;
        Ok(())
    }
}

/// The only way to a release key: what it signs, `verify` has approved.
pub(crate) fn sign_draft(approved: &Approved<Draft>, key: &SignerKey) -> anyhow::Result<Envelope> {
    Ok(Envelope::sign(approved.statement().encode()?, &[key])?)
}

/// What was released, resting on the result and the approvals that hold now: the policy may have
/// replaced an approver's key since, and with that approval the whole would be refused.
fn with_present(released: &Bundle, evidence: &Bundle) -> anyhow::Result<Bundle> {
    let replaced = [predicate_type::<BuildResult>(), predicate_type::<Approval>()];
    let is_kept =
        |entry: &&BundleEntry| entry.envelope.claimed_type().is_none_or(|claimed| !replaced.contains(&claimed));
    let kept = released.entries().iter().filter(is_kept);
    Ok(Bundle::new(kept.chain(evidence.entries()).cloned().collect())?)
}

/// The release in the evidence, whichever lane's keys have signed it.
fn recorded(evidence: &Evidence<'_>) -> Result<Recorded<Release>, verify::Refusal> {
    match evidence.one::<Release>(Role::Release) {
        Err(verify::Refusal::NotSigned { .. }) => evidence.one::<Release>(Role::Rules),
        other => other,
    }
}

fn is_of(approval: &BundleEntry, result: Option<StatementId>) -> bool {
    let says = Statement::<Approval>::decode(approval.envelope.payload());
    says.is_ok_and(|says| Some(says.predicate.result) == result)
}

/// The record of a product's last release, from the logged release itself.
pub(crate) fn logged_release(envelope: &Envelope) -> Option<(RecordKey, Bytes)> {
    let says = Statement::<Release>::decode(envelope.payload()).ok()?.predicate;
    let last = Last { number: says.number, id: envelope.id() };
    Some((last_key(&says.product).ok()?, Bytes::from(serde_json::to_vec(&last).ok()?)))
}

fn last_key(product: &ProductId) -> anyhow::Result<RecordKey> {
    Ok(RecordKey { table: "release".parse()?, key: product.as_str().parse()? })
}
