//! The project's own chores, in Rust so that they need nothing but cargo: `cargo run -p xtask -- <task>`.
//!
//! | task | does |
//! |---|---|
//! | `unicorn-library` | builds the patched Unicorn C library into the cache, prints the folder for `PKG_CONFIG_PATH` |
//! | `guests` | builds `tests/guests/*` for every target into the cache, each tried under qemu-user, prints the folder |
//! | `lab FOLDER [BOOT...]` | boots machines with four cores under QEMU and runs the executables in FOLDER there |
//! | `tidy` | checks the project's own rules over the source tree |
//! | `weights FOLDER` | measures how slow each architecture is under Unicorn, for the arch profiles |
//! | `bench FOLDER` | compares the executables in FOLDER with other emulators, prints ratios (with `--features bench`) |
//! | `conformance FOLDER` | runs Debian's programs with the executables in FOLDER and under other emulators, writes the table (with `--features conformance`) |
//! | `schemas [--check]` | writes the JSON schemas, or says which are out of date (with `--features schemas`) |
//! | `reference [--check]` | writes the references of the manifest language and of system calls, or says that they are stale (with `--features schemas`) |
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

#[cfg(feature = "bench")]
mod bench;
mod common;
#[cfg(feature = "conformance")]
mod conformance;
mod guests;
mod lab;
#[cfg(any(feature = "bench", feature = "conformance"))]
mod python;
#[cfg(feature = "schemas")]
mod reference;
#[cfg(feature = "schemas")]
mod schemas;
mod tidy;
mod udiff;
mod unicorn_library;
mod weights;

/// The top folder of the project: two above this crate.
fn project_folder() -> PathBuf {
    let here = std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    here.ancestors().nth(2).map_or(here.clone(), Path::to_path_buf)
}

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let task = args.next().unwrap_or_default();
    let rest: Vec<String> = args.collect();
    let project = project_folder();
    let print_folder = |folder: PathBuf| println!("{}", folder.display());
    let result = match task.as_str() {
        "unicorn-library" => unicorn_library::run(&project).map(print_folder),
        "guests" => guests::run(&project).map(print_folder),
        "lab" => lab::run(&rest),
        "tidy" => tidy::run(&project),
        "weights" => weights::run(&project, &rest),
        #[cfg(feature = "bench")]
        "bench" => bench::run(&project, &rest),
        #[cfg(not(feature = "bench"))]
        "bench" => Err("this task needs `cargo run -p xtask --features bench -- bench`".into()),
        #[cfg(feature = "conformance")]
        "conformance" => conformance::run(&project, &rest),
        #[cfg(not(feature = "conformance"))]
        "conformance" => {
            Err("this task needs `cargo run -p xtask --features conformance -- conformance`".into())
        }
        #[cfg(feature = "schemas")]
        "schemas" => schemas::run(&project, &rest),
        #[cfg(not(feature = "schemas"))]
        "schemas" | "reference" => {
            Err(format!("this task needs `cargo run -p xtask --features schemas -- {task}`").into())
        }
        #[cfg(feature = "schemas")]
        "reference" => reference::run(&project, &rest),
        _ => Err(format!(
            "unknown task `{task}` {rest:?}; tasks: unicorn-library, guests, lab, tidy, weights, bench, conformance, schemas, reference"
        )
        .into()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error}");
            ExitCode::from(2)
        }
    }
}
