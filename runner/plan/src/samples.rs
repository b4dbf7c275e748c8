//! Sample sets to samples: patterns, lists, digests.

mod lists;

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use camino::{Utf8Path, Utf8PathBuf};
use hotcell_schema::digest::Digest;
use hotcell_schema::manifest::{Manifest, SampleSet, Source, SourceKind, Span, Spanned};
use indexmap::IndexMap;

use crate::diagnostics::{Code, Diagnostic};
use crate::files::{self, ByDigest, FileError};
use crate::load::{self, Loaded};
use crate::near::Near;
use crate::plan::{Origin, Sample};
use crate::pools::{Entry, Pool, Pools};
use crate::profiles::Profiles;
use crate::reader::Supply;
use crate::sources::Sources;
use lists::{Row, csv_rows, json_rows};

/// Greatest number of samples of a manifest.
const MAX_SAMPLES: usize = 1_000_000;

/// All samples, and the range of each set.
#[derive(Debug, Default)]
pub(crate) struct Samples {
    pub list: Vec<Sample>,
    /// Sources that were looked into.
    pub pools: Pools,
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
    near: Near,
    by_digest: ByDigest,
    /// Listed samples of the set at hand that are nowhere: place and words.
    absent: Vec<(Span, String)>,
    /// Files that could not be read while samples of the set at hand were looked for and not found.
    unread: Option<(Span, String)>,
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
        near: Near::default(),
        by_digest: ByDigest::default(),
        absent: Vec::new(),
        unread: None,
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
        self.problems.push(error.tell(span));
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
        let Some(place) = self.place(set, key) else {
            return;
        };
        if let Some(glob) = &set.glob {
            self.glob(name, set, &place, glob);
        }
        if let Some(list) = &set.list {
            self.list(name, set, &place, list);
        }
        for digest in &set.digests {
            self.found_by_digest(name, set, &place, digest.value, digest.span, Row::default());
        }
        self.tell_absent(name, key);
    }

    /// Listed samples of the last set that are nowhere.
    fn tell_absent(&mut self, name: &str, key: Span) {
        let absent = std::mem::take(&mut self.absent);
        if let Some((span, unread)) = self.unread.take() {
            let title =
                format!("not all files could be looked at for the digests of the set `{name}`: {unread}");
            self.problems.push(
                Diagnostic::warning(Code::SampleFile, span, title)
                    .help("a sample that is told absent may be one of them: make them readable, or take them out of the folder"),
            );
        }
        let Some((_, first)) = absent.first() else { return };
        if self.supply.require_samples {
            for (span, what) in absent {
                let title = format!("the sample {what} is absent: its source does not have it");
                self.problems.push(
                    Diagnostic::error(Code::AbsentSample, span, title)
                        .help("without --require-samples, what is about it is skipped"),
                );
            }
            return;
        }
        let all = self.out.sets.get(name).map_or(0, Vec::len);
        let title = format!(
            "{} of {all} samples of the set `{name}` are absent, the first is {first}",
            absent.len()
        );
        self.problems.push(
            Diagnostic::warning(Code::AbsentSample, key, title)
                .help("what is about them is skipped; --require-samples makes this an error"),
        );
    }

    /// Where the files of a set are looked for.
    fn place(&mut self, set: &SampleSet, key: Span) -> Option<Place> {
        let Some(wanted) = &set.source else {
            let place = set.glob.as_ref().or(set.list.as_ref()).map(|text| text.span);
            let place = place
                .or_else(|| set.digests.first().map(|digest| digest.span))
                .unwrap_or(key);
            return Some(Place::Folder(self.sources.folder(place.file).to_owned()));
        };
        let Some(source) = self.manifest.sources.get(&wanted.value) else {
            if !self.loaded.tainted.contains(&("sources", wanted.value.clone())) {
                let title = format!("there is no source `{wanted}`");
                let problem = Diagnostic::error(Code::UnknownSamples, wanted.span, title);
                let known = self.manifest.sources.keys().map(String::as_str);
                self.problems.push(self.near.hint(problem, wanted, known));
            }
            return None;
        };
        if source.kind != SourceKind::Folder {
            return self.pool(&wanted.value, source);
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
        Some(Place::Folder(folder))
    }

    /// The files of a source that is no folder.
    fn pool(&mut self, name: &str, source: &Source) -> Option<Place> {
        let pools = &mut self.out.pools;
        let pool = pools.of(
            name,
            source,
            self.loaded,
            self.supply,
            self.sources,
            self.problems,
        );
        pool.map(Place::Pool)
    }

    /// Folders that a pattern could not look into.
    fn tell_unread(&mut self, name: &str, span: Span, unread: &[String]) {
        let Some(first) = unread.first() else { return };
        let more = match unread.len() {
            1 => String::new(),
            all => format!("; and {} more", all - 1),
        };
        let title = format!("not every folder could be looked into for the set `{name}`: {first}{more}");
        self.problems.push(
            Diagnostic::warning(Code::SampleFile, span, title)
                .help("samples may stand there: make it readable, or let the pattern leave it out"),
        );
    }

    fn glob(&mut self, name: &str, set: &SampleSet, place: &Place, glob: &Spanned<String>) {
        let mut unread = Vec::new();
        let nothing = match place {
            Place::Folder(folder) => match files::matching_readable(folder, glob, &mut unread) {
                Ok(found) => {
                    self.tell_unread(name, glob.span, &unread);
                    let nothing = found.is_empty();
                    for path in found {
                        if let Err(error) = self.add(name, set, path, Row::default()) {
                            self.fail(glob.span, &error);
                        }
                    }
                    nothing
                }
                Err(error) => return self.fail(glob.span, &error),
            },
            Place::Pool(pool) => match pool.matching(glob) {
                Ok(found) => {
                    let nothing = found.is_empty() && !pool.unknown;
                    for entry in found {
                        self.add_entry(name, set, entry, Row::default(), glob.span);
                    }
                    nothing
                }
                Err(error) => return self.fail(glob.span, &error),
            },
        };
        if nothing {
            self.problems.push(
                Diagnostic::error(Code::NoMatch, glob.span, format!("no file fits `{glob}`"))
                    .help(format!("it was looked for in {}", place.shown())),
            );
        }
    }

    fn found_by_digest(
        &mut self,
        name: &str,
        set: &SampleSet,
        place: &Place,
        digest: Digest,
        span: Span,
        row: Row,
    ) {
        match place {
            Place::Folder(folder) => match self.by_digest.find(folder, digest) {
                Ok(Some(path)) => {
                    if let Err(error) = self.add(name, set, path, row) {
                        self.fail(span, &error);
                    }
                }
                Ok(None) => {
                    if let Some(unread) = self.by_digest.unread(folder) {
                        self.unread.get_or_insert((span, unread));
                    }
                    self.add_absent(name, set, digest, row, span);
                }
                Err(error) => self.fail(span, &error),
            },
            Place::Pool(pool) => match pool.with_digest(&digest) {
                Some(entry) => self.add_entry(name, set, entry, row, span),
                None if pool.unknown => {}
                None => self.add_absent(name, set, digest, row, span),
            },
        }
    }

    fn list(&mut self, name: &str, set: &SampleSet, place: &Place, list: &Spanned<String>) {
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
            self.row(name, set, place, span, row);
        }
    }

    fn row(&mut self, name: &str, set: &SampleSet, place: &Place, span: Span, row: Row) {
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
            (Some(path), digest) => self.found_by_path(name, set, place, (&path, digest), span, row),
            (None, Some(digest)) => self.found_by_digest(name, set, place, digest, span, row),
            (None, None) => self.problems.push(
                Diagnostic::error(Code::SampleList, span, "the row has neither `path` nor `sha256`")
                    .help("every row needs one of them"),
            ),
        }
    }

    fn found_by_path(
        &mut self,
        name: &str,
        set: &SampleSet,
        place: &Place,
        (path, digest): (&str, Option<Digest>),
        span: Span,
        row: Row,
    ) {
        let wrong = |path: &str, found: Digest| {
            Diagnostic::error(
                Code::SampleDigest,
                span,
                format!("{path} does not have the listed digest"),
            )
            .help(format!("it is {found}"))
        };
        match place {
            Place::Folder(folder) => {
                let path = match load::inside(folder, path) {
                    Ok(path) => path,
                    Err(text) => {
                        return self
                            .problems
                            .push(Diagnostic::error(Code::OutsideFolder, span, text));
                    }
                };
                if let Some(digest) = digest
                    && !path.exists()
                {
                    return self.add_absent(name, set, digest, row, span);
                }
                match self.add(name, set, path.clone(), row) {
                    Ok(found) if digest.is_some_and(|digest| digest != found) => {
                        self.problems.push(wrong(path.as_str(), found));
                    }
                    Ok(_) => {}
                    Err(error) => self.fail(span, &error),
                }
            }
            Place::Pool(pool) => match (pool.with_name(path), digest) {
                (Some(entry), digest) if digest.is_some_and(|digest| digest != entry.digest) => {
                    self.problems.push(wrong(path, entry.digest));
                }
                (Some(entry), _) => self.add_entry(name, set, entry, row, span),
                (None, _) if pool.unknown => {}
                (None, Some(digest)) => self.add_absent(name, set, digest, row, span),
                (None, None) => self.problems.push(
                    Diagnostic::error(Code::SampleFile, span, format!("there is no `{path}`"))
                        .help(format!("it was looked for in {}", place.shown())),
                ),
            },
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
        let own = Own {
            digest: facts.digest,
            name: path.file_name().unwrap_or("sample").to_owned(),
            origin: Origin::File(files::relative(&self.loaded.folder, &path)),
            length: facts.length,
        };
        self.push(name, set, own, &facts.head, row);
        Ok(facts.digest)
    }

    fn add_entry(&mut self, name: &str, set: &SampleSet, entry: &Entry, row: Row, span: Span) {
        let own = Own {
            digest: entry.digest,
            name: base_name(&entry.name),
            origin: entry.origin.clone(),
            length: entry.length,
        };
        self.push_bounded(name, set, own, &entry.head, row, span);
    }

    fn add_absent(&mut self, name: &str, set: &SampleSet, digest: Digest, row: Row, span: Span) {
        let own = Own {
            digest,
            name: match &row.path {
                Some(path) => base_name(path),
                None => digest.short(),
            },
            origin: Origin::Absent,
            length: 0,
        };
        let shown = match &row.path {
            Some(path) => format!("{path} ({}…)", digest.short()),
            None => format!("{}…", digest.short()),
        };
        self.absent.push((span, shown));
        self.push_bounded(name, set, own, &[], row, span);
    }

    fn push_bounded(&mut self, name: &str, set: &SampleSet, own: Own, head: &[u8], row: Row, span: Span) {
        if self.out.list.len() >= MAX_SAMPLES {
            let title = format!("more than {MAX_SAMPLES} samples");
            // Told once: all further ones stand at places of their own.
            if self.problems.last().is_none_or(|last| last.title != title) {
                self.problems.push(Diagnostic::error(Code::TooMany, span, title));
            }
            return;
        }
        self.push(name, set, own, head, row);
    }

    fn push(&mut self, name: &str, set: &SampleSet, own: Own, head: &[u8], row: Row) {
        let sample = Sample {
            digest: own.digest,
            set: name.to_owned(),
            name: own.name,
            origin: own.origin,
            length: own.length,
            arch: self
                .profiles
                .find_by_header(head)
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
    }
}

/// What a sample has of its own, before its set and list add theirs.
struct Own {
    digest: Digest,
    name: String,
    origin: Origin,
    length: u64,
}

/// The last part of a name that an archive or a list says, fit to be shown.
fn base_name(name: &str) -> String {
    let last = name.rsplit(['/', '\\']).next().unwrap_or_default();
    let plain: String = last
        .chars()
        .filter(|character| !character.is_control())
        .take(255)
        .collect();
    if plain.is_empty() { "sample".into() } else { plain }
}

/// Where the files of a set are looked for.
#[derive(Debug)]
enum Place {
    /// A folder.
    Folder(Utf8PathBuf),
    /// The files of another source.
    Pool(Rc<Pool>),
}

impl Place {
    fn shown(&self) -> &str {
        match self {
            Self::Folder(folder) => files::shown(folder),
            Self::Pool(pool) => &pool.shown,
        }
    }
}

impl Samples {
    /// Takes out samples whose bytes stand in the same set already, and says so.
    pub(crate) fn once_each(&mut self, loaded: &Loaded, problems: &mut Vec<Diagnostic>) {
        for (name, indexes) in &mut self.sets {
            let mut seen: BTreeSet<Digest> = BTreeSet::new();
            let (list, archives) = (&self.list, &self.pools.archives);
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
