//! Debian packages from a mirror.
//!
//! The chain of trust: Debian's keys sign `InRelease` (checked by `gpgv` or `sqv` with the system's keyring), which holds
//! the digests of the indexes, which hold the digests of packages. Where a signature cannot be had or checked, a pinned digest
//! of the package itself vouches for it instead, and the indexes only say where it stands. Indexes are unpacked by
//! the confined process and read here line by line.

mod verify;
mod version;

use hotcell_plan::debian::{Listed, field, is_file_name, listed};
use hotcell_plan::{Package, PackageFile, SourceError, Wanted};
use hotcell_schema::digest::Digest;
use hotcell_store::records::{Components, key_of};
use hotcell_store::{Record, Store};

use super::host;
use super::http::Http;

/// Greatest lengths in bytes.
const MAX_RELEASE: u64 = 8 << 20;
const MAX_INDEX: u64 = 128 << 20;
const MAX_INDEX_TEXT: u64 = 1 << 30;
const MAX_DSC: u64 = 1 << 20;
const MAX_FILE: u64 = 2 << 30;
/// Files that one source package may name.
const MAX_FILES: usize = 64;
/// Name and version of what is kept of a package.
const KEY: &str = "hotcell-package 1";
/// The output of its record that holds the package.
const FIELD: &str = "package";

/// Unpacks a compressed text of at most so many bytes.
pub(super) type Unpack<'a> = &'a dyn Fn(&[u8], u64) -> Result<Vec<u8>, SourceError>;

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

/// Fetches a package into the store.
pub(super) fn fetch(
    store: &Store,
    http: &dyn Http,
    unpack: Unpack<'_>,
    wanted: &Wanted<'_>,
) -> Result<Package, SourceError> {
    let mirror = Mirror { http, unpack, wanted };
    let found = mirror.find()?;
    let mut package = Package {
        name: wanted.package.to_owned(),
        version: found.version,
        arch: found.arch,
        url: String::new(),
        sha256: found.files.first().map_or(Digest::of(b""), |file| file.digest),
        files: Vec::new(),
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
        let bytes = mirror.file(&file)?;
        if next == 0 {
            package.url = mirror.url(&file.name);
            // A source package that was pinned is known by its `.dsc` alone, which names the rest.
            if wanted.arch.is_none() && files.len() == 1 {
                files.extend(beside(&file, &bytes)?);
            }
            if package.version.is_empty() {
                package.version = version_of(wanted, &name, &bytes);
            }
        }
        let stored = store.put(&bytes).map_err(host)?;
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
}

struct Mirror<'a> {
    http: &'a dyn Http,
    unpack: Unpack<'a>,
    wanted: &'a Wanted<'a>,
}

impl Mirror<'_> {
    fn url(&self, path: &str) -> String {
        match path.contains("://") {
            true => path.to_owned(),
            false => format!("{}/{path}", self.wanted.mirror.trim_end_matches('/')),
        }
    }

    fn get(&self, path: &str, most: u64) -> Result<Vec<u8>, SourceError> {
        self.http.get(&self.url(path), most).map_err(SourceError::Host)
    }

    /// A file whose digest is known. A length of 0 is not known.
    fn file(&self, file: &Listed) -> Result<Vec<u8>, SourceError> {
        let most = if file.length == 0 { MAX_FILE } else { file.length };
        if most > MAX_FILE {
            return Err(SourceError::TooMuch(format!("more than {MAX_FILE} bytes")));
        }
        let bytes = self.get(&file.name, most)?;
        match Digest::of(&bytes) == file.digest {
            true => Ok(bytes),
            false => Err(SourceError::Unverified(format!(
                "{} does not have the digest that vouches for it",
                self.url(&file.name)
            ))),
        }
    }

    fn find(&self) -> Result<Found, SourceError> {
        let wanted = self.wanted;
        // A lock file says where and what: nothing else is needed.
        if let (Some(url), Some(digest)) = (wanted.url, wanted.sha256) {
            return Ok(Found {
                version: wanted.version.unwrap_or_default().to_owned(),
                arch: wanted.arch.unwrap_or("source").to_owned(),
                files: vec![Listed {
                    name: url.to_owned(),
                    digest,
                    length: 0,
                }],
            });
        }
        let release = self.release()?;
        let index = self.index(&release)?;
        let mut found = match wanted.arch {
            Some(arch) => self.binary(&index, arch),
            None => self.source(&index),
        }?;
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
        Ok(found)
    }

    /// The text of the suite's `Release`, vouched for by a signature, or by a pin of what is at the chain's end.
    fn release(&self) -> Result<String, SourceError> {
        let wanted = self.wanted;
        let pinned = wanted.sha256.is_some();
        let path = |name: &str| format!("dists/{}/{name}", wanted.suite);
        let signed = match self.get(&path("InRelease"), MAX_RELEASE) {
            // A mirror without keys.
            Err(_) if pinned => self.get(&path("Release"), MAX_RELEASE)?,
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
        match names.contains(&Some(wanted.suite)) {
            true => Ok(text),
            false => Err(SourceError::Unverified(format!(
                "the mirror gives another suite than `{}`",
                wanted.suite
            ))),
        }
    }

    /// The text of the index that lists the package.
    fn index(&self, release: &str) -> Result<String, SourceError> {
        let wanted = self.wanted;
        let folder = match wanted.arch {
            // Packages of every architecture stand in the index of each.
            Some("all") => "main/binary-amd64".to_owned(),
            Some(arch) => format!("main/binary-{arch}"),
            None => "main/source".to_owned(),
        };
        let name = if wanted.arch.is_some() {
            "Packages"
        } else {
            "Sources"
        };
        let files = listed(release, "SHA256");
        let index = [".xz", ".gz"]
            .iter()
            .find_map(|ending| {
                let path = format!("{folder}/{name}{ending}");
                files.iter().find(|file| file.name == path)
            })
            .ok_or_else(|| SourceError::NotThere(format!("the suite `{}` has no {folder}", wanted.suite)))?;
        if index.length > MAX_INDEX {
            return Err(SourceError::TooMuch(format!(
                "more than {MAX_INDEX} bytes of index"
            )));
        }
        let by_hash = field(release, "Acquire-By-Hash") == Some("yes");
        let path = match by_hash {
            true => format!("{folder}/by-hash/SHA256/{}", index.digest),
            false => index.name.clone(),
        };
        let packed = self.file(&Listed {
            name: format!("dists/{}/{path}", wanted.suite),
            ..index.clone()
        })?;
        let text = (self.unpack)(&packed, MAX_INDEX_TEXT)?;
        String::from_utf8(text).map_err(|_| SourceError::Damaged("the index is not UTF-8".into()))
    }

    /// The newest paragraph of an index that fits.
    fn paragraph<'t>(&self, index: &'t str, arch: Option<&str>) -> Result<(&'t str, &'t str), SourceError> {
        let wanted = self.wanted;
        let start = format!("Package: {}\n", wanted.package);
        let fits = index.split("\n\n").filter(|paragraph| {
            let paragraph = paragraph.trim_start_matches('\n');
            // The first line tells nearly all of them apart.
            (paragraph.starts_with(&start) || paragraph.contains(&format!("\n{start}")))
                && arch.is_none_or(|arch| {
                    let own = field(paragraph, "Architecture");
                    own == Some(arch) || own == Some("all")
                })
        });
        let versions = fits.filter_map(|paragraph| Some((field(paragraph, "Version")?, paragraph)));
        let newest = versions
            .filter(|(version, _)| wanted.version.is_none_or(|wanted| wanted == *version))
            .max_by(|a, b| version::compare(a.0, b.0));
        newest.ok_or_else(|| SourceError::NotThere(format!("the mirror does not have {}", shown(wanted))))
    }

    fn binary(&self, index: &str, arch: &str) -> Result<Found, SourceError> {
        let (version, paragraph) = self.paragraph(index, Some(arch))?;
        let file = || {
            Some(Listed {
                name: field(paragraph, "Filename")?.to_owned(),
                digest: field(paragraph, "SHA256")?.parse().ok()?,
                length: field(paragraph, "Size")?.parse().ok()?,
            })
        };
        let file = file().ok_or_else(|| incomplete(self.wanted))?;
        Ok(Found {
            version: version.to_owned(),
            arch: field(paragraph, "Architecture").unwrap_or(arch).to_owned(),
            files: vec![file],
        })
    }

    fn source(&self, index: &str) -> Result<Found, SourceError> {
        let (version, paragraph) = self.paragraph(index, None)?;
        let folder = field(paragraph, "Directory").ok_or_else(|| incomplete(self.wanted))?;
        let mut files = listed(paragraph, "Checksums-Sha256");
        for file in &mut files {
            file.name = format!("{folder}/{}", file.name);
        }
        // The `.dsc` first: it is what a pin names.
        files.sort_by_key(|file| !file.name.ends_with(".dsc"));
        match files.first() {
            Some(file) if file.name.ends_with(".dsc") && file.length <= MAX_DSC => Ok(Found {
                version: version.to_owned(),
                arch: "source".into(),
                files,
            }),
            _ => Err(incomplete(self.wanted)),
        }
    }
}

fn incomplete(wanted: &Wanted<'_>) -> SourceError {
    SourceError::Damaged(format!("the index does not say all of {}", wanted.package))
}
