//! Peers from the Python registry, each in an environment of its own in the cache.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::common::{Failure, must};

/// Version of Qiling that we are held against.
pub(crate) const QILING: &str = "1.4.6";

/// The Python of an environment that has a package of that version; further requirements go with it.
pub(crate) fn python(
    cache: &Path,
    package: &str,
    version: &str,
    further: &[&str],
) -> Result<PathBuf, Failure> {
    let folder = cache.join(format!("bench/{package}-{version}"));
    let python = folder.join("bin/python");
    let works = |python: &Path| {
        let mut command = Command::new(python);
        command
            .args(["-c", &format!("import {package}")])
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    if works(&python) {
        return Ok(python);
    }
    eprintln!("python: installing {package} {version} into {}", folder.display());
    must(Command::new("python3").args(["-m", "venv"]).arg(&folder))?;
    let pip = Command::new(folder.join("bin/pip"))
        .args(["install", "-q", &format!("{package}=={version}")])
        .args(further)
        .status()?;
    if pip.success() && works(&python) {
        return Ok(python);
    }
    Err(format!("{package} {version} cannot be installed here").into())
}
