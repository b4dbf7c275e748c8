//! Results against what was expected of them: `hotcell test --json`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::diff::Change;

/// Name of the format.
pub const FORMAT: &str = "hotcell-test";
/// Version of the format.
pub const VERSION: u32 = 2;

/// Every verdict of one `hotcell test`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Verdicts {
    /// Always [`FORMAT`].
    pub format: String,
    /// [`VERSION`] of the writer.
    pub version: u32,
    /// How many checks came out how.
    pub tally: Tally,
    /// The checks: expectations first, then golden files.
    pub checks: Vec<Check>,
}

/// One thing that was judged.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Check {
    /// What was judged: a golden file's path, or an expectation in words.
    pub name: String,
    /// The instance it is about, by its full name; empty: it is about none.
    pub subject: String,
    /// The instance's name for people.
    pub short: String,
    /// How it came out.
    pub verdict: Verdict,
}

/// How a check came out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// As expected.
    Met,
    /// Not as expected: what differs.
    NotMet(Vec<Change>),
    /// What it is about did not run to its end, so nothing can be said. Never counted as passed.
    NotJudged(String),
}

/// How many checks came out how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Tally {
    /// As expected.
    pub met: usize,
    /// Not as expected.
    pub not_met: usize,
    /// Nothing can be said.
    pub not_judged: usize,
}

impl Verdicts {
    /// The document of these checks.
    pub fn of(checks: Vec<Check>) -> Self {
        Self {
            format: FORMAT.into(),
            version: VERSION,
            tally: Tally::of(&checks),
            checks,
        }
    }
}

impl Tally {
    /// Counts verdicts.
    pub fn of(checks: &[Check]) -> Self {
        let mut tally = Self::default();
        for check in checks {
            match check.verdict {
                Verdict::Met => tally.met += 1,
                Verdict::NotMet(_) => tally.not_met += 1,
                Verdict::NotJudged(_) => tally.not_judged += 1,
            }
        }
        tally
    }
}
