//! Disassembly by capstone: the entry, functions, and a sweep for statistics. Which mode is the profile's matter.

pub(crate) mod class;

use std::iter;

use capstone::{Arch, Capstone, Endian, ExtraMode, Mode};
use hotcell_schema::arch::CapstoneProfile;
use hotcell_schema::elf::{Disassembly, Instruction, InstructionClass, InstructionStatistics, Listing};
use hotcell_schema::guest::{Address, Hex};

use crate::code::Code;

/// Instructions listed from the entry on.
const ENTRY_INSTRUCTIONS: usize = 64;
/// Instructions listed of one function.
const FUNCTION_INSTRUCTIONS: usize = 32;
/// Bytes of code swept for statistics.
const SWEPT: usize = 256 << 10;

/// The profile names something that capstone does not have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DisassemblerError {
    /// The architecture.
    #[error("capstone has no architecture `{0}`")]
    Arch(String),
    /// A mode.
    #[error("capstone has no mode `{0}`")]
    Mode(String),
    /// capstone refuses the combination.
    #[error("capstone: {0}")]
    Refused(String),
}

/// A disassembler for one architecture, and its second instruction set where it has one.
pub struct Disassembler {
    arch: String,
    plain: Capstone,
    thumb: Option<Capstone>,
    /// Bytes to go on by where nothing decodes.
    step: usize,
}

impl std::fmt::Debug for Disassembler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Disassembler")
            .field("arch", &self.arch)
            .finish_non_exhaustive()
    }
}

impl Disassembler {
    /// A disassembler as a profile describes it. `little_code`: instructions are little-endian whatever the profile
    /// says (ARM BE8).
    pub fn new(profile: &CapstoneProfile, little_code: bool) -> Result<Self, DisassemblerError> {
        let (arch, step) = match profile.arch.as_str() {
            "x86" => (Arch::X86, 1),
            "arm" => (Arch::ARM, 4),
            "arm64" => (Arch::ARM64, 4),
            "mips" => (Arch::MIPS, 4),
            "ppc" => (Arch::PPC, 4),
            "riscv" => (Arch::RISCV, 2),
            "sysz" | "systemz" => (Arch::SYSZ, 2),
            "sparc" => (Arch::SPARC, 4),
            "m68k" => (Arch::M68K, 2),
            "sh" => (Arch::SH, 2),
            other => return Err(DisassemblerError::Arch(other.into())),
        };
        let mut mode = Mode::Default;
        let mut extra = Vec::new();
        let mut endian = None;
        for name in &profile.mode {
            match name.replace('_', "-").as_str() {
                "arm" => mode = Mode::Arm,
                "thumb" => mode = Mode::Thumb,
                "16" => mode = Mode::Mode16,
                "32" => mode = Mode::Mode32,
                "64" => mode = Mode::Mode64,
                "mips2" => mode = Mode::Mips2,
                "mips3" => mode = Mode::Mips3,
                "mips32" => mode = Mode::Mips32,
                "mips32r6" => mode = Mode::Mips32R6,
                "mips64" => mode = Mode::Mips64,
                "riscv32" => mode = Mode::RiscV32,
                "riscv64" => mode = Mode::RiscV64,
                "v9" => mode = Mode::V9,
                "sh4" => mode = Mode::Sh4,
                "default" => {}
                "mclass" => extra.push(ExtraMode::MClass),
                "v8" => extra.push(ExtraMode::V8),
                "micro" => extra.push(ExtraMode::Micro),
                "riscvc" => extra.push(ExtraMode::RiscVC),
                "little-endian" => endian = Some(Endian::Little),
                "big-endian" => endian = Some(Endian::Big),
                other => return Err(DisassemblerError::Mode(other.into())),
            }
        }
        if little_code {
            endian = Some(Endian::Little);
        }
        let build = |mode| -> Result<Capstone, DisassemblerError> {
            let refused = |error: capstone::Error| DisassemblerError::Refused(error.to_string());
            let mut capstone =
                Capstone::new_raw(arch, mode, extra.iter().copied(), endian).map_err(refused)?;
            capstone.set_detail(true).map_err(refused)?;
            Ok(capstone)
        };
        Ok(Self {
            arch: profile.arch.clone(),
            plain: build(mode)?,
            thumb: (arch == Arch::ARM).then(|| build(Mode::Thumb)).transpose()?,
            step,
        })
    }

    /// Disassembles what is wanted of a file's code.
    pub(crate) fn disassemble(&self, code: &Code<'_>) -> Disassembly {
        Disassembly {
            entry: code
                .entry
                .and_then(|entry| self.listing(code, entry, None, ENTRY_INSTRUCTIONS, 0)),
            functions_total: code.functions_total,
            functions: code
                .functions
                .iter()
                .filter_map(|function| {
                    let name = Some(function.name.clone());
                    self.listing(code, function.address, name, FUNCTION_INSTRUCTIONS, function.size)
                })
                .collect(),
            statistics: self.statistics(code),
        }
    }

    /// Instructions in a row from an address on.
    fn listing(
        &self,
        code: &Code<'_>,
        address: u64,
        name: Option<String>,
        limit: usize,
        size: u64,
    ) -> Option<Listing> {
        let thumb = self.thumb.is_some() && address & 1 == 1;
        let start = if self.thumb.is_some() {
            address & !1
        } else {
            address
        };
        let mut bytes = code.at(start)?;
        let known_end = usize::try_from(size)
            .ok()
            .filter(|&size| size > 0 && size <= bytes.len());
        bytes = bytes.get(..known_end.unwrap_or(bytes.len()).min(limit * 16))?;
        let mut instructions = Vec::new();
        let mut used = 0;
        self.walk(bytes, start, thumb, |instruction| {
            used += instruction.bytes.0.len();
            instructions.push(instruction);
            instructions.len() < limit
        });
        Some(Listing {
            name,
            address: Address(start),
            mode: if thumb { "thumb".into() } else { String::new() },
            more: known_end.map_or(instructions.len() >= limit, |end| used < end),
            instructions,
        })
    }

    /// Decodes bytes one by one until `keep_on` says no. What does not decode is `.byte`.
    fn walk(&self, bytes: &[u8], address: u64, thumb: bool, mut keep_on: impl FnMut(Instruction) -> bool) {
        let (capstone, step) = match &self.thumb {
            Some(capstone) if thumb => (capstone, 2),
            _ => (&self.plain, self.step),
        };
        let Ok(mut iterator) = capstone.disasm_iter(bytes, address) else {
            return;
        };
        let mut done = 0usize;
        while let Some(rest) = bytes.get(done..).filter(|rest| !rest.is_empty()) {
            let here = Address(address.wrapping_add(done as u64));
            let decoded = iterator.next().map(|found| {
                let mnemonic = found.mnemonic().unwrap_or_default();
                let operands = found.op_str().unwrap_or_default();
                let groups = capstone.insn_detail(&found).ok();
                let groups: Vec<u8> = groups
                    .iter()
                    .flat_map(|detail| detail.groups().iter().map(|group| group.0))
                    .collect();
                Instruction {
                    address: here,
                    bytes: Hex(found.bytes().to_vec()),
                    text: match operands {
                        "" => mnemonic.to_owned(),
                        operands => format!("{mnemonic} {operands}"),
                    },
                    class: class::of(&self.arch, mnemonic, operands, &groups),
                }
            });
            let instruction = match decoded {
                Some(instruction) if !instruction.bytes.0.is_empty() => instruction,
                _ => {
                    let raw = rest.get(..step).unwrap_or(rest);
                    let next = done + raw.len();
                    iterator.reset(
                        bytes.get(next..).unwrap_or_default(),
                        address.wrapping_add(next as u64),
                    );
                    Instruction {
                        address: here,
                        bytes: Hex(raw.to_vec()),
                        text: ".byte".into(),
                        class: InstructionClass::Invalid,
                    }
                }
            };
            done += instruction.bytes.0.len();
            if !keep_on(instruction) {
                return;
            }
        }
    }

    /// A linear sweep over what is executable.
    fn statistics(&self, code: &Code<'_>) -> InstructionStatistics {
        let mut statistics = InstructionStatistics::default();
        let mut left = SWEPT;
        let entry_thumb = self.thumb.is_some() && code.entry.is_some_and(|entry| entry & 1 == 1);
        for part in &code.parts {
            let bytes = part.bytes.get(..part.bytes.len().min(left)).unwrap_or_default();
            left -= bytes.len();
            statistics.bytes += bytes.len() as u64;
            statistics.bytes_left = statistics
                .bytes_left
                .saturating_add((part.bytes.len() - bytes.len()) as u64);
            for (start, end, state) in self.runs(code, part.address, bytes.len(), entry_thumb) {
                let Some(thumb) = state else { continue };
                let run = bytes.get(start..end).unwrap_or_default();
                self.walk(
                    run,
                    part.address.wrapping_add(start as u64),
                    thumb,
                    |instruction| {
                        statistics.instructions += 1;
                        *statistics.classes.entry(instruction.class).or_default() += 1;
                        true
                    },
                );
            }
        }
        statistics
    }

    /// Runs of one instruction set within a part, as ARM mapping symbols tell: start, end, and Thumb or not (none: data).
    fn runs(
        &self,
        code: &Code<'_>,
        address: u64,
        length: usize,
        entry_thumb: bool,
    ) -> Vec<(usize, usize, Option<bool>)> {
        if self.thumb.is_none() || code.mapping.is_empty() {
            return vec![(0, length, Some(entry_thumb))];
        }
        let thumb = |state: char| match state {
            't' => Some(true),
            'a' => Some(false),
            _ => None,
        };
        let before = code
            .mapping
            .range(..=address)
            .next_back()
            .map(|(_, &state)| state);
        let mut runs = Vec::new();
        let mut start = 0;
        let mut state = before.map_or(Some(entry_thumb), thumb);
        let end = address.saturating_add(length as u64);
        if address < end {
            let inside = code.mapping.range(address + 1..end.max(address + 1));
            for (place, &next) in inside {
                let here = (place - address) as usize;
                runs.push((start, here, state));
                start = here;
                state = thumb(next);
            }
        }
        runs.extend(iter::once((start, length, state)));
        runs
    }
}
