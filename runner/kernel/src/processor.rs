//! What an x86 processor says of itself: CPUID and `/proc/cpuinfo`, which are of one persona and say the same.
//!
//! In: a leaf that a program asks for, the persona, and what the emulator's own model answers. Out: the answer. Who it is comes from the
//! persona; what it can do from [`ABILITIES`], which is what the emulator executes; all else (caches, states to be saved) is the
//! emulator's. [`Probes`] notices on every architecture who looks for an emulator. (Intel SDM volume 2A, "CPUID"; AMD APM volume 3, appendix E.)

use hotcell_schema::arch::ArchProfile;
use hotcell_schema::event::ProcessOp;
use hotcell_schema::persona::Persona;
use serde::{Deserialize, Serialize};

use crate::fs::identity::Processors as _;

/// Registers that an ability is told in: leaf, and which of EAX, EBX, ECX, EDX.
type Place = (u32, usize);

/// Abilities, by the registers in the order in which `/proc/cpuinfo` has them, with Linux's names (asm/cpufeatures.h). Those without a name
/// are not written there. CPUID.1:EDX is AT_HWCAP.
const ABILITIES: [(Place, &[(u32, &str)]); 5] = [
    (
        (0x8000_0001, 3),
        &[(11, "syscall"), (20, "nx"), (27, "rdtscp"), (29, "lm")],
    ),
    (
        (1, 2),
        &[
            (0, "pni"),
            (1, "pclmulqdq"),
            (9, "ssse3"),
            (13, "cx16"),
            (19, "sse4_1"),
            (20, "sse4_2"),
            (22, "movbe"),
            (23, "popcnt"),
            (25, "aes"),
            (26, "xsave"),
            // OSXSAVE: the system lets programs use it.
            (27, ""),
            (30, "rdrand"),
        ],
    ),
    ((0x8000_0001, 2), &[(0, "lahf_lm"), (5, "abm")]),
    (
        (7, 1),
        &[
            (0, "fsgsbase"),
            (3, "bmi1"),
            (7, "smep"),
            (8, "bmi2"),
            (9, "erms"),
        ],
    ),
    ((6, 0), &[(2, "arat")]),
];
/// Names that Linux makes up itself, behind the first register's (arch/x86/kernel/cpu).
const MADE_UP: &str = "constant_tsc rep_good nopl cpuid";
/// Bits of CPUID.1:EDX, empty where /proc/cpuinfo leaves one out.
const BASIC: &[&str] = &[
    "fpu", "vme", "de", "pse", "tsc", "msr", "pae", "mce", "cx8", "apic", "", "sep", "mtrr", "pge", "mca",
    "cmov", "pat", "pse36", "pn", "clflush", "", "dts", "acpi", "mmx", "fxsr", "sse", "sse2", "ss", "ht",
    "tm", "ia64", "pbe",
];
/// Bits of CPUID.1:EDX that AMD repeats in CPUID.80000001:EDX.
const REPEATED: u32 = 0x0183_f3ff;
/// The last leaves that are told of.
const BASIC_LEAVES: u32 = 13;
const EXTENDED_LEAVES: u32 = 0x8000_0008;
/// Bits of physical and linear addresses.
pub(crate) const ADDRESSES: (u32, u32) = (46, 48);

/// An x86 processor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Processor<'a> {
    pub(crate) name: &'a str,
    pub(crate) vendor: &'static str,
    pub(crate) family: u32,
    pub(crate) model: u32,
    pub(crate) stepping: u32,
    count: u32,
    hwcap: u32,
}

impl<'a> Processor<'a> {
    /// The persona's.
    pub(crate) fn of(persona: &'a Persona, profile: &ArchProfile) -> Self {
        let name = persona
            .cpu_model(&profile.name)
            .unwrap_or("Intel(R) Xeon(R) Gold 6230 CPU @ 2.00GHz");
        // AMD's Zen 2, for desktops and for servers, and Intel's Cascade Lake.
        const KNOWN: [(&str, &str, u32, u32, u32); 3] = [
            ("AMD Ryzen", "AuthenticAMD", 23, 113, 0),
            ("AMD", "AuthenticAMD", 23, 49, 0),
            ("", "GenuineIntel", 6, 85, 7),
        ];
        let known = KNOWN.iter().find(|(begin, ..)| name.starts_with(begin));
        let (_, vendor, family, model, stepping) = known.copied().unwrap_or(("", "GenuineIntel", 6, 85, 7));
        Self {
            name,
            vendor,
            family,
            model,
            stepping,
            count: persona.processors(),
            hwcap: profile.abi.hwcap as u32,
        }
    }

    /// The line of `/proc/cpuinfo`.
    pub(crate) fn flags(&self) -> String {
        let basic = (0u32..)
            .zip(BASIC)
            .filter(|(bit, _)| self.hwcap >> bit & 1 != 0)
            .map(|(_, name)| *name);
        let of = |from: usize, to: usize| {
            let some = ABILITIES.get(from..to).unwrap_or_default();
            some.iter()
                .flat_map(|(_, bits)| bits.iter().map(|(_, name)| *name))
        };
        let all = basic
            .chain(of(0, 1))
            .chain([MADE_UP])
            .chain(of(1, ABILITIES.len()));
        all.filter(|name| !name.is_empty()).collect::<Vec<_>>().join(" ")
    }

    fn is_amd(&self) -> bool {
        self.vendor == "AuthenticAMD"
    }

    /// Four letters of a text of at most 48, as a register holds them.
    fn letters(text: &str, at: usize) -> u32 {
        let mut four = [0; 4];
        for (letter, byte) in four.iter_mut().zip(text.bytes().take(47).skip(at)) {
            *letter = byte;
        }
        u32::from_le_bytes(four)
    }

    /// CPUID.1:EAX.
    fn signature(&self) -> u32 {
        let (base, extended) = (self.family.min(15), self.family.saturating_sub(15));
        extended << 20 | (self.model >> 4) << 16 | base << 8 | (self.model & 15) << 4 | self.stepping
    }

    fn vendor_words(&self) -> [u32; 3] {
        [0, 8, 4].map(|at| Self::letters(self.vendor, at))
    }

    /// EAX, EBX, ECX and EDX of a leaf. `library` is what the emulator's own model says of one.
    pub(crate) fn leaf(&self, leaf: u32, index: u32, library: &dyn Fn(u32, u32) -> [u32; 4]) -> [u32; 4] {
        let mut words = library(leaf, index);
        for ((_, register), bits) in ABILITIES.iter().filter(|((of, _), _)| *of == leaf) {
            let mask = bits.iter().fold(0, |mask, (bit, _)| mask | 1 << bit);
            if let Some(word) = words.get_mut(*register) {
                *word &= mask;
            }
        }
        let [a, b, c, d] = words;
        let [first, third, second] = self.vendor_words();
        match leaf {
            0 => [BASIC_LEAVES, first, third, second],
            1 => [
                self.signature(),
                b & !0xff_0000 | self.count.min(255) << 16,
                c,
                self.hwcap,
            ],
            // Leaves of caches that only Intel has.
            2 | 4 if self.is_amd() => [0; 4],
            4 if a & 31 != 0 => [a & !0xfc00_0000 | (self.count.min(64) - 1) << 26, b, c, d],
            7 if index == 0 => [0, b, 0, 0],
            0x8000_0000 if self.is_amd() => [EXTENDED_LEAVES, first, third, second],
            0x8000_0000 => [EXTENDED_LEAVES, 0, 0, 0],
            0x8000_0001 if self.is_amd() => [self.signature(), 0, c, d | self.hwcap & REPEATED],
            0x8000_0001 => [0, 0, c, d],
            0x8000_0002..=0x8000_0004 => {
                let at = (leaf - 0x8000_0002) as usize * 16;
                [0, 4, 8, 12].map(|word| Self::letters(self.name, at + word))
            }
            0x8000_0005 if !self.is_amd() => [0; 4],
            0x8000_0006 if !self.is_amd() => [0, 0, c, 0],
            EXTENDED_LEAVES => {
                let others = if self.is_amd() { self.count - 1 } else { 0 };
                [ADDRESSES.1 << 8 | ADDRESSES.0, 0, others, 0]
            }
            0..=BASIC_LEAVES | 0x8000_0005..=0x8000_0007 => words,
            // Past the last, and where hypervisors answer: AMD's have nothing there, Intel's say what the last basic leaf says.
            _ if self.is_amd() => [0; 4],
            _ => library(BASIC_LEAVES, index),
        }
    }
}

/// What a program asked its processor, as far as it may look for an emulator by it.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(crate) struct Probes {
    /// What was told already.
    probed: bool,
    timed: bool,
    /// Reads of a counter without a system call between them, and the number of calls before them.
    reads: u32,
    calls: u64,
    /// CPUID was executed after the last of them.
    identified: bool,
}

impl Probes {
    /// So many reads of a counter without a system call are no start of a program: loaders and libraries make a handful.
    const MANY: u32 = 16;

    /// CPUID is executed when so many system calls were made. What is to be told of it.
    pub(crate) fn identify(&mut self, leaf: u32, calls: u64) -> Option<ProcessOp> {
        if self.calls == calls && self.reads > 0 {
            self.identified = true;
        }
        // Leaves that hypervisors answer, and no processor by itself.
        let asks = (0x4000_0000..=0x4fff_ffff).contains(&leaf);
        (asks && !std::mem::replace(&mut self.probed, true)).then_some(ProcessOp::Probed)
    }

    /// A counter is read. What is to be told of it.
    pub(crate) fn read(&mut self, calls: u64) -> Option<ProcessOp> {
        if self.calls != calls {
            (self.calls, self.reads) = (calls, 0);
            self.identified = false;
        }
        self.reads = self.reads.saturating_add(1);
        let measures = std::mem::take(&mut self.identified) || self.reads >= Self::MANY;
        (measures && !std::mem::replace(&mut self.timed, true)).then_some(ProcessOp::Timed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::profile;

    /// A model that says everything, and that it is an emulator.
    fn everything(leaf: u32, _: u32) -> [u32; 4] {
        match leaf {
            0x4000_0000 => [1, 0x5447_4354, 0x4743_5447, 0x4354_4743],
            13 => [13; 4],
            _ => [u32::MAX; 4],
        }
    }

    fn text(words: &[u32]) -> String {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        String::from_utf8(bytes)
            .unwrap()
            .trim_end_matches('\0')
            .to_owned()
    }

    #[test]
    fn a_persona_is_what_cpuid_says() {
        let profile = profile("x86_64");
        let mut persona = Persona {
            cpus: 8,
            ..Persona::default()
        };
        let intel = Processor::of(&persona, &profile);
        let [_, b, c, d] = intel.leaf(0, 0, &everything);
        assert_eq!(text(&[b, d, c]), "GenuineIntel");
        let [a, b, c, d] = intel.leaf(1, 0, &everything);
        assert_eq!((a, b >> 16 & 255, d), (0x5_0657, 8, profile.abi.hwcap as u32));
        assert_eq!(c >> 31, 0, "no hypervisor");
        assert_eq!(c, 0x4ed8_2203);
        assert_eq!(intel.leaf(0x4000_0000, 0, &everything), [13; 4]);
        assert_eq!(intel.leaf(0x8fff_ffff, 0, &everything), [13; 4]);
        let name: Vec<u32> = (0x8000_0002..=0x8000_0004)
            .flat_map(|leaf| intel.leaf(leaf, 0, &everything))
            .collect();
        assert_eq!(text(&name), intel.name);

        persona.cpu_model =
            Some("AMD Ryzen 7 3700X 8-Core Processor with a name that is longer than there is room".into());
        let amd = Processor::of(&persona, &profile);
        let [_, b, c, d] = amd.leaf(0x8000_0000, 0, &everything);
        assert_eq!(text(&[b, d, c]), "AuthenticAMD");
        assert_eq!(amd.leaf(1, 0, &everything)[0], 0x0087_0f10);
        assert_eq!(amd.leaf(0x4000_0000, 0, &everything), [0; 4]);
        assert_eq!(amd.leaf(0x8000_0008, 0, &everything), [0x302e, 0, 7, 0]);
        let name: Vec<u32> = (0x8000_0002..=0x8000_0004)
            .flat_map(|leaf| amd.leaf(leaf, 0, &everything))
            .collect();
        assert_eq!(text(&name), amd.name[..47]);
    }

    #[test]
    fn who_looks_for_an_emulator_is_told_of_once() {
        let mut probes = Probes::default();
        // As C libraries start: leaves of the processor, a few reads of a counter.
        assert_eq!([probes.identify(0, 0), probes.identify(7, 0)], [None; 2]);
        assert_eq!([1, 1, 2, 3, 3].map(|calls| probes.read(calls)), [None; 5]);
        assert_eq!(probes.identify(1, 4), None);
        assert_eq!(probes.read(5), None);

        assert_eq!(probes.identify(0x4000_0000, 5), Some(ProcessOp::Probed));
        assert_eq!(probes.identify(0x4000_0100, 5), None);
        assert_eq!(probes.read(5), Some(ProcessOp::Timed), "around CPUID");
        assert_eq!(probes.read(5), None);

        let mut probes = Probes::default();
        let told = (0..40).filter_map(|_| probes.read(9)).count();
        assert_eq!(told, 1, "again and again");
        let mut probes = Probes::default();
        assert!(
            (0..40).all(|calls| probes.read(calls).is_none()),
            "with calls between"
        );
    }

    #[test]
    fn flags_are_what_leaves_say() {
        let profile = profile("x86");
        let persona = Persona::default();
        let processor = Processor::of(&persona, &profile);
        let flags = processor.flags();
        assert!(
            flags.starts_with("fpu vme de pse tsc") && flags.ends_with("erms arat"),
            "{flags}"
        );
        assert!(!flags.contains("hypervisor") && !flags.contains("  "));
        for ((leaf, register), bits) in ABILITIES {
            for (bit, _) in bits {
                assert_ne!(
                    processor.leaf(leaf, 0, &everything)[register] & 1 << bit,
                    0,
                    "{leaf:x}"
                );
            }
        }
    }
}
