//! Mistakes in rule files: each is found, said with its place, and together with all others of the file.

use hotcell_detect::RuleSet;

fn errors(name: &str, text: &str) -> Vec<String> {
    match RuleSet::parse(&[(name, text)]) {
        Ok(_) => Vec::new(),
        Err(errors) => errors.iter().map(ToString::to_string).collect(),
    }
}

/// A rule whose `when` is this.
fn when(when: &str) -> Vec<String> {
    let head = "hotcell-rule = 1\nid = \"r\"\ntitle = \"t\"\ndescription = \"d\"\nseverity = \"low\"\n";
    errors("r.toml", &format!("{head}{when}\n"))
}

fn first(when_text: &str) -> String {
    when(when_text)
        .into_iter()
        .next()
        .unwrap_or_else(|| "accepted".into())
}

#[test]
fn all_mistakes_of_a_file_come_at_once() {
    let text = r#"hotcell-rule = 2
id = "Has Spaces"
titel = "t"
description = "d"
severity = "hgh"
attack = ["T1053.003", "T1053.033", "T1053.003"]
[when.match]
kind = "file"
op = "write"
pth = "/x"
"#;
    let expected = [
        "bad.toml:1:16: this version reads rules of version 1 only",
        "bad.toml:1:1: a rule has no `title`",
        "bad.toml:2:6: `Has Spaces` is not an id (at most 64 characters of a-z, 0-9, `-`, `_`, `.`, `/`)",
        "bad.toml:3:1: a rule has no key `titel` (did you mean `title`?)",
        "bad.toml:5:12: `severity` is one of info, low, medium, high, critical, not `hgh` (did you mean `high`?)",
        "bad.toml:6:24: `T1053.033` is not an ATT&CK technique of the project's table (did you mean `T1053.003`?)",
        "bad.toml:6:37: `T1053.003` stands twice",
        "bad.toml:9:6: `op` is one of open, create, written, delete, rename, link, symlink, mkdir, chmod, chown, truncate, \
         stat, list, not `write` (did you mean `written`?)",
        "bad.toml:10:1: an event of kind `file` has no field `pth` (did you mean `path`?)",
    ];
    let found = errors("bad.toml", text);
    for line in expected {
        assert!(
            found.iter().any(|error| error == line),
            "missing: {line}\nfound: {found:#?}"
        );
    }
    assert_eq!(found.len(), expected.len(), "{found:#?}");
}

#[test]
fn yaml_has_places_too() {
    let text = "hotcell-rule: 1\nid: r\ntitle: t\ndescription: d\nseverity: low\nwhen:\n  match:\n    kind: file\n    pth: /x\n";
    assert_eq!(
        errors("r.yaml", text),
        ["r.yaml:9:5: an event of kind `file` has no field `pth` (did you mean `path`?)"]
    );
    let good = text.replace("pth", "path");
    assert!(errors("r.yaml", &good).is_empty());
    let broken = errors("r.yml", "hotcell-rule: [1\n");
    assert!(broken[0].starts_with("r.yml:"), "{broken:?}");
}

#[test]
fn syntax_errors_have_places() {
    let found = errors("r.toml", "hotcell-rule = 1\nid = \nx = = 2\n");
    assert!(found[0].starts_with("r.toml:2:"), "{found:?}");
    assert!(
        found.iter().any(|error| error.starts_with("r.toml:3:")),
        "{found:?}"
    );
}

#[test]
fn conditions_that_make_no_sense_are_refused() {
    for (text, wanted) in [
        ("when = {}", "the condition is empty"),
        ("when = 3", "a condition is a table, here is a whole number"),
        (
            "when.mach = { kind = \"file\" }",
            "`mach` is not a condition (did you mean `match`?)",
        ),
        (
            "when.match = { kind = \"file\" }\nwhen.count = { of = { kind = \"file\" }, at-least = 2 }",
            "a condition has one key (combine with `all` or `any`)",
        ),
        (
            "when.not.match = { kind = \"file\" }",
            "this would hit a sample that did nothing",
        ),
        ("when.all = []", "`all` has no parts"),
        ("when.match = { kind = \"flie\" }", "did you mean `file`?"),
        ("when.match = { op = \"open\" }", "a pattern has no `kind`"),
        ("when.match = []", "the list of patterns is empty"),
        (
            "when.match = { kind = \"file\", path = {} }",
            "the test of `path` says nothing",
        ),
        (
            "when.match = { kind = \"file\", path = [] }",
            "the list of values of `path` is empty",
        ),
        (
            "when.match = { kind = \"file\", path = { contains = \"\" } }",
            "an empty text fits everything",
        ),
        (
            "when.match = { kind = \"file\", path = { regex = \"(\" } }",
            "not a regular expression: unclosed group",
        ),
        (
            "when.match = { kind = \"file\", path = { regex = \"(a{1000}){1000}\" } }",
            "the regular expression is too large",
        ),
        (
            "when.match = { kind = \"file\", path = { gt = 3 } }",
            "`gt` does not go with `path`, which is a text",
        ),
        (
            "when.match = { kind = \"file\", bytes = \"3\" }",
            "`bytes` is a number, here is a text",
        ),
        (
            "when.match = { kind = \"file\", bytes = { contains = \"3\" } }",
            "`contains` does not go with `bytes`",
        ),
        (
            "when.match = { kind = \"file\", path = { capture = \"x\" } }",
            "in the steps of a sequence only",
        ),
        (
            "when.match = { kind = \"file\", path = { starts-with = \"x\" } }",
            "did you mean `startswith`?",
        ),
        (
            "when.count = { of = { kind = \"file\" }, at-least = 1 }",
            "a whole number from 2 to 4096",
        ),
        (
            "when.count = { of = { kind = \"file\" }, at-least = 2, within = \"5 s\" }",
            "`within` is a span of time",
        ),
        (
            "when.count = { of = { kind = \"file\" }, at-least = 2, distinct = \"pth\" }",
            "did you mean `path`?",
        ),
        (
            "when.count = { of = { kind = \"file\" }, at-least = 2, by = \"lineage\" }",
            "for sequences",
        ),
        (
            "when.sequence = { steps = [{ kind = \"file\" }] }",
            "at least two steps",
        ),
        (
            "when.sequence = { steps = [{ kind = \"file\" }, { kind = \"file\", path = { same-as = \"p\" } }] }",
            "no earlier step captures `p`",
        ),
        (
            "when.sequence = { steps = [{ kind = \"file\", path = { capture = \"p\" }, to = { same-as = \"p\" } }, { kind = \"file\" }] }",
            "`same-as` compares with a value of an earlier step",
        ),
        (
            "when.sequence = { steps = [[{ kind = \"file\", path = { capture = \"p\" } }, { kind = \"file\" }], { kind = \"file\" }] }",
            "every alternative of a step captures the same values",
        ),
        (
            "when.inspect = { at = \"hardening.nxx\", is = true }",
            "did you mean `nx`?",
        ),
        (
            "when.inspect = { at = \"sections.name\", is = \"x\" }",
            "a list stands before it: write `[]`",
        ),
        (
            "when.inspect = { at = \"sections[]\", where = { nam = \"x\" } }",
            "did you mean `name`?",
        ),
        (
            "when.inspect = { at = \"kind[]\", is = \"elf\" }",
            "there is no list where `[]` stands",
        ),
        ("when.inspect = { at = \"a..b\", is = 1 }", "is not a path"),
        ("when.inspect = { at = \"kind\" }", "either `is` or `where`"),
    ] {
        let found = when(text);
        assert!(
            found.iter().any(|error| error.contains(wanted)),
            "{text}\nwanted {wanted}\nfound {found:#?}"
        );
        assert!(found[0].starts_with("r.toml:"), "{found:?}");
    }
}

#[test]
fn facts_of_inspection_that_exist_are_accepted() {
    for at in [
        "hardening.nx",
        "kind",
        "strings.by_kind.url",
        "header.machine.name",
        "disassembly.statistics.classes.call",
    ] {
        let text = format!("when.inspect = {{ at = \"{at}\", is = {{ exists = true }} }}");
        assert_eq!(first(&text), "accepted");
    }
    let text = "when.inspect = { at = \"strings.list[]\", where = { kind = \"url\", any = [{ text = { contains = \"x\" } }] } }";
    assert_eq!(first(text), "accepted");
}

#[test]
fn bounds_hold() {
    let mut deep = String::from("{ match = { kind = \"file\" } }");
    for _ in 0..12 {
        deep = format!("{{ all = [{deep}] }}");
    }
    assert!(first(&format!("when = {deep}")).contains("nested deeper than 8"));
    let many = "\"x\", ".repeat(600);
    assert!(
        first(&format!("when.match = {{ kind = \"file\", path = [{many}] }}"))
            .contains("at most 512 are read")
    );
    let big = "#".repeat(300 * 1024);
    assert!(errors("r.toml", &big)[0].contains("at most 262144 bytes"));
    // However deep the nesting, the stack holds.
    for nested in [
        "a.".repeat(100_000) + "a = 1",
        "[".repeat(100_000),
        format!("x = {}", "{a=".repeat(50_000)),
    ] {
        assert!(!errors("r.toml", &nested).is_empty());
        assert!(!errors("r.yaml", &nested).is_empty());
    }
    let stairs: String = (0..2000)
        .map(|depth| format!("{}a:\n", " ".repeat(depth)))
        .collect();
    assert!(!errors("r.yaml", stairs.get(..200_000).unwrap_or(&stairs)).is_empty());
}

#[test]
fn an_id_stands_for_one_rule() {
    let rule = "hotcell-rule = 1\nid = \"r\"\ntitle = \"t\"\ndescription = \"d\"\nseverity = \"low\"\nwhen.match = { kind = \"file\" }\n";
    let found = RuleSet::parse(&[("a.toml", rule), ("b.toml", rule)]).expect_err("two of them");
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].to_string(), "b.toml:2:6: the id `r` is taken by a.toml");
    assert_eq!(found[0].code, "rules/duplicate-id");
    assert_eq!(found[0].source_line, "id = \"r\"");
}

#[test]
fn tests_that_are_no_events_are_refused() {
    let rule = |event: &str| {
        let found = when(&format!(
            "when.match = {{ kind = \"file\" }}\n[[tests]]\nname = \"n\"\nexpect = \"hit\"\nevents = [{event}]"
        ));
        found.into_iter().next().unwrap_or_else(|| "accepted".into())
    };
    assert_eq!(rule("{ file = { op = \"open\", path = \"/x\" } }"), "accepted");
    assert!(rule("{ pid = 2 }").contains("an event needs a kind"));
    assert!(
        rule("{ file = { op = \"read\", path = \"/x\" } }").contains("not an event: unknown variant `read`")
    );
    assert!(
        rule("{ file = { op = \"open\", path = \"/x\", acess = \"read\" } }")
            .contains("has no field `acess`")
    );
    assert!(rule("{ fil = { op = \"open\", path = \"/x\" } }").contains("did you mean `file`?"));
}
