//! The files of a source that is no folder: members of archives, packages, files of source packages.
//!
//! Nothing here reads an archive: the [`SourceReader`](crate::reader::SourceReader) does.

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use camino::{Utf8Path, Utf8PathBuf};
use hotcell_schema::digest::Digest;
use hotcell_schema::manifest::{Source, SourceKind, Span, Spanned};
use hotcell_schema::unpack::{Alternative, ArchiveFolder, ArchiveKind, ArchiveLink};

use crate::debian;
use crate::diagnostics::{Code, Diagnostic};
use crate::files::{self, FileError};
use crate::load::{self, Loaded};
use crate::plan::{Archive, Origin};
use crate::reader::{Package, SourceError, Supply, Wanted};
use crate::sources::Sources;

/// Greatest number of archives of one source.
const MAX_ARCHIVES: usize = 10_000;
/// Packages of one source that are not named, and needed by those that are.
const MAX_NEEDED: usize = 256;
/// Greatest length of a `.dsc` in bytes.
const MAX_DSC: u64 = 1 << 20;

/// A file of a pool.
#[derive(Debug)]
pub(crate) struct Entry {
    pub origin: Origin,
    /// Its name: a member's as the archive says it.
    pub name: String,
    pub digest: Digest,
    pub length: u64,
    pub head: Vec<u8>,
    /// Permission bits.
    pub mode: u32,
}

/// The files of one source.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    pub entries: Vec<Entry>,
    /// Links among them.
    pub links: Vec<ArchiveLink>,
    /// Folders that they stand in, as far as archives tell of them.
    pub folders: Vec<ArchiveFolder>,
    /// Whether Debian packages are among the archives, and what alternatives they register.
    pub is_debian: bool,
    pub alternatives: Vec<Alternative>,
    by_digest: HashMap<Digest, usize>,
    by_name: HashMap<String, usize>,
    /// Where it was looked, for people.
    pub shown: String,
    /// What it holds is not known before a run has fetched it.
    pub unknown: bool,
}

impl Pool {
    fn add(&mut self, entry: Entry) {
        let index = self.entries.len();
        self.by_digest.entry(entry.digest).or_insert(index);
        self.by_name.entry(entry.name.clone()).or_insert(index);
        self.entries.push(entry);
    }

    /// The first file with those bytes.
    pub(crate) fn with_digest(&self, digest: &Digest) -> Option<&Entry> {
        self.entries.get(*self.by_digest.get(digest)?)
    }

    /// The first file of that name.
    pub(crate) fn with_name(&self, name: &str) -> Option<&Entry> {
        self.entries
            .get(*self.by_name.get(name.trim_start_matches("./"))?)
    }

    /// Files whose names fit a pattern, in the order of their archives and in each as they stand there.
    pub(crate) fn matching(&self, pattern: &str) -> Result<Vec<&Entry>, FileError> {
        let matcher = files::matcher(pattern.strip_prefix("./").unwrap_or(pattern))?;
        Ok(self
            .entries
            .iter()
            .filter(|entry| matcher.is_match(&entry.name))
            .collect())
    }
}

/// The pools of all sources that were asked for, each looked into once; nothing where one cannot be had.
#[derive(Debug, Default)]
pub(crate) struct Pools {
    made: BTreeMap<String, Option<Rc<Pool>>>,
    /// Archives that files stand in.
    pub archives: Vec<Archive>,
    /// Packages by the name of their source.
    pub packages: BTreeMap<String, Package>,
}

impl Pools {
    /// The files of a source that is no folder.
    pub(crate) fn of(
        &mut self,
        name: &str,
        source: &Source,
        loaded: &Loaded,
        supply: &Supply<'_>,
        sources: &Sources,
        problems: &mut Vec<Diagnostic>,
    ) -> Option<Rc<Pool>> {
        if loaded.tainted.contains(&("sources", name.to_owned())) {
            return None;
        }
        if let Some(pool) = self.made.get(name) {
            return pool.clone();
        }
        let mut maker = Maker {
            supply,
            sources,
            folder: &loaded.folder,
            archives: &mut self.archives,
            problems,
        };
        let place = loaded.tree.key_span(&["sources", name]);
        let made = maker.pool(name, source, place);
        let pool = made.map(|(pool, packages)| {
            self.packages.extend(packages);
            Rc::new(pool)
        });
        self.made.insert(name.to_owned(), pool.clone());
        pool
    }
}

/// A package of a source.
#[derive(Debug, Clone)]
struct Named {
    name: String,
    /// Where the manifest says it, or what needs it.
    place: Span,
    /// Absent: the manifest.
    needed_by: Option<String>,
}

impl Named {
    fn of(package: &Spanned<String>) -> Self {
        Self {
            name: package.value.clone(),
            place: package.span,
            needed_by: None,
        }
    }
}

/// Makes pools.
struct Maker<'a> {
    supply: &'a Supply<'a>,
    sources: &'a Sources,
    /// The plan's folder.
    folder: &'a Utf8Path,
    archives: &'a mut Vec<Archive>,
    problems: &'a mut Vec<Diagnostic>,
}

impl Maker<'_> {
    /// The files of a source, and the packages that were found for it. `None` when it cannot be had, which was told.
    fn pool(&mut self, name: &str, source: &Source, place: Span) -> Option<(Pool, Vec<(String, Package)>)> {
        let mut pool = Pool::default();
        if let Some(path) = &source.path {
            let before = self.problems.len();
            self.take_files(&mut pool, source, path, path.span);
            return (self.problems.len() == before).then_some((pool, Vec::new()));
        }
        if let Some(package) = &source.package {
            let package = Named {
                name: package.clone(),
                place,
                needed_by: None,
            };
            let package = self.package(&mut pool, source, name, &package)?;
            let found = package.map(|package| (name.to_owned(), package));
            return Some((pool, found.into_iter().collect()));
        }
        let before = self.problems.len();
        let mut named: Vec<Named> = source.packages.iter().map(Named::of).collect();
        let mut packages = Vec::with_capacity(named.len());
        let mut at = 0;
        while let Some(next) = named.get(at).cloned() {
            at += 1;
            // Each is pinned by itself.
            let key = format!("{name}/{}", next.name);
            let found = self.package(&mut pool, source, &key, &next)?;
            let needs = found.as_ref().and_then(|found| found.needs.as_ref());
            for need in needs.into_iter().flatten() {
                if named.iter().any(|known| known.name == *need) {
                    continue;
                }
                if named.len() - source.packages.len() == MAX_NEEDED {
                    let title = format!("the packages of `{name}` need more than {MAX_NEEDED} others");
                    let problem = Diagnostic::error(Code::TooMany, next.place, title);
                    self.problems
                        .push(problem.help(format!("the last is `{need}`, which `{}` needs", next.name)));
                    return None;
                }
                named.push(Named {
                    name: need.clone(),
                    place: next.place,
                    needed_by: Some(next.name.clone()),
                });
            }
            packages.extend(found.map(|found| (key, found)));
        }
        // Of packages that a run will fetch, the first is told, and how many more there are.
        let missing = named.len() - packages.len();
        self.problems.truncate(before + missing.min(1));
        if let Some(first) = self.problems.get_mut(before).filter(|_| missing > 1) {
            first.title = format!("{}; and {} more", first.title, missing - 1);
        }
        pool.shown = format!("the packages of `{name}`");
        Some((pool, packages))
    }

    /// Adds what is in a package; `None`: it cannot be had. A package that is not known before a run fetches it leaves the pool
    /// unknown.
    fn package(
        &mut self,
        pool: &mut Pool,
        source: &Source,
        key: &str,
        named: &Named,
    ) -> Option<Option<Package>> {
        let (place, pin) = (named.place, self.supply.pins.get(key));
        let wanted = wanted(source, &named.name, pin)?;
        let needed_by = named.needed_by.as_ref();
        let needed_by = needed_by.map_or_else(String::new, |who| format!(", which `{who}` needs,"));
        pool.shown = format!("the package {} of {}{needed_by}", wanted.package, wanted.suite);
        let package = match self.supply.reader.package(&wanted) {
            Ok(package) if source.dependencies && !wanted.needs => Package {
                needs: pin.and_then(|pin| pin.needs.clone()),
                ..package
            },
            Ok(package) => package,
            Err(error) => {
                let unknown = matches!(error, SourceError::NotFetched(_));
                pool.unknown |= unknown;
                self.tell(&pool.shown, &error, place);
                return unknown.then_some(None);
            }
        };
        pool.shown = format!("the package {} {}", package.name, package.version);
        match source.kind {
            SourceKind::DebianSource => {
                for file in &package.files {
                    pool.add(Entry {
                        origin: Origin::Object,
                        name: file.name.clone(),
                        digest: file.digest,
                        length: file.length,
                        head: Vec::new(),
                        mode: 0o644,
                    });
                }
            }
            _ => {
                let file = package.files.first()?;
                let archive = Archive {
                    digest: file.digest,
                    length: file.length,
                    name: file.name.clone(),
                    path: None,
                    secret: None,
                };
                if !self.archive(pool, archive, None, place) {
                    return None;
                }
            }
        }
        Some(Some(package))
    }

    fn take_files(&mut self, pool: &mut Pool, source: &Source, pattern: &str, span: Span) {
        let (folder, pattern) = self.split(span, pattern);
        pool.shown = load::join(&folder, Utf8Path::new(&pattern)).into_string();
        let found = match files::matching(&folder, &pattern) {
            Ok(found) => found,
            Err(error) => return self.problems.push(error.tell(span)),
        };
        if found.is_empty() {
            self.problems.push(
                Diagnostic::error(Code::NoMatch, span, format!("no archive fits `{pattern}`"))
                    .help(format!("it was looked for in {}", files::shown(&folder))),
            );
        }
        if found.len() > MAX_ARCHIVES {
            let title = format!("more than {MAX_ARCHIVES} archives");
            return self.problems.push(Diagnostic::error(Code::TooMany, span, title));
        }
        for path in found {
            if source.kind == SourceKind::DebianSource {
                self.dsc(pool, &path, span);
                continue;
            }
            let facts = match files::facts_within(&path, files::MAX_ARCHIVE) {
                Ok(facts) => facts,
                Err(error) => {
                    self.problems.push(error.tell(span));
                    continue;
                }
            };
            let archive = Archive {
                digest: facts.digest,
                length: facts.length,
                name: path.strip_prefix(self.folder).unwrap_or(&path).to_string(),
                path: Some(files::relative(self.folder, &path)),
                secret: source.password.as_ref().map(|password| password.secret.clone()),
            };
            self.archive(pool, archive, Some(&path), span);
        }
    }

    /// The folder that a pattern begins with, and the rest of it: the folder may lead out of the document's.
    fn split(&self, span: Span, pattern: &str) -> (Utf8PathBuf, String) {
        let parts: Vec<&str> = pattern.split('/').collect();
        let literal = parts
            .iter()
            .take(parts.len().saturating_sub(1))
            .take_while(|part| !part.contains(['*', '?', '[', '{', '\\']))
            .count();
        let start = parts.get(..literal).unwrap_or_default().join("/");
        let start = match literal {
            1 if start.is_empty() => "/".to_owned(),
            _ => start,
        };
        let folder = load::join(self.sources.folder(span.file), Utf8Path::new(&start));
        (folder, parts.get(literal..).unwrap_or_default().join("/"))
    }

    /// Adds the members of an archive.
    fn archive(&mut self, pool: &mut Pool, archive: Archive, path: Option<&Utf8Path>, span: Span) -> bool {
        match self.supply.reader.index(&archive, path) {
            Ok(index) => {
                pool.links.extend_from_slice(&index.links);
                pool.folders.extend_from_slice(&index.folders);
                pool.is_debian |= index.kind == ArchiveKind::Debian;
                if index.kind == ArchiveKind::Debian {
                    pool.alternatives.extend_from_slice(&index.alternatives);
                }
                for member in &index.members {
                    pool.add(Entry {
                        origin: Origin::Member {
                            archive: self.archives.len(),
                            name: member.name.clone(),
                        },
                        name: member.name.clone(),
                        digest: member.digest,
                        length: member.length,
                        head: member.head.0.clone(),
                        mode: member.mode,
                    });
                }
                self.archives.push(archive);
                true
            }
            Err(error) => {
                self.tell(&archive.name, &error, span);
                false
            }
        }
    }

    /// Adds a `.dsc` and what it names, each with the digest that it says.
    fn dsc(&mut self, pool: &mut Pool, path: &Utf8Path, span: Span) {
        let text = match files::facts(path) {
            Ok(facts) if facts.length > MAX_DSC => Err("it is too large for a .dsc".to_owned()),
            Ok(_) => std::fs::read_to_string(path).map_err(|error| load::reason(&error)),
            Err(error) => return self.problems.push(error.tell(span)),
        };
        let listed = text.map(|text| debian::listed(&text, "Checksums-Sha256"));
        let listed = match listed {
            Ok(listed) if !listed.is_empty() => listed,
            Ok(_) => {
                let title = format!("{path} names no files: it has no `Checksums-Sha256`");
                return self.problems.push(Diagnostic::error(Code::Archive, span, title));
            }
            Err(reason) => {
                let title = format!("cannot read {path}: {reason}");
                return self
                    .problems
                    .push(Diagnostic::error(Code::SampleFile, span, title));
            }
        };
        let folder = path.parent().unwrap_or(Utf8Path::new("."));
        let beside = listed.iter().map(|file| (file.name.as_str(), Some(file.digest)));
        let own = path.file_name().map(|name| (name, None));
        for (name, digest) in own.into_iter().chain(beside) {
            if !debian::is_file_name(name) {
                let title = format!("{path} names a file that is no file name");
                self.problems.push(Diagnostic::error(Code::Archive, span, title));
                continue;
            }
            let file = load::join(folder, Utf8Path::new(name));
            match files::facts(&file) {
                Ok(facts) if digest.is_some_and(|digest| digest != facts.digest) => {
                    let title = format!("{file} does not have the digest that {path} says");
                    self.problems
                        .push(Diagnostic::error(Code::SampleDigest, span, title));
                }
                Ok(facts) => pool.add(Entry {
                    origin: Origin::File(files::relative(self.folder, &file)),
                    name: name.to_owned(),
                    digest: facts.digest,
                    length: facts.length,
                    head: facts.head,
                    mode: 0o644,
                }),
                Err(error) => self.problems.push(error.tell(span)),
            }
        }
    }

    fn tell(&mut self, what: &str, error: &SourceError, span: Span) {
        let (code, help) = match error {
            SourceError::NotFetched(_) => {
                let title = format!("{what} is {error}");
                return self.problems.push(
                    Diagnostic::warning(Code::NotFetched, span, title)
                        .help("`hotcell run` fetches it; its samples are not known before"),
                );
            }
            SourceError::Secret(reason) => {
                // Once, however many archives it opens: it is the secret that is wrong, and none of them.
                let told = |problem: &Diagnostic| {
                    problem.code == Code::SecretUnread.as_str() && problem.title == *reason
                };
                if !self.problems.iter().any(told) {
                    let problem = Diagnostic::error(Code::SecretUnread, span, reason.as_str());
                    self.problems.push(problem.help(
                        "it is the `password` of this source; its table in `secrets` says where it is read",
                    ));
                }
                return;
            }
            SourceError::NeedsPassword => (
                Code::ArchivePassword,
                Some("name its password: `password = { secret = \"vault-pw\" }`"),
            ),
            SourceError::WrongPassword => (
                Code::ArchivePassword,
                Some(
                    "check the secret that its source names; archives with other passwords need a source of their own",
                ),
            ),
            SourceError::TooMuch(_) => (
                Code::ArchiveTooLarge,
                Some(
                    "an archive that unpacks to far more than it holds is an attack; split it if it is none",
                ),
            ),
            SourceError::Unsupported(_) | SourceError::Damaged(_) => (
                Code::Archive,
                Some("unpack it apart from here, or take it out of the source's `path`"),
            ),
            SourceError::NotThere(_) => (Code::Package, None),
            SourceError::Unverified(_) => (
                Code::Unverified,
                Some("install `gpgv` and `debian-archive-keyring`, or pin the package by `sha256`"),
            ),
            SourceError::Expired(_) => (
                Code::Unverified,
                Some(
                    "take a mirror that is up to date; for a snapshot, whose suites stay as they were, write `check-valid-until = false`",
                ),
            ),
            SourceError::NoReader | SourceError::Host(_) => (Code::SourceHost, None),
        };
        let diagnostic = Diagnostic::error(code, span, format!("{what} cannot be used: {error}"));
        self.problems.push(match help {
            Some(help) => diagnostic.help(help),
            None => diagnostic,
        });
    }
}

/// What a manifest asks for; a pin of the lock file says which version.
fn wanted<'a>(source: &'a Source, package: &'a str, pin: Option<&'a Package>) -> Option<Wanted<'a>> {
    let arch = match source.kind {
        SourceKind::DebianSource => None,
        _ => Some(source.arch.as_deref()?),
    };
    Some(Wanted {
        package,
        version: source.version.as_deref().or(pin.map(|pin| pin.version.as_str())),
        arch,
        suite: source.suite.as_deref().unwrap_or(Source::SUITE),
        mirror: source.mirror.as_deref().unwrap_or(Source::MIRROR),
        check_valid_until: source.check_valid_until.unwrap_or(true),
        sha256: source.sha256.or(pin.map(|pin| pin.sha256)),
        url: pin.map(|pin| pin.url.as_str()),
        needs: source.dependencies && pin.is_none_or(|pin| pin.needs.is_none()),
    })
}
