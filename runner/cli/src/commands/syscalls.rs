//! `hotcell syscalls`: what the emulated Linux supports, from the table that runs guests.

use camino::Utf8Path;
use hotcell_kernel::support::{Supported, system_calls};
use hotcell_plan::diagnostics::nearest;
use hotcell_plan::{Profiles, Sources};
use hotcell_schema::arch::ArchProfile;
use hotcell_schema::event::Support;
use serde_json::{Map, Value, json};

use crate::args::{Global, SupportLevel, SyscallsArgs};
use crate::exit::{Exit, Failure};
use crate::session;
use crate::ui;

pub(crate) fn run(args: &SyscallsArgs, global: &Global) -> Result<Exit, Failure> {
    let profile = args.arch.as_deref().map(|arch| find(arch, global)).transpose()?;
    let profile = profile.as_ref();
    let all = system_calls();
    for name in &args.names {
        if !all.iter().any(|call| call.name == name) {
            let failure = Failure::usage(format!(
                "Linux has no system call `{name}` on any architecture here"
            ));
            return Err(match nearest(name, all.iter().map(|call| call.name)) {
                Some(near) => failure.help(format!("did you mean `{near}`?")),
                None => failure,
            });
        }
    }
    let number = |call: &Supported| profile.and_then(|profile| call.number(profile.abi.family));
    let wanted: Vec<&Supported> = all
        .iter()
        .filter(|call| profile.is_none() || number(call).is_some())
        .filter(|call| args.names.is_empty() || args.names.iter().any(|name| name == call.name))
        .filter(|call| args.support.is_empty() || args.support.iter().any(|level| level.is(call.support)))
        .collect();
    if args.json {
        let calls: Vec<Value> = wanted.iter().map(|call| document(call, profile)).collect();
        let document = json!({
            "format": "hotcell-syscalls",
            "version": 1,
            "arch": profile.map(|profile| &profile.name),
            "calls": calls,
        });
        ui::out(&ui::json(&document)?);
        return Ok(Exit::Ok);
    }
    let width = wanted.iter().map(|call| call.name.len()).max().unwrap_or(0);
    for call in &wanted {
        let (style, word) = match call.support {
            Support::Full => (ui::GREEN, "full   "),
            Support::Partial => (ui::YELLOW, "partial"),
            Support::Refused => (ui::CYAN, "refused"),
            Support::Missing => (ui::RED, "missing"),
        };
        let number = profile.map(|_| format!("{:>6}  ", number(call).unwrap_or_default()));
        let why = [
            call.answer.filter(|_| call.support == Support::Refused),
            Some(call.note),
        ];
        let why: Vec<&str> = why
            .into_iter()
            .flatten()
            .filter(|text| !text.is_empty())
            .collect();
        let line = format!(
            "{}{:width$}  {}  {}",
            number.unwrap_or_default(),
            call.name,
            ui::styled(style, word),
            why.join(": ")
        );
        ui::out(line.trim_end());
    }
    let count = |support| wanted.iter().filter(|call| call.support == support).count();
    ui::out("");
    ui::out(&format!(
        "{}: {} full, {} partial, {} refused, {} missing",
        ui::count(wanted.len(), "call"),
        count(Support::Full),
        count(Support::Partial),
        count(Support::Refused),
        count(Support::Missing)
    ));
    Ok(Exit::Ok)
}

impl SupportLevel {
    fn is(self, support: Support) -> bool {
        match self {
            Self::Full => support == Support::Full,
            Self::Partial => support == Support::Partial,
            Self::Refused => support == Support::Refused,
            Self::Missing => support == Support::Missing,
        }
    }
}

fn find(arch: &str, global: &Global) -> Result<ArchProfile, Failure> {
    let folders: Vec<&Utf8Path> = global
        .profiles
        .iter()
        .map(|folder| session::utf8(folder))
        .collect::<Result<_, _>>()?;
    let mut problems = Vec::new();
    let profiles = Profiles::load(&folders, &mut Sources::default(), &mut problems);
    if let Some(problem) = problems.first() {
        return Err(Failure::usage(problem.title.as_str()));
    }
    profiles.find(arch).cloned().ok_or_else(|| {
        let names: Vec<&str> = profiles
            .all()
            .iter()
            .map(|profile| profile.name.as_str())
            .collect();
        Failure::usage(format!("there is no arch profile `{arch}`"))
            .help(format!("there are: {}", names.join(", ")))
    })
}

fn document(call: &Supported, profile: Option<&ArchProfile>) -> Value {
    let numbers: Map<String, Value> = match profile {
        Some(_) => Map::new(),
        None => call
            .numbers
            .iter()
            .map(|(family, number)| {
                let family = json!(family);
                (family.as_str().unwrap_or_default().to_owned(), json!(number))
            })
            .collect(),
    };
    let mut document = json!({
        "name": call.name,
        "support": call.support,
        "answer": call.answer,
        "note": call.note,
    });
    match profile {
        Some(profile) => document["number"] = json!(call.number(profile.abi.family)),
        None => document["numbers"] = Value::Object(numbers),
    }
    document
}
