//! What settings name: personas, rule files, and the files of the user's own programs. Each is read once.

use std::collections::BTreeMap;

use camino::{Utf8Path, Utf8PathBuf};
use hotcell_schema::command::CommandWith;
use hotcell_schema::digest::Digest;
use hotcell_schema::manifest::{Span, Spanned};
use hotcell_schema::persona::Persona;

use super::settings::Settings;
use crate::diagnostics::{Code, Diagnostic};
use crate::files;
use crate::load;
use crate::plan::{FileSet, OwnFile, RuleFile, RuleSet};
use crate::shipped;
use crate::sources::Sources;
use crate::tree::read::read;
use crate::tree::{self, Node, Value};

/// Greatest length of all files of a program, in bytes.
const MAX_OWN: u64 = 256 << 20;

impl Settings<'_> {
    pub(super) fn persona(
        &mut self,
        name: &str,
        span: Span,
        sources: &mut Sources,
        problems: &mut Vec<Diagnostic>,
    ) -> Option<String> {
        let is_file = name.contains('/') || name.ends_with(".toml");
        // Paths count from the file that names them, so the same text can mean two files.
        let key = if is_file {
            load::join(sources.folder(span.file), Utf8Path::new(name)).into_string()
        } else {
            name.to_owned()
        };
        if self.personas.contains_key(&key) {
            return Some(key);
        }
        let (file, text) = if is_file {
            let path = load::inside(sources.folder(span.file), name)
                .map_err(|text| problems.push(Diagnostic::error(Code::OutsideFolder, span, text)))
                .ok()?;
            let text = load::read_text(&path)
                .map_err(|problem| {
                    problems.push(Diagnostic::error(Code::UnknownPersona, span, problem.title))
                })
                .ok()?;
            (sources.add(path, text.clone()), text)
        } else {
            let all = shipped::personas();
            let Some(found) = all.iter().find(|file| file.name == name) else {
                let known: Vec<&str> = all.iter().map(|file| file.name).collect();
                let diagnostic = Diagnostic::error(
                    Code::UnknownPersona,
                    span,
                    format!("there is no persona `{name}`"),
                )
                .did_you_mean(name, known.iter().copied());
                problems.push(match diagnostic.help {
                    Some(_) => diagnostic,
                    None => diagnostic.help(format!(
                        "shipped personas: {}; a file ends in .toml",
                        known.join(", ")
                    )),
                });
                return None;
            };
            (
                sources.add(format!("shipped:{}", found.path), found.text.into()),
                found.text.to_owned(),
            )
        };
        let node = tree::toml::parse(file, &text, problems)?;
        match read::<Persona>(&node) {
            Ok(persona) => {
                self.personas.insert(key.clone(), persona);
                Some(key)
            }
            Err(error) => {
                let span = error.span.unwrap_or(node.span);
                problems.push(Diagnostic::error(
                    Code::WrongType,
                    span,
                    format!("this is no persona: {error}"),
                ));
                None
            }
        }
    }

    pub(super) fn rules(
        &mut self,
        own: &[String],
        node: Option<&Node>,
        sources: &mut Sources,
        problems: &mut Vec<Diagnostic>,
    ) -> Option<String> {
        let behaviour = &self.shared.manifest.rules.behaviour;
        let globs: Vec<Spanned<String>> = if own.is_empty() {
            behaviour.clone()
        } else {
            let places = node.and_then(|node| match &node.value {
                Value::List(items) => Some(items.iter().map(|item| item.span).collect::<Vec<_>>()),
                _ => None,
            });
            let place = |index: usize| {
                let list = node.map(|node| node.span).unwrap_or_default();
                places
                    .as_ref()
                    .and_then(|places| places.get(index))
                    .copied()
                    .unwrap_or(list)
            };
            own.iter()
                .enumerate()
                .map(|(index, glob)| Spanned::new(glob.clone(), place(index)))
                .collect()
        };
        if globs.is_empty() {
            if !self.rule_sets.contains_key("shipped") {
                let files = shipped::rules()
                    .into_iter()
                    .map(|file| rule_file(format!("shipped:{}", file.name), file.text.to_owned()));
                self.rule_sets.insert("shipped".into(), rule_set(files.collect()));
            }
            return Some("shipped".into());
        }
        let key = globs
            .iter()
            .map(|glob| load::join(sources.folder(glob.span.file), Utf8Path::new(&glob.value)).into_string())
            .collect::<Vec<_>>()
            .join(", ");
        if self.rule_sets.contains_key(&key) {
            return Some(key);
        }
        let before = problems.len();
        let mut files: Vec<RuleFile> = Vec::new();
        for glob in &globs {
            let folder = sources.folder(glob.span.file).to_owned();
            let found = match files::matching(&folder, glob) {
                Ok(found) => found,
                Err(error) => {
                    let code = match error {
                        files::FileError::Pattern { .. } => Code::WrongPattern,
                        files::FileError::Outside(_) => Code::OutsideFolder,
                        _ => Code::CannotRead,
                    };
                    problems.push(Diagnostic::error(code, glob.span, error.to_string()));
                    continue;
                }
            };
            if found.is_empty() {
                problems.push(
                    Diagnostic::error(Code::NoMatch, glob.span, format!("no rule file fits `{glob}`"))
                        .help("patterns count from the folder of the document that names them"),
                );
            }
            for path in found {
                let shown = path
                    .strip_prefix(&self.shared.loaded.folder)
                    .unwrap_or(&path)
                    .to_string();
                if files.iter().any(|file| file.path == shown) {
                    continue;
                }
                match load::read_text(&path) {
                    Ok(text) => files.push(rule_file(shown, text)),
                    Err(problem) => {
                        problems.push(Diagnostic::error(Code::CannotRead, glob.span, problem.title))
                    }
                }
            }
        }
        if problems.len() != before {
            return None;
        }
        self.rule_sets.insert(key.clone(), rule_set(files));
        Some(key)
    }

    /// The files that a program of the user's own needs: what `run` names, `files`, and the schemas of its outputs.
    pub(super) fn own_files(
        &mut self,
        with: &CommandWith,
        node: &Node,
        sources: &Sources,
        problems: &mut Vec<Diagnostic>,
    ) -> Option<String> {
        let folder = sources.folder(node.span.file).to_owned();
        let at = |key: &str| node.get(key).map_or(node.span, |value| value.span);
        let schemas = with.outputs.values().filter_map(|output| output.schema.as_ref());
        let key = with
            .run
            .iter()
            .chain(&with.files)
            .chain(schemas.clone())
            .fold(folder.as_str().to_owned(), |key, part| key + "\0" + part);
        if self.file_sets.contains_key(&key) {
            return Some(key);
        }
        let before = problems.len();
        let mut found: BTreeMap<String, Utf8PathBuf> = BTreeMap::new();
        for part in &with.run {
            // What is no plain path within the folder is an argument.
            if let Ok(path) = load::inside(&folder, part)
                && path.is_file()
            {
                found.insert(plain(part), path);
            } else if part.starts_with("./") {
                problems.push(
                    Diagnostic::error(Code::NoMatch, at("run"), format!("there is no file `{part}`"))
                        .help("paths count from the folder of the document that names them"),
                );
            }
        }
        for glob in &with.files {
            match files::matching(&folder, glob) {
                Ok(paths) if paths.is_empty() => problems.push(
                    Diagnostic::error(Code::NoMatch, at("files"), format!("no file fits `{glob}`"))
                        .help("patterns count from the folder of the document that names them"),
                ),
                Ok(paths) => found.extend(paths.into_iter().map(|path| {
                    let name = path.strip_prefix(&folder).unwrap_or(&path).to_string();
                    (name, path)
                })),
                Err(error) => problems.push(Diagnostic::error(
                    Code::WrongPattern,
                    at("files"),
                    error.to_string(),
                )),
            }
        }
        for schema in schemas {
            match load::inside(&folder, schema) {
                Ok(path) if path.is_file() => _ = found.insert(plain(schema), path),
                Ok(path) => problems.push(Diagnostic::error(
                    Code::NoMatch,
                    at("outputs"),
                    format!("there is no schema {path}"),
                )),
                Err(text) => problems.push(Diagnostic::error(Code::OutsideFolder, at("outputs"), text)),
            }
        }
        let mut list = Vec::with_capacity(found.len());
        let mut total = 0u64;
        for (name, path) in found {
            match files::facts(&path) {
                Ok(facts) => {
                    total = total.saturating_add(facts.length);
                    list.push(OwnFile {
                        name,
                        digest: facts.digest,
                        length: facts.length,
                        executable: is_executable(&path),
                    });
                }
                Err(error) => {
                    problems.push(Diagnostic::error(Code::CannotRead, at("run"), error.to_string()))
                }
            }
        }
        if total > MAX_OWN {
            let title = format!("the program's own files have more than {} MiB", MAX_OWN >> 20);
            problems.push(Diagnostic::error(Code::TooLarge, at("files"), title));
        }
        if problems.len() != before {
            return None;
        }
        let parts = list.iter().flat_map(|file| {
            let mode: &[u8] = if file.executable { b"x" } else { b"" };
            [file.name.as_bytes(), file.digest.as_bytes().as_slice(), mode]
        });
        let set = FileSet {
            digest: Digest::of_parts(parts),
            folder,
            files: list,
        };
        self.file_sets.insert(key.clone(), set);
        Some(key)
    }
}

/// Whether anyone may execute a file.
fn is_executable(path: &Utf8Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::metadata(path).is_ok_and(|facts| facts.permissions().mode() & 0o111 != 0)
}

/// A path as a name: without `./`.
fn plain(path: &str) -> String {
    load::join(Utf8Path::new("."), Utf8Path::new(path)).into_string()
}

fn rule_file(path: String, text: String) -> RuleFile {
    RuleFile {
        path,
        digest: Digest::of(text.as_bytes()),
        text,
    }
}

fn rule_set(files: Vec<RuleFile>) -> RuleSet {
    let parts = files
        .iter()
        .flat_map(|file| [file.path.as_bytes(), file.digest.as_bytes().as_slice()]);
    RuleSet {
        digest: Digest::of_parts(parts),
        files,
    }
}
