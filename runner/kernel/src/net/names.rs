//! Names of sockets: who is bound to which, and who is called by one.

use serde::{Deserialize, Serialize};

use super::address::{self, Address};
use super::{EPHEMERAL, Kind, MAX_SOCKETS, Socket, SocketId, Sockets, State};
use crate::abi::errno::Errno;

/// `SOL_SOCKET`, `SO_REUSEADDR` with generic numbers.
const REUSE: (u64, u64) = (1, 2);
/// `IPPROTO_IPV6`, `IPV6_V6ONLY`.
const V6_ALONE: (u64, u64) = (41, 26);

/// `SOL_SOCKET`, `SO_REUSEPORT`.
const REUSE_PORT: (u64, u64) = (1, 15);

fn is_set(socket: &Socket, option: (u64, u64)) -> bool {
    let value = socket.options.get(&option);
    value.is_some_and(|value| value.iter().any(|byte| *byte != 0))
}

fn shares_port(socket: &Socket) -> bool {
    is_set(socket, REUSE_PORT)
}

/// How well a socket is meant by a name: the greatest is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Fit {
    hears: bool,
    connected: bool,
    exact: bool,
}

/// Whether a socket of IPv6 takes no calls of IPv4.
fn is_v6_alone(socket: &Socket) -> bool {
    is_set(socket, V6_ALONE)
}

/// What sockets are looked up by.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) enum Name {
    Path(u64),
    Abstract(Vec<u8>),
    Port(Kind, u16),
    /// A port of a protocol of netlink.
    Netlink(Kind, u32),
}

impl Name {
    /// `None`: nobody is looked up by it.
    pub(super) fn of(kind: Kind, address: &Address) -> Option<Self> {
        match (address, kind) {
            (Address::Path(_, ino), _) => Some(Self::Path(ino.0)),
            (Address::Abstract(name), _) => Some(Self::Abstract(name.clone())),
            (Address::Netlink { port, .. }, _) => Some(Self::Netlink(kind, *port)),
            (Address::Link { .. }, _) | (Address::Inet(_), Kind::Raw(_)) => None,
            (Address::Inet(address), _) => Some(Self::Port(kind, address.port())),
        }
    }
}

impl Sockets {
    /// Binds a socket to the name that its program asks for.
    pub(crate) fn bind(&mut self, id: SocketId, address: Address) -> Result<(), Errno> {
        // Any port of any address is no wish (net/ipv4/af_inet.c, __inet_bind: SOCK_BINDADDR_LOCK, SOCK_BINDPORT_LOCK).
        let asked = match &address {
            Address::Inet(wanted) if !wanted.ip().is_unspecified() || wanted.port() != 0 => Some(wanted.ip()),
            _ => None,
        };
        self.name(id, address)?;
        if let Some(socket) = self.all.get_mut(&id) {
            socket.asked = asked;
        }
        Ok(())
    }

    /// Gives a socket a name.
    fn name(&mut self, id: SocketId, mut address: Address) -> Result<(), Errno> {
        let socket = self.all.get(&id).ok_or(Errno::EBADF)?;
        if socket.local.is_some() {
            return Err(Errno::EINVAL);
        }
        let (kind, own_v6) = (socket.kind, is_v6_alone(socket));
        let (reuses, shares) = (is_set(socket, REUSE), shares_port(socket));
        if let Address::Inet(wanted) = &mut address {
            if !self.is_here(wanted.ip()) {
                return Err(Errno::EADDRNOTAVAIL);
            }
            match kind {
                Kind::Raw(_) => wanted.set_port(0),
                _ if wanted.port() == 0 => wanted.set_port(self.free_port(kind)?),
                _ => {}
            }
        }
        let Some(name) = Name::of(kind, &address) else {
            if let Some(socket) = self.all.get_mut(&id) {
                socket.local = Some(address);
            }
            return Ok(());
        };
        let taken = self.bound.get(&name).into_iter().flatten().any(|other| {
            self.all.get(other).is_some_and(|other| {
                let apart = address::are_apart(other.local.as_ref(), &address)
                    || (own_v6 || is_v6_alone(other)) && address::differ(other.local.as_ref(), &address);
                let listens = matches!(other.state, State::Listening { .. });
                let beside = reuses && is_set(other, REUSE) && !listens || shares && shares_port(other);
                !apart && !beside
            })
        });
        if taken {
            return Err(Errno::EADDRINUSE);
        }
        self.bound.entry(name).or_default().push(id);
        if let Some(socket) = self.all.get_mut(&id) {
            socket.local = Some(address);
        }
        Ok(())
    }

    /// Takes from a socket of IP what its program did not ask for of its name.
    pub(crate) fn give_up_name(&mut self, id: SocketId) {
        let Some(socket) = self.all.get_mut(&id) else {
            return;
        };
        match (&mut socket.local, socket.asked) {
            (Some(Address::Inet(local)), Some(asked)) => local.set_ip(asked),
            (Some(Address::Inet(_)), None) => {
                let kind = socket.kind;
                if let Some(local) = socket.local.take() {
                    self.free(id, kind, &local);
                }
            }
            _ => {}
        }
    }

    /// Nobody is called by a name any more who was.
    pub(super) fn free(&mut self, id: SocketId, kind: Kind, local: &Address) {
        if let Some(name) = Name::of(kind, local)
            && let Some(all) = self.bound.get_mut(&name)
        {
            all.retain(|other| *other != id);
            if all.is_empty() {
                self.bound.remove(&name);
            }
        }
    }

    fn free_port(&mut self, kind: Kind) -> Result<u16, Errno> {
        for _ in EPHEMERAL {
            let port = self.next_port.max(*EPHEMERAL.start());
            self.next_port = if port >= *EPHEMERAL.end() { 0 } else { port + 1 };
            if !self.bound.contains_key(&Name::Port(kind, port)) {
                return Ok(port);
            }
        }
        Err(Errno::EADDRINUSE)
    }

    /// Gives a socket that sends without a name one of its own.
    pub(crate) fn bind_any(&mut self, id: SocketId, to: &Address) -> Result<(), Errno> {
        match (self.get(id), to) {
            (Some(socket), Address::Inet(peer)) if socket.local.is_none() => {
                let own = address::own_for(peer.ip(), !self.is_here(peer.ip()));
                self.name(id, Address::Inet(own))
            }
            _ => Ok(()),
        }
    }

    /// Chooses the address from which a socket is connected, unless it has one (net/ipv4/datagram.c).
    pub(crate) fn name_for(&mut self, id: SocketId, peer: &Address) -> Result<(), Errno> {
        self.bind_any(id, peer)?;
        if let Address::Inet(peer) = peer {
            let own = address::own_for(peer.ip(), !self.is_here(peer.ip()));
            if let Some(Address::Inet(local)) = self.get_mut(id).and_then(|socket| socket.local.as_mut())
                && local.ip().is_unspecified()
            {
                local.set_ip(own.ip());
            }
        }
        Ok(())
    }

    /// Whether an address is the machine's own.
    pub(crate) fn is_here(&self, ip: std::net::IpAddr) -> bool {
        address::is_own(ip) || self.is_online && address::is_out_there(ip)
    }

    /// The socket of a kind that is bound to a name: the one that says it best. `from`: who calls.
    pub(crate) fn find(&self, kind: Kind, address: &Address, from: Option<&Address>) -> Option<SocketId> {
        let all = self.bound.get(&Name::of(kind, address)?)?;
        let fits: Vec<(Fit, SocketId)> = all
            .iter()
            .filter_map(|id| Some((self.fit(*id, address, from)?, *id)))
            .collect();
        let best = fits.iter().map(|(fit, _)| *fit).max()?;
        let mut equal = fits.into_iter().filter(|(fit, _)| *fit == best);
        // Those that share a port share the calls too.
        let shared = equal
            .clone()
            .all(|(_, id)| self.all.get(&id).is_some_and(shares_port));
        let turn = match from {
            Some(Address::Inet(from)) if shared => usize::from(from.port()) % equal.clone().count().max(1),
            _ => 0,
        };
        equal.nth(turn).map(|(_, id)| id)
    }

    /// How well a socket that is bound to the name is meant by it; `None`: not at all.
    fn fit(&self, id: SocketId, address: &Address, from: Option<&Address>) -> Option<Fit> {
        let socket = self.all.get(&id)?;
        let local = socket.local.as_ref()?;
        let apart = is_v6_alone(socket) && address::differ(Some(local), address);
        if apart || !address::reaches(local, address) {
            return None;
        }
        // Whoever is connected hears only its peer: it was made by accept, or said connect.
        let connected = match (&socket.peer, socket.kind) {
            (Some(Address::Inet(peer)), Kind::Datagram) => match from {
                Some(from @ Address::Inet(own)) if own.port() == peer.port() => {
                    address::reaches(from, &Address::Inet(*peer)).then_some(true)?
                }
                _ => return None,
            },
            _ => false,
        };
        Some(Fit {
            hears: matches!(socket.state, State::Listening { .. })
                || !socket.kind.connects() && matches!(socket.state, State::Idle),
            connected,
            exact: local == address,
        })
    }

    /// Gives a netlink socket a number: that of its process, or one that is nobody's.
    pub(crate) fn bind_netlink(&mut self, id: SocketId, pid: u32, groups: u32) -> Result<(), Errno> {
        let kind = self.get(id).ok_or(Errno::EBADF)?.kind;
        // As netlink_autobind counts, downwards from -4097.
        let mut others =
            (0..u32::try_from(MAX_SOCKETS).unwrap_or(0)).map(|step| (-4097i32).cast_unsigned() - step);
        let mut port = pid;
        while self.bound.contains_key(&Name::Netlink(kind, port)) {
            port = others.next().ok_or(Errno::EADDRINUSE)?;
        }
        self.bind(id, Address::Netlink { port, groups })
    }
}
