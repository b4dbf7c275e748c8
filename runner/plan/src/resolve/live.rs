//! `with.live` of `command`: an analyser beside the guests whose events it reads.

use hotcell_schema::command::{CommandWith, LiveWith, OutputPlace};
use hotcell_schema::stage::{Engine, PortType, StageType};

use super::Shared;
use super::graph::{Reference, Wired};
use crate::diagnostics::{Code, Diagnostic};
use crate::tree::Node;

/// What such an analyser must be like: all that it reads is known before the guest starts, but the events.
pub(super) fn check(
    shared: &Shared<'_>,
    wired: &Wired<'_>,
    (with, _): (&CommandWith, &LiveWith),
    node: &Node,
    late: bool,
    problems: &mut Vec<Diagnostic>,
) {
    let span = node.get("live").map_or(node.span, |live| live.span);
    let mut refuse = |title: String, help: &str| {
        problems.push(Diagnostic::error(Code::NotLive, span, title).help(help.to_owned()));
    };
    let is_watched = |stage: &str| {
        let stage = shared.manifest.stages.get(stage);
        let stage_type = stage.and_then(|stage| StageType::find(&stage.uses));
        stage_type.is_some_and(|known| matches!(known.engine, Some(Engine::QemuUser | Engine::Native)))
    };
    let is_heard = |reference: &Reference| matches!(reference, Reference::Stage { stage, port, all: false, .. } if port == "events" && is_watched(stage));
    for (port, references) in &wired.inputs {
        let is_stdin = with.stdin.as_deref() == Some(*port);
        let good = match references.as_slice() {
            [reference] if is_stdin => is_heard(reference),
            references => {
                !is_stdin
                    && references
                        .iter()
                        .all(|reference| matches!(reference, Reference::Axis(_)))
            }
        };
        if !good && is_stdin {
            refuse(
                format!(
                    "a live analyser reads from standard input what one guest does, and `{port}` is something else"
                ),
                "wire the `events` of a stage `qemu-user/linux` or `native/linux` to it: in.events = \"stages.run.out.events\"",
            );
        } else if !good {
            refuse(
                format!("a live analyser begins with its guest, and `{port}` is not there yet then"),
                "beside the events it may read samples: in.file = \"${sample.file}\"; what else it needs is for a stage of its own",
            );
        }
    }
    if with.stdin.is_none() {
        refuse(
            "a live analyser reads events from standard input".to_owned(),
            "name the input that is wired to the events: stdin = \"events\"",
        );
    }
    let findings = |from: OutputPlace| {
        let mut outputs = with.outputs.values();
        outputs.any(|output| output.port.0 == PortType::Findings && output.from == from)
    };
    if !findings(OutputPlace::Stdout) {
        refuse(
            "a live analyser writes what it finds to standard output".to_owned(),
            "declare it: outputs.found = { type = \"findings\", from = \"stdout\" }",
        );
    }
    if late || wired.stage.when.is_some() || wired.expansion.is_some() {
        refuse(
            "a live analyser begins with its guest, and whether and how it runs is known only later"
                .to_owned(),
            "leave out `when`, `${}` that read results, and samples that are found while the run goes on",
        );
    }
}
