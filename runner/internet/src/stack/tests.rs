//! A guest of another stack at the other end of the wire.

use std::net::{IpAddr, SocketAddr};

use hotcell_schema::internet::InternetWith;
use smoltcp::wire::{IpCidr, IpEndpoint};

use super::*;
use crate::{GATEWAY, GATEWAY_V6, GUEST, GUEST_V6};

struct Nothing;

impl Web for Nothing {
    fn file(&self, _: &str, _: &str) -> Option<Vec<u8>> {
        None
    }

    fn knows(&self, _: &str) -> bool {
        false
    }
}

struct Guest {
    wire: Wire,
    interface: Interface,
    sockets: SocketSet<'static>,
}

impl Guest {
    fn new() -> Self {
        let mut wire = Wire::default();
        let mut interface = Interface::new(Config::new(HardwareAddress::Ip), &mut wire, moment(0));
        interface.update_ip_addrs(|all| {
            all.push(IpCidr::new(GUEST.into(), 24)).unwrap();
            all.push(IpCidr::new(GUEST_V6.into(), 64)).unwrap();
        });
        interface.routes_mut().add_default_ipv4_route(GATEWAY).unwrap();
        interface.routes_mut().add_default_ipv6_route(GATEWAY_V6).unwrap();
        Self {
            wire,
            interface,
            sockets: SocketSet::new(Vec::new()),
        }
    }

    fn call(&mut self, to: SocketAddr, port: u16) -> SocketHandle {
        let buffer = || SocketBuffer::new(vec![0; 4096]);
        let mut socket = Socket::new(buffer(), buffer());
        let to = IpEndpoint::from(to);
        socket.connect(self.interface.context(), to, port).unwrap();
        self.sockets.add(socket)
    }

    fn socket(&mut self, handle: SocketHandle) -> &mut Socket<'static> {
        self.sockets.get_mut(handle)
    }

    /// Both sides do what they can for a while.
    fn talk(&mut self, stack: &mut Stack, world: World<'_>, from: u64) {
        for step in 0..64 {
            let now = from + step * 1_000_000;
            self.interface
                .poll(moment(now), &mut self.wire, &mut self.sockets);
            while let Some(packet) = self.wire.to_guest.pop_front() {
                stack.take(world, now, &packet);
            }
            stack.turn(world, now);
            while let Some(packet) = stack.give() {
                self.wire.to_us = Some(packet);
                self.interface
                    .poll(moment(now), &mut self.wire, &mut self.sockets);
            }
        }
    }
}

fn world(with: &InternetWith) -> World<'_> {
    World { with, web: &Nothing }
}

#[test]
fn whoever_is_called_answers_by_both_protocols_and_it_is_told_and_captured() {
    let with = InternetWith::default();
    let (mut stack, mut guest) = (Stack::new(1_000), Guest::new());
    let hosts: [IpAddr; 2] = ["198.51.100.7".parse().unwrap(), "2001:db8::7".parse().unwrap()];
    for (port, host) in (40_000..).zip(hosts) {
        let handle = guest.call(SocketAddr::new(host, 80), port);
        guest.talk(&mut stack, world(&with), 0);
        let request = b"GET /x HTTP/1.0\r\nHost: a.example\r\n\r\n";
        assert_eq!(guest.socket(handle).send_slice(request).unwrap(), request.len());
        guest.talk(&mut stack, world(&with), 100_000_000);
        let socket = guest.socket(handle);
        let text = socket.recv(|bytes| (bytes.len(), String::from_utf8_lossy(bytes).into_owned()));
        assert!(text.unwrap().starts_with("HTTP/1."), "{host}");
        assert!(!socket.may_recv(), "it has hung up");
        socket.close();
        guest.talk(&mut stack, world(&with), 200_000_000);
    }
    assert_eq!((stack.flows(), stack.dropped()), (0, 0));
    let (heard, capture) = stack.finish();
    let requests: Vec<_> = heard
        .iter()
        .filter_map(|heard| heard.what.request.as_deref())
        .collect();
    assert_eq!(requests, ["GET http://a.example/x"; 2]);
    assert!(capture.windows(7).any(|part| part == b"GET /x "));
}

#[test]
fn who_calls_too_often_is_not_answered_and_who_hangs_up_makes_room() {
    let with = InternetWith::default();
    let (mut stack, mut guest) = (Stack::new(0), Guest::new());
    let to = SocketAddr::new(GATEWAY.into(), 9);
    let calls: Vec<_> = (0..MAX_FLOWS as u16 + 5)
        .map(|index| guest.call(to, 20_000 + index))
        .collect();
    // Half a second: nobody asks again yet.
    for from in 0..4 {
        guest.talk(&mut stack, world(&with), from * 64_000_000);
    }
    assert_eq!(stack.flows(), MAX_FLOWS);
    assert!(stack.dropped() >= 5, "{}", stack.dropped());
    for handle in calls.iter().take(100) {
        guest.socket(*handle).abort();
    }
    guest.talk(&mut stack, world(&with), 300_000_000);
    assert!(stack.flows() <= MAX_FLOWS - 95, "{}", stack.flows());
}

#[test]
fn what_is_no_packet_is_counted_and_a_damaged_call_leaves_nobody_behind() {
    let with = InternetWith::default();
    let (mut stack, mut guest) = (Stack::new(0), Guest::new());
    guest.call(SocketAddr::new(GATEWAY.into(), 80), 30_000);
    guest
        .interface
        .poll(moment(0), &mut guest.wire, &mut guest.sockets);
    let packet = guest.wire.to_guest.pop_front().unwrap();
    let mut damaged = packet.clone();
    *damaged.last_mut().unwrap() ^= 0xff;
    stack.take(world(&with), 0, &damaged);
    assert_eq!(stack.flows(), 0);
    for length in 0..packet.len() {
        stack.take(world(&with), 0, &packet[..length]);
        assert_eq!(stack.flows(), 0, "{length}");
    }
    stack.take(world(&with), 0, &[0x45; 2 * MTU]);
    assert!(stack.dropped() >= 1);
    stack.take(world(&with), 0, &packet);
    assert_eq!(stack.flows(), 1);
}
