//! From a manifest to a plan.
//!
//! In: a manifest file (TOML or YAML) with what it includes, arch profiles, sample files (their bytes are hashed, and the
//! first 64 bytes are looked at to tell the architecture). Out: a [`Plan`] of stage instances, or [`Diagnostic`]s that name
//! file, line and column. Nothing is printed, and neither environment, home folder nor clock is read.
//!
//! ```text
//! text -> tree (spans) -> merge (include, variants, --set) -> schema check -> typed manifest -> plan
//! ```
//!
//! | module | what is in it |
//! |---|---|
//! | [`sources`], [`diagnostics`] | the texts, their lines and columns; what is wrong and where; the table of codes |
//! | [`catalogue`] | a page for each code |
//! | [`tree`] | one tree for both languages, every value with its place |
//! | [`load`](mod@load) | documents, includes, variants, `--set`, schema check, typed manifest |
//! | [`schemas`](mod@schemas) | JSON schemas of everything |
//! | [`profiles`], [`shipped`] | arch profiles; files that are part of the program |
//! | [`format`](mod@format) | documents in their usual form and in the other language |
//! | [`host`](mod@host) | host documents, judged |
//! | [`expression`] | `when`, `where`, `${}` |
//! | [`reader`] | what a plan asks of those who read archives and fetch packages |
//! | [`debian`] | what Debian writes about its packages |
//! | [`resolve`] | samples, graph of stages, instances |
//! | [`lock`] | what a plan is made of, pinned |
//! | [`plan`](mod@plan), [`with`] | the plan as plain data; in it the settings of each instance |
//!
//! ```no_run
//! # use hotcell_plan::{Options, Profiles, load, plan};
//! let mut loaded = load("experiment.toml".as_ref(), &Options::default());
//! match plan(&mut loaded, &Profiles::shipped()) {
//!     Some(plan) => println!("{} instances", plan.instances.len()),
//!     None => loaded.diagnostics.iter().for_each(|problem| println!("{}", problem.plain(&loaded.sources))),
//! }
//! ```

pub mod catalogue;
mod check;
pub mod debian;
pub mod diagnostics;
mod expand;
pub mod expression;
mod files;
pub mod format;
pub mod host;
pub mod load;
pub mod lock;
mod naming;
mod near;
pub mod plan;
mod pools;
pub mod profiles;
pub mod reader;
pub mod resolve;
mod samples;
pub mod schemas;
pub mod shipped;
pub mod sources;
pub mod tree;
mod vars;
pub mod with;
mod words;

pub use self::plan::{
    After, Archive, AskedLimits, AxisValue, Expansion, FileSet, Instance, Item, Late, Origin, OwnFile, Plan,
    PlannedLimits, PlannedStage, RootKind, RootName, RuleSet, Sample, Sysroot, When, Wire,
};
pub use diagnostics::{Code, Diagnostic, Label, Severity};
pub use files::{MAX_ARCHIVE, MAX_SAMPLE};
pub use load::{Loaded, Options, load, load_text};
pub use profiles::Profiles;
pub use reader::{NoReader, Package, PackageFile, SourceError, SourceReader, Supply, Wanted};
pub use resolve::{plan, plan_with};
pub use sources::{Position, Sources};
