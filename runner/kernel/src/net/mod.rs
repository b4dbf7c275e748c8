//! Sockets: unix ones, and TCP and UDP within the machine (`lo`). Nothing here reaches out of the run.
//!
//! A stream is two sockets that know each other; what one sends lies in the other's inbox until it is taken. Handlers are in
//! [`crate::sys::socket`] and [`crate::sys::message`].

mod address;
pub(crate) mod interfaces;
pub(crate) mod netlink;
pub(crate) mod outside;
mod proc;
pub(crate) mod spoken;
pub(crate) mod wire;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde::{Deserialize, Serialize};

pub(crate) use address::{Address, Family};
use interfaces::Links;

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
}

/// What sockets are looked up by.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
enum Name {
    Path(u64),
    Abstract(Vec<u8>),
    Port(Kind, u16),
    /// A port of a protocol of netlink.
    Netlink(Kind, u32),
}

impl Name {
    /// `None`: nobody is looked up by it.
    fn of(kind: Kind, address: &Address) -> Option<Self> {
        match (address, kind) {
            (Address::Path(_, ino), _) => Some(Self::Path(ino.0)),
            (Address::Abstract(name), _) => Some(Self::Abstract(name.clone())),
            (Address::Netlink { port, .. }, _) => Some(Self::Netlink(kind, *port)),
            (Address::Link { .. }, _) | (Address::Inet(_), Kind::Raw(_)) => None,
            (Address::Inet(address), _) => Some(Self::Port(kind, address.port())),
        }
    }
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
            peer: None,
            inbox: VecDeque::new(),
            held: 0,
            shut: [false; 2],
            error: None,
            options: BTreeMap::new(),
            owner,
            peer_owner: Credentials::default(),
            activity: 0,
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

    /// Binds a socket to a name.
    pub(crate) fn bind(&mut self, id: SocketId, mut address: Address) -> Result<(), Errno> {
        let reuses = |socket: &Socket| socket.options.contains_key(&REUSE);
        let socket = self.all.get(&id).ok_or(Errno::EBADF)?;
        if socket.local.is_some() {
            return Err(Errno::EINVAL);
        }
        let (kind, own, own_v6) = (socket.kind, reuses(socket), is_v6_alone(socket));
        if let Address::Inet(wanted) = &mut address {
            if !self.is_here(wanted.ip()) {
                return Err(Errno::EADDRNOTAVAIL);
            }
            match kind {
                Kind::Raw(_) => wanted.set_port(0),
                _ if wanted.port() == 0 => wanted.set_port(self.free_port(kind)?),
                _ => {}
            }
        }
        let Some(name) = Name::of(kind, &address) else {
            if let Some(socket) = self.all.get_mut(&id) {
                socket.local = Some(address);
            }
            return Ok(());
        };
        let taken = self.bound.get(&name).into_iter().flatten().any(|other| {
            self.all.get(other).is_some_and(|other| {
                let apart = address::are_apart(other.local.as_ref(), &address)
                    || (own_v6 || is_v6_alone(other)) && address::differ(other.local.as_ref(), &address);
                let shares = own && reuses(other) && !matches!(other.state, State::Listening { .. });
                !apart && !shares
            })
        });
        if taken {
            return Err(Errno::EADDRINUSE);
        }
        self.bound.entry(name).or_default().push(id);
        if let Some(socket) = self.all.get_mut(&id) {
            socket.local = Some(address);
        }
        Ok(())
    }

    fn free_port(&mut self, kind: Kind) -> Result<u16, Errno> {
        for _ in EPHEMERAL {
            let port = self.next_port.max(*EPHEMERAL.start());
            self.next_port = if port >= *EPHEMERAL.end() { 0 } else { port + 1 };
            if !self.bound.contains_key(&Name::Port(kind, port)) {
                return Ok(port);
            }
        }
        Err(Errno::EADDRINUSE)
    }

    /// Gives a socket that sends without a name one of its own.
    pub(crate) fn bind_any(&mut self, id: SocketId, to: &Address) -> Result<(), Errno> {
        match (self.get(id), to) {
            (Some(socket), Address::Inet(peer)) if socket.local.is_none() => {
                let own = address::own_for(peer.ip(), !self.is_here(peer.ip()));
                self.bind(id, Address::Inet(own))
            }
            _ => Ok(()),
        }
    }

    /// Whether an address is the machine's own.
    pub(crate) fn is_here(&self, ip: std::net::IpAddr) -> bool {
        address::is_own(ip) || self.is_online && address::is_out_there(ip)
    }

    /// The socket of a kind that is bound to a name: the one that says it best.
    pub(crate) fn find(&self, kind: Kind, address: &Address) -> Option<SocketId> {
        let all = self.bound.get(&Name::of(kind, address)?)?;
        let fits = |id: &&SocketId| {
            let socket = self.all.get(id);
            socket.is_some_and(|socket| {
                let local = socket.local.as_ref();
                let apart = is_v6_alone(socket) && address::differ(local, address);
                !apart && local.is_some_and(|local| address::reaches(local, address))
            })
        };
        // Whoever is connected hears only its peer: it was made by accept, or said connect.
        let listens = |id: &&SocketId| {
            let socket = self.all.get(id);
            socket.is_some_and(|socket| matches!(socket.state, State::Listening { .. } | State::Idle))
        };
        all.iter()
            .filter(fits)
            .find(listens)
            .or_else(|| all.iter().find(fits))
            .copied()
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
        socket.activity += 1;
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
            let other = *other;
            if let Some(other) = self.get_mut(other) {
                other.activity += 1;
            }
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
                taken.bytes.extend(packet.bytes.iter().take(left));
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
            let size = left.min(packet.bytes.len());
            taken.bytes.extend(packet.bytes.drain(..size));
            if packet.bytes.is_empty() {
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

    /// The last descriptor is gone. Gives the open files that were on their way to it.
    pub(crate) fn close(&mut self, id: SocketId) -> Vec<FileId> {
        let mut files = Vec::new();
        let mut closing = vec![id];
        while let Some(id) = closing.pop() {
            let Some(socket) = self.all.remove(&id) else {
                continue;
            };
            self.buffered = self.buffered.saturating_sub(socket.held);
            let unread = socket.held > 0;
            for packet in socket.inbox {
                self.in_flight = self.in_flight.saturating_sub(packet.files.len());
                files.extend(packet.files);
            }
            self.listeners.remove(&id);
            let local = socket.local.as_ref();
            if let Some(name) = local.and_then(|local| Name::of(socket.kind, local))
                && let Some(all) = self.bound.get_mut(&name)
            {
                all.retain(|other| *other != id);
                if all.is_empty() {
                    self.bound.remove(&name);
                }
            }
            match socket.state {
                State::Connected(other) => {
                    if let Some(other) = self.all.get_mut(&other) {
                        other.activity += 1;
                        if other.kind.connects() {
                            other.state = State::Disconnected;
                            // What nobody read is told to who sent it.
                            if unread {
                                other.error = Some(Errno::ECONNRESET);
                            }
                        } else {
                            other.state = State::Idle;
                        }
                    }
                }
                State::Listening { queue, .. } => closing.extend(queue),
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

    /// Gives a netlink socket a number: that of its process, or one that is nobody's.
    pub(crate) fn bind_netlink(&mut self, id: SocketId, pid: u32, groups: u32) -> Result<(), Errno> {
        let kind = self.get(id).ok_or(Errno::EBADF)?.kind;
        // As netlink_autobind counts, downwards from -4097.
        let mut others =
            (0..u32::try_from(MAX_SOCKETS).unwrap_or(0)).map(|step| (-4097i32).cast_unsigned() - step);
        let mut port = pid;
        while self.bound.contains_key(&Name::Netlink(kind, port)) {
            port = others.next().ok_or(Errno::EADDRINUSE)?;
        }
        self.bind(id, Address::Netlink { port, groups })
    }

    /// How many bytes a socket's inbox has room for.
    pub(crate) fn room_of(&self, id: SocketId) -> usize {
        self.get(id).map_or(0, Socket::room)
    }

    /// Whether what a saved state says of names and sums holds.
    pub(crate) fn is_sound(&self) -> bool {
        let holds = |socket: &Socket| {
            let bytes: usize = socket.inbox.iter().map(|packet| packet.bytes.len()).sum();
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

/// `SOL_SOCKET`, `SO_REUSEADDR` with generic numbers.
pub(crate) const REUSE: (u64, u64) = (1, 2);
/// `IPPROTO_IPV6`, `IPV6_V6ONLY`.
const V6_ALONE: (u64, u64) = (41, 26);

/// Whether a socket of IPv6 takes no calls of IPv4.
fn is_v6_alone(socket: &Socket) -> bool {
    let value = socket.options.get(&V6_ALONE);
    value.is_some_and(|value| value.iter().any(|byte| *byte != 0))
}
