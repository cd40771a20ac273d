use std::time::Duration;

use attest::{Bundle, EnvironmentKind, Floor, Lane, ReleaseNumber, Ring, StopScope};
use stdx::{Digest, UnixTime};
use testkit::{OTHER_PRODUCT, PRODUCT, ReleaseOptions, Released, SUPERVISOR_LOG, VENDOR_LOG, World};
use verify::{Approved, Evidence, Moment, Refusal, Request, StatusMark};

const FILES: &[(&str, &[u8])] = &[("libexample.so", b"code"), ("example.h", b"header")];

pub(crate) fn approve(world: &World, bundle: &Bundle, status: &Bundle) -> Result<Approved<attest::Release>, Refusal> {
    approve_as(world, bundle, status, PRODUCT, Ring::All, None)
}

fn approve_as(
    world: &World,
    bundle: &Bundle,
    status: &Bundle,
    product: &str,
    ring: Ring,
    installed: Option<ReleaseNumber>,
) -> Result<Approved<attest::Release>, Refusal> {
    let (policy, at) = (world.policy(), world.moment());
    let status = policy.current_status(&Evidence::open(policy, status)?, Lane::Slow, None, &at)?;
    let product = product.parse().unwrap();
    let request = Request { product: &product, ring, status: &status, at: &at, installed };
    policy.approve(&Evidence::open(policy, bundle)?, &request)
}

fn refused_with(options: &ReleaseOptions) -> &'static str {
    let mut world = World::new();
    let released = world.release_with(PRODUCT, "1.0", FILES, options);
    let status = world.status();
    approve(&world, &released.bundle, &status).unwrap_err().code()
}

fn released() -> (World, Released, Bundle) {
    let mut world = World::new();
    let released = world.release(PRODUCT, "1.0", FILES);
    let status = world.status();
    (world, released, status)
}

#[test]
fn a_release_that_has_everything_is_approved() {
    let (world, released, status) = released();
    let approved = approve(&world, &released.bundle, &status).unwrap();
    assert_eq!(approved.release().version, "1.0");
    assert_eq!(approved.id(), released.release.id());
    assert!(approved.artifact(&Digest::of(b"code")).is_some());
    assert!(approved.artifact(&Digest::of(b"other code")).is_none());
    // The bundle with the status inside is as good.
    approve(&world, &released.bundle.with(&status).unwrap(), &status).unwrap();
}

#[test]
fn nobody_releases_alone() {
    let only = |parties: &[&'static str]| parties.to_vec();
    for party in ["vendor", "supervisor"] {
        for options in [
            ReleaseOptions { builders: only(&[party]), ..ReleaseOptions::default() },
            ReleaseOptions { releasers: only(&[party]), ..ReleaseOptions::default() },
            ReleaseOptions { approvers: only(&[party]), ..ReleaseOptions::default() },
        ] {
            assert_eq!(refused_with(&options), "signatures-missing", "{options:?}");
        }
    }
    let nobody = ReleaseOptions { approvers: Vec::new(), ..ReleaseOptions::default() };
    assert_eq!(refused_with(&nobody), "signatures-missing");
}

#[test]
fn a_captured_environment_never_releases() {
    let options = ReleaseOptions { environment: EnvironmentKind::Captured, ..ReleaseOptions::default() };
    assert_eq!(refused_with(&options), "environment");
}

#[test]
fn another_product_does_not_take_its_place() {
    let (world, released, status) = released();
    let refusal = approve_as(&world, &released.bundle, &status, OTHER_PRODUCT, Ring::All, None).unwrap_err();
    assert_eq!(refusal.code(), "other-product");
}

#[test]
fn rings_wait_for_a_promotion() {
    let mut world = World::new();
    let canary = ReleaseOptions { ring: Ring::Canary, ..ReleaseOptions::default() };
    let released = world.release_with(PRODUCT, "1.0", FILES, &canary);
    let status = world.status();
    let ask = |world: &World, bundle: &Bundle, ring| approve_as(world, bundle, &status, PRODUCT, ring, None);
    ask(&world, &released.bundle, Ring::Canary).unwrap();
    assert_eq!(ask(&world, &released.bundle, Ring::Early).unwrap_err().code(), "other-ring");

    let promote = |world: &mut World, parties: &[&str]| {
        let promotion = attest::Promotion {
            position: world.position(VENDOR_LOG, "release/vendor"),
            product: PRODUCT.parse().unwrap(),
            release: released.release.id(),
            ring: Ring::Early,
        };
        let statement = attest::Statement { subject: released.build.outputs.clone(), predicate: promotion };
        world.sign_as(&statement, policy::Role::Release, parties)
    };
    let alone = promote(&mut world, &["vendor"]);
    let both = promote(&mut world, &["vendor", "supervisor"]);
    let with = |world: &World, promotion| released.bundle.with(&world.bundle(&[(VENDOR_LOG, promotion)])).unwrap();
    assert_eq!(ask(&world, &with(&world, &alone), Ring::Early).unwrap_err().code(), "signatures-missing");
    assert_eq!(ask(&world, &with(&world, &both), Ring::Early).unwrap().ring(), Ring::Early);
    assert_eq!(ask(&world, &with(&world, &both), Ring::All).unwrap_err().code(), "other-ring");
}

#[test]
fn the_supervisors_word_stops_it() {
    let refused = |change: &dyn Fn(&mut World)| {
        let (mut world, released, _) = released();
        change(&mut world);
        let status = world.status();
        approve(&world, &released.bundle, &status).unwrap_err().code()
    };
    assert_eq!(refused(&|world| world.revoked.push(Digest::of(b"header"))), "revoked");
    assert_eq!(refused(&|world| world.stops.push(StopScope::Lane(Lane::Slow))), "stopped");
    assert_eq!(refused(&|world| world.stops.push(StopScope::Product(PRODUCT.parse().unwrap()))), "stopped");
    let floor = Floor { product: PRODUCT.parse().unwrap(), number: ReleaseNumber::new(2) };
    assert_eq!(refused(&move |world| world.floors.push(floor.clone())), "below-floor");
    // What is said of another product changes nothing.
    let (mut world, released, _) = released();
    world.stops.push(StopScope::Product(OTHER_PRODUCT.parse().unwrap()));
    let status = world.status();
    approve(&world, &released.bundle, &status).unwrap();
}

#[test]
fn a_status_must_be_fresh_and_never_goes_back() {
    let (mut world, released, status) = released();
    let policy = world.policy();
    let at = world.moment();
    let evidence = Evidence::open(policy, &status).unwrap();
    let seen = StatusMark { epoch: 0, sequence: 1 };
    assert_eq!(policy.current_status(&evidence, Lane::Slow, Some(seen), &at).unwrap_err().code(), "rollback");
    assert_eq!(policy.current_status(&evidence, Lane::Fast, None, &at).unwrap_err().code(), "bundle-shape");

    let newer = world.status();
    let policy = world.policy();
    let mark = policy.current_status(&Evidence::open(policy, &newer).unwrap(), Lane::Slow, Some(seen), &at).unwrap();
    assert_eq!(mark.mark(), seen);

    world.clock.advance(Duration::from_secs(24 * 60 * 60 + 1));
    assert_eq!(approve(&world, &released.bundle, &newer).unwrap_err().code(), "out-of-time");
    // A status that is still valid but whose cosignatures are too old for this owner.
    let strict = Moment::new(&world.clock, UnixTime::EPOCH, Duration::from_secs(10));
    let status = world.status();
    world.clock.advance(Duration::from_secs(11));
    let policy = world.policy();
    let strict_later = Moment::new(&world.clock, UnixTime::EPOCH, Duration::from_secs(10));
    let evidence = Evidence::open(policy, &status).unwrap();
    policy.current_status(&evidence, Lane::Slow, None, &strict).unwrap();
    assert_eq!(policy.current_status(&evidence, Lane::Slow, None, &strict_later).unwrap_err().code(), "stale");
}

/// The code with which the status is refused, now, after `seen`.
fn status_refused(world: &World, status: &Bundle, seen: Option<StatusMark>) -> Option<&'static str> {
    let policy = world.policy();
    let evidence = Evidence::open(policy, status).unwrap();
    policy.current_status(&evidence, Lane::Slow, seen, &world.moment()).err().map(|refusal| refusal.code())
}

#[test]
fn a_status_holds_under_the_policy_that_it_names_and_no_other() {
    let mut world = World::new();
    let genesis = world.policy().clone();
    let before = world.status();
    world.succeed(|_| {});
    let after = world.status();
    let at = world.moment();
    let ask = |policy: &verify::TrustedPolicy, status: &Bundle| {
        policy.current_status(&Evidence::open(policy, status).unwrap(), Lane::Slow, None, &at)
    };
    ask(&genesis, &before).unwrap();
    ask(world.policy(), &after).unwrap();
    // Whoever was not given the successor learns of it here.
    let refusal = ask(&genesis, &after).unwrap_err();
    assert_eq!(refusal.code(), "policy");
    assert!(refusal.to_string().contains(&world.policy().id().to_string()), "{refusal}");
    assert!(refusal.hint().contains("withholding"), "{}", refusal.hint());
    assert_eq!(ask(world.policy(), &before).unwrap_err().code(), "policy");
    // It is said even of a status that has expired.
    world.clock.advance(Duration::from_secs(3 * 24 * 60 * 60));
    assert_eq!(status_refused(&world, &before, None), Some("policy"));
    assert_eq!(status_refused(&world, &after, None), Some("out-of-time"));
}

#[test]
fn a_status_stands_in_its_own_stream() {
    let mut world = World::new();
    let elsewhere = world.status_with(|status| status.position.stream = "status/fast".parse().unwrap());
    assert_eq!(status_refused(&world, &elsewhere, None), Some("unproven"));
}

#[test]
fn a_status_does_not_jump_so_far_that_nothing_comes_after_it() {
    let mut world = World::new();
    let seen = StatusMark { epoch: 4, sequence: 9 };
    let mut of_epoch = |epoch| {
        let status = world.status_with(|status| (status.position.epoch, status.position.sequence) = (epoch, 0));
        status_refused(&world, &status, Some(seen))
    };
    assert_eq!(of_epoch(4), Some("rollback"));
    assert_eq!(of_epoch(5), None);
    assert_eq!(of_epoch(6), Some("epoch-jump"));
    assert_eq!(of_epoch(u64::MAX), Some("epoch-jump"));
}

#[test]
fn of_a_carried_status_the_age_alone_counts_and_of_a_release_its_own_times() {
    const DAY: Duration = Duration::from_secs(24 * 60 * 60);
    let mut world = World::new();
    let options = ReleaseOptions { lifetime: DAY * 15, ..ReleaseOptions::default() };
    let released = world.release_with(PRODUCT, "1.0", FILES, &options);
    let status_bundle = world.status();
    let product = PRODUCT.parse().unwrap();
    let ask = |days: u32| {
        let (policy, at) = (world.policy(), Moment::offline(&world.clock, UnixTime::EPOCH, DAY * days));
        let status = policy.current_status(&Evidence::open(policy, &status_bundle)?, Lane::Slow, None, &at)?;
        let request = Request { product: &product, ring: Ring::All, status: &status, at: &at, installed: None };
        policy.approve(&Evidence::open(policy, &released.bundle)?, &request)
    };
    world.clock.advance(DAY * 10);
    ask(30).unwrap();
    ask(10).unwrap();
    assert_eq!(ask(5).unwrap_err().code(), "stale");
    assert_eq!(approve(&world, &released.bundle, &status_bundle).unwrap_err().code(), "out-of-time");
    world.clock.advance(DAY * 6);
    let refusal = ask(30).unwrap_err();
    assert_eq!(refusal.code(), "out-of-time");
    assert!(refusal.to_string().starts_with("the release"), "{refusal}");
}

#[test]
fn a_clock_that_is_set_back_makes_nothing_fresh() {
    let (world, _, status) = released();
    let seen = world.moment().now().after(Duration::from_secs(2 * 24 * 60 * 60));
    world.clock.set(UnixTime::EPOCH);
    let at = Moment::new(&world.clock, seen, Duration::from_secs(24 * 60 * 60));
    let policy = world.policy();
    let evidence = Evidence::open(policy, &status).unwrap();
    assert_eq!(policy.current_status(&evidence, Lane::Slow, None, &at).unwrap_err().code(), "out-of-time");
}

#[test]
fn an_older_release_is_a_rollback_and_the_same_one_is_not() {
    let mut world = World::new();
    let first = world.release(PRODUCT, "1.0", FILES);
    let second = world.release(PRODUCT, "1.1", &[("libexample.so", b"new code")]);
    let status = world.status();
    let ask =
        |released: &Released, installed| approve_as(&world, &released.bundle, &status, PRODUCT, Ring::All, installed);
    assert_eq!(ask(&first, Some(second.number)).unwrap_err().code(), "rollback");
    ask(&second, Some(second.number)).unwrap();
    ask(&second, Some(first.number)).unwrap();
}

#[test]
fn without_a_quorum_there_is_no_evidence() {
    let (world, released, status) = released();
    let two: Vec<_> = world.witnesses.iter().take(2).collect();
    let lonely = world.vendor_log.checkpoint(&two, world.moment().now());
    let entries = released.bundle.entries().iter().map(|entry| world.vendor_log.prove(&entry.envelope, &lonely));
    let bundle = Bundle::new(entries.collect()).unwrap();
    assert_eq!(approve(&world, &bundle, &status).unwrap_err().code(), "checkpoint");
}

#[test]
fn what_is_not_in_the_log_is_not_recorded() {
    let (world, released, status) = released();
    // Every entry with the proof of its neighbour.
    let entries = released.bundle.entries();
    let shifted = (0..entries.len()).map(|n| attest::BundleEntry {
        envelope: entries[n].envelope.clone(),
        proof: entries[(n + 1) % entries.len()].proof.clone(),
    });
    let bundle = Bundle::new(shifted.collect()).unwrap();
    assert_eq!(approve(&world, &bundle, &status).unwrap_err().code(), "not-included");
}

#[test]
fn a_statement_counts_only_in_its_own_log() {
    let mut world = World::new();
    let released = world.release(PRODUCT, "1.0", FILES);
    // The supervisor's log takes in what was made for the vendor's.
    world.supervisor_log.append(released.release.to_bytes());
    let moved = world.bundle(&[(SUPERVISOR_LOG, &released.release)]);
    let rest = released.bundle.entries().iter().skip(1).cloned().collect();
    let bundle = moved.with(&Bundle::new(rest).unwrap()).unwrap();
    let status = world.status();
    assert_eq!(approve(&world, &bundle, &status).unwrap_err().code(), "wrong-log");
}

#[test]
fn a_bundle_has_what_it_needs_and_no_more() {
    let (mut world, released, status) = released();
    let entries = released.bundle.entries();
    for missing in 0..2 {
        let rest = entries.iter().enumerate().filter(|(n, _)| *n != missing).map(|(_, entry)| entry.clone());
        let bundle = Bundle::new(rest.collect()).unwrap();
        assert_eq!(approve(&world, &bundle, &status).unwrap_err().code(), "bundle-shape");
    }
    let twice = Bundle::new(entries.iter().chain(&entries[2..3]).cloned().collect()).unwrap();
    assert_eq!(approve(&world, &twice, &status).unwrap_err().code(), "bundle-shape");

    let source = world.vendor_log.entries().iter().find_map(|entry| {
        let envelope = attest::Envelope::parse(entry).unwrap();
        envelope.claimed_type().unwrap().ends_with("source/v1").then_some(envelope)
    });
    let extra = world.bundle(&[(VENDOR_LOG, &source.unwrap())]);
    let bundle = released.bundle.with(&extra).unwrap();
    assert_eq!(approve(&world, &bundle, &status).unwrap_err().code(), "bundle-shape");

    // Evidence of one release does not serve another.
    let other = world.release(PRODUCT, "1.1", &[("libexample.so", b"new code")]);
    let mixed = [&other.bundle.entries()[..1], &entries[1..]].concat();
    assert_eq!(approve(&world, &Bundle::new(mixed).unwrap(), &status).unwrap_err().code(), "unproven");
}

#[test]
fn the_release_keys_sign_only_what_may_be_installed() {
    let mut world = World::new();
    let options = ReleaseOptions::default();
    let build = world.build(PRODUCT, "1.0", FILES, &options);
    let approvals = ["vendor", "supervisor"].map(|party| world.approve(&build, party));
    let draft = world.draft(&build, FILES, &options);
    let status_bundle = world.status();
    let bundle = world.bundle(&[(VENDOR_LOG, &build.result), (VENDOR_LOG, &approvals[0]), (VENDOR_LOG, &approvals[1])]);
    let (policy, at) = (world.policy(), world.moment());
    let status =
        policy.current_status(&Evidence::open(policy, &status_bundle).unwrap(), Lane::Slow, None, &at).unwrap();
    let ask = |bundle: &Bundle, draft: &attest::Statement<attest::Release>| {
        policy
            .approve_draft(&Evidence::open(policy, bundle).unwrap(), draft, &status, &at)
            .map(|approved| approved.id())
    };
    ask(&bundle, &draft).unwrap();

    let one_approval = world.bundle(&[(VENDOR_LOG, &build.result), (VENDOR_LOG, &approvals[0])]);
    assert_eq!(ask(&one_approval, &draft).unwrap_err().code(), "signatures-missing");
    let mut other = draft.clone();
    other.subject[0] = attest::Subject::new("libexample.so", Digest::of(b"other code"));
    assert_eq!(ask(&bundle, &other).unwrap_err().code(), "unproven");
    let mut other = draft.clone();
    other.predicate.policy = build.result.id();
    assert_eq!(ask(&bundle, &other).unwrap_err().code(), "policy");
}
