//! Sockets: sums and names hold whatever is done to them, what is sent is what arrives, and a saved run goes on with them.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use hotcell_schema::job::GuestLimits;
use proptest::prelude::*;

use super::{Bench, profiles, tiny_elf};
use crate::abi::errno::Errno;
use crate::fs::open::FileId;
use crate::net::{
    Address, CAPACITY, Credentials, Family, Kind, Packet, Sent, SocketId, Sockets, State, Take,
};

fn inet(host: [u8; 4], port: u16) -> Address {
    Address::Inet(SocketAddr::new(IpAddr::V4(Ipv4Addr::from(host)), port))
}

fn packet(bytes: Vec<u8>) -> Packet {
    Packet {
        bytes,
        ..Packet::default()
    }
}

fn all(most: usize) -> Take {
    Take { most, peek: false }
}

#[test]
fn a_stream_forgets_where_messages_ended_and_others_do_not() {
    for (kind, first) in [(Kind::Stream, 3), (Kind::Datagram, 2), (Kind::Sequenced, 2)] {
        let mut sockets = Sockets::default();
        let owner = Credentials::default();
        let a = sockets.make(Family::Unix, kind, owner).unwrap();
        let b = sockets.make(Family::Unix, kind, owner).unwrap();
        sockets.join(a, b);
        assert_eq!(sockets.deliver(b, packet(vec![1, 2])), Sent::Bytes(2));
        assert_eq!(sockets.deliver(b, packet(vec![3, 4])), Sent::Bytes(2));
        assert_eq!(sockets.take(b, all(3)).unwrap().bytes.len(), first);
        let rest = sockets.take(b, all(10)).unwrap().bytes;
        assert_eq!(rest.last(), Some(&4));
        assert!(sockets.take(b, all(1)).is_none() && sockets.is_sound());
    }
}

#[test]
fn what_is_sent_is_bounded_and_descriptors_stay_with_their_bytes() {
    let mut sockets = Sockets::default();
    let owner = Credentials::default();
    let a = sockets.make(Family::Unix, Kind::Stream, owner).unwrap();
    let b = sockets.make(Family::Unix, Kind::Stream, owner).unwrap();
    sockets.join(a, b);
    assert_eq!(
        sockets.deliver(b, packet(vec![0; CAPACITY + 5])),
        Sent::Bytes(CAPACITY)
    );
    assert_eq!(sockets.deliver(b, packet(vec![0])), Sent::Full);
    assert_eq!(
        sockets.take(b, all(CAPACITY - 1)).unwrap().bytes.len(),
        CAPACITY - 1
    );
    let with_file = Packet {
        bytes: vec![7],
        files: vec![FileId(9)],
        ..Packet::default()
    };
    assert_eq!(sockets.deliver(b, with_file), Sent::Bytes(1));
    assert_eq!(sockets.deliver(b, packet(vec![8])), Sent::Bytes(1));
    let before = sockets.take(b, all(9)).unwrap();
    assert!(
        before.bytes == [0] && before.files.is_empty(),
        "what came before stops at it"
    );
    let taken = sockets.take(b, all(9)).unwrap();
    assert_eq!((taken.bytes.first(), taken.files), (Some(&7), vec![FileId(9)]));
    let on_its_way = Packet {
        files: vec![FileId(4), FileId(5)],
        bytes: vec![1],
        ..Packet::default()
    };
    assert_eq!(sockets.deliver(b, on_its_way), Sent::Bytes(1));
    assert_eq!(sockets.close(b), [FileId(4), FileId(5)]);
    assert!(matches!(sockets.get(a).unwrap().state, State::Disconnected));
    assert_eq!(sockets.get(a).unwrap().error, Some(Errno::ECONNRESET));
    assert_eq!(
        sockets.deliver(b, packet(vec![1])),
        Sent::Refused(Errno::ECONNREFUSED)
    );
}

#[test]
fn a_port_is_ones_own_and_is_found_by_the_address_that_is_called() {
    let mut sockets = Sockets::default();
    let make = |sockets: &mut Sockets| {
        sockets
            .make(Family::Inet, Kind::Stream, Credentials::default())
            .unwrap()
    };
    let (a, b, c) = (make(&mut sockets), make(&mut sockets), make(&mut sockets));
    sockets.bind(a, inet([0, 0, 0, 0], 80)).unwrap();
    assert_eq!(sockets.bind(b, inet([127, 0, 0, 1], 80)), Err(Errno::EADDRINUSE));
    assert_eq!(
        sockets.bind(b, inet([10, 0, 0, 1], 80)),
        Err(Errno::EADDRNOTAVAIL)
    );
    sockets.bind(b, inet([127, 0, 0, 1], 0)).unwrap();
    assert_eq!(
        sockets.bind(b, inet([127, 0, 0, 1], 0)),
        Err(Errno::EINVAL),
        "once"
    );
    assert_eq!(
        sockets.find(Kind::Stream, &inet([127, 0, 0, 1], 80), None),
        Some(a)
    );
    assert_eq!(
        sockets.find(Kind::Datagram, &inet([127, 0, 0, 1], 80), None),
        None
    );
    assert_eq!(
        sockets.connect(c, a, &inet([127, 0, 0, 1], 80)),
        Err(Errno::ECONNREFUSED)
    );
    sockets.listen(a, 0).unwrap();
    assert_eq!(sockets.connect(c, a, &inet([127, 0, 0, 1], 80)), Ok(true));
    let d = make(&mut sockets);
    assert_eq!(
        sockets.connect(d, a, &inet([127, 0, 0, 1], 80)),
        Ok(false),
        "no room"
    );
    // Nobody accepts: who connected is told.
    sockets.close(a);
    assert!(matches!(sockets.get(c).unwrap().state, State::Disconnected));
    sockets.bind(d, inet([127, 0, 0, 1], 80)).unwrap();
    assert!(sockets.is_sound());
}

#[test]
fn what_connect_chose_of_a_name_is_given_up_and_what_was_asked_for_stays() {
    let v6 = |ip: &str, port| Address::Inet(SocketAddr::new(ip.parse().unwrap(), port));
    let name = |sockets: &Sockets, id| match &sockets.get(id).unwrap().local {
        Some(Address::Inet(local)) => local.ip().to_string(),
        other => format!("{other:?}"),
    };
    let mut sockets = Sockets::new(true);
    let make = |sockets: &mut Sockets, family| {
        sockets
            .make(family, Kind::Datagram, Credentials::default())
            .unwrap()
    };
    let a = make(&mut sockets, Family::Inet6);
    for (peer, own) in [
        ("::", "::1"),
        ("::ffff:127.0.0.1", "::ffff:127.0.0.1"),
        ("::1", "::1"),
    ] {
        sockets.name_for(a, &v6(peer, 80)).unwrap();
        assert_eq!(name(&sockets, a), own);
        sockets.disconnect(a);
        assert_eq!(name(&sockets, a), "None");
    }
    let b = make(&mut sockets, Family::Inet);
    sockets.name_for(b, &inet([127, 0, 0, 1], 80)).unwrap();
    sockets.name_for(b, &inet([8, 8, 8, 8], 53)).unwrap();
    assert_eq!(name(&sockets, b), "127.0.0.1", "it has one");
    sockets.disconnect(b);
    sockets.name_for(b, &inet([8, 8, 8, 8], 53)).unwrap();
    let outside = hotcell_internet::GUEST.to_string();
    assert_eq!(name(&sockets, b), outside);
    // A port that was asked for stays, an address that was not is chosen each time.
    let c = make(&mut sockets, Family::Inet);
    sockets.bind(c, inet([0, 0, 0, 0], 5000)).unwrap();
    sockets.name_for(c, &inet([127, 0, 0, 1], 80)).unwrap();
    assert_eq!(sockets.get(c).unwrap().local, Some(inet([127, 0, 0, 1], 5000)));
    sockets.disconnect(c);
    assert_eq!(sockets.get(c).unwrap().local, Some(inet([0, 0, 0, 0], 5000)));
    assert_eq!(
        sockets.find(Kind::Datagram, &inet([127, 0, 0, 1], 5000), None),
        Some(c)
    );
    let d = make(&mut sockets, Family::Inet);
    sockets.bind(d, inet([127, 0, 0, 5], 5001)).unwrap();
    sockets.name_for(d, &inet([127, 0, 0, 1], 80)).unwrap();
    sockets.disconnect(d);
    assert_eq!(sockets.get(d).unwrap().local, Some(inet([127, 0, 0, 5], 5001)));
    // Nobody's name in between.
    for id in [a, b, c, d] {
        sockets.close(id);
    }
    let e = make(&mut sockets, Family::Inet);
    sockets.bind(e, inet([0, 0, 0, 0], 5000)).unwrap();
    assert!(sockets.is_sound());
}

#[test]
fn a_saved_run_goes_on_with_what_was_under_way() {
    for profile in profiles() {
        let mut bench = Bench::start(&profile, &tiny_elf(&profile), GuestLimits::default()).unwrap();
        let at = 0x40_1000;
        let stream = if bench.kernel.abi.is_mips() { 2 } else { 1 };
        assert_eq!(
            bench.call("socketpair", &[1, stream, 0, at]),
            Some(0),
            "{}",
            profile.name
        );
        assert_eq!(bench.call("write", &[3, 0x40_0000, 4]), Some(4));
        assert_eq!(bench.call("eventfd2", &[6, 0]), Some(5));
        assert_eq!(bench.call("epoll_create1", &[0]), Some(6));
        let state = bench.kernel.save().unwrap();
        bench.go_on_from(&state).unwrap();
        assert_eq!(bench.call("read", &[4, at + 64, 16]), Some(4), "{}", profile.name);
        assert_eq!(bench.call("read", &[5, at + 64, 8]), Some(8));
        assert_eq!(bench.call("close", &[3]), Some(0));
        assert_eq!(bench.call("read", &[4, at + 64, 16]), Some(0), "its end");
    }
}

#[test]
fn nothing_at_all_is_no_message_on_a_stream_and_messages_without_bytes_are_bounded() {
    let mut sockets = Sockets::default();
    let owner = Credentials::default();
    for kind in [Kind::Stream, Kind::Datagram] {
        let a = sockets.make(Family::Unix, kind, owner).unwrap();
        let b = sockets.make(Family::Unix, kind, owner).unwrap();
        sockets.join(a, b);
        let sent = (0..10_000).filter(|_| sockets.deliver(b, packet(Vec::new())) == Sent::Bytes(0));
        let count = sent.count();
        assert_eq!(count == 10_000, kind == Kind::Stream, "{count}");
        assert_eq!(sockets.get(b).unwrap().has_packets(), kind == Kind::Datagram);
    }
}

#[test]
fn a_timer_that_nobody_reads_holds_nobody_up() {
    let profile = profiles()
        .into_iter()
        .find(|profile| profile.name == "x86_64")
        .unwrap();
    let mut bench = Bench::start(&profile, &tiny_elf(&profile), GuestLimits::default()).unwrap();
    let at = 0x40_1000;
    let put = |bench: &mut Bench, place: u64, words: &[u64]| {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        let machine = bench.machines.machine(crate::machine::SpaceId(1));
        crate::machine::Machine::write(machine, place, &bytes).unwrap();
    };
    assert_eq!(bench.call("timerfd_create", &[1, 0]), Some(3));
    // Every millisecond, from one millisecond on.
    put(&mut bench, at, &[0, 1_000_000, 0, 1_000_000]);
    assert_eq!(bench.call("timerfd_settime", &[3, 0, at, 0]), Some(0));
    // poll for what a timer is never ready for: it ends with its own time.
    put(&mut bench, at + 64, &[3 | 4 << 32]);
    assert_eq!(bench.call("poll", &[at + 64, 1, 50]), Some(0));
    assert!(bench.kernel.time.now >= 50_000_000, "{}", bench.kernel.time.now);
    // An edge of it is told for each time that it expired.
    assert_eq!(bench.call("epoll_create1", &[0]), Some(4));
    put(&mut bench, at + 128, &[1 | 1 << 31]);
    assert_eq!(bench.call("epoll_ctl", &[4, 1, 3, at + 128]), Some(0));
    assert_eq!(bench.call("epoll_wait", &[4, at + 256, 4, 100]), Some(1));
    assert_eq!(
        bench.call("epoll_wait", &[4, at + 256, 4, 100]),
        Some(1),
        "the next time"
    );
    // An epoll in an epoll, and no deeper.
    assert_eq!(bench.call("epoll_create1", &[0]), Some(5));
    assert_eq!(bench.call("epoll_ctl", &[5, 1, 4, at + 128]), Some(0));
    assert_eq!(bench.call("epoll_wait", &[5, at + 256, 4, 100]), Some(1));
    assert_eq!(bench.call("epoll_create1", &[0]), Some(6));
    assert_eq!(bench.call("epoll_ctl", &[6, 1, 5, at + 128]), Some(-40), "ELOOP");
    assert_eq!(bench.call("epoll_ctl", &[4, 1, 6, at + 128]), Some(-40), "ELOOP");
}

#[derive(Debug, Clone)]
enum Act {
    Make(u8, u8),
    Join(prop::sample::Index, prop::sample::Index),
    Bind(prop::sample::Index, u8, u16),
    Listen(prop::sample::Index, usize),
    Connect(prop::sample::Index, u8, u16),
    Deliver(prop::sample::Index, usize, u8),
    Take(prop::sample::Index, usize, bool),
    Close(prop::sample::Index),
}

fn act() -> impl Strategy<Value = Act> {
    let one = any::<prop::sample::Index>;
    let size = || prop_oneof![0usize..20, Just(CAPACITY), Just(CAPACITY + 1), 0usize..300_000];
    prop_oneof![
        4 => (0u8..3, 0u8..3).prop_map(|(family, kind)| Act::Make(family, kind)),
        2 => (one(), one()).prop_map(|(a, b)| Act::Join(a, b)),
        2 => (one(), 0u8..4, 0u16..3).prop_map(|(id, host, port)| Act::Bind(id, host, port)),
        1 => (one(), 0usize..3).prop_map(|(id, backlog)| Act::Listen(id, backlog)),
        3 => (one(), 0u8..4, 0u16..3).prop_map(|(id, host, port)| Act::Connect(id, host, port)),
        6 => (one(), size(), 0u8..3).prop_map(|(id, size, files)| Act::Deliver(id, size, files)),
        4 => (one(), size(), any::<bool>()).prop_map(|(id, most, peek)| Act::Take(id, most, peek)),
        2 => one().prop_map(Act::Close),
    ]
}

proptest! {
    #[test]
    fn sums_and_names_hold(acts in prop::collection::vec(act(), 1..60)) {
        let mut sockets = Sockets::default();
        let mut ids: Vec<SocketId> = Vec::new();
        let hosts = [[127, 0, 0, 1], [0, 0, 0, 0], [127, 0, 0, 2], [8, 8, 8, 8]];
        let address = |host: u8, port| inet(hosts[usize::from(host)], port);
        for act in acts {
            let pick = |index: &prop::sample::Index| (!ids.is_empty()).then(|| ids[index.index(ids.len())]);
            match act {
                Act::Make(family, kind) => {
                    let family = [Family::Unix, Family::Inet, Family::Inet6][usize::from(family)];
                    let kind = [Kind::Stream, Kind::Datagram, Kind::Sequenced][usize::from(kind)];
                    ids.push(sockets.make(family, kind, Credentials::default()).unwrap());
                }
                Act::Join(a, b) => if let (Some(a), Some(b)) = (pick(&a), pick(&b)) {
                    let fresh = |id| sockets.get(id).is_some_and(|socket| matches!(socket.state, State::Idle));
                    if a != b && fresh(a) && fresh(b) {
                        sockets.join(a, b);
                    }
                },
                Act::Bind(id, host, port) => if let Some(id) = pick(&id) {
                    let _ = sockets.bind(id, address(host, port));
                },
                Act::Listen(id, backlog) => if let Some(id) = pick(&id) {
                    let _ = sockets.listen(id, backlog);
                },
                Act::Connect(id, host, port) => if let Some(id) = pick(&id) {
                    let to = address(host, port);
                    let idle = sockets.get(id).is_some_and(|socket| matches!(socket.state, State::Idle));
                    if let Some(other) = sockets.find(Kind::Stream, &to, None).filter(|other| idle && *other != id) {
                        let _ = sockets.connect(id, other, &to);
                    }
                },
                Act::Deliver(id, size, files) => if let Some(id) = pick(&id) {
                    let files = (0..u64::from(files)).map(FileId).collect();
                    let _ = sockets.deliver(id, Packet { files, ..packet(vec![1; size]) });
                },
                Act::Take(id, most, peek) => if let Some(id) = pick(&id) {
                    let before = sockets.get(id).map_or(0, |socket| socket.waiting());
                    let taken = sockets.take(id, Take { most, peek });
                    prop_assert!(taken.is_none_or(|taken| taken.bytes.len() <= most.min(before)));
                },
                Act::Close(id) => if let Some(id) = pick(&id) {
                    sockets.close(id);
                },
            }
            prop_assert!(sockets.is_sound());
        }
        for id in ids {
            sockets.close(id);
        }
        prop_assert!(sockets.is_sound());
    }
}
