//! `hotcell.lock`: what a manifest is made of, as it was and as it is.

use std::collections::BTreeMap;
use std::path::PathBuf;

use hotcell_plan::Package;
use hotcell_plan::lock::{self, Tools, pin};
use hotcell_run::Engines;
use hotcell_schema::lock::{Difference, FORMAT, Lock, LockFile, OLDEST, VERSION};

use crate::args::ManifestArgs;
use crate::exit::{Exit, Failure};
use crate::session::Planned;
use crate::ui;

/// Name of the lock file.
pub(crate) const NAME: &str = "hotcell.lock";
/// Largest lock file that is read.
const MAX_FILE: u64 = 256 << 20;
/// Differences that are shown.
const SHOWN: usize = 50;

/// The lock file beside a manifest.
pub(crate) fn path(args: &ManifestArgs) -> PathBuf {
    args.manifest.with_file_name(NAME)
}

/// The name of a manifest in it: its file, and its variants.
pub(crate) fn name(args: &ManifestArgs) -> String {
    let file = args.manifest.file_name().unwrap_or_default();
    let mut name = file.to_string_lossy().into_owned();
    for variant in &args.variant {
        name.push_str(" + ");
        name.push_str(variant);
    }
    name
}

/// Reads a lock file; `None` where there is none.
pub(crate) fn read(path: &std::path::Path) -> Result<Option<LockFile>, Failure> {
    let wrong = |why: String| {
        Failure::usage(format!("{}: {why}", path.display()))
            .help("`hotcell lock MANIFEST` writes it anew; remove it first when it is damaged")
    };
    match path.metadata() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(wrong(error.to_string())),
        Ok(facts) if facts.len() > MAX_FILE => {
            return Err(wrong(format!("it is larger than {MAX_FILE} bytes")));
        }
        Ok(_) => {}
    }
    let text = fs_err::read_to_string(path)?;
    let mut lock: LockFile = toml::from_str(&text).map_err(|error| wrong(error.to_string()))?;
    if lock.format != FORMAT || !(OLDEST..=VERSION).contains(&lock.version) {
        return Err(wrong(format!(
            "it is {} {}, and this hotcell reads {FORMAT} {OLDEST} to {VERSION}",
            lock.format, lock.version
        )));
    }
    // What is written is of this version; entries know themselves what they do not pin.
    lock.version = VERSION;
    Ok(Some(lock))
}

/// The packages that the lock file of a manifest pins.
pub(crate) fn packages(args: &ManifestArgs) -> Result<BTreeMap<String, Package>, Failure> {
    let file = read(&path(args))?;
    let lock = file.and_then(|mut file| file.manifests.remove(&name(args)));
    Ok(lock.map(|lock| lock::packages(&lock)).unwrap_or_default())
}

/// What a manifest is made of now.
pub(crate) fn found(planned: &Planned) -> Lock {
    let engines = Engines::new(&planned.places.libexec);
    // An engine that is not on this host is pinned as what is said of it: never equal to one that is.
    let named = engines.keys(&planned.plan, planned.profiles()).into_iter();
    let named = named.map(|(name, who)| (name, who.unwrap_or_else(|_| "not on this host".into())));
    let named: Vec<(String, String)> = named.collect();
    pin(
        &planned.plan,
        &Tools {
            hotcell: env!("CARGO_PKG_VERSION"),
            engines: &named,
            programs: &engines.program_pins(&planned.plan),
            profiles: planned.profiles(),
            documents: &planned.documents,
        },
    )
}

/// Holds a manifest against its lock file. With `locked` nothing else is accepted; without, a difference is told about.
pub(crate) fn check(planned: &Planned, args: &ManifestArgs, locked: bool) -> Result<bool, Failure> {
    let path = path(args);
    let name = name(args);
    let pinned = match read(&path) {
        Ok(file) => file.and_then(|mut file| file.manifests.remove(&name)),
        Err(failure) if locked => return Err(failure),
        Err(failure) => {
            ui::say(&format!(
                "{} {}",
                ui::styled(ui::YELLOW, "note:"),
                failure.message
            ));
            return Ok(true);
        }
    };
    let Some(pinned) = pinned else {
        return match locked {
            false => Ok(true),
            true => Err(
                Failure::usage(format!("{} does not hold `{name}`", path.display())).help(format!(
                    "pin what is there: hotcell lock {}",
                    args.manifest.display()
                )),
            ),
        };
    };
    if pinned.programs.is_none() {
        ui::say(&format!(
            "{} {} was written by an older hotcell and pins no programs of this host; `hotcell lock {}` pins them",
            ui::styled(ui::YELLOW, "note:"),
            path.display(),
            args.manifest.display()
        ));
    }
    let differences = pinned.differences(&found(planned));
    if differences.is_empty() {
        return Ok(true);
    }
    if !locked {
        ui::say(&format!(
            "{} {} not as {} pins it; --locked would refuse, `hotcell lock --check` tells more",
            ui::styled(ui::YELLOW, "note:"),
            counted(differences.len()),
            path.display()
        ));
        return Ok(true);
    }
    tell(&differences);
    ui::failure(
        &Failure::new(
            Exit::Usage,
            format!("{} not as {} pins it", counted(differences.len()), path.display()),
        )
        .help(format!(
            "put back what was there, or accept what is: hotcell lock {}",
            args.manifest.display()
        )),
    );
    Ok(false)
}

/// `1 thing is`, `2 things are`.
fn counted(count: usize) -> String {
    match count {
        1 => "1 thing is".into(),
        many => format!("{many} things are"),
    }
}

/// Each difference in a line.
pub(crate) fn tell(differences: &[Difference]) {
    for difference in differences.iter().take(SHOWN) {
        ui::say(&line(difference));
    }
    if differences.len() > SHOWN {
        ui::say(&format!("… and {} more", differences.len() - SHOWN));
    }
}

fn line(difference: &Difference) -> String {
    let short = |pin: &str| match pin.len() == 64 && pin.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        true => pin.get(..12).unwrap_or(pin).to_owned(),
        false => pin.to_owned(),
    };
    let what = match (&difference.pinned, &difference.found) {
        (Some(pinned), Some(found)) => format!("pinned {}, there is {}", short(pinned), short(found)),
        (Some(pinned), None) => format!("pinned {}, and it is gone", short(pinned)),
        (None, Some(found)) => format!("not pinned, there is {}", short(found)),
        (None, None) => String::new(),
    };
    let name = match (difference.section.as_str(), difference.name.as_str()) {
        ("tools", "manifest") => "the manifest, after includes, variants and --set".to_owned(),
        (section, name) => format!("{section} {name}"),
    };
    ui::plain(&format!("{name}: {what}"))
}
