//! What an installed Debian has and none of its packages holds: the merged `/usr` and alternatives.
//!
//! Since Debian 12 `/bin`, `/sbin`, `/lib` and its kin are links into `/usr` on every system (base-files, usrmerge; Debian's
//! technical committee, #994388), while packages still have files below them. Alternatives are links that scripts of packages
//! make when they are installed (update-alternatives(1)).

use std::collections::BTreeMap;

use hotcell_schema::unpack::{Alternative, AlternativeLink};

use super::Names;
use crate::plan::{RootKind, RootName};

/// Folders that are links into `/usr`: always, and where a package has something in them (base-files of Debian 13 makes them by
/// architecture).
const ALWAYS: [&str; 3] = ["/bin", "/sbin", "/lib"];
const SOMETIMES: [&str; 4] = ["/lib32", "/lib64", "/libo32", "/libx32"];
/// Where links of alternatives lead through.
const ALTERNATIVES: &str = "/etc/alternatives";

/// Moves what stands in folders that are links into `/usr` to where they lead. A folder that a source itself makes a link
/// stays what it is.
pub(super) fn merge(names: &mut Names) {
    for top in ALWAYS.into_iter().chain(SOMETIMES) {
        let below = format!("{top}/");
        let is_link = matches!(names.get(top), Some(name) if name.kind != RootKind::Directory);
        let inside = names.range(below.clone()..);
        let inside = inside.take_while(|(path, _)| path.starts_with(&below));
        let inside: Vec<String> = inside.map(|(path, _)| path.clone()).collect();
        if is_link || !names.contains_key(top) && inside.is_empty() {
            continue;
        }
        for path in inside {
            let Some(name) = names.remove(&path) else { continue };
            let to = format!("/usr{path}");
            // A package may have a link to the other name of a file: that would lead to itself.
            let stays = match names.get(&to).map(|there| &there.kind) {
                Some(RootKind::File { .. }) => matches!(name.kind, RootKind::Link(_)),
                Some(RootKind::Link(_)) => name.kind == RootKind::Directory,
                Some(RootKind::Directory) | None => false,
            };
            if !stays {
                names.insert(to, name);
            }
        }
        names.remove(top);
        make_link(names, top);
    }
}

/// Puts what no package holds into a root: the links into `/usr`, and of alternatives those whose programs are there.
pub(super) fn complete(names: &mut Names, alternatives: &[Alternative]) {
    for top in ALWAYS {
        if !names.contains_key(top) {
            make_link(names, top);
        }
    }
    let mut best: BTreeMap<&str, &Alternative> = BTreeMap::new();
    for alternative in alternatives {
        if !is_there(names, &alternative.master.path) {
            continue;
        }
        // Of equals the first path: it does not depend on the order of packages.
        let rank = |one: &Alternative| (one.priority, std::cmp::Reverse(one.master.path.clone()));
        let chosen = best.entry(&alternative.master.name).or_insert(alternative);
        if rank(alternative) > rank(chosen) {
            *chosen = alternative;
        }
    }
    for alternative in best.into_values() {
        register(names, &alternative.master);
        for slave in &alternative.slaves {
            if is_there(names, &slave.path) {
                register(names, slave);
            }
        }
    }
}

/// Makes the links of an alternative, where nothing stands there: what a package or a folder has is not replaced.
fn register(names: &mut Names, link: &AlternativeLink) {
    let by = format!("{ALTERNATIVES}/{}", link.name);
    let from = merged(names, &link.link);
    if from == by || names.contains_key(&from) {
        return;
    }
    for folder in ["/etc", ALTERNATIVES] {
        names.entry(folder.to_owned()).or_insert(DIRECTORY);
    }
    let to = |target: &str| RootName {
        mode: 0o777,
        kind: RootKind::Link(target.to_owned()),
    };
    names.insert(from, to(&by));
    names.entry(by).or_insert_with(|| to(&link.path));
}

const DIRECTORY: RootName = RootName {
    mode: 0o755,
    kind: RootKind::Directory,
};

fn make_link(names: &mut Names, top: &str) {
    for folder in ["/usr".to_owned(), format!("/usr{top}")] {
        names.entry(folder).or_insert(DIRECTORY);
    }
    let name = RootName {
        mode: 0o777,
        kind: RootKind::Link(format!("usr{top}")),
    };
    names.insert(top.to_owned(), name);
}

/// Where a path leads in a root whose `/usr` is merged.
fn merged(names: &Names, path: &str) -> String {
    for top in ALWAYS.into_iter().chain(SOMETIMES) {
        let usr = format!("usr{top}");
        let links_there = matches!(names.get(top), Some(name) if name.kind == RootKind::Link(usr));
        if links_there && path.strip_prefix(top).is_some_and(|rest| rest.starts_with('/')) {
            return format!("/usr{path}");
        }
    }
    path.to_owned()
}

fn is_there(names: &Names, path: &str) -> bool {
    let name = names.get(&merged(names, path));
    name.is_some_and(|name| name.kind != RootKind::Directory)
}

#[cfg(test)]
mod tests {
    use hotcell_schema::digest::Digest;

    use super::*;
    use crate::plan::Origin;

    fn file(bytes: &[u8]) -> RootKind {
        RootKind::File {
            digest: Digest::of(bytes),
            length: bytes.len() as u64,
            origin: Origin::Object,
        }
    }

    fn link(target: &str) -> RootKind {
        RootKind::Link(target.into())
    }

    fn names(all: &[(&str, RootKind)]) -> Names {
        let name = |kind: &RootKind| RootName {
            mode: 0o755,
            kind: kind.clone(),
        };
        all.iter()
            .map(|(path, kind)| ((*path).to_owned(), name(kind)))
            .collect()
    }

    fn kinds(names: &Names) -> Vec<(&str, &RootKind)> {
        names
            .iter()
            .map(|(path, name)| (path.as_str(), &name.kind))
            .collect()
    }

    #[test]
    fn what_stands_in_bin_and_lib_stands_in_usr() {
        let dir = RootKind::Directory;
        let mut all = names(&[
            ("/bin", dir.clone()),
            ("/bin/bash", file(b"bash")),
            ("/bin/which", link("/usr/bin/which")),
            ("/binary", file(b"x")),
            ("/lib64/ld.so", link("/lib/x/ld.so")),
            ("/usr/bin/bash", link("/bin/bash")),
            ("/usr/bin/which", file(b"which")),
            ("/sbin", link("elsewhere")),
            ("/sbin/x", file(b"in elsewhere")),
        ]);
        merge(&mut all);
        complete(&mut all, &[]);
        assert_eq!(
            kinds(&all),
            [
                ("/bin", &link("usr/bin")),
                ("/binary", &file(b"x")),
                ("/lib", &link("usr/lib")),
                ("/lib64", &link("usr/lib64")),
                ("/sbin", &link("elsewhere")),
                ("/sbin/x", &file(b"in elsewhere")),
                ("/usr", &dir),
                ("/usr/bin", &dir),
                ("/usr/bin/bash", &file(b"bash")),
                ("/usr/bin/which", &file(b"which")),
                ("/usr/lib", &dir),
                ("/usr/lib64", &dir),
                ("/usr/lib64/ld.so", &link("/lib/x/ld.so")),
            ]
        );
    }

    #[test]
    fn the_greatest_priority_that_is_there_is_the_alternative() {
        let links = |link: &str, name: &str, path: &str| AlternativeLink {
            link: link.into(),
            name: name.into(),
            path: path.into(),
        };
        let awk = |path: &str, priority: i32| Alternative {
            master: links("/bin/awk", "awk", path),
            priority,
            slaves: vec![
                links("/usr/bin/nawk", "nawk", path),
                links("/usr/man/awk", "man", "/usr/man/gone"),
            ],
        };
        let editor = Alternative {
            master: links("/usr/bin/editor", "editor", "/bin/ed"),
            priority: 1,
            slaves: Vec::new(),
        };
        let all = [
            awk("/usr/bin/mawk", 5),
            awk("/usr/bin/gawk", 10),
            awk("/usr/bin/gone", 99),
            editor,
        ];
        let mut root = names(&[
            ("/bin/ed", file(b"ed")),
            ("/usr/bin/editor", file(b"its own")),
            ("/usr/bin/gawk", file(b"gawk")),
            ("/usr/bin/mawk", file(b"mawk")),
        ]);
        merge(&mut root);
        complete(&mut root, &all);
        let kind = |path: &str| root.get(path).map(|name| name.kind.clone());
        assert_eq!(kind("/usr/bin/awk"), Some(link("/etc/alternatives/awk")));
        assert_eq!(kind("/etc/alternatives/awk"), Some(link("/usr/bin/gawk")));
        assert_eq!(kind("/etc/alternatives/nawk"), Some(link("/usr/bin/gawk")));
        assert_eq!(kind("/etc/alternatives"), Some(RootKind::Directory));
        assert_eq!(kind("/usr/man/awk"), None);
        // What is there stays.
        assert_eq!(kind("/usr/bin/editor"), Some(file(b"its own")));
        assert_eq!(kind("/etc/alternatives/editor"), None);
    }
}
