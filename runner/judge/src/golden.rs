//! The goldens of one manifest: compared and accepted. What is in a file: [`hotcell_schema::golden`].

mod files;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};

use hotcell_schema::diff::Change;
use hotcell_schema::golden::{Exact, Facts, GoldenFile, Observed};
use hotcell_schema::manifest::GoldenPart;
use hotcell_schema::outcome::Status;
use hotcell_schema::report::{InstanceReport, Report};
use hotcell_schema::verdict::{Check, Verdict};

use crate::contents::Contents;
use crate::facts::{self, Known};
use crate::observed::{self, Absorb, Observation};

/// No golden file is larger.
const MAX_BYTES: u64 = 64 << 20;
/// What is said of an exact instance that gave two things.
const NOT_EXACT: &str = "not exact: it gives something else in another run; say with.observed = true, of the command itself or of the one that it reads";

/// Golden files could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum GoldenError {
    /// The file system refused.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// The facts cannot be written as JSON.
    #[error("{path}: {source}")]
    Json {
        /// The golden file.
        path: PathBuf,
        /// What is wrong.
        source: serde_json::Error,
    },
}

/// A finished run, as it is judged.
#[derive(Clone, Copy)]
pub struct Run<'a> {
    /// Its report.
    pub report: &'a Report,
    /// Where its outputs are read.
    pub contents: &'a dyn Contents,
}

/// The goldens of one manifest.
#[derive(Debug)]
pub struct Goldens {
    folder: PathBuf,
    select: Vec<GoldenPart>,
    stages: Vec<String>,
    /// Stages whose results differ from run to run.
    observed: BTreeSet<String>,
    /// Whether the whole experiment ran: else a golden without an instance says nothing.
    whole: bool,
    /// What is missing of what an instance reads, by the instance's name.
    gaps: HashMap<String, String>,
}

/// A golden file against what came out.
#[derive(Debug)]
pub struct Judged {
    /// The golden file.
    pub path: PathBuf,
    /// How it came out.
    pub check: Check,
    /// What accepting would do; `None` where there is nothing to accept.
    pub pending: Option<Pending>,
}

/// What a golden file would become.
#[derive(Debug)]
pub enum Pending {
    /// The file is written: there is none, or what is there cannot be compared.
    Write(Box<GoldenFile>),
    /// The file is removed.
    Remove,
    /// Facts of an exact engine.
    Exact {
        /// What was accepted before.
        old: Box<Exact>,
        /// What came out.
        new: Box<Exact>,
    },
    /// Facts of an observed engine.
    Observed {
        /// What was learned before.
        old: Box<Observed>,
        /// What was seen.
        new: Observation,
    },
}

/// What accepting did to a file.
#[derive(Debug, Clone, PartialEq)]
pub enum Accepted {
    /// It was written.
    Written(PathBuf),
    /// It was removed.
    Removed(PathBuf),
    /// It was left as it is: the instance is said to be exact, and gave something else in another of the runs.
    Refused(Box<Check>),
}

impl Goldens {
    /// The goldens in `folder` (`golden/<manifest>`). Of each instance of `stages` (empty: of all), the parts `select`
    /// (empty: all) are compared; those of stages in `observed` as facts. `whole`: no part of the experiment was left out.
    pub fn new(
        folder: PathBuf,
        select: Vec<GoldenPart>,
        stages: Vec<String>,
        observed: BTreeSet<String>,
        whole: bool,
    ) -> Self {
        let select = if select.is_empty() {
            facts::ALL.to_vec()
        } else {
            select
        };
        Self {
            folder,
            select,
            stages,
            observed,
            whole,
            gaps: HashMap::new(),
        }
    }

    /// The same, and some instances read less than they would where everything is there: by their names, what is missing.
    /// What they give then is no change.
    #[must_use]
    pub fn with_gaps(self, gaps: HashMap<String, String>) -> Self {
        Self { gaps, ..self }
    }

    /// Compares every instance with its golden.
    pub fn judge(&self, run: Run<'_>) -> Result<Vec<Judged>, GoldenError> {
        let mut all = Vec::new();
        let (places, stale) = self.places(run.report)?;
        let unwanted = unwanted(run.report);
        for files::Place {
            instance,
            path,
            is_there,
        } in places
        {
            // What the manifest itself does not want and nobody accepted is no gap of a test.
            if !is_there && unwanted.contains(instance.name.as_str()) {
                continue;
            }
            let golden = is_there.then_some(path.as_path());
            let Some(judged) = self.judge_one(run, instance, golden)? else {
                continue;
            };
            let (verdict, pending) = match (judged, self.gaps.get(&instance.name)) {
                ((Verdict::NotMet(_), _), Some(gap)) => (Verdict::NotJudged(gap.clone()), None),
                (judged, _) => judged,
            };
            all.push(Judged {
                check: Check {
                    name: self.name(&path),
                    subject: instance.name.clone(),
                    short: run.report.short_name(instance),
                    verdict,
                },
                path,
                pending,
            });
        }
        let whole = self.whole && run.report.selection.is_none();
        for path in stale.into_iter().filter(|_| whole) {
            // Where not all of a stage came about, so may this instance, in another run.
            let stage = path.parent().and_then(Path::file_name).unwrap_or_default();
            let open = run
                .report
                .instances
                .iter()
                .find(|instance| instance.stage.as_str() == stage && instance.status != Status::Ok);
            let (verdict, pending) = match open {
                Some(open) => {
                    let why = format!("not all of its stage came about: `{}` did not", open.name);
                    (Verdict::NotJudged(why), None)
                }
                None => {
                    let gone = Change::removed("golden", "the experiment has no such instance any more");
                    (Verdict::NotMet(vec![gone]), Some(Pending::Remove))
                }
            };
            all.push(Judged {
                check: Check {
                    name: self.name(&path),
                    subject: String::new(),
                    short: String::new(),
                    verdict,
                },
                path,
                pending,
            });
        }
        Ok(all)
    }

    /// `golden`: the file, where there is one.
    fn judge_one(
        &self,
        run: Run<'_>,
        instance: &InstanceReport,
        golden: Option<&Path>,
    ) -> Result<Option<(Verdict, Option<Pending>)>, GoldenError> {
        if instance.is_cut_short() {
            let why = "its wall time was up: what it did until then differs from run to run".to_owned();
            return Ok(Some((Verdict::NotJudged(why), None)));
        }
        if instance.status != Status::Ok {
            return Ok(match golden {
                // Nothing is known of it and nothing was expected: its golden is not missing, it cannot be said yet.
                None if self.is_covered_by_type(instance) => {
                    Some((Verdict::NotJudged(reason(instance)), None))
                }
                None => None,
                Some(_) => Some((Verdict::NotJudged(reason(instance)), None)),
            });
        }
        let new = match self.result(run, instance) {
            Ok(Some(new)) => new,
            Ok(None) => {
                let gone = Change::removed("golden", "the stage has none of the selected facts any more");
                return Ok(golden.map(|_| (Verdict::NotMet(vec![gone]), Some(Pending::Remove))));
            }
            Err(reason) => return Ok(Some((Verdict::NotJudged(reason), None))),
        };
        let Some(path) = golden else {
            let none = Change::added("golden", "there is none yet; --accept writes it");
            return Ok(Some((
                Verdict::NotMet(vec![none]),
                Some(Pending::Write(Box::new(new.learned(instance)))),
            )));
        };
        let old = match read(path)? {
            Ok(old) => old,
            Err(why) => {
                let damaged = Change::removed("golden", why);
                let pending = Pending::Write(Box::new(new.learned(instance)));
                return Ok(Some((Verdict::NotMet(vec![damaged]), Some(pending))));
            }
        };
        let mut changes = named_otherwise(&old, instance);
        let pending = match (old, new) {
            (GoldenFile::Exact(old), New::Exact(new)) => {
                changes.extend(facts::changes(
                    Known {
                        facts: &old.facts,
                        instance: None,
                        contents: run.contents,
                    },
                    Known {
                        facts: &new.facts,
                        instance: Some(instance),
                        contents: run.contents,
                    },
                ));
                Pending::Exact {
                    old: Box::new(old),
                    new,
                }
            }
            // A file that names another instance is none of what was learned of this one.
            (GoldenFile::Observed(_), new @ New::Observed(_)) if !changes.is_empty() => {
                Pending::Write(Box::new(new.learned(instance)))
            }
            (GoldenFile::Observed(old), New::Observed(new)) => {
                changes.extend(observed::changes(&old, &new));
                Pending::Observed {
                    old: Box::new(old),
                    new,
                }
            }
            (GoldenFile::Exact(_), new @ New::Observed(_)) => {
                changes.push(Change::changed("mode", "exact", "observed"));
                Pending::Write(Box::new(new.learned(instance)))
            }
            (GoldenFile::Observed(_), new @ New::Exact(_)) => {
                changes.push(Change::changed("mode", "observed", "exact"));
                Pending::Write(Box::new(new.learned(instance)))
            }
        };
        Ok(Some(match changes.is_empty() {
            true => (Verdict::Met, None),
            false => (Verdict::NotMet(changes), Some(pending)),
        }))
    }

    /// Whether an instance of this stage type can have any of the selected facts, were it to run.
    fn is_covered_by_type(&self, instance: &InstanceReport) -> bool {
        let gives = |port| facts::gives(instance, port);
        use hotcell_schema::stage::PortType;
        self.select.iter().any(|part| match part {
            GoldenPart::Outputs => true,
            GoldenPart::Outcome => gives(PortType::Events) || gives(PortType::Json("payload-result")),
            GoldenPart::Behaviour | GoldenPart::Unsupported => gives(PortType::Events),
            GoldenPart::Findings => gives(PortType::Findings),
        })
    }

    fn result(&self, run: Run<'_>, instance: &InstanceReport) -> Result<Option<New>, String> {
        if self.is_observed(instance) {
            return Ok(Observation::of(instance, &self.select, run.contents)?.map(New::Observed));
        }
        Ok(facts::of(instance, &self.select).map(|facts| {
            let facts = facts::with_texts(facts, instance, run.contents);
            New::Exact(Box::new(Exact::new(&instance.name, &instance.uses, facts)))
        }))
    }

    /// Whether an instance's golden is a set of facts.
    pub fn is_observed(&self, instance: &InstanceReport) -> bool {
        self.observed.contains(&instance.stage)
    }

    /// Whether an instance of an observed stage ran to its end and has no golden yet.
    ///
    /// # Errors
    /// When golden files cannot be read.
    pub fn has_to_learn(&self, report: &Report) -> Result<bool, GoldenError> {
        let (places, _) = self.places(report)?;
        Ok(places.iter().any(|place| {
            self.is_observed(place.instance) && place.instance.status == Status::Ok && !place.is_there
        }))
    }

    /// What an exact instance gave in the first of several runs and not in another; nothing where all are the same.
    fn unsteady(
        &self,
        runs: &[Run<'_>],
        instances: &[HashMap<&str, &InstanceReport>],
        name: &str,
    ) -> Vec<Change> {
        let mut first: Option<(Facts, Run<'_>, &InstanceReport)> = None;
        for (run, instances) in runs.iter().zip(instances) {
            let instance = instances.get(name).filter(|one| !self.is_observed(one));
            let Some((instance, facts)) =
                instance.and_then(|instance| Some((*instance, facts::of(instance, &self.select)?)))
            else {
                continue;
            };
            match &first {
                None => first = Some((facts, *run, instance)),
                Some((before, _, _)) if *before == facts => {}
                Some((before, was_in, was)) => {
                    let old = Known {
                        facts: before,
                        instance: Some(was),
                        contents: was_in.contents,
                    };
                    let new = Known {
                        facts: &facts,
                        instance: Some(instance),
                        contents: run.contents,
                    };
                    return facts::changes(old, new);
                }
            }
        }
        Vec::new()
    }

    /// Makes what came out the new goldens: writes those that differ, removes those of instances that the whole experiment no
    /// longer has. Instances that did not run to their end keep theirs.
    ///
    /// An exact instance that did not give the same in all `runs` has no golden ([`Accepted::Refused`]).
    ///
    /// Observed stages learn from all `runs`: where there is no golden yet, what all of them have in common is wanted; where
    /// there is one, it is narrowed to what these runs have too (`relearn`), or only widened.
    pub fn accept(&self, runs: &[Run<'_>], relearn: bool) -> Result<Vec<Accepted>, GoldenError> {
        let mut done = Vec::new();
        let Some(first) = runs.first() else {
            return Ok(done);
        };
        let instances: Vec<HashMap<&str, &InstanceReport>> = runs
            .iter()
            .map(|run| {
                let instances = run.report.instances.iter();
                instances
                    .map(|instance| (instance.name.as_str(), instance))
                    .collect()
            })
            .collect();
        for judged in self.judge(*first)? {
            let subject = judged.check.subject.as_str();
            let unsteady = self.unsteady(runs, &instances, subject);
            if !unsteady.is_empty() {
                let why = Change::added("runs", NOT_EXACT);
                let changes = std::iter::once(why).chain(unsteady).collect();
                done.push(Accepted::Refused(Box::new(Check {
                    verdict: Verdict::NotMet(changes),
                    ..judged.check
                })));
                continue;
            }
            let seen = || -> Vec<Observation> {
                let runs = runs.iter().zip(&instances);
                runs.filter_map(|(run, instances)| {
                    let instance = instances.get(subject).filter(|one| one.status == Status::Ok)?;
                    Observation::of(instance, &self.select, run.contents).ok()?
                })
                .collect()
            };
            let golden = match judged.pending {
                Some(Pending::Remove) => {
                    fs_err::remove_file(&judged.path)?;
                    done.push(Accepted::Removed(judged.path));
                    continue;
                }
                Some(Pending::Exact { new, .. }) => GoldenFile::Exact(*new),
                Some(Pending::Write(golden)) => match *golden {
                    GoldenFile::Exact(_) => *golden,
                    GoldenFile::Observed(one) => {
                        GoldenFile::Observed(observed::learn(&one.instance, &one.engine, &seen()))
                    }
                },
                Some(Pending::Observed { old, .. }) => GoldenFile::Observed(reaccept(*old, &seen(), relearn)),
                // An observed golden that the first run meets may still not be met by the others.
                None if judged.check.verdict == Verdict::Met && runs.len() > 1 => match read(&judged.path)? {
                    Ok(GoldenFile::Observed(old)) => GoldenFile::Observed(reaccept(old, &seen(), relearn)),
                    _ => continue,
                },
                None => continue,
            };
            if write(&judged.path, &golden)? {
                done.push(Accepted::Written(judged.path));
            }
        }
        Ok(done)
    }

    /// The path as people know it: from the folder of all goldens on.
    fn name(&self, path: &Path) -> String {
        path.strip_prefix(&self.folder)
            .unwrap_or(path)
            .display()
            .to_string()
    }
}

/// Instances that were skipped because their condition is false, or because they read such an instance.
fn unwanted(report: &Report) -> HashSet<&str> {
    let mut unwanted = HashSet::new();
    // Each instance comes after what it reads.
    for instance in &report.instances {
        let reason = instance.reason.as_deref().unwrap_or_default();
        let follows = || {
            let before = reason.strip_prefix('`')?.strip_suffix("` is skipped")?;
            unwanted.contains(before).then_some(())
        };
        if instance.status == Status::Skipped
            && (reason.starts_with("`when` is false") || follows().is_some())
        {
            unwanted.insert(instance.name.as_str());
        }
    }
    unwanted
}

/// What came out of one instance.
enum New {
    Exact(Box<Exact>),
    Observed(Observation),
}

impl New {
    /// The golden of this one result.
    fn learned(self, instance: &InstanceReport) -> GoldenFile {
        match self {
            Self::Exact(exact) => GoldenFile::Exact(*exact),
            Self::Observed(seen) => {
                GoldenFile::Observed(observed::learn(&instance.name, &instance.uses, &[seen]))
            }
        }
    }
}

/// A golden that is accepted again.
fn reaccept(mut old: Observed, seen: &[Observation], relearn: bool) -> Observed {
    for observation in seen {
        let how = if relearn { Absorb::All } else { Absorb::Widen };
        observed::absorb(&mut old, observation, how);
    }
    if relearn {
        old.runs = old
            .runs
            .saturating_add(u32::try_from(seen.len()).unwrap_or(u32::MAX));
    }
    old
}

fn named_otherwise(old: &GoldenFile, instance: &InstanceReport) -> Vec<Change> {
    [
        ("instance", old.instance(), instance.name.as_str()),
        ("engine", old.engine(), instance.uses.as_str()),
    ]
    .into_iter()
    .filter(|(_, old, new)| old != new)
    .map(|(path, old, new)| Change::changed(path, old, new))
    .collect()
}

/// The status and why, for what was not judged.
fn reason(instance: &InstanceReport) -> String {
    let status = serde_json::to_value(instance.status).unwrap_or_default();
    let status = status.as_str().unwrap_or("not run");
    match &instance.reason {
        Some(reason) => format!("{status}: {reason}"),
        None => status.to_owned(),
    }
}

/// Reads a golden file; the inner error is about what is in it.
fn read(path: &Path) -> Result<Result<GoldenFile, String>, GoldenError> {
    if fs_err::metadata(path)?.len() > MAX_BYTES {
        return Ok(Err(format!(
            "{} is larger than {MAX_BYTES} bytes",
            path.display()
        )));
    }
    Ok(GoldenFile::read(&fs_err::read(path)?)
        .map_err(|error| format!("{} cannot be read: {error}", path.display())))
}

/// Writes a golden file, whole or not at all, where its text differs. Answers whether it did.
pub(crate) fn write(path: &Path, golden: &GoldenFile) -> Result<bool, GoldenError> {
    let text = golden.text().map_err(|source| GoldenError::Json {
        path: path.to_owned(),
        source,
    })?;
    if fs_err::read_to_string(path).ok().as_deref() == Some(&text) {
        return Ok(false);
    }
    if let Some(folder) = path.parent() {
        fs_err::create_dir_all(folder)?;
    }
    let part = path.with_extension("json.part");
    fs_err::write(&part, text)?;
    fs_err::rename(&part, path)?;
    Ok(true)
}
