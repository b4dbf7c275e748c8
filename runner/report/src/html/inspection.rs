//! What static inspection found, cut to what a page can hold.

use hotcell_schema::elf::{ElfInfo, Hardening, Listing, StringKind};
use serde::Serialize;

use crate::words;

/// Greatest number of strings of one kind.
const MAX_STRINGS: usize = 300;
/// Greatest number of sections, of segments, of imported names and of functions listed.
const MAX_SECTIONS: usize = 200;
const MAX_IMPORTS: usize = 500;
const MAX_FUNCTIONS: usize = 24;
/// Greatest number of instructions in a listing.
const MAX_INSTRUCTIONS: usize = 200;

#[derive(Serialize)]
pub(super) struct Inspection {
    kind: String,
    entropy: Entropy,
    hashes: Vec<(&'static str, String)>,
    header: Vec<(&'static str, String)>,
    hardening: Vec<Mark>,
    packed: bool,
    packer: String,
    signs: Vec<String>,
    sections: Vec<SectionRow>,
    segments: Vec<SegmentRow>,
    strings_total: String,
    strings: Vec<StringGroup>,
    libraries: Vec<String>,
    imports: Vec<String>,
    imports_total: String,
    toolchains: String,
    entry: Option<Code>,
    functions: Vec<Code>,
    functions_more: u64,
}

/// An entropy, and the length of its bar (0 to 80).
#[derive(Serialize)]
struct Entropy {
    value: String,
    bar: u32,
    tone: &'static str,
}

#[derive(Serialize)]
struct Mark {
    name: &'static str,
    value: String,
    tone: &'static str,
}

#[derive(Serialize)]
struct SectionRow {
    name: String,
    kind: String,
    flags: String,
    address: String,
    size: String,
    entropy: Option<Entropy>,
}

#[derive(Serialize)]
struct SegmentRow {
    kind: String,
    permissions: String,
    address: String,
    file_size: String,
    memory_size: String,
    entropy: Option<Entropy>,
}

#[derive(Serialize)]
struct StringGroup {
    kind: &'static str,
    total: String,
    open: bool,
    list: Vec<(String, String, u32)>,
    more: u64,
}

#[derive(Serialize)]
struct Code {
    name: String,
    address: String,
    mode: String,
    more: bool,
    instructions: Vec<(String, String, String)>,
}

impl Inspection {
    pub(super) fn new(info: ElfInfo) -> Self {
        let text = |value: &str| words::cut(value, 300);
        let mut header = Vec::new();
        if let Some(found) = &info.header {
            header.push((
                "Machine",
                text(&format!("{} {}", found.machine.name, found.machine.title)),
            ));
            header.push(("Type", text(&found.file_type.name)));
            header.push(("Class", format!("{}-bit", found.class)));
            header.push(("OS ABI", text(&found.os_abi.name)));
            header.push(("Entry", found.entry.to_string()));
            if !found.flags.names.is_empty() {
                header.push(("Flags", text(&found.flags.names.join(", "))));
            }
        }
        if let Some(linkage) = info.linkage {
            header.push(("Linkage", linkage.as_str().to_owned()));
        }
        if let Some(interpreter) = &info.interpreter {
            header.push(("Interpreter", text(interpreter)));
        }
        if let Some(build_id) = &info.build_id {
            header.push(("Build id", text(&format!("{build_id:?}"))));
        }
        header.push(("Symbols", words::count(info.symbols.total)));
        header.push(("Relocations", words::count(info.relocations.total)));
        let disassembly = info.disassembly;
        let (entry, functions, functions_total) = match disassembly {
            Some(found) => (found.entry, found.functions, found.functions_total),
            None => (None, Vec::new(), 0),
        };
        let shown = functions.len().min(MAX_FUNCTIONS) as u64;
        Self {
            kind: if info.variant.is_empty() {
                info.kind.as_str().to_owned()
            } else {
                text(&format!("{} ({})", info.kind.as_str(), info.variant))
            },
            entropy: entropy(info.entropy),
            hashes: vec![
                ("SHA-256", info.sha256.to_string()),
                ("SHA-1", text(&info.sha1)),
                ("MD5", text(&info.md5)),
            ],
            header,
            hardening: info.hardening.as_ref().map(marks).unwrap_or_default(),
            packed: info.packer.packed,
            packer: text(info.packer.name.as_deref().unwrap_or_default()),
            signs: info
                .packer
                .signs
                .iter()
                .take(32)
                .map(|sign| text(&sign.text))
                .collect(),
            sections: info
                .sections
                .iter()
                .take(MAX_SECTIONS)
                .map(|section| SectionRow {
                    name: text(&section.name),
                    kind: text(&section.kind),
                    flags: text(&section.flags.join(" ")),
                    address: section.address.to_string(),
                    size: words::size(section.size),
                    entropy: section.entropy.map(entropy),
                })
                .collect(),
            segments: info
                .segments
                .iter()
                .take(MAX_SECTIONS)
                .map(|segment| SegmentRow {
                    kind: text(&segment.kind),
                    permissions: text(&segment.permissions),
                    address: segment.address.to_string(),
                    file_size: words::size(segment.file_size),
                    memory_size: words::size(segment.memory_size),
                    entropy: segment.entropy.map(entropy),
                })
                .collect(),
            strings_total: words::count(info.strings.total),
            strings: StringKind::ALL
                .iter()
                .filter_map(|kind| {
                    let list: Vec<(String, String, u32)> = info
                        .strings
                        .list
                        .iter()
                        .filter(|found| found.kind == *kind)
                        .take(MAX_STRINGS)
                        .map(|found| (format!("{:#x}", found.offset), found.text.clone(), found.count))
                        .collect();
                    let total = info
                        .strings
                        .by_kind
                        .get(kind)
                        .copied()
                        .unwrap_or(list.len() as u64);
                    (!list.is_empty()).then(|| StringGroup {
                        kind: kind.as_str(),
                        total: words::count(total),
                        open: *kind < StringKind::Domain && list.len() <= 40,
                        more: total.saturating_sub(list.len() as u64),
                        list,
                    })
                })
                .collect(),
            libraries: info
                .imports
                .libraries
                .iter()
                .take(MAX_IMPORTS)
                .map(|name| text(name))
                .collect(),
            imports: info
                .imports
                .functions
                .iter()
                .take(MAX_IMPORTS)
                .map(|name| text(name))
                .collect(),
            imports_total: words::count(info.imports.total),
            toolchains: text(&info.toolchains.join(", ")),
            entry: entry.map(code),
            functions: functions.into_iter().take(MAX_FUNCTIONS).map(code).collect(),
            functions_more: functions_total.saturating_sub(shown),
        }
    }
}

fn entropy(value: f64) -> Entropy {
    let value = value.clamp(0.0, 8.0);
    Entropy {
        value: format!("{value:.2}"),
        bar: (value * 10.0).round() as u32,
        tone: match value {
            value if value >= 7.2 => "bad",
            value if value >= 6.5 => "warn",
            _ => "plain",
        },
    }
}

fn marks(hardening: &Hardening) -> Vec<Mark> {
    let yes_no = |name, value: Option<bool>| Mark {
        name,
        value: match value {
            Some(true) => "yes",
            Some(false) => "no",
            None => "unknown",
        }
        .to_owned(),
        tone: match value {
            Some(true) => "good",
            Some(false) => "warn",
            None => "plain",
        },
    };
    let relro = hardening.relro.as_str();
    vec![
        yes_no("NX", hardening.nx),
        yes_no("PIE", Some(hardening.pie)),
        Mark {
            name: "RELRO",
            value: relro.to_owned(),
            tone: match relro {
                "full" => "good",
                _ => "warn",
            },
        },
        yes_no("Canary", hardening.canary),
        yes_no("Fortify", hardening.fortify),
        Mark {
            name: "Stripped",
            value: if hardening.stripped { "yes" } else { "no" }.to_owned(),
            tone: "plain",
        },
    ]
}

fn code(listing: Listing) -> Code {
    Code {
        name: words::cut(&listing.name.unwrap_or_default(), 200),
        address: listing.address.to_string(),
        mode: listing.mode,
        more: listing.more || listing.instructions.len() > MAX_INSTRUCTIONS,
        instructions: listing
            .instructions
            .into_iter()
            .take(MAX_INSTRUCTIONS)
            .map(|step| {
                (
                    step.address.to_string(),
                    format!("{:?}", step.bytes),
                    words::cut(&step.text, 200),
                )
            })
            .collect(),
    }
}
