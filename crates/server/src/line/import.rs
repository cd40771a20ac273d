//! A vendor's existing CI as the first builder: its artifacts and SLSA provenance are submitted,
//! and the rebuilder decides.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::Context as _;
use assembly::{Builder, Environment, Fetched, ForeignBuild, KnownBuilder, Progress};
use attest::open_foreign;
use sandbox::Cancel;
use tlog::VerifierKey;

use super::{BuildOptions, Built, Line, Prepared, sandbox};

/// What a CI hands over.
#[derive(Clone, Debug)]
pub struct Handover {
    /// The signed provenance: a DSSE envelope, as others write it.
    pub provenance: PathBuf,
    /// The key that the CI signs with.
    pub key: VerifierKey,
    /// The builder that this key stands for.
    pub builder: String,
    /// The external parameters that somebody here has looked at.
    pub parameters: Vec<String>,
    /// Its artifacts, by the names of the recipe's outputs.
    pub artifacts: BTreeMap<String, PathBuf>,
}

impl Line {
    /// Fetches, logs the source, and takes the CI's artifacts for what a build would give.
    ///
    /// # Errors
    /// When the provenance is not signed by the key, is about something else, or names parameters
    /// that nobody has looked at.
    pub async fn import(
        &self,
        options: &BuildOptions,
        handover: &Handover,
        progress: &dyn Progress,
    ) -> anyhow::Result<Built> {
        let prepared = self.prepare(options, progress).await?;
        let read = || format!("can't read `{}`", handover.provenance.display());
        let envelope = std::fs::read(&handover.provenance).with_context(read)?;
        let payload =
            open_foreign(&envelope, &handover.key).with_context(|| format!("`{}`", handover.provenance.display()))?;
        let foreign = self.read_provenance(&payload, handover, &prepared)?;
        let Prepared { product, depot, fetched, .. } = &prepared;
        let record = tokio::task::block_in_place(|| -> anyhow::Result<_> {
            let fetched: &Fetched = fetched;
            let environment = Environment::prepare(depot, &product.recipe.environment, fetched, progress)?;
            let builder = Builder { depot, sandbox: sandbox()?, cancel: Cancel::default() };
            Ok(builder.adopt(product, fetched, &environment, foreign, &handover.artifacts)?)
        })?;
        self.keep(prepared, record)
    }

    fn read_provenance(
        &self,
        payload: &[u8],
        handover: &Handover,
        prepared: &Prepared,
    ) -> anyhow::Result<ForeignBuild> {
        let parameters: Vec<&str> = handover.parameters.iter().map(String::as_str).collect();
        let known = KnownBuilder { id: &handover.builder, parameters: &parameters };
        let first = prepared.product.recipe.output.first().context("the recipe announces no output")?;
        let name = prepared.product.recipe.expand(&first.name);
        let path = handover.artifacts.get(&name).with_context(|| format!("no artifact `{name}` was handed over"))?;
        let file = std::fs::File::open(path).with_context(|| format!("can't read `{}`", path.display()))?;
        let (digest, _) = stdx::Digest::of_reader(file)?;
        Ok(ForeignBuild::from_provenance(payload, &digest, &known)?)
    }
}
