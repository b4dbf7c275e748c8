//! The lab's machine: QEMU without hardware help, so that it is the same wherever it runs.

use std::{
    collections::VecDeque,
    io::{BufRead, BufReader, Read},
    path::Path,
    process::{Command, Stdio},
    sync::mpsc::{RecvTimeoutError, channel},
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::common::Failure;

const QEMU: &str = "qemu-system-x86_64";
/// Lines of the console that are shown where the machine did not come to its end.
const SHOWN: usize = 40;
/// Longest line that is read from the console.
const LONGEST: u64 = 64 << 10;

/// Whether there is a QEMU.
pub(super) fn find() -> Result<(), Failure> {
    let found = Command::new(QEMU).arg("--version").stdout(Stdio::null()).status();
    match found {
        Ok(status) if status.success() => Ok(()),
        _ => Err(format!("no {QEMU} found (Debian: apt install qemu-system-x86)").into()),
    }
}

/// Boots a machine with four cores, hands over what is said in it, and waits until it turns itself off.
pub(super) fn boot(
    kernel: &Path,
    disk: &Path,
    name: &str,
    more: &str,
    deadline: Duration,
    mut heard: impl FnMut(&Value),
) -> Result<(), Failure> {
    let line = format!("console=ttyS0 quiet panic=-1 {more} lab={name}");
    let mut qemu = Command::new(QEMU)
        .args(["-machine", "q35", "-accel", "tcg,thread=multi", "-cpu", "max"])
        .args(["-smp", "4,sockets=1,cores=4,threads=1", "-m", "2048"])
        .args([
            "-nodefaults",
            "-no-user-config",
            "-display",
            "none",
            "-serial",
            "stdio",
            "-no-reboot",
        ])
        .arg("-kernel")
        .arg(kernel)
        .arg("-initrd")
        .arg(disk)
        .args(["-append", &line])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let console = qemu.stdout.take().ok_or("no console")?;
    let (send, receive) = channel();
    let reader = std::thread::spawn(move || {
        let mut console = BufReader::new(console);
        loop {
            let mut line = Vec::new();
            match console.by_ref().take(LONGEST).read_until(b'\n', &mut line) {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
            if send
                .send(String::from_utf8_lossy(&line).trim_end().to_owned())
                .is_err()
            {
                return;
            }
        }
    });
    let until = Instant::now() + deadline;
    let (mut last, mut ended) = (VecDeque::new(), false);
    let why = loop {
        match receive.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(line) => match super::said(&line) {
                Some(said) if said["end"] == true => ended = true,
                Some(said) => heard(&said),
                None => {
                    if last.len() >= SHOWN {
                        last.pop_front();
                    }
                    last.push_back(line);
                }
            },
            Err(RecvTimeoutError::Disconnected) if ended => break None,
            Err(RecvTimeoutError::Disconnected) => break Some("it went down before it was done".to_owned()),
            Err(RecvTimeoutError::Timeout) => {
                break Some(format!("it was not done within {} s", deadline.as_secs()));
            }
        }
    };
    let _ = qemu.kill();
    qemu.wait()?;
    reader.join().map_err(|_| "reading the console panicked")?;
    match why {
        None => Ok(()),
        Some(why) => {
            let last: Vec<String> = last.into_iter().map(|line| format!("\n       {line}")).collect();
            Err(format!("{why}; its console ended with{}", last.concat()).into())
        }
    }
}
