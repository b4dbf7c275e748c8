//! `hotcell analyze`: files without a manifest. The manifest is a shipped one.

use std::collections::HashMap;
use std::path::PathBuf;

use hotcell_plan::load::{self, Given};
use hotcell_schema::digest::Digest;

use crate::args::{AnalyzeArgs, Global};
use crate::exit::{Exit, Failure};
use crate::places::Places;
use crate::session::{self, Planned};
use crate::ui;

/// What is done with each file.
const MANIFEST: &str = include_str!("analyze.toml");
/// The set the files are put into.
const SET: &str = "files";
/// The set of what they read.
const STDIN: &str = "stdin";

/// A value as `--set` reads it: TOML reads all of JSON's texts but one character.
fn toml(value: &impl serde::Serialize) -> String {
    serde_json::json!(value).to_string().replace('\u{7f}', "\\u007f")
}

/// A pattern that only this path fits.
fn literal_pattern(path: &str) -> String {
    path.chars().fold(String::new(), |mut pattern, character| {
        if "*?[]{}\\!".contains(character) {
            pattern.push('\\');
        }
        pattern.push(character);
        pattern
    })
}

pub(crate) fn run(args: &AnalyzeArgs, global: &Global) -> Result<Exit, Failure> {
    let mut samples = Vec::new();
    let mut seen: HashMap<Digest, &PathBuf> = HashMap::new();
    for file in &args.files {
        if !file.is_file() {
            return Err(Failure::usage(format!(
                "{} is not a file that can be read",
                file.display()
            )));
        }
        let path = file
            .canonicalize()
            .map_err(|error| Failure::usage(format!("{}: {error}", file.display())))?;
        let bytes = fs_err::read(&path).map_err(|error| Failure::usage(error.to_string()))?;
        if let Some(first) = seen.insert(Digest::of(&bytes), file) {
            ui::say(&format!(
                "{} {} holds the same as {}, and is looked at once",
                ui::styled(ui::YELLOW, "note:"),
                ui::plain(&file.display().to_string()),
                ui::plain(&first.display().to_string())
            ));
            continue;
        }
        samples.push((SET.to_owned(), session::utf8_buf(&path)?));
    }
    let mut all = Vec::new();
    let mut give = |option: &str, value: String| {
        let option = option.to_owned();
        all.push(Given { option, value });
    };
    let given = [args.args.as_slice(), args.rest.as_slice()].concat();
    if !given.is_empty() {
        // What a manifest would evaluate is meant literally here.
        let literal: Vec<String> = given.iter().map(|arg| arg.replace("${", "$${")).collect();
        give("--args", format!("stages.run.with.args={}", toml(&literal)));
    }
    let mut names = Vec::new();
    for (number, place) in args.sysroot.iter().enumerate() {
        let path = place
            .canonicalize()
            .map_err(|error| Failure::usage(format!("--sysroot {}: {error}", place.display())))?;
        let kind = if path.is_dir() { "folder" } else { "archive" };
        let path = session::utf8_buf(&path)?;
        // The path of an archive is a pattern.
        let path = match kind {
            "folder" => path.into_string(),
            _ => literal_pattern(path.as_str()),
        };
        let name = format!("root-{number}");
        let option = format!("--sysroot {}", place.display());
        let source = format!("{{ kind = {}, path = {} }}", toml(&kind), toml(&path));
        give(&option, format!("sources.{name} = {source}"));
        names.push(name);
    }
    if !names.is_empty() {
        let places: Vec<String> = args
            .sysroot
            .iter()
            .map(|place| place.display().to_string())
            .collect();
        let option = format!("--sysroot {}", places.join(" --sysroot "));
        give(&option, format!("stages.run.with.sysroot={}", toml(&names)));
    }
    if let Some(arch) = &args.arch {
        give(
            &format!("--arch {arch}"),
            format!("stages.run.with.arch={}", toml(&arch)),
        );
    }
    give(
        &format!("--engine {}", args.engine),
        format!("stages.run.uses={}", toml(&format!("{}/linux", args.engine))),
    );
    // A program that only computes ends by its instructions, the same on every machine, and keeps what it did until then.
    let own: &[(&str, &str)] = match args.engine.as_str() {
        "unicorn" => &[("virtual-time", "\"5m\""), ("instructions", "500000000")],
        _ => &[],
    };
    for (limit, value) in own {
        give("--limit", format!("stages.run.limits.{limit}={value}"));
    }
    for limit in &args.limit {
        let Some((name, value)) = limit.split_once('=') else {
            return Err(Failure::usage(format!("`--limit {limit}` has no value"))
                .help("write for instance `--limit wall=10m`"));
        };
        let number = !value.is_empty() && value.bytes().all(|digit| digit.is_ascii_digit());
        let value = if number { value.to_owned() } else { toml(&value) };
        give(
            &format!("--limit {limit}"),
            format!("stages.run.limits.{name}={value}"),
        );
    }
    for (option, value) in [("network", &args.network), ("persona", &args.persona)] {
        if let Some(value) = value {
            give(
                &format!("--{option} {value}"),
                format!("stages.run.with.{option}={}", toml(value)),
            );
        }
    }
    if let Some(stdin) = &args.stdin {
        let path = stdin
            .canonicalize()
            .map_err(|error| Failure::usage(format!("--stdin {}: {error}", stdin.display())))?;
        samples.push((STDIN.to_owned(), session::utf8_buf(&path)?));
        let option = format!("--stdin {}", stdin.display());
        for stage in ["run", "hits"] {
            let each = "{ sample = \"samples.files\", input = \"samples.stdin\" }";
            give(&option, format!("stages.{stage}.for-each={each}"));
        }
        give(&option, "stages.run.in.stdin=\"${input.file}\"".to_owned());
    }
    let wanted = [("coverage", args.coverage), ("library-calls", args.library_calls)];
    for (key, _) in wanted.into_iter().filter(|(_, wanted)| *wanted) {
        give(&format!("--{key}"), format!("stages.run.with.{key}=true"));
    }
    if !args.dump.is_empty() {
        let option = format!("--dump {}", args.dump.join(" --dump "));
        give(&option, format!("stages.run.with.dump={}", toml(&args.dump)));
    }
    let variants = if args.no_run {
        vec!["look".to_owned()]
    } else {
        Vec::new()
    };
    let options = load::Options {
        samples,
        given: all,
        variants: variants.clone(),
        ..load::Options::default()
    };
    let loaded = load::load_text("analyze.toml".into(), MANIFEST, &options);
    let places = Places::find(global, None)?;
    let Some(planned) = Planned::from_loaded(loaded, places, variants, global)? else {
        return Ok(Exit::Usage);
    };
    let ran = planned.run(&args.execute)?;
    if args.json {
        ui::out(&ui::json(&ran.outcome.report)?);
    } else {
        session::print_summary(&ran.summary(), ran.folder.path());
    }
    Ok(ran.exit())
}
