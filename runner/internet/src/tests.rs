//! What comes back for what is sent: the same each time, and nothing that a guest sends is too much.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use hotcell_schema::internet::{InternetWith, PeerStep, ScriptedPeer};
use proptest::prelude::*;
use simple_dns::{CLASS, Name, Packet, QCLASS, QTYPE, Question, RCODE, TYPE, rdata::RData};

use super::*;

struct Files;

impl Web for Files {
    fn file(&self, host: &str, path: &str) -> Option<Vec<u8>> {
        (host == "files.example" && path == "/bot.mips").then(|| b"\x7fELF".to_vec())
    }

    fn knows(&self, host: &str) -> bool {
        host == "files.example"
    }
}

fn with() -> InternetWith {
    InternetWith {
        hosts: [("c2.example".to_owned(), Ipv4Addr::new(203, 0, 113, 5))].into(),
        unknown: vec!["gone.example".into()],
        pages: [("http://pages.example/run.sh".to_owned(), "#!/bin/sh\n".to_owned())].into(),
        web: Vec::new(),
        peers: vec![ScriptedPeer {
            host: Some("c2.example".into()),
            port: 4444,
            script: vec![
                PeerStep::Send("hello\n".into()),
                PeerStep::Expect("ready".into()),
                PeerStep::Send("uname\n".into()),
                PeerStep::Close,
            ],
        }],
    }
}

fn asked(name: &str, kind: TYPE) -> Vec<u8> {
    let mut packet = Packet::new_query(77);
    let question = Question::new(
        Name::new(name).unwrap().into_owned(),
        QTYPE::TYPE(kind),
        QCLASS::CLASS(CLASS::IN),
        false,
    );
    packet.questions.push(question);
    packet.build_bytes_vec().unwrap()
}

fn dns(internet: &mut Internet, name: &str, kind: TYPE) -> (RCODE, Option<IpAddr>) {
    let to = SocketAddr::from(([9, 9, 9, 9], 53));
    let reply = internet.datagram(&with(), to, &asked(name, kind)).unwrap();
    let packet = Packet::parse(&reply.bytes).unwrap();
    assert_eq!(packet.id(), 77);
    let address = packet.answers.first().and_then(|answer| match &answer.rdata {
        RData::A(a) => Some(Ipv4Addr::from(a.address).into()),
        RData::AAAA(a) => Some(Ipv6Addr::from(a.address).into()),
        _ => None,
    });
    (packet.rcode(), address)
}

#[test]
fn every_name_has_an_address_that_follows_from_it() {
    let mut internet = Internet::default();
    let (code, first) = dns(&mut internet, "Some.Example", TYPE::A);
    assert_eq!(code, RCODE::NoError);
    let first = first.unwrap();
    assert!(first.to_string().starts_with("198.1"), "{first}");
    assert_eq!(dns(&mut internet, "some.example", TYPE::A).1, Some(first));
    assert_ne!(dns(&mut internet, "other.example", TYPE::A).1, Some(first));
    let sixth = dns(&mut internet, "some.example", TYPE::AAAA).1.unwrap();
    assert!(sixth.to_string().starts_with("2001:db8:"), "{sixth}");
    assert_eq!(internet.name_of(sixth, &with()), Some("some.example"));
    assert_eq!(
        dns(&mut internet, "some.example", TYPE::TXT),
        (RCODE::NoError, None)
    );
    assert_eq!(
        dns(&mut internet, "gone.example", TYPE::AAAA),
        (RCODE::NameError, None)
    );
    assert_eq!(
        dns(&mut internet, "c2.example", TYPE::A).1,
        Some(Ipv4Addr::new(203, 0, 113, 5).into())
    );
    assert_eq!(
        dns(&mut internet, "gone.example", TYPE::A),
        (RCODE::NameError, None)
    );
    assert_eq!(
        dns(&mut internet, "5.113.0.203.in-addr.arpa", TYPE::PTR),
        (RCODE::NameError, None)
    );
    assert_eq!(internet.name_of(first, &with()), Some("some.example"));
}

fn get(host: &str, path: &str) -> (String, Vec<Said>) {
    let mut internet = Internet::default();
    let to = SocketAddr::from(([198, 18, 0, 1], 80));
    let (mut peer, first) = internet.call(&with(), to);
    assert_eq!(first, Reply::default());
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: x\r\n\r\n");
    // However it is cut, the answer is the same.
    let mut all = Reply::default();
    for byte in request.as_bytes().chunks(7) {
        assert!(!all.closes);
        all = internet.hear(&mut peer, &with(), &Files, byte);
    }
    assert!(all.closes);
    (String::from_utf8_lossy(&all.bytes).into_owned(), all.said)
}

#[test]
fn web_servers_give_what_is_declared() {
    let (text, said) = get("pages.example", "/run.sh?x=1");
    assert!(
        text.starts_with("HTTP/1.1 200 OK\r\n") && text.ends_with("\r\n\r\n#!/bin/sh\n"),
        "{text}"
    );
    assert!(text.contains("Content-Length: 10\r\n"));
    let Some(Said::Requested { host, request }) = said.first() else {
        panic!("{said:?}")
    };
    assert_eq!(
        (host.as_str(), request.as_str()),
        ("pages.example", "GET http://pages.example/run.sh?x=1")
    );
    assert!(get("pages.example", "/none").0.starts_with("HTTP/1.1 404"));
    assert!(get("files.example", "/bot.mips").0.ends_with("\u{7f}ELF"));
    assert!(get("nobody.example", "/any").0.contains("It works"));
}

#[test]
fn a_peer_acts_by_its_script_and_others_listen() {
    let mut internet = Internet::default();
    let to = SocketAddr::from(([203, 0, 113, 5], 4444));
    let (mut peer, first) = internet.call(&with(), to);
    assert_eq!(first.bytes, b"hello\n");
    assert_eq!(
        internet.hear(&mut peer, &with(), &Files, b"rea"),
        Reply::default()
    );
    let answer = internet.hear(&mut peer, &with(), &Files, b"dy\n");
    assert!(answer.bytes == b"uname\n" && answer.closes);
    let (mut silent, first) = internet.call(&with(), SocketAddr::new(to.ip(), 23));
    assert_eq!(first, Reply::default());
    assert_eq!(
        internet.hear(
            &mut silent,
            &with(),
            &Files,
            b"\xff\xfd\x01GET / HTTP/1.0\r\n\r\n"
        ),
        Reply::default()
    );
}

#[test]
fn who_is_called_by_its_other_address_is_the_same() {
    let mut internet = Internet::default();
    let sixth = dns(&mut internet, "c2.example", TYPE::AAAA).1.unwrap();
    let (_, first) = internet.call(&with(), SocketAddr::new(sixth, 4444));
    assert_eq!(first.bytes, b"hello\n");
}

proptest! {
    #[test]
    fn no_bytes_are_too_much(port in prop_oneof![Just(80u16), Just(53), Just(4444), any::<u16>()], parts in prop::collection::vec(prop_oneof![
        prop::collection::vec(any::<u8>(), 0..200),
        Just(b"GET / HTTP/1.1\r\n".to_vec()),
        Just(b"Content-Length: 99999999999999999999\r\n\r\n".to_vec()),
        Just(vec![b'A'; 70_000]),
    ], 0..8)) {
        let mut internet = Internet::default();
        let to = SocketAddr::from(([203, 0, 113, 5], port));
        let (mut peer, _) = internet.call(&with(), to);
        for part in &parts {
            let reply = internet.hear(&mut peer, &with(), &Files, part);
            prop_assert!(reply.bytes.len() < 1 << 20);
            let _ = internet.datagram(&with(), to, part);
        }
    }
}
