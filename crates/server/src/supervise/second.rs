//! The second signature: under a `result` that this supervisor reproduced, and under a `release`
//! that has everything the policy asks.

use api::{DraftRequest, ReleaseRequest};
use assembly::BuildRecord;
use attest::{BuildResult, Bundle, Envelope, Promotion, Release, Statement};
use policy::Role;
use verify::{Evidence, Request};

use super::Supervisor;
use crate::line::rebuild::result;

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
        self.check_position(&position, verified.signers().iter().map(|signer| &signer.organisation))?;
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
        let (statement, signers) = if drafted.claimed_type() == Some(attest::predicate_type::<Promotion>()) {
            let verified = policy.verify::<Promotion>(&drafted, Role::Release)?;
            let says = &verified.statement().predicate;
            let canary = attest::Ring::Canary;
            let approved = policy.approve(
                &evidence,
                &Request { product: &says.product, ring: canary, status: &status, at: &at, installed: None },
            )?;
            if says.release != approved.id() || verified.statement().subject != approved.statement().subject {
                return Err(SecondError::Refused("the promotion is of another release".to_owned()));
            }
            (says.position.clone(), verified.signers().clone())
        } else {
            let verified = policy.verify::<Release>(&drafted, Role::Release)?;
            let statement: &Statement<Release> = verified.statement();
            policy.approve_draft(&evidence, statement, &status, &at)?;
            (statement.predicate.position.clone(), verified.signers().clone())
        };
        self.check_position(&statement, signers.iter().map(|signer| &signer.organisation))?;
        Envelope::sign(drafted.payload().to_vec(), &[&self.release]).map_err(refused)
    }

    /// The place must be in a stream of the organisation that drafted and signed first.
    fn check_position<'a>(
        &self,
        position: &attest::Position,
        mut signers: impl Iterator<Item = &'a attest::OrganisationId>,
    ) -> Result<(), SecondError> {
        let opened = self.domain.policy.policy().streams.iter();
        let stream = opened.clone().find(|it| it.stream == position.stream && it.log == position.log);
        let stream =
            stream.ok_or_else(|| SecondError::Refused(format!("the policy opens no stream `{}`", position.stream)))?;
        if signers.any(|signer| *signer == stream.organisation) && stream.organisation != self.domain.organisation {
            return Ok(());
        }
        Err(SecondError::Refused(format!("stream `{}` is not the drafter's", position.stream)))
    }
}

fn envelope(text: &str) -> Result<Envelope, SecondError> {
    Envelope::parse(text.as_bytes()).map_err(refused)
}

fn refused(error: impl std::fmt::Display) -> SecondError {
    SecondError::Refused(error.to_string())
}
