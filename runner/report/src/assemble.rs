//! From instances and their outputs to a [`Report`].

use std::borrow::Cow;
use std::io;

use hotcell_schema::digest::Digest;
use hotcell_schema::elf::ElfInfo;
use hotcell_schema::event::{Event, Header};
use hotcell_schema::finding::{Findings, Severity};
use hotcell_schema::job::{LinuxResult, PayloadResult};
use hotcell_schema::report::{FORMAT, InstanceReport, Report, SampleReport, Selection, Technique, VERSION};
use hotcell_schema::stage::{PortType, StageType};
use indexmap::IndexMap;
use memchr::{memchr, memmem};
use serde::Deserialize;

use crate::behaviour::Behaviours;
use crate::outputs::Outputs;
use crate::{ReportError, behaviour, outputs};

/// What is known of a run before its outputs are read.
#[derive(Debug, Clone)]
pub struct Assembly {
    /// The experiment's name.
    pub name: String,
    /// Digest of the manifest after includes and variants.
    pub manifest: Digest,
    /// The experiment's seed.
    pub seed: u64,
    /// Version of hotcell.
    pub hotcell: String,
    /// Chosen variants.
    pub variants: Vec<String>,
    /// What of the plan was run, where not all of it.
    pub selection: Option<Selection>,
    /// Engine name to identity.
    pub engines: IndexMap<String, String>,
    /// Samples by id, in the manifest's order. `arch` and `severity` are filled in here.
    pub samples: IndexMap<String, SampleReport>,
    /// Instances in the plan's order. What is empty (`arch`, `outcome`, `findings`, `unsupported`, `behaviour`) is filled in
    /// from the outputs.
    pub instances: Vec<InstanceReport>,
}

/// Makes the report of a run.
pub fn assemble(assembly: Assembly, outputs: &dyn Outputs) -> Result<Report, ReportError> {
    let mut report = Report {
        format: FORMAT.into(),
        version: VERSION,
        name: assembly.name,
        manifest: assembly.manifest,
        seed: assembly.seed,
        hotcell: assembly.hotcell,
        variants: assembly.variants,
        selection: assembly.selection,
        engines: assembly.engines,
        samples: assembly.samples,
        instances: assembly.instances,
        attack: IndexMap::new(),
    };
    for instance in &mut report.instances {
        complete(instance, outputs)?;
    }
    let mut told: IndexMap<String, (Option<String>, Option<Severity>)> = IndexMap::new();
    for instance in &report.instances {
        let Some((id, _)) = report.sample_of(instance) else {
            continue;
        };
        let (arch, severity) = told.entry(id.to_owned()).or_default();
        if arch.is_none() {
            arch.clone_from(&instance.arch);
        }
        *severity = instance
            .findings
            .iter()
            .map(|finding| finding.severity)
            .max()
            .max(*severity);
    }
    for (id, (arch, severity)) in told {
        if let Some(sample) = report.samples.get_mut(&id) {
            sample.arch = sample.arch.take().or(arch);
            sample.severity = sample.severity.max(severity);
        }
    }
    let ids: std::collections::BTreeSet<&String> = report
        .instances
        .iter()
        .flat_map(|instance| &instance.findings)
        .flat_map(|finding| &finding.attack)
        .collect();
    report.attack = ids
        .into_iter()
        .filter_map(|id| Some((id.clone(), technique(id)?)))
        .collect();
    Ok(report)
}

/// Writes `report.json`: pretty, with a final newline.
pub fn write_json(report: &Report, to: &mut dyn io::Write) -> Result<(), serde_json::Error> {
    serde_json::to_writer_pretty(&mut *to, report)?;
    to.write_all(b"\n").map_err(serde_json::Error::io)
}

/// The same as text.
pub fn to_json(report: &Report) -> Result<String, ReportError> {
    let mut json = serde_json::to_string_pretty(report)?;
    json.push('\n');
    Ok(json)
}

fn technique(id: &str) -> Option<Technique> {
    let known = hotcell_detect::attack::technique(id)?;
    Some(Technique {
        name: known.name.to_owned(),
        tactics: known.tactics.iter().map(|tactic| (*tactic).to_owned()).collect(),
    })
}

/// Fills in what is empty and can be told from the outputs. An output that cannot be understood is left out: the instance's
/// own status speaks of that.
pub fn complete(instance: &mut InstanceReport, outputs: &dyn Outputs) -> Result<(), ReportError> {
    let Some(stage_type) = StageType::find(&instance.uses) else {
        return Ok(());
    };
    let mut ports: Vec<(String, PortType)> = stage_type
        .outputs
        .iter()
        .filter(|output| instance.outputs.contains_key(output.name))
        .map(|output| (output.name.to_owned(), output.port))
        .collect();
    if stage_type.open {
        ports.extend(declared(instance, outputs)?);
    }
    for (port, port_type) in ports {
        match port_type {
            PortType::Events => {
                let Some(bytes) = outputs::read(outputs, &instance.name, &port)? else {
                    continue;
                };
                let stream = EventStream::new(&bytes);
                if instance.arch.is_none() {
                    instance.arch = stream.header.as_ref().map(|header| header.arch.clone());
                }
                if instance.behaviour.is_empty() {
                    let mut behaviours = Behaviours::default();
                    for line in stream
                        .lines()
                        .filter(|line| line.call().is_none_or(behaviour::tells))
                    {
                        if let Some(event) = line.event() {
                            behaviours.add(&event);
                        }
                    }
                    instance.behaviour = behaviours.finish();
                }
            }
            PortType::Findings if instance.findings.is_empty() => {
                if let Some(found) = read_json::<Findings>(outputs, instance, &port)? {
                    instance.findings = found.findings;
                }
            }
            PortType::Json("linux-result") => {
                if let Some(result) = read_json::<LinuxResult>(outputs, instance, &port)? {
                    instance.arch.get_or_insert(result.arch);
                    instance.outcome.get_or_insert(result.outcome);
                    if instance.unsupported.is_empty() {
                        instance.unsupported = result.unsupported;
                    }
                    if instance.responses.is_empty() {
                        instance.responses = result.responses;
                    }
                }
            }
            PortType::Json("payload-result") => {
                if let Some(result) = read_json::<PayloadResult>(outputs, instance, &port)? {
                    instance.arch.get_or_insert(result.arch);
                    instance.outcome.get_or_insert(result.outcome);
                }
            }
            PortType::Json("elf-info") => {
                if let Some(info) = read_json::<ElfInfo>(outputs, instance, &port)?
                    && instance.arch.is_none()
                {
                    instance.arch = info.arch;
                }
            }
            _ => {}
        }
    }
    Ok(())
}

fn read_json<T: serde::de::DeserializeOwned>(
    outputs: &dyn Outputs,
    instance: &InstanceReport,
    port: &str,
) -> Result<Option<T>, ReportError> {
    let bytes = outputs::read(outputs, &instance.name, port)?;
    Ok(bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()))
}

/// Outputs that a manifest declares and that have something for the report: what they are is said by the documents themselves.
fn declared(
    instance: &InstanceReport,
    outputs: &dyn Outputs,
) -> Result<Vec<(String, PortType)>, ReportError> {
    let mut ports = Vec::new();
    for (port, output) in &instance.outputs {
        if output.path.ends_with(PortType::Events.ending()) {
            ports.push((port.clone(), PortType::Events));
        } else if output.path.ends_with(PortType::Findings.ending())
            && read_json::<Findings>(outputs, instance, port)?
                .is_some_and(|found| found.format == "hotcell-findings")
        {
            ports.push((port.clone(), PortType::Findings));
        }
    }
    Ok(ports)
}

/// An event stream, read line by line.
#[derive(Debug)]
pub struct EventStream<'a> {
    /// The first line, where it is one.
    pub header: Option<Header>,
    lines: &'a [u8],
}

impl<'a> EventStream<'a> {
    /// Reads the header of JSON lines.
    pub fn new(bytes: &'a [u8]) -> Self {
        let end = bytes
            .iter()
            .position(|byte| *byte == b'\n')
            .unwrap_or(bytes.len());
        let (first, rest) = bytes.split_at(end);
        match serde_json::from_slice(first) {
            Ok(header) => Self {
                header: Some(header),
                lines: rest,
            },
            Err(_) => Self {
                header: None,
                lines: bytes,
            },
        }
    }

    /// Calls `each` with every event in order. Answers how many lines were no events.
    pub fn for_each(&self, mut each: impl FnMut(Event)) -> u64 {
        let mut bad = 0;
        for line in self.lines() {
            match line.event() {
                Some(event) => each(event),
                None => bad += 1,
            }
        }
        bad
    }

    /// Its lines, not taken apart yet.
    pub fn lines(&self) -> impl Iterator<Item = Line<'a>> {
        let lines = self.lines.split(|byte| *byte == b'\n');
        lines.filter(|line| !line.is_empty()).map(Line)
    }
}

/// A line of an event stream. To take one apart costs more than to look at it, and most of a million are not worth it.
#[derive(Debug, Clone, Copy)]
pub struct Line<'a>(&'a [u8]);

/// What every event has.
#[derive(Debug, Deserialize)]
pub struct Glance<'a> {
    /// Its number.
    pub seq: u64,
    /// Whose it is.
    #[serde(borrow)]
    pub task: GlanceTask<'a>,
}

/// Whose an event is.
#[derive(Debug, Deserialize)]
pub struct GlanceTask<'a> {
    /// Process.
    pub pid: u32,
    /// Thread.
    pub tid: u32,
    /// The parent's process.
    pub parent: u32,
    /// What the process runs.
    #[serde(borrow)]
    pub image: Cow<'a, str>,
}

impl<'a> Line<'a> {
    /// The event; `None`: it is none.
    pub fn event(self) -> Option<Event> {
        serde_json::from_slice(self.0).ok()
    }

    /// As much of it as every event has.
    pub fn glance(self) -> Option<Glance<'a>> {
        serde_json::from_slice(self.0).ok()
    }

    /// The name of the system call that it tells of. `None`: of another thing, or written in another way than our own writers do;
    /// only the event says what it is then.
    ///
    /// No text before `what` can look like it: what has quotes in a text has backslashes before them.
    pub fn call(self) -> Option<&'a str> {
        const WHAT: &[u8] = b"},\"what\":{";
        const CALL: &[u8] = b"\"syscall\":{\"name\":\"";
        let place = memmem::find(self.0, WHAT)?;
        let name = self.0.get(place + WHAT.len()..)?.strip_prefix(CALL)?;
        let end = memchr(b'"', name)?;
        let name = std::str::from_utf8(name.get(..end)?).ok()?;
        let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
        name.chars().all(is_plain).then_some(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_known_by_a_glance_only_where_it_is_what_it_seems() {
        let line = |image: &str, what: &str| {
            format!(
                r#"{{"seq":7,"time":1,"witness":"kernel","task":{{"pid":2,"tid":3,"parent":1,"image":{}}},"what":{what}}}"#,
                serde_json::to_string(image).unwrap_or_default()
            )
        };
        let read = r#"{"syscall":{"name":"read","number":0}}"#;
        let plain = line("/s", read);
        assert_eq!(Line(plain.as_bytes()).call(), Some("read"));
        let glance = Line(plain.as_bytes()).glance().expect("an event");
        assert_eq!((glance.seq, glance.task.pid, glance.task.tid), (7, 2, 3));
        // A program whose name is meant to look like a harmless call.
        let false_one = line(
            r#"},"what":{"syscall":{"name":"read"#,
            r#"{"signal":{"signal":"SIGHUP","to":1}}"#,
        );
        assert_eq!(Line(false_one.as_bytes()).call(), None);
        let named = Line(false_one.as_bytes()).glance().expect("an event");
        assert_eq!(named.task.image, r#"},"what":{"syscall":{"name":"read"#);
        for other in [
            r#"{"later":{"what":{"syscall":{"name":"read"}}}}"#,
            r#"{"syscall":{"number":0,"name":"read"}}"#,
        ] {
            assert_eq!(Line(line("/s", other).as_bytes()).call(), None, "{other}");
        }
    }
}
