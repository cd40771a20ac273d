//! What was built before and still stands, so that nothing is built again.

use std::fs::File;

use anyhow::Context as _;
use assembly::{BuildRecord, GitOrigin, Made, Product, SourceSpec};
use attest::{BuildResult, BundleEntry};
use policy::{Policy, Role};
use stdx::Digest;
use verify::Evidence;

use super::rebuild::result;
use super::{BuildOptions, Line, read_bundle};
use crate::domain::BuildFolder;

/// A build whose result both organisations have signed, of the same recipe, lock and source.
pub struct Standing {
    /// What came out, and of what.
    pub record: BuildRecord,
    /// The result, as logged.
    pub result: BundleEntry,
    /// Where the evidence lies.
    pub folder: BuildFolder,
}

impl Line {
    /// What an earlier build of exactly this came to, if that holds today: recipe and lock (which
    /// name every input by digest) and the commit are the same, both organisations' result is
    /// signed and recorded under the policy in force, and the outputs are at hand. Upstream is not
    /// asked: what it says now can't change what was built.
    ///
    /// # Errors
    /// When the recipe or the files of the earlier build can't be read.
    pub fn standing(&self, options: &BuildOptions) -> anyhow::Result<Option<Standing>> {
        let product = Product::open(&options.product)?;
        let recipe = &product.recipe;
        let folder = BuildFolder::new(&self.domain.data, recipe.product.as_str(), recipe.version.as_str());
        self.domain.pull(&folder)?;
        if options.environment.is_some() || !folder.file("record.json").exists() {
            return Ok(None);
        }
        let Some(bundle) = read_bundle(&folder.file("result.bundle"))? else { return Ok(None) };
        let path = folder.file("record.json");
        let bytes = std::fs::read(&path).with_context(|| format!("can't read `{}`", path.display()))?;
        let record = BuildRecord::parse(&bytes).with_context(|| format!("`{}`", path.display()))?;
        let same = matches!(record.made, Made::Here(_))
            && record.agreed.recipe == product.digest
            && self.is_of_same_source(&product, &record, options)?;
        if !same || !outputs_are_there(&record, &folder) {
            return Ok(None);
        }
        // An older policy's signatures may not do any more: then it is built and signed anew.
        let result = self.signed_result(&bundle, &record).ok();
        Ok(result.map(|result| Standing { record, result, folder }))
    }

    fn is_of_same_source(
        &self,
        product: &Product,
        record: &BuildRecord,
        options: &BuildOptions,
    ) -> anyhow::Result<bool> {
        let SourceSpec::Git { .. } = product.recipe.source else { return Ok(true) };
        let Some(checkout) = &options.checkout else { return Ok(false) };
        Ok(record.git == Some(GitOrigin::of(&checkout.repository, &checkout.revision)?))
    }

    /// The result in the bundle, if it says of this record what both builders would sign today.
    fn signed_result(&self, bundle: &attest::Bundle, record: &BuildRecord) -> anyhow::Result<BundleEntry> {
        let recorded = Evidence::open(&self.domain.policy, bundle)?.one::<BuildResult>(Role::Builder)?;
        let statement = recorded.statement();
        let lane = self.domain.lane(self.lane_of(&statement.predicate.product)?)?;
        Policy::decide(Role::Builder, &lane.builders, recorded.signers())?;
        let expected = result(record, statement.predicate.source, statement.predicate.position.clone())?;
        anyhow::ensure!(*statement == expected, "the result is of another record");
        let entry = bundle.entries().iter().find(|entry| entry.envelope.id() == recorded.id());
        entry.cloned().context("the result is not in its bundle")
    }
}

fn outputs_are_there(record: &BuildRecord, folder: &BuildFolder) -> bool {
    let outputs = folder.file("outputs");
    record.agreed.outputs.iter().all(|output| {
        let digest = File::open(outputs.join(&output.name)).and_then(Digest::of_reader);
        digest.is_ok_and(|(digest, _)| digest == output.digest)
    })
}
