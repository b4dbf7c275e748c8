//! capstone, set up from the `[capstone]` part of a profile.

use capstone::{Capstone, Endian, ExtraMode, Mode};
use hotcell_schema::arch::ArchProfile;

/// A disassembler for one architecture (and on ARM for one instruction set).
pub(crate) struct Disassembler(Capstone);

impl Disassembler {
    /// `None` where the profile names no disassembler or one that this build lacks. `thumb` chooses ARM's other
    /// instruction set. `code_order` is not always that of data: BE8 keeps code little-endian.
    pub(crate) fn new(profile: &ArchProfile, thumb: bool, big_endian_code: bool) -> Option<Self> {
        let wanted = profile.capstone.as_ref()?;
        let arch = match wanted.arch.as_str() {
            "x86" => capstone::Arch::X86,
            "arm" => capstone::Arch::ARM,
            "arm64" => capstone::Arch::ARM64,
            "mips" => capstone::Arch::MIPS,
            "ppc" => capstone::Arch::PPC,
            "riscv" => capstone::Arch::RISCV,
            "systemz" => capstone::Arch::SYSZ,
            _ => return None,
        };
        let mut mode = if arch == capstone::Arch::ARM64 {
            Mode::Arm
        } else {
            Mode::Default
        };
        let mut extra = Vec::new();
        for name in &wanted.mode {
            match name.as_str() {
                "arm" => mode = Mode::Arm,
                "32" => mode = Mode::Mode32,
                "64" => mode = Mode::Mode64,
                "mips32" => mode = Mode::Mips32,
                "mips64" => mode = Mode::Mips64,
                "riscv64" => mode = Mode::RiscV64,
                "riscvc" => extra.push(ExtraMode::RiscVC),
                "little-endian" | "big-endian" => {}
                _ => return None,
            }
        }
        if thumb {
            mode = Mode::Thumb;
        }
        let order = if big_endian_code {
            Endian::Big
        } else {
            Endian::Little
        };
        Capstone::new_raw(arch, mode, extra.into_iter(), Some(order))
            .ok()
            .map(Self)
    }

    /// Length in bytes and text of the instruction that `code` begins with.
    pub(crate) fn one(&self, code: &[u8], address: u64) -> Option<(usize, String)> {
        let all = self.0.disasm_count(code, address, 1).ok()?;
        let instruction = all.iter().next()?;
        let mnemonic = instruction.mnemonic().unwrap_or_default();
        let text = match instruction.op_str() {
            Some(operands) if !operands.is_empty() => format!("{mnemonic} {operands}"),
            _ => mnemonic.to_owned(),
        };
        Some((instruction.len(), text))
    }
}
