//! Requests and approvals: checked, kept beside the log, logged, and told how they stand.

use std::collections::{BTreeMap, BTreeSet};

use api::{DataApproval, DataRequest, DataRequestState, PrivateParts, Rewrite};
use attest::{
    AccessApproval, AccessMode, AccessRequest, Budget, Bundle, BundleEntry, Commitment, Envelope, Opening, Position,
    StatementId, Subject,
};
use bytes::Bytes;
use policy::{ClassPolicy, Policy, Residency, Role, Signer};
use stdx::Digest;
use storage::{Folder, Key, Listing, Record, RecordKey};
use verify::Verified;

use super::beside::QUERY_BYTES_MAX;
use super::call::one;
use super::rules::{Act, Question};
use super::{DataError, Gateway};
use crate::metrics::metrics;
use crate::stream::LogWriter;

/// Entries of a bundle, less the intent, the request, the status and the enrolment.
const APPROVALS_MAX: usize = 32;
/// Requests that are listed.
const LISTED_MAX: usize = 1000;
/// Intents of one request that are shown.
const INTENTS_SHOWN: usize = 1000;

const REQUESTS: &str = "data-requests";
/// By how loud they are, and how old.
const RECENT: &str = "data-recent";
const APPROVALS: &str = "data-approvals";
const INTENTS: &str = "data-intents";

/// A request, with all that was logged for it.
pub(super) struct Known {
    pub(super) entry: BundleEntry,
    pub(super) request: Verified<AccessRequest>,
    /// Who has asked.
    pub(super) reader: Signer,
    pub(super) approvals: Vec<(BundleEntry, Verified<AccessApproval>)>,
}

impl Known {
    pub(super) fn says(&self) -> &AccessRequest {
        &self.request.statement().predicate
    }

    /// The query that it is about.
    pub(super) fn query(&self) -> Result<Digest, DataError> {
        query_of(&self.request.statement().subject)
    }

    /// Who has approved.
    pub(super) fn approvers(&self) -> BTreeSet<Signer> {
        self.approvals.iter().flat_map(|(_, approval)| approval.signers().iter().cloned()).collect()
    }
}

/// Writing anew is for code that was approved, and gives out nothing.
fn check_rewriting(query: &str, says: &AccessRequest) -> Result<(), DataError> {
    let gives_nothing = says.budget.rows == 0 && says.budget.bytes == 0;
    if Rewrite::of(query).is_none() || (says.standing.is_some() && gives_nothing) {
        return Ok(());
    }
    Err(DataError::refused("a request to write anything anew stands for code and schema, and for no rows and no bytes"))
}

fn query_of(subject: &[Subject]) -> Result<Digest, DataError> {
    let subject = one(subject.iter()).ok_or_else(|| DataError::Form("a request is about one query".to_owned()))?;
    Ok(subject.sha256())
}

impl Gateway {
    /// Takes in a request: kept, logged, and answered with how it stands.
    ///
    /// # Errors
    /// [`DataError`]; what is refused is not logged.
    pub async fn take_request(&self, asked: &DataRequest) -> Result<DataRequestState, DataError> {
        let envelope =
            Envelope::parse(asked.envelope.as_bytes()).map_err(|error| DataError::Form(error.to_string()))?;
        let request = self.domain.policy.verify::<AccessRequest>(&envelope, Role::Reader)?;
        let (says, reader) = (&request.statement().predicate, signer(&request)?);
        self.check_place(&says.position, &reader)?;
        check_openings(&asked.openings, &[("reader", says.reader), ("ticket", says.ticket)])?;
        if asked.query.len() > QUERY_BYTES_MAX || asked.query.trim().is_empty() {
            return Err(DataError::Form(format!("a query has 1 to {QUERY_BYTES_MAX} bytes")));
        }
        if query_of(&request.statement().subject)? != Digest::of(asked.query.as_bytes()) {
            return Err(DataError::Form("the request is about another query".to_owned()));
        }
        self.check_request(says)?;
        check_rewriting(&asked.query, says)?;
        let question = Question {
            act: Act::Request,
            who: &reader,
            request: says,
            asked_by: &reader.organisation,
            template: false,
        };
        let allowed = self.rules.decide(&question)?;
        self.beside.keep_query(&asked.query).await?;
        self.beside.keep(&asked.openings).await?;
        let entry = self.log()?.append(&envelope).await?;
        self.record(REQUESTS, &request.id().to_string(), &entry).await?;
        let (id, mode) = (request.id(), says.mode);
        let (loud, age) = (u8::from(mode == AccessMode::Ordinary), u64::MAX - says.position.time.seconds());
        self.record(RECENT, &format!("{loud}/{age:020}/{id}"), &entry).await?;
        tracing::info!(data.request = %id, data.class = %says.class, data.purpose = %says.purpose, rules = ?allowed, "asked");
        if mode == AccessMode::BreakGlass {
            metrics().break_glass(says.class.as_str());
            tracing::error!(data.request = %id, data.class = %says.class, "somebody has broken the glass: look at this");
        }
        self.state(id).await
    }

    /// Takes in an approval.
    ///
    /// # Errors
    /// [`DataError`].
    pub async fn take_approval(&self, given: &DataApproval) -> Result<DataRequestState, DataError> {
        let envelope =
            Envelope::parse(given.envelope.as_bytes()).map_err(|error| DataError::Form(error.to_string()))?;
        let approval = self.domain.policy.verify::<AccessApproval>(&envelope, Role::Approver)?;
        let (says, approver) = (&approval.statement().predicate, signer(&approval)?);
        self.check_place(&says.position, &approver)?;
        check_openings(&given.openings, &[("comment", says.comment)])?;
        let known = self.known(says.request).await?;
        if approval.statement().subject != known.request.statement().subject {
            return Err(DataError::refused("the approval is about another query than the request"));
        }
        let again = known.approvals.iter().any(|(_, other)| other.id() == approval.id());
        if known.approvals.len() >= APPROVALS_MAX && !again {
            return Err(DataError::refused(format!("request {} has {APPROVALS_MAX} approvals", says.request)));
        }
        self.beside.keep(&given.openings).await?;
        let entry = self.log()?.append(&envelope).await?;
        self.record(APPROVALS, &format!("{}/{}", says.request, approval.id()), &entry).await?;
        tracing::info!(data.request = %says.request, data.approval = %approval.id(), "approved");
        self.state(says.request).await
    }

    /// How a request stands.
    ///
    /// # Errors
    /// [`DataError`].
    pub async fn state(&self, id: StatementId) -> Result<DataRequestState, DataError> {
        self.state_of(&self.known(id).await?).await
    }

    /// The thousand that come first: those that broke the glass, then the newest.
    ///
    /// # Errors
    /// [`DataError`].
    pub async fn states(&self) -> Result<Vec<DataRequestState>, DataError> {
        let mut states = Vec::new();
        for record in self.records(RECENT, Folder::Root, LISTED_MAX).await? {
            let id = record.key.as_str().rsplit('/').next().and_then(|id| id.parse().ok());
            if let Some(id) = id {
                states.push(self.state(id).await?);
            }
        }
        Ok(states)
    }

    /// How a request stands, with what lies beside the log: for its own organisation's readers, and for those who
    /// may approve it.
    ///
    /// # Errors
    /// [`DataError`].
    pub async fn private_state(&self, id: StatementId, call: &str) -> Result<DataRequestState, DataError> {
        let now = self.domain.clock.now();
        let call = self.calls.take(&self.domain.policy, call, &[Role::Reader, Role::Approver], now)?;
        let known = self.known(id).await?;
        let is_approver = self.domain.policy.policy().keys_of(Role::Approver).any(|(organisation, key)| {
            *organisation == call.who.organisation && attest::KeyRef::of(key) == call.who.key
        });
        if call.statement.predicate.request != id || !(is_approver || call.who == known.reader) {
            return Err(DataError::Call("is for another request, or by somebody who has no part in it".to_owned()));
        }
        let mut state = self.state_of(&known).await?;
        let (query, says) = (self.beside.query(&known.query()?).await?, known.says());
        let mut approvals = BTreeMap::new();
        for (_, approval) in &known.approvals {
            let comment = self.openings(&[approval.statement().predicate.comment]).await?;
            approvals.insert(approval.id(), comment);
        }
        let request = self.openings(&[says.reader, says.ticket]).await?;
        state.private = Some(PrivateParts { query, request, approvals });
        Ok(state)
    }

    pub(super) async fn openings(&self, commitments: &[Commitment]) -> Result<Vec<Opening>, DataError> {
        let mut openings = Vec::new();
        for commitment in commitments {
            openings.extend(self.beside.opening(commitment).await?);
        }
        Ok(openings)
    }

    /// What the policy in force says of where data lies.
    pub(super) fn residency(&self) -> Result<&Residency, DataError> {
        let residency = self.domain.policy.policy().residency.as_ref();
        residency.ok_or_else(|| DataError::refused("the policy in force says nothing of data"))
    }

    /// The log of all access.
    fn log(&self) -> Result<LogWriter, DataError> {
        self.domain.log(&self.residency()?.log).map_err(|error| DataError::Broken(format!("{error:#}")))
    }

    /// Whoever signs writes the stream of the own organisation, in the log of all access.
    fn check_place(&self, position: &Position, who: &Signer) -> Result<(), DataError> {
        let stream = format!("data/{}", who.organisation);
        if position.log == self.residency()?.log && position.stream.as_str() == stream {
            return Ok(());
        }
        Err(DataError::Form(format!("the statement belongs into the stream `{stream}` of `{}`", self.residency()?.log)))
    }

    /// What the policy says of a request, whoever makes it.
    pub(super) fn check_request(&self, says: &AccessRequest) -> Result<&ClassPolicy, DataError> {
        let (residency, now) = (self.residency()?, self.domain.clock.now());
        let class = residency.class(&says.class);
        let class = class.ok_or_else(|| DataError::refused(format!("the policy has no class `{}`", says.class)))?;
        if residency.region(&says.region).is_none() {
            return Err(DataError::refused(format!("the policy has no region `{}`", says.region)));
        }
        if !class.allows(&says.purpose) {
            let message = format!("class `{}` is not read for the purpose `{}`", says.class, says.purpose);
            return Err(DataError::refused(message));
        }
        if says.countries.is_empty() || !says.countries.is_sorted_by(|left, right| left < right) {
            return Err(DataError::Form("the countries of a request are ascending, and there is one".to_owned()));
        }
        let max = Budget { objects: class.objects_max, rows: class.rows_max, bytes: class.bytes_max };
        if !says.budget.is_within(&max) {
            let message = format!(
                "class `{}` is read {} objects, {} rows and {} bytes at a time",
                says.class, max.objects, max.rows, max.bytes
            );
            return Err(DataError::refused(message));
        }
        if says.until <= now {
            return Err(DataError::refused(format!("the request was good until {}", says.until)));
        }
        Ok(class)
    }

    /// Whether all have approved who must.
    pub(super) fn check_approvals(&self, known: &Known, class: &ClassPolicy) -> Result<(), DataError> {
        Policy::decide(Role::Approver, &class.approvals, &known.approvers())
            .map_err(|missing| DataError::refused(format!("request {}: {missing}", known.request.id())))
    }

    /// The request `id`, from what was recorded when it was logged.
    pub(super) async fn known(&self, id: StatementId) -> Result<Known, DataError> {
        let key = record_key(REQUESTS, &id.to_string())?;
        let found = self.domain.catalog().record(&key).await?;
        let bytes = found.ok_or(DataError::NoRequest(id))?;
        self.read(&Record { key: key.key, bytes }).await
    }

    async fn read(&self, record: &Record) -> Result<Known, DataError> {
        let entry = entry_of(&record.bytes)?;
        let request = self.domain.policy.verify::<AccessRequest>(&entry.envelope, Role::Reader)?;
        if record.key.as_str() != request.id().to_string() {
            return Err(DataError::Broken(format!("the record of request {} is another's", record.key)));
        }
        let mut approvals = Vec::new();
        for record in self.records(APPROVALS, Folder::Below(record.key.clone()), APPROVALS_MAX).await? {
            let entry = entry_of(&record.bytes)?;
            // One by a key that the policy has taken away since counts no more, and one of another request never did.
            let approval = self.domain.policy.verify::<AccessApproval>(&entry.envelope, Role::Approver);
            if let Ok(approval) = approval
                && approval.statement().predicate.request == request.id()
            {
                approvals.push((entry, approval));
            }
        }
        Ok(Known { entry, reader: signer(&request)?, request, approvals })
    }

    async fn state_of(&self, known: &Known) -> Result<DataRequestState, DataError> {
        let (says, approvers) = (known.says(), known.approvers());
        let class = self.residency()?.class(&says.class);
        let thresholds = class.map(|it| it.approvals.as_slice()).unwrap_or_default();
        let missing = thresholds.iter().filter_map(|threshold| {
            let found = approvers.iter().filter(|signer| signer.organisation == threshold.organisation).count();
            let missing = threshold.count.saturating_sub(found) as u64;
            (missing > 0).then(|| (threshold.organisation.clone(), missing))
        });
        let folder: Key = known.request.id().to_string().parse().map_err(|error| DataError::broken(&error))?;
        let intents = self.records(INTENTS, Folder::Below(folder), INTENTS_SHOWN).await?;
        let last = |record: &Record| record.key.as_str().rsplit('/').next().and_then(|id| id.parse().ok());
        Ok(DataRequestState {
            id: known.request.id(),
            organisation: known.reader.organisation.clone(),
            mode: says.mode,
            purpose: says.purpose.clone(),
            region: says.region.clone(),
            class: says.class.clone(),
            countries: says.countries.clone(),
            budget: says.budget,
            envelope: text(&known.entry.envelope)?,
            approvals: known.approvals.iter().map(|(entry, _)| text(&entry.envelope)).collect::<Result<_, _>>()?,
            missing: missing.collect(),
            intents: intents.iter().filter_map(last).collect(),
            private: None,
        })
    }

    /// Notes that `intent` was made for `request`: for people, nothing depends on it.
    pub(super) async fn record_intent(&self, request: StatementId, intent: &BundleEntry) -> Result<(), DataError> {
        self.record(INTENTS, &format!("{request}/{}", intent.envelope.id()), intent).await
    }

    async fn record(&self, table: &str, key: &str, entry: &BundleEntry) -> Result<(), DataError> {
        let bundle = Bundle::new(vec![entry.clone()]).map_err(|error| DataError::broken(&error))?;
        Ok(self.domain.catalog().put(&record_key(table, key)?, Bytes::from(bundle.to_bytes())).await?)
    }

    async fn records(&self, table: &str, folder: Folder, limit: usize) -> Result<Vec<Record>, DataError> {
        let mut listing = Listing::of(folder);
        listing.limit = limit;
        let table = table.parse().map_err(|error| DataError::broken(&error))?;
        Ok(self.domain.catalog().list(&table, &listing).await?)
    }
}

fn record_key(table: &str, key: &str) -> Result<RecordKey, DataError> {
    let table = table.parse().map_err(|error| DataError::broken(&error))?;
    Ok(RecordKey { table, key: key.parse().map_err(|error| DataError::broken(&error))? })
}

fn entry_of(bytes: &[u8]) -> Result<BundleEntry, DataError> {
    let bundle = Bundle::parse(bytes).map_err(|error| DataError::broken(&error))?;
    one(bundle.entries().iter()).cloned().ok_or_else(|| DataError::Broken("a record of another form".to_owned()))
}

fn text(envelope: &Envelope) -> Result<String, DataError> {
    String::from_utf8(envelope.to_bytes()).map_err(|error| DataError::broken(&error))
}

/// The one who has signed.
fn signer<P>(verified: &Verified<P>) -> Result<Signer, DataError> {
    let signer = one(verified.signers().iter()).cloned();
    signer.ok_or_else(|| DataError::Form("the statement has several signers".to_owned()))
}

/// Exactly these fields, each opened.
pub(super) fn check_openings(openings: &[Opening], fields: &[(&str, Commitment)]) -> Result<(), DataError> {
    for opening in openings {
        Opening::parse(&opening.to_bytes()).map_err(|error| DataError::Form(error.to_string()))?;
    }
    let opened = |(label, commitment): &(&str, Commitment)| {
        openings.iter().any(|it| it.label() == *label && it.commitment() == *commitment)
    };
    if openings.len() == fields.len() && fields.iter().all(opened) {
        return Ok(());
    }
    let names: Vec<&str> = fields.iter().map(|(label, _)| *label).collect();
    Err(DataError::Form(format!("the openings are not those of {}", names.join(", "))))
}
