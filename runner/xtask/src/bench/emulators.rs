//! Ratios against other emulators.
//!
//! In: a folder with release executables (and `examples/bare`), Debian's busybox, Python for Qiling, qemu-user. Out: a table
//! on standard output.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::measure::{cpu_and_output, cpu_of, median, ms, ratio};
use crate::{
    common::{Failure, cache_folder, must, remove_tree},
    python::{QILING, python},
};

/// Turns that each side takes.
const ROUNDS: usize = 9;
/// Bytes hashed.
const DATA: usize = 4 << 20;

/// Debian's name of an architecture, ours, and qemu-user's.
const ARCHITECTURES: &[(&str, &str, &str)] = &[
    ("amd64", "x86_64", "x86_64"),
    ("arm64", "aarch64", "aarch64"),
    ("armhf", "arm", "arm"),
    ("mipsel", "mipsel", "mipsel"),
];

/// Where things are.
struct Bench {
    release: PathBuf,
    samples: PathBuf,
    lab: PathBuf,
    cache: PathBuf,
}

pub(super) fn run(project: &Path, release: &Path) -> Result<(), Failure> {
    let cache = cache_folder()?;
    let lab = cache.join("bench/lab");
    remove_tree(&lab)?;
    fs::create_dir_all(&lab)?;
    let bench = Bench {
        release: release.to_owned(),
        samples: cache.join("samples/debian-12"),
        lab,
        cache,
    };
    println!("CPU time, median of {ROUNDS} turns each, both sides taking turns\n");
    bench.start()?;
    bench.echo()?;
    bench.hash()?;
    bench.cached(project)?;
    remove_tree(&bench.lab)?;
    Ok(())
}

impl Bench {
    /// `hotcell --version`, wall time.
    fn start(&self) -> Result<(), Failure> {
        let mut times = Vec::new();
        for _ in 0..31 {
            let mut command = Command::new(self.release.join("hotcell"));
            command.arg("--version").stdout(Stdio::null());
            let start = Instant::now();
            must(&mut command)?;
            times.push(start.elapsed());
        }
        let median = median(times);
        println!(
            "hotcell --version                     {:6.1} ms wall (wanted: under 10)",
            ms(median)
        );
        Ok(())
    }

    /// `busybox echo` against Qiling.
    fn echo(&self) -> Result<(), Failure> {
        self.manifest("echo", "amd64", &["echo", "hello"], false)?;
        let qiling = match python(&self.cache, "qiling", QILING, &["setuptools<81"]) {
            Ok(python) => python,
            Err(error) => {
                println!("busybox echo against Qiling           left out: {error}");
                return Ok(());
            }
        };
        let root = self.lab.join("root");
        fs::create_dir_all(&root)?;
        fs::copy(self.samples.join("amd64/busybox"), root.join("busybox"))?;
        let script = self.lab.join("echo.py");
        fs::write(
            &script,
            "import sys\nfrom qiling import Qiling\nfrom qiling.const import QL_VERBOSE\n\
             Qiling([sys.argv[1] + '/busybox', 'echo', 'hello'], sys.argv[1], verbose=QL_VERBOSE.OFF).run()\n",
        )?;
        let (mut whole, mut cell, mut theirs) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let (all, own) = self.hotcell("echo", "hello\n")?;
            whole.push(all);
            cell.push(own);
            let mut command = Command::new(&qiling);
            command.arg(&script).arg(&root);
            theirs.push(cpu_of(&mut command, "hello")?);
        }
        let (whole, cell, theirs) = (median(whole), median(cell), median(theirs));
        println!("busybox echo, x86_64: Qiling {QILING}     {:6.0} ms", ms(theirs));
        println!(
            "  cell of unicorn/linux               {:6.1} ms = {:.3} of it (wanted: at most 0.1)",
            ms(cell),
            ratio(cell, theirs)
        );
        println!(
            "  whole `hotcell run`, plan to report {:6.1} ms = {:.3} of it",
            ms(whole),
            ratio(whole, theirs)
        );
        Ok(())
    }

    /// `busybox sha256sum` of 4 MiB against a bare `emu_start` with only a system call hook, and against qemu-user.
    fn hash(&self) -> Result<(), Failure> {
        let data: Vec<u8> = (0..DATA)
            .scan(1u32, |state, _| {
                *state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                Some((*state >> 24) as u8)
            })
            .collect();
        let input = self.lab.join("data");
        fs::write(&input, &data)?;
        let bare = self.release.join("examples/bare");
        println!(
            "busybox sha256sum of 4 MiB            {:>8} {:>8} {:>8}   bare/cell (wanted: 0.9 or more)",
            "cell", "bare", "qemu"
        );
        for (debian, arch, qemu) in ARCHITECTURES {
            let name = format!("hash-{debian}");
            self.manifest(&name, debian, &["sha256sum"], true)?;
            let program = self.samples.join(debian).join("busybox");
            let (mut cell, mut theirs, mut users) = (Vec::new(), Vec::new(), Vec::new());
            let mut answer = String::new();
            for _ in 0..ROUNDS {
                let mut command = Command::new(&bare);
                command
                    .arg(&program)
                    .arg("sha256sum")
                    .stdin(fs::File::open(&input)?);
                let (time, text) = cpu_and_output(&mut command)?;
                theirs.push(time);
                answer = text;
                cell.push(self.hotcell(&name, &answer)?.1);
                let mut command = Command::new(format!("qemu-{qemu}"));
                command
                    .arg(&program)
                    .arg("sha256sum")
                    .stdin(fs::File::open(&input)?);
                if let Ok((time, text)) = cpu_and_output(&mut command) {
                    if text != answer {
                        return Err(format!("qemu-{qemu} says {text}, bare Unicorn {answer}").into());
                    }
                    users.push(time);
                }
            }
            if !answer.contains("  -") {
                return Err(format!("bare sha256sum for {debian} says: {answer}").into());
            }
            let (cell, theirs) = (median(cell), median(theirs));
            let users = if users.is_empty() {
                "-".to_owned()
            } else {
                format!("{:.0} ms", ms(median(users)))
            };
            println!(
                "  {arch:35} {:>5.0} ms {:>5.0} ms {users:>8}   {:.2}",
                ms(cell),
                ms(theirs),
                ratio(theirs, cell)
            );
        }
        Ok(())
    }

    /// `examples/first-look`, all of it answered from the store, wall time.
    fn cached(&self, project: &Path) -> Result<(), Failure> {
        let manifest = project.join("examples/first-look/first-look.toml");
        let mut times = Vec::new();
        for round in 0..6 {
            let mut command = self.command();
            command
                .arg("run")
                .arg(&manifest)
                .args(["--progress", "none", "--state"])
                .arg(self.lab.join("state"));
            command.stdout(Stdio::null()).stderr(Stdio::null());
            let start = Instant::now();
            must(&mut command)?;
            if round > 0 {
                times.push(start.elapsed());
            }
        }
        println!(
            "examples/first-look, from the store   {:6.0} ms wall (wanted: under 1000)",
            ms(median(times))
        );
        Ok(())
    }

    /// A manifest that runs one command on one architecture.
    fn manifest(&self, name: &str, debian: &str, words: &[&str], with_data: bool) -> Result<(), Failure> {
        let mut manifest = json!({
            "hotcell": 1,
            "name": name,
            "samples": {"program": {"glob": format!("{name}.bin")}},
            "stages": {"run": {
                "uses": "unicorn/linux",
                "for-each": {"sample": "samples.program"},
                "in": {"file": "${sample.file}"},
                "with": {"path": "/bin/busybox", "args": words},
            }},
        });
        if with_data {
            manifest["samples"]["data"] = json!({"glob": "data"});
            manifest["stages"]["run"]["for-each"]["data"] = json!("samples.data");
            manifest["stages"]["run"]["in"]["stdin"] = json!("${data.file}");
        }
        fs::copy(
            self.samples.join(debian).join("busybox"),
            self.lab.join(format!("{name}.bin")),
        )?;
        fs::write(
            self.lab.join(format!("{name}.yaml")),
            serde_json::to_string_pretty(&manifest)?,
        )?;
        Ok(())
    }

    fn command(&self) -> Command {
        let mut command = Command::new(self.release.join("hotcell"));
        command
            .current_dir(&self.lab)
            .env("HOTCELL_STORE", self.lab.join("store"))
            .stdin(Stdio::null());
        command
    }

    /// CPU time of a whole `hotcell run` of a manifest with nothing stored, and of its cell alone.
    fn hotcell(&self, name: &str, wanted: &str) -> Result<(Duration, Duration), Failure> {
        remove_tree(&self.lab.join("store"))?;
        remove_tree(&self.lab.join(".hotcell"))?;
        let mut command = self.command();
        command
            .args(["run", "--progress", "none", "--json"])
            .arg(format!("{name}.yaml"));
        let (whole, _) = cpu_and_output(&mut command)?;
        let mut runs = fs::read_dir(self.lab.join(".hotcell/runs"))?
            .flatten()
            .map(|entry| entry.path());
        let folder = runs
            .find(|path| path.join("run.json").is_file())
            .ok_or("no run was written")?;
        let facts: Value = serde_json::from_slice(&fs::read(folder.join("run.json"))?)?;
        let instances = facts["instances"].as_object().ok_or("no instances in run.json")?;
        let seconds: f64 = instances.values().filter_map(|one| one["cpu_s"].as_f64()).sum();
        let report: Value = serde_json::from_slice(&fs::read(folder.join("result/report.json"))?)?;
        let stdout = report["instances"][0]["outputs"]["stdout"]["path"]
            .as_str()
            .ok_or("the run gave no stdout")?;
        let said = fs::read_to_string(folder.join("result").join(stdout))?;
        if said != wanted {
            return Err(format!("{name}: the cell says {said:?}, wanted {wanted:?}").into());
        }
        Ok((whole, Duration::from_secs_f64(seconds)))
    }
}
