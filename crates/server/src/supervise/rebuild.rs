//! Rebuilding what a vendor claims.
//!
//! A request becomes a job (`worker.rs`). The claim counts for nothing but its
//! digests: recipe and lock are read again, every input is resolved in upstream's own index, the
//! build runs under other conditions, and bytes decide.

use std::time::Duration;

use anyhow::Context as _;
use api::{ErrorClass, RebuildRequest, RebuildState};
use assembly::compare::{self, Builds, Limits, Output, Outputs, Verdict};
use assembly::{
    Asking, BuildRecord, Builder, Conditions, Depot, Environment, EnvironmentSpec, Event, Fetched, Origin, Product,
    Progress, Resolved, SourceSpec,
};
use attest::{
    Bundle, BundleEntry, Cause, Envelope, Mismatch, Position, Provenance, Sha256Map, Source, Statement, StatementId,
    Vsa, VsaInput, VsaPolicy, VsaResult, VsaVerifier,
};
use bytes::Bytes;
use policy::Role;
use serde::{Deserialize, Serialize};
use stdx::{Digest, durable};
use storage::{Key, RecordKey};

use super::Supervisor;
use super::status::Rebuilt;
use super::worker::Turn;
use crate::line::submit::{external_parameters, subjects};
use crate::line::{bundle_text, sandbox};
use crate::stream::StreamError;

/// Witnesses that are away are called, and a sequencer that died is replaced, within this.
const LOG_WAIT: Duration = Duration::from_secs(10 * 60);
const LOG_AGAIN: Duration = Duration::from_secs(1);
/// A version string of SLSA that has `SLSA_BUILD_REPRODUCED`.
const SLSA_VERSION: &str = "1.1";

/// What is kept of a rebuild.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Job {
    pub(super) request: RebuildRequest,
    /// The logged `source` statement.
    pub(super) source: StatementId,
    pub(super) state: RebuildState,
    /// This organisation's own record, once it has built.
    pub(super) record: Option<String>,
}

/// Why an object is not taken.
#[derive(Debug, thiserror::Error)]
pub enum PutError {
    /// No such rebuild, or it does not want this object.
    #[error("no rebuild `{ticket}` wants object {object}")]
    Unwanted {
        /// The ticket.
        ticket: Digest,
        /// The object.
        object: Digest,
    },
    /// Other bytes, or too many.
    #[error("object {object}: {detail}")]
    Other {
        /// The object.
        object: Digest,
        /// What is wrong.
        detail: String,
    },
    /// The store failed.
    #[error("object {object} can't be stored: {detail}")]
    Store {
        /// The object.
        object: Digest,
        /// Why.
        detail: String,
    },
}

/// What a claim was checked to be.
struct Claim {
    record: BuildRecord,
    source: StatementId,
    product: Product,
}

impl Claim {
    fn rebuilt(&self, mismatch: Option<StatementId>) -> anyhow::Result<Rebuilt> {
        let agreed = &self.record.agreed;
        Ok(Rebuilt { product: agreed.product.as_str().parse()?, version: agreed.version.to_string(), mismatch })
    }
}

/// What this supervisor grants a build, whatever its recipe asks for.
const SECONDS_MAX: u64 = 2 * 60 * 60;
const MEMORY_MIB_MAX: u32 = 8 << 10;
const DISK_MIB_MAX: u32 = 8 << 10;
const PROCESSES_MAX: u32 = 4096;

impl Supervisor {
    /// Takes in a request, or says how the same request stands.
    ///
    /// # Errors
    /// When the claim is not signed, recorded and consistent in itself.
    pub async fn request(&self, request: RebuildRequest) -> anyhow::Result<RebuildState> {
        let ticket = Digest::of(request.record.as_bytes());
        let claim = self.check(&request)?;
        if let Some(job) = self.job(&ticket).await?
            && !matches!(job.state, RebuildState::Wanting { .. } | RebuildState::Failed { .. })
        {
            return Ok(job.state);
        }
        let wanted = self.wanted(&claim).await?;
        let state = if wanted.is_empty() { RebuildState::Queued } else { RebuildState::Wanting { objects: wanted } };
        let queued = state == RebuildState::Queued;
        self.save(&ticket, &Job { request, source: claim.source, state: state.clone(), record: None }).await?;
        if queued {
            self.enqueue(&ticket).await?;
        }
        Ok(state)
    }

    /// How a rebuild stands.
    ///
    /// # Errors
    /// When the catalog can't be read.
    pub async fn rebuild_state(&self, ticket: &Digest) -> anyhow::Result<Option<RebuildState>> {
        Ok(self.job(ticket).await?.map(|job| job.state))
    }

    /// Whether a rebuild wants this object; asked before its body is read.
    ///
    /// # Errors
    /// [`PutError`].
    pub async fn wants(&self, ticket: &Digest, object: Digest) -> Result<(), PutError> {
        let store = |detail: String| PutError::Store { object, detail };
        let job = self.job(ticket).await.map_err(|error| store(format!("{error:#}")))?;
        let wanted = match &job {
            Some(Job { state: RebuildState::Wanting { objects }, .. }) => objects.contains(&object),
            _ => false,
        };
        if !wanted {
            return Err(PutError::Unwanted { ticket: *ticket, object });
        }
        Ok(())
    }

    /// Stores an object that a rebuild wants.
    ///
    /// # Errors
    /// [`PutError`].
    pub async fn put(&self, object: Digest, bytes: Bytes) -> Result<(), PutError> {
        let found = Digest::of(&bytes);
        if found != object {
            return Err(PutError::Other { object, detail: format!("the bytes have SHA-256 {found}") });
        }
        let store = |error: anyhow::Error| PutError::Store { object, detail: format!("{error:#}") };
        let depot = self.domain.depot(None).map_err(store)?;
        self.domain.keep(&depot, bytes).await.map(drop).map_err(store)
    }

    /// Rebuilds, compares, and logs what came out.
    pub(super) async fn rebuild(&self, job: &mut Job, ticket: &Digest, turn: &Turn) -> anyhow::Result<RebuildState> {
        let claim = self.check(&job.request)?;
        let depot = self.domain.depot(self.cache.as_deref())?;
        // What the vendor sent may lie with another process that it was sent to.
        let wanted = self.wanted(&claim).await?;
        anyhow::ensure!(wanted.is_empty(), "object {} is missing", wanted.first().unwrap_or(ticket));
        let built = tokio::task::block_in_place(|| self.build(&depot, &claim, ticket, turn))?;
        tracing::info!(rebuild.ticket = %ticket, "built; comparing");
        self.holds(turn).await?;
        let own = match built {
            Ok(own) => own,
            // A service manager may have ended the build's own processes: not the product's fault,
            // and a mismatch is for good.
            Err(reason) if turn.is_over() => anyhow::bail!("ended with this process: {reason}"),
            Err(reason) => {
                let summary = "the rebuild failed; see the diagnosis".to_owned();
                let (rebuilt, causes) = (Vec::new(), vec![Cause::BuildFailed]);
                let found = Difference { rebuilt, causes, summary, diagnosis: reason };
                return self.mismatch(job, turn, &claim, found).await;
            }
        };
        job.record = Some(String::from_utf8(own.to_bytes())?);
        if own.agreed == claim.record.agreed {
            let logged = self.vsa(job, turn, &own).await?;
            return self.logged(&claim, logged).await;
        }
        let found = diagnose(&depot, &claim.record, &own, &*self.domain.clock)?;
        self.mismatch(job, turn, &claim, found).await
    }

    /// Builds the claimed product again. The inner error is the build's: it is the product's fault.
    fn build(
        &self,
        depot: &Depot,
        claim: &Claim,
        ticket: &Digest,
        turn: &Turn,
    ) -> anyhow::Result<Result<BuildRecord, String>> {
        let Claim { record: claimed, product, .. } = claim;
        let progress = Traced;
        // Upstream is asked by this organisation itself, always: that is the point of it.
        let resolved = Resolved::ask(depot, product, self.asking(), &progress)?;
        let fetched = match &product.recipe.source {
            SourceSpec::Git { .. } => {
                Fetched::fetch_with_source(depot, product, &resolved, &claimed.agreed.source, self.asking(), &progress)?
            }
            _ => Fetched::fetch(depot, product, &resolved, None, self.asking(), &progress)?,
        };
        let environment = Environment::prepare(depot, &product.recipe.environment, &fetched, &progress)?;
        let builder = Builder { depot, sandbox: sandbox()?, cancel: turn.cancel.clone() };
        let conditions = Conditions::different(ticket);
        match builder.build(product, &fetched, &environment, &conditions, &progress) {
            Ok(record) => Ok(Ok(record)),
            // The log's end may hold anything: it goes to the vendor, never into a statement.
            Err(error) if error.is_the_products_fault() => Ok(Err(error.to_string())),
            Err(error) => Err(error.into()),
        }
    }

    const fn asking(&self) -> Asking {
        if self.config.offline { Asking::Recorded } else { Asking::Upstream }
    }

    /// Whether the claim holds together: its source is logged by the vendor; its provenance is
    /// signed by a builder and names this very record, recipe and lock; and it is something that
    /// this supervisor is willing to run.
    fn check(&self, request: &RebuildRequest) -> anyhow::Result<Claim> {
        let policy = &*self.domain.policy;
        let ticket = Digest::of(request.record.as_bytes());
        let record = BuildRecord::parse(request.record.as_bytes()).context("the record")?;
        let source = Bundle::parse(request.source.as_bytes()).context("the source's bundle")?;
        let source = verify::Evidence::open(policy, &source)?.one::<Source>(Role::Recorder)?;
        let agreed = &record.agreed;
        let says = &source.statement().predicate;
        anyhow::ensure!(
            says.product.as_str() == agreed.product.as_str()
                && says.version == agreed.version.as_str()
                && source.statement().subject.iter().any(|subject| subject.sha256() == agreed.source),
            "the logged source is not the one that the record names"
        );
        let provenance = Envelope::parse(request.provenance.as_bytes()).context("the provenance")?;
        let provenance = policy.verify::<Provenance>(&provenance, Role::Builder)?;
        let says = &provenance.statement().predicate;
        anyhow::ensure!(
            provenance.statement().subject == subjects(&record)
                && says.build_definition.external_parameters == external_parameters(&record)
                && says.run_details.metadata.invocation_id == ticket.to_string(),
            "the signed provenance is not of this record"
        );
        anyhow::ensure!(
            provenance.signers().iter().all(|signer| signer.organisation != self.domain.organisation),
            "a supervisor does not rebuild its own builds"
        );
        let product = self.write_product(request, &ticket)?;
        anyhow::ensure!(product.digest == agreed.recipe, "recipe and lock are not those that the record names");
        check_willing(&product.recipe, &record)?;
        Ok(Claim { record, source: source.id(), product })
    }

    /// The recipe and lock in a folder of their own, read as anything foreign.
    fn write_product(&self, request: &RebuildRequest, ticket: &Digest) -> anyhow::Result<Product> {
        let texts = Digest::of(format!("{}\n{}", request.recipe, request.lock).as_bytes());
        let folder = self.domain.data.path().join("rebuilds").join(ticket.to_string()).join(texts.to_string());
        durable::create_folder(&folder)?;
        durable::write(&folder.join(assembly::RECIPE_FILE), request.recipe.as_bytes())?;
        durable::write(&folder.join(assembly::LOCK_FILE), request.lock.as_bytes())?;
        Ok(Product::open(&folder)?)
    }

    /// What no machine of the domain has: of the claimed outputs, and of a git source's files.
    async fn wanted(&self, claim: &Claim) -> anyhow::Result<Vec<Digest>> {
        let Claim { record, product, .. } = claim;
        let depot = self.domain.depot(None)?;
        let mut wanted: Vec<Digest> = record.agreed.outputs.iter().map(|output| output.digest).collect();
        if matches!(product.recipe.source, SourceSpec::Git { .. }) {
            wanted.push(record.agreed.source);
            if self.domain.bring(&depot, &record.agreed.source).await? {
                let source = assembly::Source::load(&record.agreed.source, depot.content())?;
                wanted.extend(source.tree.iter().filter_map(|(_, node)| match node {
                    assembly::Node::File { digest, .. } => Some(*digest),
                    _ => None,
                }));
            }
        }
        wanted.sort();
        wanted.dedup();
        let mut missing = Vec::new();
        for object in wanted {
            if !self.domain.bring(&depot, &object).await? {
                missing.push(object);
            }
        }
        Ok(missing)
    }

    async fn vsa(&self, job: &Job, turn: &Turn, own: &BuildRecord) -> anyhow::Result<BundleEntry> {
        let provenance = Digest::of(job.request.provenance.as_bytes());
        let make = |position: Position| -> anyhow::Result<Envelope> {
            let agreed = &own.agreed;
            let predicate = Vsa {
                verifier: VsaVerifier { id: format!("https://{}", self.builder.verifier().name()) },
                time_verified: position.time,
                resource_uri: format!("pkg:generic/{}@{}", agreed.product, agreed.version),
                policy: VsaPolicy {
                    uri: self.domain.policy.policy().name.clone(),
                    digest: Sha256Map { sha256: *self.domain.policy.id().digest() },
                },
                input_attestations: vec![
                    VsaInput { uri: "source".to_owned(), digest: Sha256Map { sha256: *job.source.digest() } },
                    VsaInput { uri: "provenance".to_owned(), digest: Sha256Map { sha256: provenance } },
                ],
                verification_result: VsaResult::Passed,
                verified_levels: vec!["SLSA_BUILD_REPRODUCED".to_owned()],
                slsa_version: SLSA_VERSION.to_owned(),
                position,
            };
            Ok(Envelope::sign(Statement { subject: subjects(own), predicate }.encode()?, &[&self.builder])?)
        };
        self.log_once(job, turn, make).await
    }

    /// Logs the one statement about a rebuild. A log that is away is waited for: to begin again would
    /// cost another build.
    async fn log_once(
        &self,
        job: &Job,
        turn: &Turn,
        mut make: impl FnMut(Position) -> anyhow::Result<Envelope> + Send,
    ) -> anyhow::Result<BundleEntry> {
        let stream = self.domain.stream(&format!("rebuild/{}", self.domain.organisation))?;
        let once: Key = format!("rebuilt/{}", Digest::of(job.request.record.as_bytes())).parse()?;
        let until = self.domain.clock.monotonic().saturating_add(LOG_WAIT);
        loop {
            match stream.write_once(&once, &mut make).await {
                Err(StreamError::Log { source, origin })
                    if source.class() == ErrorClass::Unavailable
                        && !turn.is_over()
                        && self.domain.clock.monotonic() < until =>
                {
                    tracing::warn!("log `{origin}` does not take a rebuild's statement yet: {source}");
                    tokio::time::sleep(LOG_AGAIN).await;
                }
                written => return Ok(written?),
            }
        }
    }

    async fn mismatch(&self, job: &Job, turn: &Turn, claim: &Claim, found: Difference) -> anyhow::Result<RebuildState> {
        let Difference { rebuilt, causes, summary, diagnosis } = found;
        let diagnosis = self.domain.keep(&self.domain.depot(None)?, diagnosis.into()).await?;
        let agreed = &claim.record.agreed;
        let make = |position: Position| -> anyhow::Result<Envelope> {
            let predicate = Mismatch {
                position,
                product: agreed.product.as_str().parse()?,
                version: agreed.version.to_string(),
                source: job.source,
                recipe: agreed.recipe,
                rebuilt: rebuilt.clone(),
                causes: causes.clone(),
                diagnosis,
                summary: summary.chars().take(SUMMARY_CHARS_MAX).collect(),
            };
            let statement = Statement { subject: subjects(&claim.record), predicate };
            Ok(Envelope::sign(statement.encode()?, &[&self.builder])?)
        };
        let logged = self.log_once(job, turn, make).await?;
        if logged.envelope.claimed_type() != Some(attest::predicate_type::<Mismatch>()) {
            anyhow::bail!("another process of this supervisor got the claimed bytes, and this one did not: {summary}");
        }
        self.logged(claim, logged).await
    }

    /// What the one statement says that is logged for a rebuild, whichever process has made it.
    async fn logged(&self, claim: &Claim, entry: BundleEntry) -> anyhow::Result<RebuildState> {
        let id = entry.envelope.id();
        let mismatch = Statement::<Mismatch>::decode(entry.envelope.payload()).ok();
        let text = bundle_text(&Bundle::new(vec![entry])?)?;
        self.say_rebuilt(&claim.rebuilt(mismatch.is_some().then_some(id))?).await?;
        let Some(mismatch) = mismatch else { return Ok(RebuildState::Matched { vsa: text }) };
        let (depot, diagnosis) = (self.domain.depot(None)?, mismatch.predicate.diagnosis);
        self.domain.bring(&depot, &diagnosis).await?;
        let diagnosis = String::from_utf8(depot.content().get(&diagnosis, OBJECT_BYTES_MAX)?)?;
        Ok(RebuildState::Mismatched { mismatch: text, diagnosis })
    }

    pub(super) async fn job(&self, ticket: &Digest) -> anyhow::Result<Option<Job>> {
        let bytes = self.domain.catalog().record(&job_key(ticket)?).await?;
        Ok(bytes.map(|bytes| serde_json::from_slice(&bytes)).transpose()?)
    }

    pub(super) async fn save(&self, ticket: &Digest, job: &Job) -> anyhow::Result<()> {
        Ok(self.domain.catalog().put(&job_key(ticket)?, Bytes::from(serde_json::to_vec(job)?)).await?)
    }
}

/// A statement's summary is a line.
const SUMMARY_CHARS_MAX: usize = 300;
/// The largest artifact or source file that is taken from a vendor.
const OBJECT_BYTES_MAX: u64 = 2 << 30;

fn job_key(ticket: &Digest) -> anyhow::Result<RecordKey> {
    Ok(RecordKey { table: "rebuild".parse()?, key: ticket.to_string().parse()? })
}

/// A recipe that asks for this machine's own root, or for more than is granted, is not run here.
fn check_willing(recipe: &assembly::Recipe, record: &BuildRecord) -> anyhow::Result<()> {
    anyhow::ensure!(
        matches!(recipe.environment, EnvironmentSpec::Debian { .. }) && record.agreed.origin == Origin::Pinned,
        "the environment is not from pinned packages: such a build is not rebuilt, and never releases"
    );
    let limits = &recipe.limits;
    anyhow::ensure!(
        limits.seconds <= SECONDS_MAX
            && limits.memory_mib <= MEMORY_MIB_MAX
            && limits.disk_mib <= DISK_MIB_MAX
            && limits.processes <= PROCESSES_MAX,
        "the recipe asks for more than {SECONDS_MAX} s, {MEMORY_MIB_MAX} MiB of memory, {DISK_MIB_MAX} MiB of disk \
         or {PROCESSES_MAX} processes"
    );
    Ok(())
}

/// Why two builds differ.
struct Difference {
    /// What came out.
    rebuilt: Vec<attest::Subject>,
    causes: Vec<Cause>,
    /// A line.
    summary: String,
    /// The whole, for people.
    diagnosis: String,
}

fn diagnose(
    depot: &Depot,
    claimed: &BuildRecord,
    own: &BuildRecord,
    clock: &dyn stdx::Clock,
) -> anyhow::Result<Difference> {
    let outputs = |record: &BuildRecord| -> anyhow::Result<Outputs> {
        let mut outputs = Outputs::default();
        for output in &record.agreed.outputs {
            let bytes = depot.content().get(&output.digest, OBJECT_BYTES_MAX)?;
            outputs.add(&output.name, Output::Bytes(bytes))?;
        }
        Ok(outputs)
    };
    let (left, right) = (outputs(claimed)?, outputs(own)?);
    let verdict = compare::compare(&Builds { left: &left, right: &right }, &Limits::default(), clock)?;
    let text = verdict.to_string();
    let mut causes: Vec<Cause> = Vec::new();
    let (a, b) = (&claimed.agreed, &own.agreed);
    if (a.source, a.recipe, a.inputs, a.environment, a.sbom) != (b.source, b.recipe, b.inputs, b.environment, b.sbom) {
        causes.push(Cause::Inputs);
    }
    if let Verdict::Different(difference) = &verdict {
        for cause in difference.causes() {
            // Both are kebab-case names of `docs/formats/compare.md`.
            causes.push(serde_json::from_value(serde_json::to_value(cause)?)?);
        }
    }
    let summary = match &verdict {
        Verdict::Different(difference) => difference
            .findings()
            .first()
            .map_or_else(|| "the outputs differ".to_owned(), |finding| format!("{}: {}", finding.member, finding.what)),
        Verdict::Identical(_) => "the same outputs, from other inputs than the rebuilder resolved".to_owned(),
    };
    Ok(Difference { rebuilt: subjects(own), causes, summary, diagnosis: text })
}

/// Tells the log of the process what long work does.
struct Traced;

impl Progress for Traced {
    fn event(&self, event: Event) {
        match event {
            Event::Printed { .. } | Event::Unpacking { .. } => {}
            Event::Resolving { index, packages } => tracing::info!(index, packages, "asking upstream"),
            Event::Fetching { index, missing } => tracing::info!(index, missing, "fetching"),
            Event::Checking { environment } => tracing::info!(%environment, "checking the environment"),
            Event::Building { product, version } => tracing::info!(product, version, "rebuilding"),
        }
    }
}
