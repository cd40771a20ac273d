//! The stage that enters new namespaces. It must be a process of one thread, hence a stage.

use std::os::unix::process::ExitStatusExt;
use std::process::Command;

use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, configure_capability_in_ambient_set, set_capabilities,
};

use crate::descriptors;
use crate::error::{SandboxError, isolation, lost};
use crate::wire::{self, Identity, Mapper, Message, Order};

/// Unshares, lets the user namespace be mapped, and starts the first process inside.
pub(crate) fn unshare_and_wait() -> Result<(), SandboxError> {
    let control = descriptors::control().map_err(lost("control"))?;
    match enter(&control) {
        Ok(()) => Ok(()),
        Err(error) => wire::send(&control, &Message::Failed(error)).map_err(lost("telling a failure")),
    }
}

fn enter(control: &std::os::unix::net::UnixStream) -> Result<(), SandboxError> {
    prctl::set_pdeathsig(Signal::SIGKILL).map_err(isolation("death signal"))?;
    let gone = || SandboxError::Lost { problem: "the supervisor is gone".to_owned() };
    let identity: Identity = wire::receive(control).map_err(lost("identity"))?.ok_or_else(gone)?;
    if identity.mapper == Mapper::Supervisor {
        // Without this, root's other groups would still open doors on the host.
        nix::unistd::setgroups(&[]).map_err(isolation("dropping groups"))?;
    }
    // Alone first, so that its refusal can be told from that of the others.
    unshare(CloneFlags::CLONE_NEWUSER).map_err(forbidden)?;
    unshare(
        CloneFlags::CLONE_NEWNS
            | CloneFlags::CLONE_NEWPID
            | CloneFlags::CLONE_NEWNET
            | CloneFlags::CLONE_NEWUTS
            | CloneFlags::CLONE_NEWIPC
            | CloneFlags::CLONE_NEWCGROUP,
    )
    .map_err(isolation("mount, PID, network, UTS, IPC and cgroup namespaces"))?;
    if identity.mapper == Mapper::Itself {
        write_maps("/proc/self", &identity).map_err(forbidden)?;
    }
    wire::send(control, &Message::Unshared).map_err(lost("supervisor"))?;
    match wire::receive(control).map_err(lost("supervisor"))? {
        Some(Order::Mapped) => {}
        _ => return Err(gone()),
    }
    keep_capabilities()?;
    let status = Command::new("/proc/self/exe")
        .arg("init")
        .env_clear()
        .status()
        .map_err(isolation("first process of the namespace"))?;
    if status.success() {
        return Ok(());
    }
    Err(SandboxError::Lost {
        problem: match status.signal() {
            Some(signal) => format!("the first process inside was ended by signal {signal}"),
            None => format!("the first process inside failed ({status})"),
        },
    })
}

/// Maps one user and one group; no other exists inside.
pub(crate) fn write_maps(process: &str, identity: &Identity) -> Result<(), Errno> {
    // The kernel takes a map only in one write, and only one time.
    let write = |file: &str, text: String| {
        let path = format!("{process}/{file}");
        let opened = std::fs::OpenOptions::new().write(true).open(path);
        opened
            .and_then(|mut file| std::io::Write::write_all(&mut file, text.as_bytes()))
            .map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or_default()))
    };
    write("setgroups", "deny".to_owned())?;
    write("uid_map", format!("{} {} 1", identity.inside.uid, identity.host.uid))?;
    write("gid_map", format!("{} {} 1", identity.inside.gid, identity.host.gid))
}

/// Ambient capabilities survive the `exec` of a user that is not root inside.
fn keep_capabilities() -> Result<(), SandboxError> {
    let failed = || isolation("capabilities in the user namespace");
    let held = capabilities(None).map_err(failed())?;
    let sets = CapabilitySets { inheritable: held.permitted, ..held };
    set_capabilities(None, sets).map_err(failed())?;
    for capability in held.permitted.intersection(CapabilitySet::all()).iter() {
        configure_capability_in_ambient_set(capability, true).map_err(failed())?;
    }
    Ok(())
}

pub(crate) fn forbidden(error: Errno) -> SandboxError {
    let read = |name: &str| {
        let text = std::fs::read_to_string(format!("/proc/sys/{}", name.replace('.', "/"))).ok()?;
        Some((name.to_owned(), text.trim().to_owned()))
    };
    let culprit = [
        ("user.max_user_namespaces", "0"),
        ("kernel.unprivileged_userns_clone", "0"),
        ("kernel.apparmor_restrict_unprivileged_userns", "1"),
    ]
    .iter()
    .find_map(|(name, bad)| read(name).filter(|(_, value)| value == bad));
    let setting = culprit.map_or_else(
        || "user.max_user_namespaces, or the container around us".to_owned(),
        |(name, value)| format!("{name} = {value}"),
    );
    SandboxError::Forbidden { setting, problem: error.to_string() }
}
