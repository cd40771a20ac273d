//! Two custodians, and an endpoint that seals for them.

use std::sync::Mutex;

use attest::StatementId;
use seal::{BatchId, Bound, Custodian, Custodians, DataKey, Header, Kem, PrivateKey, Share};
use stdx::{Digest, Entropy, EntropyError, SystemEntropy};

pub(crate) struct Scene {
    pub(crate) supervisor: PrivateKey,
    pub(crate) member: PrivateKey,
    pub(crate) custodians: Custodians,
}

impl Scene {
    pub(crate) fn new(entropy: &dyn Entropy) -> Self {
        let supervisor = PrivateKey::generate(Kem::P256, entropy).unwrap();
        let member = PrivateKey::generate(Kem::XWing, entropy).unwrap();
        let custodian = |organisation: &str, key: &PrivateKey| Custodian {
            organisation: organisation.parse().unwrap(),
            key: key.public().clone(),
        };
        let custodians =
            Custodians::new(vec![custodian("supervisor", &supervisor), custodian("member", &member)]).unwrap();
        Self { supervisor, member, custodians }
    }

    pub(crate) fn seal(&self, plaintext: &[u8]) -> Vec<u8> {
        self.custodians.seal(bound("detections", &SystemEntropy), plaintext, &SystemEntropy).unwrap()
    }

    /// What each custodian opens for this object, in the header's order.
    pub(crate) fn shares(&self, object: &[u8]) -> Vec<Share> {
        let (header, _) = Header::parse(object).unwrap();
        let keys = [&self.member, &self.supervisor];
        let opened = header.shares.iter().zip(keys).map(|(share, key)| {
            assert_eq!(share.key, key.public().id());
            Share::open(&share.wrapped().unwrap(), key, &header.bound.info(&share.custodian)).unwrap()
        });
        opened.collect()
    }

    pub(crate) fn key(&self, object: &[u8]) -> DataKey {
        DataKey::join(&self.shares(object))
    }
}

pub(crate) fn bound(class: &str, entropy: &dyn Entropy) -> Bound {
    Bound {
        id: BatchId::draw(entropy).unwrap(),
        region: "zurich".parse().unwrap(),
        country: "DE".parse().unwrap(),
        class: class.parse().unwrap(),
        policy: StatementId::of(b"a policy"),
    }
}

/// The same bytes each time.
pub(crate) struct Counting(Mutex<u64>);

impl Counting {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(0))
    }
}

impl Entropy for Counting {
    fn fill(&self, buffer: &mut [u8]) -> Result<(), EntropyError> {
        let mut count = self.0.lock().unwrap();
        for part in buffer.chunks_mut(32) {
            part.copy_from_slice(&Digest::of(&count.to_be_bytes()).as_bytes()[..part.len()]);
            *count += 1;
        }
        Ok(())
    }
}
