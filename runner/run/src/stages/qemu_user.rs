//! `qemu-user/linux` and `native/linux`: a Linux program under QEMU's user mode, or on the host's own processor, in
//! `hotcell-qemu`, watched by the host's kernel.

use std::fs::File;
use std::io::{BufRead as _, BufReader};

use hotcell_cells::intake::{Bounds, Sink as _};
use hotcell_cells::supervise::Met;
use hotcell_monitor::protocol::Ended;
use hotcell_monitor::story::Sample;
use hotcell_plan::Instance;
use hotcell_schema::arch::ArchProfile;
use hotcell_schema::event::{Event, Header, Resource, Task, What, Witness};
use hotcell_schema::job::{GuestLimits, Job, JobResult};
use hotcell_schema::outcome::Outcome;
use hotcell_schema::stage::QemuUserWith;

use super::cell::{self, Allowed, Watch, Watcher};
use super::{linux, settings};
use crate::keep::Keeper;
use crate::monitor::Watched;
use crate::work::{Done, Inputs, Shared};

/// Where the emulator stands in a guest's root: the first thing that is executed there.
const EMULATOR: &str = "/.hotcell/qemu";
/// Events that are handed over at once.
const BATCH: usize = 1024;

pub(super) fn run(shared: &Shared<'_>, instance: &Instance, inputs: &Inputs<'_>) -> Result<Done, Done> {
    let with: QemuUserWith = settings(instance)?;
    let prepared = linux::prepare(shared, instance, inputs, with.into())?;
    let guest = shared.limits(instance).guest;
    let header = Header::new(
        instance.name.as_str(),
        instance.uses.as_str(),
        prepared.arch.as_str(),
    );
    let allowed = Allowed {
        ports: &["stdout", "stderr", "files"],
        header: Some(&header),
        bounds: Bounds {
            output_bytes: guest.file_bytes.saturating_mul(2).saturating_add(1 << 20),
            outputs: 250_000,
            ..Bounds::default()
        },
    };
    let mut monitor = Kernel::new(shared, &prepared.job, guest)?;
    let mut watch = Watch::Outside(&mut monitor);
    let mut finished = cell::run(
        shared,
        instance,
        &prepared.job,
        &prepared.blobs,
        &allowed,
        &mut watch,
    )?;
    // The kernel had no more memory, and it does not say to whom: this signal is how it ends a process then.
    if monitor.met.ended_for_memory > 0
        && let JobResult::Linux(result) = &mut finished.result
        && result.outcome == Outcome::Signalled("SIGKILL".to_owned())
    {
        result.outcome = Outcome::Limit("memory".to_owned());
        finished.done.outcome = Some(result.outcome.clone());
    }
    linux::outputs(shared, finished, &["stdout", "stderr"])
}

/// The host's kernel, as a witness.
struct Kernel<'a> {
    shared: &'a Shared<'a>,
    host: &'a ArchProfile,
    sample: Sample,
    limits: GuestLimits,
    met: Met,
    folder: tempfile::TempDir,
    watched: Option<Watched<'a>>,
}

impl<'a> Kernel<'a> {
    fn new(shared: &'a Shared<'a>, job: &Job, limits: GuestLimits) -> Result<Self, Done> {
        let host = std::env::consts::ARCH;
        let host = shared
            .options
            .profiles
            .iter()
            .find(|profile| profile.name == host);
        let host = host.ok_or_else(|| {
            cannot(format!(
                "there is no arch profile of this host, `{}`",
                std::env::consts::ARCH
            ))
        })?;
        let Job::Linux(job) = job else {
            return Err(cannot("the job is no Linux program's".to_owned()));
        };
        Ok(Self {
            shared,
            host,
            sample: Sample {
                path: job.path.clone(),
                argv: job.argv.clone(),
                cwd: job.cwd.clone().unwrap_or_else(|| job.persona.cwd.clone()),
                emulator: (!job.native).then(|| EMULATOR.to_owned()),
            },
            limits,
            met: Met::default(),
            folder: shared
                .options
                .engines
                .folder()
                .map_err(|error| cannot(error.to_string()))?,
            watched: None,
        })
    }

    fn file(&self) -> std::path::PathBuf {
        self.folder.path().join("events")
    }

    fn hand_over(&self, keeper: &mut Keeper<'_>, ended: Ended) -> std::io::Result<()> {
        let mut batch: Vec<Event> = Vec::with_capacity(BATCH);
        let mut last = None;
        for line in BufReader::with_capacity(1 << 18, File::open(self.file())?).lines() {
            let event: Event = serde_json::from_str(&line?)?;
            last = Some((event.seq, event.time, event.task.clone()));
            batch.push(event);
            if batch.len() == BATCH {
                keeper.events(std::mem::take(&mut batch))?;
            }
        }
        // What is missing stands at the end, in so many words, and what the guest met without a word.
        let at = |happened: u64, limit: u64| if happened > 0 { limit } else { 0 };
        for (limit, value) in [
            ("events", ended.dropped),
            ("monitor-ring", ended.lost),
            ("memory", at(self.met.ended_for_memory, self.limits.memory)),
            (
                "processes",
                at(self.met.refused_tasks, u64::from(self.limits.tasks)),
            ),
        ] {
            if value == 0 {
                continue;
            }
            let (seq, time, task) = last.clone().unwrap_or((u64::MAX, 0, nobody()));
            let seq = seq.wrapping_add(1);
            last = Some((seq, time, task.clone()));
            batch.push(Event {
                seq,
                time,
                witness: Witness::Kernel,
                task,
                what: What::Resource(Resource {
                    limit: limit.to_owned(),
                    value,
                }),
                raw: None,
            });
        }
        keeper.events(batch)
    }
}

impl Watcher for Kernel<'_> {
    fn begins(&mut self, pid: i32) -> Result<(), Done> {
        let monitor = &self.shared.options.engines.monitor;
        let file = self.file();
        let watched = monitor.watch(self.host, pid, self.sample.clone(), &file, self.limits.events);
        self.watched = Some(watched.map_err(cannot)?);
        Ok(())
    }

    fn ended(&mut self, keeper: &mut Keeper<'_>, met: Met) -> Result<(), Done> {
        self.met = met;
        let Some(watched) = self.watched.take() else {
            return Ok(());
        };
        let ended = watched.end().map_err(cannot)?;
        self.hand_over(keeper, ended)
            .map_err(|error| cannot(format!("reading what was seen: {error}")))
    }
}

/// Nobody in particular: nothing was seen of the guest.
fn nobody() -> Task {
    Task {
        pid: 0,
        tid: 0,
        parent: 0,
        image: String::new(),
    }
}

fn cannot(why: String) -> Done {
    Done::failed(
        "nobody could watch the guest",
        format!("{why}; it takes root, or the capabilities CAP_BPF and CAP_PERFMON on `hotcell-monitor`"),
    )
}
