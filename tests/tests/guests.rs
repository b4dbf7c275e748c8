//! Every guest program on every architecture that has a profile: it does under `unicorn/linux` what its source says, as it
//! did under qemu-user before.
#![allow(clippy::unwrap_used)]

use std::{collections::BTreeMap, fmt::Write as _, fs};

use hotcell_tests::{Guest, Lab, guests};
use serde_json::{Map, Value, json};

#[test]
fn every_guest_does_what_its_source_says() {
    let Some(all) = guests() else { return };
    let lab = Lab::new();
    let all: Vec<Guest> = all.into_iter().filter(|guest| guest.profile.is_some()).collect();
    assert!(!all.is_empty());
    let mut by_name: BTreeMap<&str, Vec<&Guest>> = BTreeMap::new();
    for guest in &all {
        lab.write(
            &format!("{}/{}", guest.name, guest.target),
            fs::read(&guest.path).unwrap(),
        );
        by_name.entry(&guest.name).or_default().push(guest);
    }
    let (mut samples, mut stages) = (Map::new(), Map::new());
    for (name, guests) in &by_name {
        let mut list = "path,variant\n".to_owned();
        for guest in guests {
            writeln!(list, "{name}/{0},{0}", guest.target).unwrap();
        }
        lab.write(&format!("{name}.csv"), list);
        samples.insert((*name).into(), json!({"list": format!("{name}.csv")}));
        stages.insert(
            (*name).into(),
            json!({
                "uses": "unicorn/linux",
                "for-each": {"sample": format!("samples.{name}")},
                "in": {"file": "${sample.file}"},
                "with": {"args": guests[0].args, "cwd": "/tmp"},
            }),
        );
    }
    let manifest: Value =
        json!({"hotcell": 1, "name": "guests", "seed": 5, "samples": samples, "stages": stages});
    lab.manifest("guests.yaml", &manifest);
    let run = lab.run("guests.yaml", &["--progress", "none"]);
    let mut wrong = String::new();
    let mut seen = 0;
    for instance in &run.report.instances {
        let variant = run.variant(instance);
        let guest = all
            .iter()
            .find(|guest| guest.name == instance.stage && guest.target == variant)
            .unwrap();
        seen += 1;
        let outcome = instance
            .outcome
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default();
        let stdout = String::from_utf8_lossy(&run.output(instance, "stdout")).into_owned();
        if outcome != guest.outcome || guest.stdout.as_ref().is_some_and(|wanted| *wanted != stdout) {
            writeln!(
                wrong,
                "{} {variant}: {outcome}, wrote {stdout:?}; its source says {}, {:?}",
                guest.name, guest.outcome, guest.stdout
            )
            .unwrap();
        }
    }
    assert_eq!(seen, all.len());
    assert!(wrong.is_empty(), "{wrong}");
}

/// What an analyst looks for is found on every architecture, and nothing of it in a guest that does nothing of the kind.
#[test]
fn injection_and_evasion_are_found_on_every_architecture() {
    const WANTED: [(&str, &[&str]); 3] = [
        (
            "injects",
            &[
                "asks-for-tracer",
                "attaches-to-process",
                "injects-with-ptrace",
                "reads-memory-of-others",
                "runs-written-memory",
                "writes-memory-of-others",
            ],
        ),
        (
            "evades",
            &[
                "asks-for-tracer",
                "looks-for-analysis-tools",
                "looks-for-virtual-machine",
                "sleeps-long",
                "times-its-sleep",
            ],
        ),
        ("files", &[]),
    ];
    let Some(all) = guests() else { return };
    let lab = Lab::new();
    let (mut samples, mut stages) = (Map::new(), Map::new());
    let mut count = 0;
    for (name, _) in WANTED {
        let mut list = "path,variant\n".to_owned();
        for guest in all
            .iter()
            .filter(|guest| guest.name == name && guest.profile.is_some())
        {
            lab.write(
                &format!("{name}/{}", guest.target),
                fs::read(&guest.path).unwrap(),
            );
            writeln!(list, "{name}/{0},{0}", guest.target).unwrap();
            count += 1;
        }
        lab.write(&format!("{name}.csv"), list);
        samples.insert(name.into(), json!({"list": format!("{name}.csv")}));
        let each = json!({"sample": format!("samples.{name}")});
        stages.insert(
            format!("run-{name}"),
            json!({"uses": "unicorn/linux", "for-each": each, "in": {"file": "${sample.file}"}, "with": {"cwd": "/tmp"}}),
        );
        stages.insert(
            name.into(),
            json!({"uses": "detect/rules", "for-each": each, "in": {"events": format!("stages.run-{name}.out.events")}}),
        );
    }
    let manifest: Value =
        json!({"hotcell": 1, "name": "analyst", "seed": 5, "samples": samples, "stages": stages});
    lab.manifest("analyst.yaml", &manifest);
    let run = lab.run("analyst.yaml", &["--progress", "none"]);
    let (mut wrong, mut seen) = (String::new(), 0);
    for (name, wanted) in WANTED {
        for instance in run.stage(name) {
            let mut found: Vec<&str> = instance
                .findings
                .iter()
                .map(|finding| finding.rule.as_str())
                .collect();
            found.sort_unstable();
            found.dedup();
            // What only some processors can be asked.
            let more: &[&str] = match (name, run.variant(instance).as_str()) {
                ("evades", "x86" | "x86_64") => &["asks-for-hypervisor", "times-the-processor"],
                ("evades", target) if !target.starts_with("arm") && !target.starts_with("ppc") => {
                    &["times-the-processor"]
                }
                _ => &[],
            };
            let mut wanted = [wanted, more].concat();
            wanted.sort_unstable();
            if found != wanted {
                writeln!(wrong, "{name} {}: {found:?}", run.variant(instance)).unwrap();
            }
            seen += 1;
        }
    }
    assert_eq!(seen, count);
    assert!(wrong.is_empty(), "{wrong}");
}
