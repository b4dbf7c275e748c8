//! What a plan is made of, pinned: one entry of `hotcell.lock`.

use std::collections::BTreeMap;

use hotcell_schema::arch::ArchProfile;
use hotcell_schema::digest::Digest;
use hotcell_schema::lock::{Lock, Pins};
use serde::Serialize;

use crate::debian::is_package_name;
use crate::plan::{Origin, Plan};
use crate::reader::Package;

/// What is pinned beside the plan itself.
#[derive(Debug, Clone, Copy)]
pub struct Tools<'a> {
    /// Version of hotcell.
    pub hotcell: &'a str,
    /// Engines that run something: name, and who they are.
    pub engines: &'a [(String, String)],
    /// Programs of this host that commands run: path, and who it is.
    pub programs: &'a BTreeMap<String, String>,
    /// All arch profiles: inspection is given them all, and finds the architecture of what a run comes upon among them.
    pub profiles: &'a [ArchProfile],
    /// The documents of the manifest: path from its folder, and digest.
    pub documents: &'a [(String, Digest)],
}

/// Pins everything that a plan is made of.
pub fn pin(plan: &Plan, tools: &Tools<'_>) -> Lock {
    let mut lock = Lock {
        tools: [
            ("hotcell".to_owned(), tools.hotcell.to_owned()),
            ("manifest".to_owned(), plan.manifest.to_string()),
        ]
        .into(),
        documents: tools
            .documents
            .iter()
            .map(|(path, digest)| (path.clone(), digest.to_string()))
            .collect(),
        engines: tools.engines.iter().cloned().collect(),
        personas: digests(plan.personas.iter()),
        programs: Some(tools.programs.clone()),
        profiles: digests(plan.profiles.iter()),
        ..Lock::default()
    };
    if reads_all_profiles(plan) {
        let all = tools.profiles.iter().map(|profile| (&profile.name, profile));
        lock.profiles.extend(digests(all));
    }
    for sample in &plan.samples {
        let pin = match sample.origin {
            Origin::Absent => "absent".to_owned(),
            _ => sample.digest.to_string(),
        };
        // What is nowhere, or fetched, has no place that would name it.
        let place = match &sample.origin {
            Origin::Absent | Origin::Object => sample.digest.to_string(),
            origin => origin.shown(&plan.archives),
        };
        lock.samples.insert(format!("{}: {place}", sample.set), pin);
    }
    for archive in &plan.archives {
        lock.archives
            .insert(archive.name.clone(), archive.digest.to_string());
    }
    for (source, package) in &plan.packages {
        let mut pin = format!(
            "{} {} {} {} {}",
            package.name, package.version, package.arch, package.sha256, package.url
        );
        if let Some(needs) = &package.needs {
            pin.push_str(NEEDS);
            pin.push_str(&needs.join(","));
        }
        lock.packages.insert(source.clone(), pin);
    }
    for set in plan.file_sets.values() {
        for file in &set.files {
            let path = crate::files::relative(&plan.folder, &file.path);
            lock.files.insert(path.into_string(), file.digest.to_string());
        }
    }
    for (name, sysroot) in &plan.sysroots {
        lock.sysroots.insert(name.clone(), sysroot.digest.to_string());
    }
    for file in plan.rule_sets.values().flat_map(|set| &set.files) {
        lock.rules.insert(file.path.clone(), file.digest.to_string());
    }
    lock
}

/// Whether something asks all profiles which architecture a file is of.
fn reads_all_profiles(plan: &Plan) -> bool {
    let inspects = plan
        .stages
        .values()
        .any(|stage| stage.uses.starts_with("inspect/"));
    inspects || plan.stages.values().any(|stage| stage.expansion.is_some())
}

/// What stands before the packages that one needs, where that was asked.
const NEEDS: &str = " needs=";

/// The packages that a lock pins, by their source: what is fetched is then these and no others. Their files are known only
/// when they were fetched.
pub fn packages(lock: &Lock) -> BTreeMap<String, Package> {
    let pins = lock.packages.iter().filter_map(|(source, pin)| {
        let (pin, needs) = match pin.split_once(NEEDS) {
            Some((pin, needs)) => (pin, Some(needs)),
            None => (pin.as_str(), None),
        };
        let mut words = pin.split(' ');
        let package = Package {
            name: words.next()?.to_owned(),
            version: words.next()?.to_owned(),
            arch: words.next()?.to_owned(),
            sha256: words.next()?.parse().ok()?,
            url: words.next()?.to_owned(),
            files: Vec::new(),
            needs: needs.map(|needs| {
                let names = needs.split(',').filter(|name| is_package_name(name));
                names.map(str::to_owned).collect()
            }),
        };
        Some((source.clone(), package))
    });
    pins.collect()
}

fn digests<'a, T: Serialize + 'a>(named: impl Iterator<Item = (&'a String, &'a T)>) -> Pins {
    // These types have string keys, so that writing them as JSON cannot fail.
    named
        .map(|(name, value)| {
            let json = serde_json::to_vec(value).unwrap_or_default();
            (name.clone(), Digest::of(&json).to_string())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The fixture is a lock file as version 1 wrote it.
    #[test]
    fn version_1_is_read() {
        let old: hotcell_schema::lock::LockFile =
            toml::from_str(include_str!("../../../schema/fixtures/lock-1.toml")).expect("it can be read");
        assert_eq!(old.version, 1);
        let pinned = &old.manifests["smoke.toml"];
        assert!(pinned.programs.is_none() && pinned.profiles.len() == 1);
        let mut found = pinned.clone();
        found.programs = Some(Pins::from([("/usr/bin/python3".into(), "1".into())]));
        found.profiles.insert("mips".into(), "2".into());
        assert_eq!(
            pinned.differences(&found),
            [],
            "what it did not pin is not compared"
        );
        found.profiles.insert("x86_64".into(), "3".into());
        assert_eq!(pinned.differences(&found).len(), 1);
        assert_eq!(found.differences(&found), []);
    }
}
