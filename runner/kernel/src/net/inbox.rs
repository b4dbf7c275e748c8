//! What lies in the inboxes of sockets: put there, and taken.

use super::address::Address;
use super::{
    CAPACITY, Credentials, Family, Kind, MAX_BUFFERED, MAX_DATAGRAM, MAX_IN_FLIGHT, MAX_PACKET, Packet,
    SocketId, Sockets, State,
};
use crate::abi::errno::Errno;
use crate::fs::open::FileId;

/// What is wanted of an inbox.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Take {
    pub(crate) most: usize,
    /// Leave it there (`MSG_PEEK`).
    pub(crate) peek: bool,
}

/// What was in an inbox.
#[derive(Debug, Default)]
pub(crate) struct Taken {
    pub(crate) bytes: Vec<u8>,
    pub(crate) from: Option<Address>,
    pub(crate) credentials: Credentials,
    pub(crate) files: Vec<FileId>,
    /// Length of the whole packet, where packets are kept apart.
    pub(crate) whole: usize,
}

/// What became of bytes that were sent.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Sent {
    /// So many are on their way.
    Bytes(usize),
    /// There is no room now.
    Full,
    Refused(Errno),
}

impl Sockets {
    /// Puts bytes into another socket's inbox: whole where messages are kept apart.
    pub(crate) fn deliver(&mut self, to: SocketId, mut packet: Packet) -> Sent {
        let Some(socket) = self.all.get_mut(&to) else {
            return Sent::Refused(Errno::ECONNREFUSED);
        };
        let length = packet.bytes.len();
        if socket.kind != Kind::Stream {
            let most = match (socket.family, socket.kind) {
                (Family::Unix | Family::Netlink, _) => CAPACITY,
                (_, Kind::Datagram) => MAX_DATAGRAM,
                _ => MAX_PACKET,
            };
            if length > most {
                return Sent::Refused(Errno::EMSGSIZE);
            }
        }
        // Nothing is nothing on a stream, and a message elsewhere.
        if socket.kind == Kind::Stream && length == 0 {
            return Sent::Bytes(0);
        }
        if socket.is_crowded() {
            return Sent::Full;
        }
        let room = socket.room();
        let size = match socket.kind {
            Kind::Stream => length.min(room),
            _ if length <= room => length,
            _ => return Sent::Full,
        };
        if length > 0 && size == 0 {
            return Sent::Full;
        }
        if self.buffered.saturating_add(size) > MAX_BUFFERED {
            return Sent::Refused(Errno::ENOBUFS);
        }
        if self.in_flight.saturating_add(packet.files.len()) > MAX_IN_FLIGHT {
            return Sent::Refused(Errno::ETOOMANYREFS);
        }
        packet.bytes.truncate(size);
        self.buffered += size;
        self.in_flight += packet.files.len();
        socket.held += size;
        match socket.inbox.back_mut() {
            // A stream does not keep its messages apart, but descriptors stay with their bytes.
            Some(last)
                if socket.kind == Kind::Stream
                    && packet.files.is_empty()
                    && last.credentials == packet.credentials =>
            {
                last.bytes.append(&mut packet.bytes);
            }
            _ => socket.inbox.push_back(packet),
        }
        self.stir(to);
        Sent::Bytes(size)
    }

    /// Takes what lies in an inbox.
    pub(crate) fn take(&mut self, id: SocketId, wanted: Take) -> Option<Taken> {
        let taken = self.take_from(id, wanted);
        if taken.is_some()
            && !wanted.peek
            && let Some(State::Connected(other)) = self.get(id).map(|socket| &socket.state)
        {
            // Whoever waits for room hears of it.
            self.stir(*other);
        }
        taken
    }

    fn take_from(&mut self, id: SocketId, wanted: Take) -> Option<Taken> {
        let socket = self.all.get_mut(&id)?;
        let first = socket.inbox.front_mut()?;
        let mut taken = Taken {
            from: first.from.clone(),
            credentials: first.credentials,
            whole: first.bytes.len(),
            ..Taken::default()
        };
        if socket.kind != Kind::Stream {
            let size = wanted.most.min(first.bytes.len());
            taken.bytes = first.bytes.get(..size).unwrap_or_default().to_vec();
            if wanted.peek {
                return Some(taken);
            }
            let packet = socket.inbox.pop_front()?;
            taken.files = packet.files;
            let gone = packet.bytes.len();
            socket.held = socket.held.saturating_sub(gone);
            self.buffered = self.buffered.saturating_sub(gone);
            self.in_flight = self.in_flight.saturating_sub(taken.files.len());
            return Some(taken);
        }
        if wanted.peek {
            for packet in &socket.inbox {
                let left = wanted.most.saturating_sub(taken.bytes.len());
                if left == 0 {
                    break;
                }
                taken.bytes.extend(packet.rest().iter().take(left));
            }
            return Some(taken);
        }
        while let Some(packet) = socket.inbox.front_mut() {
            let left = wanted.most.saturating_sub(taken.bytes.len());
            // Descriptors and their bytes are taken by one call, and by themselves.
            if left == 0 || !taken.bytes.is_empty() && !packet.files.is_empty() {
                break;
            }
            taken.files.append(&mut packet.files);
            taken.bytes.extend(packet.take(left));
            if packet.rest().is_empty() {
                socket.inbox.pop_front();
            }
            if !taken.files.is_empty() {
                break;
            }
        }
        let gone = taken.bytes.len();
        socket.held = socket.held.saturating_sub(gone);
        self.buffered = self.buffered.saturating_sub(gone);
        self.in_flight = self.in_flight.saturating_sub(taken.files.len());
        Some(taken)
    }

    /// Whether bytes can be sent to a socket now.
    pub(crate) fn has_room(&self, to: SocketId) -> bool {
        self.room_of(to) > 0
    }
}
