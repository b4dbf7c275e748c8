//! Sample sets to samples: patterns, lists, digests.

use std::collections::{BTreeMap, BTreeSet};

use camino::{Utf8Path, Utf8PathBuf};
use hotcell_schema::digest::Digest;
use hotcell_schema::manifest::{Manifest, SampleSet, SourceKind, Span, Spanned};
use indexmap::IndexMap;
use serde::Deserialize;

use crate::diagnostics::{Code, Diagnostic};
use crate::files::{self, ByDigest, FileError};
use crate::load::{self, Loaded};
use crate::plan::{Archive, Origin, Sample};
use crate::profiles::Profiles;
use crate::reader::{Package, Supply};
use crate::sources::Sources;

/// Greatest number of samples of a manifest.
const MAX_SAMPLES: usize = 1_000_000;

/// One row of a list.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Row {
    path: Option<String>,
    sha256: Option<String>,
    family: Option<String>,
    variant: Option<String>,
    label: Option<String>,
}

const COLUMNS: [&str; 5] = ["path", "sha256", "family", "variant", "label"];

/// All samples, and the range of each set.
#[derive(Debug, Default)]
pub(crate) struct Samples {
    pub list: Vec<Sample>,
    /// Archives that samples stand in.
    pub archives: Vec<Archive>,
    /// Packages by the name of their source.
    pub packages: BTreeMap<String, Package>,
    /// Indexes of the samples of each set.
    pub sets: IndexMap<String, Vec<usize>>,
}

pub(crate) struct Reader<'a> {
    manifest: &'a Manifest,
    loaded: &'a Loaded,
    profiles: &'a Profiles,
    supply: &'a Supply<'a>,
    sources: &'a mut Sources,
    problems: &'a mut Vec<Diagnostic>,
    by_digest: ByDigest,
    /// Facts of files that several sets share.
    known: BTreeMap<Utf8PathBuf, files::Facts>,
    out: Samples,
}

/// Finds the samples of all sets.
pub(crate) fn find(
    manifest: &Manifest,
    loaded: &Loaded,
    profiles: &Profiles,
    supply: &Supply<'_>,
    sources: &mut Sources,
    problems: &mut Vec<Diagnostic>,
) -> Samples {
    let mut reader = Reader {
        manifest,
        loaded,
        profiles,
        supply,
        sources,
        problems,
        by_digest: ByDigest::default(),
        known: BTreeMap::new(),
        out: Samples::default(),
    };
    for (name, set) in &manifest.samples {
        reader.out.sets.entry(name.clone()).or_default();
        reader.set(name, set);
    }
    for (name, path) in &loaded.samples {
        reader.out.sets.entry(name.clone()).or_default();
        let set = manifest.samples.get(name).cloned().unwrap_or_default();
        if let Err(error) = reader.add(name, &set, path.clone(), Row::default()) {
            reader
                .problems
                .push(Diagnostic::without_place(Code::SampleFile, error.to_string()));
        }
    }
    reader.out
}

impl Reader<'_> {
    fn fail(&mut self, span: Span, error: &FileError) {
        let code = match error {
            FileError::Pattern { .. } => Code::WrongPattern,
            FileError::Outside(_) => Code::OutsideFolder,
            FileError::Read { .. } => Code::SampleFile,
            FileError::TooMany(_) => Code::TooMany,
        };
        let diagnostic = Diagnostic::error(code, span, error.to_string());
        self.problems.push(match error {
            FileError::Outside(_) => diagnostic
                .help("name the folder as a source (`[sources.x] kind = \"folder\"`), and the source here"),
            FileError::Pattern { .. } => {
                diagnostic.help("`*` and `?` stay within a folder, `**` stands for any number of folders")
            }
            _ => diagnostic,
        });
    }

    fn set(&mut self, name: &str, set: &SampleSet) {
        let key = self.loaded.tree.key_span(&["samples", name]);
        let ways = usize::from(set.glob.is_some())
            + usize::from(set.list.is_some())
            + usize::from(!set.digests.is_empty());
        if ways != 1 && !(ways == 0 && self.loaded.samples.iter().any(|(given, _)| given == name)) {
            let text = if ways == 0 {
                "says nowhere where its samples are"
            } else {
                "says in several ways where its samples are"
            };
            self.problems.push(
                Diagnostic::error(Code::SampleSet, key, format!("the sample set `{name}` {text}"))
                    .help("write one of `glob`, `list` and `digests`"),
            );
            return;
        }
        let Some(folder) = self.folder(set, key) else {
            return;
        };
        if let Some(glob) = &set.glob {
            self.glob(name, set, &folder, glob);
        }
        if let Some(list) = &set.list {
            self.list(name, set, &folder, list);
        }
        for digest in &set.digests {
            self.digest(name, set, &folder, digest);
        }
    }

    /// The folder in which the files of a set are looked for.
    fn folder(&mut self, set: &SampleSet, key: Span) -> Option<Utf8PathBuf> {
        let Some(wanted) = &set.source else {
            let place = set.glob.as_ref().or(set.list.as_ref()).map(|text| text.span);
            let place = place
                .or_else(|| set.digests.first().map(|digest| digest.span))
                .unwrap_or(key);
            return Some(self.sources.folder(place.file).to_owned());
        };
        let Some(source) = self.manifest.sources.get(&wanted.value) else {
            if !self.loaded.tainted.contains(&("sources", wanted.value.clone())) {
                self.problems.push(
                    Diagnostic::error(
                        Code::UnknownSamples,
                        wanted.span,
                        format!("there is no source `{wanted}`"),
                    )
                    .did_you_mean(wanted, self.manifest.sources.keys().map(String::as_str)),
                );
            }
            return None;
        };
        if source.kind != SourceKind::Folder {
            // The source itself is refused where it stands.
            return None;
        }
        let path = source.path.as_ref()?;
        let folder = load::join(self.sources.folder(path.span.file), Utf8Path::new(&path.value));
        if !folder.is_dir() {
            self.problems.push(
                Diagnostic::error(
                    Code::CannotRead,
                    path.span,
                    format!("there is no folder {folder}"),
                )
                .help("paths count from the folder of the document that names them"),
            );
            return None;
        }
        Some(folder)
    }

    fn glob(&mut self, name: &str, set: &SampleSet, folder: &Utf8Path, glob: &Spanned<String>) {
        let found = match files::matching(folder, glob) {
            Ok(found) => found,
            Err(error) => return self.fail(glob.span, &error),
        };
        if found.is_empty() {
            self.problems.push(
                Diagnostic::error(Code::NoMatch, glob.span, format!("no file fits `{glob}`"))
                    .help(format!("it was looked for in {}", shown(folder))),
            );
        }
        for path in found {
            if let Err(error) = self.add(name, set, path, Row::default()) {
                self.fail(glob.span, &error);
            }
        }
    }

    fn digest(&mut self, name: &str, set: &SampleSet, folder: &Utf8Path, digest: &Spanned<Digest>) {
        self.found_by_digest(name, set, folder, digest.value, digest.span, Row::default());
    }

    fn found_by_digest(
        &mut self,
        name: &str,
        set: &SampleSet,
        folder: &Utf8Path,
        digest: Digest,
        span: Span,
        row: Row,
    ) {
        match self.by_digest.find(folder, digest) {
            Ok(Some(path)) => {
                if let Err(error) = self.add(name, set, path, row) {
                    self.fail(span, &error);
                }
            }
            Ok(None) => self.problems.push(
                Diagnostic::error(
                    Code::NoMatch,
                    span,
                    format!("no file has the digest {}…", digest.short()),
                )
                .help(format!("it was looked for in {}", shown(folder))),
            ),
            Err(error) => self.fail(span, &error),
        }
    }

    fn list(&mut self, name: &str, set: &SampleSet, folder: &Utf8Path, list: &Spanned<String>) {
        let own = self.sources.folder(list.span.file).to_owned();
        let path = match load::inside(&own, list) {
            Ok(path) => path,
            Err(text) => {
                return self
                    .problems
                    .push(Diagnostic::error(Code::OutsideFolder, list.span, text));
            }
        };
        let text = match load::read_text(&path) {
            Ok(text) => text,
            Err(problem) => {
                return self.problems.push(
                    Diagnostic::error(Code::SampleList, list.span, problem.title)
                        .help("paths count from the folder of the document that names them"),
                );
            }
        };
        let file = self.sources.add(path.clone(), text.clone());
        let before = self.problems.len();
        let rows = match path.extension() {
            Some("csv") => csv_rows(file, &text, self.problems),
            Some("jsonl") => json_rows(file, &text, self.problems),
            _ => {
                return self.problems.push(
                    Diagnostic::error(Code::SampleList, list.span, "a list is a CSV or JSONL file")
                        .help("name it *.csv or *.jsonl"),
                );
            }
        };
        if rows.is_empty() && self.problems.len() == before {
            self.problems.push(Diagnostic::error(
                Code::NoMatch,
                list.span,
                format!("the list {path} has no samples"),
            ));
        }
        for (span, row) in rows {
            self.row(name, set, folder, span, row);
        }
    }

    fn row(&mut self, name: &str, set: &SampleSet, folder: &Utf8Path, span: Span, row: Row) {
        let digest = match row
            .sha256
            .as_deref()
            .map(|text| text.to_ascii_lowercase().parse::<Digest>())
            .transpose()
        {
            Ok(digest) => digest,
            Err(error) => {
                return self
                    .problems
                    .push(Diagnostic::error(Code::SampleList, span, error.to_string()));
            }
        };
        match (row.path.clone(), digest) {
            (Some(path), digest) => {
                let path = match load::inside(folder, &path) {
                    Ok(path) => path,
                    Err(text) => {
                        return self
                            .problems
                            .push(Diagnostic::error(Code::OutsideFolder, span, text));
                    }
                };
                match self.add(name, set, path.clone(), row) {
                    Ok(found) if digest.is_some_and(|digest| digest != found) => self.problems.push(
                        Diagnostic::error(
                            Code::SampleDigest,
                            span,
                            format!("{path} does not have the listed digest"),
                        )
                        .help(format!("it is {found}")),
                    ),
                    Ok(_) => {}
                    Err(error) => self.fail(span, &error),
                }
            }
            (None, Some(digest)) => self.found_by_digest(name, set, folder, digest, span, row),
            (None, None) => self.problems.push(
                Diagnostic::error(Code::SampleList, span, "the row has neither `path` nor `sha256`")
                    .help("every row needs one of them"),
            ),
        }
    }

    fn add(&mut self, name: &str, set: &SampleSet, path: Utf8PathBuf, row: Row) -> Result<Digest, FileError> {
        let facts = match self.known.get(&path) {
            Some(facts) => facts.clone(),
            None => {
                let facts = files::facts(&path)?;
                self.known.insert(path.clone(), facts.clone());
                facts
            }
        };
        if self.out.list.len() >= MAX_SAMPLES {
            return Err(FileError::TooMany(path));
        }
        let relative = match path.strip_prefix(&self.loaded.folder) {
            Ok(relative) => relative.to_owned(),
            Err(_) if self.loaded.folder == "." || path.is_absolute() => path.clone(),
            // Elsewhere than below the manifest's folder: joined to that folder, it must still be this file.
            Err(_) => path.canonicalize_utf8().unwrap_or_else(|_| path.clone()),
        };
        let sample = Sample {
            digest: facts.digest,
            set: name.to_owned(),
            name: path.file_name().unwrap_or("sample").to_owned(),
            origin: Origin::File(relative),
            length: facts.length,
            arch: self
                .profiles
                .find_by_header(&facts.head)
                .map(|profile| profile.name.clone()),
            family: row.family.or_else(|| set.family.clone()),
            variant: row.variant.or_else(|| set.variant.clone()),
            label: row.label.or_else(|| set.label.clone()),
        };
        self.out
            .sets
            .entry(name.to_owned())
            .or_default()
            .push(self.out.list.len());
        self.out.list.push(sample);
        Ok(facts.digest)
    }
}

impl Samples {
    /// Takes out samples whose bytes stand in the same set already, and says so.
    pub(crate) fn once_each(&mut self, loaded: &Loaded, problems: &mut Vec<Diagnostic>) {
        for (name, indexes) in &mut self.sets {
            let mut seen: BTreeSet<Digest> = BTreeSet::new();
            let (list, archives) = (&self.list, &self.archives);
            let mut twice = Vec::new();
            indexes.retain(|index| match list.get(*index) {
                Some(sample) if !seen.insert(sample.digest) => {
                    twice.push(sample.origin.shown(archives));
                    false
                }
                Some(_) => true,
                None => false,
            });
            if let Some(first) = twice.first() {
                let span = loaded.tree.key_span(&["samples", name]);
                let more = if twice.len() > 1 {
                    format!(" and {} more", twice.len() - 1)
                } else {
                    String::new()
                };
                problems.push(
                    Diagnostic::warning(
                        Code::DuplicateValue,
                        span,
                        format!("the same bytes stand twice in the set `{name}`: {first}{more}"),
                    )
                    .help("a sample is named by its bytes; the first file is taken"),
                );
            }
        }
    }
}

fn shown(folder: &Utf8Path) -> &str {
    if folder == "." {
        "the current folder"
    } else {
        folder.as_str()
    }
}

fn csv_rows(file: u32, text: &str, problems: &mut Vec<Diagnostic>) -> Vec<(Span, Row)> {
    let mut reader = csv::ReaderBuilder::new()
        .trim(csv::Trim::All)
        .comment(Some(b'#'))
        .from_reader(text.as_bytes());
    let top = Span {
        file,
        start: 0,
        end: 0,
    };
    let headers = match reader.headers() {
        Ok(headers) => headers.clone(),
        Err(error) => {
            problems.push(Diagnostic::error(Code::SampleList, top, error.to_string()));
            return Vec::new();
        }
    };
    let before = problems.len();
    for name in &headers {
        if !COLUMNS.contains(&name) {
            let text = format!("a list has no column `{name}`");
            let diagnostic = Diagnostic::error(Code::SampleList, top, text).did_you_mean(name, COLUMNS);
            problems.push(match diagnostic.help {
                Some(_) => diagnostic,
                None => diagnostic.help(format!(
                    "the first line names the columns: {}",
                    COLUMNS.join(", ")
                )),
            });
        }
    }
    if problems.len() != before {
        return Vec::new();
    }
    let mut rows = Vec::new();
    for record in reader.records() {
        match record {
            Ok(record) => {
                let start = record.position().map_or(0, csv::Position::byte);
                let start = u32::try_from(start).unwrap_or(u32::MAX);
                let field = |name: &str| {
                    let index = headers.iter().position(|header| header == name)?;
                    record
                        .get(index)
                        .filter(|text| !text.is_empty())
                        .map(str::to_owned)
                };
                let row = Row {
                    path: field("path"),
                    sha256: field("sha256"),
                    family: field("family"),
                    variant: field("variant"),
                    label: field("label"),
                };
                rows.push((
                    Span {
                        file,
                        start,
                        end: start,
                    },
                    row,
                ));
            }
            Err(error) => {
                let start = error.position().map_or(0, csv::Position::byte);
                let start = u32::try_from(start).unwrap_or(u32::MAX);
                let text = match error.kind() {
                    csv::ErrorKind::UnequalLengths {
                        expected_len, len, ..
                    } => {
                        format!("the row has {len} fields, the first line has {expected_len}")
                    }
                    _ => error.to_string(),
                };
                problems.push(Diagnostic::error(
                    Code::SampleList,
                    Span {
                        file,
                        start,
                        end: start,
                    },
                    text,
                ));
            }
        }
    }
    rows
}

fn json_rows(file: u32, text: &str, problems: &mut Vec<Diagnostic>) -> Vec<(Span, Row)> {
    let mut rows = Vec::new();
    let mut start = 0usize;
    for line in text.split_inclusive('\n') {
        let at = |offset: usize| u32::try_from(offset).unwrap_or(u32::MAX);
        let span = Span {
            file,
            start: at(start),
            end: at(start + line.trim_end().len()),
        };
        start += line.len();
        if line.trim().is_empty() {
            continue;
        }
        match serde_json::from_str::<Row>(line) {
            Ok(row) => rows.push((span, row)),
            Err(error) => {
                // The parser saw one line, and counts it as the first.
                let text = error.to_string();
                let text = text.split(" at line ").next().unwrap_or_default();
                problems.push(Diagnostic::error(
                    Code::SampleList,
                    span,
                    format!("this is no row: {text}"),
                ));
            }
        }
    }
    rows
}
