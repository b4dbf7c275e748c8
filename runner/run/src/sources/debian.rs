//! Debian packages from a mirror.
//!
//! The chain of trust: Debian's keys sign `InRelease` (checked by `gpgv` or `sqv` with the system's keyring), which holds
//! the digests of the indexes, which hold the digests of packages. Where a signature cannot be had or checked, a pinned digest
//! of the package itself vouches for it instead, and the indexes only say where it stands. Indexes are unpacked by
//! the confined process and read here line by line; the one that was read last is kept, since a root is made of many
//! packages of one suite.

mod index;
mod verify;
mod version;

use std::sync::{Arc, Mutex, PoisonError};

use hotcell_plan::debian::{Listed, field, is_file_name, is_path, listed, seconds};
use hotcell_plan::{Package, PackageFile, SourceError, Wanted};
use hotcell_schema::digest::Digest;
use hotcell_store::records::{Components, key_of};
use hotcell_store::{Record, Store, Stored};

use super::http::Http;
use super::{host, plain};
use index::{Index, Reader};

/// Greatest lengths in bytes.
const MAX_RELEASE: u64 = 8 << 20;
const MAX_INDEX: u64 = 128 << 20;
const MAX_INDEX_TEXT: u64 = 1 << 30;
/// How far a mirror's clock may be ahead, in seconds: as apt has it.
const AHEAD: i64 = 10;
const MAX_DSC: u64 = 1 << 20;
const MAX_FILE: u64 = 2 << 30;
/// Files that one source package may name.
const MAX_FILES: usize = 64;
/// Name and version of what is kept of a package.
const KEY: &str = "hotcell-package 1";
/// The output of its record that holds the package.
const FIELD: &str = "package";

/// Unpacks a compressed text of at most so many bytes, piece by piece.
pub(super) type Unpack<'a> = &'a dyn Fn(&[u8], u64, &mut dyn FnMut(&[u8])) -> Result<(), SourceError>;

/// What is wanted, for people.
pub(super) fn shown(wanted: &Wanted<'_>) -> String {
    let version = wanted
        .version
        .map(|version| format!(" {version}"))
        .unwrap_or_default();
    format!(
        "{}{version} ({}) from {}, {}",
        wanted.package,
        wanted.arch.unwrap_or("source"),
        wanted.mirror,
        wanted.suite
    )
}

/// What is wanted, as the components of a record's key.
fn components(wanted: &Wanted<'_>) -> Components {
    let pin = wanted.sha256.map(|digest| digest.to_string());
    let parts = [
        ("kind", Some(KEY)),
        ("package", Some(wanted.package)),
        ("version", wanted.version),
        ("arch", wanted.arch),
        ("suite", Some(wanted.suite)),
        ("mirror", Some(wanted.mirror)),
        ("sha256", pin.as_deref()),
        ("needs", wanted.needs.then_some("said")),
    ];
    parts
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned())))
        .collect()
}

/// The package, where it was fetched before and is still there.
pub(super) fn stored(store: &Store, wanted: &Wanted<'_>) -> Result<Option<Package>, SourceError> {
    let record = store.record(&key_of(&components(wanted))).map_err(host)?;
    let Some(stored) = record.and_then(|record| record.outputs.get(FIELD).copied()) else {
        return Ok(None);
    };
    let json = store.get(&stored).map_err(host)?;
    Ok(json.and_then(|json| serde_json::from_slice(&json).ok()))
}

/// The index that was read last, and what it was read for.
#[derive(Debug, Default)]
pub(super) struct Latest(Mutex<Option<(String, Arc<Index>)>>);

/// What packages are fetched with.
pub(super) struct Means<'a> {
    pub(super) http: &'a dyn Http,
    pub(super) unpack: Unpack<'a>,
    pub(super) latest: &'a Latest,
    /// Seconds since 1970.
    pub(super) now: i64,
}

/// Fetches a package into the store.
pub(super) fn fetch(store: &Store, means: &Means<'_>, wanted: &Wanted<'_>) -> Result<Package, SourceError> {
    let mirror = Mirror { means, wanted };
    let found = mirror.find()?;
    let mut package = Package {
        name: wanted.package.to_owned(),
        version: found.version,
        arch: found.arch,
        url: String::new(),
        sha256: found.files.first().map_or(Digest::of(b""), |file| file.digest),
        files: Vec::new(),
        needs: found.needs,
    };
    let mut objects = Vec::new();
    let mut files = found.files;
    let mut next = 0;
    while let Some(file) = files.get(next).cloned() {
        let name = file.name.rsplit('/').next().unwrap_or_default().to_owned();
        if !is_file_name(&name) {
            return Err(SourceError::Damaged(format!(
                "`{name}` is no file name of a package"
            )));
        }
        let stored = mirror.package(store, &file)?;
        if next == 0 {
            package.url = mirror.url(&file);
            // Only a `.dsc` is read here.
            let bytes = match wanted.arch {
                Some(_) => Vec::new(),
                None if stored.length > MAX_DSC => {
                    return Err(SourceError::TooMuch(format!(
                        "a .dsc of more than {MAX_DSC} bytes"
                    )));
                }
                None => store.get(&stored).map_err(host)?.unwrap_or_default(),
            };
            // A source package that was pinned is known by its `.dsc` alone, which names the rest.
            if wanted.arch.is_none() && files.len() == 1 {
                files.extend(beside(&file, &bytes)?);
            }
            if package.version.is_empty() {
                package.version = version_of(wanted, &name, &bytes);
            }
        }
        package.files.push(PackageFile {
            name,
            digest: stored.digest,
            length: stored.length,
        });
        objects.push(stored);
        next += 1;
    }
    let json = serde_json::to_vec(&package).map_err(host)?;
    let record = Record {
        components: components(wanted),
        outputs: [(FIELD.to_owned(), store.put(&json).map_err(host)?)]
            .into_iter()
            .collect(),
        objects,
    };
    store
        .put_record(&key_of(&record.components), &record)
        .map_err(host)?;
    Ok(package)
}

/// The files that a `.dsc` names, which stand beside it.
fn beside(dsc: &Listed, bytes: &[u8]) -> Result<Vec<Listed>, SourceError> {
    let text = String::from_utf8_lossy(bytes);
    let files = listed(&text, "Checksums-Sha256");
    if files.is_empty() || files.len() > MAX_FILES {
        return Err(SourceError::Damaged(format!(
            "{} names no files, or more than {MAX_FILES}",
            dsc.name
        )));
    }
    if let Some(wrong) = files.iter().find(|file| !is_file_name(&file.name)) {
        return Err(SourceError::Damaged(format!(
            "`{}` is no file name of a package",
            plain(&wrong.name)
        )));
    }
    let folder = dsc.name.rsplit_once('/').map_or("", |(folder, _)| folder);
    Ok(files
        .into_iter()
        .map(|file| Listed {
            name: format!("{folder}/{}", file.name),
            ..file
        })
        .collect())
}

/// The version of a package that was fetched by its pin alone.
fn version_of(wanted: &Wanted<'_>, name: &str, bytes: &[u8]) -> String {
    if let Some(version) = wanted.version {
        return version.to_owned();
    }
    if wanted.arch.is_none()
        && let Some(version) = field(&String::from_utf8_lossy(bytes), "Version")
    {
        return version.to_owned();
    }
    // name_version_arch.deb
    name.split('_').nth(1).unwrap_or_default().replace("%3a", ":")
}

/// What an index says of a package: its files, as paths on the mirror or whole addresses.
struct Found {
    version: String,
    arch: String,
    files: Vec<Listed>,
    needs: Option<Vec<String>>,
}

struct Mirror<'a> {
    means: &'a Means<'a>,
    wanted: &'a Wanted<'a>,
}

impl Mirror<'_> {
    /// The address of a file: below the mirror, or below what a lock file says. An index never names an address.
    fn url(&self, file: &Listed) -> String {
        match self.wanted.url.is_some() && file.name.contains("://") {
            true => file.name.clone(),
            false => self.address(&file.name),
        }
    }

    fn address(&self, path: &str) -> String {
        format!("{}/{path}", self.wanted.mirror.trim_end_matches('/'))
    }

    fn get(&self, address: &str, most: u64) -> Result<Vec<u8>, SourceError> {
        let mut bytes = Vec::new();
        self.means
            .http
            .get(address, most, &mut bytes)
            .map_err(SourceError::Host)?;
        Ok(bytes)
    }

    fn text(&self, path: &str) -> Result<Vec<u8>, SourceError> {
        self.get(&self.address(path), MAX_RELEASE)
    }

    /// A file whose digest is known, into the store: never more than a piece of it is in memory. A length of 0 is not known.
    fn package(&self, store: &Store, file: &Listed) -> Result<Stored, SourceError> {
        let most = if file.length == 0 { MAX_FILE } else { file.length };
        if most > MAX_FILE {
            return Err(SourceError::TooMuch(format!("more than {MAX_FILE} bytes")));
        }
        let url = self.url(file);
        let mut writer = store.writer().map_err(host)?;
        self.means
            .http
            .get(&url, most, &mut writer)
            .map_err(SourceError::Host)?;
        let stored = writer.finish_as(&file.digest).map_err(host)?;
        stored.ok_or_else(|| unverified(&url))
    }

    /// Whether a pin vouches for what comes of an index. It does not for what the package needs.
    fn pinned(&self) -> bool {
        self.wanted.sha256.is_some() && !self.wanted.needs
    }

    fn find(&self) -> Result<Found, SourceError> {
        let wanted = self.wanted;
        // A lock file says where and what: nothing else is needed.
        if let (false, Some(url), Some(digest)) = (wanted.needs, wanted.url, wanted.sha256) {
            if !is_address(url) {
                return Err(SourceError::Unverified(
                    "the lock file names an address that is none of a mirror; remove it, and lock again"
                        .into(),
                ));
            }
            return Ok(Found {
                version: wanted.version.unwrap_or_default().to_owned(),
                arch: wanted.arch.unwrap_or("source").to_owned(),
                files: vec![Listed {
                    name: url.to_owned(),
                    digest,
                    length: 0,
                }],
                needs: None,
            });
        }
        let mut found = self.found(&*self.index()?)?;
        if let Some(pin) = wanted.sha256 {
            let first = found.files.first_mut();
            match first {
                Some(file) if file.digest == pin => {}
                _ => {
                    return Err(SourceError::NotThere(format!(
                        "{} {} there has not the digest that is pinned",
                        wanted.package, found.version
                    )));
                }
            }
        }
        found.files.truncate(MAX_FILES);
        match found.files.iter().find(|file| !is_path(&file.name)) {
            Some(file) => Err(SourceError::Damaged(format!(
                "the index names `{}`, which is no path below the mirror",
                plain(&file.name)
            ))),
            None => Ok(found),
        }
    }

    /// The text of the suite's `Release`, vouched for by a signature, or by a pin of what is at the chain's end.
    fn release(&self) -> Result<String, SourceError> {
        let wanted = self.wanted;
        let pinned = self.pinned();
        let path = |name: &str| format!("dists/{}/{name}", wanted.suite);
        let signed = match self.text(&path("InRelease")) {
            // A mirror without keys.
            Err(_) if pinned => self.text(&path("Release"))?,
            signed => signed?,
        };
        let text = match verify::signed_text(&signed) {
            Ok(Some(text)) => text,
            // The index then only says where the package is: its own digest vouches for it.
            _ if pinned => String::from_utf8_lossy(&signed).into_owned(),
            Err(error) => return Err(error),
            Ok(None) => {
                return Err(SourceError::Unverified(
                    "its signature cannot be checked here (no gpgv or sqv, or no keyring of Debian), and no digest is pinned"
                        .into(),
                ));
            }
        };
        let names = ["Suite", "Codename"].map(|key| field(&text, key));
        if !names.contains(&Some(wanted.suite)) {
            return Err(SourceError::Unverified(format!(
                "the mirror gives another suite than `{}`",
                wanted.suite
            )));
        }
        // Who pins a package knows which one it is, however old.
        match pinned {
            true => Ok(text),
            false => self.current(&text).map(|()| text),
        }
    }

    /// Whether a `Release` is one of now: an old one with its right signature could hide what was mended since.
    fn current(&self, release: &str) -> Result<(), SourceError> {
        let date = |key: &str| {
            let Some(text) = field(release, key) else {
                return Ok(None);
            };
            let seconds = seconds(text).ok_or_else(|| {
                SourceError::Unverified(format!("the suite's `{key}` is no date: {}", plain(text)))
            })?;
            Ok(Some((text.to_owned(), seconds)))
        };
        if let Some((text, from)) = date("Date")?
            && from > self.means.now.saturating_add(AHEAD)
        {
            return Err(SourceError::Unverified(format!(
                "the suite is of {}, which is yet to come: set this host's clock",
                plain(&text)
            )));
        }
        if let Some((text, until)) = date("Valid-Until")?
            && until < self.means.now
            && self.wanted.check_valid_until
        {
            return Err(SourceError::Expired(plain(&text)));
        }
        Ok(())
    }

    /// The index that has the package: the one that was read last, where it is the same and was vouched for in the same way.
    fn index(&self) -> Result<Arc<Index>, SourceError> {
        let wanted = self.wanted;
        let (folder, name) = match wanted.arch {
            // Packages of every architecture stand in the index of each.
            Some("all") => ("main/binary-amd64".to_owned(), "Packages"),
            Some(arch) => (format!("main/binary-{arch}"), "Packages"),
            None => ("main/source".to_owned(), "Sources"),
        };
        let (pinned, valid) = (self.pinned(), wanted.check_valid_until);
        let key = format!("{} {} {folder} {pinned} {valid}", wanted.mirror, wanted.suite);
        let mut latest = self.means.latest.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, index)) = latest.as_ref().filter(|(known, _)| *known == key) {
            return Ok(Arc::clone(index));
        }
        // What was read last is not held while the next is read.
        *latest = None;
        let index = Arc::new(self.read(&folder, name)?);
        *latest = Some((key, Arc::clone(&index)));
        Ok(index)
    }

    fn read(&self, folder: &str, name: &str) -> Result<Index, SourceError> {
        let suite = self.wanted.suite;
        let release = self.release()?;
        let files = listed(&release, "SHA256");
        let index = [".xz", ".gz"]
            .iter()
            .find_map(|ending| {
                let path = format!("{folder}/{name}{ending}");
                files.iter().find(|file| file.name == path)
            })
            .ok_or_else(|| SourceError::NotThere(format!("the suite `{suite}` has no {folder}")))?;
        if index.length > MAX_INDEX {
            return Err(SourceError::TooMuch(format!(
                "more than {MAX_INDEX} bytes of index"
            )));
        }
        let by_hash = field(&release, "Acquire-By-Hash") == Some("yes");
        let path = match by_hash {
            true => format!("{folder}/by-hash/SHA256/{}", index.digest),
            false => index.name.clone(),
        };
        let address = self.address(&format!("dists/{suite}/{path}"));
        let packed = self.get(&address, index.length)?;
        if Digest::of(&packed) != index.digest {
            return Err(unverified(&address));
        }
        let mut reader = Reader::default();
        (self.means.unpack)(&packed, MAX_INDEX_TEXT, &mut |bytes| reader.take(bytes))?;
        reader.finish()
    }

    /// What the index says of the package.
    fn found(&self, index: &Index) -> Result<Found, SourceError> {
        let wanted = self.wanted;
        let entry = index
            .entry(wanted.package, wanted.version, wanted.arch)
            .ok_or_else(|| SourceError::NotThere(format!("the mirror does not have {}", shown(wanted))))?;
        if entry.files.is_empty() {
            let title = format!("the index does not say all of {}", wanted.package);
            return Err(SourceError::Damaged(title));
        }
        let needs = || {
            index.needs(entry).map_err(|missing| {
                let name = wanted.package;
                let title = format!(
                    "{name} needs {}, and the suite `{}` has none",
                    plain(&missing),
                    wanted.suite
                );
                SourceError::NotThere(title)
            })
        };
        Ok(Found {
            version: entry.version.clone(),
            arch: match wanted.arch {
                Some(_) => entry.arch.clone(),
                None => "source".into(),
            },
            files: entry.files.clone(),
            needs: wanted.needs.then(needs).transpose()?,
        })
    }
}

fn unverified(url: &str) -> SourceError {
    SourceError::Unverified(format!("{url} does not have the digest that vouches for it"))
}

/// An address of a mirror: HTTP or HTTPS, nobody's name in it.
fn is_address(url: &str) -> bool {
    let rest = url
        .strip_prefix("http://")
        .or_else(|| url.strip_prefix("https://"));
    rest.is_some_and(|rest| {
        let plain = rest
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && !b"@?#\"<>\\".contains(&byte));
        plain && rest.len() <= 2000 && !rest.split('/').any(|part| part == "..")
    })
}

#[cfg(test)]
mod tests;
