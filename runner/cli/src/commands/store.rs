//! `hotcell store`: collect, verify, carry away and bring in what is stored.

use std::collections::BTreeSet;
use std::io::{self, BufReader, BufWriter, IsTerminal as _, Write as _};
use std::path::Path;
use std::time::SystemTime;

use hotcell_schema::digest::Digest;
use hotcell_schema::outcome::Status;
use hotcell_schema::report::RunFacts;
use hotcell_store::archive::{self, ArchiveError, Imported, Limits};
use hotcell_store::gc::{Collected, Collector, Keep, Tally, survey};
use hotcell_store::verify::{Judged, Verified, verify};
use hotcell_store::{Progress, Store, StoreError};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;

use crate::args::{ExportArgs, GcArgs, Global, ImportArgs, StoreArgs, StoreCommand, VerifyArgs};
use crate::exit::{Exit, Failure};
use crate::places::Places;
use crate::{janitor, ui};

pub(crate) fn run(args: &StoreArgs, global: &Global) -> Result<Exit, Failure> {
    let places = Places::find(global, None)?;
    match &args.command {
        StoreCommand::Gc(args) => gc(args, &places.store),
        StoreCommand::Verify(args) => check(args, &places.store),
        StoreCommand::Export(args) => export(args, &places),
        StoreCommand::Import(args) => import(args, &places.store),
    }
}

/// A store that cannot be used, with what to do.
pub(crate) fn unusable(error: &StoreError) -> Failure {
    let failure = Failure::host(format!("the store cannot be used: {error}"));
    match error {
        StoreError::Busy { .. } => failure.help("wait for its end, or stop it"),
        StoreError::Version { .. } => failure.help("use a store of its own for this version: --store DIR"),
        _ => failure.help("say where it is with --store DIR or HOTCELL_STORE"),
    }
}

fn none(folder: &Path) -> Failure {
    Failure::host(format!("there is no store in {}", folder.display()))
        .help("a first run makes it; say where it is with --store DIR or HOTCELL_STORE")
}

fn reader(folder: &Path) -> Result<Store, Failure> {
    Store::open_existing(folder)
        .map_err(|error| unusable(&error))?
        .ok_or_else(|| none(folder))
}

fn gc(args: &GcArgs, folder: &Path) -> Result<Exit, Failure> {
    let keep = Keep {
        used_within: args.keep,
        max_bytes: args.max_size.map(|size| size.0),
        now: SystemTime::now(),
    };
    let bar = Bar::new();
    let collected = if args.dry_run {
        survey(&reader(folder)?, &keep, &|progress| bar.show(progress))
    } else {
        let collector = match Collector::open(folder, false) {
            Err(StoreError::Busy { by, .. }) if args.wait => {
                ui::say(&format!("waiting: {by}"));
                Collector::open(folder, true)
            }
            opened => opened,
        };
        let collector = collector.map_err(|error| match error {
            StoreError::Busy { by, .. } => Failure::host(format!("nothing was collected: {by}"))
                .help("--wait waits for them; --dry-run only says what would go"),
            error => unusable(&error),
        })?;
        collector
            .ok_or_else(|| none(folder))?
            .collect(&keep, &|progress| bar.show(progress))
    };
    bar.finish();
    let collected = collected.map_err(|error| unusable(&error))?;
    if !args.dry_run {
        janitor::clear_host();
    }
    if args.json {
        ui::out(&ui::json(&json!({
            "format": "hotcell-store-gc", "version": 1, "dry-run": args.dry_run, "collected": collected
        }))?);
    } else {
        ui::out(&told(&collected, args.dry_run));
    }
    Ok(Exit::Ok)
}

fn told(collected: &Collected, dry_run: bool) -> String {
    let line = |name: &str, tally: &Tally| {
        format!(
            "{name:8} {:>9} kept {:>11}   {:>9} {} {:>11}\n",
            tally.kept,
            size(tally.kept_bytes),
            tally.removed,
            if dry_run { "to go" } else { "removed" },
            size(tally.removed_bytes)
        )
    };
    let mut text = String::new();
    for (name, tally) in [
        ("records", &collected.records),
        ("objects", &collected.objects),
        ("memos", &collected.memos),
    ] {
        text += &line(name, tally);
    }
    let (_, kept) = collected.kept();
    let (files, bytes) = collected.removed();
    let verb = if dry_run { "would be removed" } else { "removed" };
    text += &format!("{files} files {verb}, {}; {} stay", size(bytes), size(kept));
    text
}

/// A number of bytes for people.
fn size(bytes: u64) -> String {
    indicatif::HumanBytes(bytes).to_string()
}

fn check(args: &VerifyArgs, folder: &Path) -> Result<Exit, Failure> {
    let store = match args.repair {
        // Where there is no store, none is made.
        true => reader(folder).and_then(|_| Store::open(folder).map_err(|error| unusable(&error)))?,
        false => reader(folder)?,
    };
    let bar = Bar::new();
    let verified = verify(&store, args.repair, &|progress| bar.show(progress));
    bar.finish();
    let verified = verified.map_err(|error| unusable(&error))?;
    if args.json {
        ui::out(&ui::json(&json!({
            "format": "hotcell-store-verify", "version": 1, "repair": args.repair, "verified": verified
        }))?);
    } else {
        judged(&verified, args.repair);
    }
    Ok(match verified.wrong() {
        0 => Exit::Ok,
        _ => Exit::NotMet,
    })
}

fn judged(verified: &Verified, repair: bool) {
    let all: [(&str, &Judged); 3] = [
        ("objects", &verified.objects),
        ("records", &verified.records),
        ("memos", &verified.memos),
    ];
    for (name, judged) in all {
        let mut line = format!("{name:8} {:>9} whole", judged.whole);
        for (word, count) in [
            ("damaged", judged.damaged),
            ("unreadable", judged.unreadable),
            ("incomplete", judged.incomplete),
            ("not named by any record", judged.orphaned),
            ("not the store's", judged.strangers),
            ("removed", judged.removed),
        ] {
            if count > 0 {
                line += &format!(", {count} {word}");
            }
        }
        ui::out(&line);
    }
    for problem in verified.problems.iter().take(20) {
        let wrong = serde_json::to_string(&problem.wrong).unwrap_or_default();
        let wrong = ui::styled(ui::RED, wrong.trim_matches('"'));
        // As it stands on disk.
        let digest = problem.digest.to_string();
        let (folder, file) = digest.split_at(2);
        ui::out(&format!("{wrong} {}/{folder}/{file}", problem.kind));
    }
    if verified.problems.len() > 20 {
        ui::out("… --json names more");
    }
    match (verified.wrong(), repair) {
        (0, _) => ui::out(&ui::styled(ui::GREEN, "the store is whole")),
        (_, true) => ui::out("what is wrong was removed; a run makes it again when it is wanted"),
        (_, false) => ui::out("runs make what is missing again; --repair removes it now"),
    }
}

fn export(args: &ExportArgs, places: &Places) -> Result<Exit, Failure> {
    let keys = match (&args.run, args.key.as_slice()) {
        (Some(run), _) => Some(keys_of(&places.run(Some(run))?)?),
        (None, []) => None,
        (None, keys) => Some(keys.iter().copied().collect()),
    };
    let store = reader(&places.store)?;
    let bar = Bar::new();
    let tell = |progress| bar.show(progress);
    let exported = match args.file.as_os_str() == "-" {
        true if io::stdout().is_terminal() => {
            return Err(Failure::usage("an export is no text for a terminal")
                .help("name a file, or send standard output elsewhere"));
        }
        true => archive::export(&store, keys.as_ref(), BufWriter::new(io::stdout().lock()), &tell),
        false => {
            let folder = args.file.parent().filter(|folder| !folder.as_os_str().is_empty());
            let mut file = tempfile::Builder::new()
                .prefix(".part-")
                .tempfile_in(folder.unwrap_or(Path::new(".")))
                .map_err(|error| {
                    Failure::host(format!("{} cannot be written: {error}", args.file.display()))
                })?;
            let exported = archive::export(&store, keys.as_ref(), BufWriter::new(&mut file), &tell);
            if exported.is_ok() {
                keep(file, &args.file)?;
            }
            exported
        }
    };
    bar.finish();
    let exported = exported.map_err(|error| carried(&error))?;
    if args.json {
        ui::say(&ui::json(
            &json!({"format": "hotcell-store-exported", "version": 1, "exported": exported}),
        )?);
    } else {
        ui::say(&format!(
            "{} records and {} objects of {} written",
            exported.records,
            exported.objects,
            size(exported.bytes)
        ));
        for key in exported.absent.iter().take(20) {
            ui::say(&format!(
                "{} nothing whole is stored under {key}",
                ui::styled(ui::YELLOW, "absent:")
            ));
        }
    }
    Ok(match exported.absent.is_empty() {
        true => Exit::Ok,
        false => Exit::NotMet,
    })
}

/// A temporary file becomes the one that was asked for: readable by those whom the person's mask lets read.
fn keep(mut file: tempfile::NamedTempFile, path: &Path) -> Result<(), Failure> {
    use std::os::unix::fs::PermissionsExt as _;
    let failed = |error: io::Error| Failure::host(format!("{} cannot be written: {error}", path.display()));
    file.flush().map_err(failed)?;
    let mask = nix::sys::stat::umask(nix::sys::stat::Mode::empty());
    nix::sys::stat::umask(mask);
    let mode = 0o666 & !mask.bits();
    file.as_file()
        .set_permissions(std::fs::Permissions::from_mode(mode))
        .map_err(failed)?;
    file.persist(path).map_err(|error| failed(error.error))?;
    Ok(())
}

/// Keys of what a run has made or found stored.
fn keys_of(run: &Path) -> Result<BTreeSet<Digest>, Failure> {
    let path = run.join("run.json");
    let facts: RunFacts = serde_json::from_slice(&fs_err::read(&path)?)
        .map_err(|error| Failure::usage(format!("{}: {error}", path.display())))?;
    let stored = facts
        .instances
        .values()
        .filter(|facts| matches!(facts.status, Status::Ok | Status::Cached));
    Ok(stored.filter_map(|facts| facts.key).collect())
}

/// An archive that cannot be written or read, with what to do.
fn carried(error: &ArchiveError) -> Failure {
    match error {
        ArchiveError::Store(error) => unusable(error),
        ArchiveError::Write(_) => Failure::host(error.to_string()).help("is there room where it is written?"),
        ArchiveError::Changed(_) => Failure::host(error.to_string()),
        ArchiveError::TooLarge(_) => {
            Failure::usage(error.to_string()).help("--max-size takes more; what came before is stored")
        }
        ArchiveError::Version(_) => {
            Failure::usage(error.to_string()).help("export again with this version of hotcell")
        }
        ArchiveError::Foreign => {
            Failure::usage(error.to_string()).help("`hotcell store export FILE` writes what can be imported")
        }
        ArchiveError::Read(_) | ArchiveError::Damaged(_) => Failure::usage(error.to_string())
            .help("what came before is right and stored; carry the file over again"),
    }
}

fn import(args: &ImportArgs, folder: &Path) -> Result<Exit, Failure> {
    let store = Store::open(folder).map_err(|error| unusable(&error))?;
    let limits = Limits {
        bytes: args.max_size.0,
        ..Limits::default()
    };
    let bar = Bar::new();
    let tell = |progress| bar.show(progress);
    let imported = match args.file.as_os_str() == "-" {
        true => archive::import(&store, io::stdin().lock(), limits, &tell),
        false => {
            let file = fs_err::File::open(&args.file).map_err(|error| Failure::usage(error.to_string()))?;
            archive::import(&store, BufReader::new(file), limits, &tell)
        }
    };
    bar.finish();
    let imported = imported.map_err(|error| carried(&error))?;
    let Imported { objects, records } = imported;
    if args.json {
        ui::out(&ui::json(
            &json!({"format": "hotcell-store-imported", "version": 1, "imported": imported}),
        )?);
    } else {
        for (name, told) in [("records", records), ("objects", objects)] {
            ui::out(&format!(
                "{name:8} {:>9} new, {} known, {} refused",
                told.new, told.known, told.refused
            ));
        }
    }
    if objects.refused + records.refused > 0 {
        ui::say("what was refused is not what the file says it is, or names what is not there");
        return Ok(Exit::NotMet);
    }
    Ok(Exit::Ok)
}

/// Progress of long work on a terminal.
struct Bar(ProgressBar);

impl Bar {
    fn new() -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(10));
        let style = ProgressStyle::with_template("{msg:16} {bar:30.cyan/dim} {pos}/{len} {elapsed:>4}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        Self(bar)
    }

    fn show(&self, progress: Progress) {
        self.0.set_message(progress.doing);
        self.0.set_length(progress.of.max(progress.done));
        self.0.set_position(progress.done);
    }

    fn finish(&self) {
        self.0.finish_and_clear();
    }
}
