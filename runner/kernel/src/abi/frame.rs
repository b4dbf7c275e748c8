//! What Linux puts on the stack of a signal handler: `struct rt_sigframe` with `siginfo_t` and `ucontext_t` of each architecture
//! (arch/*/kernel/signal*.c, uapi/asm/sigcontext.h and asm/ucontext.h of Linux 6.17).
//!
//! Registers are a text of fields as in [`super::traced`]. What is beside general registers and not named here (states of vector
//! units) is zeroes, and comes back as it was.

use hotcell_schema::arch::ArchProfile;

use super::layout::Layout;
use super::signal::Sig;
use super::{Abi, traced};

/// One architecture's frame.
pub(crate) struct Frame {
    /// `e_machine` and class.
    elf: (u16, u8),
    /// Where `siginfo_t` and `ucontext_t` stand in it.
    pub(crate) info: usize,
    pub(crate) context: usize,
    /// Bytes of all of it.
    pub(crate) size: usize,
    /// Bytes below the stack pointer that the interrupted function may use.
    red_zone: u64,
    /// How far below a multiple of 16 it begins.
    pub(crate) skew: u64,
    /// Where `uc_sigmask` stands in `ucontext_t`.
    mask: usize,
    /// Where the registers begin in it, and what they are.
    pub(crate) registers: (usize, &'static str),
    /// Where the address of a fault stands in it.
    fault: Option<usize>,
    /// Where a pointer to the registers stands in it.
    pointer: Option<usize>,
}

const X86_64: &str = "r8 r9 r10 r11 r12 r13 r14 r15 rdi rsi rbp rbx rdx rax rcx rsp %pc rflags&40dd5|202 =33:16 =0:16 =0:16 =2b:16 \
    0*13";
const I386: &str =
    "!gs !fs =7b =7b edi esi ebp esp ebx edx ecx eax =0 =0 %pc =73 eflags&40dd5|202 !esp =7b 0*3";
const ARM: &str = "0*3 r0 r1 r2 r3 r4 r5 r6 r7 r8 r9 r10 fp ip sp lr %pc cpsr&fe0ffc20|10 =0";
const AARCH64: &str = "=0 x0 x1 x2 x3 x4 x5 x6 x7 x8 x9 x10 x11 x12 x13 x14 x15 x16 x17 x18 x19 x20 x21 x22 x23 x24 x25 \
    x26 x27 x28 x29 x30 sp %pc pstate&f0000000|0";
const RISCV: &str = "%pc ra sp gp tp t0 t1 t2 s0 s1 a0 a1 a2 a3 a4 a5 a6 a7 s2 s3 s4 s5 s6 s7 s8 s9 s10 s11 t3 t4 t5 t6 \
    f0 f1 f2 f3 f4 f5 f6 f7 f8 f9 f10 f11 f12 f13 f14 f15 f16 f17 f18 f19 f20 f21 f22 f23 f24 f25 f26 f27 f28 f29 f30 f31 fcsr:32";
const MIPS_O32: &str = "=0:32 !cp0_status:32 %pc:64 =0:64 r1:64 r2:64 r3:64 r4:64 r5:64 r6:64 r7:64 r8:64 r9:64 r10:64 r11:64 \
    r12:64 r13:64 r14:64 r15:64 r16:64 r17:64 r18:64 r19:64 r20:64 r21:64 r22:64 r23:64 r24:64 r25:64 =0:64 =0:64 r28:64 r29:64 \
    r30:64 r31:64 0*32:64 0*6 hi:64 lo:64 0*6";
const MIPS_N64: &str = "=0 r1 r2 r3 r4 r5 r6 r7 r8 r9 r10 r11 r12 r13 r14 r15 r16 r17 r18 r19 r20 r21 r22 r23 r24 r25 =0 =0 r28 r29 \
    r30 r31 0*32 hi 0*3 lo 0*3 %pc 0*4:32";
const PPC: &str = "r0 r1 r2 r3 r4 r5 r6 r7 r8 r9 r10 r11 r12 r13 r14 r15 r16 r17 r18 r19 r20 r21 r22 r23 r24 r25 r26 \
    r27 r28 r29 r30 r31 %pc !msr %first ctr lr xer cr =1 =0 =0 =0 =0 0*4";
const S390X: &str = "!pswm %pc r0 r1 r2 r3 r4 r5 r6 r7 r8 r9 r10 r11 r12 r13 r14 r15 a0:32 a1:32 a2:32 a3:32 a4:32 a5:32 \
    a6:32 a7:32 a8:32 a9:32 a10:32 a11:32 a12:32 a13:32 a14:32 a15:32 fpc:32 =0:32 f0 f1 f2 f3 f4 f5 f6 f7 f8 f9 f10 f11 f12 f13 \
    f14 f15";

static FRAMES: [Frame; 10] = [
    Frame {
        elf: (62, 64),
        info: 312,
        context: 8,
        size: 440,
        red_zone: 128,
        skew: 8,
        mask: 296,
        registers: (40, X86_64),
        fault: Some(40 + 22 * 8),
        pointer: None,
    },
    Frame {
        elf: (3, 32),
        info: 16,
        context: 144,
        size: 272,
        red_zone: 0,
        skew: 4,
        mask: 108,
        registers: (20, I386),
        fault: Some(20 + 21 * 4),
        pointer: None,
    },
    Frame {
        elf: (40, 32),
        info: 0,
        context: 128,
        size: 128 + 744 + 16,
        red_zone: 0,
        skew: 0,
        mask: 104,
        registers: (20, ARM),
        fault: Some(20 + 20 * 4),
        pointer: None,
    },
    Frame {
        elf: (183, 64),
        info: 0,
        context: 128,
        size: 128 + 4560,
        red_zone: 0,
        skew: 0,
        mask: 40,
        registers: (176, AARCH64),
        fault: Some(176),
        pointer: None,
    },
    Frame {
        elf: (243, 64),
        info: 0,
        context: 128,
        size: 128 + 960,
        red_zone: 0,
        skew: 0,
        mask: 40,
        registers: (176, RISCV),
        fault: None,
        pointer: None,
    },
    Frame {
        elf: (8, 32),
        info: 24,
        context: 152,
        size: 152 + 632,
        red_zone: 0,
        skew: 0,
        mask: 616,
        registers: (24, MIPS_O32),
        fault: None,
        pointer: None,
    },
    Frame {
        elf: (8, 64),
        info: 24,
        context: 152,
        size: 152 + 656,
        red_zone: 0,
        skew: 0,
        mask: 640,
        registers: (40, MIPS_N64),
        fault: None,
        pointer: None,
    },
    Frame {
        elf: (20, 32),
        info: 80,
        context: 208,
        size: 208 + 1184,
        red_zone: 224,
        skew: 0,
        mask: 52,
        registers: (192, PPC),
        fault: Some(192 + 41 * 4),
        pointer: Some(48),
    },
    Frame {
        elf: (21, 64),
        info: 1888,
        context: 128,
        size: 1888 + 128,
        red_zone: 512,
        skew: 0,
        mask: 40,
        registers: (232, PPC),
        fault: Some(232 + 41 * 8),
        pointer: Some(224),
    },
    Frame {
        elf: (22, 64),
        info: 168,
        context: 296,
        size: 296 + 1024,
        red_zone: 0,
        skew: 0,
        mask: 384,
        registers: (40, S390X),
        fault: None,
        pointer: None,
    },
];

/// What `ucontext_t` tells beside registers.
pub(crate) struct Told {
    /// Signals that are blocked again when the handler ends.
    pub(crate) mask: u64,
    /// Where the alternate stack begins, its flags and size.
    pub(crate) stack: (u64, u64, u64),
    /// The address of a fault.
    pub(crate) fault: Option<u64>,
}

impl Frame {
    /// The frame of an architecture.
    pub(crate) fn of(profile: &ArchProfile) -> Option<&'static Self> {
        FRAMES
            .iter()
            .find(|one| one.elf.1 == profile.elf.class && profile.elf.machine.contains(&one.elf.0))
    }

    /// Where it begins below this address.
    pub(crate) fn below(&self, top: u64) -> u64 {
        let all = self.red_zone + self.size as u64;
        (top.wrapping_sub(all) & !15).wrapping_sub(self.skew)
    }

    /// Bytes of `ucontext_t` that hold registers.
    pub(crate) fn registers_size(&self, abi: &Abi) -> usize {
        traced::bytes(self.registers.1, abi)
    }

    /// The frame's bytes where it begins at `start`.
    pub(crate) fn bytes(&self, abi: &Abi, start: u64, info: &[u8], registers: &[u8], told: &Told) -> Vec<u8> {
        let mut bytes = vec![0; self.size];
        let mut put = |at: usize, part: &[u8]| {
            if let Some(place) = bytes.get_mut(at..at + part.len()) {
                place.copy_from_slice(part);
            }
        };
        let of = |at: usize| self.context + at;
        put(self.info, info);
        put(of(self.registers.0), registers);
        let (stack, flags, size) = told.stack;
        let stack = Layout::new(abi).word(stack);
        let stack = if abi.is_mips() {
            stack.word(size).low(flags)
        } else {
            stack.low(flags).align(abi.word() as usize).word(size)
        };
        put(of(2 * abi.word() as usize), &stack.bytes);
        let set = Sig::set_of_guest(told.mask, abi.family);
        let mask = if abi.wide {
            Layout::new(abi).u64(set)
        } else {
            Layout::new(abi).low(set).low(set >> 32)
        };
        put(of(self.mask), &mask.bytes);
        if let (Some(at), Some(address)) = (self.fault, told.fault) {
            put(of(at), &Layout::new(abi).word(address).bytes);
        }
        if let Some(at) = self.pointer {
            let registers = start.wrapping_add(of(self.registers.0) as u64);
            put(of(at), &Layout::new(abi).word(registers).bytes);
        }
        bytes
    }

    /// Signals that a handler's `uc_sigmask` says, of the bytes of `ucontext_t` from its beginning on.
    pub(crate) fn mask(&self, abi: &Abi, context: &[u8]) -> Option<u64> {
        let bytes = context.get(self.mask..self.mask + 8)?.try_into().ok()?;
        let set = if abi.wide || !abi.big {
            abi.get_u64(bytes)
        } else {
            // Words in order, the first for signals from 1.
            abi.get_u64(bytes).rotate_left(32)
        };
        Some(Sig::set_from_guest(set, abi.family))
    }

    /// Bytes of `ucontext_t` that sigreturn looks at.
    pub(crate) fn looked_at(&self, abi: &Abi) -> usize {
        (self.registers.0 + self.registers_size(abi)).max(self.mask + 8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::profiles;

    #[test]
    fn parts_of_a_frame_do_not_overlap_and_masks_come_back() {
        for profile in profiles() {
            let abi = Abi::new(&profile);
            let frame = Frame::of(&profile).unwrap();
            let name = &profile.name;
            let registers = frame.registers.0..frame.registers.0 + frame.registers_size(&abi);
            assert!(!registers.contains(&frame.mask), "{name}");
            assert!(frame.context + frame.looked_at(&abi) <= frame.size, "{name}");
            assert!(frame.info + 128 <= frame.size, "{name}");
            assert!(frame.fault.is_none_or(|at| registers.contains(&at)), "{name}");
            let told = Told {
                mask: 1 << 9 | 1 << 40 | 1 << 16,
                stack: (0, 2, 0),
                fault: Some(0x1234),
            };
            let size = frame.registers_size(&abi);
            let bytes = frame.bytes(&abi, 0x1000, &[1; 128], &vec![0; size], &told);
            assert_eq!(
                frame.mask(&abi, &bytes[frame.context..]),
                Some(told.mask),
                "{name}"
            );
            let below = frame.below(0x10_0007);
            assert_eq!(below % 16, (16 - frame.skew) % 16);
            assert!(below + bytes.len() as u64 + frame.red_zone <= 0x10_0007, "{name}");
        }
    }
}
