//! `hotcell host`: what serves a host that a manifest describes.

use std::collections::BTreeMap;
use std::io::BufReader;
use std::num::NonZeroUsize;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use hotcell_cells::cores::duties::Duties;
use hotcell_cells::cores::isolation::Isolation;
use hotcell_cells::cores::process::bind_this_thread;
use hotcell_cells::cores::service::policy::{HostUser, Quota};
use hotcell_cells::cores::service::wire::Which;
use hotcell_cells::cores::service::{By, Deed, Exceeded, Record, SOCKET, server};
use hotcell_cells::cores::topology::Topology;
use hotcell_cells::stop::StopSignal;
use hotcell_plan::load;
use hotcell_schema::digest::Digest;
use hotcell_schema::manifest::{Kind, Manifest, later};
use hotcell_store::audit::{self, Act, Audit};

use crate::args::{ArbiterArgs, Global, HostArgs, HostCommand};
use crate::exit::{Exit, Failure};
use crate::session::{self, utf8};
use crate::{diagnostics, places, ui};

/// Cells at once, of all users together.
const CELLS: NonZeroUsize = NonZeroUsize::new(1_000).unwrap();
/// Who may write a manifest beside its owner: nobody.
const WRITABLE_BY_OTHERS: u32 = 0o022;

pub(crate) fn run(args: &HostArgs, global: &Global) -> Result<Exit, Failure> {
    match &args.command {
        HostCommand::Arbiter(args) => arbiter(args, global),
    }
}

fn arbiter(args: &ArbiterArgs, global: &Global) -> Result<Exit, Failure> {
    if !nix::unistd::geteuid().is_root() {
        return Err(
            Failure::host("the arbiter of a host must be root: it takes over other users' cells")
                .help("experiments of one user need none: `[cores]` of the experiment does"),
        );
    }
    let Some((manifest, digest)) = manifest(&args.manifest, global)? else {
        return Ok(Exit::Usage);
    };
    let socket = places::arbiter(global).unwrap_or_else(|| SOCKET.into());
    server::must_be_free(&socket).map_err(cannot)?;
    Isolation::release(&socket);
    let topology = Topology::of_this_host().map_err(|error| Failure::host(error.to_string()))?;
    let wanted = manifest.cores.clone().unwrap_or_default();
    let duties = Duties::plan(&wanted, &topology).map_err(|error| Failure::host(error.to_string()))?;
    for folder in [socket.parent(), Some(args.kept.as_path())].into_iter().flatten() {
        fs_err::create_dir_all(folder)?;
    }
    let journal = args.kept.join("audit.jsonl");
    let by = audit::User { uid: 0, name: None };
    if journal.try_exists()? {
        audit::verify(BufReader::new(fs_err::File::open(&journal)?)).map_err(|fault| {
            Failure::host(format!(
                "the audit journal {} was changed: {fault}",
                journal.display()
            ))
            .help("`hotcell audit verify` shows it; to begin a new one, move it and the file beside it away")
        })?;
    }
    let audit = Audit::open(&journal, 0o600, &by, &now()?).map_err(|error| {
        Failure::host(format!("the audit journal cannot be continued: {error}"))
            .help("`hotcell audit verify` says what is wrong with it; to begin a new one, move it and the file beside it away")
    })?;
    // What serves stays off the pool, with all threads that it makes. Where it may not be bound it runs anywhere.
    let house = topology
        .usable(duties.control)
        .or(&topology.usable(duties.chores));
    let _ = bind_this_thread(&house);
    let stop = StopSignal::new()?;
    session::listen_and_say(
        &stop,
        "stopping: cells stand still until the next arbiter takes them",
    )?;
    let small = "a small host: cores have several duties";
    let fallbacks = duties.shared.then(|| small.to_owned()).into_iter().collect();
    let said = format!(
        "serving {} of {} on core {} in turns; listening at {}",
        ui::count(manifest.users.len(), "user"),
        args.manifest.display(),
        duties.pool,
        socket.display()
    );
    let host = server::Host {
        duties,
        topology,
        cells: CELLS,
        users: users(&manifest),
        fallbacks,
        socket,
        kept: args.kept.join("arbiter.json"),
        record: Box::new(Journal {
            audit,
            manifest: digest,
        }),
    };
    let ready = |isolation: &Isolation| ui::say(&format!("{said}; isolation: {}", isolation.level()));
    server::serve(host, &stop, ready).map_err(cannot)?;
    ui::say("ended; cells wait for the next arbiter");
    Ok(Exit::Ok)
}

fn cannot(error: std::io::Error) -> Failure {
    Failure::host(format!("the arbiter cannot go on: {error}"))
}

/// The host's manifest and its digest; `None`: it is wrong, and that was told.
fn manifest(path: &Path, global: &Global) -> Result<Option<(Manifest, Digest)>, Failure> {
    let facts = fs_err::metadata(path).map_err(|error| {
        Failure::usage(error.to_string())
            .help("name the host's manifest (`hotcell host arbiter --manifest FILE`); examples/sandbox-host has one, and README a short one")
    })?;
    if facts.uid() != 0 || facts.mode() & WRITABLE_BY_OTHERS != 0 {
        return Err(Failure::usage(format!(
            "{} could be written by others than root: who may write it says who may do what",
            path.display()
        ))
        .help(format!("chown root {0} && chmod go-w {0}", path.display())));
    }
    let mut loaded = load::load(utf8(path)?, &load::Options::default());
    let profiles = session::profiles(&mut loaded, global)?;
    let summary = hotcell_plan::host::check(&mut loaded, &profiles);
    if loaded.has_errors() {
        diagnostics::print(&loaded.diagnostics, &loaded.sources);
        return Ok(None);
    }
    match (summary, loaded.manifest) {
        (Some(_), Some(manifest)) => Ok(Some((manifest, Digest::of(&fs_err::read(path)?)))),
        (_, manifest) => {
            let is = match manifest.map(|manifest| manifest.kind) {
                Some(Kind::Host) | None => "empty",
                Some(_) => "an experiment",
            };
            let title = format!("{} is {is}, and not a host", path.display());
            Err(Failure::usage(title).help("a host's manifest says `kind = \"host\"`"))
        }
    }
}

fn users(manifest: &Manifest) -> BTreeMap<u32, HostUser> {
    let users = manifest.users.iter().map(|(name, user)| {
        let later::Quota {
            cells,
            exclusive_cores,
            memory,
            cpu_time,
            wall_time,
            output,
            stored,
        } = &user.quota;
        let count = |number: u32| usize::try_from(number).unwrap_or(usize::MAX);
        let quota = Quota {
            cells: cells.and_then(|cells| NonZeroUsize::new(count(cells))),
            exclusive_cores: exclusive_cores.map(count),
            memory: memory.map(|memory| memory.0),
            cpu_time: cpu_time.map(|time| time.0),
            wall_time: wall_time.map(|time| time.0),
            output: output.map(|bytes| bytes.0),
            stored: stored.map(|bytes| bytes.0),
        };
        let user_of_host = HostUser {
            name: name.clone(),
            admin: user.role == later::Role::Admin,
            quota,
        };
        (user.uid, user_of_host)
    });
    users.collect()
}

/// The audit journal of a host.
struct Journal {
    audit: Audit,
    manifest: Digest,
}

impl Record for Journal {
    fn record(&mut self, by: &By, deed: &Deed, reason: Option<&str>) -> Result<(), String> {
        let told = |error: &dyn std::fmt::Display| error.to_string();
        let reason = reason.map(str::parse).transpose().map_err(|error| told(&error))?;
        let now = now().map_err(|failure| failure.message)?;
        let act = self.act(deed)?;
        let appended = self.audit.append(&user(by)?, &now, act, reason);
        appended.map(|_| ()).map_err(|error| told(&error))
    }
}

impl Journal {
    fn act(&self, deed: &Deed) -> Result<Act, String> {
        let micros = |nanos: u64| nanos / 1_000;
        Ok(match deed {
            Deed::Started => Act::ArbiterStarted {
                version: env!("CARGO_PKG_VERSION")
                    .parse()
                    .map_err(|_| "the version is no name")?,
                manifest: Some(self.manifest),
            },
            Deed::Ended => Act::ArbiterEnded,
            Deed::Banned(who) => Act::BanUser { user: user(who)? },
            Deed::Unbanned(who) => Act::UnbanUser { user: user(who)? },
            Deed::Killed(which, killed) => Act::KillCells {
                of: cells(which)?,
                killed: *killed,
            },
            Deed::Paused(which, paused) => Act::PauseCells {
                of: cells(which)?,
                paused: *paused,
            },
            Deed::Resumed(which, resumed) => Act::ResumeCells {
                of: cells(which)?,
                resumed: *resumed,
            },
            Deed::Reclaimed(core) => Act::ReclaimCore {
                core: *core,
                killed: 0,
            },
            Deed::GivenBack(core) => Act::ReturnCore { core: *core },
            Deed::Slice(from, to) => Act::ChangeSlice {
                from_us: micros(*from),
                to_us: micros(*to),
            },
            Deed::Exceeded {
                user: who,
                what,
                limit,
                asked,
            } => Act::QuotaExceeded {
                user: user(who)?,
                quota: match what {
                    Exceeded::CpuTime => audit::Quota::CpuSeconds,
                    Exceeded::WallTime => audit::Quota::WallSeconds,
                    Exceeded::Memory => audit::Quota::Memory,
                },
                limit: *limit,
                asked: *asked,
            },
        })
    }
}

fn cells(which: &Which) -> Result<audit::Cells, String> {
    Ok(match which {
        Which::Process(pid) => {
            audit::Cells::Id(pid.to_string().parse().map_err(|_| "a process id is no name")?)
        }
        Which::User(uid) => audit::Cells::User(audit::User {
            uid: *uid,
            name: None,
        }),
        Which::Core(core) => audit::Cells::Core(*core),
    })
}

fn user(by: &By) -> Result<audit::User, String> {
    let name = by.name.as_deref().map(str::parse).transpose();
    Ok(audit::User {
        uid: by.uid,
        name: name.map_err(|error| format!("the name of a user: {error}"))?,
    })
}

fn now() -> Result<audit::Time, Failure> {
    let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    now.parse()
        .map_err(|error: audit::NotATime| Failure::host(error.to_string()))
}
