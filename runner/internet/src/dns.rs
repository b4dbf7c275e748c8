//! Names: each resolves to an address that follows from it.

use std::net::Ipv4Addr;

use hotcell_schema::digest::Digest;
use hotcell_schema::internet::InternetWith;
use simple_dns::rdata::{A, RData};
use simple_dns::{CLASS, Packet, PacketFlag, QTYPE, RCODE, ResourceRecord, TYPE};

use super::{Internet, Reply, Said};

/// How long an answer holds, in seconds.
const TTL: u32 = 300;
/// Bytes of a message that asks.
const MAX_QUESTION: usize = 1232;
/// Questions of one message that are answered.
const MAX_QUESTIONS: usize = 4;

/// The address of a name; `None`: it does not exist. 198.18.0.0/15 belongs to nobody (RFC 2544).
pub(crate) fn address(with: &InternetWith, name: &str) -> Option<Ipv4Addr> {
    let is = |known: &String| known.eq_ignore_ascii_case(name);
    if with.unknown.iter().any(is) {
        return None;
    }
    if let Some(address) = declared(with, name) {
        return Some(address);
    }
    let digest = Digest::of(name.to_ascii_lowercase().as_bytes());
    let [a, b, c, ..] = *digest.as_bytes();
    Some(Ipv4Addr::new(198, 18 + a % 2, b, c.clamp(1, 254)))
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
        let is_local = name.ends_with(".in-addr.arpa") || name.ends_with(".ip6.arpa");
        let found = match is_local {
            true => None,
            false => internet.resolve(with, &name),
        };
        if found.is_none() {
            *reply.rcode_mut() = RCODE::NameError;
        }
        let wants_address = matches!(asked.qtype, QTYPE::TYPE(TYPE::A) | QTYPE::ANY);
        let address = found.filter(|_| wants_address);
        if let Some(address) = address {
            let data = RData::A(A::from(address));
            reply
                .answers
                .push(ResourceRecord::new(asked.qname.clone(), CLASS::IN, TTL, data));
        }
        // Nobody has an address of IPv6: whoever asks for one asks for the other too.
        if found.is_none() || address.is_some() {
            said.push(Said::Resolved { name, address });
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
