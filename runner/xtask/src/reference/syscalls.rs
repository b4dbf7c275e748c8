//! The page of system calls, from the table that runs guests.

use std::fmt::Write as _;

use hotcell_kernel::support::{Supported, system_calls};
use hotcell_schema::event::Support;

/// What is written.
pub(super) const PAGE: &str = "runner/kernel/SYSCALLS.md";

const HEAD: &str = "# System calls of the emulated Linux

Made by `make schema` from the table that runs guests (`runner/kernel/src/table/rows.rs`); `hotcell syscalls` prints the same, for one
architecture with its numbers. A report names the calls of a sample that were not fully supported.
";

pub(super) fn page() -> String {
    let all = system_calls();
    let mut out = HEAD.to_owned();
    let mut section = |title: &str, about: &str, support: Support| {
        let calls: Vec<&Supported> = all.iter().filter(|call| call.support == support).collect();
        let _ = write!(out, "\n## {title}: {}\n{about}\n", calls.len());
        match support {
            Support::Full | Support::Missing => {
                let names: Vec<String> = calls.iter().map(|call| format!("`{}`", call.name)).collect();
                let _ = write!(out, "\n{}\n", names.join(", "));
            }
            Support::Partial | Support::Refused => {
                out.push_str("\n| call | what is missing, or why |\n|---|---|\n");
                for call in calls {
                    let answer = call
                        .answer
                        .map(|answer| format!("{answer}: "))
                        .unwrap_or_default();
                    let _ = writeln!(out, "| `{}` | {answer}{} |", call.name, call.note);
                }
            }
        }
    };
    section(
        "Full",
        "As Linux does it, as far as a guest can tell.",
        Support::Full,
    );
    section("Partial", "Some of it.", Support::Partial);
    section(
        "Refused",
        "Always answered with an error, on purpose.",
        Support::Refused,
    );
    section("Missing", "Answered with `ENOSYS`.", Support::Missing);
    out
}
