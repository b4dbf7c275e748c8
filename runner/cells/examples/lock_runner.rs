//! A runner that takes cores and gives them back, as the stress test of core locks tells it.
//!
//! `lock_runner SEED CORES FOLDER`; standard input is the table of locks, standard output a socket to the arbiter. While it has
//! cores it also locks a file of the folder for each, which the kernel lets one process do at a time: what the table promises
//! is seen by somebody who does not ask the table. Anything unexpected ends it with a message.

use std::error::Error;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use hotcell_cells::cores::locks::{CoreIndex, LockView, Processes};
use nix::fcntl::{Flock, FlockArg};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut next = || arguments.next().ok_or("usage: lock_runner SEED CORES FOLDER");
    let mut seed: u64 = next()?.parse()?;
    let cores: u16 = next()?.parse()?;
    let folder = PathBuf::from(next()?);

    let view = LockView::open(io::stdin())?;
    let me = Processes::open(Path::new("/proc"))?
        .find(std::process::id())?
        .ok_or("this process is not in /proc")?;
    let mut socket = UnixStream::from(io::stdout().as_fd().try_clone_to_owned()?);
    let mut answers = BufReader::new(socket.try_clone()?).lines();
    loop {
        // Some of the cores, at least one: a linear congruential generator (Knuth's MMIX) chooses.
        seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let wanted: Vec<u16> = (0..cores).filter(|core| (seed >> (33 + core)) & 1 == 1).collect();
        if wanted.is_empty() {
            continue;
        }
        let words: Vec<String> = wanted.iter().map(u16::to_string).collect();
        // The arbiter goes away when the test is over.
        if writeln!(socket, "take {}", words.join(" ")).is_err() {
            return Ok(());
        }
        match answers.next() {
            None | Some(Err(_)) => return Ok(()),
            Some(Ok(answer)) if answer == "busy" => continue,
            Some(Ok(answer)) if answer == "granted" => {}
            Some(Ok(answer)) => return Err(format!("what is `{answer}`?").into()),
        }
        let mut witnesses = Vec::new();
        for core in wanted {
            let file = File::open(folder.join(core.to_string()))?;
            let locked = Flock::lock(file, FlockArg::LockExclusiveNonblock);
            witnesses.push(locked.map_err(|(_, error)| format!("core {core} has two holders: {error}"))?);
            let seen = view.query(CoreIndex::new(core));
            if seen != Some(me) {
                return Err(format!("core {core} is ours, and the table says {seen:?}").into());
            }
        }
        if writeln!(socket, "inside").is_err() {
            return Ok(());
        }
        match answers.next() {
            None | Some(Err(_)) => return Ok(()),
            Some(Ok(answer)) if answer == "leave" => {}
            Some(Ok(answer)) => return Err(format!("what is `{answer}`?").into()),
        }
        drop(witnesses);
        if writeln!(socket, "left").is_err() {
            return Ok(());
        }
    }
}
