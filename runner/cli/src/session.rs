//! From a manifest's path to a plan, and from a plan to a run.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::SystemTime;

use camino::{Utf8Path, Utf8PathBuf};
use hotcell_cells::roster::Roster;
use hotcell_cells::stop::StopSignal;
use hotcell_detect::{RuleError, RuleSet, TestFailure};
use hotcell_plan::profiles::Profiles;
use hotcell_plan::{Code, Diagnostic, Package, Plan, Sources, load};
use hotcell_report::Summary;
use hotcell_report::text::{self, Style};
use hotcell_run::{Current, Detail, Engines, Foreseen, Options, RunOutcome, Selection, execute, forecast};
use hotcell_schema::arch::ArchProfile;
use hotcell_schema::digest::Digest;
use hotcell_schema::manifest::Span;
use hotcell_schema::outcome::Status;
use hotcell_store::{RunFolder, Store, StoreError};

use crate::args::{ChooseArgs, ExecuteArgs, Global, ManifestArgs};
use crate::commands::store::unusable;
use crate::exit::{Exit, Failure};
use crate::places::Places;
use crate::progress::Progress;
use crate::supplies::{Purpose, Supplies};
use crate::{choose, contents, cores, diagnostics, doors, janitor, pins, quota, runs, ui};

/// A plan that can be run.
pub(crate) struct Planned {
    /// The plan.
    pub plan: Plan,
    /// Where things are.
    pub places: Places,
    profiles: Profiles,
    /// What of it is run; absent: all.
    pub selection: Option<Selection>,
    /// The documents of the manifest: path from its folder, and digest.
    pub documents: Vec<(String, Digest)>,
    variants: Vec<String>,
    supplies: Supplies,
    /// The manifest, as runs of it name it; absent where there is none.
    manifest: Option<String>,
}

/// A run that came to its end.
pub(crate) struct Ran {
    /// What came out.
    pub outcome: RunOutcome,
    /// Where it is.
    pub folder: RunFolder,
}

impl Ran {
    /// What is told of it at its end.
    pub(crate) fn summary(&self) -> Summary {
        Summary::of(&self.outcome.report, Some(&self.outcome.facts))
    }

    /// Whether an instance was refused: for what this host lacks, or for what its sample is.
    fn refused(&self, by_host: bool) -> bool {
        let mut facts = self.outcome.facts.instances.values();
        facts.any(|facts| facts.status == Status::Refused && facts.error.is_some() == by_host)
    }

    /// The instances whose samples could not be run, by name.
    pub(crate) fn not_run(&self) -> impl Iterator<Item = &str> {
        let instances = self.outcome.report.instances.iter();
        let not_run = instances.filter(|instance| instance.is_unsupported());
        not_run.map(|instance| instance.name.as_str())
    }

    /// The exit code for the statuses of a run, and for samples that could not be run: nothing is known of these.
    pub(crate) fn exit(&self) -> Exit {
        self.exit_but(&BTreeSet::new())
    }

    /// The same, where it was expected of some instances, by their names, that their samples cannot be run.
    pub(crate) fn exit_but(&self, expected: &BTreeSet<&str>) -> Exit {
        let any = |status| self.outcome.count(&[status]) > 0;
        match () {
            () if self.outcome.stopped => Exit::Interrupted,
            () if any(Status::Failed) => Exit::Failed,
            () if any(Status::Interrupted) => Exit::Failed,
            () if self.refused(true) => Exit::Host,
            () if self.refused(false) => Exit::NotJudged,
            () if self.not_run().any(|name| !expected.contains(name)) => Exit::NotJudged,
            () => Exit::Ok,
        }
    }
}

impl Planned {
    /// All arch profiles that a run is given.
    pub(crate) fn profiles(&self) -> &[ArchProfile] {
        self.profiles.all()
    }

    /// Loads, checks and plans a manifest to look at the plan. Diagnostics are shown; `None` when they are errors.
    pub(crate) fn from_manifest(args: &ManifestArgs, global: &Global) -> Result<Option<Self>, Failure> {
        Self::with_purpose(args, global, Purpose::Look, BTreeMap::new(), &mut BTreeSet::new())
    }

    /// A part of an experiment to look at; with `--locked`, only as it was pinned.
    pub(crate) fn chosen(
        args: &ManifestArgs,
        choose: &ChooseArgs,
        global: &Global,
    ) -> Result<Option<Self>, Failure> {
        Self::part(args, choose, global, Purpose::Look, &mut BTreeSet::new())
    }

    /// The same. Paths of all texts that it is made of, or would be if they were there and right, are noted in any case.
    pub(crate) fn watched(
        args: &ManifestArgs,
        choose: &ChooseArgs,
        global: &Global,
        texts: &mut BTreeSet<Utf8PathBuf>,
    ) -> Result<Option<Self>, Failure> {
        Self::part(args, choose, global, Purpose::Look, texts)
    }

    /// The same, to run it.
    pub(crate) fn chosen_to_run(
        args: &ManifestArgs,
        choose: &ChooseArgs,
        global: &Global,
    ) -> Result<Option<Self>, Failure> {
        Self::part(args, choose, global, Purpose::Run, &mut BTreeSet::new())
    }

    fn part(
        args: &ManifestArgs,
        choose: &ChooseArgs,
        global: &Global,
        purpose: Purpose,
        texts: &mut BTreeSet<Utf8PathBuf>,
    ) -> Result<Option<Self>, Failure> {
        let packages = match choose.locked {
            true => pins::packages(args)?,
            false => BTreeMap::new(),
        };
        let Some(mut planned) = Self::with_purpose(args, global, purpose, packages, texts)? else {
            return Ok(None);
        };
        if !pins::check(&planned, args, choose.locked)? {
            return Ok(None);
        }
        let runs = planned.places.runs();
        planned.selection = choose::choose(&planned.plan, &runs, planned.manifest.as_deref(), choose)?;
        Ok(Some(planned))
    }

    fn with_purpose(
        args: &ManifestArgs,
        global: &Global,
        purpose: Purpose,
        packages: BTreeMap<String, Package>,
        texts: &mut BTreeSet<Utf8PathBuf>,
    ) -> Result<Option<Self>, Failure> {
        let path = utf8(&args.manifest)?;
        let options = load::Options {
            variants: args.variant.clone(),
            set: args.set.clone(),
            ..load::Options::default()
        };
        let places = Places::find(global, Some(&args.manifest))?;
        let loaded = load::load(path, &options);
        texts.extend(loaded.documents.iter().cloned());
        let mut supplies = Supplies::of(&loaded, &places, purpose, args.require_samples)?;
        supplies.pins = packages;
        let manifest = runs::manifest(&args.manifest, &places.state);
        let planned = Self::supplied(loaded, places, supplies, args.variant.clone(), global, texts)?;
        Ok(planned.map(|planned| Self { manifest, ..planned }))
    }

    /// What its runs are of.
    pub(crate) fn subject(&self) -> runs::Subject<'_> {
        runs::Subject {
            experiment: &self.plan.name,
            manifest: self.manifest.as_deref(),
        }
    }

    /// Plans what was loaded and has no sources.
    pub(crate) fn from_loaded(
        loaded: load::Loaded,
        places: Places,
        variants: Vec<String>,
        global: &Global,
    ) -> Result<Option<Self>, Failure> {
        let supplies = Supplies::of(&loaded, &places, Purpose::Look, false)?;
        Self::supplied(loaded, places, supplies, variants, global, &mut BTreeSet::new())
    }

    fn supplied(
        mut loaded: load::Loaded,
        places: Places,
        supplies: Supplies,
        variants: Vec<String>,
        global: &Global,
        texts: &mut BTreeSet<Utf8PathBuf>,
    ) -> Result<Option<Self>, Failure> {
        let documents = documents(&loaded);
        let (plan, profiles) = judged(&mut loaded, &supplies, global)?;
        diagnostics::print_briefly(&loaded.diagnostics, &loaded.sources);
        texts.extend(
            (0u32..)
                .map_while(|number| loaded.sources.get(number))
                .filter(|source| !load::is_said(source) && !source.path.as_str().starts_with("shipped:"))
                .map(|source| source.path.clone()),
        );
        let usable = !loaded.has_errors();
        Ok(plan.filter(|_| usable).map(|plan| Self {
            plan,
            places,
            profiles,
            selection: None,
            documents,
            variants,
            supplies,
            manifest: None,
        }))
    }

    /// What a run would do with each instance. The store is read, where there is one; nothing is written.
    pub(crate) fn forecast(&self, detail: Detail) -> Result<Vec<Foreseen<'_>>, Failure> {
        let store = Store::open_to_read(&self.places.store).map_err(|error| unusable(&error))?;
        let engines = Engines::new(&self.places.libexec);
        let stop = StopSignal::new()?;
        let how = Defaults {
            runs: self.places.runs(),
            ..Defaults::default()
        };
        let options = self.options(&store, &engines, stop, &how);
        forecast(&self.plan, &options, detail).map_err(|error| Failure::host(error.to_string()))
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
            selection: self.selection.as_ref(),
            fail_fast: how.fail_fast,
            force: how.force,
            again: &how.again,
            archives: Some(&self.supplies.archives),
            secrets: Some(&self.supplies.secrets),
            profiles: self.profiles(),
            hotcell: env!("CARGO_PKG_VERSION"),
            place: self.manifest.as_deref(),
            build: build(),
            runs: Some(&how.runs),
            variants: &self.variants,
            called: &how.called,
            started: &how.started,
            host: &how.host,
            ..Options::new(store, engines, stop)
        }
    }

    /// The latest run of the experiment, when a new one would run nothing and give the same.
    pub(crate) fn current(&self, args: &ExecuteArgs) -> Result<Option<Current>, Failure> {
        let store = Store::open_to_read(&self.places.store).map_err(|error| unusable(&error))?;
        let engines = Engines::new(&self.places.libexec);
        let how = Defaults {
            force: args.force,
            runs: self.places.runs(),
            ..Defaults::default()
        };
        let options = self.options(&store, &engines, StopSignal::new()?, &how);
        let current = hotcell_run::current(&self.plan, &options);
        let now = SystemTime::now();
        if let Some(current) = current.as_ref().filter(|current| current.is_to_be_kept(now)) {
            // A store that cannot be written to now is told another time: at worst, something runs again.
            let kept = Store::open(&self.places.store).and_then(|store| current.keep(&store, now));
            drop(kept);
        }
        Ok(current)
    }

    /// Runs the plan, with progress on standard error. A first Ctrl-C ends it soon, a second one now.
    pub(crate) fn run(&self, args: &ExecuteArgs) -> Result<Ran, Failure> {
        self.run_again(args, &BTreeSet::new())
    }

    /// The same, and some stages run whatever is stored.
    pub(crate) fn run_again(&self, args: &ExecuteArgs, again: &BTreeSet<String>) -> Result<Ran, Failure> {
        let store = open_store(&self.places.store)?;
        let now = jiff::Timestamp::now();
        let how = Defaults {
            jobs: jobs(args.jobs),
            fail_fast: args.fail_fast,
            force: args.force,
            again: again.clone(),
            runs: self.places.runs(),
            called: std::env::args_os()
                .skip(1)
                .map(|word| word.to_string_lossy().into_owned())
                .collect(),
            started: now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            host: host(),
        };
        janitor::clear(&how.runs);
        let cores = cores::take(
            &self.plan,
            how.jobs,
            self.places.arbiter.as_deref(),
            &self.supplies.stop,
        )?;
        if let Some(most) = cores.as_ref().and_then(|cores| cores.quota.stored) {
            quota::judge_store(&store, most)?;
        }
        let id = format!("{}-{}", now.strftime("%Y%m%dT%H%M%S"), self.plan.name);
        let folder = RunFolder::create(&self.places.runs(), &id).map_err(|error| {
            Failure::host(format!("the run's folder cannot be made: {error}"))
                .help("say where with --state DIR")
        })?;
        if let Some(manifest) = &self.manifest {
            folder
                .write(runs::MANIFEST, manifest.as_bytes())
                .map_err(|error| Failure::host(error.to_string()))?;
        }
        let engines = Engines::new(&self.places.libexec)
            .with_temporary(&std::env::temp_dir())
            .watched_by(crate::places::watched_by()?);
        let stop = self.supplies.stop.clone();
        listen(&stop)?;
        let progress = Progress::new(&self.plan, self.selection.as_ref(), args.progress, folder.path());
        let roster = Roster::default();
        let _door = doors::open(&roster);
        let outcome = execute(
            &self.plan,
            &Options {
                cores: cores.as_ref(),
                roster,
                ..self.options(&store, &engines, stop, &how)
            },
            &folder,
            &progress,
        );
        progress.finish();
        silence();
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

/// The documents that a manifest was loaded from, before anything else is read: path from its folder, and digest.
fn documents(loaded: &load::Loaded) -> Vec<(String, Digest)> {
    let sources = (0u32..).map_while(|number| loaded.sources.get(number));
    // What is said on the command line has no file.
    let files = sources.filter(|source| !load::is_said(source));
    files
        .map(|source| {
            let path = source.path.strip_prefix(&loaded.folder);
            let path = path.unwrap_or(&source.path).to_string();
            (path, Digest::of(source.text.as_bytes()))
        })
        .collect()
}

/// Cells at once: as many as were asked for, or one for each processor.
pub(crate) fn jobs(asked: Option<u32>) -> usize {
    asked.map_or_else(processors, |jobs| jobs as usize)
}

/// The arch profiles of a command: the shipped ones and those of its folders.
pub(crate) fn profiles(loaded: &mut load::Loaded, global: &Global) -> Result<Profiles, Failure> {
    let folders: Vec<&Utf8Path> = global
        .profiles
        .iter()
        .map(|folder| utf8(folder))
        .collect::<Result<_, _>>()?;
    Ok(Profiles::load(
        &folders,
        &mut loaded.sources,
        &mut loaded.diagnostics,
    ))
}

/// Plans what was loaded. All that is wrong is among its diagnostics, mistakes in rule files too.
pub(crate) fn judged(
    loaded: &mut load::Loaded,
    supplies: &Supplies,
    global: &Global,
) -> Result<(Option<Plan>, Profiles), Failure> {
    let profiles = profiles(loaded, global)?;
    let plan = hotcell_plan::plan_with(loaded, &profiles, &supplies.supply());
    if let Some(plan) = &plan {
        let problems = rule_problems(plan, &mut loaded.sources);
        loaded.diagnostics.extend(problems);
    }
    Ok((plan, profiles))
}

/// How a run is done, beyond the plan.
struct Defaults {
    jobs: usize,
    fail_fast: bool,
    force: bool,
    again: BTreeSet<String>,
    runs: PathBuf,
    called: Vec<String>,
    started: String,
    host: String,
}

impl Default for Defaults {
    fn default() -> Self {
        Self {
            jobs: 1,
            fail_fast: false,
            force: false,
            again: BTreeSet::new(),
            runs: PathBuf::new(),
            called: Vec::new(),
            started: String::new(),
            host: String::new(),
        }
    }
}

/// What tells this build from any other: a report made by another one is not taken for our own.
fn build() -> &'static str {
    use std::os::unix::fs::MetadataExt as _;
    static BUILD: std::sync::LazyLock<String> = std::sync::LazyLock::new(|| {
        let facts = std::env::current_exe().and_then(fs_err::metadata);
        facts.map_or_else(
            |_| String::new(),
            |facts| {
                // Packages may set the time of what they install, nobody that of its change.
                let (changed, nanoseconds) = (facts.ctime(), facts.ctime_nsec());
                format!("{} {} {changed} {nanoseconds}", facts.ino(), facts.len())
            },
        )
    });
    &BUILD
}

/// Opens the store to work with it. A collection is waited for.
pub(crate) fn open_store(folder: &Path) -> Result<Store, Failure> {
    let opened = match Store::open(folder) {
        Err(StoreError::Busy { by, .. }) => {
            ui::say(&format!("waiting: {by}"));
            Store::open_waiting(folder)
        }
        opened => opened,
    };
    opened.map_err(|error| unusable(&error))
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
            Ok(rules) => {
                let own = files.iter().any(|(path, _)| !path.starts_with("shipped:"));
                let failures = if own {
                    rules.self_test().failures
                } else {
                    Vec::new()
                };
                problems.extend(
                    failures
                        .iter()
                        .map(|failure| failed_test(failure, &files, sources)),
                );
                known.extend(rules.rules().map(|rule| rule.id.clone()));
            }
            Err(errors) => {
                problems.extend(errors.iter().map(|error| rule_problem(error, &files, sources)));
                return problems;
            }
        }
    }
    for (index, expectation) in plan.expect.iter().enumerate() {
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

/// An inline test that its rule does not pass: what the rule finds is not what its author wanted.
fn failed_test(failure: &TestFailure, files: &[(&str, &str)], sources: &mut Sources) -> Diagnostic {
    let error = RuleError {
        code: "rules/test",
        file: failure.file.clone(),
        line: failure.line,
        column: 1,
        source_line: String::new(),
        message: format!(
            "the rule `{}` fails its test `{}`: {}",
            failure.rule, failure.test, failure.message
        ),
        help: Some("mend the rule or the test".to_owned()),
    };
    rule_problem(&error, files, sources)
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

/// What a signal stops, and how often it was asked to. A command can make several runs, one after the other.
static STOP: Mutex<Option<(StopSignal, u32)>> = Mutex::new(None);
/// Whether someone listens.
static LISTENING: OnceLock<()> = OnceLock::new();

/// The first Ctrl-C (or SIGTERM) asks to stop, the second one insists. What a handler does is async-signal-safe.
pub(crate) fn listen(stop: &StopSignal) -> Result<(), Failure> {
    listen_and_say(
        stop,
        "stopping: what runs has two seconds to end; press Ctrl-C again to end it at once",
    )
}

/// The same; at the first one this is said.
pub(crate) fn listen_and_say(stop: &StopSignal, said: &'static str) -> Result<(), Failure> {
    use signal_hook::consts::{SIGINT, SIGTERM};
    *STOP.lock().unwrap_or_else(PoisonError::into_inner) = Some((stop.clone(), 0));
    if LISTENING.set(()).is_err() {
        return Ok(());
    }
    let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM])?;
    std::thread::spawn(move || {
        for _ in signals.forever() {
            let first = match &mut *STOP.lock().unwrap_or_else(PoisonError::into_inner) {
                None => false,
                Some((stop, count)) => {
                    stop.request();
                    *count += 1;
                    *count == 1
                }
            };
            if first {
                ui::say(said);
            }
        }
    });
    Ok(())
}

/// The run is over: nothing is left to stop.
fn silence() {
    *STOP.lock().unwrap_or_else(PoisonError::into_inner) = None;
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
pub(crate) fn print_summary(summary: &Summary, run: &Path) {
    let terminal = console::Term::stdout();
    let width = terminal
        .size_checked()
        .map_or(100, |(_, columns)| columns.clamp(40, 240));
    let colour = ui::stdout_is_colored();
    ui::out(text::summary(summary, Style { colour, width }).trim_end());
    for line in tails(summary, run) {
        ui::out(&line);
    }
    if let Some(selection) = &summary.selection {
        ui::out(&ui::plain(&format!("a part of the plan: {selection}")));
    }
    ui::out(&format!("report: {}", run.join("report.html").display()));
}

/// Samples whose last words are shown.
const TAILS: usize = 4;
/// Lines of each, and bytes of output that are read for them.
const TAIL_LINES: usize = 4;
const TAIL_BYTES: u64 = 1 << 20;

/// The last lines of what samples wrote that did not end well by themselves.
fn tails(summary: &Summary, run: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    for ended in &summary.ended_badly {
        // What it complained of, or else what it said.
        let said = ended.wrote.iter().find_map(|(port, path)| {
            let bytes = contents::read(&run.join("result"), path, TAIL_BYTES)?;
            let text = String::from_utf8_lossy(&bytes).trim().to_owned();
            (!text.is_empty()).then_some((port, text))
        });
        let Some((port, text)) = said else { continue };
        if lines.len() / 2 == TAILS {
            break;
        }
        let all: Vec<String> = text
            .lines()
            .map(|line| hotcell_report::words::cut(line, 200))
            .collect();
        let last = all
            .get(all.len().saturating_sub(TAIL_LINES)..)
            .unwrap_or_default();
        lines.push(format!("\nThe end of {port} of {}", ui::plain(&ended.name)));
        lines.push(ui::indented(&last.join("\n"), "  "));
    }
    lines
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
