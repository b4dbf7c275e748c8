//! `hotcell cells` on the cells of a run: whatever is done with one, the result is the same.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use goblin::elf::Elf;
use hotcell_schema::fault::FaultRecord;
use hotcell_tests::{Lab, Run, busybox};
use serde_json::{Value, json};

fn experiment(lab: &Lab) {
    runs_script(
        lab,
        "i=0; while [ $i -lt 1500 ]; do i=$((i+1)); [ $((i%100)) = 0 ] && echo $i > /tmp/at; done; cat /tmp/at",
    );
}

fn runs_script(lab: &Lab, script: &str) {
    let busybox = busybox().unwrap();
    lab.write("samples/busybox", fs::read(&busybox[0].path).unwrap());
    let manifest = json!({
        "hotcell": 1,
        "name": "one",
        "samples": {"busybox": {"glob": "samples/*"}},
        "stages": {"run": {
            "uses": "unicorn/linux",
            "for-each": {"sample": "samples.busybox"},
            "in": {"file": "${sample.file}"},
            "with": {"path": "/bin/busybox", "args": ["sh", "-c", script]},
        }},
    });
    lab.manifest("one.yaml", &manifest);
}

const RUN: [&str; 4] = ["run", "one.yaml", "--progress", "none"];

/// Begins a run whose door is in the lab.
fn start(lab: &Lab) -> Child {
    let _ = fs::create_dir(lab.path("run"));
    let mut run = lab.command(RUN);
    run.env("XDG_RUNTIME_DIR", lab.path("run"))
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    run.spawn().unwrap()
}

/// The cells of this lab's runs.
fn cells(lab: &Lab) -> Vec<Value> {
    let output = lab
        .command(["cells", "--json"])
        .env("XDG_RUNTIME_DIR", lab.path("run"))
        .output()
        .unwrap();
    let told: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    told["own"].as_array().cloned().unwrap_or_default()
}

fn until(lab: &Lab, what: &str, holds: impl Fn(&[Value]) -> bool) -> Vec<Value> {
    let begun = Instant::now();
    loop {
        let cells = cells(lab);
        if holds(&cells) {
            return cells;
        }
        assert!(begun.elapsed() < Duration::from_secs(120), "{what}: {cells:?}");
    }
}

fn of_emulator(cells: &[Value]) -> bool {
    cells.iter().any(|cell| cell["engine"] == "hotcell-unicorn")
}

/// A run that nobody disturbed, in the first lab, and another lab for the same.
fn calm_and_next() -> (Run, [Lab; 2]) {
    let labs = [Lab::new(), Lab::new()];
    labs.iter().for_each(experiment);
    (labs[0].run("one.yaml", &["--progress", "none"]), labs)
}

/// What `hotcell cells` says, and its exit code.
fn told(lab: &Lab, args: &[&str]) -> (i32, String) {
    let args = ["cells"].into_iter().chain(args.iter().copied());
    let output = lab
        .command(args)
        .env("XDG_RUNTIME_DIR", lab.path("run"))
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap(), String::from_utf8(text).unwrap())
}

#[test]
fn a_cell_that_was_stepped_saved_and_moved_gives_the_same_bytes() {
    if busybox().is_none() {
        return;
    }
    let (calm, [_calm_lab, lab]) = calm_and_next();
    let mut run = start(&lab);
    let first = until(&lab, "a cell of the emulator", of_emulator);
    let process = first[0]["process"].clone();
    let pid = process.to_string();
    let does = |args: &[&str]| {
        let (code, text) = told(&lab, args);
        assert_eq!(code, 0, "{args:?}: {text}");
        text
    };
    does(&["pause", &pid]);
    until(&lab, "a pause", |cells| cells[0]["paused"] == true);
    does(&["step", &pid, "--count", "50"]);
    does(&["step", &pid, "--slices", "--count", "2"]);
    let context = lab.path("here.context");
    let context = context.to_str().unwrap();
    assert!(does(&["save", &pid, context]).contains("saved cell"));
    let (code, text) = told(&lab, &["save", &pid, context]);
    assert_eq!(code, 2, "not over what is there: {text}");
    does(&["step", &pid, "--slices"]);
    // Back to what was kept, in the same process, and then in another one.
    does(&["restore", &pid]);
    does(&["resume", &pid]);
    let wrong = lab.write("wrong.context", "hotcell-context 1\n{}\n");
    let (code, text) = told(&lab, &["restore", &pid, wrong.to_str().unwrap()]);
    assert_eq!(code, 4, "{text}");
    assert!(text.contains("not a saved context"), "{text}");
    does(&["restore", &pid, context]);
    let moved = until(&lab, "another process", |cells| {
        cells.first().is_none_or(|cell| cell["process"] != process)
    });
    assert!(run.wait().unwrap().success());
    assert!(moved.len() <= 1);
    let disturbed = lab.latest();
    assert!(disturbed.all_ok());
    calm.assert_same_result(&disturbed, "after being stepped, saved and moved");
    let (code, text) = told(&lab, &["pause", &pid]);
    assert_eq!(code, 2, "{text}");
    assert!(text.contains("no run of yours has a cell"), "{text}");
}

#[test]
fn raw_code_that_was_stepped_saved_and_moved_gives_the_same_bytes() {
    // mov ecx, 24_000_000; dec ecx; jnz
    let manifest = json!({
        "hotcell": 1,
        "name": "one",
        "stages": {"run": {
            "uses": "unicorn/payload",
            "limits": {"instructions": 60_000_000},
            "with": {"arch": "x86_64", "address": "0x10000", "code": "b900366e01ffc975fc", "trace": 8},
        }},
    });
    let labs = [Lab::new(), Lab::new()];
    for lab in &labs {
        lab.manifest("one.yaml", &manifest);
    }
    let [calm, lab] = &labs;
    let calm = calm.run("one.yaml", &["--progress", "none"]);
    let mut run = start(lab);
    let first = until(lab, "a cell of the emulator", of_emulator);
    let process = first[0]["process"].clone();
    let pid = process.to_string();
    let does = |args: &[&str]| {
        let (code, text) = told(lab, args);
        assert_eq!(code, 0, "{args:?}: {text}");
    };
    does(&["pause", &pid]);
    // What another job saved is refused, and the cell goes on as it was.
    let mut other = manifest.clone();
    other["stages"]["run"]["with"]["trace"] = json!(9);
    let stranger = Lab::new();
    stranger.manifest("one.yaml", &other);
    let mut its_run = start(&stranger);
    let its = until(&stranger, "a cell of the emulator", of_emulator);
    let strange = stranger.path("strange.context");
    let strange = strange.to_str().unwrap();
    let (code, text) = told(&stranger, &["save", &its[0]["process"].to_string(), strange]);
    assert_eq!(code, 0, "{text}");
    its_run.kill().unwrap();
    its_run.wait().unwrap();
    let (code, text) = told(lab, &["restore", &pid, strange]);
    assert_eq!(code, 4, "{text}");
    assert!(text.contains("of another job"), "{text}");
    assert_eq!(cells(lab)[0]["process"], process);
    does(&["step", &pid, "--count", "50"]);
    does(&["step", &pid, "--slices"]);
    let context = lab.path("here.context");
    let context = context.to_str().unwrap();
    does(&["save", &pid, context]);
    // Who looks at it changes nothing.
    does(&["dump", &pid, lab.path("cores").to_str().unwrap()]);
    let core = fs::read(lab.path("cores/1-code.core")).unwrap();
    let elf = Elf::parse(&core).unwrap();
    let code = elf.program_headers.iter().find(|part| part.p_vaddr == 0x10000);
    let code = &core[code.unwrap().file_range()];
    assert!(code.starts_with(&[0xb9, 0x00, 0x36, 0x6e, 0x01, 0xff, 0xc9, 0x75, 0xfc]));
    let mut registers = elf.iter_note_headers(&core).unwrap().map(|note| note.unwrap());
    // rip, in the registers of `struct elf_prstatus` (asm/ptrace.h): it stands in the loop.
    let rip = 112 + 16 * 8;
    let rip = &registers.find(|note| note.n_type == 1).unwrap().desc[rip..rip + 8];
    let rip = u64::from_le_bytes(rip.try_into().unwrap());
    assert!([0x10005, 0x10007].contains(&rip), "{rip:#x}");
    let again = lab.path("again.context");
    does(&["save", &pid, again.to_str().unwrap()]);
    assert!(
        fs::read(again).unwrap() == fs::read(context).unwrap(),
        "it noticed"
    );
    does(&["step", &pid]);
    does(&["restore", &pid]);
    does(&["restore", &pid, context]);
    until(lab, "another process", |cells| {
        cells.first().is_some_and(|cell| cell["process"] != process)
    });
    assert!(run.wait().unwrap().success());
    let disturbed = lab.latest();
    assert!(disturbed.all_ok());
    calm.assert_same_result(&disturbed, "after being stepped, saved and moved");
}

/// Names and contents of the core files in a folder.
fn cores(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    let read = |entry: fs::DirEntry| {
        (
            entry.file_name().into_string().unwrap(),
            fs::read(entry.path()).unwrap(),
        )
    };
    let mut all: Vec<_> = entries.map(read).collect();
    all.sort();
    all
}

#[test]
fn a_guest_that_is_dumped_does_not_notice() {
    if busybox().is_none() {
        return;
    }
    // A text that stands nowhere but in its memory, and two processes.
    let script = "known=text-$((40+2))-known; (i=0; while [ $i -lt 1000 ]; do i=$((i+1)); done) & \
        i=0; while [ $i -lt 1000 ]; do i=$((i+1)); done; wait; echo $known";
    let [calm, lab] = [Lab::new(), Lab::new()];
    [&calm, &lab].into_iter().for_each(|lab| runs_script(lab, script));
    let calm = calm.run("one.yaml", &["--progress", "none"]);
    let mut run = start(&lab);
    let first = until(&lab, "a cell of the emulator", of_emulator);
    let pid = first[0]["process"].to_string();
    let path = |name: &str| lab.path(name).to_str().unwrap().to_owned();
    let does = |args: &[&str]| {
        let (code, text) = told(&lab, args);
        assert_eq!(code, 0, "{args:?}: {text}");
        text
    };
    does(&["pause", &pid]);
    does(&["step", &pid, "--slices"]);
    // Until there are two processes.
    let both = (0..100).find_map(|nth| {
        let folder = lab.path(&format!("cores-{nth}"));
        does(&["dump", &pid, folder.to_str().unwrap()]);
        let cores = cores(&folder);
        does(&["step", &pid, "--slices"]);
        (cores.len() > 1).then_some(cores)
    });
    for (name, core) in both.expect("two processes") {
        assert!(
            ["1000-busybox.core", "1001-busybox.core"].contains(&name.as_str()),
            "{name}"
        );
        let elf = Elf::parse(&core).unwrap();
        assert_eq!(elf.header.e_type, goblin::elf::header::ET_CORE);
        let notes = elf.iter_note_headers(&core).unwrap();
        let kinds: Vec<u32> = notes.map(|note| note.unwrap().n_type).collect();
        assert_eq!(kinds, [1, 3, 0x4649_4c45], "{name}");
        let text = b"text-42-known";
        assert!(core.windows(text.len()).any(|part| part == text), "{name}");
    }
    // What is kept before and after is the same, and so is what was kept before.
    does(&["save", &pid, &path("before.context")]);
    let list = does(&["dump", &pid, &path("last"), "--json"]);
    does(&["save", &pid, &path("after.context")]);
    let [before, after] = ["before.context", "after.context"].map(|name| fs::read(lab.path(name)).unwrap());
    assert!(before == after, "it noticed");
    let list: Value = serde_json::from_str(&list).unwrap();
    let written: Vec<_> = cores(&lab.path("last"))
        .into_iter()
        .map(|(name, core)| json!({"file": name, "bytes": core.len()}))
        .collect();
    assert_eq!(list["cores"], Value::Array(written));
    // What cannot be is refused, and leaves nothing.
    let last = path("last");
    for (args, code, wanted) in [
        (["dump", &pid, &last], 2, "not an empty folder"),
        (["dump", &pid, &path("before.context")], 2, "before.context"),
        (["dump", "1", &path("no-such")], 2, "no run of yours has a cell 1"),
    ] {
        let (exit, text) = told(&lab, &args);
        assert_eq!(exit, code, "{args:?}: {text}");
        assert!(text.contains(wanted), "{args:?}: {text}");
    }
    assert!(!lab.path("no-such").exists());
    assert_eq!(cores(&lab.path("last")).len(), 2);
    does(&["resume", &pid]);
    // Also while it runs, unless it has just ended.
    let (code, text) = told(&lab, &["dump", &pid, &path("running")]);
    assert!([0, 2, 4].contains(&code), "{text}");
    assert_eq!(code == 0, lab.path("running").exists(), "{text}");
    assert!(run.wait().unwrap().success());
    let dumped = lab.latest();
    assert!(dumped.all_ok());
    calm.assert_same_result(&dumped, "after being dumped");
}

#[test]
fn what_a_broken_cell_saved_is_kept_and_another_goes_on_from_it() {
    if busybox().is_none() {
        return;
    }
    let (calm, [_calm_lab, lab]) = calm_and_next();
    let mut run = start(&lab);
    let first = until(&lab, "a cell of the emulator", of_emulator);
    let pid = first[0]["process"].to_string();
    assert_eq!(told(&lab, &["pause", &pid]).0, 0);
    assert_eq!(told(&lab, &["step", &pid, "--slices", "--count", "3"]).0, 0);
    let context = lab.path("here.context");
    let (code, text) = told(&lab, &["save", &pid, context.to_str().unwrap()]);
    assert_eq!(code, 0, "{text}");
    let process = nix::unistd::Pid::from_raw(pid.parse().unwrap());
    nix::sys::signal::kill(process, nix::sys::signal::Signal::SIGKILL).unwrap();
    assert!(!run.wait().unwrap().success());
    let broken = lab.latest();
    let (_, facts) = broken.facts.instances.first().unwrap();
    let record = broken.folder.join(facts.fault.as_ref().unwrap());
    let told_of: FaultRecord = serde_json::from_slice(&fs::read(&record).unwrap()).unwrap();
    let kept = record.with_file_name(told_of.context.unwrap());
    assert!(
        fs::read(&kept).unwrap() == fs::read(context).unwrap(),
        "the last context is another"
    );
    // A cell of the next run goes on from there.
    let mut run = start(&lab);
    let next = until(&lab, "a cell of the emulator", of_emulator);
    let pid = next[0]["process"].to_string();
    let (code, text) = told(&lab, &["pause", &pid]);
    assert_eq!(code, 0, "{text}");
    let (code, text) = told(&lab, &["restore", &pid, kept.to_str().unwrap()]);
    assert_eq!(code, 0, "{text}");
    assert!(run.wait().unwrap().success());
    calm.assert_same_result(&lab.latest(), "after its first cell broke");
}

#[test]
fn a_cell_that_is_killed_interrupts_its_instance() {
    if busybox().is_none() {
        return;
    }
    let lab = Lab::new();
    experiment(&lab);
    let mut run = start(&lab);
    let first = until(&lab, "a cell", |cells| !cells.is_empty());
    let pid = first[0]["process"].to_string();
    assert_eq!(told(&lab, &["kill", "--id", &pid]).0, 0);
    assert_eq!(run.wait().unwrap().code(), Some(3));
    // The door is closed, and its socket is gone.
    assert_eq!(fs::read_dir(lab.path("run/hotcell")).unwrap().count(), 0);
}
