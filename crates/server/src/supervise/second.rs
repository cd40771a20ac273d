//! The second signature: under a `result` that this supervisor reproduced, and under a `release`
//! that has everything the policy asks.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use api::{DraftRequest, ReleaseRequest};
use assembly::BuildRecord;
use attest::{
    BuildResult, Bundle, Envelope, Lane, ProductId, Promotion, Release, ReleaseNumber, Statement, StatementId,
};
use bytes::Bytes;
use policy::{Role, Signer};
use serde::{Deserialize, Serialize};
use stdx::{Digest, UnixTime};
use storage::{Key, Swap};
use verify::Evidence;

use super::Supervisor;
use crate::line::rebuild::result;
use crate::line::{no_rules_key, sign_draft};

/// Why the supervisor does not sign.
#[derive(Debug, thiserror::Error)]
pub enum SecondError {
    /// The request is not what it claims to be, or not what this supervisor found.
    #[error("not signed: {0}")]
    Refused(String),
    /// The evidence is not enough.
    #[error("not signed")]
    Evidence(#[from] verify::Refusal),
    /// This supervisor can't say at the moment.
    #[error("can't sign now: {0}")]
    Unavailable(String),
}

impl Supervisor {
    /// Signs the `result` that this supervisor reproduced: the same payload, byte for byte.
    ///
    /// # Errors
    /// [`SecondError`].
    pub async fn sign_result(&self, request: &DraftRequest) -> Result<Envelope, SecondError> {
        let job = self.job(&request.ticket).await.map_err(|error| SecondError::Unavailable(format!("{error:#}")))?;
        let job = job.ok_or_else(|| SecondError::Refused(format!("there is no rebuild `{}`", request.ticket)))?;
        let (api::RebuildState::Matched { .. }, Some(own)) = (&job.state, &job.record) else {
            return Err(SecondError::Refused(format!("rebuild `{}` has not matched", request.ticket)));
        };
        let own = BuildRecord::parse(own.as_bytes()).map_err(|error| SecondError::Unavailable(error.to_string()))?;
        let drafted = envelope(&request.envelope)?;
        let verified = self.domain.policy.verify::<BuildResult>(&drafted, Role::Builder)?;
        let position = verified.statement().predicate.position.clone();
        self.check_position(&position, verified.signers())?;
        // What is signed is what this supervisor found, drafted anew; it must come to the same bytes.
        let expected = result(&own, job.source, position).map_err(refused)?;
        if expected != *verified.statement() {
            return Err(SecondError::Refused("the draft is not what was rebuilt here".to_owned()));
        }
        let payload = expected.encode().map_err(refused)?;
        Envelope::sign(payload, &[&self.builder]).map_err(refused)
    }

    /// Signs a `release` or `promotion` that has everything the policy asks.
    ///
    /// # Errors
    /// [`SecondError`].
    pub async fn sign_release(&self, request: &ReleaseRequest) -> Result<Envelope, SecondError> {
        let drafted = envelope(&request.envelope)?;
        let evidence = Bundle::parse(request.evidence.as_bytes()).map_err(refused)?;
        let status =
            self.status_bundle(request.lane).await.map_err(|error| SecondError::Unavailable(format!("{error:#}")))?;
        let policy = &*self.domain.policy;
        let at = self.domain.moment();
        let status = policy.current_status(&Evidence::open(policy, &status)?, request.lane, None, &at)?;
        let evidence = Evidence::open(policy, &evidence)?;
        let (role, key) = match request.lane {
            Lane::Slow => (Role::Release, &self.release),
            Lane::Fast => (Role::Rules, self.rules.as_ref().ok_or_else(|| refused(no_rules_key()))?),
        };
        if drafted.claimed_type() == Some(attest::predicate_type::<Promotion>()) {
            let verified = policy.verify::<Promotion>(&drafted, role)?;
            let draft = verified.statement();
            // What was seen at the canaries is this supervisor's own statement in its own log.
            let approved = policy.approve_promotion(&evidence, draft, &status, &at)?;
            check_lane(approved.release(), request.lane)?;
            self.check_position(&draft.predicate.position, verified.signers())?;
            if request.lane == Lane::Fast {
                self.widen(&draft.predicate).await.map_err(|error| unavailable(format!("{error:#}")))?;
            }
            return Envelope::sign(drafted.payload().to_vec(), &[key]).map_err(refused);
        }
        let verified = policy.verify::<Release>(&drafted, role)?;
        let statement: &Statement<Release> = verified.statement();
        check_lane(&statement.predicate, request.lane)?;
        check_lifetime(&statement.predicate, at.now())?;
        let approved = policy.approve_draft(&evidence, statement, &status, &at)?;
        self.check_position(&statement.predicate.position, verified.signers())?;
        let says = approved.release();
        self.check_once(says).await?;
        self.take_number(approved.statement(), approved.id()).await?;
        self.note_once(says).await?;
        let noted = self.note_rules(says, &evidence).await;
        noted.map_err(|error| unavailable(format!("{error:#}")))?;
        if request.lane == Lane::Fast {
            let watched = self.watch(approved.statement(), approved.id()).await;
            watched.map_err(|error| unavailable(format!("{error:#}")))?;
        }
        sign_draft(&approved, key).map_err(refused)
    }

    /// A result is released once: its approvals were given for that. Whoever wants its content back
    /// later has it built and approved again.
    async fn check_once(&self, release: &Release) -> Result<(), SecondError> {
        let held = self.domain.locks().get(&once_key(release)?).await.map_err(unavailable)?;
        match held {
            Some(held) if held.bytes != once_value(release) => Err(SecondError::Refused(format!(
                "result {} was released before, as another number; build and approve it again",
                release.result
            ))),
            _ => Ok(()),
        }
    }

    async fn note_once(&self, release: &Release) -> Result<(), SecondError> {
        let noted = self.domain.locks().compare_and_swap(&once_key(release)?, None, once_value(release).into()).await;
        match noted.map_err(unavailable)? {
            Swap::Won(_) => Ok(()),
            Swap::Lost => self.check_once(release).await,
        }
    }

    /// Releases of a product follow each other without a gap, and a number is signed for one content:
    /// a stolen release key can neither go back nor far ahead.
    async fn take_number(&self, release: &Statement<Release>, id: StatementId) -> Result<(), SecondError> {
        let says = &release.predicate;
        let key = last_key(&says.product).map_err(refused)?;
        let content = content_of(release)?;
        loop {
            let held = self.domain.locks().get(&key).await.map_err(unavailable)?;
            let last: Option<Last> = match &held {
                Some(held) => Some(serde_json::from_slice(&held.bytes).map_err(unavailable)?),
                None => None,
            };
            let taken = match last {
                Some(last) if last.number == says.number && last.content == content => last.also(id),
                Some(last)
                    if says.number == last.number.next() && says.previous.is_some_and(|it| last.ids.contains(&it)) =>
                {
                    Last { number: says.number, content, ids: vec![id] }
                }
                None if says.number == ReleaseNumber::FIRST && says.previous.is_none() => {
                    Last { number: says.number, content, ids: vec![id] }
                }
                last => {
                    let expected = last.map_or(ReleaseNumber::FIRST, |last| last.number.next());
                    return Err(SecondError::Refused(format!(
                        "release {} of `{}` does not follow; {expected} is due",
                        says.number, says.product
                    )));
                }
            };
            let bytes = serde_json::to_vec(&taken).map_err(unavailable)?.into();
            let expected = held.as_ref().map(|held| &held.version);
            let swapped = self.domain.locks().compare_and_swap(&key, expected, bytes).await;
            if let Swap::Won(_) = swapped.map_err(unavailable)? {
                return Ok(());
            }
        }
    }

    /// The place must be in a stream of the organisation that drafted and signed first.
    pub(super) fn check_position(
        &self,
        position: &attest::Position,
        signers: &BTreeSet<Signer>,
    ) -> Result<(), SecondError> {
        let opened = self.domain.policy.policy().streams.iter();
        let stream = opened.clone().find(|it| it.stream == position.stream && it.log == position.log);
        let stream =
            stream.ok_or_else(|| SecondError::Refused(format!("the policy opens no stream `{}`", position.stream)))?;
        let is_theirs = signers.iter().any(|signer| signer.organisation == stream.organisation);
        if is_theirs && stream.organisation != self.domain.organisation {
            return Ok(());
        }
        Err(SecondError::Refused(format!("stream `{}` is not the drafter's", position.stream)))
    }
}

fn envelope(text: &str) -> Result<Envelope, SecondError> {
    Envelope::parse(text.as_bytes()).map_err(refused)
}

fn unavailable(error: impl std::fmt::Display) -> SecondError {
    SecondError::Unavailable(error.to_string())
}

fn last_key(product: &ProductId) -> Result<Key, storage::KeyError> {
    format!("released/{product}").parse()
}

fn once_key(release: &Release) -> Result<Key, SecondError> {
    format!("released-result/{}", release.result).parse().map_err(refused)
}

fn once_value(release: &Release) -> Vec<u8> {
    release.number.get().to_string().into_bytes()
}

fn refused(error: impl std::fmt::Display) -> SecondError {
    SecondError::Refused(error.to_string())
}

/// The last release of a product that was signed, under each place that it was drafted for.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Last {
    number: ReleaseNumber,
    content: Digest,
    ids: Vec<StatementId>,
}

impl Last {
    fn also(mut self, id: StatementId) -> Self {
        if !self.ids.contains(&id) {
            self.ids.push(id);
        }
        self
    }
}

/// What was signed second, as logs show it; so that a restored supervisor signs no number twice.
#[derive(Default)]
pub(crate) struct Signed {
    products: BTreeMap<ProductId, Last>,
    results: BTreeMap<Key, Vec<u8>>,
}

impl Signed {
    /// Takes in a statement that has this supervisor's signature, if it is a release.
    pub(crate) fn replay(&mut self, envelope: &Envelope) {
        let Ok(statement) = Statement::<Release>::decode(envelope.payload()) else { return };
        let (Ok(content), Ok(once)) = (content_of(&statement), once_key(&statement.predicate)) else { return };
        let says = &statement.predicate;
        self.results.entry(once).or_insert_with(|| once_value(says));
        let (number, ids) = (says.number, vec![envelope.id()]);
        match self.products.get_mut(&says.product) {
            Some(last) if last.number > number => {}
            Some(last) if last.number == number && last.content != content => {}
            Some(last) if last.number == number => last.ids.extend(ids),
            _ => drop(self.products.insert(says.product.clone(), Last { number, content, ids })),
        }
    }

    /// Of which products.
    pub(crate) fn products(&self) -> impl Iterator<Item = &ProductId> {
        self.products.keys()
    }

    /// The locks that hold it.
    pub(crate) fn locks(&self) -> anyhow::Result<Vec<(Key, Bytes)>> {
        let results = self.results.iter().map(|(key, value)| Ok((key.clone(), Bytes::from(value.clone()))));
        let products = self.products.iter();
        let products = products.map(|(product, last)| Ok((last_key(product)?, serde_json::to_vec(last)?.into())));
        results.chain(products).collect()
    }
}

/// Digest of what a release is about, wherever in its stream it was drafted, and whenever.
fn content_of(release: &Statement<Release>) -> Result<Digest, SecondError> {
    let says = &release.predicate;
    let about = (&release.subject, &says.version, says.number, &says.previous, says.ring, &says.result);
    Ok(Digest::of(&serde_json::to_vec(&about).map_err(refused)?))
}

/// Each lane has keys of its own.
fn check_lane(release: &Release, lane: Lane) -> Result<(), SecondError> {
    if release.lane == lane {
        return Ok(());
    }
    Err(SecondError::Refused(format!("the release is of lane `{}`, not `{lane}`", release.lane)))
}

/// A release that could be newly installed for ever would outlive every status that is lost.
fn check_lifetime(release: &Release, now: UnixTime) -> Result<(), SecondError> {
    if release.expires <= now.after(LIFETIME_MAX) {
        return Ok(());
    }
    Err(SecondError::Refused(format!("the release is to be installed until {}, which is too late", release.expires)))
}

/// Two years.
const LIFETIME_MAX: Duration = Duration::from_secs(2 * 365 * 24 * 60 * 60);
