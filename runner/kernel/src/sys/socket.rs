//! Sockets: made, named, connected, shut down, and their options.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::abi::errno::Errno;
use crate::abi::flags::{self, open};
use crate::call::{Answer, Call, Fail};
use crate::fs::open::{OpenFile, Target};
use crate::fs::tree;
use crate::net::netlink;
use crate::net::outside::beyond;
use crate::net::spoken::{MOST, Spoken};
use crate::net::{Address, Credentials, Family, Kind, Socket, SocketId, State};

impl Call<'_> {
    /// The socket behind a descriptor.
    pub(super) fn socket(&mut self, index: usize) -> Result<SocketId, Errno> {
        match self.file(index)?.target {
            Target::Socket(id) => Ok(id),
            _ => Err(Errno::ENOTSOCK),
        }
    }

    fn socket_ref(&self, id: SocketId) -> Result<&Socket, Errno> {
        self.k.sockets.get(id).ok_or(Errno::EBADF)
    }

    pub(super) fn credentials(&mut self) -> Credentials {
        let process = self.process();
        Credentials {
            pid: process.pid,
            uid: process.uid[1],
            gid: process.gid[1],
        }
    }

    /// A descriptor for a socket; `how` has generic open flags.
    fn install_socket(&mut self, id: SocketId, how: u64) -> Result<u32, Errno> {
        let name = format!("socket:[{}]", 5000 + id.0).into_bytes();
        let kept = (how & open::NONBLOCK) | 2;
        let fd = self.install(
            OpenFile::new(Target::Socket(id), kept, name),
            how & open::CLOSE_ON_EXEC != 0,
        );
        if fd.is_err() {
            self.k.sockets.close(id);
        }
        fd
    }

    /// Only root makes packets itself (CAP_NET_RAW).
    fn may_make_packets(&self) -> Result<(), Errno> {
        let process = self.k.processes.get(&self.pid);
        match process.is_some_and(|process| process.uid[1] == 0) {
            true => Ok(()),
            false => Err(Errno::EPERM),
        }
    }

    /// Family and kind that the first two words ask for, and the flags with them.
    fn asked_socket(&self) -> Result<(Family, Kind, u64), Errno> {
        let family = match self.word(0) & 0xffff_ffff {
            1 => Family::Unix,
            2 => Family::Inet,
            10 => Family::Inet6,
            16 => Family::Netlink,
            17 => Family::Packet,
            _ => return Err(Errno::EAFNOSUPPORT),
        };
        let wanted = self.word(1) & 0xffff_ffff;
        let how = flags::open_in(self.abi(), wanted & !0xf);
        if how & !(open::NONBLOCK | open::CLOSE_ON_EXEC) != 0 {
            return Err(Errno::EINVAL);
        }
        let protocol = self.word(2) & 0xffff_ffff;
        let kind = match (flags::socket_type(self.abi(), wanted), family) {
            ("SOCK_STREAM", Family::Unix) if protocol <= 1 => Kind::Stream,
            ("SOCK_STREAM", Family::Inet | Family::Inet6) if matches!(protocol, 0 | 6) => Kind::Stream,
            ("SOCK_DGRAM", Family::Unix) if protocol <= 1 => Kind::Datagram,
            ("SOCK_DGRAM", Family::Inet | Family::Inet6) if matches!(protocol, 0 | 17) => Kind::Datagram,
            ("SOCK_DGRAM", Family::Inet) if protocol == 1 => Kind::Ping,
            ("SOCK_SEQPACKET", Family::Unix) if protocol <= 1 => Kind::Sequenced,
            // A raw one is one of datagrams (unix_create).
            ("SOCK_RAW", Family::Unix) if protocol <= 1 => Kind::Datagram,
            ("SOCK_RAW" | "SOCK_DGRAM", Family::Netlink) => match u16::try_from(protocol) {
                Ok(protocol) if netlink::protocol::KNOWN.contains(&protocol) => Kind::Raw(protocol),
                _ => return Err(Errno::EPROTONOSUPPORT),
            },
            ("SOCK_RAW", Family::Inet) if (1..=255).contains(&protocol) => {
                self.may_make_packets()?;
                Kind::Raw(protocol as u16)
            }
            // Protocols of links are in the network's byte order.
            ("SOCK_RAW" | "SOCK_DGRAM", Family::Packet) => {
                self.may_make_packets()?;
                let protocol = match self.abi().big {
                    true => protocol as u16,
                    false => (protocol as u16).swap_bytes(),
                };
                match flags::socket_type(self.abi(), wanted) {
                    "SOCK_RAW" => Kind::Raw(protocol),
                    _ => Kind::Cooked(protocol),
                }
            }
            ("SOCK_STREAM", Family::Netlink | Family::Packet) => return Err(Errno::ESOCKTNOSUPPORT),
            ("SOCK_STREAM" | "SOCK_DGRAM" | "SOCK_RAW", _) => return Err(Errno::EPROTONOSUPPORT),
            _ => return Err(Errno::ESOCKTNOSUPPORT),
        };
        Ok((family, kind, how))
    }

    /// The address in guest memory, as a socket of this family takes it.
    pub(super) fn address(
        &mut self,
        family: Family,
        at: u64,
        length: u64,
        bind: bool,
    ) -> Result<Asked, Errno> {
        if !(2..=MOST).contains(&length) {
            return Err(Errno::EINVAL);
        }
        let bytes = self.bytes(at, length)?;
        let spoken = Spoken::read(self.abi(), &bytes).ok_or(Errno::EINVAL)?;
        Ok(match (spoken, family) {
            (Spoken::Nobody, _) if !bind => Asked::Nobody,
            (Spoken::Unnamed, Family::Unix) => Asked::Unnamed,
            (Spoken::Abstract(name), Family::Unix) => Asked::Name(Address::Abstract(name)),
            (Spoken::Path(path), Family::Unix) => Asked::Path(path),
            (Spoken::Inet(address), Family::Inet) if address.is_ipv4() => Asked::Name(Address::Inet(address)),
            (Spoken::Inet(address), Family::Inet6) => match address.ip() {
                IpAddr::V4(_) if bind => return Err(Errno::EAFNOSUPPORT),
                IpAddr::V4(ip) => {
                    let ip = IpAddr::V6(ip.to_ipv6_mapped());
                    Asked::Name(Address::Inet(SocketAddr::new(ip, address.port())))
                }
                IpAddr::V6(_) => Asked::Name(Address::Inet(address)),
            },
            (Spoken::Netlink { port, groups }, Family::Netlink) => {
                Asked::Name(Address::Netlink { port, groups })
            }
            (Spoken::Link { protocol, interface }, Family::Packet) => {
                Asked::Name(Address::Link { protocol, interface })
            }
            (_, Family::Unix | Family::Netlink | Family::Packet) => return Err(Errno::EINVAL),
            _ => return Err(Errno::EAFNOSUPPORT),
        })
    }

    /// What an address leads to: of a path the socket file that stands there.
    pub(super) fn led_to(&mut self, asked: Asked) -> Result<Address, Errno> {
        match asked {
            Asked::Name(address) => Ok(address),
            Asked::Unnamed | Asked::Nobody => Err(Errno::EINVAL),
            Asked::Path(path) => {
                let ino = self.walk(None, &path, true)?.inode()?;
                let is_socket = self
                    .k
                    .tree
                    .stat(ino)
                    .is_some_and(|stat| stat.mode & tree::mode::KIND == tree::mode::SOCKET);
                self.permitted(ino, 2)?;
                match is_socket {
                    true => Ok(Address::Path(path, ino)),
                    false => Err(Errno::ECONNREFUSED),
                }
            }
        }
    }

    /// Writes an address and its length, cut to the room that the guest gave (`accept(2)`).
    pub(super) fn put_address(
        &mut self,
        family: Family,
        address: Option<&Address>,
        at: u64,
        length_at: u64,
    ) -> Result<(), Errno> {
        if at == 0 {
            return Ok(());
        }
        let room = u64::from(self.get_u32(length_at)?);
        if room > i32::MAX as u64 {
            return Err(Errno::EINVAL);
        }
        let bytes = Spoken::of(family, address).bytes(self.abi());
        let size = bytes.len().min(usize::try_from(room).unwrap_or(0));
        self.write(at, bytes.get(..size).unwrap_or_default())?;
        self.put_u32(length_at, u32::try_from(bytes.len()).unwrap_or(0))
    }
}

/// An address as a call says it.
pub(super) enum Asked {
    Name(Address),
    Path(Vec<u8>),
    /// A family alone: any abstract name (bind).
    Unnamed,
    /// `AF_UNSPEC`: a datagram socket shall be connected no more.
    Nobody,
}

pub(crate) fn socket(c: &mut Call<'_>) -> Answer {
    let (family, kind, how) = c.asked_socket()?;
    let owner = c.credentials();
    let id = c.k.sockets.make(family, kind, owner)?;
    c.k.show_wire();
    Ok(u64::from(c.install_socket(id, how)?))
}

pub(crate) fn socketpair(c: &mut Call<'_>) -> Answer {
    let (family, kind, how) = c.asked_socket()?;
    if family != Family::Unix {
        return Err(Errno::EOPNOTSUPP.into());
    }
    let owner = c.credentials();
    let mut pair = [0; 2];
    let mut ids = Vec::new();
    for place in &mut pair {
        let made = c.k.sockets.make(family, kind, owner);
        match made.and_then(|id| Ok((id, c.install_socket(id, how)?))) {
            Ok((id, fd)) => {
                *place = fd;
                ids.push(id);
            }
            Err(errno) => {
                if !ids.is_empty() {
                    close_descriptor(c, pair[0]);
                }
                return Err(errno.into());
            }
        }
    }
    if let [a, b] = ids[..] {
        c.k.sockets.join(a, b);
    }
    let at = c.word(3);
    let written = c
        .put_u32(at, pair[0])
        .and_then(|()| c.put_u32(at.wrapping_add(4), pair[1]));
    if let Err(errno) = written {
        for fd in pair {
            close_descriptor(c, fd);
        }
        return Err(errno.into());
    }
    Ok(0)
}

/// Takes back a descriptor that the guest does not learn of.
pub(super) fn close_descriptor(c: &mut Call<'_>, fd: u32) {
    if let Some(gone) = c.process().files.remove(u64::from(fd)) {
        let pid = c.pid;
        c.k.close_file(pid, gone.file);
    }
}

pub(crate) fn bind(c: &mut Call<'_>) -> Answer {
    let id = c.socket(0)?;
    let family = c.socket_ref(id)?.family;
    let asked = c.address(family, c.word(1), c.word(2) & 0xffff_ffff, true)?;
    let address = match asked {
        Asked::Name(Address::Netlink { port, groups }) => {
            c.bind_netlink(id, port, groups)?;
            return Ok(0);
        }
        Asked::Name(address @ Address::Link { .. }) => {
            c.bind_link(id, address)?;
            return Ok(0);
        }
        Asked::Name(address) => address,
        Asked::Nobody => return Err(Errno::EINVAL.into()),
        // Any abstract name of five digits (unix(7), "Autobind feature").
        Asked::Unnamed => Address::Abstract(format!("{:05x}", id.0 & 0xf_ffff).into_bytes()),
        Asked::Path(path) => {
            if c.socket_ref(id)?.local.is_some() {
                return Err(Errno::EINVAL.into());
            }
            let place = c.new_name(None, &path).map_err(|errno| match errno {
                Errno::EEXIST => Errno::EADDRINUSE,
                other => other,
            })?;
            let bits = 0o777 & !c.process().umask;
            let kind = tree::Kind::Special {
                mode: tree::mode::SOCKET,
                number: 0,
            };
            let ino = c.make_node(&place, kind, bits)?;
            Address::Path(path, ino)
        }
    };
    c.k.sockets.bind(id, address)?;
    Ok(0)
}

pub(crate) fn listen(c: &mut Call<'_>) -> Answer {
    let id = c.socket(0)?;
    let socket = c.socket_ref(id)?;
    if !socket.kind.connects() {
        return Err(Errno::EOPNOTSUPP.into());
    }
    match (socket.family, &socket.local) {
        (_, Some(_)) => {}
        (Family::Unix, None) => return Err(Errno::EINVAL.into()),
        (Family::Inet, None) => c.k.sockets.bind(id, any(IpAddr::V4(Ipv4Addr::UNSPECIFIED)))?,
        (Family::Inet6, None) => c.k.sockets.bind(id, any(IpAddr::V6(Ipv6Addr::UNSPECIFIED)))?,
        // They have no streams.
        (Family::Netlink | Family::Packet, None) => return Err(Errno::EOPNOTSUPP.into()),
    }
    // A negative number is as large as can be.
    let backlog = usize::try_from(c.word(1) as u32).unwrap_or(usize::MAX);
    c.k.sockets.listen(id, backlog)?;
    c.k.wake += 1;
    Ok(0)
}

fn any(ip: IpAddr) -> Address {
    Address::Inet(SocketAddr::new(ip, 0))
}

pub(crate) fn connect(c: &mut Call<'_>) -> Answer {
    let id = c.socket(0)?;
    let nonblocking = c.file(0)?.flags & open::NONBLOCK != 0;
    let socket = c.socket_ref(id)?;
    let (family, kind) = (socket.family, socket.kind);
    let connected = matches!(socket.state, State::Connected(_)) && kind.connects();
    let listens = matches!(socket.state, State::Listening { .. });
    let asked = c.address(family, c.word(1), c.word(2) & 0xffff_ffff, false)?;
    if family == Family::Packet {
        return Err(Errno::EOPNOTSUPP.into());
    }
    if matches!(asked, Asked::Nobody) && !(kind.connects() && family == Family::Unix) {
        let files = c.k.sockets.disconnect(id);
        c.drop_files(files);
        c.k.pump();
        c.k.wake += 1;
        return Ok(0);
    }
    match (connected, listens) {
        (true, _) => return Err(Errno::EISCONN.into()),
        (_, true) => return Err(Errno::EINVAL.into()),
        _ => {}
    }
    let address = c.led_to(asked)?;
    if let Address::Inet(called) = &address
        && !c.k.sockets.is_here(called.ip())
    {
        let to =
            c.k.world
                .as_ref()
                .and_then(|_| beyond(&address))
                .ok_or(Errno::ENETUNREACH)?;
        if kind.connects() {
            c.k.sockets.name_for(id, &address)?;
            c.k.call_outside(id, &address, to)?;
            return Ok(0);
        }
    }
    if !kind.connects() {
        c.k.sockets.name_for(id, &address)?;
        if family == Family::Unix && c.k.sockets.find(kind, &address, None).is_none() {
            return Err(Errno::ECONNREFUSED.into());
        }
        if let Some(socket) = c.k.sockets.get_mut(id) {
            socket.peer = Some(address);
        }
        return Ok(0);
    }
    c.k.sockets.name_for(id, &address)?;
    let result = connect_to(c, id, &address, nonblocking);
    if result.is_err() {
        c.k.sockets.give_up_name(id);
    }
    result
}

/// Connects to who listens on this machine.
fn connect_to(c: &mut Call<'_>, id: SocketId, address: &Address, nonblocking: bool) -> Answer {
    let socket = c.socket_ref(id)?;
    let (kind, own) = (socket.kind, socket.local.clone());
    let Some(to) = c.k.sockets.find(kind, address, own.as_ref()) else {
        return Err(Errno::ECONNREFUSED.into());
    };
    if c.socket_ref(to)?.family == Family::Unix && c.socket_ref(to)?.kind != kind {
        return Err(Errno::EPROTOTYPE.into());
    }
    if c.k.sockets.connect(id, to, address)? {
        if let Some(socket) = c.k.sockets.get_mut(id) {
            socket.peer = Some(address.clone());
        }
        c.k.wake += 1;
        return Ok(0);
    }
    if nonblocking {
        return Err(Errno::EAGAIN.into());
    }
    Err(Fail::Wait)
}

fn accept_with(c: &mut Call<'_>, how: u64) -> Answer {
    let id = c.socket(0)?;
    let nonblocking = c.file(0)?.flags & open::NONBLOCK != 0;
    let patience = c.patience(id, false);
    let socket = c.k.sockets.get_mut(id).ok_or(Errno::EBADF)?;
    if !socket.kind.connects() {
        return Err(Errno::EOPNOTSUPP.into());
    }
    let State::Listening { queue, .. } = &mut socket.state else {
        return Err(Errno::EINVAL.into());
    };
    let Some(first) = queue.front().copied() else {
        if nonblocking {
            return Err(Errno::EAGAIN.into());
        }
        c.until(patience);
        return match c.timed_out() {
            true => Err(Errno::EAGAIN.into()),
            false => Err(Fail::Wait),
        };
    };
    c.process().files.free(0)?;
    if let Some(State::Listening { queue, .. }) = c.k.sockets.get_mut(id).map(|socket| &mut socket.state) {
        queue.pop_front();
    }
    // Whoever waits to connect finds room.
    c.k.wake += 1;
    let fd = c.install_socket(first, how)?;
    let other = c.socket_ref(first)?;
    let (family, peer) = (other.family, other.peer.clone());
    if let Err(errno) = c.put_address(family, peer.as_ref(), c.word(1), c.word(2)) {
        close_descriptor(c, fd);
        return Err(errno.into());
    }
    Ok(u64::from(fd))
}

pub(crate) fn accept(c: &mut Call<'_>) -> Answer {
    accept_with(c, 0)
}

pub(crate) fn accept4(c: &mut Call<'_>) -> Answer {
    let how = flags::open_in(c.abi(), c.word(3) & 0xffff_ffff);
    if how & !(open::NONBLOCK | open::CLOSE_ON_EXEC) != 0 {
        return Err(Errno::EINVAL.into());
    }
    accept_with(c, how)
}

pub(crate) fn getsockname(c: &mut Call<'_>) -> Answer {
    let id = c.socket(0)?;
    let socket = c.socket_ref(id)?;
    let (family, name) = (socket.family, socket.local.clone());
    c.put_address(family, name.as_ref(), c.word(1), c.word(2))?;
    Ok(0)
}

pub(crate) fn getpeername(c: &mut Call<'_>) -> Answer {
    let id = c.socket(0)?;
    let socket = c.socket_ref(id)?;
    let connected = matches!(socket.state, State::Connected(_)) || socket.peer.is_some();
    if !connected || matches!(socket.state, State::Disconnected) {
        return Err(Errno::ENOTCONN.into());
    }
    let (family, name) = (socket.family, socket.peer.clone());
    c.put_address(family, name.as_ref(), c.word(1), c.word(2))?;
    Ok(0)
}

pub(crate) fn shutdown(c: &mut Call<'_>) -> Answer {
    let id = c.socket(0)?;
    let how = c.word(1) & 0xffff_ffff;
    if how > 2 {
        return Err(Errno::EINVAL.into());
    }
    let socket = c.k.sockets.get_mut(id).ok_or(Errno::EBADF)?;
    if socket.kind.connects() && !matches!(socket.state, State::Connected(_) | State::Disconnected) {
        return Err(Errno::ENOTCONN.into());
    }
    c.k.sockets.shut(id, [how != 1, how != 0]);
    c.k.pump();
    c.k.wake += 1;
    Ok(0)
}
