//! `/proc/net`: interfaces, routes, neighbours and sockets as text (`proc(5)`; net/ipv4/tcp_ipv4.c and its neighbours).

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

use hotcell_schema::guest::text;

use crate::fs::proc::NetFile;
use crate::kernel::Kernel;
use crate::net::interfaces::card_text;
use crate::net::{Address, Family, Kind, Socket, State};

/// What a socket's inode is counted from, as stat says it.
pub(crate) const FIRST_INODE: u64 = 5000;

const DEVICES: &str = "Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
";
const ROUTES: &str = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT";
const NEIGHBOURS: &str = "IP address       HW type     Flags       HW address            Mask     Device\n";
const STREAMS: &str =
    "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode";
const STREAMS6: &str = "  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n";
const DATAGRAMS: &str = "   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops";
const DATAGRAMS6: &str = "  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n";
/// Sockets that one file tells of.
const MAX_LINES: usize = 1024;
/// Characters of a line of tcp and udp without the line's end.
const LINE: usize = 149;
const DATAGRAM_LINE: usize = 127;

impl Kernel {
    /// What a file of `/proc/net` holds now.
    pub(crate) fn net_content(&self, file: NetFile) -> String {
        match file {
            NetFile::Devices => self.net_devices(),
            NetFile::Routes => self.net_routes(),
            NetFile::Neighbours => self.net_neighbours(),
            NetFile::AddressesV6 => self.net_addresses_v6(),
            NetFile::RoutesV6 => self.net_routes_v6(),
            NetFile::Tcp => self.net_sockets(format!("{STREAMS:<LINE$}\n"), Family::Inet, &[Kind::Stream]),
            NetFile::Tcp6 => self.net_sockets(STREAMS6.to_owned(), Family::Inet6, &[Kind::Stream]),
            NetFile::Udp => self.net_sockets(
                format!("{DATAGRAMS:<DATAGRAM_LINE$}\n"),
                Family::Inet,
                &[Kind::Datagram],
            ),
            NetFile::Udp6 => self.net_sockets(DATAGRAMS6.to_owned(), Family::Inet6, &[Kind::Datagram]),
            NetFile::Raw => {
                let kinds: Vec<Kind> = (0..=255).map(Kind::Raw).collect();
                self.net_sockets(format!("{DATAGRAMS:<DATAGRAM_LINE$}\n"), Family::Inet, &kinds)
            }
            NetFile::Unix => self.net_unix(),
            NetFile::Netlink => self.net_netlink(),
            NetFile::Packet => self.net_packet(),
        }
    }

    fn net_devices(&self) -> String {
        let mut all = DEVICES.to_owned();
        for one in self.sockets.links().interfaces() {
            let [received, packets, sent, sent_packets] = one.moved;
            let _ = writeln!(
                all,
                "{:>6}: {received:>7} {packets:>7}    0    0    0     0          0         0 {sent:>8} {sent_packets:>7}    0    0    0     0       0          0",
                one.name
            );
        }
        all
    }

    /// An address of IPv4 as a number that was written where it lies.
    fn word_of(&self, ip: std::net::Ipv4Addr) -> u32 {
        match self.abi.big {
            true => u32::from_be_bytes(ip.octets()),
            false => u32::from_le_bytes(ip.octets()),
        }
    }

    fn net_routes(&self) -> String {
        let mut all = format!("{ROUTES:<127}\n");
        for route in self.sockets.links().routes() {
            // RTF_UP, and RTF_GATEWAY.
            let flags = if route.gateway.is_some() { 3 } else { 1 };
            let mask = crate::net::interfaces::mask(route.prefix);
            let line = format!(
                "{}\t{:08X}\t{:08X}\t{flags:04X}\t0\t0\t0\t{:08X}\t0\t0\t0",
                route.interface.name,
                self.word_of(route.to),
                route.gateway.map_or(0, |gateway| self.word_of(gateway)),
                self.word_of(mask),
            );
            let _ = writeln!(all, "{line:<127}");
        }
        all
    }

    fn net_addresses_v6(&self) -> String {
        let mut all = String::new();
        for one in self.sockets.links().interfaces() {
            for (address, prefix, scope) in one.v6 {
                let _ = writeln!(
                    all,
                    "{:032x} {:02x} {prefix:02x} {:02x} 80 {:>8}",
                    address.to_bits(),
                    one.index,
                    scope.bits(),
                    one.name
                );
            }
        }
        all
    }

    fn net_routes_v6(&self) -> String {
        let mut all = String::new();
        for one in self.sockets.links().routes_v6() {
            // RTF_UP, and RTF_GATEWAY.
            let flags = if one.gateway.is_some() { 3 } else { 1 };
            let _ = writeln!(
                all,
                "{:032x} {:02x} {:032x} 00 {:032x} {:08x} 00000001 00000000 {flags:08x} {:>8}",
                one.to.to_bits(),
                one.prefix,
                0,
                one.gateway.map_or(0, std::net::Ipv6Addr::to_bits),
                one.metric,
                one.interface.name
            );
        }
        all
    }

    fn net_neighbours(&self) -> String {
        let mut all = NEIGHBOURS.to_owned();
        for one in self.sockets.links().neighbours() {
            let _ = writeln!(
                all,
                "{:<16} 0x{:<10x}0x{:<10x}{:<17}     *        {}",
                one.address.to_string(),
                1,
                2,
                card_text(one.card),
                one.interface.name
            );
        }
        all
    }

    /// An end as these files have it.
    fn end_text(&self, family: Family, address: Option<&Address>) -> String {
        let (ip, port) = match address {
            Some(Address::Inet(address)) => (Some(address.ip()), address.port()),
            _ => (None, 0),
        };
        match (family, ip) {
            (Family::Inet6, ip) => {
                let octets = match ip {
                    Some(IpAddr::V6(ip)) => ip.octets(),
                    Some(IpAddr::V4(ip)) => ip.to_ipv6_mapped().octets(),
                    None => [0; 16],
                };
                let words: String = octets
                    .chunks_exact(4)
                    .filter_map(<[u8]>::first_chunk::<4>)
                    .map(|word| format!("{:08X}", self.word_of((*word).into())))
                    .collect();
                format!("{words}:{port:04X}")
            }
            (_, Some(IpAddr::V4(ip))) => format!("{:08X}:{port:04X}", self.word_of(ip)),
            _ => format!("00000000:{port:04X}"),
        }
    }

    /// Sockets of IP: what is bound, without those of the simulated internet.
    fn net_sockets(&self, head: String, family: Family, kinds: &[Kind]) -> String {
        let mut all = head;
        let own = |address: &SocketAddr| self.sockets.is_here(address.ip());
        let here = |socket: &Socket| matches!(&socket.local, Some(Address::Inet(address)) if own(address));
        let wanted = self
            .sockets
            .all()
            .filter(|(_, socket)| socket.family == family && kinds.contains(&socket.kind) && here(socket));
        for (line, (id, socket)) in wanted.take(MAX_LINES).enumerate() {
            let streams = socket.kind == Kind::Stream;
            // Numbers of net/tcp_states.h; datagrams are connected or not.
            let state = match &socket.state {
                State::Listening { .. } => 10,
                State::Connected(_) => 1,
                State::Disconnected => 8,
                State::Idle if socket.peer.is_some() => 1,
                State::Idle => 7,
            };
            let local = match socket.kind {
                // Where ports stand, its protocol does.
                Kind::Raw(protocol) => {
                    let end = self.end_text(family, socket.local.as_ref());
                    format!("{}:{protocol:04X}", end.split(':').next().unwrap_or_default())
                }
                _ => self.end_text(family, socket.local.as_ref()),
            };
            let peer = self.end_text(family, socket.peer.as_ref());
            let mut text = format!(
                "{local} {peer} {state:02X} 00000000:{:08X} 00:00000000 00000000 {:>5}        0 {}",
                socket.waiting(),
                socket.owner.uid,
                FIRST_INODE + id.0
            );
            text += match (streams, &socket.state) {
                (true, State::Listening { .. }) => " 1 0000000000000000 100 0 0 10 0",
                (true, _) => " 1 0000000000000000 20 4 30 10 -1",
                _ => " 2 0000000000000000 0",
            };
            let text = match streams {
                true => format!("{line:>4}: {text}"),
                false => format!("{line:>5}: {text}"),
            };
            let width = match (family, streams) {
                (Family::Inet, true) => LINE,
                (Family::Inet, false) => DATAGRAM_LINE,
                _ => 0,
            };
            let _ = writeln!(all, "{text:<width$}");
        }
        all
    }

    /// A pointer that is kept to itself (`%pK`).
    fn hidden(&self) -> String {
        "0".repeat(self.abi.word() as usize * 2)
    }

    fn net_unix(&self) -> String {
        let mut all = "Num       RefCount Protocol Flags    Type St Inode Path\n".to_owned();
        let unix = self
            .sockets
            .all()
            .filter(|(_, socket)| socket.family == Family::Unix);
        for (id, socket) in unix.take(MAX_LINES) {
            let listens = matches!(socket.state, State::Listening { .. });
            let kind = match socket.kind {
                Kind::Stream => 1,
                Kind::Sequenced => 5,
                _ => 2,
            };
            let connected = matches!(socket.state, State::Connected(_));
            let name = match &socket.local {
                Some(Address::Path(path, _)) => format!(" {}", text(path)),
                Some(Address::Abstract(name)) => format!(" @{}", text(name)),
                _ => String::new(),
            };
            let _ = writeln!(
                all,
                "{}: 00000002 00000000 {:08X} {kind:04X} {:02X} {:>5}{name}",
                self.hidden(),
                if listens { 0x1_0000 } else { 0 },
                if connected { 3 } else { 1 },
                FIRST_INODE + id.0
            );
        }
        all
    }

    fn net_netlink(&self) -> String {
        let mut all =
            "sk               Eth Pid        Groups   Rmem     Wmem     Dump  Locks    Drops    Inode\n"
                .to_owned();
        for (id, socket) in self.sockets.all().take(MAX_LINES) {
            if let (Kind::Raw(protocol), Some(Address::Netlink { port, groups })) =
                (socket.kind, &socket.local)
            {
                let _ = writeln!(
                    all,
                    "{} {protocol:<3} {port:<10} {groups:08x} {:<8} 0        0     2        0        {}",
                    self.hidden(),
                    socket.waiting(),
                    FIRST_INODE + id.0
                );
            }
        }
        all
    }

    fn net_packet(&self) -> String {
        let mut all = "sk               RefCnt Type Proto  Iface R Rmem   User   Inode\n".to_owned();
        for (id, socket) in self.sockets.all() {
            let (kind, protocol) = match (socket.family, socket.kind) {
                (Family::Packet, Kind::Raw(protocol)) => (3, protocol),
                (Family::Packet, Kind::Cooked(protocol)) => (2, protocol),
                _ => continue,
            };
            let interface = match socket.local {
                Some(Address::Link { interface, .. }) => interface,
                _ => 0,
            };
            let _ = writeln!(
                all,
                "{} 3      {kind:<4} {protocol:04x}   {interface:<5} 1 {:<6} {:<6} {:<6}",
                self.hidden(),
                socket.waiting(),
                socket.owner.uid,
                FIRST_INODE + id.0
            );
        }
        all
    }
}
