//! The kernel part on this host's own kernel. Where it cannot be loaded (no root, an older kernel) each test says so.

#![allow(clippy::unwrap_used, clippy::print_stderr)]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hotcell_monitor::kernel::{Counts, Kernel};
use hotcell_monitor::record::{self, Record};
use hotcell_schema::deny::{Denial, Deny};
use syscalls::Sysno;

/// One kernel part at a time: what one test attaches costs the others.
static ALONE: Mutex<()> = Mutex::new(());

/// What was told of one run.
#[derive(Debug, Default)]
struct Told {
    /// Calls that came back, by name.
    calls: BTreeMap<String, u64>,
    /// Texts of calls: name, then text.
    texts: Vec<(String, Vec<u8>)>,
    exits: Vec<u32>,
    forks: usize,
    executed: Vec<String>,
    killed: usize,
    after_kill: usize,
    records: u64,
    counts: Counts,
}

/// Runs a shell command whose tasks are watched. `None`: this host does not let us.
fn watched(script: &str, ring: u32, deny: Deny) -> Option<Told> {
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let mut kernel = match Kernel::load(ring).and_then(|mut kernel| kernel.attach().map(|()| kernel)) {
        Ok(kernel) => kernel,
        Err(error) => {
            eprintln!("SKIPPED the monitor's kernel part: {error}");
            return None;
        }
    };
    // A shell that waits for a line: it is marked before it does anything of what is told.
    let mut child = Command::new("/bin/sh")
        .args(["-c", "echo here; read go; eval \"$1\"", "sh", script])
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    output.read_line(&mut String::new()).unwrap();
    let process = rustix::process::Pid::from_raw(child.id() as i32).unwrap();
    let task = rustix::process::pidfd_open(process, rustix::process::PidfdFlags::empty()).unwrap();
    kernel.prepare(3, false, &deny).unwrap();
    kernel.watch(task.as_fd(), 3).unwrap();
    let done = AtomicBool::new(false);
    let mut told = Told::default();
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut told = Told::default();
            let take = |bytes: &[u8]| {
                let (head, record) = record::parse(bytes).unwrap();
                assert_eq!(head.cell, 3);
                told.take(&record);
            };
            kernel
                .read(
                    take,
                    |_| !done.load(Ordering::Relaxed),
                    |_| Duration::from_millis(10),
                )
                .unwrap();
            told
        });
        child.stdin.take().unwrap().write_all(b"go\n").unwrap();
        for line in output.lines() {
            let _ = line;
        }
        child.wait().unwrap();
        done.store(true, Ordering::Relaxed);
        told = reader.join().unwrap();
    });
    kernel.detach();
    told.counts = kernel.counts(3).unwrap();
    Some(told)
}

impl Told {
    fn take(&mut self, record: &Record<'_>) {
        self.records += 1;
        match record {
            Record::Call(call) | Record::Began(call) => {
                let name = Sysno::new(call.number as usize)
                    .map_or("?", |number| number.name())
                    .to_owned();
                for (_, _, text) in call.pieces.iter().flatten() {
                    self.texts.push((name.clone(), text.to_vec()));
                }
                if matches!(record, Record::Call(_)) {
                    *self.calls.entry(name).or_default() += 1;
                    if self.killed > 0 {
                        self.after_kill += 1;
                    }
                }
            }
            Record::Fork { .. } => self.forks += 1,
            Record::Exec { path } => self
                .executed
                .push(String::from_utf8_lossy(path).trim_end_matches('\0').to_owned()),
            Record::Exit { code, .. } => self.exits.push(*code),
            Record::Signal { .. } => {}
            Record::Killed { .. } => self.killed += 1,
        }
    }

    fn has(&self, call: &str, text: &str) -> bool {
        self.texts
            .iter()
            .any(|(name, bytes)| name == call && String::from_utf8_lossy(bytes).contains(text))
    }
}

#[test]
fn texts_children_and_ends_are_told() {
    let script = "echo some words > /tmp/hotcell-monitor-test; cat /tmp/hotcell-monitor-test; rm /tmp/hotcell-monitor-test; exit 3";
    let Some(told) = watched(script, 1 << 20, Deny::default()) else {
        return;
    };
    assert!(
        told.has("openat", "/tmp/hotcell-monitor-test"),
        "{:?}",
        told.texts
    );
    assert!(told.has("write", "some words"), "{:?}", told.texts);
    assert!(told.has("read", "some words"), "{:?}", told.texts);
    assert!(
        told.has("unlinkat", "/tmp/hotcell-monitor-test"),
        "{:?}",
        told.texts
    );
    assert!(
        told.has("execve", "cat\0/tmp/hotcell-monitor-test"),
        "{:?}",
        told.texts
    );
    assert_eq!(told.executed.len(), 2, "{:?}", told.executed);
    assert_eq!(told.forks, 2);
    assert!(told.exits.contains(&(3 << 8)), "{:?}", told.exits);
    assert_eq!(told.counts.lost, 0);
    assert_eq!(told.counts.told, told.records);
}

#[test]
fn a_ring_that_is_too_small_loses_an_exact_number() {
    // Half of the large one holds all of it, however late it is read.
    let script = "dd if=/dev/zero of=/dev/null bs=1 count=30000 2>/dev/null";
    let Some(small) = watched(script, 4096, Deny::default()) else {
        return;
    };
    let Some(large) = watched(script, 1 << 24, Deny::default()) else {
        return;
    };
    assert_eq!(large.counts.lost, 0);
    assert_eq!(small.counts.told, small.records);
    assert!(small.counts.lost > 1000, "{:?}", small.counts);
    let all = |told: &Told| told.counts.told + told.counts.lost;
    // The same program makes the same calls; one more if the shell was not waiting yet when it was marked.
    assert!(
        all(&small).abs_diff(all(&large)) <= 1,
        "{:?} {:?}",
        small.counts,
        large.counts
    );
    assert!(large.calls["read"] >= 30_000 && large.calls["write"] >= 30_000);
}

#[test]
fn what_is_denied_is_the_last_call() {
    let deny = Deny {
        delete: Some(Denial::Kill),
        ..Deny::default()
    };
    let script = ": > /tmp/hotcell-monitor-none; exec rm -f /tmp/hotcell-monitor-none";
    let Some(told) = watched(script, 1 << 20, deny) else {
        return;
    };
    let _ = std::fs::remove_file("/tmp/hotcell-monitor-none");
    assert_eq!(told.killed, 1);
    // The call itself happens: the signal is acted upon when it comes back.
    assert!(told.after_kill <= 1, "{told:?}");
    assert!(told.exits.contains(&9), "{:?}", told.exits);
}
