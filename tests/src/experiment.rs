//! A small experiment with every kind of stage, for tests of what happens around it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use hotcell_schema::{digest::Digest, outcome::Status};
use hotcell_store::{Entry, Journal};
use serde_json::json;

use crate::{Busybox, Lab};

/// Name of its manifest.
pub const EXPERIMENT: &str = "experiment.yaml";

const SCRIPTS: [(&str, &str); 2] = [
    (
        "files",
        "mkdir /tmp/d; seq 2000 > /tmp/d/a; head -c 20000 /dev/urandom > /tmp/d/b",
    ),
    ("words", "echo one two; echo three >&2; exit 4"),
];

/// Writes the manifest and its samples: stages that look, run and judge, 5 instances for each busybox.
pub fn write_experiment(lab: &Lab, all: &[Busybox]) {
    for one in all {
        lab.write(&format!("samples/{}", one.debian), fs::read(&one.path).unwrap());
    }
    let scripts: serde_json::Map<_, _> = SCRIPTS
        .iter()
        .map(|(name, text)| (format!("/scripts/{name}"), json!(text)))
        .collect();
    let names: Vec<&str> = SCRIPTS.iter().map(|(name, _)| *name).collect();
    let each = json!({"sample": "samples.busybox", "script": names});
    lab.manifest(
        EXPERIMENT,
        &json!({
            "hotcell": 1,
            "name": "experiment",
            "seed": 5,
            "samples": {"busybox": {"glob": "samples/*", "family": "busybox"}},
            "stages": {
                "look": {
                    "uses": "inspect/elf",
                    "for-each": {"sample": "samples.busybox"},
                    "in": {"file": "${sample.file}"},
                },
                "run": {
                    "uses": "unicorn/linux",
                    "for-each": each,
                    "in": {"file": "${sample.file}"},
                    "with": {"path": "/bin/busybox", "args": ["sh", "/scripts/${script}"], "files": scripts},
                    "limits": {"virtual-time": "1h", "wall": "10m"},
                },
                "hits": {
                    "uses": "detect/rules",
                    "for-each": each,
                    "in": {"events": "stages.run.out.events", "info": "stages.look.out.info"},
                },
            },
        }),
    );
}

/// How instances ended in one run, as its journal has it: status and cache key by name.
pub type Endings = BTreeMap<String, (Status, Option<Digest>)>;

/// Reads the journals of all runs in a folder, by the run's own folder.
pub fn journals(runs: &Path) -> BTreeMap<PathBuf, Endings> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(runs).into_iter().flatten() {
        let path = entry.unwrap().path();
        let mut endings = Endings::new();
        for entry in Journal::read(&path.join("journal.jsonl")).unwrap() {
            if let Entry::Ended {
                instance,
                status,
                key,
                ..
            } = entry
            {
                endings.insert(instance, (status, key));
            }
        }
        all.insert(path, endings);
    }
    all
}

/// What runs have stored, by instance and key, and whether any of it ran again.
#[derive(Debug, Default)]
pub struct Ledger {
    stored: BTreeSet<(String, Digest)>,
    seen: BTreeSet<PathBuf>,
}

impl Ledger {
    /// Takes the runs that came since it was last asked. None of them may have run what was stored before they began.
    pub fn audit(&mut self, runs: &Path) {
        let journals = journals(runs);
        let new: Vec<_> = journals
            .iter()
            .filter(|(run, _)| !self.seen.contains(*run))
            .collect();
        for (run, endings) in &new {
            for (instance, (status, key)) in *endings {
                let Some(key) = key else { continue };
                let stored = self.stored.contains(&(instance.clone(), *key));
                assert!(
                    !stored || *status != Status::Ok,
                    "{}: {instance} was stored, and ran again",
                    run.display()
                );
            }
        }
        for (run, endings) in new {
            self.seen.insert(run.clone());
            for (instance, (status, key)) in endings {
                if let (true, Some(key)) = (status.has_outputs(), key) {
                    self.stored.insert((instance.clone(), *key));
                }
            }
        }
    }

    /// How many instances are stored.
    pub fn len(&self) -> usize {
        self.stored.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.stored.is_empty()
    }
}

/// Numbers that look random and are the same for the same seed (xorshift64*).
#[derive(Debug, Clone)]
pub struct Chance(u64);

impl Chance {
    /// The seed from the environment (`HOTCELL_TEST_SEED`), or the given one; it is printed, so that a failure can be
    /// seen again.
    pub fn new(seed: u64) -> Self {
        let told = std::env::var("HOTCELL_TEST_SEED")
            .ok()
            .and_then(|seed| seed.parse().ok());
        let seed = told.unwrap_or(seed);
        eprintln!("HOTCELL_TEST_SEED={seed}");
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number below another.
    pub fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16) % end.max(1)
    }
}
