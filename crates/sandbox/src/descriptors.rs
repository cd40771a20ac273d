//! Descriptors: closing what was inherited, finding our socket, passing a folder.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};

/// Closes every descriptor above 2, whatever the caller left open across `exec`.
///
/// The first thing each stage does, before it has any of its own.
pub(crate) fn close_inherited() -> io::Result<()> {
    let mut open = Vec::new();
    for entry in std::fs::read_dir("/proc/self/fd")? {
        let name = entry?.file_name();
        let number: Option<i32> = name.to_str().and_then(|name| name.parse().ok());
        open.extend(number.filter(|number| *number > 2));
    }
    for number in open {
        // The listing's own descriptor is among them and closed already.
        let _ = nix::unistd::close(number);
    }
    Ok(())
}

/// The socket to the stage above, which is every stage's standard input.
///
/// The copy closes on `exec`, so no later stage inherits it by accident.
pub(crate) fn control() -> io::Result<UnixStream> {
    Ok(UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?))
}

pub(crate) fn send_folder(to: &UnixStream, folder: BorrowedFd<'_>) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let folders = [folder];
    if !ancillary.push(SendAncillaryMessage::ScmRights(&folders)) {
        return Err(io::Error::other("no room for a descriptor"));
    }
    sendmsg(to, &[IoSlice::new(b"F")], &mut ancillary, SendFlags::NOSIGNAL)?;
    Ok(())
}

pub(crate) fn receive_folder(from: &UnixStream) -> io::Result<OwnedFd> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    recvmsg(from, &mut [IoSliceMut::new(&mut byte)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(mut folders) = message
            && let Some(folder) = folders.next()
        {
            return Ok(folder);
        }
    }
    Err(io::Error::other("no folder came"))
}
