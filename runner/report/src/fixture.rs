//! Invented runs for tests: a dropper on five architectures, a hostile sample, a long stream.
//!
//! The samples never existed; names, addresses (RFC 5737) and digests are made up here.

mod cores;
mod file;
mod stream;

use std::collections::BTreeMap;
use std::io;

use hotcell_schema::digest::Digest;
use hotcell_schema::event::Support;
use hotcell_schema::finding::{Evidence, Finding, Findings, Severity};
use hotcell_schema::guest::Address;
use hotcell_schema::job::{LeftFile, LinuxResult, PayloadResult, TracedInstruction, UnsupportedCall};
use hotcell_schema::outcome::{Outcome, Status};
use hotcell_schema::report::{InstanceFacts, InstanceReport, OutputReport, Report, RunFacts, SampleReport};
use hotcell_schema::turns::Turns;
use indexmap::IndexMap;

use crate::assemble::{Assembly, assemble};
use crate::outputs::Outputs;
pub use cores::on_cores;
pub use stream::Stream;

/// Text that tries to break out of a page, a terminal and a line: markup, an attribute's end, ANSI, right-to-left override.
pub const HOSTILE: &str = "</script><img src=x onerror=\"document.title='owned'\">\"'><svg onload=alert(1)>\u{202e}gpj.exe\u{1b}[31m\n\u{200b}&lt;{{7*7}}";

/// Outputs kept in memory.
#[derive(Debug, Default, Clone)]
pub struct Kept {
    ports: BTreeMap<(String, String), Vec<u8>>,
    objects: BTreeMap<Digest, Vec<u8>>,
}

impl Outputs for Kept {
    fn read(&self, instance: &str, port: &str) -> io::Result<Option<Vec<u8>>> {
        Ok(self.ports.get(&(instance.to_owned(), port.to_owned())).cloned())
    }

    fn object(&self, digest: &Digest) -> io::Result<Option<Vec<u8>>> {
        Ok(self.objects.get(digest).cloned())
    }
}

/// An invented run.
#[derive(Debug, Clone)]
pub struct Fixture {
    /// Its report.
    pub report: Report,
    /// Its host facts.
    pub facts: RunFacts,
    /// Who ran when on which core.
    pub turns: Turns,
    /// What its instances gave.
    pub outputs: Kept,
}

struct Builder {
    assembly: Assembly,
    outputs: Kept,
}

impl Builder {
    fn new(name: &str) -> Self {
        let engines = [
            ("hotcell-inspect", "0.1.0 sha256:3a9e41c07d52"),
            ("hotcell-unicorn", "0.1.0 unicorn 2.1.5 sha256:b4170c6e90fd"),
        ];
        Self {
            assembly: Assembly {
                name: name.into(),
                manifest: Digest::of(name.as_bytes()),
                seed: 7,
                hotcell: "0.1.0".into(),
                variants: Vec::new(),
                selection: None,
                engines: engines
                    .map(|(name, identity)| (name.into(), identity.into()))
                    .into(),
                samples: IndexMap::new(),
                instances: Vec::new(),
            },
            outputs: Kept::default(),
        }
    }

    fn sample(&mut self, name: &str, set: &str, family: Option<&str>, length: u64) -> String {
        let digest = Digest::of(name.as_bytes());
        let sample = SampleReport {
            digest,
            set: set.into(),
            sets: Vec::new(),
            name: name.into(),
            length,
            arch: None,
            family: family.map(Into::into),
            variant: None,
            label: None,
            severity: None,
        };
        self.assembly.samples.insert(digest.to_string(), sample);
        digest.to_string()
    }

    fn instance(&mut self, stage: &str, uses: &str, axes: &[(&str, &str)], outputs: &[(&str, Vec<u8>)]) {
        let axes: IndexMap<String, String> = axes
            .iter()
            .map(|(axis, value)| ((*axis).to_owned(), (*value).to_owned()))
            .collect();
        let values: Vec<String> = axes
            .iter()
            .map(|(axis, value)| format!("{axis}={value}"))
            .collect();
        let name = format!("{stage}[{}]", values.join(","));
        let slug = Digest::of(name.as_bytes()).short();
        let mut ports = IndexMap::new();
        for (port, bytes) in outputs {
            let file = match *port {
                "events" => "events.jsonl".to_owned(),
                "stdout" | "stderr" => (*port).to_owned(),
                other => format!("{other}.json"),
            };
            ports.insert(
                (*port).to_owned(),
                OutputReport {
                    path: format!("stages/{stage}/{slug}/{file}"),
                    digest: Digest::of(bytes),
                    length: bytes.len() as u64,
                },
            );
            self.outputs
                .ports
                .insert((name.clone(), (*port).to_owned()), bytes.clone());
        }
        self.assembly.instances.push(InstanceReport {
            name,
            stage: stage.into(),
            uses: uses.into(),
            axes,
            sample: None,
            arch: None,
            status: Status::Ok,
            reason: None,
            outcome: None,
            outputs: ports,
            findings: Vec::new(),
            responses: Vec::new(),
            unsupported: Vec::new(),
            behaviour: Vec::new(),
        });
    }

    fn finish(self) -> Fixture {
        let report = assemble(self.assembly, &self.outputs).expect("outputs in memory can be read");
        let instances = report
            .instances
            .iter()
            .enumerate()
            .map(|(place, instance)| {
                let facts = InstanceFacts {
                    status: match (instance.status, place % 3) {
                        (Status::Ok, 0) => Status::Cached,
                        (status, _) => status,
                    },
                    not_begun: false,
                    wall_s: 0.21 + place as f64 / 100.0,
                    cpu_s: 0.18,
                    peak_kib: 48_120,
                    stood_s: 0.0,
                    key: Some(Digest::of(instance.name.as_bytes())),
                    reason: instance.reason.clone(),
                    error: None,
                    attempts: 1,
                    left: None,
                    fault: None,
                };
                (instance.name.clone(), facts)
            })
            .collect();
        let facts = RunFacts {
            format: "hotcell-run".into(),
            version: 1,
            run: "2026-01-31T08-15-00-7f3a".into(),
            experiment: "fixture".into(),
            started: "2026-01-31T08:15:00Z".into(),
            wall_s: 2.34,
            host: "Linux 6.1, x86_64, 2 processors".into(),
            called: Vec::new(),
            hotcell: "0.1.0".into(),
            variants: Vec::new(),
            selection: None,
            jobs: 2,
            isolation: "affinity".into(),
            cores: None,
            confinement: ["no_new_privs", "landlock", "seccomp", "rlimits"]
                .map(String::from)
                .into(),
            fallbacks: vec!["no cgroup delegation: memory is limited by rlimits".into()],
            instances,
        };
        Fixture {
            report,
            facts,
            turns: Turns::default(),
            outputs: self.outputs,
        }
    }
}

fn json(value: &impl serde::Serialize) -> Vec<u8> {
    let mut bytes = serde_json::to_vec_pretty(value).expect("plain data");
    bytes.push(b'\n');
    bytes
}

fn proof(event: u64, text: &str) -> Evidence {
    Evidence {
        event: Some(event),
        offset: None,
        text: text.into(),
    }
}

fn finding(rule: &str, title: &str, severity: Severity, attack: &[&str], evidence: Vec<Evidence>) -> Finding {
    Finding {
        rule: rule.into(),
        title: title.into(),
        severity,
        attack: attack.iter().map(|id| (*id).to_owned()).collect(),
        evidence,
    }
}

/// A shell script under busybox that drops a cron file and calls home, on five architectures; one of them behaves
/// differently, one instance was skipped, and raw code ran beside them.
pub fn dropper() -> Fixture {
    let mut builder = Builder::new("first-look");
    for (place, arch) in ["x86_64", "aarch64", "arm", "armel", "mipsel"]
        .into_iter()
        .enumerate()
    {
        let family = if place < 3 { "kaiji" } else { "mozi" };
        let id = builder.sample(
            &format!("busybox-{arch}"),
            "bots",
            Some(family),
            1_024_000 + place as u64 * 4_321,
        );
        let axes = [("sample", id.as_str())];
        let inspected = file::inspection(arch, &id);
        let inspect_findings = vec![finding(
            "elf/writable-executable-segment",
            "A segment is writable and executable",
            Severity::Low,
            &[],
            vec![Evidence {
                event: None,
                offset: Some(0x94),
                text: "program header 2: LOAD rwx".into(),
            }],
        )];
        let inspect_findings = if arch == "mipsel" {
            inspect_findings
        } else {
            Vec::new()
        };
        builder.instance(
            "look",
            "inspect/elf",
            &axes,
            &[
                ("info", json(&inspected)),
                ("findings", json(&Findings::new(inspect_findings))),
            ],
        );
        let stream = stream::dropper(arch, &format!("run[sample={id}]"));
        let left = b"* * * * * root /tmp/.x/kworkerd --pool 198.51.100.7:3333\n".to_vec();
        let files = vec![
            LeftFile {
                path: "/etc/cron.d/.sysupd".into(),
                mode: 0o644,
                length: left.len() as u64,
                digest: Digest::of(&left),
            },
            LeftFile {
                path: "/tmp/.x/kworkerd".into(),
                mode: 0o755,
                length: 1_024_000,
                digest: Digest::of(b"kworkerd"),
            },
        ];
        builder.outputs.objects.insert(Digest::of(&left), left);
        let result = LinuxResult {
            outcome: if arch == "mipsel" {
                Outcome::Signalled("SIGSEGV".into())
            } else {
                Outcome::Exited(0)
            },
            arch: arch.into(),
            virtual_time: 1_204_551_000,
            syscalls: stream.syscalls(),
            events: stream.len(),
            tasks: 3,
            left_out: 0,
            responses: Vec::new(),
            unsupported: vec![UnsupportedCall {
                name: "prctl".into(),
                support: Support::Partial,
                note: "only PR_SET_NAME, PR_GET_NAME and PR_SET_DUMPABLE".into(),
                count: 1,
            }],
            files: files.clone(),
            layers: Vec::new(),
            dumps: Vec::new(),
            coverage: Vec::new(),
        };
        let files = serde_json::json!({"format": "hotcell-files", "version": 1, "files": files});
        let cron = stream.find("/etc/cron.d/.sysupd");
        let connect = stream.find("198.51.100.7:3333");
        let hide = stream.find("[kworker");
        let mut found = vec![
            finding(
                "persistence-cron",
                "Writes a cron job",
                Severity::High,
                &["T1053.003"],
                vec![proof(cron, "written /etc/cron.d/.sysupd, 57 bytes")],
            ),
            finding(
                "evasion-hidden-file",
                "Runs a program from a hidden folder in /tmp",
                Severity::Medium,
                &["T1564.001", "T1036.005"],
                vec![proof(hide, "exec /tmp/.x/kworkerd")],
            ),
        ];
        if place < 4 {
            found.push(finding(
                "impact-mining-pool",
                "Connects to a port that mining pools use",
                Severity::Critical,
                &["T1496", "T1071.001"],
                vec![proof(connect, "connect 198.51.100.7:3333 tcp")],
            ));
        }
        builder.instance(
            "run",
            "unicorn/linux",
            &axes,
            &[
                ("events", stream.bytes()),
                ("result", json(&result)),
                ("stdout", b"installed\nworkers: 2\n".to_vec()),
                (
                    "stderr",
                    b"wget: can't connect to remote host (198.51.100.7): Connection refused\n".to_vec(),
                ),
                ("files", json(&files)),
            ],
        );
        builder.instance(
            "hits",
            "detect/rules",
            &axes,
            &[("findings", json(&Findings::new(found)))],
        );
    }
    let id = builder.sample("notes.txt", "bots", None, 812);
    builder.instance("run", "unicorn/linux", &[("sample", &id)], &[]);
    if let Some(last) = builder.assembly.instances.last_mut() {
        last.status = Status::Skipped;
        last.reason = Some("`when` is false: stages.look.out.info.kind == 'elf'".into());
    }
    let sum = PayloadResult {
        outcome: Outcome::Completed,
        arch: "riscv64".into(),
        instructions: 302,
        registers: [("a0", 5050), ("a1", 0), ("pc", 0x1_0010), ("sp", 0)]
            .map(|(name, value)| (name.to_owned(), Address(value)))
            .into(),
        memory: Vec::new(),
        trace: [
            "addi a1, zero, 100",
            "add a0, a0, a1",
            "addi a1, a1, -1",
            "bnez a1, -8",
        ]
        .into_iter()
        .enumerate()
        .map(|(place, text)| TracedInstruction {
            address: Address(0x1_0000 + place as u64 * 4),
            bytes: hotcell_schema::guest::Hex(vec![0x93, 0x05, 0x40, place as u8]),
            text: text.into(),
        })
        .collect(),
        disagreements: 0,
    };
    builder.instance(
        "sum",
        "unicorn/payload",
        &[("arch", "riscv64")],
        &[("result", json(&sum))],
    );
    builder.finish()
}

/// One sample of which every text is [`HOSTILE`].
pub fn hostile() -> Fixture {
    let mut builder = Builder::new(HOSTILE);
    let id = builder.sample(HOSTILE, HOSTILE, Some(HOSTILE), 12);
    let axes = [("sample", id.as_str())];
    let mut info = file::inspection("x86_64", &id);
    file::spoil(&mut info, HOSTILE);
    builder.instance("look", "inspect/elf", &axes, &[("info", json(&info))]);
    let stream = stream::hostile(HOSTILE);
    let result = LinuxResult {
        outcome: Outcome::Unsupported(HOSTILE.into()),
        arch: HOSTILE.into(),
        virtual_time: u64::MAX,
        syscalls: u64::MAX,
        events: stream.len(),
        tasks: u32::MAX,
        left_out: 0,
        responses: Vec::new(),
        unsupported: vec![UnsupportedCall {
            name: HOSTILE.into(),
            support: Support::Missing,
            note: HOSTILE.into(),
            count: u64::MAX,
        }],
        files: vec![LeftFile {
            path: HOSTILE.into(),
            mode: u32::MAX,
            length: 3,
            digest: Digest::of(b"x"),
        }],
        layers: Vec::new(),
        dumps: Vec::new(),
        coverage: Vec::new(),
    };
    builder.outputs.objects.insert(Digest::of(b"x"), HOSTILE.into());
    let found = finding(
        HOSTILE,
        HOSTILE,
        Severity::Critical,
        &[HOSTILE, "T1496"],
        vec![proof(0, HOSTILE)],
    );
    builder.instance(
        "run",
        "unicorn/linux",
        &axes,
        &[
            ("events", stream.bytes()),
            ("result", json(&result)),
            ("stdout", HOSTILE.into()),
            ("stderr", [HOSTILE.as_bytes(), b"\xff\xfe\0"].concat()),
        ],
    );
    builder.instance(
        "hits",
        "detect/rules",
        &axes,
        &[("findings", json(&Findings::new(vec![found])))],
    );
    builder.assembly.instances.push(InstanceReport {
        status: Status::Failed,
        reason: Some(HOSTILE.into()),
        outputs: IndexMap::new(),
        name: HOSTILE.into(),
        ..builder
            .assembly
            .instances
            .last()
            .expect("three instances")
            .clone()
    });
    builder.finish()
}

/// One sample with a stream of `events` events.
pub fn long(events: u64) -> Fixture {
    let mut builder = Builder::new("long");
    let id = builder.sample("busybox-x86_64", "bots", None, 1_024_000);
    let stream = stream::long(&format!("run[sample={id}]"), events);
    builder.instance(
        "run",
        "unicorn/linux",
        &[("sample", &id)],
        &[("events", stream.bytes())],
    );
    builder.finish()
}
