//! A thousand samples through four stages, with real outputs, answered from the store.

use std::{fs, path::Path};

use super::{Bench, table::Turns};
use crate::bench::measure::{cost, ms};
use crate::common::Failure;
use crate::guests;

/// Samples.
const SAMPLES: usize = 1000;
/// Most CPU time of a cached run, in milliseconds.
const MOST: f64 = 500.0;

const MANIFEST: &str = r#"hotcell = 1
name = "samples"
seed = 1
[samples.guests]
glob = "samples/*"
[stages.look]
uses = "inspect/elf"
for-each.sample = "samples.guests"
in.file = "${sample.file}"
[stages.run]
uses = "unicorn/linux"
for-each.sample = "samples.guests"
in.file = "${sample.file}"
[stages.hits]
uses = "detect/rules"
for-each.sample = "samples.guests"
in = { events = "stages.run.out.events", info = "stages.look.out.info" }
[stages.size]
uses = "command"
for-each.sample = "samples.guests"
in.events = "stages.run.out.events"
with.run = ["wc", "-c", "${inputs.events}"]
"#;

pub(super) fn run(project: &Path, bench: &mut Bench<'_>) -> Result<(), Failure> {
    let title = format!("{SAMPLES} samples through 4 stages");
    let folder = bench.lab.join("samples-1000");
    write(project, &folder)?;
    let state = bench.state("samples", true)?;
    let command = |action: &str| {
        let mut command = bench.hotcell(&state);
        command.arg(action).arg(folder.join("samples.toml"));
        if action == "run" {
            command.args(["--progress", "none"]);
        }
        command
    };
    let once = |cost| {
        let mut turns = Turns::default();
        turns.add(cost);
        turns
    };
    let cold = cost(&mut command("run"), 0);
    let mut cached = Turns::default();
    let mut planned = Turns::default();
    if cold.is_ok() {
        for _ in 0..bench.options.rounds {
            cached.add(cost(&mut command("run"), 0)?);
            planned.add(cost(&mut command("plan"), 0)?);
        }
    }
    bench.table.part(&title);
    match cold {
        Ok(cold) => {
            bench.table.row(&title, "cold run", &once(cold), &[]);
            bench.table.row(&title, "second run, all stored", &cached, &[]);
            bench.table.row(&title, "plan, all stored", &planned, &[]);
            bench.limit(
                &cached,
                &format!("{title}, all stored"),
                ms(cached.cpu()),
                MOST,
                "ms",
            );
        }
        Err(error) => bench.table.left_out(&title, "cold run", &error.to_string()),
    }
    Ok(())
}

/// Distinct samples: a guest's program, and behind its end a number that nothing reads.
fn write(project: &Path, folder: &Path) -> Result<(), Failure> {
    fs::create_dir_all(folder.join("samples"))?;
    fs::write(folder.join("samples.toml"), MANIFEST)?;
    let built = guests::run(project)?;
    let programs = ["hello", "files"].map(|name| fs::read(built.join("x86_64").join(name)));
    let [hello, files] = programs;
    let (hello, files) = (hello?, files?);
    for index in 0..SAMPLES {
        let mut bytes = if index % 2 == 0 {
            hello.clone()
        } else {
            files.clone()
        };
        bytes.extend_from_slice(&(index as u64).to_le_bytes());
        fs::write(folder.join(format!("samples/{index:04}")), bytes)?;
    }
    Ok(())
}
