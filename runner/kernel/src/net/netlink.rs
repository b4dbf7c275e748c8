//! Answers of netlink (`netlink(7)`, `rtnetlink(7)`; numbers of linux/netlink.h, rtnetlink.h, if_link.h, if_addr.h, neighbour.h).

use std::net::{IpAddr, Ipv4Addr};

use crate::abi::Abi;
use crate::abi::errno::Errno;
use crate::abi::layout::Layout;
use crate::net::interfaces::{Interface, LOOPBACK, Links, Neighbour, OUTSIDE, Route, RouteV6, Scope};

/// Protocols of netlink sockets.
pub(crate) mod protocol {
    pub(crate) const ROUTE: u16 = 0;
    pub(crate) const SOCKETS: u16 = 4;
    pub(crate) const AUDIT: u16 = 9;
    pub(crate) const CONNECTOR: u16 = 11;
    pub(crate) const EVENTS: u16 = 15;
    pub(crate) const GENERIC: u16 = 16;
    /// Those that can be opened, with NETLINK_USERSOCK.
    pub(crate) const KNOWN: [u16; 7] = [ROUTE, 2, SOCKETS, AUDIT, CONNECTOR, EVENTS, GENERIC];
}

const ERROR: u16 = 2;
const DONE: u16 = 3;
/// The first number that is a protocol's own.
const FIRST: u16 = 16;
const IS_REQUEST: u16 = 1;
const IS_PART: u16 = 2;
const WANTS_ANSWER: u16 = 4;
const IS_DUMP: u16 = 0x300;
const IS_CUT: u16 = 0x100;
/// Bytes of a `struct nlmsghdr`.
const HEADER: usize = 16;
/// Requests of one datagram that are answered.
const MAX_REQUESTS: usize = 64;

/// Objects: the first of four numbers each, to make, remove, get and set.
const LINK: u16 = 16;
const ADDRESS: u16 = 20;
const ROUTE: u16 = 24;
const NEIGHBOUR: u16 = 28;

/// `IFA_F_PERMANENT`.
const PERMANENT: u8 = 0x80;
const INET: u8 = 2;
const INET6: u8 = 10;

/// Who asks.
pub(crate) struct Asker<'a> {
    pub(crate) abi: &'a Abi,
    pub(crate) links: Links,
    pub(crate) protocol: u16,
    /// The number of its socket.
    pub(crate) port: u32,
    pub(crate) is_root: bool,
}

/// One request.
struct Request<'a> {
    kind: u16,
    flags: u16,
    sequence: u32,
    /// All of it.
    whole: &'a [u8],
    body: &'a [u8],
}

/// What a request gives.
enum Given {
    /// Nothing but that it was done.
    Done,
    One(Vec<u8>),
    /// Messages that belong together.
    Many(Vec<Vec<u8>>),
}

impl Asker<'_> {
    /// What comes back for one datagram: datagrams.
    pub(crate) fn ask(&self, bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut answers = Vec::new();
        let mut rest = bytes;
        for _ in 0..MAX_REQUESTS {
            let Some((request, after)) = self.request(rest) else {
                break;
            };
            rest = after;
            if request.flags & IS_REQUEST == 0 {
                continue;
            }
            let given = match request.kind {
                ..FIRST => Ok(Given::Done),
                _ => self.carry_out(&request),
            };
            match given {
                Ok(Given::Done) => {}
                Ok(Given::One(message)) => answers.push(message),
                Ok(Given::Many(messages)) => {
                    let all = messages.concat();
                    if !all.is_empty() {
                        answers.push(all);
                    }
                    let done = self.begin().u32(0).bytes;
                    answers.push(self.message(DONE, IS_PART, request.sequence, done));
                    continue;
                }
                Err(errno) => {
                    answers.push(self.error(&request, Some(errno)));
                    continue;
                }
            }
            if request.flags & WANTS_ANSWER != 0 {
                answers.push(self.error(&request, None));
            }
        }
        answers
    }

    /// The first request, and what stands behind it.
    fn request<'b>(&self, bytes: &'b [u8]) -> Option<(Request<'b>, &'b [u8])> {
        let length = self.abi.get_u32(*bytes.first_chunk()?) as usize;
        let whole = bytes.get(..length).filter(|whole| whole.len() >= HEADER)?;
        let half = |at: usize| Some(self.abi.get_u16(*whole.get(at..)?.first_chunk()?));
        let request = Request {
            kind: half(4)?,
            flags: half(6)?,
            sequence: self.abi.get_u32(*whole.get(8..)?.first_chunk()?),
            whole,
            body: whole.get(HEADER..)?,
        };
        let after = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((request, after))
    }

    fn begin(&self) -> Layout<'_> {
        Layout::new(self.abi)
    }

    /// A message around its body.
    fn message(&self, kind: u16, flags: u16, sequence: u32, body: Vec<u8>) -> Vec<u8> {
        let length = HEADER + body.len();
        let mut layout = self.begin().low(length as u64).u16(kind).u16(flags);
        layout = layout.u32(sequence).u32(self.port);
        layout.bytes.extend(body);
        layout.align(4).bytes
    }

    /// What went wrong with a request, or that it is done.
    fn error(&self, request: &Request<'_>, errno: Option<Errno>) -> Vec<u8> {
        let number = errno.map_or(0, |errno| errno.number(self.abi.family));
        let mut body = self.begin().low(number.wrapping_neg()).bytes;
        // What was done is told without what was asked.
        let (flags, told) = match errno {
            Some(_) => (0, request.whole),
            None => (IS_CUT, request.whole.get(..HEADER).unwrap_or_default()),
        };
        body.extend(told);
        self.message(ERROR, flags, request.sequence, body)
    }

    fn attribute(&self, kind: u16, value: &[u8]) -> Vec<u8> {
        let mut layout = self.begin().u16((value.len() + 4) as u16).u16(kind);
        layout.bytes.extend(value);
        layout.align(4).bytes
    }

    fn number(&self, value: u32) -> Vec<u8> {
        self.begin().u32(value).bytes
    }

    /// The value of an attribute of a request, behind so many bytes.
    fn asked<'b>(&self, body: &'b [u8], head: usize, wanted: u16) -> Option<&'b [u8]> {
        let mut rest = body.get(head..)?;
        loop {
            let length = usize::from(self.abi.get_u16(*rest.first_chunk()?));
            let kind = self.abi.get_u16(*rest.get(2..)?.first_chunk()?);
            let value = rest.get(4..length)?;
            if kind & 0x3fff == wanted {
                return Some(value);
            }
            rest = rest.get(length.next_multiple_of(4)..)?;
        }
    }

    fn carry_out(&self, request: &Request<'_>) -> Result<Given, Errno> {
        match self.protocol {
            protocol::ROUTE => {}
            // They hear, and have nothing to say.
            protocol::EVENTS | protocol::CONNECTOR => return Ok(Given::Done),
            protocol::SOCKETS => return Err(Errno::ENOENT),
            _ if self.is_root => return Err(Errno::EOPNOTSUPP),
            _ => return Err(Errno::EPERM),
        }
        const GET: u16 = 2;
        let object = request.kind & !3;
        if request.kind & 3 != GET {
            return Err(if self.is_root {
                Errno::EOPNOTSUPP
            } else {
                Errno::EPERM
            });
        }
        let family = request.body.first().copied().unwrap_or(0);
        let sequence = request.sequence;
        if request.flags & IS_DUMP == 0 {
            return match object {
                LINK => {
                    let message = self.link(&self.asked_link(request.body)?);
                    Ok(Given::One(self.message(LINK, 0, sequence, message)))
                }
                ROUTE => {
                    let message = self.route_to(request.body)?;
                    Ok(Given::One(self.message(ROUTE, 0, sequence, message)))
                }
                _ => Err(Errno::EOPNOTSUPP),
            };
        }
        let (v4, v6) = (matches!(family, 0 | INET), matches!(family, 0 | INET6));
        let interfaces = || self.links.interfaces();
        let mut bodies: Vec<Vec<u8>> = Vec::new();
        // Rules, queues, other families: there are none.
        match object {
            LINK => bodies.extend(interfaces().map(|one| self.link(&one))),
            ADDRESS => {
                bodies.extend(interfaces().filter(|_| v4).map(|one| self.address(&one)));
                for one in interfaces().filter(|_| v6) {
                    let own = one.v6.iter();
                    bodies.extend(
                        own.map(|(ip, prefix, scope)| {
                            self.address_v6(one.index, ip.octets(), *prefix, *scope)
                        }),
                    );
                }
            }
            ROUTE => {
                bodies.extend(self.links.routes().filter(|_| v4).map(|one| self.route(&one)));
                bodies.extend(
                    self.links
                        .routes_v6()
                        .filter(|_| v6)
                        .map(|one| self.route_v6(&one)),
                );
            }
            NEIGHBOUR if v4 => bodies.extend(self.links.neighbours().map(|one| self.neighbour(&one))),
            _ => {}
        }
        let messages = bodies
            .into_iter()
            .map(|body| self.message(object, IS_PART, sequence, body));
        Ok(Given::Many(messages.collect()))
    }

    /// The interface that a request names by its number or name.
    fn asked_link(&self, body: &[u8]) -> Result<Interface, Errno> {
        const NAME: u16 = 3;
        let index = body.get(4..).and_then(<[u8]>::first_chunk);
        let index = index.map_or(0, |index| self.abi.get_u32(*index));
        let found = match (index, self.asked(body, 16, NAME)) {
            (0, Some(name)) => {
                let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
                self.links.by_name(name)
            }
            (0, None) => return Err(Errno::EINVAL),
            (index, _) => self.links.by_index(index),
        };
        found.ok_or(Errno::ENODEV)
    }

    /// `struct ifinfomsg` and attributes.
    fn link(&self, one: &Interface) -> Vec<u8> {
        // Operational state: unknown for the loopback, up.
        let state = if one.is_loopback() { 0 } else { 6 };
        let discipline: &[u8] = if one.is_loopback() {
            b"noqueue\0"
        } else {
            b"fq_codel\0"
        };
        let head = self.begin().u8(0).u8(0).u16(one.hardware);
        let head = head.u32(one.index).u32(one.flags).u32(0).bytes;
        let name = [one.name.as_bytes(), b"\0"].concat();
        [
            head,
            self.attribute(3, &name),
            self.attribute(13, &self.number(one.queue)),
            self.attribute(16, &[state]),
            self.attribute(17, &[0]),
            self.attribute(4, &self.number(one.mtu)),
            self.attribute(27, &self.number(0)),
            self.attribute(33, &[1]),
            self.attribute(6, discipline),
            self.attribute(1, &one.card),
            self.attribute(2, &one.everybody),
        ]
        .concat()
    }

    /// `struct ifaddrmsg`.
    fn address_head(&self, family: u8, index: u32, prefix: u8, scope: Scope) -> Vec<u8> {
        let head = self.begin().u8(family).u8(prefix).u8(PERMANENT);
        head.u8(scope.number()).u32(index).bytes
    }

    fn address_v6(&self, index: u32, own: [u8; 16], prefix: u8, scope: Scope) -> Vec<u8> {
        [
            self.address_head(INET6, index, prefix, scope),
            self.attribute(1, &own),
            self.attribute(8, &self.number(u32::from(PERMANENT))),
        ]
        .concat()
    }

    fn address(&self, one: &Interface) -> Vec<u8> {
        let scope = match one.is_loopback() {
            true => Scope::Host,
            false => Scope::Global,
        };
        let head = self.address_head(INET, one.index, one.prefix, scope);
        let own = one.address.octets();
        let label = [one.name.as_bytes(), b"\0"].concat();
        let broadcast = one
            .broadcast()
            .map(|address| self.attribute(4, &address.octets()));
        [
            head,
            self.attribute(1, &own),
            self.attribute(2, &own),
            broadcast.unwrap_or_default(),
            self.attribute(3, &label),
            self.attribute(8, &self.number(u32::from(PERMANENT))),
        ]
        .concat()
    }

    /// `struct rtmsg`: unicast in the main table.
    fn route_head(&self, family: u8, prefix: u8, by: u8, scope: u8, kind: u8, flags: u32) -> Vec<u8> {
        const MAIN: u8 = 254;
        let head = self.begin().u8(family).u8(prefix).u8(0).u8(0);
        head.u8(MAIN).u8(by).u8(scope).u8(kind).u32(flags).bytes
    }

    fn route(&self, one: &Route) -> Vec<u8> {
        const UNICAST: u8 = 1;
        // Who made it and how far it leads: the kernel, on the link; or whoever set the machine up, anywhere.
        let (by, scope) = match one.gateway {
            None => (2, 253),
            Some(_) => (3, 0),
        };
        let to = (one.prefix > 0).then(|| self.attribute(1, &one.to.octets()));
        let gateway = one.gateway.map(|gateway| self.attribute(5, &gateway.octets()));
        let own = one
            .gateway
            .is_none()
            .then(|| self.attribute(7, &one.interface.address.octets()));
        [
            self.route_head(INET, one.prefix, by, scope, UNICAST, 0),
            self.attribute(15, &self.number(254)),
            to.unwrap_or_default(),
            gateway.unwrap_or_default(),
            own.unwrap_or_default(),
            self.attribute(4, &self.number(one.interface.index)),
        ]
        .concat()
    }

    fn route_v6(&self, one: &RouteV6) -> Vec<u8> {
        const UNICAST: u8 = 1;
        // The kernel made it, or what the gateway says of itself.
        let by = if one.gateway.is_some() { 9 } else { 2 };
        let to = (one.prefix > 0).then(|| self.attribute(1, &one.to.octets()));
        let gateway = one.gateway.map(|gateway| self.attribute(5, &gateway.octets()));
        [
            self.route_head(INET6, one.prefix, by, 0, UNICAST, 0),
            self.attribute(15, &self.number(254)),
            to.unwrap_or_default(),
            self.attribute(6, &self.number(one.metric)),
            gateway.unwrap_or_default(),
            self.attribute(4, &self.number(one.interface.index)),
        ]
        .concat()
    }

    /// The way to one address of IPv4.
    fn route_to(&self, body: &[u8]) -> Result<Vec<u8>, Errno> {
        const CLONED: u32 = 0x200;
        let to = self.asked(body, 12, 1).and_then(<[u8]>::first_chunk::<4>);
        let to = Ipv4Addr::from(*to.ok_or(Errno::EINVAL)?);
        let own = to.is_loopback() || self.links.interfaces().any(|one| one.has(IpAddr::V4(to)));
        let on_link = to.to_bits() & OUTSIDE.mask().to_bits() == OUTSIDE.network().to_bits();
        let (kind, interface, source, gateway) = match own {
            true => (2, LOOPBACK, to, None),
            false => {
                let mut routes = self.links.routes();
                let found = routes.find(|route| route.gateway.is_none() == on_link);
                let route = found.ok_or(Errno::ENETUNREACH)?;
                (1, route.interface, route.interface.address, route.gateway)
            }
        };
        let gateway = gateway.map(|gateway| self.attribute(5, &gateway.octets()));
        Ok([
            self.route_head(INET, 32, 0, 0, kind, CLONED),
            self.attribute(15, &self.number(254)),
            self.attribute(1, &to.octets()),
            gateway.unwrap_or_default(),
            self.attribute(4, &self.number(interface.index)),
            self.attribute(7, &source.octets()),
        ]
        .concat())
    }

    /// `struct ndmsg` and attributes.
    fn neighbour(&self, one: &Neighbour) -> Vec<u8> {
        const REACHABLE: u16 = 2;
        let head = self.begin().u8(INET).pad(3).u32(one.interface.index);
        [
            head.u16(REACHABLE).u8(0).u8(1).bytes,
            self.attribute(1, &one.address.octets()),
            self.attribute(2, &one.card),
        ]
        .concat()
    }
}
