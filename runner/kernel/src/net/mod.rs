//! Sockets: unix ones, and TCP and UDP within the machine (`lo`). Nothing here reaches out of the run.
//!
//! A stream is two sockets that know each other; what one sends lies in the other's inbox until it is taken. Handlers are in
//! [`crate::sys::socket`] and [`crate::sys::message`].

mod address;
mod inbox;
pub(crate) mod interfaces;
mod names;
pub(crate) mod netlink;
pub(crate) mod outside;
mod proc;
pub(crate) mod spoken;
pub(crate) mod wire;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

pub(crate) use address::{Address, Family};
pub(crate) use inbox::{Sent, Take, Taken};
use interfaces::Links;
use names::Name;

use crate::abi::errno::Errno;
use crate::fs::open::FileId;

/// Bytes that wait in one inbox (`net.core.rmem_default`), and in all of them.
pub(crate) const CAPACITY: usize = 212_992;
const MAX_BUFFERED: usize = 64 << 20;
/// Bytes of one datagram of UDP (`udp(7)`).
pub(crate) const MAX_DATAGRAM: usize = 65_507;
/// Bytes of one packet of IP, with a frame's header.
const MAX_PACKET: usize = 65_535 + 14;
/// Sockets at once, and packets in one inbox.
const MAX_SOCKETS: usize = 16_384;
const MAX_PACKETS: usize = 4_096;
/// Sockets that hear packets as they are on the wire: each has a copy.
const MAX_LISTENERS: usize = 256;
/// Descriptors that are on their way, all together.
const MAX_IN_FLIGHT: usize = 1_024;
/// Connections that may wait to be accepted (`net.core.somaxconn`).
const MAX_BACKLOG: usize = 4_096;
/// Ports that are given to whoever names none (`net.ipv4.ip_local_port_range`).
const EPHEMERAL: std::ops::RangeInclusive<u16> = 32_768..=60_999;

/// Names a socket. Never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct SocketId(pub(crate) u64);

/// How a socket carries bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Kind {
    Stream,
    Datagram,
    /// A stream that keeps its messages apart.
    Sequenced,
    /// Echo requests (`IPPROTO_ICMP` of a datagram socket).
    Ping,
    /// What it carries is made by who holds it: packets of a protocol of IP, frames of a kind, messages of netlink.
    Raw(u16),
    /// Frames without their headers (`packet(7)`).
    Cooked(u16),
}

impl Kind {
    /// Whether it is connected before it carries anything.
    pub(crate) fn connects(self) -> bool {
        matches!(self, Self::Stream | Self::Sequenced)
    }
}

/// Who holds a socket (`struct ucred`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Credentials {
    pub(crate) pid: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// How a socket stands.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum State {
    /// Neither connected nor listening.
    Idle,
    /// Waits for connections: those that came and were not accepted.
    Listening {
        queue: VecDeque<SocketId>,
        backlog: usize,
    },
    /// Its other side.
    Connected(SocketId),
    /// The other side is gone.
    Disconnected,
}

/// What lies in an inbox.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Packet {
    #[serde(with = "crate::state::raw")]
    pub(crate) bytes: Vec<u8>,
    /// How many of them were read, where a stream is read in pieces.
    pub(crate) read: usize,
    pub(crate) from: Option<Address>,
    pub(crate) credentials: Credentials,
    /// Open files that came with it, each with a reference of its own.
    pub(crate) files: Vec<FileId>,
}

/// A socket.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Socket {
    pub(crate) family: Family,
    pub(crate) kind: Kind,
    pub(crate) state: State,
    /// The name that it is bound to.
    pub(crate) local: Option<Address>,
    /// The address of IP among that which its program asked for; the rest is given up with the connection.
    asked: Option<IpAddr>,
    /// The name of the other side.
    pub(crate) peer: Option<Address>,
    inbox: VecDeque<Packet>,
    /// Bytes in it.
    held: usize,
    /// Whether reading and writing were shut down.
    pub(crate) shut: [bool; 2],
    /// What the next call is told (`SO_ERROR`).
    pub(crate) error: Option<Errno>,
    /// Options that were set, by level and number.
    pub(crate) options: BTreeMap<(u64, u64), Vec<u8>>,
    pub(crate) owner: Credentials,
    pub(crate) peer_owner: Credentials,
    /// Counts what happened to it, for who waits for something new.
    pub(crate) activity: u64,
    /// It is a far end: the internet speaks through it.
    is_far: bool,
}

impl Packet {
    /// Bytes that were not read.
    fn rest(&self) -> &[u8] {
        self.bytes.get(self.read..).unwrap_or_default()
    }

    /// Reads so many bytes, or what is left.
    fn take(&mut self, most: usize) -> Vec<u8> {
        let rest = self.rest();
        let taken = rest.get(..most.min(rest.len())).unwrap_or_default().to_vec();
        self.read += taken.len();
        // Few are moved often, and many seldom.
        if self.read > self.bytes.len() / 2 {
            self.bytes.drain(..self.read.min(self.bytes.len()));
            self.read = 0;
        }
        taken
    }
}

impl Socket {
    /// `tcp`, `udp`, `unix`.
    pub(crate) fn protocol(&self) -> &'static str {
        match (self.family, self.kind) {
            (Family::Unix, _) => "unix",
            (Family::Netlink, _) => "netlink",
            (_, Kind::Raw(_) | Kind::Cooked(_)) => "raw",
            (_, Kind::Ping) => "icmp",
            (_, Kind::Datagram) => "udp",
            (..) => "tcp",
        }
    }

    /// Whether it hears packets as they are on the wire.
    pub(crate) fn overhears(&self) -> bool {
        self.family != Family::Netlink && matches!(self.kind, Kind::Ping | Kind::Raw(_) | Kind::Cooked(_))
    }

    /// Bytes that can be read: of a datagram socket those of the first.
    pub(crate) fn waiting(&self) -> usize {
        match self.kind {
            Kind::Stream => self.held,
            _ => self.inbox.front().map_or(0, |packet| packet.bytes.len()),
        }
    }

    /// Whether something lies in the inbox.
    pub(crate) fn has_packets(&self) -> bool {
        !self.inbox.is_empty()
    }

    fn room(&self) -> usize {
        match self.is_crowded() {
            false => CAPACITY.saturating_sub(self.held),
            true => 0,
        }
    }

    /// Whether there is no room for one more packet, however short.
    fn is_crowded(&self) -> bool {
        self.inbox.len() >= MAX_PACKETS
    }
}

/// All sockets of the machine.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Sockets {
    all: BTreeMap<SocketId, Socket>,
    /// Who is bound to names, ports among them.
    bound: BTreeMap<Name, Vec<SocketId>>,
    /// Who hears packets as they are on the wire.
    listeners: BTreeSet<SocketId>,
    next: u64,
    next_port: u16,
    buffered: usize,
    in_flight: usize,
    /// The machine has an address on the simulated internet.
    is_online: bool,
    /// Far ends that something happened to since they were served.
    pub(crate) stirred: BTreeSet<SocketId>,
}

impl Sockets {
    /// No sockets yet. `is_online`: the machine has an address on the simulated internet.
    pub(crate) fn new(is_online: bool) -> Self {
        Self {
            is_online,
            ..Self::default()
        }
    }

    /// A new socket.
    pub(crate) fn make(&mut self, family: Family, kind: Kind, owner: Credentials) -> Result<SocketId, Errno> {
        if self.all.len() >= MAX_SOCKETS {
            return Err(Errno::ENFILE);
        }
        let id = SocketId(self.next);
        self.next += 1;
        let socket = Socket {
            family,
            kind,
            state: State::Idle,
            local: None,
            asked: None,
            peer: None,
            inbox: VecDeque::new(),
            held: 0,
            shut: [false; 2],
            error: None,
            options: BTreeMap::new(),
            owner,
            peer_owner: Credentials::default(),
            activity: 0,
            is_far: false,
        };
        if socket.overhears() {
            if self.listeners.len() >= MAX_LISTENERS {
                return Err(Errno::ENOBUFS);
            }
            self.listeners.insert(id);
        }
        self.all.insert(id, socket);
        Ok(id)
    }

    pub(crate) fn get(&self, id: SocketId) -> Option<&Socket> {
        self.all.get(&id)
    }

    pub(crate) fn get_mut(&mut self, id: SocketId) -> Option<&mut Socket> {
        self.all.get_mut(&id)
    }

    /// A new far end, known by the address that was called.
    pub(crate) fn make_far(&mut self, address: &Address) -> Result<SocketId, Errno> {
        let id = self.make(Family::Inet, Kind::Stream, Credentials::default())?;
        if let Some(socket) = self.get_mut(id) {
            socket.local = Some(address.clone());
            socket.is_far = true;
        }
        Ok(id)
    }

    /// Something happened to a socket.
    pub(crate) fn stir(&mut self, id: SocketId) {
        if let Some(socket) = self.all.get_mut(&id) {
            socket.activity += 1;
            if socket.is_far {
                self.stirred.insert(id);
            }
        }
    }

    /// Shuts reading or writing down.
    pub(crate) fn shut(&mut self, id: SocketId, [reads, writes]: [bool; 2]) {
        if let Some(socket) = self.all.get_mut(&id) {
            socket.shut[0] |= reads;
            socket.shut[1] |= writes;
            if let State::Connected(other) = socket.state {
                self.stir(other);
            }
            self.stir(id);
        }
    }

    /// The name by which who is called knows who calls: one that stands for all addresses becomes one of them.
    pub(crate) fn name_to(&self, id: SocketId, to: SocketId) -> Option<Address> {
        let own = self.get(id)?.local.clone()?;
        match (&own, self.get(to).and_then(|to| to.local.as_ref())) {
            (Address::Inet(from), Some(Address::Inet(to))) if from.ip().is_unspecified() => {
                let mut own = address::own_for(to.ip(), address::is_out_there(to.ip()));
                own.set_port(from.port());
                Some(Address::Inet(own))
            }
            _ => Some(own),
        }
    }

    /// Ends a connection, or forgets the peer, and leaves the socket as if it had none (`connect(2)`, AF_UNSPEC).
    pub(crate) fn disconnect(&mut self, id: SocketId) -> Vec<FileId> {
        let Some(socket) = self.all.get_mut(&id) else {
            return Vec::new();
        };
        let state = std::mem::replace(&mut socket.state, State::Idle);
        (socket.peer, socket.shut, socket.error) = (None, [false; 2], None);
        // Datagrams that came before are still heard.
        let connects = socket.kind.connects();
        let (packets, held) = match connects {
            true => (
                std::mem::take(&mut socket.inbox),
                std::mem::take(&mut socket.held),
            ),
            false => (VecDeque::new(), 0),
        };
        self.give_up_name(id);
        self.stir(id);
        let mut files = self.forget(packets, held);
        match state {
            State::Connected(other) => self.part(other, connects),
            State::Listening { queue, .. } => {
                files.extend(self.close_all(queue.into_iter().map(|id| (id, true)).collect()));
            }
            State::Idle | State::Disconnected => {}
        }
        files
    }

    /// Packets that nobody will read. Gives the open files among them.
    fn forget(&mut self, packets: VecDeque<Packet>, held: usize) -> Vec<FileId> {
        self.buffered = self.buffered.saturating_sub(held);
        let files: Vec<FileId> = packets.into_iter().flat_map(|packet| packet.files).collect();
        self.in_flight = self.in_flight.saturating_sub(files.len());
        files
    }

    /// A socket's other side is gone; `unread`: what it sent was not all read.
    fn part(&mut self, id: SocketId, unread: bool) {
        if let Some(socket) = self.all.get_mut(&id) {
            if socket.kind.connects() {
                socket.state = State::Disconnected;
                // What nobody read is told to who sent it.
                if unread {
                    socket.error = Some(Errno::ECONNRESET);
                }
            } else {
                socket.state = State::Idle;
            }
        }
        self.stir(id);
    }

    /// Makes two sockets each other's other side.
    pub(crate) fn join(&mut self, a: SocketId, b: SocketId) {
        for (own, other) in [(a, b), (b, a)] {
            let facts = self.get(other).map(|other| (other.local.clone(), other.owner));
            if let (Some(socket), Some((name, owner))) = (self.get_mut(own), facts) {
                socket.state = State::Connected(other);
                socket.peer = socket.peer.take().or(name);
                socket.peer_owner = owner;
                socket.activity += 1;
            }
        }
    }

    /// Begins a connection to a listening socket: the other side waits there to be accepted. `Ok(false)`: there is no room
    /// for it yet.
    pub(crate) fn connect(&mut self, id: SocketId, to: SocketId, address: &Address) -> Result<bool, Errno> {
        let listener = self.all.get(&to).ok_or(Errno::ECONNREFUSED)?;
        let State::Listening { queue, backlog } = &listener.state else {
            return Err(Errno::ECONNREFUSED);
        };
        if queue.len() > *backlog {
            return Ok(false);
        }
        let (family, kind, owner) = (listener.family, listener.kind, listener.owner);
        let other = self.make(family, kind, owner)?;
        if let Some(socket) = self.all.get_mut(&other) {
            // A wildcard becomes the address that was called.
            socket.local = Some(address.clone());
        }
        self.join(id, other);
        if let Some(listener) = self.all.get_mut(&to) {
            listener.activity += 1;
            if let State::Listening { queue, .. } = &mut listener.state {
                queue.push_back(other);
            }
        }
        Ok(true)
    }

    /// Makes a socket wait for connections.
    pub(crate) fn listen(&mut self, id: SocketId, wanted: usize) -> Result<(), Errno> {
        let socket = self.all.get_mut(&id).ok_or(Errno::EBADF)?;
        match &mut socket.state {
            State::Idle => {
                socket.state = State::Listening {
                    queue: VecDeque::new(),
                    backlog: wanted.min(MAX_BACKLOG),
                };
                Ok(())
            }
            State::Listening { backlog, .. } => {
                *backlog = wanted.min(MAX_BACKLOG);
                Ok(())
            }
            _ => Err(Errno::EINVAL),
        }
    }

    /// The last descriptor is gone. Gives the open files that were on their way to it.
    pub(crate) fn close(&mut self, id: SocketId) -> Vec<FileId> {
        self.close_all(vec![(id, false)])
    }

    /// Closes sockets, and with those that listen whoever waits there; with each, whether its other side is told that
    /// it was never heard.
    fn close_all(&mut self, mut closing: Vec<(SocketId, bool)>) -> Vec<FileId> {
        let mut files = Vec::new();
        while let Some((id, unheard)) = closing.pop() {
            let Some(socket) = self.all.remove(&id) else {
                continue;
            };
            let unread = socket.held > 0;
            files.extend(self.forget(socket.inbox, socket.held));
            self.listeners.remove(&id);
            self.stirred.remove(&id);
            if let Some(local) = socket.local {
                self.free(id, socket.kind, &local);
            }
            match socket.state {
                State::Connected(other) => self.part(other, unread || unheard),
                State::Listening { queue, .. } => closing.extend(queue.into_iter().map(|id| (id, true))),
                State::Idle | State::Disconnected => {}
            }
        }
        files
    }

    /// All sockets, the oldest first.
    pub(crate) fn all(&self) -> impl Iterator<Item = (SocketId, &Socket)> {
        self.all.iter().map(|(id, socket)| (*id, socket))
    }

    /// What the machine is connected by.
    pub(crate) fn links(&self) -> Links {
        Links {
            is_online: self.is_online,
        }
    }

    /// Who hears packets as they are on the wire.
    pub(crate) fn listeners(&self) -> &BTreeSet<SocketId> {
        &self.listeners
    }

    /// How many bytes a socket's inbox has room for.
    pub(crate) fn room_of(&self, id: SocketId) -> usize {
        self.get(id).map_or(0, Socket::room)
    }

    /// Whether what a saved state says of names and sums holds.
    pub(crate) fn is_sound(&self) -> bool {
        let holds = |socket: &Socket| {
            let bytes: usize = socket.inbox.iter().map(|packet| packet.rest().len()).sum();
            bytes == socket.held && bytes <= CAPACITY && socket.inbox.len() <= MAX_PACKETS
        };
        let files = |socket: &Socket| {
            socket
                .inbox
                .iter()
                .map(|packet| packet.files.len())
                .sum::<usize>()
        };
        self.all.len() <= MAX_SOCKETS
            && self.all.values().all(holds)
            && self.all.values().map(|socket| socket.held).sum::<usize>() == self.buffered
            && self.all.values().map(files).sum::<usize>() == self.in_flight
            && self.in_flight <= MAX_IN_FLIGHT
            && self.all.keys().all(|id| id.0 < self.next)
    }
}
