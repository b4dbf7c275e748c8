//! Packets of IP that a guest makes itself: what Linux adds to them, and what comes back. ([RFC 791], [RFC 792], `raw(7)`.)
//!
//! [RFC 791]: https://www.rfc-editor.org/rfc/rfc791
//! [RFC 792]: https://www.rfc-editor.org/rfc/rfc792

use std::net::Ipv4Addr;

use etherparse::{Icmpv4Header, Icmpv4Type, IpNumber, Ipv4Header, PacketBuilder};

/// Hops that a packet may go, unless its sender says otherwise.
pub const TIME_TO_LIVE: u8 = 64;
/// `IPPROTO_ICMP`.
pub const ICMP: u8 = 1;
/// Bytes that go into one frame.
pub const MTU: usize = 1500;

/// A packet, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen<'a> {
    /// Number of the protocol that it carries.
    pub protocol: u8,
    /// Who says it comes from them.
    pub from: Ipv4Addr,
    /// Whom it goes to.
    pub to: Ipv4Addr,
    /// What it carries.
    pub payload: &'a [u8],
}

impl<'a> Seen<'a> {
    /// Reads a packet; `None`: it is none of IPv4.
    pub fn read(packet: &'a [u8]) -> Option<Self> {
        let (header, payload) = Ipv4Header::from_slice(packet).ok()?;
        Some(Self {
            protocol: header.protocol.0,
            from: header.source.into(),
            to: header.destination.into(),
            payload,
        })
    }

    /// The number of an echo that it carries, and whether it asks for one.
    pub fn echo(&self) -> Option<(u16, bool)> {
        let (header, _) = self.icmp()?;
        match header.icmp_type {
            Icmpv4Type::EchoRequest(echo) => Some((echo.id, true)),
            Icmpv4Type::EchoReply(echo) => Some((echo.id, false)),
            _ => None,
        }
    }

    fn icmp(&self) -> Option<(Icmpv4Header, &'a [u8])> {
        (self.protocol == ICMP)
            .then(|| Icmpv4Header::from_slice(self.payload).ok())
            .flatten()
    }
}

/// A packet around what a program sends; `None`: it is too long.
pub fn wrap(from: Ipv4Addr, to: Ipv4Addr, protocol: u8, hops: u8, payload: &[u8]) -> Option<Vec<u8>> {
    let length = u16::try_from(payload.len()).ok()?;
    let protocol = IpNumber(protocol);
    let mut header = Ipv4Header::new(length, hops, protocol, from.octets(), to.octets()).ok()?;
    header.header_checksum = header.calc_header_checksum();
    Some([&header.to_bytes(), payload].concat())
}

/// A packet whose header the program made (`IP_HDRINCL`), with what Linux fills in: its length and sum, and the source
/// where that is missing. `None`: it has no header.
pub fn finish(packet: &[u8], own: Ipv4Addr) -> Option<Vec<u8>> {
    let (mut header, payload) = Ipv4Header::from_slice(packet).ok()?;
    header.total_len = u16::try_from(packet.len()).ok()?;
    if header.source == [0; 4] {
        header.source = own.octets();
    }
    header.header_checksum = header.calc_header_checksum();
    Some([&header.to_bytes(), payload].concat())
}

/// A message of a ping socket with its number and sum; `None`: it asks for no echo.
pub fn echo_request(message: &[u8], id: u16) -> Option<Vec<u8>> {
    let (mut header, payload) = Icmpv4Header::from_slice(message).ok()?;
    let Icmpv4Type::EchoRequest(echo) = &mut header.icmp_type else {
        return None;
    };
    echo.id = id;
    header.update_checksum(payload);
    Some([&header.to_bytes(), payload].concat())
}

/// What comes back for a packet: whoever is asked for an echo gives it, and nobody else hears.
pub fn answer(packet: &[u8]) -> Option<Vec<u8>> {
    let seen = Seen::read(packet)?;
    let (header, payload) = seen.icmp()?;
    let Icmpv4Type::EchoRequest(echo) = header.icmp_type else {
        return None;
    };
    // What was damaged on its way is dropped.
    if header.icmp_type.calc_checksum(payload) != header.checksum {
        return None;
    }
    let builder = PacketBuilder::ipv4(seen.to.octets(), seen.from.octets(), TIME_TO_LIVE)
        .icmpv4_echo_reply(echo.id, echo.seq);
    let mut reply = Vec::with_capacity(builder.size(payload.len()));
    builder.write(&mut reply, payload).ok()?;
    Some(reply)
}
