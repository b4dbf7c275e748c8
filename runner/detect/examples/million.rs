//! Judge a million made-up events by the shipped rules and print how long that took: `cargo run --release -p
//! hotcell-detect --example million [COPIES]`, where COPIES says how often every shipped rule stands in the set.
#![allow(clippy::print_stdout)]

use std::time::Instant;

use hotcell_detect::{RuleSet, shipped_rules};
use hotcell_schema::event::{
    Access, Event, File, FileOp, Header, Network, NetworkOp, Process, ProcessOp, Syscall, Task, What, Witness,
};

const EVENTS: u64 = 1_000_000;

fn what(number: u64) -> What {
    match number % 20 {
        0..=11 => What::Syscall(Syscall {
            name: ["read", "write", "mmap", "futex", "ptrace"][(number % 5) as usize].into(),
            number: number % 300,
            args: Vec::new(),
            result: Some(0),
            errno: None,
            support: Default::default(),
        }),
        12 => What::Process(Process {
            path: Some(format!("/usr/bin/tool{}", number % 50)),
            argv: vec!["tool".into(), format!("--file=/srv/data/{number}")],
            ..Process::new(ProcessOp::Exec)
        }),
        13..=16 => What::File(File {
            access: Some(Access::Read),
            ..File::new(FileOp::Open, format!("/srv/data/{}/item{number}", number % 97))
        }),
        17 => What::File(File::new(
            FileOp::Written,
            format!("/srv/data/{}/item{number}", number % 97),
        )),
        18 => What::File(File::new(FileOp::Stat, format!("/usr/share/{number}"))),
        _ => What::Network(Network {
            op: NetworkOp::Connect,
            protocol: "tcp".into(),
            local: None,
            peer: Some(format!("192.0.2.{}:80", number % 250)),
            host: None,
            request: None,
            bytes: None,
            errno: None,
        }),
    }
}

fn main() {
    let copies: usize = std::env::args()
        .nth(1)
        .and_then(|text| text.parse().ok())
        .unwrap_or(1);
    let mut files: Vec<(String, String)> = Vec::new();
    for copy in 0..copies {
        for (name, text) in shipped_rules() {
            let text = text.replacen("id = \"", &format!("id = \"c{copy}-"), 1);
            files.push((format!("{copy}/{name}"), text));
        }
    }
    let files: Vec<(&str, &str)> = files
        .iter()
        .map(|(name, text)| (name.as_str(), text.as_str()))
        .collect();
    let start = Instant::now();
    let Ok(rules) = RuleSet::parse(&files) else { return };
    println!("{} rules read in {:?}", rules.rules().len(), start.elapsed());
    let header = Header::new("bench", "unicorn/linux", "x86_64");
    let events: Vec<Event> = (0..EVENTS)
        .map(|number| Event {
            seq: number,
            time: number * 1000,
            witness: Witness::Engine,
            task: Task {
                pid: (number % 40) as u32 + 1,
                tid: (number % 40) as u32 + 1,
                parent: 1,
                image: "/sample".into(),
            },
            what: what(number),
            raw: None,
        })
        .collect();
    let start = Instant::now();
    let findings = rules.evaluate(&header, &events, None);
    println!(
        "{EVENTS} events judged in {:?}, {} findings",
        start.elapsed(),
        findings.len()
    );
}
