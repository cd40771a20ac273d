//! Offline: one file from a stick (`docs/formats/channel.md`). The same evidence is checked, against
//! the age for imports; the quorum stands in for consistency proofs, and the gap is remembered.

use std::collections::BTreeMap;
use std::io::{BufRead, Write};

use attest::{BUNDLE_BYTES_MAX, Lane, Release};
use channel::layout::{self, ArtifactName};
use channel::{Export, ExportError};
use verify::{Approved, CurrentStatus, Evidence, Request};

use crate::config::Product;
use crate::endpoint::{Endpoint, POLICY_WITHHELD, parse_bundle};
use crate::failure::Failure;
use crate::memory::NoProver;
use crate::report::Report;
use crate::slots::{Artifacts, Slots, Wanted};

const HINT: &str = "have the export made again by `clerestory release export`";

/// An artifact is the next member, under the name that the release gives it.
struct ExportArtifacts<'a, R> {
    export: &'a mut Export<R>,
}

impl<R: BufRead> Artifacts for ExportArtifacts<'_, R> {
    fn fetch(&mut self, wanted: Wanted<'_>, output: &mut dyn Write) -> Result<(), Failure> {
        let name = ArtifactName { place: wanted.place, name: &wanted.subject.name };
        let expected = layout::artifact(wanted.release, name);
        match self.export.ahead().first() {
            Some(member) if member.path == expected.as_str() && member.size == wanted.size => {
                self.export.copy_next(output)?;
                Ok(())
            }
            other => {
                let found = other.map_or("nothing", |member| member.path.as_str());
                Err(Failure::rejected("export", format!("found {found}, expected `{expected}`"), HINT))
            }
        }
    }
}

impl Endpoint<'_> {
    /// Takes in an export of a channel.
    ///
    /// # Errors
    /// [`Failure`] when the file is no export or damaged, and of the agent's own state; what a
    /// release lacks is in the report.
    pub fn import(&mut self, input: impl BufRead) -> Result<Report, Failure> {
        let mut report = Report::default();
        let mut export = Export::open(input)?;
        let mut statuses = BTreeMap::new();
        while let Some(member) = export.ahead().first() {
            let path = member.path.clone();
            if path.starts_with("policy/") {
                self.import_policy(&path, &mut export, &mut report)?;
            } else if let Some(lane) = [Lane::Slow, Lane::Fast].into_iter().find(|lane| layout::status(*lane) == path) {
                let bytes = next(&mut export)?;
                let seen = self.memory.mark(lane, self.policy.policy());
                match self.judge_status(&bytes, lane, seen, &NoProver, Self::offline) {
                    Ok(status) => {
                        self.keep_status(&status, &bytes)?;
                        statuses.insert(lane, status);
                    }
                    Err(failure) => self.note(&path, failure.within(&path), &mut report)?,
                }
                // The rules are known to be out of date: no lane takes anything from here.
                if report.has(POLICY_WITHHELD) {
                    statuses.clear();
                }
                self.enforce(&mut report)?;
            } else if path.ends_with("/bundle") {
                let done = self.import_release(&path, &mut export, &statuses, &mut report);
                if let Err(failure) = done {
                    self.note(&path, failure.within(&path), &mut report)?;
                }
                skip_release(&path, &mut export)?;
            } else {
                return Err(Failure::rejected("export", format!("unexpected member `{path}`"), HINT));
            }
        }
        export.finish()?;
        Ok(report)
    }

    fn import_policy<R: BufRead>(
        &mut self,
        path: &str,
        export: &mut Export<R>,
        report: &mut Report,
    ) -> Result<(), Failure> {
        let bytes = next(export)?;
        let version = self.policy.policy().version;
        if (1..=version).any(|known| layout::policy(known) == path) {
            return Ok(());
        }
        match self.take_policy(&bytes, &NoProver, report) {
            Ok(()) => Ok(()),
            Err(failure) => self.note(path, failure.within(path), report),
        }
    }

    fn import_release<R: BufRead>(
        &mut self,
        path: &str,
        export: &mut Export<R>,
        statuses: &BTreeMap<Lane, CurrentStatus>,
        report: &mut Report,
    ) -> Result<(), Failure> {
        let bytes = next(export)?;
        // Products that the owner does not want are passed over.
        let Some((product, lane)) = product_at(self, path) else { return Ok(()) };
        let Some(status) = statuses.get(&lane) else {
            let message = format!("the export has no current status of lane `{lane}`");
            return Err(Failure::rejected("stale", message, "make a new export; what is installed stays in use"));
        };
        let mut slots = self.slots(product)?;
        let approved = self.approve_import(product, &bytes, status, &slots)?;
        let number = Some(approved.release().number);
        if slots.record.highest == number && self.damaged(product, &slots)? != number {
            return Ok(());
        }
        self.install(product, &mut slots, &approved, &mut ExportArtifacts { export }, report)
    }

    fn approve_import(
        &mut self,
        product: &Product,
        bytes: &[u8],
        status: &CurrentStatus,
        slots: &Slots,
    ) -> Result<Approved<Release>, Failure> {
        let bundle = parse_bundle(bytes)?;
        let policy = self.policy.clone();
        let evidence = Evidence::open(&policy, &bundle)?;
        self.see(&evidence, &bundle, &NoProver)?;
        let at = self.offline();
        let ring = self.config.ring_of(product);
        let request = Request { product: &product.id, ring, status, at: &at, installed: slots.record.highest };
        self.check_fit(product, slots, policy.approve(&evidence, &request)?)
    }
}

/// The owner's product whose bundle claims to lie at `path`; the evidence decides.
fn product_at<'a>(endpoint: &Endpoint<'a>, path: &str) -> Option<(&'a Product, Lane)> {
    let mut parts = path.split('/');
    let (folder, id) = (parts.next()?, parts.next()?);
    let product = endpoint.config.products.iter().find(|product| product.id.as_str() == id)?;
    let lane = endpoint.lanes_of(product).iter().find(|lane| layout::folder(**lane) == folder)?;
    Some((product, *lane))
}

fn next<R: BufRead>(export: &mut Export<R>) -> Result<Vec<u8>, ExportError> {
    Ok(export.read_next(BUNDLE_BYTES_MAX)?.map(|(_, bytes)| bytes).unwrap_or_default())
}

/// Reads past what is left of the release whose bundle lay at `path`.
fn skip_release<R: BufRead>(path: &str, export: &mut Export<R>) -> Result<(), ExportError> {
    let prefix = path.strip_suffix("bundle").unwrap_or(path).to_owned();
    while export.ahead().first().is_some_and(|member| member.path.starts_with(&prefix)) {
        export.skip_next()?;
    }
    Ok(())
}
