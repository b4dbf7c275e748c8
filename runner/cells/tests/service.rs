//! The arbiter of a host as a service: who does not speak its language, floods it, or hands in what is not theirs.
#![allow(clippy::unwrap_used, clippy::print_stderr)]

mod common;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::num::NonZeroUsize;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use common::{Spinner, until};
use hotcell_cells::cores::arbiter::{EndedBy, GiveCores as _};
use hotcell_cells::cores::duties::Duties;
use hotcell_cells::cores::schedule::{Doing, Request};
use hotcell_cells::cores::service::client::{ClientError, Connection, HostArbiter};
use hotcell_cells::cores::service::policy::{HostUser, Quota};
use hotcell_cells::cores::service::wire::{Act, MAX_PACKET, Which};
use hotcell_cells::cores::service::{By, Deed, Record, server};
use hotcell_cells::cores::topology::Topology;
use hotcell_cells::stop::StopSignal;
use hotcell_schema::manifest::Cores;
use hotcell_schema::manifest::later::{Isolation, OnSmallHost};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, UnixAddr, connect, recv, send, socket};

/// What was written down.
type Deeds = Arc<Mutex<Vec<Deed>>>;

struct Notes(Deeds);

impl Record for Notes {
    fn record(&mut self, _: &By, deed: &Deed, reason: Option<&str>) -> Result<(), String> {
        if reason == Some("full") {
            return Err("the disk is full".into());
        }
        self.0.lock().unwrap().push(deed.clone());
        Ok(())
    }
}

/// A service in this process, with the caller as one user beside root.
struct Service {
    folder: tempfile::TempDir,
    stop: StopSignal,
    thread: Option<JoinHandle<()>>,
    deeds: Deeds,
}

impl Service {
    fn start(quota: Quota) -> Self {
        Self::isolated(quota, Isolation::Affinity)
    }

    fn isolated(quota: Quota, isolation: Isolation) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let topology = Topology::of_this_host().unwrap();
        let wanted = Cores {
            isolation: Some(isolation),
            on_small_host: Some(OnSmallHost::Share),
            ..Cores::default()
        };
        let duties = Duties::plan(&wanted, &topology).unwrap();
        let own = nix::unistd::getuid().as_raw();
        let user = |name: &str, admin, quota| HostUser {
            name: name.into(),
            admin,
            quota,
        };
        let users = BTreeMap::from([
            (own, user("own", true, quota)),
            (1501, user("ci", false, Quota::default())),
        ]);
        let deeds = Deeds::default();
        let stop = StopSignal::new().unwrap();
        let socket = folder.path().join("socket");
        let host = server::Host {
            duties,
            topology,
            cells: NonZeroUsize::new(100).unwrap(),
            users,
            fallbacks: Vec::new(),
            socket,
            kept: folder.path().join("kept.json"),
            record: Box::new(Notes(Arc::clone(&deeds))),
        };
        let (ready, is_ready) = std::sync::mpsc::channel();
        let theirs = stop.clone();
        let thread = std::thread::spawn(move || {
            server::serve(host, &theirs, |_| ready.send(()).unwrap()).unwrap();
        });
        is_ready.recv_timeout(Duration::from_secs(60)).unwrap();
        Self {
            folder,
            stop,
            thread: Some(thread),
            deeds,
        }
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("socket")
    }

    fn connect(&self) -> Connection {
        Connection::open(&self.socket()).unwrap()
    }

    fn arbiter(&self) -> HostArbiter {
        HostArbiter::new(&self.socket(), self.connect(), StopSignal::new().unwrap(), |_| {}).unwrap()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.stop.request();
        self.thread.take().unwrap().join().unwrap();
    }
}

/// A socket on which anything can be said.
fn raw(path: &Path) -> std::os::fd::OwnedFd {
    let made = socket(
        AddressFamily::Unix,
        SockType::SeqPacket,
        SockFlag::SOCK_CLOEXEC,
        None,
    )
    .unwrap();
    connect(
        std::os::fd::AsRawFd::as_raw_fd(&made),
        &UnixAddr::new(path).unwrap(),
    )
    .unwrap();
    made
}

fn say(to: &std::os::fd::OwnedFd, bytes: &[u8]) -> String {
    use std::os::fd::AsRawFd as _;
    let mut answer = vec![0; MAX_PACKET];
    if send(to.as_raw_fd(), bytes, MsgFlags::MSG_NOSIGNAL).is_err() {
        return "closed".into();
    }
    match recv(to.as_raw_fd(), &mut answer, MsgFlags::empty()) {
        Ok(0) | Err(_) => "closed".into(),
        Ok(length) => String::from_utf8(answer[..length].to_vec()).unwrap(),
    }
}

/// A runner of its own, which hands in the process that is named next, and then dies.
fn client(service: &Service) -> Command {
    let mut own = std::env::current_exe().unwrap();
    own.pop();
    own.pop();
    // The folder of the tests may be closed to others: they get a copy.
    let client = service.folder.path().join("arbiter_client");
    if !client.exists() {
        std::fs::copy(own.join("examples/arbiter_client"), &client).unwrap();
    }
    let mut command = Command::new(client);
    command.arg(service.socket());
    command
}

const HELLO: &[u8] = br#"{"hello":{"protocol":2}}"#;

#[test]
fn who_does_not_speak_its_language_is_told_and_shown_out() {
    let service = Service::start(Quota::default());
    for (said, told) in [
        (&b"{"[..], "unreadable"),
        (b"[]", "unreadable"),
        (b"{\"hello\":{\"protocol\":2,\"more\":1}}", "unreadable"),
        (b"{\"hello\":{\"protocol\":1}}", "speaks version 2"),
        (b"\"locks\"", "say `hello` first"),
        (b"{\"cells\":{\"from\":0}}", "say `hello` first"),
        (b"\xff\xfe", "unreadable"),
    ] {
        let visitor = raw(&service.socket());
        let answer = say(&visitor, said);
        assert!(answer.contains("refused") && answer.contains(told), "{answer}");
        assert_eq!(say(&visitor, HELLO), "closed");
    }
    let visitor = raw(&service.socket());
    assert!(say(&visitor, HELLO).starts_with(r#"{"welcome""#));
    // After that, what is refused is refused, and the next question is answered.
    for (said, told) in [
        (&br#"{"admit":{"request":{"user":0,"cores":1,"hold":"turns","priority":"normal","weight":100,"memory":0},"name":"x"}}"#[..], "no pidfd"),
        (br#"{"look":{"cell":7}}"#, "no cell 7"),
        (br#"{"leave":{"cell":7}}"#, "no cell 7"),
        (br#"{"act":{"act":{"kill":{"process":1}},"reason":null}}"#, "no such cell"),
        (br#"{"act":{"act":{"reclaim":4000},"reason":null}}"#, "not in the pool"),
        (br#"{"act":{"act":{"slice":1},"reason":null}}"#, "at least 100us"),
        (br#"{"act":{"act":{"unban":1501},"reason":null}}"#, "not banned"),
    ] {
        let answer = say(&visitor, said);
        assert!(answer.contains("refused") && answer.contains(told), "{answer}");
    }
    let long = vec![b' '; MAX_PACKET + 1];
    assert!(say(&visitor, &long).contains("more than"));
    assert_eq!(say(&visitor, HELLO), "closed");
    assert!(service.connect().cells().unwrap().is_empty());
}

#[test]
fn who_floods_it_is_held_back_and_others_are_served() {
    let service = Service::start(Quota::default());
    let visitor = raw(&service.socket());
    say(&visitor, HELLO);
    let begun = Instant::now();
    let mut asked = 0;
    while begun.elapsed() < Duration::from_secs(3) {
        assert!(say(&visitor, br#"{"cells":{"from":0}}"#).starts_with(r#"{"cells""#));
        asked += 1;
    }
    assert!(asked <= 4 * 2_000 + 4, "{asked} in three seconds");
    let others = Instant::now();
    assert!(service.connect().cells().unwrap().is_empty());
    assert!(others.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_cell_ends_with_its_connection_and_a_process_is_one_cell_only() {
    let service = Service::start(Quota::default());
    let mut spinner = Spinner::new();
    let arbiter = service.arbiter();
    let claim = arbiter.admit(Request::of(0), spinner.pid(), "spinner").unwrap();
    let twice = arbiter.admit(Request::of(0), spinner.pid(), "again").unwrap_err();
    assert!(twice.to_string().contains("is a cell already"), "{twice}");
    let gone = arbiter.admit(Request::of(0), i32::MAX, "nobody").unwrap_err();
    assert!(gone.to_string().contains("opening"), "{gone}");
    until("it runs", || {
        let cells = service.connect().cells().unwrap();
        matches!(cells[0].doing, Doing::Running(_)) && cells[0].name == "spinner"
    });
    let mut locks = service.connect();
    let held = locks.locks().unwrap().holders();
    assert!(held.iter().any(|(_, holder)| holder.pid() == spinner.0.id()));
    assert!(
        !arbiter
            .history()
            .unwrap()
            .0
            .turns
            .iter()
            .any(|turn| turn.cell != claim.cell())
    );
    drop(claim);
    until("it is ended", || spinner.has_ended());
    // A runner that dies has no time to say so.
    let mut orphan = Spinner::new();
    let visit = client(&service).arg(orphan.0.id().to_string()).output().unwrap();
    assert_eq!(String::from_utf8(visit.stdout).unwrap(), "admitted\n");
    until("it is ended too", || orphan.has_ended());
    until("it is forgotten", || {
        service.connect().cells().unwrap().is_empty()
    });
    assert!(service.connect().locks().unwrap().holders().is_empty());
}

#[test]
fn cells_are_in_groups_that_are_the_hosts_and_end_where_they_have_too_much() {
    let service = Service::start(Quota::default());
    let arbiter = service.arbiter();
    let greedy = Spinner::shell("read go; x=x; while :; do x=$x$x; done");
    let groups = |pid: i32| std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let before = groups(greedy.pid());
    let request = Request {
        memory: 64 << 20,
        ..Request::of(0)
    };
    let claim = arbiter.admit(request, greedy.pid(), "greedy").unwrap();
    let name = format!("-cell-{}-", greedy.pid());
    let welcome = service.connect();
    let fallbacks = &welcome.welcome().fallbacks;
    if fallbacks.iter().any(|told| told.starts_with("no control groups")) {
        eprintln!("skipped: {fallbacks:?}");
        return;
    }
    let within = groups(greedy.pid());
    assert!(!before.contains(&name) && within.contains(&name), "{within}");
    writeln!(greedy.0.stdin.as_ref().unwrap(), "go").unwrap();
    let mut why = None;
    until("it is ended", || {
        why = claim.ended_by();
        why.is_some()
    });
    assert_eq!(why, Some(EndedBy::Memory));
    drop(claim);
    // Its groups go with it.
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let points: Vec<&str> = mounts
        .lines()
        .filter(|line| line.contains(" - cgroup"))
        .filter_map(|line| line.split(' ').nth(4))
        .collect();
    let paths: Vec<String> = within
        .lines()
        .filter_map(|line| line.splitn(3, ':').nth(2))
        .filter(|path| path.contains(&name))
        .flat_map(|path| points.iter().map(move |point| format!("{point}{path}")))
        .collect();
    assert!(!paths.is_empty());
    until("its groups are gone", || {
        !paths.iter().any(|path| Path::new(path).exists())
    });
}

#[test]
fn who_lets_a_cell_run_out_of_turn_loses_it() {
    let service = Service::start(Quota::default());
    let arbiter = service.arbiter();
    let mut cheat = Spinner::new();
    let claim = arbiter.admit(Request::of(0), cheat.pid(), "cheat").unwrap();
    let honest = Spinner::new();
    let other = arbiter.admit(Request::of(0), honest.pid(), "honest").unwrap();
    let mut admin = service.connect();
    let cell = Which::Process(cheat.pid().unsigned_abs());
    admin.act(Act::Pause(cell), None).unwrap();
    // Who does so while it is told to stop is ended for that.
    until("it stands still", || {
        let cells = service.connect().cells().unwrap();
        cells
            .iter()
            .any(|cell| cell.name == "cheat" && cell.doing == Doing::Paused)
    });
    until("it is ended", || {
        // Its own user may do this at any time.
        let pid = nix::unistd::Pid::from_raw(cheat.pid());
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGCONT);
        cheat.has_ended()
    });
    let Some(EndedBy::Order(why)) = claim.ended_by() else {
        panic!("nobody ended it");
    };
    assert!(why.contains("without its turn"), "{why}");
    let told = |deed: &Deed| matches!(deed, Deed::Killed(which, 1) if *which == cell);
    assert!(service.deeds.lock().unwrap().iter().any(told));
    assert!(service.connect().welcome().checks.strays > 0);
    assert_eq!(other.ended_by(), None, "who waits for its turn is not ended");
}

#[test]
fn who_makes_processes_beside_its_turns_loses_them() {
    let service = Service::start(Quota::default());
    let arbiter = service.arbiter();
    let mut maker = Spinner::shell("read go; sleep 1000 & echo made; wait");
    let request = Request {
        memory: 64 << 20,
        ..Request::of(0)
    };
    let claim = arbiter.admit(request, maker.pid(), "maker").unwrap();
    if service
        .connect()
        .welcome()
        .fallbacks
        .iter()
        .any(|told| told.starts_with("no control groups"))
    {
        eprintln!("skipped: no control groups");
        return;
    }
    writeln!(maker.0.stdin.as_ref().unwrap(), "go").unwrap();
    until("it is ended", || claim.ended_by().is_some());
    let Some(EndedBy::Order(why)) = claim.ended_by() else {
        panic!("{:?}", claim.ended_by());
    };
    assert!(why.contains("made processes"), "{why}");
    let text = format!("/proc/{}/task/{0}/children", maker.pid());
    let children = std::fs::read_to_string(text).unwrap_or_default();
    drop(claim);
    until("it has ended", || maker.has_ended());
    for child in children.split_whitespace() {
        until("so have they", || !Path::new("/proc").join(child).exists());
    }
}

#[test]
fn what_cannot_be_written_down_is_not_done() {
    let service = Service::start(Quota::default());
    let spinner = Spinner::new();
    let arbiter = service.arbiter();
    let claim = arbiter.admit(Request::of(0), spinner.pid(), "spinner").unwrap();
    let mut admin = service.connect();
    let refused = admin.act(Act::Ban(1501), Some("full")).unwrap_err();
    assert!(refused.to_string().contains("the disk is full"), "{refused}");
    assert!(admin.users().unwrap().iter().all(|user| user.banned.is_none()));
    admin.act(Act::Ban(1501), Some("spam")).unwrap();
    assert_eq!(
        admin
            .users()
            .unwrap()
            .iter()
            .find(|user| user.uid == 1501)
            .unwrap()
            .banned
            .as_deref(),
        Some("spam")
    );
    // One's own cells are one's own affair: nothing is written down of them.
    let before = service.deeds.lock().unwrap().len();
    assert_eq!(
        admin
            .act(Act::Kill(Which::Process(spinner.0.id())), None)
            .unwrap(),
        1
    );
    assert_eq!(service.deeds.lock().unwrap().len(), before);
    until(
        "it is told",
        || matches!(claim.ended_by(), Some(EndedBy::Order(why)) if why == "killed by `own`"),
    );
}

#[test]
fn who_pauses_and_resumes_the_cells_of_others_is_written_down() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: only root can be two users");
        return;
    }
    let service = Service::start(Quota::default());
    let mut admin = service.connect();
    let mut theirs = Command::new("sleep").arg("1000").uid(1501).spawn().unwrap();
    let mut visit = client(&service);
    let visit = visit.arg(theirs.id().to_string()).uid(1501).stdin(Stdio::piped());
    let mut visit = visit.spawn().unwrap();
    until("it is admitted", || service.connect().cells().unwrap().len() == 1);
    let own = Spinner::new();
    let arbiter = service.arbiter();
    let claim = arbiter.admit(Request::of(0), own.pid(), "own").unwrap();
    for cell in [theirs.id(), own.0.id()].map(Which::Process) {
        assert_eq!(admin.act(Act::Pause(cell), None).unwrap(), 1);
        assert_eq!(admin.act(Act::Resume(cell), None).unwrap(), 1);
    }
    // What one does to one's own is one's own affair.
    let cell = Which::Process(theirs.id());
    let deeds = service.deeds.lock().unwrap().clone();
    assert_eq!(
        deeds.last_chunk(),
        Some(&[Deed::Paused(cell, 1), Deed::Resumed(cell, 1)])
    );
    drop(claim);
    drop(visit.stdin.take());
    visit.wait().unwrap();
    let _ = theirs.kill();
    theirs.wait().unwrap();
}

#[test]
fn quotas_hold_while_cells_run() {
    let service = Service::start(Quota {
        wall_time: Some(200_000_000),
        ..Quota::default()
    });
    let spinner = Spinner::new();
    let arbiter = service.arbiter();
    let claim = arbiter.admit(Request::of(0), spinner.pid(), "spinner").unwrap();
    until("it ran for too long", || claim.ended_by().is_some());
    assert_eq!(
        claim.ended_by(),
        Some(EndedBy::Order("a cell of user `own` may run for 0 s".into()))
    );
    drop((claim, arbiter, service));

    let service = Service::start(Quota {
        memory: Some(1 << 30),
        ..Quota::default()
    });
    let spinner = Spinner::new();
    let arbiter = service.arbiter();
    let unsaid = arbiter
        .admit(Request::of(0), spinner.pid(), "spinner")
        .unwrap_err();
    assert!(unsaid.to_string().contains("say how much memory"), "{unsaid}");
    let much = Request {
        memory: 2 << 30,
        ..Request::of(0)
    };
    let refused = arbiter.admit(much, spinner.pid(), "spinner").unwrap_err();
    assert!(refused.to_string().contains("may use 1073741824"), "{refused}");
    // One that says it needs little, and takes more.
    let greedy = Spinner::new();
    let little = Request {
        memory: 4096,
        ..Request::of(0)
    };
    let claim = arbiter.admit(little, greedy.pid(), "greedy").unwrap();
    until("it took too much", || claim.ended_by().is_some());
    assert_eq!(claim.ended_by(), Some(EndedBy::Memory));
    let deeds = service.deeds.lock().unwrap();
    assert_eq!(
        deeds
            .iter()
            .filter(|deed| matches!(deed, Deed::Exceeded { .. }))
            .count(),
        1,
        "{deeds:?}"
    );
}

#[test]
fn nobody_hands_in_what_belongs_to_others() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: only root can be two users");
        return;
    }
    let service = Service::start(Quota::default());
    let mut spinner = Spinner::new();
    let visit = |uid: u32| {
        let mut command = client(&service);
        command.arg(spinner.0.id().to_string());
        String::from_utf8(command.uid(uid).output().unwrap().stdout).unwrap()
    };
    assert!(visit(1501).contains("is not of uid 1501"), "{}", visit(1501));
    assert!(visit(1502).contains("is no user of this host"), "{}", visit(1502));
    assert!(!spinner.has_ended());
    let state = std::fs::read_to_string(format!("/proc/{}/stat", spinner.pid())).unwrap();
    assert!(!state.contains(") T "), "it was never made to stand still");
}

#[test]
fn too_many_connections_of_one_user_are_closed() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: root alone has no bound of its own, and is needed here");
        return;
    }
    let service = Service::start(Quota::default());
    // Root's are bounded by those of all.
    let mut open = Vec::new();
    let mut closed = 0;
    for _ in 0..600 {
        match Connection::open(&service.socket()) {
            Ok(connection) => open.push(connection),
            Err(ClientError::Wire(_)) => closed += 1,
            Err(error) => panic!("{error}"),
        }
    }
    assert!(closed >= 600 - 512, "{closed}");
    drop(open);
    until("room again", || Connection::open(&service.socket()).is_ok());
}
