//! Sockets whose packets or frames are made by who holds them (`raw(7)`, `packet(7)`, `icmp(7)`).

use std::net::{IpAddr, Ipv4Addr};

use hotcell_internet::packet::{self, MTU};

use crate::abi::errno::Errno;
use crate::call::{Answer, Call};
use crate::net::interfaces::{LOOPBACK, OUTSIDE};
use crate::net::{Address, Family, Kind, SocketId, wire};
use crate::sys::socket::Asked;

/// `IPPROTO_IP` with `IP_HDRINCL` and `IP_TTL`.
const HEADER_INCLUDED: (u64, u64) = (0, 3);
const HOPS: (u64, u64) = (0, 2);
/// `IPPROTO_RAW`: the header is always the program's.
const ALL_ITS_OWN: u16 = 255;

impl Call<'_> {
    /// The number that an option says; absent: it was not set.
    fn option_number(&self, id: SocketId, option: (u64, u64)) -> Option<u32> {
        let socket = self.k.sockets.get(id)?;
        let value = socket.options.get(&option)?;
        // One byte will do too.
        match value.first_chunk() {
            Some(word) => Some(self.abi().get_u32(*word)),
            None => value.first().map(|byte| u32::from(*byte)),
        }
    }

    /// Where a socket sends to: as the call says it, or whom it is connected to.
    fn aim(&mut self, id: SocketId, to: Option<Asked>) -> Result<Option<Address>, Errno> {
        match to {
            Some(asked) => self.led_to(asked).map(Some),
            None => Ok(self.k.sockets.get(id).and_then(|socket| socket.peer.clone())),
        }
    }

    /// Sends a packet of a raw or a ping socket.
    pub(super) fn send_raw(&mut self, id: SocketId, bytes: &[u8], to: Option<Asked>) -> Answer {
        let address = self.aim(id, to)?.ok_or(Errno::EDESTADDRREQ)?;
        let to = match &address {
            Address::Inet(address) => match address.ip().to_canonical() {
                IpAddr::V4(ip) => ip,
                IpAddr::V6(_) => return Err(Errno::EAFNOSUPPORT.into()),
            },
            _ => return Err(Errno::EAFNOSUPPORT.into()),
        };
        let here = self.k.sockets.is_here(IpAddr::V4(to));
        let interface = match (here, self.k.world.is_some()) {
            (true, _) => LOOPBACK,
            (false, true) => OUTSIDE,
            (false, false) => return Err(Errno::ENETUNREACH.into()),
        };
        let kind = self.k.sockets.get(id).ok_or(Errno::EBADF)?.kind;
        if kind == Kind::Ping {
            self.k.sockets.bind_any(id, &address)?;
        }
        let local = self.k.sockets.get(id).and_then(|socket| socket.local.as_ref());
        let (bound, number) = match local {
            Some(Address::Inet(own)) => (own.ip().to_canonical(), own.port()),
            _ => (IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0),
        };
        let own = match bound {
            IpAddr::V4(ip) if !ip.is_unspecified() => ip,
            // Who calls itself does so by the address that it calls.
            _ if here => to,
            _ => interface.address,
        };
        let hops = self.option_number(id, HOPS);
        let hops = hops
            .and_then(|hops| u8::try_from(hops).ok())
            .unwrap_or(packet::TIME_TO_LIVE);
        let included = self.option_number(id, HEADER_INCLUDED).is_some_and(|on| on != 0);
        let made = match kind {
            Kind::Raw(protocol) if included || protocol == ALL_ITS_OWN => {
                if bytes.len() > MTU && !here {
                    return Err(Errno::EMSGSIZE.into());
                }
                packet::finish(bytes, own).ok_or(Errno::EINVAL)?
            }
            Kind::Raw(protocol) => {
                let protocol = u8::try_from(protocol).map_err(|_| Errno::EINVAL)?;
                packet::wrap(own, to, protocol, hops, bytes).ok_or(Errno::EMSGSIZE)?
            }
            _ => {
                let message = packet::echo_request(bytes, number).ok_or(Errno::EINVAL)?;
                packet::wrap(own, to, packet::ICMP, hops, &message).ok_or(Errno::EMSGSIZE)?
            }
        };
        self.k.send_packet(&made, &interface);
        Ok(bytes.len() as u64)
    }

    /// Sends a frame of a packet socket. What is no packet of IP goes nowhere.
    pub(super) fn send_frame(&mut self, id: SocketId, bytes: &[u8], to: Option<Asked>) -> Answer {
        let socket = self.k.sockets.get(id).ok_or(Errno::EBADF)?;
        let (kind, local) = (socket.kind, socket.local.clone());
        let to = match self.aim(id, to)? {
            None => local,
            said => said,
        };
        let (protocol, interface) = match (to, kind) {
            (Some(Address::Link { protocol, interface }), _) if protocol != 0 => (protocol, interface),
            (Some(Address::Link { interface, .. }), Kind::Raw(made) | Kind::Cooked(made)) => {
                (made, interface)
            }
            _ => return Err(Errno::ENXIO.into()),
        };
        let links = self.k.sockets.links();
        let interface = links.by_index(interface).ok_or(Errno::ENXIO)?;
        let most = interface.mtu as usize;
        let packet = match kind {
            Kind::Raw(_) if bytes.len() < wire::FRAME => return Err(Errno::EINVAL.into()),
            Kind::Raw(_) if bytes.len() > most + wire::FRAME => return Err(Errno::EMSGSIZE.into()),
            Kind::Raw(_) => wire::framed(bytes),
            _ if bytes.len() > most => return Err(Errno::EMSGSIZE.into()),
            _ => Some(bytes).filter(|_| wire::carries_ip(protocol)),
        };
        if let Some(packet) = packet {
            self.k.send_packet(packet, &interface);
        }
        Ok(bytes.len() as u64)
    }

    /// bind of a packet socket: what it hears, and where.
    pub(super) fn bind_link(&mut self, id: SocketId, address: Address) -> Result<(), Errno> {
        let Address::Link { interface, .. } = address else {
            return Err(Errno::EINVAL);
        };
        if interface != 0 && self.k.sockets.links().by_index(interface).is_none() {
            return Err(Errno::ENODEV);
        }
        let socket = self.k.sockets.get_mut(id).ok_or(Errno::EBADF)?;
        match socket.family {
            Family::Packet => socket.local = Some(address),
            _ => return Err(Errno::EINVAL),
        }
        Ok(())
    }
}
