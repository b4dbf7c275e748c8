//! What the end-to-end tests share. They drive the real executables, as a person would, and look at what these leave.
//!
//! In: the built executables, guest programs, Debian's busybox for five architectures. Out: a [`Lab`] in a temporary
//! folder that runs `hotcell`, and [`Run`]s read back from their run folders.
//!
//! | where | what |
//! |---|---|
//! | [`Lab`] | a temporary folder with store and state of its own; runs `hotcell` there |
//! | [`Run`] | a run's folder, its report, its facts |
//! | [`write_experiment`], [`Ledger`] | a small experiment, and what its runs have stored |
//! | [`FaultyDisk`], [`TinyDisk`] | disks that fail |
//! | [`busybox`], [`guests`] | programs to run; `None` with a word on stderr where this host has none |
//! | [`commands_have_own_root`] | whether this host lets commands have all their walls |
//! | [`qemu`] | the same program under qemu-user |
//!
//! Environment: `HOTCELL_BIN_DIR` (a folder with built executables; else they are built), `HOTCELL_GUESTS` (the folder
//! that `xtask guests` printed; else it is asked), `HOTCELL_CACHE`.
#![allow(clippy::print_stderr, clippy::unwrap_used)]

mod experiment;
mod faultfs;
mod lab;
mod programs;
mod spinner;

pub use experiment::{Chance, EXPERIMENT, Endings, Ledger, journals, write_experiment};
pub use faultfs::{FaultyDisk, TinyDisk};
pub use lab::{Lab, Run, files_below};
pub use programs::{Busybox, Guest, busybox, commands_have_own_root, executables, guests, qemu};
pub use spinner::Spinner;
