//! The canary ring: whose reports count, which do, and which bakes let a release go further.

use std::collections::BTreeSet;

use attest::{Agreement, Bake, Enrolment, Envelope, Health, Lane, Release, Ring, Statement, StatementId};
use policy::{LanePolicy, Role};
use stdx::UnixTime;

use crate::evidence::{Evidence, Recorded};
use crate::refusal::Refusal;
use crate::trust::TrustedPolicy;

/// A canary's clock may be off by so much, either way.
const CLOCK_OFF: std::time::Duration = std::time::Duration::from_secs(24 * 60 * 60);

/// A host whose reports count: its owner agreed, and the supervisor has enrolled it.
#[derive(Clone, Debug)]
pub struct EnrolledHost {
    id: StatementId,
    enrolment: Enrolment,
}

/// A report that an enrolled host has signed, newer than any before it.
#[derive(Clone, Debug)]
pub struct HealthReport(Statement<Health>);

impl HealthReport {
    /// The report.
    #[must_use]
    pub const fn statement(&self) -> &Statement<Health> {
        &self.0
    }

    /// What it says.
    #[must_use]
    pub const fn health(&self) -> &Health {
        &self.0.predicate
    }
}

/// Whether `envelope` is an agreement to this text, signed by the very key that it names, and not
/// over at `now`.
///
/// # Errors
/// [`Refusal`].
pub fn agreed(envelope: &Envelope, now: UnixTime) -> Result<Statement<Agreement>, Refusal> {
    let statement = decode::<Agreement>(envelope)?;
    let says = &statement.predicate;
    if !envelope.signed_by(&says.key).map_err(|error| Refusal::Statement(error.to_string()))? {
        return Err(Refusal::Unproven(format!("agreement {} is not signed by the host's own key", envelope.id())));
    }
    if statement.subject != [Agreement::subject()] {
        return Err(Refusal::Unproven(format!("agreement {} is to another text", envelope.id())));
    }
    check_until("the agreement", says.time, says.until, now)?;
    Ok(statement)
}

impl TrustedPolicy {
    /// The host that `envelope` enrols, as a recorder of the organisation that gives a lane's status
    /// has signed it.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn enrolled(&self, envelope: &Envelope) -> Result<EnrolledHost, Refusal> {
        let verified = self.verify::<Enrolment>(envelope, Role::Recorder)?;
        let gives = |signer: &policy::Signer| self.policy().lanes.iter().any(|it| it.status == signer.organisation);
        if !verified.signers().iter().any(gives) {
            return Err(Refusal::NotSigned { id: verified.id(), role: Role::Recorder });
        }
        Ok(EnrolledHost { id: verified.id(), enrolment: verified.statement().predicate.clone() })
    }
}

impl EnrolledHost {
    /// The enrolment.
    #[must_use]
    pub const fn enrolment(&self) -> &Enrolment {
        &self.enrolment
    }

    /// Its identity.
    #[must_use]
    pub const fn id(&self) -> StatementId {
        self.id
    }

    /// Whether `envelope` is a report of this host that counts: signed by its key, under this
    /// enrolment, numbered higher than `last`, made about now, while the agreement holds.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn report(&self, envelope: &Envelope, last: Option<u64>, now: UnixTime) -> Result<HealthReport, Refusal> {
        let statement = decode::<Health>(envelope)?;
        let says = &statement.predicate;
        if says.enrolment != self.id
            || !envelope.signed_by(&self.enrolment.key).map_err(|error| Refusal::Statement(error.to_string()))?
        {
            return Err(Refusal::Unproven(format!(
                "report {} is not of host `{}` under enrolment {}",
                envelope.id(),
                self.enrolment.host,
                self.id
            )));
        }
        if let Some(last) = last.filter(|last| says.sequence <= *last) {
            let (seen, found) = (last.to_string(), says.sequence.to_string());
            return Err(Refusal::Rollback { what: "the host's report", seen, found });
        }
        check_until("the enrolment", self.enrolment.position.time, self.enrolment.until, now)?;
        let (from, until) =
            (UnixTime::from_seconds(now.seconds().saturating_sub(CLOCK_OFF.as_secs())), now.after(CLOCK_OFF));
        if says.time < from || says.time > until {
            return Err(Refusal::OutOfTime { what: "the report", from, until, now: says.time });
        }
        Ok(HealthReport(statement))
    }
}

/// The bakes of a release that are recorded in its evidence.
#[derive(Debug, Default)]
pub(crate) struct Bakes {
    rings: BTreeSet<Ring>,
    /// How many entries of the evidence they are.
    pub(crate) entries: usize,
}

impl Bakes {
    /// Those of `release`; the slow lane has none.
    pub(crate) fn of(
        evidence: &Evidence<'_>,
        rules: &LanePolicy,
        release: (&Statement<Release>, StatementId),
    ) -> Result<Self, Refusal> {
        if rules.lane == Lane::Slow {
            return Ok(Self::default());
        }
        let (statement, id) = release;
        let all = evidence.all::<Bake>(Role::Recorder)?;
        for bake in &all {
            check_bake(bake, rules, statement, id)?;
        }
        Ok(Self { rings: all.iter().map(|bake| bake.statement().predicate.ring).collect(), entries: all.len() })
    }

    /// In the fast lane a release stays in each ring until a bake says that it fared well there.
    pub(crate) fn check(&self, rules: &LanePolicy, to: Ring) -> Result<(), Refusal> {
        let before = [Ring::Canary, Ring::Early].into_iter().filter(|ring| *ring < to);
        match before.filter(|ring| rules.lane == Lane::Fast && !self.rings.contains(ring)).min() {
            None => Ok(()),
            Some(ring) => {
                Err(Refusal::Unproven(format!("ring `{to}` needs a bake in ring `{ring}`, which is not there")))
            }
        }
    }
}

fn check_bake(
    bake: &Recorded<Bake>,
    rules: &LanePolicy,
    release: &Statement<Release>,
    id: StatementId,
) -> Result<(), Refusal> {
    let says = &bake.statement().predicate;
    if says.release != id || bake.statement().subject != release.subject {
        return Err(Refusal::Unproven(format!("bake {} is of another release", bake.id())));
    }
    if bake.checkpoint().origin() != &rules.status_log {
        return Err(Refusal::WrongLog {
            id: bake.id(),
            expected: rules.status_log.to_string(),
            found: bake.checkpoint().origin().clone(),
        });
    }
    if !bake.signers().iter().any(|signer| signer.organisation == rules.status) {
        return Err(Refusal::NotSigned { id: bake.id(), role: Role::Recorder });
    }
    Ok(())
}

fn check_until(what: &'static str, from: UnixTime, until: UnixTime, now: UnixTime) -> Result<(), Refusal> {
    if now < until {
        return Ok(());
    }
    Err(Refusal::OutOfTime { what, from, until, now })
}

fn decode<P: attest::Predicate>(envelope: &Envelope) -> Result<Statement<P>, Refusal> {
    Statement::decode(envelope.payload())
        .map_err(|error| Refusal::Statement(format!("statement {}: {error}", envelope.id())))
}
