//! Names of sockets.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::fs::tree::Ino;
use crate::net::interfaces;

/// Address families.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Family {
    Unix,
    Inet,
    Inet6,
    Netlink,
    Packet,
}

/// What a socket is bound or connected to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Address {
    /// A socket file: the path that was said, and its inode.
    Path(Vec<u8>, Ino),
    /// A name of `unix(7)`'s abstract kind.
    Abstract(Vec<u8>),
    Inet(SocketAddr),
    /// Of a netlink socket: its number, and the groups that it hears.
    Netlink {
        port: u32,
        groups: u32,
    },
    /// Of a packet socket: what it hears (0: nothing), and where (0: everywhere).
    Link {
        protocol: u16,
        interface: u32,
    },
}

/// The same address, one of IPv4 that is written as one of IPv6 as such.
fn plain(ip: IpAddr) -> IpAddr {
    ip.to_canonical()
}

/// Whether the machine has this address, or it stands for all that it has.
pub(super) fn is_own(ip: IpAddr) -> bool {
    let ip = plain(ip);
    ip.is_loopback() || ip.is_unspecified()
}

/// Whether it is an own address of the machine on the simulated internet.
pub(super) fn is_out_there(ip: IpAddr) -> bool {
    interfaces::OUTSIDE.has(plain(ip))
}

/// The own address, without a port, from which another is called.
pub(super) fn own_for(peer: IpAddr, beyond: bool) -> SocketAddr {
    let (v4, v6) = match beyond {
        true => (hotcell_internet::GUEST, hotcell_internet::GUEST_V6),
        false => (Ipv4Addr::LOCALHOST, Ipv6Addr::LOCALHOST),
    };
    let own = match (peer, plain(peer)) {
        (IpAddr::V6(_), IpAddr::V4(_)) => IpAddr::V6(v4.to_ipv6_mapped()),
        (_, IpAddr::V4(_)) => IpAddr::V4(v4),
        (_, IpAddr::V6(_)) => IpAddr::V6(v6),
    };
    SocketAddr::new(own, 0)
}

/// Whether two names can be bound side by side though they have the same port.
pub(super) fn are_apart(there: Option<&Address>, new: &Address) -> bool {
    match (there, new) {
        (Some(Address::Inet(there)), Address::Inet(new)) => {
            let (there, new) = (plain(there.ip()), plain(new.ip()));
            !there.is_unspecified() && !new.is_unspecified() && there != new
        }
        _ => false,
    }
}

/// Whether who is bound to `local` is reached by calling `address`.
pub(super) fn reaches(local: &Address, address: &Address) -> bool {
    match (local, address) {
        (Address::Inet(local), Address::Inet(address)) => {
            let (own, called) = (plain(local.ip()), plain(address.ip()));
            let same_version = own.is_ipv4() == called.is_ipv4();
            // `::` takes calls of both versions; to call nobody's address is to call oneself.
            own == called
                || own.is_unspecified() && (own.is_ipv6() || same_version)
                || called.is_unspecified() && same_version && own.is_loopback()
        }
        _ => true,
    }
}

/// Whether two names are of different versions of IP.
pub(super) fn differ(there: Option<&Address>, new: &Address) -> bool {
    match (there, new) {
        (Some(Address::Inet(there)), Address::Inet(new)) => {
            plain(there.ip()).is_ipv4() != plain(new.ip()).is_ipv4()
        }
        _ => false,
    }
}
