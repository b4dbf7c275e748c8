//! `hotcell plan`: what would run, what is stored, and why. Writes nothing.

mod picture;

use std::path::Path;

use hotcell_run::Foreseen;
use hotcell_schema::forecast::{Does, InstanceForecast};

use crate::args::{Global, GraphFormat, PlanArgs};
use crate::exit::{Exit, Failure};
use crate::outlook::{self, Outlook};
use crate::session::{self, Planned};
use crate::ui;

/// Instances, and stages, shown where not all are wanted; and at least of each stage.
const SHOWN: usize = 40;
const SHOWN_OF_STAGE: usize = 4;

pub(crate) fn run(args: &PlanArgs, global: &Global) -> Result<Exit, Failure> {
    let Some(planned) = Planned::chosen(&args.manifest, &args.choose, global)? else {
        return Ok(Exit::Usage);
    };
    let outlook = Outlook::new(&planned, session::jobs(args.jobs))?;
    if let Some(format) = args.graph {
        let graph = match args.graph_instances {
            true => picture::instances(&planned.plan, &outlook)?,
            false => picture::stages(&planned.plan, &outlook),
        };
        let text = match format {
            GraphFormat::Dot => graph.dot(),
            GraphFormat::Mermaid => graph.mermaid(),
            GraphFormat::Svg => graph.svg(),
        };
        return put(&text, args.output.as_deref());
    }
    if args.json {
        return put(&ui::json(&outlook.to_json())?, args.output.as_deref());
    }
    if args.output.is_some() {
        return Err(Failure::usage("-o FILE is for --graph and --json")
            .help("the text goes to standard output: `hotcell plan MANIFEST > FILE`"));
    }
    print(&outlook, args.all);
    Ok(Exit::Ok)
}

/// Text to a file that a person named, or to standard output.
fn put(text: &str, output: Option<&Path>) -> Result<Exit, Failure> {
    match output {
        None => ui::out(text.trim_end()),
        Some(path) => fs_err::write(path, text)
            .map_err(|error| Failure::host(error.to_string()).help("name another file with -o FILE"))?,
    }
    Ok(Exit::Ok)
}

/// What would run, as text: stages first, then instances stage by stage.
pub(crate) fn print(outlook: &Outlook<'_>, all: bool) {
    let stages = outlook.stages();
    let total: u64 = stages.values().map(|stage| stage.instances).sum();
    ui::out(&format!(
        "{}, {}; {}",
        picture::counted(stages.len() as u64, "stage"),
        picture::counted(total, "instance"),
        outlook.cores()
    ));
    for text in &outlook.instead {
        ui::out(&ui::styled(ui::YELLOW, ui::plain(text)));
    }
    let stages_shown = if all { usize::MAX } else { SHOWN };
    let width = |texts: &mut dyn Iterator<Item = usize>| texts.max().unwrap_or(0).min(40);
    let shown = || stages.iter().take(stages_shown);
    let name_width = width(&mut shown().map(|(name, _)| name.chars().count()));
    let uses_width = width(&mut shown().map(|(_, stage)| stage.uses.chars().count()));
    for (name, stage) in shown() {
        ui::out(&format!(
            "  {}  {}  {}{}",
            ui::styled(ui::BOLD, format!("{:name_width$}", ui::plain(name))),
            ui::styled(ui::DIM, format!("{:uses_width$}", stage.uses)),
            picture::counts(stage),
            stage
                .cores
                .map(|cores| format!("; each on {}", cores.words()))
                .unwrap_or_default()
        ));
    }
    hidden(stages.len().saturating_sub(stages_shown), "  …  ", "stages");
    let mut left = match all || outlook.foreseen.len() <= SHOWN {
        true => usize::MAX,
        false => SHOWN,
    };
    let of_stage = match left {
        usize::MAX => usize::MAX,
        _ => (SHOWN / stages.len().max(1)).max(SHOWN_OF_STAGE),
    };
    let mut untold = 0;
    // The plan's order is stage by stage.
    for foreseen in outlook
        .foreseen
        .chunk_by(|a, b| a.instance.stage == b.instance.stage)
    {
        let limit = of_stage.min(left);
        if limit == 0 {
            untold += foreseen.len();
            continue;
        }
        ui::out("");
        let is_cached = |foreseen: &Foreseen<'_>| outlook::does(&foreseen.forecast) == Does::Cached;
        let chosen: Vec<&Foreseen<'_>> = match foreseen.len() <= limit {
            true => foreseen.iter().collect(),
            // Where not all is shown, what would happen comes before what is stored.
            false => {
                let first = foreseen.iter().filter(|foreseen| !is_cached(foreseen));
                let then = foreseen.iter().filter(|foreseen| is_cached(foreseen));
                first.chain(then).take(limit).collect()
            }
        };
        for foreseen in &chosen {
            ui::out(&line(&outlook.of(foreseen)));
        }
        left = left.saturating_sub(chosen.len());
        hidden(foreseen.len() - chosen.len(), "…       ", "");
    }
    hidden(untold, "\n…       ", "instances of other stages");
}

/// Says how much is not shown.
fn hidden(count: usize, before: &str, what: &str) {
    if count > 0 {
        let space = if what.is_empty() { "" } else { " " };
        let text = format!(
            "{before}{} more{space}{what}; --all shows them",
            picture::thousands(count as u64)
        );
        ui::out(&ui::styled(ui::DIM, text));
    }
}

/// An instance in a line.
pub(crate) fn line(instance: &InstanceForecast) -> String {
    let style = match instance.does {
        Does::Run => ui::GREEN,
        Does::Cached => ui::DIM,
        Does::Wait | Does::Expand => ui::CYAN,
        Does::End => ui::YELLOW,
    };
    let why = match instance.does {
        // The word says it.
        Does::Cached => String::new(),
        _ => format!("  {}", ui::styled(ui::DIM, ui::plain(&instance.why))),
    };
    format!(
        "{} {}{why}",
        ui::styled(style, format!("{:7}", instance.does.word())),
        ui::plain(&instance.short)
    )
}
