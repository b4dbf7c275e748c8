//! What the end-to-end tests share. They drive the real executables, as a person would, and look at what these leave.
//!
//! In: the built executables, guest programs, Debian's busybox for five architectures. Out: a [`Lab`] in a temporary
//! folder that runs `hotcell`, and [`Run`]s read back from their run folders.
//!
//! | where | what |
//! |---|---|
//! | [`Lab`] | a temporary folder with store and state of its own; runs `hotcell` there |
//! | [`Run`] | a run's folder, its report, its facts |
//! | [`busybox`], [`guests`] | programs to run; `None` with a word on stderr where this host has none |
//! | [`qemu`] | the same program under qemu-user |
//!
//! Environment: `HOTCELL_BIN_DIR` (a folder with built executables; else they are built), `HOTCELL_GUESTS` (the folder
//! that `xtask guests` printed; else it is asked), `HOTCELL_CACHE`.
#![allow(clippy::print_stderr, clippy::unwrap_used)]

mod lab;
mod programs;

pub use lab::{Lab, Run, files_below};
pub use programs::{Busybox, Guest, busybox, executables, guests, qemu};
