//! What a guest of the host's Linux puts on its wire: frames, cut anywhere.

#![no_main]

use hotcell_internet::link::{self, Arrival};
use hotcell_internet::packet::MTU;
use hotcell_internet::stack::{Stack, World};
use hotcell_internet::Web;
use hotcell_schema::internet::InternetWith;
use libfuzzer_sys::fuzz_target;

struct Nothing;

impl Web for Nothing {
    fn file(&self, _: &str, _: &str) -> Option<Vec<u8>> {
        None
    }

    fn knows(&self, _: &str) -> bool {
        false
    }
}

fuzz_target!(|data: &[u8]| {
    let with = InternetWith::default();
    let world = World { with: &with, web: &Nothing };
    let mut stack = Stack::new(0);
    let (mut now, mut rest) = (0, data);
    // Two bytes before each frame: its length, and milliseconds until it comes.
    while let [length, wait, after @ ..] = rest {
        let (frame, left) = after.split_at(usize::from(*length).min(after.len()));
        rest = left;
        now += u64::from(*wait) * 1_000_000;
        match link::arrive(frame) {
            Arrival::Packet(packet) => stack.take(world, now, packet),
            Arrival::Answer(answer) => assert!(answer.len() <= link::HEADER + MTU),
            Arrival::Nothing => {}
        }
        stack.turn(world, now);
        while let Some(packet) = stack.give() {
            assert!(packet.len() <= MTU);
            let _ = link::frame(&packet);
        }
    }
    assert!(stack.flows() <= 1024);
    let (heard, capture) = stack.finish();
    assert!(heard.len() < 1 << 16 && capture.len() < 64 << 20);
});
