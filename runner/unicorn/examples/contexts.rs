//! What it costs to make a cell, to save its context, to go back to it, and to go on from it in another process.
//!
//! ```text
//! cargo build --release -p hotcell-unicorn
//! cargo run --release -p hotcell-unicorn --example contexts -- target/release/hotcell-unicorn
//! ```
//!
//! The guest writes 16 MiB, page by page, and then computes for ever. Times are the medians of a few rounds, in
//! milliseconds; the last line compares going back with running to the same place again.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::path::Path;
use std::time::{Duration, Instant};

use hotcell_cells::context::SavedContext;
use hotcell_cells::contract::Cell;
use hotcell_cells::intake::Bounds;
use hotcell_cells::process::{ProcessCell, Spec};
use hotcell_cells::stop::StopSignal;
use hotcell_cells::supervise::{Executable, HostLimits, Sandbox, SealedBlob};
use hotcell_schema::digest::Digest;
use hotcell_schema::job::{Blob, GuestLimits, Job, LinuxJob};
use hotcell_schema::persona::Persona;

const ROUNDS: usize = 9;
const TOUCHED: u32 = 16 << 20;

/// An x86_64 program: a page of code, and 16 MiB behind it that it fills.
fn program() -> Vec<u8> {
    let base = 0x40_0000u64;
    let data = base + 0x1000;
    // mov rdi, data; mov ecx, 16 MiB / 8; mov rax, rdi; next: mov [rdi], rax; add rdi, 8; dec ecx; jnz next; jmp .
    let mut code = vec![0x48, 0xbf];
    code.extend(data.to_le_bytes());
    code.push(0xb9);
    code.extend((TOUCHED / 8).to_le_bytes());
    code.extend([
        0x48, 0x89, 0xf8, 0x48, 0x89, 0x07, 0x48, 0x83, 0xc7, 8, 0xff, 0xc9, 0x75, 0xf5, 0xeb, 0xfe,
    ]);
    let start = 64 + 2 * 56u64;
    let mut elf = vec![0x7f, b'E', b'L', b'F', 2, 1, 1];
    elf.resize(16, 0);
    [2u16, 62].iter().for_each(|half| elf.extend(half.to_le_bytes()));
    elf.extend(1u32.to_le_bytes());
    [base + start, 64, 0]
        .iter()
        .for_each(|word| elf.extend(word.to_le_bytes()));
    elf.extend(0u32.to_le_bytes());
    [64u16, 56, 2, 0, 0, 0]
        .iter()
        .for_each(|half| elf.extend(half.to_le_bytes()));
    let all = start + code.len() as u64;
    let mut segment = |flags: u32, words: [u64; 6]| {
        [1, flags]
            .iter()
            .for_each(|half: &u32| elf.extend(half.to_le_bytes()));
        words.iter().for_each(|word| elf.extend(word.to_le_bytes()));
    };
    segment(5, [0, base, base, all, all, 0x1000]);
    segment(6, [0, data, data, 0, u64::from(TOUCHED), 0x1000]);
    elf.extend(code);
    elf
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort();
    times[times.len() / 2].as_secs_f64() * 1e3
}

fn main() {
    let path = std::env::args().nth(1).expect("the path of hotcell-unicorn");
    let executable = Executable::open(Path::new(&path)).unwrap();
    let profile = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../arch-profiles/x86_64.toml");
    let program = program();
    let blob = SealedBlob::of(&program).unwrap();
    let blobs = [&blob];
    let stop = StopSignal::new().unwrap();
    let spec = Spec {
        executable: &executable,
        blobs: &blobs,
        limits: HostLimits::default(),
        bounds: Bounds::default(),
        sandbox: Sandbox::of_this_host(),
        stop: &stop,
        cores: None,
    };
    let job = Job::Linux(Box::new(LinuxJob {
        cell: "example".into(),
        arch: toml::from_str(&std::fs::read_to_string(profile).unwrap()).unwrap(),
        native: false,
        persona: Persona::default(),
        program: Blob {
            index: 0,
            length: program.len() as u64,
        },
        path: "/tmp/sample".into(),
        argv: vec!["sample".into()],
        env: None,
        cwd: None,
        sysroot: None,
        internet: None,
        files: Vec::new(),
        stdin: None,
        seed: Digest::of(b"seed"),
        watch: Default::default(),
        deny: Default::default(),
        limits: GuestLimits::default(),
    }));

    let (mut ready, mut first, mut ran) = (Vec::new(), Vec::new(), Vec::new());
    let (mut saved, mut back, mut elsewhere) = (Vec::new(), Vec::new(), Vec::new());
    let mut length = 0;
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        let mut cell = ProcessCell::spawn(&spec).unwrap();
        ready.push(begun.elapsed());
        cell.pause().unwrap();
        cell.start(&job).unwrap();
        cell.run_one_instruction().unwrap();
        first.push(begun.elapsed());
        let running = Instant::now();
        // Two million stores; each takes a block of the guest's.
        for _ in 0..TOUCHED / 8 / 20_000 + 2 {
            cell.run_one_slice().unwrap();
        }
        ran.push(running.elapsed());
        let saving = Instant::now();
        cell.save_context().unwrap();
        saved.push(saving.elapsed());
        for _ in 0..3 {
            cell.run_one_slice().unwrap();
            let loading = Instant::now();
            cell.load_context().unwrap();
            back.push(loading.elapsed());
        }
        let mut bytes = Vec::new();
        length = cell.write_context(&mut bytes).unwrap().length;
        let context = SavedContext::read(&bytes[..]).unwrap();
        let mut other = ProcessCell::restore(&spec, &context).unwrap();
        other.pause().unwrap();
        let going_on = Instant::now();
        other.start(&job).unwrap();
        other.run_one_instruction().unwrap();
        elsewhere.push(going_on.elapsed());
    }
    let back = median(back);
    let ran = median(ran);
    println!("a context of {} KiB", length >> 10);
    println!(
        "cell made, confined and ready     {:8.2} ms (wanted: under 10)",
        median(ready)
    );
    println!("the same, to the first instruction{:8.2} ms", median(first));
    println!("saved                             {:8.2} ms", median(saved));
    println!("back to it in the same process    {back:8.2} ms (wanted: under 5)");
    println!(
        "on from it in a process that is ready, to the next instruction {:.2} ms",
        median(elsewhere)
    );
    println!(
        "running to the same place         {ran:8.2} ms: {:.0} times as long as going back",
        ran / back
    );
}
