//! What static inspection found in a file: port `info` of `inspect/elf`.
//!
//! The same document describes every kind of file, ELF or not: what does not apply is absent or empty. Lists that a
//! hostile file can make long are bounded and say how many there were (`total`). Nothing here depends on the host: the
//! same bytes and the same profiles give the same document everywhere. What is wrong with a file is not said here but
//! in findings ([`crate::finding::Finding`], rule ids `elf/…`, `pe/…`, `mach-o/…`, `packer/…`).

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::arch::ByteOrder;
use crate::digest::Digest;
use crate::guest::{Address, Hex};

/// Facts about one file (port `info` of `inspect/elf`).
///
/// All its fields are always written (`null` where they do not apply), so that `when` and `where` can name them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ElfInfo {
    /// Always `hotcell-elf-info`.
    pub format: String,
    /// Version of the format: 1.
    pub version: u32,
    /// What kind of file it is.
    pub kind: FileKind,
    /// What the kind alone does not say: `zip`, `ar`, `fat`, `pe32+` …; empty where there is nothing to add.
    #[serde(default)]
    pub variant: String,
    /// Length in bytes.
    pub length: u64,
    /// MD5, lower-case hexadecimal.
    pub md5: String,
    /// SHA-1, lower-case hexadecimal.
    pub sha1: String,
    /// SHA-256: the sample's id.
    pub sha256: Digest,
    /// Shannon entropy of all bytes, bits per byte (0 to 8), rounded to three decimals.
    pub entropy: f64,
    /// Name of the arch profile that the header fits; absent: none.
    #[serde(default)]
    pub arch: Option<String>,
    /// How it is linked; absent where it is no program (or no ELF file).
    #[serde(default)]
    pub linkage: Option<Linkage>,
    /// The program interpreter (PT_INTERP), or what a script's first line names.
    #[serde(default)]
    pub interpreter: Option<String>,
    /// The file header.
    #[serde(default)]
    pub header: Option<Header>,
    /// Sections, in the order of their table.
    #[serde(default)]
    pub sections: Vec<Section>,
    /// Segments (program headers; load commands of Mach-O), in the order of their table.
    #[serde(default)]
    pub segments: Vec<Segment>,
    /// Symbols.
    #[serde(default)]
    pub symbols: Symbols,
    /// What it needs from elsewhere.
    #[serde(default)]
    pub imports: Imports,
    /// Relocations.
    #[serde(default)]
    pub relocations: Relocations,
    /// GNU build id (or the Mach-O UUID).
    #[serde(default)]
    pub build_id: Option<Hex>,
    /// ELF notes.
    #[serde(default)]
    pub notes: Vec<Note>,
    /// What the toolchains that made it wrote into it (`.comment`), in order.
    #[serde(default)]
    pub toolchains: Vec<String>,
    /// Protections; absent where they have no meaning (not a program).
    #[serde(default)]
    pub hardening: Option<Hardening>,
    /// Signs of packing.
    #[serde(default)]
    pub packer: Packer,
    /// Printable strings.
    #[serde(default)]
    pub strings: Strings,
    /// Disassembly of the entry and of function symbols; absent where it was not wanted or no profile fits.
    #[serde(default)]
    pub disassembly: Option<Disassembly>,
    /// Programs inside a Mach-O universal file. Everything else then speaks of the first readable one.
    #[serde(default)]
    pub slices: Vec<Slice>,
}

impl ElfInfo {
    /// The format's name.
    pub const FORMAT: &str = "hotcell-elf-info";
    /// The format's version.
    pub const VERSION: u32 = 1;
}

/// Kinds of files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum FileKind {
    /// ELF (Linux, BSD, firmware).
    Elf,
    /// Portable Executable (Windows, UEFI).
    Pe,
    /// Mach-O, single or universal (Apple).
    MachO,
    /// Text whose first line names an interpreter (`#!`).
    Script,
    /// An archive or compressed stream, named in `variant`.
    Archive,
    /// Anything else.
    Raw,
}

impl FileKind {
    /// The name in JSON and for people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Elf => "elf",
            Self::Pe => "pe",
            Self::MachO => "mach-o",
            Self::Script => "script",
            Self::Archive => "archive",
            Self::Raw => "raw",
        }
    }
}

/// How a program is linked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Linkage {
    /// No interpreter, no needed libraries, fixed address.
    Static,
    /// An interpreter or needed libraries.
    Dynamic,
    /// No interpreter, no needed libraries, position independent.
    StaticPie,
}

impl Linkage {
    /// The name in JSON and for people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Static => "static",
            Self::Dynamic => "dynamic",
            Self::StaticPie => "static-pie",
        }
    }
}

/// A number from a header with its registered name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Named {
    /// The number as it stands in the file.
    pub value: u64,
    /// Its registered name without prefix, for instance `MIPS`; `unknown` where none is registered.
    pub name: String,
    /// What it means, in words; empty where there is nothing to add.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub title: String,
}

/// Header flags, as a number and decoded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Flags {
    /// All bits.
    pub value: Address,
    /// Their names, lowest field first.
    pub names: Vec<String>,
}

/// Fields of the file header.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Header {
    /// Word size in bits: 32 or 64 (0: the header names no valid class).
    pub class: u8,
    /// Byte order of data.
    pub byte_order: ByteOrder,
    /// `executable`, `shared-object`, `relocatable`, `core`; for PE `executable`, `dll`; Mach-O's own names.
    pub file_type: Named,
    /// The machine.
    pub machine: Named,
    /// OS ABI of an ELF file, subsystem of a PE file.
    pub os_abi: Named,
    /// ABI version of an ELF file.
    pub abi_version: u8,
    /// Entry address; 0 where there is none.
    pub entry: Address,
    /// Where the entry stands in the file, if it is there at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entry_offset: Option<u64>,
    /// Machine flags (`e_flags`), characteristics of PE, flags of Mach-O.
    pub flags: Flags,
    /// Number of sections as the header says it.
    pub section_count: u64,
    /// Number of segments as the header says it.
    pub segment_count: u64,
    /// Link time in a PE file: seconds since 1970 as the file says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<u32>,
}

/// A section.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Section {
    /// Place in the table.
    pub index: u32,
    /// Name; bytes that are no UTF-8 as `\xNN`.
    pub name: String,
    /// Type, for instance `PROGBITS`.
    pub kind: String,
    /// Flags, for instance `alloc`, `write`, `exec`.
    pub flags: Vec<String>,
    /// Address in memory; 0: not loaded.
    pub address: Address,
    /// Offset in the file.
    pub offset: u64,
    /// Size in bytes, as the header says it.
    pub size: u64,
    /// Entropy of those of its bytes that are in the file; absent: none are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entropy: Option<f64>,
}

/// A segment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Segment {
    /// Place in the table.
    pub index: u32,
    /// Type, for instance `LOAD`; the name of a Mach-O segment.
    pub kind: String,
    /// Permissions as `rwx` with dashes, for instance `r-x`.
    pub permissions: String,
    /// Virtual address.
    pub address: Address,
    /// Offset in the file.
    pub offset: u64,
    /// Bytes in the file, as the header says it.
    pub file_size: u64,
    /// Bytes in memory.
    pub memory_size: u64,
    /// Alignment.
    pub align: u64,
    /// Entropy of those of its bytes that are in the file; absent: none are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entropy: Option<f64>,
}

/// Symbols of a file.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Symbols {
    /// How many there are in all tables (without the null entry).
    pub total: u64,
    /// How many are defined here.
    pub defined: u64,
    /// How many are wanted from elsewhere.
    pub imported: u64,
    /// How many are functions.
    pub functions: u64,
    /// The first ones: functions and data by name before others, dynamic table before the full one.
    pub list: Vec<Symbol>,
}

/// A symbol.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Symbol {
    /// Name.
    pub name: String,
    /// `function`, `object`, `section`, `file`, `tls`, `common`, `indirect-function`, `none` or `other`.
    pub kind: String,
    /// `local`, `global`, `weak`, `unique` or `other`.
    pub binding: String,
    /// `dynsym` or `symtab`; `exports` of a PE or Mach-O file.
    pub table: String,
    /// Whether it is defined in this file.
    pub defined: bool,
    /// Value; mostly an address.
    pub address: Address,
    /// Size in bytes.
    pub size: u64,
}

/// What a file needs from elsewhere.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Imports {
    /// Libraries, in their order.
    pub libraries: Vec<String>,
    /// How many functions and data there are.
    pub total: u64,
    /// Their names (with `library!` before for PE), sorted, bounded.
    pub functions: Vec<String>,
}

/// Relocations of a file.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Relocations {
    /// How many there are.
    pub total: u64,
    /// How many of each type in each section, in the sections' order.
    pub summary: Vec<RelocationCount>,
    /// The first ones, in the tables' order.
    pub list: Vec<Relocation>,
}

/// How many relocations of one type one section has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RelocationCount {
    /// Name of the section (or `dynamic` where only the dynamic table names them).
    pub section: String,
    /// Type: its number, and its name where one is known.
    pub kind: Named,
    /// How many.
    pub count: u64,
}

/// A relocation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Relocation {
    /// What it changes.
    pub address: Address,
    /// Its type.
    pub kind: u32,
    /// Name of its symbol; empty: none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub symbol: String,
    /// Addend; absent where the changed place holds it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub addend: Option<i64>,
}

/// An ELF note.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Note {
    /// Owner, for instance `GNU`.
    pub owner: String,
    /// Type.
    pub kind: u32,
    /// Offset in the file.
    pub offset: u64,
    /// Its meaning in words, where known: `build id`, `for Linux 3.2.0 or later`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub meaning: String,
    /// The first 64 bytes of its content.
    pub content: Hex,
}

/// Protections of a program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Hardening {
    /// Whether the stack is not executable; absent: the file does not say, the architecture's default holds.
    pub nx: Option<bool>,
    /// Whether it is position independent.
    pub pie: bool,
    /// How far relocated data is read-only.
    pub relro: Relro,
    /// Whether stack canaries are used, as far as symbols tell; absent: there are no symbols to tell.
    pub canary: Option<bool>,
    /// Whether `_FORTIFY_SOURCE` functions are used, as far as symbols tell; absent: there are no symbols to tell.
    pub fortify: Option<bool>,
    /// The fortified functions, sorted, bounded.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fortified: Vec<String>,
    /// DT_RPATH.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rpath: Option<String>,
    /// DT_RUNPATH.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runpath: Option<String>,
    /// Whether there is no full symbol table.
    pub stripped: bool,
}

/// How far relocated data is read-only after start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Relro {
    /// Not at all.
    None,
    /// A PT_GNU_RELRO segment, but symbols are bound while running.
    Partial,
    /// A PT_GNU_RELRO segment, and all symbols are bound at start.
    Full,
}

impl Relro {
    /// The name in JSON and for people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Partial => "partial",
            Self::Full => "full",
        }
    }
}

/// Signs that a file is packed.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Packer {
    /// Whether the signs together are enough to say so.
    pub packed: bool,
    /// The packer's name, where it is known, for instance `upx`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The signs.
    pub signs: Vec<PackerSign>,
}

/// One sign of packing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PackerSign {
    /// `upx-magic`, `upx-sections`, `upx-segments`, `high-entropy-code`, `no-section-headers`, `entry-outside-sections`,
    /// `entry-in-writable`, `empty-in-file`, `few-imports`.
    pub sign: String,
    /// Where, if at one place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<u64>,
    /// In words.
    pub text: String,
}

/// Printable strings of a file.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Strings {
    /// How many strings of at least four characters there are.
    pub total: u64,
    /// How many of each kind.
    pub by_kind: BTreeMap<StringKind, u64>,
    /// The kept ones: by kind, in the order of [`StringKind`], then by offset. The same text is kept once.
    pub list: Vec<FoundString>,
}

/// A printable string.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FoundString {
    /// Offset in the file of its first occurrence.
    pub offset: u64,
    /// What it seems to be.
    pub kind: StringKind,
    /// How it is encoded: `ascii` or `utf-16le`.
    pub encoding: StringEncoding,
    /// The text, at most 512 characters of it.
    pub text: String,
    /// How often the same text stands in the file.
    pub count: u32,
}

/// How a string is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum StringEncoding {
    /// One byte a character.
    Ascii,
    /// Two bytes a character, least significant first.
    #[serde(rename = "utf-16le")]
    Utf16Le,
}

/// What a string seems to be. The order is that of interest: interesting kinds first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum StringKind {
    /// A PEM block or an SSH key.
    Key,
    /// A URL with its scheme.
    Url,
    /// An IPv4 address, with or without a port.
    Ipv4,
    /// An IPv6 address.
    Ipv6,
    /// A wallet address of a cryptocurrency, or a mining pool's protocol.
    Wallet,
    /// A shell command.
    Command,
    /// An HTTP user agent.
    UserAgent,
    /// A line of an HTTP request or header.
    Http,
    /// A domain name.
    Domain,
    /// An e-mail address.
    Email,
    /// A name and password in the form of a credential list.
    Credential,
    /// A long base64 block.
    Base64,
    /// A long run of hexadecimal digits.
    Hex,
    /// An absolute path.
    Path,
    /// The name of a library or of an object file.
    Library,
    /// A version or banner of a toolchain.
    Toolchain,
    /// A printf format.
    Format,
    /// Anything else.
    Text,
}

impl StringKind {
    /// All kinds, most interesting first.
    pub const ALL: [Self; 18] = [
        Self::Key,
        Self::Url,
        Self::Ipv4,
        Self::Ipv6,
        Self::Wallet,
        Self::Command,
        Self::UserAgent,
        Self::Http,
        Self::Domain,
        Self::Email,
        Self::Credential,
        Self::Base64,
        Self::Hex,
        Self::Path,
        Self::Library,
        Self::Toolchain,
        Self::Format,
        Self::Text,
    ];

    /// The name in JSON, rules and for people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Key => "key",
            Self::Url => "url",
            Self::Ipv4 => "ipv4",
            Self::Ipv6 => "ipv6",
            Self::Wallet => "wallet",
            Self::Command => "command",
            Self::UserAgent => "user-agent",
            Self::Http => "http",
            Self::Domain => "domain",
            Self::Email => "email",
            Self::Credential => "credential",
            Self::Base64 => "base64",
            Self::Hex => "hex",
            Self::Path => "path",
            Self::Library => "library",
            Self::Toolchain => "toolchain",
            Self::Format => "format",
            Self::Text => "text",
        }
    }
}

/// Disassembly of a program.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Disassembly {
    /// The instructions from the entry on; absent: the entry is not in the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entry: Option<Listing>,
    /// How many function symbols with code in the file there are.
    pub functions_total: u64,
    /// The first of them by address.
    pub functions: Vec<Listing>,
    /// What kinds of instructions the executable parts hold.
    pub statistics: InstructionStatistics,
}

/// Instructions in a row.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Listing {
    /// The symbol, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Address of the first instruction (bit 0 of a Thumb address cleared).
    pub address: Address,
    /// Instruction set where an architecture has several: `thumb`, else empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub mode: String,
    /// The instructions.
    pub instructions: Vec<Instruction>,
    /// Whether more follow than are listed.
    pub more: bool,
}

/// One instruction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Instruction {
    /// Address.
    pub address: Address,
    /// Its bytes.
    pub bytes: Hex,
    /// capstone's text; `.byte` where it cannot decode the bytes.
    pub text: String,
    /// Its class, a key of [`InstructionStatistics::classes`].
    pub class: InstructionClass,
}

/// Classes of instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum InstructionClass {
    /// Calls.
    Call,
    /// Branches, conditional or not.
    Jump,
    /// Returns.
    Return,
    /// System calls and software interrupts.
    Syscall,
    /// Privileged instructions.
    Privileged,
    /// Add, subtract, multiply, divide, compare.
    Arithmetic,
    /// And, or, xor, not, shifts and rotations.
    Logic,
    /// Reads and writes of memory, push and pop.
    LoadStore,
    /// Moves between registers and constants.
    Move,
    /// No operation.
    Nop,
    /// Everything else that decodes.
    Other,
    /// Bytes that do not decode.
    Invalid,
}

/// What kinds of instructions the executable parts hold: a linear sweep.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct InstructionStatistics {
    /// Bytes looked at.
    pub bytes: u64,
    /// Bytes of executable parts that were not looked at because there are too many.
    pub bytes_left: u64,
    /// Instructions found.
    pub instructions: u64,
    /// How many of each class.
    pub classes: BTreeMap<InstructionClass, u64>,
}

/// One program inside a Mach-O universal file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Slice {
    /// Its machine.
    pub machine: Named,
    /// Offset in the file.
    pub offset: u64,
    /// Size in bytes.
    pub size: u64,
    /// Digest of those of its bytes that are in the file.
    pub sha256: Digest,
}
