//! What an index of a suite (`Packages`, `Sources`) says of its packages: as much of it as is asked for.
//!
//! An index has 60 MB of text, most of it for people: it is looked at as it comes, and little of each paragraph kept.

use std::collections::BTreeMap;

use hotcell_plan::SourceError;
use hotcell_plan::debian::{Listed, field, is_package_name, listed};

use super::version;

/// Longest paragraph of an index.
const MAX_PARAGRAPH: usize = 1 << 20;
/// Bytes that are kept of one index: five times what the `main` of a suite has.
const MAX_KEPT: usize = 128 << 20;
/// Alternatives of one dependency, and dependencies of one package, that are looked at.
const MAX_NAMES: usize = 1000;

/// One version of a package.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) version: String,
    /// Its Debian architecture; of a source package, those that it builds for.
    pub(super) arch: String,
    /// Its files, as paths on the mirror: the `.deb`, or the `.dsc` first. None where the index does not say all of it.
    pub(super) files: Vec<Listed>,
    /// `Pre-Depends` and `Depends`.
    depends: String,
}

/// Who provides a name: by how much they belong to every system, then by their own name.
type Providers = Vec<(usize, String)>;

/// The packages of an index.
#[derive(Debug, Default)]
pub(super) struct Index {
    entries: BTreeMap<String, Vec<Entry>>,
    providers: BTreeMap<String, Providers>,
}

/// The values of `Priority`, those that every system has first (Debian Policy 2.5).
const PRIORITIES: [&str; 5] = ["required", "important", "standard", "optional", "extra"];

impl Index {
    /// The newest version of a package that fits.
    pub(super) fn entry(&self, name: &str, version: Option<&str>, arch: Option<&str>) -> Option<&Entry> {
        let fits = |entry: &&Entry| {
            version.is_none_or(|version| version == entry.version)
                && arch.is_none_or(|arch| arch == entry.arch || entry.arch == "all")
        };
        let entries = self.entries.get(name)?.iter().filter(fits);
        entries.max_by(|a, b| version::compare(&a.version, &b.version))
    }

    /// The packages that one needs, each once: of alternatives the first that there is, of those who provide it the one that most
    /// belongs to every system. What is not there is an error, in the index's words.
    pub(super) fn needs(&self, entry: &Entry) -> Result<Vec<String>, String> {
        let mut needs: Vec<String> = Vec::new();
        for one in names(&entry.depends, ',') {
            let mut alternatives = names(one, '|').map(name_of);
            let name = alternatives
                .find_map(|name| self.chosen(name))
                .ok_or_else(|| one.to_owned())?;
            if !needs.iter().any(|known| known == name) {
                needs.push(name.to_owned());
            }
        }
        Ok(needs)
    }

    /// The package of that name, or who provides it.
    fn chosen<'a>(&'a self, name: &'a str) -> Option<&'a str> {
        match self.entries.contains_key(name) {
            true => Some(name),
            false => {
                let providers = self.providers.get(name)?.iter();
                providers.min().map(|(_, provider)| provider.as_str())
            }
        }
    }
}

/// The parts of a field of relationships.
fn names(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let parts = text.split(separator).map(str::trim);
    parts.filter(|part| !part.is_empty()).take(MAX_NAMES)
}

/// The name in `libc6:any (>= 2.36)`.
fn name_of(relation: &str) -> &str {
    let end = relation.find([' ', '(', ':', '[']);
    relation.get(..end.unwrap_or(relation.len())).unwrap_or_default()
}

/// Reads an index, piece by piece.
#[derive(Debug, Default)]
pub(super) struct Reader {
    /// The paragraph that is not yet at its end.
    open: Vec<u8>,
    index: Index,
    kept: usize,
    problem: Option<SourceError>,
}

impl Reader {
    pub(super) fn take(&mut self, bytes: &[u8]) {
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            if self.problem.is_some() {
                return;
            }
            let ends = line == b"\n" && self.open.ends_with(b"\n");
            if self.open.len() + line.len() > MAX_PARAGRAPH {
                let title = format!("a paragraph of more than {MAX_PARAGRAPH} bytes in its index");
                self.problem = Some(SourceError::TooMuch(title));
                return;
            }
            self.open.extend_from_slice(line);
            if ends {
                self.close();
            }
        }
    }

    /// What was read.
    pub(super) fn finish(mut self) -> Result<Index, SourceError> {
        self.close();
        match self.problem {
            Some(problem) => Err(problem),
            None => Ok(self.index),
        }
    }

    fn close(&mut self) {
        let paragraph = std::mem::take(&mut self.open);
        let Ok(text) = str::from_utf8(&paragraph) else {
            self.problem = Some(SourceError::Damaged("the index is not UTF-8".into()));
            return;
        };
        let text = text.trim_start_matches('\n');
        let Some(name) = field(text, "Package").filter(|name| is_package_name(name)) else {
            return;
        };
        let Some(version) = field(text, "Version") else {
            return;
        };
        let own = |key| field(text, key).unwrap_or_default().to_owned();
        let entry = Entry {
            version: version.to_owned(),
            arch: own("Architecture"),
            files: binary(text).map_or_else(|| source(text), |file| vec![file]),
            depends: [own("Pre-Depends"), own("Depends")].join(","),
        };
        let provides = own("Provides");
        let lengths = entry
            .files
            .iter()
            .map(|file| file.name.len() + size_of::<Listed>());
        self.kept += [name, version, &entry.arch, &entry.depends, &provides]
            .iter()
            .map(|text| text.len())
            .chain(lengths)
            .sum::<usize>()
            + size_of::<Entry>();
        if self.kept > MAX_KEPT {
            let title = format!("an index of more than {} MiB", MAX_KEPT >> 20);
            self.problem = Some(SourceError::TooMuch(title));
            return;
        }
        let priority = field(text, "Priority").unwrap_or_default();
        let rank = PRIORITIES.iter().position(|known| *known == priority);
        let rank = rank.unwrap_or(PRIORITIES.len());
        for provided in names(&provides, ',').map(name_of) {
            let providers = self.index.providers.entry(provided.to_owned()).or_default();
            providers.push((rank, name.to_owned()));
        }
        let entries = self.index.entries.entry(name.to_owned()).or_default();
        entries.push(entry);
    }
}

/// The file of a binary package.
fn binary(text: &str) -> Option<Listed> {
    Some(Listed {
        name: field(text, "Filename")?.to_owned(),
        digest: field(text, "SHA256")?.parse().ok()?,
        length: field(text, "Size")?.parse().ok()?,
    })
}

/// The files of a source package, the `.dsc` first: it is what a pin names.
fn source(text: &str) -> Vec<Listed> {
    let Some(folder) = field(text, "Directory") else {
        return Vec::new();
    };
    let mut files = listed(text, "Checksums-Sha256");
    for file in &mut files {
        file.name = format!("{folder}/{}", file.name);
    }
    files.sort_by_key(|file| !file.name.ends_with(".dsc"));
    match files.first() {
        Some(file) if file.name.ends_with(".dsc") && file.length <= super::MAX_DSC => files,
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Index, SourceError> {
        let mut reader = Reader::default();
        text.as_bytes().chunks(7).for_each(|piece| reader.take(piece));
        reader.finish()
    }

    #[test]
    fn little_of_an_index_is_kept() {
        let mut reader = Reader::default();
        let other = format!(
            "Package: other\nVersion: 1\nDescription: {}\n\n",
            "x".repeat(10_000)
        );
        for _ in 0..1000 {
            reader.take(other.as_bytes());
        }
        assert!(reader.kept < 1 << 20, "{}", reader.kept);
        let mut reader = Reader::default();
        for _ in 0..2000 {
            reader.take(&[b'x'; 1000]);
        }
        assert!(matches!(reader.finish(), Err(SourceError::TooMuch(_))));
        let mut reader = Reader::default();
        let long = format!(
            "Package: other\nVersion: 1\nDepends: {}\n\n",
            "x".repeat(1_000_000)
        );
        for _ in 0..200 {
            reader.take(long.as_bytes());
        }
        assert!(reader.open.is_empty() && reader.kept < MAX_KEPT + (2 << 20));
        assert!(matches!(reader.finish(), Err(SourceError::TooMuch(_))));
    }

    #[test]
    fn the_newest_that_fits_is_found() {
        let index = read(
            "Version: 1\nPackage: thing\nArchitecture: armhf\n\nPackage: thing\nArchitecture: all\nVersion: 10\n\nPackage: thing\nArchitecture: armhf\nVersion: 9",
        )
        .unwrap();
        let version = |version, arch| {
            let entry = index.entry("thing", version, arch)?;
            Some(entry.version.as_str())
        };
        assert_eq!(version(None, Some("armhf")), Some("10"));
        assert_eq!(version(Some("9"), Some("armhf")), Some("9"));
        assert_eq!(version(Some("9"), Some("amd64")), None);
        assert_eq!(version(None, None), Some("10"));
        assert!(index.entry("thing", None, None).unwrap().files.is_empty());
    }

    #[test]
    fn dependencies_are_followed_by_what_there_is() {
        let index = read(
            "Package: sh\nVersion: 1\nPre-Depends: libc (>= 2), awk\nDepends: gone | tool:any (<< 3) | libc, libc, debconf (>= 0.5) | debconf-2.0\n\n\
             Package: libc\nVersion: 2\n\nPackage: tool\nVersion: 2\n\n\
             Package: gawk\nVersion: 1\nPriority: optional\nProvides: awk\n\n\
             Package: mawk\nVersion: 1\nPriority: required\nProvides: awk (= 1), other\n\n\
             Package: cdebconf\nVersion: 1\nProvides: debconf-2.0\n\n\
             Package: broken\nVersion: 1\nDepends: libc, nothing (>= 3) | nobody\n",
        )
        .unwrap();
        let needs = |name| index.needs(index.entry(name, None, None).unwrap());
        assert_eq!(needs("sh").unwrap(), ["libc", "mawk", "tool", "cdebconf"]);
        assert_eq!(needs("libc").unwrap(), [""; 0]);
        assert_eq!(needs("broken").unwrap_err(), "nothing (>= 3) | nobody");
    }
}
