//! A manifest of 20,000 lines with 10,000 stages written out: planned, and refused when something in it is wrong.

use std::{fs, path::Path};

use super::{
    Action, Bench, Tool,
    graph::{Graph, Shape},
    table::Turns,
};
use crate::bench::measure::{cost, ms};
use crate::common::Failure;

/// Most CPU time of a manifest, in milliseconds.
const MOST: f64 = 500.0;
/// Exit code for a bad manifest.
const BAD: i32 = 2;

/// A mistake: its name, and what it does to a text of that form.
type Mistake = (&'static str, fn(&str) -> String);

/// Each stands near the end, so that everything before it is read.
const MISTAKES: [Mistake; 4] = [
    ("not closed", |text| format!("{}[[\n", text)),
    ("an unknown key", |text| replace_last(text, "uses", "usse")),
    ("an unknown stage", |text| {
        replace_last(text, "stages.root.out", "stages.rooot.out")
    }),
    ("every stage wrong", |text| {
        text.replace("stages.root.out", "stages.rooot.out")
    }),
];

pub(super) fn run(bench: &mut Bench<'_>) -> Result<(), Failure> {
    let graph = Graph {
        shape: Shape::Fan,
        count: bench.options.count,
    };
    let files = bench.lab.join("manifests");
    graph.write(&files)?;
    let forms = ["literal.toml", "literal.yaml"];
    let lines = fs::read_to_string(files.join("literal.toml"))?.lines().count();
    let title = format!("a manifest of {lines} lines, {} stages", graph.jobs());
    let tools = forms.map(Tool::Hotcell);
    let all = bench.turns(&title, &tools, Action::Plan, &files, bench.options.rounds, true)?;
    for (form, turns) in forms.iter().zip(&all) {
        bench.limit(
            turns,
            &format!("{title}: plan {form}"),
            ms(turns.cpu()),
            MOST,
            "ms",
        );
    }
    let title = "the same with a mistake near its end: validate";
    bench.table.part(title);
    for (name, make) in MISTAKES {
        for form in forms {
            let path = files.join(format!("wrong-{form}"));
            fs::write(&path, make(&fs::read_to_string(files.join(form))?))?;
            refused(bench, title, &format!("{name}, {form}"), &path)?;
        }
    }
    Ok(())
}

fn refused(bench: &mut Bench<'_>, title: &str, name: &str, manifest: &Path) -> Result<(), Failure> {
    let mut turns = Turns::default();
    let state = bench.state("manifests", true)?;
    for _ in 0..bench.options.rounds {
        let mut command = bench.hotcell(&state);
        command.arg("validate").arg(manifest);
        match cost(&mut command, BAD) {
            Ok(cost) => turns.add(cost),
            Err(error) => {
                bench.table.left_out(title, name, &error.to_string());
                return Ok(());
            }
        }
    }
    bench.table.row(title, name, &turns, &[]);
    bench.limit(&turns, &format!("refused: {name}"), ms(turns.cpu()), MOST, "ms");
    Ok(())
}

fn replace_last(text: &str, from: &str, to: &str) -> String {
    match text.rfind(from) {
        Some(at) => format!("{}{to}{}", &text[..at], &text[at + from.len()..]),
        None => text.to_owned(),
    }
}
