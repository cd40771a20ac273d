//! Locks that upstream's index contradicts, pins that left it, caches that lie, and working offline.

use std::fs;
use std::path::Path;
use std::sync::Mutex;

use assembly::{
    Asking, BuildError, Conditions, ContentStore, Depot, Event, Fetched, InputsError, Product, Progress, Resolved,
    Silent, Transport, pin,
};
use stdx::{Digest, durable};

use crate::bench::{Organisation, copy_of, current, repository};

/// Changes the lock of a product's copy.
fn with_lock(folder: &Path, change: impl FnOnce(&str) -> String) -> Product {
    let path = folder.join("assembly.lock");
    let text = change(&fs::read_to_string(&path).unwrap());
    durable::write(&path, text.as_bytes()).unwrap();
    Product::open(folder).unwrap()
}

/// The first digest on a line that has `word`, replaced.
fn poison(text: &str, word: &str) -> String {
    let line = text.lines().find(|line| line.contains(word)).unwrap();
    let (head, _) = line.split_once("sha256 = \"").unwrap();
    text.replace(line, &format!("{head}sha256 = \"{}\" }},", Digest::of(b"poison")))
}

fn ask(organisation: &Organisation, product: &Product) -> InputsError {
    Resolved::ask(&organisation.depot, product, Asking::Upstream, &Silent).unwrap_err()
}

#[test]
fn a_lock_that_upstream_contradicts_is_refused() {
    let supervisor = Organisation::new("supervisor");
    let vendor = Organisation::new("vendor");
    let poisoned = [
        ("pysigma", "name = \"dash\""),
        ("pysigma", "pysigma-2.0.1.tar.gz"),
        ("pysigma", "pysigma-2.0.1-py3-none-any.whl"),
        ("pysigma", "poetry_core"),
        ("hexyl", "hexyl-0.16.0.crate"),
    ];
    for name in ["pysigma", "hexyl"] {
        let scratch = tempfile::tempdir().unwrap();
        let folder = current(&vendor, name, scratch.path()).folder;
        let honest = fs::read_to_string(folder.join("assembly.lock")).unwrap();
        for (_, word) in poisoned.iter().filter(|(product, _)| *product == name) {
            let product = with_lock(&folder, |_| poison(&honest, word));
            let error = ask(&supervisor, &product);
            let locked = Digest::of(b"poison");
            assert!(matches!(&error, InputsError::Differs { locked: got, .. } if *got == locked), "{error}");
        }
    }
}

#[test]
fn a_pin_that_left_the_archive_is_pinned_anew_visibly() {
    let vendor = Organisation::new("vendor");
    let scratch = tempfile::tempdir().unwrap();
    let folder = copy_of("pysigma", scratch.path());
    let product = with_lock(&folder, |text| {
        let line = text.lines().find(|line| line.contains("name = \"dash\"")).unwrap();
        text.replace(line, &line.replace("version = \"", "version = \"0.1."))
    });
    let error = ask(&vendor, &product);
    assert!(matches!(error, InputsError::Superseded { .. }), "{error}");
    assert!(error.to_string().contains("dash") && error.to_string().contains("assembly pin"), "{error}");

    let pinned = pin(&vendor.depot, &folder, &Silent).unwrap();
    assert!(pinned.changes.iter().any(|line| line.starts_with("~ package dash:amd64 0.1.")), "{:?}", pinned.changes);
    let product = Product::open(&folder).unwrap();
    Resolved::ask(&vendor.depot, &product, Asking::Upstream, &Silent).unwrap();
    assert_eq!(pin(&vendor.depot, &folder, &Silent).unwrap().changes, Vec::<String>::new());
}

/// Hears everything.
#[derive(Default)]
struct Heard(Mutex<Vec<Event>>);

impl Progress for Heard {
    fn event(&self, event: Event) {
        self.0.lock().unwrap().push(event);
    }
}

/// A product of one sdist and no environment of packages.
fn sdist_only(scratch: &Path) -> Product {
    let folder = copy_of("pysigma", scratch);
    let path = folder.join("assembly.toml");
    let text = fs::read_to_string(&path).unwrap();
    let (head, rest) = text.split_once("[environment]").unwrap();
    let (_, build) = rest.split_once("[build]").unwrap();
    durable::write(&path, format!("{head}[environment]\nkind = \"host\"\n[build]{build}").as_bytes()).unwrap();
    with_lock(&folder, |text| text.split("wheels = [").next().unwrap().to_owned())
}

#[test]
fn a_shared_cache_that_lies_is_not_believed_and_a_second_run_asks_nobody() {
    let scratch = tempfile::tempdir().unwrap();
    let product = sdist_only(scratch.path());
    let digest = product.lock.source[0].sha256;
    let shared = ContentStore::create(&scratch.path().join("shared")).unwrap();
    let name = digest.to_string();
    let lie = scratch.path().join("shared").join(&name[..2]).join(&name[2..]);
    fs::create_dir_all(lie.parent().unwrap()).unwrap();
    durable::write(&lie, b"poison").unwrap();

    let depot = Depot::create(&scratch.path().join("depot"), Transport::Shared(shared)).unwrap();
    let never = Resolved::ask(&depot, &product, Asking::Recorded, &Silent).unwrap_err();
    assert!(matches!(never, InputsError::NeverResolved), "{never}");
    let resolved = Resolved::ask(&depot, &product, Asking::Upstream, &Silent).unwrap();
    let fetched = Fetched::fetch(&depot, &product, &resolved, None, Asking::Upstream, &Silent).unwrap();
    assert!(!depot.content().get(&digest, u64::MAX).unwrap().is_empty());

    let heard = Heard::default();
    let recorded = Resolved::ask(&depot, &product, Asking::Recorded, &heard).unwrap();
    assert_eq!(recorded, resolved);
    let again = Fetched::fetch(&depot, &product, &recorded, None, Asking::Recorded, &heard).unwrap();
    assert_eq!(again.source.digest, fetched.source.digest);
    assert_eq!(*heard.0.lock().unwrap(), [], "no index was asked, nothing was fetched");
}

#[test]
fn failed_builds_say_what_happened() {
    let vendor = Organisation::new("vendor");
    let scratch = tempfile::tempdir().unwrap();
    let mut product = current(&vendor, "pysigma", scratch.path());
    let prepared = vendor.prepare(&product, &repository()).unwrap();
    let mut build = |script: &str| {
        product.recipe.build.script = script.to_owned();
        vendor.build(&product, &prepared, &Conditions::plain()).unwrap_err()
    };
    let error = build("echo on purpose >&2; exit 3");
    assert!(error.to_string().contains("failed with code 3\non purpose"), "{error}");
    let BuildError::Failed(failed) = &error else { panic!("{error}") };
    assert_eq!(vendor.depot.content().get(&failed.log, 1_000).unwrap(), b"on purpose\n");

    let error = build("true");
    assert!(matches!(&error, BuildError::NoOutput { path, .. } if path.ends_with(".whl")), "{error}");
    // A link where the output should be is followed inside only, and what it finds is not a wheel of ours.
    let error = build("mkdir -p \"$BUILD/dist\"; ln -s /etc \"$BUILD/dist/pysigma-$VERSION-py3-none-any.whl\"");
    assert!(matches!(error, BuildError::NoOutput { .. }), "{error}");
    let error = build("python3 -c 'import socket; socket.create_connection((\"192.0.2.1\", 80), 1)'");
    // Landlock refuses before the empty network namespace would.
    assert!(error.to_string().contains("PermissionError"), "{error}");
    let error = build("python3 -c 'import socket; socket.socket(2, 2).sendto(b\"x\", (\"192.0.2.1\", 53))'");
    assert!(error.to_string().contains("Network is unreachable"), "{error}");
    let error = build("echo x > /usr/bin/cc");
    assert!(error.to_string().contains("Read-only file system"), "{error}");
}
