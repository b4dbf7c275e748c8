//! What open files are ready for, as poll, select and epoll say it.

use crate::call::Call;
use crate::fs::open::{FileId, Target};
use crate::kernel::Kernel;
use crate::net::{Family, Socket, State};

pub(super) const IN: u32 = 1;
pub(super) const OUT: u32 = 4;
pub(super) const ERROR: u32 = 8;
pub(super) const HANG_UP: u32 = 0x10;
pub(super) const INVALID: u32 = 0x20;
/// Half of a connection is gone (`EPOLLRDHUP`).
const HALF: u32 = 0x2000;

/// How an open file stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Ready {
    /// Events of poll.
    pub(super) events: u32,
    /// Counts what happened to it.
    pub(super) activity: u64,
    /// When it will be ready by itself.
    pub(super) at: Option<u64>,
}

impl Kernel {
    /// What an open file is ready for. `depth`: epolls that were passed on the way to it.
    pub(crate) fn readiness(&self, id: FileId, depth: u32) -> Ready {
        let Some(file) = self.open.get(id) else {
            return Ready {
                events: INVALID,
                ..Ready::default()
            };
        };
        let ready = |events, activity| Ready {
            events,
            activity,
            at: None,
        };
        match &file.target {
            Target::Fifo(pipe) => {
                let pipe = self.open.pipe_ref(*pipe);
                let Some(pipe) = pipe else {
                    return ready(OUT, 0);
                };
                let data = if pipe.buffer.is_empty() { 0 } else { IN };
                let room = if pipe.room() > 0 { OUT } else { 0 };
                ready(data | room, pipe.activity)
            }
            Target::PipeRead(pipe) => match self.open.pipe_ref(*pipe) {
                Some(pipe) => {
                    let data = if pipe.buffer.is_empty() { 0 } else { IN };
                    let gone = if pipe.writers == 0 && pipe.ever[1] > 0 {
                        HANG_UP
                    } else {
                        0
                    };
                    ready(data | gone, pipe.activity)
                }
                None => ready(HANG_UP, 0),
            },
            Target::PipeWrite(pipe) => match self.open.pipe_ref(*pipe) {
                Some(pipe) if pipe.readers == 0 => ready(OUT | ERROR, pipe.activity),
                Some(pipe) if pipe.room() > 0 => ready(OUT, pipe.activity),
                Some(pipe) => ready(0, pipe.activity),
                None => ready(ERROR, 0),
            },
            Target::Socket(id) => match self.sockets.get(*id) {
                Some(socket) => ready(self.socket_ready(socket), socket.activity),
                None => ready(HANG_UP, 0),
            },
            Target::Event { count, activity, .. } => {
                let data = if *count > 0 { IN } else { 0 };
                let room = if *count < u64::MAX - 1 { OUT } else { 0 };
                ready(data | room, *activity)
            }
            Target::Timer(timer) => {
                let (expired, activity, at) = timer.stands(self.time.now);
                let events = if expired { IN } else { 0 };
                Ready { events, activity, at }
            }
            Target::Inotify(id) => {
                let (any, activity) = self.open.watches.has_news(*id);
                ready(if any { IN } else { 0 }, activity)
            }
            // What came to whoever asks.
            Target::Signals(set) => match self.arrived(self.current) & *set {
                0 => ready(0, self.wake),
                _ => ready(IN, self.wake),
            },
            Target::Process(pid) => {
                let over = self
                    .processes
                    .get(pid)
                    .is_none_or(|process| process.ended.is_some());
                ready(if over { IN } else { 0 }, u64::from(over))
            }
            Target::Epoll(epoll) => {
                let (any, at) = self.epoll_ready(epoll, depth);
                let events = if any { IN } else { 0 };
                Ready {
                    events,
                    activity: self.wake,
                    at,
                }
            }
            _ => ready(IN | OUT, 0),
        }
    }

    fn socket_ready(&self, socket: &Socket) -> u32 {
        let mut events = 0;
        if socket.has_packets() || socket.error.is_some() {
            events |= IN;
        }
        if socket.error.is_some() {
            events |= ERROR;
        }
        match &socket.state {
            State::Listening { queue, .. } => return if queue.is_empty() { 0 } else { IN },
            State::Idle if !socket.kind.connects() => events |= OUT,
            State::Idle => events |= OUT | HANG_UP,
            State::Disconnected => {
                events |= IN | OUT | HALF;
                // TCP: only when both directions are (tcp_poll).
                if socket.family == Family::Unix || socket.shut[1] {
                    events |= HANG_UP;
                }
            }
            State::Connected(other) => {
                let facts = self.sockets.get(*other);
                let over = facts.is_none_or(|other| other.shut[1]) || socket.shut[0];
                if over {
                    events |= IN | HALF;
                }
                if over && socket.shut[1] {
                    events |= HANG_UP;
                }
                if self.sockets.has_room(*other) || socket.shut[1] {
                    events |= OUT;
                }
            }
        }
        events
    }
}

impl Call<'_> {
    /// What a descriptor is ready for.
    pub(super) fn ready(&mut self, fd: u64) -> Ready {
        match self.process().files.get(fd) {
            Ok(descriptor) => self.k.readiness(descriptor.file, 0),
            Err(_) => Ready {
                events: INVALID,
                ..Ready::default()
            },
        }
    }
}
