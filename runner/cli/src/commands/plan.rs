//! `hotcell plan`: what would run, what is stored, and why. Writes nothing.

mod picture;

use std::path::Path;

use hotcell_schema::forecast::{Does, InstanceForecast};

use crate::args::{Global, GraphFormat, PlanArgs};
use crate::exit::{Exit, Failure};
use crate::outlook::{self, Outlook};
use crate::session::{self, Planned};
use crate::ui;

/// Instances shown where not all are wanted: of all stages together, and at least of each.
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
    let width = |texts: &mut dyn Iterator<Item = usize>| texts.max().unwrap_or(0).min(40);
    let name_width = width(&mut stages.keys().map(|name| name.chars().count()));
    let uses_width = width(&mut stages.values().map(|stage| stage.uses.chars().count()));
    for (name, stage) in &stages {
        ui::out(&format!(
            "  {}  {}  {}",
            ui::styled(ui::BOLD, format!("{:name_width$}", ui::plain(name))),
            ui::styled(ui::DIM, format!("{:uses_width$}", stage.uses)),
            picture::counts(stage)
        ));
    }
    let limit = match () {
        () if all || outlook.foreseen.len() <= SHOWN => usize::MAX,
        () => (SHOWN / stages.len().max(1)).max(SHOWN_OF_STAGE),
    };
    for stage in stages.keys() {
        let of_stage = || {
            outlook
                .foreseen
                .iter()
                .filter(|foreseen| foreseen.instance.stage == *stage)
        };
        // Where not all is shown, what would happen comes before what is stored.
        let mut chosen: Vec<usize> = Vec::new();
        let order: &[bool] = if limit == usize::MAX { &[] } else { &[false, true] };
        for cached in order {
            let more = of_stage()
                .enumerate()
                .filter(|(_, foreseen)| (outlook::does(&foreseen.forecast) == Does::Cached) == *cached);
            chosen.extend(more.map(|(at, _)| at).take(limit.saturating_sub(chosen.len())));
        }
        ui::out("");
        let mut hidden = 0usize;
        for (at, foreseen) in of_stage().enumerate() {
            if limit == usize::MAX || chosen.contains(&at) {
                ui::out(&line(&outlook.of(foreseen)));
            } else {
                hidden += 1;
            }
        }
        if hidden > 0 {
            let text = format!(
                "…        {} more; --all shows them",
                picture::thousands(hidden as u64)
            );
            ui::out(&ui::styled(ui::DIM, text));
        }
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
