//! What is told of the network.

use hotcell_schema::event::{ArgValue, Network, NetworkOp};

use crate::abi::errno::Errno;
use crate::abi::{Abi, flags};
use crate::fs::open::Target;
use crate::kernel::Kernel;
use crate::net::spoken::Spoken;
use crate::net::{Address, Socket};
use crate::task::Pending;

/// An event about a socket, as it stands.
pub(crate) fn socket_event(op: NetworkOp, socket: &Socket) -> Network {
    let shown = |address: &Option<Address>| address.as_ref().map(|address| Spoken::from(address).to_string());
    Network {
        op,
        protocol: socket.protocol().to_owned(),
        local: shown(&socket.local),
        peer: shown(&socket.peer),
        host: None,
        request: None,
        bytes: None,
        errno: None,
    }
}

impl Kernel {
    /// The network event of a call: what its socket says, and its arguments.
    pub(crate) fn network_event(
        &self,
        pid: u32,
        op: NetworkOp,
        pending: &Pending,
        result: Option<Result<u64, Errno>>,
    ) -> Network {
        let value = result.and_then(Result::ok);
        let of = |fd: u64| {
            let descriptor = self.processes.get(&pid)?.files.get(fd).ok()?;
            match self.open.get(descriptor.file)?.target {
                Target::Socket(id) => self.sockets.get(id),
                _ => None,
            }
        };
        // What was made or accepted is told of, not what it came from.
        let fd = match op {
            NetworkOp::Socket | NetworkOp::Accept => value,
            _ => pending.words.first().copied(),
        };
        let told = pending.args.iter().find_map(|arg| match &arg.value {
            ArgValue::Socket(address) => Some(address.clone()),
            _ => None,
        });
        let mut event = match fd.and_then(of) {
            Some(socket) => socket_event(op, socket),
            None => Network {
                op,
                protocol: asked_protocol(self.abi_of(pending), op, pending).to_owned(),
                local: None,
                peer: None,
                host: None,
                request: None,
                bytes: None,
                errno: None,
            },
        };
        match op {
            NetworkOp::Bind => event.local = event.local.or(told),
            // Whom it wanted to reach, whoever it reached before.
            _ => event.peer = told.or(event.peer),
        }
        let peer = fd.and_then(of).and_then(|socket| socket.peer.as_ref());
        event.host = peer.and_then(|peer| self.host_of(peer));
        event.bytes = value.filter(|_| matches!(op, NetworkOp::Send | NetworkOp::Receive));
        event.errno = result.and_then(Result::err).map(|errno| errno.name().to_owned());
        event
    }
}

/// What a call that made no socket asked for.
fn asked_protocol(abi: &Abi, op: NetworkOp, pending: &Pending) -> &'static str {
    if op != NetworkOp::Socket {
        return "unknown";
    }
    let [family, kind, ..] = pending.words;
    match (family, flags::socket_type(abi, kind)) {
        (1, _) => "unix",
        (16, _) => "netlink",
        (17, _) => "raw",
        (_, "SOCK_STREAM") => "tcp",
        (_, "SOCK_DGRAM") => "udp",
        (_, "SOCK_RAW" | "SOCK_PACKET") => "raw",
        _ => "unknown",
    }
}
