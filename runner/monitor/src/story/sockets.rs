//! Sockets of a process: what they speak, and with whom.

use std::collections::BTreeMap;

use hotcell_schema::event::{ArgValue, Network, NetworkOp, Syscall};

use super::MOST;

/// A process's sockets, by descriptor.
#[derive(Debug, Clone, Default)]
pub(super) struct Sockets(BTreeMap<i32, Socket>);

/// A socket, as far as calls about it tell.
#[derive(Debug, Clone)]
struct Socket {
    protocol: &'static str,
    local: Option<String>,
    peer: Option<String>,
}

impl Sockets {
    /// What a call does whose first argument is `fd`.
    pub(super) fn tell(&mut self, op: NetworkOp, call: &Syscall, fd: i32) -> Network {
        let named = call.args.iter().find_map(|arg| match &arg.value {
            ArgValue::Socket(address) => Some(address.clone()),
            _ => None,
        });
        let new = || Socket {
            protocol: protocol(call),
            local: None,
            peer: None,
        };
        let mut socket = match op {
            NetworkOp::Socket => new(),
            _ => self.0.get(&fd).cloned().unwrap_or_else(new),
        };
        match op {
            NetworkOp::Bind => socket.local = named.or(socket.local),
            NetworkOp::Accept => socket.peer = named,
            // Whom it wanted to reach, whoever it reached before.
            _ => socket.peer = named.or(socket.peer),
        }
        let of = match op {
            NetworkOp::Socket | NetworkOp::Accept => call.result.and_then(|made| i32::try_from(made).ok()),
            NetworkOp::Connect | NetworkOp::Bind => Some(fd),
            _ => None,
        };
        let works = matches!(call.errno.as_deref(), None | Some("EINPROGRESS"));
        if let Some(of) = of.filter(|of| works && (self.0.contains_key(of) || self.0.len() < MOST)) {
            self.0.insert(of, socket.clone());
        }
        let bytes = call.result.and_then(|result| u64::try_from(result).ok());
        Network {
            op,
            protocol: socket.protocol.to_owned(),
            local: socket.local,
            peer: socket.peer,
            host: None,
            request: None,
            bytes: bytes.filter(|_| matches!(op, NetworkOp::Send | NetworkOp::Receive)),
            errno: call.errno.clone(),
        }
    }

    /// What went through a socket by a call that is for any file.
    pub(super) fn moved(&mut self, call: &Syscall, fd: i32) -> Option<Network> {
        let op = match call.name.as_str() {
            "read" | "readv" => NetworkOp::Receive,
            "write" | "writev" => NetworkOp::Send,
            _ => return None,
        };
        let is_one = call.errno.is_none() && self.0.contains_key(&fd);
        is_one.then(|| self.tell(op, call, fd))
    }

    /// A descriptor was made out of another.
    pub(super) fn copy(&mut self, from: i32, to: i32) {
        match self.0.get(&from).cloned() {
            Some(socket) => self.0.insert(to, socket),
            None => self.0.remove(&to),
        };
    }

    /// A descriptor is no socket any longer.
    pub(super) fn close(&mut self, fd: i32) {
        self.0.remove(&fd);
    }
}

/// What a socket speaks, by the arguments that made it.
fn protocol(call: &Syscall) -> &'static str {
    let name = |index: usize| match call.args.get(index).map(|arg| &arg.value) {
        Some(ArgValue::Name(name)) => name.as_str(),
        _ => "",
    };
    match (name(0), name(1)) {
        ("AF_INET" | "AF_INET6", "SOCK_STREAM") => "tcp",
        ("AF_INET" | "AF_INET6", "SOCK_DGRAM") => "udp",
        ("AF_INET" | "AF_INET6", _) => "raw",
        ("AF_UNIX", _) => "unix",
        ("AF_NETLINK", _) => "netlink",
        ("AF_PACKET", _) => "packet",
        _ => "unknown",
    }
}
