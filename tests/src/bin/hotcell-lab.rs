//! What is checked inside the machine that `xtask lab` boots: four cores, root, nothing else that runs.
//!
//! In: the name of the machine (`plain`, `isolated`, `v1`), executables in `HOTCELL_BIN_DIR`. Out: a line `@lab {json}` for each check,
//! and `@lab {"end": true}` after the last.
#![allow(clippy::print_stdout, clippy::unwrap_used)]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;

use hotcell_tests::Lab;
use serde_json::{Value, json};

/// What the last panic said, and where.
static WHY: Mutex<String> = Mutex::new(String::new());

fn main() {
    std::panic::set_hook(Box::new(|panic| *WHY.lock().unwrap() = panic.to_string()));
    let machine = std::env::args().nth(1).unwrap_or_default();
    check("the machine has four cores", || cores(&machine));
    println!("@lab {}", json!({"end": true}));
}

/// Does a check and says how it went. What it returns is told to people.
fn check(name: &str, what: impl FnOnce() -> String) {
    let done = catch_unwind(AssertUnwindSafe(what));
    let told = match &done {
        Ok(told) => told.clone(),
        Err(_) => std::mem::take(&mut *WHY.lock().unwrap()),
    };
    println!("@lab {}", json!({"check": name, "ok": done.is_ok(), "told": told}));
}

fn cores(machine: &str) -> String {
    let lab = Lab::new();
    let (told, _) = lab.expect(0, ["cores", "--json"]);
    let listed: Value = serde_json::from_str(&told).unwrap();
    let cores = listed["cores"].as_array().unwrap();
    assert_eq!(cores.len(), 4, "{told}");
    for (number, core) in cores.iter().enumerate() {
        let kept = machine == "isolated" && number >= 2;
        assert_eq!(core["isolated"], kept, "{core}");
        assert_eq!(core["tickless"], kept, "{core}");
    }
    lab.expect(0, ["cores"]).0
}
