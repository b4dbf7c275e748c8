//! What the cores of a run did: for `run.json`, `turns.jsonl` and the page.

use std::collections::BTreeMap;
use std::io::{self, Write};

use hotcell_cells::cores::history::History;
use hotcell_cells::cores::schedule::{CellId, Nanos};
use hotcell_schema::report::{CoreFacts, CoresFacts};
use hotcell_schema::turns::{FORMAT, Header, Turn, Turns, VERSION};

use crate::execute::Cores;

/// What the cores did until now, in sums and turn by turn. Of cells that nobody knows, other runs' or too old, no turn is told.
///
/// # Errors
///
/// If the host's arbiter cannot be asked.
pub(crate) fn told(cores: &Cores, mut names: BTreeMap<CellId, String>) -> io::Result<(CoresFacts, Turns)> {
    let (history, now) = cores.arbiter.history()?;
    let facts = facts(cores, &history, now);
    let count = history.count();
    let known = history
        .turns
        .into_iter()
        .filter(|turn| names.contains_key(&turn.cell));
    let turns: Vec<Turn> = known
        .map(|turn| Turn {
            cell: turn.cell.0,
            cores: turn.cores,
            from: turn.from,
            until: turn.until,
        })
        .collect();
    let kept = u64::try_from(turns.len()).unwrap_or(u64::MAX);
    let seen: std::collections::BTreeSet<u64> = turns.iter().map(|turn| turn.cell).collect();
    names.retain(|cell, _| seen.contains(&cell.0));
    let turns = Turns {
        cells: names.into_iter().map(|(cell, name)| (cell.0, name)).collect(),
        turns,
        left_out: count.saturating_sub(kept),
    };
    Ok((facts, turns))
}

fn facts(cores: &Cores, history: &History, now: Nanos) -> CoresFacts {
    let duties = &cores.duties;
    let mut all: Vec<u32> = duties
        .pool
        .iter()
        .chain([duties.control, duties.chores])
        .collect();
    all.sort_unstable();
    all.dedup();
    let each = all.into_iter().map(|core| CoreFacts {
        core,
        duties: duties.of(core).into_iter().map(str::to_owned).collect(),
        busy: duties.pool.contains(core).then(|| {
            let busy = history.busy.get(&core).copied().unwrap_or(0);
            (busy as f64 / now.max(1) as f64).min(1.0)
        }),
    });
    CoresFacts {
        slice_s: seconds(duties.slice.get()),
        turns: history.count(),
        switches: history.switches,
        longest_wait_s: seconds(history.longest_wait),
        promised_wait_s: seconds(history.promised_wait),
        each: each.collect(),
        checks: cores.verifier.as_ref().map(|verifier| verifier.checks()),
    }
}

fn seconds(nanos: Nanos) -> f64 {
    std::time::Duration::from_nanos(nanos).as_secs_f64()
}

/// Writes `turns.jsonl`.
pub(crate) fn write(turns: &Turns, run: String, file: &mut dyn Write) -> io::Result<()> {
    let header = Header {
        format: FORMAT.into(),
        version: VERSION,
        run,
        left_out: turns.left_out,
    };
    serde_json::to_writer(&mut *file, &header)?;
    file.write_all(b"\n")?;
    for line in turns.lines() {
        serde_json::to_writer(&mut *file, &line)?;
        file.write_all(b"\n")?;
    }
    Ok(())
}
