//! Any text as an expression, and as a text with `${}`: a value or an error, within bounds.
#![no_main]

use std::sync::LazyLock;

use hotcell_plan::expression::{self, Evaluator};
use serde_json::{Value as Json, json};

static CONTEXT: LazyLock<Json> = LazyLock::new(|| {
    json!({
        "stage": "run", "uses": "unicorn/linux", "n": 3, "list": [1, "two", null], "vars": {"a": 1},
        "sample": {"name": "one", "family": "mirai", "length": 80, "arch": "mipsel"},
        "stages": {"first_look": {"out": {"info": {"linkage": "static"}}}},
    })
});

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let text = String::from_utf8_lossy(bytes);
    let evaluator = Evaluator::default();
    let readable = evaluator.check(&text).is_ok();
    assert_eq!(readable, evaluator.names(&text).is_ok());
    let value = evaluator.value(&text, &CONTEXT);
    assert!(readable || value.is_err());
    // A budget of 32 MiB, and what JSON needs to write it.
    if let Ok(value) = value {
        assert!(value.to_string().len() <= 200 << 20);
        assert_eq!(
            evaluator.value(&text, &CONTEXT).as_ref(),
            Ok(&value),
            "another value the second time"
        );
    }
    expression::reads(&text);
    if let Ok(pieces) = expression::pieces(&text) {
        let _ = evaluator.fill(&pieces, &CONTEXT);
    }
});
