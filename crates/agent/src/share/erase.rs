//! What the owner wants gone: a file for whoever operates the region's gateway.

use std::path::Path;

use attest::{Envelope, Receipt, RegionId, Statement};
use seal::{ErasureFile, OwnerSecret};
use stdx::Digest;

use super::Share;
use crate::failure::Failure;
use crate::journal::Event;

impl Share<'_> {
    /// Writes what is needed to have these batches erased, or all that were sent, and gives their number. What the
    /// owner keeps here stays.
    ///
    /// # Errors
    /// When a batch was not sent from here, or lies in another region than the others, or can't be erased.
    pub fn erase(&mut self, path: &Path, batches: &[Digest]) -> Result<usize, Failure> {
        const HINT: &str = "`clerestory-agent share show` prints what was sent";
        if path.exists() {
            let message = format!("{} is there already", path.display());
            return Err(Failure::rejected("input", message, "name a file that doesn't exist"));
        }
        let sent = self.batches.sent()?;
        if let Some(missing) = batches.iter().find(|batch| !sent.iter().any(|(_, it)| it.batch == **batch)) {
            return Err(Failure::rejected("input", format!("no batch {missing} was sent from here"), HINT));
        }
        let wanted = sent.iter().map(|(_, it)| it).filter(|it| batches.is_empty() || batches.contains(&it.batch));
        let (mut owners, mut region): (Vec<OwnerSecret>, Option<RegionId>) = (Vec::new(), None);
        for it in wanted {
            let none = |why: &str| Failure::rejected("input", format!("batch {} {why}", it.batch), HINT);
            let receipt = it.receipt.as_deref().ok_or_else(|| none("has no receipt"))?;
            let receipt = Envelope::parse(receipt.as_bytes()).map_err(|_| none("has a damaged receipt"))?;
            let receipt = Statement::<Receipt>::decode(receipt.payload()).map_err(|_| none("has a damaged receipt"))?;
            let here = receipt.predicate.region;
            if region.replace(here.clone()).is_some_and(|before| before != here) {
                return Err(none("lies in another region than the one before it: name those of one region"));
            }
            let owner = it.owner.as_deref().and_then(|text| text.parse().ok());
            owners.push(owner.ok_or_else(|| none("was sent by an earlier version, and its name is nobody's"))?);
        }
        let Some(region) = region else {
            return Err(Failure::rejected("input", "nothing was sent from here".to_owned(), HINT));
        };
        let count = owners.len();
        let bytes = ErasureFile { region, owners }.to_bytes();
        self.ports.disk.write_private(path, &bytes).map_err(|error| Failure::file(path, &error))?;
        self.note(Event::Shared, "erase", &format!("{count} batches, in {}", path.display()))?;
        Ok(count)
    }
}
