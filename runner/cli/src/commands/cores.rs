//! `hotcell cores`: what cores this host has, what each is for, and who runs on it.

use std::io::IsTerminal as _;
use std::path::Path;
use std::time::Duration;

use hotcell_cells::cores::arbiter::Seen;
use hotcell_cells::cores::duties::Duties;
use hotcell_cells::cores::locks::{CoreIndex, Holder, LockView};
use hotcell_cells::cores::schedule::Doing;
use hotcell_cells::cores::service::wire::Act;
use hotcell_cells::cores::topology::Topology;
use hotcell_plan::load;
use hotcell_schema::cores::CoreSet;
use hotcell_schema::manifest::Time;
use hotcell_schema::report::CoreChecks;
use serde_json::json;

use crate::args::{CoresArgs, CoresCommand, Global};
use crate::exit::{Exit, Failure};
use crate::session::utf8;
use crate::{diagnostics, host, places, ui};

/// The pause between two looks of `--watch`.
const LOOK: Duration = Duration::from_millis(500);

pub(crate) fn run(args: &CoresArgs, global: &Global) -> Result<Exit, Failure> {
    if let Some(command) = &args.command {
        return change(command, global);
    }
    let topology = Topology::of_this_host().map_err(|error| Failure::host(error.to_string()))?;
    // A manifest is asked about for itself; without one, it is this host as it is.
    let (planned, socket) = match &args.manifest {
        Some(manifest) => match planned(manifest, &topology)? {
            Some(duties) => (Some(duties), None),
            None => return Ok(Exit::Usage),
        },
        None => (None, places::arbiter(global)),
    };
    loop {
        // Who comes anew is told what has changed meanwhile; an arbiter that was started again is found again.
        let held = socket.as_deref().map(Held::ask).transpose()?;
        let duties = planned.as_ref().or(held.as_ref().map(|held| &held.duties));
        match args.json {
            true => ui::out(&ui::json(&as_json(&topology, duties, held.as_ref()))?),
            false => {
                if args.watch && std::io::stdout().is_terminal() {
                    // Home, and clear what is below (ECMA-48: CUP, ED).
                    ui::out("\x1b[H\x1b[2J");
                }
                for line in table(&topology, duties, held.as_ref()) {
                    ui::out(line.trim_end());
                }
            }
        }
        if !args.watch {
            return Ok(Exit::Ok);
        }
        std::thread::sleep(LOOK);
    }
}

/// What a manifest wants of the cores; `None`: it is wrong, and that was told.
fn planned(manifest: &std::path::Path, topology: &Topology) -> Result<Option<Duties>, Failure> {
    let loaded = load::load(utf8(manifest)?, &load::Options::default());
    if loaded.has_errors() {
        diagnostics::print(&loaded.diagnostics, &loaded.sources);
        return Ok(None);
    }
    let wanted = loaded
        .manifest
        .and_then(|manifest| manifest.cores)
        .ok_or_else(|| {
            Failure::usage(format!("{} asks for no cores", manifest.display()))
                .help("give it a table `[cores]`")
        })?;
    let duties = Duties::plan(&wanted, topology);
    Ok(Some(duties.map_err(|error| Failure::host(error.to_string()))?))
}

/// Who holds which core now.
struct Held {
    cells: Vec<Seen>,
    locks: LockView,
    duties: Duties,
    reclaimed: CoreSet,
    checks: CoreChecks,
}

impl Held {
    fn ask(socket: &Path) -> Result<Self, Failure> {
        let mut arbiter = host::connect(socket)?;
        Ok(Self {
            cells: arbiter.cells().map_err(host::refused)?,
            locks: arbiter.locks().map_err(host::refused)?,
            duties: arbiter.welcome().duties.clone(),
            reclaimed: arbiter.welcome().reclaimed.clone(),
            checks: arbiter.welcome().checks.clone(),
        })
    }

    /// The holder of a core's lock, and its cell.
    fn of(&self, core: u32) -> (Option<Holder>, Option<&Seen>) {
        let lock = u16::try_from(core)
            .ok()
            .and_then(|core| self.locks.query(CoreIndex::new(core)));
        let cell = self.cells.iter().find(|cell| match &cell.doing {
            Doing::Running(cores) | Doing::Stopping(cores) => cores.contains(core),
            Doing::Held | Doing::Ready | Doing::Paused => false,
        });
        (lock, cell)
    }
}

fn as_json(topology: &Topology, duties: Option<&Duties>, held: Option<&Held>) -> serde_json::Value {
    let cores = topology.cores();
    let cores = cores.iter().map(|core| {
        let mut one = json!({
            "core": core,
            "processors": topology.siblings(core),
            "usable": topology.usable(core),
            "isolated": topology.siblings(core).is_subset(&topology.isolated),
            "tickless": topology.siblings(core).is_subset(&topology.tickless),
            "duties": duties.map_or_else(Vec::new, |duties| duties.of(core)),
        });
        if let (Some(held), Some(one)) = (held, one.as_object_mut()) {
            let (lock, cell) = held.of(core);
            one.insert("lock".into(), json!(lock));
            one.insert("cell".into(), json!(cell));
            one.insert("reclaimed".into(), json!(held.reclaimed.contains(core)));
        }
        one
    });
    let cores: Vec<_> = cores.collect();
    match held {
        Some(held) => json!({"format": "hotcell-cores", "version": 1, "cores": cores, "checks": held.checks}),
        None => json!({"format": "hotcell-cores", "version": 1, "cores": cores}),
    }
}

fn table(topology: &Topology, duties: Option<&Duties>, held: Option<&Held>) -> Vec<String> {
    let now = if held.is_some() { "               now" } else { "" };
    let mut lines = vec![format!("core  processors  kept free at boot  for{now}")];
    for core in topology.cores().iter() {
        let siblings = topology.siblings(core);
        let kept = match (
            siblings.is_subset(&topology.isolated),
            siblings.is_subset(&topology.tickless),
        ) {
            (true, true) => "isolated, no tick",
            (true, false) => "isolated",
            (false, true) => "no tick",
            (false, false) => "no",
        };
        let mut duties = duties.map_or_else(Vec::new, |duties| duties.of(core)).join(", ");
        let mut now = String::new();
        if let Some(held) = held {
            if held.reclaimed.contains(core) {
                duties.push_str(" (shared)");
            }
            now = match held.of(core) {
                (_, Some(cell)) => format!(
                    "process {} of uid {}: {}",
                    cell.process.pid(),
                    cell.request.user,
                    ui::plain(&cell.name)
                ),
                (Some(holder), None) => format!("held by {holder}"),
                (None, None) => String::new(),
            };
        }
        lines.push(format!(
            "{core:<4}  {:<10}  {kept:<17}  {duties:<16}  {now}",
            siblings.to_string()
        ));
    }
    if let Some(duties) = duties {
        if duties.shared {
            lines.push(format!(
                "a small host: control on core {}, chores on core {}, guests on {}",
                duties.control, duties.chores, duties.pool
            ));
        }
        if let Some(held) = held {
            let waits = held
                .cells
                .iter()
                .filter(|cell| matches!(cell.doing, Doing::Held | Doing::Ready));
            lines.push(format!(
                "{}, of which {} wait; slices of {}",
                ui::count(held.cells.len() as u64, "cell"),
                waits.count(),
                Time(duties.slice.get())
            ));
        }
    }
    if let Some(Held { checks, .. }) = held {
        lines.push(format!(
            "looked {} times: {} threads of cells astray, {} foreign threads on the pool's cores",
            checks.looks, checks.strays, checks.foreign
        ));
        for (what, names) in [
            ("astray", &checks.stray_threads),
            ("foreign", &checks.foreign_names),
        ] {
            if !names.is_empty() {
                lines.push(format!("{what}: {}", ui::plain(&names.join(", "))));
            }
        }
    }
    lines
}

/// What an administrator changes.
fn change(command: &CoresCommand, global: &Global) -> Result<Exit, Failure> {
    let (act, reason, done) = match command {
        CoresCommand::Reclaim(args) => (
            Act::Reclaim(args.core),
            &args.reason,
            format!("core {} is out of exclusive use", args.core),
        ),
        CoresCommand::GiveBack(args) => (
            Act::GiveBack(args.core),
            &args.reason,
            format!("core {} may be held exclusively again", args.core),
        ),
        CoresCommand::Slice(args) => {
            let slice = std::num::NonZeroU64::new(args.slice.0)
                .ok_or_else(|| Failure::usage("a slice of no time lets no cell run"))?;
            (
                Act::Slice(slice),
                &args.reason,
                format!("slices are {} from now on", args.slice),
            )
        }
    };
    let mut arbiter = host::must_connect(global)?;
    arbiter.act(act, reason.as_deref()).map_err(host::refused)?;
    ui::say(&done);
    Ok(Exit::Ok)
}
