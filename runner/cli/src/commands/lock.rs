//! `hotcell lock`: pins what a manifest is made of.

use std::io::Write as _;

use crate::args::{Global, LockArgs};
use crate::exit::{Exit, Failure};
use crate::session::Planned;
use crate::{pins, ui};

pub(crate) fn run(args: &LockArgs, global: &Global) -> Result<Exit, Failure> {
    let Some(planned) = Planned::from_manifest(&args.manifest, global)? else {
        return Ok(Exit::Usage);
    };
    let path = pins::path(&args.manifest);
    let name = pins::name(&args.manifest);
    if args.check {
        return match pins::check(&planned, &args.manifest, true)? {
            true => {
                ui::say(&format!("everything is as {} pins it", path.display()));
                Ok(Exit::Ok)
            }
            false => Ok(Exit::Usage),
        };
    }
    let found = pins::found(&planned);
    let mut file = pins::read(&path)?.unwrap_or_default();
    let before = file.manifests.insert(name, found.clone());
    if before.as_ref() == Some(&found) {
        ui::say(&format!("{} is up to date", path.display()));
        return Ok(Exit::Ok);
    }
    if let Some(before) = &before {
        pins::tell(&before.differences(&found));
    }
    let text = toml::to_string(&file)
        .map_err(|error| Failure::host(format!("the lock file cannot be written as TOML: {error}")))?;
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(std::path::Path::new("."));
    // Whole or not at all: a lock file is read by others.
    let mut part = tempfile::Builder::new()
        .prefix(".hotcell-lock-")
        .tempfile_in(folder)?;
    part.write_all(b"# Written by `hotcell lock`. Commit it; `--locked` refuses anything else.\n")?;
    part.write_all(text.as_bytes())?;
    {
        use std::os::unix::fs::PermissionsExt as _;
        part.as_file()
            .set_permissions(std::fs::Permissions::from_mode(0o644))?;
    }
    part.persist(&path).map_err(|error| Failure::from(error.error))?;
    let are = if found.len() == 1 { "is" } else { "are" };
    ui::say(&format!(
        "{}: {} {are} pinned",
        path.display(),
        ui::count(found.len(), "thing")
    ));
    Ok(Exit::Ok)
}
