//! What is checked inside the machine that `xtask lab` boots: four cores, root, nothing else that runs.
//!
//! In: the name of the machine (`plain`, `isolated`, `v1`), executables in `HOTCELL_BIN_DIR`, `/bin/busybox`. Out: a line
//! `@lab {json}` for each check, and `@lab {"end": true}` after the last.
#![allow(clippy::print_stdout, clippy::unwrap_used)]

mod checks;
mod sampler;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;

use serde_json::json;

/// What the last panic said, and where.
static WHY: Mutex<String> = Mutex::new(String::new());

/// What a machine is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Machine {
    /// Control groups of version 2.
    Plain,
    /// And cores 2 and 3 taken at boot.
    Isolated,
    /// Control groups of version 1.
    V1,
}

/// What is done, and what it tells.
type Check = fn(Machine) -> String;

fn main() {
    std::panic::set_hook(Box::new(|panic| *WHY.lock().unwrap() = panic.to_string()));
    let name = std::env::args().nth(1);
    let machine = match name.as_deref() {
        Some("isolated") => Machine::Isolated,
        Some("v1") => Machine::V1,
        _ => Machine::Plain,
    };
    let all: [(&str, Check); 6] = [
        ("four cores, and what the kernel took of them", checks::cores),
        (
            "`isolated` is for cores that were taken at boot",
            checks::isolated,
        ),
        (
            "cells run on cores 2 and 3, nothing else does, and their bytes are the same",
            checks::turns,
        ),
        ("two users at once", checks::users),
        ("exclusive and shared cells together", checks::exclusive),
        ("what a killed runner leaves goes with the next", checks::killed),
    ];
    for (name, what) in all {
        let done = catch_unwind(AssertUnwindSafe(|| what(machine)));
        let told = match &done {
            Ok(told) => told.clone(),
            Err(_) => std::mem::take(&mut *WHY.lock().unwrap()),
        };
        println!(
            "@lab {}",
            json!({"check": name, "ok": done.is_ok(), "told": told})
        );
    }
    println!("@lab {}", json!({"end": true}));
}
