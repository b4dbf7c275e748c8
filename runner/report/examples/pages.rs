//! Writes the pages of the invented runs below the folder that is given, to look at them.

use camino::Utf8Path;
use hotcell_report::fixture;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = std::env::args().nth(1).ok_or("which folder?")?;
    let runs = [
        ("dropper", fixture::dropper()),
        ("hostile", fixture::hostile()),
        ("long", fixture::long(100_000)),
        ("cores", fixture::on_cores(12)),
        ("many-turns", fixture::on_cores(5_000)),
    ];
    for (name, run) in runs {
        let target = Utf8Path::new(&folder).join(name);
        hotcell_report::html::write(&run.report, Some(&run.facts), &run.turns, &run.outputs, &target)?;
    }
    Ok(())
}
