//! Each product of `products/`, built by two organisations that asked upstream each by itself,
//! under different conditions: the same bytes, and those that others published.

use assembly::{BuildRecord, Conditions, Kind, Made};
use testkit::Breadth;

use crate::bench::{Organisation, current, repository};

/// Builds twice and compares; gives the vendor's record.
fn rebuilt(name: &str) -> BuildRecord {
    let scratch = tempfile::tempdir().unwrap();
    let (vendor, supervisor) = (Organisation::new("vendor"), Organisation::new("supervisor"));
    let product = current(&vendor, name, scratch.path());

    let prepared = vendor.prepare(&product, &repository()).unwrap();
    let ours = vendor.build(&product, &prepared, &Conditions::plain()).unwrap();
    let prepared = supervisor.prepare(&product, &repository()).unwrap();
    let different = Conditions::different(&product.digest);
    let theirs = supervisor.build(&product, &prepared, &different).unwrap();

    assert_eq!(ours.agreed, theirs.agreed, "the organisations agree");
    for file in &prepared.fetched.published {
        let output = ours.agreed.outputs.iter().find(|output| output.name == file.file).unwrap();
        assert_eq!(output.digest, file.sha256, "{} equals the published one", file.file);
    }
    assert_eq!(BuildRecord::parse(&theirs.to_bytes()).unwrap(), theirs);
    let made = |record: &BuildRecord| match &record.made {
        Made::Here(made) => (**made).clone(),
        Made::Elsewhere(_) => panic!("it was built here"),
    };
    assert_eq!(made(&theirs).conditions, different);
    assert_eq!(made(&theirs).isolation.user.uid, different.uid);
    assert_eq!(made(&theirs).isolation.hostname.as_str(), different.hostname);
    assert!(ours.is_releasable());
    for record in [&ours, &theirs] {
        let depot = if *record == ours { &vendor.depot } else { &supervisor.depot };
        assert!(!depot.content().get(&made(record).log, u64::MAX).unwrap().is_empty());
    }
    let sbom = vendor.depot.content().get(&ours.agreed.sbom, u64::MAX).unwrap();
    let sbom: serde_json::Value = serde_json::from_slice(&sbom).unwrap();
    let components = sbom["components"].as_array().unwrap();
    assert_eq!(components.len(), ours.inputs.iter().filter(|item| item.kind != Kind::Source).count());
    ours
}

#[test]
fn the_wheel_equals_the_published_one() {
    let record = rebuilt("pysigma");
    assert_eq!(record.agreed.outputs.len(), 1);
}

#[test]
fn the_c_library_equals_debians_packages() {
    let record = rebuilt("cjson");
    assert_eq!(record.agreed.outputs.len(), 2);
}

#[test]
fn the_rust_program_is_the_same_for_both() {
    let record = rebuilt("hexyl");
    assert!(record.inputs_of(Kind::Crate).count() >= 10);
}

/// Two builds of minutes; what goes into them is compared in every run.
#[test]
fn the_verifier_itself_is_the_same_for_both() {
    if Breadth::of_this_run() == Breadth::Full {
        assert!(rebuilt("clerestory-verify").git.is_some());
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    let prepared = ["vendor", "supervisor"].map(|name| {
        let organisation = Organisation::new(name);
        let product = current(&organisation, "clerestory-verify", scratch.path());
        organisation.prepare(&product, &repository()).unwrap()
    });
    let [ours, theirs] = prepared.map(|prepared| prepared.fetched.items);
    assert!(ours.iter().any(|item| item.kind == Kind::Crate));
    assert_eq!(ours, theirs);
}
