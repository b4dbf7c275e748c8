//! Disks that fail: nothing is lost, wrong, or run twice once it was stored; what happened is said, and ends with the
//! exit code for it.
#![allow(clippy::print_stderr, clippy::unwrap_used)]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
};

use hotcell_schema::{digest::Digest, outcome::Status, report::Report};
use hotcell_tests::{
    Busybox, EXPERIMENT, FaultyDisk, Lab, Ledger, TinyDisk, busybox, files_below, write_experiment,
};

/// A result's files, and the digests of each instance's outputs.
struct Reference {
    files: BTreeMap<String, Vec<u8>>,
    outputs: BTreeMap<String, BTreeMap<String, Digest>>,
}

fn reference(all: &[Busybox]) -> Reference {
    let lab = Lab::new();
    write_experiment(&lab, all);
    let run = lab.run(EXPERIMENT, &["--progress", "none"]);
    Reference {
        files: run.result(),
        outputs: outputs(&run.report),
    }
}

/// Outputs of the instances that a report says are well.
fn outputs(report: &Report) -> BTreeMap<String, BTreeMap<String, Digest>> {
    let well = report.instances.iter().filter(|one| one.status == Status::Ok);
    well.map(|one| {
        let outputs = one.outputs.iter();
        let digests = outputs.map(|(port, output)| (port.clone(), output.digest));
        (one.name.clone(), digests.collect())
    })
    .collect()
}

/// Where a run keeps its things, and where these can be looked at without faults.
struct Place {
    store: PathBuf,
    state: PathBuf,
    seen: PathBuf,
}

impl Place {
    fn runs(&self) -> PathBuf {
        self.seen.join("runs")
    }

    /// The folders of runs.
    fn all(&self) -> BTreeSet<PathBuf> {
        let entries = fs::read_dir(self.runs()).into_iter().flatten();
        entries
            .map(|entry| entry.unwrap())
            .filter(|entry| entry.file_type().unwrap().is_dir())
            .map(|entry| entry.path())
            .collect()
    }

    /// A run there. Whatever is there afterwards must be right. Returns the exit code and what was said.
    fn run(&self, lab: &Lab, reference: &Reference) -> (i32, String) {
        let before = self.all();
        let output = lab
            .command(["run", EXPERIMENT, "-j", "2", "--progress", "none"])
            .args(["--store".as_ref(), self.store.as_os_str()])
            .args(["--state".as_ref(), self.state.as_os_str()])
            .output()
            .unwrap();
        // A run that could not go on says so on standard error; instances that failed stand in the summary.
        let said = [output.stderr, output.stdout].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        let code = output
            .status
            .code()
            .unwrap_or_else(|| panic!("{}: {said}", output.status));
        assert!(matches!(code, 0 | 3 | 4), "exit code {code}: {said}");
        assert!(!said.contains("panicked"), "{said}");
        for run in self.all().difference(&before) {
            let result = run.join("result");
            if !result.is_dir() {
                assert_eq!(code, 4, "a run without a result: {said}");
                continue;
            }
            let report: Report =
                serde_json::from_slice(&fs::read(result.join("report.json")).unwrap()).unwrap();
            for (instance, outputs) in outputs(&report) {
                assert_eq!(
                    outputs,
                    reference.outputs[&instance],
                    "{}: {instance}",
                    run.display()
                );
            }
            if code == 0 {
                let same = files_below(&result) == reference.files;
                assert!(same, "{} is well, and another result", run.display());
            }
        }
        (code, said)
    }

    /// Everything is well again: what was stored is whole and is not run again, and the result is the right one.
    fn and_then_well(&self, lab: &Lab, reference: &Reference, ledger: &mut Ledger) {
        if self.store.join("version").exists() {
            lab.expect(0, ["store", "verify", "--store", self.store.to_str().unwrap()]);
        }
        let (code, said) = self.run(lab, reference);
        assert_eq!(code, 0, "{said}");
        ledger.audit(&self.runs());
    }
}

fn faulty(all: &[Busybox], rounds: usize, seed: u64) {
    let reference = reference(all);
    let lab = Lab::new();
    write_experiment(&lab, all);
    let Some(disk) = FaultyDisk::mount(&lab.path(""), seed) else {
        return;
    };
    let mut ledger = Ledger::default();
    let mut codes: BTreeMap<i32, usize> = BTreeMap::new();
    // Everything on the failing disk, or the store alone.
    let places = ["disk/state", ".hotcell"].map(|state| Place {
        store: disk.mounted.join("store"),
        state: lab.path(state),
        seen: lab.path(&state.replace("disk", "backing")),
    });
    let rates = [300, 40, 10, 3];
    for round in 0..rounds {
        let place = &places[round % 2];
        disk.fail(rates[round / 2 % rates.len()]);
        let (code, said) = place.run(&lab, &reference);
        disk.fail(0);
        *codes.entry(code).or_default() += 1;
        assert!(
            code == 0 || said.contains("error") || said.contains("failed"),
            "exit code {code}: {said}"
        );
        ledger.audit(&place.runs());
        if round % 8 == 7 {
            place.and_then_well(&lab, &reference, &mut ledger);
            // From the beginning.
            fs::remove_dir_all(&place.store).unwrap();
            ledger = Ledger::default();
            for place in &places {
                fs::remove_dir_all(&place.state).unwrap();
            }
        }
    }
    places[0].and_then_well(&lab, &reference, &mut ledger);
    eprintln!("{} calls failed; exit codes {codes:?}", disk.met());
    assert!(disk.met() > rounds as u64 / 2 && codes.keys().any(|code| *code != 0));
}

#[test]
fn a_disk_that_fails_now_and_then_costs_time_only() {
    let Some(all) = busybox() else { return };
    faulty(&all[..1], 6, 30);
}

#[test]
#[ignore = "64 runs take minutes"]
fn a_disk_that_fails_now_and_then_costs_time_only_many_times() {
    let Some(all) = busybox() else { return };
    faulty(&all[1..3], 64, 31);
}

#[test]
fn a_full_disk_is_named_and_what_was_stored_stays() {
    let Some(all) = busybox() else { return };
    let all = &all[..1];
    let reference = reference(all);
    let lab = Lab::new();
    write_experiment(&lab, all);
    let Some(disk) = TinyDisk::mount(&lab.path(""), 64 << 10) else {
        return;
    };
    let place = Place {
        store: disk.mounted.join("store"),
        state: disk.mounted.join("state"),
        seen: disk.mounted.join("state"),
    };
    let mut ledger = Ledger::default();
    for size in [64, 128, 256, 512] {
        disk.grow(size << 10);
        let (code, said) = place.run(&lab, &reference);
        ledger.audit(&place.runs());
        assert!(
            code == 0 || said.contains("No space left on device"),
            "{code}: {said}"
        );
        assert!(size != 64 || code != 0, "64 KiB are enough for everything?");
    }
    disk.grow(64 << 20);
    place.and_then_well(&lab, &reference, &mut ledger);
}

#[test]
fn a_full_store_ends_the_run_once_for_all() {
    let lab = Lab::new();
    fs::create_dir(lab.path("tmp")).unwrap();
    let sizes: Vec<String> = (1..=40).map(|n| format!("\"{}\"", n * 100_000)).collect();
    lab.write(
        "full.toml",
        format!(
            "hotcell = 1\nname = \"full\"\n[stages.it]\nuses = \"command\"\nfor-each.size = [{}]\n\
             with.run = [\"head\", \"-c\", \"${{size}}\", \"/dev/urandom\"]\n",
            sizes.join(", ")
        ),
    );
    let Some(disk) = TinyDisk::mount(&lab.path(""), 512 << 10) else {
        return;
    };
    let store = disk.mounted.join("store");
    let output = lab
        .command(["run", "full.toml", "-j", "1", "--progress", "plain"])
        .args(["--store".as_ref(), store.as_os_str()])
        .env("TMPDIR", lab.path("tmp"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(4), "{said}");
    let last = said.split("error:").last().unwrap();
    assert!(
        last.contains("the store") && last.contains("No space left on device"),
        "{said}"
    );
    let failed = said.lines().filter(|line| line.starts_with("failed ")).count();
    assert_eq!(failed, 1, "it went on: {said}");
}
