//! What must not be possible inside.

use std::fs;
use std::net::{TcpListener, UdpSocket};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::{SocketAddr, UnixListener};
use std::process::{Command, Stdio};

use sandbox::{Access, Layout, Mount, Network, Outcome, Status, Writing};

use crate::place::{Place, Way, is_root};

/// Runs `hostile` once for each of `attempts`, in one sandbox; each must be refused.
fn all_refused(place: &Place, attempts: &[&str], prepare: impl Fn(&mut sandbox::Job)) {
    let script: String =
        attempts.iter().map(|attempt| format!("/hostile/hostile {attempt} || echo NOT REFUSED: {attempt}\n")).collect();
    for uid in [1000, 0] {
        let mut job = place.script(&script);
        job.user.uid = uid;
        prepare(&mut job);
        place.every_way(&job, |way, outcome| {
            assert_eq!(outcome.stdout.to_text(), "", "{way:?} {uid}: {outcome:#?}");
            assert_eq!(outcome.status, Status::Exited(0), "{way:?}: {outcome:#?}");
        });
    }
}

#[test]
fn forbidden_calls() {
    let place = Place::new();
    all_refused(
        &place,
        &[
            "mount",
            "umount",
            "open_tree",
            "fsopen",
            "chroot",
            "pivot_root",
            "unshare",
            "setns",
            "clone",
            "clone-net",
            "clone3",
            "x32",
            "ptrace",
            "vm_readv",
            "pidfd_getfd",
            "bpf",
            "perf",
            "keyctl",
            "add_key",
            "io_uring",
            "userfaultfd",
            "module",
            "kexec",
            "reboot",
            "handle",
            "sethostname",
            "settime",
            "prlimit",
            "kill-init",
            "tiocsti",
            "tiocsti-high",
            "tty",
            "mknod",
            "setuid",
            "netlink",
            "packet",
            "vsock",
            "memfd",
            "shmget",
            "dumpable-init",
            "descriptors",
            "core",
        ],
        |_| {},
    );
}

#[test]
fn writes_outside() {
    let place = Place::new();
    place.make_folder("shared");
    place.make_file("shared/kept", "kept");
    fs::set_permissions(place.path("shared"), fs::Permissions::from_mode(0o777)).unwrap();
    fs::set_permissions(place.path("shared/kept"), fs::Permissions::from_mode(0o666)).unwrap();
    fs::set_permissions(place.path("root/etc"), fs::Permissions::from_mode(0o777)).unwrap();
    let shared = place.path("shared");
    all_refused(
        &place,
        &[
            "write /x",
            "mkdir /x",
            "write /usr/x",
            "write /etc/x",
            "write /shared/kept",
            "write /shared/new",
            "write /proc/sys/kernel/core_pattern",
            "write /proc/sys/kernel/hostname",
            "write /proc/sys/user/max_user_namespaces",
            "write /proc/sys/kernel/pid_max",
            "write /proc/sysrq-trigger",
            "write /proc/1/oom_score_adj",
            "write /proc/self/uid_map",
            // Refused by landlock alone.
            "write /proc/self/comm",
            "write /dev/x",
            "read /proc/1/root/etc/passwd",
            "read /proc/1/cwd",
            "read /proc/1/fd/0",
            "read /proc/1/mem",
            "read /sys/kernel",
            "read /root",
            "read /home",
            "read /dev/mem",
            "write /proc/self/root/usr/x",
        ],
        |job| {
            let mount = Mount { source: shared.clone(), target: "/shared".into(), access: Access::ReadOnly };
            job.mounts.push(mount);
        },
    );
    assert_eq!(fs::read_to_string(place.path("shared/kept")).unwrap(), "kept");
    assert_eq!(fs::read_dir(place.path("shared")).unwrap().count(), 1);
}

#[test]
fn the_network() {
    let place = Place::new();
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let name = format!("sandbox-test-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let local = UnixListener::bind_addr(&address).unwrap();
    let attempts = [
        format!("tcp {}", tcp.local_addr().unwrap().port()),
        format!("udp {}", udp.local_addr().unwrap().port()),
        format!("abstract {name}"),
        "dns".to_owned(),
    ];
    let attempts: Vec<&str> = attempts.iter().map(String::as_str).collect();
    for network in [Network::Empty, Network::Loopback] {
        // On its own loopback a datagram to nobody is sent and lost, so only arrival counts.
        let tried = if network == Network::Empty { &attempts[..] } else { &attempts[2..] };
        all_refused(&place, tried, |job| job.network = network);
    }
    let mut job = place.hostile(&attempts[1].split(' ').collect::<Vec<_>>());
    job.network = Network::Loopback;
    place.every_way(&job, |_, _| {});
    tcp.set_nonblocking(true).unwrap();
    udp.set_nonblocking(true).unwrap();
    local.set_nonblocking(true).unwrap();
    assert_eq!(tcp.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    assert_eq!(udp.recv(&mut [0; 8]).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    assert_eq!(local.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
}

#[test]
fn a_loopback_of_its_own() {
    let place = Place::new();
    let mut job = place.hostile(&["loopback"]);
    place.every_way(&job, |way, outcome| assert_eq!(outcome.status, Status::Exited(1), "{way:?}"));
    job.network = Network::Loopback;
    place.every_way(&job, |way, outcome| {
        assert_eq!(outcome.status, Status::Exited(0), "{way:?}: {outcome:#?}");
    });
}

#[test]
fn descriptors_of_the_caller() {
    let place = Place::new();
    let secret = place.make_file("secret", "the secret");
    let mut job = place.script("cat <&9; cat /proc/self/fd/9; /hostile/hostile descriptors");
    job.cgroups = sandbox::Cgroups::Without;
    let path = place.make_file("job.json", &serde_json::to_string(&job).unwrap());
    let ran = Command::new("sh")
        .args(["-c", "exec 9<\"$1\"; exec \"$2\" run \"$3\"", "sh"])
        .args([secret, place.program(), path])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let outcome: Outcome = serde_json::from_slice(&ran.stdout).unwrap();
    assert_eq!(outcome.status, Status::Exited(0), "{outcome:#?}");
    assert_eq!(outcome.stdout.to_text(), "");
    assert!(outcome.stderr.to_text().contains("9"), "{outcome:#?}");
}

#[test]
fn processes_of_the_host() {
    let place = Place::new();
    let ours = std::process::id().to_string();
    let mut job = place.hostile(&["kill", &ours]);
    place.every_way(&job, |way, outcome| assert_eq!(outcome.status, Status::Exited(0), "{way:?}"));
    job = place.script("set -- /proc/[0-9]*; echo $#; kill -9 -1; echo after");
    // Itself and the first process; `kill -1` ends what it may: none but itself.
    place.every_way(&job, |way, outcome| {
        assert!(outcome.stdout.to_text().starts_with("2\n"), "{way:?}: {outcome:#?}");
    });
}

#[test]
fn setuid_programs_gain_nothing() {
    if !is_root() {
        // Only root can make one that would matter.
        return;
    }
    let place = Place::new();
    let id = place.path("root/work/id");
    fs::copy("/usr/bin/id", &id).unwrap();
    fs::set_permissions(&id, fs::Permissions::from_mode(0o6755)).unwrap();
    let script = "echo $(/work/id -u) $(/work/id -ru); grep -E 'Cap(Prm|Eff|Bnd|Amb)|NoNewPrivs' /proc/self/status";
    place.every_way(&place.script(script), |way, outcome| {
        let text = outcome.stdout.to_text();
        assert!(text.starts_with("1000 1000\n"), "{way:?}: {outcome:#?}");
        assert_eq!(text.matches("0000000000000000").count(), 4, "{text}");
        assert!(text.contains("NoNewPrivs:\t1"), "{text}");
    });
}

#[test]
fn the_environment_is_the_jobs() {
    let place = Place::new();
    let mut job = place.script(
        "echo $(id -u) $(hostname) $(pwd) $(umask) $(nproc); env | sort; \
         cat /proc/self/personality 2>/dev/null; cat /proc/self/loginuid >/dev/null; true",
    );
    job.user.uid = 4242;
    job.hostname = "builder-7".to_owned().try_into().unwrap();
    job.folder = "/work".into();
    job.scratch.push("/work".into());
    job.umask = sandbox::Umask(0o027);
    job.processors = std::num::NonZeroU16::new(1);
    job.environment.insert("LC_ALL".to_owned(), "C".to_owned());
    place.every_way(&job, |way, outcome| {
        let text = outcome.stdout.to_text();
        assert!(text.starts_with("4242 builder-7 /work 0027 1\nLC_ALL=C\n"), "{way:?}: {text}");
        assert_eq!(outcome.evidence.hostname.as_str(), "builder-7");
        let host = outcome.evidence.host_user;
        assert_ne!(host.uid, 0);
    });
}

#[test]
fn addresses_are_fixed_unless_random_is_wanted() {
    let place = Place::new();
    let mut job = place.script("grep stack /proc/self/maps");
    let mut seen = |layout| {
        job.layout = layout;
        let all: std::collections::BTreeSet<String> =
            (0..4).map(|_| place.run(Way::OwnWithout, &job).stdout.to_text()).collect();
        all.len()
    };
    assert_eq!(seen(Layout::Fixed), 1);
    assert!(seen(Layout::Random) > 1);
}

#[test]
fn the_evidence_is_true() {
    let place = Place::new();
    let script = "for n in user mnt pid net uts ipc cgroup; do \
        echo $n $(stat -Lc %i /proc/self/ns/$n); done; \
        cat /proc/sys/user/max_user_namespaces /proc/sys/kernel/pid_max";
    place.every_way(&place.script(script), |way, outcome| {
        let text = outcome.stdout.to_text();
        for (name, number) in &outcome.evidence.namespaces {
            assert!(text.contains(&format!("{name} {number}\n")), "{way:?}: {text} {name} {number}");
            let ours = fs::read_link(format!("/proc/self/ns/{name}")).unwrap();
            assert_ne!(ours.to_str().unwrap(), format!("{name}:[{number}]"));
        }
        assert_eq!(outcome.evidence.namespaces.len(), 7);
        let mut settings = text.lines().skip(7);
        assert_eq!(settings.next(), Some("0"), "{text}");
        if let Some(number) = outcome.evidence.pid_max {
            assert_eq!(settings.next(), Some(number.to_string().as_str()), "{text}");
        }
        assert!(outcome.evidence.landlock_abi >= 3);
        let json = serde_json::to_string(&outcome.evidence).unwrap();
        assert_eq!(outcome.evidence, serde_json::from_str(&json).unwrap());
    });
}

#[test]
fn a_tree_full_of_links_leads_nowhere() {
    let place = Place::new();
    place.make_folder("outside");
    fs::set_permissions(place.path("outside"), fs::Permissions::from_mode(0o777)).unwrap();
    symlink(place.path("outside"), place.path("root/build")).unwrap();
    let mut job = place.script("true");
    job.scratch.push("/build".into());
    let error = sandbox::Sandbox::new(place.program()).run(&job, &sandbox::Cancel::default(), &mut |_| {}).unwrap_err();
    assert!(matches!(error, sandbox::SandboxError::Target { .. }), "{error}");
    assert_eq!(fs::read_dir(place.path("outside")).unwrap().count(), 0);
}

#[test]
fn an_overlay_takes_writes_and_forgets_them() {
    let place = Place::new();
    let mut job = place.script("echo new > /etc/new && rm /etc/old && echo more >> /etc/kept && cat /etc/*");
    place.make_file("root/etc/old", "old\n");
    place.make_file("root/etc/kept", "kept\n");
    job.root.writing = Writing::Overlay;
    if is_root() {
        // The tree must belong to the user that the command is.
        for name in ["root", "root/etc", "root/etc/old", "root/etc/kept"] {
            std::os::unix::fs::chown(place.path(name), Some(65_534), Some(65_534)).unwrap();
        }
    }
    place.every_way(&job, |way, outcome| {
        assert_eq!(outcome.status, Status::Exited(0), "{way:?}: {outcome:#?}");
        assert_eq!(outcome.stdout.to_text(), "kept\nmore\nnew\n");
    });
    assert_eq!(fs::read_to_string(place.path("root/etc/kept")).unwrap(), "kept\n");
    assert!(place.path("root/etc/old").exists() && !place.path("root/etc/new").exists());
    job = place.script("cat /dev/zero > /etc/big");
    job.root.writing = Writing::Overlay;
    place.every_way(&job, |way, outcome| {
        assert_eq!(outcome.status, Status::DiskLimit, "{way:?}: {outcome:#?}");
    });
    all_refused(&place, &["write /proc/sys/kernel/core_pattern", "write /usr/x", "mknod", "write /dev/x"], |job| {
        job.root.writing = Writing::Overlay
    });
}
