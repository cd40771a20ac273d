//! Logging the source, and saying how it was built.

use std::collections::BTreeMap;

use super::{Built, Line, read_bundle, write};
use crate::domain::BuildFolder;
use assembly::{Made, Node, Product, Source as SourceTree};
use attest::{
    BuildDefinition, BuildMetadata, Builder, Bundle, BundleEntry, Envelope, ProductId, Provenance, ResourceDescriptor,
    Revision, RunDetails, Sha256Map, Source, Statement, Subject, TYPE_BASE,
};

impl Line {
    /// Logs the `source` statement; once for a version and its source.
    pub(super) async fn log_source(
        &self,
        id: &ProductId,
        product: &Product,
        source: &SourceTree,
        folder: &BuildFolder,
    ) -> anyhow::Result<BundleEntry> {
        let path = folder.file("source.bundle");
        if let Some(entry) = read_bundle(&path)?.and_then(|bundle| bundle.entries().first().cloned())
            && let Ok(statement) = Statement::<Source>::decode(entry.envelope.payload())
            && statement.subject.iter().any(|subject| subject.sha256() == source.digest)
        {
            return Ok(entry);
        }
        let (mut files, mut bytes) = (0_u64, 0_u64);
        for (_, node) in source.tree.iter() {
            if let Node::File { size, .. } = node {
                files += 1;
                bytes = bytes.saturating_add(*size);
            }
        }
        let stream = self.domain.stream(&format!("assembly/{}", self.domain.organisation))?;
        let entry = stream
            .write(|position| {
                let predicate = Source {
                    position,
                    product: id.clone(),
                    version: product.recipe.version.to_string(),
                    files,
                    bytes,
                    revision: source
                        .git
                        .as_ref()
                        .map(|git| Revision { commit: git.commit.clone(), tree: git.tree.clone() }),
                };
                let subject = vec![Subject::new("source", source.digest)];
                Ok(Envelope::sign(Statement { subject, predicate }.encode()?, &[&self.recorder])?)
            })
            .await?;
        write(&path, &Bundle::new(vec![entry.clone()])?.to_bytes())?;
        Ok(entry)
    }

    /// Signs SLSA provenance for what was built.
    pub(super) fn provenance(&self, built: &Built) -> anyhow::Result<Envelope> {
        let agreed = &built.record.agreed;
        let descriptor = |uri: &str, sha256| ResourceDescriptor { uri: uri.to_owned(), digest: Sha256Map { sha256 } };
        let made = match &built.record.made {
            Made::Here(made) => descriptor("log", made.log),
            Made::Elsewhere(foreign) => descriptor("provenance", foreign.provenance),
        };
        let predicate = Provenance {
            build_definition: BuildDefinition {
                build_type: format!("{TYPE_BASE}build/v1"),
                external_parameters: external_parameters(&built.record),
                internal_parameters: BTreeMap::from([("environment".to_owned(), agreed.environment.to_string())]),
                resolved_dependencies: vec![descriptor("inputs", agreed.inputs)],
            },
            run_details: RunDetails {
                builder: Builder { id: format!("https://{}", self.builder.verifier().name()) },
                metadata: BuildMetadata {
                    invocation_id: stdx::Digest::of(&built.record.to_bytes()).to_string(),
                    started_on: built.started,
                    finished_on: self.domain.clock.now(),
                },
                byproducts: vec![made, descriptor("sbom", agreed.sbom)],
            },
        };
        let statement = Statement { subject: subjects(&built.record), predicate };
        Ok(Envelope::sign(statement.encode()?, &[&self.builder])?)
    }
}

/// What the outside chose about a build; a rebuilder refuses provenance that says anything else.
pub(crate) fn external_parameters(record: &assembly::BuildRecord) -> BTreeMap<String, String> {
    let agreed = &record.agreed;
    let parameters = [
        ("product", agreed.product.to_string()),
        ("version", agreed.version.to_string()),
        ("source", agreed.source.to_string()),
        ("recipe", agreed.recipe.to_string()),
    ];
    parameters.map(|(name, value)| (name.to_owned(), value)).into_iter().collect()
}

/// The outputs as statements name them.
pub(crate) fn subjects(record: &assembly::BuildRecord) -> Vec<Subject> {
    record.agreed.outputs.iter().map(|output| Subject::new(output.name.clone(), output.digest)).collect()
}
