//! `hotcell explain`: why an instance ran or did not, and from what its cache key is made.

mod between;

use hotcell_plan::Instance;
use hotcell_run::{Detail, Forecast};
use serde_json::json;

use crate::args::{ExplainArgs, Global};
use crate::exit::{Exit, Failure};
use crate::names::Names;
use crate::outlook::Past;
use crate::session::Planned;
use crate::ui;

pub(crate) fn run(args: &ExplainArgs, global: &Global) -> Result<Exit, Failure> {
    if let [old, new] = args.between.as_slice() {
        return between::run(args, global, old, new);
    }
    let manifest = args.manifest.as_ref().ok_or_else(|| {
        Failure::usage("nothing to explain is named")
            .help("hotcell explain MANIFEST, or hotcell explain --between OLD NEW")
    })?;
    let Some(planned) = Planned::from_manifest(manifest, global)? else {
        return Ok(Exit::Usage);
    };
    let forecasts = planned.forecast(Detail::Components)?;
    let past = Past::of(&planned);
    let names = Names::new(&planned.plan);
    let wanted = |instance: &Instance| {
        args.instance
            .as_ref()
            .is_none_or(|name| instance.name.starts_with(name) || names.of(instance).starts_with(name))
    };
    let chosen: Vec<_> = forecasts
        .iter()
        .map(|foreseen| (&*foreseen.instance, &foreseen.forecast))
        .filter(|(instance, _)| wanted(instance))
        .collect();
    if chosen.is_empty() {
        let name = args.instance.as_deref().unwrap_or_default();
        let names = forecasts.iter().map(|foreseen| foreseen.instance.name.as_str());
        let nearest = hotcell_plan::diagnostics::nearest(name, names);
        let failure = Failure::usage(format!("no instance's name begins with `{name}`"));
        return Err(match nearest {
            Some(nearest) => failure.help(format!("did you mean `{nearest}`?")),
            None => failure.help("`hotcell explain MANIFEST` shows all names"),
        });
    }
    if args.json {
        let all: Vec<_> = chosen
            .iter()
            .map(|(instance, forecast)| as_json(instance, forecast))
            .collect();
        ui::out(&ui::json(
            &json!({"format": "hotcell-explain", "version": 1, "instances": all}),
        )?);
        return Ok(Exit::Ok);
    }
    for (instance, forecast) in &chosen {
        explain(instance, forecast, &past, &names, args.instance.is_some());
    }
    Ok(Exit::Ok)
}

fn as_json(instance: &Instance, forecast: &Forecast) -> serde_json::Value {
    match forecast {
        Forecast::Cached { key, components } => {
            json!({"instance": instance.name, "does": "cached", "key": key, "components": components})
        }
        Forecast::Runs { key, components } => {
            json!({"instance": instance.name, "does": "run", "key": key, "components": components})
        }
        Forecast::Later { after } => json!({"instance": instance.name, "does": "later", "after": after}),
        Forecast::Expands { items, reason } => {
            json!({"instance": instance.name, "does": "expand", "items": items, "reason": reason})
        }
        Forecast::Ends { status, reason } => {
            json!({"instance": instance.name, "does": "end", "status": status, "reason": reason})
        }
    }
}

fn explain(instance: &Instance, forecast: &Forecast, past: &Past, names: &Names<'_>, in_full: bool) {
    let mut settings = Vec::new();
    let (line, parts) = match forecast {
        Forecast::Cached { components, .. } => (
            "is stored: a run would read its outputs".to_owned(),
            components.as_ref(),
        ),
        Forecast::Runs { key, components } => {
            let why = past.why(&instance.name, key, components);
            if why.changed.iter().any(|name| name == "with") {
                settings = past.settings(instance);
            }
            (format!("would run: {}", why.text), Some(components))
        }
        Forecast::Later { after } => (format!("cannot be said before `{after}` has run"), None),
        Forecast::Expands { items, .. } => (format!("becomes {items} instances, one for each item"), None),
        Forecast::Ends { reason, .. } => (format!("would not run: {reason}"), None),
    };
    ui::out(&format!(
        "{} {}",
        ui::styled(ui::BOLD, names.plain(instance)),
        ui::plain(&names.shorten(&line))
    ));
    for setting in &settings {
        ui::out(&format!("  with.{}", ui::plain(setting)));
    }
    let before = past.ending(&instance.name);
    if let Some((run, facts)) = before.filter(|(_, facts)| !facts.status.has_outputs()) {
        let reason = facts.reason.as_deref().unwrap_or_default();
        if !reason.is_empty() {
            ui::out(&format!("  in {run}: {}", ui::plain(&names.shorten(reason))));
        }
        if let Some(error) = &facts.error {
            ui::out(&ui::indented(error, "    "));
        }
    }
    if in_full && names.of(instance) != instance.name {
        let (title, name) = (
            ui::styled(ui::DIM, format!("{:12}", "full name")),
            ui::plain(&instance.name),
        );
        ui::out(&format!("  {title} {name}"));
    }
    for (name, value) in parts.into_iter().flatten().filter(|_| in_full) {
        ui::out(&format!(
            "  {} {}",
            ui::styled(ui::DIM, format!("{name:12}")),
            ui::plain(value)
        ));
        if name == "with" {
            let settings = hotcell_report::words::cut(instance.with.as_str(), 400);
            ui::out(&format!("  {:12} {}", "", ui::plain(&settings)));
        }
    }
}
