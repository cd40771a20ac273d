//! The systemd units: systemd accepts and rates them, and a role that is run by its unit's command
//! line does nothing, under strace, that the unit forbids.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::process::Server;
use crate::raw::get;
use crate::statement::Place;
use crate::system::System;

const ROLES: [&str; 3] = ["vendor", "supervisor", "witness"];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../dist/systemd")
}

pub(crate) fn unit(name: &str) -> String {
    std::fs::read_to_string(folder().join(name)).unwrap()
}

/// The values of a directive, in order.
pub(crate) fn values(unit: &str, directive: &str) -> Vec<String> {
    let lines = unit.lines().filter_map(|line| line.strip_prefix(directive)?.strip_prefix('='));
    lines.map(str::to_owned).collect()
}

fn systemd(arguments: &[&str]) -> (bool, String) {
    let output = Command::new("systemd-analyze").args(arguments).env("LC_ALL", "C").output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(said).unwrap())
}

#[test]
fn systemd_accepts_the_units_and_finds_them_hardened() {
    let copies = tempfile::tempdir().unwrap();
    let mut units: Vec<String> = ROLES.iter().map(|role| format!("clerestory-{role}.service")).collect();
    let others = [
        "relay.service",
        "gateway.service",
        "custodian.service",
        "worker.service",
        "agent.service",
        "agent.timer",
        "guard.service",
        "backup@.service",
        "backup@.timer",
    ];
    units.extend(others.map(|name| format!("clerestory-{name}")));
    for name in &units {
        // The programs are not installed here; some program must be.
        let programs = ["/usr/bin/clerestory-agent", "/usr/bin/clerestory-query", "/usr/bin/clerestory"];
        let text = programs.iter().fold(unit(name), |text, program| text.replace(program, "/bin/true"));
        stdx::durable::write(&copies.path().join(name), text.as_bytes()).unwrap();
    }
    for name in &units {
        let (accepted, said) = systemd(&["verify", "--man=no", copies.path().join(name).to_str().unwrap()]);
        // A template is verified by an instance of it.
        assert!(accepted && !said.contains(name.as_str()), "{name}: {said}");
        if name.ends_with(".service") {
            // In tenths of systemd's exposure, 0 best and 100 worst; builds and scanners need namespaces.
            let confines = name.contains("supervisor") || name.contains("guard");
            let threshold = if confines { "40" } else { "20" };
            let path = copies.path().join(name);
            let arguments = ["security", "--offline=true", "--no-pager", "--threshold", threshold];
            let (within, said) = systemd(&[&arguments[..], &[path.to_str().unwrap()]].concat());
            assert!(within, "{said}");
        }
    }
}

/// The calls of a filter: names, and sets that systemd knows; `~` takes away.
fn allowed_calls(unit: &str) -> BTreeSet<String> {
    let mut allowed = expand("@default");
    for line in values(unit, "SystemCallFilter") {
        let (names, takes) = line.strip_prefix('~').map_or((line.as_str(), false), |names| (names, true));
        for call in names.split_whitespace().flat_map(expand) {
            if takes {
                allowed.remove(&call)
            } else {
                allowed.insert(call)
            };
        }
    }
    allowed
}

fn expand(name: &str) -> BTreeSet<String> {
    if !name.starts_with('@') {
        return [name.to_owned()].into();
    }
    let (known, said) = systemd(&["syscall-filter", "--no-pager", name]);
    assert!(known, "{said}");
    let inside = said.lines().skip(1).map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    inside.flat_map(expand).collect()
}

/// One call of a trace: its name and the whole line.
fn calls(trace: &str) -> Vec<(&str, &str)> {
    let line = |line: &'_ str| -> Option<(usize, usize)> {
        let start = line.find(|c: char| !c.is_ascii_digit() && c != ' ')?;
        Some((start, start + line[start..].find('(')?))
    };
    let found = trace.lines().filter_map(|text| line(text).map(|(start, end)| (&text[start..end], &text[start..])));
    found.filter(|(name, _)| name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')).collect()
}

/// What a role did, compared with what its unit lets it do.
pub(crate) fn check(role: &str, unit: &str, trace: &str, state: &Path) {
    let allowed = allowed_calls(unit);
    let calls = calls(trace);
    assert!(calls.len() > 500, "{role}: the trace is empty");
    let used: BTreeSet<&str> = calls.iter().map(|(name, _)| *name).collect();
    let forbidden: Vec<_> = used.iter().filter(|name| !allowed.contains(**name)).collect();
    assert!(forbidden.is_empty(), "{role}: {forbidden:?}");

    let families = values(unit, "RestrictAddressFamilies").join(" ");
    let mut sockets = BTreeSet::new();
    for (name, line) in &calls {
        match *name {
            "socket" => {
                let family = line.split(['(', ',']).nth(1).unwrap();
                assert!(families.split(' ').any(|it| it == family), "{role}: {line}");
                sockets.insert(family);
            }
            "mmap" | "mprotect" => assert!(!line.contains("PROT_WRITE|PROT_EXEC"), "{role}: {line}"),
            "clone" | "clone3" | "unshare" => assert!(!line.contains("CLONE_NEW"), "{role}: {line}"),
            _ => {}
        }
        let writes = ["O_WRONLY", "O_RDWR", "O_CREAT"].iter().any(|flag| line.contains(flag));
        let changes = ["mkdir", "rename", "unlink", "rmdir", "link", "symlink", "chmod", "truncate"];
        if (name.starts_with("open") && writes) || changes.iter().any(|it| name.starts_with(it)) {
            for path in line.split('"').skip(1).step_by(2) {
                let inside = Path::new(path).starts_with(state) || path == "/dev/null";
                assert!(inside, "{role} changes `{path}`: {line}");
            }
        }
    }
    assert!(!sockets.is_empty() || role == "witness", "{role}: no socket was opened");
}

/// Traces what it is given, as a child of its own, so that signals reach the program.
pub(crate) fn traced(trace: &Path) -> Command {
    let mut command = Command::new("strace");
    command.env_clear().env("PATH", "/usr/bin:/bin").args(["-D", "-f", "-qq", "-s", "512", "-o"]).arg(trace);
    command
}

/// The trace of a program that has ended well: the tracer ends after it.
pub(crate) fn ended(trace: &Path) -> String {
    loop {
        let text = std::fs::read_to_string(trace).unwrap();
        if text.lines().any(|line| line.contains("exit_group(0")) {
            return text;
        }
    }
}

#[test]
fn a_role_does_nothing_that_its_unit_forbids() {
    let mut system = System::made();
    system.witnesses.iter_mut().skip(1).for_each(Server::start);
    let mut traces = BTreeMap::new();
    for role in ROLES {
        let text = unit(&format!("clerestory-{role}.service"));
        let name = if role == "witness" { "w1" } else { role };
        // The unit's own command line, with the paths of this machine.
        let line = values(&text, "ExecStart").concat();
        let state = system.file(name).canonicalize().unwrap();
        let line = line.replace(&format!("/var/lib/clerestory/{role}"), state.to_str().unwrap());
        let mut words = line.split(' ');
        assert_eq!(words.next(), Some("/usr/bin/clerestory"));
        let arguments: Vec<&str> = words.collect();
        let config = arguments.last().unwrap();
        system.run(&["check-config", "--config", config]).ok();
        let trace = system.file(&format!("{role}.trace"));
        let mut command = traced(&trace);
        command.arg(env!("CARGO_BIN_EXE_clerestory")).args(&arguments);
        let server = match role {
            "vendor" => &mut system.vendor,
            "supervisor" => &mut system.supervisor,
            _ => &mut system.witnesses[0],
        };
        server.start_as(command);
        assert_eq!(get(server.address(), "/healthz").status, 200);
        traces.insert(role, (text, trace, state));
    }
    let first = system.beat(&Place::vendor());
    system.beat(&Place::vendor().after(&first));
    system.beat(&Place::supervisor());
    for server in [&system.vendor, &system.supervisor, &system.witnesses[0]] {
        get(server.address(), "/readyz");
    }
    assert_eq!([system.vendor.stop().code, system.supervisor.stop().code], [0, 0]);
    assert_eq!(system.witnesses[0].stop().code, 0);
    for (role, (unit, trace, state)) in traces {
        check(role, &unit, &ended(&trace), &state);
    }
}
