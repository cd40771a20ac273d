use attest::{Bundle, Envelope, Statement, Status, Subject};
use policy::{LookupPolicy, PolicyDocument, Relay, Role};
use stdx::Digest;
use testkit::{VENDOR_LOG, World};
use verify::{Advance, Evidence, Refusal, Seen, TrustedPolicy};

fn successor(world: &World, change: impl FnOnce(&mut PolicyDocument)) -> Statement<PolicyDocument> {
    let mut policy = world.policy().policy().clone();
    policy.version = 2;
    let mut document =
        PolicyDocument { position: world.position(VENDOR_LOG, "policy"), previous: Some(world.policy().id()), policy };
    change(&mut document);
    Statement { subject: vec![Subject::new("policy", Digest::of(b"policy"))], predicate: document }
}

fn succeed(
    world: &mut World,
    statement: &Statement<PolicyDocument>,
    parties: &[&str],
) -> Result<TrustedPolicy, Refusal> {
    let envelope = world.sign_as(statement, Role::Policy, parties);
    let bundle = world.bundle(&[(VENDOR_LOG, &envelope)]);
    let evidence = Evidence::open(world.policy(), &bundle)?;
    world.policy().succeed(&evidence)
}

#[test]
fn trust_begins_with_a_hash_from_elsewhere() {
    let world = World::new();
    let other = World::new();
    let genesis = world.genesis();
    TrustedPolicy::bootstrap(genesis, &genesis.id()).unwrap();
    assert_eq!(TrustedPolicy::bootstrap(genesis, &other.genesis().id()).unwrap_err().code(), "policy");
    // Its own hash is not enough: it must be signed as it demands.
    let alone = Envelope::sign(genesis.payload().to_vec(), &[world.vendor.key(Role::Policy)]).unwrap();
    assert_eq!(TrustedPolicy::bootstrap(&alone, &genesis.id()).unwrap_err().code(), "signatures-missing");
}

#[test]
fn a_policy_is_succeeded_by_agreement_of_both_thresholds() {
    let mut world = World::new();
    let both = ["vendor", "supervisor"];
    let next = successor(&world, |_| {});
    for alone in both {
        assert_eq!(succeed(&mut world, &next, &[alone]).unwrap_err().code(), "signatures-missing");
    }
    let trusted = succeed(&mut world, &next, &both).unwrap();
    assert_eq!(trusted.policy().version, 2);
    assert!(trusted.descends_from(&world.policy().id()));

    let skipped = successor(&world, |document| document.policy.version = 3);
    assert_eq!(succeed(&mut world, &skipped, &both).unwrap_err().code(), "rollback");
    let elsewhere = successor(&world, |document| document.previous = None);
    assert_eq!(succeed(&mut world, &elsewhere, &both).unwrap_err().code(), "rollback");
}

fn lookup(gateway: &str, relay: &str) -> LookupPolicy {
    let url = "https://relay.member.example".parse().unwrap();
    let relays = vec![Relay { organisation: relay.parse().unwrap(), url }];
    LookupPolicy { gateway: gateway.parse().unwrap(), key: "AQAg".to_owned(), prefix_bits: 12, relays }
}

#[test]
fn a_successor_that_makes_no_sense_is_refused() {
    let mut world = World::new();
    type Change = fn(&mut PolicyDocument);
    let senseless: [(&str, Change); 9] = [
        ("2k-n > f", |document| document.policy.witnessing.faulty = 2),
        ("at least two must agree", |document| {
            document.policy.lanes[0].builders.pop();
        }),
        ("at least two must agree", |document| {
            document.policy.change.pop();
        }),
        ("names no approvals", |document| document.policy.lanes[0].approvals.clear()),
        ("are one key", |document| {
            let copy = document.policy.organisations[0].keys[0].key.clone();
            document.policy.organisations[1].keys[0].key = copy;
        }),
        ("must not be zero", |document| document.policy.ages.online_s = 0),
        ("would learn who asks what", |document| document.policy.lookup = Some(lookup("vendor", "vendor"))),
        ("which the policy does not define", |document| document.policy.lookup = Some(lookup("vendor", "somebody"))),
        ("0 relays", |document| {
            let relays = Vec::new();
            document.policy.lookup = Some(LookupPolicy { relays, ..lookup("vendor", "supervisor") });
        }),
    ];
    for (says, change) in senseless {
        let next = successor(&world, change);
        let error = succeed(&mut world, &next, &["vendor", "supervisor"]).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }
}

#[test]
fn a_log_only_grows() {
    let mut world = World::new();
    let before = world.checkpoint(VENDOR_LOG);
    let seen = Seen::first(before.checkpoint());
    world.vendor_log.append(b"more".to_vec());
    let after = world.checkpoint(VENDOR_LOG);
    let proof = world.vendor_log.consistency(seen.size);

    assert_eq!(seen.advance(before.checkpoint(), None).unwrap(), Advance::Proven(seen.clone()));
    let Advance::Proven(grown) = seen.advance(after.checkpoint(), Some(&proof)).unwrap() else { panic!("a gap") };
    assert!(!grown.gap && grown.size > seen.size);
    // Backwards too: an older bundle is consistent with what was seen, and nothing is forgotten.
    assert_eq!(grown.advance(before.checkpoint(), Some(&proof)).unwrap(), Advance::Proven(grown.clone()));

    // Offline the quorum stands in, and the gap is remembered.
    let Advance::Gap(gap) = seen.advance(after.checkpoint(), None).unwrap() else { panic!("no gap") };
    assert!(gap.gap);

    // Another tree of the same size, or one that does not continue it, is a split view.
    let mut fork = World::new();
    fork.vendor_log.append(b"other".to_vec());
    let forked = fork.checkpoint(VENDOR_LOG);
    assert_eq!(grown.advance(forked.checkpoint(), None).unwrap_err().code(), "split-view");
    assert_eq!(seen.advance(forked.checkpoint(), Some(&proof)).unwrap_err().code(), "split-view");
    let supervisor = world.checkpoint(testkit::SUPERVISOR_LOG);
    assert_eq!(seen.advance(supervisor.checkpoint(), None).unwrap_err().code(), "split-view");
}

#[test]
fn what_was_found_good_is_so_for_one_role_and_one_policy() {
    let mut world = World::new();
    let envelope = world.status().entries()[0].envelope.clone();
    let is_good = |policy: &TrustedPolicy, role| policy.verify::<Status>(&envelope, role).map(|it| it.id());
    let refused = |policy: &TrustedPolicy, role| is_good(policy, role).unwrap_err().code();
    let before = world.policy().clone();
    for _ in 0..2 {
        assert_eq!(is_good(&before, Role::Status).unwrap(), envelope.id());
        assert_eq!(refused(&before, Role::Approver), "not-signed");
        assert_eq!(refused(World::new().policy(), Role::Status), "not-signed");
    }
    // The next policy has another key.
    world.replace_status_key();
    assert_eq!(refused(world.policy(), Role::Status), "not-signed");
    assert_eq!(is_good(&before, Role::Status).unwrap(), envelope.id());
}

#[test]
fn a_checkpoint_found_good_is_not_by_another_line_or_another_policy() {
    let mut world = World::new();
    let bundle = world.status();
    let time = Evidence::open(world.policy(), &bundle).unwrap().latest();
    assert_eq!(Evidence::open(world.policy(), &bundle).unwrap().latest(), time);
    assert_eq!(Evidence::open(World::new().policy(), &bundle).unwrap_err().code(), "checkpoint");
    // The same tree with one witness's line less than are needed.
    let text = String::from_utf8(bundle.to_bytes()).unwrap();
    let lines = text.find("\\n\\n").unwrap() + 4;
    let log_line = lines + text[lines..].find("\\n").unwrap() + 2;
    let witness_line = log_line + text[log_line..].find("\\n").unwrap() + 2;
    let fewer = Bundle::parse(format!("{}{}", &text[..log_line], &text[witness_line..]).as_bytes()).unwrap();
    assert_eq!(Evidence::open(world.policy(), &fewer).unwrap_err().code(), "checkpoint");
}
