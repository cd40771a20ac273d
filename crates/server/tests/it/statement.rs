//! Statements for the logs of a [`System`](crate::system::System).

use attest::{Envelope, Heartbeat, Position, Statement, StatementId, Subject};
use stdx::{Clock as _, Digest, SystemClock};
use tlog::SignerKey;

/// Where a heartbeat goes.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) log: &'static str,
    pub(crate) stream: &'static str,
    pub(crate) epoch: u64,
    pub(crate) sequence: u64,
    pub(crate) previous: Option<StatementId>,
}

impl Place {
    /// The beginning of the vendor's stream.
    pub(crate) fn vendor() -> Self {
        Self { log: "vendor.example/log", stream: "test/vendor", epoch: 0, sequence: 0, previous: None }
    }

    pub(crate) fn supervisor() -> Self {
        Self { log: "supervisor.example/log", stream: "test/supervisor", ..Self::vendor() }
    }

    /// The place behind `envelope`.
    pub(crate) fn after(&self, envelope: &Envelope) -> Self {
        Self { sequence: self.sequence + 1, previous: Some(envelope.id()), ..self.clone() }
    }
}

pub(crate) fn heartbeat(place: &Place, key: &SignerKey) -> Envelope {
    heartbeat_by(place, &[key])
}

pub(crate) fn heartbeat_by(place: &Place, keys: &[&SignerKey]) -> Envelope {
    let position = Position {
        log: place.log.parse().unwrap(),
        stream: place.stream.parse().unwrap(),
        epoch: place.epoch,
        sequence: place.sequence,
        previous: place.previous,
        time: SystemClock::new().now(),
    };
    let predicate = Heartbeat { position, interval_s: 3600 };
    let subject = vec![Subject::new("beat", Digest::of(b"beat"))];
    Envelope::sign(Statement { subject, predicate }.encode().unwrap(), keys).unwrap()
}
