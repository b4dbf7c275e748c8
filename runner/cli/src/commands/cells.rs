//! `hotcell cells`: the cells that run on a host, and what people do with them.
//!
//! Two know of cells: the run that a cell is of, through its door ([`crate::doors`]), and the arbiter of the host, where it
//! has one. A run can do everything with its cells; the arbiter pauses, resumes and kills those of all users.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read as _, Seek as _};
use std::path::{Path, PathBuf};

use hotcell_cells::cores::arbiter::Seen;
use hotcell_cells::cores::schedule::{Doing, Hold};
use hotcell_cells::cores::service::client::Connection;
use hotcell_cells::cores::service::wire::{Act, Which};
use hotcell_cells::door::{Answer, What};
use hotcell_cells::dump::Core;
use hotcell_cells::roster::Running;
use hotcell_schema::manifest::Priority;
use serde_json::{Value, json};

use crate::args::{CellsArgs, CellsCommand, DumpArgs, Global, KillArgs};
use crate::exit::{Exit, Failure};
use crate::{doors, host, places, ui};

pub(crate) fn run(args: &CellsArgs, global: &Global) -> Result<Exit, Failure> {
    let Some(command) = &args.command else {
        list(args, global)?;
        return Ok(Exit::Ok);
    };
    match command {
        CellsCommand::Pause(one) => either(one.cell, What::Pause, Act::Pause, "paused", global),
        CellsCommand::Resume(one) => either(one.cell, What::Resume, Act::Resume, "resumed", global),
        CellsCommand::Stop(one) => own(one.cell, What::Stop, None, "told to end"),
        CellsCommand::Kill(kill) => end(kill, global),
        CellsCommand::Save(save) => self::save(save.cell, &save.file),
        CellsCommand::Dump(args) => dump(args),
        CellsCommand::Restore(restore) => match &restore.file {
            None => own(restore.cell, What::Load, None, "went back to what was kept last"),
            Some(file) => {
                let context = File::open(file).map_err(|error| named(file, &error))?;
                own(
                    restore.cell,
                    What::Restore,
                    Some(&context),
                    "goes on in a new process",
                )
            }
        },
        CellsCommand::Step(step) => match step.slices {
            true => own(step.cell, What::Slices(step.count), None, "did its slices"),
            false => own(step.cell, What::Instructions(step.count), None, "did its steps"),
        },
    }?;
    Ok(Exit::Ok)
}

fn named(file: &Path, error: &std::io::Error) -> Failure {
    Failure::usage(format!("{}: {error}", file.display()))
}

/// What only the run of a cell can do.
fn own(cell: u32, what: What, file: Option<&File>, done: &str) -> Result<(), Failure> {
    match doors::ask(cell, what, file)? {
        Some(_) => {
            ui::say(&format!("cell {cell} {done}"));
            Ok(())
        }
        None => Err(none(cell)),
    }
}

fn none(cell: u32) -> Failure {
    Failure::usage(format!("no run of yours has a cell {cell}")).help("`hotcell cells` lists them")
}

/// What the run of a cell can do, or else the arbiter of the host.
fn either(cell: u32, what: What, act: fn(Which) -> Act, done: &str, global: &Global) -> Result<(), Failure> {
    if doors::ask(cell, what, None)?.is_none() {
        let socket = places::arbiter(global).ok_or_else(|| none(cell))?;
        let mut arbiter = host::connect(&socket)?;
        arbiter
            .act(act(Which::Process(cell)), None)
            .map_err(host::refused)?;
    }
    ui::say(&format!("{done} cell {cell}"));
    Ok(())
}

fn end(kill: &KillArgs, global: &Global) -> Result<(), Failure> {
    if let Some(cell) = kill.id
        && doors::ask(cell, What::Kill, None)?.is_some()
    {
        ui::say(&format!("killed cell {cell}"));
        return Ok(());
    }
    let mut arbiter: Connection = match (kill.id, places::arbiter(global)) {
        (Some(cell), None) => return Err(none(cell)),
        _ => host::must_connect(global)?,
    };
    let which = match (kill.id, &kill.user, kill.core) {
        (Some(cell), ..) => Which::Process(cell),
        (_, Some(user), _) => Which::User(host::uid(&mut arbiter, user)?),
        (.., Some(core)) => Which::Core(core),
        // Not without one of them: so says the reader of arguments.
        (None, None, None) => return Err(Failure::usage("say which: --id, --user or --core")),
    };
    let cells = arbiter
        .act(Act::Kill(which), kill.reason.as_deref())
        .map_err(host::refused)?;
    ui::say(&format!("killed {}", ui::count(cells, "cell")));
    Ok(())
}

fn save(cell: u32, file: &Path) -> Result<(), Failure> {
    let made = File::create_new(file).map_err(|error| named(file, &error))?;
    match doors::ask(cell, What::Save, Some(&made)) {
        Ok(Some(Answer::Saved(facts))) => {
            ui::say(&format!(
                "saved cell {cell} after {} in {}",
                ui::count(facts.events, "event"),
                file.display()
            ));
            Ok(())
        }
        other => {
            // What was begun is no context.
            let _ = fs_err::remove_file(file);
            Err(match other {
                Err(failure) => failure,
                Ok(_) => none(cell),
            })
        }
    }
}

fn dump(args: &DumpArgs) -> Result<(), Failure> {
    let folder = &args.folder;
    let made = match fs_err::create_dir(folder) {
        Ok(()) => true,
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            let mut inside = fs::read_dir(folder).map_err(|error| named(folder, &error))?;
            if inside.next().is_some() {
                let full = format!("{}: not an empty folder", folder.display());
                return Err(Failure::usage(full).help("name one that is not there yet"));
            }
            false
        }
        Err(error) => return Err(Failure::usage(error.to_string())),
    };
    let mut written = Vec::new();
    let dumped = dump_into(args.cell, folder, &mut written);
    if dumped.is_err() {
        // Half a dump is none.
        for file in &written {
            let _ = fs_err::remove_file(file);
        }
        if made {
            let _ = fs_err::remove_dir(folder);
        }
    }
    let cores = dumped?;
    if args.json {
        let cores: Vec<Value> = cores
            .iter()
            .map(|core| json!({"file": core.name, "bytes": core.length}))
            .collect();
        ui::out(&ui::json(&json!({
            "format": "hotcell-dump", "version": 1, "process": args.cell, "folder": folder, "cores": cores
        }))?);
        return Ok(());
    }
    for file in &written {
        ui::out(&file.display().to_string());
    }
    ui::say(&format!(
        "dumped cell {} in {}",
        args.cell,
        ui::count(cores.len(), "core file")
    ));
    Ok(())
}

/// Asks for core files, and takes apart what comes. `written`: the files that were made.
fn dump_into(cell: u32, folder: &Path, written: &mut Vec<PathBuf>) -> Result<Vec<Core>, Failure> {
    // Without a name: whatever happens, it is gone with the last who has it open.
    let mut all = tempfile::tempfile_in(folder).map_err(|error| named(folder, &error))?;
    let cores = match doors::ask(cell, What::Dump, Some(&all))? {
        Some(Answer::Dumped(cores)) => cores,
        _ => return Err(none(cell)),
    };
    all.rewind()?;
    for core in &cores {
        let path = folder.join(core.name.as_str());
        let mut file = fs_err::File::create_new(&path)?;
        written.push(path);
        if io::copy(&mut (&mut all).take(core.length), &mut file)? != core.length {
            return Err(Failure::host(format!(
                "cell {cell}: {} is cut off",
                core.name.as_str()
            )));
        }
    }
    Ok(cores)
}

fn list(args: &CellsArgs, global: &Global) -> Result<(), Failure> {
    let own: Vec<Running> = doors::all()?.into_iter().flat_map(|(_, cells)| cells).collect();
    let arbiter = places::arbiter(global);
    let all = match &arbiter {
        Some(socket) => host::connect(socket)?.cells().map_err(host::refused)?,
        None => Vec::new(),
    };
    if args.json {
        ui::out(&ui::json(
            &json!({"format": "hotcell-cells", "version": 1, "own": own, "cells": all}),
        )?);
        return Ok(());
    }
    let seen: BTreeMap<u32, &Seen> = all.iter().map(|cell| (cell.process.pid(), cell)).collect();
    let mut lines = BTreeMap::new();
    for cell in &own {
        lines.insert(
            cell.process,
            row(cell.process, Some(cell), seen.get(&cell.process).copied()),
        );
    }
    for (process, cell) in &seen {
        lines
            .entry(*process)
            .or_insert_with(|| row(*process, None, Some(cell)));
    }
    if lines.is_empty() {
        ui::out("no cells");
        return Ok(());
    }
    ui::out("process   user        does                ran      waited   engine           cell");
    for line in lines.values() {
        ui::out(line);
    }
    Ok(())
}

/// What a run and an arbiter know of a cell, in a line.
fn row(process: u32, own: Option<&Running>, seen: Option<&Seen>) -> String {
    let seconds = |nanos: u64| format!("{:.1}s", nanos as f64 / 1e9);
    let user = seen.map_or_else(|| "you".to_owned(), |seen| seen.request.user.to_string());
    let does = match (own, seen) {
        (Some(own), _) if own.paused => "paused".to_owned(),
        (_, Some(seen)) => doing(seen),
        _ => "runs".to_owned(),
    };
    let ran = match (own, seen) {
        (_, Some(seen)) => seconds(seen.ran),
        (Some(own), None) => seconds(own.age_ms.saturating_mul(1_000_000)),
        (None, None) => String::new(),
    };
    let waited = seen.map_or_else(|| "-".to_owned(), |seen| seconds(seen.waited));
    let engine = own.map_or("-", |own| own.engine.as_str());
    let name = own.map(|own| &own.name).or(seen.map(|seen| &seen.name));
    let name = name.map_or_else(String::new, |name| ui::plain(name));
    format!("{process:<8}  {user:<10}  {does:<18}  {ran:<7}  {waited:<7}  {engine:<15}  {name}")
}

/// What a cell does, in words.
fn doing(cell: &Seen) -> String {
    let exclusive = matches!(cell.request.hold, Hold::Exclusive { .. });
    let urgent = match cell.request.priority {
        Priority::Low => ", low",
        Priority::Normal => "",
        Priority::High => ", high",
    };
    match &cell.doing {
        Doing::Held => "waits to be let in".to_owned(),
        Doing::Ready => format!("waits{urgent}"),
        Doing::Running(cores) if exclusive => format!("has core {cores}"),
        Doing::Running(cores) => format!("runs on {cores}{urgent}"),
        Doing::Stopping(cores) => format!("leaves {cores}"),
        Doing::Paused => "paused".to_owned(),
    }
}
