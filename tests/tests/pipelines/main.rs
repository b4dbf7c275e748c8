//! Pipelines from the command line: what would run and why, runs of a part, runs that were, pins, watching. Programs of the
//! user's own are the stages, so that no engine is needed.
#![allow(clippy::print_stderr, clippy::unwrap_used)]

mod lock;
mod nothing;
mod parts;
mod plan;
mod runs;
mod sets;
mod watch;

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, Stdio};

use hotcell_tests::Lab;
use serde_json::{Value, json};

/// Three samples, two stages over them, and one over all: `sum` fails for a sample that says so.
fn experiment(lab: &Lab) {
    for (name, text) in [("one", "a"), ("two", "b"), ("three", "bad")] {
        lab.write(&format!("samples/{name}"), text);
    }
    write(lab, "fail", "x");
}

/// Writes the manifest: the word that `sum` does not bear, and what `all` says.
fn write(lab: &Lab, word: &str, says: &str) {
    let script = format!("cat $0; case $(cat $0) in *{word}*) exit 1;; esac");
    let text = json!({"text": {"type": "file", "from": "stdout"}});
    lab.manifest(
        "ex.yaml",
        &json!({
            "hotcell": 1,
            "name": "ex",
            "samples": {"bots": {"glob": "samples/*"}},
            "stages": {
                "sum": {
                    "uses": "command",
                    "for-each": {"sample": "samples.bots"},
                    "in": {"file": "${sample.file}"},
                    "with": {"run": ["sh", "-c", script, "${inputs.file}"], "outputs": text},
                },
                "count": {
                    "uses": "command",
                    "for-each": {"sample": "samples.bots"},
                    "in": {"text": "stages.sum.out.text"},
                    "with": {"run": ["wc", "-c", "${inputs.text}"], "outputs": text},
                },
                "all": {
                    "uses": "command",
                    "in": {"texts": "stages.count[*].out.text"},
                    "with": {"run": ["echo", says], "outputs": text},
                },
            },
        }),
    );
}

/// `plan --json` with further arguments.
fn plan(lab: &Lab, more: &[&str]) -> Value {
    let args = ["plan", "ex.yaml", "--json"]
        .into_iter()
        .chain(more.iter().copied());
    let (stdout, _) = lab.expect(0, args);
    serde_json::from_str(&stdout).unwrap()
}

/// What a plan says of each instance: short name without digest, what it does, and why.
fn says(plan: &Value) -> Vec<(String, String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let all = plan["instances"].as_array().unwrap().iter();
    all.map(|instance| {
        let short = text(&instance["short"]);
        let short = short.split('-').next().unwrap().to_owned();
        (short, text(&instance["does"]), text(&instance["why"]))
    })
    .collect()
}

/// How many instances would do something.
fn count(plan: &Value, does: &str) -> usize {
    says(plan).iter().filter(|(_, what, _)| what == does).count()
}

/// A run of the experiment in which an instance has begun.
fn begun(lab: &Lab, more: &[&str], at: &str) -> Child {
    let args = ["run", "ex.yaml", "--log-format", "json"];
    let mut child = lab
        .command(args.into_iter().chain(more.iter().copied()))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let begun = stderr.by_ref().lines().any(|line| {
        let line: Value = serde_json::from_str(&line.unwrap()).unwrap();
        line["kind"] == "started" && line["instance"].as_str().unwrap().starts_with(at)
    });
    assert!(begun, "{at} never began");
    // Kept open: what it still says must find somebody.
    child.stderr = Some(stderr.into_inner());
    child
}
