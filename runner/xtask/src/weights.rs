//! How slow each architecture is under Unicorn, for `unicorn.weight` of the arch profiles: `cargo run -p xtask -- weights FOLDER`.
//!
//! In: a folder with the executables (`hotcell`, `hotcell-unicorn`), the guest `compute` built for every target. Out: a table on
//! standard output. What counts is the CPU time of a cell that runs the same program, less that of one which ends at once,
//! beside the median of all architectures. Rounds go over all architectures in turn, so that a slow moment of the host meets all.

use std::{collections::BTreeMap, fs, path::Path, process::Command};

use serde_json::{Value, json};

use crate::common::{Failure, cache_folder, remove_tree};
use crate::guests;

const USAGE: &str = "usage: weights FOLDER, where FOLDER has the executables";
/// Rounds of 65,536 steps that the guest computes: some tenths of a second.
const LONG: &str = "100";
/// As short as it can be.
const SHORT: &str = "0";
/// Runs of each; the fastest counts: nothing makes a program faster than it is.
const RUNS: usize = 3;
/// Weights are rounded to this many percent.
const STEP: f64 = 5.0;

pub(crate) fn run(project: &Path, arguments: &[String]) -> Result<(), Failure> {
    let [folder] = arguments else {
        return Err(USAGE.into());
    };
    let hotcell = project.join(folder).join("hotcell");
    let guests = guests::run(project)?;
    let index: Value = serde_json::from_slice(&fs::read(guests.join("index.json"))?)?;
    let lab = cache_folder()?.join("weights");
    remove_tree(&lab)?;
    fs::create_dir_all(&lab)?;
    let mut stages = serde_json::Map::new();
    let mut samples = serde_json::Map::new();
    for guest in index["guests"].as_array().into_iter().flatten() {
        let (Some("compute"), Some(target), Some(path), Some(_)) = (
            guest["guest"].as_str(),
            guest["target"].as_str(),
            guest["path"].as_str(),
            guest["profile"].as_str(),
        ) else {
            continue;
        };
        fs::copy(guests.join(path), lab.join(target))?;
        let name = target.replace('_', "-");
        samples.insert(name.clone(), json!({"glob": target}));
        for rounds in [LONG, SHORT] {
            let stage = json!({
                "uses": "unicorn/linux",
                "for-each": {"sample": format!("samples.{name}")},
                "in": {"file": "${sample.file}"},
                "with": {"args": [rounds]},
            });
            stages.insert(format!("{name}-{rounds}"), stage);
        }
    }
    let manifest = json!({"hotcell": 1, "name": "weights", "samples": samples, "stages": stages});
    fs::write(lab.join("weights.yaml"), serde_json::to_vec(&manifest)?)?;
    let mut best: BTreeMap<String, f64> = BTreeMap::new();
    for _ in 0..RUNS {
        let output = Command::new(&hotcell)
            .args(["run", "weights.yaml", "-j", "1", "--force", "--progress", "none"])
            .current_dir(&lab)
            .env("HOTCELL_CACHE", lab.join("cache"))
            .output()
            .map_err(|error| format!("{}: {error}", hotcell.display()))?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
        }
        for (instance, facts) in latest(&lab)?["instances"].as_object().into_iter().flatten() {
            let stage = instance.split('[').next().unwrap_or(instance).to_owned();
            let cpu = facts["cpu_s"].as_f64().unwrap_or(f64::INFINITY);
            let known = best.entry(stage).or_insert(f64::INFINITY);
            *known = known.min(cpu);
        }
    }
    remove_tree(&lab)?;
    table(&best);
    Ok(())
}

/// The facts of the latest run.
fn latest(lab: &Path) -> Result<Value, Failure> {
    let runs = fs::read_dir(lab.join(".hotcell/runs"))?;
    let mut runs = runs
        .map(|run| Ok(run?.path()))
        .collect::<Result<Vec<_>, Failure>>()?;
    runs.sort();
    let run = runs.pop().ok_or("the run left no folder")?;
    let facts = serde_json::from_slice(&fs::read(run.join("run.json"))?)?;
    remove_tree(&run)?;
    Ok(facts)
}

fn table(best: &BTreeMap<String, f64>) {
    let long = best.iter().filter_map(|(stage, cpu)| {
        let target = stage.strip_suffix(&format!("-{LONG}"))?;
        let short = best.get(&format!("{target}-{SHORT}")).copied().unwrap_or(0.0);
        Some((target, cpu - short))
    });
    let mut rows: Vec<(&str, f64)> = long.collect();
    rows.sort_by(|a, b| a.1.total_cmp(&b.1));
    let middle = |index: usize| rows.get(index).map_or(1.0, |(_, cpu)| *cpu);
    let median = f64::midpoint(middle(rows.len().saturating_sub(1) / 2), middle(rows.len() / 2));
    println!("{:10} {:>8} {:>10} {:>7}", "target", "CPU", "of median", "weight");
    for (target, cpu) in &rows {
        let percent = cpu / median * 100.0;
        let weight = (percent / STEP).round() * STEP;
        println!("{target:10} {cpu:6.2} s {percent:8.0} % {weight:7.0}");
    }
}
