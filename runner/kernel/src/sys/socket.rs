//! Sockets: made, named, connected, shut down, and their options.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use hotcell_schema::arch::AbiFamily;

use crate::abi::errno::Errno;
use crate::abi::flags::{self, open};
use crate::abi::layout::Layout;
use crate::call::{Answer, Call, Fail};
use crate::fs::open::{OpenFile, Target};
use crate::fs::tree;
use crate::net::outside::beyond;
use crate::net::{Address, Credentials, Family, Kind, REUSE, Socket, SocketId, State};

/// `SOL_SOCKET`, as it is kept; mips says 0xffff.
const SOCKET_LEVEL: u64 = 1;
const TCP_LEVEL: u64 = 6;
/// Bytes of an option's value that are kept.
const MAX_OPTION: u64 = 256;

/// Options of sockets: generic, mips', powerpc's number (asm/socket.h of each).
mod option {
    pub(super) const TYPE: u64 = 3;
    pub(super) const ERROR: u64 = 4;
    pub(super) const SEND_BUFFER: u64 = 7;
    pub(super) const RECEIVE_BUFFER: u64 = 8;
    pub(super) const PASS_CREDENTIALS: u64 = 16;
    pub(super) const PEER_CREDENTIALS: u64 = 17;
    pub(super) const RECEIVE_TIMEOUT: u64 = 20;
    pub(super) const SEND_TIMEOUT: u64 = 21;
    pub(super) const ACCEPTS: u64 = 30;
    pub(super) const PROTOCOL: u64 = 38;
    pub(super) const DOMAIN: u64 = 39;

    pub(super) const NUMBERS: &[(u64, u64, u64)] = &[
        (2, 4, 2),
        (TYPE, 0x1008, 3),
        (ERROR, 0x1007, 4),
        (5, 0x10, 5),
        (6, 0x20, 6),
        (SEND_BUFFER, 0x1001, 7),
        (RECEIVE_BUFFER, 0x1002, 8),
        (9, 8, 9),
        (10, 0x100, 10),
        (13, 0x80, 13),
        (15, 0x200, 15),
        (PASS_CREDENTIALS, 17, 20),
        (PEER_CREDENTIALS, 18, 21),
        (18, 0x1004, 16),
        (19, 0x1003, 17),
        (RECEIVE_TIMEOUT, 0x1006, 18),
        (SEND_TIMEOUT, 0x1005, 19),
        (ACCEPTS, 0x1009, 30),
        (PROTOCOL, 0x1028, 38),
        (DOMAIN, 0x1029, 39),
    ];
}

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

    /// Family and kind that the first two words ask for, and the flags with them.
    fn asked_socket(&self) -> Result<(Family, Kind, u64), Errno> {
        let family = match self.word(0) & 0xffff_ffff {
            1 => Family::Unix,
            2 => Family::Inet,
            10 => Family::Inet6,
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
            ("SOCK_SEQPACKET", Family::Unix) if protocol <= 1 => Kind::Sequenced,
            ("SOCK_RAW" | "SOCK_PACKET", _) => return Err(Errno::EPERM),
            ("SOCK_STREAM" | "SOCK_DGRAM", _) => return Err(Errno::EPROTONOSUPPORT),
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
        if !(2..=128).contains(&length) {
            return Err(Errno::EINVAL);
        }
        let bytes = self.bytes(at, length)?;
        let said = self.abi().get_u16(*bytes.first_chunk().ok_or(Errno::EINVAL)?);
        let body = bytes.get(2..).unwrap_or_default();
        let port = || {
            body.first_chunk()
                .map(|port| u16::from_be_bytes(*port))
                .ok_or(Errno::EINVAL)
        };
        match (said, family) {
            (0, _) if !bind => Ok(Asked::Nobody),
            (1, Family::Unix) => match body {
                [] => Ok(Asked::Unnamed),
                [0, name @ ..] => Ok(Asked::Name(Address::Abstract(name.to_vec()))),
                path => {
                    let path = path.split(|byte| *byte == 0).next().unwrap_or_default();
                    Ok(Asked::Path(path.to_vec()))
                }
            },
            (2, Family::Inet | Family::Inet6) => {
                let ip = body
                    .get(2..)
                    .and_then(<[u8]>::first_chunk::<4>)
                    .ok_or(Errno::EINVAL)?;
                let ip = Ipv4Addr::from(*ip);
                let ip = match family {
                    Family::Inet6 if bind => return Err(Errno::EAFNOSUPPORT),
                    Family::Inet6 => IpAddr::V6(ip.to_ipv6_mapped()),
                    _ => IpAddr::V4(ip),
                };
                Ok(Asked::Name(Address::Inet(SocketAddr::new(ip, port()?))))
            }
            (10, Family::Inet6) => {
                let ip = body
                    .get(6..)
                    .and_then(<[u8]>::first_chunk::<16>)
                    .ok_or(Errno::EINVAL)?;
                let ip = IpAddr::V6(Ipv6Addr::from(*ip));
                Ok(Asked::Name(Address::Inet(SocketAddr::new(ip, port()?))))
            }
            (_, Family::Unix) => Err(Errno::EINVAL),
            _ => Err(Errno::EAFNOSUPPORT),
        }
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
        let bytes = socket_bytes(self, family, address);
        let size = bytes.len().min(usize::try_from(room).unwrap_or(0));
        self.write(at, bytes.get(..size).unwrap_or_default())?;
        self.put_u32(length_at, u32::try_from(bytes.len()).unwrap_or(0))
    }

    /// How long a socket's calls wait, where it says so.
    pub(super) fn patience(&self, id: SocketId, sends: bool) -> Option<u64> {
        let name = match sends {
            true => option::SEND_TIMEOUT,
            false => option::RECEIVE_TIMEOUT,
        };
        let value = self.k.sockets.get(id)?.options.get(&(SOCKET_LEVEL, name))?;
        let (seconds, rest) = if self.abi().wide {
            let (seconds, rest) = (value.get(..8)?, value.get(8..16)?);
            (
                self.abi().get_u64(*seconds.first_chunk()?),
                self.abi().get_u64(*rest.first_chunk()?),
            )
        } else {
            let (seconds, rest) = (value.get(..4)?, value.get(4..8)?);
            let get = |bytes: &[u8]| Some(u64::from(self.abi().get_u32(*bytes.first_chunk()?)));
            (get(seconds)?, get(rest)?)
        };
        let time = seconds
            .saturating_mul(1_000_000_000)
            .saturating_add(rest.saturating_mul(1000));
        (time > 0).then_some(time)
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

/// A socket address as the guest reads it.
fn socket_bytes(c: &Call<'_>, family: Family, address: Option<&Address>) -> Vec<u8> {
    let layout = Layout::new(c.abi());
    match (family, address) {
        (Family::Unix, address) => {
            let mut bytes = layout.u16(1).bytes;
            match address {
                Some(Address::Path(path, _)) => {
                    bytes.extend(path);
                    bytes.push(0);
                }
                Some(Address::Abstract(name)) => {
                    bytes.push(0);
                    bytes.extend(name);
                }
                _ => {}
            }
            bytes
        }
        (Family::Inet, address) => {
            let (ip, port) = match address {
                Some(Address::Inet(address)) => (address.ip().to_canonical(), address.port()),
                _ => (IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0),
            };
            let mut bytes = layout.u16(2).bytes;
            bytes.extend(port.to_be_bytes());
            match ip {
                IpAddr::V4(ip) => bytes.extend(ip.octets()),
                IpAddr::V6(_) => bytes.extend([0; 4]),
            }
            bytes.extend([0; 8]);
            bytes
        }
        (Family::Inet6, address) => {
            let (ip, port) = match address {
                Some(Address::Inet(address)) => (address.ip(), address.port()),
                _ => (IpAddr::V6(Ipv6Addr::UNSPECIFIED), 0),
            };
            let ip = match ip {
                IpAddr::V4(ip) => ip.to_ipv6_mapped(),
                IpAddr::V6(ip) => ip,
            };
            let mut bytes = layout.u16(10).bytes;
            bytes.extend(port.to_be_bytes());
            bytes.extend([0; 4]);
            bytes.extend(ip.octets());
            bytes.extend([0; 4]);
            bytes
        }
    }
}

pub(crate) fn socket(c: &mut Call<'_>) -> Answer {
    let (family, kind, how) = c.asked_socket()?;
    let owner = c.credentials();
    let id = c.k.sockets.make(family, kind, owner)?;
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
    match socket.state {
        State::Connected(_) if kind.connects() => return Err(Errno::EISCONN.into()),
        State::Listening { .. } => return Err(Errno::EINVAL.into()),
        _ => {}
    }
    let asked = c.address(family, c.word(1), c.word(2) & 0xffff_ffff, false)?;
    if matches!(asked, Asked::Nobody) {
        if let Some(socket) = c.k.sockets.get_mut(id) {
            socket.peer = None;
            socket.state = State::Idle;
        }
        return Ok(0);
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
            c.k.sockets.bind_any(id, &address)?;
            c.k.call_outside(id, &address, to)?;
            return Ok(0);
        }
    }
    if !kind.connects() {
        c.k.sockets.bind_any(id, &address)?;
        if family == Family::Unix && c.k.sockets.find(kind, &address).is_none() {
            return Err(Errno::ECONNREFUSED.into());
        }
        if let Some(socket) = c.k.sockets.get_mut(id) {
            socket.peer = Some(address);
        }
        return Ok(0);
    }
    let Some(to) = c.k.sockets.find(kind, &address) else {
        return Err(Errno::ECONNREFUSED.into());
    };
    if c.socket_ref(to)?.family == Family::Unix && c.socket_ref(to)?.kind != kind {
        return Err(Errno::EPROTOTYPE.into());
    }
    c.k.sockets.bind_any(id, &address)?;
    if c.k.sockets.connect(id, to, &address)? {
        if let Some(socket) = c.k.sockets.get_mut(id) {
            socket.peer = Some(address);
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
    socket.shut[0] |= how != 1;
    socket.shut[1] |= how != 0;
    socket.activity += 1;
    if let State::Connected(other) = socket.state
        && let Some(other) = c.k.sockets.get_mut(other)
    {
        other.activity += 1;
    }
    c.k.pump();
    c.k.wake += 1;
    Ok(0)
}

/// Level and number of an option with the generic numbers; `None`: a number that the architecture does not have.
fn generic_option(c: &Call<'_>) -> Option<(u64, u64)> {
    let (level, name) = (c.word(1) & 0xffff_ffff, c.word(2) & 0xffff_ffff);
    let mips = c.abi().is_mips();
    if level != if mips { 0xffff } else { SOCKET_LEVEL } {
        return Some((level, name));
    }
    let powerpc = matches!(c.abi().family, AbiFamily::Ppc32 | AbiFamily::Ppc64);
    let own = |numbers: &&(u64, u64, u64)| match (mips, powerpc) {
        (true, _) => numbers.1 == name,
        (_, true) => numbers.2 == name,
        _ => numbers.0 == name,
    };
    let found = option::NUMBERS.iter().find(own).map(|numbers| numbers.0);
    // What is in no table has the same number everywhere, unless the table gives that number to something else.
    let taken = || option::NUMBERS.iter().any(|numbers| numbers.0 == name);
    found
        .or_else(|| (!taken()).then_some(name))
        .map(|name| (SOCKET_LEVEL, name))
}

pub(crate) fn setsockopt(c: &mut Call<'_>) -> Answer {
    let id = c.socket(0)?;
    let key = generic_option(c).ok_or(Errno::ENOPROTOOPT)?;
    let length = c.word(4) & 0xffff_ffff;
    if length > i32::MAX as u64 {
        return Err(Errno::EINVAL.into());
    }
    let value = c.bytes(c.word(3), length.min(MAX_OPTION))?;
    let socket = c.socket_ref(id)?;
    match (key, socket.family) {
        (
            (
                SOCKET_LEVEL,
                option::TYPE | option::ERROR | option::ACCEPTS | option::PROTOCOL | option::DOMAIN,
            ),
            _,
        ) => {
            return Err(Errno::ENOPROTOOPT.into());
        }
        ((SOCKET_LEVEL, _), _) => {
            if value.len() < 4 {
                return Err(Errno::EINVAL.into());
            }
        }
        // IPPROTO_IP, TCP, UDP, IPV6 and others: kept, and without effect.
        (_, Family::Inet | Family::Inet6) => {}
        (_, Family::Unix) => return Err(Errno::EOPNOTSUPP.into()),
    }
    let off = key == REUSE && value.iter().take(4).all(|byte| *byte == 0);
    if let Some(socket) = c.k.sockets.get_mut(id) {
        match off {
            true => _ = socket.options.remove(&key),
            false if socket.options.len() < 64 || socket.options.contains_key(&key) => {
                socket.options.insert(key, value);
            }
            false => return Err(Errno::ENOMEM.into()),
        }
    }
    Ok(0)
}

pub(crate) fn getsockopt(c: &mut Call<'_>) -> Answer {
    let id = c.socket(0)?;
    let key = generic_option(c).ok_or(Errno::ENOPROTOOPT)?;
    let (at, length_at) = (c.word(3), c.word(4));
    let room = u64::from(c.get_u32(length_at)?);
    if room > i32::MAX as u64 {
        return Err(Errno::EINVAL.into());
    }
    let bytes = option_value(c, id, key)?;
    let size = bytes.len().min(usize::try_from(room).unwrap_or(0));
    c.write(at, bytes.get(..size).unwrap_or_default())?;
    c.put_u32(length_at, u32::try_from(size).unwrap_or(0))?;
    Ok(0)
}

/// What an option says.
fn option_value(c: &mut Call<'_>, id: SocketId, key: (u64, u64)) -> Result<Vec<u8>, Errno> {
    let wide = c.abi().wide;
    let abi = c.abi().clone();
    let number = |value: u32| Layout::new(&abi).u32(value).bytes;
    let socket = c.k.sockets.get_mut(id).ok_or(Errno::EBADF)?;
    let set = socket.options.get(&key).cloned();
    Ok(match key {
        (SOCKET_LEVEL, option::TYPE) => {
            let (stream, datagram) = if abi.is_mips() { (2, 1) } else { (1, 2) };
            number(match socket.kind {
                Kind::Stream => stream,
                Kind::Datagram => datagram,
                Kind::Sequenced => 5,
            })
        }
        (SOCKET_LEVEL, option::ERROR) => {
            let errno = socket.error.take();
            number(errno.map_or(0, |errno| errno.number(abi.family) as u32))
        }
        (SOCKET_LEVEL, option::ACCEPTS) => number(u32::from(matches!(socket.state, State::Listening { .. }))),
        (SOCKET_LEVEL, option::DOMAIN) => number(match socket.family {
            Family::Unix => 1,
            Family::Inet => 2,
            Family::Inet6 => 10,
        }),
        (SOCKET_LEVEL, option::PROTOCOL) => number(match socket.protocol() {
            "tcp" => 6,
            "udp" => 17,
            _ => 0,
        }),
        (SOCKET_LEVEL, option::PEER_CREDENTIALS) => {
            let peer = socket.peer_owner;
            Layout::new(&abi).u32(peer.pid).u32(peer.uid).u32(peer.gid).bytes
        }
        (SOCKET_LEVEL, option::SEND_BUFFER | option::RECEIVE_BUFFER) => {
            // What was asked for counts twice (socket(7)); the room is the same all the same.
            let asked = set.and_then(|value| Some(abi.get_u32(*value.first_chunk()?)));
            let default = u32::try_from(crate::net::CAPACITY).unwrap_or(0);
            number(asked.map_or(default, |asked| asked.saturating_mul(2).clamp(2304, 425_984)))
        }
        (SOCKET_LEVEL, option::RECEIVE_TIMEOUT | option::SEND_TIMEOUT) => {
            set.unwrap_or_else(|| vec![0; if wide { 16 } else { 8 }])
        }
        // TCP_INFO and others that are more than a number.
        (TCP_LEVEL, 11) => return Err(Errno::ENOPROTOOPT),
        _ => set.unwrap_or_else(|| number(0)),
    })
}
