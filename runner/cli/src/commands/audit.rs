//! `hotcell audit`: what administrators did on a host, and whether the journal of it is whole.

use std::io::BufReader;

use hotcell_store::StoreError;
use hotcell_store::audit::{AuditFault, check, entries, verify_against};
use serde_json::json;

use crate::args::{AuditArgs, AuditCommand, AuditShowArgs, AuditVerifyArgs};
use crate::exit::{Exit, Failure};
use crate::ui;

pub(crate) fn run(args: &AuditArgs) -> Result<Exit, Failure> {
    match &args.command {
        AuditCommand::Verify(args) => verify(args),
        AuditCommand::Show(args) => show(args),
    }
}

fn verify(args: &AuditVerifyArgs) -> Result<Exit, Failure> {
    let checked = check(&args.file).and_then(|verified| match &args.noted {
        Some(noted) => {
            let file = fs_err::File::open(&args.file)?;
            let path = args.file.clone();
            verify_against(BufReader::new(file), noted).map_err(|fault| StoreError::Audit { path, fault })
        }
        None => Ok(verified),
    });
    let verified = match checked {
        Ok(verified) => verified,
        Err(StoreError::Audit { fault, .. }) if !matches!(fault, AuditFault::Read(_)) => {
            let title = fault.to_string();
            match args.json {
                true => ui::out(&ui::json(
                    &json!({"format": "hotcell-audit-check", "version": 1, "whole": false, "wrong": title}),
                )?),
                false => ui::out(&format!("{}: not whole: {title}", args.file.display())),
            }
            return Ok(Exit::NotMet);
        }
        Err(error) => return Err(unreadable(&error)),
    };
    match args.json {
        true => ui::out(&ui::json(&json!({
            "format": "hotcell-audit-check",
            "version": 1,
            "whole": true,
            "entries": verified.count,
            "last": verified.last,
        }))?),
        false => ui::out(&format!(
            "{}: whole, {}; the last is {}",
            args.file.display(),
            ui::count(verified.count, "act"),
            verified.last
        )),
    }
    Ok(Exit::Ok)
}

fn show(args: &AuditShowArgs) -> Result<Exit, Failure> {
    let file = fs_err::File::open(&args.file).map_err(|error| unreadable(&error.into()))?;
    for entry in entries(BufReader::new(file)) {
        match entry {
            Ok(entry) if args.json => {
                let line = serde_json::to_string(&entry).map_err(|error| Failure::host(error.to_string()))?;
                ui::out(&line);
            }
            Ok(entry) => ui::out(&entry.to_string()),
            Err(fault) => {
                ui::say(&format!("the rest cannot be believed: {fault}"));
                return Ok(Exit::NotMet);
            }
        }
    }
    Ok(Exit::Ok)
}

fn unreadable(error: &StoreError) -> Failure {
    Failure::host(format!("the journal cannot be read: {error}"))
        .help("name the journal's file; root owns that of a host")
}
