//! Sources and secrets: whether each has the keys that its kind needs, and names what there is.

use hotcell_schema::manifest::{Secret, Source, SourceKind, Span};

use super::Shared;
use crate::diagnostics::{Code, Diagnostic};

/// Keys of a source beside `kind`.
const KEYS: [&str; 11] = [
    "path",
    "password",
    "package",
    "packages",
    "dependencies",
    "version",
    "arch",
    "suite",
    "mirror",
    "check-valid-until",
    "sha256",
];

pub(super) fn check(shared: &Shared<'_>, problems: &mut Vec<Diagnostic>) {
    for (name, source) in &shared.manifest.sources {
        if shared.tainted("sources", name) {
            continue;
        }
        let place = shared.tree.key_span(&["sources", name]);
        let mut wrong = |span: Span, title: String, help: &str| {
            problems.push(Diagnostic::error(Code::SourceKeys, span, title).help(help));
        };
        if let Some(missing) = missing(source) {
            wrong(
                place,
                format!("the source `{name}` does not say {}", missing.0),
                missing.1,
            );
        }
        let allowed = allowed(source);
        for key in KEYS {
            let there = shared.tree.at(&["sources", name, key]).is_some();
            if there && !allowed.contains(&key) {
                let span = shared.tree.key_span(&["sources", name, key]);
                let title = format!("`{key}` has no meaning for the source `{name}`");
                wrong(span, title, &format!("it can have: {}", allowed.join(", ")));
            }
        }
        if let Some(password) = &source.password {
            let span = shared.tree.key_span(&["sources", name, "password"]);
            known(shared, &password.secret, span, problems);
        }
    }
    for (name, secret) in &shared.manifest.secrets {
        let ways = ways(secret);
        if ways != 1 && !shared.tainted("secrets", name) {
            let span = shared.tree.key_span(&["secrets", name]);
            let how = if ways == 0 { "nowhere" } else { "in several ways" };
            let title = format!("the secret `{name}` says {how} where it is read");
            problems.push(
                Diagnostic::error(Code::SecretPlace, span, title)
                    .help("write one of `file`, `command` and `env`"),
            );
        }
    }
}

/// What a source needs and does not have, and how it is written.
fn missing(source: &Source) -> Option<(&'static str, &'static str)> {
    let path = source.path.is_some();
    let package = source.package.is_some() || !source.packages.is_empty();
    match source.kind {
        SourceKind::Folder if !path => Some(("its folder", "write `path = \"folder\"`")),
        SourceKind::Archive if !path => Some(("its archives", "write `path = \"vault/*.zip\"`")),
        SourceKind::Debian | SourceKind::DebianSource if !path && !package => Some((
            "its package",
            "write `package = \"busybox-static\"`, `packages` for several, or `path` for packages that are files",
        )),
        SourceKind::Debian if package && source.arch.is_none() => Some((
            "the Debian architecture of its package",
            "write `arch = \"armhf\"`, or `\"all\"` for a package of every architecture",
        )),
        _ => None,
    }
}

/// The keys that have a meaning for a source.
fn allowed(source: &Source) -> &'static [&'static str] {
    let one = source.package.is_some();
    match (source.kind, source.path.is_some()) {
        (SourceKind::Folder, _) => &["path"],
        (SourceKind::Archive, _) => &["path", "password"],
        (SourceKind::Debian | SourceKind::DebianSource, true) => &["path"],
        (SourceKind::Debian, false) if !one => &[
            "packages",
            "dependencies",
            "arch",
            "suite",
            "mirror",
            "check-valid-until",
        ],
        (SourceKind::Debian, false) => &[
            "package",
            "version",
            "arch",
            "suite",
            "mirror",
            "check-valid-until",
            "sha256",
        ],
        (SourceKind::DebianSource, false) => &[
            "package",
            "version",
            "suite",
            "mirror",
            "check-valid-until",
            "sha256",
        ],
    }
}

fn ways(secret: &Secret) -> usize {
    usize::from(secret.file.is_some())
        + usize::from(!secret.command.is_empty())
        + usize::from(secret.env.is_some())
}

/// Whether a secret that is named is declared; tells it when not.
pub(super) fn known(shared: &Shared<'_>, name: &str, span: Span, problems: &mut Vec<Diagnostic>) -> bool {
    let known = shared.manifest.secrets.contains_key(name) || shared.tainted("secrets", name);
    if !known {
        let problem = Diagnostic::error(Code::UnknownSecret, span, format!("there is no secret `{name}`"));
        let known = shared.manifest.secrets.keys().map(String::as_str);
        let diagnostic = shared.near.hint(problem, name, known);
        problems.push(match diagnostic.help {
            Some(_) => diagnostic,
            None => diagnostic.help(format!("say where it is read: `secrets.{name}.env = \"NAME\"`")),
        });
    }
    known
}
