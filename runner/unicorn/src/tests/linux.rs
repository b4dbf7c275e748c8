//! Real Linux programs over the emulated kernel: the project's guests and Debian's busybox, where they are at hand.

use std::{collections::BTreeMap, path::Path, path::PathBuf, sync::Arc};

use hotcell_cells::cell_side::CellError;
use hotcell_kernel::Finished;
use hotcell_schema::{
    digest::Digest,
    event::Event,
    job::{Blob, GuestLimits, LinuxJob},
    outcome::Outcome,
    persona::Persona,
};

use super::profile;
use crate::driver::{Outlet, execute};

/// Keeps what happened.
#[derive(Default)]
struct Record(Vec<Event>);

impl Outlet for Record {
    fn events(&mut self, events: Vec<Event>) -> Result<(), CellError> {
        self.0.extend(events);
        Ok(())
    }

    fn look(&mut self) -> Result<(), CellError> {
        Ok(())
    }
}

/// A finished run and its events.
struct Run {
    finished: Finished,
    events: Vec<Event>,
}

impl Run {
    fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.finished.stdout).into_owned()
    }
}

fn linux(arch: &str, program: &Path, argv: &[&str], stdin: &[u8]) -> Run {
    let blobs: BTreeMap<u32, Arc<[u8]>> = [
        (
            0,
            Arc::from(std::fs::read(program).expect("the program is there")),
        ),
        (1, Arc::from(stdin)),
    ]
    .into();
    let blob = |index: u32| Blob {
        index,
        length: blobs.get(&index).map_or(0, |bytes| bytes.len() as u64),
    };
    let job = LinuxJob {
        cell: "test".into(),
        arch: profile(arch),
        persona: Persona::default(),
        program: blob(0),
        path: "/tmp/sample".into(),
        argv: argv.iter().map(|argument| (*argument).to_owned()).collect(),
        env: None,
        cwd: None,
        files: Vec::new(),
        stdin: Some(blob(1)),
        seed: Digest::of(b"test"),
        limits: GuestLimits::default(),
    };
    let mut record = Record::default();
    let finished = execute(&mut record, &job, &|blob| blobs.get(&blob.index).cloned())
        .expect("the engine holds")
        .expect("the job begins");
    Run {
        finished,
        events: record.0,
    }
}

fn cache() -> Option<PathBuf> {
    let set = |name: &str| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    set("HOTCELL_CACHE")
        .or_else(|| set("XDG_CACHE_HOME").map(|folder| folder.join("hotcell")))
        .or_else(|| set("HOME").map(|folder| folder.join(".cache/hotcell")))
}

/// Debian's busybox of every demo architecture that is in the cache: profile, path.
fn busyboxes() -> Vec<(&'static str, PathBuf)> {
    let all = [
        ("x86_64", "amd64"),
        ("aarch64", "arm64"),
        ("arm", "armhf"),
        ("arm", "armel"),
        ("mipsel", "mipsel"),
    ];
    let mut found = Vec::new();
    for (arch, debian) in all {
        let path = cache().map(|cache| cache.join("samples/debian-12").join(debian).join("busybox"));
        match path.filter(|path| path.is_file()) {
            Some(path) => found.push((arch, path)),
            None => eprintln!("SKIPPED {debian}: no busybox in the cache (`make samples` fetches it)"),
        }
    }
    found
}

#[test]
fn busybox_does_what_it_is_told() {
    let sum = "299285fc41a44cdb038b9fdaf494c76ca9d0c866672b2b266c1a0c17dda60a05  -\n";
    let four = vec![b'a'; 4 << 20];
    let cases: [(&[&str], &[u8], &str); 5] = [
        (&["busybox", "echo", "hello", "world"], b"", "hello world\n"),
        (&["busybox", "cat"], b"one\ntwo\n", "one\ntwo\n"),
        (&["busybox", "sha256sum"], &four, sum),
        (&["busybox", "sort", "-r"], b"a\nc\nb\n", "c\nb\na\n"),
        (
            &["busybox", "sh", "-c", "cd /tmp && echo x > y && cat y"],
            b"",
            "x\n",
        ),
    ];
    for (arch, path) in busyboxes() {
        for (argv, stdin, expected) in &cases {
            let run = linux(arch, &path, argv, stdin);
            assert_eq!(
                run.finished.result.outcome,
                Outcome::Exited(0),
                "{arch} {argv:?}: {:?}",
                run.events.last()
            );
            assert_eq!(run.stdout(), *expected, "{arch} {argv:?}");
            let again = linux(arch, &path, argv, stdin);
            assert_eq!(run.events, again.events, "{arch} {argv:?}");
            assert_eq!(run.finished.result, again.finished.result, "{arch} {argv:?}");
        }
    }
}

#[test]
fn guests_do_what_they_say() {
    let folder = std::env::var_os("HOTCELL_GUESTS").map(PathBuf::from);
    let Some(folder) = folder.or_else(newest_guests) else {
        eprintln!("SKIPPED: no guest programs (`cargo run -p xtask -- guests` builds them)");
        return;
    };
    let text = std::fs::read_to_string(folder.join("index.json")).expect("the index is there");
    let index: serde_json::Value = serde_json::from_str(&text).expect("the index reads");
    let mut wrong = Vec::new();
    let mut tried = 0;
    for guest in index["guests"].as_array().expect("a list") {
        let Some(arch) = guest["profile"].as_str() else {
            continue;
        };
        let program = folder.join(guest["path"].as_str().expect("a path"));
        let name = guest["guest"].as_str().expect("a name");
        let mut argv = vec![name];
        argv.extend(
            guest["args"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|argument| argument.as_str()),
        );
        let run = linux(arch, &program, &argv, b"");
        tried += 1;
        let wanted = match guest["signal"].as_str() {
            Some(signal) => Outcome::Signalled(signal.to_owned()),
            None => Outcome::Exited(guest["exit"].as_i64().unwrap_or(0) as i32),
        };
        let stdout = guest["stdout"].as_str();
        if run.finished.result.outcome != wanted || stdout.is_some_and(|stdout| stdout != run.stdout()) {
            wrong.push(format!(
                "{}: {} instead of {wanted}, {:?}",
                guest["path"],
                run.finished.result.outcome,
                run.stdout()
            ));
        }
    }
    assert!(tried > 0, "the index lists guests");
    assert!(
        wrong.is_empty(),
        "{} of {tried}:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

fn newest_guests() -> Option<PathBuf> {
    let mut folders: Vec<PathBuf> = std::fs::read_dir(cache()?.join("guests"))
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.join("index.json").is_file())
        .collect();
    folders.sort_by_key(|path| path.metadata().and_then(|data| data.modified()).ok());
    folders.pop()
}

/// CPU seconds of this process so far (proc(5): fields 14 and 15 of /proc/self/stat, in ticks of 10 ms).
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("procfs");
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .collect();
    let ticks = |index: usize| {
        fields
            .get(index)
            .and_then(|field| field.parse::<f64>().ok())
            .unwrap_or(0.0)
    };
    (ticks(11) + ticks(12)) / 100.0
}

/// Prints what programs cost here; `examples/bare.rs` is what to hold it against.
#[test]
#[ignore = "measures, asserts nothing about time"]
fn what_it_costs() {
    let four = vec![b'a'; 4 << 20];
    for (arch, path) in busyboxes() {
        let start = cpu_seconds();
        for _ in 0..20 {
            assert_eq!(
                linux(arch, &path, &["busybox", "echo", "hello"], b"").stdout(),
                "hello\n"
            );
        }
        let echo = (cpu_seconds() - start) / 20.0;
        let start = cpu_seconds();
        let run = linux(arch, &path, &["busybox", "sha256sum"], &four);
        let sum = cpu_seconds() - start;
        eprintln!(
            "{arch}: echo {:.1} ms, sha256sum of 4 MiB {sum:.2} s, {} calls",
            echo * 1e3,
            run.finished.result.syscalls
        );
    }
}
