//! `qemu-user/linux` and `native/linux`: a Linux program under QEMU's user mode, or on the host's own processor, in
//! `hotcell-qemu`, watched by the host's kernel.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Seek as _, SeekFrom};
use std::net::Ipv4Addr;
use std::thread::Scope;

use hotcell_cells::cores::process::Process;
use hotcell_cells::emulator;
use hotcell_cells::intake::{Bounds, Sink as _};
use hotcell_cells::process::ProcessCell;
use hotcell_cells::supervise::{Met, Sandbox};
use hotcell_detect::Rule;
use hotcell_monitor::protocol::Ended;
use hotcell_monitor::still::Still;
use hotcell_monitor::story::{Sample, Story};
use hotcell_monitor::watched::Watched as Traced;
use hotcell_plan::Instance;
use hotcell_schema::arch::ArchProfile;
use hotcell_schema::deny::{Denial, Denied, Deny};
use hotcell_schema::event::{Event, Header, Resource, Task, What, Witness};
use hotcell_schema::finding::Severity;
use hotcell_schema::internet::Heard;
use hotcell_schema::job::{GuestLimits, Job, JobResult};
use hotcell_schema::outcome::{Outcome, Status};
use hotcell_schema::respond::{Action, Response};
use hotcell_schema::stage::QemuUserWith;

use super::cell::{self, Allowed, Watch, Watcher};
use super::command::live::{self, Beside};
use super::heard::Merge;
use super::respond::{Decision, Files, Judge, Live, Told};
use super::{linux, settings};
use crate::keep::Keeper;
use crate::monitor::{Guest, Source, Watched};
use crate::work::{Done, Inputs, Shared};

/// Events that are handed over at once.
const BATCH: usize = 1024;

pub(super) fn run(shared: &Shared<'_>, instance: &Instance, inputs: &Inputs<'_>) -> Result<Done, Done> {
    let with: QemuUserWith = settings(instance)?;
    let deny = with.deny;
    let respond = with.respond.clone();
    let host = host(shared)?;
    let source = watched_by(shared, host, &deny)?;
    let mut prepared = linux::prepare(shared, instance, inputs, with.into())?;
    if let Job::Linux(job) = &mut prepared.job {
        job.deny = deny;
        job.watch.traced = (source == Source::Tracer).then(|| Box::new(host.clone()));
    }
    let guest = shared.limits(instance).guest;
    // Those that the cell itself tells are counted as they come; what is kept of them is bounded.
    let bounds = match source {
        Source::Kernel => Bounds::default(),
        Source::Tracer => Bounds {
            items: u64::MAX,
            events: u64::MAX,
            event_bytes: u64::MAX,
            ..Bounds::default()
        },
    };
    let allowed = Allowed {
        ports: &["stdout", "stderr", "pcap", Heard::PORT, "files"],
        header: Some(&prepared.header),
        bounds: Bounds {
            output_bytes: guest
                .file_bytes
                .saturating_mul(2)
                .saturating_add(match prepared.online() {
                    // What went over the wire, and what is told of it.
                    true => 128 << 20,
                    false => 1 << 20,
                }),
            outputs: 250_000,
            ..bounds
        },
    };
    let judge = respond
        .map(|respond| judge(shared, instance, &prepared.header, respond.at))
        .transpose()?;
    let (mut finished, seen) = std::thread::scope(|scope| {
        let about = (instance, &prepared.header);
        let mut monitor = Kernel::new(shared, scope, about, &prepared.job, guest, judge, (host, source))?;
        let finished = cell::run(
            shared,
            instance,
            &prepared.job,
            &prepared.blobs,
            &allowed,
            &mut Watch::Outside(&mut monitor),
        )?;
        Ok((finished, monitor.seen))
    })?;
    finished.done.stood_s = seen.stood_ns as f64 / 1e9;
    if let JobResult::Linux(result) = &mut finished.result {
        result.responses = seen.responses;
        let acted = seen.decision.filter(|decision| decision.action == Action::Kill);
        // The keeper knows only that it was to end. The kernel had no more memory, or no more time for a process, and it does
        // not say to whom: this signal is how it ends a process then.
        let killed = result.outcome == Outcome::Signalled("SIGKILL".to_owned());
        let cpu = cell::host_limits(&shared.limits(instance)).cpu_s as f64;
        if let Some(decision) = acted {
            result.outcome = Outcome::Ended(decision.rule);
        } else if seen.met.ended_for_memory > 0 && killed {
            result.outcome = Outcome::Limit("memory".to_owned());
        } else if seen.met.cpu_time && (killed || result.outcome.is_of_wall_time())
            || killed && finished.done.cpu_s >= cpu
        {
            result.outcome = Outcome::Limit("cpu".to_owned());
        }
        finished.done.outcome = Some(result.outcome.clone());
    }
    linux::outputs(shared, finished, &["stdout", "stderr", "pcap"])
}

/// The profile of this host's own architecture.
fn host<'a>(shared: &Shared<'a>) -> Result<&'a ArchProfile, Done> {
    let name = std::env::consts::ARCH;
    let mut all = shared.options.profiles.iter();
    all.find(|profile| profile.name == name)
        .ok_or_else(|| cannot(format!("there is no arch profile of this host, `{name}`")))
}

/// Who watches, which the run's facts tell.
fn watched_by(shared: &Shared<'_>, host: &ArchProfile, deny: &Deny) -> Result<Source, Done> {
    let chosen = shared.options.engines.monitor.choose(host).map_err(cannot)?;
    let source = chosen.source;
    let mut refused = chosen.refused;
    if source == Source::Tracer && deny.connect.is_some() {
        let why = refused.join("; ");
        return Err(cannot(format!(
            "denying `connect` takes the hooks of control groups; {why}"
        )));
    }
    if source == Source::Tracer {
        refused.push(STANDS_STILL.to_owned());
    }
    shared.note_confinement(&[format!("watched by {}", source.as_str())], &refused);
    Ok(source)
}

/// What is said of guests that are traced.
const STANDS_STILL: &str = "guests are watched by ptrace: each of their calls costs two stops, a guest can find out that it is traced, how often it got a processor and what it allocated is not counted, and `connect` cannot be denied";

/// What rules are judged while the guest runs.
fn judge(shared: &Shared<'_>, instance: &Instance, header: &Header, at: Severity) -> Result<Judge, Done> {
    let name = instance
        .rules
        .as_deref()
        .ok_or_else(|| Done::failed("the plan names no rules", instance.name.clone()))?;
    let rules = shared.rules.get(shared, name)?;
    if rules.start_acting(header, at).rules() == 0 {
        let why = format!(
            "no rule of `with.respond` acts: none that is of severity `{}` at least and for this guest has a `respond`",
            at.as_str()
        );
        return Err(Done::without_outputs(Status::Refused, &why));
    }
    let freezes = |rule: &Rule| rule.respond == Some(Action::Freeze) && rule.severity >= at;
    let sandbox = match shared.options.cores {
        Some(cores) => &cores.sandbox,
        None => Sandbox::of_this_host(),
    };
    if rules.rules().any(freezes) && !sandbox.stand_still() {
        let why = "a rule of `with.respond` freezes, and this host has no control group that would make a guest stand still";
        return Err(Done::without_outputs(Status::Refused, why));
    }
    Ok(Judge {
        rules,
        at,
        header: header.clone(),
    })
}

/// What is known of a guest beside its events, when it has ended.
#[derive(Debug, Default)]
struct Seen {
    /// Limits that it met.
    met: Met,
    /// What a rule decided.
    decision: Option<Decision>,
    /// What was done about it.
    responses: Vec<Response>,
    /// Events that analysers beside it did not take.
    unheard: u64,
    /// How long it was made to stand still, in nanoseconds.
    stood_ns: u64,
}

/// The host's kernel, as a witness.
struct Kernel<'scope, 'a> {
    shared: &'a Shared<'a>,
    scope: &'scope Scope<'scope, 'a>,
    judge: Option<Judge>,
    live: Option<Live<'scope>>,
    /// The events' header, and the commands that run beside it.
    header: Header,
    analysers: Vec<&'a Instance>,
    beside: Vec<Beside<'scope>>,
    seen: Seen,
    host: &'a ArchProfile,
    guest: Guest,
    /// Addresses that names were declared to have.
    hosts: BTreeMap<String, Ipv4Addr>,
    limits: GuestLimits,
    folder: tempfile::TempDir,
    source: Source,
    watched: Option<Watched<'a>>,
    /// The same of a cell that tells its events itself.
    traced: Option<Traced>,
}

impl<'scope, 'a> Kernel<'scope, 'a> {
    fn new(
        shared: &'a Shared<'a>,
        scope: &'scope Scope<'scope, 'a>,
        (instance, header): (&Instance, &Header),
        job: &Job,
        limits: GuestLimits,
        judge: Option<Judge>,
        (host, source): (&'a ArchProfile, Source),
    ) -> Result<Self, Done> {
        let Job::Linux(job) = job else {
            return Err(cannot("the job is no Linux program's".to_owned()));
        };
        let folder = shared
            .options
            .engines
            .folder()
            .map_err(|error| cannot(error.to_string()))?;
        let analysers = live::beside(shared, instance);
        Ok(Self {
            shared,
            scope,
            live: None,
            header: header.clone(),
            analysers: analysers.clone(),
            beside: Vec::new(),
            seen: Seen::default(),
            host,
            guest: Guest {
                sample: Sample {
                    path: job.path.clone(),
                    argv: job.argv.clone(),
                    cwd: job.cwd.clone().unwrap_or_else(|| job.persona.cwd.clone()),
                    emulator: (!job.native).then(|| emulator::PLACE.to_owned()),
                },
                deny: job.deny,
                most: limits.events,
                live: judge.is_some() || !analysers.is_empty(),
                more: judge.is_some().then(|| folder.path().join("more")),
            },
            hosts: job
                .internet
                .as_ref()
                .map(|internet| internet.with.hosts.clone())
                .unwrap_or_default(),
            limits,
            judge,
            folder,
            source,
            watched: None,
            traced: None,
        })
    }

    fn witness(&self) -> Witness {
        match self.source {
            Source::Kernel => Witness::Kernel,
            Source::Tracer => Witness::Tracer,
        }
    }

    fn file(&self) -> std::path::PathBuf {
        self.folder.path().join("events")
    }

    fn hand_over(&mut self, keeper: &mut Keeper<'_>, ended: Ended) -> std::io::Result<()> {
        let mut told = Told::new(self.seen.decision.clone());
        let heard = self.heard(keeper)?;
        // Nothing is to be put among them, and none of them decides or is counted: they are what they are.
        let is_plain = self.seen.decision.is_none() && ended.denied == 0 && heard.is_none();
        let mut merge = Merge::new(heard.unwrap_or_default(), ended.began.unwrap_or(0), &self.hosts);
        let mut batch: Vec<Event> = Vec::with_capacity(BATCH);
        let mut last = None;
        let mut lines = BufReader::with_capacity(1 << 18, File::open(self.file())?);
        if is_plain {
            last = pass_on(&mut lines, keeper)?;
        }
        for line in lines.lines() {
            let event: Event = serde_json::from_str(&line?)?;
            told.event(&event);
            merge.take(event, &mut batch);
            if batch.len() >= BATCH {
                last = batch.last().map(place);
                keeper.events(std::mem::take(&mut batch))?;
            }
        }
        merge.finish(&mut batch);
        last = batch.last().map(place).or(last);
        // What decided is kept, however late it was; what came after is counted.
        let mut dropped = ended.dropped;
        if let (Some(decision), Some(more)) = (&self.seen.decision, &self.guest.more) {
            if decision.event.seq >= self.guest.most {
                let event = decision.event.clone();
                told.event(&event);
                batch.push(merge.renumbered(event));
                last = batch.last().map(place);
                dropped = dropped.saturating_sub(1);
            }
            if let Some(after) = decision.more {
                let mut more = File::open(more)?;
                more.seek(SeekFrom::Start(after))?;
                for line in BufReader::with_capacity(1 << 18, more).lines() {
                    told.event(&serde_json::from_str(&line?)?);
                }
            }
        }
        // What is missing stands at the end, in so many words, and what the guest met without a word.
        let at = |happened: u64, limit: u64| if happened > 0 { limit } else { 0 };
        for (limit, value) in [
            ("events", dropped),
            ("respond", ended.unjudged),
            ("live", self.seen.unheard),
            ("monitor-ring", ended.lost),
            ("memory", at(self.seen.met.ended_for_memory, self.limits.memory)),
            (
                "processes",
                at(self.seen.met.refused_tasks, u64::from(self.limits.tasks)),
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
                witness: self.witness(),
                task,
                what: What::Resource(Resource {
                    limit: limit.to_owned(),
                    value,
                }),
                raw: None,
            });
        }
        self.seen.responses = told.finish();
        for response in &mut self.seen.responses {
            response.event = merge.number(response.event);
        }
        keeper.events(batch)
    }

    /// What the simulated internet has to tell of the guest, where it met one.
    fn heard(&self, keeper: &Keeper<'_>) -> std::io::Result<Option<Vec<Heard>>> {
        let Some(stored) = keeper.output(Heard::PORT) else {
            return Ok(None);
        };
        let bytes = self.shared.options.store.get(&stored);
        let bytes = bytes.map_err(std::io::Error::other)?.unwrap_or_default();
        let lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        lines
            .map(|line| Ok(serde_json::from_slice(line)?))
            .collect::<Result<_, _>>()
            .map(Some)
    }
}

impl Watcher for Kernel<'_, '_> {
    fn begins(&mut self, cell: &ProcessCell) -> Result<(), Done> {
        let monitor = &self.shared.options.engines.monitor;
        let file = self.file();
        match self.source {
            Source::Kernel => {
                let watched = monitor.watch(self.host, cell.id(), self.guest.clone(), &file);
                self.watched = Some(watched.map_err(cannot)?);
            }
            Source::Tracer => {
                let story = Story::of_host(self.host, self.guest.sample.clone());
                let traced = Process::open(cell.id()).map(Still::new).and_then(|still| {
                    let (most, live, more) = (self.guest.most, self.guest.live, self.guest.more.as_deref());
                    Traced::new(story, still, &file, most, live, more)
                });
                self.traced = Some(traced.map_err(|error| cannot(error.to_string()))?);
            }
        }
        if let (Some(judge), Some(more)) = (&self.judge, self.guest.more.clone()) {
            let files = Files {
                events: file.clone(),
                most: self.guest.most,
                more,
            };
            self.live = Some(Live::begin(self.scope, judge.clone(), cell.remote(), files));
        }
        for analyser in &self.analysers {
            let watched = live::Watched {
                header: self.header.clone(),
                events: file.clone(),
                keeper: cell.remote(),
            };
            self.beside
                .push(Beside::begin(self.scope, self.shared, analyser, watched));
        }
        self.shared.note_confinement(&holds(&self.guest.deny), &[]);
        Ok(())
    }

    fn told(&mut self, events: Vec<Event>) -> std::io::Result<Vec<Event>> {
        let Some(traced) = &mut self.traced else {
            return Ok(events);
        };
        for event in &events {
            traced.take_event(event);
        }
        if traced.is_live() {
            traced.flush();
            // It has no ring: its guest stands still until it was told of.
            traced.keep_up(0, u64::MAX);
        }
        Ok(Vec::new())
    }

    fn ended(&mut self, keeper: &mut Keeper<'_>, met: Met) -> Result<(), Done> {
        self.seen.met = met;
        if let Some(traced) = &mut self.traced {
            traced.flush();
        }
        if let Some(live) = self.live.take() {
            self.seen.decision = live
                .end()
                .map_err(|error| cannot(format!("judging what was seen: {error}")))?;
        }
        let ended = match (self.watched.take(), self.traced.take()) {
            (Some(watched), _) => watched.end().map_err(cannot)?,
            (None, Some(traced)) => traced.end().map_err(|error| cannot(error.to_string()))?,
            (None, None) => return Ok(()),
        };
        for beside in self.beside.drain(..) {
            let heard = beside.end();
            self.seen.unheard = self.seen.unheard.saturating_add(heard.dropped);
            // What was decided first held.
            let both = self.seen.decision.take().into_iter().chain(heard.decision);
            self.seen.decision = both.min_by_key(|decision| decision.event.seq);
        }
        self.seen.stood_ns = ended.stood_ns;
        self.hand_over(keeper, ended)
            .map_err(|error| cannot(format!("reading what was seen: {error}")))
    }
}

/// Hands lines over as they are. What is told of the last one: what comes after them stands behind it.
fn pass_on(lines: &mut impl BufRead, keeper: &mut Keeper<'_>) -> std::io::Result<Option<(u64, u64, Task)>> {
    let (mut line, mut last) = (Vec::new(), Vec::new());
    while lines.read_until(b'\n', &mut line)? > 0 {
        keeper.lines(&line)?;
        std::mem::swap(&mut line, &mut last);
        line.clear();
    }
    match last.is_empty() {
        true => Ok(None),
        false => Ok(Some(place(&serde_json::from_slice(&last)?))),
    }
}

/// Number, time and task of an event.
fn place(event: &Event) -> (u64, u64, Task) {
    (event.seq, event.time, event.task.clone())
}

/// What is denied, and by what it holds: the layers of the run that are the manifest's.
fn holds(deny: &Deny) -> Vec<String> {
    let by = |denied| match denied {
        Denied::Connect => "cgroup-bpf",
        Denied::Create => "seccomp and landlock",
        Denied::Listen | Denied::Exec | Denied::Delete => "seccomp",
    };
    let layer = |(denied, denial): (Denied, Denial)| {
        let ends = match denial {
            Denial::Refuse => "",
            Denial::Kill => ", kill by bpf-send-signal",
        };
        format!("deny {} by {}{ends}", denied.as_str(), by(denied))
    };
    deny.each().map(layer).collect()
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
