//! What the emulated Linux costs: system calls, files, what is written down beside events, and many short samples.
//!
//! In: release executables, guests of every target, Debian's busybox, Qiling. Out: a table on standard output. A figure is the
//! CPU time of a cell, less that of the same cell with nothing to do; the least of some runs counts.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use serde_json::{Map, Value, json};

use super::measure::{cost, cpu_of, ms};
use crate::common::{Failure, cache_folder, remove_tree};
use crate::guests;
use crate::python::{QILING, python};

/// Runs of each; the fastest counts: nothing makes a program faster than it is.
const RUNS: usize = 3;
/// System calls that the guest `calls` makes.
const CALLS: u32 = 100_000;
/// Times 32 MiB that the guest `copies` moves.
const COPIES: u32 = 8;
/// Bytes that are hashed with and without coverage.
const HASHED: usize = 4 << 20;
/// Samples of the last figure, and of the run whose memory they are held against.
const SAMPLES: usize = 1000;
const FEW: usize = 100;
/// Turns of a shell's empty loop.
const LOOPS: u32 = 5_000;
/// What a dynamically linked shell needs of this host.
const SHELL: [&str; 4] = [
    "/lib64/ld-linux-x86-64.so.2",
    "/lib/x86_64-linux-gnu/libc.so.6",
    "/lib/x86_64-linux-gnu/libtinfo.so.6",
    "/bin/bash",
];

/// Where things are.
struct Bench {
    hotcell: PathBuf,
    lab: PathBuf,
    cache: PathBuf,
    /// Guests: name and target to path.
    guests: BTreeMap<(String, String), PathBuf>,
}

pub(super) fn run(project: &Path, release: &Path) -> Result<(), Failure> {
    let cache = cache_folder()?;
    let lab = cache.join("bench/linux");
    remove_tree(&lab)?;
    fs::create_dir_all(&lab)?;
    let folder = guests::run(project)?;
    let index: Value = serde_json::from_slice(&fs::read(folder.join("index.json"))?)?;
    let guests = index["guests"].as_array().into_iter().flatten();
    let guests = guests
        .filter(|guest| guest["profile"].is_string())
        .filter_map(|guest| {
            let word = |key: &str| guest[key].as_str().map(str::to_owned);
            Some(((word("guest")?, word("target")?), folder.join(word("path")?)))
        })
        .collect();
    let bench = Bench {
        hotcell: release.join("hotcell"),
        lab,
        cache,
        guests,
    };
    bench.calls_and_files()?;
    bench.written_down()?;
    bench.qiling()?;
    bench.many()?;
    remove_tree(&bench.lab)?;
    Ok(())
}

/// One program to run: sample's file, `with`, and whether it reads the file `data`.
type Stage = (PathBuf, Value, bool);

impl Bench {
    fn calls_and_files(&self) -> Result<(), Failure> {
        let mut stages = BTreeMap::new();
        for ((guest, target), path) in &self.guests {
            let rounds = match guest.as_str() {
                "calls" => CALLS,
                "copies" => COPIES,
                _ => continue,
            };
            for rounds in [rounds, 0] {
                let name = format!("{guest}-{}-{rounds}", target.replace('_', "-"));
                let with = json!({"args": [rounds.to_string()]});
                stages.insert(name, (path.clone(), with, false));
            }
        }
        let cpu = self.cells(&stages)?;
        let net = |guest: &str, target: &str, rounds: u32| {
            let target = target.replace('_', "-");
            let of = |rounds: u32| cpu.get(&format!("{guest}-{target}-{rounds}"));
            Some((of(rounds)? - of(0)?).max(1e-9))
        };
        println!(
            "{:12} {:>12} {:>22}",
            "", "getpid a second", "read and write, MB/s"
        );
        println!("{:12} {:>12} {:>22}", "wanted", "100000", "200");
        for (_, target) in self.guests.keys().filter(|(guest, _)| guest == "calls") {
            let calls = net("calls", target, CALLS).map_or(0.0, |cpu| f64::from(CALLS) / cpu);
            let bytes = f64::from(COPIES) * 33.554_432;
            let copies = net("copies", target, COPIES).map_or(0.0, |cpu| bytes / cpu);
            println!("{target:12} {calls:12.0} {copies:22.0}");
        }
        Ok(())
    }

    /// What it costs to write down more than events.
    fn written_down(&self) -> Result<(), Failure> {
        let mut stages = BTreeMap::new();
        let busybox = self.cache.join("samples/debian-12/amd64/busybox");
        fs::write(self.lab.join("data"), data())?;
        for coverage in [false, true] {
            let with = json!({"path": "/bin/busybox", "args": ["sha256sum"], "coverage": coverage});
            stages.insert(format!("hash-{coverage}"), (busybox.clone(), with, true));
        }
        let has_shell = SHELL.iter().all(|file| Path::new(file).exists());
        if has_shell {
            for file in SHELL {
                let to = self.lab.join(format!("root{file}"));
                fs::create_dir_all(to.parent().unwrap_or(&self.lab))?;
                fs::copy(file, to)?;
            }
            for calls in [false, true] {
                let script = format!("for ((i = 0; i < {LOOPS}; i++)); do :; done");
                let with = json!({
                    "arch": "x86_64", "path": "/bin/bash", "args": ["-c", script], "sysroot": ["host"],
                    "library-calls": calls,
                });
                stages.insert(format!("shell-{calls}"), ("/bin/bash".into(), with, false));
            }
        }
        let cpu = self.cells(&stages)?;
        let of = |name: &str| cpu.get(name).copied().unwrap_or(0.0);
        println!(
            "\nwith coverage: busybox sha256sum of 4 MiB, {:.2} of the time without",
            of("hash-true") / of("hash-false")
        );
        if has_shell {
            println!(
                "with library calls: a loop of bash, {:.2} of the time without ({:.2} s, {:.2} s)",
                of("shell-true") / of("shell-false"),
                of("shell-true"),
                of("shell-false"),
            );
        } else {
            println!("with library calls: left out, this host has no dynamically linked bash for x86_64");
        }
        Ok(())
    }

    /// Computing, system calls and files beside Qiling, each less what the same program takes with nothing to do.
    fn qiling(&self) -> Result<(), Failure> {
        let qiling = match python(&self.cache, "qiling", QILING, &["setuptools<81"]) {
            Ok(python) => python,
            Err(error) => {
                println!("\nbeside Qiling: left out, {error}");
                return Ok(());
            }
        };
        let root = self.lab.join("qiling");
        fs::create_dir_all(&root)?;
        let script = self.lab.join("one.py");
        fs::write(
            &script,
            "import sys\nfrom qiling import Qiling\nfrom qiling.const import QL_VERBOSE\n\
             Qiling([sys.argv[1] + '/' + sys.argv[2]] + sys.argv[3:], sys.argv[1], verbose=QL_VERBOSE.OFF).run()\n",
        )?;
        println!("\nbeside Qiling {QILING}, x86_64            cell   Qiling   times as much (wanted: 3)");
        for (what, guest, rounds) in [
            ("computing, 1000 rounds", "compute", 1000),
            ("100,000 getpid", "calls", CALLS),
            ("64 MiB read and written", "copies", 2),
        ] {
            let Some(program) = self.guests.get(&(guest.to_owned(), "x86_64".to_owned())) else {
                continue;
            };
            fs::copy(program, root.join(guest))?;
            let mut theirs = [Duration::MAX; 2];
            let mut stages = BTreeMap::new();
            for (rounds, theirs) in [rounds, 0].into_iter().zip(&mut theirs) {
                let with = json!({"args": [rounds.to_string()]});
                stages.insert(format!("{guest}-{rounds}"), (program.clone(), with, false));
                for _ in 0..RUNS {
                    let mut command = Command::new(&qiling);
                    command.arg(&script).arg(&root).args([guest, &rounds.to_string()]);
                    *theirs = (*theirs).min(cpu_of(&mut command, "")?);
                }
            }
            let cpu = self.cells(&stages)?;
            let of = |rounds: u32| cpu.get(&format!("{guest}-{rounds}")).copied().unwrap_or(0.0);
            let ours = (of(rounds) - of(0)).max(1e-9);
            let theirs = theirs[0].saturating_sub(theirs[1]);
            println!(
                "{what:34} {:5.0} ms {:5.0} ms   {:.1}",
                ours * 1e3,
                ms(theirs),
                theirs.as_secs_f64() / ours
            );
        }
        Ok(())
    }

    /// Many samples of about 100 ms each on two cores.
    fn many(&self) -> Result<(), Failure> {
        let compute = ("compute".to_owned(), "x86_64".to_owned());
        let Some(program) = self.guests.get(&compute) else {
            println!("\n{SAMPLES} samples: left out, there is no guest for x86_64");
            return Ok(());
        };
        // How many rounds are 100 ms.
        let of = |rounds: u32| (program.clone(), json!({"args": [rounds.to_string()]}), false);
        let stages = BTreeMap::from([("long".to_owned(), of(100)), ("short".to_owned(), of(0))]);
        let cpu = self.cells(&stages)?;
        let long = cpu.get("long").zip(cpu.get("short"));
        let each = long.map_or(1.0, |(long, short)| (long - short) / 100.0);
        let rounds = (0.1 / each).round().max(1.0);
        let bytes = fs::read(program)?;

        for count in [FEW, SAMPLES] {
            let lab = self.lab.join(format!("many-{count}"));
            fs::create_dir_all(lab.join("samples"))?;
            for number in 0..count {
                let own = [&bytes, format!("{number:08}").as_bytes()].concat();
                fs::write(lab.join(format!("samples/{number:04}")), own)?;
            }
            let manifest = json!({
                "hotcell": 1,
                "name": "many",
                "samples": {"many": {"glob": "samples/*"}},
                "stages": {"run": {
                    "uses": "unicorn/linux",
                    "for-each": {"sample": "samples.many"},
                    "in": {"file": "${sample.file}"},
                    "with": {"args": [format!("{rounds}")]},
                }},
            });
            fs::write(lab.join("many.yaml"), serde_json::to_vec(&manifest)?)?;
            let mut command = Command::new(&self.hotcell);
            command
                .args(["run", "many.yaml", "-j", "2", "--progress", "none"])
                .current_dir(&lab)
                .env("HOTCELL_STORE", lab.join("store"));
            let cost = cost(&mut command, 0)?;
            println!(
                "{}{count} samples of 100 ms ({rounds} rounds) on two cores: {:.1} s, {:.1} s of CPU, runner's peak {} MiB{}",
                if count == FEW { "\n" } else { "" },
                cost.wall.as_secs_f64(),
                cost.cpu.as_secs_f64(),
                cost.peak_kib / 1024,
                if count == SAMPLES {
                    " (wanted: under 90 s)"
                } else {
                    ""
                },
            );
        }
        Ok(())
    }

    /// CPU seconds of the cell of each stage.
    fn cells(&self, stages: &BTreeMap<String, Stage>) -> Result<BTreeMap<String, f64>, Failure> {
        let (mut samples, mut all) = (Map::new(), Map::new());
        for (name, (program, with, reads)) in stages {
            fs::copy(program, self.lab.join(format!("{name}.bin")))?;
            samples.insert(format!("p-{name}"), json!({"glob": format!("{name}.bin")}));
            let mut stage = json!({
                "uses": "unicorn/linux",
                "for-each": {"sample": format!("samples.p-{name}")},
                "in": {"file": "${sample.file}"},
                "with": with,
                "limits": {"virtual-time": "10m", "wall": "10m"},
            });
            if *reads {
                samples.insert("data".to_owned(), json!({"glob": "data"}));
                stage["for-each"]["data"] = json!("samples.data");
                stage["in"]["stdin"] = json!("${data.file}");
            }
            all.insert(name.clone(), stage);
        }
        let mut manifest = json!({"hotcell": 1, "name": "bench", "samples": samples, "stages": all});
        if self.lab.join("root").is_dir() {
            manifest["sources"] = json!({"host": {"kind": "folder", "path": "root"}});
        }
        fs::write(self.lab.join("bench.yaml"), serde_json::to_vec(&manifest)?)?;
        let mut best: BTreeMap<String, f64> = BTreeMap::new();
        for _ in 0..RUNS {
            remove_tree(&self.lab.join(".hotcell"))?;
            let output = Command::new(&self.hotcell)
                .args(["run", "bench.yaml", "-j", "1", "--force", "--progress", "none"])
                .current_dir(&self.lab)
                .env("HOTCELL_STORE", self.lab.join("store"))
                .output()?;
            if !output.status.success() {
                return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
            }
            let run = fs::read_dir(self.lab.join(".hotcell/runs"))?
                .flatten()
                .find(|run| run.path().join("run.json").is_file())
                .ok_or("the run left no folder")?;
            let facts: Value = serde_json::from_slice(&fs::read(run.path().join("run.json"))?)?;
            let report = fs::read(run.path().join("result/report.json"))?;
            let report: Value = serde_json::from_slice(&report)?;
            for instance in report["instances"].as_array().into_iter().flatten() {
                if instance["outcome"] != json!({"exited": 0}) {
                    return Err(format!("{}: {}", instance["name"], instance["outcome"]).into());
                }
            }
            for (instance, facts) in facts["instances"].as_object().into_iter().flatten() {
                let stage = instance.split('[').next().unwrap_or(instance).to_owned();
                let cpu = facts["cpu_s"].as_f64().unwrap_or(f64::INFINITY);
                let known = best.entry(stage).or_insert(f64::INFINITY);
                *known = known.min(cpu);
            }
        }
        Ok(best)
    }
}

fn data() -> Vec<u8> {
    (0..HASHED)
        .scan(1u32, |state, _| {
            *state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            Some((*state >> 24) as u8)
        })
        .collect()
}
