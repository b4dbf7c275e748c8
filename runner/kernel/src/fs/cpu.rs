//! `/proc/cpuinfo` as each architecture's own kernel writes it (arch/*/kernel/{cpu/proc,setup,cpu,proc,processor}.c). What it says of a
//! processor's abilities is what the arch profile's AT_HWCAP says.

use std::fmt::Write as _;

use hotcell_schema::arch::{AbiFamily, ArchProfile};
use hotcell_schema::persona::Persona;

use super::identity::Processors as _;
use crate::abi::Abi;
use crate::processor::{ADDRESSES, Processor};

/// Names of the bits of AT_HWCAP, empty where /proc/cpuinfo leaves a bit out. arch/arm/include/uapi/asm/hwcap.h.
const ARM: &[&str] = &[
    "swp", "half", "thumb", "26bit", "fastmult", "fpa", "vfp", "edsp", "java", "iwmmxt", "crunch", "thumbee",
    "neon", "vfpv3", "vfpv3d16", "tls", "vfpv4", "idiva", "idivt", "vfpd32", "lpae", "evtstrm",
];
/// arch/arm64/include/uapi/asm/hwcap.h.
const ARM64: &[&str] = &[
    "fp", "asimd", "evtstrm", "aes", "pmull", "sha1", "sha2", "crc32", "atomics", "fphp", "asimdhp", "cpuid",
];
/// arch/s390/include/asm/elf.h.
const S390: &[&str] = &[
    "esan3", "zarch", "stfle", "msa", "ldisp", "eimm", "dfp", "edat", "etf3eh", "highgprs", "te", "vx",
];

fn names(bits: u64, names: &[&str]) -> String {
    let set = (0u32..)
        .zip(names)
        .filter(|(bit, name)| bits & (1 << bit) != 0 && !name.is_empty());
    set.map(|(_, name)| *name).collect::<Vec<_>>().join(" ")
}

/// The single letters of a RISC-V processor's extensions, in the order of its name (RISC-V ISA manual, chapter 27): bit N of
/// AT_HWCAP is the N-th letter.
fn extensions(bits: u64) -> String {
    "imafdcv"
        .chars()
        .filter(|letter| bits & (1 << (u32::from(*letter) - u32::from('a'))) != 0)
        .collect()
}

/// The text.
pub(crate) fn info(abi: &Abi, arch: &ArchProfile, persona: &Persona) -> String {
    let count = persona.processors();
    let bits = arch.abi.hwcap;
    let model = |default: &str| persona.cpu_model(&arch.name).unwrap_or(default).to_owned();
    let board = persona.boards.get(&arch.name).map(String::as_str);
    let mut text = String::new();
    let each = |text: &mut String, body: &dyn Fn(u32) -> String| {
        for cpu in 0..count {
            text.push_str(&body(cpu));
            text.push('\n');
        }
    };
    match abi.family {
        AbiFamily::X86_64 | AbiFamily::I386 => {
            let processor = Processor::of(persona, arch);
            let Processor {
                name,
                vendor,
                family,
                model,
                stepping,
                ..
            } = processor;
            let flags = processor.flags();
            let (physical, linear) = ADDRESSES;
            each(&mut text, &|cpu| {
                format!(
                    "processor\t: {cpu}\nvendor_id\t: {vendor}\ncpu family\t: {family}\nmodel\t\t: {model}\nmodel name\t: {name}\n\
                     stepping\t: {stepping}\ncpu MHz\t\t: 2000.000\ncache size\t: 16384 KB\nphysical id\t: 0\nsiblings\t: {count}\n\
                     core id\t\t: {cpu}\ncpu cores\t: {count}\napicid\t\t: {cpu}\ninitial apicid\t: {cpu}\nfpu\t\t: yes\n\
                     fpu_exception\t: yes\ncpuid level\t: 13\nwp\t\t: yes\nflags\t\t: {flags}\n\
                     bugs\t\t:\nbogomips\t: 4000.00\nclflush size\t: 64\ncache_alignment\t: 64\n\
                     address sizes\t: {physical} bits physical, {linear} bits virtual\npower management:\n"
                )
            });
        }
        AbiFamily::Generic64 if arch.name == "riscv64" => each(&mut text, &|cpu| {
            format!(
                "processor\t: {cpu}\nhart\t\t: {cpu}\nisa\t\t: rv64{}\nmmu\t\t: sv39\nuarch\t\t: {}\n",
                extensions(bits),
                model("sifive,u74-mc")
            )
        }),
        AbiFamily::Generic64 => each(&mut text, &|cpu| {
            format!(
                "processor\t: {cpu}\nBogoMIPS\t: 125.00\nFeatures\t: {}\nCPU implementer\t: 0x41\nCPU architecture: 8\n\
                 CPU variant\t: 0x1\nCPU part\t: 0xd07\nCPU revision\t: 0\n",
                names(bits, ARM64)
            )
        }),
        AbiFamily::ArmEabi => {
            let model = model("ARMv7 Processor rev 1 (v7l)");
            each(&mut text, &|cpu| {
                format!(
                    "processor\t: {cpu}\nmodel name\t: {model}\nBogoMIPS\t: 125.00\nFeatures\t: {}\nCPU implementer\t: 0x41\n\
                     CPU architecture: 7\nCPU variant\t: 0x2\nCPU part\t: 0xc0f\nCPU revision\t: 1\n",
                    names(bits, ARM)
                )
            });
            let board = board.unwrap_or("Generic DT based system");
            let _ = write!(
                text,
                "Hardware\t: {board}\nRevision\t: 0000\nSerial\t\t: 0000000000000000\n"
            );
        }
        AbiFamily::MipsO32 | AbiFamily::MipsN64 => {
            let isa = if abi.wide {
                "mips1 mips2 mips3 mips4 mips5 mips32r1 mips32r2 mips64r1 mips64r2"
            } else {
                "mips1 mips2 mips32r1 mips32r2"
            };
            let model = model(if abi.wide {
                "MIPS 20Kc V0.1  FPU V0.1"
            } else {
                "MIPS 24Kc V5.0"
            });
            let board = board.unwrap_or("MIPS Malta");
            let _ = write!(text, "system type\t\t: {board}\nmachine\t\t\t: {board}\n");
            each(&mut text, &|cpu| {
                format!(
                    "processor\t\t: {cpu}\ncpu model\t\t: {model}\nBogoMIPS\t\t: 385.84\nwait instruction\t: yes\n\
                     microsecond timers\t: yes\ntlb_entries\t\t: 16\nextra interrupt vector\t: yes\n\
                     hardware watchpoint\t: yes, count: 4, address/irw mask: [0x0ffc, 0x0ffc, 0x0ffb, 0x0ffb]\nisa\t\t\t: {isa}\n\
                     ASEs implemented\t: mips16\nshadow register sets\t: 1\nkscratch registers\t: 0\npackage\t\t\t: 0\n\
                     core\t\t\t: {cpu}\nVCED exceptions\t\t: not available\nVCEI exceptions\t\t: not available\n"
                )
            });
        }
        AbiFamily::Ppc32 | AbiFamily::Ppc64 => {
            let model = model(if abi.wide {
                "POWER8 (raw), altivec supported"
            } else {
                "7447A, altivec supported"
            });
            each(&mut text, &|cpu| {
                format!(
                    "processor\t: {cpu}\ncpu\t\t: {model}\nclock\t\t: 1000.000000MHz\nrevision\t: 2.0 (pvr 004d 0200)\n"
                )
            });
            let board = board.unwrap_or(if abi.wide { "IBM,8286-42A" } else { "PowerMac10,2" });
            let platform = if abi.wide { "pSeries" } else { "PowerMac" };
            let _ = write!(
                text,
                "timebase\t: 512000000\nplatform\t: {platform}\nmodel\t\t: {board}\nmachine\t\t: {board}\n"
            );
        }
        AbiFamily::S390x => {
            let features = names(bits, S390);
            let _ = write!(
                text,
                "vendor_id       : IBM/S390\n# processors    : {count}\nbogomips per cpu: 3033.00\nmax thread id   : 0\n\
                 features\t: {features} \n"
            );
            for cpu in 0..count {
                let _ = writeln!(
                    text,
                    "processor {cpu}: version = 00,  identification = 0A5B27,  machine = 2964"
                );
            }
        }
    }
    text
}
