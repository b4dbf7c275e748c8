//! Verdicts as a JUnit file, which every CI service reads.

use hotcell_schema::verdict::{Check, Verdict};
use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};

use crate::text::{self, Style};

/// How changes are shown in a JUnit file.
const STYLE: Style = Style {
    width: 240,
    lines: 60,
};
/// Greatest number of changes that are shown of one check.
const MAX_CHANGES: usize = 100;

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
                status.set_message(match changes.len() {
                    1 => "1 change".to_owned(),
                    many => format!("{many} changes"),
                });
                let mut lines: Vec<String> = changes
                    .iter()
                    .take(MAX_CHANGES)
                    .flat_map(|change| text::lines(change, STYLE))
                    .map(|line| line.text)
                    .collect();
                if changes.len() > MAX_CHANGES {
                    lines.push(format!("… {} more changes", changes.len() - MAX_CHANGES));
                }
                status.set_description(lines.join("\n"));
                status
            }
            Verdict::NotJudged(reason) => {
                let mut status = TestCaseStatus::skipped();
                status.set_message(format!("not judged: {reason}"));
                status
            }
        };
        let mut case = TestCase::new(check.name.as_str(), status);
        if !check.short.is_empty() {
            case.set_classname(check.short.as_str());
        }
        suite.add_test_case(case);
    }
    let mut report = Report::new("hotcell");
    report.add_test_suite(suite);
    report.to_string()
}
