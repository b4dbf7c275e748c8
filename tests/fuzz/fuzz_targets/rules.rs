//! Any text as a rule file, TOML or YAML: read or refused with errors that have places; inline tests end.
#![no_main]

use hotcell_detect::RuleSet;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let text = String::from_utf8_lossy(bytes);
    for name in ["rule.toml", "rule.yaml"] {
        match RuleSet::parse(&[(name, &text)]) {
            Ok(rules) => {
                assert_eq!(rules.self_test(), rules.self_test());
            }
            Err(errors) => assert!(errors.iter().all(|error| error.line >= 1 && error.column >= 1)),
        }
    }
});
