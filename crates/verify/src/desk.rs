//! Whether each status says what its organisation has logged at its desk, and nothing else.
//!
//! A status names its predecessor, so it was made after that was logged; it must know whatever was
//! logged before. What is said at the desk is in every status from the moment it is noted, a little
//! before it is logged itself: a status may be ahead of the log, but not stay so.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use attest::{Floor, Lane, OrganisationId, Position, ProductId, Revocation, Statement, Status, Stop, StopScope};
use policy::Policy;
use stdx::{Digest, UnixTime};
use tlog::Origin;

use crate::stream::{Violation, ViolationKind};

/// How long the newest status may be ahead of the log: an append waits for witnesses.
const AHEAD_MAX: Duration = Duration::from_secs(60);

/// Something that must not be installed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum No {
    Content(Digest, ProductId),
    Floor(ProductId, attest::ReleaseNumber),
    Stop(StopScope),
}

impl fmt::Display for No {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Content(content, product) => write!(f, "the revocation of {content} of `{product}`"),
            Self::Floor(product, number) => write!(f, "the floor {number} of `{product}`"),
            Self::Stop(scope) => write!(f, "the stop of {scope}"),
        }
    }
}

impl No {
    fn is_in(&self, status: &Status) -> bool {
        match self {
            Self::Content(content, _) => status.revokes(content),
            Self::Floor(product, number) => status.floor(product) >= *number,
            Self::Stop(scope) => status.stops.contains(scope),
        }
    }

    fn concerns(&self, lane: Lane, policy: &Policy) -> bool {
        match self {
            Self::Stop(StopScope::Lane(stopped)) => *stopped == lane,
            Self::Content(_, product) | Self::Floor(product, _) | Self::Stop(StopScope::Product(product)) => {
                policy.product(product).is_some_and(|it| it.lane == lane)
            }
        }
    }
}

/// What an organisation has said.
#[derive(Debug, Default)]
struct Desk {
    /// What holds, and which entry says so.
    held: BTreeMap<No, u64>,
    /// Which entry lifted a stop last.
    lifted: BTreeMap<StopScope, u64>,
}

impl Desk {
    /// Whether somebody who knew all before the entry `since` could say this.
    fn has_said(&self, named: &Named, since: Option<u64>) -> bool {
        match named {
            Named::Content(content) => {
                self.held.keys().any(|no| matches!(no, No::Content(revoked, _) if revoked == content))
            }
            Named::Floor(Floor { product, number }) => {
                self.held.keys().any(|no| matches!(no, No::Floor(of, logged) if of == product && logged >= number))
            }
            Named::Stop(scope) => {
                let lifted = self.lifted.get(scope).is_some_and(|at| since.is_none_or(|since| *at > since));
                lifted || self.held.contains_key(&No::Stop(scope.clone()))
            }
        }
    }
}

/// What a status names.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Named {
    Content(Digest),
    Floor(Floor),
    Stop(StopScope),
}

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Content(content) => write!(f, "{content} as revoked"),
            Self::Floor(Floor { product, number }) => write!(f, "the floor {number} of `{product}`"),
            Self::Stop(scope) => write!(f, "a stop of {scope}"),
        }
    }
}

/// What only a later entry can explain.
#[derive(Debug)]
enum Open {
    /// A lift is to come.
    Lacks(StopScope, String),
    /// It is still to be logged.
    Names(Named),
}

/// A status with something open.
#[derive(Debug)]
struct Ahead {
    index: u64,
    position: Position,
    lane: Lane,
    organisation: OrganisationId,
    open: Open,
}

/// Follows the desks and statuses of one log.
#[derive(Debug)]
pub(crate) struct Desks<'a> {
    policy: &'a Policy,
    log: Origin,
    desks: BTreeMap<OrganisationId, Desk>,
    /// The newest status of each lane.
    newest: BTreeMap<Lane, u64>,
    ahead: Vec<Ahead>,
    violations: Vec<Violation>,
}

impl<'a> Desks<'a> {
    pub(crate) fn new(policy: &'a Policy, log: Origin) -> Self {
        let violations = Vec::new();
        Self { policy, log, desks: BTreeMap::new(), newest: BTreeMap::new(), ahead: Vec::new(), violations }
    }

    /// The next entry of the log, at its place in a stream that the policy opens. Whether its writer
    /// signed it is reported by others.
    pub(crate) fn entry(&mut self, index: u64, position: &Position, payload: &[u8]) {
        if let Some(organisation) = self.desk_of(position) {
            self.hear(index, organisation, payload);
        } else if let Ok(Statement { predicate, .. }) = Statement::<Status>::decode(payload) {
            self.judge(index, &predicate);
        }
    }

    /// The organisation whose desk this is.
    fn desk_of(&self, position: &Position) -> Option<OrganisationId> {
        let organisation: OrganisationId = position.stream.as_str().strip_prefix("desk/")?.parse().ok()?;
        self.has_desk(&organisation).then_some(organisation)
    }

    fn has_desk(&self, organisation: &OrganisationId) -> bool {
        let is_desk = |name: &str| name.strip_prefix("desk/") == Some(organisation.as_str());
        let mut streams = self.policy.streams.iter();
        streams.any(|it| it.log == self.log && it.organisation == *organisation && is_desk(it.stream.as_str()))
    }

    fn hear(&mut self, index: u64, organisation: OrganisationId, payload: &[u8]) {
        let desk = self.desks.entry(organisation.clone()).or_default();
        let mut lifted = None;
        if let Ok(Statement { subject, predicate }) = Statement::<Revocation>::decode(payload) {
            let Revocation { product, floor, .. } = predicate;
            let content = subject.iter().map(|subject| No::Content(subject.sha256(), product.clone()));
            let floor = floor.map(|number| No::Floor(product.clone(), number));
            for no in content.chain(floor) {
                desk.held.entry(no).or_insert(index);
            }
        } else if let Ok(Statement { predicate: Stop { scope, lifted: ends, .. }, .. }) = Statement::decode(payload) {
            if ends {
                if desk.held.remove(&No::Stop(scope.clone())).is_some() {
                    desk.lifted.insert(scope.clone(), index);
                }
                lifted = Some(scope);
            } else {
                desk.held.entry(No::Stop(scope)).or_insert(index);
            }
        }
        self.ahead.retain(|it| {
            let explained = match &it.open {
                Open::Lacks(scope, _) => Some(scope) == lifted.as_ref(),
                Open::Names(named) => desk.has_said(named, Some(it.index)),
            };
            it.organisation != organisation || !explained
        });
    }

    fn judge(&mut self, index: u64, status: &Status) {
        let lane = status.lane;
        let Some(of_lane) = self.policy.lane(lane).filter(|it| it.status_log == self.log) else { return };
        if status.position.stream.as_str() != format!("status/{lane}") || !self.has_desk(&of_lane.status) {
            return;
        }
        let (since, organisation) = (self.newest.insert(lane, index), of_lane.status.clone());
        let desk = self.desks.entry(organisation.clone()).or_default();
        let ahead =
            |open| Ahead { index, position: status.position.clone(), lane, organisation: organisation.clone(), open };
        for (no, at) in &desk.held {
            let known = since.is_some_and(|since| *at < since);
            if !known || no.is_in(status) || !no.concerns(lane, self.policy) {
                continue;
            }
            let detail = format!("the status lacks {no}, which entry {at} has logged");
            match no {
                // It may be lifted already, and that not logged yet.
                No::Stop(scope) => self.ahead.push(ahead(Open::Lacks(scope.clone(), detail))),
                _ => self.violations.push(violation(index, &status.position, ViolationKind::StatusLacks, detail)),
            }
        }
        let revoked = status.revoked.iter().map(|content| Named::Content(*content));
        let floors = status.floors.iter().map(|floor| Named::Floor(floor.clone()));
        let stops = status.stops.iter().map(|scope| Named::Stop(scope.clone()));
        let unsaid = revoked.chain(floors).chain(stops).filter(|named| !desk.has_said(named, since));
        self.ahead.extend(unsaid.map(|named| ahead(Open::Names(named))));
    }

    /// What is wrong, given that the log has nothing more as of `now`.
    pub(crate) fn finish(self, now: UnixTime) -> Vec<Violation> {
        let Self { mut violations, ahead, newest, .. } = self;
        for Ahead { index, position, lane, open, .. } in ahead {
            let age = now.since(position.time).max(position.time.since(now));
            if newest.get(&lane) == Some(&index) && age <= AHEAD_MAX {
                continue;
            }
            violations.push(match open {
                Open::Lacks(_, detail) => violation(index, &position, ViolationKind::StatusLacks, detail),
                Open::Names(named) => {
                    let detail = format!("the status names {named}, which is not logged");
                    violation(index, &position, ViolationKind::StatusUnfounded, detail)
                }
            });
        }
        violations.sort_by_key(|violation| violation.index);
        violations
    }
}

fn violation(index: u64, position: &Position, kind: ViolationKind, detail: String) -> Violation {
    Violation { index: Some(index), stream: Some(position.stream.clone()), kind, detail }
}
