//! What a release needs: before the release keys sign it, and before an endpoint installs it.
//!
//! Both go through [`prove`]; an endpoint asks for the release's own signatures and entry besides.

use std::collections::BTreeSet;
use std::fmt;
use std::marker::PhantomData;

use attest::{
    Approval, BuildResult, EnvironmentKind, Lane, ProductId, Promotion, Release, ReleaseNumber, Ring, Statement,
    StatementId, Status, Subject,
};
use policy::{LanePolicy, Policy, Role, Signer};
use serde::{Deserialize, Serialize};
use stdx::{Digest, UnixTime};

use crate::canary::Bakes;
use crate::evidence::{Evidence, Recorded};
use crate::moment::Moment;
use crate::refusal::Refusal;
use crate::trust::TrustedPolicy;

/// A release that meets everything the policy asks. `Approved<Release>` may be installed;
/// `Approved<Draft>` may be signed. Neither can be made outside this crate.
#[derive(Clone, Debug)]
pub struct Approved<T> {
    kind: PhantomData<T>,
    id: StatementId,
    statement: Statement<Release>,
    ring: Ring,
    evidence: UnixTime,
}

/// Marks a release that still lacks its own signatures.
#[derive(Clone, Copy, Debug)]
pub enum Draft {}

impl<T> Approved<T> {
    /// The release statement.
    #[must_use]
    pub const fn statement(&self) -> &Statement<Release> {
        &self.statement
    }

    /// What it says.
    #[must_use]
    pub const fn release(&self) -> &Release {
        &self.statement.predicate
    }

    /// The statement's identity.
    #[must_use]
    pub const fn id(&self) -> StatementId {
        self.id
    }

    /// The ring that it has come to.
    #[must_use]
    pub const fn ring(&self) -> Ring {
        self.ring
    }

    /// The latest evidence time behind the approval.
    #[must_use]
    pub const fn evidence_time(&self) -> UnixTime {
        self.evidence
    }

    /// The artifacts: name and SHA-256.
    #[must_use]
    pub fn artifacts(&self) -> &[Subject] {
        &self.statement.subject
    }

    /// The artifact with this content, if the release has it.
    #[must_use]
    pub fn artifact(&self, content: &Digest) -> Option<&Subject> {
        self.artifacts().iter().find(|artifact| artifact.sha256() == *content)
    }
}

/// A lane's status that is recorded, recent, and not older than any seen before.
#[derive(Clone, Debug)]
pub struct CurrentStatus(Recorded<Status>);

/// The newest status of a lane that was seen: what may not be gone behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StatusMark {
    /// The stream's epoch.
    pub epoch: u64,
    /// The sequence within the epoch.
    pub sequence: u64,
}

impl StatusMark {
    /// Neither before `seen`, nor so far ahead that nothing could ever come after it.
    fn check_after(self, seen: Self) -> Result<(), Refusal> {
        let what = "the status";
        if self < seen {
            return Err(Refusal::Rollback { what, seen: seen.to_string(), found: self.to_string() });
        }
        if self.epoch > seen.epoch.saturating_add(1) {
            return Err(Refusal::EpochJump { what, seen: seen.to_string(), found: self.to_string() });
        }
        Ok(())
    }
}

impl fmt::Display for StatusMark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.epoch, self.sequence)
    }
}

impl CurrentStatus {
    /// The status.
    #[must_use]
    pub const fn status(&self) -> &Status {
        &self.0.statement().predicate
    }

    /// What is to be remembered of it.
    #[must_use]
    pub const fn mark(&self) -> StatusMark {
        let position = &self.status().position;
        StatusMark { epoch: position.epoch, sequence: position.sequence }
    }

    /// The recorded statement.
    #[must_use]
    pub const fn recorded(&self) -> &Recorded<Status> {
        &self.0
    }
}

/// What is asked of a release.
#[derive(Debug)]
pub struct Request<'a> {
    /// The product that it is to be.
    pub product: &'a ProductId,
    /// The ring that it is to be installed in.
    pub ring: Ring,
    /// The status of its lane.
    pub status: &'a CurrentStatus,
    /// When.
    pub at: &'a Moment,
    /// What is installed already; an older release is refused, the same one is not.
    pub installed: Option<ReleaseNumber>,
}

impl TrustedPolicy {
    /// The one status of `lane` in the evidence, if it holds at this moment and under this policy.
    ///
    /// # Errors
    /// [`Refusal`] when it is missing, signed by the wrong party, in another log or stream, issued
    /// under another policy, too old, expired, older than `seen`, or more than one epoch after it.
    pub fn current_status(
        &self,
        evidence: &Evidence<'_>,
        lane: Lane,
        seen: Option<StatusMark>,
        at: &Moment,
    ) -> Result<CurrentStatus, Refusal> {
        let rules = self.lane_rules(lane)?;
        let mut found = evidence.all::<Status>(Role::Status)?;
        found.retain(|status| status.statement().predicate.lane == lane);
        let recorded = match (found.pop(), found.pop()) {
            (Some(one), None) => one,
            (None, _) => return Err(Refusal::Shape(format!("holds no status of lane `{lane}`"))),
            _ => return Err(Refusal::Shape(format!("holds several statuses of lane `{lane}`"))),
        };
        let status = &recorded.statement().predicate;
        if recorded.checkpoint().origin() != &rules.status_log {
            return Err(wrong_log(&recorded, &rules.status_log));
        }
        if !recorded.signers().iter().any(|signer| signer.organisation == rules.status) {
            return Err(Refusal::NotSigned { id: recorded.id(), role: Role::Status });
        }
        if !status.is_sorted() {
            return Err(Refusal::Statement(format!("statement {}: its lists are not ascending", recorded.id())));
        }
        let stream = &status.position.stream;
        if stream.as_str() != format!("status/{lane}") {
            return Err(Refusal::Unproven(format!("a status of lane `{lane}` stands in stream `{stream}`")));
        }
        // Before the times: a policy that this one does not know of is worth knowing about.
        if status.policy != self.id() {
            return Err(Refusal::StatusPolicy { named: status.policy, in_force: self.id() });
        }
        at.check_status(recorded.time(), status.expires)?;
        let current = CurrentStatus(recorded);
        if let Some(seen) = seen {
            current.mark().check_after(seen)?;
        }
        Ok(current)
    }

    /// Whether a release may be installed: the whole of DESIGN sections 2 to 4.
    ///
    /// # Errors
    /// [`Refusal`], the first reason that is found.
    pub fn approve(&self, evidence: &Evidence<'_>, request: &Request<'_>) -> Result<Approved<Release>, Refusal> {
        let (rules, recorded) = self.recorded_release(evidence)?;
        let release = &recorded.statement().predicate;
        if release.product != *request.product {
            return Err(Refusal::OtherProduct { expected: request.product.clone(), found: release.product.clone() });
        }
        let proof = Proof::of(evidence, rules, recorded.statement())?;
        self.prove(&proof, request.status, request.at)?;

        let bakes = Bakes::of(evidence, rules, (recorded.statement(), recorded.id()))?;
        let ring = self.promoted_ring(evidence, rules, &recorded, &bakes)?;
        check_complete(evidence, proof.entries() + 1 + bakes.entries)?;
        if ring < request.ring {
            return Err(Refusal::OtherRing { offered: ring, ring: request.ring });
        }
        at_least(release.number, request.installed)?;
        Ok(Approved {
            kind: PhantomData,
            id: recorded.id(),
            statement: recorded.statement().clone(),
            ring,
            evidence: evidence.latest().max(request.status.recorded().time()),
        })
    }

    /// Whether a promotion may be signed. The evidence is the release's, with a bake for each ring
    /// that it leaves behind, where the lane has a canary ring.
    ///
    /// # Errors
    /// [`Refusal`], the first reason that is found.
    pub fn approve_promotion(
        &self,
        evidence: &Evidence<'_>,
        draft: &Statement<Promotion>,
        status: &CurrentStatus,
        at: &Moment,
    ) -> Result<Approved<Release>, Refusal> {
        let says = &draft.predicate;
        let request = Request { product: &says.product, ring: Ring::Canary, status, at, installed: None };
        let approved = self.approve(evidence, &request)?;
        if says.release != approved.id() || draft.subject != approved.statement().subject {
            return Err(Refusal::Unproven("the promotion is of another release".to_owned()));
        }
        let rules = self.lane_rules(approved.release().lane)?;
        Bakes::of(evidence, rules, (approved.statement(), approved.id()))?.check(rules, says.ring)?;
        Ok(approved)
    }

    /// Whether a release may be signed. The evidence holds the result and the approvals.
    ///
    /// # Errors
    /// [`Refusal`], the first reason that is found.
    pub fn approve_draft(
        &self,
        evidence: &Evidence<'_>,
        draft: &Statement<Release>,
        status: &CurrentStatus,
        at: &Moment,
    ) -> Result<Approved<Draft>, Refusal> {
        let rules = self.lane_rules(draft.predicate.lane)?;
        let proof = Proof::of(evidence, rules, draft)?;
        self.prove(&proof, status, at)?;
        check_complete(evidence, proof.entries())?;
        Bakes::default().check(rules, draft.predicate.ring)?;
        if draft.predicate.policy != self.id() {
            return Err(Refusal::Policy(format!(
                "the draft names policy {}, in force is {}",
                draft.predicate.policy,
                self.id()
            )));
        }
        let payload = draft.encode().map_err(|error| Refusal::Statement(error.to_string()))?;
        Ok(Approved {
            kind: PhantomData,
            id: StatementId::of(&payload),
            statement: draft.clone(),
            ring: draft.predicate.ring,
            evidence: evidence.latest().max(status.recorded().time()),
        })
    }

    fn recorded_release(&self, evidence: &Evidence<'_>) -> Result<(&LanePolicy, Recorded<Release>), Refusal> {
        // The lane decides the role; a statement signed for one lane never passes in the other.
        let claimed = match evidence.one::<Release>(Role::Release) {
            Err(Refusal::NotSigned { .. }) => evidence.one::<Release>(Role::Rules)?,
            other => other?,
        };
        let rules = self.lane_rules(claimed.statement().predicate.lane)?;
        let role = signing_role(rules.lane);
        let recorded = evidence.one::<Release>(role)?;
        if recorded.checkpoint().origin() != &rules.log {
            return Err(wrong_log(&recorded, &rules.log));
        }
        Policy::decide(role, &rules.release, recorded.signers())
            .map_err(|missing| Refusal::Missing { what: "the release", missing })?;
        Ok((rules, recorded))
    }

    fn promoted_ring(
        &self,
        evidence: &Evidence<'_>,
        rules: &LanePolicy,
        release: &Recorded<Release>,
        bakes: &Bakes,
    ) -> Result<Ring, Refusal> {
        let role = signing_role(rules.lane);
        let mut ring = release.statement().predicate.ring;
        bakes.check(rules, ring)?;
        for promotion in evidence.all::<Promotion>(role)? {
            let says = &promotion.statement().predicate;
            if says.release != release.id() {
                return Err(Refusal::Unproven(format!(
                    "a promotion names release {}, not {}",
                    says.release,
                    release.id()
                )));
            }
            if promotion.checkpoint().origin() != &rules.log {
                return Err(wrong_log(&promotion, &rules.log));
            }
            Policy::decide(role, &rules.release, promotion.signers())
                .map_err(|missing| Refusal::Missing { what: "the promotion", missing })?;
            bakes.check(rules, says.ring)?;
            ring = ring.max(says.ring);
        }
        Ok(ring)
    }

    /// Everything that holds for a release whether or not it is signed yet.
    fn prove(&self, proof: &Proof<'_>, status: &CurrentStatus, at: &Moment) -> Result<(), Refusal> {
        let release = &proof.release.predicate;
        let product = &release.product;
        // Rules may take the slow lane, which asks more; code never the fast one.
        let listed = self.policy().product(product).map(|it| it.lane);
        if listed != Some(release.lane) && (listed, release.lane) != (Some(Lane::Fast), Lane::Slow) {
            return Err(Refusal::Unproven(format!("the policy has no product `{product}` in lane `{}`", release.lane)));
        }
        if !self.descends_from(&release.policy) {
            return Err(Refusal::Policy(format!(
                "the release names policy {}, which did not lead to this one",
                release.policy
            )));
        }
        proof.check_result()?;
        proof.check_approvals()?;
        at.check_between("the release", release.not_before, release.expires)?;
        check_status(proof.release, status)
    }

    fn lane_rules(&self, lane: Lane) -> Result<&LanePolicy, Refusal> {
        self.policy().lane(lane).ok_or_else(|| Refusal::Policy(format!("it has no lane `{lane}`")))
    }
}

/// A release and what it rests on.
struct Proof<'a> {
    rules: &'a LanePolicy,
    release: &'a Statement<Release>,
    result: Recorded<BuildResult>,
    approvals: Vec<Recorded<Approval>>,
    statuses: usize,
}

impl<'a> Proof<'a> {
    fn of(evidence: &Evidence<'_>, rules: &'a LanePolicy, release: &'a Statement<Release>) -> Result<Self, Refusal> {
        Ok(Self {
            rules,
            release,
            result: evidence.one(Role::Builder)?,
            approvals: evidence.all(Role::Approver)?,
            statuses: evidence.all::<Status>(Role::Status)?.len(),
        })
    }

    fn entries(&self) -> usize {
        1 + self.approvals.len() + self.statuses
    }

    /// Two organisations built it, each for itself, from pinned inputs, and these are the bytes.
    fn check_result(&self) -> Result<(), Refusal> {
        let built = &self.result.statement().predicate;
        let release = &self.release.predicate;
        if release.result != self.result.id() {
            return Err(Refusal::Unproven(format!(
                "the release rests on result {}, the bundle has {}",
                release.result,
                self.result.id()
            )));
        }
        if self.result.checkpoint().origin() != &self.rules.log {
            return Err(wrong_log(&self.result, &self.rules.log));
        }
        Policy::decide(Role::Builder, &self.rules.builders, self.result.signers())
            .map_err(|missing| Refusal::Missing { what: "the result", missing })?;
        if built.environment_kind != EnvironmentKind::Pinned {
            return Err(Refusal::Environment(built.environment_kind));
        }
        if release.lane == Lane::Fast && built.lane != Some(Lane::Fast) {
            return Err(Refusal::Unproven(format!(
                "result {} is not one that both builders found fit for the fast lane",
                self.result.id()
            )));
        }
        if built.product != release.product || built.version != release.version {
            return Err(Refusal::Unproven(format!(
                "the result is of `{}` {}, the release of `{}` {}",
                built.product, built.version, release.product, release.version
            )));
        }
        if let Some(artifact) = self.release.subject.iter().find(|it| !self.result.statement().subject.contains(it)) {
            return Err(Refusal::Unproven(format!("artifact `{}` is no output of the result", artifact.name)));
        }
        if self.release.subject.len() != release.artifacts.len() {
            return Err(Refusal::Unproven("the manifest does not describe each artifact".to_owned()));
        }
        Ok(())
    }

    fn check_approvals(&self) -> Result<(), Refusal> {
        let mut approvers: BTreeSet<Signer> = BTreeSet::new();
        for approval in &self.approvals {
            let says = &approval.statement().predicate;
            if says.result != self.result.id() || approval.statement().subject != self.result.statement().subject {
                return Err(Refusal::Unproven(format!("approval {} is of another result", approval.id())));
            }
            if approval.checkpoint().origin() != &self.rules.log {
                return Err(wrong_log(approval, &self.rules.log));
            }
            approvers.extend(approval.signers().iter().cloned());
        }
        Policy::decide(Role::Approver, &self.rules.approvals, &approvers)
            .map_err(|missing| Refusal::Missing { what: "the approvals", missing })
    }
}

fn check_status(statement: &Statement<Release>, current: &CurrentStatus) -> Result<(), Refusal> {
    let (release, status) = (&statement.predicate, current.status());
    if status.lane != release.lane {
        return Err(Refusal::Unproven(format!(
            "the status is of lane `{}`, the release of `{}`",
            status.lane, release.lane
        )));
    }
    if status.stops(&release.product) {
        return Err(Refusal::Stopped(status.stops.clone()));
    }
    if let Some(revoked) = statement.subject.iter().map(Subject::sha256).find(|content| status.revokes(content)) {
        return Err(Refusal::Revoked(revoked));
    }
    let floor = status.floor(&release.product);
    if release.number < floor {
        return Err(Refusal::BelowFloor { product: release.product.clone(), number: release.number, floor });
    }
    Ok(())
}

fn at_least(number: ReleaseNumber, installed: Option<ReleaseNumber>) -> Result<(), Refusal> {
    match installed {
        Some(installed) if number < installed => {
            Err(Refusal::Rollback { what: "the release", seen: installed.to_string(), found: number.to_string() })
        }
        _ => Ok(()),
    }
}

/// A bundle holds what it needs and nothing that nobody checked.
fn check_complete(evidence: &Evidence<'_>, expected: usize) -> Result<(), Refusal> {
    let promotions = evidence.count::<Promotion>();
    if evidence.entries() == expected + promotions {
        return Ok(());
    }
    Err(Refusal::Shape(format!(
        "holds {} entries, {} of them of a known kind",
        evidence.entries(),
        expected + promotions
    )))
}

fn wrong_log<P>(recorded: &Recorded<P>, expected: &tlog::Origin) -> Refusal {
    Refusal::WrongLog {
        id: recorded.id(),
        expected: expected.to_string(),
        found: recorded.checkpoint().origin().clone(),
    }
}

const fn signing_role(lane: Lane) -> Role {
    match lane {
        Lane::Slow => Role::Release,
        Lane::Fast => Role::Rules,
    }
}
