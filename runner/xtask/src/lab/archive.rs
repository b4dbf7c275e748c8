//! An archive of the kind newc (`cpio` of SVR4 without checksums), which the kernel unpacks into its first file system
//! (kernel's Documentation/driver-api/early-userspace/buffer-format.rst).

use std::{
    collections::BTreeSet,
    fs::File,
    io::{BufWriter, Write},
    path::Path,
};

use crate::common::Failure;

/// An archive that is being written.
pub(super) struct Archive {
    file: BufWriter<File>,
    /// What is in it.
    names: BTreeSet<String>,
}

/// Kinds of entries, as in `st_mode` (`inode(7)`).
const FOLDER: u32 = 0o040_000;
const FILE: u32 = 0o100_000;
const CHARACTERS: u32 = 0o020_000;

impl Archive {
    pub(super) fn create(path: &Path) -> Result<Self, Failure> {
        Ok(Self {
            file: BufWriter::new(File::create(path)?),
            names: BTreeSet::new(),
        })
    }

    /// A folder; one that is there already is left.
    pub(super) fn folder(&mut self, name: &str) -> Result<(), Failure> {
        self.entry(name, FOLDER | 0o755, (0, 0), &[])
    }

    /// A file; one that is there already is left.
    pub(super) fn file(&mut self, name: &str, mode: u32, content: &[u8]) -> Result<(), Failure> {
        self.entry(name, FILE | mode, (0, 0), content)
    }

    /// A file, and the folders above it.
    pub(super) fn file_with_folders(&mut self, name: &str, mode: u32, content: &[u8]) -> Result<(), Failure> {
        for (at, _) in name.match_indices('/') {
            self.folder(name.get(..at).unwrap_or_default())?;
        }
        self.file(name, mode, content)
    }

    /// A device of characters.
    pub(super) fn device(&mut self, name: &str, major: u32, minor: u32) -> Result<(), Failure> {
        self.entry(name, CHARACTERS | 0o600, (major, minor), &[])
    }

    pub(super) fn finish(mut self) -> Result<(), Failure> {
        self.write("TRAILER!!!", 0, (0, 0), &[])?;
        Ok(self.file.flush()?)
    }

    fn entry(&mut self, name: &str, mode: u32, device: (u32, u32), content: &[u8]) -> Result<(), Failure> {
        match self.names.insert(name.to_owned()) {
            true => self.write(name, mode, device, content),
            false => Ok(()),
        }
    }

    fn write(&mut self, name: &str, mode: u32, device: (u32, u32), content: &[u8]) -> Result<(), Failure> {
        let length = u32::try_from(content.len())?;
        let number = u32::try_from(self.names.len())?;
        // number, mode, user, group, links, time, length, device of the file, device it is, length of name, checksum
        let fields = [
            number,
            mode,
            0,
            0,
            1,
            0,
            length,
            0,
            0,
            device.0,
            device.1,
            u32::try_from(name.len())?.saturating_add(1),
            0,
        ];
        let mut head = "070701".to_owned();
        for field in fields {
            head.push_str(&format!("{field:08x}"));
        }
        head.push_str(name);
        head.push('\0');
        for part in [head.as_bytes(), content] {
            self.file.write_all(part)?;
            // Head and content each end at a multiple of four.
            let rest = part.len().wrapping_neg() % 4;
            self.file.write_all(&[0; 4][..rest])?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_stand_at_multiples_of_four() {
        let path = std::env::temp_dir().join(format!("hotcell-newc-{}", std::process::id()));
        let write = || -> Result<Vec<u8>, Failure> {
            let mut archive = Archive::create(&path)?;
            archive.file_with_folders("a/b", 0o644, b"xyz")?;
            archive.file_with_folders("a/c", 0o644, b"")?;
            archive.finish()?;
            Ok(std::fs::read(&path)?)
        };
        let bytes = write().unwrap_or_else(|error| panic!("{error}"));
        let _ = std::fs::remove_file(&path);
        let text = String::from_utf8_lossy(&bytes);
        let heads: Vec<usize> = text.match_indices("070701").map(|(at, _)| at).collect();
        // The folder once, two files, the end.
        assert_eq!(heads.len(), 4);
        assert!(heads.iter().all(|at| at % 4 == 0), "{heads:?}");
        assert_eq!(bytes.len() % 4, 0);
        assert!(text.contains("a/b\0"));
    }
}
