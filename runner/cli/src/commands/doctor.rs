//! `hotcell doctor`: what this host can do, probe by probe.

mod probes;
mod trial;

use serde::Serialize;

use crate::args::{DoctorArgs, Global};
use crate::exit::{Exit, Failure};
use crate::places::Places;
use crate::ui;

/// One probe and what it found.
#[derive(Debug, Serialize)]
struct Probe {
    /// What was probed.
    name: String,
    /// How it is.
    state: State,
    /// What was found.
    found: String,
    /// What it is needed for.
    serves: &'static str,
    /// What to do when it is not all there.
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<String>,
}

/// How something is on this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum State {
    /// As wanted.
    Ok,
    /// Works with less.
    Limited,
    /// Not there, and what it serves cannot be done.
    Missing,
    /// Nothing of this version needs it; told for those who plan ahead.
    Unused,
}

pub(crate) fn run(args: &DoctorArgs, global: &Global) -> Result<Exit, Failure> {
    let places = Places::find(global, None)?;
    let probes = probes::all(&places, global);
    let missing = probes
        .iter()
        .filter(|probe| probe.state == State::Missing)
        .count();
    if args.json {
        ui::out(&ui::json(
            &serde_json::json!({"format": "hotcell-doctor", "version": 1, "probes": probes}),
        )?);
    } else {
        let width = probes.iter().map(|probe| probe.name.len()).max().unwrap_or(0);
        for probe in &probes {
            let (style, word) = match probe.state {
                State::Ok => (ui::GREEN, "ok     "),
                State::Limited => (ui::YELLOW, "limited"),
                State::Missing => (ui::RED, "missing"),
                State::Unused => (ui::DIM, "unused "),
            };
            let name = format!("{:width$}", probe.name);
            let serves = ui::styled(ui::DIM, format!("({})", probe.serves));
            ui::out(&format!(
                "{} {name}  {} {serves}",
                ui::styled(style, word),
                ui::plain(&probe.found)
            ));
            if let Some(remedy) = probe.remedy.as_ref().filter(|_| probe.state != State::Ok) {
                ui::out(&format!(
                    "        {:width$}  {} {remedy}",
                    "",
                    ui::styled(ui::CYAN, "help:")
                ));
            }
        }
        let limited = probes
            .iter()
            .filter(|probe| probe.state == State::Limited)
            .count();
        let verdict = match (missing, limited) {
            (0, 0) => "this host can do all that this version offers".to_owned(),
            (0, limited) => format!(
                "this host can do all that this version offers, {limited} things with less than is wanted"
            ),
            (missing, _) => format!("this host lacks {missing} things that are needed"),
        };
        ui::out(&format!("\n{verdict}"));
    }
    Ok(if missing == 0 { Exit::Ok } else { Exit::Host })
}
