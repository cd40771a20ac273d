//! Asking the supervisor to rebuild, and the result that both sign.

use std::fs::File;
use std::time::Duration;

use anyhow::Context as _;
use api::{BodyLimit, DraftRequest, RebuildRequest, RebuildState, path};
use assembly::{BuildRecord, Origin, Product};
use attest::{Bundle, BundleEntry, Envelope, EnvironmentKind, Position, Statement, StatementId};
use policy::Role;
use stdx::Digest;

use super::submit::subjects;
use super::{Built, Line, bundle_text, write};
use crate::failure::Failure;

/// A state carries a bundle and a diagnosis.
const STATE_BYTES_MAX: BodyLimit = BodyLimit(8 << 20);
const ENVELOPE_MAX: BodyLimit = BodyLimit(2 * attest::ENVELOPE_BYTES_MAX as u64);
const POLL: Duration = Duration::from_millis(100);

/// How a rebuild ended.
pub enum RebuildOutcome {
    /// The same bytes: the result that both signed, as logged.
    Matched {
        /// The result.
        result: BundleEntry,
        /// The supervisor's own record of it.
        vsa: Bundle,
    },
    /// Other bytes. The supervisor has signed and logged it.
    Mismatched {
        /// The statement.
        mismatch: Bundle,
        /// For people.
        diagnosis: String,
    },
}

impl Line {
    /// Has what was built rebuilt by the supervisor, and logs the result if it is the same.
    /// `step` is told what the supervisor is doing.
    ///
    /// # Errors
    /// When the supervisor can't be reached or refuses. A mismatch is no error here.
    pub async fn rebuild(&self, built: &Built, mut step: impl FnMut(&str)) -> anyhow::Result<RebuildOutcome> {
        let provenance = self.provenance(built)?;
        write(&built.folder.file("provenance.json"), &provenance.to_bytes())?;
        let request = request(built, &provenance)?;
        let url = self.supervisor.join(path::REBUILDS);
        let ticket = Digest::of(request.record.as_bytes());
        let mut state = tokio::task::block_in_place(|| {
            self.domain.client.post_json::<RebuildState>(&url, &request, STATE_BYTES_MAX)
        })?;
        loop {
            match state {
                RebuildState::Wanting { objects } => {
                    step("sending what the rebuilder wants");
                    self.send(&objects, &ticket, built)?;
                    state =
                        tokio::task::block_in_place(|| self.domain.client.post_json(&url, &request, STATE_BYTES_MAX))?;
                    continue;
                }
                RebuildState::Queued => step("queued"),
                RebuildState::Running { step: what } => step(&what),
                RebuildState::Matched { vsa } => {
                    let vsa = Bundle::parse(vsa.as_bytes()).context("the supervisor's VSA")?;
                    write(&built.folder.file("vsa.bundle"), &vsa.to_bytes())?;
                    let result = self.log_result(built, &ticket).await?;
                    self.show_outputs(built)?;
                    write(&built.folder.file("result.bundle"), &Bundle::new(vec![result.clone()])?.to_bytes())?;
                    self.domain.save(&built.folder)?;
                    return Ok(RebuildOutcome::Matched { result, vsa });
                }
                RebuildState::Mismatched { mismatch, diagnosis } => {
                    let mismatch = Bundle::parse(mismatch.as_bytes()).context("the supervisor's mismatch")?;
                    write(&built.folder.file("mismatch.bundle"), &mismatch.to_bytes())?;
                    write(&built.folder.file("diagnosis.txt"), diagnosis.as_bytes())?;
                    self.domain.save(&built.folder)?;
                    return Ok(RebuildOutcome::Mismatched { mismatch, diagnosis });
                }
                RebuildState::Failed { reason } => {
                    return Err(Failure::unavailable(format!("the supervisor could not rebuild: {reason}"))
                        .hint("this says nothing about the product; ask again, or ask the supervisor's operator")
                        .into());
                }
            }
            tokio::time::sleep(POLL).await;
            let url = format!("{url}/{ticket}");
            state = tokio::task::block_in_place(|| self.domain.client.get_json(&url, STATE_BYTES_MAX))?;
        }
    }

    /// Puts the confirmed outputs where people and the release find them.
    fn show_outputs(&self, built: &Built) -> anyhow::Result<()> {
        let (depot, outputs) = (self.domain.depot(None)?, built.folder.file("outputs"));
        if outputs.exists() {
            std::fs::remove_dir_all(&outputs).with_context(|| format!("can't replace `{}`", outputs.display()))?;
        }
        stdx::durable::create_folder(&outputs)?;
        for output in &built.record.agreed.outputs {
            write(&outputs.join(&output.name), &depot.content().get(&output.digest, output.size)?)?;
        }
        Ok(())
    }

    fn send(&self, objects: &[Digest], ticket: &Digest, built: &Built) -> anyhow::Result<()> {
        let depot = self.domain.depot(None)?;
        for object in objects {
            let offered = *object == built.record.agreed.source
                || built.record.agreed.outputs.iter().any(|output| output.digest == *object)
                || built
                    .fetched
                    .source
                    .tree
                    .iter()
                    .any(|(_, node)| matches!(node, assembly::Node::File { digest, .. } if digest == object));
            if !offered {
                return Err(Failure::refused(format!(
                    "the supervisor wants object {object}, which is no part of the build"
                ))
                .into());
            }
            let file: File = depot.content().open_object(object)?;
            let url = self.supervisor.join(&format!("{}/{ticket}/objects/{object}", path::REBUILDS));
            tokio::task::block_in_place(|| self.domain.client.put(&url, file))?;
        }
        Ok(())
    }

    /// Drafts the `result`, has the supervisor sign the same payload, and logs it.
    async fn log_result(&self, built: &Built, ticket: &Digest) -> anyhow::Result<BundleEntry> {
        let stream = self.domain.stream(&format!("assembly/{}", self.domain.organisation))?;
        let source = built.source.envelope.id();
        let entry = stream
            .write(|position| {
                let draft = result(&built.record, source, position)?;
                let mut envelope = Envelope::sign(draft.encode()?, &[&self.builder])?;
                let request = DraftRequest { ticket: *ticket, envelope: String::from_utf8(envelope.to_bytes())? };
                envelope.merge(&self.second_signature(path::RESULTS, &request)?)?;
                let signed = self.domain.policy.verify::<attest::BuildResult>(&envelope, Role::Builder)?;
                let lane = self.domain.lane(self.lane_of(&draft.predicate.product)?)?;
                policy::Policy::decide(Role::Builder, &lane.builders, signed.signers())?;
                Ok(envelope)
            })
            .await?;
        Ok(entry)
    }

    /// The supervisor's signature under the same payload.
    pub(super) fn second_signature(&self, path: &str, request: &impl serde::Serialize) -> anyhow::Result<Envelope> {
        let (url, body) = (self.supervisor.join(path), serde_json::to_vec(request)?);
        let answer = tokio::task::block_in_place(|| self.domain.client.post(&url, &body, ENVELOPE_MAX))?;
        Envelope::parse(&answer).context("the supervisor's signature")
    }

    pub(super) fn lane_of(&self, product: &attest::ProductId) -> anyhow::Result<attest::Lane> {
        let listed = self.domain.policy.policy().product(product);
        Ok(listed.with_context(|| format!("the policy knows no product `{product}`"))?.lane)
    }
}

fn request(built: &Built, provenance: &Envelope) -> anyhow::Result<RebuildRequest> {
    let Product { folder, .. } = &built.product;
    let read = |name: &str| {
        let path = folder.join(name);
        std::fs::read_to_string(&path).with_context(|| format!("can't read `{}`", path.display()))
    };
    Ok(RebuildRequest {
        source: bundle_text(&Bundle::new(vec![built.source.clone()])?)?,
        provenance: String::from_utf8(provenance.to_bytes())?,
        record: String::from_utf8(built.record.to_bytes())?,
        recipe: read(assembly::RECIPE_FILE)?,
        lock: read(assembly::LOCK_FILE)?,
    })
}

/// The statement that both builders sign, byte for byte.
pub(crate) fn result(
    record: &BuildRecord,
    source: StatementId,
    position: Position,
) -> anyhow::Result<Statement<attest::BuildResult>> {
    let agreed = &record.agreed;
    let predicate = attest::BuildResult {
        position,
        product: agreed.product.as_str().parse()?,
        version: agreed.version.to_string(),
        source,
        recipe: agreed.recipe,
        inputs: agreed.inputs,
        environment: agreed.environment,
        environment_kind: match agreed.origin {
            Origin::Pinned => EnvironmentKind::Pinned,
            Origin::Captured => EnvironmentKind::Captured,
        },
        sbom: agreed.sbom,
        lane: None,
    };
    Ok(Statement { subject: subjects(record), predicate })
}
