//! The doors of this user's runs: where `hotcell cells` asks.

use std::path::PathBuf;

use hotcell_cells::door::{Answer, Ask, Door, Visit, What};
use hotcell_cells::roster::{Roster, Running};

use crate::exit::Failure;
use crate::{log, places, ui};

/// Opens the door of this run. Without one it runs as well, and nobody can ask.
pub(crate) fn open(roster: &Roster) -> Option<Door> {
    let name = format!("run-{}.sock", std::process::id());
    let opened = places::runtime().and_then(|folder| {
        // One of that name is of a run that died: its process id is ours now.
        Door::open(&folder.join(name), roster.clone()).map_err(|error| Failure::host(error.to_string()))
    });
    match opened {
        Ok(door) => Some(door),
        Err(failure) if log::is_json() => {
            log::message(&format!(
                "`hotcell cells` cannot ask about this run: {}",
                failure.message
            ));
            None
        }
        Err(_) => None,
    }
}

/// All doors with somebody behind them, and who is there.
pub(crate) fn all() -> Result<Vec<(PathBuf, Vec<Running>)>, Failure> {
    let mut found = Vec::new();
    for entry in fs_err::read_dir(places::runtime()?)? {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "sock") {
            continue;
        }
        // Nobody behind it: the door of a run that died, and the janitor's.
        let Ok(mut visit) = Visit::at(&path) else {
            continue;
        };
        if let Ok(Answer::Cells(cells)) = visit.ask(&Ask::Cells, None) {
            found.push((path, cells));
        }
    }
    Ok(found)
}

/// Asks the cell of this process id to do something; `None`: no run of this user has it.
pub(crate) fn ask(process: u32, what: What, file: Option<&std::fs::File>) -> Result<Option<Answer>, Failure> {
    let Some((path, _)) = all()?
        .into_iter()
        .find(|(_, cells)| cells.iter().any(|cell| cell.process == process))
    else {
        return Ok(None);
    };
    let answered = Visit::at(&path)
        .map_err(|error| Failure::host(error.to_string()))?
        .ask(&Ask::Do { process, what }, file)
        .map_err(|error| Failure::host(format!("the run of cell {process}: {error}")))?;
    match answered {
        Answer::Refused(why) => Err(Failure::host(format!("cell {process}: {}", ui::plain(&why)))),
        answer => Ok(Some(answer)),
    }
}
