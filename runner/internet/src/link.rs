//! The link between the guest's card and its gateway: frames of Ethernet around packets, and the gateway's card for whoever is asked
//! for ([RFC 826], [RFC 4861]).
//!
//! [RFC 826]: https://www.rfc-editor.org/rfc/rfc826
//! [RFC 4861]: https://www.rfc-editor.org/rfc/rfc4861

use std::net::Ipv6Addr;

use etherparse::{Icmpv6Type, NetSlice, PacketBuilder, SlicedPacket, TransportSlice};

use crate::{CARD, GATEWAY_CARD, GUEST};

/// Bytes before a packet: both cards, and what it is.
pub const HEADER: usize = 14;
const IPV4: [u8; 2] = [0x08, 0x00];
const IPV6: [u8; 2] = [0x86, 0xdd];
const ARP: [u8; 2] = [0x08, 0x06];
/// Of ARP: Ethernet and IPv4, the lengths of their addresses; behind it what is wanted.
const ARP_HEAD: [u8; 6] = [0, 1, 8, 0, 6, 4];
const ASKS: [u8; 2] = [0, 1];
const ANSWERS: [u8; 2] = [0, 2];
/// Of ICMPv6: who has this address; I do, and I am a router that was asked and knows better than others (RFC 4861, 4.3, 4.4).
const SOLICITS: u8 = 135;
const ADVERTISES: u8 = 136;
const ROUTER_ASKED_OVERRIDES: u8 = 0xe0;
/// The option that holds the card's address: its type, and its length in eight bytes (RFC 4861, 4.6.1).
const CARDS: [u8; 2] = [2, 1];
/// Hops that such a message may go: none between two links (RFC 4861, 7.1.2).
const ON_LINK: u8 = 255;

/// What came over the link.
#[derive(Debug, PartialEq, Eq)]
pub enum Arrival<'f> {
    /// A packet.
    Packet(&'f [u8]),
    /// A question about a card: the frame that answers it.
    Answer(Vec<u8>),
    /// Nothing that concerns anybody.
    Nothing,
}

/// Reads a frame of the guest's.
pub fn arrive(frame: &[u8]) -> Arrival<'_> {
    let (Some(kind), Some(packet)) = (frame.get(12..HEADER), frame.get(HEADER..)) else {
        return Arrival::Nothing;
    };
    let answer = match kind {
        kind if kind == ARP => whose(packet).map(|answer| framed(ARP, &answer)),
        kind if kind == IPV6 => match neighbour(packet) {
            Some(answer) => Some(framed(IPV6, &answer)),
            None => return Arrival::Packet(packet),
        },
        kind if kind == IPV4 => return Arrival::Packet(packet),
        _ => None,
    };
    answer.map_or(Arrival::Nothing, Arrival::Answer)
}

/// The frame around a packet for the guest; `None`: it is no packet of IP.
pub fn frame(packet: &[u8]) -> Option<Vec<u8>> {
    match packet.first()? >> 4 {
        4 => Some(framed(IPV4, packet)),
        6 => Some(framed(IPV6, packet)),
        _ => None,
    }
}

fn framed(kind: [u8; 2], packet: &[u8]) -> Vec<u8> {
    [&CARD[..], &GATEWAY_CARD, &kind, packet].concat()
}

/// Everybody on the link but the guest has the gateway's card.
fn whose(asked: &[u8]) -> Option<Vec<u8>> {
    let body: &[u8; 28] = asked.first_chunk()?;
    let (from, wanted) = (body.get(14..18)?, body.get(24..28)?);
    let asks = body.starts_with(&ARP_HEAD) && body.get(6..8)? == ASKS;
    // Whoever asks without an address, or for its own, wants to know whether another has it.
    if !asks || from == [0; 4] || wanted == from || wanted == GUEST.octets() {
        return None;
    }
    Some(
        [
            &ARP_HEAD[..],
            &ANSWERS,
            &GATEWAY_CARD,
            wanted,
            body.get(8..14)?,
            from,
        ]
        .concat(),
    )
}

/// The same of IPv6.
fn neighbour(packet: &[u8]) -> Option<Vec<u8>> {
    let sliced = SlicedPacket::from_ip(packet).ok()?;
    let Some(NetSlice::Ipv6(ip)) = &sliced.net else {
        return None;
    };
    let Some(TransportSlice::Icmpv6(asked)) = &sliced.transport else {
        return None;
    };
    let from = ip.header().source_addr();
    if asked.type_u8() != SOLICITS || from.is_unspecified() {
        return None;
    }
    let wanted: [u8; 16] = *asked.payload().first_chunk()?;
    if Ipv6Addr::from(wanted) == from || Ipv6Addr::from(wanted).is_multicast() {
        return None;
    }
    let advert = Icmpv6Type::Unknown {
        type_u8: ADVERTISES,
        code_u8: 0,
        bytes5to8: [ROUTER_ASKED_OVERRIDES, 0, 0, 0],
    };
    let payload = [&wanted[..], &CARDS, &GATEWAY_CARD].concat();
    let builder = PacketBuilder::ipv6(wanted, from.octets(), ON_LINK).icmpv6(advert);
    let mut answer = Vec::with_capacity(builder.size(payload.len()));
    builder.write(&mut answer, &payload).ok()?;
    Some(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_is_asked_for_has_the_gateways_card_and_the_guest_its_own() {
        let ask = |from: [u8; 4], wanted: [u8; 4]| {
            let body = [&ARP_HEAD[..], &ASKS, &CARD, &from, &[0; 6], &wanted].concat();
            [&[0xff; 6][..], &CARD, &ARP, &body].concat()
        };
        let Arrival::Answer(answer) = arrive(&ask([192, 0, 2, 15], [192, 0, 2, 53])) else {
            panic!("no answer")
        };
        assert_eq!(answer[..14], [&CARD[..], &GATEWAY_CARD, &ARP].concat());
        assert_eq!(answer[20..28], [&ANSWERS[..], &GATEWAY_CARD].concat()[..8]);
        assert_eq!(answer[28..32], [192, 0, 2, 53]);
        assert_eq!(arrive(&ask([0; 4], [192, 0, 2, 15])), Arrival::Nothing);
        assert_eq!(arrive(&ask([192, 0, 2, 15], [192, 0, 2, 15])), Arrival::Nothing);
        let solicits = |from: Ipv6Addr, wanted: Ipv6Addr| {
            let kind = Icmpv6Type::Unknown {
                type_u8: SOLICITS,
                code_u8: 0,
                bytes5to8: [0; 4],
            };
            let mut packet = Vec::new();
            PacketBuilder::ipv6(from.octets(), wanted.octets(), ON_LINK)
                .icmpv6(kind)
                .write(&mut packet, &wanted.octets())
                .unwrap();
            [&GATEWAY_CARD[..], &CARD, &IPV6, &packet].concat()
        };
        let (own, other) = (crate::GUEST_V6, crate::GATEWAY_V6);
        let frame = solicits(own, other);
        let Arrival::Answer(answer) = arrive(&frame) else {
            panic!("no answer")
        };
        assert!(answer.ends_with(&GATEWAY_CARD));
        let unsaid = solicits(Ipv6Addr::UNSPECIFIED, own);
        assert!(matches!(arrive(&unsaid), Arrival::Packet(_)));
        for length in 0..frame.len() {
            let _ = arrive(&frame[..length]);
        }
    }
}
