//! Whatever stands in a rule file, reading it ends without a panic; whatever happens, rules judge it the same way twice.

use std::sync::LazyLock;

use hotcell_detect::{RuleSet, rule_schema, shipped_rules};
use hotcell_schema::event::{Event, Header};
use proptest::prelude::*;
use serde_json::{Value as Json, json};

static SHIPPED: LazyLock<RuleSet> = LazyLock::new(|| RuleSet::shipped().expect("good rules"));
static AGAIN: LazyLock<RuleSet> = LazyLock::new(|| RuleSet::shipped().expect("good rules"));
static SCHEMA: LazyLock<jsonschema::Validator> =
    LazyLock::new(|| jsonschema::validator_for(&rule_schema().to_value()).expect("a schema"));

/// Bytes that mean something in rules, so that mutation gets far.
const PIECES: &[&str] = &[
    "[",
    "]",
    "{",
    "}",
    "=",
    "\"",
    "'",
    "\n",
    ".",
    ",",
    "any",
    "all",
    "not",
    "match",
    "count",
    "sequence",
    "inspect",
    "when",
    "kind = \"file\"",
    "-1",
    "0x7fffffffffffffff",
    "1e400",
    "\"\"",
    "é",
    "\\",
    "9999999999h",
    "regex",
    "(((",
    "[a-",
    "*",
    "{9999}",
    "same-as",
    "capture",
    "same-field",
    "steps",
    "of",
    "at-least",
    "exists = false",
    "null",
    "true",
    ": ",
    "- ",
    "&a",
    "*a",
];

fn mutated() -> impl Strategy<Value = (bool, String)> {
    let edits = prop::collection::vec(
        (
            any::<prop::sample::Index>(),
            0..40usize,
            0..PIECES.len(),
            any::<bool>(),
        ),
        1..6,
    );
    (any::<prop::sample::Index>(), edits, any::<bool>()).prop_map(|(rule, edits, yaml)| {
        let (_, text) = rule.get(shipped_rules());
        let mut characters: Vec<char> = text.chars().collect();
        for (place, length, piece, keep) in edits {
            let start = place.index(characters.len().max(1));
            let end = (start + if keep { 0 } else { length }).min(characters.len());
            characters.splice(start..end, PIECES[piece].chars());
        }
        (yaml, characters.into_iter().collect())
    })
}

fn parse(yaml: bool, text: &str) -> Result<RuleSet, Vec<hotcell_detect::RuleError>> {
    RuleSet::parse(&[(if yaml { "r.yaml" } else { "r.toml" }, text)])
}

fn what() -> impl Strategy<Value = Json> {
    let path = prop::sample::select(vec![
        "/etc/cron.d/x",
        "/tmp/a",
        "/sample",
        "/proc/cpuinfo",
        "/proc/meminfo",
        "/bin/sh",
        "/home/u/f",
        "",
    ]);
    let op = prop::sample::select(vec![
        "open", "create", "written", "delete", "rename", "chmod", "list",
    ]);
    prop_oneof![
        (op, path.clone(), path.clone()).prop_map(|(op, path, to)| json!({"file": {"op": op, "path": path, "to": to}})),
        path.clone().prop_map(|path| json!({"process": {"op": "exec", "path": path, "argv": ["wget", path]}})),
        (1..6u32).prop_map(|child| json!({"process": {"op": "fork", "child": child}})),
        Just(json!({"network": {"op": "connect", "protocol": "tcp", "peer": "192.0.2.1:80"}})),
        (0..3).prop_map(|fd| json!({"syscall": {"name": "dup2", "number": 33, "args": [{"name": "newfd", "value": {"fd": fd}}]}})),
        Just(json!({"registry": {"key": "HKLM"}})),
    ]
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let one = (what(), 1..6u32, any::<u64>(), any::<u64>());
    prop::collection::vec(one, 0..200).prop_map(|list| {
        list.into_iter()
            .map(|(what, pid, time, seq)| {
                let task = json!({"pid": pid, "tid": pid, "parent": pid / 2, "image": "/sample"});
                let event =
                    json!({"seq": seq, "time": time, "witness": "engine", "task": task, "what": what});
                serde_json::from_value(event).expect("an event")
            })
            .collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..400), yaml in any::<bool>()) {
        let text = String::from_utf8_lossy(&bytes);
        let errors = parse(yaml, &text).expect_err("a rule by chance");
        prop_assert!(!errors.is_empty());
    }

    #[test]
    fn mutated_rules_are_read_or_refused((yaml, text) in mutated()) {
        match parse(yaml, &text) {
            Ok(rules) => { rules.self_test(); }
            Err(errors) => {
                prop_assert!(!errors.is_empty());
                let lines = text.lines().count().max(1) as u32;
                for error in errors {
                    prop_assert!(error.line >= 1 && error.column >= 1 && error.line <= lines + 1, "{error}");
                }
            }
        }
    }

    #[test]
    fn judging_is_deterministic_and_bounded(events in events()) {
        let header = Header::new("cell", "unicorn/linux", "arm");
        let (once, twice) = (SHIPPED.evaluate(&header, &events, None), AGAIN.evaluate(&header, &events, None));
        prop_assert!(once.is_sorted_by_key(|finding| finding.rule.clone()));
        prop_assert!(once.iter().all(|finding| finding.evidence.len() <= 16));
        prop_assert_eq!(once, twice);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    /// What the reader takes, the schema takes too: an editor never marks a good rule.
    #[test]
    fn the_schema_takes_what_the_reader_takes((_, text) in mutated()) {
        if parse(false, &text).is_ok() {
            let rule: toml::Table = text.parse().expect("it was read");
            let rule = serde_json::to_value(rule).expect("JSON");
            let errors: Vec<String> = SCHEMA
                .iter_errors(&rule)
                .map(|error| format!("{}: {error}", error.instance_path()))
                .collect();
            prop_assert!(errors.is_empty(), "{errors:?}");
        }
    }
}
