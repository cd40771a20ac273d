//! Entries become rows.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use attest::{
    AccessApproval, AccessIntent, AccessMode, AccessOutcome, AccessRedaction, AccessRequest, AccessReview, Commitment,
    CountryCode, Ended, OrganisationId, ReaderKind, StatementId,
};
use policy::{Residency, Signer, Threshold};
use stdx::{Digest, UnixTime};
use tlog::EntryIndex;
use verify::{LogRules, TrustedPolicy};

use crate::facts::{Fact, Finding, FindingKind, Said};
use crate::filter::{AccessState, What};
use crate::index::{Index, IndexError, LiveRequest, OpenIntent, OpenRedaction, State};
use crate::row::{Column, NO_ROW, NONE, Row};
use crate::streams;

/// An outcome is logged when a lease ends, or so much later: as `custody` has it.
const OUTCOME_GRACE: Duration = Duration::from_secs(600);

/// A request that is over for so long is used by nothing that is logged now.
const REQUEST_GRACE: Duration = Duration::from_secs(24 * 60 * 60);

/// How often requests that are over are looked for.
const TIDY_ENTRIES: u64 = 4096;

/// Who is not named any more.
pub(crate) const REDACTED: u32 = u32::MAX;

/// Reads entries, in order, under one policy.
pub struct Update<'a> {
    index: &'a mut Index,
    policy: &'a TrustedPolicy,
    residency: &'a Residency,
    rules: LogRules,
}

impl Index {
    /// Goes on reading; `None` if the policy has no log of accesses.
    pub fn update<'a>(&'a mut self, policy: &'a TrustedPolicy) -> Option<Update<'a>> {
        let residency = policy.policy().residency.as_ref()?;
        let rules = LogRules::new(policy, residency.log.clone());
        Some(Update { index: self, policy, residency, rules })
    }

    /// Commitments to readers and reviewers whose names are not known, so many at most.
    ///
    /// # Errors
    /// [`IndexError`].
    pub fn unnamed(&self, limit: usize) -> Result<Vec<Commitment>, IndexError> {
        let (mut found, mut who, mut reader) = (BTreeSet::new(), Vec::new(), Vec::new());
        for number in 0..self.state.blocks.len() {
            let block = self.block(number)?;
            block.read(Column::Who, 0..block.rows, &mut who)?;
            block.read(Column::Reader, 0..block.rows, &mut reader)?;
            let pairs = who.chunks_exact(4).zip(reader.chunks_exact(32));
            let unnamed = pairs.filter(|(who, _)| number_of(who) == 0);
            found.extend(unnamed.filter_map(|(_, reader)| commitment(reader)).take(limit - found.len()));
            if found.len() == limit {
                break;
            }
        }
        Ok(found.into_iter().collect())
    }

    /// Puts names to the readers behind these commitments. Save afterwards.
    ///
    /// # Errors
    /// [`IndexError`].
    pub fn name(&mut self, names: &BTreeMap<Commitment, String>) -> Result<(), IndexError> {
        // A name that no row needs is not kept.
        let needed: BTreeSet<Commitment> = self.unnamed(usize::MAX)?.into_iter().collect();
        let names = names.iter().filter(|(reader, _)| needed.contains(reader));
        let numbers: BTreeMap<Commitment, u32> =
            names.map(|(reader, name)| (*reader, self.state.who.number(name))).collect();
        self.set_who(|who, reader| if who == 0 { numbers.get(reader).copied() } else { None })
    }

    /// Forgets the readers behind these commitments, and names that nobody has any more.
    fn forget(&mut self, fields: &BTreeSet<Commitment>) -> Result<(), IndexError> {
        let mut names = BTreeSet::new();
        self.set_who(|who, reader| {
            let is_new = fields.contains(reader) && who != REDACTED;
            is_new.then(|| names.insert(who)).map(|_| REDACTED)
        })?;
        let mut who = Vec::new();
        for number in 0..self.state.blocks.len() {
            let block = self.block(number)?;
            block.read(Column::Who, 0..block.rows, &mut who)?;
            for who in who.chunks_exact(4) {
                names.remove(&number_of(who));
            }
        }
        names.into_iter().for_each(|number| self.state.who.forget(number));
        Ok(())
    }

    /// Most blocks stay as they are, and are not written again.
    fn set_who(&mut self, mut change: impl FnMut(u32, &Commitment) -> Option<u32>) -> Result<(), IndexError> {
        for request in self.state.requests.values_mut() {
            request.who = change(request.who, &request.reader).unwrap_or(request.who);
        }
        let (mut who, mut reader) = (Vec::new(), Vec::new());
        for number in 0..self.state.blocks.len() {
            let block = self.block(number)?;
            block.read(Column::Who, 0..block.rows, &mut who)?;
            block.read(Column::Reader, 0..block.rows, &mut reader)?;
            let pairs = who.chunks_exact(4).zip(reader.chunks_exact(32));
            let changes: Vec<(usize, u32)> = pairs
                .enumerate()
                .filter_map(|(at, (who, reader))| Some((at, change(number_of(who), &commitment(reader)?)?)))
                .collect();
            if changes.is_empty() {
                continue;
            }
            let rows = self.rows_of(number)?;
            for (at, who) in changes {
                if let Some(row) = rows.get_mut(at) {
                    row.who = who;
                }
            }
            self.bound()?;
        }
        Ok(())
    }
}

impl Update<'_> {
    /// The next entry, whose place in the log is verified.
    ///
    /// # Errors
    /// [`IndexError`]. What is wrong with the entry is a finding.
    pub fn entry(&mut self, index: EntryIndex, bytes: &[u8]) -> Result<(), IndexError> {
        let (index, expected) = (index.get(), self.index.state.entries);
        if index != expected {
            return Err(IndexError::Order { expected, found: index });
        }
        self.index.state.entries += 1;
        if index.is_multiple_of(TIDY_ENTRIES) {
            self.index.state.tidy();
        }
        let judged = match self.rules.judge(bytes) {
            Ok(judged) => judged,
            Err(offence) => {
                if offence.stream.as_ref().is_none_or(streams::is_ours) {
                    self.find(index, FindingKind::Entry, offence.detail);
                }
                return Ok(());
            }
        };
        if !streams::is_ours(&judged.position.stream) {
            return Ok(());
        }
        if let Err(offence) = judged.by_writer() {
            self.find(index, FindingKind::Entry, offence.detail);
            return Ok(());
        }
        let time = judged.position.time;
        self.index.state.latest = self.index.state.latest.max(time);
        let findings = self.index.state.streams.entry(index, &judged);
        findings.into_iter().for_each(|finding| self.index.state.find(finding));
        match Fact::read(self.policy, &judged) {
            Ok(Some(fact)) => self.fact(index, time, fact),
            Ok(None) => Ok(()),
            Err(detail) => {
                self.find(index, FindingKind::Entry, detail);
                Ok(())
            }
        }
    }

    fn find(&mut self, index: u64, kind: FindingKind, detail: String) {
        self.index.state.find(Finding { entry: Some(index), kind, detail });
    }

    fn fact(&mut self, index: u64, time: UnixTime, fact: Fact) -> Result<(), IndexError> {
        let row = Row {
            entry: index,
            outcome: NONE,
            rows: 0,
            bytes: 0,
            objects: 0,
            time: seconds(time),
            until: 0,
            who: 0,
            countries: 0,
            request: NO_ROW,
            employer: 0,
            purpose: 0,
            region: 0,
            class: 0,
            what: 0,
            state: AccessState::Said.code(),
            kind: 0,
            mode: 0,
            approvals: 0,
            id: [0; 32],
            reader: [0; 32],
        };
        match fact {
            Fact::Request(said) => self.request(row, &said),
            Fact::Approval(said) => self.approval(&said),
            Fact::Intent(said) => self.intent(row, &said),
            Fact::Outcome(said) => self.outcome(index, &said),
            Fact::Review(said) => self.review(row, &said),
            Fact::Redaction(said) => self.redaction(row, &said),
            Fact::Report(said) => {
                let findings = self.index.state.custodians.report(index, &said);
                findings.into_iter().for_each(|finding| self.index.state.find(finding));
                Ok(())
            }
        }
    }

    fn request(&mut self, row: Row, said: &Said<AccessRequest>) -> Result<(), IndexError> {
        let says = &said.statement.predicate;
        let state = &mut self.index.state;
        let row = Row {
            until: seconds(says.until),
            objects: objects(says.budget.objects),
            countries: state.countries.number(&set(&says.countries)),
            employer: state.employers.small(said.by.as_str()),
            purpose: state.purposes.small(says.purpose.as_str()),
            region: state.regions.small(says.region.as_str()),
            class: state.classes.small(says.class.as_str()),
            what: What::Request.code(),
            state: AccessState::Asked.code(),
            kind: kind_code(says.kind),
            mode: mode_code(says.mode),
            id: *said.id.digest().as_bytes(),
            reader: *says.reader.digest().as_bytes(),
            ..row
        };
        let (employer, purpose, kind, mode) = (row.employer, row.purpose, row.kind, row.mode);
        let row = self.index.push(row)?;
        let request = LiveRequest {
            row,
            who: 0,
            reader: says.reader,
            employer,
            purpose,
            kind,
            mode,
            is_used: false,
            until: says.until,
            objects: says.budget.objects,
            rows: says.budget.rows,
            bytes: says.budget.bytes,
            class: says.class.clone(),
            countries: says.countries.clone(),
            approvers: BTreeSet::new(),
        };
        self.index.state.requests.insert(said.id, request);
        Ok(())
    }

    fn approval(&mut self, said: &Said<AccessApproval>) -> Result<(), IndexError> {
        let of = said.statement.predicate.request;
        if let Some(request) = self.index.state.requests.get_mut(&of) {
            request.approvers.extend(approvers(&said.signers));
            let (row, count) = (request.row, request.approvers.len());
            return self.index.change(row, |row| row.approvals = small(count));
        }
        if let Some(redaction) = self.index.state.redactions.get_mut(&of) {
            redaction.approvers.extend(approvers(&said.signers));
            return self.redact(of);
        }
        // Of something that is over, or not there: custodians refuse it, and it opens nothing.
        Ok(())
    }

    fn intent(&mut self, row: Row, said: &Said<AccessIntent>) -> Result<(), IndexError> {
        let says = &said.statement.predicate;
        let request = self.index.state.requests.get(&says.request).cloned();
        let mut row = Row {
            until: seconds(says.expires),
            objects: objects(says.budget.objects),
            countries: self.index.state.countries.number(&set(&says.countries)),
            region: self.index.state.regions.small(says.region.as_str()),
            class: self.index.state.classes.small(says.class.as_str()),
            what: What::Access.code(),
            state: AccessState::Open.code(),
            id: *said.id.digest().as_bytes(),
            ..row
        };
        match &request {
            None => {
                let detail = format!("intent {}: request {} is not logged, or is over", said.id, says.request);
                self.find(row.entry, FindingKind::NoRequest, detail);
            }
            Some(request) => {
                self.compare(row.entry, said, request);
                // Where a request stands for several readers, the intent says which one.
                let (who, reader) = says.reader.map_or((request.who, request.reader), |reader| (0, reader));
                row = Row {
                    who,
                    reader: *reader.digest().as_bytes(),
                    employer: request.employer,
                    purpose: request.purpose,
                    kind: request.kind,
                    mode: request.mode,
                    approvals: small(request.approvers.len()),
                    request: request.row,
                    ..row
                };
                self.used(says.request)?;
            }
        }
        let (entry, objects) = (row.entry, says.budget.objects);
        let row = self.index.push(row)?;
        let (rows, bytes) = (says.budget.rows, says.budget.bytes);
        let open = OpenIntent { row, entry, expires: says.expires, objects, rows, bytes };
        self.index.state.intents.insert(said.id, open);
        self.index.state.custodians.intent(&says.region, objects);
        Ok(())
    }

    fn used(&mut self, request: StatementId) -> Result<(), IndexError> {
        let Some(request) = self.index.state.requests.get_mut(&request) else { return Ok(()) };
        if std::mem::replace(&mut request.is_used, true) {
            return Ok(());
        }
        let row = request.row;
        self.index.change(row, |row| row.state = AccessState::Used.code())
    }

    /// An intent must be within what was asked and approved. Custodians see to that: if one has not, it shows.
    fn compare(&mut self, index: u64, said: &Said<AccessIntent>, request: &LiveRequest) {
        let (says, id) = (&said.statement.predicate, said.id);
        let budget = attest::Budget { objects: request.objects, rows: request.rows, bytes: request.bytes };
        let foreign = says.countries.iter().any(|country| !request.countries.contains(country));
        if !says.budget.is_within(&budget) || foreign || says.class != request.class {
            self.find(index, FindingKind::Budget, format!("intent {id}: more than request {} asks for", says.request));
        }
        let class = self.residency.class(&says.class);
        let enough = class.is_some_and(|class| are_met(&class.approvals, &request.approvers));
        if !enough {
            let detail =
                format!("intent {id}: request {} lacks approvals that class `{}` needs", says.request, says.class);
            self.find(index, FindingKind::NotApproved, detail);
        }
    }

    fn outcome(&mut self, index: u64, said: &Said<AccessOutcome>) -> Result<(), IndexError> {
        let says = said.statement.predicate.clone();
        let Some(intent) = self.index.state.intents.remove(&says.intent) else {
            let detail = format!("outcome {}: intent {} is not logged, or has one already", said.id, says.intent);
            self.find(index, FindingKind::NoIntent, detail);
            return Ok(());
        };
        if says.rows > intent.rows || says.bytes > intent.bytes {
            let detail = format!("outcome {}: more than intent {} says", said.id, says.intent);
            self.find(index, FindingKind::Budget, detail);
        }
        let state = match says.ended {
            Ended::Done => AccessState::Done,
            Ended::Failed => AccessState::Failed,
            Ended::Refused => AccessState::Refused,
        };
        let mut region = 0;
        self.index.change(intent.row, |row| {
            region = row.region;
            (row.outcome, row.rows, row.bytes, row.state) = (index, says.rows, says.bytes, state.code());
        })?;
        if state == AccessState::Done
            && let Ok(region) = self.index.state.regions.name(region.into()).parse()
        {
            self.index.state.custodians.done(&region, intent.objects);
        }
        Ok(())
    }

    fn review(&mut self, row: Row, said: &Said<AccessReview>) -> Result<(), IndexError> {
        let says = &said.statement.predicate;
        let employer = self.index.state.employers.small(said.by.as_str());
        let (until, what) = (seconds(says.until), What::Review.code());
        let row = Row {
            until,
            employer,
            what,
            id: *said.id.digest().as_bytes(),
            reader: *says.reviewer.digest().as_bytes(),
            ..row
        };
        self.index.push(row).map(drop)
    }

    fn redaction(&mut self, row: Row, said: &Said<AccessRedaction>) -> Result<(), IndexError> {
        let employer = self.index.state.employers.small(said.by.as_str());
        let (what, state) = (What::Redaction.code(), AccessState::Asked.code());
        let row = self.index.push(Row { employer, what, state, id: *said.id.digest().as_bytes(), ..row })?;
        let fields = said.statement.predicate.fields.iter().copied().collect();
        let redaction = OpenRedaction { row, fields, approvers: BTreeSet::new() };
        self.index.state.redactions.insert(said.id, redaction);
        Ok(())
    }

    /// Carries a redaction out here, too, once it has its approvals.
    fn redact(&mut self, id: StatementId) -> Result<(), IndexError> {
        let Some(redaction) = self.index.state.redactions.get(&id).cloned() else { return Ok(()) };
        let needed = &self.residency.redaction;
        let approved = !needed.is_empty() && are_met(needed, &redaction.approvers);
        self.index.change(redaction.row, |row| {
            row.approvals = small(redaction.approvers.len());
            if approved {
                row.state = AccessState::Done.code();
            }
        })?;
        if approved {
            self.index.state.redactions.remove(&id);
            self.index.forget(&redaction.fields)?;
        }
        Ok(())
    }
}

impl State {
    /// Intents whose lease was over for long before `now`, and that have no outcome.
    pub(crate) fn missing(&self, now: UnixTime) -> impl Iterator<Item = Finding> {
        let over = self.intents.iter().filter(move |(_, intent)| now > intent.expires.after(OUTCOME_GRACE));
        over.map(|(id, intent)| Finding {
            entry: Some(intent.entry),
            kind: FindingKind::NoOutcome,
            detail: format!("intent {id} ended at {}, and nobody says what came of it", intent.expires),
        })
    }

    fn tidy(&mut self) {
        let latest = self.latest;
        self.requests.retain(|_, request| request.until.after(REQUEST_GRACE) >= latest);
    }
}

/// Until when a lease must have ended for its outcome to be missing at `now`.
pub(crate) fn overdue(now: UnixTime) -> u32 {
    seconds(UnixTime::from_seconds(now.seconds().saturating_sub(OUTCOME_GRACE.as_secs())))
}

fn approvers(signers: &BTreeSet<Signer>) -> impl Iterator<Item = (OrganisationId, String)> {
    signers.iter().map(|signer| (signer.organisation.clone(), signer.key.to_string()))
}

fn are_met(thresholds: &[Threshold], approvers: &BTreeSet<(OrganisationId, String)>) -> bool {
    let count = |of: &OrganisationId| approvers.iter().filter(|(organisation, _)| organisation == of).count();
    thresholds.iter().all(|threshold| count(&threshold.organisation) >= threshold.count)
}

/// A commitment as a row has it; 32 zeros are none.
fn commitment(bytes: &[u8]) -> Option<Commitment> {
    let bytes: [u8; 32] = bytes.try_into().ok()?;
    (bytes != [0; 32]).then(|| Commitment::from_digest(Digest::from_bytes(bytes)))
}

fn number_of(bytes: &[u8]) -> u32 {
    bytes.try_into().map_or(0, u32::from_le_bytes)
}

fn seconds(time: UnixTime) -> u32 {
    u32::try_from(time.seconds()).unwrap_or(u32::MAX)
}

fn objects(count: u64) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

fn small(count: usize) -> u8 {
    u8::try_from(count).unwrap_or(u8::MAX)
}

fn set(countries: &[CountryCode]) -> String {
    countries.iter().map(|country| country.as_str()).collect::<Vec<_>>().join(" ")
}

pub(crate) const fn kind_code(kind: ReaderKind) -> u8 {
    match kind {
        ReaderKind::Person => 1,
        ReaderKind::Service => 2,
    }
}

pub(crate) const fn mode_code(mode: AccessMode) -> u8 {
    match mode {
        AccessMode::Ordinary => 1,
        AccessMode::BreakGlass => 2,
    }
}
