//! Packets as they are on the wire: sent by who makes them itself, and heard by who listens there.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use hotcell_internet::capture::Way;
use hotcell_internet::packet::{self, Seen};

use crate::kernel::Kernel;
use crate::net::interfaces::{Interface, LOOPBACK, OUTSIDE};
use crate::net::{Address, Family, Kind, Packet, Socket};

/// Kinds of frame (`linux/if_ether.h`): packets of IPv4 and of IPv6, and whoever wants all.
const FRAME_IP: u16 = 0x0800;
const FRAME_IP_V6: u16 = 0x86dd;
const FRAME_ALL: u16 = 3;
/// Bytes of the header of an Ethernet frame.
pub(crate) const FRAME: usize = 14;
/// `SOL_RAW`, `ICMP_FILTER`: types that are not wanted, a bit each.
const FILTER: (u64, u64) = (255, 1);

/// What goes by.
struct Passing<'a> {
    way: Way,
    packet: &'a [u8],
    /// What it is, of IPv4.
    seen: Option<Seen<'a>>,
    interface: &'a Interface,
}

impl Kernel {
    /// Sends a packet over an interface; what comes back is heard by who listens.
    pub(crate) fn send_packet(&mut self, sent: &[u8], interface: &Interface) {
        // What is no packet at all goes nowhere.
        if Seen::read(sent).is_none() {
            return;
        }
        let answer = packet::answer(sent);
        if interface.is_loopback() {
            self.overhear(Way::In, sent, &LOOPBACK);
            if let Some(answer) = answer {
                self.overhear(Way::In, &answer, &LOOPBACK);
            }
            return;
        }
        let time = self.wire_time();
        self.outside.capture.packet(time, Way::Out, sent);
        if let Some(answer) = answer {
            self.outside.capture.packet(time, Way::In, &answer);
        }
        self.show_wire();
    }

    /// Whoever listens on the wire hears what went over it.
    pub(crate) fn show_wire(&mut self) {
        for (way, packet) in self.outside.capture.overheard() {
            self.overhear(way, &packet, &OUTSIDE);
        }
        let listens = !self.sockets.listeners().is_empty();
        self.outside.capture.listen(listens);
    }

    fn overhear(&mut self, way: Way, packet: &[u8], interface: &Interface) {
        let passing = Passing {
            way,
            packet,
            seen: Seen::read(packet),
            interface,
        };
        // One after the other: a packet is long, and they may be many.
        for id in self.sockets.listeners().clone() {
            let room = self.sockets.room_of(id);
            let Some(socket) = self.sockets.get(id).filter(|_| room >= packet.len()) else {
                continue;
            };
            let filter = socket.options.get(&FILTER).and_then(|value| value.first_chunk());
            let unwanted = filter.map_or(0, |filter| self.abi.get_u32(*filter));
            if let Some(packet) = hear(socket, &passing, unwanted) {
                // Who has no room does not hear it.
                self.sockets.deliver(id, packet);
                self.wake += 1;
            }
        }
    }
}

/// What a socket hears of a packet; `unwanted`: types of ICMP that it does not want.
fn hear(socket: &Socket, passing: &Passing<'_>, unwanted: u32) -> Option<Packet> {
    match socket.family {
        Family::Packet => hear_frame(socket, passing),
        _ => hear_packet(socket, passing, unwanted),
    }
}

fn hear_packet(socket: &Socket, passing: &Passing<'_>, unwanted: u32) -> Option<Packet> {
    let seen = passing.seen.as_ref()?;
    let host = |address: &Option<Address>| match address {
        Some(Address::Inet(address)) => match address.ip().to_canonical() {
            IpAddr::V4(ip) => Some(ip).filter(|ip| !ip.is_unspecified()),
            IpAddr::V6(_) => None,
        },
        _ => None,
    };
    let meant = || {
        let is = |address: &Option<Address>, ip: Ipv4Addr| host(address).is_none_or(|own| own == ip);
        passing.way == Way::In && is(&socket.local, seen.to) && is(&socket.peer, seen.from)
    };
    let bytes = match socket.kind {
        Kind::Raw(protocol) => {
            let kind = seen.payload.first().copied().unwrap_or(0);
            let filtered = seen.protocol == packet::ICMP && kind < 32 && unwanted >> kind & 1 != 0;
            if protocol != u16::from(seen.protocol) || filtered || !meant() {
                return None;
            }
            passing.packet.to_vec()
        }
        Kind::Ping => {
            let Some(Address::Inet(own)) = &socket.local else {
                return None;
            };
            if seen.echo() != Some((own.port(), false)) || !meant() {
                return None;
            }
            seen.payload.to_vec()
        }
        _ => return None,
    };
    Some(Packet {
        bytes,
        from: Some(Address::Inet(SocketAddr::new(IpAddr::V4(seen.from), 0))),
        ..Packet::default()
    })
}

fn hear_frame(socket: &Socket, passing: &Passing<'_>) -> Option<Packet> {
    let Passing {
        way,
        packet,
        interface,
        ..
    } = passing;
    let (Kind::Raw(made) | Kind::Cooked(made)) = socket.kind else {
        return None;
    };
    let (protocol, place) = match socket.local {
        Some(Address::Link { protocol, interface }) if protocol != 0 => (protocol, interface),
        Some(Address::Link { interface, .. }) => (made, interface),
        _ => (made, 0),
    };
    let kind = match packet.first().map(|first| first >> 4) {
        Some(6) => FRAME_IP_V6,
        _ => FRAME_IP,
    };
    // Only who wants all hears what is sent.
    let wanted = protocol == FRAME_ALL || protocol == kind && *way == Way::In;
    if !wanted || place != 0 && place != interface.index {
        return None;
    }
    let head = match socket.kind {
        Kind::Raw(_) => frame_head(*way, interface, kind),
        _ => Vec::new(),
    };
    Some(Packet {
        bytes: [head.as_slice(), packet].concat(),
        from: Some(Address::Link {
            protocol: kind,
            interface: interface.index,
        }),
        ..Packet::default()
    })
}

/// The header of a frame between the machine and its gateway.
fn frame_head(way: Way, interface: &Interface, kind: u16) -> Vec<u8> {
    let gateway = match interface.is_loopback() {
        true => interface.card,
        false => hotcell_internet::GATEWAY_CARD,
    };
    let (to, from) = match way {
        Way::Out => (gateway, interface.card),
        Way::In => (interface.card, gateway),
    };
    [to.as_slice(), &from, &kind.to_be_bytes()].concat()
}

/// The packet of IP in a frame, if there is one.
pub(crate) fn framed(frame: &[u8]) -> Option<&[u8]> {
    let kind = u16::from_be_bytes(*frame.get(12..)?.first_chunk()?);
    frame.get(FRAME..).filter(|_| kind == FRAME_IP)
}

/// Whether a kind of frame carries packets of IP.
pub(crate) fn carries_ip(kind: u16) -> bool {
    kind == FRAME_IP
}
