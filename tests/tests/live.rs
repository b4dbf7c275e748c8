//! Analysers that run beside a guest: what they find acts, and who does not keep up is told, and keeps nobody waiting.
#![allow(clippy::unwrap_used, clippy::print_stderr)]

use std::fs;

use hotcell_schema::event::{Event, What};
use hotcell_schema::finding::Findings;
use hotcell_schema::outcome::{Outcome, Status};
use hotcell_schema::report::InstanceReport;
use hotcell_schema::respond::Action;
use hotcell_tests::{Lab, Run, guests};
use serde_json::{Value, json};

/// Tells of files that are made, with the event that shows it; and of what is no event of the kinds that it asked for.
const ALARM: &str = r#"
read -r header
while read -r line; do
  seq=${line#*'"seq":'}; seq=${seq%%,*}
  case $line in
    *'"file":{"op":"create","path":"/tmp/deeds-file"'*)
      echo "{\"rule\":\"makes-a-file\",\"title\":\"It makes a file\",\"severity\":\"high\",\"evidence\":[{\"event\":$seq,\"text\":\"made\"}]}" ;;
    *'"syscall":'*)
      echo "{\"rule\":\"not-asked-for\",\"title\":\"A call\",\"severity\":\"critical\"}" ;;
  esac
done
"#;
/// Reads nothing, for a long time.
const SLOW: &str = "sleep 30";
/// Ends at once.
const DEAD: &str = "exit 0";
/// Breaks.
const BROKEN: &str = "read -r line; echo nonsense; exit 3";

/// A stage that runs the guest: its name, the guest's arguments, and the analysers beside it, each with its script and `live`.
type Guarded<'a> = (&'a str, Value, &'a [(&'a str, &'a str, Value)]);

/// The guest that does deeds, in such stages.
fn deeds(stages: &[Guarded<'_>]) -> Option<(Lab, Run)> {
    let all = guests()?;
    let lab = Lab::new();
    let guest = all
        .iter()
        .find(|guest| guest.name == "deeds" && guest.target == "aarch64");
    lab.write("deeds", fs::read(&guest.unwrap().path).unwrap());
    let mut list = serde_json::Map::new();
    for (name, args, analysers) in stages {
        let run = json!({
            "uses": "qemu-user/linux",
            "for-each": {"sample": "samples.deeds"},
            "in": {"file": "${sample.file}"},
            "with": {"args": args, "cwd": "/tmp"},
            "limits": {"wall": if name.starts_with("frozen") { "12s" } else { "2m" }},
        });
        list.insert((*name).to_owned(), run);
        for (analyser, script, live) in *analysers {
            lab.write(&format!("{analyser}.sh"), script);
            let analyser_stage = json!({
                "uses": "command",
                "for-each": {"sample": "samples.deeds"},
                "in": {"events": format!("stages.{name}.out.events"), "file": "${sample.file}"},
                "with": {
                    "run": ["sh", format!("{analyser}.sh")],
                    "stdin": "events",
                    "outputs": {"found": {"type": "findings", "from": "stdout"}},
                    "live": live,
                },
                "limits": {"wall": if *script == SLOW { "1s" } else { "5m" }},
            });
            list.insert((*analyser).to_owned(), analyser_stage);
        }
    }
    let manifest = json!({
        "hotcell": 1,
        "name": "live",
        "samples": {"deeds": {"glob": "deeds"}},
        "stages": list,
    });
    lab.manifest("live.yaml", &manifest);
    let output = lab.hotcell(["run", "live.yaml", "--progress", "none"]);
    let run = lab.latest();
    if let Some(why) = run.unwatched() {
        eprintln!("skipped: {why}");
        return None;
    }
    eprintln!("{}", String::from_utf8_lossy(&output.stderr));
    Some((lab, run))
}

fn one<'r>(run: &'r Run, stage: &'r str) -> &'r InstanceReport {
    run.stage(stage).next().unwrap()
}

fn events(run: &Run, stage: &str) -> Vec<Event> {
    let bytes = run.output(one(run, stage), "events");
    let lines = std::str::from_utf8(&bytes).unwrap().lines().skip(1);
    lines.map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Events that an analyser did not take, as the list of events tells it.
fn unheard(run: &Run, stage: &str) -> u64 {
    let events = events(run, stage);
    let mut told = events.iter().filter_map(|event| match &event.what {
        What::Resource(resource) if resource.limit == "live" => Some(resource.value),
        _ => None,
    });
    told.next().unwrap_or(0)
}

#[test]
fn what_an_analyser_finds_ends_the_guest_or_makes_it_stand_still() {
    let forever = json!(["create", "1000000"]);
    let live = |respond: &str| json!({"on": ["file", "process"], "at": "high", "respond": respond});
    let mild = json!({"on": ["file"], "at": "critical", "respond": "kill"});
    let stages: [Guarded<'_>; 3] = [
        (
            "killed",
            forever.clone(),
            &[("kills", ALARM, live("kill")), ("mild", ALARM, mild.clone())],
        ),
        ("frozen", forever, &[("freezes", ALARM, live("freeze"))]),
        ("free", json!(["create", "2"]), &[("looks-on", ALARM, mild)]),
    ];
    let Some((lab, run)) = deeds(&stages) else { return };
    for (stage, analyser, action) in [
        ("killed", "kills", Action::Kill),
        ("frozen", "freezes", Action::Freeze),
    ] {
        let instance = one(&run, stage);
        assert_eq!(instance.status, Status::Ok, "{stage}");
        let rule = format!("{analyser}:makes-a-file");
        let outcome = match action {
            Action::Kill => Outcome::Ended(rule.clone()),
            Action::Freeze => Outcome::wall_time(),
        };
        assert_eq!(instance.outcome, Some(outcome), "{stage}");
        let [response] = &instance.responses[..] else {
            panic!("{stage}: {:?}", instance.responses)
        };
        assert_eq!((&response.rule, response.action), (&rule, action));
        let decided = events(&run, stage)
            .into_iter()
            .find(|event| event.seq == response.event);
        let decided = decided.unwrap().what;
        assert!(
            matches!(&decided, What::File(file) if file.path == "/tmp/deeds-file"),
            "{decided:?}"
        );
    }
    let free = one(&run, "free");
    assert_eq!(
        (&free.outcome, free.responses.len()),
        (&Some(Outcome::Exited(0)), 0)
    );
    // The result of an analyser is what it finds in all that is known of the guest.
    let found: Findings = serde_json::from_slice(&run.output(one(&run, "looks-on"), "found")).unwrap();
    let made = events(&run, "free")
        .iter()
        .filter(|event| matches!(&event.what, What::File(file) if file.path == "/tmp/deeds-file" && file.op == hotcell_schema::event::FileOp::Create))
        .map(|event| event.seq)
        .collect::<Vec<_>>();
    let seen: Vec<u64> = found
        .findings
        .iter()
        .filter_map(|one| one.evidence[0].event)
        .collect();
    assert_eq!((seen, found.findings[0].rule.as_str()), (made, "makes-a-file"));
    // What comes from the store is not watched again; another analyser is another run.
    lab.forget_latest();
    lab.run("live.yaml", &[]);
    let ran = |run: &Run, stage: &str| run.facts.instances[&one(run, stage).name].status;
    assert_eq!(ran(&lab.latest(), "killed"), Status::Cached);
    lab.write("kills.sh", format!("{ALARM}# another\n"));
    lab.run("live.yaml", &[]);
    let again = lab.latest();
    assert_eq!(ran(&again, "killed"), Status::Ok);
    assert_eq!(ran(&again, "mild"), Status::Ok);
    assert_eq!(ran(&again, "free"), Status::Cached);
}

#[test]
fn who_does_not_keep_up_is_told_and_keeps_nobody_waiting() {
    let live = json!({"respond": "kill"});
    let few = json!(["create", "300"]);
    let stages: [Guarded<'_>; 3] = [
        ("beside-slow", few.clone(), &[("slow", SLOW, live.clone())]),
        ("beside-dead", few.clone(), &[("dead", DEAD, live.clone())]),
        ("beside-broken", few, &[("broken", BROKEN, live)]),
    ];
    let Some((_lab, run)) = deeds(&stages) else { return };
    for stage in ["beside-slow", "beside-dead", "beside-broken"] {
        let instance = one(&run, stage);
        assert_eq!(instance.outcome, Some(Outcome::Exited(0)), "{stage}");
        // A pipe holds some of them.
        let (unheard, all) = (unheard(&run, stage), events(&run, stage).len() as u64);
        assert!(unheard > 0 && unheard <= all, "{stage}: {unheard} of {all}");
    }
    assert_eq!(one(&run, "slow").status, Status::Interrupted);
    assert_eq!(one(&run, "dead").status, Status::Ok);
    let broken = one(&run, "broken");
    assert_eq!(broken.status, Status::Failed);
    assert!(
        broken.reason.clone().unwrap().contains("exit code 3"),
        "{:?}",
        broken.reason
    );
}
