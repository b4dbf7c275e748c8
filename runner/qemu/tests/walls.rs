//! A guest that tries everything to get out: it says what it could, and the host says what came of it. Under QEMU, and in the
//! place of QEMU, as a sample that has taken it over.
#![allow(clippy::unwrap_used)]

mod bench;

use std::fs::{self, Permissions};
use std::io;
use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::{SocketAddr, UnixListener};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command};

use bench::{Bench, Guest, Ran};
use hotcell_schema::outcome::Outcome;

const TARGETS: [&str; 6] = ["x86_64", "x86", "aarch64", "armhf", "mipsel", "s390x"];
const SECRET: &[u8] = b"what only the host knows";

/// What of the host a guest is told of and must not reach. Anybody on the host may: nothing but the walls holds.
struct Host {
    folder: tempfile::TempDir,
    tcp: TcpListener,
    hidden: UnixListener,
    name: String,
    bystander: Child,
}

/// What must be on the host as it was.
#[derive(Debug, PartialEq)]
struct State {
    secret: Vec<u8>,
    facts: (u32, u32, i64, u64),
    core_pattern: Vec<u8>,
    hostname: Vec<u8>,
    binfmt: Vec<String>,
}

impl Host {
    fn new() -> Self {
        let folder = tempfile::Builder::new()
            .prefix("hotcell-walls")
            .tempdir_in("/var/tmp")
            .unwrap();
        fs::set_permissions(folder.path(), Permissions::from_mode(0o777)).unwrap();
        let secret = folder.path().join("secret");
        fs::write(&secret, SECRET).unwrap();
        fs::set_permissions(&secret, Permissions::from_mode(0o666)).unwrap();
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        tcp.set_nonblocking(true).unwrap();
        let name = format!(
            "hotcell-walls-{}-{}",
            std::process::id(),
            tcp.local_addr().unwrap().port()
        );
        let hidden = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        hidden.set_nonblocking(true).unwrap();
        let mut bystander = Command::new("sleep");
        bystander.arg("600");
        if nix::unistd::geteuid().is_root() {
            // Who the guests are on the host.
            bystander.uid(65534).gid(65534);
        }
        Self {
            folder,
            tcp,
            hidden,
            name,
            bystander: bystander.spawn().unwrap(),
        }
    }

    fn state(&self) -> State {
        let secret = self.folder.path().join("secret");
        let facts = fs::metadata(&secret).unwrap();
        let mut binfmt: Vec<String> = fs::read_dir("/proc/sys/fs/binfmt_misc")
            .into_iter()
            .flatten()
            .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
            .collect();
        binfmt.sort();
        State {
            secret: fs::read(&secret).unwrap(),
            facts: (facts.mode(), facts.uid(), facts.mtime(), facts.nlink()),
            core_pattern: fs::read("/proc/sys/kernel/core_pattern").unwrap(),
            hostname: fs::read("/proc/sys/kernel/hostname").unwrap(),
            binfmt,
        }
    }

    /// Runs a guest that tries to reach all that. `None`: this host cannot hold it.
    fn attacked_by(&mut self, guest: &Guest, change: impl FnOnce(&mut Bench)) -> Option<Ran> {
        let before = self.state();
        let mut bench = Bench::of(guest);
        bench.job.argv = vec![
            guest.name.clone(),
            "try".into(),
            self.folder.path().join("secret").display().to_string(),
            self.tcp.local_addr().unwrap().port().to_string(),
            self.name.clone(),
            self.bystander.id().to_string(),
        ];
        change(&mut bench);
        let ran = bench.run()?;
        assert_eq!(self.state(), before);
        assert!(
            self.bystander.try_wait().unwrap().is_none(),
            "the host's process was ended"
        );
        for heard in [self.tcp.accept().err(), self.hidden.accept().err()] {
            assert_eq!(heard.map(|error| error.kind()), Some(io::ErrorKind::WouldBlock));
        }
        Some(ran)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.bystander.kill();
        let _ = self.bystander.wait();
    }
}

fn assert_held(ran: &Ran, who: &str) {
    let said = ran.stdout();
    let out: Vec<&str> = said.lines().filter(|line| line.starts_with("OUT ")).collect();
    assert!(out.is_empty(), "{who}:\n{}", out.join("\n"));
    assert_eq!(ran.outcome(), Ok(Outcome::Exited(0)), "{who}: {said}");
    let tried = said.lines().last().and_then(|line| line.strip_prefix("tried "));
    assert!(tried.unwrap().parse::<u32>().unwrap() > 1_000, "{who}: {said}");
    let files = ran.files();
    assert_eq!(files["/tmp/made"], b"inside");
    // Its folders that no path reaches are not lost without a word.
    assert!(ran.result().unwrap().left_out > 0, "{who}");
    // What it left are names of the host's; whoever collects takes none of them for its content.
    assert!(
        files
            .keys()
            .all(|path| !["/tmp/left", "/tmp/folder", "/tmp/pipe"].contains(&path.as_str()))
    );
    let holds_secret = |bytes: &Vec<u8>| bytes.windows(SECRET.len()).any(|part| part == SECRET);
    assert!(!files.values().any(holds_secret));
}

#[test]
fn nothing_that_a_guest_tries_gets_out() {
    let mut host = Host::new();
    for guest in bench::of("escapes", &TARGETS, &[]) {
        let Some(ran) = host.attacked_by(&guest, |_| ()) else {
            return;
        };
        assert_held(&ran, &guest.target);
    }
}

/// The emulator is no wall: what runs in its place, on the host's own processor, meets the same.
#[test]
fn who_takes_the_emulator_over_does_not_get_out() {
    let mut host = Host::new();
    for guest in bench::of("escapes", &[std::env::consts::ARCH], &[]) {
        let Some(ran) = host.attacked_by(&guest, |bench| bench.job.native = true) else {
            return;
        };
        assert_held(&ran, "native");
    }
}
