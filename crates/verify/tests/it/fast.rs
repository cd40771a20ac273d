//! The fast lane: what its keys can sign, who may go first, and what lets a release go further.

use std::time::Duration;

use attest::{
    Agreement, Bake, Bundle, Enrolment, Envelope, Health, Lane, Outcome, Promotion, Ring, Statement, Subject,
};
use policy::Role;
use stdx::{Clock as _, Digest, SystemEntropy};
use testkit::{PRODUCT, RULES_PRODUCT, ReleaseOptions, Released, SUPERVISOR_LOG, VENDOR_LOG, World};
use tlog::{KeyKind, SignerKey};
use verify::{Evidence, Refusal, Request, agreed};

const RULES: &[(&str, &[u8])] = &[("rules.yar", b"rule a { condition: true }")];

fn approve(world: &mut World, lane: Lane, product: &str, bundle: &Bundle, ring: Ring) -> Result<Ring, Refusal> {
    let status = world.status_of(lane, |_| {});
    let (policy, at, product) = (world.policy(), world.moment(), product.parse().unwrap());
    let status = policy.current_status(&Evidence::open(policy, &status)?, lane, None, &at)?;
    let request = Request { product: &product, ring, status: &status, at: &at, installed: None };
    Ok(policy.approve(&Evidence::open(policy, bundle)?, &request)?.ring())
}

fn released(world: &mut World, product: &str, options: &ReleaseOptions) -> Released {
    world.release_with(product, "1", RULES, options)
}

fn bake(world: &mut World, released: &Released, ring: Ring, role: Role) -> Envelope {
    let bake = Bake {
        position: world.position(SUPERVISOR_LOG, "canary/supervisor"),
        product: released.build.product.clone(),
        release: released.release.id(),
        ring,
        since: world.clock.now(),
        healthy: 2,
        detections: 0,
    };
    let statement = Statement { subject: released.build.outputs.clone(), predicate: bake };
    world.sign_as(&statement, role, &["supervisor"])
}

fn promotion(world: &World, released: &Released, ring: Ring) -> Statement<Promotion> {
    let promotion = Promotion {
        position: world.position(VENDOR_LOG, "release/vendor"),
        product: released.build.product.clone(),
        release: released.release.id(),
        ring,
    };
    Statement { subject: released.build.outputs.clone(), predicate: promotion }
}

fn promote(world: &mut World, released: &Released, ring: Ring) -> Envelope {
    let statement = promotion(world, released, ring);
    world.sign_as(&statement, Role::Rules, &["vendor", "supervisor"])
}

#[test]
fn rules_need_no_person_and_go_to_the_canary_ring() {
    let mut world = World::new();
    let rules = released(&mut world, RULES_PRODUCT, &ReleaseOptions::rules());
    assert_eq!(approve(&mut world, Lane::Fast, RULES_PRODUCT, &rules.bundle, Ring::Canary).unwrap(), Ring::Canary);
    let wider = approve(&mut world, Lane::Fast, RULES_PRODUCT, &rules.bundle, Ring::Early).unwrap_err();
    assert_eq!(wider.code(), "other-ring");

    // Not even both organisations' keys send rules past the canaries at once.
    let all = ReleaseOptions { ring: Ring::All, ..ReleaseOptions::rules() };
    let all = released(&mut world, RULES_PRODUCT, &all);
    let refusal = approve(&mut world, Lane::Fast, RULES_PRODUCT, &all.bundle, Ring::Canary).unwrap_err();
    assert_eq!(refusal.code(), "unproven", "{refusal}");
}

#[test]
fn a_rules_key_signs_nothing_of_the_slow_lane() {
    let mut world = World::new();
    // A slow release of code, complete but for the release keys: both rules keys have signed instead.
    let options = ReleaseOptions::default();
    let build = world.build(PRODUCT, "1", RULES, &options);
    let approvals = ["vendor", "supervisor"].map(|party| world.approve(&build, party));
    let statement = world.draft(&build, RULES, &options);
    let release = world.sign_as(&statement, Role::Rules, &["vendor", "supervisor"]);
    let bundle = world.release_bundle(&build, &approvals, &release);
    let refusal = approve(&mut world, Lane::Slow, PRODUCT, &bundle, Ring::All).unwrap_err();
    assert_eq!(refusal.code(), "not-signed", "{refusal}");

    // The same code as if it were rules, under another product's lane, or under its own name.
    for product in [PRODUCT, RULES_PRODUCT] {
        let mut build = world.build(product, "2", RULES, &ReleaseOptions::default());
        build.product = product.parse().unwrap();
        let statement = world.draft(&build, RULES, &ReleaseOptions::rules());
        let release = world.sign_as(&statement, Role::Rules, &["vendor", "supervisor"]);
        let bundle = world.release_bundle(&build, &[], &release);
        let refusal = approve(&mut world, Lane::Fast, product, &bundle, Ring::Canary).unwrap_err();
        assert_eq!(refusal.code(), "unproven", "{refusal}");
    }

    // Nor do release keys sign rules.
    let build = world.build(RULES_PRODUCT, "3", RULES, &ReleaseOptions::rules());
    let statement = world.draft(&build, RULES, &ReleaseOptions::rules());
    let release = world.sign_as(&statement, Role::Release, &["vendor", "supervisor"]);
    let bundle = world.release_bundle(&build, &[], &release);
    let refusal = approve(&mut world, Lane::Fast, RULES_PRODUCT, &bundle, Ring::Canary).unwrap_err();
    assert_eq!(refusal.code(), "not-signed", "{refusal}");
}

#[test]
fn nobody_releases_rules_alone() {
    for party in ["vendor", "supervisor"] {
        for options in [
            ReleaseOptions { builders: vec![party], ..ReleaseOptions::rules() },
            ReleaseOptions { releasers: vec![party], ..ReleaseOptions::rules() },
        ] {
            let mut world = World::new();
            let rules = released(&mut world, RULES_PRODUCT, &options);
            let refusal = approve(&mut world, Lane::Fast, RULES_PRODUCT, &rules.bundle, Ring::Canary).unwrap_err();
            assert_eq!(refusal.code(), "signatures-missing", "{refusal}");
        }
    }
}

#[test]
fn rules_may_take_the_slow_lane_with_its_approvals() {
    let mut world = World::new();
    let slow = released(&mut world, RULES_PRODUCT, &ReleaseOptions::default());
    approve(&mut world, Lane::Slow, RULES_PRODUCT, &slow.bundle, Ring::All).unwrap();
    let alone = ReleaseOptions { approvers: vec!["vendor"], ..ReleaseOptions::default() };
    let alone = released(&mut world, RULES_PRODUCT, &alone);
    let refusal = approve(&mut world, Lane::Slow, RULES_PRODUCT, &alone.bundle, Ring::All).unwrap_err();
    assert_eq!(refusal.code(), "signatures-missing");
}

#[test]
fn a_release_leaves_a_ring_only_after_a_bake_in_it() {
    let mut world = World::new();
    let rules = released(&mut world, RULES_PRODUCT, &ReleaseOptions::rules());
    let with = |world: &World, entries: &[(&str, &Envelope)]| rules.bundle.with(&world.bundle(entries)).unwrap();
    let ask = |world: &mut World, entries: &[(&str, &Envelope)]| {
        let bundle = with(world, entries);
        approve(world, Lane::Fast, RULES_PRODUCT, &bundle, Ring::Canary).map_err(|refusal| refusal.code())
    };
    let early = promote(&mut world, &rules, Ring::Early);
    let all = promote(&mut world, &rules, Ring::All);
    assert_eq!(ask(&mut world, &[(VENDOR_LOG, &early)]), Err("unproven"));

    let baked = bake(&mut world, &rules, Ring::Canary, Role::Recorder);
    let baked = (SUPERVISOR_LOG, &baked);
    assert_eq!(ask(&mut world, &[baked]), Ok(Ring::Canary));
    assert_eq!(ask(&mut world, &[(VENDOR_LOG, &early), baked]), Ok(Ring::Early));
    // Each ring by itself.
    assert_eq!(ask(&mut world, &[(VENDOR_LOG, &all), baked]), Err("unproven"));
    let further = bake(&mut world, &rules, Ring::Early, Role::Recorder);
    assert_eq!(ask(&mut world, &[(VENDOR_LOG, &all), (SUPERVISOR_LOG, &further)]), Err("unproven"));
    assert_eq!(ask(&mut world, &[(VENDOR_LOG, &all), (SUPERVISOR_LOG, &further), baked]), Ok(Ring::All));

    // By a key of the supervisor's that is no recorder; of another release; by the vendor.
    let forged = bake(&mut world, &rules, Ring::Canary, Role::Builder);
    assert_eq!(ask(&mut world, &[(VENDOR_LOG, &early), (SUPERVISOR_LOG, &forged)]), Err("not-signed"));
    let other = released(&mut world, RULES_PRODUCT, &ReleaseOptions::rules());
    let other = bake(&mut world, &other, Ring::Canary, Role::Recorder);
    assert_eq!(ask(&mut world, &[(VENDOR_LOG, &early), (SUPERVISOR_LOG, &other)]), Err("unproven"));
    let own = Bake {
        position: world.position(VENDOR_LOG, "release/vendor"),
        product: RULES_PRODUCT.parse().unwrap(),
        release: rules.release.id(),
        ring: Ring::Canary,
        since: world.clock.now(),
        healthy: 1000,
        detections: 0,
    };
    let own = Statement { subject: rules.build.outputs.clone(), predicate: own };
    let own = world.sign_as(&own, Role::Recorder, &["vendor"]);
    assert_eq!(ask(&mut world, &[(VENDOR_LOG, &early), (VENDOR_LOG, &own)]), Err("wrong-log"));
}

#[test]
fn a_promotion_is_signed_only_after_a_bake() {
    let mut world = World::new();
    let rules = released(&mut world, RULES_PRODUCT, &ReleaseOptions::rules());
    let status = world.status_of(Lane::Fast, |_| {});
    let baked = bake(&mut world, &rules, Ring::Canary, Role::Recorder);
    let draft = promotion(&world, &rules, Ring::Early);
    let ask = |bundle: &Bundle, draft: &Statement<Promotion>| {
        let (policy, at) = (world.policy(), world.moment());
        let status = policy.current_status(&Evidence::open(policy, &status)?, Lane::Fast, None, &at)?;
        policy.approve_promotion(&Evidence::open(policy, bundle)?, draft, &status, &at).map(drop)
    };
    assert_eq!(ask(&rules.bundle, &draft).unwrap_err().code(), "unproven");
    let bundle = rules.bundle.with(&world.bundle(&[(SUPERVISOR_LOG, &baked)])).unwrap();
    ask(&bundle, &draft).unwrap();
    assert_eq!(ask(&bundle, &promotion(&world, &rules, Ring::All)).unwrap_err().code(), "unproven");
    let mut other = draft.clone();
    other.subject[0] = Subject::new("rules.yar", Digest::of(b"other"));
    assert_eq!(ask(&bundle, &other).unwrap_err().code(), "unproven");
}

fn host_key() -> SignerKey {
    SignerKey::generate("canary-1".parse().unwrap(), KeyKind::Ed25519, &SystemEntropy).unwrap()
}

fn agreement(world: &World, key: &SignerKey) -> Statement<Agreement> {
    let (host, time) = ("canary-1".parse().unwrap(), world.clock.now());
    let predicate =
        Agreement { host, key: key.verifier().clone(), time, until: time.after(Duration::from_secs(86_400)) };
    Statement { subject: vec![Agreement::subject()], predicate }
}

#[test]
fn an_agreement_is_the_owners_own_and_to_this_text() {
    let world = World::new();
    let (key, now) = (host_key(), world.clock.now());
    let good = agreement(&world, &key);
    let sign = |statement: &Statement<Agreement>, key: &SignerKey| {
        Envelope::sign(statement.encode().unwrap(), &[key]).unwrap()
    };
    agreed(&sign(&good, &key), now).unwrap();
    assert_eq!(agreed(&sign(&good, &host_key()), now).unwrap_err().code(), "unproven");
    assert_eq!(agreed(&sign(&good, &key), good.predicate.until).unwrap_err().code(), "out-of-time");
    let mut other = good.clone();
    other.subject = vec![Subject::new("agreement", Digest::of(b"and my files"))];
    assert_eq!(agreed(&sign(&other, &key), now).unwrap_err().code(), "unproven");
}

#[test]
fn a_report_counts_once_and_for_its_own_host() {
    let mut world = World::new();
    let (key, now) = (host_key(), world.clock.now());
    let agreed = agreement(&world, &key);
    let mut enrol = |organisation: &str, log: &str, stream: &str| {
        let enrolment = Enrolment {
            position: world.position(log, stream),
            host: agreed.predicate.host.clone(),
            key: key.verifier().clone(),
            agreement: Envelope::sign(agreed.encode().unwrap(), &[&key]).unwrap().id(),
            until: agreed.predicate.until,
        };
        let statement = Statement { subject: vec![Agreement::subject()], predicate: enrolment };
        world.sign_as(&statement, Role::Recorder, &[organisation])
    };
    let enrolment = enrol("supervisor", SUPERVISOR_LOG, "canary/supervisor");
    // The vendor enrols nobody.
    let vendors = enrol("vendor", VENDOR_LOG, "assembly/vendor");
    assert_eq!(world.policy().enrolled(&vendors).unwrap_err().code(), "not-signed");

    let host = world.policy().enrolled(&enrolment).unwrap();
    let report = |sequence, enrolment| Health {
        enrolment,
        sequence,
        time: now,
        product: RULES_PRODUCT.parse().unwrap(),
        release: enrolment,
        ring: Ring::Canary,
        outcome: Outcome::Active,
        crashes: 0,
        detections: 0,
    };
    let sign = |predicate: Health, key: &SignerKey| {
        let subject = vec![Subject::new("rules.yar", Digest::of(b"rules"))];
        Envelope::sign(Statement { subject, predicate }.encode().unwrap(), &[key]).unwrap()
    };
    let good = sign(report(7, host.id()), &key);
    host.report(&good, None, now).unwrap();
    host.report(&good, Some(6), now).unwrap();
    let code = |envelope: &Envelope, last, now| host.report(envelope, last, now).unwrap_err().code();
    assert_eq!(code(&good, Some(7), now), "rollback");
    assert_eq!(code(&sign(report(7, host.id()), &host_key()), None, now), "unproven");
    assert_eq!(code(&sign(report(7, vendors.id()), &key), None, now), "unproven");
    assert_eq!(code(&good, None, agreed.predicate.until), "out-of-time");
    let old = Health { time: stdx::UnixTime::EPOCH, ..report(8, host.id()) };
    assert_eq!(code(&sign(old, &key), None, now), "out-of-time");
}
