//! A set of rules: read, test, evaluate.

use hotcell_schema::digest::Digest;
use hotcell_schema::event::{Event, Header};
use hotcell_schema::finding::{Finding, Severity};
use serde_json::Value as Json;

use crate::RuleError;

/// What a rule says about itself.
#[derive(Debug, Clone)]
pub struct Rule {
    /// Name of the file it came from.
    pub file: String,
    /// Stable id.
    pub id: String,
    /// A sentence for people.
    pub title: String,
    /// What it sees, and why that matters.
    pub description: String,
    /// How serious a hit is.
    pub severity: Severity,
    /// ATT&CK technique ids.
    pub attack: Vec<String>,
    /// Where to read more.
    pub references: Vec<String>,
    /// What else can cause a hit.
    pub false_positives: Vec<String>,
}

/// Rules that are well formed, ready to be evaluated.
#[derive(Debug)]
pub struct RuleSet {
    rules: Vec<Rule>,
    digest: Digest,
}

/// One evaluation in progress: give it the events in order, then [`finish`](Self::finish).
#[derive(Debug)]
pub struct Evaluation<'r> {
    rules: &'r RuleSet,
}

/// What [`RuleSet::self_test`] found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SelfTest {
    /// Number of inline tests that were run.
    pub run: usize,
    /// Those that failed.
    pub failures: Vec<TestFailure>,
}

/// An inline test that did not come out as its rule says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TestFailure {
    /// File of the rule.
    pub file: String,
    /// Line of the test in that file.
    pub line: u32,
    /// Id of the rule.
    pub rule: String,
    /// Name of the test.
    pub test: String,
    /// What was expected and what came.
    pub message: String,
}

impl RuleSet {
    /// Read rule files, given as (name, text). A name that ends in `.yaml` or `.yml` is read as YAML, every other as TOML.
    pub fn parse(files: &[(&str, &str)]) -> Result<Self, Vec<RuleError>> {
        let _ = files;
        Ok(Self {
            rules: Vec::new(),
            digest: Digest::of(b""),
        })
    }

    /// The rules, ordered by id.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// Digest of everything that decides what the rules find. For cache keys.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Run every rule's inline tests.
    pub fn self_test(&self) -> SelfTest {
        SelfTest::default()
    }

    /// Begin an evaluation.
    pub fn start(&self, header: &Header) -> Evaluation<'_> {
        let _ = header;
        Evaluation { rules: self }
    }

    /// Evaluate all rules over a whole stream and the facts of inspection.
    pub fn evaluate<'e>(
        &self,
        header: &Header,
        events: impl IntoIterator<Item = &'e Event>,
        info: Option<&Json>,
    ) -> Vec<Finding> {
        let mut evaluation = self.start(header);
        for event in events {
            evaluation.event(event);
        }
        evaluation.finish(info)
    }
}

impl Evaluation<'_> {
    /// Take the next event.
    pub fn event(&mut self, event: &Event) {
        let _ = event;
    }

    /// Conclude. Findings are ordered by rule id.
    pub fn finish(self, info: Option<&Json>) -> Vec<Finding> {
        let _ = (info, self.rules);
        Vec::new()
    }
}
