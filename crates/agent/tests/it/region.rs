//! What is shared is sealed for the owner's region, or stays here.

use std::time::Duration;

use agent::{
    Body, Bounds, Class, Failure, Mode, Outcome, RealDisk, RegionSeal, Sending, Share, SharePorts, Shown,
    statement_digest,
};
use api::Client;
use policy::Role;
use seal::{ErasureFile, Header, Sealed};
use stdx::{Clock as _, Digest, ManualClock, SystemEntropy, UnixTime};
use testkit::{Custody, REGION};
use tlog::SignerKey;

use crate::scene::{DAY, Scene};
use crate::sharing::{Intake, Manner};

/// Keys are not copied but by writing them down.
fn copy_of(key: &SignerKey) -> SignerKey {
    key.to_secret_text().parse().unwrap()
}

struct Machine {
    custody: Custody,
    scene: Scene,
    clock: ManualClock,
    intake: Intake,
    client: Client,
}

impl Machine {
    fn new(change: impl FnOnce(&mut policy::Policy)) -> Self {
        let custody = Custody::new();
        let scene = Scene::under(|policy| {
            custody.put_into(policy);
            change(policy);
        });
        let clock = ManualClock::new(scene.world.clock.now());
        let intake = Intake::new();
        intake.sign_with(copy_of(scene.world.vendor.key(Role::Recorder)));
        Self { custody, scene, clock, intake, client: Client::new(Duration::from_secs(5)) }
    }

    fn ports(&self) -> SharePorts<'_> {
        SharePorts { clock: &self.clock, disk: &RealDisk, entropy: &SystemEntropy }
    }

    fn share(&self) -> Share<'_> {
        Share::open(&self.scene.config.state, self.ports(), Bounds::default()).unwrap()
    }

    /// Sends one detection of an owner in `country`.
    fn send(&self, country: &str) -> Result<Outcome, Failure> {
        let mut share = self.share();
        share.agree(&statement_digest(), Mode::Full, [Class::Detections].into()).unwrap();
        let body = Body::Detection { rule: "marked-rule".to_owned(), sha256: Digest::of(b"a file"), size: 6 };
        share.record(body).unwrap();
        let state = &self.scene.config.state;
        let seal = RegionSeal { state, country: country.parse().unwrap(), ports: self.ports() };
        share.send(Sending { intake: &self.intake.url, seal: &seal, client: &self.client })
    }

    /// Nothing was sent and nothing was lost, and this is why.
    fn keeps(&self, country: &str, why: &str) {
        let failure = self.send(country).unwrap_err();
        assert_eq!(failure.code, "share-unsealed");
        assert!(failure.to_string().contains(why), "{failure}");
        assert!(self.intake.batches().is_empty(), "nothing left the machine");
        let shown = self.share().show().unwrap();
        assert!(!shown.is_empty() && shown.iter().all(|it| matches!(it, Shown::Waiting { .. })), "{shown:?}");
        self.share().withdraw().unwrap();
    }
}

#[test]
fn what_is_shown_is_what_only_both_custodians_of_the_region_can_open() {
    let machine = Machine::new(|_| {});
    assert_eq!(machine.send("DE").unwrap(), Outcome::Sent(1));
    let shown = machine.share().show().unwrap();
    let [Shown::Sent { sealed, plain, .. }] = &shown[..] else { panic!("{shown:?}") };
    let batches = machine.intake.batches();
    let object = &batches[sealed];
    let (header, _) = Header::parse(object).unwrap();
    let objects = machine.share().objects().unwrap();
    assert_eq!((objects.headers, objects.unknown), (vec![Digest::of(&header.to_bytes())], 0));
    let bound = &header.bound;
    assert_eq!((bound.region.as_str(), bound.country.as_str(), bound.class.as_str()), (REGION, "DE", "detections"));
    assert_eq!(bound.policy, machine.scene.world.policy().id(), "and the policy that says so");
    let opened = Sealed::read(object, &machine.custody.open(object)).unwrap();
    assert_eq!(opened, plain.as_bytes(), "byte for byte what the owner is shown");
    let carried = String::from_utf8_lossy(object).into_owned();
    assert!(plain.contains("marked-rule") && !carried.contains("marked-rule"), "{carried}");
}

#[test]
fn its_owner_can_have_what_was_sent_erased_and_nobody_learns_by_the_wire_how() {
    let machine = Machine::new(|_| {});
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("erase.json");
    let nothing = machine.share().erase(&file, &[]).unwrap_err();
    assert!(nothing.to_string().contains("nothing was sent from here"), "{nothing}");
    for _ in 0..2 {
        assert_eq!(machine.send("DE").unwrap(), Outcome::Sent(1));
    }
    let batches = machine.intake.batches();
    let name = |object: &Vec<u8>| Header::parse(object).unwrap().0.bound.id;
    let all: std::collections::BTreeSet<_> = batches.values().map(name).collect();
    assert_eq!(machine.share().erase(&file, &[]).unwrap(), 2);
    let written = ErasureFile::parse(&std::fs::read(&file).unwrap()).unwrap();
    assert_eq!(written.region.as_str(), REGION);
    assert_eq!(written.owners.iter().map(seal::OwnerSecret::name).collect::<std::collections::BTreeSet<_>>(), all);
    // What proves it was in nothing that was sent.
    for secret in written.owners.iter().map(seal::OwnerSecret::to_text) {
        assert!(batches.values().all(|object| !String::from_utf8_lossy(object).contains(&secret)));
    }
    assert_eq!(machine.share().erase(&file, &[]).unwrap_err().code, "input", "it never writes over anything");
    let (sealed, object) = batches.iter().next().unwrap();
    let one = folder.path().join("one.json");
    assert_eq!(machine.share().erase(&one, &[*sealed]).unwrap(), 1);
    let written = ErasureFile::parse(&std::fs::read(&one).unwrap()).unwrap();
    assert_eq!(written.owners[0].name(), name(object));
    let unknown = machine.share().erase(&folder.path().join("two.json"), &[Digest::of(b"another")]).unwrap_err();
    assert!(unknown.to_string().contains("was sent from here"), "{unknown}");
}

#[test]
fn only_a_receipt_that_a_recorder_signed_for_this_object_ends_a_batch() {
    let machine = Machine::new(|_| {});
    let strangers = Custody::new().member;
    let keys = [
        (Manner::Honest, strangers.key(Role::Recorder)),
        (Manner::Honest, machine.scene.world.vendor.key(Role::Builder)),
    ];
    let manners = [Manner::Unsigned, Manner::Wrong, Manner::Short, Manner::Elsewhere];
    let recorder = machine.scene.world.vendor.key(Role::Recorder);
    for (manner, key) in keys.into_iter().chain(manners.map(|manner| (manner, recorder))) {
        machine.intake.set(manner);
        machine.intake.sign_with(copy_of(key));
        let failure = machine.send("DE").unwrap_err();
        assert_eq!(failure.code, "share-receipt", "{manner:?}");
        let shown = machine.share().show().unwrap();
        assert!(shown.iter().any(|it| matches!(it, Shown::UnderWay { .. })), "{manner:?}: {shown:?}");
        machine.clock.advance(Duration::from_secs(7 * 3600));
    }
    machine.intake.set(Manner::Honest);
    assert!(matches!(machine.send("DE").unwrap(), Outcome::Sent(_)));
    let shown = machine.share().show().unwrap();
    for it in &shown {
        let Shown::Sent { sealed, receipt, .. } = it else { panic!("{it}") };
        let receipt = receipt.as_ref().unwrap();
        let envelope = attest::Envelope::parse(receipt.as_bytes()).unwrap();
        let verified = machine.scene.world.policy().verify::<attest::Receipt>(&envelope, Role::Recorder).unwrap();
        assert_eq!(verified.statement().subject[0].digest.sha256, *sealed, "the owner has it in writing");
        assert!(machine.scene.journal().contains(&envelope.id().to_string()));
    }
}

#[test]
fn a_country_without_a_region_sends_nothing() {
    let machine = Machine::new(|_| {});
    machine.keeps("BR", "assigns `BR` to no region");
    // Another day it may be assigned: until that very second it is not.
    let assigned = UnixTime::from_seconds(machine.clock.now().seconds() + 3600);
    let machine = Machine::new(|policy| {
        let residency = policy.residency.as_mut().unwrap();
        let countries = vec!["BR".parse().unwrap()];
        let region = REGION.parse().unwrap();
        residency.assignments.push(policy::Assignment { region, from: assigned, countries });
    });
    machine.keeps("BR", "assigns `BR` to no region");
    machine.clock.set(assigned);
    assert_eq!(machine.send("BR").unwrap(), Outcome::Sent(1));
}

#[test]
fn without_custodians_a_class_or_a_key_nothing_is_sent() {
    Machine::new(|policy| policy.residency = None).keeps("DE", "names no custodians");
    Machine::new(|policy| policy.residency.as_mut().unwrap().classes.remove(0).approvals.clear())
        .keeps("DE", "has no class of data `detections`");
    let machine = Machine::new(|_| {});
    machine.clock.advance(8_000 * DAY);
    machine.keeps("DE", "has no key for");
    // A policy that all have signed, with a key that is none: nothing is sealed by it.
    let broken = format!("p256:{}", "/".repeat(88));
    Machine::new(|policy| {
        let region = &mut policy.residency.as_mut().unwrap().regions[0];
        region.custodians[0].keys[0].key = broken.parse().unwrap();
    })
    .keeps("DE", "custodian `supervisor`: not a valid `p256` key");
}

/// Custodians destroy keys whose time is over; a clock that is set back brings none of them back.
#[test]
fn a_clock_that_was_set_back_seals_to_no_old_key() {
    let mut machine = Machine::new(|policy| {
        let start = UnixTime::from_seconds(1_767_225_600);
        for custodian in &mut policy.residency.as_mut().unwrap().regions[0].custodians {
            custodian.keys[0].until = start.after(DAY);
        }
    });
    // What the machine has seen is a day later than its keys.
    machine.scene.pass(2 * DAY);
    machine.scene.release(b"content");
    assert_eq!(machine.scene.update().exit_code(), 0);
    machine.keeps("DE", "has no key for");
}
