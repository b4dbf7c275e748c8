//! Sockets. There is no network yet: every call is refused, and what was tried is told.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV6};

use hotcell_schema::event::{Network, NetworkOp};
use hotcell_schema::guest::text;

use crate::abi::flags;
use crate::call::Call;

impl Call<'_> {
    /// A socket address as text. The family is in the guest's byte order, port and address in the network's.
    pub(crate) fn socket_address(&self, address: u64, length: u64) -> Option<String> {
        let bytes = self.bytes(address, length.min(128)).ok()?;
        let family = self.abi().get_u16(*bytes.first_chunk()?);
        match family {
            1 => {
                let path = bytes.get(2..)?;
                // An abstract name starts with a zero byte.
                let abstract_name = path.first() == Some(&0);
                let name = if abstract_name {
                    path.get(1..)?
                } else {
                    path.split(|byte| *byte == 0).next()?
                };
                Some(format!(
                    "unix:{}{}",
                    if abstract_name { "@" } else { "" },
                    text(name)
                ))
            }
            2 => {
                let port = u16::from_be_bytes(*bytes.get(2..)?.first_chunk()?);
                let host = Ipv4Addr::from(*bytes.get(4..)?.first_chunk::<4>()?);
                Some(format!("{host}:{port}"))
            }
            10 => {
                let port = u16::from_be_bytes(*bytes.get(2..)?.first_chunk()?);
                let host = Ipv6Addr::from(*bytes.get(8..)?.first_chunk::<16>()?);
                Some(SocketAddrV6::new(host, port, 0, 0).to_string())
            }
            16 => {
                Some("netlink:".to_owned() + &self.abi().get_u32(*bytes.get(4..)?.first_chunk()?).to_string())
            }
            other => Some(format!("family-{other}:")),
        }
    }
}

/// The network event of a refused call, from the arguments shown in its syscall event.
pub(crate) fn network_event(
    abi: &crate::abi::Abi,
    op: NetworkOp,
    pending: &crate::task::Pending,
    errno: Option<crate::abi::errno::Errno>,
) -> Network {
    let protocol = match op {
        NetworkOp::Socket => {
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
        _ => "unknown",
    };
    let address = pending.args.iter().find_map(|arg| match &arg.value {
        hotcell_schema::event::ArgValue::Socket(address) => Some(address.clone()),
        _ => None,
    });
    let is_local = op == NetworkOp::Bind;
    Network {
        op,
        protocol: protocol.to_owned(),
        local: address.clone().filter(|_| is_local),
        peer: address.filter(|_| !is_local),
        host: None,
        bytes: None,
        errno: errno.map(|errno| errno.name().to_owned()),
    }
}
