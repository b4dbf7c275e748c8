//! One job in one cell: hand over the bytes, run, take what comes.

use std::time::Duration;

use hotcell_cells::contract::CellFault;
use hotcell_cells::cores::Seat;
use hotcell_cells::cores::schedule::Request;
use hotcell_cells::intake::Bounds;
use hotcell_cells::process::{Ending, ProcessCell, Spec};
use hotcell_cells::supervise::{HostLimits, Sandbox, SealedBlob};
use hotcell_plan::Instance;
use hotcell_schema::event::Header;
use hotcell_schema::job::{Blob, Job, JobResult};
use hotcell_schema::outcome::Status;

use crate::keep::{Keeper, Kept};
use crate::work::{Done, Shared, store_failed};

/// The bytes that a job names.
#[derive(Debug, Default)]
pub(super) struct Blobs(Vec<SealedBlob>);

impl Blobs {
    /// Seals bytes and names them.
    pub(super) fn add(&mut self, bytes: &[u8]) -> Result<Blob, Done> {
        let index = u32::try_from(self.0.len())
            .map_err(|_| Done::without_outputs(Status::Refused, "more files than a cell can be given"))?;
        let sealed = SealedBlob::of(bytes)
            .map_err(|error| Done::failed("the host cannot seal bytes", error.to_string()))?;
        self.0.push(sealed);
        Ok(Blob {
            index,
            length: bytes.len() as u64,
        })
    }
}

/// What one job is allowed to say.
pub(super) struct Allowed<'a> {
    /// Ports the cell may fill.
    pub ports: &'static [&'static str],
    /// Header of its event stream, where it has one.
    pub header: Option<&'a Header>,
    /// Bounds on all it says.
    pub bounds: Bounds,
}

/// A job that was done.
pub(super) struct Finished {
    pub result: JobResult,
    pub kept: Kept,
    /// Carries usage; its outputs are filled in by the stage type.
    pub done: Done,
}

/// Runs a job in a cell of its own.
pub(super) fn run(
    shared: &Shared<'_>,
    instance: &Instance,
    job: &Job,
    blobs: &Blobs,
    allowed: &Allowed<'_>,
) -> Result<Finished, Done> {
    let engine = match shared.options.engines.of(&instance.uses) {
        Some(Ok(engine)) => engine,
        Some(Err(error)) => return Err(Done::failed("the engine is not on this host", error)),
        None => {
            return Err(Done::failed(
                "the stage type has no engine",
                instance.uses.clone(),
            ));
        }
    };
    let mut limits = HostLimits::default();
    let asked = shared.limits(instance);
    if let Some(wall) = asked.wall {
        limits.wall_ms = u64::try_from(Duration::from_nanos(wall).as_millis())
            .unwrap_or(u64::MAX)
            .max(1);
    }
    if let Some(cpu) = asked.cpu {
        limits.cpu_s = Duration::from_nanos(cpu).as_secs().max(1);
    }
    // A guest must meet its own limits, which are outcomes, before the host's, which interrupt.
    let guest = &asked.guest;
    limits.memory = limits
        .memory
        .max(guest.memory.saturating_mul(2).saturating_add(1 << 30));
    limits.address_space = limits.address_space.max(
        u64::from(guest.tasks)
            .saturating_mul(2 << 30)
            .saturating_add(limits.memory),
    );
    let sealed: Vec<&SealedBlob> = blobs.0.iter().collect();
    let takes_turns = shared.options.cores.filter(|_| shared.plan.runs_code(instance));
    let spec = Spec {
        executable: &engine.executable,
        blobs: &sealed,
        limits,
        bounds: allowed.bounds,
        sandbox: match takes_turns {
            Some(cores) => &cores.sandbox,
            None => Sandbox::of_this_host(),
        },
        stop: &shared.options.stop,
        cores: shared
            .options
            .cores
            .map(|cores| match shared.plan.runs_code(instance) {
                true => Seat::Turns(&cores.arbiter, Request::of(cores.user)),
                false => Seat::Bound(&cores.chores),
            }),
    };
    let mut cell = ProcessCell::spawn(&spec).map_err(|fault| match fault {
        CellFault::Interrupted(why) => Done::without_outputs(Status::Interrupted, why.to_string()),
        other => Done::failed("the cell could not be started", other.to_string()),
    })?;
    let mut keeper = Keeper::new(shared.options.store, allowed.ports, allowed.header)
        .map_err(|error| store_failed(error.into()))?;
    let ending = cell.run(job, &mut keeper);
    shared.note_confinement(cell.layers(), cell.fallbacks());
    let usage = cell.finish();
    let with_facts = |done: Done| Done {
        cpu_s: usage.cpu_s,
        peak_kib: usage.peak_kib,
        ..done
    };
    let result = match ending {
        Ending::Done(result) => *result,
        Ending::Interrupted(why) => {
            return Err(with_facts(Done::without_outputs(
                Status::Interrupted,
                why.to_string(),
            )));
        }
        Ending::Failed(why) => return Err(with_facts(Done::failed("the cell failed", why))),
        Ending::Host(error) => {
            return Err(with_facts(Done {
                host_refuses: true,
                ..Done::failed("what the cell said could not be kept", error.to_string())
            }));
        }
    };
    let kept = match keeper.finish().map_err(|error| with_facts(store_failed(error)))? {
        Ok(kept) => kept,
        Err(violation) => return Err(with_facts(Done::failed("the cell failed", violation))),
    };
    let done = Done {
        outcome: match &result {
            JobResult::Linux(result) => Some(result.outcome.clone()),
            JobResult::Payload(result) => Some(result.outcome.clone()),
            JobResult::Inspect(_) | JobResult::Unpack(_) => None,
        },
        ..with_facts(Done::ok(indexmap::IndexMap::new(), Vec::new()))
    };
    Ok(Finished { result, kept, done })
}

/// The cell answered another question than it was asked.
pub(super) fn wrong_result(done: Done) -> Done {
    Done {
        status: Status::Failed,
        reason: Some("the cell failed".into()),
        error: Some("it answered with the result of another kind of job".into()),
        ..done
    }
}
