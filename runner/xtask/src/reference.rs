//! `reference [--check]`: writes `schema/MANIFEST.md`, the reference of the manifest language, and `runner/kernel/SYSCALLS.md`, what the
//! emulated Linux supports, or says that they are stale.
//!
//! [`page.md`](reference/page.md) is the page with marks in it. What replaces a mark is made of the JSON schema, which is made
//! of the types; of the registry of stage types; of the catalogue of diagnostics; and of the documents in
//! `runner/plan/tests/reference`, which a test of `hotcell-plan` reads and plans.
//!
//! | mark | what comes there |
//! |---|---|
//! | `{{keys NAME}}` | a table of the keys of a type, and of the types it is made of that have no mark of their own |
//! | `{{example FILE}}` | a document |
//! | `{{stage-types}}` | a section for each stage type, with the document that has its name |
//! | `{{limits}}` | limits of a guest that are in force unless a stage says others |
//! | `{{codes}}` | the codes of diagnostics |
//!
//! The example of a key is its shortest value in any of the documents. A key without one is an error.
//!
//! | module | what it does |
//! |---|---|
//! | [`keys`] | tables of keys; what types and values look like in words |
//! | [`examples`] | the values of keys in documents |
//! | [`syscalls`] | the page of system calls |

mod examples;
mod keys;
mod syscalls;

use std::fmt::Write as _;
use std::path::Path;

use hotcell_plan::{catalogue, schemas};
use hotcell_schema::job::GuestLimits;
use hotcell_schema::manifest::{Size, Time};
use hotcell_schema::stage::{STAGE_TYPES, StageType};

use self::examples::Examples;
use self::keys::Keys;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Where the documents are.
const DOCUMENTS: &str = "runner/plan/tests/reference";
/// What is written.
const PAGE: &str = "schema/MANIFEST.md";

/// Runs the task.
pub(crate) fn run(project: &Path, arguments: &[String]) -> Result<()> {
    let check = match arguments {
        [] => false,
        [only] if only == "--check" => true,
        _ => return Err("the task takes `--check` or nothing".into()),
    };
    for (name, page) in [(PAGE, page(project)?), (syscalls::PAGE, syscalls::page())] {
        let path = project.join(name);
        if fs_err::read_to_string(&path).is_ok_and(|present| present == page) {
            continue;
        }
        if check {
            return Err(format!("{name} is out of date: run `make schema` and commit it").into());
        }
        fs_err::write(&path, page)?;
        println!("wrote {name}");
    }
    Ok(())
}

fn page(project: &Path) -> Result<String> {
    let schema = schemas::filled_manifest();
    let documents = project.join(DOCUMENTS);
    let examples = Examples::read(&documents, &schema)?;
    let template = include_str!("reference/page.md");
    let mut keys = Keys::new(&schema, &examples, template);
    let mut out = String::new();
    for line in template.lines() {
        let mark = line.strip_prefix("{{").and_then(|line| line.strip_suffix("}}"));
        match mark.map(|mark| mark.split_once(' ').unwrap_or((mark, ""))) {
            None => {
                out.push_str(line);
                out.push('\n');
            }
            Some(("keys", name)) => keys.table(name, &mut out)?,
            Some(("example", file)) => document(&documents, file, &mut out)?,
            Some(("stage-types", _)) => {
                for stage_type in STAGE_TYPES {
                    describe(stage_type, &documents, &mut keys, &mut out)?;
                }
            }
            Some(("limits", _)) => limits(&mut out),
            Some(("codes", _)) => {
                out.push_str("| code | meaning |\n|---|---|\n");
                for page in catalogue::pages() {
                    let _ = writeln!(out, "| `{}` | {} |", page.code, keys::cell(page.about));
                }
            }
            Some((mark, _)) => return Err(format!("page.md has the unknown mark `{mark}`").into()),
        }
    }
    keys.all_shown()?;
    Ok(out)
}

fn document(folder: &Path, file: &str, out: &mut String) -> Result<()> {
    let text = fs_err::read_to_string(folder.join(file))?;
    let language = file.rsplit('.').next().unwrap_or_default();
    let _ = writeln!(out, "```{language}\n{}\n```", text.trim_end());
    Ok(())
}

fn limits(out: &mut String) {
    let GuestLimits {
        virtual_time,
        events,
        syscalls,
        instructions,
        memory,
        tasks,
        file_bytes,
    } = GuestLimits::default();
    let instructions = instructions.map_or("none".to_owned(), |number| number.to_string());
    let _ = writeln!(
        out,
        "Unless a stage says others, a guest has: `virtual-time` {}, `events` {events}, `syscalls` {syscalls}, `instructions` \
         {instructions}, `memory` {}, `tasks` {tasks}, `file-bytes` {}.",
        Time(virtual_time),
        Size(memory),
        Size(file_bytes),
    );
}

/// A section about a stage type.
fn describe(stage_type: &StageType, documents: &Path, keys: &mut Keys<'_>, out: &mut String) -> Result<()> {
    let _ = writeln!(out, "### `{}`\n\n{}.", stage_type.name, stage_type.about);
    let exact = match (stage_type.exact, stage_type.open) {
        (true, false) => "Its result is the same on every machine",
        (true, true) => {
            "Its result is taken to be the same on every machine, unless `with.observed` says otherwise"
        }
        (false, _) => "Its result may differ from run to run",
    };
    let seeded = if stage_type.seeded {
        "; what chance there is comes from the instance's seed"
    } else {
        ""
    };
    let _ = writeln!(out, "{exact}{seeded}.\n");
    out.push_str("| input | type | |\n|---|---|---|\n");
    for input in stage_type.inputs {
        let must = if input.required { "**required**: " } else { "" };
        let _ = writeln!(
            out,
            "| `in.{}` | `{}` | {must}{} |",
            input.name, input.port, input.about
        );
    }
    if stage_type.open {
        out.push_str("| `in.<any name>` | anything | one output, or several |\n");
    }
    out.push_str("\n| output | type | |\n|---|---|---|\n");
    for output in stage_type.outputs {
        let _ = writeln!(
            out,
            "| `out.{}` | `{}` | {} |",
            output.name, output.port, output.about
        );
    }
    if stage_type.open {
        out.push_str("| `out.<name>` | as declared | what `with.outputs` declares |\n");
    }
    let limits: Vec<String> = stage_type
        .limits
        .iter()
        .map(|limit| format!("`{limit}`"))
        .collect();
    let _ = writeln!(out, "\nLimits: {}.\n\nKeys of `with`:\n", limits.join(", "));
    keys.table(&keys.with_of(stage_type.name)?, out)?;
    out.push('\n');
    document(
        documents,
        &format!("{}.toml", stage_type.name.replace('/', "-")),
        out,
    )?;
    out.push('\n');
    Ok(())
}
