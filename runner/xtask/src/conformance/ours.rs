//! The manifest's run under hotcell: what there is to run, of which packages, and how it went.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::Value;

use super::{NATIVE, verdict::Said};
use crate::common::{Failure, remove_tree};

/// One program on one architecture.
pub(super) struct Case {
    /// Its name: that of its script.
    pub(super) program: String,
    /// The name of the source that its root is made of: Debian's of the architecture, and more where there are several.
    pub(super) system: String,
    /// The release of Debian that it is of.
    pub(super) suite: String,
    /// Whether this host's own processor can run it, which then says what is expected of the whole suite.
    pub(super) native: bool,
    /// The script.
    pub(super) script: PathBuf,
    /// What it reads from standard input, if anything.
    pub(super) stdin: Option<PathBuf>,
    /// How it went here.
    pub(super) said: Said,
}

/// A package as it was fetched.
pub(super) struct Package {
    pub(super) name: String,
    pub(super) version: String,
    pub(super) digest: String,
    pub(super) length: u64,
}

/// What the run left.
pub(super) struct Ours {
    pub(super) cases: Vec<Case>,
    /// Debian's name of each architecture and ours, in the manifest's order.
    pub(super) systems: Vec<(String, String)>,
    /// Packages by architecture.
    pub(super) packages: BTreeMap<String, Vec<Package>>,
    /// The store that has them.
    pub(super) store: PathBuf,
}

/// Packages whose versions are told: whose programs these are.
const TOLD: &[&str] = &[
    "libc6",
    "busybox-static",
    "dash",
    "bash",
    "coreutils",
    "python3-minimal",
    "perl-base",
    "lua5.4",
    "wget",
    "curl",
];

/// Runs the manifest.
pub(super) fn run(
    executables: &Path,
    place: &Path,
    home: &Path,
    only: Option<&str>,
) -> Result<Ours, Failure> {
    let hotcell = executables.join("hotcell");
    let state = home.join("conformance/state");
    let store = home.join("store");
    remove_tree(&state)?;
    let status = Command::new(&hotcell)
        .args(["run", "--progress", "plain", "--state"])
        .arg(&state)
        .arg("--store")
        .arg(&store)
        .arg(place.join("conformance.toml"))
        .args(only.map(|only| format!("--only={only}")))
        // Its summary is not the page's.
        .stdout(Stdio::null())
        .status()
        .map_err(|error| format!("{}: {error}", hotcell.display()))?;
    // 3: a stage failed, which the table tells.
    if !matches!(status.code(), Some(0 | 3)) {
        return Err(
            "the manifest does not run (above). Its packages come from Debian's mirror, once: where that cannot be reached, \
             nothing of this can be done"
                .into(),
        );
    }
    let folder = fs::read_dir(state.join("runs"))?
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .find(|path| path.join("result/report.json").is_file())
        .ok_or("the run left no report")?;
    let json =
        |name: &str| -> Result<Value, Failure> { Ok(serde_json::from_slice(&fs::read(folder.join(name))?)?) };
    let (report, plan) = (json("result/report.json")?, json("plan.json")?);
    let result = folder.join("result");
    let manifest: toml::Table = fs::read_to_string(place.join("conformance.toml"))?.parse()?;
    let said_of = |system: &str, key: &str| -> Result<&str, Failure> {
        let source = manifest.get("sources").and_then(|sources| sources.get(system));
        let value = source.and_then(|source| source.get(key)?.as_str());
        value.ok_or_else(|| format!("the source `{system}` has no `{key}`").into())
    };
    let stdin = list(&report["instances"])
        .find(|instance| instance["stage"] == "suite")
        .map(|instance| output(&result, instance, "suite"))
        .transpose()?;
    let mut cases = Vec::new();
    let mut systems: Vec<(String, String)> = Vec::new();
    for instance in list(&report["instances"]) {
        let folder = match instance["stage"].as_str() {
            Some("programs") => "programs",
            Some("tests") => "suite",
            _ => continue,
        };
        let system = text(&instance["axes"]["system"])?;
        if !systems.iter().any(|(known, _)| *known == system) {
            systems.push((system.clone(), text(&instance["arch"])?));
        }
        let sample = text(&instance["axes"]["sample"])?;
        let program = text(&report["samples"][&sample]["name"])?;
        cases.push(Case {
            script: place.join(folder).join(&program),
            stdin: stdin.clone().filter(|_| folder == "suite"),
            said: said(&result, instance)?,
            program,
            suite: said_of(&system, "suite")?.to_owned(),
            native: said_of(&system, "arch")? == NATIVE,
            system,
        });
    }
    Ok(Ours {
        packages: packages(&plan)?,
        cases,
        systems,
        store,
    })
}

impl Ours {
    /// Versions of what runs, in a line for each set of architectures that has the same.
    pub(super) fn versions(&self) -> Vec<String> {
        let mut sets: Vec<(String, Vec<&str>)> = Vec::new();
        for (system, _) in &self.systems {
            let told = |name: &&str| {
                let package = self
                    .packages
                    .get(system)?
                    .iter()
                    .find(|package| package.name == **name)?;
                // A rebuild for one architecture (`+b1`) is the same source.
                let source = package
                    .version
                    .rsplit_once("+b")
                    .map_or(&*package.version, |(source, _)| source);
                Some(format!("{name} {source}"))
            };
            let versions = TOLD.iter().filter_map(told).collect::<Vec<_>>().join(", ");
            match sets.iter_mut().find(|(known, _)| *known == versions) {
                Some((_, systems)) => systems.push(system),
                None => sets.push((versions, vec![system])),
            }
        }
        sets.into_iter()
            .map(|(versions, systems)| format!("- {}: {versions}", systems.join(", ")))
            .collect()
    }
}

/// How an instance went.
fn said(result: &Path, instance: &Value) -> Result<Said, Failure> {
    if instance["outcome"].is_null() {
        return Ok(Said {
            ended: format!("{}: {}", text(&instance["status"])?, instance["error"]),
            ..Said::default()
        });
    }
    let outcome = match instance["outcome"].as_object().and_then(|all| all.iter().next()) {
        Some((kind, value)) => format!(
            "{kind} {}",
            value.as_str().map_or(value.to_string(), str::to_owned)
        ),
        None => instance["outcome"].to_string(),
    };
    let read = |port| -> Result<String, Failure> {
        let bytes = fs::read(output(result, instance, port)?)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    Ok(Said {
        ended: outcome,
        stdout: read("stdout")?,
        stderr: read("stderr")?,
    })
}

fn output(result: &Path, instance: &Value, port: &str) -> Result<PathBuf, Failure> {
    Ok(result.join(text(&instance["outputs"][port]["path"])?))
}

/// The packages of each root, out of the plan.
fn packages(plan: &Value) -> Result<BTreeMap<String, Vec<Package>>, Failure> {
    let mut all: BTreeMap<String, Vec<Package>> = BTreeMap::new();
    for (name, package) in plan["packages"].as_object().into_iter().flatten() {
        let Some((system, name)) = name.split_once('/') else {
            continue;
        };
        let file = &package["files"][0];
        all.entry(system.to_owned()).or_default().push(Package {
            name: name.to_owned(),
            version: text(&package["version"])?,
            digest: text(&file["digest"])?,
            length: file["length"].as_u64().ok_or("a package without a length")?,
        });
    }
    Ok(all)
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn text(value: &Value) -> Result<String, Failure> {
    Ok(value
        .as_str()
        .ok_or_else(|| format!("no text: {value}"))?
        .to_owned())
}
