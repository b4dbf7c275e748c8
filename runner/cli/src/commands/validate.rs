//! `hotcell validate`: everything that is wrong with a manifest, be it an experiment or a host.

use hotcell_plan::{diagnostics as codes, host, load};
use hotcell_schema::manifest::Kind;

use crate::args::{Global, ValidateArgs};
use crate::exit::{Exit, Failure};
use crate::places::Places;
use crate::session::{judged, profiles, utf8};
use crate::supplies::{Purpose, Supplies};
use crate::{diagnostics, ui};

pub(crate) fn run(args: &ValidateArgs, global: &Global) -> Result<Exit, Failure> {
    let path = utf8(&args.manifest.manifest)?;
    let options = load::Options {
        variants: args.manifest.variant.clone(),
        set: args.manifest.set.clone(),
        ..load::Options::default()
    };
    let mut loaded = load::load(path, &options);
    let kind = loaded.manifest.as_ref().map(|manifest| manifest.kind);
    let summary = if kind == Some(Kind::Host) {
        let profiles = profiles(&mut loaded, global)?;
        host::check(&mut loaded, &profiles).map(|host| {
            let pool = match host.pool {
                Some(cores) => format!("{} for guests, ", ui::count(cores, "core")),
                None => String::new(),
            };
            format!(
                "a host: {pool}{}, {}, {}, {}",
                ui::count(host.users, "user"),
                ui::count(host.images, "image"),
                ui::count(host.networks, "network"),
                ui::count(host.templates, "template")
            )
        })
    } else {
        let places = Places::find(global, Some(&args.manifest.manifest))?;
        let supplies = Supplies::of(&loaded, &places, Purpose::Look, args.manifest.require_samples)?;
        judged(&mut loaded, &supplies, global)?.0.map(|plan| {
            format!(
                "{}, {}, {}",
                ui::count(plan.samples.len(), "sample"),
                ui::count(plan.stages.len(), "stage"),
                ui::count(plan.instances.len(), "instance")
            )
        })
    };
    if args.json {
        ui::out(&ui::json(&codes::for_programs(
            &loaded.diagnostics,
            &loaded.sources,
        ))?);
    } else {
        diagnostics::print(&loaded.diagnostics, &loaded.sources);
    }
    match summary.filter(|_| !loaded.has_errors()) {
        Some(summary) if !args.json => ui::out(&format!("{}: {summary}", loaded.name)),
        Some(_) => {}
        None => return Ok(Exit::Usage),
    }
    Ok(Exit::Ok)
}
