//! The nouns of hotcell: every type that crosses a boundary between stations, processes or files.
//!
//! Nothing here does I/O. Data flows one way, and each module is one door it goes through:
//!
//! | module | what crosses there |
//! |---|---|
//! | [`manifest`] | what a person declares: samples, stages, limits, expectations |
//! | [`stage`] | the registry of stage types: typed ports and `with` settings |
//! | [`arch`] | an architecture as data (`arch-profiles/*.toml`) |
//! | [`persona`] | the machine that a guest believes to run on |
//! | [`cores`] | processor cores as people and the kernel list them |
//! | [`job`] | what the runner asks of a cell, and what the cell answers |
//! | [`deny`] | what a guest may not do |
//! | [`respond`] | what is done about a guest while it runs |
//! | [`internet`] | the simulated internet |
//! | [`sysroot`] | the files that a guest finds |
//! | [`unpack`] | what the runner asks of the process that reads archives, and its answer |
//! | [`event`] | what a sample did, one typed enum, as JSON lines |
//! | [`elf`] | what static inspection found in a file |
//! | [`diagnostic`] | what is wrong with a manifest, for programs |
//! | [`comparison`] | what two runs of one sample did, held against each other |
//! | [`finding`] | what a rule or an inspection concluded, with its evidence |
//! | [`outcome`] | a stage's status (our machinery) and a sample's outcome (data) |
//! | [`report`] | the result of a run, without anything of the host; and the host's facts apart |
//! | [`turns`] | who ran when on which core, facts of the host too |
//! | [`fault`] | what is known of a cell that broke, for people |
//! | [`forecast`] | what a run would do |
//! | [`log`] | what goes on while it does, line by line |
//! | [`lock`] | what a manifest was made of when it was locked |
//! | [`golden`] | what a person accepted as a result: golden files |
//! | [`diff`], [`verdict`] | what differs between two results; results against what was expected |
//! | [`names`] | names of instances for people and for files |
//! | [`digest`], [`guest`] | SHA-256 digests; guest addresses, bytes and text in JSON |

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod arch;
pub mod command;
pub mod comparison;
pub mod cores;
pub mod deny;
pub mod diagnostic;
pub mod diff;
pub mod digest;
pub mod elf;
pub mod event;
pub mod fault;
pub mod finding;
pub mod forecast;
pub mod golden;
pub mod guest;
pub mod internet;
pub mod job;
pub mod lock;
pub mod log;
pub mod manifest;
pub mod names;
pub mod outcome;
pub mod persona;
pub mod report;
pub mod respond;
pub mod stage;
pub mod sysroot;
pub mod turns;
pub mod unpack;
pub mod verdict;
