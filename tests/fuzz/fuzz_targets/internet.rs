//! What a guest sends to the simulated internet: datagrams and the bytes of connections, cut anywhere.

#![no_main]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::LazyLock;

use hotcell_internet::{Internet, Web, capture};
use hotcell_schema::internet::{InternetWith, PeerStep, ScriptedPeer};
use libfuzzer_sys::fuzz_target;

struct Files;

impl Web for Files {
    fn file(&self, host: &str, path: &str) -> Option<Vec<u8>> {
        (host == "a.b" && path == "/c").then(|| vec![1, 2, 3])
    }

    fn knows(&self, host: &str) -> bool {
        host == "a.b"
    }
}

static WITH: LazyLock<InternetWith> = LazyLock::new(|| InternetWith {
    hosts: [("a.b".to_owned(), Ipv4Addr::new(203, 0, 113, 1))].into(),
    unknown: vec!["no.no".into()],
    pages: [("http://p.q/".to_owned(), "page".to_owned())].into(),
    web: Vec::new(),
    peers: vec![ScriptedPeer {
        host: None,
        port: 4,
        script: vec![
            PeerStep::Expect("ab".into()),
            PeerStep::Send("c".into()),
            PeerStep::Expect("".into()),
            PeerStep::Close,
        ],
    }],
});

fuzz_target!(|data: &[u8]| {
    let [port, ip, data @ ..] = data else { return };
    let host = match ip % 2 {
        0 => IpAddr::V4(Ipv4Addr::new(203, 0, 113, *ip)),
        _ => IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, u16::from(*ip))),
    };
    let to = SocketAddr::new(host, [53, 80, 4, 23][usize::from(port % 4)]);
    let guest = capture::guest_end(None, to);
    let mut internet = Internet::default();
    let mut wire = capture::Capture::default();
    let (mut peer, _) = internet.call(&WITH, to);
    wire.connected(0, guest, to);
    // A byte of 255 cuts.
    for part in data.split(|byte| *byte == 255) {
        let reply = internet.hear(&mut peer, &WITH, &Files, part);
        assert!(reply.bytes.len() < 1 << 16 && reply.said.len() <= 1);
        wire.sent(1, capture::Way::Out, guest, to, part);
        wire.sent(1, capture::Way::In, guest, to, &reply.bytes);
        if let Some(answer) = internet.datagram(&WITH, to, part) {
            assert!(answer.bytes.len() < 1 << 16 && answer.said.len() <= 4);
            wire.datagram(2, capture::Way::In, guest, to, &answer.bytes);
        }
    }
    wire.ended(3, capture::Way::Out, guest, to);
    assert!(wire.file().len() < 64 << 20);
});
