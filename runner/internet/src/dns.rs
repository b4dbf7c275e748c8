//! Names: each resolves to an address that follows from it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hotcell_schema::digest::Digest;
use hotcell_schema::internet::InternetWith;
use simple_dns::rdata::{A, AAAA, RData};
use simple_dns::{CLASS, Packet, PacketFlag, QTYPE, RCODE, ResourceRecord, TYPE};

use super::{Internet, Reply, Said};

/// How long an answer holds, in seconds.
const TTL: u32 = 300;
/// Bytes of a message that asks.
const MAX_QUESTION: usize = 1232;
/// Questions of one message that are answered.
const MAX_QUESTIONS: usize = 4;

/// Whether a name exists: all do that nobody said do not, and no address is asked for backwards.
fn exists(with: &InternetWith, name: &str) -> bool {
    let is = |known: &String| known.eq_ignore_ascii_case(name);
    let backwards = name.ends_with(".in-addr.arpa") || name.ends_with(".ip6.arpa");
    !backwards && !with.unknown.iter().any(is)
}

/// The address of a name. 198.18.0.0/15 belongs to nobody (RFC 2544).
pub(crate) fn address(with: &InternetWith, name: &str) -> Ipv4Addr {
    if let Some(address) = declared(with, name) {
        return address;
    }
    let digest = Digest::of(name.to_ascii_lowercase().as_bytes());
    let [a, b, c, ..] = *digest.as_bytes();
    Ipv4Addr::new(198, 18 + a % 2, b, c.clamp(1, 254))
}

/// Its address of IPv6. 2001:db8::/32 is for documents (RFC 3849).
fn address_v6(name: &str) -> Ipv6Addr {
    let digest = Digest::of(name.to_ascii_lowercase().as_bytes());
    let mut octets = [0; 16];
    octets[..4].copy_from_slice(&[0x20, 0x01, 0x0d, 0xb8]);
    for (place, byte) in octets.iter_mut().skip(4).zip(digest.as_bytes()) {
        *place = *byte;
    }
    Ipv6Addr::from(octets)
}

/// The address that was declared for a name.
pub(crate) fn declared(with: &InternetWith, name: &str) -> Option<Ipv4Addr> {
    let mut hosts = with.hosts.iter();
    let found = hosts.find(|(known, _)| known.eq_ignore_ascii_case(name));
    found.map(|(_, address)| *address)
}

/// Answers a question; what is no question is dropped.
pub(crate) fn answer(internet: &mut Internet, with: &InternetWith, bytes: &[u8]) -> Option<Reply> {
    if bytes.len() > MAX_QUESTION {
        return None;
    }
    let question = Packet::parse(bytes).ok()?;
    if question.has_flags(PacketFlag::RESPONSE) || question.questions.is_empty() {
        return None;
    }
    let mut reply = Packet::new_reply(question.id());
    reply.set_flags(PacketFlag::RECURSION_AVAILABLE);
    if question.has_flags(PacketFlag::RECURSION_DESIRED) {
        reply.set_flags(PacketFlag::RECURSION_DESIRED);
    }
    let mut said = Vec::new();
    for asked in question.questions.iter().take(MAX_QUESTIONS) {
        let name = asked.qname.to_string();
        let there = exists(with, &name);
        if !there {
            *reply.rcode_mut() = RCODE::NameError;
        }
        let data = match asked.qtype {
            _ if !there => None,
            QTYPE::TYPE(TYPE::A) | QTYPE::ANY => {
                let address = address(with, &name);
                Some((IpAddr::V4(address), RData::A(A::from(address))))
            }
            QTYPE::TYPE(TYPE::AAAA) => {
                let address = address_v6(&name);
                Some((IpAddr::V6(address), RData::AAAA(AAAA::from(address))))
            }
            _ => None,
        };
        let found = data.as_ref().map(|(address, _)| *address);
        if let Some((address, data)) = data {
            internet.found(address, &name);
            let record = ResourceRecord::new(asked.qname.clone(), CLASS::IN, TTL, data);
            reply.answers.push(record);
        }
        // What a name is asked for beside its addresses is not told.
        if !there || found.is_some() {
            said.push(Said::Resolved { name, address: found });
        }
        reply.questions.push(asked.clone());
    }
    let bytes = reply.build_bytes_vec_compressed().ok()?;
    Some(Reply {
        bytes,
        closes: false,
        said,
    })
}
