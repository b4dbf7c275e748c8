//! What anybody may say at the socket of a host's arbiter: it answers or hangs up, and serves the next one.
#![no_main]

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

use hotcell_cells::cores::duties::Duties;
use hotcell_cells::cores::service::client::Connection;
use hotcell_cells::cores::service::{By, Deed, Record, server};
use hotcell_cells::cores::topology::Topology;
use hotcell_cells::stop::StopSignal;
use hotcell_schema::manifest::{Cores, later::OnSmallHost};
use libfuzzer_sys::fuzz_target;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType};

struct Nothing;

impl Record for Nothing {
    fn record(&mut self, _: &By, _: &Deed, _: Option<&str>) -> Result<(), String> {
        Ok(())
    }
}

/// The service of this process.
fn socket() -> &'static PathBuf {
    static SOCKET: OnceLock<PathBuf> = OnceLock::new();
    SOCKET.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap().keep();
        let topology = Topology::of_this_host().unwrap();
        let wanted = Cores {
            on_small_host: Some(OnSmallHost::Share),
            ..Cores::default()
        };
        let socket = folder.join("socket");
        let host = server::Host {
            duties: Duties::plan(&wanted, &topology).unwrap(),
            topology,
            cells: NonZeroUsize::new(100).unwrap(),
            users: BTreeMap::new(),
            fallbacks: Vec::new(),
            socket: socket.clone(),
            kept: folder.join("kept.json"),
            record: Box::new(Nothing),
        };
        let (ready, is_ready) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let stop = StopSignal::new().unwrap();
            server::serve(host, &stop, |_| ready.send(()).unwrap()).unwrap();
        });
        is_ready.recv().unwrap();
        socket
    })
}

fuzz_target!(|data: &[u8]| {
    let kind = SocketType::SEQPACKET;
    let Ok(visitor) = rustix::net::socket_with(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None) else {
        return;
    };
    let address = SocketAddrUnix::new(socket()).unwrap();
    if rustix::net::connect(&visitor, &address).is_err() {
        return;
    }
    let patience = Some(Duration::from_secs(20));
    rustix::net::sockopt::set_socket_timeout(&visitor, rustix::net::sockopt::Timeout::Recv, patience).unwrap();
    // A line is a packet. The first is mostly a good one, so that what follows is looked at.
    let mut buffer = vec![0; 64 << 10];
    let hello = (data.first() != Some(&b'!')).then_some(&br#"{"hello":{"protocol":2}}"#[..]);
    for packet in hello.into_iter().chain(data.split(|byte| *byte == b'\n').take(16)) {
        if packet.is_empty() {
            continue;
        }
        if rustix::net::send(&visitor, packet, SendFlags::NOSIGNAL).is_err() {
            break;
        }
        match rustix::net::recv(&visitor, &mut buffer[..], RecvFlags::empty()) {
            Ok((0, _)) => break,
            Ok(_) => {}
            Err(error) => {
                assert_ne!(error, rustix::io::Errno::AGAIN, "no answer");
                break;
            }
        }
    }
    drop(visitor);
    Connection::open(socket()).unwrap().cells().unwrap();
});
