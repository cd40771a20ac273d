//! What custodians say that they have opened, against what the log says that they may have.

use std::collections::BTreeMap;

use attest::{CustodyReport, RegionId};
use serde::{Deserialize, Serialize};

use crate::facts::{Finding, FindingKind, Said};

/// Every region, and what its custodians have reported.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Custodians {
    regions: BTreeMap<RegionId, Logged>,
    /// By `ORGANISATION/REGION`.
    reports: BTreeMap<String, Reported>,
}

/// What the log has of a region.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Logged {
    /// Intents, and the objects that they name.
    intents: u64,
    objects: u64,
    /// Those with a result: every custodian has opened its shares of them.
    done: u64,
    done_objects: u64,
}

/// A custodian's last report, and what the log had before it.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Reported {
    uses: u64,
    opened: u64,
    before: Logged,
}

impl Custodians {
    pub(crate) fn intent(&mut self, region: &RegionId, objects: u64) {
        let logged = self.regions.entry(region.clone()).or_default();
        logged.intents += 1;
        logged.objects = logged.objects.saturating_add(objects);
    }

    pub(crate) fn done(&mut self, region: &RegionId, objects: u64) {
        let logged = self.regions.entry(region.clone()).or_default();
        logged.done += 1;
        logged.done_objects = logged.done_objects.saturating_add(objects);
    }

    /// A custodian's report: no more than was logged before it; no less than it said before, and no less than
    /// what was done before its last report (what is done while it writes this one may not be in it).
    pub(crate) fn report(&mut self, index: u64, said: &Said<CustodyReport>) -> Vec<Finding> {
        let says = &said.statement.predicate;
        let logged = self.regions.get(&says.region).copied().unwrap_or_default();
        let name = format!("{}/{}", said.by, says.region);
        let last = self.reports.insert(name, Reported { uses: says.uses, opened: says.opened, before: logged });
        let last = last.unwrap_or_default();
        let who = format!("custodian `{}`, region `{}`", said.by, says.region);
        let mut findings = Vec::new();
        let mut find = |kind, detail| findings.push(Finding { entry: Some(index), kind, detail });
        if says.uses > logged.intents || says.opened > logged.objects {
            let detail = format!(
                "{who} has opened {} objects for {} intents; the log has {} intents for {} objects before that",
                says.opened, says.uses, logged.intents, logged.objects
            );
            find(FindingKind::OpenedMore, detail);
        }
        if says.uses < last.uses || says.opened < last.opened {
            let detail = format!(
                "{who} has opened {} objects for {} intents; it said {} for {} before",
                says.opened, says.uses, last.opened, last.uses
            );
            find(FindingKind::OpenedLess, detail);
        } else if says.uses < last.before.done || says.opened < last.before.done_objects {
            let detail = format!(
                "{who} has opened {} objects for {} intents; {} for {} were read before its last report",
                says.opened, says.uses, last.before.done_objects, last.before.done
            );
            find(FindingKind::OpenedLess, detail);
        }
        findings
    }
}
