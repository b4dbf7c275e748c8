//! Arch profiles: the shipped ones, and folders of the user's own; by name, and by the first bytes of an ELF file.

use std::collections::BTreeMap;

use camino::Utf8Path;
use hotcell_schema::arch::{ArchProfile, ByteOrder};

use crate::diagnostics::{Code, Diagnostic};
use crate::shipped;
use crate::sources::Sources;
use crate::tree;

/// How many bytes of a file are looked at to tell its architecture: the ELF header.
pub const HEADER: usize = 64;

/// Every arch profile that is known.
#[derive(Debug, Clone, Default)]
pub struct Profiles {
    list: Vec<ArchProfile>,
    names: BTreeMap<String, usize>,
}

impl Profiles {
    /// The shipped profiles.
    pub fn shipped() -> Self {
        let mut problems = Vec::new();
        let mut profiles = Self::default();
        let mut sources = Sources::default();
        for file in shipped::arch_profiles() {
            let number = sources.add(format!("shipped:{}", file.path), file.text.into());
            profiles.take_in(number, file.text, &mut problems);
        }
        // A test reads every shipped profile and tolerates no problem.
        profiles
    }

    /// The shipped profiles, and on top of them those of folders (`*.toml`), in order. A profile of the same name replaces.
    pub fn load(folders: &[&Utf8Path], sources: &mut Sources, problems: &mut Vec<Diagnostic>) -> Self {
        let mut profiles = Self::shipped();
        for folder in folders {
            let entries = match folder.read_dir_utf8() {
                Ok(entries) => entries,
                Err(error) => {
                    problems.push(Diagnostic::without_place(
                        Code::CannotRead,
                        format!("cannot read the profile folder {folder}: {error}"),
                    ));
                    continue;
                }
            };
            let mut files: Vec<_> = entries
                .filter_map(|entry| Some(entry.ok()?.into_path()))
                .filter(|path| path.extension() == Some("toml"))
                .collect();
            files.sort();
            for path in files {
                match crate::load::read_text(&path) {
                    Ok(text) => {
                        let number = sources.add(path, text.clone());
                        profiles.take_in(number, &text, problems);
                    }
                    Err(problem) => problems.push(problem),
                }
            }
        }
        profiles
    }

    fn take_in(&mut self, file: u32, text: &str, problems: &mut Vec<Diagnostic>) {
        let Some(node) = tree::toml::parse(file, text, problems) else {
            return;
        };
        match tree::read::read::<ArchProfile>(&node) {
            Ok(profile) => self.add(profile),
            Err(error) => problems.push(Diagnostic::error(
                Code::BrokenProfile,
                error.span.unwrap_or(node.span),
                format!("this is no arch profile: {error}"),
            )),
        }
    }

    /// Takes in a profile; one of the same name is replaced.
    pub fn add(&mut self, profile: ArchProfile) {
        let index = match self.list.iter().position(|known| known.name == profile.name) {
            Some(index) => index,
            None => self.list.len(),
        };
        self.names.retain(|_, known| *known != index);
        for name in std::iter::once(&profile.name).chain(&profile.aliases) {
            self.names.insert(name.clone(), index);
        }
        match self.list.get_mut(index) {
            Some(place) => *place = profile,
            None => self.list.push(profile),
        }
    }

    /// All profiles, shipped ones first, each group by name.
    pub fn all(&self) -> &[ArchProfile] {
        &self.list
    }

    /// All names and aliases.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.keys().map(String::as_str)
    }

    /// The profile of a name or alias.
    pub fn find(&self, name: &str) -> Option<&ArchProfile> {
        self.list.get(*self.names.get(name)?)
    }

    /// The profile that the first bytes of a file fit; see [`find_by_header`].
    pub fn find_by_header(&self, bytes: &[u8]) -> Option<&ArchProfile> {
        find_by_header(&self.list, bytes)
    }
}

/// What the start of an ELF file says. (System V ABI, chapter 4, "ELF Header".)
struct Header {
    class: u8,
    byte_order: ByteOrder,
    machine: u16,
    flags: u32,
}

impl Header {
    fn read(bytes: &[u8]) -> Option<Self> {
        if bytes.get(..4)? != b"\x7fELF" {
            return None;
        }
        let (class, flags_at) = match bytes.get(4)? {
            1 => (32, 36),
            2 => (64, 48),
            _ => return None,
        };
        let byte_order = match bytes.get(5)? {
            1 => ByteOrder::Little,
            2 => ByteOrder::Big,
            _ => return None,
        };
        let machine: [u8; 2] = bytes.get(18..20)?.try_into().ok()?;
        let flags: [u8; 4] = bytes.get(flags_at..flags_at + 4)?.try_into().ok()?;
        let (machine, flags) = match byte_order {
            ByteOrder::Little => (u16::from_le_bytes(machine), u32::from_le_bytes(flags)),
            ByteOrder::Big => (u16::from_be_bytes(machine), u32::from_be_bytes(flags)),
        };
        Some(Self {
            class,
            byte_order,
            machine,
            flags,
        })
    }
}

/// The profile that the first bytes of a file fit, if it is an ELF file of a known architecture. At most [`HEADER`]
/// bytes are looked at.
pub fn find_by_header<'a>(profiles: &'a [ArchProfile], bytes: &[u8]) -> Option<&'a ArchProfile> {
    let header = Header::read(bytes)?;
    let fits = |profile: &&ArchProfile| {
        let elf = &profile.elf;
        elf.machine.contains(&header.machine)
            && elf.class == header.class
            && elf.byte_order == header.byte_order
            && elf
                .flags
                .is_none_or(|flags| header.flags & flags.mask == flags.value)
    };
    let mut found: Vec<&ArchProfile> = profiles.iter().filter(fits).collect();
    // The one that asks for most bits of the flags describes the file best.
    found.sort_by_key(|profile| {
        std::cmp::Reverse(profile.elf.flags.map_or(0, |flags| flags.mask.count_ones()))
    });
    found.first().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(class: u8, order: u8, machine: u16, flags: u32) -> Vec<u8> {
        let mut bytes = vec![0; 64];
        bytes[..4].copy_from_slice(b"\x7fELF");
        bytes[4] = class;
        bytes[5] = order;
        let at = if class == 1 { 36 } else { 48 };
        if order == 1 {
            bytes[18..20].copy_from_slice(&machine.to_le_bytes());
            bytes[at..at + 4].copy_from_slice(&flags.to_le_bytes());
        } else {
            bytes[18..20].copy_from_slice(&machine.to_be_bytes());
            bytes[at..at + 4].copy_from_slice(&flags.to_be_bytes());
        }
        bytes
    }

    #[test]
    fn every_shipped_profile_can_be_read() {
        let mut problems = Vec::new();
        let mut profiles = Profiles::default();
        let files = shipped::arch_profiles();
        for file in &files {
            profiles.take_in(0, file.text, &mut problems);
            assert!(
                profiles.find(file.name).is_some(),
                "{}: the profile's name is not the file's",
                file.path
            );
        }
        assert_eq!(problems, []);
        assert_eq!(profiles.all().len(), files.len());
        assert!(!files.is_empty());
    }

    #[test]
    fn headers_tell_the_architecture() {
        let profiles = Profiles::shipped();
        let name = |bytes: &[u8]| profiles.find_by_header(bytes).map(|profile| profile.name.clone());
        assert_eq!(name(&header(2, 1, 62, 0)).as_deref(), Some("x86_64"));
        assert_eq!(name(&header(2, 1, 183, 0)).as_deref(), Some("aarch64"));
        assert_eq!(name(&header(1, 1, 8, 0x7000_1005)).as_deref(), Some("mipsel"));
        assert_eq!(name(&header(1, 1, 62, 0)), None);
        assert_eq!(name(&header(1, 2, 62, 0)), None);
        let whole = header(2, 1, 62, 0);
        for length in 0..52 {
            assert_eq!(name(&whole[..length]), None, "{length} bytes");
        }
    }
}
