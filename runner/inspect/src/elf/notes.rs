//! ELF notes, build id, and what toolchains wrote into `.comment`.

use std::collections::BTreeSet;

use hotcell_schema::elf::Note;
use hotcell_schema::guest::{self, Hex};

use super::tables::Tables;
use crate::bytes::{clip, u32_at};
use crate::findings::{self as rule, Collector};

/// Greatest number of notes kept.
const MAX_NOTES: usize = 64;
/// Bytes of a note's content that are kept.
const MAX_CONTENT: usize = 64;
/// Greatest number of toolchain texts kept.
const MAX_TOOLCHAINS: usize = 16;

/// Reads the notes of segments, and of sections that no segment has.
pub(crate) fn read(tables: &Tables<'_>, findings: &mut Collector) -> Vec<Note> {
    let segments = tables
        .segments
        .iter()
        .filter(|segment| segment.p_type == 4)
        .map(|segment| (segment.p_offset, segment.p_filesz, segment.p_align));
    let sections = tables
        .sections
        .iter()
        .filter(|(_, section)| section.sh_type == 7)
        .map(|(_, section)| (section.sh_offset, section.sh_size, section.sh_addralign));
    let mut seen = BTreeSet::new();
    let mut notes = Vec::new();
    for (offset, size, align) in segments.chain(sections) {
        // Notes are aligned to 4 bytes; with an alignment of 8 (properties of 64-bit files) to 8.
        let align = if align == 8 { 8 } else { 4 };
        let end = offset.saturating_add(clip(tables.bytes, offset, size).len() as u64);
        let mut at = offset;
        while end.saturating_sub(at) >= 12 && notes.len() < MAX_NOTES {
            match one(tables, at, end, align) {
                Some((note, next)) if next > at => {
                    if seen.insert(at) {
                        notes.push(note);
                    }
                    at = next;
                }
                _ => {
                    findings.add(rule::BAD_NOTE, Some(at), "a note is longer than its table");
                    break;
                }
            }
        }
    }
    notes.sort_by_key(|note| note.offset);
    notes
}

fn one(tables: &Tables<'_>, at: u64, end: u64, align: u64) -> Option<(Note, u64)> {
    let word = |place: u64| u32_at(tables.bytes, place, tables.big()).map(u64::from);
    let (name_size, size, kind) = (word(at)?, word(at + 4)?, word(at + 8)?);
    let name_at = at + 12;
    // The name is padded to 4 bytes, then the content to the table's alignment, counted from the note's start.
    let content_at = (at + (12 + name_size).next_multiple_of(align)).max(name_at);
    let content_end = content_at
        .checked_add(size)
        .filter(|&content_end| content_end <= end)?;
    let next = at + (content_end - at).next_multiple_of(align);
    let name = clip(tables.bytes, name_at, name_size.min(64));
    let name = name.split(|&byte| byte == 0).next().unwrap_or_default();
    let content = clip(tables.bytes, content_at, size.min(MAX_CONTENT as u64));
    let owner = guest::text(name);
    let meaning = meaning(&owner, kind as u32, content, tables.big());
    let note = Note {
        owner,
        kind: kind as u32,
        offset: at,
        meaning,
        content: Hex(content.to_vec()),
    };
    Some((note, next))
}

/// What a note says, for the owners that Linux programs have.
fn meaning(owner: &str, kind: u32, content: &[u8], big: bool) -> String {
    let word = |place: u64| u32_at(content, place, big);
    match (owner, kind) {
        ("GNU", 1) => {
            let system = match word(0) {
                Some(0) => "Linux",
                Some(1) => "GNU Hurd",
                Some(2) => "Solaris",
                Some(3) => "FreeBSD",
                Some(4) => "NetBSD",
                _ => "another system",
            };
            match (word(4), word(8), word(12)) {
                (Some(major), Some(minor), Some(patch)) => {
                    format!("for {system} {major}.{minor}.{patch} or later")
                }
                _ => format!("for {system}"),
            }
        }
        ("GNU", 3) => "build id".into(),
        ("GNU", 4) => format!("made by gold {}", guest::text(content).trim_end_matches('\0')),
        ("GNU", 5) => "program properties".into(),
        ("Go", 4) => "Go build id".into(),
        ("FDO", 0x407c_0c0a) => "dynamic library recommendations".into(),
        ("FDO", 0xcafe_1a7e) => "package metadata".into(),
        ("Android", 1) => "for Android".into(),
        ("FreeBSD", 1) => "for FreeBSD".into(),
        ("NetBSD", 1) => "for NetBSD".into(),
        ("OpenBSD", 1) => "for OpenBSD".into(),
        ("stapsdt", 3) => "SystemTap probe".into(),
        ("Xen", _) => "Xen guest".into(),
        _ => String::new(),
    }
}

/// The GNU build id.
pub(crate) fn build_id(notes: &[Note]) -> Option<Hex> {
    notes
        .iter()
        .find(|note| note.owner == "GNU" && note.kind == 3)
        .map(|note| note.content.clone())
}

/// The texts of `.comment`.
pub(crate) fn toolchains(tables: &Tables<'_>) -> Vec<String> {
    let Some((_, section)) = tables.sections.iter().find(|(name, _)| name == ".comment") else {
        return Vec::new();
    };
    let mut found: Vec<String> = Vec::new();
    let content = tables.content(section);
    for text in content
        .get(..content.len().min(1 << 16))
        .unwrap_or_default()
        .split(|&byte| byte == 0)
    {
        let text = guest::text_up_to(text, 200);
        if !text.is_empty() && !found.contains(&text) && found.len() < MAX_TOOLCHAINS {
            found.push(text);
        }
    }
    found
}
