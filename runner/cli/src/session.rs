//! From a manifest's path to a plan, and from a plan to a run.

use std::collections::BTreeSet;
use std::path::Path;

use camino::{Utf8Path, Utf8PathBuf};
use hotcell_cells::stop::StopSignal;
use hotcell_detect::{RuleError, RuleSet};
use hotcell_plan::profiles::Profiles;
use hotcell_plan::{Code, Diagnostic, Plan, Sources, load};
use hotcell_report::text::{self, Style};
use hotcell_run::{Engines, Forecast, Options, RunOutcome, execute, forecast};
use hotcell_schema::manifest::Span;
use hotcell_schema::outcome::{Outcome, Status};
use hotcell_schema::report::{Report, RunFacts};
use hotcell_store::{Record, RunFolder, Store};

use crate::args::{ExecuteArgs, Global, ManifestArgs};
use crate::exit::{Exit, Failure};
use crate::places::Places;
use crate::progress::Progress;
use crate::{diagnostics, ui};

/// A plan that can be run.
pub(crate) struct Planned {
    /// The plan.
    pub plan: Plan,
    /// Where things are.
    pub places: Places,
    profiles: Profiles,
    variants: Vec<String>,
}

/// A run that came to its end.
pub(crate) struct Ran {
    /// What came out.
    pub outcome: RunOutcome,
    /// Where it is.
    pub folder: RunFolder,
}

impl Ran {
    /// Whether an instance was refused: for what this host lacks, or for what its sample is.
    fn refused(&self, by_host: bool) -> bool {
        let mut facts = self.outcome.facts.instances.values();
        facts.any(|facts| facts.status == Status::Refused && facts.error.is_some() == by_host)
    }

    /// The exit code for the statuses of a run.
    pub(crate) fn exit(&self) -> Exit {
        let any = |status| self.outcome.count(&[status]) > 0;
        match () {
            () if self.outcome.stopped => Exit::Interrupted,
            () if any(Status::Failed) => Exit::Failed,
            () if any(Status::Interrupted) => Exit::Failed,
            () if self.refused(true) => Exit::Host,
            () if self.refused(false) => Exit::NotJudged,
            () => Exit::Ok,
        }
    }
}

impl Planned {
    /// Loads, checks and plans a manifest. Diagnostics are shown; `None` when they are errors.
    pub(crate) fn from_manifest(args: &ManifestArgs, global: &Global) -> Result<Option<Self>, Failure> {
        let path = utf8(&args.manifest)?;
        let options = load::Options {
            variants: args.variant.clone(),
            set: args.set.clone(),
            ..load::Options::default()
        };
        let places = Places::find(global, Some(&args.manifest))?;
        Self::from_loaded(load::load(path, &options), places, args.variant.clone(), global)
    }

    /// Plans what was loaded.
    pub(crate) fn from_loaded(
        mut loaded: load::Loaded,
        places: Places,
        variants: Vec<String>,
        global: &Global,
    ) -> Result<Option<Self>, Failure> {
        let folders: Vec<&Utf8Path> = global
            .profiles
            .iter()
            .map(|folder| utf8(folder))
            .collect::<Result<_, _>>()?;
        let profiles = Profiles::load(&folders, &mut loaded.sources, &mut loaded.diagnostics);
        let plan = hotcell_plan::plan(&mut loaded, &profiles);
        if let Some(plan) = &plan {
            loaded
                .diagnostics
                .extend(rule_problems(plan, &mut loaded.sources));
        }
        diagnostics::print(&loaded.diagnostics, &loaded.sources);
        let usable = !loaded.has_errors();
        Ok(plan.filter(|_| usable).map(|plan| Self {
            plan,
            places,
            profiles,
            variants,
        }))
    }

    /// The name of an instance in paths.
    pub(crate) fn slug(&self, name: &str) -> String {
        let instance = self.plan.instances.iter().find(|instance| instance.name == name);
        instance.map(|instance| instance.slug.clone()).unwrap_or_default()
    }

    /// What a run would do with each instance. The store is read, where there is one; nothing is written.
    pub(crate) fn forecast(&self) -> Result<Vec<Forecast>, Failure> {
        // Opening a store makes its folders, and a plan writes nothing: an empty one elsewhere says the same.
        let nowhere;
        let folder = if self.places.store.join("version").is_file() {
            &self.places.store
        } else {
            nowhere = tempfile::tempdir()?;
            &nowhere.path().to_path_buf()
        };
        let store = open_store(folder)?;
        let engines = Engines::new(&self.places.libexec);
        let stop = StopSignal::new()?;
        let how = Defaults::default();
        let options = self.options(&store, &engines, stop, &how);
        forecast(&self.plan, &options).map_err(|error| Failure::host(error.to_string()))
    }

    /// What is stored under a cache key.
    pub(crate) fn record(&self, key: &hotcell_schema::digest::Digest) -> Option<Record> {
        if !self.places.store.join("version").is_file() {
            return None;
        }
        Store::open(&self.places.store).ok()?.record(key).ok()?
    }

    fn options<'a>(
        &'a self,
        store: &'a Store,
        engines: &'a Engines,
        stop: StopSignal,
        how: &'a Defaults,
    ) -> Options<'a> {
        Options {
            jobs: how.jobs,
            fail_fast: how.fail_fast,
            force: how.force,
            stop,
            store,
            engines,
            profiles: self.profiles.all(),
            hotcell: env!("CARGO_PKG_VERSION"),
            variants: &self.variants,
            started: &how.started,
            host: &how.host,
        }
    }

    /// Runs the plan, with progress on standard error. A first Ctrl-C ends it soon, a second one now.
    pub(crate) fn run(&self, args: &ExecuteArgs) -> Result<Ran, Failure> {
        let store = open_store(&self.places.store)?;
        let now = jiff::Timestamp::now();
        let how = Defaults {
            jobs: args.jobs.map_or_else(processors, |jobs| jobs as usize),
            fail_fast: args.fail_fast,
            force: args.force,
            started: now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            host: host(),
        };
        let id = format!("{}-{}", now.strftime("%Y%m%dT%H%M%S"), self.plan.name);
        let folder = RunFolder::create(&self.places.runs(), &id).map_err(|error| {
            Failure::host(format!("the run's folder cannot be made: {error}"))
                .help("say where with --state DIR")
        })?;
        let engines = Engines::new(&self.places.libexec).with_temporary(&std::env::temp_dir());
        let stop = StopSignal::new()?;
        listen(&stop)?;
        let progress = Progress::new(&self.plan, args.progress);
        let outcome = execute(
            &self.plan,
            &self.options(&store, &engines, stop, &how),
            &folder,
            &progress,
        );
        progress.finish();
        let outcome = outcome.map_err(|error| {
            Failure::host(format!("the run cannot go on: {error}")).help(format!(
                "what was finished is stored; run again to go on. The journal is {}",
                folder.journal().display()
            ))
        })?;
        if outcome.stopped {
            let (done, all) = (
                outcome.count(&[Status::Ok, Status::Cached]),
                outcome.facts.instances.len(),
            );
            ui::say(&format!(
                "stopped: {done} of {all} instances are stored; run again to go on from there"
            ));
        }
        Ok(Ran { outcome, folder })
    }
}

/// How a run is done, beyond the plan.
struct Defaults {
    jobs: usize,
    fail_fast: bool,
    force: bool,
    started: String,
    host: String,
}

impl Default for Defaults {
    fn default() -> Self {
        Self {
            jobs: 1,
            fail_fast: false,
            force: false,
            started: String::new(),
            host: String::new(),
        }
    }
}

fn open_store(folder: &Path) -> Result<Store, Failure> {
    Store::open(folder).map_err(|error| {
        Failure::host(format!("the store cannot be used: {error}"))
            .help("say where it is with --store DIR or HOTCELL_STORE")
    })
}

/// Rule files are read by another crate than manifests; to people they are one. What `expect` names must be
/// there: a verdict that rests on a slip of the pen is worse than none.
fn rule_problems(plan: &Plan, sources: &mut Sources) -> Vec<Diagnostic> {
    let mut problems = Vec::new();
    let mut known = BTreeSet::new();
    for set in plan.rule_sets.values() {
        let files: Vec<(&str, &str)> = set
            .files
            .iter()
            .map(|file| (file.path.as_str(), file.text.as_str()))
            .collect();
        match RuleSet::parse(&files) {
            Ok(rules) => known.extend(rules.rules().map(|rule| rule.id.clone())),
            Err(errors) => {
                problems.extend(errors.iter().map(|error| rule_problem(error, &files, sources)));
                return problems;
            }
        }
    }
    for (index, expectation) in plan.expect.iter().enumerate() {
        if let Some(outcome) = &expectation.outcome {
            let kind = outcome.split(' ').next().unwrap_or_default();
            if !Outcome::KINDS.contains(&kind) {
                let title =
                    format!("expect[{index}] names the outcome `{outcome}`, which no sample can have");
                let problem =
                    Diagnostic::without_place(Code::WrongValue, title).did_you_mean(kind, Outcome::KINDS);
                problems.push(match problem.help {
                    Some(_) => problem,
                    None => problem.help(format!("it begins with one of: {}", Outcome::KINDS.join(", "))),
                });
            }
        }
        let Some(hits) = &expectation.hits else { continue };
        for rule in hits.all.iter().chain(&hits.none).chain(&hits.any) {
            // Checks of static inspection have a `/` in their names.
            if known.contains(rule) || rule.contains('/') {
                continue;
            }
            let title = format!("expect[{index}] names the rule `{rule}`, which no stage has");
            let span = expectation
                .filter
                .as_ref()
                .or(expectation.stage.as_ref())
                .map(|text| text.span);
            let problem = match span {
                Some(span) => Diagnostic::error(Code::RuleFile, span, title),
                None => Diagnostic::without_place(Code::RuleFile, title),
            };
            problems.push(problem.did_you_mean(rule, known.iter().map(String::as_str)));
        }
    }
    problems
}

/// A mistake in a rule file, with its place.
fn rule_problem(error: &RuleError, files: &[(&str, &str)], sources: &mut Sources) -> Diagnostic {
    let text = files
        .iter()
        .find(|(path, _)| *path == error.file)
        .map_or("", |(_, text)| *text);
    let lines = (error.line as usize).saturating_sub(1);
    let before: usize = text.split_inclusive('\n').take(lines).map(str::len).sum();
    let line = text.get(before..).unwrap_or_default();
    let column: usize = line
        .chars()
        .take((error.column as usize).saturating_sub(1))
        .map(char::len_utf8)
        .sum();
    let start = u32::try_from(before + column).unwrap_or(u32::MAX);
    let span = Span {
        file: sources.add(error.file.as_str(), text.to_owned()),
        start,
        end: start,
    };
    let problem = Diagnostic::error(Code::RuleFile, span, error.message.as_str());
    match &error.help {
        Some(help) => problem.help(help.as_str()),
        None => problem,
    }
}

/// The first Ctrl-C (or SIGTERM) asks to stop, the second one insists. What a handler does is async-signal-safe.
fn listen(stop: &StopSignal) -> Result<(), Failure> {
    use signal_hook::consts::{SIGINT, SIGTERM};
    let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM])?;
    let stop = stop.clone();
    std::thread::spawn(move || {
        for (count, _) in signals.forever().enumerate() {
            stop.request();
            if count == 0 {
                ui::say("stopping; press Ctrl-C again to end running cells at once");
            }
        }
    });
    Ok(())
}

/// Processors this process may use.
fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// The host in a line, for `run.json`.
fn host() -> String {
    let word = |text: &std::ffi::OsStr| text.to_string_lossy().into_owned();
    match nix::sys::utsname::uname() {
        Ok(name) => format!(
            "{} {} {}, {} processors",
            word(name.sysname()),
            word(name.release()),
            word(name.machine()),
            processors()
        ),
        Err(_) => String::new(),
    }
}

/// The summary table, and where the pages are.
pub(crate) fn print_summary(report: &Report, facts: Option<&RunFacts>, run: &Path) {
    let terminal = console::Term::stdout();
    let width = terminal
        .size_checked()
        .map_or(100, |(_, columns)| columns.clamp(40, 240));
    let colour = ui::stdout_is_colored();
    ui::out(
        text::summary(
            report,
            facts,
            Style {
                colour,
                width,
                ..Style::default()
            },
        )
        .trim_end(),
    );
    ui::out(&format!("report: {}", run.join("report.html").display()));
}

/// A path as text: manifests and reports hold paths as UTF-8.
pub(crate) fn utf8(path: &Path) -> Result<&Utf8Path, Failure> {
    Utf8Path::from_path(path)
        .ok_or_else(|| Failure::usage(format!("the path {} is not UTF-8", path.display())))
}

/// The same for an owned path.
pub(crate) fn utf8_buf(path: &Path) -> Result<Utf8PathBuf, Failure> {
    utf8(path).map(Utf8Path::to_path_buf)
}
