//! What the kernel relies on: protections, translations, saved registers, jumps, thread pointers.

use std::rc::Rc;

use hotcell_kernel::machine::{Machine, Protection, Trap};
use hotcell_schema::outcome::FaultKind;

use super::{CODE, DATA, profile};
use crate::{
    machine::{Ended, Stop, UnicornMachine},
    shape::Shape,
};

/// Architecture; code that adds one to the register with the result and makes a system call, forever.
const LOOPS: &[(&str, &str)] = &[
    // inc %rax; syscall; jmp
    ("x86_64", "48ffc00f05ebf9"),
    // inc %eax; int $0x80; jmp
    ("x86", "40cd80ebfb"),
    // add r0,r0,#1; svc 0; b
    ("arm", "010080e2000000effcffffea"),
    ("armeb", "010080e2000000effcffffea"),
    // add x0,x0,#1; svc #0; b
    ("aarch64", "00040091010000d4feffff17"),
    // addiu v0,v0,1; syscall; b; nop
    ("mips", "244200010000000c1000fffd00000000"),
    ("mipsel", "010042240c000000fdff001000000000"),
    ("mips64", "244200010000000c1000fffd00000000"),
    ("mips64el", "010042240c000000fdff001000000000"),
    // addi 3,3,1; sc; b
    ("ppc", "38630001440000024bfffff8"),
    ("ppc64", "38630001440000024bfffff8"),
    ("ppc64le", "0100633802000044f8ffff4b"),
    // addi a0,a0,1; ecall; j
    ("riscv64", "13051500730000006ff09fff"),
    // aghi %r2,1; svc 1; j
    ("s390x", "a72b00010a01a7f4fffd"),
];

fn bytes(text: &str) -> Vec<u8> {
    hex::decode(text.replace(' ', "")).expect("hexadecimal")
}

/// A machine with `code` at [`CODE`] and a page at [`DATA`], which stops at every system call.
fn machine(arch: &str, code: &[u8]) -> UnicornMachine<'static> {
    let profile = profile(arch);
    let shape = Rc::new(Shape::new(&profile).expect("the profile suits"));
    let mut machine =
        UnicornMachine::new(&shape, Rc::default(), crate::quirks::Privilege::User).expect("an instance");
    crate::driver::tests::stop_at_calls(&mut machine);
    machine.map(CODE, 0x1000, Protection(5)).expect("mapped");
    machine.map(DATA, 0x1000, Protection::READ_WRITE).expect("mapped");
    machine.write(CODE, code).expect("written");
    machine.jump(CODE);
    machine
}

fn result(machine: &UnicornMachine<'_>, arch: &str) -> u64 {
    let name = profile(arch).abi.result;
    machine.get(machine.register(&name).expect("a register"))
}

#[test]
fn system_calls_stop_behind_the_instruction_and_go_on() {
    for (arch, code) in LOOPS {
        let mut machine = machine(arch, &bytes(code));
        for round in 1..=5 {
            assert_eq!(machine.run(), Ended::Asked, "{arch}");
            assert_eq!(result(&machine, arch), round, "{arch}");
            let pc = machine.program_counter();
            assert!(pc > CODE && pc < CODE + 12, "{arch}: {pc:#x}");
        }
    }
}

#[test]
fn registers_move_to_another_instance() {
    for (arch, code) in LOOPS {
        let code = bytes(code);
        let mut first = machine(arch, &code);
        for _ in 0..3 {
            first.run();
        }
        let saved = first.save().expect("saved");
        let mut second = machine(arch, &code);
        second.restore(&saved).expect("restored");
        assert_eq!(second.program_counter(), first.program_counter(), "{arch}");
        assert_eq!(second.run(), Ended::Asked, "{arch}");
        assert_eq!(result(&second, arch), 4, "{arch}");
        first.run();
        first.run();
        assert_eq!(result(&first, arch), 5, "{arch}");
        first.restore(&saved).expect("restored");
        assert_eq!(result(&first, arch), 3, "{arch}");
        second.reset_registers().expect("reset");
        assert_eq!(result(&second, arch), 0, "{arch}");
        drop(first);
        drop(saved);
        second.jump(CODE);
        assert_eq!(second.run(), Ended::Asked, "{arch}");
    }
}

#[test]
fn overwritten_and_unmapped_code_is_not_run_again() {
    for (arch, code) in LOOPS {
        if (*arch == "s390x" || arch.starts_with("mips")) && !crate::identity::is_patched() {
            eprintln!("SKIPPED on {arch}: this build links the plain Unicorn library, which cannot");
            continue;
        }
        let code = bytes(code);
        let mut machine = machine(arch, &code);
        machine.run();
        machine.run();
        // The first instruction becomes a copy of the second: the sum stands still.
        let pc = machine.program_counter();
        let call = match *arch {
            "x86_64" | "x86" | "s390x" => 2,
            _ => 4,
        };
        let start = (pc - CODE) as usize - call;
        let mut nops = code.get(start..start + call).expect("inside").to_vec();
        if start < call {
            nops = vec![0x90; start];
        } else if start > call {
            nops = nops.repeat(start / call);
            nops.resize(start, 0x90);
        }
        machine.write(CODE, &nops).expect("written");
        machine.run();
        assert_eq!(result(&machine, arch), 2, "{arch}");
        machine.unmap(CODE, 0x1000).expect("unmapped");
        let ended = machine.run();
        assert!(
            matches!(
                ended,
                Ended::Trap(Trap {
                    kind: FaultKind::FetchUnmapped,
                    ..
                })
            ),
            "{arch}: {ended:?}"
        );
        // Other memory at the same address: nothing of the old code is found again.
        machine.map(CODE, 0x1000, Protection(5)).expect("mapped");
        machine.write(CODE, &code).expect("written");
        machine.jump(CODE);
        assert_eq!(machine.run(), Ended::Asked, "{arch}");
        assert_eq!(result(&machine, arch), 3, "{arch}");
    }
}

#[test]
fn protections_hold_and_can_change() {
    for (arch, code) in LOOPS {
        if (*arch == "s390x" || arch.starts_with("mips")) && !crate::identity::is_patched() {
            eprintln!("SKIPPED on {arch}: this build links the plain Unicorn library");
            continue;
        }
        let mut machine = machine(arch, &bytes(code));
        machine.run();
        machine
            .protect(CODE, 0x1000, Protection::READ)
            .expect("protected");
        let ended = machine.run();
        assert!(
            matches!(
                ended,
                Ended::Trap(Trap {
                    kind: FaultKind::FetchProtected,
                    ..
                })
            ),
            "{arch}: {ended:?}"
        );
        machine.protect(CODE, 0x1000, Protection(5)).expect("protected");
        assert_eq!(machine.run(), Ended::Asked, "{arch}");
        assert_eq!(result(&machine, arch), 2, "{arch}");
    }
}

#[test]
fn blocks_are_counted_and_stop_exactly() {
    for (arch, code) in LOOPS {
        let run = || {
            let mut machine = machine(arch, &bytes(code));
            let counts = Rc::clone(&machine.uc.get_data().counts);
            machine.run();
            machine.count_blocks().expect("counting");
            let mut seen = Vec::new();
            for budget in [1, 1, 2, 3, 5, 1] {
                counts.budget.set(budget);
                let mut ends = Vec::new();
                while let Ended::Asked = machine.run() {
                    ends.push(result(&machine, arch));
                }
                seen.push((counts.blocks.take(), counts.instructions.take(), ends));
            }
            seen
        };
        let first = run();
        assert_eq!(first, run(), "{arch}");
        let blocks: Vec<u64> = first.iter().map(|(blocks, _, _)| *blocks).collect();
        assert_eq!(blocks, [1, 1, 2, 3, 5, 1], "{arch}: {first:?}");
        assert!(
            first
                .iter()
                .all(|(blocks, instructions, _)| instructions >= blocks),
            "{arch}: {first:?}"
        );
    }
}

#[test]
fn jumps_in_and_outside_of_hooks() {
    // `stop_at_calls` takes a break-less path when told to jump: the call goes on at the start.
    for (arch, code) in LOOPS {
        let mut machine = machine(arch, &bytes(code));
        assert_eq!(machine.run(), Ended::Asked, "{arch}");
        machine.jump(CODE);
        assert_eq!(machine.program_counter(), CODE, "{arch}");
        assert_eq!(machine.run(), Ended::Asked, "{arch}");
        assert_eq!(result(&machine, arch), 2, "{arch}");
        assert_eq!(machine.uc.get_data().stop, None::<Stop>, "{arch}");
    }
}

#[test]
fn thread_pointers_reach_the_guest() {
    // Architecture, code that moves the thread pointer into the result register and makes a call.
    let cases = [
        // mov %fs:0,%rax; syscall (a load: the value at the base)
        ("x86_64", "64488b0425000000000f05"),
        // mov $0x63,%eax; mov %eax,%gs; mov %gs:0,%eax; int $0x80
        ("x86", "b8630000008ee865a100000000cd80"),
        // mrc p15,0,r0,c13,c0,3; svc 0
        ("arm", "700f1dee000000ef"),
        // mrs x0,tpidr_el0; svc 0
        ("aarch64", "40d03bd5010000d4"),
        // rdhwr v0,$29; syscall
        ("mipsel", "3be8027c0c000000"),
        ("mips64", "7c02e83b0000000c"),
    ];
    for (arch, code) in cases {
        let mut machine = machine(arch, &bytes(code));
        machine.set_thread_pointer(DATA);
        machine.write(DATA, &DATA.to_le_bytes()).expect("written");
        assert_eq!(machine.run(), Ended::Asked, "{arch}");
        assert_eq!(result(&machine, arch), DATA, "{arch}");
    }
}

/// 32-bit x86: the descriptor stands in memory, but goes with the thread, into a copy and between threads.
#[test]
fn a_thread_keeps_its_descriptor() {
    // mov $0x63,%eax; mov %eax,%gs; mov %gs:0,%eax; int $0x80
    let code = bytes("b8630000008ee865a100000000cd80");
    let mut first = machine("x86", &code);
    let mut copy = machine("x86", &code);
    let places = [DATA, DATA + 16].map(|place| {
        for machine in [&mut first, &mut copy] {
            machine.write(place, &place.to_le_bytes()).expect("written");
        }
        first.set_thread_pointer(place);
        (place, first.save().expect("saved"))
    });
    for (place, saved) in &places {
        for machine in [&mut first, &mut copy] {
            machine.restore(saved).expect("restored");
            machine.jump(CODE);
            assert_eq!(machine.run(), Ended::Asked);
            assert_eq!(result(machine, "x86"), *place);
        }
    }
}

#[test]
fn arm_has_the_kernels_helpers() {
    // r0 = old, r1 = new, r2 = where: ldr r3,=0xffff0fc0; blx r3; svc 0
    let code = bytes("0f3be0e3 3f30c3e3 33ff2fe1 000000ef");
    for (old, done, left) in [(7u64, 0u64, 9u32), (8, 1, 7)] {
        let mut machine = machine("arm", &code);
        machine.write(DATA, &7u32.to_le_bytes()).expect("written");
        for (name, value) in [("r0", old), ("r1", 9), ("r2", DATA)] {
            let register = machine.register(name).expect("a register");
            machine.set(register, value);
        }
        // mvn r3,#0x3c00 … is not the address on all encodings: set it.
        let r3 = machine.register("r3").expect("a register");
        machine.jump(CODE + 8);
        machine.set(r3, 0xffff_0fc0);
        assert_eq!(machine.run(), Ended::Asked);
        assert_eq!(u64::from(result(&machine, "arm") != 0), done);
        let mut bytes = [0; 4];
        machine.read(DATA, &mut bytes).expect("read");
        assert_eq!(u32::from_le_bytes(bytes), left);
    }
}

/// Behind a system call, so that a stale program counter would show.
#[test]
fn exceptions_keep_their_own_address() {
    // A system call, then a breakpoint instruction.
    let cases = [
        ("x86_64", "0f05cc", 2),
        ("arm", "000000ef700020e1", 4),
        ("aarch64", "010000d4000020d4", 4),
        ("mips", "0000000c0000000d", 4),
        ("mipsel", "0c0000000d000000", 4),
        ("mips64", "0000000c0000000d", 4),
        ("riscv64", "7300000073001000", 4),
    ];
    for (arch, code, offset) in cases {
        if arch.starts_with("mips") && !crate::identity::is_patched() {
            eprintln!("SKIPPED on {arch}: this build links the plain Unicorn library");
            continue;
        }
        let mut machine = machine(arch, &bytes(code));
        assert_eq!(machine.run(), Ended::Asked, "{arch}");
        let ended = machine.run();
        assert!(
            matches!(
                ended,
                Ended::Trap(Trap {
                    kind: FaultKind::Breakpoint,
                    ..
                })
            ),
            "{arch}: {ended:?}"
        );
        assert_eq!(machine.program_counter(), CODE + offset, "{arch}");
    }
}
