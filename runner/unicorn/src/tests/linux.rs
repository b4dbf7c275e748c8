//! Real Linux programs over the emulated kernel: the project's guests and Debian's busybox, where they are at hand.

use std::{
    collections::BTreeMap,
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use hotcell_kernel::{Bytes, Finished};
use hotcell_schema::{
    digest::Digest,
    event::{Event, MemoryOp, What},
    job::{Blob, GuestFile, GuestLimits, LinuxJob},
    outcome::Outcome,
    persona::Persona,
};

use super::{Record, profile};
use crate::{context::Beginning, driver::execute, operate::Operator, sources::Sources};

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
    let program = std::fs::read(program).expect("the program is there");
    linux_bytes(arch, &program, argv, stdin, GuestLimits::default())
}

/// An executable of x86 or x86_64 with one segment, all of it `code` (System V ABI, chapter 4).
fn elf(arch: &str, code: &[u8], flags: u32) -> Vec<u8> {
    let wide = arch == "x86_64";
    let (header, entry): (u16, u16) = if wide { (64, 56) } else { (52, 32) };
    let start = u64::from(header + entry);
    let base = 0x40_0000u64;
    let all = start + code.len() as u64;
    let mut out = vec![0x7f, b'E', b'L', b'F', 1 + u8::from(wide), 1, 1];
    out.resize(16, 0);
    let word = |out: &mut Vec<u8>, value: u64| {
        let bytes = value.to_le_bytes();
        out.extend_from_slice(if wide { &bytes } else { &bytes[..4] });
    };
    let half = |out: &mut Vec<u8>, values: &[u16]| {
        values.iter().for_each(|value| out.extend(value.to_le_bytes()));
    };
    half(&mut out, &[2, if wide { 62 } else { 3 }]);
    out.extend(1u32.to_le_bytes());
    word(&mut out, base + start);
    word(&mut out, u64::from(header));
    word(&mut out, 0);
    out.extend(0u32.to_le_bytes());
    half(&mut out, &[header, entry, 1, 0, 0, 0]);
    out.extend(1u32.to_le_bytes());
    if wide {
        out.extend(flags.to_le_bytes());
    }
    for value in [0, base, base, all, all] {
        word(&mut out, value);
    }
    if !wide {
        out.extend(flags.to_le_bytes());
    }
    word(&mut out, 0x1000);
    out.extend_from_slice(code);
    out
}

fn linux_bytes(arch: &str, program: &[u8], argv: &[&str], stdin: &[u8], limits: GuestLimits) -> Run {
    linux_among(arch, program, argv, stdin, limits, &[])
}

/// The same with further files: guest path and bytes.
fn linux_among(
    arch: &str,
    program: &[u8],
    argv: &[&str],
    stdin: &[u8],
    limits: GuestLimits,
    files: &[(&str, Vec<u8>)],
) -> Run {
    let mut blobs: BTreeMap<u32, Bytes> = [(0, Bytes::from(program)), (1, Bytes::from(stdin))].into();
    blobs.extend((2..).zip(files.iter().map(|(_, bytes)| Bytes::from(bytes.as_slice()))));
    let blob = |index: u32| Blob {
        index,
        length: blobs.get(&index).map_or(0, |bytes| bytes.len() as u64),
    };
    let job = LinuxJob {
        cell: "test".into(),
        arch: profile(arch),
        native: false,
        persona: Persona::default(),
        program: blob(0),
        path: "/tmp/sample".into(),
        argv: argv.iter().map(|argument| (*argument).to_owned()).collect(),
        env: None,
        cwd: None,
        sysroot: None,
        internet: None,
        files: (2..)
            .zip(files)
            .map(|(index, (path, _))| GuestFile {
                path: (*path).to_owned(),
                content: blob(index),
                mode: 0o755,
            })
            .collect(),
        stdin: Some(blob(1)),
        seed: Digest::of(b"test"),
        watch: Default::default(),
        deny: Default::default(),
        limits,
    };
    let record = Record::default();
    let find = |blob: Blob| blobs.get(&blob.index).cloned();
    let operator = Operator::new(Box::new(record.clone()), None);
    let mut sources = Sources::default();
    for (index, bytes) in &blobs {
        sources
            .add(*index, bytes, || memory_file(bytes))
            .expect("a memory file");
    }
    let finished = execute(operator, &job, &find, sources, Beginning::Program)
        .expect("the engine holds")
        .expect("the job begins");
    Run {
        finished,
        events: record.take(),
    }
}

/// A memory file with these bytes, as a cell is given.
fn memory_file(bytes: &[u8]) -> io::Result<File> {
    let file = nix::sys::memfd::memfd_create(c"blob", nix::sys::memfd::MFdFlags::empty())?;
    let file = File::from(file);
    file.write_all_at(bytes, 0)?;
    Ok(file)
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
        let written = written_then_executed(&run);
        let layers = match name {
            // Each time that other code was written.
            "written-then-run" => 13,
            "packed-views" => 3,
            "packed-views-again" => 20,
            // Twice by each of two processes that share the memory.
            "shared-code" => 4,
            // What was put into a child's code: another function, a breakpoint (on s390x no instruction that runs), and what was
            // there before it.
            "injects" if arch == "s390x" => 2,
            "injects" => 3,
            _ => 0,
        };
        if written.len() != layers {
            wrong.push(format!("{}: written and run at {written:x?}", guest["path"]));
        }
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

/// Where a program ran bytes that it had written.
fn written_then_executed(run: &Run) -> Vec<u64> {
    let event = |event: &Event| match &event.what {
        What::Memory(memory) if memory.op == MemoryOp::WrittenThenExecuted => Some(memory.start.0),
        _ => None,
    };
    run.events.iter().filter_map(event).collect()
}

/// One segment that is writable and executable is no finding; a byte of it changed before it runs is. Every
/// program ends with exit(7).
#[test]
fn only_changed_bytes_are_written_ones() {
    let exit = "b83c000000bf070000000f05";
    let cases = [
        // jmp over nothing; exit
        (7, format!("eb00{exit}"), 0),
        (5, format!("eb00{exit}"), 0),
        // movb $7,[rip to the exit status]; jmp; mov $60,%eax; mov $0,%edi; syscall
        (7, "c6050800000007eb00b83c000000bf000000000f05".to_owned(), 1),
        // fork; jmp; the same store; jmp: parent and child each have their own
        (
            7,
            "b8390000000f05eb00c6050800000007eb00b83c000000bf000000000f05".to_owned(),
            2,
        ),
        // the store; jmp; fork; jmp; exit: each runs what one wrote
        (
            7,
            "c6051100000007eb00b8390000000f05eb00b83c000000bf000000000f05".to_owned(),
            2,
        ),
    ];
    for (flags, code, wanted) in cases {
        let code = hex::decode(code).expect("hexadecimal");
        let run = linux_bytes(
            "x86_64",
            &elf("x86_64", &code, flags),
            &["it"],
            b"",
            GuestLimits::default(),
        );
        assert_eq!(
            run.finished.result.outcome,
            Outcome::Exited(7),
            "{:?}",
            run.events
        );
        assert_eq!(written_then_executed(&run).len(), wanted, "{code:x?}");
    }
}

/// Linux programs of 64 bits do not use `sysenter`, and those of 32 neither.
#[test]
fn foreign_system_calls_are_refused() {
    for (arch, call) in [("x86_64", "0f34"), ("x86", "0f34"), ("x86", "0f05")] {
        // The call, then exit(7).
        let exit = if arch == "x86_64" {
            "b83c000000bf070000000f05"
        } else {
            "b801000000bb07000000cd80"
        };
        let code = hex::decode(format!("{call}{exit}")).expect("hexadecimal");
        let run = linux_bytes(arch, &elf(arch, &code, 5), &["it"], b"", GuestLimits::default());
        let outcome = run.finished.result.outcome;
        assert_eq!(outcome, Outcome::Signalled("SIGILL".into()), "{arch} {call}");
        let code = hex::decode(exit).expect("hexadecimal");
        let run = linux_bytes(arch, &elf(arch, &code, 5), &["it"], b"", GuestLimits::default());
        assert_eq!(run.finished.result.outcome, Outcome::Exited(7), "{arch}");
    }
}

/// A program that only reads the clock ends with the time that it is allowed, at the same read every time.
#[test]
fn a_loop_of_clock_reads_ends() {
    // rdtsc; jmp
    let program = elf("x86_64", &[0x0f, 0x31, 0xeb, 0xfc], 5);
    let limits = || GuestLimits {
        virtual_time: 1_000_000,
        ..GuestLimits::default()
    };
    let run = || linux_bytes("x86_64", &program, &["it"], b"", limits());
    let first = run();
    let result = &first.finished.result;
    assert_eq!(result.outcome, Outcome::Limit("virtual-time".into()));
    assert_eq!(result.virtual_time, 1_000_000);
    assert_eq!(*result, run().finished.result);
}

/// A program of this host that needs a loader and a library, which are its only files.
#[test]
fn a_dynamically_linked_program_is_linked_and_runs() {
    const LOADER: &str = "/lib64/ld-linux-x86-64.so.2";
    const LIBRARY: &str = "/lib/x86_64-linux-gnu/libc.so.6";
    let read = |path: &str| std::fs::read(path).ok();
    let (Some(program), Some(loader), Some(library)) = (read("/bin/echo"), read(LOADER), read(LIBRARY))
    else {
        eprintln!("SKIPPED: this host has no dynamically linked /bin/echo for x86_64");
        return;
    };
    let files = [(LOADER, loader), (LIBRARY, library)];
    let argv = ["echo", "hello", "world"];
    let limits = GuestLimits::default;
    let run = || linux_among("x86_64", &program, &argv, b"", limits(), &files);
    let first = run();
    assert_eq!(first.stdout(), "hello world\n", "{:?}", first.events);
    assert_eq!(first.finished.result.outcome, Outcome::Exited(0));
    assert_eq!(first.events, run().events);
    // Without its loader it cannot be begun; without its library the loader says so.
    let run = linux_among("x86_64", &program, &argv, b"", limits(), &files[..1]);
    assert_eq!(run.finished.result.outcome, Outcome::Exited(127));
    let told = String::from_utf8_lossy(&run.finished.stderr);
    assert!(
        told.contains("libc.so.6: cannot open shared object file"),
        "{told}"
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
