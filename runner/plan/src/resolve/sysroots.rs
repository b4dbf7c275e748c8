//! Roots of guests: what the sources that stages name hold, the later ones over the earlier.

use std::collections::BTreeMap;

use camino::Utf8Path;
use hotcell_schema::digest::Digest;
use hotcell_schema::manifest::{Source, SourceKind, Span, Spanned};
use hotcell_schema::sysroot as bounds;
use hotcell_schema::unpack::Alternative;
use indexmap::IndexMap;

use super::Shared;
use crate::diagnostics::{Code, Diagnostic};
use crate::load;
use crate::plan::{Plan, RootKind, RootName, Sysroot};
use crate::pools::{Pool, Pools};
use crate::reader::Supply;
use crate::sources::Sources;

mod debian;
mod folder;

/// Sources of each root by its key, each where it is first named.
pub(super) type Wanted = IndexMap<String, Vec<Spanned<String>>>;

/// The key of a root.
pub(super) fn key(names: &[String]) -> String {
    names.join("+")
}

/// Names of a root so far.
type Names = BTreeMap<String, RootName>;

/// What a source is of a root.
#[derive(Default)]
struct Part {
    names: Names,
    /// Whether Debian packages are in it, and what alternatives they register.
    is_debian: bool,
    alternatives: Vec<Alternative>,
}

impl From<Names> for Part {
    fn from(names: Names) -> Self {
        Self {
            names,
            ..Self::default()
        }
    }
}

/// Reads the sources of all roots into the plan.
pub(super) fn find(
    shared: &Shared<'_>,
    wanted: &Wanted,
    supply: &Supply<'_>,
    mut pools: Pools,
    plan: &mut Plan,
    sources: &Sources,
    problems: &mut Vec<Diagnostic>,
) {
    let mut finder = Finder {
        shared,
        supply,
        sources,
        problems,
        pools: &mut pools,
        told: Vec::new(),
    };
    for (key, names) in wanted {
        let parts: Vec<Option<Part>> = names.iter().map(|name| finder.names(name)).collect();
        let parts: Option<Vec<Part>> = parts.into_iter().collect();
        let is_debian = parts.iter().flatten().any(|part| part.is_debian);
        let mut alternatives = Vec::new();
        let mut all = parts.as_ref().map(|_| Names::new());
        for (name, mut part) in names.iter().zip(parts.into_iter().flatten()) {
            if is_debian {
                debian::merge(&mut part.names);
            }
            alternatives.append(&mut part.alternatives);
            all = all.and_then(|all| finder.over(all, part.names, name.span));
        }
        if let Some(all) = all.as_mut().filter(|_| is_debian) {
            debian::complete(all, &alternatives);
        }
        if let Some(sysroot) = all.and_then(|all| finder.bounded(all, names)) {
            plan.sysroots.insert(key.clone(), sysroot);
        }
    }
    plan.archives = pools.archives;
    plan.packages = pools.packages;
}

struct Finder<'a> {
    shared: &'a Shared<'a>,
    supply: &'a Supply<'a>,
    sources: &'a Sources,
    problems: &'a mut Vec<Diagnostic>,
    pools: &'a mut Pools,
    /// Names of sources that cannot be used, which was told.
    told: Vec<String>,
}

impl Finder<'_> {
    /// What a source holds; `None`: it cannot be had, or is not known yet.
    fn names(&mut self, wanted: &Spanned<String>) -> Option<Part> {
        let name = wanted.value.as_str();
        if self.told.iter().any(|told| told == name) || self.shared.tainted("sources", name) {
            return None;
        }
        let all = &self.shared.manifest.sources;
        let found = match all.get(name) {
            None => {
                let title = format!("there is no source `{name}`");
                let problem = Diagnostic::error(Code::UnknownSamples, wanted.span, title);
                let known = all.keys().map(String::as_str);
                Err(self.shared.near.hint(problem, name, known))
            }
            Some(source) if source.kind == SourceKind::DebianSource => {
                let title = format!("`{name}` is a source package, and no root of a guest");
                let problem = Diagnostic::error(Code::SourceKeys, wanted.span, title);
                Err(problem.help("take a source of kind `folder`, `archive` or `debian`"))
            }
            Some(source) => self.of(name, source),
        };
        match found {
            Ok(found) => found,
            Err(problem) => {
                self.problems.push(problem);
                self.told.push(name.to_owned());
                None
            }
        }
    }

    fn of(&mut self, name: &str, source: &Source) -> Result<Option<Part>, Diagnostic> {
        let place = self.shared.loaded.tree.key_span(&["sources", name]);
        if source.kind == SourceKind::Folder {
            let Some(path) = &source.path else { return Ok(None) };
            let folder = load::join(self.sources.folder(path.span.file), Utf8Path::new(&path.value));
            let base = &self.shared.loaded.folder;
            let mut unread = Vec::new();
            let names = folder::names(base, &folder, path.span, &mut unread)?;
            if let Some(first) = unread.first() {
                let title = match unread.len() {
                    1 => format!("{first} may not be read, and is left out of the root"),
                    many => format!(
                        "{many} names may not be read, and are left out of the root: {first} is the first"
                    ),
                };
                let problem = Diagnostic::warning(Code::SampleFile, path.span, title);
                self.problems.push(problem);
            }
            return Ok(Some(names.into()));
        }
        let loaded = self.shared.loaded;
        let pool = self
            .pools
            .of(name, source, loaded, self.supply, self.sources, self.problems);
        match pool {
            Some(pool) if !pool.unknown => pool_part(&pool).map(Some).map_err(|wrong| {
                // The name is as hostile as the archive.
                let wrong = wrong.replace(char::is_control, "\u{fffd}");
                let title = format!(
                    "{} has the name `{wrong}`, which is no path of a root",
                    pool.shown
                );
                Diagnostic::error(Code::Archive, place, title)
            }),
            _ => Ok(None),
        }
    }

    /// What a further source says, over what is there.
    fn over(&mut self, mut all: Names, found: Names, span: Span) -> Option<Names> {
        for (path, name) in found {
            match all.get(&path) {
                // A folder does not replace a link to one: packages share folders that only one of them moved.
                Some(RootName {
                    kind: RootKind::Link(_),
                    ..
                }) if name.kind == RootKind::Directory => {}
                _ => _ = all.insert(path, name),
            }
        }
        if all.len() > bounds::Sysroot::MAX_ENTRIES {
            self.problems.push(too_many("the root", span));
            return None;
        }
        Some(all)
    }

    fn bounded(&mut self, entries: Names, named: &[Spanned<String>]) -> Option<Sysroot> {
        let mut bytes = 0u64;
        let mut parts: Vec<Vec<u8>> = Vec::with_capacity(entries.len() * 3);
        for (path, name) in &entries {
            let (kind, what): (&str, &[u8]) = match &name.kind {
                RootKind::Directory => ("d", b""),
                RootKind::Link(target) => ("l", target.as_bytes()),
                RootKind::File { digest, length, .. } => {
                    bytes = bytes.saturating_add(*length);
                    ("f", digest.as_bytes())
                }
            };
            parts.push(path.clone().into_bytes());
            parts.push(format!("{kind}{:o}", name.mode).into_bytes());
            parts.push(what.to_vec());
        }
        let span = named.first().map(|name| name.span).unwrap_or_default();
        // Once more: what makes packages an installed Debian came after they were counted.
        if entries.len() > bounds::Sysroot::MAX_ENTRIES {
            self.problems.push(too_many("the root", span));
            return None;
        }
        if bytes > bounds::Sysroot::MAX_CONTENT {
            self.problems.push(too_large("the root", span));
            return None;
        }
        Some(Sysroot {
            digest: Digest::of_parts(parts.iter().map(Vec::as_slice)),
            names: entries.len() as u64,
            bytes,
            entries,
        })
    }
}

/// What is to be done about a root that is too large.
const LESS: &str = "name less: a folder with what the sample needs (its loader and libraries), or packages";

fn too_many(what: &str, span: Span) -> Diagnostic {
    let title = format!("{what} has more than {} names", bounds::Sysroot::MAX_ENTRIES);
    Diagnostic::error(Code::TooMany, span, title).help(LESS)
}

fn too_large(what: &str, span: Span) -> Diagnostic {
    let most = bounds::Sysroot::MAX_CONTENT >> 20;
    let title = format!("{what} has more than {most} MiB of files");
    Diagnostic::error(Code::TooLarge, span, title).help(LESS)
}

/// What the archives of a source are of a root. The error is a name that cannot be one of it.
fn pool_part(pool: &Pool) -> Result<Part, String> {
    let mut names = Names::new();
    let mut add = |name: &str, what: RootName| match root_path(name)? {
        Some(path) => {
            names.insert(path, what);
            Ok(())
        }
        None => Ok::<_, String>(()),
    };
    for folder in &pool.folders {
        let kind = RootKind::Directory;
        add(
            &folder.name,
            RootName {
                mode: folder.mode,
                kind,
            },
        )?;
    }
    for entry in &pool.entries {
        let kind = RootKind::File {
            digest: entry.digest,
            length: entry.length,
            origin: entry.origin.clone(),
        };
        add(
            &entry.name,
            RootName {
                mode: entry.mode,
                kind,
            },
        )?;
    }
    for link in &pool.links {
        let (mode, kind) = match link.hard {
            false => (0o777, RootKind::Link(link.target.clone())),
            true => {
                let file = pool.with_name(&link.target).ok_or_else(|| link.target.clone())?;
                let kind = RootKind::File {
                    digest: file.digest,
                    length: file.length,
                    origin: file.origin.clone(),
                };
                (file.mode, kind)
            }
        };
        add(&link.name, RootName { mode, kind })?;
    }
    Ok(Part {
        names,
        is_debian: pool.is_debian,
        alternatives: pool.alternatives.clone(),
    })
}

/// A member's name as a path of a root; nothing where it is the root itself, or what a Debian package says of itself.
fn root_path(name: &str) -> Result<Option<String>, String> {
    let plain = name.trim_start_matches('/').trim_end_matches('/');
    if matches!(plain, "" | ".") || plain == "DEBIAN" || plain.starts_with("DEBIAN/") {
        return Ok(None);
    }
    let wrong = |part: &str| matches!(part, "" | "." | "..");
    match name.contains('\0') || plain.split('/').any(wrong) {
        true => Err(name.to_owned()),
        false => Ok(Some(format!("/{plain}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_members_are_paths_of_a_root_or_none() {
        let path = |name: &str| root_path(name).map_err(|_| ());
        assert_eq!(path("usr/bin/x"), Ok(Some("/usr/bin/x".into())));
        assert_eq!(path("/usr/lib/"), Ok(Some("/usr/lib".into())));
        for nothing in ["", ".", "./", "DEBIAN/control", "DEBIAN", "/"] {
            assert_eq!(path(nothing), Ok(None), "{nothing}");
        }
        assert_eq!(path("DEBIANS/x"), Ok(Some("/DEBIANS/x".into())));
        for wrong in ["../x", "a/../b", "a//b", "a/./b", "a\0b", ".."] {
            assert_eq!(path(wrong), Err(()), "{wrong}");
        }
    }
}
