//! A traced task's registers as its tracer sees them: `struct user_regs_struct`, `elf_gregset_t` and `struct user` of each
//! architecture (arch/*/include/uapi/asm/ptrace.h, asm/user.h, asm/elf.h, asm/reg.h of Linux 6.17).
//!
//! A layout is a text of fields in order: a register's name; `%pc`; `%number` and `%first`, number and first argument of the call
//! that the task is in; `=N`, what always stands there (hexadecimal); `0*N`, N fields of zeroes. `:32` says how many bits a field has, where that
//! is not a word. `!name` can be seen and not changed; of `name&M|S` only the bits of M can be seen and changed, and those of S are always seen
//! (both hexadecimal): what a processor holds beside is none of a program's business, or dangerous.

use hotcell_schema::arch::AbiFamily;

use super::{Abi, Registers, quirks};
use crate::machine::{Machine, Reg};

/// What a tracer asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) enum View {
    /// PTRACE_GETREGS.
    Plain,
    /// The register set NT_PRSTATUS.
    Status,
    /// PTRACE_PEEKUSER.
    User,
}

/// What of `struct user` there is besides registers.
enum User {
    /// It begins as NT_PRSTATUS does, and has so many bytes.
    Status(usize),
    /// Fields of its own, by number instead of by offset.
    Numbered(&'static str),
    /// None.
    None,
}

struct Layouts {
    status: &'static str,
    /// PTRACE_GETREGS: `None` where there is none.
    plain: Option<&'static str>,
    user: User,
}

const X86_64: &str = "r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rax rcx rdx rsi rdi %number %pc =33 rflags&40dd5|202 rsp =2b \
    fs_base gs_base =0 =0 =0 =0";
const I386: &str = "ebx ecx edx esi edi ebp eax =7b =7b =0 !gs %number %pc =73 eflags&40dd5|202 esp =7b";
const ARM: &str = "r0 r1 r2 r3 r4 r5 r6 r7 r8 r9 r10 fp ip sp lr %pc cpsr&fe0ffc20|10 %first";
const AARCH64: &str = "x0 x1 x2 x3 x4 x5 x6 x7 x8 x9 x10 x11 x12 x13 x14 x15 x16 x17 x18 x19 x20 x21 x22 x23 x24 x25 \
    x26 x27 x28 x29 x30 sp %pc pstate&f0000000|0";
const RISCV: &str =
    "%pc ra sp gp tp t0 t1 t2 s0 s1 a0 a1 a2 a3 a4 a5 a6 a7 s2 s3 s4 s5 s6 s7 s8 s9 s10 s11 t3 t4 t5 t6";
/// Six words for the arguments on the stack come first, and nothing after `cause` but one word.
const MIPS_O32: &str = "0*6 =0 r1 r2 r3 r4 r5 r6 r7 r8 r9 r10 r11 r12 r13 r14 r15 r16 r17 r18 r19 r20 r21 r22 r23 r24 \
    r25 =0 =0 r28 r29 r30 r31 lo hi %pc =0 !cp0_status =0 =0";
const MIPS_N64: &str = "=0 r1 r2 r3 r4 r5 r6 r7 r8 r9 r10 r11 r12 r13 r14 r15 r16 r17 r18 r19 r20 r21 r22 r23 r24 r25 \
    =0 =0 r28 r29 r30 r31 lo hi %pc =0 !cp0_status =0 0*7";
/// `struct pt_regs` as ptrace gives it: 64 bits each on every mips.
const MIPS_PLAIN: &str = "=0:64 r1:64 r2:64 r3:64 r4:64 r5:64 r6:64 r7:64 r8:64 r9:64 r10:64 r11:64 r12:64 r13:64 r14:64 \
    r15:64 r16:64 r17:64 r18:64 r19:64 r20:64 r21:64 r22:64 r23:64 r24:64 r25:64 =0:64 =0:64 r28:64 r29:64 r30:64 r31:64 \
    lo:64 hi:64 %pc:64 =0:64 !cp0_status:64 =0:64";
/// General registers, those of the FPU (not there), then PC, CAUSE, BADVADDR, MMHI, MMLO.
const MIPS_USER: &str = "=0 r1 r2 r3 r4 r5 r6 r7 r8 r9 r10 r11 r12 r13 r14 r15 r16 r17 r18 r19 r20 r21 r22 r23 r24 r25 =0 =0 \
    r28 r29 r30 r31 0*32 %pc =0 =0 hi lo";
/// 44 words, and four more in a core file.
const PPC_PLAIN: &str = "r0 r1 r2 r3 r4 r5 r6 r7 r8 r9 r10 r11 r12 r13 r14 r15 r16 r17 r18 r19 r20 r21 r22 r23 r24 r25 r26 \
    r27 r28 r29 r30 r31 %pc !msr %first ctr lr xer cr =1 =c01 =0 =0 =0";
const PPC: &str = "r0 r1 r2 r3 r4 r5 r6 r7 r8 r9 r10 r11 r12 r13 r14 r15 r16 r17 r18 r19 r20 r21 r22 r23 r24 r25 r26 \
    r27 r28 r29 r30 r31 %pc !msr %first ctr lr xer cr =1 =c01 =0 =0 =0 0*4";
const S390X: &str = "!pswm %pc r0 r1 r2 r3 r4 r5 r6 r7 r8 r9 r10 r11 r12 r13 r14 r15 a0:32 a1:32 a2:32 a3:32 a4:32 a5:32 \
    a6:32 a7:32 a8:32 a9:32 a10:32 a11:32 a12:32 a13:32 a14:32 a15:32 %first";

fn layouts(abi: &Abi, arch: &str) -> Layouts {
    let same = |status, user| Layouts {
        status,
        plain: Some(status),
        user,
    };
    let bare = |status, user| Layouts {
        status,
        plain: None,
        user,
    };
    match abi.family {
        // Sizes of struct user.
        AbiFamily::X86_64 => same(X86_64, User::Status(912)),
        AbiFamily::I386 => same(I386, User::Status(284)),
        AbiFamily::ArmEabi => same(ARM, User::Status(296)),
        AbiFamily::Generic64 if arch == "riscv64" => bare(RISCV, User::None),
        AbiFamily::Generic64 => bare(AARCH64, User::None),
        AbiFamily::MipsO32 => Layouts {
            status: MIPS_O32,
            plain: Some(MIPS_PLAIN),
            user: User::Numbered(MIPS_USER),
        },
        AbiFamily::MipsN64 => Layouts {
            status: MIPS_N64,
            plain: Some(MIPS_PLAIN),
            user: User::Numbered(MIPS_USER),
        },
        // Up to PT_FPSCR.
        AbiFamily::Ppc32 => Layouts {
            status: PPC,
            plain: Some(PPC_PLAIN),
            user: User::Status(4 * (48 + 2 * 32 + 2)),
        },
        AbiFamily::Ppc64 => Layouts {
            status: PPC,
            plain: Some(PPC_PLAIN),
            user: User::Status(8 * (48 + 32 + 1)),
        },
        AbiFamily::S390x => bare(S390X, User::Status(216)),
    }
}

/// What stands in a field.
enum Slot {
    Constant(u64),
    Register(Reg),
    /// Seen, not changed.
    Shown(Reg),
    /// Only these bits are seen and changed; those are always seen.
    Bits(Reg, u64, u64),
    Counter,
    Number,
    First,
}

/// Where a task stands still, as far as its registers show it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Standing {
    /// Number and first argument of the call that it is in.
    pub(crate) call: Option<(u64, u64)>,
    /// The call is about to be made: its number stands in its register, and the result is ENOSYS.
    pub(crate) entry: bool,
    /// The call waits: it will be made again.
    pub(crate) waits: bool,
}

/// -ERESTARTSYS (linux/errno.h): what a tracer sees as the result of a call that was interrupted.
const RESTARTS: u64 = 512;
/// -ENOSYS, which stands in the result where a call is about to be made.
const NO_RESULT: u64 = 38;

/// The registers of one architecture by name, found once for a request.
pub(crate) struct Fields {
    slots: Vec<(Slot, usize)>,
    /// Bytes that there are: the rest is zeroes that cannot be changed.
    size: usize,
}

/// How many bytes a view has, and whether its places are numbers of fields; `None` where there is no such view.
pub(crate) fn size(view: View, abi: &Abi, arch: &str) -> Option<(usize, bool)> {
    let layouts = layouts(abi, arch);
    let bytes = |text: &str| bytes(text, abi);
    match (view, layouts.user) {
        (View::Plain, _) => layouts.plain.map(|text| (bytes(text), false)),
        (View::Status, _) => Some((bytes(layouts.status), false)),
        (View::User, User::Status(size)) => Some((size, false)),
        (View::User, User::Numbered(text)) => Some((bytes(text), true)),
        (View::User, User::None) => None,
    }
}

/// Bytes of a layout.
pub(crate) fn bytes(text: &str, abi: &Abi) -> usize {
    let sizes = text.split_whitespace().map(|word| shape(word, abi));
    sizes.map(|(count, width)| count * width).sum()
}

/// How many fields a word of a layout stands for, and the bytes of each.
fn shape(word: &str, abi: &Abi) -> (usize, usize) {
    let (field, bits) = word.split_once(':').unwrap_or((word, ""));
    let width = bits.parse().map_or(abi.word() as usize, |bits: usize| bits / 8);
    let count = field.strip_prefix("0*").and_then(|count| count.parse().ok());
    (count.unwrap_or(1), width)
}

/// `name&MASK|SHOWN`.
fn bits(field: &str, machine: &dyn Machine) -> Option<Slot> {
    let (name, rest) = field.split_once('&')?;
    let (mask, shown) = rest.split_once('|')?;
    let number = |text| u64::from_str_radix(text, 16).ok();
    Some(Slot::Bits(machine.register(name)?, number(mask)?, number(shown)?))
}

impl Standing {
    /// Between two instructions, in no call.
    pub(crate) const OUTSIDE: Self = Self {
        call: None,
        entry: false,
        waits: false,
    };
}

impl Fields {
    /// The fields of a view on this machine.
    pub(crate) fn new(view: View, abi: &Abi, arch: &str, machine: &dyn Machine) -> Option<Self> {
        let (size, _) = size(view, abi, arch)?;
        let layouts = layouts(abi, arch);
        let text = match (view, layouts.user) {
            (View::Plain, _) => layouts.plain?,
            (View::User, User::Numbered(text)) => text,
            _ => layouts.status,
        };
        Some(Self {
            size,
            ..Self::of(text, abi, machine)
        })
    }

    /// The fields of a layout on this machine.
    pub(crate) fn of(text: &str, abi: &Abi, machine: &dyn Machine) -> Self {
        let mut slots = Vec::new();
        for word in text.split_whitespace() {
            let (count, width) = shape(word, abi);
            let field = word.split_once(':').map_or(word, |(field, _)| field);
            for _ in 0..count {
                let slot = match field {
                    "%pc" => Slot::Counter,
                    "%number" => Slot::Number,
                    "%first" => Slot::First,
                    _ if field.contains('&') => bits(field, machine).unwrap_or(Slot::Constant(0)),
                    _ => match (field.strip_prefix('='), field.strip_prefix('!')) {
                        (Some(number), _) => Slot::Constant(u64::from_str_radix(number, 16).unwrap_or(0)),
                        (_, Some(name)) => machine.register(name).map_or(Slot::Constant(0), Slot::Shown),
                        _ => machine.register(field).map_or(Slot::Constant(0), Slot::Register),
                    },
                };
                slots.push((slot, width));
            }
        }
        Self {
            slots,
            size: bytes(text, abi),
        }
    }

    /// The view's bytes.
    pub(crate) fn read(
        &self,
        abi: &Abi,
        registers: &Registers,
        machine: &dyn Machine,
        standing: Standing,
    ) -> Vec<u8> {
        let (number, result) = registers.of_call();
        let mut bytes = Vec::with_capacity(self.size);
        for (slot, width) in &self.slots {
            let value = match slot {
                Slot::Constant(value) => *value,
                Slot::Counter => machine.program_counter(),
                Slot::Number if standing.entry => machine.get(number),
                Slot::Number => standing.call.map_or(u64::MAX, |(number, _)| number),
                Slot::First => standing.call.map_or(u64::MAX, |(_, first)| first),
                Slot::Register(register) if *register == result && standing.entry && number == result => {
                    NO_RESULT.wrapping_neg()
                }
                Slot::Register(register)
                    if *register == result && standing.waits && registers.fails_negative() =>
                {
                    RESTARTS.wrapping_neg()
                }
                Slot::Register(register) | Slot::Shown(register) => machine.get(*register),
                Slot::Bits(register, mask, shown) => machine.get(*register) & mask | shown,
            };
            // A field that is wider than a word holds it as a signed number.
            let value = if *width > abi.word() as usize {
                abi.signed(value).cast_unsigned()
            } else {
                value
            };
            let all = if abi.big {
                value.to_be_bytes()
            } else {
                value.to_le_bytes()
            };
            let part = if abi.big {
                all.get(8 - width..)
            } else {
                all.get(..*width)
            };
            bytes.extend(part.unwrap_or_default());
        }
        bytes.resize(self.size, 0);
        bytes
    }

    /// Makes the registers what the bytes say. What says nothing new is left alone.
    pub(crate) fn write(
        &self,
        abi: &Abi,
        registers: &Registers,
        machine: &mut dyn Machine,
        standing: Standing,
        bytes: &[u8],
    ) {
        let (number, result) = registers.of_call();
        let before = self.read(abi, registers, machine, standing);
        let mut at = 0;
        let mut counter = None;
        for (slot, width) in &self.slots {
            let range = at..at + width;
            at += width;
            let (Some(new), Some(old)) = (bytes.get(range.clone()), before.get(range)) else {
                break;
            };
            if new == old {
                continue;
            }
            let mut all = [0; 8];
            let part = if abi.big {
                all.get_mut(8 - width..)
            } else {
                all.get_mut(..*width)
            };
            if let Some(part) = part {
                part.copy_from_slice(new);
            }
            let value = abi.cut(if abi.big {
                u64::from_be_bytes(all)
            } else {
                u64::from_le_bytes(all)
            });
            match slot {
                Slot::Counter => counter = Some(value),
                Slot::Number if standing.entry => machine.set(number, value),
                Slot::Register(register) if *register == result && standing.entry && number == result => {}
                Slot::Register(register) => machine.set(*register, value),
                Slot::Bits(register, mask, _) => {
                    let kept = machine.get(*register) & !mask;
                    machine.set(*register, kept | value & mask);
                }
                Slot::Number | Slot::First | Slot::Constant(_) | Slot::Shown(_) => {}
            }
        }
        // Last: on arm, CPSR says what is there.
        if let Some(counter) = counter {
            let landing = quirks::landing(abi.family, machine, counter);
            machine.jump(landing);
        }
    }
}
