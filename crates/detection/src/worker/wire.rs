//! Frames on a Unix socket: a message in JSON, some bytes behind it, and at most one descriptor.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use stdx::{Clock, SystemClock};

/// A file with the most matches that are reported says some 400 KB; 740 rejected files 1 MB.
const MESSAGE_BYTES_MAX: u32 = 16 << 20;

/// A bundle with its index; ten times of what real ones have.
const PAYLOAD_BYTES_MAX: u32 = 256 << 20;

/// Both lengths, 32 bits each, big-endian.
const HEAD: usize = 8;

/// Why a frame could not be sent or read.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// The other side is gone.
    #[error("the other side is gone")]
    Gone,
    /// Nothing came in time.
    #[error("no answer in time")]
    Late,
    /// More than is ever sent or read.
    #[error("a message is longer than is allowed")]
    TooLong,
    /// No message that could have been meant.
    #[error("a message is malformed")]
    Malformed,
    /// The system failed.
    #[error("{0}")]
    System(io::Error),
}

impl From<Errno> for WireError {
    fn from(error: Errno) -> Self {
        match error {
            Errno::PIPE | Errno::CONNRESET => Self::Gone,
            error => Self::System(error.into()),
        }
    }
}

/// A frame that came.
#[derive(Debug)]
pub struct Received<T> {
    /// The message.
    pub message: T,
    /// What came behind it.
    pub payload: Vec<u8>,
    /// What came with it.
    pub descriptor: Option<OwnedFd>,
}

/// One end of the socket pair between a worker's handle and its child; whatever holds it.
#[derive(Debug)]
pub struct Connection<S = UnixStream> {
    socket: S,
    clock: SystemClock,
}

impl<S: AsFd> Connection<S> {
    /// On this socket.
    #[must_use]
    pub fn new(socket: S) -> Self {
        Self { socket, clock: SystemClock::new() }
    }

    /// Sends one frame. Several threads must not send at the same time.
    ///
    /// # Errors
    /// If it is too long, or the other side is gone.
    pub fn send<T: Serialize>(
        &self,
        message: &T,
        payload: &[u8],
        descriptor: Option<BorrowedFd<'_>>,
    ) -> Result<(), WireError> {
        let mut frame = vec![0; HEAD];
        serde_json::to_writer(&mut frame, message).map_err(|_| WireError::Malformed)?;
        let lengths = [bounded(frame.len() - HEAD, MESSAGE_BYTES_MAX)?, bounded(payload.len(), PAYLOAD_BYTES_MAX)?];
        for (byte, value) in frame.iter_mut().zip(lengths.iter().flat_map(|length| length.to_be_bytes())) {
            *byte = value;
        }
        self.send_bytes(&frame, descriptor)?;
        self.send_bytes(payload, None)
    }

    fn send_bytes(&self, mut bytes: &[u8], mut descriptor: Option<BorrowedFd<'_>>) -> Result<(), WireError> {
        while !bytes.is_empty() {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut ancillary = SendAncillaryBuffer::new(&mut space);
            let descriptors: Vec<BorrowedFd<'_>> = descriptor.take().into_iter().collect();
            if !descriptors.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(&descriptors)) {
                return Err(WireError::System(io::Error::other("no room for a descriptor")));
            }
            let sent = sendmsg(&self.socket, &[IoSlice::new(bytes)], &mut ancillary, SendFlags::NOSIGNAL)?;
            bytes = bytes.get(sent..).unwrap_or_default();
        }
        Ok(())
    }

    /// Waits for the next frame; none means that the other side has closed the connection.
    ///
    /// # Errors
    /// If the connection ends within a frame, or the frame is none.
    pub fn receive<T: DeserializeOwned>(&self) -> Result<Option<Received<T>>, WireError> {
        self.receive_until(None)
    }

    /// The next frame, which is awaited no longer than `wait`.
    ///
    /// # Errors
    /// As [`Connection::receive`]; [`WireError::Late`] if it did not come, or not as a whole, and
    /// [`WireError::Gone`] if it never will.
    pub fn receive_within<T: DeserializeOwned>(&self, wait: Duration) -> Result<Received<T>, WireError> {
        let deadline = self.clock.monotonic().saturating_add(wait);
        self.receive_until(Some(deadline))?.ok_or(WireError::Gone)
    }

    fn receive_until<T: DeserializeOwned>(&self, deadline: Option<Duration>) -> Result<Option<Received<T>>, WireError> {
        let mut descriptor = None;
        let mut head = [0; HEAD];
        if !self.fill(&mut head, deadline, &mut descriptor)? {
            return Ok(None);
        }
        let [a, b, c, d, e, f, g, h] = head;
        let message = bounded_length([a, b, c, d], MESSAGE_BYTES_MAX)?;
        let payload = bounded_length([e, f, g, h], PAYLOAD_BYTES_MAX)?;
        let mut bytes = vec![0; message];
        let mut rest = vec![0; payload];
        for part in [&mut bytes, &mut rest] {
            if !part.is_empty() && !self.fill(part, deadline, &mut descriptor)? {
                return Err(WireError::Gone);
            }
        }
        let message = serde_json::from_slice(&bytes).map_err(|_| WireError::Malformed)?;
        Ok(Some(Received { message, payload: rest, descriptor }))
    }

    /// Fills `into`, or says that the other side had closed before its first byte.
    fn fill(
        &self,
        into: &mut [u8],
        deadline: Option<Duration>,
        descriptor: &mut Option<OwnedFd>,
    ) -> Result<bool, WireError> {
        let mut filled = 0;
        while let Some(rest) = into.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut ancillary = RecvAncillaryBuffer::new(&mut space);
            let mut flags = RecvFlags::CMSG_CLOEXEC;
            flags.set(RecvFlags::DONTWAIT, deadline.is_some());
            let came = match recvmsg(&self.socket, &mut [IoSliceMut::new(rest)], &mut ancillary, flags) {
                Ok(came) => came,
                Err(Errno::AGAIN) => {
                    self.wait(deadline)?;
                    continue;
                }
                Err(Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            };
            for message in ancillary.drain() {
                if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                    only_one(descriptor, descriptors)?;
                }
            }
            if came.flags.contains(ReturnFlags::CTRUNC) {
                return Err(WireError::Malformed);
            }
            match (came.bytes, filled) {
                (0, 0) => return Ok(false),
                (0, _) => return Err(WireError::Gone),
                (bytes, _) => filled += bytes,
            }
        }
        Ok(true)
    }

    fn wait(&self, deadline: Option<Duration>) -> Result<(), WireError> {
        let left = deadline.unwrap_or(Duration::MAX).saturating_sub(self.clock.monotonic());
        let seconds = i64::try_from(left.as_secs()).unwrap_or(i64::MAX);
        let timeout = Timespec { tv_sec: seconds, tv_nsec: i64::from(left.subsec_nanos()) };
        let ready = poll(&mut [PollFd::new(&self.socket, PollFlags::IN)], Some(&timeout));
        match ready {
            Ok(0) => Err(WireError::Late),
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// A frame brings one descriptor or none; of more, one is closed and the frame refused.
fn only_one(kept: &mut Option<OwnedFd>, more: impl Iterator<Item = OwnedFd>) -> Result<(), WireError> {
    for descriptor in more {
        if kept.replace(descriptor).is_some() {
            return Err(WireError::Malformed);
        }
    }
    Ok(())
}

fn bounded(length: usize, limit: u32) -> Result<u32, WireError> {
    u32::try_from(length).ok().filter(|length| *length <= limit).ok_or(WireError::TooLong)
}

fn bounded_length(bytes: [u8; 4], limit: u32) -> Result<usize, WireError> {
    let length = u32::from_be_bytes(bytes);
    if length > limit { Err(WireError::TooLong) } else { usize::try_from(length).map_err(|_| WireError::TooLong) }
}
