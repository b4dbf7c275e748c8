//! The least that runs a static Linux program on Unicorn: `emu_start` with only a system call hook.
//!
//! It is what `make bench` holds `unicorn/linux` against: `bare PROGRAM ARGUMENT... < input`. No kernel, no events, no
//! confinement, no determinism; it knows the handful of calls that `busybox sha256sum` makes and answers the rest
//! with ENOSYS. Architectures: x86_64, aarch64, arm, mipsel.
#![allow(missing_docs, clippy::print_stderr, clippy::unwrap_used, unsafe_code)]

use std::{
    cell::RefCell,
    io::{Read, Write},
    rc::Rc,
};

use unicorn_engine::{
    Arch, Mode, Prot, RegisterARM, RegisterARM64, RegisterMIPS, RegisterX86, Unicorn, X86Insn,
};

const PAGE: u64 = 0x1000;

/// What the architectures differ in.
struct Machine {
    arch: Arch,
    mode: Mode,
    wide: bool,
    number: i32,
    arguments: [i32; 6],
    result: i32,
    stack: i32,
    thread: i32,
    mips: bool,
    /// Numbers of read, write, brk, mmap, exit_group, set the thread pointer (0: none of its own), uname,
    /// mprotect.
    calls: [u64; 8],
}

fn machine(elf_machine: u16) -> Option<Machine> {
    use {RegisterARM as A, RegisterARM64 as A64, RegisterMIPS as M, RegisterX86 as X};
    Some(match elf_machine {
        62 => Machine {
            arch: Arch::X86,
            mode: Mode::MODE_64,
            wide: true,
            number: X::RAX as i32,
            arguments: [X::RDI, X::RSI, X::RDX, X::R10, X::R8, X::R9].map(|register| register as i32),
            result: X::RAX as i32,
            stack: X::RSP as i32,
            thread: X::FS_BASE as i32,
            mips: false,
            calls: [0, 1, 12, 9, 231, 158, 63, 10],
        },
        183 => Machine {
            arch: Arch::ARM64,
            mode: Mode::ARM,
            wide: true,
            number: A64::X8 as i32,
            arguments: [A64::X0, A64::X1, A64::X2, A64::X3, A64::X4, A64::X5].map(|register| register as i32),
            result: A64::X0 as i32,
            stack: A64::SP as i32,
            thread: A64::TPIDR_EL0 as i32,
            mips: false,
            calls: [63, 64, 214, 222, 94, 0, 160, 226],
        },
        40 => Machine {
            arch: Arch::ARM,
            mode: Mode::ARM,
            wide: false,
            number: A::R7 as i32,
            arguments: [A::R0, A::R1, A::R2, A::R3, A::R4, A::R5].map(|register| register as i32),
            result: A::R0 as i32,
            stack: A::SP as i32,
            thread: A::C13_C0_3 as i32,
            mips: false,
            calls: [3, 4, 45, 192, 248, 0xf0005, 122, 125],
        },
        8 => Machine {
            arch: Arch::MIPS,
            mode: Mode::MIPS32,
            wide: false,
            number: M::R2 as i32,
            arguments: [M::R4, M::R5, M::R6, M::R7, M::R4, M::R4].map(|register| register as i32),
            result: M::R2 as i32,
            stack: M::R29 as i32,
            thread: M::CP0_USERLOCAL as i32,
            mips: true,
            calls: [4003, 4004, 4045, 4210, 4246, 4283, 4122, 4125],
        },
        _ => return None,
    })
}

struct State {
    input: Vec<u8>,
    at: usize,
    brk: u64,
    mapped: u64,
    top: u64,
    code: Option<i32>,
}

fn up(value: u64) -> u64 {
    (value + PAGE - 1) & !(PAGE - 1)
}

fn call(uc: &mut Unicorn<'_, ()>, machine: &Machine, state: &RefCell<State>) {
    let mut state = state.borrow_mut();
    let get = |uc: &Unicorn<'_, ()>, register: i32| uc.reg_read(register).unwrap();
    let number = get(uc, machine.number);
    let [a, b, c] = [0, 1, 2].map(|index| get(uc, machine.arguments[index]));
    let [read, write, brk, mmap, exit, thread, uname, mprotect] = machine.calls;
    let result: i64 = if number == read && a == 0 {
        let rest = state.input.get(state.at..).unwrap_or_default();
        let part = &rest[..rest.len().min(c as usize)];
        uc.mem_write(b, part).unwrap();
        let length = part.len();
        state.at += length;
        length as i64
    } else if number == write {
        let bytes = uc.mem_read_as_vec(b, c as usize).unwrap();
        if a == 1 {
            std::io::stdout().write_all(&bytes).unwrap();
        } else {
            std::io::stderr().write_all(&bytes).unwrap();
        }
        c as i64
    } else if number == brk {
        if a > state.brk {
            if up(a) > state.mapped {
                uc.mem_map(state.mapped, up(a) - state.mapped, Prot::ALL).unwrap();
                state.mapped = up(a);
            }
            state.brk = a;
        }
        state.brk as i64
    } else if number == mmap {
        state.top -= up(b);
        uc.mem_map(state.top, up(b), Prot::ALL).unwrap();
        state.top as i64
    } else if number == exit {
        state.code = Some(a as i32);
        uc.emu_stop().unwrap();
        0
    } else if number == thread {
        let value = if machine.arch == Arch::X86 { b } else { a };
        uc.reg_write(machine.thread, value).unwrap();
        0
    } else if number == uname {
        let mut text = vec![0; 65 * 6];
        text[130..133].copy_from_slice(b"6.1");
        uc.mem_write(a, &text).unwrap();
        0
    } else if number == mprotect {
        0
    } else {
        -38
    };
    if machine.mips {
        let failed = (-4095..0).contains(&result);
        uc.reg_write(RegisterMIPS::R7 as i32, u64::from(failed)).unwrap();
        uc.reg_write(machine.result, if failed { -result } else { result } as u64)
            .unwrap();
    } else {
        uc.reg_write(machine.result, result as u64).unwrap();
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let file = std::fs::read(arguments.first().expect("bare PROGRAM ARGUMENT...")).unwrap();
    let half = |at: usize| u16::from_le_bytes(file[at..at + 2].try_into().unwrap());
    let word = |at: usize| u64::from(u32::from_le_bytes(file[at..at + 4].try_into().unwrap()));
    let machine = Rc::new(machine(half(18)).expect("x86_64, aarch64, arm or mipsel"));
    let wide = machine.wide;
    let number = |at: usize| {
        if wide {
            word(at) | word(at + 4) << 32
        } else {
            word(at)
        }
    };

    let mut uc = Unicorn::new(machine.arch, machine.mode).unwrap();
    match machine.arch {
        Arch::X86 => {
            uc.reg_write(RegisterX86::FPCW as i32, 0x37f).unwrap();
            uc.reg_write(RegisterX86::MXCSR as i32, 0x1f80).unwrap();
        }
        Arch::ARM64 => uc.reg_write(RegisterARM64::CPACR_EL1 as i32, 3 << 20).unwrap(),
        Arch::ARM => {
            uc.reg_write(RegisterARM::C1_C0_2 as i32, 0xf << 20).unwrap();
            uc.reg_write(RegisterARM::FPEXC as i32, 1 << 30).unwrap();
            // Helper page: compare-and-exchange and thread pointer are all that this busybox calls.
            uc.mem_map(0xffff_0000, PAGE, Prot::ALL).unwrap();
            let words: [(u64, &[u32]); 3] = [
                (0xfa0, &[0xe12f_ff1e]),
                (
                    0xfc0,
                    &[
                        0xe592_c000,
                        0xe15c_0000,
                        0x0582_1000,
                        0x03a0_0000,
                        0x13a0_0001,
                        0x1370_0000,
                        0xe12f_ff1e,
                    ],
                ),
                (0xfe0, &[0xee1d_0f70, 0xe12f_ff1e]),
            ];
            for (at, code) in words {
                let bytes: Vec<u8> = code.iter().flat_map(|word| word.to_le_bytes()).collect();
                uc.mem_write(0xffff_0000 + at, &bytes).unwrap();
            }
        }
        _ => {
            let status = uc.reg_read(RegisterMIPS::CP0_STATUS as i32).unwrap();
            uc.reg_write(RegisterMIPS::CP0_STATUS as i32, status | 1 << 29)
                .unwrap();
        }
    }

    // Program headers: System V ABI, chapter 5.
    let (entry, table, size, count) = if wide {
        (number(24), number(32), half(54), half(56))
    } else {
        (number(24), number(28), half(42), half(44))
    };
    let (mut first, mut last) = (u64::MAX, 0);
    let mut segments = Vec::new();
    for index in 0..usize::from(count) {
        let at = table as usize + index * usize::from(size);
        if word(at) == 1 {
            let (offset, address, in_file, in_memory) = if wide {
                (number(at + 8), number(at + 16), number(at + 32), number(at + 40))
            } else {
                (number(at + 4), number(at + 8), number(at + 16), number(at + 20))
            };
            first = first.min(address & !(PAGE - 1));
            last = last.max(up(address + in_memory));
            segments.push((offset as usize, address, in_file as usize));
        }
    }
    uc.mem_map(first, last - first, Prot::ALL).unwrap();
    let header = segments
        .iter()
        .find(|segment| segment.0 == 0)
        .map_or(first, |segment| segment.1);
    for (offset, address, length) in segments {
        uc.mem_write(address, &file[offset..offset + length]).unwrap();
    }

    let (top, below) = if wide {
        (0x7fff_0000_0000, 0x7f00_0000_0000)
    } else {
        (0x7ff0_0000, 0x6000_0000)
    };
    uc.mem_map(top - 0x80_0000, 0x80_0000, Prot::READ | Prot::WRITE)
        .unwrap();
    let mut text = top - 0x2000;
    let mut words = vec![arguments.len() as u64];
    for argument in &arguments {
        words.push(text);
        uc.mem_write(text, argument.as_bytes()).unwrap();
        text += argument.len() as u64 + 1;
    }
    words.extend([0, 0]);
    // AT_PHDR, AT_PHENT, AT_PHNUM, AT_PAGESZ, AT_ENTRY, AT_SECURE, AT_RANDOM, AT_NULL.
    let auxiliary = [
        (3, header + table),
        (4, size.into()),
        (5, count.into()),
        (6, PAGE),
        (9, entry),
        (23, 0),
        (25, text),
        (0, 0),
    ];
    words.extend(auxiliary.iter().flat_map(|(kind, value)| [*kind, *value]));
    let stack = (top - 0x4000) & !0xff;
    let bytes: Vec<u8> = words
        .iter()
        .flat_map(|word| word.to_le_bytes()[..if wide { 8 } else { 4 }].to_vec())
        .collect();
    uc.mem_write(stack, &bytes).unwrap();
    uc.reg_write(machine.stack, stack).unwrap();

    let mut input = Vec::new();
    std::io::stdin().read_to_end(&mut input).unwrap();
    let state = Rc::new(RefCell::new(State {
        input,
        at: 0,
        brk: last,
        mapped: last,
        top: below,
        code: None,
    }));
    let (hooked, shared) = (Rc::clone(&machine), Rc::clone(&state));
    if machine.arch == Arch::X86 {
        uc.add_insn_sys_hook(X86Insn::SYSCALL, 1, 0, move |uc| call(uc, &hooked, &shared))
            .unwrap();
    } else {
        uc.add_intr_hook(move |uc, _| call(uc, &hooked, &shared)).unwrap();
    }
    let ended = uc.emu_start(entry, 0, 0, 0);
    let Some(code) = state.borrow().code else {
        eprintln!("bare: {ended:?}");
        std::process::exit(125);
    };
    std::io::stdout().flush().unwrap();
    std::process::exit(code)
}
