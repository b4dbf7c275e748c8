//! The project's own chores, in Rust so that they need nothing but cargo: `cargo run -p xtask -- <task>`.
//!
//! | task | does |
//! |---|---|
//! | `unicorn-library` | builds the patched Unicorn C library into the cache, prints the folder for `PKG_CONFIG_PATH` |
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

mod udiff;
mod unicorn_library;

/// The top folder of the project: two above this crate.
fn project_folder() -> PathBuf {
    let here = std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    here.ancestors().nth(2).map_or(here.clone(), Path::to_path_buf)
}

fn main() -> ExitCode {
    let task = std::env::args().nth(1).unwrap_or_default();
    let project = project_folder();
    let result = match task.as_str() {
        "unicorn-library" => unicorn_library::run(&project).map(|folder| println!("{}", folder.display())),
        _ => Err(format!("unknown task `{task}`; tasks: unicorn-library").into()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error}");
            ExitCode::from(2)
        }
    }
}
