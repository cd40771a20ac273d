//! What makes a policy acceptable at all.

use std::collections::BTreeMap;

use attest::{Lane, OrganisationId, ProductId, StreamName};
use tlog::{LogPolicy, Origin};

use crate::{LanePolicy, MirrorUrl, Policy, Quorum, QuorumError, Role, StreamPolicy, Threshold};

/// Every endpoint asks each of them at every look.
const MIRRORS_MAX: usize = 8;

/// Why a policy is refused. Each names the object that is wrong.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// The tlog-policy text can't be read.
    #[error("witnessing: {0}")]
    Witnessing(String),
    /// The quorum does not survive what it declares.
    #[error("witnessing: {0}")]
    Quorum(#[from] QuorumError),
    /// One key, two roles.
    #[error("`{0}` and `{1}` are one key; every role needs a key of its own")]
    EqualKeys(String, String),
    /// A name that stands twice.
    #[error("{what} `{name}` stands twice")]
    Duplicate {
        /// What it is.
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// A name that nothing defines.
    #[error("{what} names {kind} `{name}`, which the policy does not define")]
    Undefined {
        /// Where it stands.
        what: String,
        /// What it should be.
        kind: &'static str,
        /// The name.
        name: String,
    },
    /// A threshold that its organisation can't meet, or that is zero.
    #[error("{what} needs {needed} `{role}` key(s) of `{organisation}`, which has {has}")]
    Threshold {
        /// Where it stands.
        what: String,
        /// The role.
        role: Role,
        /// The organisation.
        organisation: OrganisationId,
        /// Keys needed.
        needed: usize,
        /// Keys there are.
        has: usize,
    },
    /// One organisation could act alone.
    #[error("{0} needs signatures of one organisation only; at least two must agree")]
    Alone(String),
    /// Code without a person's approval.
    #[error("the slow lane names no approvals; code needs at least one")]
    NoApproval,
    /// The fast lane without thresholds, or the slow lane with some.
    #[error("lane `{0}`: `canary` belongs to the fast lane, and the fast lane needs it")]
    Canary(Lane),
    /// More mirrors than every endpoint can ask at every look.
    #[error("{0} mirrors; at most {MIRRORS_MAX}")]
    Mirrors(usize),
    /// Look-ups that would not be private.
    #[error("lookup: {0}")]
    Lookup(#[from] crate::LookupError),
    /// Data that would lie nowhere, or open too easily.
    #[error("residency: {0}")]
    Residency(#[from] crate::ResidencyError),
    /// An age or interval of zero.
    #[error("{0} must not be zero")]
    Zero(&'static str),
}

impl Policy {
    /// Checks that the policy makes sense and gives its witnesses and quorum.
    ///
    /// # Errors
    /// [`PolicyError`], the first that is found.
    pub fn check(&self) -> Result<(LogPolicy, Quorum), PolicyError> {
        let witnessing: LogPolicy = self
            .witnessing
            .policy
            .parse()
            .map_err(|error: tlog::PolicyError| PolicyError::Witnessing(error.to_string()))?;
        let quorum = Quorum::of(&witnessing, self.witnessing.faulty)?;
        self.check_keys(&witnessing)?;
        self.check_logs(&witnessing)?;
        unique("organisation", self.organisations.iter().map(|it| it.id.as_str()))?;
        unique("lane", self.lanes.iter().map(|it| it.lane.as_str()))?;
        unique("product", self.products.iter().map(|it| it.id.as_str()))?;
        unique("stream", self.streams.iter().map(|it| it.stream.as_str()))?;
        unique("mirror", self.mirrors.iter().map(MirrorUrl::as_str))?;
        if self.mirrors.len() > MIRRORS_MAX {
            return Err(PolicyError::Mirrors(self.mirrors.len()));
        }
        if let Some(lookup) = &self.lookup {
            lookup.check(self)?;
        }
        if let Some(residency) = &self.residency {
            residency.check(self)?;
        }
        for lane in &self.lanes {
            self.check_lane(lane)?;
        }
        for product in &self.products {
            self.lane(product.lane).ok_or_else(|| undefined_lane(&product.id, product.lane))?;
        }
        for stream in &self.streams {
            self.check_stream(&stream.stream, &stream.log, &stream.organisation)?;
            not_zero("interval_s", stream.interval_s)?;
        }
        self.check_thresholds("change", Role::Policy, &self.change)?;
        several("change", &self.change)?;
        not_zero("version", self.version)?;
        not_zero("online_s", self.ages.online_s)?;
        not_zero("import_s", self.ages.import_s)?;
        Ok((witnessing, quorum))
    }

    fn check_keys(&self, witnessing: &LogPolicy) -> Result<(), PolicyError> {
        let mut seen: BTreeMap<[u8; 32], String> = BTreeMap::new();
        let of_organisations = self.organisations.iter().flat_map(|it| it.keys.iter().map(|key| &key.key));
        let of_logs = witnessing.logs().iter().map(|log| &log.key);
        let of_witnesses = witnessing.witnesses().iter().map(|witness| &witness.key);
        for key in of_organisations.chain(of_logs).chain(of_witnesses) {
            if let Some(other) = seen.insert(*key.public_key(), key.to_string()) {
                return Err(PolicyError::EqualKeys(other, key.to_string()));
            }
        }
        // Names identify keys in envelopes, so they must differ as well.
        unique("key", self.organisations.iter().flat_map(|it| it.keys.iter().map(|key| key.key.name().as_str())))
    }

    fn check_logs(&self, witnessing: &LogPolicy) -> Result<(), PolicyError> {
        unique("log", self.logs.iter().map(|it| it.origin.as_str()))?;
        for log in &self.logs {
            let what = format!("log `{}`", log.origin);
            if !witnessing.logs().iter().any(|it| it.key.name().as_str() == log.origin.as_str()) {
                return Err(PolicyError::Undefined { what, kind: "a log", name: log.origin.to_string() });
            }
            self.check_organisation(&what, &log.organisation)?;
        }
        Ok(())
    }

    fn check_lane(&self, lane: &LanePolicy) -> Result<(), PolicyError> {
        let what = |part: &str| format!("lane `{}`, {part}", lane.lane);
        let signer = match lane.lane {
            Lane::Slow => Role::Release,
            Lane::Fast => Role::Rules,
        };
        self.check_thresholds(&what("builders"), Role::Builder, &lane.builders)?;
        several(&what("builders"), &lane.builders)?;
        self.check_thresholds(&what("release"), signer, &lane.release)?;
        several(&what("release"), &lane.release)?;
        self.check_thresholds(&what("approvals"), Role::Approver, &lane.approvals)?;
        if lane.lane == Lane::Slow && lane.approvals.is_empty() {
            return Err(PolicyError::NoApproval);
        }
        let status = Threshold { organisation: lane.status.clone(), count: 1 };
        self.check_thresholds(&what("status"), Role::Status, &[status])?;
        self.check_log(&what("log"), &lane.log)?;
        self.check_log(&what("status_log"), &lane.status_log)?;
        self.check_canary(lane)
    }

    /// Thresholds that do something, and a stream in which enrolments and bakes are recorded.
    fn check_canary(&self, lane: &LanePolicy) -> Result<(), PolicyError> {
        let canary = match (lane.lane, &lane.canary) {
            (Lane::Slow, None) => return Ok(()),
            (Lane::Fast, Some(canary)) => canary,
            _ => return Err(PolicyError::Canary(lane.lane)),
        };
        not_zero("healthy", canary.healthy)?;
        not_zero("bake_s", canary.bake_s)?;
        not_zero("unhealthy", canary.unhealthy)?;
        not_zero("fires", canary.fires)?;
        let name = format!("canary/{}", lane.status);
        let is_it = |it: &StreamPolicy| {
            it.stream.as_str() == name && it.log == lane.status_log && it.organisation == lane.status
        };
        if self.streams.iter().any(is_it) {
            return Ok(());
        }
        let what = format!("lane `{}`, canary", lane.lane);
        Err(PolicyError::Undefined { what, kind: "a stream", name })
    }

    fn check_stream(&self, name: &StreamName, log: &Origin, organisation: &OrganisationId) -> Result<(), PolicyError> {
        let what = format!("stream `{name}`");
        self.check_log(&what, log)?;
        self.check_organisation(&what, organisation)
    }

    pub(crate) fn check_log(&self, what: &str, origin: &Origin) -> Result<(), PolicyError> {
        if self.logs.iter().any(|it| it.origin == *origin) {
            return Ok(());
        }
        Err(PolicyError::Undefined { what: what.to_owned(), kind: "a log", name: origin.to_string() })
    }

    fn check_organisation(&self, what: &str, id: &OrganisationId) -> Result<(), PolicyError> {
        if self.organisations.iter().any(|it| it.id == *id) {
            return Ok(());
        }
        Err(PolicyError::Undefined { what: what.to_owned(), kind: "an organisation", name: id.to_string() })
    }

    pub(crate) fn check_thresholds(&self, what: &str, role: Role, thresholds: &[Threshold]) -> Result<(), PolicyError> {
        for Threshold { organisation, count } in thresholds {
            self.check_organisation(what, organisation)?;
            let has = self.keys(organisation, role).count();
            if *count == 0 || has < *count {
                return Err(PolicyError::Threshold {
                    what: what.to_owned(),
                    role,
                    organisation: organisation.clone(),
                    needed: *count,
                    has,
                });
            }
        }
        Ok(())
    }
}

fn several(what: &str, thresholds: &[Threshold]) -> Result<(), PolicyError> {
    let first = thresholds.first().map(|it| &it.organisation);
    if thresholds.iter().any(|it| Some(&it.organisation) != first) {
        return Ok(());
    }
    Err(PolicyError::Alone(what.to_owned()))
}

pub(crate) fn unique<'a>(what: &'static str, names: impl Iterator<Item = &'a str>) -> Result<(), PolicyError> {
    let mut seen = std::collections::BTreeSet::new();
    for name in names {
        if !seen.insert(name) {
            return Err(PolicyError::Duplicate { what, name: name.to_owned() });
        }
    }
    Ok(())
}

pub(crate) const fn not_zero(what: &'static str, value: u64) -> Result<(), PolicyError> {
    if value == 0 { Err(PolicyError::Zero(what)) } else { Ok(()) }
}

fn undefined_lane(product: &ProductId, lane: Lane) -> PolicyError {
    PolicyError::Undefined { what: format!("product `{product}`"), kind: "a lane", name: lane.to_string() }
}
