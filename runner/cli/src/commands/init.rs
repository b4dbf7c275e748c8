//! `hotcell init`: a first manifest, with the header that tells editors its schema.

use std::io::Write as _;
use std::path::Path;

use crate::args::InitArgs;
use crate::exit::{Exit, Failure};
use crate::ui;

const TOML: &str = include_str!("init.toml");
const YAML: &str = include_str!("init.yaml");

pub(crate) fn run(args: &InitArgs) -> Result<Exit, Failure> {
    let text = match args.file.extension().and_then(|extension| extension.to_str()) {
        Some("toml") => TOML,
        Some("yaml" | "yml") => YAML,
        _ => {
            return Err(Failure::usage(format!(
                "`{}` is neither TOML nor YAML by its name",
                args.file.display()
            ))
            .help("end the name in .toml, .yaml or .yml"));
        }
    };
    let folder = args
        .file
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let schema = folder.join("hotcell.schema.json");
    write_new(&args.file, text)?;
    if !schema.exists() {
        fs_err::write(&schema, crate::commands::schema::text("manifest")?)?;
    }
    ui::say(&format!("wrote {} and {}", args.file.display(), schema.display()));
    let file = ui::plain(&args.file.display().to_string());
    ui::say(&format!(
        "put a static program into samples/ beside it and try: hotcell plan {file}, then hotcell run {file}"
    ));
    Ok(Exit::Ok)
}

/// Writes a file that must not be there yet.
fn write_new(path: &Path, text: &str) -> Result<(), Failure> {
    let opened = fs_err::OpenOptions::new().write(true).create_new(true).open(path);
    match opened {
        Ok(mut file) => Ok(file.write_all(text.as_bytes())?),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            Err(Failure::usage(format!("{} is there already", path.display()))
                .help("choose another name, or remove it first"))
        }
        Err(error) => Err(error.into()),
    }
}
