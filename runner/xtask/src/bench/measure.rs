//! CPU time, wall time and peak memory of a program.

use std::{
    fs,
    io::{Read as _, Write as _},
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use nix::sys::{
    resource::{UsageWho, getrusage},
    time::TimeValLike,
};

use crate::common::Failure;

/// How often a running program's memory is looked at.
const LOOK: Duration = Duration::from_millis(1);

/// What a program took.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Cost {
    /// User and system, of it and of all it waited for.
    pub cpu: Duration,
    pub wall: Duration,
    /// The most memory that the program itself held, without its children.
    pub peak_kib: u64,
}

/// Runs a program whose output is not wanted. What it says is in the error when its exit code is not the wanted one.
///
/// Memory is read from `/proc` while it runs, not from the `ru_maxrss` of its end: that one counts every descendant, and
/// before its `exec` a child of a large process counts as large.
pub(super) fn cost(command: &mut Command, wanted: i32) -> Result<Cost, Failure> {
    let before = children()?;
    let start = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("{command:?}: {error}"))?;
    let said = child.stderr.take().map(|mut pipe| {
        std::thread::spawn(move || {
            let mut text = Vec::new();
            // What cannot be read is not shown; the exit code counts.
            let _ = pipe.read_to_end(&mut text);
            text
        })
    });
    let (code, peak_kib) = watch(&mut child)?;
    let wall = start.elapsed();
    let cpu = children()?.saturating_sub(before);
    let said = said.and_then(|thread| thread.join().ok()).unwrap_or_default();
    if code != wanted {
        let said = String::from_utf8_lossy(&said);
        let last = said
            .lines()
            .rfind(|line| !line.trim().is_empty())
            .unwrap_or_default();
        let program = command.get_program().display();
        return Err(format!("{program} ended with {code}, wanted {wanted}: {last}").into());
    }
    Ok(Cost { cpu, wall, peak_kib })
}

fn watch(child: &mut Child) -> Result<(i32, u64), Failure> {
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok((status.code().unwrap_or(-1), peak));
        }
        let text = fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let now = line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok());
        peak = peak.max(now.unwrap_or(0));
        sleep(LOOK);
    }
}

/// CPU time of all children that were waited for, so far.
fn children() -> Result<Duration, Failure> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let micros = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    Ok(Duration::from_micros(u64::try_from(micros)?))
}

pub(super) fn cpu_and_output(command: &mut Command) -> Result<(Duration, String), Failure> {
    let before = children()?;
    let output = command
        .stderr(Stdio::piped())
        .output()
        .map_err(|error| format!("{command:?}: {error}"))?;
    let after = children()?;
    if !output.status.success() {
        std::io::stderr().write_all(&output.stderr)?;
        return Err(format!("{command:?} ended with {}", output.status).into());
    }
    Ok((
        after.saturating_sub(before),
        String::from_utf8_lossy(&output.stdout).into_owned(),
    ))
}

pub(super) fn cpu_of(command: &mut Command, wanted: &str) -> Result<Duration, Failure> {
    let (time, output) = cpu_and_output(command)?;
    if output.contains(wanted) {
        Ok(time)
    } else {
        Err(format!("{command:?} says {output:?}").into())
    }
}

pub(super) fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

pub(super) fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

pub(super) fn ratio(a: Duration, b: Duration) -> f64 {
    a.as_secs_f64() / b.as_secs_f64().max(1e-9)
}
