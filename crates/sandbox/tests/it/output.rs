//! What comes out of the output folder, and what does not.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use sandbox::{Cancel, Copied, Job, Output, Sandbox, SandboxError, Status};

use crate::place::{Place, Way};

fn with_output(place: &Place, script: &str) -> Job {
    let mut job = place.script(script);
    job.folder = "/out".into();
    job.output = Some(Output { inside: "/out".into(), to: place.path("results/out") });
    job
}

fn place() -> Place {
    let place = Place::new();
    place.make_folder("results");
    fs::set_permissions(place.path("results"), fs::Permissions::from_mode(0o777)).unwrap();
    place
}

fn removed(place: &Place) {
    fs::remove_dir_all(place.path("results/out")).unwrap();
}

#[test]
fn files_folders_and_links_are_copied() {
    let place = place();
    let script = "mkdir -p a/b && echo one > a/b/one && echo two > two && chmod 700 two && \
        ln -s b/one a/link && ln -s ../two a/up && ln two a/hard && mkdir closed && \
        echo x > closed/x && chmod 000 closed/x closed && truncate -s 1M sparse";
    let job = with_output(&place, script);
    place.every_way(&job, |way, outcome| {
        assert_eq!(outcome.status, Status::Exited(0), "{way:?}: {outcome:#?}");
        let copied = Copied { entries: 10, bytes: 4 + 4 + 4 + 2 + (1 << 20) };
        assert_eq!(outcome.output, Some(copied));
        let out = place.path("results/out");
        assert_eq!(fs::read_to_string(out.join("a/link")).unwrap(), "one\n");
        assert_eq!(fs::read_to_string(out.join("a/up")).unwrap(), "two\n");
        assert_eq!(fs::read_to_string(out.join("closed/x")).unwrap(), "x\n");
        let mode = |name: &str| fs::metadata(out.join(name)).unwrap().permissions().mode() & 0o7777;
        assert_eq!((mode("two"), mode("a/b/one"), mode("closed")), (0o755, 0o644, 0o755));
        removed(&place);
    });
}

#[test]
fn nothing_comes_out_of_a_failure() {
    let place = place();
    let job = with_output(&place, "echo x > x; exit 3");
    place.every_way(&job, |way, outcome| {
        assert_eq!(outcome.status, Status::Exited(3), "{way:?}");
        assert_eq!(outcome.output, None);
        assert!(!place.path("results/out").exists());
    });
}

#[test]
fn what_is_no_file_is_refused() {
    let place = place();
    for (script, path) in [
        ("ln -s /etc/passwd link", "link"),
        ("mkdir a; ln -s ../../root a/link", "a/link"),
        ("ln -s .. link", "link"),
        ("mkfifo pipe", "pipe"),
        ("perl -MIO::Socket::UNIX -e 'IO::Socket::UNIX->new(Local => \"socket\", Listen => 1)'", "socket"),
    ] {
        place.every_way(&with_output(&place, script), |way, outcome| {
            let Status::BadOutput { path: found, .. } = &outcome.status else {
                panic!("{way:?} {script}: {outcome:#?}")
            };
            assert_eq!(found.to_str().unwrap(), path);
            assert!(!place.path("results/out").exists());
        });
    }
}

#[test]
fn a_link_to_a_secret_gives_nothing_away() {
    let place = place();
    let secret = place.make_file("secret", "secret");
    // Also when the folder itself is replaced, or the link is made by a daemon at the last moment.
    let script = format!("ln -s {} innocent; (sleep 0.01; ln -sf / late) & exit 0", secret.display());
    let outcome = place.run(Way::OwnWithout, &with_output(&place, &script));
    assert!(matches!(outcome.status, Status::BadOutput { .. }), "{outcome:#?}");
    assert!(!place.path("results/out").exists());
}

#[test]
fn depth_and_size_are_bounded() {
    let place = place();
    let deep = "for i in $(seq 100); do mkdir d && cd d; done";
    place.every_way(&with_output(&place, deep), |way, outcome| {
        assert!(matches!(outcome.status, Status::BadOutput { .. }), "{way:?}: {outcome:#?}");
    });
    // Each file is allowed; what they seem to hold together is not.
    let sparse = "for i in 1 2 3 4 5 6 7 8; do truncate -s 20M $i; done";
    place.every_way(&with_output(&place, sparse), |way, outcome| {
        assert_eq!(outcome.status, Status::DiskLimit, "{way:?}: {outcome:#?}");
        assert!(!place.path("results/out").exists());
    });
}

#[test]
fn the_destination_must_be_new() {
    let place = place();
    let run = || Sandbox::new(place.program()).run(&with_output(&place, "true"), &Cancel::default(), &mut |_| {});
    fs::create_dir(place.path("results/out")).unwrap();
    assert!(matches!(run().unwrap_err(), SandboxError::Output { .. }));
    assert!(place.path("results/out").exists());
    removed(&place);
    place.make_folder("elsewhere");
    symlink(place.path("elsewhere"), place.path("results/out")).unwrap();
    assert!(matches!(run().unwrap_err(), SandboxError::Output { .. }));
    assert_eq!(fs::read_dir(place.path("elsewhere")).unwrap().count(), 0);
}
