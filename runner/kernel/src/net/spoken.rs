//! Socket addresses as a guest writes, reads and an event tells them. The family is in the guest's byte order, ports and
//! addresses of IP in the network's (`unix(7)`, `ip(7)`, `ipv6(7)`, `netlink(7)`, `packet(7)`).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use hotcell_schema::guest::text;

use crate::abi::Abi;
use crate::abi::layout::Layout;
use crate::net::{Address, Family};

/// Bytes of the longest address (`struct sockaddr_storage`).
pub(crate) const MOST: u64 = 128;
const UNIX: u16 = 1;
const INET: u16 = 2;
const INET6: u16 = 10;
const NETLINK: u16 = 16;
const PACKET: u16 = 17;

/// A socket address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Spoken {
    /// `AF_UNSPEC`.
    Nobody,
    /// A unix socket without a name.
    Unnamed,
    Path(Vec<u8>),
    Abstract(Vec<u8>),
    Inet(SocketAddr),
    Netlink {
        port: u32,
        groups: u32,
    },
    Link {
        protocol: u16,
        interface: u32,
    },
    /// Another family.
    Other(u16),
}

impl Spoken {
    /// Reads an address; `None`: it is too short for its family.
    pub(crate) fn read(abi: &Abi, bytes: &[u8]) -> Option<Self> {
        let family = abi.get_u16(*bytes.first_chunk()?);
        let body = bytes.get(2..)?;
        let port = || Some(u16::from_be_bytes(*body.first_chunk()?));
        Some(match family {
            0 => Self::Nobody,
            UNIX => match body {
                [] => Self::Unnamed,
                [0, name @ ..] => Self::Abstract(name.to_vec()),
                path => Self::Path(path.split(|byte| *byte == 0).next()?.to_vec()),
            },
            INET => {
                let ip = Ipv4Addr::from(*body.get(2..)?.first_chunk::<4>()?);
                Self::Inet(SocketAddr::new(IpAddr::V4(ip), port()?))
            }
            INET6 => {
                let ip = Ipv6Addr::from(*body.get(6..)?.first_chunk::<16>()?);
                Self::Inet(SocketAddr::new(IpAddr::V6(ip), port()?))
            }
            NETLINK => Self::Netlink {
                port: abi.get_u32(*body.get(2..)?.first_chunk()?),
                groups: abi.get_u32(*body.get(6..)?.first_chunk()?),
            },
            PACKET => Self::Link {
                protocol: port()?,
                interface: abi.get_u32(*body.get(2..)?.first_chunk()?),
            },
            other => Self::Other(other),
        })
    }

    /// The address of a socket of a family as its owner reads it.
    pub(crate) fn of(family: Family, address: Option<&Address>) -> Self {
        let any = |ip: IpAddr| Self::Inet(SocketAddr::new(ip, 0));
        match (family, address.map(Self::from)) {
            (Family::Inet, Some(Self::Inet(address))) => {
                Self::Inet(SocketAddr::new(address.ip().to_canonical(), address.port()))
            }
            (Family::Inet6, Some(Self::Inet(address))) => match address.ip() {
                IpAddr::V4(ip) => {
                    Self::Inet(SocketAddr::new(IpAddr::V6(ip.to_ipv6_mapped()), address.port()))
                }
                IpAddr::V6(_) => Self::Inet(address),
            },
            (_, Some(spoken)) => spoken,
            (Family::Unix, None) => Self::Unnamed,
            (Family::Inet, None) => any(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
            (Family::Inet6, None) => any(IpAddr::V6(Ipv6Addr::UNSPECIFIED)),
            (Family::Netlink, None) => Self::Netlink { port: 0, groups: 0 },
            (Family::Packet, None) => Self::Link {
                protocol: 0,
                interface: 0,
            },
        }
    }

    /// Its bytes.
    pub(crate) fn bytes(&self, abi: &Abi) -> Vec<u8> {
        let layout = Layout::new(abi);
        match self {
            Self::Nobody => layout.u16(0).bytes,
            Self::Unnamed => layout.u16(UNIX).bytes,
            Self::Path(path) => [layout.u16(UNIX).bytes.as_slice(), path, b"\0"].concat(),
            Self::Abstract(name) => [layout.u16(UNIX).bytes.as_slice(), b"\0", name].concat(),
            Self::Inet(address) => {
                let port = address.port().to_be_bytes();
                match address.ip() {
                    IpAddr::V4(ip) => {
                        let head = layout.u16(INET).bytes;
                        [head.as_slice(), &port, &ip.octets(), &[0; 8]].concat()
                    }
                    IpAddr::V6(ip) => {
                        let head = layout.u16(INET6).bytes;
                        [head.as_slice(), &port, &[0; 4], &ip.octets(), &[0; 4]].concat()
                    }
                }
            }
            Self::Netlink { port, groups } => layout.u16(NETLINK).u16(0).u32(*port).u32(*groups).bytes,
            Self::Link { protocol, interface } => {
                let mut layout = layout.u16(PACKET);
                layout.bytes.extend(protocol.to_be_bytes());
                // ARPHRD_ETHER, PACKET_HOST, and no address: whose it was stands in the frame.
                layout.u32(*interface).u16(1).u8(0).u8(0).pad(8).bytes
            }
            Self::Other(family) => layout.u16(*family).bytes,
        }
    }
}

impl From<&Address> for Spoken {
    fn from(address: &Address) -> Self {
        match address {
            Address::Path(path, _) => Self::Path(path.clone()),
            Address::Abstract(name) => Self::Abstract(name.clone()),
            Address::Inet(address) => Self::Inet(*address),
            Address::Netlink { port, groups } => Self::Netlink {
                port: *port,
                groups: *groups,
            },
            Address::Link { protocol, interface } => Self::Link {
                protocol: *protocol,
                interface: *interface,
            },
        }
    }
}

impl fmt::Display for Spoken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nobody => f.write_str("family-0:"),
            Self::Unnamed => f.write_str("unix:"),
            Self::Path(path) => write!(f, "unix:{}", text(path)),
            Self::Abstract(name) => write!(f, "unix:@{}", text(name)),
            Self::Inet(address) => write!(f, "{address}"),
            Self::Netlink { port, .. } => write!(f, "netlink:{port}"),
            Self::Link { interface, .. } => write!(f, "interface:{interface}"),
            Self::Other(family) => write!(f, "family-{family}:"),
        }
    }
}
