//! What it costs to watch guests of QEMU from the host's kernel, beside other ways to watch them.
//!
//! In: release executables, Debian's busybox of some architectures, guests of every target, QEMU, strace, bpftrace, valgrind. Out: a
//! table on standard output. A figure is of many calls, less that of the same program with none; the least of some runs counts.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde_json::{Value, json};

use super::measure::{Cost, cost, ms, ratio};
use crate::common::{Failure, cache_folder, remove_tree};
use crate::guests;

/// Runs of each; the fastest counts.
const RUNS: usize = 3;
/// Bytes that `dd` copies one by one: a read and a write for each.
const BYTES: u32 = 500_000;
/// The same under tools that take long for each.
const FEW_BYTES: u32 = 50_000;
/// Rounds of the guest `compute`.
const ROUNDS: u32 = 20_000;
/// Calls of the guest `calls`, beside a cell.
const CALLS: u32 = 3_000_000;
/// Architectures: Debian's name, QEMU's.
const ARCHITECTURES: [(&str, &str); 2] = [("amd64", "x86_64"), ("arm64", "aarch64")];
/// What bpftrace is told: as much of each call as the monitor writes down, of one program.
const BPFTRACE: &str = r#"tracepoint:raw_syscalls:sys_enter /pid == cpid/ { @a[tid] = args->id; }
tracepoint:raw_syscalls:sys_exit /pid == cpid/ { printf("%llu %d %d %d = %d\n", nsecs, pid, tid, args->id, args->ret); }"#;

struct Bench {
    hotcell: PathBuf,
    lab: PathBuf,
    cache: PathBuf,
    guests: PathBuf,
}

pub(super) fn run(project: &Path, release: &Path) -> Result<(), Failure> {
    let cache = cache_folder()?;
    let lab = cache.join("bench/watched");
    remove_tree(&lab)?;
    fs::create_dir_all(&lab)?;
    let bench = Bench {
        hotcell: release.join("hotcell"),
        guests: guests::run(project)?,
        lab,
        cache,
    };
    bench.calls()?;
    bench.computing()?;
    bench.start()?;
    bench.others()?;
    remove_tree(&bench.lab)?;
    Ok(())
}

/// Sides of a comparison, in the order they were given, with what each took.
type Sides = Vec<(String, Cost)>;

impl Bench {
    fn busybox(&self, debian: &str) -> PathBuf {
        self.cache.join("samples/debian-12").join(debian).join("busybox")
    }

    /// Nothing but system calls.
    fn calls(&self) -> Result<(), Failure> {
        println!(
            "dd bs=1, {BYTES} bytes (a million calls), beside bare QEMU\n{:9} {:28} {:>10} {:>8} {:>10} {:>8}",
            "", "", "CPU", "times", "wall", "times"
        );
        for (debian, arch) in ARCHITECTURES {
            let busybox = self.busybox(debian);
            let emulator = PathBuf::from(format!("/usr/bin/qemu-{arch}-static"));
            if !emulator.exists() {
                println!("{arch:9} left out, there is no {}", emulator.display());
                continue;
            }
            let dd = |count: u32| {
                let mut words = vec!["dd".to_owned(), "if=/dev/zero".into(), "of=/dev/null".into()];
                words.extend(["bs=1".to_owned(), format!("count={count}")]);
                words
            };
            let log = self.lab.join("log");
            let under = |words: &[&str], count: u32| {
                let mut command = Command::new(words.first().copied().unwrap_or("false"));
                command.args(words.get(1..).unwrap_or_default());
                command.arg(&emulator).arg(&busybox).args(dd(count));
                command
            };
            let mut sides = Sides::new();
            sides.push((
                "bare".into(),
                net(BYTES, |count| {
                    let mut command = Command::new(&emulator);
                    command.arg(&busybox).args(dd(count));
                    cost(&mut command, 0)
                })?,
            ));
            sides.push((
                "hotcell, all as JSON".into(),
                net(BYTES, |count| {
                    self.watched(
                        "qemu-user/linux",
                        &busybox,
                        &json!({"path": "/bin/busybox", "args": dd(count)}),
                    )
                })?,
            ));
            let tools: [(&str, u32, Vec<&str>); 2] = [
                ("strace -f", FEW_BYTES, vec!["strace", "-f", "-o", text(&log)?]),
                ("bpftrace", BYTES, vec!["bpftrace"]),
            ];
            for (name, bytes, words) in tools {
                if !is_there(words.first().copied().unwrap_or_default()) {
                    println!("{arch:9} {name}: left out, it is not installed");
                    continue;
                }
                let side = net(bytes, |count| {
                    let mut command = match name {
                        "bpftrace" => {
                            let all: Vec<String> =
                                [emulator.display().to_string(), busybox.display().to_string()]
                                    .into_iter()
                                    .chain(dd(count))
                                    .collect();
                            let mut command = Command::new("bpftrace");
                            command.args(["-o", text(&log)?, "-e", BPFTRACE, "-c", &all.join(" ")]);
                            command
                        }
                        _ => under(&words, count),
                    };
                    cost(&mut command, 0)
                });
                match side {
                    Ok(side) => sides.push((name.into(), scaled(side, bytes))),
                    Err(error) => println!("{arch:9} {name}: left out, {error}"),
                }
            }
            let strace = net(FEW_BYTES, |count| {
                let mut command = Command::new(&emulator);
                command
                    .args(["-strace", "-D"])
                    .arg(&log)
                    .arg(&busybox)
                    .args(dd(count));
                cost(&mut command, 0)
            })?;
            sides.push(("qemu -strace".into(), scaled(strace, FEW_BYTES)));
            if debian == "amd64" && is_there("valgrind") {
                let valgrind = net(FEW_BYTES, |count| {
                    let mut command = Command::new("valgrind");
                    command.arg("-q").arg(&busybox).args(dd(count));
                    cost(&mut command, 0)
                })?;
                sides.push(("valgrind, without QEMU".into(), scaled(valgrind, FEW_BYTES)));
            }
            show(arch, &sides);
        }
        println!("wanted: hotcell at most 3 times bare QEMU, a twelfth of strace -f, less than qemu -strace");
        Ok(())
    }

    /// Nothing but computing.
    fn computing(&self) -> Result<(), Failure> {
        println!("\ncomputing, beside bare QEMU (wanted: 1.02)");
        for (_, arch) in ARCHITECTURES {
            let program = self.guests.join(arch).join("compute");
            let emulator = format!("/usr/bin/qemu-{arch}-static");
            if !Path::new(&emulator).exists() {
                continue;
            }
            let bare = net(ROUNDS, |rounds| {
                cost(Command::new(&emulator).arg(&program).arg(rounds.to_string()), 0)
            })?;
            let ours = net(ROUNDS, |rounds| {
                self.watched(
                    "qemu-user/linux",
                    &program,
                    &json!({"args": [rounds.to_string()]}),
                )
            })?;
            show(arch, &vec![("bare".into(), bare), ("hotcell".into(), ours)]);
        }
        Ok(())
    }

    /// From the start of `hotcell run` to the first thing that a program can say.
    fn start(&self) -> Result<(), Failure> {
        let busybox = self.busybox("amd64");
        let mut best = f64::INFINITY;
        let mut whole = Duration::MAX;
        for _ in 0..RUNS {
            let before = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64();
            let with = json!({"path": "/bin/busybox", "args": ["adjtimex"]});
            whole = whole.min(self.watched("qemu-user/linux", &busybox, &with)?.wall);
            // adjtimex(8) tells the clock: seconds and, in its status, nanoseconds or microseconds.
            let said = self.output("stdout")?;
            let field = |name: &str| {
                let line = said.lines().find(|line| line.trim_start().starts_with(name))?;
                line.rsplit(' ').next()?.parse::<f64>().ok()
            };
            let (seconds, parts) = field("time.tv_sec:")
                .zip(field("time.tv_usec:"))
                .ok_or("adjtimex tells no time")?;
            let unit = if parts >= 1e6 { 1e9 } else { 1e6 };
            best = best.min(seconds + parts / unit - before);
        }
        println!(
            "\nfrom `hotcell run` to what a program does first: {:.0} ms (wanted: 60), the whole run {:.0} ms",
            best * 1e3,
            ms(whole)
        );
        if is_there("valgrind") {
            let mut command = Command::new("valgrind");
            let cost = cost(command.arg("-q").arg(&busybox).arg("true"), 0)?;
            println!("valgrind of a program that does nothing: {:.0} ms", ms(cost.wall));
        }
        Ok(())
    }

    /// What other processes of the host pay while a cell is watched.
    fn others(&self) -> Result<(), Failure> {
        let own = self.guests.join(std::env::consts::ARCH).join("calls");
        let loops = || -> Result<Duration, Failure> {
            let mut best = Duration::MAX;
            for _ in 0..RUNS {
                best = best.min(cost(Command::new(&own).arg(CALLS.to_string()), 0)?.cpu);
            }
            Ok(best)
        };
        let before = loops()?;
        self.manifest(
            "qemu-user/linux",
            &self.busybox("amd64"),
            &json!({"path": "/bin/busybox", "args": ["sleep", "60"]}),
        )?;
        let mut run = self.command();
        let mut run = run.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        // It has begun when its emulator runs.
        let begun = SystemTime::now();
        while !sleeps()? && begun.elapsed()? < Duration::from_secs(20) {
            std::thread::sleep(Duration::from_millis(20));
        }
        let during = loops();
        nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(i32::try_from(run.id())?),
            nix::sys::signal::Signal::SIGINT,
        )?;
        run.wait()?;
        let (during, after) = (during?, loops()?);
        println!(
            "\na loop of calls of another process: {:.0} ns a call, {:.0} ns while a cell is watched ({:.2} times), {:.0} ns after it\n\
             (nobody is attached while nothing runs)",
            each(before),
            each(during),
            ratio(during, before),
            each(after),
        );
        Ok(())
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.hotcell);
        command
            .args(["run", "bench.yaml", "--force", "--progress", "none"])
            .current_dir(&self.lab)
            .env("HOTCELL_STORE", self.lab.join("store"));
        command
    }

    fn manifest(&self, uses: &str, program: &Path, with: &Value) -> Result<(), Failure> {
        fs::copy(program, self.lab.join("program"))?;
        let manifest = json!({
            "hotcell": 1,
            "name": "bench",
            "samples": {"one": {"glob": "program"}},
            "stages": {"run": {
                "uses": uses,
                "for-each": {"sample": "samples.one"},
                "in": {"file": "${sample.file}"},
                "with": with,
                "limits": {"wall": "10m", "cpu": "10m", "events": 4_000_000},
            }},
        });
        fs::write(self.lab.join("bench.yaml"), serde_json::to_vec(&manifest)?)?;
        Ok(())
    }

    /// A whole run of one guest, with all its events on the disk. An error where anything of it is not known.
    fn watched(&self, uses: &str, program: &Path, with: &Value) -> Result<Cost, Failure> {
        self.manifest(uses, program, with)?;
        remove_tree(&self.lab.join(".hotcell"))?;
        let cost = cost(&mut self.command(), 0)?;
        let report: Value = serde_json::from_slice(&fs::read(self.result()?.join("report.json"))?)?;
        let instance = &report["instances"][0];
        if instance["outcome"] != json!({"exited": 0}) {
            return Err(format!("{}: {}", instance["name"], instance["outcome"]).into());
        }
        let events = self.output("events.jsonl")?;
        match events.lines().last().filter(|line| line.contains("\"resource\"")) {
            Some(line) => Err(format!("not all of it was seen: {line}").into()),
            None => Ok(cost),
        }
    }

    fn result(&self) -> Result<PathBuf, Failure> {
        let runs = fs::read_dir(self.lab.join(".hotcell/runs"))?.flatten();
        let run = runs
            .map(|run| run.path().join("result"))
            .find(|result| result.is_dir());
        Ok(run.ok_or("the run left no folder")?)
    }

    /// A file that the instance gave.
    fn output(&self, name: &str) -> Result<String, Failure> {
        let instances = fs::read_dir(self.result()?.join("stages/run"))?.flatten();
        let instance = instances.map(|entry| entry.path()).find(|path| path.is_dir());
        let bytes = fs::read(instance.ok_or("the run left no outputs")?.join(name))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

/// What so many take, less what none take: the least of some runs of each.
fn net(count: u32, mut run: impl FnMut(u32) -> Result<Cost, Failure>) -> Result<Cost, Failure> {
    let mut least: BTreeMap<u32, Cost> = BTreeMap::new();
    for _ in 0..RUNS {
        for count in [count, 0] {
            let cost = run(count)?;
            let known = least.entry(count).or_insert(cost);
            known.cpu = known.cpu.min(cost.cpu);
            known.wall = known.wall.min(cost.wall);
        }
    }
    let of = |count: u32| least.get(&count).copied().unwrap_or_default();
    let (all, none) = (of(count), of(0));
    Ok(Cost {
        cpu: all.cpu.saturating_sub(none.cpu),
        wall: all.wall.saturating_sub(none.wall),
        ..all
    })
}

/// As if it had been as many bytes as of the others.
fn scaled(cost: Cost, bytes: u32) -> Cost {
    let times = f64::from(BYTES) / f64::from(bytes);
    Cost {
        cpu: cost.cpu.mul_f64(times),
        wall: cost.wall.mul_f64(times),
        ..cost
    }
}

fn show(arch: &str, sides: &Sides) {
    let Some((_, bare)) = sides.first() else { return };
    for (name, side) in sides {
        println!(
            "{arch:9} {name:28} {:7.0} ms {:8.2} {:7.0} ms {:8.2}",
            ms(side.cpu),
            ratio(side.cpu, bare.cpu),
            ms(side.wall),
            ratio(side.wall, bare.wall),
        );
    }
}

/// Nanoseconds of one call.
fn each(time: Duration) -> f64 {
    time.as_secs_f64() * 1e9 / f64::from(CALLS)
}

fn is_there(program: &str) -> bool {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&folders).any(|folder| folder.join(program).is_file())
}

fn text(path: &Path) -> Result<&str, Failure> {
    Ok(path.to_str().ok_or("the cache's path is not UTF-8")?)
}

/// Whether a guest `sleep 60` runs.
fn sleeps() -> Result<bool, Failure> {
    let processes = fs::read_dir("/proc")?.flatten();
    let lines = processes.filter_map(|process| fs::read(process.path().join("cmdline")).ok());
    Ok(lines.into_iter().any(|line| {
        let words: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
        words.windows(2).any(|two| two == [&b"sleep"[..], b"60"])
    }))
}
