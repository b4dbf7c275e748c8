//! What a profile's data cannot say: the few real exceptions, by name.

use hotcell_kernel::machine::MachineError;
use hotcell_schema::arch::ByteOrder;
use unicorn_engine::{Prot, RegisterMIPS, RegisterX86, Unicorn};

use crate::image_unsafe::Image;
use crate::machine::{Guest, failed};

/// A named exception.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Quirk {
    /// x86: Unicorn starts code as a kernel runs. A program is no kernel: what only one may do faults.
    X86User,
    /// x86, 32 bits: segments come from a descriptor table in memory, also the thread pointer (`gs`).
    X86Gdt,
    /// MIPS, 64 bits: addresses from 4 GiB on go through the processor's TLB, which is empty at reset.
    Mips64Tlb,
    /// ARM: the helper routines that Linux offers at 0xffff0fa0 to 0xffff0fff.
    ArmKuser,
    /// s390x: the number of a system call stands in the instruction; only where that is zero, in r1. The program
    /// counter is that of the instruction.
    S390xSvc,
}

/// Where the x86 descriptor table stands: above all user space.
const GDT: u64 = 0xfffd_0000;
const PAGE: u64 = 0x1000;
/// Descriptor that Linux's 64-bit kernels give to the first `set_thread_area` of a 32-bit program
/// (`GDT_ENTRY_TLS_MIN` in arch/x86/include/asm/segment.h).
const GDT_THREAD: u64 = 12;
/// Descriptor of user data (selector 0x7b).
const GDT_DATA: u64 = 15;
/// Descriptor of the stack. Of the code's privilege level, else loading it faults.
const GDT_STACK: u64 = 16;

/// With which rights code begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Privilege {
    /// All: raw code, which may be a kernel's.
    Kernel,
    /// A program's.
    User,
}

impl Privilege {
    /// The level of x86 (Intel SDM volume 3A, section 5.5).
    fn level(self) -> u64 {
        match self {
            Self::Kernel => 0,
            Self::User => 3,
        }
    }
}

/// The page with ARM's helper routines.
const KUSER: u64 = 0xffff_0000;

impl Quirk {
    /// The quirk with this name in a profile.
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "x86-user" => Self::X86User,
            "x86-gdt" => Self::X86Gdt,
            "mips64-tlb" => Self::Mips64Tlb,
            "arm-kuser" => Self::ArmKuser,
            "s390x-svc" => Self::S390xSvc,
            _ => return None,
        })
    }

    /// Prepares a new instance.
    pub(crate) fn prepare(
        self,
        uc: &mut Unicorn<'_, Guest>,
        order: ByteOrder,
        privilege: Privilege,
    ) -> Result<(), MachineError> {
        match self {
            Self::X86User => Image::of(uc)?.with_level(privilege.level()).restore(uc),
            Self::X86Gdt => prepare_gdt(uc, privilege.level()),
            Self::Mips64Tlb => fill_tlb(uc, order),
            Self::ArmKuser => map_kuser(uc, order),
            Self::S390xSvc => Ok(()),
        }
    }
}

/// A flat 4 GiB read-write data segment from `base` (Intel SDM volume 3A, section 3.4.5).
fn descriptor(base: u32, privilege: u64) -> [u8; 8] {
    let base = u64::from(base);
    let access = 0x93 | privilege << 5;
    let value = 0xffff | (base & 0xff_ffff) << 16 | access << 40 | 0xf << 48 | 0xc << 52 | (base >> 24) << 56;
    value.to_le_bytes()
}

fn prepare_gdt(uc: &mut Unicorn<'_, Guest>, level: u64) -> Result<(), MachineError> {
    uc.mem_map(GDT, PAGE, Prot::READ)
        .map_err(failed("mapping the descriptor table"))?;
    for (index, privilege) in [(GDT_DATA, 3), (GDT_STACK, level)] {
        uc.mem_write(GDT + index * 8, &descriptor(0, privilege))
            .map_err(failed("writing a descriptor"))?;
    }
    // struct uc_x86_mmr: selector u16, base u64, limit u32, flags u32, naturally aligned.
    let mut register = [0u8; 24];
    register[8..16].copy_from_slice(&GDT.to_ne_bytes());
    register[16..20].copy_from_slice(&0xffu32.to_ne_bytes());
    uc.reg_write_long(RegisterX86::GDTR as i32, &register)
        .map_err(failed("setting GDTR"))?;
    for (name, selector) in [
        (RegisterX86::SS, GDT_STACK << 3 | level),
        (RegisterX86::DS, GDT_DATA << 3 | 3),
        (RegisterX86::ES, GDT_DATA << 3 | 3),
    ] {
        uc.reg_write(name as i32, selector)
            .map_err(failed("loading a segment register"))?;
    }
    Ok(())
}

/// Points the thread segment of 32-bit x86 at `base`. The guest then loads `gs` with selector 0x63 by itself; a
/// `gs` that holds it already is loaded again, because the processor keeps a copy of the descriptor.
pub(crate) fn set_thread_segment(uc: &mut Unicorn<'_, Guest>, base: u32) {
    let _ = uc.mem_write(GDT + GDT_THREAD * 8, &descriptor(base, 3));
    let selector = GDT_THREAD << 3 | 3;
    for register in [RegisterX86::GS as i32, RegisterX86::FS as i32] {
        if uc
            .reg_read(register)
            .is_ok_and(|value| value & 0xffff == selector)
        {
            let _ = uc.reg_write(register, selector);
        }
    }
}

/// The thread segment's descriptor, which no register holds: part of what belongs to a thread.
pub(crate) fn thread_descriptor(uc: &Unicorn<'_, Guest>) -> Option<[u8; 8]> {
    let mut bytes = [0; 8];
    uc.mem_read(GDT + GDT_THREAD * 8, &mut bytes).ok()?;
    Some(bytes)
}

/// Puts a thread segment's descriptor back, for the next time that the guest loads it.
pub(crate) fn set_thread_descriptor(uc: &mut Unicorn<'_, Guest>, descriptor: [u8; 8]) {
    let _ = uc.mem_write(GDT + GDT_THREAD * 8, &descriptor);
}

/// Eight identity entries of two 256 MiB pages each: 4 GiB to 8 GiB. Unicorn offers no access to the TLB, so a
/// short program of the guest's own instructions fills it, in a page that is gone afterwards.
fn fill_tlb(uc: &mut Unicorn<'_, Guest>, order: ByteOrder) -> Result<(), MachineError> {
    const STUB: u64 = 0x1000;
    const FIRST: u64 = 0x1_0000_0000;
    const PAIR: u64 = 0x2000_0000;
    /// Both pages of an entry are 256 MiB (MIPS64 volume III, PageMask).
    const PAGE_MASK: u64 = 0x1fff_e000;
    // dmtc0 $a0,EntryHi; dmtc0 $a1,EntryLo0; dmtc0 $a2,EntryLo1; mtc0 $a3,PageMask; mtc0 $v0,Index; tlbwi
    let code: [u32; 6] = [
        0x40a4_5000,
        0x40a5_1000,
        0x40a6_1800,
        0x4087_2800,
        0x4082_0000,
        0x4200_0002,
    ];
    let bytes: Vec<u8> = code
        .iter()
        .flat_map(|word| {
            if order == ByteOrder::Big {
                word.to_be_bytes()
            } else {
                word.to_le_bytes()
            }
        })
        .collect();
    uc.mem_map(STUB, PAGE, Prot::ALL)
        .map_err(failed("mapping the TLB program"))?;
    uc.mem_write(STUB, &bytes)
        .map_err(failed("writing the TLB program"))?;
    // EntryLo: frame number from bit 6; cacheable, dirty, valid, global.
    let low = |address: u64| (address >> 12) << 6 | 0x1f;
    for index in 0..8 {
        let address = FIRST + index * PAIR;
        for (register, value) in [
            (RegisterMIPS::R4, address),
            (RegisterMIPS::R5, low(address)),
            (RegisterMIPS::R6, low(address + PAIR / 2)),
            (RegisterMIPS::R7, PAGE_MASK),
            (RegisterMIPS::R2, index),
        ] {
            uc.reg_write(register as i32, value)
                .map_err(failed("preparing the TLB program"))?;
        }
        uc.emu_start(STUB, STUB + 4 * code.len() as u64, 0, 0)
            .map_err(failed("running the TLB program"))?;
    }
    for register in [
        RegisterMIPS::R2,
        RegisterMIPS::R4,
        RegisterMIPS::R5,
        RegisterMIPS::R6,
        RegisterMIPS::R7,
    ] {
        uc.reg_write(register as i32, 0)
            .map_err(failed("clearing registers"))?;
    }
    uc.ctl_remove_cache(STUB, STUB + PAGE)
        .map_err(failed("dropping the TLB program"))?;
    uc.mem_unmap(STUB, PAGE)
        .map_err(failed("unmapping the TLB program"))
}

/// Linux's Documentation/arch/arm/kernel_user_helpers.rst: memory barrier, compare and exchange, thread pointer,
/// version. Written from that description; one processor, so a barrier has nothing to do and no step of the
/// exchange can be interrupted inside one block.
fn map_kuser(uc: &mut Unicorn<'_, Guest>, order: ByteOrder) -> Result<(), MachineError> {
    const BX_LR: u32 = 0xe12f_ff1e;
    let routines: [(u64, &[u32]); 3] = [
        (0xfa0, &[BX_LR]),
        // ldr ip,[r2]; cmp ip,r0; streq r1,[r2]; moveq r0,#0; movne r0,#1; cmnne r0,#0 (clears C); bx lr
        (
            0xfc0,
            &[
                0xe592_c000,
                0xe15c_0000,
                0x0582_1000,
                0x03a0_0000,
                0x13a0_0001,
                0x1370_0000,
                BX_LR,
            ],
        ),
        // mrc p15,0,r0,c13,c0,3; bx lr
        (0xfe0, &[0xee1d_0f70, BX_LR]),
    ];
    uc.mem_map(KUSER, PAGE, Prot::READ | Prot::EXEC)
        .map_err(failed("mapping the helper page"))?;
    // Code is little-endian also on BE8 machines; the version is data.
    for (offset, words) in routines {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        uc.mem_write(KUSER + offset, &bytes)
            .map_err(failed("writing a helper routine"))?;
    }
    let version: u32 = 3;
    let bytes = if order == ByteOrder::Big {
        version.to_be_bytes()
    } else {
        version.to_le_bytes()
    };
    uc.mem_write(KUSER + 0xffc, &bytes)
        .map_err(failed("writing the helper version"))
}
