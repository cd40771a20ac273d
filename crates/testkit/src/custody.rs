//! A region with two custodians, and who else it takes to read what lies there.

use policy::{
    Assignment, ClassPolicy, Organisation, Policy, Region, RegionCustodian, Residency, Role, StreamPolicy, Threshold,
    TimedKey,
};
use seal::{DataKey, Header, Kem, PrivateKey, Share};
use stdx::{SystemEntropy, UnixTime};

use crate::SUPERVISOR_LOG;
use crate::party::Party;

/// The region.
pub const REGION: &str = "zurich";
/// A class that needs an approval of the supervisor's.
pub const APPROVED_CLASS: &str = "detections";
/// A class that needs none.
pub const OPEN_CLASS: &str = "statistics";
/// What both may be read for.
pub const PURPOSE: &str = "detection-quality";
/// What both may be written anew for.
pub const COMPACTION: &str = "compaction";

const DAY_S: u64 = 24 * 60 * 60;
/// 2025-12-29T00:00:00Z, and twenty years: by the machine's clock, too, tests are within.
const FROM: u64 = 1_766_966_400;
const UNTIL: u64 = FROM + 20 * 364 * DAY_S;

/// Two custodians in different domains: the supervisor with a key that an HSM can hold, and a member with
/// one that stays closed for quantum computers, too.
pub struct Custody {
    /// The member.
    pub member: Party,
    /// The supervisor's key for the region.
    pub supervisor_key: PrivateKey,
    /// The member's.
    pub member_key: PrivateKey,
}

impl Default for Custody {
    fn default() -> Self {
        Self::new()
    }
}

impl Custody {
    /// With fresh keys.
    #[must_use]
    pub fn new() -> Self {
        let key = |kem| PrivateKey::generate(kem, &SystemEntropy).unwrap();
        Self { member: Party::new("member"), supervisor_key: key(Kem::P256), member_key: key(Kem::XWing) }
    }

    /// What the policy says of them: Germany, Switzerland and Japan belong to [`REGION`].
    #[must_use]
    pub fn residency(&self) -> Residency {
        let (from, until) = (UnixTime::from_seconds(FROM), UnixTime::from_seconds(UNTIL));
        let custodian = |organisation: &str, key: &PrivateKey| RegionCustodian {
            organisation: organisation.parse().unwrap(),
            keys: vec![TimedKey { key: key.public().to_string().parse().unwrap(), from, until }],
        };
        let class = |id: &str, approvals| ClassPolicy {
            id: id.parse().unwrap(),
            approvals,
            purposes: vec![COMPACTION.parse().unwrap(), PURPOSE.parse().unwrap()],
            retention_s: 30 * DAY_S,
            lease_s: 900,
            objects_max: 8,
            rows_max: 1000,
            bytes_max: 1 << 20,
        };
        let approval = Threshold { organisation: "supervisor".parse().unwrap(), count: 1 };
        Residency {
            log: SUPERVISOR_LOG.parse().unwrap(),
            gateway: "supervisor".parse().unwrap(),
            status: "supervisor".parse().unwrap(),
            regions: vec![Region {
                id: REGION.parse().unwrap(),
                country: "CH".parse().unwrap(),
                custodians: vec![custodian("supervisor", &self.supervisor_key), custodian("member", &self.member_key)],
            }],
            assignments: vec![Assignment {
                region: REGION.parse().unwrap(),
                from,
                countries: ["CH", "DE", "JP"].map(|code| code.parse().unwrap()).to_vec(),
            }],
            classes: vec![class(APPROVED_CLASS, vec![approval.clone()]), class(OPEN_CLASS, Vec::new())],
            rules: None,
            redaction: vec![approval, Threshold { organisation: "vendor".parse().unwrap(), count: 1 }],
        }
    }

    /// The streams that a residency needs, each for a day of silence.
    pub fn streams() -> impl Iterator<Item = StreamPolicy> {
        let streams = [
            ("access/supervisor", "supervisor"),
            ("region/zurich", "supervisor"),
            ("custody/supervisor", "supervisor"),
            ("custody/member", "member"),
            ("data/vendor", "vendor"),
            ("data/supervisor", "supervisor"),
        ];
        streams.into_iter().map(|(stream, organisation)| StreamPolicy {
            log: SUPERVISOR_LOG.parse().unwrap(),
            stream: stream.parse().unwrap(),
            organisation: organisation.parse().unwrap(),
            interval_s: DAY_S,
        })
    }

    /// Makes a policy that has them, and the streams they need.
    pub fn put_into(&self, policy: &mut Policy) {
        let custodian = self.member.organisation().keys.into_iter().filter(|key| key.role == Role::Custodian);
        policy.organisations.push(Organisation { id: self.member.id.clone(), keys: custodian.collect() });
        policy.streams.extend(Self::streams());
        policy.residency = Some(self.residency());
    }

    /// What both of them together can always do, and nobody else: the key of `object`.
    #[must_use]
    pub fn open(&self, object: &[u8]) -> DataKey {
        let (header, _) = Header::parse(object).unwrap();
        let shares: Vec<Share> = header
            .shares
            .iter()
            .map(|share| {
                let ours = [&self.supervisor_key, &self.member_key].into_iter();
                let key = ours.into_iter().find(|key| key.public().id() == share.key).unwrap();
                Share::open(&share.wrapped().unwrap(), key, &header.bound.info(&share.custodian)).unwrap()
            })
            .collect();
        DataKey::join(&shares)
    }
}

/// Sealed objects that an intake takes and nobody can open: with another's share, with another's commitment, and with a
/// changed frame. `seal` makes the objects.
///
/// # Panics
/// When these are no sealed objects.
pub fn sealed_wrongly<T: AsRef<[u8]>>(seal: impl Fn() -> T) -> [Vec<u8>; 3] {
    let with_anothers = |change: fn(&mut Header, Header)| {
        let (object, other) = (seal(), Header::parse(seal().as_ref()).unwrap().0);
        let (mut header, start) = Header::parse(object.as_ref()).unwrap();
        change(&mut header, other);
        let header = header.to_bytes();
        let length = u32::try_from(header.len()).unwrap().to_be_bytes();
        [&length[..], &header, &object.as_ref()[start..]].concat()
    };
    let share = with_anothers(|header, mut other| header.shares[0] = other.shares.remove(0));
    let commitment = with_anothers(|header, other| header.commitment = other.commitment);
    let mut frame = seal().as_ref().to_vec();
    *frame.last_mut().unwrap() ^= 1;
    [share, commitment, frame]
}
