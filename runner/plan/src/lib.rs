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
//! | [`sources`] | the texts, their lines and columns |
//! | [`diagnostics`] | what is wrong and where; the table of codes |
//! | [`plan`](mod@plan) | the plan as plain data |

pub mod diagnostics;
pub mod plan;
pub mod sources;
pub mod tree;

pub use diagnostics::{Code, Diagnostic, Label, Severity};
pub use plan::{After, AxisValue, Instance, Plan, PlannedLimits, PlannedStage, RuleSet, Sample, When, Wire};
pub use sources::{Position, Sources};
