//! `hotcell watch`: plans again, or runs, whenever something that a manifest is made of changes.
//!
//! Folders are watched, not files: an editor that writes a new file and renames it leaves nothing else of the old one.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ffi::{OsStr, OsString};
use std::io::{self, Read as _};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use hotcell_schema::forecast::InstanceForecast;
use inotify::{Inotify, WatchMask};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::{plan, run as run_command, test};
use crate::args::{Global, RunArgs, TestArgs, WatchArgs};
use crate::exit::{Exit, Failure};
use crate::outlook::Outlook;
use crate::session::{self, Planned};
use crate::ui;

/// Folders that are watched at most.
const MAX_FOLDERS: usize = 4_096;
/// So long nothing must happen before a change is looked at: editors and `git` write several files.
const QUIET: Duration = Duration::from_millis(120);
/// So long it may take until nothing happens.
const RESTLESS: Duration = Duration::from_secs(3);
/// Differences that are shown.
const SHOWN: usize = 40;

pub(crate) fn run(args: &WatchArgs, global: &Global) -> Result<Exit, Failure> {
    let mut watch = Watch::new()?;
    let mut before = None;
    watch.folder(&folder_of(&args.manifest.manifest));
    loop {
        let planned = match Planned::chosen(&args.manifest, &args.choose, global) {
            Ok(planned) => planned,
            Err(failure) => {
                ui::failure(&failure);
                None
            }
        };
        if let Some(planned) = &planned {
            watch.all(planned);
            match act(planned, args, global, &mut before) {
                Ok(Exit::Interrupted) => return Ok(Exit::Interrupted),
                Ok(_) => {}
                Err(failure) => ui::failure(&failure),
            }
        }
        drop(planned);
        ui::say(&format!(
            "watching {}; Ctrl-C ends",
            args.manifest.manifest.display()
        ));
        if watch.changed()? == Event::Stopped {
            return Ok(Exit::Interrupted);
        }
    }
}

/// What is known of each instance.
type Known = BTreeMap<String, InstanceForecast>;

fn act(
    planned: &Planned,
    args: &WatchArgs,
    global: &Global,
    before: &mut Option<Known>,
) -> Result<Exit, Failure> {
    if args.test {
        return test::run(
            &TestArgs {
                manifest: args.manifest.clone(),
                execute: args.execute.clone(),
                choose: args.choose.clone(),
                dry_run: false,
                accept: false,
                repeat: None,
                review: false,
                full: false,
                junit: None,
                json: false,
            },
            global,
        );
    }
    if args.run {
        return run_command::run(
            &RunArgs {
                manifest: args.manifest.clone(),
                execute: args.execute.clone(),
                choose: args.choose.clone(),
                dry_run: false,
                json: false,
            },
            global,
        );
    }
    let outlook = Outlook::new(planned, session::jobs(args.execute.jobs))?;
    let lines = outlook.foreseen.iter().map(|foreseen| outlook.of(foreseen));
    let known: Known = lines.map(|line| (line.name.clone(), line)).collect();
    match &before {
        None => plan::print(&outlook, false),
        Some(before) => differences(before, &known),
    }
    *before = Some(known);
    Ok(Exit::Ok)
}

/// What is not as it was, line by line.
fn differences(before: &Known, now: &Known) {
    let mut lines = Vec::new();
    for (name, instance) in now {
        if before.get(name) != Some(instance) {
            lines.push(plan::line(instance));
        }
    }
    for (name, instance) in before {
        if !now.contains_key(name) {
            lines.push(format!(
                "{} {}",
                ui::styled(ui::DIM, "gone   "),
                ui::plain(&instance.short)
            ));
        }
    }
    ui::out("");
    if lines.is_empty() {
        ui::out("a run would do the same as before");
    }
    for line in lines.iter().take(SHOWN) {
        ui::out(line);
    }
    if lines.len() > SHOWN {
        ui::out(&format!("… and {} more", lines.len() - SHOWN));
    }
}

fn folder_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// What ended a wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Event {
    Changed,
    Stopped,
}

/// The folders that are watched, and the signals.
struct Watch {
    inotify: Inotify,
    folders: BTreeSet<PathBuf>,
    /// Names of files that count, however they look.
    files: HashSet<OsString>,
    signals: UnixStream,
}

impl Watch {
    fn new() -> Result<Self, Failure> {
        let (signals, told) = UnixStream::pair()?;
        signals.set_nonblocking(true)?;
        for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
            signal_hook::low_level::pipe::register(signal, told.try_clone()?)?;
        }
        Ok(Self {
            inotify: Inotify::init().map_err(|error| {
                Failure::host(format!("files cannot be watched: {error}"))
                    .help("raise fs.inotify.max_user_instances, or run `hotcell plan` by hand")
            })?,
            folders: BTreeSet::new(),
            files: HashSet::new(),
            signals,
        })
    }

    /// Watches a folder from now on.
    fn folder(&mut self, folder: &Path) {
        if self.folders.len() < MAX_FOLDERS || self.folders.contains(folder) {
            self.folders.insert(folder.to_owned());
        }
        self.again();
    }

    /// Watches everything that a plan is made of.
    fn all(&mut self, planned: &Planned) {
        let plan = &planned.plan;
        let rules = plan.rule_sets.values().flat_map(|set| &set.files);
        let rules = rules
            .filter(|file| !file.path.starts_with("shipped:"))
            .map(|file| plan.path(file.path.as_str().into()));
        let own = plan
            .file_sets
            .values()
            .flat_map(|set| set.files.iter().map(|file| set.folder.join(&file.name)));
        let samples = plan.samples.iter().filter_map(|sample| plan.sample_file(sample));
        let archives = plan.archives.iter().filter_map(|archive| archive.path.as_ref());
        let archives = archives.map(|path| plan.path(path));
        let golden = plan.folder.join("golden").join(&plan.name).join("x");
        let all = planned.sources.iter().cloned();
        let all = all
            .chain(rules)
            .chain(own)
            .chain(samples)
            .chain(archives)
            .chain([golden]);
        for path in all {
            if self.folders.len() < MAX_FOLDERS {
                self.folders.insert(folder_of(path.as_std_path()));
            }
            self.files.extend(path.file_name().map(OsString::from));
        }
        self.again();
    }

    /// Folders that were removed and made again are other folders to the kernel.
    fn again(&mut self) {
        let mask = WatchMask::CREATE
            | WatchMask::CLOSE_WRITE
            | WatchMask::MOVED_FROM
            | WatchMask::MOVED_TO
            | WatchMask::DELETE
            | WatchMask::DELETE_SELF
            | WatchMask::MOVE_SELF;
        for folder in &self.folders {
            // What is not there (any more) is seen in the folder above it, or not at all.
            let _ = self.inotify.watches().add(folder, mask);
        }
    }

    /// Waits until something changed and then nothing happens for a moment.
    fn changed(&mut self) -> Result<Event, Failure> {
        let mut since: Option<Instant> = None;
        loop {
            let timeout = match since {
                None => PollTimeout::NONE,
                Some(since) if since.elapsed() >= RESTLESS => return Ok(Event::Changed),
                Some(_) => PollTimeout::try_from(QUIET).unwrap_or(PollTimeout::ZERO),
            };
            let ready = {
                let mut fds = [
                    PollFd::new(self.inotify.as_fd(), PollFlags::POLLIN),
                    PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
                ];
                match poll(&mut fds, timeout) {
                    Err(nix::errno::Errno::EINTR) => continue,
                    Err(error) => return Err(Failure::host(format!("waiting for changes: {error}"))),
                    Ok(ready) => ready,
                }
            };
            let mut byte = [0];
            if self.signals.read(&mut byte).is_ok() {
                return Ok(Event::Stopped);
            }
            if ready == 0 {
                self.again();
                return Ok(Event::Changed);
            }
            if self.events()? {
                since.get_or_insert_with(Instant::now);
            }
        }
    }

    /// Takes all events that are there; whether one of them counts.
    fn events(&mut self) -> Result<bool, Failure> {
        let mut buffer = [0; 16 << 10];
        let mut any = false;
        loop {
            match self.inotify.read_events(&mut buffer) {
                Ok(events) => {
                    let files = &self.files;
                    for event in events {
                        any |= event.name.is_none_or(|name| counts(files, name));
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(any),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Whether a change of a file of that name is of interest: editors leave swap files and backups, runs their folder.
fn counts(files: &HashSet<OsString>, name: &OsStr) -> bool {
    let text = name.to_string_lossy();
    files.contains(name) || !(text.starts_with('.') || text.ends_with('~') || text.ends_with(".swp"))
}
