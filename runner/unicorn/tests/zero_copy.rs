//! Payloads are not copied: every cell maps the same pages.

#![allow(clippy::unwrap_used, clippy::print_stderr)]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

use hotcell_cells::contract::Cell;
use hotcell_cells::intake::Bounds;
use hotcell_cells::process::{ProcessCell, Spec};
use hotcell_cells::stop::StopSignal;
use hotcell_cells::supervise::{HostLimits, Sandbox, SealedBlob};
use hotcell_schema::guest::Address;
use hotcell_schema::job::{Blob, Job, PayloadJob};

const CELLS: usize = 100;
const LENGTH: usize = 64 << 20;
const START: u64 = 0x1000_0000;
/// What one more cell may cost, all of the emulator included, in KiB.
const MOST: u64 = 4 << 10;

/// A value of `/proc/PID/smaps_rollup` in KiB.
fn rolled_up(pid: i32, name: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim_start_matches(':')
        .trim()
        .trim_end_matches(" kB")
        .parse()
        .unwrap()
}

#[test]
fn a_hundred_cells_of_one_large_payload_cost_little_each() {
    // mov rsi, START; mov ecx, pages; next: mov al, [rsi]; add rsi, 4096; dec ecx; jnz next; jmp .
    let mut code = vec![0x48, 0xbe];
    code.extend(START.to_le_bytes());
    code.push(0xb9);
    code.extend(((LENGTH >> 12) as u32).to_le_bytes());
    code.extend([
        0x8a, 0x06, 0x48, 0x81, 0xc6, 0, 0x10, 0, 0, 0xff, 0xc9, 0x75, 0xf3, 0xeb, 0xfe,
    ]);
    code.resize(LENGTH, 0x90);
    let blob = SealedBlob::of(&code).unwrap();
    let job = Job::Payload(Box::new(PayloadJob {
        cell: "test".into(),
        arch: common::profile("x86_64"),
        code: Blob {
            index: 0,
            length: LENGTH as u64,
        },
        address: Address(START),
        until: None,
        registers: BTreeMap::new(),
        memory: Vec::new(),
        want_registers: Vec::new(),
        want_memory: Vec::new(),
        instructions: u64::MAX,
        trace: 0,
    }));
    let stop = StopSignal::new().unwrap();
    let mut cells = Vec::new();
    for _ in 0..CELLS {
        let mut cell = ProcessCell::spawn(&Spec {
            executable: &common::executable(),
            blobs: &[&blob],
            limits: HostLimits::default(),
            bounds: Bounds::default(),
            sandbox: Sandbox::of_this_host(),
            stop: &stop,
            cores: None,
        })
        .unwrap();
        cell.start(&job).unwrap();
        // One after the other gets through its payload, then stands still: a hundred loops would share two processors.
        let until = Instant::now() + Duration::from_secs(60);
        while rolled_up(cell.id(), "Rss") < (LENGTH >> 10) as u64 {
            assert!(Instant::now() < until, "the payload was not read in a minute");
            std::thread::yield_now();
        }
        nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(cell.id()),
            nix::sys::signal::Signal::SIGSTOP,
        )
        .unwrap();
        cells.push(cell);
    }
    let private = |pid| rolled_up(pid, "Private_Dirty") + rolled_up(pid, "Private_Clean");
    let costs: Vec<u64> = cells.iter().map(|cell| private(cell.id())).collect();
    let shared: Vec<u64> = cells.iter().map(|cell| rolled_up(cell.id(), "Pss")).collect();
    let mean = |values: &[u64]| values.iter().sum::<u64>() / values.len() as u64;
    eprintln!(
        "{CELLS} cells of {} MiB: private {} to {} KiB each, with their share of what is shared {} KiB",
        LENGTH >> 20,
        costs.iter().min().unwrap(),
        costs.iter().max().unwrap(),
        mean(&shared),
    );
    assert!(costs.iter().all(|cost| *cost <= MOST), "{costs:?}");
}
