//! Results against what was expected of them.
//!
//! In: a [`Report`](hotcell_schema::report::Report), golden files, expectations of the manifest. Out: [`Verdict`]s, with the
//! changes that explain them, for the terminal, JSON and JUnit.
//!
//! | module | what it does |
//! |---|---|
//! | [`facts`] | the part of an instance's report that is compared |
//! | [`change`] | what differs between two sets of facts, in lines for people |
//! | [`golden`] | golden files: read, compare, accept |
//! | [`diff`] | two runs side by side |
//! | [`expect`] | the manifest's `expect` |
//! | [`junit`] | verdicts as a JUnit file |

pub mod change;
pub mod diff;
pub mod expect;
pub mod facts;
pub mod golden;
pub mod junit;

use serde::Serialize;

use crate::change::Change;

/// One thing that was judged.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Check {
    /// What was judged: a golden file's path, or an expectation in words.
    pub name: String,
    /// The instance or sample it is about.
    pub subject: String,
    /// How it came out.
    pub verdict: Verdict,
}

/// How a check came out.
#[derive(Debug, Clone, PartialEq, Serialize)]
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Tally {
    /// As expected.
    pub met: usize,
    /// Not as expected.
    pub not_met: usize,
    /// Nothing can be said.
    pub not_judged: usize,
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
