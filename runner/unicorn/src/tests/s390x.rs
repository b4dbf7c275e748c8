//! Instructions of s390x with chance's operands, held against what the z/Architecture Principles of Operation (SA22-7832, chapter 7)
//! say of them: ROTATE THEN … SELECTED BITS in all their forms, and the condition codes of signed sums.

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

/// A machine with a page for code.
fn machine() -> UnicornMachine<'static> {
    let shape = Rc::new(Shape::new(&profile("s390x")).expect("the profile suits"));
    let mut machine =
        UnicornMachine::new(&shape, Rc::default(), crate::quirks::Privilege::User).expect("an instance");
    crate::driver::tests::stop_at_calls(&mut machine);
    machine.map(CODE, 0x1000, Protection(5)).expect("mapped");
    machine
}

/// Writes the code of each case, which has 16 bytes, and runs it: `%r1`, and the condition code that it left.
fn run(machine: &mut UnicornMachine<'_>, cases: &[(Vec<u8>, u64, u64)]) -> Vec<(u64, u64)> {
    let [ones, first, second, after] =
        ["r0", "r1", "r2", "r4"].map(|name| machine.register(name).expect("a register"));
    let code = cases.iter().flat_map(|(instruction, _, _)| {
        // tmll %r0,-1 (sets 3); the instruction; ipm %r4; svc 1; nothing
        let mut code = [
            &[0xa7, 0x01, 0xff, 0xff],
            instruction.as_slice(),
            &[0xb2, 0x22, 0x00, 0x40, 0x0a, 0x01],
        ]
        .concat();
        code.resize(16, 0);
        code
    });
    machine.write(CODE, &code.collect::<Vec<u8>>()).expect("written");
    let each = (CODE..).step_by(16).zip(cases).map(|(at, (_, one, two))| {
        machine.set(ones, !0);
        machine.set(first, *one);
        machine.set(second, *two);
        machine.jump(at);
        assert_eq!(machine.run(), Ended::Asked);
        // INSERT PROGRAM MASK: bits 34 and 35.
        (machine.get(first), machine.get(after) >> 28 & 3)
    });
    each.collect()
}

#[test]
fn bits_are_rotated_and_inserted_as_they_must() {
    if !crate::identity::is_patched() {
        eprintln!("SKIPPED: this build links the plain Unicorn library, which cannot");
        return;
    }
    let mut machine = machine();
    let mut chance = Chance(0x5eed);
    let mut wrong = Vec::new();
    for (name, last, operation) in OPERATIONS {
        for _ in 0..8 {
            let immediates: Vec<[u8; 3]> = (0..256)
                .map(|_| chance.number().to_be_bytes())
                .map(|[a, b, c, ..]| [a, b, c])
                .collect();
            let cases: Vec<(Vec<u8>, u64, u64)> = immediates
                .iter()
                .map(|[from, to, turn]| {
                    let code = vec![0xec, 0x12, *from, *to, *turn, last];
                    (code, chance.operand(), chance.operand())
                })
                .collect();
            for (((_, one, two), immediates), found) in
                cases.iter().zip(&immediates).zip(run(&mut machine, &cases))
            {
                let wanted = operation.done(*one, *two, *immediates);
                if found != wanted {
                    wrong.push(format!(
                        "{name} {one:#x},{two:#x},{immediates:x?}: {found:x?}, not {wanted:x?}"
                    ));
                }
            }
        }
    }
    let some = wrong.iter().take(20).cloned().collect::<Vec<_>>().join("\n");
    assert!(wrong.is_empty(), "{} wrong, among them:\n{some}", wrong.len());
}

/// The condition code of a sum, and its value: 3 where it does not fit.
fn signed(sum: Option<i64>, wrapped: i64) -> u64 {
    match (sum, wrapped) {
        (None, _) => 3,
        (_, 0) => 0,
        (_, ..0) => 1,
        (_, 1..) => 2,
    }
}

#[test]
fn sums_that_do_not_fit_say_so() {
    if !crate::identity::is_patched() {
        eprintln!("SKIPPED: this build links the plain Unicorn library, which cannot");
        return;
    }
    let mut machine = machine();
    let numbers = [0, 1, -1, 2, i64::MIN, i64::MIN + 1, i64::MAX, i64::MAX - 1];
    let numbers = || numbers.iter().copied();
    let pairs: Vec<(i64, i64)> = numbers()
        .flat_map(|one| numbers().map(move |two| (one, two)))
        .collect();
    type Sum = fn(i64, i64) -> (Option<i64>, i64);
    let sums: [(&[u8], Sum); 2] = [
        (&[0xb9, 0x08, 0x00, 0x12], |a, b| {
            (a.checked_add(b), a.wrapping_add(b))
        }), // agr %r1,%r2
        (&[0xb9, 0x09, 0x00, 0x12], |a, b| {
            (a.checked_sub(b), a.wrapping_sub(b))
        }), // sgr %r1,%r2
    ];
    for (code, sum) in sums {
        let cases: Vec<_> = pairs
            .iter()
            .map(|(a, b)| (code.to_vec(), *a as u64, *b as u64))
            .collect();
        for ((one, two), found) in pairs.iter().zip(run(&mut machine, &cases)) {
            let (fits, wrapped) = sum(*one, *two);
            assert_eq!(
                found,
                (wrapped as u64, signed(fits, wrapped)),
                "{code:x?} {one},{two}"
            );
        }
    }
    // Of 32 bits: the same numbers' upper halves.
    let half = |number: i64| (number >> 32) as i32;
    type Half = fn(i32, i32) -> (Option<i32>, i32);
    let sums: [(&[u8], Half); 2] = [
        (&[0x1a, 0x12], |a, b| (a.checked_add(b), a.wrapping_add(b))), // ar %r1,%r2
        (&[0x1b, 0x12], |a, b| (a.checked_sub(b), a.wrapping_sub(b))), // sr %r1,%r2
    ];
    for (code, sum) in sums {
        let low = |number: i64| u64::from(half(number) as u32);
        let cases: Vec<_> = pairs
            .iter()
            .map(|(a, b)| (code.to_vec(), low(*a), low(*b)))
            .collect();
        for ((one, two), found) in pairs.iter().zip(run(&mut machine, &cases)) {
            let (fits, wrapped) = sum(half(*one), half(*two));
            let wanted = (
                u64::from(wrapped as u32),
                signed(fits.map(i64::from), i64::from(wrapped)),
            );
            assert_eq!(found, wanted, "{code:x?} {one:#x},{two:#x}");
        }
    }
}
