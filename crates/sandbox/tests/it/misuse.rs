//! Jobs that cannot be run: a clear error, a hint, and nothing left.

use std::process::Command;

use sandbox::{Cancel, HostUser, Job, Output, Sandbox, SandboxError};

use crate::place::{Place, as_nobody, is_root, mount};

fn error(place: &Place, job: &Job) -> SandboxError {
    let error = Sandbox::new(place.program()).run(job, &Cancel::default(), &mut |_| {}).unwrap_err();
    assert!(!error.hint().is_empty());
    error
}

#[test]
fn paths_must_be_absolute_and_normal() {
    let place = Place::new();
    for path in ["", "tmp", "./tmp", "/tmp/", "/tmp/..", "/./tmp", "//tmp", "/t\0mp"] {
        let mut jobs = vec![place.script("true"); 5];
        jobs[0].folder = path.into();
        jobs[1].program = path.into();
        jobs[2].scratch = vec![path.into()];
        jobs[3].mounts[0].target = path.into();
        jobs[4].output = Some(Output { inside: path.into(), to: place.path("out") });
        for job in jobs {
            assert!(matches!(error(&place, &job), SandboxError::Job { .. }), "{path}");
        }
    }
}

#[test]
fn what_is_missing_is_named() {
    let place = Place::new();
    let job = place.job("/bin/no-such-program", &[]);
    let SandboxError::Command { path, .. } = error(&place, &job) else { panic!("{}", error(&place, &job)) };
    assert_eq!(path.to_str().unwrap(), "/bin/no-such-program");
    let mut job = place.script("true");
    job.mounts.push(mount("/no-such-folder", "/x"));
    assert_eq!(
        error(&place, &job).to_string(),
        "cannot mount `/no-such-folder`: No such file or directory (os error 2)"
    );
    let mut job = place.script("true");
    job.root.tree = "/no-such-tree".into();
    assert!(matches!(error(&place, &job), SandboxError::Source { .. }));
    let mut job = place.script("true");
    job.mounts.push(mount("/usr", "/etc/below/read-only"));
    assert!(matches!(error(&place, &job), SandboxError::Target { .. }));
    let mut job = place.script("true");
    job.folder = "/no/such/folder".into();
    assert!(matches!(error(&place, &job), SandboxError::Target { .. }));
    let missing = Sandbox::new("/no-such-program");
    let error = missing.run(&place.script("true"), &Cancel::default(), &mut |_| {}).unwrap_err();
    assert!(matches!(error, SandboxError::Program { .. }), "{error}");
}

#[test]
fn a_source_with_mounts_below_is_refused() {
    let place = Place::new();
    let mut job = place.script("true");
    // Everywhere, something is mounted below /dev or /proc.
    job.mounts.push(mount("/", "/host"));
    assert!(matches!(error(&place, &job), SandboxError::Source { .. }), "{}", error(&place, &job));
}

#[test]
fn an_overlay_over_somebody_elses_tree() {
    let place = Place::new();
    let mut job = place.script("true");
    job.root.tree = "/usr".into();
    job.root.writing = sandbox::Writing::Overlay;
    let error = error(&place, &job);
    assert!(error.to_string().starts_with("cannot mount `/usr`: it belongs to user 0"), "{error}");
}

#[test]
fn nobody_is_root_on_the_host() {
    let place = Place::new();
    let mut job = place.script("true");
    job.host_user = HostUser::Chosen { uid: 0, gid: 0 };
    assert!(matches!(error(&place, &job), SandboxError::Job { .. }));
    let ran = place.run_as_nobody(&job);
    assert!(!ran.status.success());
    if is_root() {
        job.host_user = HostUser::Chosen { uid: 4321, gid: 4321 };
        let outcome = Sandbox::new(place.program()).run(&job, &Cancel::default(), &mut |_| {}).unwrap();
        assert_eq!(outcome.evidence.host_user.uid, 4321);
        let ran = place.run_as_nobody(&job);
        let said = String::from_utf8_lossy(&ran.stderr).into_owned();
        assert!(said.contains("only root may choose another user"), "{said}");
    }
}

#[test]
fn a_machine_without_user_namespaces() {
    let place = Place::new();
    let job = place.script("true");
    let path = place.make_file("job.json", &serde_json::to_string(&job).unwrap());
    // A user namespace in which the next one is forbidden, as on a hardened machine.
    let script = "echo 0 > /proc/sys/user/max_user_namespaces && exec \"$0\" run \"$1\"";
    let ran = as_nobody("unshare".as_ref())
        .args(["--user", "--map-user=1000", "--keep-caps", "sh", "-c", script])
        .args([place.program(), path])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&ran.stderr).into_owned();
    assert_eq!(ran.status.code(), Some(1), "{said}");
    assert!(said.contains("forbids user namespaces (user.max_user_namespaces = 0)"), "{said}");
    assert!(said.contains("hint: an administrator allows them with `sysctl -w"), "{said}");
}

#[test]
fn the_program_tells_its_usage() {
    let place = Place::new();
    for arguments in [&[][..], &["run"], &["fly"]] {
        let ran = Command::new(place.program()).args(arguments).output().unwrap();
        assert_eq!(ran.status.code(), Some(2));
        let said = String::from_utf8_lossy(&ran.stderr).into_owned();
        assert!(said.starts_with("usage: clerestory-sandbox run JOB.json\n"), "{said}");
    }
    let path = place.make_file("job.json", "{\"root\": 1}");
    let ran = Command::new(place.program()).arg("run").arg(&path).output().unwrap();
    assert_eq!(ran.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&ran.stderr).contains("job.json` is no job"));
}
