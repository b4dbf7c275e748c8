//! `hotcell fmt`: a document in its usual form, or in the other language.

use hotcell_plan::format::{self, Language as To};
use hotcell_plan::{Sources, load};

use crate::args::{FmtArgs, Language};
use crate::exit::{Exit, Failure};
use crate::session::utf8;
use crate::{diagnostics, ui};

pub(crate) fn run(args: &FmtArgs) -> Result<Exit, Failure> {
    let path = utf8(&args.file)?;
    let text = match load::read_text(path) {
        Ok(text) => text,
        Err(problem) => {
            diagnostics::print(&[problem], &Sources::default());
            return Ok(Exit::Usage);
        }
    };
    let to = args.to.map(|to| match to {
        Language::Toml => To::Toml,
        Language::Yaml => To::Yaml,
    });
    let mut sources = Sources::default();
    let written = match format::format(path, &text, to, &mut sources) {
        Ok(written) => written,
        Err(problems) => {
            diagnostics::print(&problems, &sources);
            return Ok(Exit::Usage);
        }
    };
    if args.check {
        if written == text {
            return Ok(Exit::Ok);
        }
        ui::say(&format!(
            "{path} is not as it would be written; hotcell fmt --write {path} writes it"
        ));
        return Ok(Exit::NotMet);
    }
    if !args.write {
        ui::out(written.trim_end_matches('\n'));
        return Ok(Exit::Ok);
    }
    let target = match to {
        Some(to) if To::of(path) != Some(to) => path.with_extension(to.extension()),
        _ => path.to_owned(),
    };
    if target != path && target.exists() {
        return Err(Failure::usage(format!("{target} exists already"))
            .help("take it away, or write to standard output and put it where you want it"));
    }
    if target != path || written != text {
        fs_err::write(&target, written)
            .map_err(|error| Failure::host(format!("{target} cannot be written: {error}")))?;
        ui::say(&format!("wrote {target}"));
    }
    Ok(Exit::Ok)
}
