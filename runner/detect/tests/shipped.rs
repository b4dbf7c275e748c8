//! The shipped rules: well formed, tested by their own tests, in line with the schema.

use std::collections::BTreeSet;

use hotcell_detect::{RuleSet, rule_schema, shipped_rules};

#[test]
fn every_inline_test_passes() {
    let rules = RuleSet::shipped().unwrap_or_else(|errors| {
        let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
        panic!("{}", lines.join("\n"));
    });
    assert!(rules.rules().len() >= 10);
    let result = rules.self_test();
    let lines: Vec<String> = result.failures.iter().map(ToString::to_string).collect();
    assert!(lines.is_empty(), "{}", lines.join("\n"));
    assert!(result.run >= 2 * rules.rules().len());
}

#[test]
fn every_rule_has_tests_both_ways_and_is_named_like_its_file() {
    for (name, text) in shipped_rules() {
        let rule: toml::Table = text.parse().expect("TOML");
        let outcomes: BTreeSet<&str> = rule["tests"]
            .as_array()
            .expect("tests")
            .iter()
            .filter_map(|test| test["expect"].as_str())
            .collect();
        assert_eq!(outcomes, BTreeSet::from(["hit", "miss"]), "{name}");
        assert_eq!(*name, format!("{}.toml", rule["id"].as_str().expect("id")));
    }
}

#[test]
fn the_schema_accepts_every_shipped_rule() {
    let schema = rule_schema().to_value();
    let validator = jsonschema::validator_for(&schema).expect("a schema");
    for (name, text) in shipped_rules() {
        let rule: toml::Table = text.parse().expect("TOML");
        let rule = serde_json::to_value(rule).expect("JSON");
        let errors: Vec<String> = validator
            .iter_errors(&rule)
            .map(|error| format!("{name}: {}: {error}", error.instance_path()))
            .collect();
        assert!(errors.is_empty(), "{}", errors.join("\n"));
    }
}
