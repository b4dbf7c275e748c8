//! A set of rules: read, test, evaluate.

use std::collections::BTreeMap;

use hotcell_schema::digest::Digest;
use hotcell_schema::event::{Event, Header};
use hotcell_schema::finding::{Finding, Severity};
use hotcell_schema::respond::Action;
use serde_json::Value as Json;

use crate::RuleError;
use crate::condition::{Condition, Leaf, Scope};
use crate::evaluate::Evaluation;
use crate::index::Index;
use crate::read;
use crate::source::{self, Place, Problems};

/// Most files of one set.
pub const MAX_FILES: usize = 4096;
/// Greatest size of one file, in bytes.
pub const MAX_FILE_SIZE: usize = 256 * 1024;

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
    /// What is done about a guest that it holds of, while the guest runs.
    pub respond: Option<Action>,
    /// ATT&CK technique ids.
    pub attack: Vec<String>,
    /// Where to read more.
    pub references: Vec<String>,
    /// What else can cause a hit.
    pub false_positives: Vec<String>,
}

/// A rule, ready to be evaluated.
#[derive(Debug)]
pub(crate) struct Compiled {
    pub(crate) about: Rule,
    pub(crate) scope: Scope,
    pub(crate) condition: Condition,
    pub(crate) leaves: Vec<Leaf>,
    pub(crate) tests: Vec<InlineTest>,
}

/// A test that stands in the rule's own file.
#[derive(Debug)]
pub(crate) struct InlineTest {
    pub(crate) line: u32,
    pub(crate) name: String,
    pub(crate) hit: bool,
    pub(crate) events: Vec<Event>,
    pub(crate) info: Option<Json>,
    /// Texts that pieces of evidence must hold.
    pub(crate) evidence: Vec<String>,
    pub(crate) arch: String,
    pub(crate) engine: String,
}

/// Rules that are well formed, ready to be evaluated.
#[derive(Debug)]
pub struct RuleSet {
    compiled: Vec<Compiled>,
    pub(crate) index: Index,
    digest: Digest,
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
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}: rule `{rule}`, test `{test}`: {message}")]
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
    /// Read rule files, given as (name, text). A name that ends in `.yaml` or `.yml` is read as YAML, every other as
    /// TOML. Either all files are well formed, or every error of every file comes back.
    pub fn parse(files: &[(&str, &str)]) -> Result<Self, Vec<RuleError>> {
        let mut errors = Vec::new();
        let mut found: BTreeMap<String, (Compiled, Digest)> = BTreeMap::new();
        for (number, (name, text)) in files.iter().enumerate() {
            let mut problems = Problems::new(name, text);
            let start = Place { line: 1, column: 1 };
            if number >= MAX_FILES {
                let message = format!("a set has at most {MAX_FILES} rule files");
                problems.add("rules/too-large", start, message, None);
                errors.extend(problems.into_errors());
                break;
            }
            if text.len() > MAX_FILE_SIZE {
                let message = format!("a rule file has at most {MAX_FILE_SIZE} bytes");
                problems.add("rules/too-large", start, message, None);
            } else if let Some(root) = source::parse(&mut problems)
                && let Some((rule, id_place)) = read::rule(&root, &mut problems, name)
            {
                match found.get(&rule.about.id) {
                    Some((other, _)) => {
                        let message = format!("the id `{}` is taken by {}", rule.about.id, other.about.file);
                        problems.add("rules/duplicate-id", id_place, message, None);
                    }
                    None => {
                        let digest = Digest::of(text.as_bytes());
                        found.insert(rule.about.id.clone(), (rule, digest));
                    }
                }
            }
            errors.extend(problems.into_errors());
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        let (compiled, digests): (Vec<Compiled>, Vec<Digest>) = found.into_values().unzip();
        let digests: Vec<String> = digests.iter().map(Digest::to_string).collect();
        let version = read::VERSION.to_string();
        let parts = [version.as_str()]
            .into_iter()
            .chain(digests.iter().map(String::as_str));
        let digest = Digest::of_parts(parts.map(str::as_bytes));
        Ok(Self {
            index: Index::new(&compiled),
            compiled,
            digest,
        })
    }

    /// The rules that come with hotcell.
    pub fn shipped() -> Result<Self, Vec<RuleError>> {
        Self::parse(crate::shipped_rules())
    }

    /// The rules, ordered by id.
    pub fn rules(&self) -> impl ExactSizeIterator<Item = &Rule> {
        self.compiled.iter().map(|rule| &rule.about)
    }

    pub(crate) fn compiled(&self) -> &[Compiled] {
        &self.compiled
    }

    /// Digest of the texts of all rules, whatever the names and the order of their files. For cache keys.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Run every rule's inline tests.
    pub fn self_test(&self) -> SelfTest {
        let mut result = SelfTest::default();
        for (place, rule) in self.compiled.iter().enumerate() {
            for test in &rule.tests {
                result.run += 1;
                if let Some(message) = self.run_test(place, test) {
                    result.failures.push(TestFailure {
                        file: rule.about.file.clone(),
                        line: test.line,
                        rule: rule.about.id.clone(),
                        test: test.name.clone(),
                        message,
                    });
                }
            }
        }
        result
    }

    /// What is wrong with the outcome of a test, if anything.
    fn run_test(&self, place: usize, test: &InlineTest) -> Option<String> {
        let header = Header::new("test", test.engine.as_str(), test.arch.as_str());
        let mut evaluation = Evaluation::new(self, &header, |other, _| other == place);
        for event in &test.events {
            evaluation.event(event);
        }
        let findings = evaluation.finish(test.info.as_ref());
        let texts: Vec<&str> = findings
            .iter()
            .flat_map(|finding| &finding.evidence)
            .map(|evidence| evidence.text.as_str())
            .collect();
        match (test.hit, findings.is_empty()) {
            (true, true) => Some("expected a hit, there was none".into()),
            (false, false) => Some(format!("expected a miss, but it hit: {}", texts.join("; "))),
            _ => {
                let missing = test
                    .evidence
                    .iter()
                    .find(|wanted| !texts.iter().any(|text| text.contains(wanted.as_str())))?;
                Some(format!(
                    "no evidence says `{missing}`; there is: {}",
                    texts.join("; ")
                ))
            }
        }
    }

    /// Begin an evaluation.
    pub fn start(&self, header: &Header) -> Evaluation<'_> {
        Evaluation::new(self, header, |_, _| true)
    }

    /// Begin an evaluation of those rules alone that act while a guest runs, and are at least so serious.
    pub fn start_acting(&self, header: &Header, at: Severity) -> Evaluation<'_> {
        Evaluation::new(self, header, |_, rule| {
            rule.respond.is_some() && rule.severity >= at
        })
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
