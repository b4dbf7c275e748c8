//! Goldens of observed engines, over recorded event streams.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use hotcell_judge::contents::Contents;
use hotcell_judge::golden::{Goldens, Judged, Run};
use hotcell_judge::observed::{Absorb, Observation, absorb, changes, learn};
use hotcell_judge::text::{self, Style};
use hotcell_schema::digest::Digest;
use hotcell_schema::event::{
    Event, File, FileOp, Header, Network, NetworkOp, Process, ProcessOp, Task, What, Witness,
};
use hotcell_schema::golden::Observed;
use hotcell_schema::outcome::{Outcome, Status};
use hotcell_schema::report::{InstanceReport, OutputReport, Report};
use hotcell_schema::verdict::Verdict;
use indexmap::IndexMap;

/// A stream that is being recorded.
struct Stream(Vec<Event>);

impl Stream {
    fn new() -> Self {
        Self(Vec::new())
    }

    fn push(&mut self, (pid, parent): (u32, u32), what: What) -> &mut Self {
        let seq = self.0.len() as u64;
        self.0.push(Event {
            seq,
            // Times differ from run to run: they must not matter.
            time: seq * u64::from(pid),
            witness: Witness::Kernel,
            task: Task {
                pid,
                tid: pid,
                parent,
                image: "/bin/bot".into(),
            },
            what,
            raw: None,
        });
        self
    }

    fn file(&mut self, task: (u32, u32), op: FileOp, path: &str) -> &mut Self {
        self.push(task, What::File(File::new(op, path)))
    }

    fn fork(&mut self, task: (u32, u32), child: u32) -> &mut Self {
        let mut fork = Process::new(ProcessOp::Fork);
        fork.child = Some(child);
        self.push(task, What::Process(fork))
    }

    fn exit(&mut self, task: (u32, u32), code: i32) -> &mut Self {
        let mut exit = Process::new(ProcessOp::Exit);
        exit.code = Some(code);
        self.push(task, What::Process(exit))
    }

    fn connect(&mut self, task: (u32, u32), peer: &str) -> &mut Self {
        self.push(
            task,
            What::Network(Network {
                op: NetworkOp::Connect,
                protocol: "tcp".into(),
                local: Some("10.0.2.15:51234".into()),
                peer: Some(peer.into()),
                host: None,
                request: None,
                bytes: None,
                errno: Some("ECONNREFUSED".into()),
            }),
        )
    }

    fn bytes(&self) -> Vec<u8> {
        let header = Header::new("run", "qemu-user/linux", "mipsel");
        let mut out = serde_json::to_vec(&header).unwrap();
        for event in &self.0 {
            out.push(b'\n');
            serde_json::to_writer(&mut out, event).unwrap();
        }
        out
    }

    fn seen(&self) -> Observation {
        Observation::of_events(&self.bytes())
    }
}

/// A bot: it reads a file, forks two children, writes its own pid file. `first`: its process number; `turned`: the children
/// run in the other order; `extra`: something that only some runs have.
fn bot(first: u32, turned: bool, extra: bool) -> Stream {
    let mut stream = Stream::new();
    let (root, one, two) = ((first, 1), (first + 3, first), (first + 9, first));
    stream.file(root, FileOp::Open, "/etc/passwd");
    if extra {
        stream.file(root, FileOp::Stat, "/etc/localtime");
    }
    stream.fork(root, one.0);
    let child = |stream: &mut Stream, task: (u32, u32)| {
        if task == one {
            stream.connect(task, "192.0.2.1:23");
            stream.exit(task, 1);
        } else {
            stream.file(task, FileOp::Written, &format!("/tmp/bot.{}.pid", task.0));
            stream.connect(task, &format!("192.0.2.7:{}", 40_000 + first % 1_000));
        }
    };
    if turned {
        // The second child shows up even before its fork is told.
        child(&mut stream, two);
        stream.fork(root, two.0);
        child(&mut stream, one);
    } else {
        child(&mut stream, one);
        stream.fork(root, two.0);
        child(&mut stream, two);
    }
    stream.file(root, FileOp::Delete, &format!("/proc/{first}/x"));
    stream.exit(root, 0);
    stream
}

fn lines(golden: &Observed, seen: &Observation) -> Vec<String> {
    changes(golden, seen)
        .iter()
        .flat_map(|change| text::lines(change, Style::FULL))
        .map(|line| line.text)
        .collect()
}

#[test]
fn pids_times_ports_and_interleaving_do_not_matter() {
    assert_eq!(bot(1_000, false, false).seen(), bot(23_456, true, false).seen());
    let golden = learn("run", "qemu-user/linux", &[bot(1_000, false, false).seen()]);
    let text = hotcell_schema::golden::GoldenFile::Observed(golden.clone())
        .text()
        .unwrap();
    for wanted in [
        r#""task": "0.2""#,
        r#""resource":"/tmp/bot.PID.pid""#,
        r#""resource":"tcp 192.0.2.7:*""#,
        r#""resource":"tcp 192.0.2.1:23","result":"ECONNREFUSED""#,
        r#""resource":"/proc/PID/x""#,
    ] {
        assert!(text.contains(wanted), "{wanted}\n{text}");
    }
    for number in ["1000", "1003", "1009", "40000", "51234"] {
        assert!(!text.contains(number), "{number}\n{text}");
    }
    assert_eq!(lines(&golden, &bot(500, true, false).seen()), [""; 0]);
}

#[test]
fn what_only_some_runs_have_may_be_and_all_else_must_not() {
    let runs = [
        bot(1_000, false, false).seen(),
        bot(2_000, true, true).seen(),
        bot(3_000, false, false).seen(),
    ];
    let golden = learn("run", "qemu-user/linux", &runs);
    assert_eq!(golden.runs, 3);
    assert_eq!(golden.may.len(), 1);
    assert_eq!(golden.may[0].facts[0].resource, "/etc/localtime");
    for run in &runs {
        assert_eq!(lines(&golden, run), [""; 0]);
    }
    let mut other = bot(4_000, false, true);
    other.file((4_000, 1), FileOp::Written, "/etc/cron.d/x");
    other.0.remove(0);
    assert_eq!(
        lines(&golden, &other.seen()),
        [
            "- tasks[0]: file/open /etc/passwd by /bin/bot",
            "+ tasks[0]: file/written /etc/cron.d/x by /bin/bot",
        ]
    );
}

#[test]
fn order_counts_within_a_task_where_it_was_the_same_in_all_runs() {
    let root = (77, 1);
    let stream = |order: [&str; 3]| {
        let mut stream = Stream::new();
        for path in order {
            stream.file(root, FileOp::Open, path);
        }
        stream.seen()
    };
    let golden = learn("run", "x", &[stream(["/a", "/b", "/c"])]);
    let told = lines(&golden, &stream(["/b", "/a", "/c"]));
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains("moved from"), "{told:?}");
    // Two runs that differ in the order of two facts leave only that of the third.
    let golden = learn(
        "run",
        "x",
        &[stream(["/a", "/b", "/c"]), stream(["/b", "/a", "/c"])],
    );
    assert_eq!(lines(&golden, &stream(["/b", "/a", "/c"])), [""; 0]);
    assert_eq!(lines(&golden, &stream(["/a", "/b", "/c"])), [""; 0]);
    assert_eq!(golden.must[0].in_order.len() + golden.must[0].any_order.len(), 3);
    assert_eq!(golden.must[0].any_order.len(), 1);
    assert!(!lines(&golden, &stream(["/c", "/b", "/a"])).is_empty());
}

#[test]
fn accepting_again_widens_or_narrows() {
    let mut less = bot(110, false, false);
    less.0.remove(0);
    less.file((110, 1), FileOp::List, "/new");
    let seen = less.seen();
    let learned = || learn("run", "x", &[bot(1_000, false, false).seen()]);
    let mut wider = learned();
    absorb(&mut wider, &seen, Absorb::Widen);
    assert_eq!(
        lines(&wider, &seen),
        ["- tasks[0]: file/open /etc/passwd by /bin/bot"]
    );
    assert_eq!(wider.must, learned().must);
    let mut narrower = learned();
    absorb(&mut narrower, &seen, Absorb::All);
    assert_eq!(lines(&narrower, &seen), [""; 0]);
    assert_eq!(lines(&narrower, &bot(1_000, false, false).seen()), [""; 0]);
    let mut other_task = learned();
    absorb(&mut other_task, &seen, Absorb::Task("0.1"));
    assert_eq!(lines(&other_task, &seen).len(), 2);
}

proptest::proptest! {
    /// Whatever a golden was learned from meets it, in any order of learning; and more runs never forbid what fewer allowed.
    #[test]
    fn what_was_learned_is_met(runs in proptest::collection::vec(proptest::collection::vec((0u8..3, 0u8..6), 0..12), 1..5)) {
        let seen: Vec<Observation> = runs
            .iter()
            .map(|run| {
                let mut stream = Stream::new();
                stream.file((50, 1), FileOp::Open, "/start");
                for (task, path) in run {
                    let task = if *task == 0 { (50, 1) } else { (50 + u32::from(*task), 50) };
                    stream.file(task, FileOp::Open, &format!("/{path}"));
                }
                stream.seen()
            })
            .collect();
        let golden = learn("run", "x", &seen);
        for one in &seen {
            proptest::prop_assert_eq!(lines(&golden, one), Vec::<String>::new());
        }
        let text = hotcell_schema::golden::GoldenFile::Observed(golden.clone()).text().unwrap();
        let read = hotcell_schema::golden::GoldenFile::read(text.as_bytes()).unwrap();
        proptest::prop_assert_eq!(read, hotcell_schema::golden::GoldenFile::Observed(golden));
    }
}

#[test]
fn a_process_bomb_is_bounded() {
    let mut stream = Stream::new();
    for pid in 100..6_000u32 {
        stream.fork((pid, pid - 1), pid + 1);
    }
    let golden = learn("run", "x", &[stream.seen()]);
    let longest = golden.must.iter().map(|task| task.task.len()).max().unwrap();
    assert!(longest <= 400, "{longest}");
}

/// A report with one observed instance, and its events.
struct Recorded {
    report: Report,
    events: Vec<u8>,
}

impl Contents for Recorded {
    fn output(&self, _: &OutputReport, _: u64) -> Option<Vec<u8>> {
        Some(self.events.clone())
    }
}

fn recorded(stream: &Stream, outcome: i32) -> Recorded {
    let events = stream.bytes();
    let output = OutputReport {
        path: "stages/run/only/events.jsonl".into(),
        digest: Digest::of(&events),
        length: events.len() as u64,
    };
    let run = InstanceReport {
        name: "run".into(),
        stage: "run".into(),
        uses: "command".into(),
        axes: IndexMap::new(),
        sample: None,
        arch: None,
        status: Status::Ok,
        reason: None,
        outcome: Some(Outcome::Exited(outcome)),
        outputs: [("events".to_owned(), output)].into_iter().collect(),
        findings: Vec::new(),
        responses: Vec::new(),
        unsupported: Vec::new(),
        behaviour: Vec::new(),
    };
    let report = Report {
        format: "hotcell-report".into(),
        version: 1,
        name: "test".into(),
        manifest: Digest::of(b"manifest"),
        seed: 7,
        hotcell: "0".into(),
        variants: Vec::new(),
        selection: None,
        engines: IndexMap::new(),
        samples: IndexMap::new(),
        instances: vec![run],
        attack: IndexMap::new(),
    };
    Recorded { report, events }
}

#[test]
fn golden_files_of_observed_stages() {
    let folder = tempfile::tempdir().unwrap();
    let observed: BTreeSet<String> = ["run".to_owned()].into();
    let goldens = Goldens::new(folder.path().to_owned(), Vec::new(), Vec::new(), observed, true);
    let all = [
        recorded(&bot(1_000, false, false), 0),
        recorded(&bot(2_000, true, true), 0),
        recorded(&bot(3_000, false, false), 0),
    ];
    let mut runs: Vec<Run<'_>> = Vec::new();
    for recorded in &all {
        runs.push(Run {
            report: &recorded.report,
            contents: recorded,
        });
    }
    assert!(goldens.has_to_learn(runs[0].report).unwrap());
    assert_eq!(goldens.accept(&runs, false).unwrap().len(), 1);
    assert!(!goldens.has_to_learn(runs[0].report).unwrap());
    let verdict = |recorded: &Recorded| -> Judged {
        let run = Run {
            report: &recorded.report,
            contents: recorded,
        };
        goldens.judge(run).unwrap().remove(0)
    };
    for one in &all {
        assert_eq!(verdict(one).check.verdict, Verdict::Met);
    }
    // Another outcome and another file are two decisions of a review.
    let mut stream = bot(109, false, false);
    stream.file((109, 1), FileOp::Create, "/etc/cron.d/x");
    let other = recorded(&stream, 3);
    let mut judged = verdict(&other);
    let steps = judged.steps();
    let parts: Vec<&str> = steps.iter().map(|step| step.part.as_str()).collect();
    assert_eq!(parts, ["tasks[0]", "tasks[instance]"]);
    judged.accept_step(&steps[0]).unwrap();
    assert_eq!(verdict(&other).steps().len(), 1);
    for one in &all {
        assert_eq!(
            verdict(one).check.verdict,
            Verdict::Met,
            "a widened golden still allows what it did"
        );
    }
}

/// What a command wrote to standard output.
struct Written(Report, &'static str);

impl Contents for Written {
    fn output(&self, _: &OutputReport, _: u64) -> Option<Vec<u8>> {
        Some(self.1.as_bytes().to_vec())
    }
}

/// Of what a command prints, the lines that every run has must be there; what differs from run to run is no matter.
#[test]
fn steady_lines_of_standard_output_are_facts() {
    let folder = tempfile::tempdir().unwrap();
    let observed: BTreeSet<String> = ["run".to_owned()].into();
    let goldens = Goldens::new(folder.path().to_owned(), Vec::new(), Vec::new(), observed, true);
    let written = |text: &'static str| {
        let mut report = recorded(&bot(1_000, false, false), 0).report;
        let one = &mut report.instances[0];
        one.outputs.clear();
        let output = OutputReport {
            path: "stages/run/only/stdout".into(),
            digest: Digest::of(text.as_bytes()),
            length: text.len() as u64,
        };
        one.outputs.insert("stdout".into(), output);
        Written(report, text)
    };
    let all = [
        written("begin\nat 12:01\n\nend\n"),
        written("begin\nend\nat 12:02\n"),
    ];
    let run = |one: &'static Written| Run {
        report: &one.0,
        contents: one,
    };
    let all: &'static [Written] = Box::leak(Box::new(all));
    goldens.accept(&[run(&all[0]), run(&all[1])], true).unwrap();
    let verdict = |text: &'static str| {
        let one: &'static Written = Box::leak(Box::new(written(text)));
        goldens.judge(run(one)).unwrap().remove(0).check.verdict
    };
    assert_eq!(verdict("begin\nat 13:00\nnew\nend\n"), Verdict::Met);
    let Verdict::NotMet(changes) = verdict("begin\nat 13:00\n") else {
        panic!("a line is gone")
    };
    let told: Vec<String> = changes
        .iter()
        .flat_map(|change| text::lines(change, Style::FULL))
        .map(|line| line.text)
        .collect();
    assert_eq!(told, ["- tasks[instance]: stdout/line end"]);
}
