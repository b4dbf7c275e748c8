//! What lies beyond the machine: the simulated internet, whose far ends are sockets that no process holds.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use hotcell_internet::capture::{Capture, Way, guest_end};
use hotcell_internet::{Internet, Peer, Reply, Web};
use hotcell_schema::event::What;
use hotcell_schema::internet::{self as noun, InternetWith};
use serde::{Deserialize, Serialize};

use crate::abi::errno::Errno;
use crate::bytes::Bytes;
use crate::kernel::Kernel;
use crate::net::{Address, Packet, Sent, SocketId, State, Take};

/// Bytes that all far ends together may have to say, and how many there are.
const MAX_WAITING: usize = 128 << 20;
const MAX_REMOTES: usize = 4_096;

/// The internet as the job declares it.
pub struct World {
    /// Who is there.
    pub with: InternetWith,
    files: Files,
}

/// Files of web servers by `/host/path`.
struct Files(BTreeMap<String, Bytes>);

impl Web for Files {
    fn file(&self, host: &str, path: &str) -> Option<Vec<u8>> {
        let path = format!("/{host}{path}");
        let found = self
            .0
            .get(&path)
            .or_else(|| self.0.get(&format!("{path}index.html")));
        found.map(|bytes| bytes.to_vec())
    }

    fn knows(&self, host: &str) -> bool {
        let folder = format!("/{host}/");
        let mut from = self.0.range(folder.clone()..);
        from.next().is_some_and(|(path, _)| path.starts_with(&folder))
    }
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("World").finish_non_exhaustive()
    }
}

impl Web for World {
    fn file(&self, host: &str, path: &str) -> Option<Vec<u8>> {
        self.files.file(host, path)
    }

    fn knows(&self, host: &str) -> bool {
        self.files.knows(host)
    }
}

impl World {
    /// The internet of a job; `blob` gives the bytes of its blobs. The error says what is wrong.
    pub(crate) fn new<E>(
        internet: &noun::Internet,
        blob: impl Fn(hotcell_schema::job::Blob) -> Result<Bytes, E>,
    ) -> Result<Result<Self, String>, E> {
        let files = match &internet.web {
            None => Ok(BTreeMap::new()),
            Some(web) => crate::fs::sysroot::files(&blob(web.index)?, &blob(web.content)?),
        };
        Ok(files.map(|files| Self {
            with: internet.with.clone(),
            files: Files(files),
        }))
    }
}

/// What has happened out there.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Outside {
    internet: Internet,
    /// Far ends by their sockets.
    remotes: BTreeMap<SocketId, Remote>,
    pub(crate) capture: Capture,
}

/// A far end.
#[derive(Debug, Serialize, Deserialize)]
struct Remote {
    peer: Peer,
    /// The guest's socket.
    near: SocketId,
    /// Both ends as they stand on the wire.
    ends: (SocketAddr, SocketAddr),
    #[serde(with = "crate::state::raw")]
    outbox: Vec<u8>,
    /// How much of it was said.
    said: usize,
    /// It hangs up when all is said.
    closes: bool,
}

/// The address beyond the machine that an address means: of IPv4 also where it is written as one of IPv6.
pub(crate) fn beyond(address: &Address) -> Option<SocketAddr> {
    match address {
        Address::Inet(address) => Some(SocketAddr::new(address.ip().to_canonical(), address.port())),
        _ => None,
    }
}

impl Kernel {
    /// The internet of the job, for engines whose guests this kernel does not run.
    pub fn take_world(&mut self) -> Option<World> {
        self.world.take()
    }

    /// The name that an address was found by.
    pub(crate) fn host_of(&self, address: &Address) -> Option<String> {
        let with = &self.world.as_ref()?.with;
        let ip = beyond(address)?.ip();
        self.outside.internet.name_of(ip, with).map(str::to_owned)
    }

    pub(super) fn wire_time(&self) -> u64 {
        self.time.real().max(0).cast_unsigned()
    }

    /// The guest's end of a socket as it stands on the wire.
    fn near_end(&self, id: SocketId, to: SocketAddr) -> SocketAddr {
        let local = self.sockets.get(id).and_then(|socket| socket.local.as_ref());
        guest_end(local.and_then(beyond), to)
    }

    /// Connects a stream to a far end.
    pub(crate) fn call_outside(
        &mut self,
        id: SocketId,
        address: &Address,
        to: SocketAddr,
    ) -> Result<(), Errno> {
        let Some(world) = self.world.take() else {
            return Err(Errno::ENETUNREACH);
        };
        if self.outside.remotes.len() >= MAX_REMOTES {
            self.world = Some(world);
            return Err(Errno::ETIMEDOUT);
        }
        let called = self.sockets.make_far(address).map(|far| {
            self.sockets.join(id, far);
            if let Some(socket) = self.sockets.get_mut(id) {
                socket.peer = Some(address.clone());
            }
            let (peer, reply) = self.outside.internet.call(&world.with, to);
            let ends = (self.near_end(id, to), to);
            let time = self.wire_time();
            self.outside.capture.connected(time, ends.0, ends.1);
            let remote = Remote {
                peer,
                near: id,
                ends,
                outbox: reply.bytes,
                said: 0,
                closes: reply.closes,
            };
            self.outside.remotes.insert(far, remote);
            self.sockets.stir(far);
        });
        self.world = Some(world);
        called?;
        self.wake += 1;
        self.pump();
        Ok(())
    }

    /// Sends a datagram out; what comes back lies in the socket's inbox.
    pub(crate) fn send_outside(
        &mut self,
        id: SocketId,
        address: &Address,
        to: SocketAddr,
        bytes: &[u8],
    ) -> Result<(), Errno> {
        let Some(world) = self.world.take() else {
            return Err(Errno::ENETUNREACH);
        };
        let reply = self.outside.internet.datagram(&world.with, to, bytes);
        self.world = Some(world);
        let (near, time) = (self.near_end(id, to), self.wire_time());
        self.outside.capture.datagram(time, Way::Out, near, to, bytes);
        if let Some(reply) = reply {
            self.outside
                .capture
                .datagram(time, Way::In, near, to, &reply.bytes);
            self.tell_said(&reply, to);
            let packet = Packet {
                bytes: reply.bytes,
                from: Some(address.clone()),
                ..Packet::default()
            };
            self.sockets.deliver(id, packet);
            self.wake += 1;
        }
        self.show_wire();
        Ok(())
    }

    /// Lets far ends hear what was sent, and says what they have to say: those that something happened to.
    pub(crate) fn pump(&mut self) {
        if self.sockets.stirred.is_empty() {
            return;
        }
        let Some(world) = self.world.take() else { return };
        for far in std::mem::take(&mut self.sockets.stirred) {
            if let Some(mut remote) = self.outside.remotes.remove(&far)
                && self.serve(&world, far, &mut remote)
            {
                self.outside.remotes.insert(far, remote);
            }
        }
        self.world = Some(world);
        self.show_wire();
    }

    /// One far end; `false`: it is gone.
    fn serve(&mut self, world: &World, far: SocketId, remote: &mut Remote) -> bool {
        let (near_end, to) = remote.ends;
        let time = self.wire_time();
        let all = Take {
            most: usize::MAX,
            peek: false,
        };
        while let Some(taken) = self.sockets.take(far, all) {
            self.wake += 1;
            self.outside
                .capture
                .sent(time, Way::Out, near_end, to, &taken.bytes);
            if remote.closes {
                continue;
            }
            let internet = &mut self.outside.internet;
            let reply = internet.hear(&mut remote.peer, &world.with, &world.files, &taken.bytes);
            self.tell_said(&reply, to);
            remote.closes |= reply.closes;
            let waiting = self.waiting().saturating_add(remote.outbox.len());
            if waiting.saturating_add(reply.bytes.len()) <= MAX_WAITING {
                remote.outbox.extend(reply.bytes);
            } else {
                // A guest that asks and asks and does not listen is hung up on.
                remote.closes = true;
            }
        }
        loop {
            let rest = remote.outbox.get(remote.said..).unwrap_or_default();
            let room = self.sockets.room_of(remote.near);
            let bytes = rest.get(..room.min(rest.len())).unwrap_or_default().to_vec();
            if bytes.is_empty() {
                break;
            }
            let packet = Packet {
                bytes: bytes.clone(),
                ..Packet::default()
            };
            match self.sockets.deliver(remote.near, packet) {
                Sent::Bytes(count) => {
                    self.wake += 1;
                    remote.said += count;
                    let said = bytes.get(..count).unwrap_or_default();
                    self.outside.capture.sent(time, Way::In, near_end, to, said);
                }
                // The machine's buffers are full: later. Or the guest's end is gone: the state below says so.
                Sent::Full | Sent::Refused(_) => {
                    self.sockets.stir(far);
                    break;
                }
            }
        }
        if remote.said >= remote.outbox.len() {
            (remote.outbox, remote.said) = (Vec::new(), 0);
        }
        let alone = self
            .sockets
            .get(far)
            .is_none_or(|socket| matches!(socket.state, State::Disconnected));
        // Whoever hears that nothing more will come hangs up when all is said.
        let ended = self.sockets.get(remote.near).is_some_and(|near| near.shut[1]);
        let over = (remote.closes || ended) && remote.outbox.is_empty();
        if alone || over {
            let way = if alone { Way::Out } else { Way::In };
            self.outside.capture.ended(time, way, near_end, to);
            self.sockets.close(far);
            self.wake += 1;
        }
        !(alone || over)
    }

    /// Bytes that far ends have to say.
    fn waiting(&self) -> usize {
        let all = self.outside.remotes.values();
        all.map(|remote| remote.outbox.len()).sum()
    }

    fn tell_said(&mut self, reply: &Reply, to: SocketAddr) {
        let task = self.event_task(self.pid_of(self.current), self.current);
        for said in &reply.said {
            let event = said.event(to);
            self.later.push((task.clone(), What::Network(event)));
        }
    }
}
