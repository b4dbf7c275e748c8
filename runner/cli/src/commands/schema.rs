//! `hotcell schema`: the JSON schemas.

use crate::args::SchemaArgs;
use crate::exit::{Exit, Failure};
use crate::ui;

pub(crate) fn run(args: &SchemaArgs) -> Result<Exit, Failure> {
    if args.list {
        for schema in hotcell_plan::schemas::all() {
            ui::out(schema.name);
        }
        return Ok(Exit::Ok);
    }
    ui::out(text(&args.name)?.trim_end());
    Ok(Exit::Ok)
}

/// The schema of that name.
pub(crate) fn text(name: &str) -> Result<String, Failure> {
    let mut all = hotcell_plan::schemas::all();
    match all
        .iter()
        .position(|schema| schema.name == name || schema.file_name() == name)
    {
        Some(index) => Ok(all.swap_remove(index).text()),
        None => {
            let names: Vec<&str> = all.iter().map(|schema| schema.name).collect();
            Err(Failure::usage(format!("there is no schema `{name}`"))
                .help(format!("there are: {}", names.join(", "))))
        }
    }
}
