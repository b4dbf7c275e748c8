//! What is said over the socket of a host's arbiter: one JSON message a packet, answered by one packet.
//!
//! A packet of a `SOCK_SEQPACKET` socket (`unix(7)`) keeps its bounds and the descriptors that come with it. Both sides bound
//! what they take: [`MAX_PACKET`] bytes, one descriptor.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use hotcell_schema::cores::CoreSet;
use hotcell_schema::report::CoreChecks;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::policy::Quota;
use crate::cores::arbiter::{EndedBy, Seen};
use crate::cores::duties::Duties;
use crate::cores::history::Turn;
use crate::cores::schedule::{CellId, Nanos, Request};

/// Version of the protocol.
pub const PROTOCOL: u32 = 2;
/// Most bytes of a packet.
pub const MAX_PACKET: usize = 64 << 10;
/// Bytes of a list after which the rest is left for another packet.
pub(super) const PAGE: usize = 32 << 10;

/// What is asked of the arbiter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub enum Ask {
    /// The first message.
    Hello {
        /// [`PROTOCOL`] of the one who asks.
        protocol: u32,
    },
    /// Take over a process, whose pidfd comes with this message.
    Admit {
        /// What it asks for; whose it is says the kernel.
        request: Request,
        /// What people know it by.
        name: String,
    },
    /// How a cell of this connection is.
    Look {
        /// The cell.
        cell: CellId,
    },
    /// Give a cell of this connection no turns for now, or again: it has nothing to do.
    Hold {
        /// The cell.
        cell: CellId,
        /// Whether it shall have none.
        holds: bool,
    },
    /// A cell of this connection is done with.
    Leave {
        /// The cell.
        cell: CellId,
    },
    /// The cells of the host, from this one on.
    Cells {
        /// The first that is wanted.
        from: CellId,
    },
    /// The turns of this connection's cells, from the one of this number on.
    Turns {
        /// The first that is wanted.
        from: u64,
    },
    /// The users of the host, from this id on.
    Users {
        /// The first that is wanted.
        from: u32,
    },
    /// The table of core locks, to be mapped: its descriptor comes with the answer.
    Locks,
    /// Do something about cells, users or cores.
    Act {
        /// What.
        act: Act,
        /// Why, for the audit journal.
        reason: Option<String>,
    },
}

/// What people can do about cells, users and cores. Users may only do it to cells of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub enum Act {
    /// Let cells stand still.
    Pause(Which),
    /// Let them go on.
    Resume(Which),
    /// End them now.
    Kill(Which),
    /// End all cells of a user, and let no more in.
    Ban(u32),
    /// Let a user's cells in again.
    Unban(u32),
    /// Take a core out of exclusive use: who holds it waits again.
    Reclaim(u32),
    /// Give a core back to exclusive use.
    GiveBack(u32),
    /// Another length of slices, in nanoseconds.
    Slice(std::num::NonZeroU64),
}

/// Which cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub enum Which {
    /// That of this process id.
    Process(u32),
    /// All of this user id.
    User(u32),
    /// Those that hold this core.
    Core(u32),
}

/// What the arbiter answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub enum Answer {
    /// To `Hello`.
    Welcome(Box<Welcome>),
    /// To `Admit`.
    Admitted(CellId),
    /// To `Look`.
    State {
        /// How long it has waited for its turns until now.
        waited: Nanos,
        /// Why it was ended, where it was.
        ended_by: Option<EndedBy>,
    },
    /// To `Leave` and `Act`: how many cells it was about.
    Done(u64),
    /// To `Cells`.
    Cells {
        /// The cells, oldest first.
        cells: Vec<Seen>,
        /// Whether there are more.
        more: bool,
    },
    /// To `Turns`.
    Turns {
        /// The turns and their numbers, in the order in which they ended.
        turns: Vec<(u64, Turn)>,
        /// How many of all cells were not kept: the first ones.
        forgotten: u64,
        /// Now, in the same time as theirs.
        now: Nanos,
        /// The longest time that a ready cell that shares waited, of all users.
        longest_wait: Nanos,
        /// The longest time that one could have had to wait, by the rules.
        promised_wait: Nanos,
        /// Whether there are more.
        more: bool,
    },
    /// To `Users`.
    Users {
        /// The users, by their ids.
        users: Vec<Person>,
        /// Whether there are more.
        more: bool,
    },
    /// To `Locks`; the descriptor comes with it.
    Locks,
    /// No, and why.
    Refused(String),
}

/// What a host is, for one who comes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Welcome {
    /// [`PROTOCOL`] of the arbiter.
    pub protocol: u32,
    /// User id of the one who asks, as the kernel says.
    pub uid: u32,
    /// What the host manifest calls this user.
    pub user: String,
    /// Whether this user may do everything.
    pub admin: bool,
    /// What this user may take.
    pub quota: Quota,
    /// Now, in nanoseconds since the arbiter began.
    pub now: Nanos,
    /// Which core does what.
    pub duties: Duties,
    /// Cores that were taken out of exclusive use.
    pub reclaimed: CoreSet,
    /// How strictly cores are kept apart.
    pub isolation: String,
    /// What was seen of the pool since the arbiter began.
    pub checks: CoreChecks,
    /// What people must be told of the host's cores.
    pub fallbacks: Vec<String>,
}

/// A user of a host, for those who look.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Person {
    /// User id.
    pub uid: u32,
    /// What the host manifest calls the user.
    pub name: String,
    /// Whether the user may do everything.
    pub admin: bool,
    /// What the user may take.
    pub quota: Quota,
    /// Cells that are there now.
    pub cells: usize,
    /// Time on cores that was used today, in nanoseconds.
    pub used_ns: Nanos,
    /// Why the user may not run anything.
    pub banned: Option<String>,
}

/// Why no message came.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// The other side has gone.
    #[error("the other side has gone")]
    Gone,
    /// Longer than a packet may be.
    #[error("a message of more than {MAX_PACKET} bytes")]
    Long,
    /// Not JSON of the expected shape.
    #[error("an unreadable message: {0}")]
    Message(#[from] serde_json::Error),
    /// The socket failed.
    #[error("socket: {0}")]
    Io(#[from] io::Error),
}

/// Sends one message, and a descriptor with it.
pub(crate) fn send(
    socket: impl AsFd,
    message: &impl Serialize,
    descriptor: Option<BorrowedFd<'_>>,
) -> Result<(), WireError> {
    let bytes = serde_json::to_vec(message)?;
    if bytes.len() > MAX_PACKET {
        return Err(WireError::Long);
    }
    let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut room);
    let sent: Vec<BorrowedFd<'_>> = descriptor.into_iter().collect();
    if !sent.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(&sent));
    }
    loop {
        match sendmsg(
            &socket,
            &[IoSlice::new(&bytes)],
            &mut control,
            SendFlags::NOSIGNAL,
        ) {
            Ok(_) => return Ok(()),
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::PIPE | rustix::io::Errno::CONNRESET) => return Err(WireError::Gone),
            Err(error) => return Err(WireError::Io(error.into())),
        }
    }
}

/// Waits for one message, and the descriptor that came with it. Descriptors beyond the first are closed.
pub(crate) fn receive<M: DeserializeOwned>(
    socket: impl AsFd,
    buffer: &mut Vec<u8>,
) -> Result<(M, Option<OwnedFd>), WireError> {
    buffer.resize(MAX_PACKET, 0);
    let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut room);
    let received = loop {
        let mut parts = [IoSliceMut::new(buffer)];
        match recvmsg(&socket, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC) {
            Ok(received) => break received,
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::CONNRESET) => return Err(WireError::Gone),
            Err(error) => return Err(WireError::Io(error.into())),
        }
    };
    let mut descriptors = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
        _ => None,
    });
    let mut first = None;
    for descriptor in descriptors.by_ref().flatten() {
        first.get_or_insert(descriptor);
    }
    if received.bytes == 0 {
        return Err(WireError::Gone);
    }
    if received.flags.contains(ReturnFlags::TRUNC) {
        return Err(WireError::Long);
    }
    let message = buffer.get(..received.bytes).unwrap_or_default();
    Ok((serde_json::from_slice(message)?, first))
}

/// As many of a list as fit into a packet, and whether some are left.
pub(super) fn page<T: Serialize>(all: impl Iterator<Item = T>) -> (Vec<T>, bool) {
    let mut taken = Vec::new();
    let mut bytes = 0usize;
    for one in all {
        let length = serde_json::to_vec(&one).map_or(MAX_PACKET, |text| text.len());
        bytes = bytes.saturating_add(length);
        // One that is longer than a page goes alone: it is bounded where it is made.
        if bytes > PAGE && !taken.is_empty() {
            return (taken, true);
        }
        taken.push(one);
    }
    (taken, false)
}
