//! A compiler altered in the vendor's root file system: its builds agree with each other, and
//! nothing comes of it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use assembly::{BuildError, Conditions, Environment, EnvironmentError, Links, Product, capture_folder};

use crate::bench::{Organisation, Prepared, current, kept};

/// A tiny program of the vendor's own, built in the C library's environment.
fn own_program(vendor: &Organisation, scratch: &Path) -> (Product, PathBuf) {
    let library = current(vendor, "cjson", scratch);
    let folder = scratch.join("own");
    fs::create_dir(&folder).unwrap();
    let environment = fs::read_to_string(library.folder.join("assembly.toml")).unwrap();
    let start = environment.find("[environment]").unwrap();
    let end = environment.find("[build]").unwrap();
    let recipe = format!(
        "product = \"own\"\nversion = \"1.0\"\n[source]\nkind = \"git\"\n{}\
         [build]\nscript = 'cc -O2 -ffile-prefix-map=\"$BUILD\"=. -o \"$BUILD/own\" own.c'\n\
         [[output]]\nname = \"own\"\npath = \"own\"\n",
        &environment[start..end]
    );
    stdx::durable::write(&folder.join("assembly.toml"), recipe.as_bytes()).unwrap();
    let mut lock = library.lock.clone();
    lock.source.clear();
    lock.published.clear();
    stdx::durable::write(&folder.join("assembly.lock"), lock.to_text().as_bytes()).unwrap();

    let repository = scratch.join("repository");
    fs::create_dir(&repository).unwrap();
    let source = b"#include <stdio.h>\nint main(void) { puts(\"clear\"); return 0; }\n";
    stdx::durable::write(&repository.join("own.c"), source).unwrap();
    for arguments in [&["init", "-q"][..], &["add", "."], &["commit", "-q", "-m", "own"]] {
        let identity = ["-c", "user.name=vendor", "-c", "user.email=vendor@example"];
        let status = Command::new("git").arg("-C").arg(&repository).args(identity).args(arguments).status().unwrap();
        assert!(status.success());
    }
    (Product::open(&folder).unwrap(), repository)
}

/// A copy of the environment (files linked, not copied) whose `cc` adds something to every program.
fn poisoned_copy(honest: &Environment, to: &Path) -> PathBuf {
    let status = Command::new("cp").args(["-al", "--"]).arg(&honest.root).arg(to).status().unwrap();
    assert!(status.success());
    let compiler = to.join("usr/bin/cc");
    fs::remove_file(&compiler).unwrap();
    stdx::durable::write(&compiler, b"#!/bin/sh\nexec gcc -include /usr/include/poison.h \"$@\"\n").unwrap();
    fs::set_permissions(&compiler, fs::Permissions::from_mode(0o755)).unwrap();
    let header =
        b"#include <unistd.h>\n__attribute__((constructor)) static void p(void) { if (getpid() == 1) _exit(7); }\n";
    stdx::durable::write(&to.join("usr/include/poison.h"), header).unwrap();
    to.to_owned()
}

#[test]
fn a_poisoned_compiler_agrees_only_with_itself() {
    // Beside the depots, so that files can be linked.
    let scratch = tempfile::tempdir_in(kept()).unwrap();
    let (vendor, supervisor) = (Organisation::new("vendor"), Organisation::new("supervisor"));
    let (product, repository) = own_program(&vendor, scratch.path());
    let honest = vendor.prepare(&product, &repository).unwrap();
    let root = poisoned_copy(&honest.environment, &scratch.path().join("root"));
    let poisoned = Prepared { environment: Environment::captured(&root).unwrap(), ..honest.clone() };

    let first = vendor.build(&product, &poisoned, &Conditions::plain()).unwrap();
    let second = vendor.build(&product, &poisoned, &Conditions::different(&product.digest)).unwrap();
    assert_eq!(first.agreed, second.agreed, "two builds of one party prove nothing");
    assert!(!first.is_releasable(), "an environment that nobody else has never releases");

    let prepared = supervisor.prepare(&product, &repository).unwrap();
    let theirs = supervisor.build(&product, &prepared, &Conditions::different(&product.digest)).unwrap();
    assert_ne!(first.agreed.outputs, theirs.agreed.outputs, "the supervisor's compiler is upstream's");
    assert_ne!(first.agreed.environment, theirs.agreed.environment);
    assert_eq!(first.agreed.source, theirs.agreed.source);

    // The vendor cannot pass the altered tree off as the honest one to its own builder either.
    let lying = Environment { root, ..honest.environment.clone() };
    let lied = vendor.build(&product, &Prepared { environment: lying, ..honest.clone() }, &Conditions::plain());
    assert!(matches!(lied, Err(BuildError::Environment(EnvironmentError::Changed { .. }))), "{lied:?}");

    // The honest environments of both are one and the same tree.
    assert_eq!(honest.environment.digest, prepared.environment.digest);
    let again = capture_folder(&prepared.environment.root, Links::Rooted, None).unwrap().digest();
    assert_eq!(again, prepared.environment.digest);
}
