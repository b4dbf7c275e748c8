//! `hotcell cells`: the cells that run on a host, and what people do with them.

use hotcell_cells::cores::arbiter::Seen;
use hotcell_cells::cores::schedule::{Doing, Hold, Priority};
use hotcell_cells::cores::service::wire::{Act, Which};
use serde_json::json;

use crate::args::{CellsArgs, CellsCommand, Global};
use crate::exit::{Exit, Failure};
use crate::{host, ui};

pub(crate) fn run(args: &CellsArgs, global: &Global) -> Result<Exit, Failure> {
    let mut arbiter = host::must_connect(global)?;
    let Some(command) = &args.command else {
        let cells = arbiter.cells().map_err(host::refused)?;
        match args.json {
            true => ui::out(&ui::json(
                &json!({"format": "hotcell-cells", "version": 1, "cells": cells}),
            )?),
            false => list(&cells),
        }
        return Ok(Exit::Ok);
    };
    let (act, done, reason) = match command {
        CellsCommand::Pause(one) => (Act::Pause(Which::Process(one.cell)), "paused", None),
        CellsCommand::Resume(one) => (Act::Resume(Which::Process(one.cell)), "resumed", None),
        CellsCommand::Kill(kill) => {
            let which = match (kill.id, &kill.user, kill.core) {
                (Some(pid), ..) => Which::Process(pid),
                (_, Some(user), _) => Which::User(host::uid(&mut arbiter, user)?),
                (.., Some(core)) => Which::Core(core),
                // Not without one of them: so says the reader of arguments.
                (None, None, None) => return Err(Failure::usage("say which: --id, --user or --core")),
            };
            (Act::Kill(which), "killed", kill.reason.as_deref())
        }
    };
    let cells = arbiter.act(act, reason).map_err(host::refused)?;
    ui::say(&format!("{done} {}", ui::count(cells, "cell")));
    Ok(Exit::Ok)
}

/// The cells, for people.
pub(crate) fn list(cells: &[Seen]) {
    if cells.is_empty() {
        return ui::out("no cells");
    }
    ui::out("process   user        does                ran      waited   cell");
    for cell in cells {
        let doing = doing(cell);
        let seconds = |nanos: u64| format!("{:.1}s", nanos as f64 / 1e9);
        ui::out(&format!(
            "{:<8}  {:<10}  {doing:<18}  {:<7}  {:<7}  {}",
            cell.process.pid(),
            cell.request.user,
            seconds(cell.ran),
            seconds(cell.waited),
            ui::plain(&cell.name)
        ));
    }
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
