//! Options of sockets.

use hotcell_schema::arch::AbiFamily;

use crate::abi::errno::Errno;
use crate::abi::layout::Layout;
use crate::call::{Answer, Call};
use crate::net::{Family, Kind, SocketId, State};

/// `SOL_SOCKET`, as it is kept; mips says 0xffff.
const SOCKET_LEVEL: u64 = 1;
const TCP_LEVEL: u64 = 6;
const PACKET_LEVEL: u64 = 263;
/// Bytes of an option's value that are kept.
const MAX_OPTION: u64 = 256;

/// Options of sockets: generic, mips', powerpc's number (asm/socket.h of each).
mod known {
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
    /// How long a socket's calls wait, where it says so.
    pub(super) fn patience(&self, id: SocketId, sends: bool) -> Option<u64> {
        let name = match sends {
            true => known::SEND_TIMEOUT,
            false => known::RECEIVE_TIMEOUT,
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

/// Level and number of an option with the generic numbers; `None`: a number that the architecture does not have.
fn generic_option(c: &Call<'_>) -> Option<(u64, u64)> {
    let (level, name) = (c.word(1) & 0xffff_ffff, c.word(2) & 0xffff_ffff);
    let mips = c.abi().is_mips();
    if level != if mips { 0xffff } else { SOCKET_LEVEL } {
        return Some((level, name));
    }
    // SO_RCVTIMEO_NEW and SO_SNDTIMEO_NEW: a C library that hears of no such option takes the old ones.
    if matches!(name, 66 | 67) {
        return None;
    }
    let powerpc = matches!(c.abi().family, AbiFamily::Ppc32 | AbiFamily::Ppc64);
    let own = |numbers: &&(u64, u64, u64)| match (mips, powerpc) {
        (true, _) => numbers.1 == name,
        (_, true) => numbers.2 == name,
        _ => numbers.0 == name,
    };
    let found = known::NUMBERS.iter().find(own).map(|numbers| numbers.0);
    // What is in no table has the same number everywhere, unless the table gives that number to something else.
    let taken = || known::NUMBERS.iter().any(|numbers| numbers.0 == name);
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
    let family = c.k.sockets.get(id).ok_or(Errno::EBADF)?.family;
    match (key, family) {
        (
            (SOCKET_LEVEL, known::TYPE | known::ERROR | known::ACCEPTS | known::PROTOCOL | known::DOMAIN),
            _,
        ) => {
            return Err(Errno::ENOPROTOOPT.into());
        }
        ((SOCKET_LEVEL, _), _) => {
            if value.len() < 4 {
                return Err(Errno::EINVAL.into());
            }
        }
        // Rings of frames that are shared with the kernel (PACKET_RX_RING, PACKET_VERSION, PACKET_TX_RING).
        ((PACKET_LEVEL, 5 | 10 | 13), _) => return Err(Errno::ENOPROTOOPT.into()),
        // IPPROTO_IP, TCP, UDP, IPV6 and others: kept, and without effect.
        (_, Family::Inet | Family::Inet6 | Family::Netlink | Family::Packet) => {}
        (_, Family::Unix) => return Err(Errno::EOPNOTSUPP.into()),
    }
    if let Some(socket) = c.k.sockets.get_mut(id) {
        if socket.options.len() >= 64 && !socket.options.contains_key(&key) {
            return Err(Errno::ENOMEM.into());
        }
        socket.options.insert(key, value);
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
        (SOCKET_LEVEL, known::TYPE) => {
            let (stream, datagram) = if abi.is_mips() { (2, 1) } else { (1, 2) };
            number(match socket.kind {
                Kind::Stream => stream,
                Kind::Datagram => datagram,
                Kind::Sequenced => 5,
                Kind::Ping | Kind::Cooked(_) => datagram,
                Kind::Raw(_) => 3,
            })
        }
        (SOCKET_LEVEL, known::ERROR) => {
            let errno = socket.error.take();
            number(errno.map_or(0, |errno| errno.number(abi.family) as u32))
        }
        (SOCKET_LEVEL, known::ACCEPTS) => number(u32::from(matches!(socket.state, State::Listening { .. }))),
        (SOCKET_LEVEL, known::DOMAIN) => number(match socket.family {
            Family::Unix => 1,
            Family::Inet => 2,
            Family::Inet6 => 10,
            Family::Netlink => 16,
            Family::Packet => 17,
        }),
        (SOCKET_LEVEL, known::PROTOCOL) => number(match (socket.protocol(), socket.kind) {
            (_, Kind::Raw(protocol) | Kind::Cooked(protocol)) => u32::from(protocol),
            ("tcp", _) => 6,
            ("udp", _) => 17,
            ("icmp", _) => 1,
            _ => 0,
        }),
        (SOCKET_LEVEL, known::PEER_CREDENTIALS) => {
            let peer = socket.peer_owner;
            Layout::new(&abi).u32(peer.pid).u32(peer.uid).u32(peer.gid).bytes
        }
        (SOCKET_LEVEL, known::SEND_BUFFER | known::RECEIVE_BUFFER) => {
            // What was asked for counts twice (socket(7)); the room is the same all the same.
            let asked = set.and_then(|value| Some(abi.get_u32(*value.first_chunk()?)));
            let default = u32::try_from(crate::net::CAPACITY).unwrap_or(0);
            number(asked.map_or(default, |asked| asked.saturating_mul(2).clamp(2304, 425_984)))
        }
        (SOCKET_LEVEL, known::RECEIVE_TIMEOUT | known::SEND_TIMEOUT) => {
            set.unwrap_or_else(|| vec![0; if wide { 16 } else { 8 }])
        }
        // TCP_INFO and others that are more than a number.
        (TCP_LEVEL, 11) => return Err(Errno::ENOPROTOOPT),
        _ => set.unwrap_or_else(|| number(0)),
    })
}
