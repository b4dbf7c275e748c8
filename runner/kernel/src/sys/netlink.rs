//! Sockets of netlink.

use crate::abi::errno::Errno;
use crate::call::{Answer, Call};
use crate::net::netlink::Asker;
use crate::net::{Address, Kind, Packet, Sent, SocketId};
use crate::sys::socket::Asked;

impl Call<'_> {
    /// Gives a netlink socket a number if it has none, and says which.
    fn netlink_port(&mut self, id: SocketId) -> Result<u32, Errno> {
        let pid = self.pid;
        if self
            .k
            .sockets
            .get(id)
            .is_some_and(|socket| socket.local.is_none())
        {
            self.k.sockets.bind_netlink(id, pid, 0)?;
        }
        match self.k.sockets.get(id).and_then(|socket| socket.local.as_ref()) {
            Some(Address::Netlink { port, .. }) => Ok(*port),
            _ => Err(Errno::EINVAL),
        }
    }

    /// bind of a netlink socket: port 0 is any.
    pub(super) fn bind_netlink(&mut self, id: SocketId, port: u32, groups: u32) -> Result<(), Errno> {
        let pid = self.pid;
        let bound = self.k.sockets.get(id).and_then(|socket| socket.local.clone());
        match bound {
            None if port == 0 => self.k.sockets.bind_netlink(id, pid, groups),
            None => self.k.sockets.bind(id, Address::Netlink { port, groups }),
            // Only the groups may change.
            Some(Address::Netlink { port: there, .. }) if port == there || port == 0 => {
                if let Some(socket) = self.k.sockets.get_mut(id) {
                    socket.local = Some(Address::Netlink { port: there, groups });
                }
                Ok(())
            }
            Some(_) => Err(Errno::EINVAL),
        }
    }

    /// Sends messages to the kernel, which answers at once, or to another socket.
    pub(super) fn send_netlink(&mut self, id: SocketId, bytes: &[u8], to: Option<Asked>) -> Answer {
        let own = self.netlink_port(id)?;
        let socket = self.k.sockets.get(id).ok_or(Errno::EBADF)?;
        let (kind, peer) = (socket.kind, socket.peer.clone());
        let to = match to {
            Some(asked) => Some(self.led_to(asked)?),
            None => peer,
        };
        let credentials = self.credentials();
        let count = bytes.len() as u64;
        let (other, groups) = match to {
            Some(Address::Netlink { port, groups }) => (port, groups),
            _ => (0, 0),
        };
        if (other, groups) != (0, 0) {
            if groups != 0 && credentials.uid != 0 {
                return Err(Errno::EPERM.into());
            }
            let address = Address::Netlink {
                port: other,
                groups: 0,
            };
            let found = self.k.sockets.find(kind, &address, None).filter(|_| other != 0);
            let packet = Packet {
                bytes: bytes.to_vec(),
                from: Some(Address::Netlink { port: own, groups: 0 }),
                credentials,
                ..Packet::default()
            };
            let sent = found.map(|found| self.k.sockets.deliver(found, packet));
            self.k.wake += 1;
            return match sent {
                Some(Sent::Bytes(_)) => Ok(count),
                Some(Sent::Full) => Err(Errno::EAGAIN.into()),
                Some(Sent::Refused(errno)) => Err(errno.into()),
                // Nobody is in a group but the kernel.
                None if groups != 0 => Ok(count),
                None => Err(Errno::ECONNREFUSED.into()),
            };
        }
        let Kind::Raw(protocol) = kind else {
            return Err(Errno::EINVAL.into());
        };
        let asker = Asker {
            abi: self.k.abi_of(self.pending),
            links: self.k.sockets.links(),
            protocol,
            port: own,
            is_root: credentials.uid == 0,
        };
        for answer in asker.ask(bytes) {
            let packet = Packet {
                bytes: answer,
                from: Some(Address::Netlink { port: 0, groups: 0 }),
                ..Packet::default()
            };
            if !matches!(self.k.sockets.deliver(id, packet), Sent::Bytes(_)) {
                // The next call hears that something was lost (netlink_overrun).
                if let Some(socket) = self.k.sockets.get_mut(id) {
                    socket.error = Some(Errno::ENOBUFS);
                }
                break;
            }
        }
        self.k.wake += 1;
        Ok(count)
    }
}
