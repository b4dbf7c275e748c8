//! `hotcell plan`: what would run, and what is stored. Writes nothing.

use hotcell_run::{Forecast, Foreseen};
use serde::Serialize;

use crate::args::{Global, PlanArgs};
use crate::exit::{Exit, Failure};
use crate::progress::title;
use crate::session::Planned;
use crate::ui;

/// Lines shown; the rest is counted.
const SHOWN: usize = 200;

/// An instance and what a run would do with it.
#[derive(Serialize)]
struct Line<'a> {
    instance: &'a str,
    does: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
}

pub(crate) fn run(args: &PlanArgs, global: &Global) -> Result<Exit, Failure> {
    let Some(planned) = Planned::from_manifest(&args.manifest, global)? else {
        return Ok(Exit::Usage);
    };
    let forecasts = planned.forecast()?;
    let plan = &planned.plan;
    let lines: Vec<Line<'_>> = forecasts
        .iter()
        .map(|foreseen| {
            let (does, why) = words(&foreseen.forecast);
            Line {
                instance: &foreseen.instance.name,
                does,
                why,
            }
        })
        .collect();
    if args.json {
        let json =
            serde_json::json!({"format": "hotcell-forecast", "version": 1, "plan": plan, "forecast": lines});
        ui::out(&ui::json(&json)?);
        return Ok(Exit::Ok);
    }
    for (Foreseen { instance, .. }, line) in forecasts.iter().zip(&lines).take(SHOWN) {
        let style = match line.does {
            "run" => ui::GREEN,
            "cached" => ui::DIM,
            _ => ui::YELLOW,
        };
        let why = line
            .why
            .as_deref()
            .map(|why| format!(" ({})", ui::plain(why)))
            .unwrap_or_default();
        let title = ui::plain(&title(plan, instance));
        ui::out(&format!(
            "{} {title}{}",
            ui::styled(style, format!("{:7}", line.does)),
            ui::styled(ui::DIM, why)
        ));
    }
    if lines.len() > SHOWN {
        ui::out(&format!("… and {} more; --json shows all", lines.len() - SHOWN));
    }
    let count = |does: &str| lines.iter().filter(|line| line.does == does).count();
    ui::out(&format!(
        "{} instances: {} would run, {} are stored, {} wait for those, {} end at once",
        lines.len(),
        count("run"),
        count("cached"),
        count("later"),
        count("end")
    ));
    Ok(Exit::Ok)
}

fn words(forecast: &Forecast) -> (&'static str, Option<String>) {
    match forecast {
        Forecast::Cached { .. } => ("cached", None),
        Forecast::Runs { .. } => ("run", None),
        Forecast::Later { after } => ("later", Some(format!("after {after}"))),
        Forecast::Expands { items, reason } => {
            let more = reason.as_ref().map(|reason| format!("; {reason}")).unwrap_or_default();
            ("expand", Some(format!("{items} items{more}")))
        }
        Forecast::Ends { status, reason } => {
            let status = serde_json::to_string(status).unwrap_or_default();
            ("end", Some(format!("{}: {reason}", status.trim_matches('"'))))
        }
    }
}
