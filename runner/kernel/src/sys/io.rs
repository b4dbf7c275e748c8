//! Reading and writing open files.

use crate::abi::errno::Errno;
use crate::abi::flags::open;
use crate::abi::siginfo::code;
use crate::abi::signal::Sig;
use crate::call::{Answer, Call, Fail, MAX_TRANSFER};
use crate::fs::open::{FileId, PIPE_BUF, PipeId, Target};
use crate::fs::tree::Device;
use crate::fs::watch::what;
use crate::reach::{Segment, Transfer, Way};
use hotcell_schema::event::MemoryBy;

/// Most segments of a vector (UIO_MAXIOV).
const MAX_SEGMENTS: u64 = 1024;

/// Bytes that go into a stream at a time.
const PART: u64 = 1 << 20;

/// What a call writes.
#[derive(Clone, Copy)]
pub(super) enum Source<'a> {
    /// Memory of the guest.
    Memory(&'a [Segment]),
    /// Part of a file, that is there.
    File { id: FileId, offset: u64, length: u64 },
}

impl Source<'_> {
    pub(super) fn length(&self) -> u64 {
        match self {
            Self::Memory(segments) => segments.iter().map(|(_, length)| *length).sum(),
            Self::File { length, .. } => *length,
        }
    }
}

/// Where bytes go that are taken as there is room: how much there is, and how they are put there (how many found room).
pub(super) struct Stream<R, P> {
    pub(super) room: R,
    pub(super) put: P,
}

/// So many bytes of segments, from one on.
pub(super) fn cut(segments: &[Segment], from: u64, most: u64) -> Vec<Segment> {
    let (mut skip, mut room) = (from, most);
    let mut part = Vec::new();
    for (address, length) in segments {
        let skipped = skip.min(*length);
        let size = (length - skipped).min(room);
        skip -= skipped;
        room -= size;
        if size > 0 {
            part.push((address.wrapping_add(skipped), size));
        }
    }
    part
}

impl Call<'_> {
    pub(super) fn vector(&self, address: u64, count: u64) -> Result<Vec<Segment>, Errno> {
        if count > MAX_SEGMENTS {
            return Err(Errno::EINVAL);
        }
        let word = self.abi().word();
        let mut room = MAX_TRANSFER;
        let mut segments = Vec::new();
        for index in 0..count {
            let at = address.checked_add(index * 2 * word).ok_or(Errno::EFAULT)?;
            let base = self.get_word(at)?;
            let length = self.get_word(at.checked_add(word).ok_or(Errno::EFAULT)?)?;
            if self.abi().signed(length) < 0 {
                return Err(Errno::EINVAL);
            }
            let length = length.min(room);
            room -= length;
            segments.push((base, length));
        }
        Ok(segments)
    }

    /// The bytes that a call writes.
    pub(super) fn gather(&mut self, segments: &[Segment]) -> Result<Vec<u8>, Errno> {
        let bytes = match segments {
            [(address, length)] => self.bytes(*address, *length)?,
            _ => {
                let mut all = Vec::new();
                for (address, length) in segments {
                    all.extend(self.bytes(*address, *length)?);
                }
                all
            }
        };
        self.k.made.strings.bytes(self.pending.row.name, &bytes);
        Ok(bytes)
    }

    /// Part of what a call writes.
    pub(super) fn part(&mut self, source: Source<'_>, from: u64, most: u64) -> Result<Vec<u8>, Errno> {
        match source {
            Source::Memory(segments) => self.gather(&cut(segments, from, most)),
            Source::File { id, offset, length } => {
                let file = self.k.open.get(id).ok_or(Errno::EBADF)?;
                let bytes = match &file.target {
                    Target::File(ino) => self.k.tree.bytes(*ino).unwrap_or_default(),
                    Target::Text(_, text) => text,
                    _ => return Err(Errno::EINVAL),
                };
                let start = usize::try_from(offset.saturating_add(from)).unwrap_or(usize::MAX);
                let size = usize::try_from(most.min(length.saturating_sub(from))).unwrap_or(usize::MAX);
                let rest = bytes.get(start..).unwrap_or_default();
                Ok(rest.get(..size.min(rest.len())).unwrap_or_default().to_vec())
            }
        }
    }

    /// Gives bytes to the guest; how many.
    pub(crate) fn scatter(&mut self, segments: &[Segment], bytes: &[u8]) -> Result<u64, Errno> {
        let mut rest = bytes;
        for (address, length) in segments {
            let size = rest.len().min(usize::try_from(*length).unwrap_or(usize::MAX));
            let (part, more) = rest.split_at(size);
            self.write(*address, part)?;
            rest = more;
        }
        Ok((bytes.len() - rest.len()) as u64)
    }

    fn read_from(&mut self, id: FileId, segments: &[Segment], at: Option<u64>) -> Answer {
        let count = self.read_some(id, segments, at)?;
        if count > 0 {
            self.k.notice_file(what::ACCESS, id);
        }
        Ok(count)
    }

    fn read_some(&mut self, id: FileId, segments: &[Segment], at: Option<u64>) -> Answer {
        let wanted = segments
            .iter()
            .map(|(_, length)| *length)
            .sum::<u64>()
            .min(MAX_TRANSFER);
        let file = self.k.open.get(id).ok_or(Errno::EBADF)?;
        if file.flags & open::ACCESS == open::WRITE_ONLY {
            return Err(Errno::EBADF.into());
        }
        if let Target::File(ino) = file.target {
            self.settle(ino)?;
        }
        let file = self.k.open.get(id).ok_or(Errno::EBADF)?;
        let offset = at.unwrap_or(file.offset);
        let nonblocking = file.flags & open::NONBLOCK != 0;
        let slice = |bytes: &[u8]| -> Vec<u8> {
            let start = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
            let size = usize::try_from(wanted)
                .unwrap_or(usize::MAX)
                .min(bytes.len() - start);
            bytes.get(start..start + size).unwrap_or_default().to_vec()
        };
        let bytes = match &file.target {
            Target::File(ino) => slice(self.k.tree.bytes(*ino).ok_or(Errno::EIO)?),
            Target::Text(_, text) => slice(text),
            Target::Memory(_, pid) => {
                return Err(self.reach_file(id, *pid, offset, Way::Read(segments.to_vec()), at));
            }
            Target::Input(_) if at.is_some() => return Err(Errno::ESPIPE.into()),
            Target::Input(input) => slice(input),
            Target::Directory(..) => return Err(Errno::EISDIR.into()),
            Target::Path(_) | Target::Output { .. } | Target::PipeWrite(_) => return Err(Errno::EBADF.into()),
            Target::Device(_, device) => match device {
                Device::Null | Device::Tty | Device::Console | Device::Kmsg => Vec::new(),
                Device::Zero | Device::Full => vec![0; usize::try_from(wanted).unwrap_or(0)],
                Device::Random | Device::Urandom => {
                    let mut bytes = vec![0; usize::try_from(wanted).unwrap_or(0)];
                    self.k.chance.guest.fill(&mut bytes);
                    bytes
                }
            },
            Target::PipeRead(_)
            | Target::Fifo(_)
            | Target::Socket(_)
            | Target::Event { .. }
            | Target::Timer(_)
            | Target::Inotify(_)
            | Target::Signals(_)
                if at.is_some() =>
            {
                return Err(Errno::ESPIPE.into());
            }
            Target::Socket(socket) => {
                let socket = *socket;
                return self.read_socket(socket, segments, nonblocking);
            }
            Target::Event { .. } => self.read_event(id, wanted, nonblocking)?,
            Target::Timer(_) => self.read_timer(id, wanted, nonblocking)?,
            Target::Inotify(watcher) => {
                let watcher = *watcher;
                self.read_watcher(watcher, wanted, nonblocking)?
            }
            Target::Signals(set) => {
                let set = *set;
                self.read_signals(set, wanted, nonblocking)?
            }
            Target::Epoll(_) | Target::Process(_) => return Err(Errno::EINVAL.into()),
            Target::PipeRead(pipe) | Target::Fifo(pipe) => {
                let pipe = *pipe;
                let pipe = self.k.open.pipe(pipe).ok_or(Errno::EBADF)?;
                if wanted == 0 {
                    return Ok(0);
                }
                if pipe.buffer.is_empty() {
                    if pipe.writers == 0 {
                        return Ok(0);
                    }
                    return if nonblocking {
                        Err(Errno::EAGAIN.into())
                    } else {
                        Err(Fail::Wait)
                    };
                }
                let size = pipe
                    .buffer
                    .len()
                    .min(usize::try_from(wanted).unwrap_or(usize::MAX));
                let bytes = pipe.buffer.drain(..size).collect();
                pipe.activity += 1;
                self.k.wake += 1;
                bytes
            }
        };
        let count = self.scatter(segments, &bytes)?;
        if at.is_none()
            && let Some(file) = self.k.open.get_mut(id)
        {
            file.offset = file.offset.saturating_add(count);
        }
        Ok(count)
    }

    fn write_to(&mut self, id: FileId, source: Source<'_>, at: Option<u64>) -> Answer {
        let count = self.write_some(id, source, at)?;
        if count > 0 {
            self.k.notice_file(what::MODIFY, id);
        }
        Ok(count)
    }

    fn write_some(&mut self, id: FileId, source: Source<'_>, at: Option<u64>) -> Answer {
        let file = self.k.open.get(id).ok_or(Errno::EBADF)?;
        if file.flags & open::ACCESS == 0 {
            return Err(Errno::EBADF.into());
        }
        let append = file.flags & open::APPEND != 0;
        let nonblocking = file.flags & open::NONBLOCK != 0;
        let offset = at.unwrap_or(file.offset);
        let count = source.length();
        match file.target {
            Target::File(ino) => {
                let size = self.k.tree.bytes(ino).map_or(0, |bytes| bytes.len() as u64);
                let start = if append { size } else { offset };
                let count = self.within_file_size(start, count)?;
                let bytes = self.part(source, 0, count)?;
                if count > 0 {
                    self.settle(ino)?;
                    let result = self.k.tree.write(ino, start, &bytes);
                    self.stored(result)?;
                    self.write_through(ino, start, &bytes);
                }
                if let Some(file) = self.k.open.get_mut(id) {
                    file.written = Some(file.written.unwrap_or(0).saturating_add(count));
                    if at.is_none() {
                        file.offset = start.saturating_add(count);
                    }
                }
                Ok(count)
            }
            Target::Output { error } => {
                let bytes = self.part(source, 0, count)?;
                let room = self.k.tree.room;
                if count > room {
                    let limit = self.k.limits.file_bytes;
                    self.k.limit("file-bytes", limit);
                    return Err(Fail::End);
                }
                self.k.tree.room = room - count;
                let output = if error {
                    &mut self.k.stderr
                } else {
                    &mut self.k.stdout
                };
                output.extend_from_slice(&bytes);
                Ok(count)
            }
            Target::Device(_, Device::Full) if count > 0 => Err(Errno::ENOSPC.into()),
            Target::Device(..) => {
                self.part(source, 0, count)?;
                Ok(count)
            }
            Target::PipeWrite(_) | Target::Fifo(_) | Target::Socket(_) | Target::Event { .. }
                if at.is_some() =>
            {
                Err(Errno::ESPIPE.into())
            }
            Target::PipeWrite(pipe) | Target::Fifo(pipe) => self.write_pipe(pipe, source, nonblocking),
            Target::Socket(socket) => self.write_socket(socket, source, nonblocking),
            Target::Event { .. } => {
                let bytes = self.part(source, 0, count.min(8))?;
                self.write_event(id, &bytes, nonblocking)
            }
            Target::Epoll(_) | Target::Timer(_) | Target::Signals(_) | Target::Process(_) => {
                Err(Errno::EINVAL.into())
            }
            Target::Inotify(_) => Err(Errno::EBADF.into()),
            Target::Text(..) => Err(Errno::EACCES.into()),
            Target::Memory(_, pid) => {
                let bytes = self.part(source, 0, count)?;
                Err(self.reach_file(id, pid, offset, Way::Write(bytes), at))
            }
            Target::Path(_) | Target::Directory(..) | Target::Input(_) | Target::PipeRead(_) => {
                Err(Errno::EBADF.into())
            }
        }
    }

    fn write_pipe(&mut self, id: PipeId, source: Source<'_>, nonblocking: bool) -> Answer {
        if source.length() == 0 {
            return Ok(0);
        }
        // Few bytes are written at once or not at all.
        let least =
            usize::try_from(source.length()).map_or(1, |count| if count <= PIPE_BUF { count } else { 1 });
        let stream = Stream {
            room: |c: &mut Self| {
                let Some(pipe) = c.k.open.pipe_ref(id) else {
                    return Err(Errno::EBADF.into());
                };
                match pipe.readers {
                    0 => c.broken_pipe().map(|_| 0),
                    _ => Ok(Some(pipe.room()).filter(|room| *room >= least).unwrap_or(0)),
                }
            },
            put: |c: &mut Self, bytes: Vec<u8>| {
                let count = bytes.len();
                if let Some(pipe) = c.k.open.pipe(id).filter(|_| count > 0) {
                    pipe.buffer.extend(bytes);
                    pipe.activity += 1;
                    c.k.wake += 1;
                }
                Ok(count)
            },
        };
        self.write_stream(source, stream, |c, done| match nonblocking {
            true if done > 0 => Ok(done),
            true => Err(Errno::EAGAIN.into()),
            false => c.or_wait(done),
        })
    }

    /// Waits, unless the call is to say what it has done.
    pub(super) fn or_wait(&self, done: u64) -> Answer {
        match self.pending.is_cut && done > 0 {
            true => Ok(done),
            false => Err(Fail::Wait),
        }
    }

    /// Writes into a stream as far as there is room, and goes on where the call stopped when it waited. `full` says what to do
    /// where there is none, with what was moved so far.
    pub(super) fn write_stream(
        &mut self,
        source: Source<'_>,
        mut stream: Stream<
            impl FnMut(&mut Self) -> Result<usize, Fail>,
            impl FnMut(&mut Self, Vec<u8>) -> Result<usize, Fail>,
        >,
        full: impl FnOnce(&mut Self, u64) -> Answer,
    ) -> Answer {
        let count = source.length();
        loop {
            let done = self.pending.progress;
            let moved = (stream.room)(self).and_then(|room| {
                let part = self.part(source, done, (room as u64).min(PART))?;
                (stream.put)(self, part)
            });
            match moved {
                // What was moved before something went wrong is told, and that by the next call.
                Err(Fail::Errno(_)) if done > 0 => return Ok(done),
                Err(fail) => return Err(fail),
                Ok(moved) => self.pending.progress = done.saturating_add(moved as u64),
            }
            if self.pending.progress >= count {
                return Ok(count);
            }
            if self.pending.progress == done {
                return full(self, done);
            }
        }
    }

    /// `/proc/PID/mem`: the position is the address.
    fn reach_file(&self, id: FileId, pid: u32, address: u64, way: Way, at: Option<u64>) -> Fail {
        let length = match &way {
            Way::Read(segments) => segments.iter().map(|(_, length)| *length).sum::<u64>(),
            Way::Write(bytes) => bytes.len() as u64,
        };
        self.reach_memory(Transfer {
            pid,
            there: vec![(address, length.min(MAX_TRANSFER))],
            way,
            by: MemoryBy::ProcMem,
            file: at.is_none().then_some(id),
        })
    }

    pub(super) fn broken_pipe(&mut self) -> Answer {
        let (pid, tid) = (self.pid, self.tid);
        self.k.tell_signal((pid, tid), pid, Sig::PIPE);
        let info = self.own_info(code::USER);
        self.k.post_told(pid, Some(tid), Sig::PIPE, info);
        Err(Errno::EPIPE.into())
    }

    /// A position given by the guest.
    fn position(&self, index: usize) -> Result<u64, Errno> {
        let offset = self.word(index);
        if offset.cast_signed() < 0 {
            Err(Errno::EINVAL)
        } else {
            Ok(offset)
        }
    }

    /// A position given as two words, the low one first (preadv, pwritev).
    fn split_position(&self, low: usize) -> Result<u64, Errno> {
        let position = if self.abi().wide {
            self.word(low)
        } else {
            self.word(low) | self.word(low + 1) << 32
        };
        if position.cast_signed() < 0 {
            Err(Errno::EINVAL)
        } else {
            Ok(position)
        }
    }
}

pub(crate) fn read(c: &mut Call<'_>) -> Answer {
    let id = c.file_id(0)?;
    c.read_from(id, &[(c.word(1), c.word(2).min(MAX_TRANSFER))], None)
}

pub(crate) fn write(c: &mut Call<'_>) -> Answer {
    let id = c.file_id(0)?;
    let segments = [(c.word(1), c.word(2).min(MAX_TRANSFER))];
    c.write_to(id, Source::Memory(&segments), None)
}

pub(crate) fn readv(c: &mut Call<'_>) -> Answer {
    let id = c.file_id(0)?;
    let segments = c.vector(c.word(1), c.word(2))?;
    c.read_from(id, &segments, None)
}

pub(crate) fn writev(c: &mut Call<'_>) -> Answer {
    let id = c.file_id(0)?;
    let segments = c.vector(c.word(1), c.word(2))?;
    c.write_to(id, Source::Memory(&segments), None)
}

pub(crate) fn pread(c: &mut Call<'_>) -> Answer {
    let id = c.file_id(0)?;
    let at = c.position(3)?;
    c.read_from(id, &[(c.word(1), c.word(2).min(MAX_TRANSFER))], Some(at))
}

pub(crate) fn pwrite(c: &mut Call<'_>) -> Answer {
    let id = c.file_id(0)?;
    let at = c.position(3)?;
    let segments = [(c.word(1), c.word(2).min(MAX_TRANSFER))];
    c.write_to(id, Source::Memory(&segments), Some(at))
}

pub(crate) fn preadv(c: &mut Call<'_>) -> Answer {
    let id = c.file_id(0)?;
    let segments = c.vector(c.word(1), c.word(2))?;
    let at = c.split_position(3)?;
    c.read_from(id, &segments, Some(at))
}

pub(crate) fn pwritev(c: &mut Call<'_>) -> Answer {
    let id = c.file_id(0)?;
    let segments = c.vector(c.word(1), c.word(2))?;
    let at = c.split_position(3)?;
    c.write_to(id, Source::Memory(&segments), Some(at))
}

/// Moves bytes from one file to another: sendfile and copy_file_range.
fn transfer(
    c: &mut Call<'_>,
    out: FileId,
    input: FileId,
    from: Option<u64>,
    to: Option<u64>,
    count: u64,
) -> Answer {
    let count = count.min(MAX_TRANSFER);
    if let Some(Target::File(ino)) = c.k.open.get(input).map(|file| &file.target) {
        let ino = *ino;
        c.settle(ino)?;
    }
    let file = c.k.open.get(input).ok_or(Errno::EBADF)?;
    let offset = from.unwrap_or(file.offset);
    let all = match &file.target {
        Target::File(ino) => c.k.tree.bytes(*ino).map_or(0, <[u8]>::len),
        Target::Text(_, text) => text.len(),
        _ => return Err(Errno::EINVAL.into()),
    };
    let source = Source::File {
        id: input,
        offset,
        length: count.min((all as u64).saturating_sub(offset)),
    };
    let written = c.write_to(out, source, to)?;
    c.k.notice_file(what::ACCESS, input);
    if from.is_none()
        && let Some(file) = c.k.open.get_mut(input)
    {
        file.offset = file.offset.saturating_add(written);
    }
    Ok(written)
}

fn send(c: &mut Call<'_>, wide: bool) -> Answer {
    let (out, input) = (c.file_id(0)?, c.file_id(1)?);
    let pointer = c.word(2);
    let from = match (pointer, wide) {
        (0, _) => None,
        (at, true) => Some(c.get_u64(at)?),
        (at, false) => Some(c.get_word(at)?),
    };
    let count = transfer(c, out, input, from, None, c.word(3))?;
    if let Some(from) = from {
        let to = from.saturating_add(count);
        if wide {
            c.put_u64(pointer, to)?;
        } else {
            c.put_word(pointer, to)?;
        }
    }
    Ok(count)
}

pub(crate) fn sendfile(c: &mut Call<'_>) -> Answer {
    send(c, false)
}

pub(crate) fn sendfile64(c: &mut Call<'_>) -> Answer {
    send(c, true)
}

pub(crate) fn copy_file_range(c: &mut Call<'_>) -> Answer {
    let (input, out) = (c.file_id(0)?, c.file_id(2)?);
    let mut positions = [None; 2];
    for (place, index) in positions.iter_mut().zip([1, 3]) {
        if c.word(index) != 0 {
            *place = Some(c.get_u64(c.word(index))?);
        }
    }
    let [from, to] = positions;
    let count = transfer(c, out, input, from, to, c.word(4))?;
    for (place, index) in positions.into_iter().zip([1, 3]) {
        if let Some(position) = place {
            c.put_u64(c.word(index), position.saturating_add(count))?;
        }
    }
    Ok(count)
}
