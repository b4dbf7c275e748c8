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

/// Words of commands in a document of which it is kept what they name: those of all instances come first.
const MAX_WORDS: usize = 1_000;

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
            let globs = own.iter().enumerate();
            globs
                .map(|(index, glob)| Spanned::new(glob.clone(), place(node, index, Span::default())))
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
        let key: Vec<Utf8PathBuf> = globs
            .iter()
            .map(|glob| load::join(sources.folder(glob.span.file), Utf8Path::new(&glob.value)))
            .collect();
        if let Some(known) = self.rules_known.get(&key) {
            return Some(known.clone());
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
                        .help(PATTERNS_FROM_FOLDER),
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
        let set = rule_set(files);
        let name = set.digest.to_string();
        self.rules_known.insert(key, name.clone());
        self.rule_sets.insert(name.clone(), set);
        Some(name)
    }

    /// The files that a program of the user's own needs: what `run` names, `files`, and the schemas of its outputs. Each of
    /// them counts from the folder of the document that says it, whatever else of `with` another document says.
    pub(super) fn own_files(
        &mut self,
        with: &CommandWith,
        node: &Node,
        sources: &Sources,
        problems: &mut Vec<Diagnostic>,
    ) -> Option<String> {
        let list = |key: &str, texts: &[String]| -> Vec<Spanned<String>> {
            let texts = texts.iter().enumerate();
            texts
                .map(|(index, text)| Spanned::new(text.clone(), place(node.get(key), index, node.span)))
                .collect()
        };
        let outputs = node.get("outputs");
        let schemas = with.outputs.iter().filter_map(|(port, output)| {
            let written = outputs.and_then(|outputs| outputs.at(&[port, "schema"]));
            let span = written.map_or(node.span, |written| written.span);
            Some(Spanned::new(output.schema.clone()?, span))
        });
        let wanted = OwnWanted {
            run: list("run", &with.run),
            files: list("files", &with.files),
            schemas: schemas.collect(),
        };
        let key = wanted.key();
        if let Some(known) = self.own_sets.get(&key) {
            return Some(known.clone());
        }
        let before = problems.len();
        let found = self.own_found(&wanted, sources, problems);
        let mut files = Vec::with_capacity(found.len());
        let mut total = 0u64;
        for (name, (path, span)) in found {
            match self.own_facts(&path) {
                Ok((digest, length)) => {
                    total = total.saturating_add(length);
                    files.push(OwnFile {
                        executable: is_executable(&path),
                        name,
                        path,
                        digest,
                        length,
                    });
                }
                Err(error) => problems.push(Diagnostic::error(Code::CannotRead, span, error.to_string())),
            }
        }
        if total > MAX_OWN {
            let title = format!("the program's own files have more than {} MiB", MAX_OWN >> 20);
            let span = node.get("files").map_or(node.span, |files| files.span);
            problems.push(Diagnostic::error(Code::TooLarge, span, title));
        }
        if problems.len() != before {
            return None;
        }
        let parts = files.iter().flat_map(|file| {
            let mode: &[u8] = if file.executable { b"x" } else { b"" };
            [file.name.as_bytes(), file.digest.as_bytes().as_slice(), mode]
        });
        let digest = Digest::of_parts(parts);
        self.file_sets
            .entry(digest.to_string())
            .or_insert(FileSet { digest, files });
        self.own_sets.insert(key, digest.to_string());
        Some(digest.to_string())
    }

    /// Where each of the wanted files stands, by its name in the program's work folder.
    fn own_found(
        &mut self,
        wanted: &OwnWanted,
        sources: &Sources,
        problems: &mut Vec<Diagnostic>,
    ) -> BTreeMap<String, (Utf8PathBuf, Span)> {
        let mut found: BTreeMap<String, (Utf8PathBuf, Span)> = BTreeMap::new();
        let mut take = |name: String, path: Utf8PathBuf, span: Span, problems: &mut Vec<Diagnostic>| {
            let (known, there) = found.entry(name.clone()).or_insert_with(|| (path.clone(), span));
            if *known != path {
                let title = format!("{known} and {path} would both be `{name}` in the program's work folder");
                problems.push(
                    Diagnostic::error(Code::DuplicateValue, span, title)
                        .also(*there, format!("{known} is named here"))
                        .help("give one of them another name"),
                );
            }
        };
        for part in &wanted.run {
            let words = self.own_words.entry(part.span.file).or_default();
            let file = words.get(&part.value).cloned().unwrap_or_else(|| {
                // What is no plain path within the folder is an argument.
                let path = load::inside(sources.folder(part.span.file), part);
                let file = path.ok().filter(|path| path.is_file());
                if words.len() < MAX_WORDS {
                    words.insert(part.value.clone(), file.clone());
                }
                file
            });
            if let Some(path) = file {
                take(plain(part), path, part.span, problems);
            } else if part.starts_with("./") {
                problems.push(
                    Diagnostic::error(
                        Code::NoMatch,
                        part.span,
                        format!("there is no file `{}`", part.value),
                    )
                    .help(FROM_FOLDER),
                );
            }
        }
        for glob in &wanted.files {
            let folder = sources.folder(glob.span.file);
            let known = self
                .globbed
                .entry((folder.to_owned(), glob.value.clone()))
                .or_insert_with(|| files::matching(folder, glob));
            match known {
                Ok(paths) if paths.is_empty() => problems.push(
                    Diagnostic::error(Code::NoMatch, glob.span, format!("no file fits `{glob}`"))
                        .help(PATTERNS_FROM_FOLDER),
                ),
                Ok(paths) => {
                    for path in paths {
                        let name = path.strip_prefix(folder).unwrap_or(path);
                        take(name.to_string(), path.clone(), glob.span, problems);
                    }
                }
                Err(error) => problems.push(error.tell(glob.span)),
            }
        }
        for schema in &wanted.schemas {
            match load::inside(sources.folder(schema.span.file), schema) {
                Ok(path) if path.is_file() => take(plain(schema), path, schema.span, problems),
                Ok(path) => problems.push(
                    Diagnostic::error(Code::NoMatch, schema.span, format!("there is no schema {path}"))
                        .help(FROM_FOLDER),
                ),
                Err(text) => problems.push(Diagnostic::error(Code::OutsideFolder, schema.span, text)),
            }
        }
        found
    }

    /// Digest and length of a file, read once however many instances name it.
    fn own_facts(&mut self, path: &Utf8Path) -> Result<(Digest, u64), files::FileError> {
        if let Some(known) = self.own_known.get(path) {
            return Ok(*known);
        }
        let facts = files::facts(path)?;
        self.own_known
            .insert(path.to_owned(), (facts.digest, facts.length));
        Ok((facts.digest, facts.length))
    }
}

/// What a program says of its own files: each text where it stands.
struct OwnWanted {
    run: Vec<Spanned<String>>,
    files: Vec<Spanned<String>>,
    schemas: Vec<Spanned<String>>,
}

/// The same, fit to be looked up: of each text the document, which says its folder. The three kinds are kept apart, since the
/// same text means another thing in each.
pub(super) type OwnKey = [Vec<(u32, String)>; 3];

impl OwnWanted {
    fn key(&self) -> OwnKey {
        [&self.run, &self.files, &self.schemas].map(|texts| {
            let texts = texts.iter();
            texts.map(|text| (text.span.file, text.value.clone())).collect()
        })
    }
}

const FROM_FOLDER: &str = "paths count from the folder of the document that names them";
const PATTERNS_FROM_FOLDER: &str = "patterns count from the folder of the document that names them";

/// Where an element of a list stands; the list, where it is no list of its own any more.
pub(super) fn place(list: Option<&Node>, index: usize, or: Span) -> Span {
    let item = match list.map(|list| &list.value) {
        Some(Value::List(items)) => items.get(index),
        _ => None,
    };
    item.or(list).map_or(or, |node| node.span)
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
