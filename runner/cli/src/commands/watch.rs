//! `hotcell watch`: plans again, or runs, whenever something that a manifest is made of changes.
//!
//! Folders are watched, not files: an editor that writes a new file and renames it leaves nothing else of the old one.

mod folders;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use camino::Utf8PathBuf;
use hotcell_plan::{Origin, RootKind};
use hotcell_schema::forecast::InstanceForecast;

use super::{plan, run as run_command, test};
use crate::args::{Global, RunArgs, TestArgs, WatchArgs};
use crate::exit::{Exit, Failure};
use crate::outlook::Outlook;
use crate::places::Places;
use crate::session::{self, Planned};
use crate::ui;
use folders::{Event, Watch};

/// Differences that are shown.
const SHOWN: usize = 40;

pub(crate) fn run(args: &WatchArgs, global: &Global) -> Result<Exit, Failure> {
    let own = Places::find(global, Some(&args.manifest.manifest))?;
    let mut watch = Watch::new(own)?;
    let mut before = None;
    watch.look_at([args.manifest.manifest.clone()], [], false);
    loop {
        watch.remember();
        let mut texts = BTreeSet::new();
        let planned = match Planned::watched(&args.manifest, &args.choose, global, &mut texts) {
            Ok(planned) => planned,
            Err(failure) => {
                ui::failure(&failure);
                None
            }
        };
        let texts = texts.into_iter().map(Utf8PathBuf::into_std_path_buf);
        let texts = texts.chain([args.manifest.manifest.clone()]);
        let files = planned.as_ref().map(files_of).unwrap_or_default();
        // Where nothing could be planned, what is missing may come to be anywhere below the manifest.
        watch.look_at(texts, files, planned.is_none());
        if let Some(planned) = &planned {
            match act(planned, args, global, &mut before) {
                Ok(Exit::Interrupted) => return Ok(Exit::Interrupted),
                Ok(_) => {}
                Err(failure) => ui::failure(&failure),
            }
        }
        drop(planned);
        ui::say(&format!(
            "watching {}; Ctrl-C ends",
            args.manifest.manifest.display()
        ));
        if watch.changed()? == Event::Stopped {
            return Ok(Exit::Interrupted);
        }
    }
}

/// What is known of each instance.
type Known = BTreeMap<String, InstanceForecast>;

fn act(
    planned: &Planned,
    args: &WatchArgs,
    global: &Global,
    before: &mut Option<Known>,
) -> Result<Exit, Failure> {
    if args.test {
        return test::run(
            &TestArgs {
                manifest: args.manifest.clone(),
                execute: args.execute.clone(),
                choose: args.choose.clone(),
                dry_run: false,
                accept: false,
                repeat: None,
                review: false,
                full: false,
                junit: None,
                json: false,
            },
            global,
        );
    }
    if args.run {
        return run_command::run(
            &RunArgs {
                manifest: args.manifest.clone(),
                execute: args.execute.clone(),
                choose: args.choose.clone(),
                dry_run: false,
                json: false,
            },
            global,
        );
    }
    let outlook = Outlook::new(planned, session::jobs(args.execute.jobs))?;
    let lines = outlook.foreseen.iter().map(|foreseen| outlook.of(foreseen));
    let known: Known = lines.map(|line| (line.name.clone(), line)).collect();
    match &before {
        None => plan::print(&outlook, false),
        Some(before) => differences(before, &known),
    }
    *before = Some(known);
    Ok(Exit::Ok)
}

/// What is not as it was, line by line.
fn differences(before: &Known, now: &Known) {
    let mut lines = Vec::new();
    for (name, instance) in now {
        if before.get(name) != Some(instance) {
            lines.push(plan::line(instance));
        }
    }
    for (name, instance) in before {
        if !now.contains_key(name) {
            lines.push(format!(
                "{} {}",
                ui::styled(ui::DIM, "gone   "),
                ui::plain(&instance.short)
            ));
        }
    }
    ui::out("");
    if lines.is_empty() {
        ui::out("a run would do the same as before");
    }
    for line in lines.iter().take(SHOWN) {
        ui::out(line);
    }
    if lines.len() > SHOWN {
        ui::out(&format!("… and {} more", lines.len() - SHOWN));
    }
}

/// Files that a plan is made of, beside its texts.
fn files_of(planned: &Planned) -> Vec<PathBuf> {
    let plan = &planned.plan;
    let rules = plan.rule_sets.values().flat_map(|set| &set.files);
    let rules = rules
        .filter(|file| !file.path.starts_with("shipped:"))
        .map(|file| plan.path(file.path.as_str().into()));
    let own = plan
        .file_sets
        .values()
        .flat_map(|set| set.files.iter().map(|file| file.path.clone()));
    let samples = plan.samples.iter().filter_map(|sample| plan.sample_file(sample));
    let archives = plan.archives.iter().filter_map(|archive| archive.path.as_ref());
    let archives = archives.map(|path| plan.path(path));
    let roots = plan.sysroots.values().flat_map(|root| root.entries.values());
    let roots = roots.filter_map(|name| match &name.kind {
        RootKind::File {
            origin: Origin::File(path),
            ..
        } => Some(plan.path(path)),
        _ => None,
    });
    let golden = plan.folder.join("golden").join(&plan.name).join("x");
    let all = rules
        .chain(own)
        .chain(samples)
        .chain(roots)
        .chain(archives)
        .chain([golden]);
    all.map(Utf8PathBuf::into_std_path_buf).collect()
}
