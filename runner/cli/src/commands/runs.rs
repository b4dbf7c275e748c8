//! `hotcell runs`: which runs there are, what became of them, and their removal.

use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::path::Path;
use std::time::{Duration, SystemTime};

use hotcell_schema::log::Counts;
use hotcell_schema::outcome::Status;
use hotcell_schema::report::{Report, RunFacts};
use hotcell_store::Journal;
use serde_json::json;

use super::diff::read_report;
use crate::args::{Global, RunsArgs, RunsCommand, RunsListArgs, RunsRmArgs, RunsShowArgs};
use crate::exit::{Exit, Failure};
use crate::places::Places;
use crate::runs::{self, Run, State};
use crate::ui;

/// Troubles that are shown.
const SHOWN: usize = 40;

pub(crate) fn run(args: &RunsArgs, global: &Global) -> Result<Exit, Failure> {
    match &args.command {
        None => list(&args.list, global),
        Some(RunsCommand::List(args)) => list(args, global),
        Some(RunsCommand::Show(args)) => show(args, global),
        Some(RunsCommand::Rm(args)) => rm(args, global),
    }
}

/// What a list says of a run.
struct Line {
    run: Run,
    experiment: String,
    started: String,
    wall_s: Option<f64>,
    counts: Counts,
    /// Instances that the plan has, where the run came to no result.
    of: Option<u64>,
    partial: bool,
    size: u64,
}

impl Line {
    fn of(run: Run) -> Self {
        let size = run.size();
        let facts = (run.state == State::Finished).then(|| run.facts()).flatten();
        match facts {
            Some(facts) => Self {
                experiment: name_of(&facts, &run),
                started: facts.started.clone(),
                wall_s: Some(facts.wall_s),
                counts: counts(&facts),
                of: None,
                partial: facts.selection.is_some(),
                run,
                size,
            },
            None => {
                let progress = run.progress();
                let plan = run.plan().unwrap_or_default();
                let all = (plan.instances.len() as u64).max(progress.ended + progress.open);
                Self {
                    experiment: plan.name,
                    started: String::new(),
                    wall_s: None,
                    counts: progress.counts,
                    of: matches!(run.state, State::Running | State::Interrupted).then_some(all),
                    partial: false,
                    run,
                    size,
                }
            }
        }
    }

    fn to_json(&self) -> serde_json::Value {
        json!({
            "id": self.run.id,
            "folder": self.run.folder,
            "state": self.run.state.word(),
            "experiment": self.experiment,
            "started": self.started,
            "wall_s": self.wall_s,
            "statuses": self.counts,
            "instances": self.of,
            "partial": self.partial,
            "bytes": self.size,
        })
    }

    fn how(&self) -> String {
        let counts = words(&self.counts);
        let partial = if self.partial { " (a part of the plan)" } else { "" };
        match (self.run.state, self.of) {
            (State::Incomplete, _) => ui::styled(ui::YELLOW, "incomplete: files of it were removed"),
            (State::Finished, _) | (_, None) => format!("{counts}{partial}"),
            (state, Some(all)) => {
                let ended: u64 = self.counts.words().iter().map(|(count, _)| count).sum();
                let state = ui::styled(ui::YELLOW, format!("{} after {ended} of {all}", state.word()));
                format!("{state}: {counts}")
            }
        }
    }
}

fn name_of(facts: &RunFacts, run: &Run) -> String {
    match facts.experiment.is_empty() {
        false => facts.experiment.clone(),
        true => read_report(&run.folder)
            .map(|report| report.name)
            .unwrap_or_default(),
    }
}

fn counts(facts: &RunFacts) -> Counts {
    let mut counts = Counts::default();
    facts
        .instances
        .values()
        .for_each(|instance| counts.add(instance.status));
    counts
}

/// Counts in words, without those that are none.
pub(crate) fn words(counts: &Counts) -> String {
    let words: Vec<String> = counts
        .words()
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, word)| format!("{count} {word}"))
        .collect();
    match words.is_empty() {
        true => "nothing ended".into(),
        false => words.join(", "),
    }
}

fn list(args: &RunsListArgs, global: &Global) -> Result<Exit, Failure> {
    let places = Places::find(global, None)?;
    let lines: Vec<Line> = runs::all(&places.runs()).into_iter().map(Line::of).collect();
    if args.json {
        let all: Vec<_> = lines.iter().map(Line::to_json).collect();
        ui::out(&ui::json(
            &json!({"format": "hotcell-runs", "version": 1, "runs": all}),
        )?);
        return Ok(Exit::Ok);
    }
    if lines.is_empty() {
        ui::say(&format!("there are no runs in {}", places.runs().display()));
    }
    let ids: Vec<String> = lines.iter().map(|line| ui::plain(&line.run.id)).collect();
    let width = ids.iter().map(|id| id.chars().count()).max().unwrap_or(0);
    if !lines.is_empty() {
        let head = format!("{:width$}  {:>8}  {:>9}  how it ended", "run", "took", "on disk");
        ui::out(&ui::styled(ui::DIM, head));
    }
    for (line, id) in lines.iter().zip(&ids) {
        let wall = line.wall_s.map_or_else(|| "-".to_owned(), seconds);
        ui::out(&format!(
            "{}  {:>8}  {:>9}  {}",
            ui::styled(ui::BOLD, format!("{id:width$}")),
            wall,
            bytes(line.size),
            line.how()
        ));
    }
    Ok(Exit::Ok)
}

fn show(args: &RunsShowArgs, global: &Global) -> Result<Exit, Failure> {
    let places = Places::find(global, None)?;
    let run = runs::find(&places.runs(), &args.run)?;
    let line = Line::of(run.clone());
    let facts = (run.state == State::Finished).then(|| run.facts()).flatten();
    let report = (run.state == State::Finished)
        .then(|| read_report(&run.folder).ok())
        .flatten();
    let troubles = match (&facts, &report) {
        (Some(facts), Some(report)) => troubles(facts, report),
        _ => Vec::new(),
    };
    if args.json {
        let mut json = line.to_json();
        if let Some(object) = json.as_object_mut() {
            object.insert("format".into(), "hotcell-run-shown".into());
            object.insert("version".into(), 1.into());
            object.insert("facts".into(), json!(facts));
            let troubles = troubles.iter().map(|trouble| json!({"instance": trouble.name, "short": trouble.short, "status": trouble.status, "reason": trouble.reason, "error": trouble.error, "attempts": trouble.attempts, "left": trouble.left, "fault": trouble.fault}));
            object.insert("troubles".into(), troubles.collect());
        }
        ui::out(&ui::json(&json)?);
        return Ok(Exit::Ok);
    }
    let row = |name: &str, text: &str| {
        if !text.is_empty() {
            ui::out(&format!(
                "{} {}",
                ui::styled(ui::DIM, format!("{name:11}")),
                ui::plain(text)
            ));
        }
    };
    ui::out(&ui::styled(ui::BOLD, ui::plain(&run.id)));
    row("experiment", &line.experiment);
    row("folder", &run.folder.display().to_string());
    row(
        "state",
        &match run.state {
            State::Finished | State::Incomplete => run.state.word().to_owned(),
            _ => run.how_far(),
        },
    );
    if let Some(facts) = &facts {
        if !facts.called.is_empty() {
            row(
                "called",
                &format!("hotcell {}", hotcell_report::words::command(&facts.called)),
            );
        }
        row("variants", &facts.variants.join(", "));
        row("hotcell", &facts.hotcell);
        row("started", &facts.started);
        row(
            "took",
            &format!("{}, {} at a time", seconds(facts.wall_s), facts.jobs),
        );
        row("host", &facts.host);
        row("confinement", &facts.confinement.join(", "));
        for fallback in &facts.fallbacks {
            row("fallback", fallback);
        }
        if let Some(selection) = &facts.selection {
            row("part", &selection.words());
        }
    }
    row("on disk", &bytes(line.size));
    row("instances", &words(&line.counts));
    if run.state == State::Incomplete {
        row("what to do", "nothing can be read of it any more: remove it");
    }
    if run.state == State::Interrupted {
        row("to go on", "run the manifest again: what was finished is stored");
    }
    if !troubles.is_empty() {
        ui::out("");
        for trouble in troubles.iter().take(SHOWN) {
            ui::out(&format!(
                "{} {}  {}",
                ui::styled(ui::YELLOW, format!("{:11}", trouble.status.as_str())),
                ui::plain(&trouble.short),
                ui::plain(&trouble.reason)
            ));
            if let Some(error) = &trouble.error {
                ui::out(&ui::indented(error, "            "));
            }
            if trouble.attempts > 1 {
                ui::out(&format!("            it was tried {} times", trouble.attempts));
            }
            if let Some(left) = &trouble.left {
                let left = run.folder.join(left).display().to_string();
                ui::out(&format!("            what it left: {}", ui::plain(&left)));
            }
            if let Some(fault) = &trouble.fault {
                let fault = run.folder.join(fault).display().to_string();
                ui::out(&format!("            what is known of it: {}", ui::plain(&fault)));
            }
        }
        if troubles.len() > SHOWN {
            ui::out(&format!(
                "… and {} more; --json shows all",
                troubles.len() - SHOWN
            ));
        }
    }
    for (name, fault) in facts.iter().flat_map(overcome).take(SHOWN) {
        let fault = run.folder.join(fault).display().to_string();
        ui::out(&format!(
            "{} {}  its cell broke in an attempt before: {}",
            ui::styled(ui::YELLOW, format!("{:11}", "well after")),
            ui::plain(name),
            ui::plain(&fault)
        ));
    }
    Ok(Exit::Ok)
}

/// An instance that did not end well.
struct Trouble {
    name: String,
    short: String,
    status: Status,
    reason: String,
    error: Option<String>,
    attempts: u32,
    left: Option<String>,
    fault: Option<String>,
}

/// Instances that ended well after an attempt in which their cell broke, and where it is told.
fn overcome(facts: &RunFacts) -> impl Iterator<Item = (&str, &str)> {
    let well = facts.instances.iter().filter(|(_, facts)| !facts.status.is_bad());
    well.filter_map(|(name, facts)| Some((name.as_str(), facts.fault.as_deref()?)))
}

fn troubles(facts: &RunFacts, report: &Report) -> Vec<Trouble> {
    let bad = report
        .instances
        .iter()
        .filter(|instance| instance.status.is_bad());
    bad.map(|instance| {
        let facts = facts.instances.get(&instance.name);
        Trouble {
            name: instance.name.clone(),
            short: report.short_name(instance),
            status: instance.status,
            reason: instance.reason.clone().unwrap_or_default(),
            error: facts.and_then(|facts| facts.error.clone()),
            attempts: facts.map_or(0, |facts| facts.attempts),
            left: facts.and_then(|facts| facts.left.clone()),
            fault: facts.and_then(|facts| facts.fault.clone()),
        }
    })
    .collect()
}

fn rm(args: &RunsRmArgs, global: &Global) -> Result<Exit, Failure> {
    if args.runs.is_empty() && args.keep.is_none() && args.older_than.is_none() {
        return Err(Failure::usage("nothing says which runs to remove")
            .help("name runs, or say --keep N or --older-than 30d"));
    }
    let places = Places::find(global, None)?;
    if !args.dry_run {
        sweep(&places.runs());
    }
    let chosen = match args.runs.is_empty() {
        false => {
            let mut chosen: Vec<Run> = Vec::new();
            for name in &args.runs {
                let run = runs::find(&places.runs(), name)?;
                if run.state == State::Running {
                    return Err(
                        Failure::usage(format!("{} goes on", run.id)).help("stop it first, or wait for it")
                    );
                }
                if !chosen.iter().any(|other| other.id == run.id) {
                    chosen.push(run);
                }
            }
            chosen
        }
        true => old(args, runs::all(&places.runs())),
    };
    if chosen.is_empty() {
        ui::say("no run is to be removed");
        return Ok(Exit::Ok);
    }
    if !args.yes && !args.dry_run && std::io::stdin().is_terminal() {
        for run in &chosen {
            ui::say(&format!("  {}", ui::plain(&run.id)));
        }
        if !confirmed(&format!(
            "remove {}? what they gave stays in the store [y/N] ",
            ui::count(chosen.len(), "run")
        ))? {
            ui::say("nothing was removed");
            return Ok(Exit::Ok);
        }
    }
    let mut freed = 0;
    for run in &chosen {
        let size = run.size();
        if !args.dry_run {
            remove(&places.runs(), run)?;
        }
        freed += size;
        let did = if args.dry_run { "would remove" } else { "removed" };
        ui::out(&format!("{did} {} ({})", ui::plain(&run.id), bytes(size)));
    }
    ui::say(&format!("{}, {}", ui::count(chosen.len(), "run"), bytes(freed)));
    Ok(Exit::Ok)
}

/// The runs that are too many or too old; what goes on is neither.
fn old(args: &RunsRmArgs, all: Vec<Run>) -> Vec<Run> {
    let still: Vec<Run> = all
        .into_iter()
        .filter(|run| run.state != State::Running)
        .collect();
    let is_whole = |run: &Run| run.state != State::Incomplete;
    let mut newer = still.iter().filter(|run| is_whole(run)).count();
    let now = SystemTime::now();
    still
        .into_iter()
        .filter(|run| {
            // What is left of a run is none that could be kept.
            newer -= usize::from(is_whole(run));
            let over = args
                .keep
                .is_none_or(|keep| !is_whole(run) || newer >= keep as usize);
            let aged = args
                .older_than
                .is_none_or(|age| now.duration_since(run.written).is_ok_and(|since| since >= age));
            over && aged
        })
        .collect()
}

fn confirmed(question: &str) -> Result<bool, Failure> {
    let mut stderr = anstream::stderr();
    write!(stderr, "{question}")?;
    stderr.flush()?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// Removes a run's folder and nothing else: the folder must stand directly in the folder of runs and be no link, and links
/// in it are removed, not followed. It is renamed first, so that no half of a run is ever taken for one.
fn remove(runs: &Path, run: &Run) -> Result<(), Failure> {
    let broken =
        |error: std::io::Error| Failure::host(format!("{} cannot be removed: {error}", run.folder.display()));
    let inside = run.folder.parent() == Some(runs) && Run::at(&run.folder).is_some();
    if !inside {
        return Err(Failure::usage(format!(
            "{} is no run of {}",
            run.folder.display(),
            runs.display()
        )));
    }
    if Journal::is_live(&run.folder.join("journal.jsonl")) {
        return Err(Failure::usage(format!("{} goes on", run.id)).help("stop it first, or wait for it"));
    }
    let away = tempfile::Builder::new()
        .prefix(REMOVING)
        .tempdir_in(runs)
        .map_err(broken)?;
    std::fs::rename(&run.folder, away.path().join("run")).map_err(broken)?;
    forget(runs, &run.id);
    // The standard library opens each folder without following links.
    away.close().map_err(broken)
}

/// A run that is no more is nobody's latest good one.
fn forget(runs: &Path, id: &str) {
    let latest = runs.parent().map(|state| state.join("latest"));
    let pointers = latest.and_then(|latest| fs_err::read_dir(latest).ok());
    for pointer in pointers.into_iter().flatten().flatten() {
        let path = pointer.path();
        if path.is_file() && fs_err::read_to_string(&path).is_ok_and(|named| named == id) {
            // Left behind, it names what is not there, and counts as nothing.
            let _ = fs_err::remove_file(&path);
        }
    }
}

/// How folders are named in which runs are being removed.
const REMOVING: &str = ".removing-";

/// Goes on with what someone who was killed was removing.
fn sweep(runs: &Path) {
    for entry in fs_err::read_dir(runs).into_iter().flatten().flatten() {
        let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if is_folder && entry.file_name().to_string_lossy().starts_with(REMOVING) {
            // Another may be at it; what stays is tried again the next time.
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

/// Seconds for people.
fn seconds(seconds: f64) -> String {
    match seconds {
        s if s < 60.0 => format!("{s:.1} s"),
        s if s < 3600.0 => format!("{:.0} min", s / 60.0),
        s => format!("{:.1} h", s / 3600.0),
    }
}

/// Bytes for people.
fn bytes(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if value < 1024.0 {
            return match unit {
                "B" => format!("{bytes} B"),
                _ => format!("{value:.1} {unit}"),
            };
        }
        value /= 1024.0;
    }
    format!("{value:.1} TiB")
}

/// An age: `30d`, `12h`, `2w`.
pub(crate) fn age(text: &str) -> Result<Duration, String> {
    let split = text
        .find(|character: char| !character.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let number: u64 = number
        .parse()
        .map_err(|_| "an age is a number and a unit: 30d, 12h, 2w".to_owned())?;
    let seconds = match unit {
        "s" => 1,
        "m" | "min" => 60,
        "h" => 3_600,
        "d" => 86_400,
        "w" => 7 * 86_400,
        _ => return Err("the unit is one of s, min, h, d, w: 30d".to_owned()),
    };
    number
        .checked_mul(seconds)
        .map(Duration::from_secs)
        .ok_or_else(|| "that is longer than there was time".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_read() {
        assert_eq!(age("30d"), Ok(Duration::from_secs(30 * 86_400)));
        assert_eq!(age("2w"), Ok(Duration::from_secs(14 * 86_400)));
        for wrong in [
            "",
            "d",
            "30",
            "30y",
            "-1d",
            "99999999999999999999d",
            "9999999999999999999d",
        ] {
            assert!(age(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn sizes_are_for_people() {
        assert_eq!(
            [0, 1023, 1024, 5 << 30].map(bytes),
            ["0 B", "1023 B", "1.0 KiB", "5.0 GiB"]
        );
    }
}
