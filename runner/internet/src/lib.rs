//! The simulated internet: what a guest meets that calls out. Pure state machines; nothing here opens a socket.
//!
//! In: what was declared ([`InternetWith`]), and what a guest sends to whom. Out: what comes back, and what is worth telling.
//! The same declaration and the same bytes give the same answers, on every machine.
//!
//! | module | what is there |
//! |---|---|
//! | `dns` | every name resolves |
//! | `http` | web servers |
//! | `script` | peers that act by a script |
//! | [`packet`] | packets that a guest makes itself |
//! | [`capture`] | what went over the wire, as a pcap |
//! | `link` | frames around packets, and cards of who is asked for (feature `stack`) |
//! | `stack` | packets in, packets out: TCP/IP before all this (feature `stack`) |

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod capture;
mod dns;
mod http;
#[cfg(feature = "stack")]
pub mod link;
pub mod packet;
mod script;
#[cfg(feature = "stack")]
pub mod stack;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use hotcell_schema::event::{Network, NetworkOp};
use hotcell_schema::internet::InternetWith;
use serde::{Deserialize, Serialize};

use http::Exchange;
use script::Script;

/// The guest's own address out there, its gateway, and who it asks for names: addresses that documents use (RFC 5737).
pub const GUEST: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 15);
/// The gateway.
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// The same of IPv6. Its own is unique to its site (RFC 4193), so that whoever has the choice calls by IPv4 (RFC 6724, rule 5), as
/// on many a network at home; the gateway's is its card's on the link.
pub const GUEST_V6: Ipv6Addr = Ipv6Addr::new(0xfdb2, 0x2f0a, 0x61c4, 1, 0, 0, 0, 0x15);
/// The gateway of IPv6.
pub const GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0x020d, 0xb9ff, 0xfe41, 0x208c);
/// Address of the guest's card, and of its gateway's.
pub const CARD: [u8; 6] = [0x00, 0x1b, 0x21, 0x3a, 0x5c, 0x0f];
/// The gateway's.
pub const GATEWAY_CARD: [u8; 6] = [0x00, 0x0d, 0xb9, 0x41, 0x20, 0x8c];
/// Bytes that one peer may hold before they are answered.
const MAX_HELD: usize = 1 << 20;
/// Names that are remembered.
const MAX_NAMES: usize = 65_536;

/// What web servers give.
pub trait Web {
    /// The file of a host at an absolute path; `None`: there is none.
    fn file(&self, host: &str, path: &str) -> Option<Vec<u8>>;
    /// Whether anything is known of a host.
    fn knows(&self, host: &str) -> bool;
}

/// What has been on the internet so far.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Internet {
    /// Names that addresses were given out for.
    names: BTreeMap<IpAddr, String>,
}

/// What comes back.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reply {
    /// Bytes for the guest.
    pub bytes: Vec<u8>,
    /// The peer hangs up after them.
    pub closes: bool,
    /// What is worth telling.
    pub said: Vec<Said>,
}

/// What is worth telling.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// A name was looked up, and where it stands; nothing: it does not exist, or was asked for something else.
    Resolved {
        /// The name.
        name: String,
        /// Its address.
        address: Option<IpAddr>,
    },
    /// A web server was asked.
    Requested {
        /// Its name or address.
        host: String,
        /// Method and URL.
        request: String,
    },
}

impl Said {
    /// As an event tells it. `other`: who said it.
    pub fn event(&self, other: SocketAddr) -> Network {
        let (op, protocol, peer, host, request) = match self {
            Self::Resolved { name, address } => (
                NetworkOp::Resolve,
                "udp",
                address.map(|address| address.to_string()),
                name.clone(),
                None,
            ),
            Self::Requested { host, request } => (
                NetworkOp::Request,
                "tcp",
                Some(other.to_string()),
                host.clone(),
                Some(request.clone()),
            ),
        };
        Network {
            op,
            protocol: protocol.to_owned(),
            local: None,
            peer,
            host: Some(host),
            request,
            bytes: None,
            errno: None,
        }
    }
}

/// One connection, as its far side sees it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Peer {
    to: SocketAddr,
    part: Part,
}

/// What a peer is.
#[derive(Debug, Clone, Serialize, Deserialize)]
enum Part {
    /// What it is shows in the first bytes.
    Listens(Vec<u8>),
    Web(Exchange),
    Acts(Script),
    Silent,
}

impl Internet {
    /// The name by which an address was found.
    pub fn name_of<'a>(&'a self, address: IpAddr, with: &'a InternetWith) -> Option<&'a str> {
        let known = self.names.get(&address).map(String::as_str);
        known.or_else(|| {
            let mut hosts = with.hosts.iter();
            hosts
                .find(|(_, host)| IpAddr::V4(**host) == address)
                .map(|(name, _)| name.as_str())
        })
    }

    /// Somebody is called: whoever it is answers. Also gives what it says at once.
    pub fn call(&mut self, with: &InternetWith, to: SocketAddr) -> (Peer, Reply) {
        let name = self.name_of(to.ip(), with);
        let script = with.peers.iter().position(|peer| {
            let fits = |host: &String| {
                name.is_some_and(|name| name.eq_ignore_ascii_case(host))
                    || host.parse() == Ok(to.ip())
                    || dns::declared(with, host).map(IpAddr::V4) == Some(to.ip())
            };
            peer.port == to.port() && peer.host.as_ref().is_none_or(fits)
        });
        let part = match script {
            Some(index) => Part::Acts(Script::new(index)),
            None => Part::Listens(Vec::new()),
        };
        let mut peer = Peer { to, part };
        let reply = match &mut peer.part {
            Part::Acts(script) => script.go_on(with),
            _ => Reply::default(),
        };
        (peer, reply)
    }

    /// A peer hears bytes.
    pub fn hear(&mut self, peer: &mut Peer, with: &InternetWith, web: &dyn Web, bytes: &[u8]) -> Reply {
        if let Part::Listens(first) = &mut peer.part {
            first.extend_from_slice(bytes);
            peer.part = match http::begins(first) {
                http::Begins::Yes => {
                    let first = std::mem::take(first);
                    peer.part = Part::Web(Exchange::default());
                    return self.hear(peer, with, web, &first);
                }
                http::Begins::No => Part::Silent,
                http::Begins::Unknown => return Reply::default(),
            };
        }
        match &mut peer.part {
            Part::Acts(script) => script.hear(with, bytes),
            Part::Web(exchange) => {
                let name = self.name_of(peer.to.ip(), with).map(str::to_owned);
                exchange.hear(with, web, name.as_deref(), peer.to, bytes)
            }
            Part::Listens(_) | Part::Silent => Reply::default(),
        }
    }

    /// A datagram is sent out; what comes back comes from where it went.
    pub fn datagram(&mut self, with: &InternetWith, to: SocketAddr, bytes: &[u8]) -> Option<Reply> {
        match to.port() {
            53 => dns::answer(self, with, bytes),
            _ => None,
        }
    }

    /// A name was found at an address.
    fn found(&mut self, address: IpAddr, name: &str) {
        if self.names.len() < MAX_NAMES || self.names.contains_key(&address) {
            self.names.insert(address, name.to_ascii_lowercase());
        }
    }
}
