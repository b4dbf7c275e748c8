//! What went over the wire, as a pcap: flows become packets with handshakes, numbers and sums as they would have been.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use etherparse::{IpHeaders, PacketBuilder, PacketBuilderStep};
use serde::{Deserialize, Serialize};

use crate::packet::TIME_TO_LIVE;

/// Bytes of the longest capture; what comes after is not kept.
const MAX_CAPTURE: usize = 32 << 20;
/// Packets that listeners hear of at once.
const MAX_HEARD: usize = 1024;
/// Payload of one TCP segment, and of one datagram.
const SEGMENT: usize = 1460;
const DATAGRAM: usize = 65_507;
/// `LINKTYPE_RAW`: packets begin with their IP header (tcpdump.org/linktypes.html).
const LINK: u32 = 101;
const WINDOW: u16 = 64_240;

/// Takes what flows, writes packets.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Capture {
    bytes: Vec<u8>,
    /// Next sequence numbers of connections, by the guest's end and the other.
    flows: BTreeMap<(SocketAddr, SocketAddr), [u32; 2]>,
    /// Whether somebody listens on the wire.
    listens: bool,
    /// What they have not heard yet.
    heard: Vec<(Way, Vec<u8>)>,
}

/// Who sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Way {
    /// The guest.
    Out,
    /// The other side.
    In,
}

impl Way {
    fn back(self) -> Self {
        match self {
            Self::Out => Self::In,
            Self::In => Self::Out,
        }
    }
}

impl Capture {
    /// The file. Empty where nothing flowed.
    pub fn file(&self) -> &[u8] {
        &self.bytes
    }

    /// Whether somebody listens on the wire from now on.
    pub fn listen(&mut self, listens: bool) {
        self.listens = listens;
    }

    /// What went over the wire since this was asked last, while somebody listened.
    pub fn overheard(&mut self) -> Vec<(Way, Vec<u8>)> {
        std::mem::take(&mut self.heard)
    }

    /// One packet; `time` is nanoseconds since 1970.
    pub fn packet(&mut self, time: u64, way: Way, packet: &[u8]) {
        if self.listens && self.heard.len() < MAX_HEARD {
            self.heard.push((way, packet.to_vec()));
        }
        if self.bytes.len().saturating_add(packet.len()) > MAX_CAPTURE {
            return;
        }
        if self.bytes.is_empty() {
            // Nanoseconds, version 2.4, UTC, 64 KiB of each packet.
            for word in [0xa1b2_3c4d, 0x0004_0002, 0, 0, 0x4_0000, LINK] {
                self.bytes.extend_from_slice(&u32::to_le_bytes(word));
            }
        }
        let length = u32::try_from(packet.len()).unwrap_or(0);
        let (seconds, rest) = (time / 1_000_000_000, time % 1_000_000_000);
        for word in [seconds as u32, rest as u32, length, length] {
            self.bytes.extend_from_slice(&word.to_le_bytes());
        }
        self.bytes.extend_from_slice(packet);
    }

    /// A datagram.
    pub fn datagram(&mut self, time: u64, way: Way, guest: SocketAddr, other: SocketAddr, bytes: &[u8]) {
        let (from, to) = ends(way, guest, other);
        let payload = bytes.get(..bytes.len().min(DATAGRAM)).unwrap_or_default();
        let Some(builder) = around(from, to) else { return };
        let builder = builder.udp(from.port(), to.port());
        let mut packet = Vec::with_capacity(builder.size(payload.len()));
        if builder.write(&mut packet, payload).is_ok() {
            self.packet(time, way, &packet);
        }
    }

    /// A connection is made.
    pub fn connected(&mut self, time: u64, guest: SocketAddr, other: SocketAddr) {
        // Where each side begins to count follows from its address.
        let begin = |end: SocketAddr| {
            let ip = match end.ip() {
                IpAddr::V4(ip) => ip.to_bits(),
                IpAddr::V6(ip) => ip
                    .segments()
                    .iter()
                    .fold(0, |all: u32, part| all.rotate_left(5) ^ u32::from(*part)),
            };
            ip.rotate_left(7) ^ u32::from(end.port()) << 8
        };
        self.flows.insert((guest, other), [begin(guest), begin(other)]);
        self.segment(time, Way::Out, guest, other, Flags::Syn, &[]);
        self.segment(time, Way::In, guest, other, Flags::SynAck, &[]);
        self.segment(time, Way::Out, guest, other, Flags::Ack, &[]);
    }

    /// Bytes of a connection.
    pub fn sent(&mut self, time: u64, way: Way, guest: SocketAddr, other: SocketAddr, bytes: &[u8]) {
        // The window holds more than these.
        for group in bytes.chunks(8 * SEGMENT) {
            for part in group.chunks(SEGMENT) {
                self.segment(time, way, guest, other, Flags::Push, part);
            }
            self.segment(time, way.back(), guest, other, Flags::Ack, &[]);
        }
    }

    /// One side hangs up, and the other after it.
    pub fn ended(&mut self, time: u64, way: Way, guest: SocketAddr, other: SocketAddr) {
        let back = way.back();
        self.segment(time, way, guest, other, Flags::Fin, &[]);
        self.segment(time, back, guest, other, Flags::Fin, &[]);
        self.segment(time, way, guest, other, Flags::Ack, &[]);
        self.flows.remove(&(guest, other));
    }

    fn segment(
        &mut self,
        time: u64,
        way: Way,
        guest: SocketAddr,
        other: SocketAddr,
        flags: Flags,
        payload: &[u8],
    ) {
        let Some(numbers) = self.flows.get_mut(&(guest, other)) else {
            return;
        };
        let [out, back] = numbers;
        let (own, seen) = match way {
            Way::Out => (out, *back),
            Way::In => (back, *out),
        };
        let (from, to) = ends(way, guest, other);
        let Some(builder) = around(from, to) else { return };
        let builder = builder.tcp(from.port(), to.port(), *own, WINDOW);
        let builder = match flags {
            Flags::Syn => builder.syn(),
            Flags::SynAck => builder.syn().ack(seen),
            Flags::Ack => builder.ack(seen),
            Flags::Push => builder.psh().ack(seen),
            Flags::Fin => builder.fin().ack(seen),
        };
        let counts = matches!(flags, Flags::Syn | Flags::SynAck | Flags::Fin);
        *own = own
            .wrapping_add(u32::from(counts))
            .wrapping_add(u32::try_from(payload.len()).unwrap_or(0));
        let mut packet = Vec::with_capacity(builder.size(payload.len()));
        if builder.write(&mut packet, payload).is_ok() {
            self.packet(time, way, &packet);
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Flags {
    Syn,
    SynAck,
    Ack,
    Push,
    Fin,
}

fn ends(way: Way, guest: SocketAddr, other: SocketAddr) -> (SocketAddr, SocketAddr) {
    match way {
        Way::Out => (guest, other),
        Way::In => (other, guest),
    }
}

/// What goes around a packet; `None`: no packet goes from one version of IP to the other.
pub(crate) fn around(from: SocketAddr, to: SocketAddr) -> Option<PacketBuilderStep<IpHeaders>> {
    match (from.ip(), to.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            Some(PacketBuilder::ipv4(from.octets(), to.octets(), TIME_TO_LIVE))
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            Some(PacketBuilder::ipv6(from.octets(), to.octets(), TIME_TO_LIVE))
        }
        _ => None,
    }
}

/// The guest's end as it stands on the wire, of a flow to `other`: whoever is bound to no address has the one out there.
pub fn guest_end(own: Option<SocketAddr>, other: SocketAddr) -> SocketAddr {
    let port = own.map_or(0, |own| own.port());
    let bound = own.map(|own| own.ip().to_canonical());
    let fits = bound.filter(|ip| !ip.is_unspecified() && ip.is_ipv4() == other.is_ipv4());
    let ip = fits.unwrap_or(match other.is_ipv4() {
        true => IpAddr::V4(super::GUEST),
        false => IpAddr::V6(super::GUEST_V6),
    });
    SocketAddr::new(ip, port)
}
