//! From a file to a checked, typed manifest: documents, includes, variants, `--set`, variables, schema.
//!
//! | module | what it does |
//! |---|---|
//! | [`changes`] | variants and `--set` |
//! | [`literals`] | secrets that are written out |
//! | [`form`] | the schema, and the types |

mod changes;
mod form;
mod literals;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;

use camino::{Utf8Path, Utf8PathBuf};
use hotcell_schema::manifest::{self, Manifest, Span};

use crate::diagnostics::{Code, Diagnostic, Severity, nearest};
use crate::shipped;
use crate::sources::Sources;
use crate::tree::origins::{self, Origins};
use crate::tree::{self, Entry, MAX_LENGTH, Node, Value};
use crate::vars;

/// Greatest number of documents that one manifest is made of.
const MAX_DOCUMENTS: usize = 256;

/// What is asked for beside the manifest itself.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Variants to merge, in order (`--variant`).
    pub variants: Vec<String>,
    /// Values to merge last, each `key.path=value` (`--set`).
    pub set: Vec<String>,
    /// The same, of a command that has options instead of a manifest; they come last.
    pub given: Vec<Given>,
    /// Files that become samples: set and path. The set need not be in the manifest, and the path may be anywhere.
    pub samples: Vec<(String, Utf8PathBuf)>,
}

/// A value that an option of a command stands for.
#[derive(Debug, Clone)]
pub struct Given {
    /// The option as it was given: what is wrong with the value is told to be there.
    pub option: String,
    /// `key.path=value`.
    pub value: String,
}

/// Names of the texts that are no documents: `--set`, and options that stand for values.
const SET: &str = "--set";
const GIVEN: &str = "command line";

/// Whether a text is no document, but was said on the command line.
pub fn is_said(source: &crate::sources::Source) -> bool {
    [SET, GIVEN].contains(&source.path.as_str())
}

/// A manifest as far as it could be read.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The texts it is made of.
    pub sources: Sources,
    /// All documents merged; an empty table where nothing could be read.
    pub tree: Node,
    /// The typed manifest; absent where too little is right. Stages and sample sets with mistakes are not in it.
    pub manifest: Option<Manifest>,
    /// The experiment's name: as it is written, or from the file's name.
    pub name: String,
    /// Folder of the manifest.
    pub folder: Utf8PathBuf,
    /// Everything that is wrong.
    pub diagnostics: Vec<Diagnostic>,
    /// Paths of the documents that it is made of, and of those that it names and that could not be had.
    pub documents: BTreeSet<Utf8PathBuf>,
    /// Files that become samples beside those of the manifest.
    pub(crate) samples: Vec<(String, Utf8PathBuf)>,
    /// Names of stages and sample sets that have mistakes: what refers to them is not judged.
    pub(crate) tainted: BTreeSet<(&'static str, String)>,
    /// Where what was overridden stands.
    pub(crate) origins: Origins,
    /// Texts whose variables could not be filled in: what else is wrong with them follows from that.
    unfilled: BTreeSet<Span>,
    /// Whether an included document could not be had: what is missing may stand there.
    partial: bool,
    /// Mistakes that are not told.
    untold: usize,
}

/// Greatest number of diagnostics that are told.
const MAX_TOLD: usize = 1000;

impl Loaded {
    /// Whether anything is wrong that keeps the manifest from being used.
    pub fn has_errors(&self) -> bool {
        self.diagnostics
            .iter()
            .any(|diagnostic| diagnostic.severity == Severity::Error)
    }

    /// Puts the diagnostics in the order of their places, each once, and each with what its value overrides.
    pub(crate) fn settle(&mut self) {
        let own = [Code::UnknownVariable, Code::VariableCycle, Code::TooLarge].map(Code::as_str);
        let missing = [
            Code::MissingKey,
            Code::MissingInput,
            Code::UnknownStage,
            Code::UnknownSamples,
            Code::UnknownSecret,
            Code::UnknownVariable,
            Code::UnknownPart,
        ]
        .map(Code::as_str);
        self.diagnostics.retain(|diagnostic| {
            let follows = !own.contains(&diagnostic.code)
                && diagnostic
                    .span()
                    .is_some_and(|span| self.unfilled.contains(&span));
            !(follows || self.partial && missing.contains(&diagnostic.code))
        });
        self.origins.trace(&mut self.diagnostics);
        self.diagnostics
            .retain(|diagnostic| diagnostic.code != Code::MoreMistakes.as_str());
        self.diagnostics.sort_by_key(Diagnostic::span);
        self.diagnostics.dedup();
        // Nobody reads more; errors stay before warnings.
        if self.diagnostics.len() > MAX_TOLD {
            self.untold += self.diagnostics.len() - MAX_TOLD;
            self.diagnostics
                .sort_by_key(|diagnostic| std::cmp::Reverse(diagnostic.severity));
            self.diagnostics.truncate(MAX_TOLD);
            self.diagnostics.sort_by_key(Diagnostic::span);
        }
        if self.untold > 0 {
            let title = format!("{} more mistakes are not told", self.untold);
            self.diagnostics.push(
                Diagnostic::without_place(Code::MoreMistakes, title)
                    .help("mend the first ones, and ask again"),
            );
        }
    }
}

/// Loads a manifest file.
pub fn load(path: &Utf8Path, options: &Options) -> Loaded {
    let mut loader = Loader::default();
    let root = loader.document(path);
    loader.finish(path, root, options)
}

/// Loads a manifest from a text. `path` says its language (by its ending) and what its paths count from.
pub fn load_text(path: &Utf8Path, text: &str, options: &Options) -> Loaded {
    let mut loader = Loader::default();
    let root = loader.text(path, text.to_owned());
    loader.finish(path, root, options)
}

/// What the system says, without its error number.
pub(crate) fn reason(error: &std::io::Error) -> String {
    let text = error.to_string();
    match text.split_once(" (os error") {
        Some((text, _)) => text.to_owned(),
        None => text,
    }
}

/// Reads a text file of bounded length.
pub fn read_text(path: &Utf8Path) -> Result<String, Diagnostic> {
    let refuse = |code, text: String| Diagnostic::without_place(code, text);
    let cannot = |error: std::io::Error| {
        refuse(
            Code::CannotRead,
            format!("cannot read {path}: {}", reason(&error)),
        )
    };
    let metadata = std::fs::metadata(path).map_err(cannot)?;
    if !metadata.is_file() {
        return Err(refuse(
            Code::CannotRead,
            format!("cannot read {path}: it is not a file"),
        ));
    }
    let mut bytes = Vec::new();
    let limit = u64::try_from(MAX_LENGTH).unwrap_or(u64::MAX).saturating_add(1);
    std::fs::File::open(path)
        .map(|file| file.take(limit))
        .and_then(|mut file| file.read_to_end(&mut bytes))
        .map_err(cannot)?;
    if bytes.len() > MAX_LENGTH {
        return Err(refuse(
            Code::TooLarge,
            format!("{path} is larger than {} MiB", MAX_LENGTH >> 20),
        ));
    }
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let before = error.as_bytes().get(..at).unwrap_or_default();
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        let last = before.rsplit(|byte| *byte == b'\n').next().unwrap_or_default();
        let column = last.iter().filter(|byte| (**byte & 0xc0) != 0x80).count() + 1;
        refuse(
            Code::NotText,
            format!("{path} is not UTF-8 text: what stands in line {line}, column {column} (byte {at}) fits no character"),
        )
    })
}

/// Joins a path that a document names to its folder. It must stay inside: no `..`, not absolute, no link that leads out.
pub(crate) fn inside(folder: &Utf8Path, path: &str) -> Result<Utf8PathBuf, String> {
    let path = Utf8Path::new(path);
    let plain = path.components().all(|part| {
        matches!(
            part,
            camino::Utf8Component::Normal(_) | camino::Utf8Component::CurDir
        )
    });
    if path.as_str().is_empty() {
        return Err("an empty text names no file".into());
    }
    if !plain {
        return Err(format!(
            "`{path}` leads out of the folder of the document that names it"
        ));
    }
    let joined = join(folder, path);
    // What is not there leads nowhere, and most words of commands are no files.
    if std::fs::symlink_metadata(&joined).is_err() {
        return Ok(joined);
    }
    if let (Ok(real), Ok(base)) = (joined.canonicalize_utf8(), folder.canonicalize_utf8())
        && !real.starts_with(&base)
    {
        return Err(format!(
            "`{path}` is a link that leads out of the folder of the document that names it"
        ));
    }
    Ok(joined)
}

/// Joins without a leading `./`. The current folder is `.`.
pub(crate) fn join(folder: &Utf8Path, path: &Utf8Path) -> Utf8PathBuf {
    let path: Utf8PathBuf = path
        .components()
        .filter(|part| *part != camino::Utf8Component::CurDir)
        .collect();
    match (folder.as_str(), path.as_str()) {
        (_, "") => folder.to_owned(),
        (".", _) => path,
        _ => folder.join(path),
    }
}

#[derive(Default)]
struct Loader {
    sources: Sources,
    problems: Vec<Diagnostic>,
    origins: Origins,
    /// Whether a document, or a part of one, could not be had: what refers to it is not judged.
    partial: bool,
    /// Paths of the documents that are being read, for circles.
    open: Vec<Utf8PathBuf>,
    /// Paths of all documents that were asked for.
    asked: BTreeSet<Utf8PathBuf>,
    /// Documents that were read, with what they include.
    done: BTreeMap<Utf8PathBuf, Option<Node>>,
    /// Secrets that are written out.
    literals: literals::Literals,
}

impl Loader {
    fn document(&mut self, path: &Utf8Path) -> Option<Node> {
        self.asked.insert(path.to_owned());
        match read_text(path) {
            Ok(text) => self.text(path, text),
            Err(problem) => {
                self.problems.push(problem);
                None
            }
        }
    }

    fn text(&mut self, path: &Utf8Path, text: String) -> Option<Node> {
        let length = text.len();
        let file = self.sources.add(path, text);
        if length > MAX_LENGTH {
            self.problems.push(Diagnostic::without_place(
                Code::TooLarge,
                format!("{path} is larger than {} MiB", MAX_LENGTH >> 20),
            ));
            return None;
        }
        let text = self.sources.get(file).map_or("", |source| source.text.as_str());
        let node = match path.extension() {
            Some("toml") => tree::toml::parse(file, text, &mut self.problems),
            Some("yaml" | "yml") => tree::yaml::parse(file, text, &mut self.problems),
            _ => {
                let span = Span {
                    file,
                    start: 0,
                    end: 0,
                };
                self.problems.push(
                    Diagnostic::error(
                        Code::UnknownLanguage,
                        span,
                        "the file's name says neither TOML nor YAML",
                    )
                    .help("name it *.toml, *.yaml or *.yml"),
                );
                None
            }
        };
        let mut node = node?;
        self.literals(&node);
        self.version(&mut node)?;
        self.includes(path, node)
    }

    /// The first key says the version. Another version has another language, so nothing else is looked at.
    fn version(&mut self, node: &mut Node) -> Option<()> {
        let Value::Table(table) = &mut node.value else {
            return None;
        };
        let start = Span {
            end: node.span.start,
            ..node.span
        };
        let Some((index, _, entry)) = table.get_full("hotcell") else {
            self.problems.push(
                Diagnostic::error(Code::Version, start, "the document does not say its version").help(
                    format!(
                        "begin it with `hotcell = {0}` (TOML) or `hotcell: {0}` (YAML)",
                        manifest::VERSION
                    ),
                ),
            );
            // Everything else is looked at as if it did.
            let version = Node {
                span: start,
                value: Value::Integer(i64::from(manifest::VERSION)),
            };
            table.insert(
                "hotcell".into(),
                Entry {
                    key: start,
                    node: version,
                },
            );
            return Some(());
        };
        let version = match entry.node.value {
            Value::Integer(version) => Some(version),
            // A whole number, to JSON schemas.
            Value::Float(version) => tree::read::whole(version),
            _ => None,
        };
        if version != Some(i64::from(manifest::VERSION)) {
            self.problems.push(
                Diagnostic::error(
                    Code::Version,
                    entry.node.span,
                    "this version of the manifest language is not known",
                )
                .help(format!("this program reads version {}", manifest::VERSION)),
            );
            return None;
        }
        if index != 0 {
            self.problems.push(
                Diagnostic::error(Code::Version, entry.key, "`hotcell` is not the first key")
                    .help("move it to the top, so that every program can tell the version"),
            );
        }
        Some(())
    }

    fn includes(&mut self, path: &Utf8Path, node: Node) -> Option<Node> {
        let listed: Vec<(String, Span)> = match node.get("include").map(|include| &include.value) {
            Some(Value::List(items)) => items
                .iter()
                .filter_map(|item| Some((item.as_text()?.to_owned(), item.span)))
                .collect(),
            // Anything else is a mistake that the schema tells.
            _ => return Some(node),
        };
        self.open.push(real(path));
        let mut base: Option<Node> = None;
        for (name, span) in listed {
            match (self.include(path, &name, span), &mut base) {
                (Some(included), Some(base)) => origins::merge(base, included, &mut self.origins),
                (Some(included), None) => base = Some(included),
                (None, _) => self.partial = true,
            }
        }
        self.open.pop();
        Some(match base {
            Some(mut base) => {
                origins::merge(&mut base, node, &mut self.origins);
                base
            }
            None => node,
        })
    }

    /// Where a name of `include` leads: a file in the folder, or a document that is part of the program.
    fn include_path(
        &self,
        from: &Utf8Path,
        name: &str,
    ) -> Result<(Utf8PathBuf, Option<&'static str>), Diagnostic> {
        let nowhere = Span::default();
        let from_shipped = from.as_str().strip_prefix(shipped::PREFIX);
        let within = from_shipped.map(|from| {
            let folder = Utf8Path::new(from).parent().unwrap_or(Utf8Path::new(""));
            folder.join(name).into_string()
        });
        if let Some(wanted) = name.strip_prefix(shipped::PREFIX).map(str::to_owned).or(within) {
            let Some(file) = shipped::document(&wanted) else {
                let known: Vec<String> = shipped::pipelines()
                    .iter()
                    .map(|file| format!("{}{}", shipped::PREFIX, file.path))
                    .collect();
                let title = format!("`{name}` is not among the documents that are part of the program");
                // The ending is left out more often than a letter.
                let stem = |name: &str| name.trim_end_matches(".yaml").trim_end_matches(".yml").to_owned();
                let problem = Diagnostic::error(Code::Include, nowhere, title);
                let stems: Vec<String> = known.iter().map(|known| stem(known)).collect();
                let near = nearest(&stem(name), stems.iter().map(String::as_str));
                let near = near.and_then(|near| known.iter().find(|known| stem(known) == near));
                let problem = match near {
                    Some(near) => problem.help(format!("did you mean `{near}`?")),
                    None => problem,
                };
                return Err(match problem.help {
                    Some(_) => problem,
                    None => problem.help(format!("there are: {}", known.join(", "))),
                });
            };
            return Ok((
                format!("{}{}", shipped::PREFIX, file.path).into(),
                Some(file.text),
            ));
        }
        let folder = from
            .parent()
            .filter(|folder| !folder.as_str().is_empty())
            .unwrap_or(Utf8Path::new("."));
        match inside(folder, name) {
            Ok(path) => Ok((path, None)),
            Err(text) => Err(Diagnostic::error(Code::OutsideFolder, nowhere, text)
                .help("move the document into the folder")),
        }
    }

    fn include(&mut self, from: &Utf8Path, name: &str, span: Span) -> Option<Node> {
        let (path, given) = match self.include_path(from, name) {
            Ok(found) => found,
            Err(mut problem) => {
                problem.labels.iter_mut().for_each(|label| label.span = span);
                self.problems.push(problem);
                return None;
            }
        };
        if given.is_none() {
            self.asked.insert(path.clone());
        }
        let id = real(&path);
        if let Some(at) = self.open.iter().position(|open| *open == id) {
            let mut chain: Vec<&str> = self
                .open
                .iter()
                .skip(at)
                .map(|open| open.file_name().unwrap_or("?"))
                .collect();
            chain.push(id.file_name().unwrap_or("?"));
            let text = format!("documents include each other in a circle: {}", chain.join(" -> "));
            self.problems
                .push(Diagnostic::error(Code::IncludeCycle, span, text).help("remove one of the includes"));
            return None;
        }
        if let Some(done) = self.done.get(&id) {
            return done.clone();
        }
        if self.done.len() >= MAX_DOCUMENTS || self.open.len() > 32 {
            self.problems.push(Diagnostic::error(
                Code::TooLarge,
                span,
                "too many documents include each other",
            ));
            return None;
        }
        let text = match given.map_or_else(|| read_text(&path), |text| Ok(text.to_owned())) {
            Ok(text) => text,
            Err(problem) => {
                let help = if name.contains("${") {
                    "documents are included before variables are filled in"
                } else {
                    "paths count from the folder of the document that names them"
                };
                self.problems
                    .push(Diagnostic::error(Code::Include, span, problem.title).help(help));
                return None;
            }
        };
        let node = self.text(&path, text);
        self.done.insert(id, node.clone());
        node
    }

    fn finish(mut self, path: &Utf8Path, root: Option<Node>, options: &Options) -> Loaded {
        let mut tree = root.unwrap_or_else(|| Node::table(Span::default()));
        let mut typed = None;
        let mut tainted = BTreeSet::new();
        let mut unfilled = BTreeSet::new();
        // Where nothing could be read, nothing can be checked.
        if tree.as_table().is_some_and(|table| !table.is_empty()) {
            self.variants(&mut tree, options);
            self.set(&mut tree, options);
            self.given(&mut tree, options);
            self.hide_variables();
            unfilled = vars::fill(&mut tree, &self.sources, &mut self.origins, &mut self.problems);
            typed = self.check(&tree, &mut tainted);
        }
        let folder = path
            .parent()
            .filter(|folder| !folder.as_str().is_empty())
            .unwrap_or(Utf8Path::new("."));
        let name = typed
            .as_ref()
            .and_then(|manifest: &Manifest| manifest.name.clone());
        let mut loaded = Loaded {
            sources: self.sources,
            tree,
            manifest: typed,
            name: name.unwrap_or_else(|| name_of(path)),
            folder: folder.to_owned(),
            diagnostics: self.problems,
            documents: self.asked,
            samples: options.samples.clone(),
            tainted,
            origins: self.origins,
            unfilled,
            partial: self.partial,
            untold: 0,
        };
        loaded.settle();
        loaded
    }
}

fn real(path: &Utf8Path) -> Utf8PathBuf {
    path.canonicalize_utf8().unwrap_or_else(|_| path.to_owned())
}

fn name_of(path: &Utf8Path) -> String {
    let name: String = path
        .file_stem()
        .unwrap_or("manifest")
        .chars()
        .map(|c| c.to_ascii_lowercase())
        .map(|c| {
            if c.is_ascii_alphanumeric() || "-_.".contains(c) {
                c
            } else {
                '-'
            }
        })
        .take(64)
        .collect();
    let name = name.trim_start_matches(['-', '_', '.']).to_owned();
    if name.is_empty() { "manifest".into() } else { name }
}
