//! The guest's card, and the link to the keeper: a pair of interfaces (veth(4)), one in the guest's namespace, the other in one of
//! the keeper's own, where a socket takes and gives frames (packet(7)).
//!
//! This takes no device of the host's, which a keeper that owns nothing could not open, and no right but those of its user namespace.
#![allow(unsafe_code)]

use std::fs::{self, File};
use std::io;
use std::mem;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use hotcell_internet::packet::MTU;
use hotcell_internet::{CARD, GATEWAY, GATEWAY_CARD, GATEWAY_V6, GUEST, GUEST_V6};
use nix::sched::{CloneFlags, setns, unshare};

/// The names of both: the guest's as the emulated Linux has it.
const CARDS: &[u8] = b"eth0";
const FAR: &[u8] = b"far";
/// The guest's networks: bits of the part that is the network's.
const PREFIX: u32 = 24;
const PREFIX_V6: u32 = 64;
/// `RTF_UP`, `RTF_GATEWAY` (linux/route.h).
const ROUTE_UP: u32 = 1;
const ROUTE_GATEWAY: u32 = 2;
/// Metric of a default route of IPv6 (`IP6_RT_PRIO_USER`, include/net/ip6_route.h).
const METRIC_V6: u32 = 1024;
/// What a card does for its machine, which nobody does here: `ETHTOOL_STSO`, `ETHTOOL_SGSO`, `ETHTOOL_STXCSUM` (linux/ethtool.h).
const DOES_FOR_IT: [u32; 3] = [0x1f, 0x24, 0x17];
/// Bytes of frames that wait for the keeper; what is more is lost.
const WAITS: libc::c_int = 4 << 20;
/// Messages and attributes (linux/rtnetlink.h, if_link.h, veth.h).
mod link {
    pub(super) const NEW: u16 = 16;
    pub(super) const ADDRESS: u16 = 1;
    pub(super) const NAME: u16 = 3;
    pub(super) const INFO: u16 = 18;
    pub(super) const NAMESPACE: u16 = 28;
    pub(super) const KIND: u16 = 1;
    pub(super) const DATA: u16 = 2;
    pub(super) const PEER: u16 = 1;
}

/// `struct in6_rtmsg` (linux/ipv6_route.h).
#[repr(C)]
struct RouteV6 {
    to: [u8; 16],
    from: [u8; 16],
    gateway: [u8; 16],
    kind: u32,
    to_bits: u16,
    from_bits: u16,
    metric: u32,
    info: libc::c_ulong,
    flags: u32,
    interface: libc::c_int,
}

/// `struct ethtool_value` (linux/ethtool.h).
#[repr(C)]
struct Feature {
    command: u32,
    value: u32,
}

/// The keeper's end.
#[derive(Debug)]
pub(crate) struct Card(OwnedFd);

fn told(doing: &str) -> impl FnOnce(io::Error) -> String {
    move |error| format!("{doing}: {error}")
}

fn done(result: libc::c_int) -> io::Result<libc::c_int> {
    match result {
        0.. => Ok(result),
        _ => Err(io::Error::last_os_error()),
    }
}

fn socket(family: libc::c_int, kind: libc::c_int, protocol: libc::c_int) -> io::Result<OwnedFd> {
    // SAFETY: makes a descriptor, which nothing else owns.
    unsafe {
        done(libc::socket(family, kind | libc::SOCK_CLOEXEC, protocol))
            .map(|number| OwnedFd::from_raw_fd(number))
    }
}

/// Asks a descriptor for something, by a structure.
fn ask<T>(of: &OwnedFd, what: libc::c_ulong, with: &mut T) -> io::Result<()> {
    // SAFETY: each caller gives the structure that the call takes; the kernel reads and writes it alone, during the call.
    done(unsafe { libc::ioctl(of.as_raw_fd(), what as libc::Ioctl, std::ptr::from_mut(with)) }).map(drop)
}

fn set<T>(of: &OwnedFd, level: libc::c_int, option: libc::c_int, value: &T) -> io::Result<()> {
    let length = mem::size_of::<T>() as libc::socklen_t;
    // SAFETY: the kernel reads one value of this length.
    done(unsafe {
        libc::setsockopt(
            of.as_raw_fd(),
            level,
            option,
            std::ptr::from_ref(value).cast(),
            length,
        )
    })
    .map(drop)
}

/// A request about an interface.
fn request(name: &[u8]) -> libc::ifreq {
    // SAFETY: plain numbers, for which zero is a value.
    let mut request: libc::ifreq = unsafe { mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name) {
        *to = from.cast_signed();
    }
    request
}

/// An address as requests hold it.
fn address(ip: Ipv4Addr) -> libc::sockaddr {
    let address = libc::sockaddr_in {
        sin_family: libc::AF_INET as libc::sa_family_t,
        sin_port: 0,
        sin_addr: libc::in_addr {
            s_addr: u32::from_ne_bytes(ip.octets()),
        },
        sin_zero: [0; 8],
    };
    // SAFETY: both are plain numbers of the same size; programs cast one to the other (sockaddr(3type)).
    unsafe { mem::transmute::<libc::sockaddr_in, libc::sockaddr>(address) }
}

/// The number of an interface.
fn index(of: &OwnedFd, name: &[u8]) -> io::Result<libc::c_int> {
    let mut request = request(name);
    ask(of, libc::SIOCGIFINDEX, &mut request)?;
    // SAFETY: the kernel has just written this field.
    Ok(unsafe { request.ifr_ifru.ifru_ifindex })
}

fn switch_on(of: &OwnedFd, name: &[u8]) -> io::Result<()> {
    let mut request = request(name);
    ask(of, libc::SIOCGIFFLAGS, &mut request)?;
    // SAFETY: the kernel has just written this field.
    unsafe { request.ifr_ifru.ifru_flags |= libc::IFF_UP as libc::c_short };
    ask(of, libc::SIOCSIFFLAGS, &mut request)
}

/// A setting of an interface in this process's namespace of networks.
fn setting(name: &str, what: &str, value: &str) {
    // A kernel without IPv6 has none of them.
    let _ = fs::write(format!("/proc/sys/net/ipv6/conf/{name}/{what}"), value);
}

impl Card {
    /// Makes it, in the guest's namespace, which is this process's, with its addresses and routes. What is told says why it cannot be
    /// made.
    pub(crate) fn make() -> Result<Self, String> {
        let of_nix = io::Error::from;
        let guests = File::open("/proc/self/ns/net").map_err(told("the guest's network"))?;
        unshare(CloneFlags::CLONE_NEWNET)
            .map_err(of_nix)
            .map_err(told("a network of the keeper's own"))?;
        let end = far_end(&guests).map_err(told(
            "the simulated internet takes a pair of interfaces (CONFIG_VETH)",
        ));
        setns(&guests, CloneFlags::CLONE_NEWNET)
            .map_err(of_nix)
            .map_err(told("going back to the guest's network"))?;
        let card = Self(end?);
        near_end().map_err(told("the guest's card"))?;
        Ok(card)
    }

    /// Takes a frame of the guest's: how many bytes; `None`: there is none.
    pub(crate) fn take(&mut self, room: &mut [u8]) -> io::Result<Option<usize>> {
        // SAFETY: the kernel writes into `room`, no more than its length.
        let count = unsafe { libc::recv(self.0.as_raw_fd(), room.as_mut_ptr().cast(), room.len(), 0) };
        match usize::try_from(count) {
            Ok(count) => Ok(Some(count)),
            Err(_) => match io::Error::last_os_error() {
                error
                    if matches!(
                        error.kind(),
                        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                    ) =>
                {
                    Ok(None)
                }
                error => Err(error),
            },
        }
    }

    /// Gives the guest a frame. Whether there was room.
    pub(crate) fn give(&mut self, frame: &[u8]) -> bool {
        // SAFETY: the kernel reads `frame`.
        unsafe { libc::send(self.0.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0) >= 0 }
    }
}

impl AsFd for Card {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Makes the pair, in the keeper's own namespace, and takes what comes over it.
fn far_end(guests: &File) -> io::Result<OwnedFd> {
    make_pair(guests)?;
    setting("far", "disable_ipv6", "1");
    let of = socket(libc::AF_INET, libc::SOCK_DGRAM, 0)?;
    switch_on(&of, FAR)?;
    let frames = socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_NONBLOCK, 0)?;
    // What it sends itself it need not hear (linux/if_packet.h, `PACKET_IGNORE_OUTGOING`).
    set(&frames, libc::SOL_PACKET, 23, &1_i32)?;
    set(&frames, libc::SOL_SOCKET, libc::SO_RCVBUF, &WAITS)?;
    // SAFETY: plain numbers, for which zero is a value.
    let mut here: libc::sockaddr_ll = unsafe { mem::zeroed() };
    here.sll_family = libc::AF_PACKET as libc::c_ushort;
    here.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
    here.sll_ifindex = index(&of, FAR)?;
    let length = mem::size_of_val(&here) as libc::socklen_t;
    // SAFETY: the kernel reads one address of this length.
    done(unsafe { libc::bind(frames.as_raw_fd(), std::ptr::from_ref(&here).cast(), length) })?;
    Ok(frames)
}

/// An attribute of a message (netlink(7)).
fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = (value.len() + 4) as u16;
    let mut bytes = [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), value].concat();
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn text(name: &[u8]) -> Vec<u8> {
    [name, b"\0"].concat()
}

/// Makes both interfaces (rtnetlink(7)).
fn make_pair(guests: &File) -> io::Result<()> {
    /// `struct ifinfomsg`, of nobody in particular.
    const ANY: [u8; 16] = [0; 16];
    let peer = [
        &ANY[..],
        &attribute(link::NAME, &text(CARDS)),
        &attribute(link::ADDRESS, &CARD),
        &attribute(link::NAMESPACE, &guests.as_raw_fd().to_ne_bytes()),
    ]
    .concat();
    let info = [
        attribute(link::KIND, b"veth"),
        attribute(link::DATA, &attribute(link::PEER, &peer)),
    ]
    .concat();
    let body = [
        &ANY[..],
        &attribute(link::NAME, &text(FAR)),
        &attribute(link::ADDRESS, &GATEWAY_CARD),
        &attribute(link::INFO, &info),
    ]
    .concat();
    let flags = libc::NLM_F_REQUEST | libc::NLM_F_ACK | libc::NLM_F_CREATE | libc::NLM_F_EXCL;
    let length = (body.len() + 16) as u32;
    let message = [
        &length.to_ne_bytes()[..],
        &link::NEW.to_ne_bytes(),
        &(flags as u16).to_ne_bytes(),
        // Its number, and whose it is: the kernel fills that in.
        &[0; 8],
        &body,
    ]
    .concat();
    let kernel = socket(libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_ROUTE)?;
    let mut answer = [0_u8; 4096];
    // SAFETY: the kernel reads the one and writes into the other, no more than its length.
    let count = unsafe {
        if libc::send(kernel.as_raw_fd(), message.as_ptr().cast(), message.len(), 0) < 0 {
            return Err(io::Error::last_os_error());
        }
        libc::recv(kernel.as_raw_fd(), answer.as_mut_ptr().cast(), answer.len(), 0)
    };
    // `struct nlmsgerr` behind the header: zero, or what went wrong.
    match answer.get(16..20).and_then(|bytes| bytes.first_chunk()) {
        Some(error) if count >= 20 => match i32::from_ne_bytes(*error) {
            0 => Ok(()),
            error => Err(io::Error::from_raw_os_error(error.saturating_neg())),
        },
        _ => Err(io::Error::last_os_error()),
    }
}

/// The guest's end: its addresses and routes.
fn near_end() -> io::Result<()> {
    let of = socket(libc::AF_INET, libc::SOCK_DGRAM, 0)?;
    for command in DOES_FOR_IT {
        let mut feature = Feature { command, value: 0 };
        let mut asked = request(CARDS);
        asked.ifr_ifru.ifru_data = std::ptr::from_mut(&mut feature).cast();
        ask(&of, libc::SIOCETHTOOL, &mut asked)?;
    }
    let mut mtu = request(CARDS);
    mtu.ifr_ifru.ifru_mtu = MTU as libc::c_int;
    ask(&of, libc::SIOCSIFMTU, &mut mtu)?;
    // Nobody else could have its address, and nobody routes.
    setting("eth0", "accept_dad", "0");
    setting("eth0", "router_solicitations", "0");
    setting("eth0", "accept_ra", "0");
    let mut own = request(CARDS);
    own.ifr_ifru.ifru_addr = address(GUEST);
    ask(&of, libc::SIOCSIFADDR, &mut own)?;
    own.ifr_ifru.ifru_netmask = address(Ipv4Addr::from_bits(u32::MAX << (32 - PREFIX)));
    ask(&of, libc::SIOCSIFNETMASK, &mut own)?;
    switch_on(&of, CARDS)?;
    let mut name = *b"eth0\0";
    // SAFETY: plain numbers and a pointer, for which zero is a value.
    let mut route: libc::rtentry = unsafe { mem::zeroed() };
    route.rt_dst = address(Ipv4Addr::UNSPECIFIED);
    route.rt_genmask = address(Ipv4Addr::UNSPECIFIED);
    route.rt_gateway = address(GATEWAY);
    route.rt_flags = (ROUTE_UP | ROUTE_GATEWAY) as libc::c_ushort;
    route.rt_dev = name.as_mut_ptr().cast();
    ask(&of, libc::SIOCADDRT, &mut route)?;
    // A kernel without IPv6 has no guests with it.
    match socket(libc::AF_INET6, libc::SOCK_DGRAM, 0) {
        Ok(v6) => near_end_v6(&v6, index(&of, CARDS)?),
        Err(_) => Ok(()),
    }
}

fn near_end_v6(of: &OwnedFd, interface: libc::c_int) -> io::Result<()> {
    let mut own = libc::in6_ifreq {
        ifr6_addr: libc::in6_addr {
            s6_addr: GUEST_V6.octets(),
        },
        ifr6_prefixlen: PREFIX_V6,
        ifr6_ifindex: interface,
    };
    ask(of, libc::SIOCSIFADDR, &mut own)?;
    let mut route = RouteV6 {
        to: [0; 16],
        from: [0; 16],
        gateway: GATEWAY_V6.octets(),
        kind: 0,
        to_bits: 0,
        from_bits: 0,
        metric: METRIC_V6,
        info: 0,
        flags: ROUTE_UP | ROUTE_GATEWAY,
        interface,
    };
    ask(of, libc::SIOCADDRT, &mut route)
}
