//! Verdicts as a JUnit file, which every CI service reads.

use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};

use crate::change::Change;
use crate::{Check, Verdict};

/// The checks of one manifest as JUnit XML.
///
/// # Errors
/// When the XML cannot be serialised.
pub fn junit(name: &str, checks: &[Check]) -> Result<String, quick_junit::SerializeError> {
    let mut suite = TestSuite::new(name);
    for check in checks {
        let status = match &check.verdict {
            Verdict::Met => TestCaseStatus::success(),
            Verdict::NotMet(changes) => {
                let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
                status.set_message(format!("{} changes", changes.len()));
                status.set_description(changes.iter().map(line).collect::<Vec<_>>().join("\n"));
                status
            }
            Verdict::NotJudged(reason) => {
                let mut status = TestCaseStatus::skipped();
                status.set_message(format!("not judged: {reason}"));
                status
            }
        };
        let mut case = TestCase::new(check.name.as_str(), status);
        if !check.subject.is_empty() {
            case.set_classname(check.subject.as_str());
        }
        suite.add_test_case(case);
    }
    let mut report = Report::new("hotcell");
    report.add_test_suite(suite);
    report.to_string()
}

/// A change in a line.
pub fn line(change: &Change) -> String {
    match (&change.old, &change.new) {
        (Some(old), Some(new)) => format!("{}: {old} -> {new}", change.what),
        (Some(old), None) => format!("- {}: {old}", change.what),
        (None, Some(new)) => format!("+ {}: {new}", change.what),
        (None, None) => change.what.clone(),
    }
}
