//! What the language has a place for and this version does not do: refused with a clear word, never ignored.

use hotcell_schema::manifest::{Size, Time};
use hotcell_schema::stage::StageType;

use super::Shared;
use crate::diagnostics::{Code, Diagnostic};
use crate::tree::{Node, Value};

/// Keys at the top that only later versions act on.
const LATER: &[(&str, &str)] = &[
    ("templates", "guests of full systems are not run yet"),
    ("images", "guests of full systems are not run yet"),
    ("networks", "guests of full systems are not run yet"),
    (
        "users",
        "users belong to host manifests, which are not acted on yet",
    ),
    ("engines", "engines are not restricted yet"),
];

pub(super) fn check(shared: &Shared<'_>, problems: &mut Vec<Diagnostic>) {
    let mut refuse = |path: &[&str], why: &str| {
        let span = shared.tree.key_span(path);
        problems.push(
            Diagnostic::error(
                Code::NotYet,
                span,
                format!("`{}` is not acted on yet", path.join(".")),
            )
            .label(why)
            .help("remove it, or use a version that can do it"),
        );
    };
    for (key, why) in LATER {
        if shared.tree.get(key).is_some() {
            refuse(&[key], why);
        }
    }
    for (key, globs) in [
        ("sigma", &shared.manifest.rules.sigma),
        ("yara", &shared.manifest.rules.yara),
    ] {
        if !globs.is_empty() {
            refuse(&["rules", key], "only behaviour rules are evaluated yet");
        }
    }
    meaningless(shared, problems);
}

/// Keys that have no meaning where they stand.
fn meaningless(shared: &Shared<'_>, problems: &mut Vec<Diagnostic>) {
    for (name, stage) in &shared.manifest.stages {
        let Some(stage_type) = StageType::find(&stage.uses) else {
            continue;
        };
        let Some(limits) = shared
            .tree
            .at(&["stages", name, "limits"])
            .and_then(|limits| limits.as_table())
        else {
            continue;
        };
        for (key, entry) in limits {
            // Nothing may be written: that is a limit that a program can live with.
            if key == "file-bytes" || !is_zero(&entry.node) {
                continue;
            }
            let title = format!("the limit `{key}` of `{name}` is 0: nothing would run");
            problems.push(
                Diagnostic::error(Code::OutOfRange, entry.node.span, title)
                    .help("leave it out for the usual one, or allow something"),
            );
        }
        for (key, entry) in limits
            .iter()
            .filter(|(key, _)| !stage_type.limits.contains(&key.as_str()))
        {
            problems.push(
                Diagnostic::error(
                    Code::UnknownKey,
                    entry.key,
                    format!("the limit `{key}` has no meaning for `{}`", stage.uses),
                )
                .help(format!("what limits it: {}", stage_type.limits.join(", "))),
            );
        }
    }
}

/// Whether a limit allows nothing: a number, or a duration or size, that is 0.
fn is_zero(node: &Node) -> bool {
    match &node.value {
        Value::Integer(0) => true,
        Value::Text(text) => {
            text.parse::<Time>().is_ok_and(|time| time.0 == 0)
                || text.parse::<Size>().is_ok_and(|size| size.0 == 0)
        }
        _ => false,
    }
}
