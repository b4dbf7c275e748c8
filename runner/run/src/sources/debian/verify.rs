//! The signature of a suite: checked by the system's own program with the system's own keys.

use std::path::Path;
use std::process::{Command, Stdio};

use hotcell_plan::SourceError;

use crate::sources::host;

/// Where Debian's keys stand.
const KEYRINGS: [&str; 2] = [
    "/usr/share/keyrings/debian-archive-keyring.gpg",
    "/usr/share/keyrings/debian-archive-keyring.pgp",
];
/// Where the programs stand.
const GPGV: &str = "/usr/bin/gpgv";
const SQV: &str = "/usr/bin/sqv";

/// The text that a signed message signs; `None` where this host cannot check signatures. A wrong signature is an error.
pub(super) fn signed_text(message: &[u8]) -> Result<Option<String>, SourceError> {
    let Some(keyring) = KEYRINGS.iter().find(|path| Path::new(path).is_file()) else {
        return Ok(None);
    };
    let folder = tempfile::tempdir().map_err(host)?;
    let (signed, text) = (folder.path().join("InRelease"), folder.path().join("Release"));
    fs_err::write(&signed, message).map_err(host)?;
    let mut command = if Path::new(GPGV).is_file() {
        let mut command = Command::new(GPGV);
        command
            .args(["--keyring", keyring, "--output"])
            .arg(&text)
            .arg(&signed);
        command
    } else if Path::new(SQV).is_file() {
        let mut command = Command::new(SQV);
        command.args(["--keyring", keyring, "--cleartext", "--output"]);
        command.arg(&text).arg(&signed);
        command
    } else {
        return Ok(None);
    };
    let output = command
        .env_clear()
        .env("HOME", folder.path())
        .env("GNUPGHOME", folder.path())
        .stdin(Stdio::null())
        .output()
        .map_err(host)?;
    if !output.status.success() {
        return Err(SourceError::Unverified(
            "the signature of the mirror's suite is not one of Debian's".into(),
        ));
    }
    let text = fs_err::read(&text).map_err(host)?;
    String::from_utf8(text)
        .map(Some)
        .map_err(|_| SourceError::Damaged("the suite's Release is not UTF-8".into()))
}
