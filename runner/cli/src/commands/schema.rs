//! `hotcell schema`: the JSON schemas.

use crate::args::SchemaArgs;
use crate::exit::{Exit, Failure};
use crate::ui;

/// What follows a schema's name in its file name.
const ENDING: &str = ".schema.json";

pub(crate) fn run(args: &SchemaArgs) -> Result<Exit, Failure> {
    ui::out(text(&args.name)?.trim_end());
    Ok(Exit::Ok)
}

/// The schema of that name.
pub(crate) fn text(name: &str) -> Result<String, Failure> {
    let all = hotcell_plan::schemas::all();
    let name = name.strip_suffix(ENDING).unwrap_or(name);
    match all.iter().find(|(file, _)| file.strip_suffix(ENDING) == Some(name)) {
        Some((_, schema)) => Ok(ui::json(schema)? + "\n"),
        None => {
            let names: Vec<&str> = all.iter().filter_map(|(file, _)| file.strip_suffix(ENDING)).collect();
            Err(Failure::usage(format!("there is no schema `{name}`")).help(format!("there are: {}", names.join(", "))))
        }
    }
}
