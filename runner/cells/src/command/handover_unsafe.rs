//! The first answer of a warden, with the folders that it hands over.
#![allow(unsafe_code)]

use std::io::{self, IoSliceMut};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};

use super::message::{ANSWER, Answer};

/// The folders that a warden hands over: of outputs, and of temporary files.
pub(super) type Handed = Option<[OwnedFd; 2]>;

/// Receives an answer, and what comes with it.
pub(super) fn receive(socket: &OwnedFd) -> io::Result<(Answer, Handed)> {
    let mut bytes = [0; ANSWER];
    let mut control = nix::cmsg_space!([RawFd; 2]);
    let mut parts = [IoSliceMut::new(&mut bytes)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let received = recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut control), flags)?;
    let length = received.bytes;
    let mut handed = Vec::new();
    for message in received.cmsgs()? {
        if let ControlMessageOwned::ScmRights(descriptors) = message {
            // SAFETY: the kernel just made these descriptors for this process; nothing else owns them.
            handed.extend(
                descriptors
                    .into_iter()
                    .map(|one| unsafe { OwnedFd::from_raw_fd(one) }),
            );
        }
    }
    match length {
        ANSWER => Ok((Answer::from_bytes(&bytes), handed.try_into().ok())),
        _ => Err(io::Error::other("the warden of commands has ended")),
    }
}
