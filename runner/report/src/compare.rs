//! Two runs of one sample held against each other: what only one of them did.

use std::collections::BTreeSet;

use hotcell_schema::comparison::{Comparison, Side};
use hotcell_schema::event::{Event, Witness};
use hotcell_schema::finding::{Evidence, Finding, Severity};

use crate::assemble::EventStream;
use crate::behaviour::Behaviours;

/// Kinds of behaviours that the host's kernel cannot see: what happens inside of an emulator, or between two of its threads.
const UNSEEN_BY_THE_KERNEL: &[&str] = &[
    "fault/",
    "memory/",
    "process/probed",
    "process/steered",
    "process/timed",
    "process/traced",
    "resource/",
];
/// Behaviours that a finding shows of each side.
const SHOWN: usize = 20;

/// A run, as its events tell it.
#[derive(Debug)]
struct Told {
    engine: String,
    arch: String,
    behaviours: BTreeSet<String>,
    by_kernel: bool,
}

impl Told {
    fn read(stream: &EventStream<'_>) -> Result<Self, u64> {
        let mut behaviours = Behaviours::default();
        let mut by_kernel = false;
        let bad = stream.for_each(|event: Event| {
            by_kernel |= matches!(event.witness, Witness::Kernel | Witness::Tracer);
            behaviours.add(&event);
        });
        if bad > 0 {
            return Err(bad);
        }
        let (engine, arch) = stream.header.as_ref().map_or_else(Default::default, |header| {
            (header.engine.clone(), header.arch.clone())
        });
        Ok(Self {
            engine,
            arch,
            behaviours: behaviours.finish().into_iter().collect(),
            by_kernel,
        })
    }

    fn sees(&self, behaviour: &str) -> bool {
        !self.by_kernel
            || !UNSEEN_BY_THE_KERNEL
                .iter()
                .any(|kind| behaviour.starts_with(kind))
    }

    /// What it alone has.
    fn against(&self, other: &Self) -> Side {
        let alone = self.behaviours.difference(&other.behaviours).cloned();
        let (only, unseen_by_other) = alone.partition(|behaviour| other.sees(behaviour));
        Side {
            engine: self.engine.clone(),
            arch: self.arch.clone(),
            only,
            unseen_by_other,
        }
    }
}

/// Compares two event streams. Behaviours that begin with one of `ignore` are left out. The error: how many lines of a stream are
/// no events.
pub fn compare(
    left: &EventStream<'_>,
    right: &EventStream<'_>,
    ignore: &[String],
) -> Result<Comparison, u64> {
    let (mut left, mut right) = (Told::read(left)?, Told::read(right)?);
    let mut ignored = 0;
    for told in [&mut left, &mut right] {
        let before = told.behaviours.len();
        told.behaviours
            .retain(|behaviour| !ignore.iter().any(|begin| behaviour.starts_with(begin.as_str())));
        ignored += before - told.behaviours.len();
    }
    let same = left.behaviours.intersection(&right.behaviours).count();
    Ok(Comparison::new(
        left.against(&right),
        right.against(&left),
        same as u64,
        ignored as u64,
    ))
}

/// What a comparison concludes: nothing, where both did the same.
pub fn findings(comparison: &Comparison) -> Vec<Finding> {
    let sides = [&comparison.left, &comparison.right];
    let mut evidence = Vec::new();
    for side in sides {
        let text = |behaviour: &String| format!("only {}: {behaviour}", side.engine);
        let mut texts: Vec<String> = side.only.iter().take(SHOWN).map(text).collect();
        if let Some(more) = side.only.len().checked_sub(SHOWN).filter(|more| *more > 0) {
            texts.push(format!("only {}: {more} more", side.engine));
        }
        evidence.extend(texts.into_iter().map(|text| Evidence {
            event: None,
            offset: None,
            text,
        }));
    }
    if evidence.is_empty() {
        return Vec::new();
    }
    vec![Finding {
        rule: "compare/differs".into(),
        title: format!(
            "Behaved differently under {} and {}",
            comparison.left.engine, comparison.right.engine
        ),
        severity: Severity::Low,
        attack: Vec::new(),
        evidence,
    }]
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use hotcell_schema::event::{File, FileOp, Header, Memory, MemoryOp, Process, ProcessOp, Task, What};

    use super::*;

    fn stream(engine: &str, witness: Witness, whats: &[What]) -> String {
        let mut text = serde_json::to_string(&Header::new("x", engine, "arm")).unwrap();
        for (seq, what) in (0..).zip(whats) {
            let event = Event {
                seq,
                time: 0,
                witness,
                task: Task {
                    pid: 1,
                    tid: 1,
                    parent: 0,
                    image: "/s".into(),
                },
                what: what.clone(),
                raw: None,
            };
            text.push('\n');
            text.push_str(&serde_json::to_string(&event).unwrap());
        }
        text
    }

    fn deleted() -> What {
        What::File(File::new(FileOp::Delete, "/etc/shadow"))
    }

    fn ran_written() -> What {
        What::Memory(Memory::new(MemoryOp::WrittenThenExecuted, 0x1000, 16))
    }

    fn exit() -> What {
        What::Process(Process {
            code: Some(0),
            ..Process::new(ProcessOp::Exit)
        })
    }

    fn compared(left: &str, right: &str, ignore: &[&str]) -> Comparison {
        let ignore: Vec<String> = ignore.iter().map(|one| (*one).to_owned()).collect();
        let (left, right) = (
            EventStream::new(left.as_bytes()),
            EventStream::new(right.as_bytes()),
        );
        compare(&left, &right, &ignore).unwrap()
    }

    #[test]
    fn what_only_one_saw_is_named() {
        let left = stream("unicorn/linux", Witness::Engine, &[deleted(), exit()]);
        let right = stream("qemu-user/linux", Witness::Kernel, &[exit()]);
        let comparison = compared(&left, &right, &[]);
        assert_eq!((comparison.same, comparison.ignored), (1, 0));
        assert_eq!(comparison.left.only, ["file/delete /etc/shadow"]);
        assert!(comparison.right.only.is_empty());
        let [finding] = findings(&comparison).try_into().unwrap();
        assert_eq!(
            finding.title,
            "Behaved differently under unicorn/linux and qemu-user/linux"
        );
        assert_eq!(
            finding.evidence[0].text,
            "only unicorn/linux: file/delete /etc/shadow"
        );
        let comparison = compared(&left, &right, &["file/delete"]);
        assert_eq!((comparison.same, comparison.ignored), (1, 1));
        assert!(findings(&comparison).is_empty());
    }

    #[test]
    fn what_a_witness_cannot_see_is_held_against_nobody() {
        let left = stream("unicorn/linux", Witness::Engine, &[ran_written(), exit()]);
        let right = stream("qemu-user/linux", Witness::Kernel, &[exit()]);
        let comparison = compared(&left, &right, &[]);
        assert_eq!(comparison.left.unseen_by_other.len(), 1);
        assert!(findings(&comparison).is_empty());
        // The other way round it is one: the engine sees all of it.
        let right = stream("unicorn/linux", Witness::Engine, &[exit()]);
        assert_eq!(compared(&left, &right, &[]).left.only.len(), 1);
    }

    #[test]
    fn lines_that_are_no_events_are_counted() {
        let left = stream("a", Witness::Engine, &[exit()]) + "\n{}";
        let right = stream("b", Witness::Engine, &[exit()]);
        let streams = (
            EventStream::new(left.as_bytes()),
            EventStream::new(right.as_bytes()),
        );
        assert_eq!(compare(&streams.0, &streams.1, &[]), Err(1));
    }
}
