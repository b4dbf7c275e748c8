//! The machine's interfaces, neighbours and routes: what netlink, ioctls, `/proc/net` and `/sys/class/net` all say.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hotcell_internet::{CARD, GATEWAY, GATEWAY_CARD, GATEWAY_V6, GUEST, GUEST_V6};

/// Flags of interfaces (`linux/if.h`).
mod flag {
    pub(super) const UP: u32 = 1;
    pub(super) const BROADCAST: u32 = 2;
    pub(super) const LOOPBACK: u32 = 8;
    pub(super) const RUNNING: u32 = 0x40;
    pub(super) const MULTICAST: u32 = 0x1000;
    pub(super) const LOWER_UP: u32 = 0x1_0000;
}

/// How far an address or a route is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    Global,
    Link,
    Host,
}

impl Scope {
    /// As routes have it (`RT_SCOPE_*`, linux/rtnetlink.h).
    pub(crate) fn number(self) -> u8 {
        match self {
            Self::Global => 0,
            Self::Link => 253,
            Self::Host => 254,
        }
    }

    /// As `/proc/net/if_inet6` has it (`IFA_*`, include/net/ipv6.h).
    pub(crate) fn bits(self) -> u8 {
        match self {
            Self::Global => 0,
            Self::Link => 0x20,
            Self::Host => 0x10,
        }
    }
}

/// An interface.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Interface {
    pub(crate) index: u32,
    pub(crate) name: &'static str,
    pub(crate) flags: u32,
    /// `ARPHRD_*` (`linux/if_arp.h`).
    pub(crate) hardware: u16,
    pub(crate) card: [u8; 6],
    /// Whom all on the link hear.
    pub(crate) everybody: [u8; 6],
    pub(crate) mtu: u32,
    pub(crate) queue: u32,
    pub(crate) address: Ipv4Addr,
    /// Bits of the network's part.
    pub(crate) prefix: u8,
    /// Addresses of IPv6 with the bits of their networks' parts, and how far they are valid.
    pub(crate) v6: &'static [(Ipv6Addr, u8, Scope)],
    /// The row of `/proc/net/dev`: bytes and packets received, and sent.
    pub(crate) moved: [u64; 4],
}

impl Interface {
    pub(crate) fn is_loopback(&self) -> bool {
        self.flags & flag::LOOPBACK != 0
    }

    /// Whether it has this address.
    pub(crate) fn has(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => address == self.address,
            IpAddr::V6(address) => self.v6.iter().any(|(own, ..)| *own == address),
        }
    }

    pub(crate) fn mask(&self) -> Ipv4Addr {
        mask(self.prefix)
    }

    pub(crate) fn network(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.address.to_bits() & self.mask().to_bits())
    }

    /// Whom all in the network hear; the loopback has nobody.
    pub(crate) fn broadcast(&self) -> Option<Ipv4Addr> {
        let all = Ipv4Addr::from_bits(self.address.to_bits() | !self.mask().to_bits());
        (!self.is_loopback()).then_some(all)
    }
}

/// The mask of a network whose part has so many bits.
pub(crate) fn mask(prefix: u8) -> Ipv4Addr {
    let host = 32u32.saturating_sub(u32::from(prefix));
    Ipv4Addr::from_bits(u32::MAX.checked_shl(host).unwrap_or(0))
}

/// A route of the main table.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Route {
    pub(crate) to: Ipv4Addr,
    pub(crate) prefix: u8,
    pub(crate) gateway: Option<Ipv4Addr>,
    pub(crate) interface: Interface,
}

/// A route of IPv6.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RouteV6 {
    pub(crate) to: Ipv6Addr,
    pub(crate) prefix: u8,
    pub(crate) gateway: Option<Ipv6Addr>,
    pub(crate) metric: u32,
    pub(crate) interface: Interface,
}

/// A neighbour on the link.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Neighbour {
    pub(crate) address: Ipv4Addr,
    pub(crate) card: [u8; 6],
    pub(crate) interface: Interface,
}

/// The interface that everything on the machine itself goes over.
pub(crate) const LOOPBACK: Interface = Interface {
    index: 1,
    name: "lo",
    flags: flag::UP | flag::LOOPBACK | flag::RUNNING | flag::LOWER_UP,
    hardware: 772,
    card: [0; 6],
    everybody: [0; 6],
    mtu: 65_536,
    queue: 1000,
    address: Ipv4Addr::LOCALHOST,
    prefix: 8,
    v6: &[(Ipv6Addr::LOCALHOST, 128, Scope::Host)],
    moved: [0; 4],
};

/// The card's own address on its link (RFC 4291, appendix A).
const ON_LINK: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0x021b, 0x21ff, 0xfe3a, 0x5c0f);

/// The interface to the simulated internet.
pub(crate) const OUTSIDE: Interface = Interface {
    index: 2,
    name: "eth0",
    flags: flag::UP | flag::BROADCAST | flag::RUNNING | flag::MULTICAST | flag::LOWER_UP,
    hardware: 1,
    card: CARD,
    everybody: [0xff; 6],
    mtu: 1500,
    queue: 1000,
    address: GUEST,
    prefix: 24,
    v6: &[(GUEST_V6, 64, Scope::Global), (ON_LINK, 64, Scope::Link)],
    moved: [48_213, 412, 31_877, 305],
};

/// The machine's place in the network: on the simulated internet, or nowhere.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Links {
    pub(crate) is_online: bool,
}

impl Links {
    pub(crate) fn interfaces(self) -> impl Iterator<Item = Interface> {
        [LOOPBACK].into_iter().chain(self.is_online.then_some(OUTSIDE))
    }

    pub(crate) fn by_index(self, index: u32) -> Option<Interface> {
        self.interfaces().find(|one| one.index == index)
    }

    pub(crate) fn by_name(self, name: &[u8]) -> Option<Interface> {
        self.interfaces().find(|one| one.name.as_bytes() == name)
    }

    pub(crate) fn routes(self) -> impl Iterator<Item = Route> {
        let all = [
            Route {
                to: Ipv4Addr::UNSPECIFIED,
                prefix: 0,
                gateway: Some(GATEWAY),
                interface: OUTSIDE,
            },
            Route {
                to: OUTSIDE.network(),
                prefix: OUTSIDE.prefix,
                gateway: None,
                interface: OUTSIDE,
            },
        ];
        all.into_iter().filter(move |_| self.is_online)
    }

    pub(crate) fn routes_v6(self) -> impl Iterator<Item = RouteV6> {
        let route = |to, prefix, gateway, metric| RouteV6 {
            to,
            prefix,
            gateway,
            metric,
            interface: OUTSIDE,
        };
        let network = |address: Ipv6Addr| Ipv6Addr::from_bits(address.to_bits() >> 64 << 64);
        let all = [
            route(network(GUEST_V6), 64, None, 256),
            route(network(ON_LINK), 64, None, 256),
            route(Ipv6Addr::UNSPECIFIED, 0, Some(GATEWAY_V6), 1024),
        ];
        all.into_iter().filter(move |_| self.is_online)
    }

    pub(crate) fn neighbours(self) -> impl Iterator<Item = Neighbour> {
        let gateway = Neighbour {
            address: GATEWAY,
            card: GATEWAY_CARD,
            interface: OUTSIDE,
        };
        self.is_online.then_some(gateway).into_iter()
    }
}

/// The address of a card as text.
pub(crate) fn card_text(card: [u8; 6]) -> String {
    card.map(|byte| format!("{byte:02x}")).join(":")
}
