//! The machine's place in the network: what tells of it agrees, and packets that programs make go where they should.

use std::net::{Ipv4Addr, SocketAddr};

use hotcell_internet::packet::{self, Seen};
use hotcell_internet::{GATEWAY, GUEST};
use hotcell_schema::event::{NetworkOp, What};
use hotcell_schema::job::GuestLimits;
use proptest::prelude::*;

use super::{Bench, profile, profiles, tiny_elf};
use crate::abi::Abi;
use crate::abi::layout::Layout;
use crate::net::interfaces::{Links, OUTSIDE, card_text};
use crate::net::netlink::Asker;
use crate::net::spoken::Spoken;

const AT: u64 = 0x40_1000;
const ADDRESS: u64 = 0x40_1800;
const FAR: Ipv4Addr = Ipv4Addr::new(198, 18, 4, 9);
const DO_NOT_WAIT: u64 = 0x40;

fn online(profile: &hotcell_schema::arch::ArchProfile) -> Bench {
    Bench::online(profile, &tiny_elf(profile)).unwrap()
}

/// Asks for an echo with these words behind it.
fn request(id: u16, words: &[u8]) -> Vec<u8> {
    let head = [8, 0, 0, 0, 0, 0, 0, 7];
    packet::echo_request(&[head.as_slice(), words].concat(), id).unwrap()
}

fn put_address(bench: &mut Bench, address: &Spoken) -> u64 {
    let bytes = address.bytes(&bench.kernel.abi.clone());
    bench.put(ADDRESS, &bytes);
    bytes.len() as u64
}

fn send(bench: &mut Bench, fd: u64, bytes: &[u8], to: Ipv4Addr, port: u16) -> Option<i64> {
    bench.put(AT, bytes);
    let length = put_address(bench, &Spoken::Inet(SocketAddr::new(to.into(), port)));
    bench.call("sendto", &[fd, AT, bytes.len() as u64, 0, ADDRESS, length])
}

/// What came for a socket; an error's number below zero.
fn receive(bench: &mut Bench, fd: u64) -> Result<Vec<u8>, i64> {
    let count = bench
        .call("recvfrom", &[fd, AT, 2048, DO_NOT_WAIT, 0, 0])
        .unwrap();
    let length = usize::try_from(count).map_err(|_| count)?;
    Ok(bench.peek(AT, length))
}

/// Packets of a capture.
fn packets(capture: &[u8]) -> Vec<Vec<u8>> {
    let mut rest = capture.get(24..).unwrap_or_default();
    let mut all = Vec::new();
    while let Some(length) = rest.get(8..12).and_then(<[u8]>::first_chunk) {
        let end = 16 + u32::from_le_bytes(*length) as usize;
        all.push(rest[16..end].to_vec());
        rest = &rest[end..];
    }
    all
}

/// The sum of a header or message is right when all its halves make 0xffff.
fn sum(bytes: &[u8]) -> u32 {
    let halves = bytes
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)));
    let all: u32 = halves.sum();
    (all & 0xffff) + (all >> 16)
}

#[test]
fn whoever_is_asked_for_an_echo_gives_it_to_raw_and_ping_sockets() {
    for profile in profiles() {
        let name = profile.name.as_str();
        let mut bench = online(&profile);
        let datagram = if bench.kernel.abi.is_mips() { 1 } else { 2 };
        assert_eq!(bench.call("socket", &[2, 3, 1]), Some(3), "{name}");
        assert_eq!(bench.call("socket", &[2, datagram, 1]), Some(4), "{name}");
        // A saved run goes on with both.
        let state = bench.kernel.save().unwrap();
        bench.go_on_from(&state).unwrap();
        let asked = request(77, b"words");
        assert_eq!(send(&mut bench, 3, &asked, FAR, 0), Some(13), "{name}");
        let reply = receive(&mut bench, 3).unwrap();
        let seen = Seen::read(&reply).unwrap();
        assert_eq!((seen.from, seen.to, seen.echo()), (FAR, GUEST, Some((77, false))));
        assert_eq!(seen.payload.get(8..), Some(&b"words"[..]));
        assert_eq!((sum(&reply[..20]), sum(seen.payload)), (0xffff, 0xffff));
        assert_eq!(receive(&mut bench, 4), Err(-11), "it is not its own");
        // The number of a ping socket is its own, whatever it says.
        assert_eq!(send(&mut bench, 4, &asked, Ipv4Addr::LOCALHOST, 0), Some(13));
        let reply = receive(&mut bench, 4).unwrap();
        assert_eq!(reply.get(8..), Some(&b"words"[..]), "without the packet's header");
        let own = u16::from_be_bytes([reply[4], reply[5]]);
        assert!(own >= 32_768, "{own}");
        let both = [receive(&mut bench, 3).unwrap(), receive(&mut bench, 3).unwrap()];
        let echoes = both.map(|packet| Seen::read(&packet).unwrap().echo());
        assert_eq!(echoes, [Some((own, true)), Some((own, false))]);
        let mut wrong = asked.clone();
        wrong[0] = 3;
        assert_eq!(send(&mut bench, 4, &wrong, FAR, 0), Some(-22), "no echo");
        let wire = packets(&bench.finish().capture);
        assert_eq!(wire.len(), 2, "the loopback is not on the wire");
    }
}

#[test]
fn a_packet_with_a_header_of_its_own_is_told_and_captured_and_nobody_answers() {
    let profile = profile("mips");
    let mut bench = online(&profile);
    assert_eq!(bench.call("socket", &[2, 3, 255]), Some(3));
    let syn = packet::wrap(Ipv4Addr::UNSPECIFIED, FAR, 6, 64, &[0; 20]).unwrap();
    let mut made = syn.clone();
    // Linux fills in length, source and sum.
    made[2..4].fill(0);
    made[10..12].fill(0);
    assert_eq!(send(&mut bench, 3, &made, FAR, 23), Some(40));
    assert_eq!(send(&mut bench, 3, &[0x45; 10], FAR, 23), Some(-22));
    assert_eq!(send(&mut bench, 3, &[0x45; 1501], FAR, 23), Some(-97));
    assert_eq!(receive(&mut bench, 3), Err(-11));
    let told = bench.events.borrow().iter().any(|event| {
        matches!(&event.what, What::Network(network) if network.op == NetworkOp::Send
            && network.protocol == "raw"
            && network.peer.as_deref() == Some("198.18.4.9:23")
            && network.bytes == Some(40))
    });
    assert!(told);
    let wire = packets(&bench.finish().capture);
    let [only] = wire.as_slice() else {
        panic!("one packet")
    };
    assert_eq!(sum(&only[..20]), 0xffff);
    assert_eq!(Seen::read(only).unwrap().from, GUEST);
    assert_eq!(u16::from_be_bytes([only[2], only[3]]), 40);
}

#[test]
fn only_root_makes_packets_and_without_a_network_they_stay_here() {
    let profile = profile("x86_64");
    let mut bench = Bench::start(&profile, &tiny_elf(&profile), GuestLimits::default()).unwrap();
    assert_eq!(bench.call("socket", &[2, 3, 1]), Some(3));
    let asked = request(1, b"");
    assert_eq!(send(&mut bench, 3, &asked, FAR, 0), Some(-101));
    assert_eq!(
        send(&mut bench, 3, &asked, Ipv4Addr::new(127, 0, 0, 1), 0),
        Some(8)
    );
    assert_eq!(
        Seen::read(&receive(&mut bench, 3).unwrap()).unwrap().echo(),
        Some((1, true))
    );
    assert_eq!(bench.call("socket", &[17, 3, 0x0300]), Some(4));
    let link = Spoken::Link {
        protocol: 3,
        interface: 2,
    };
    let length = put_address(&mut bench, &link);
    assert_eq!(
        bench.call("bind", &[4, ADDRESS, length]),
        Some(-19),
        "no such interface"
    );
    assert_eq!(bench.call("setuid", &[1000]), Some(0));
    for (family, kind, protocol) in [(2, 3, 1), (2, 3, 255), (17, 3, 0x0300), (17, 2, 8)] {
        assert_eq!(bench.call("socket", &[family, kind, protocol]), Some(-1));
    }
    assert_eq!(bench.call("socket", &[2, 2, 1]), Some(5), "a ping is free");
}

#[test]
fn a_packet_socket_hears_what_goes_over_the_wire() {
    let profile = profile("ppc");
    let mut bench = online(&profile);
    // ETH_P_ALL, and ETH_P_IP without frames' headers.
    assert_eq!(bench.call("socket", &[17, 3, 3]), Some(3));
    assert_eq!(bench.call("socket", &[17, 2, 0x800]), Some(4));
    assert_eq!(bench.call("socket", &[2, 2, 0]), Some(5));
    let question = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x02c2\x07example\x00\x00\x01\x00\x01";
    assert_eq!(
        send(&mut bench, 5, question, Ipv4Addr::new(192, 0, 2, 53), 53),
        Some(question.len() as i64)
    );
    let out = receive(&mut bench, 3).unwrap();
    let back = receive(&mut bench, 3).unwrap();
    assert_eq!(out.len(), 14 + 20 + 8 + question.len());
    assert_eq!((&out[6..12], &back[..6]), (&OUTSIDE.card[..], &OUTSIDE.card[..]));
    assert_eq!((&out[12..14], &back[12..14]), (&[8, 0][..], &[8, 0][..]));
    assert_eq!(Seen::read(&back[14..]).unwrap().to, GUEST);
    assert_eq!(receive(&mut bench, 4).unwrap(), back[14..], "only what comes");
    assert_eq!(
        (receive(&mut bench, 3), receive(&mut bench, 4)),
        (Err(-11), Err(-11))
    );
    // A frame of its own: an echo comes back to it.
    let asked = packet::wrap(GUEST, FAR, packet::ICMP, 64, &request(5, b"x")).unwrap();
    let frame = [&out[..14], &asked].concat();
    bench.put(AT, &frame);
    let link = Spoken::Link {
        protocol: 0,
        interface: 2,
    };
    let length = put_address(&mut bench, &link);
    let sent = bench.call("sendto", &[3, AT, frame.len() as u64, 0, ADDRESS, length]);
    assert_eq!(sent, Some(frame.len() as i64));
    assert_eq!(receive(&mut bench, 3).unwrap(), frame);
    let echo = receive(&mut bench, 4).unwrap();
    assert_eq!(Seen::read(&echo).unwrap().echo(), Some((5, false)));
    assert_eq!(packets(&bench.finish().capture).len(), 4);
}

/// A request for everything of a kind.
fn dump(abi: &Abi, kind: u16) -> Vec<u8> {
    Layout::new(abi)
        .u32(32)
        .u16(kind)
        .u16(0x301)
        .u32(9)
        .u32(0)
        .pad(16)
        .bytes
}

fn asker(abi: &Abi, is_online: bool, is_root: bool) -> Asker<'_> {
    Asker {
        abi,
        links: Links { is_online },
        protocol: 0,
        port: 1000,
        is_root,
    }
}

fn has(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

fn content(bench: &mut Bench, path: &str) -> String {
    bench.put(AT, path.as_bytes());
    bench.put(AT + path.len() as u64, &[0]);
    let fd = bench
        .call("openat", &[(-100i64).cast_unsigned(), AT, 0, 0])
        .unwrap();
    let fd = u64::try_from(fd).expect(path);
    let count = bench.call("read", &[fd, AT, 2048]).unwrap();
    bench.call("close", &[fd]);
    String::from_utf8(bench.peek(AT, usize::try_from(count).unwrap())).unwrap()
}

#[test]
fn netlink_ioctls_and_files_say_the_same_of_the_card() {
    for profile in profiles() {
        let name = profile.name.as_str();
        let mut bench = online(&profile);
        let abi = bench.kernel.abi.clone();
        let asker = asker(&abi, true, true);
        let [links, done] = asker.ask(&dump(&abi, 18)).try_into().unwrap();
        assert!(has(&links, b"eth0\0") && has(&links, &OUTSIDE.card), "{name}");
        assert_eq!(abi.get_u16([done[4], done[5]]), 3, "{name}");
        let [addresses, _] = asker.ask(&dump(&abi, 22)).try_into().unwrap();
        assert!(has(&addresses, &hotcell_internet::GUEST_V6.octets()), "{name}");
        assert!(
            has(&addresses, &GUEST.octets()) && has(&addresses, b"lo\0"),
            "{name}"
        );
        let [routes, _] = asker.ask(&dump(&abi, 26)).try_into().unwrap();
        assert!(has(&routes, &GATEWAY.octets()), "{name}");

        let datagram = if abi.is_mips() { 1 } else { 2 };
        assert_eq!(bench.call("socket", &[2, datagram, 0]), Some(3), "{name}");
        let request = Layout::new(&abi).text("eth0", 16).bytes;
        let ask = |bench: &mut Bench, number: u64| {
            bench.put(AT, &request);
            let answer = bench.call("ioctl", &[3, number, AT]);
            assert_eq!(answer, Some(0), "{name} {number:x}");
            bench.peek(AT + 16, 16)
        };
        assert_eq!(
            ask(&mut bench, 0x8927).get(2..8),
            Some(&OUTSIDE.card[..]),
            "{name}"
        );
        assert_eq!(
            ask(&mut bench, 0x8915).get(4..8),
            Some(&GUEST.octets()[..]),
            "{name}"
        );
        assert_eq!(
            ask(&mut bench, 0x8919).get(4..8),
            Some(&[192, 0, 2, 255][..]),
            "{name}"
        );
        let card = card_text(OUTSIDE.card) + "\n";
        assert_eq!(content(&mut bench, "/sys/class/net/eth0/address"), card, "{name}");
        assert!(
            content(&mut bench, "/proc/self/net/dev").contains("  eth0:"),
            "{name}"
        );
        let route = content(&mut bench, "/proc/net/route");
        let gateway = if abi.big { "C0000201" } else { "010200C0" };
        assert!(
            route.contains(&format!("eth0\t00000000\t{gateway}\t0003")),
            "{route}"
        );
        assert!(
            content(&mut bench, "/proc/net/arp").starts_with("IP address"),
            "{name}"
        );
        assert!(
            content(&mut bench, "/proc/net/arp").contains("192.0.2.1 "),
            "{name}"
        );
    }
}

#[test]
fn what_would_change_the_machine_is_refused_by_name() {
    let abi = Abi::new(&profile("s390x"));
    let change = |kind: u16| {
        let request = Layout::new(&abi).u32(24).u16(kind).u16(5).u32(1).u32(0);
        request.pad(8).bytes
    };
    let error = |is_root: bool, kind: u16| {
        let [answer] = asker(&abi, true, is_root).ask(&change(kind)).try_into().unwrap();
        assert_eq!(abi.get_u16([answer[4], answer[5]]), 2);
        abi.get_u32([answer[16], answer[17], answer[18], answer[19]])
            .cast_signed()
    };
    assert_eq!((error(false, 20), error(true, 20)), (-1, -95), "RTM_NEWADDR");
    assert_eq!(
        (error(false, 16), error(true, 25)),
        (-1, -95),
        "RTM_NEWLINK, RTM_DELROUTE"
    );
    let [silent] = asker(&abi, false, true).ask(&dump(&abi, 26)).try_into().unwrap();
    assert_eq!(abi.get_u16([silent[4], silent[5]]), 3, "no routes: only the end");
}

proptest! {
    /// Whatever is sent to the kernel, it answers a bounded number of whole messages.
    #[test]
    fn anything_can_be_asked(bytes in proptest::collection::vec(any::<u8>(), 0..600), online: bool, root: bool) {
        let abi = Abi::new(&profile("aarch64"));
        for protocol in [0, 4, 9, 15, 16] {
            let asker = Asker { protocol, ..asker(&abi, online, root) };
            let answers = asker.ask(&bytes);
            prop_assert!(answers.len() <= 128 + 64);
            for answer in answers {
                let length = abi.get_u32(*answer.first_chunk().unwrap()) as usize;
                prop_assert!(length >= 16 && length <= answer.len());
            }
        }
    }

    /// Packets that a program makes never come to harm.
    #[test]
    fn any_packet_can_be_sent(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
        if let Some(made) = packet::finish(&bytes, GUEST) {
            prop_assert_eq!(made.len(), bytes.len());
            prop_assert_eq!(sum(made.get(..usize::from(made[0] & 15) * 4).unwrap()), 0xffff);
        }
        if let Some(answer) = packet::answer(&bytes) {
            prop_assert_eq!(Seen::read(&answer).unwrap().from, Seen::read(&bytes).unwrap().to);
        }
    }
}
