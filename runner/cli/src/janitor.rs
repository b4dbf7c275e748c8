//! What runners left that are no more: cleared at the start of a run and by `store gc`, and told where there was something.

use std::path::Path;

use hotcell_store::RunFolder;

use crate::{places, ui};

/// Clears the host and the folders of runs.
pub(crate) fn clear(runs: &Path) {
    clear_host();
    let folders = fs_err::read_dir(runs).into_iter().flatten().flatten();
    let folders = folders.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    let pieces: u64 = folders
        .map(|entry| RunFolder::at(&entry.path()).clear_abandoned())
        .sum();
    if pieces > 0 {
        ui::say(&format!(
            "cleared: {pieces} files that runs were writing when they were ended"
        ));
    }
}

/// Clears what is no run's.
pub(crate) fn clear_host() {
    let groups = hotcell_cells::janitor::clear_groups();
    if groups > 0 {
        ui::say(&format!(
            "cleared: {groups} control groups of runners that are no more"
        ));
    }
    let doors = places::runtime().map(|folder| hotcell_cells::janitor::clear_sockets(&folder));
    if let Ok(Ok(doors @ 1..)) = doors {
        ui::say(&format!("cleared: the doors of {doors} runs that are no more"));
    }
}
