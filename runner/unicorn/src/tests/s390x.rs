//! ROTATE THEN … SELECTED BITS of s390x in all their forms, with chance's operands, held against what the z/Architecture Principles
//! of Operation (SA22-7832, chapter 7) say of them.

use std::rc::Rc;

use hotcell_kernel::machine::{Machine, Protection};

use super::{CODE, profile};
use crate::{
    machine::{Ended, UnicornMachine},
    shape::Shape,
};

/// One of the instructions.
#[derive(Debug, Clone, Copy)]
enum Operation {
    /// Inserts into the bits of a half, or into all, and sets the condition code or does not.
    Insert { into: u64, sets: bool },
    /// Combines bits.
    Combine(fn(u64, u64) -> u64),
}
use Operation::{Combine, Insert};

const HIGH: u64 = 0xffff_ffff_0000_0000;
/// Name, last byte of its code, what it does.
const OPERATIONS: [(&str, u8, Operation); 7] = [
    ("risbg", 0x55, Insert { into: !0, sets: true }),
    (
        "risbgn",
        0x59,
        Insert {
            into: !0,
            sets: false,
        },
    ),
    (
        "risbhg",
        0x5d,
        Insert {
            into: HIGH,
            sets: false,
        },
    ),
    (
        "risblg",
        0x51,
        Insert {
            into: !HIGH,
            sets: false,
        },
    ),
    ("rnsbg", 0x54, Combine(|a, b| a & b)),
    ("rosbg", 0x56, Combine(|a, b| a | b)),
    ("rxsbg", 0x57, Combine(|a, b| a ^ b)),
];

/// The condition code that is there before: none of these sets it.
const BEFORE: u64 = 3;
/// Bit 0 of I3, where bits are combined: only the condition code is set. Of I4, where bits are inserted: the others become 0.
const FLAG: u8 = 0x80;

/// The bits from one to another, counted from the left, round the end of the half that they are counted in.
fn selected(into: u64, from: u8, to: u8) -> u64 {
    let (width, start) = match into {
        HIGH => (32, 0),
        0xffff_ffff => (32, 32),
        _ => (64, 0),
    };
    let (from, to) = (u32::from(from) % width, u32::from(to) % width);
    let inside = |bit: &u32| match from <= to {
        true => (from..=to).contains(bit),
        false => *bit >= from || *bit <= to,
    };
    let bits = (0..width).filter(inside);
    bits.map(|bit| 1 << (63 - start - bit)).sum()
}

impl Operation {
    /// The first operand and the condition code after it.
    fn done(self, first: u64, second: u64, [from, to, turn]: [u8; 3]) -> (u64, u64) {
        let turned = second.rotate_left(u32::from(turn) % 64);
        match self {
            Insert { into, sets } => {
                let selected = selected(into, from, to);
                let kept = if to & FLAG == 0 { !selected } else { !into };
                let result = first & kept | turned & selected;
                let code = match result as i64 {
                    0 => 0,
                    ..0 => 1,
                    1.. => 2,
                };
                (result, if sets { code } else { BEFORE })
            }
            Combine(combine) => {
                let selected = selected(!0, from, to);
                let result = first & !selected | combine(first, turned) & selected;
                let code = u64::from(result & selected != 0);
                (if from & FLAG == 0 { result } else { first }, code)
            }
        }
    }
}

/// Numbers of chance: xorshift64 (Marsaglia, "Xorshift RNGs", 2003).
struct Chance(u64);

impl Chance {
    fn number(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// An operand: anything, or what is near to 0.
    fn operand(&mut self) -> u64 {
        match self.number() % 4 {
            0 => self.number() % 3,
            1 => !(self.number() % 3),
            _ => self.number(),
        }
    }
}

#[test]
fn bits_are_rotated_and_inserted_as_they_must() {
    if !crate::identity::is_patched() {
        eprintln!("SKIPPED: this build links the plain Unicorn library, which cannot");
        return;
    }
    let shape = Rc::new(Shape::new(&profile("s390x")).expect("the profile suits"));
    let mut machine = UnicornMachine::new(&shape, Rc::default()).expect("an instance");
    crate::driver::tests::stop_at_calls(&mut machine);
    machine.map(CODE, 0x1000, Protection(5)).expect("mapped");
    let [ones, first, second, after] =
        ["r0", "r1", "r2", "r4"].map(|name| machine.register(name).expect("a register"));
    let mut chance = Chance(0x5eed);
    let mut wrong = Vec::new();
    for (name, last, operation) in OPERATIONS {
        for _ in 0..8 {
            let cases: Vec<[u8; 3]> = (0..256)
                .map(|_| chance.number().to_be_bytes())
                .map(|[a, b, c, ..]| [a, b, c])
                .collect();
            let code = cases.iter().flat_map(|[from, to, turn]| {
                // tmll %r0,-1 (sets 3); the instruction; ipm %r4; svc 1
                let code = [
                    0xa7, 0x01, 0xff, 0xff, 0xec, 0x12, *from, *to, *turn, last, 0xb2, 0x22, 0x00, 0x40,
                    0x0a, 0x01,
                ];
                code
            });
            machine.write(CODE, &code.collect::<Vec<u8>>()).expect("written");
            for (at, case) in (CODE..).step_by(16).zip(&cases) {
                let (one, two) = (chance.operand(), chance.operand());
                machine.set(ones, !0);
                machine.set(first, one);
                machine.set(second, two);
                machine.jump(at);
                assert_eq!(machine.run(), Ended::Asked);
                // INSERT PROGRAM MASK: bits 34 and 35.
                let found = (machine.get(first), machine.get(after) >> 28 & 3);
                let wanted = operation.done(one, two, *case);
                if found != wanted {
                    wrong.push(format!(
                        "{name} {one:#x},{two:#x},{case:x?}: {found:x?}, not {wanted:x?}"
                    ));
                }
            }
        }
    }
    let some = wrong.iter().take(20).cloned().collect::<Vec<_>>().join("\n");
    assert!(wrong.is_empty(), "{} wrong, among them:\n{some}", wrong.len());
}
