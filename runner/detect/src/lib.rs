//! Behaviour rules: files that say what to look for, judged over events and inspection facts.
//!
//! In: rule files (TOML or YAML), a stream of [`Event`](hotcell_schema::event::Event)s, the facts of static inspection
//! as JSON. Out: [`Finding`](hotcell_schema::finding::Finding)s with the events that prove them. Nothing here does I/O.
//!
//! One pass over the events serves all rules. Each event goes only to the patterns that can match its kind and
//! operation, and the state that a rule keeps is bounded.
//!
//! | module | what it does |
//! |---|---|
//! | `source` | TOML or YAML to a tree with places; collects errors |
//! | `read` | the tree to a rule, with every mistake of the file |
//! | `condition`, `pattern`, `value` | the rule language as types: conditions, patterns of one event, tests of one field |
//! | `fields` | the table of fields that a rule can name, and how they are read from an event |
//! | `ruleset` | [`RuleSet`]: parse, self-test, evaluate |
//! | `index` | which patterns an event can match |
//! | `evaluate`, `counting`, `sequence`, `facts` | the pass itself, and the bounded state of each sort of condition |
//! | `describe` | an event in words, as evidence |
//! | `schema` | JSON schema of rule files, from the same tables |
//! | [`attack`] | the ATT&CK technique table |

pub mod attack;
mod condition;
mod counting;
mod describe;
mod error;
mod evaluate;
mod facts;
mod fields;
mod index;
mod pattern;
mod read;
mod ruleset;
mod schema;
mod sequence;
mod shipped;
mod source;
mod value;

pub use error::RuleError;
pub use evaluate::Evaluation;
pub use ruleset::{MAX_FILE_SIZE, MAX_FILES, Rule, RuleSet, SelfTest, TestFailure};
pub use schema::rule_schema;
pub use shipped::shipped_rules;

/// Who the rule engine is, for cache keys: its version and a digest of its sources.
pub const IDENTITY: &str = concat!(
    "hotcell-detect ",
    env!("CARGO_PKG_VERSION"),
    " ",
    env!("HOTCELL_DETECT_SOURCES")
);
