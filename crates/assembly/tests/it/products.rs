//! Each product of `products/`, built by two organisations that asked upstream each by itself,
//! under different conditions: the same bytes, and those that others published.

use std::sync::Mutex;

use assembly::{BuildError, BuildRecord, Builder, Conditions, Event, Kind, Made, Progress};
use sandbox::{Cancel, Status};
use testkit::Breadth;

use crate::bench::{Organisation, current, repository, sandbox};

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
    // As after a stop of the builder: it is made again from what is there.
    cancelled("pysigma");
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

/// Cancels the build at its first word.
#[derive(Default)]
struct Impatient {
    cancel: Cancel,
    /// Which processes there were then, and when each began.
    seen: Mutex<Vec<(u32, String)>>,
}

impl Progress for Impatient {
    fn event(&self, event: Event) {
        let mut seen = self.seen.lock().unwrap();
        if matches!(event, Event::Printed { .. }) && seen.is_empty() {
            let children = std::fs::read_to_string("/proc/thread-self/children").unwrap();
            *seen = descendants(&children).into_iter().filter_map(|pid| Some((pid, begun(pid)?))).collect();
            self.cancel.cancel();
        }
    }
}

/// These processes and all below them.
fn descendants(children: &str) -> Vec<u32> {
    let pids: Vec<u32> = children.split_whitespace().map(|pid| pid.parse().unwrap()).collect();
    let below = |pid: &u32| {
        let threads = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
        let children = threads.filter_map(|thread| std::fs::read_to_string(thread.path().join("children")).ok());
        children.flat_map(|children| descendants(&children)).collect::<Vec<_>>()
    };
    let all: Vec<u32> = pids.iter().flat_map(below).collect();
    pids.into_iter().chain(all).collect()
}

/// When a process began, by which it is told from a later one of its number.
fn begun(pid: u32) -> Option<String> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit(')').next()?.split_whitespace().nth(19).map(str::to_owned)
}

/// Cancels a build that is under way: nothing of it is left running.
fn cancelled(name: &str) {
    let scratch = tempfile::tempdir().unwrap();
    let vendor = Organisation::new("vendor");
    let product = current(&vendor, name, scratch.path());
    let prepared = vendor.prepare(&product, &repository()).unwrap();
    let impatient = Impatient::default();
    let builder = Builder { depot: &vendor.depot, sandbox: sandbox(), cancel: impatient.cancel.clone() };
    let (fetched, environment) = (&prepared.fetched, &prepared.environment);
    let outcome = builder.build(&product, fetched, environment, &Conditions::plain(), &impatient);
    let Err(BuildError::Failed(failed)) = outcome else { panic!("{outcome:?}") };
    assert_eq!(failed.status, Status::Cancelled);
    let seen = impatient.seen.into_inner().unwrap();
    assert!(seen.len() >= 3, "the program, the first inside, and the build: {seen:?}");
    for (pid, when) in seen {
        assert_ne!(begun(pid), Some(when), "process {pid} is still there");
    }
}
