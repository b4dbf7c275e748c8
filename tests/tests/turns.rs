//! What stages want of the cores, and what is told of it: turns, priorities, cores of their own, weights.
#![allow(clippy::print_stderr, clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;

use hotcell_schema::turns::{FILE, Header, Line, Turn};
use hotcell_tests::{Lab, Run, guests};
use serde_json::{Value, json};

/// Puts the guest that only computes into a lab, for x86_64 and mipsel; `false`: there are no guests.
fn computing(lab: &Lab) -> bool {
    let Some(all) = guests() else { return false };
    for target in ["x86_64", "mipsel"] {
        let mut of_target = all.iter().filter(|guest| guest.target == target);
        let guest = of_target.find(|guest| guest.name == "compute").unwrap();
        lab.write(&format!("samples/{target}"), fs::read(&guest.path).unwrap());
    }
    true
}

/// A stage in which a sample computes for so many rounds, once for each copy.
fn stage(sample: &str, rounds: &str, copies: &[&str], cores: Option<Value>) -> Value {
    let mut stage = json!({
        "uses": "unicorn/linux",
        "for-each": {"sample": format!("samples.{sample}"), "copy": copies},
        "in": {"file": "${sample.file}"},
        "with": {"args": [rounds, "${copy}"]},
    });
    if let Some(cores) = cores {
        stage["cores"] = cores;
    }
    stage
}

fn manifest(lab: &Lab, cores: Option<Value>, stages: Value) {
    let mut manifest = json!({
        "hotcell": 1,
        "name": "turns",
        "samples": {"x86": {"glob": "samples/x86_64"}, "mips": {"glob": "samples/mipsel"}},
        "stages": stages,
    });
    if let Some(cores) = cores {
        manifest["cores"] = cores;
    }
    lab.manifest("turns.yaml", &manifest);
}

/// The turns of a run, by the stage of their cells.
fn turns(run: &Run) -> BTreeMap<String, Vec<Turn>> {
    let text = fs::read_to_string(run.folder.join(FILE)).unwrap();
    let mut lines = text.lines();
    let header: Header = serde_json::from_str(lines.next().unwrap()).unwrap();
    assert_eq!((header.format.as_str(), header.version), ("hotcell-turns", 1));
    assert_eq!((header.run, header.left_out), (run.facts.run.clone(), 0));
    let mut cells = BTreeMap::new();
    let mut turns: BTreeMap<String, Vec<Turn>> = BTreeMap::new();
    for line in lines {
        match serde_json::from_str(line).unwrap() {
            Line::Cell { id, instance } => {
                assert!(run.facts.instances.contains_key(&instance), "{instance}");
                assert_eq!(cells.insert(id, instance), None);
            }
            Line::Turn(turn) => {
                let stage = cells[&turn.cell].split('[').next().unwrap();
                turns.entry(stage.to_owned()).or_default().push(turn);
            }
        }
    }
    turns
}

/// What the host's first two cores are called; `None`, with a word, where there is one.
fn two_cores(lab: &Lab) -> Option<(u64, u64)> {
    let (told, _) = lab.expect(0, ["cores", "--json"]);
    let told: Value = serde_json::from_str(&told).unwrap();
    let mut cores = told["cores"]
        .as_array()?
        .iter()
        .filter_map(|core| core["core"].as_u64());
    let both = cores.next().zip(cores.next());
    if both.is_none() {
        eprintln!("skipped: this host has one core");
    }
    both
}

#[test]
fn one_has_a_core_to_itself_and_the_others_take_turns() {
    let alone = Lab::new();
    if !computing(&alone) {
        return;
    }
    let Some((first, second)) = two_cores(&alone) else {
        return;
    };
    let stages = |own: Option<Value>| {
        json!({
            "own": stage("x86", "60", &["a"], own),
            "sharing": stage("mips", "30", &["a", "b", "c"], None),
        })
    };
    manifest(&alone, None, stages(None));
    let plain = alone.run("turns.yaml", &["-j", "2", "--progress", "none"]);
    assert!(plain.all_ok() && plain.facts.cores.is_none());
    assert!(!plain.folder.join(FILE).exists(), "nobody took turns");
    let page = fs::read_to_string(plain.folder.join("report.html")).unwrap();
    assert!(!page.contains("Who ran when"));

    let lab = Lab::new();
    computing(&lab);
    let cores = json!({"pool": format!("{first},{second}"), "slice": "2ms", "on-small-host": "share"});
    let own = json!({"exclusive": true, "core": second, "priority": "high"});
    manifest(&lab, Some(cores), stages(Some(own)));
    let (told, _) = lab.expect(0, ["plan", "turns.yaml"]);
    let wanted = format!("each on 1 core, exclusive, core {second}, high priority");
    assert!(told.contains(&wanted), "{told}");
    let (told, _) = lab.expect(0, ["plan", "turns.yaml", "--json"]);
    let told: Value = serde_json::from_str(&told).unwrap();
    assert_eq!(told["stages"]["own"]["cores"]["core"], second);
    assert_eq!(told["stages"]["sharing"]["cores"], Value::Null);

    let run = lab.run("turns.yaml", &["-j", "4", "--progress", "none"]);
    assert!(run.all_ok());
    plain.assert_same_result(&run, "with cores");
    let turns = turns(&run);
    let [own] = &turns["own"][..] else {
        panic!("it kept its core: {:?}", turns["own"]);
    };
    assert_eq!(own.cores.to_string(), second.to_string());
    let sharing = &turns["sharing"];
    // How many there are is the host's to say; nobody had all of it at once.
    assert!(sharing.len() > 6, "{} turns", sharing.len());
    for turn in sharing
        .iter()
        .filter(|turn| turn.from < own.until && turn.until > own.from)
    {
        assert_eq!(turn.cores.to_string(), first.to_string());
    }
    let facts = run.facts.cores.unwrap();
    assert_eq!(facts.turns as usize, sharing.len() + 1);
    assert!(facts.switches > 10 && facts.slice_s == 0.002, "{facts:?}");
    assert!(
        facts.longest_wait_s > 0.0 && facts.longest_wait_s <= facts.promised_wait_s,
        "{facts:?}"
    );
    let pool: Vec<f64> = facts.each.iter().filter_map(|core| core.busy).collect();
    assert_eq!(pool.len(), 2);
    assert!(pool.iter().all(|busy| *busy > 0.0 && *busy <= 1.0), "{pool:?}");
    let page = fs::read_to_string(run.folder.join("report.html")).unwrap();
    assert!(page.contains("Who ran when") && page.contains("<rect class=\"g0\""));
}

#[test]
fn who_is_urgent_runs_before_the_others() {
    let lab = Lab::new();
    if !computing(&lab) {
        return;
    }
    let Some((first, _)) = two_cores(&lab) else { return };
    let stages = json!({
        "patient": stage("x86", "80", &["a"], Some(json!({"priority": "low"}))),
        "urgent": stage("x86", "60", &["a"], Some(json!({"priority": "high"}))),
    });
    let cores = json!({"pool": first.to_string(), "slice": "2ms", "on-small-host": "share"});
    manifest(&lab, Some(cores), stages);
    let run = lab.run("turns.yaml", &["-j", "2", "--progress", "none"]);
    assert!(run.all_ok());
    let turns = turns(&run);
    let (urgent, patient) = (&turns["urgent"], &turns["patient"]);
    let [from, until] = [urgent.first().unwrap().from, urgent.last().unwrap().until];
    let took = |turns: &[Turn]| {
        let within = turns
            .iter()
            .filter(|turn| turn.from >= from && turn.until <= until);
        within.map(|turn| turn.until - turn.from).sum::<u64>()
    };
    assert!(patient.last().unwrap().until > until, "it waited for the other");
    // In turns they would have had the same; who waits rises, so that it has some.
    assert!(
        took(patient) * 2 < took(urgent),
        "{} {}",
        took(patient),
        took(urgent)
    );
}

#[test]
fn weights_make_longer_slices_and_no_other_bytes() {
    let lab = Lab::new();
    if !computing(&lab) {
        return;
    }
    let Some((first, _)) = two_cores(&lab) else { return };
    let stages = json!({
        "light": stage("x86", "120", &["a"], None),
        "heavy": stage("mips", "120", &["a"], None),
    });
    let cores = json!({"pool": first.to_string(), "slice": "2ms", "on-small-host": "share"});
    manifest(&lab, Some(cores), stages);
    let shipped = fs::read_to_string(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../arch-profiles/mipsel.toml"
    ))
    .unwrap();
    lab.write("profiles/mipsel.toml", weighing(&shipped, 1000));
    let plain = lab.run("turns.yaml", &["-j", "2", "--progress", "none"]);
    // What is stored was not made with this weight, and is as good.
    lab.forget_latest();
    let again = lab.run(
        "turns.yaml",
        &["-j", "2", "--progress", "none", "--profiles", "profiles"],
    );
    assert_eq!(again.statuses(), BTreeMap::from([("cached".to_owned(), 2)]));
    let forced = [
        "-j",
        "2",
        "--progress",
        "none",
        "--profiles",
        "profiles",
        "--force",
    ];
    let weighted = lab.run("turns.yaml", &forced);
    plain.assert_same_result(&weighted, "with another weight");
    // A turn lasts as long as its slice at least, but for the last: the guest ended. Then it takes as long as the host needs.
    let shortest = |run: &Run, stage: &str| {
        let turns = turns(run).remove(stage).unwrap();
        let (_, whole) = turns.split_last().unwrap();
        whole.iter().map(|turn| turn.until - turn.from).min().unwrap()
    };
    assert!(shortest(&weighted, "heavy") >= 20_000_000, "ten times 2 ms");
    let light = shortest(&weighted, "light");
    assert!((2_000_000..20_000_000).contains(&light), "{light} ns");
    lab.write("profiles/mipsel.toml", weighing(&shipped, 5));
    let (_, told) = lab.expect(2, ["plan", "turns.yaml", "--profiles", "profiles"]);
    assert!(told.contains("10 to 1000 percent"), "{told}");
}

/// An arch profile with another weight.
fn weighing(profile: &str, weight: u32) -> String {
    let lines = profile.lines().filter(|line| !line.starts_with("weight"));
    let text = lines.collect::<Vec<_>>().join("\n");
    text.replace("[unicorn]", &format!("[unicorn]\nweight = {weight}"))
}

#[test]
fn what_a_host_cannot_give_is_refused_or_shared_and_said() {
    let lab = Lab::new();
    if !computing(&lab) {
        return;
    }
    let stages = json!({"own": stage("x86", "5", &["a"], Some(json!({"exclusive": true})))});
    // No part of the pool may be exclusive; how large an open pool is, only the host knows.
    let cores = json!({"pool": "0-", "exclusive-max": "0%", "on-small-host": "share"});
    manifest(&lab, Some(cores), stages.clone());
    let (told, _) = lab.expect(0, ["plan", "turns.yaml"]);
    assert!(
        told.contains("a small host: stage `own` has turns on 1 core(s)"),
        "{told}"
    );
    let run = lab.run("turns.yaml", &["--progress", "none"]);
    assert!(run.all_ok());
    let said = |text: &String| text.contains("stage `own` has turns");
    assert!(run.facts.fallbacks.iter().any(said), "{:?}", run.facts.fallbacks);
    // A closed pool is judged with the document.
    manifest(&lab, Some(json!({"pool": "2-3", "exclusive-max": "0%"})), stages);
    let (_, told) = lab.expect(2, ["plan", "turns.yaml"]);
    assert!(told.contains("E0607"), "{told}");
}
