//! Misuse, one file for each case (`tests/cmd`), and misuse that needs files with modes.

use std::os::unix::fs::PermissionsExt as _;

use stdx::durable;

use crate::process::run;
use crate::system::System;

#[test]
fn each_misuse_says_what_to_do() {
    trycmd::TestCases::new().case("tests/cmd/*.trycmd");
}

#[test]
fn keys_are_private_and_never_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let generate = ["key", "generate", "--name", "a.example/b", "b.key"];
    let made = run(folder.path(), &generate).ok().stdout;
    assert_eq!(run(folder.path(), &["key", "show", "b.key"]).ok().stdout, made);
    assert_eq!(std::fs::read_to_string(folder.path().join("b.pub")).unwrap(), made);
    let path = folder.path().join("b.key");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let again = run(folder.path(), &generate);
    assert_eq!((again.code, again.stderr.contains("hint: a key is never overwritten")), (1, true), "{again:?}");

    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
    let open = run(folder.path(), &["key", "show", "b.key"]);
    assert_eq!((open.code, open.stderr.contains("can be read by others")), (1, true), "{open:?}");
    durable::write_private(&path, b"not a key\n").unwrap();
    let wrong = run(folder.path(), &["key", "show", "b.key"]);
    insta::assert_snapshot!(wrong.stderr, @r"
    error: `b.key` holds no signer key: the signer key is not of the form PRIVATE+KEY+name+id+base64
    hint: a key file is one line that begins with PRIVATE+KEY; `clerestory key generate` makes one
    ");
    assert!(!wrong.stderr.contains("not a key\n"), "content of a key file is never shown");
}

#[test]
fn a_store_is_never_created_over_another() {
    let folder = tempfile::tempdir().unwrap();
    let init = ["init", "witness", "--dir", "w", "--organisation", "w"];
    run(folder.path(), &init).ok();
    let again = run(folder.path(), &init);
    assert_eq!(again.code, 1);
    insta::assert_snapshot!(again.stderr, @r"
    error: `w` is not empty
    hint: stores and keys are never created over something else; choose another folder
    ");
    let system = System::made();
    let again = system.run(&["log", "create", "--config", "vendor/clerestory.toml"]);
    assert_eq!(again.code, 1);
    insta::assert_snapshot!(again.stderr, @"error: no log was made: the log exists already");
}

#[test]
fn a_role_that_can_not_start_says_why() {
    let mut system = System::made();
    // No listening socket on standard input.
    let done = system.run(&["serve", "--config", "w1/clerestory.toml"]);
    assert_eq!(done.code, 2);
    assert!(done.stderr.contains("error: standard input is no listening socket"), "{done:?}");

    // The wrong key for the log.
    let config = system.file("vendor/clerestory.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    durable::write(&config, text.replace("keys/log.key", "keys/builder.key").as_bytes()).unwrap();
    system.vendor.start();
    let done = system.vendor.wait();
    assert_eq!(done.code, 1);
    assert!(done.stderr.contains("the policy names no log `vendor.example/builder` of `vendor`"), "{done:?}");
    durable::write(&config, text.as_bytes()).unwrap();

    // A store that is gone.
    std::fs::remove_dir_all(system.file("vendor/log")).unwrap();
    system.vendor.start();
    let done = system.vendor.wait();
    assert_eq!(done.code, 1);
    assert!(done.stderr.contains("is no store of objects"), "{done:?}");

    // A log that was never made.
    empty_stores(&system);
    system.vendor.start();
    let done = system.vendor.wait();
    assert_eq!(done.code, 1);
    assert!(done.stderr.contains("hint: `clerestory log create --config FILE` makes the log, once"), "{done:?}");
}

/// What `init` makes: stores without a log in them.
fn empty_stores(system: &System) {
    let state = system.file("vendor/state.sqlite");
    for suffix in ["", "-wal", "-shm"] {
        durable::remove(&system.file(&format!("vendor/state.sqlite{suffix}"))).unwrap();
    }
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        storage::FileObjects::create(&system.file("vendor/log")).await.unwrap();
        storage::SqliteStore::create(&state).await.unwrap().close().await;
    });
}
