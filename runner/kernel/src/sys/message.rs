//! Sending and receiving on sockets, descriptors among what is sent.

use std::net::SocketAddr;

use hotcell_schema::event::{Network, NetworkOp, What};

use crate::abi::errno::Errno;
use crate::abi::flags::open;
use crate::abi::layout::Layout;
use crate::call::{Answer, Call, Fail, MAX_TRANSFER};
use crate::fs::open::{Descriptor, FileId};
use crate::net::outside::beyond;
use crate::net::{
    Address, CAPACITY, Credentials, Family, Kind, MAX_DATAGRAM, Packet, Sent, SocketId, State, Take, Taken,
};
use crate::reach::Segment;
use crate::sys::io::{Source, Stream, cut};
use crate::sys::socket::Asked;

const PEEK: u64 = 2;
const CONTROL_CUT: u64 = 8;
const CUT: u64 = 0x20;
const DO_NOT_WAIT: u64 = 0x40;
const WAIT_ALL: u64 = 0x100;
const WAIT_FOR_ONE: u64 = 0x1_0000;
const NO_SIGNAL: u64 = 0x4000;
const CLOSE_ON_EXEC: u64 = 0x4000_0000;
const OUT_OF_BAND: u64 = 1;
/// `SOL_SOCKET`: mips has its own.
const RIGHTS: u32 = 1;
const CREDENTIALS: u32 = 2;
/// Most descriptors of one message (SCM_MAX_FD), most bytes of control messages, most messages of one call (UIO_MAXIOV).
const MAX_RIGHTS: usize = 253;
const MAX_CONTROL: u64 = 20_480;
const MAX_MESSAGES: u64 = 1024;

/// A `struct msghdr` in guest memory.
struct Header {
    at: u64,
    name: u64,
    name_length: u64,
    segments: Vec<Segment>,
    control: u64,
    control_length: u64,
}

impl Call<'_> {
    fn level(&self) -> u32 {
        if self.abi().is_mips() { 0xffff } else { 1 }
    }

    fn header(&self, at: u64) -> Result<Header, Errno> {
        let word = self.abi().word();
        let place = |index: u64| at.checked_add(index * word).ok_or(Errno::EFAULT);
        let segments = self.vector(self.get_word(place(2)?)?, self.get_word(place(3)?)?)?;
        Ok(Header {
            at,
            name: self.get_word(place(0)?)?,
            name_length: u64::from(self.get_u32(place(1)?)?),
            segments,
            control: self.get_word(place(4)?)?,
            control_length: self.get_word(place(5)?)?,
        })
    }

    /// What control messages say: descriptors, each with a reference of its own.
    fn rights(&mut self, header: &Header) -> Result<Vec<FileId>, Errno> {
        let word = self.abi().word();
        let head = (word + 8).next_multiple_of(word);
        if header.control_length > MAX_CONTROL {
            return Err(Errno::ENOBUFS);
        }
        let mut files = Vec::new();
        let mut at = 0u64;
        while at.saturating_add(word + 8) <= header.control_length {
            let place = header.control.checked_add(at).ok_or(Errno::EFAULT)?;
            let length = self.get_word(place)?;
            if length < word + 8 || length > header.control_length - at {
                return Err(Errno::EINVAL);
            }
            let (level, kind) = (
                self.get_u32(place.wrapping_add(word))?,
                self.get_u32(place.wrapping_add(word + 4))?,
            );
            if (level, kind) == (self.level(), RIGHTS) {
                for index in 0..length.saturating_sub(head) / 4 {
                    let fd = u64::from(self.get_u32(place.wrapping_add(head + index * 4))?);
                    files.push(self.process().files.get(fd)?.file);
                }
                if files.len() > MAX_RIGHTS {
                    return Err(Errno::EINVAL);
                }
            }
            at = at.saturating_add(length.next_multiple_of(word));
        }
        for file in &files {
            self.k.open.share(*file);
        }
        Ok(files)
    }

    pub(super) fn drop_files(&mut self, files: Vec<FileId>) {
        let pid = self.pid;
        for file in files {
            self.k.close_file(pid, file);
        }
    }

    /// Sends on a socket; what was begun goes on where it stopped.
    fn send(
        &mut self,
        id: SocketId,
        source: Source<'_>,
        to: Option<Asked>,
        how: u64,
        header: Option<&Header>,
    ) -> Answer {
        let count = source.length();
        if how & OUT_OF_BAND != 0 {
            return Err(Errno::EOPNOTSUPP.into());
        }
        let socket = self.k.sockets.get_mut(id).ok_or(Errno::EBADF)?;
        let (family, kind) = (socket.family, socket.kind);
        // What was moved before the wait is told first; what has happened since, by the next call.
        let done = match kind {
            Kind::Stream => self.pending.progress,
            _ => 0,
        };
        let other = match socket.state {
            State::Connected(other) => Some(other),
            _ => None,
        };
        let (broken, shut) = (socket.error.is_some(), socket.shut[1]);
        let hears = |other| self.k.sockets.get(other).is_some_and(|other| !other.shut[0]);
        if done > 0 && (broken || shut || !other.is_some_and(hears)) {
            return Ok(done);
        }
        let socket = self.k.sockets.get_mut(id).ok_or(Errno::EBADF)?;
        if let Some(errno) = socket.error.take() {
            return Err(errno.into());
        }
        // Of a stream its parts are read when there is room for them.
        let bytes = match kind {
            Kind::Stream => Vec::new(),
            _ if count > CAPACITY as u64 => return Err(Errno::EMSGSIZE.into()),
            _ => self.part(source, 0, count)?,
        };
        match (family, kind) {
            (Family::Netlink, _) => return self.send_netlink(id, &bytes, to),
            (Family::Packet, _) => return self.send_frame(id, &bytes, to),
            (_, Kind::Ping | Kind::Raw(_)) => return self.send_raw(id, &bytes, to),
            _ => {}
        }
        let refused = |c: &mut Self, errno| match errno {
            Errno::EPIPE if how & NO_SIGNAL == 0 => c.broken_pipe(),
            other => Err(Fail::Errno(other)),
        };
        let socket = self.k.sockets.get(id).ok_or(Errno::EBADF)?;
        if socket.shut[1] {
            return refused(self, Errno::EPIPE);
        }
        let to = match (&socket.state, kind.connects(), to) {
            (State::Connected(other), true, _) => {
                let other = *other;
                if self.k.sockets.get(other).is_none_or(|other| other.shut[0]) {
                    return refused(self, Errno::EPIPE);
                }
                other
            }
            (State::Disconnected, true, _) => return refused(self, Errno::EPIPE),
            (_, true, _) => {
                let errno = if family == Family::Unix {
                    Errno::ENOTCONN
                } else {
                    Errno::EPIPE
                };
                return refused(self, errno);
            }
            (State::Connected(other), false, None) => *other,
            (_, false, to) => {
                let address = match to {
                    Some(asked) => self.led_to(asked)?,
                    None => {
                        let peer = self.k.sockets.get(id).and_then(|socket| socket.peer.clone());
                        let absent = if family == Family::Unix {
                            Errno::ENOTCONN
                        } else {
                            Errno::EDESTADDRREQ
                        };
                        peer.ok_or(absent)?
                    }
                };
                if let Some(to) = self.outward(&address)? {
                    if bytes.len() > MAX_DATAGRAM {
                        return Err(Errno::EMSGSIZE.into());
                    }
                    self.k.sockets.bind_any(id, &address)?;
                    self.k.send_outside(id, &address, to, &bytes)?;
                    return Ok(count);
                }
                match self.called(id, kind, family, &address)? {
                    Some(to) => to,
                    // Nobody hears it: who is connected is told by the next call (udp(7)).
                    None => {
                        if let Some(socket) =
                            self.k.sockets.get_mut(id).filter(|socket| socket.peer.is_some())
                        {
                            socket.error = Some(Errno::ECONNREFUSED);
                            socket.activity += 1;
                            self.k.wake += 1;
                        }
                        return Ok(count);
                    }
                }
            }
        };
        let nonblocking = how & DO_NOT_WAIT != 0;
        let full = |c: &mut Self, done: u64| match nonblocking {
            true if done > 0 => Ok(done),
            true => Err(Errno::EAGAIN.into()),
            false => c.wait_on(id, true, done),
        };
        let header = header.filter(|_| family == Family::Unix);
        if kind == Kind::Stream {
            let stream = Stream {
                room: |c: &mut Self| Ok(c.k.sockets.room_of(to)),
                put: |c: &mut Self, part: Vec<u8>| {
                    if part.is_empty() {
                        return Ok(0);
                    }
                    // Descriptors go with the first bytes.
                    let header = header.filter(|_| c.pending.progress == 0);
                    match c.put(id, to, part, header)? {
                        Sent::Bytes(size) => Ok(size),
                        Sent::Full => Ok(0),
                        Sent::Refused(errno) => refused(c, errno).map(|_| 0),
                    }
                },
            };
            return self.write_stream(source, stream, full);
        }
        match self.put(id, to, bytes, header)? {
            Sent::Bytes(_) => Ok(count),
            // UDP drops what does not fit.
            Sent::Full if family != Family::Unix && kind == Kind::Datagram => Ok(count),
            Sent::Full => full(self, 0),
            Sent::Refused(errno) => refused(self, errno),
        }
    }

    /// Puts bytes, and the descriptors of a message, into another socket's inbox.
    fn put(
        &mut self,
        id: SocketId,
        to: SocketId,
        bytes: Vec<u8>,
        header: Option<&Header>,
    ) -> Result<Sent, Fail> {
        let files = header
            .map(|header| self.rights(header))
            .transpose()?
            .unwrap_or_default();
        let packet = Packet {
            bytes,
            from: self.k.sockets.name_to(id, to),
            credentials: self.credentials(),
            files: files.clone(),
            ..Packet::default()
        };
        let sent = self.k.sockets.deliver(to, packet);
        if matches!(sent, Sent::Bytes(_)) {
            self.k.wake += 1;
            self.k.pump();
        } else {
            self.drop_files(files);
        }
        Ok(sent)
    }

    /// Waits as long as the socket says; `done` bytes are told when that is over.
    fn wait_on(&mut self, id: SocketId, sends: bool, done: u64) -> Answer {
        let patience = self.patience(id, sends);
        self.until(patience);
        match (self.timed_out(), done) {
            (false, done) => self.or_wait(done),
            (true, 0) => Err(Errno::EAGAIN.into()),
            (true, done) => Ok(done),
        }
    }

    /// Where beyond the machine an address leads; `None`: it stays here.
    fn outward(&self, address: &Address) -> Result<Option<SocketAddr>, Errno> {
        match address {
            Address::Inet(called) if !self.k.sockets.is_here(called.ip()) => {
                let world = self.k.world.as_ref();
                world
                    .and_then(|_| beyond(address))
                    .map(Some)
                    .ok_or(Errno::ENETUNREACH)
            }
            _ => Ok(None),
        }
    }

    /// The datagram socket that an address leads to; `None`: nobody is there.
    fn called(
        &mut self,
        id: SocketId,
        kind: Kind,
        family: Family,
        address: &Address,
    ) -> Result<Option<SocketId>, Errno> {
        self.k.sockets.bind_any(id, address)?;
        let own = self.k.sockets.get(id).and_then(|socket| socket.local.clone());
        match self.k.sockets.find(kind, address, own.as_ref()) {
            None if family == Family::Unix => Err(Errno::ECONNREFUSED),
            // Who is connected hears only its peer (unix_may_send).
            Some(found) if family == Family::Unix => {
                let peer = self.k.sockets.get(found).and_then(|socket| socket.peer.as_ref());
                match peer.is_none_or(|peer| own.as_ref() == Some(peer)) {
                    true => Ok(Some(found)),
                    false => Err(Errno::EPERM),
                }
            }
            found => Ok(found),
        }
    }

    /// Takes what came for a socket and gives it to the guest; how many bytes were given by this call, waits included. At the
    /// end of a stream nothing is taken.
    fn receive(&mut self, id: SocketId, segments: &[Segment], how: u64) -> Result<(u64, Taken), Fail> {
        let nonblocking = how & DO_NOT_WAIT != 0;
        let socket = self.k.sockets.get_mut(id).ok_or(Errno::EBADF)?;
        if how & OUT_OF_BAND != 0 {
            return Err(Errno::EINVAL.into());
        }
        let done = match socket.kind {
            Kind::Stream if how & PEEK == 0 => self.pending.progress,
            _ => 0,
        };
        if !socket.has_packets()
            && let Some(errno) = socket.error.take_if(|_| done == 0)
        {
            return Err(errno.into());
        }
        let streams = socket.kind == Kind::Stream;
        let (ended, connects) = (socket.shut[0], socket.kind.connects());
        let (other, fresh) = match socket.state {
            State::Connected(other) => (Some(other), false),
            State::Idle | State::Listening { .. } => (None, true),
            State::Disconnected => (None, false),
        };
        let (waiting, any) = (socket.waiting(), socket.has_packets());
        if connects && fresh {
            let errno = if socket.family == Family::Unix {
                Errno::EINVAL
            } else {
                Errno::ENOTCONN
            };
            return Err(errno.into());
        }
        let over = ended
            || connects
                && other.is_none_or(|other| self.k.sockets.get(other).is_none_or(|other| other.shut[1]));
        let rest = cut(segments, done, MAX_TRANSFER);
        let most = total(&rest);
        let peek = how & PEEK != 0;
        let fills = how & WAIT_ALL != 0 && streams && !over && !nonblocking;
        if any && !(fills && peek && waiting < most.min(CAPACITY / 2)) {
            let taken = self.k.sockets.take(id, Take { most, peek }).unwrap_or_default();
            if !peek {
                self.k.wake += 1;
                self.k.pump();
            }
            let given = match self.scatter(&rest, &taken.bytes) {
                Ok(given) => done.saturating_add(given),
                Err(errno) => {
                    self.drop_files(taken.files);
                    return Err(errno.into());
                }
            };
            // All that was asked for is waited for (MSG_WAITALL); what comes with descriptors stands by itself.
            if !fills || peek || taken.files.len() + usize::from(taken.bytes.len() >= most) > 0 {
                return Ok((given, taken));
            }
            self.pending.progress = given;
            return self.wait_on(id, false, given).map(|given| (given, taken));
        }
        if over && !any || streams && most == 0 {
            return Ok((done, Taken::default()));
        }
        if nonblocking {
            return Err(Errno::EAGAIN.into());
        }
        let given = self.wait_on(id, false, done)?;
        Ok((given, Taken::default()))
    }

    /// read on a socket.
    pub(super) fn read_socket(&mut self, id: SocketId, segments: &[Segment], nonblocking: bool) -> Answer {
        let how = if nonblocking { DO_NOT_WAIT } else { 0 };
        let (count, taken) = self.receive(id, segments, how)?;
        self.drop_files(taken.files);
        self.tell_moved(NetworkOp::Receive, id, count);
        Ok(count)
    }

    /// write on a socket.
    pub(super) fn write_socket(&mut self, id: SocketId, source: Source<'_>, nonblocking: bool) -> Answer {
        let how = if nonblocking { DO_NOT_WAIT } else { 0 };
        let count = self.send(id, source, None, how, None)?;
        self.tell_moved(NetworkOp::Send, id, count);
        Ok(count)
    }

    fn tell_moved(&mut self, op: NetworkOp, id: SocketId, count: u64) {
        if let Some(socket) = self.k.sockets.get(id) {
            let event = Network {
                bytes: Some(count),
                host: socket.peer.as_ref().and_then(|peer| self.k.host_of(peer)),
                ..crate::sys::net::socket_event(op, socket)
            };
            self.tell(What::Network(event));
        }
    }

    /// The flags of a call, with what the descriptor says.
    fn message_flags(&mut self, how: u64) -> Result<u64, Errno> {
        let waits_not = self.file(0)?.flags & open::NONBLOCK != 0;
        Ok(how & 0xffff_ffff | if waits_not { DO_NOT_WAIT } else { 0 })
    }

    fn destination(&mut self, id: SocketId, at: u64, length: u64) -> Result<Option<Asked>, Errno> {
        if at == 0 {
            return Ok(None);
        }
        let family = self.k.sockets.get(id).ok_or(Errno::EBADF)?.family;
        self.address(family, at, length, false).map(Some)
    }

    fn send_message(&mut self, at: u64, how: u64) -> Answer {
        let id = self.socket(0)?;
        let how = self.message_flags(how)?;
        let header = self.header(at)?;
        let to = self.destination(id, header.name, header.name_length)?;
        self.send(id, Source::Memory(&header.segments), to, how, Some(&header))
    }

    fn receive_message(&mut self, at: u64, how: u64) -> Answer {
        let id = self.socket(0)?;
        let wanted = self.message_flags(how)?;
        let header = self.header(at)?;
        let family = self.k.sockets.get(id).ok_or(Errno::EBADF)?.family;
        let keeps_apart = self
            .k
            .sockets
            .get(id)
            .is_some_and(|socket| socket.kind != Kind::Stream);
        let (count, mut taken) = self.receive(id, &header.segments, wanted)?;
        let files = std::mem::take(&mut taken.files);
        let mut flags = match self.put_sender(&header, family, keeps_apart, &taken) {
            Ok(flags) => flags,
            Err(errno) => {
                self.drop_files(files);
                return Err(errno.into());
            }
        };
        let word = self.abi().word();
        let used = self.put_control(id, &header, files, taken.credentials, how, &mut flags)?;
        self.put_word(header.at.wrapping_add(5 * word), used)?;
        self.put_u32(header.at.wrapping_add(6 * word), flags as u32)?;
        Ok(match how & CUT != 0 && keeps_apart {
            true => taken.whole as u64,
            false => count,
        })
    }

    /// Gives the sender of a message to the guest; flags of the message.
    fn put_sender(
        &mut self,
        header: &Header,
        family: Family,
        keeps_apart: bool,
        taken: &Taken,
    ) -> Result<u64, Errno> {
        if header.name != 0 {
            // The length of the room stands where the length of the name will.
            let at_length = header.at.wrapping_add(self.abi().word());
            match taken.from.as_ref().filter(|_| keeps_apart) {
                Some(from) => self.put_address(family, Some(from), header.name, at_length)?,
                None => self.put_u32(at_length, 0)?,
            }
        }
        let is_cut = keeps_apart && taken.whole > taken.bytes.len();
        Ok(if is_cut { CUT } else { 0 })
    }

    /// Writes control messages; gives how many bytes.
    fn put_control(
        &mut self,
        id: SocketId,
        header: &Header,
        files: Vec<FileId>,
        credentials: Credentials,
        how: u64,
        flags: &mut u64,
    ) -> Result<u64, Errno> {
        let word = self.abi().word();
        let head = (word + 8).next_multiple_of(word);
        let room = if header.control == 0 {
            0
        } else {
            header.control_length
        };
        let mut used = 0u64;
        let passes = self
            .k
            .sockets
            .get(id)
            .and_then(|socket| socket.options.get(&(1, 16)))
            .is_some_and(|value| value.iter().any(|byte| *byte != 0));
        let level = self.level();
        if passes {
            if room >= head + 12 {
                let abi = self.abi().clone();
                let message = Layout::new(&abi).word(head + 12).u32(level).u32(CREDENTIALS);
                let message = message
                    .u32(credentials.pid)
                    .u32(credentials.uid)
                    .u32(credentials.gid);
                if let Err(errno) = self.write(header.control, &message.bytes) {
                    self.drop_files(files);
                    return Err(errno);
                }
                used = (head + 12).next_multiple_of(word).min(room);
            } else {
                *flags |= CONTROL_CUT;
            }
        }
        if files.is_empty() {
            return Ok(used);
        }
        let fits = usize::try_from(room.saturating_sub(used).saturating_sub(head) / 4).unwrap_or(0);
        let mut installed: Vec<u32> = Vec::new();
        let mut left = Vec::new();
        for file in files {
            let free = (installed.len() < fits)
                .then(|| self.process().files.free(0).ok())
                .flatten();
            match free {
                Some(fd) => {
                    let close_on_exec = how & CLOSE_ON_EXEC != 0;
                    self.process().files.set(fd, Descriptor { file, close_on_exec });
                    installed.push(fd);
                }
                None => left.push(file),
            }
        }
        if !left.is_empty() {
            *flags |= CONTROL_CUT;
            self.drop_files(left);
        }
        if installed.is_empty() {
            return Ok(used);
        }
        let length = head + 4 * installed.len() as u64;
        let abi = self.abi().clone();
        let mut message = Layout::new(&abi).word(length).u32(level).u32(RIGHTS);
        for fd in installed {
            message = message.u32(fd);
        }
        self.write(header.control.wrapping_add(used), &message.bytes)?;
        Ok((used + length.next_multiple_of(word)).min(room))
    }

    /// Several messages in one call: how many were moved before one could not be.
    fn messages(&mut self, wide: bool, sends: bool) -> Answer {
        let (list, count) = (self.word(1), (self.word(2) & 0xffff_ffff).min(MAX_MESSAGES));
        let word = self.abi().word();
        let size = (7 * word + 4).next_multiple_of(word);
        let how = self.word(3);
        if !sends && self.pending.progress == 0 && self.pending.messages == 0 {
            let wait = self.optional_time(self.word(4), wide)?;
            self.until(wait);
        }
        while self.pending.messages < count {
            let done = self.pending.messages;
            let at = list.checked_add(done * size).ok_or(Errno::EFAULT)?;
            let how = match how & WAIT_FOR_ONE != 0 && done > 0 {
                true => how | DO_NOT_WAIT,
                false => how,
            };
            let moved = match sends {
                true => self.send_message(at, how),
                false => self.receive_message(at, how),
            };
            match moved {
                Ok(moved) => {
                    self.pending.progress = 0;
                    self.put_u32(at.wrapping_add(7 * word), u32::try_from(moved).unwrap_or(0))?;
                }
                // What came before is told; what went wrong, by the next call.
                Err(Fail::Errno(_)) if done > 0 => return Ok(done),
                Err(Fail::Wait) if done > 0 && self.pending.is_cut => return Ok(done),
                Err(fail) => return Err(fail),
            }
            self.pending.messages += 1;
        }
        Ok(count)
    }
}

fn total(segments: &[Segment]) -> usize {
    let all: u64 = segments.iter().map(|(_, length)| *length).sum();
    usize::try_from(all.min(MAX_TRANSFER)).unwrap_or(0)
}

pub(crate) fn sendto(c: &mut Call<'_>) -> Answer {
    let id = c.socket(0)?;
    let how = c.message_flags(c.word(3))?;
    let segments = [(c.word(1), c.word(2).min(MAX_TRANSFER))];
    let to = c.destination(id, c.word(4), c.word(5) & 0xffff_ffff)?;
    c.send(id, Source::Memory(&segments), to, how, None)
}

pub(crate) fn send(c: &mut Call<'_>) -> Answer {
    let id = c.socket(0)?;
    let how = c.message_flags(c.word(3))?;
    let segments = [(c.word(1), c.word(2).min(MAX_TRANSFER))];
    c.send(id, Source::Memory(&segments), None, how, None)
}

pub(crate) fn sendmsg(c: &mut Call<'_>) -> Answer {
    c.send_message(c.word(1), c.word(2))
}

pub(crate) fn sendmmsg(c: &mut Call<'_>) -> Answer {
    c.messages(false, true)
}

fn receive_into(c: &mut Call<'_>, from: Option<(u64, u64)>) -> Answer {
    let id = c.socket(0)?;
    let how = c.message_flags(c.word(3))?;
    let segments = [(c.word(1), c.word(2).min(MAX_TRANSFER))];
    let family = c.k.sockets.get(id).ok_or(Errno::EBADF)?.family;
    let keeps_apart =
        c.k.sockets
            .get(id)
            .is_some_and(|socket| socket.kind != Kind::Stream);
    let (count, mut taken) = c.receive(id, &segments, how)?;
    let files = std::mem::take(&mut taken.files);
    c.drop_files(files);
    if let Some((at, length_at)) = from.filter(|(at, _)| *at != 0) {
        match taken.from.as_ref().filter(|_| keeps_apart) {
            Some(from) => c.put_address(family, Some(from), at, length_at)?,
            None => c.put_u32(length_at, 0)?,
        }
    }
    Ok(match how & CUT != 0 && keeps_apart {
        true => taken.whole as u64,
        false => count,
    })
}

pub(crate) fn recvfrom(c: &mut Call<'_>) -> Answer {
    let from = (c.word(4), c.word(5));
    receive_into(c, Some(from))
}

pub(crate) fn recv(c: &mut Call<'_>) -> Answer {
    receive_into(c, None)
}

pub(crate) fn recvmsg(c: &mut Call<'_>) -> Answer {
    c.receive_message(c.word(1), c.word(2))
}

pub(crate) fn recvmmsg(c: &mut Call<'_>) -> Answer {
    c.messages(false, false)
}

pub(crate) fn recvmmsg64(c: &mut Call<'_>) -> Answer {
    c.messages(true, false)
}
