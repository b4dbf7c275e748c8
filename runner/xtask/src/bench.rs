//! What the project costs beside others, measured in one run: `cargo run -p xtask --features bench -- bench …`.
//!
//! In: a folder with release executables (and `examples/bare`), and the programs held against them. Out: tables and goals on
//! standard output; figures as JSON where asked.
//!
//! | module | measures |
//! |---|---|
//! | [`emulators`] | cells beside bare Unicorn, qemu-user and Qiling |
//! | [`linux`] | the emulated Linux: calls, files, what is written down, a thousand samples |
//! | [`watched`] | guests of QEMU watched from the kernel, beside bare QEMU, strace, bpftrace and valgrind |
//! | [`cores`] | turns on cores, locks, saved contexts, starting a cell |
//! | [`pipelines`] | plan, cold run and cached run beside make, ninja and Snakemake; large manifests; a thousand samples |
//! | [`measure`] | CPU time, wall time and peak memory of a program |
//! | [`python`] | peers from the Python registry |
//!
//! Compared is CPU time (user and system, of a process and all it waited for), not wall time: it depends far less on what
//! else the machine does. Both sides of a ratio take turns, and the median of each counts. What a host cannot run is named
//! and left out.

mod cores;
mod emulators;
mod linux;
mod measure;
mod pipelines;
mod watched;

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::common::Failure;

const USAGE: &str = "usage: bench [cores|emulators|linux|pipelines|watched] FOLDER [option ...]
  FOLDER           release executables
options of pipelines:
  --only A,B       only these parts: plan, cold, cached, linear, manifest, samples, snakemake
  --count N        middle jobs of a graph (default 10000)
  --rounds N       turns of what is short (default 7)
  --lab FOLDER     where to work (default: a temporary folder, removed afterwards)
  --json FILE      write the figures";

/// What was asked for.
struct Asked {
    release: PathBuf,
    pipelines: pipelines::Options,
}

pub(crate) fn run(project: &Path, arguments: &[String]) -> Result<(), Failure> {
    let (which, rest) = match arguments.split_first() {
        Some((word, rest))
            if matches!(
                word.as_str(),
                "cores" | "emulators" | "linux" | "pipelines" | "watched"
            ) =>
        {
            (Some(word.as_str()), rest)
        }
        _ => (None, arguments),
    };
    let asked = read(project, rest)?;
    let wants = |part: &str| which.is_none_or(|which| which == part);
    if wants("cores") {
        cores::run(&asked.release)?;
    }
    if wants("emulators") {
        emulators::run(project, &asked.release)?;
    }
    if wants("linux") {
        linux::run(project, &asked.release)?;
    }
    if wants("watched") {
        watched::run(project, &asked.release)?;
    }
    if wants("pipelines") {
        pipelines::run(project, &asked.release, &asked.pipelines)?;
    }
    Ok(())
}

fn read(project: &Path, arguments: &[String]) -> Result<Asked, Failure> {
    let mut folder = None;
    let mut options = pipelines::Options::default();
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        let mut value = || {
            words
                .next()
                .ok_or_else(|| format!("{word} needs a value\n{USAGE}"))
        };
        match word.as_str() {
            "--only" => options.only = pipelines::parts(value()?)?,
            "--count" => options.count = value()?.parse()?,
            "--rounds" => options.rounds = value()?.parse()?,
            "--lab" => options.lab = Some(PathBuf::from(value()?)),
            "--json" => options.json = Some(PathBuf::from(value()?)),
            _ if word.starts_with('-') || folder.is_some() => return Err(USAGE.into()),
            _ => folder = Some(word),
        }
    }
    let folder = folder.ok_or(USAGE)?;
    let release = fs::canonicalize(project.join(folder)).unwrap_or_default();
    if !release.join("hotcell").is_file() {
        return Err(format!("{folder} holds no executable `hotcell`: build in release mode first").into());
    }
    Ok(Asked {
        release,
        pipelines: options,
    })
}
