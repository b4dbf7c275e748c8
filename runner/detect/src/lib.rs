//! Behaviour rules: files that say what to look for, judged over events and inspection facts.
//!
//! In: rule files (TOML or YAML), a stream of [`Event`](hotcell_schema::event::Event)s, the facts of static inspection
//! as JSON. Out: [`Finding`](hotcell_schema::finding::Finding)s with the events that prove them. Nothing here does I/O.
//!
//! One pass over the events serves all rules. Each event goes only to the patterns that can match its kind and
//! operation, and the state that a rule keeps is bounded.

pub mod attack;
mod error;
mod ruleset;

pub use error::RuleError;
pub use ruleset::{Evaluation, Rule, RuleSet, SelfTest, TestFailure};
