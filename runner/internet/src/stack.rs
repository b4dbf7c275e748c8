//! TCP/IP before the simulated internet: what a guest of the host's Linux sends arrives as packets, and packets go back.
//!
//! Whatever address a packet is for, somebody answers. Everything is bounded: what has no room is dropped and counted, and the
//! guest's kernel sends it again or gives up, as on any network.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};

use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use hotcell_schema::internet::{Heard, InternetWith};
use smoltcp::iface::{Config, Interface, PollResult, SocketHandle, SocketSet};
use smoltcp::phy::{self, Device, DeviceCapabilities, Medium};
use smoltcp::socket::tcp::{self, Socket, SocketBuffer, State};
use smoltcp::time::Instant;
use smoltcp::wire::{HardwareAddress, IpListenEndpoint};

use crate::capture::{Capture, Way, around};
use crate::packet::{self, MTU, Seen, TIME_TO_LIVE};
use crate::{Internet, Peer, Reply, Web};

/// Connections at once: a call that is one too many is not answered.
const MAX_FLOWS: usize = 1024;
/// Bytes that a connection holds of what it heard, and of what is on its way to the guest.
const HEARS: usize = 16 << 10;
const SAYS: usize = 32 << 10;
/// Bytes that all far ends together have to say.
const MAX_WAITING: usize = 128 << 20;
/// Packets for the guest that wait to be taken.
const MAX_OUT: usize = 1024;
/// Bytes of all that is told.
const MAX_TOLD: usize = 16 << 20;
/// What one thing costs that is told, beside its texts.
const TOLD: usize = 256;

/// Who is out there.
#[derive(Clone, Copy)]
pub struct World<'w> {
    /// As it was declared.
    pub with: &'w InternetWith,
    /// What web servers give.
    pub web: &'w dyn Web,
}

impl std::fmt::Debug for World<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("World").finish_non_exhaustive()
    }
}

/// The far end of a guest's wire.
pub struct Stack {
    wire: Wire,
    interface: Interface,
    sockets: SocketSet<'static>,
    /// By the guest's end and the other.
    flows: BTreeMap<(SocketAddr, SocketAddr), Flow>,
    internet: Internet,
    capture: Capture,
    /// The guest's time when it began: nanoseconds since 1970.
    epoch: u64,
    /// Bytes that far ends have to say.
    waiting: usize,
    heard: Vec<Heard>,
    told: usize,
    dropped: u64,
}

impl std::fmt::Debug for Stack {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stack")
            .field("flows", &self.flows.len())
            .field("dropped", &self.dropped)
            .finish_non_exhaustive()
    }
}

/// A connection of the guest's.
struct Flow {
    socket: SocketHandle,
    peer: Peer,
    outbox: Vec<u8>,
    /// How much of it was said.
    said: usize,
    /// The other side hangs up when all is said.
    closes: bool,
    stage: Stage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// It is being made.
    Calls,
    Stands,
    /// One side has hung up.
    Over,
}

impl Flow {
    fn rest(&self) -> &[u8] {
        self.outbox.get(self.said..).unwrap_or_default()
    }
}

/// Packets on their way.
#[derive(Debug, Default)]
struct Wire {
    to_us: Option<Vec<u8>>,
    to_guest: VecDeque<Vec<u8>>,
}

/// One packet of the guest.
struct Arrived(Vec<u8>);
/// Room for one to the guest.
struct Room<'w>(&'w mut VecDeque<Vec<u8>>);

impl phy::RxToken for Arrived {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, take: F) -> R {
        take(&self.0)
    }
}

impl phy::TxToken for Room<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, make: F) -> R {
        let mut packet = vec![0; length];
        let result = make(&mut packet);
        self.0.push_back(packet);
        result
    }
}

impl Device for Wire {
    type RxToken<'a> = Arrived;
    type TxToken<'a> = Room<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Arrived, Room<'_>)> {
        if self.to_guest.len() >= MAX_OUT {
            return None;
        }
        let packet = self.to_us.take()?;
        Some((Arrived(packet), Room(&mut self.to_guest)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Room<'_>> {
        (self.to_guest.len() < MAX_OUT).then_some(Room(&mut self.to_guest))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = MTU;
        capabilities
    }
}

/// What a packet of the guest is, as far as it is not for the stack of TCP.
enum Kind {
    /// Of a connection; whether it calls.
    Tcp(SocketAddr, SocketAddr, bool),
    Datagram(SocketAddr, SocketAddr, Vec<u8>),
    Echo(Vec<u8>),
    /// Nobody listens to it.
    Other,
}

impl Kind {
    fn of(packet: &[u8]) -> Self {
        let Ok(sliced) = SlicedPacket::from_ip(packet) else {
            return Self::Other;
        };
        let (from, to): (IpAddr, IpAddr) = match &sliced.net {
            Some(NetSlice::Ipv4(ip)) => (
                ip.header().source_addr().into(),
                ip.header().destination_addr().into(),
            ),
            Some(NetSlice::Ipv6(ip)) => (
                ip.header().source_addr().into(),
                ip.header().destination_addr().into(),
            ),
            _ => return Self::Other,
        };
        let ends = |own: u16, other: u16| (SocketAddr::new(from, own), SocketAddr::new(to, other));
        match &sliced.transport {
            Some(TransportSlice::Tcp(tcp)) => {
                let (own, other) = ends(tcp.source_port(), tcp.destination_port());
                let calls = tcp.syn() && !tcp.ack() && !tcp.rst() && own.port() != 0 && other.port() != 0;
                Self::Tcp(own, other, calls)
            }
            Some(TransportSlice::Udp(udp)) => {
                let (own, other) = ends(udp.source_port(), udp.destination_port());
                Self::Datagram(own, other, udp.payload().to_vec())
            }
            Some(TransportSlice::Icmpv4(_)) => match packet::answer(packet) {
                Some(answer) => Self::Echo(answer),
                None => Self::Other,
            },
            _ => Self::Other,
        }
    }
}

fn moment(now: u64) -> Instant {
    Instant::from_micros(i64::try_from(now / 1000).unwrap_or(i64::MAX))
}

impl Stack {
    /// One that nobody has called yet. `epoch`: the guest's time now, in nanoseconds since 1970; all other times count from now.
    pub fn new(epoch: u64) -> Self {
        let mut wire = Wire::default();
        // What a stack draws by lot is the same each time: nobody guesses numbers here but the guest, whose own connections they are.
        let config = Config::new(HardwareAddress::Ip);
        let mut interface = Interface::new(config, &mut wire, moment(0));
        interface.set_any_ip(true);
        Self {
            wire,
            interface,
            sockets: SocketSet::new(Vec::new()),
            flows: BTreeMap::new(),
            internet: Internet::default(),
            capture: Capture::default(),
            epoch,
            waiting: 0,
            heard: Vec::new(),
            told: 0,
            dropped: 0,
        }
    }

    /// Takes a packet of the guest's. `now`: nanoseconds since the beginning.
    pub fn take(&mut self, world: World<'_>, now: u64, packet: &[u8]) {
        if packet.len() > MTU {
            self.dropped += 1;
            return;
        }
        match Kind::of(packet) {
            Kind::Tcp(own, other, calls) => self.segment(world, now, (own, other), calls, packet),
            Kind::Datagram(own, other, bytes) => self.datagram(world, now, (own, other), &bytes),
            Kind::Echo(answer) => {
                // Only what was read as one is answered.
                if Seen::read(packet).is_some() {
                    self.capture.packet(self.time(now), Way::Out, packet);
                    self.capture.packet(self.time(now), Way::In, &answer);
                    self.send(answer);
                }
            }
            Kind::Other => self.dropped += 1,
        }
    }

    /// Lets far ends hear what has come and say what they have to say. How long nothing will happen by itself, in nanoseconds;
    /// `None`: until the guest sends something.
    pub fn turn(&mut self, world: World<'_>, now: u64) -> Option<u64> {
        // What goes out makes room for more.
        for _ in 0..MAX_OUT {
            for ends in self.flows.keys().copied().collect::<Vec<_>>() {
                if let Some(mut flow) = self.flows.remove(&ends)
                    && self.serve(world, now, ends, &mut flow)
                {
                    self.flows.insert(ends, flow);
                }
            }
            let result = self
                .interface
                .poll(moment(now), &mut self.wire, &mut self.sockets);
            if result == PollResult::None || self.wire.to_guest.len() >= MAX_OUT {
                break;
            }
        }
        let delay = self.interface.poll_delay(moment(now), &self.sockets)?;
        Some(delay.total_micros().saturating_mul(1000))
    }

    /// A packet for the guest.
    pub fn give(&mut self) -> Option<Vec<u8>> {
        self.wire.to_guest.pop_front()
    }

    /// How many packets of the guest nobody took, and how many things were not told.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// How many connections there are.
    pub fn flows(&self) -> usize {
        self.flows.len()
    }

    /// What is to be told, times counted from the beginning, and what went over the wire.
    pub fn finish(mut self) -> (Vec<Heard>, Vec<u8>) {
        // What still stands ends with the guest.
        let time = self.time(self.heard.last().map_or(0, |heard| heard.time));
        for ((own, other), flow) in &self.flows {
            if flow.stage == Stage::Stands {
                self.capture.ended(time, Way::Out, *own, *other);
            }
        }
        (self.heard, self.capture.file().to_vec())
    }

    fn time(&self, now: u64) -> u64 {
        self.epoch.saturating_add(now)
    }

    fn send(&mut self, packet: Vec<u8>) {
        match self.wire.to_guest.len() < MAX_OUT {
            true => self.wire.to_guest.push_back(packet),
            false => self.dropped += 1,
        }
    }

    /// A segment of TCP: whoever is called is there.
    fn segment(
        &mut self,
        world: World<'_>,
        now: u64,
        ends: (SocketAddr, SocketAddr),
        calls: bool,
        packet: &[u8],
    ) {
        if calls && !self.flows.contains_key(&ends) && !self.answer(world, ends) {
            self.dropped += 1;
            return;
        }
        if self.wire.to_guest.len() >= MAX_OUT {
            // As on a wire that is full: it comes again.
            self.dropped += 1;
        } else {
            self.wire.to_us = Some(packet.to_vec());
            let _ = self
                .interface
                .poll_ingress_single(moment(now), &mut self.wire, &mut self.sockets);
        }
        if calls && let Some(flow) = self.flows.get(&ends) {
            let socket = self.sockets.get::<Socket<'_>>(flow.socket);
            // It was damaged, or there was no room: nobody was called, and nobody else is to be taken for him.
            if socket.state() == State::Listen {
                self.hang_up(ends);
            }
        }
    }

    /// Makes somebody who listens for one call; `false`: there is no room.
    fn answer(&mut self, world: World<'_>, ends: (SocketAddr, SocketAddr)) -> bool {
        let (_, other) = ends;
        if self.flows.len() >= MAX_FLOWS {
            return false;
        }
        let buffer = |length: usize| SocketBuffer::new(vec![0; length]);
        let mut socket = Socket::new(buffer(HEARS), buffer(SAYS));
        socket.set_ack_delay(None);
        socket.set_nagle_enabled(false);
        socket.set_hop_limit(Some(TIME_TO_LIVE));
        let listens = IpListenEndpoint {
            addr: Some(other.ip().into()),
            port: other.port(),
        };
        if other.ip().is_unspecified() || other.ip().is_multicast() || socket.listen(listens).is_err() {
            return false;
        }
        let (peer, reply) = self.internet.call(world.with, other);
        self.waiting = self.waiting.saturating_add(reply.bytes.len());
        let flow = Flow {
            socket: self.sockets.add(socket),
            peer,
            outbox: reply.bytes,
            said: 0,
            closes: reply.closes,
            stage: Stage::Calls,
        };
        self.flows.insert(ends, flow);
        true
    }

    /// Forgets a connection.
    fn hang_up(&mut self, ends: (SocketAddr, SocketAddr)) {
        if let Some(flow) = self.flows.remove(&ends) {
            self.let_go(&flow);
        }
    }

    fn let_go(&mut self, flow: &Flow) {
        self.waiting = self.waiting.saturating_sub(flow.outbox.len());
        self.sockets.remove(flow.socket);
    }

    /// One connection; `false`: it is gone.
    fn serve(
        &mut self,
        world: World<'_>,
        now: u64,
        (own, other): (SocketAddr, SocketAddr),
        flow: &mut Flow,
    ) -> bool {
        let time = self.time(now);
        let state = self.sockets.get::<Socket<'_>>(flow.socket).state();
        if flow.stage == Stage::Calls && matches!(state, State::Established | State::CloseWait) {
            self.capture.connected(time, own, other);
            flow.stage = Stage::Stands;
        }
        self.listen(world, now, (own, other), flow);
        if flow.stage != Stage::Calls {
            let socket = self.sockets.get_mut::<Socket<'_>>(flow.socket);
            while !flow.rest().is_empty() && socket.can_send() {
                let Ok(count @ 1..) = socket.send_slice(flow.rest()) else {
                    break;
                };
                let said = flow.rest().get(..count).unwrap_or_default();
                self.capture.sent(time, Way::In, own, other, said);
                flow.said += count;
            }
            if flow.rest().is_empty() {
                self.waiting = self.waiting.saturating_sub(flow.outbox.len());
                (flow.outbox, flow.said) = (Vec::new(), 0);
            }
            // Whoever hears that nothing more will come hangs up when all is said.
            let ended = state == State::CloseWait && !socket.can_recv();
            let is_gone = matches!(state, State::Closed | State::TimeWait);
            if flow.stage == Stage::Stands && (is_gone || (flow.closes || ended) && flow.outbox.is_empty()) {
                socket.close();
                let way = if ended || is_gone { Way::Out } else { Way::In };
                self.capture.ended(time, way, own, other);
                flow.stage = Stage::Over;
            }
        }
        let state = self.sockets.get::<Socket<'_>>(flow.socket).state();
        let stays = !matches!(state, State::Closed | State::TimeWait | State::Listen);
        if !stays {
            self.let_go(flow);
        }
        stays
    }

    /// Lets the far end hear what has come.
    fn listen(
        &mut self,
        world: World<'_>,
        now: u64,
        (own, other): (SocketAddr, SocketAddr),
        flow: &mut Flow,
    ) {
        let time = self.time(now);
        loop {
            let socket = self.sockets.get_mut::<Socket<'_>>(flow.socket);
            if !socket.can_recv() {
                return;
            }
            let taken: Result<Vec<u8>, tcp::RecvError> = socket.recv(|bytes| (bytes.len(), bytes.to_vec()));
            let Ok(bytes) = taken else { return };
            if flow.stage == Stage::Over {
                continue;
            }
            self.capture.sent(time, Way::Out, own, other, &bytes);
            if flow.closes {
                continue;
            }
            let reply = self.internet.hear(&mut flow.peer, world.with, world.web, &bytes);
            self.tell(&reply, now, other);
            flow.closes |= reply.closes;
            if self.waiting.saturating_add(reply.bytes.len()) <= MAX_WAITING {
                self.waiting += reply.bytes.len();
                flow.outbox.extend(reply.bytes);
            } else {
                // A guest that asks and asks and does not listen is hung up on.
                flow.closes = true;
            }
        }
    }

    fn datagram(&mut self, world: World<'_>, now: u64, (own, other): (SocketAddr, SocketAddr), bytes: &[u8]) {
        let time = self.time(now);
        self.capture.datagram(time, Way::Out, own, other, bytes);
        let Some(reply) = self.internet.datagram(world.with, other, bytes) else {
            return;
        };
        self.capture.datagram(time, Way::In, own, other, &reply.bytes);
        self.tell(&reply, now, other);
        let Some(builder) = around(other, own) else {
            return;
        };
        let builder = builder.udp(other.port(), own.port());
        let mut packet = Vec::with_capacity(builder.size(reply.bytes.len()));
        if builder.write(&mut packet, &reply.bytes).is_ok() && packet.len() <= MTU {
            self.send(packet);
        } else {
            self.dropped += 1;
        }
    }

    fn tell(&mut self, reply: &Reply, now: u64, other: SocketAddr) {
        for said in &reply.said {
            let what = said.event(other);
            let texts = [&what.peer, &what.host, &what.request];
            let cost = texts.into_iter().flatten().map(String::len).sum::<usize>() + TOLD;
            if self.told.saturating_add(cost) > MAX_TOLD {
                self.dropped += 1;
                continue;
            }
            self.told += cost;
            self.heard.push(Heard { time: now, what });
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
#[path = "stack/tests.rs"]
mod tests;
