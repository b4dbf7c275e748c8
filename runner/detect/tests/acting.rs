//! Rules that act: which of them hold after each event.

#![allow(clippy::unwrap_used)]

use hotcell_detect::RuleSet;
use hotcell_schema::event::{Event, Header};
use hotcell_schema::finding::Severity;
use hotcell_schema::respond::Action;
use serde_json::json;

fn rule(id: &str, severity: &str, respond: &str, when: &str) -> String {
    format!(
        "hotcell-rule = 1\nid = \"{id}\"\ntitle = \"t\"\ndescription = \"d\"\nseverity = \"{severity}\"\n{respond}\n{when}\n"
    )
}

fn opened(seq: u64, path: &str) -> Event {
    let event = json!({
        "seq": seq,
        "time": seq,
        "witness": "kernel",
        "task": {"pid": 2, "tid": 2, "parent": 1, "image": "/tmp/sample"},
        "what": {"file": {"op": "open", "path": path}},
    });
    serde_json::from_value(event).unwrap()
}

fn header() -> Header {
    Header::new("run", "qemu-user/linux", "x86_64")
}

#[test]
fn a_rule_acts_after_the_event_that_makes_it_hold() {
    let both = "when.all = [{ match = { kind = \"file\", path = \"/a\" } }, { match = { kind = \"file\", path = \"/b\" } }]";
    let set = RuleSet::parse(&[
        ("a.toml", &rule("freezes", "high", "respond = \"freeze\"", both)),
        (
            "b.toml",
            &rule(
                "tells",
                "high",
                "",
                "when.match = { kind = \"file\", path = \"/a\" }",
            ),
        ),
    ])
    .unwrap();
    let header = header();
    let mut evaluation = set.start_acting(&header, Severity::Medium);
    assert_eq!(evaluation.rules(), 1);
    for (seq, path) in ["/a", "/c", "/a"].into_iter().enumerate() {
        evaluation.event(&opened(seq as u64, path));
        assert!(evaluation.acting().is_none(), "{path}");
    }
    evaluation.event(&opened(3, "/b"));
    let (rule, action) = evaluation.acting().unwrap();
    assert_eq!((rule.id.as_str(), action), ("freezes", Action::Freeze));
}

#[test]
fn a_rule_that_is_too_mild_does_not_act() {
    let text = rule(
        "kills",
        "medium",
        "respond = \"kill\"",
        "when.match = { kind = \"file\" }",
    );
    let set = RuleSet::parse(&[("a.toml", &text)]).unwrap();
    let header = header();
    let mut evaluation = set.start_acting(&header, Severity::High);
    assert_eq!(evaluation.rules(), 0);
    evaluation.event(&opened(0, "/a"));
    assert!(evaluation.acting().is_none());
}

#[test]
fn what_cannot_be_done_yet_is_said_where_it_is_asked_for() {
    let when = "when.match = { kind = \"file\" }";
    for (respond, code) in [("dump", "rules/not-yet"), ("kil", "rules/unknown-name")] {
        let text = rule("r", "low", &format!("respond = \"{respond}\""), when);
        let errors = RuleSet::parse(&[("a.toml", &text)]).unwrap_err();
        assert_eq!((errors.len(), errors[0].line), (1, 6), "{errors:?}");
        assert_eq!(errors[0].code, code, "{errors:?}");
    }
}
