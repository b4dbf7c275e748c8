//! Documents keep their meaning, their order and their comments when they are written again, in either language.
#![allow(clippy::unwrap_used, missing_docs)]

use hotcell_plan::format::{Language, format};
use hotcell_plan::tree::{Node, Value};
use hotcell_plan::{Sources, tree};
use proptest::prelude::*;
use serde_json::{Value as Json, json};

fn written(name: &str, text: &str, to: Language) -> String {
    let mut sources = Sources::default();
    format(name.as_ref(), text, Some(to), &mut sources).unwrap_or_else(|problems| {
        let told: Vec<_> = problems.iter().map(|problem| problem.plain(&sources)).collect();
        panic!("{}\n{text}", told.join("\n"))
    })
}

fn read(language: Language, text: &str) -> Node {
    let mut problems = Vec::new();
    let read = match language {
        Language::Toml => tree::toml::parse(0, text, &mut problems),
        Language::Yaml => tree::yaml::parse(0, text, &mut problems),
    };
    assert!(problems.is_empty(), "{problems:?}\n{text}");
    read.unwrap()
}

fn name(language: Language) -> &'static str {
    match language {
        Language::Toml => "m.toml",
        Language::Yaml => "m.yaml",
    }
}

/// Texts that are easily taken for something else.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z]{0,6}",
        "\\PC{0,12}",
        any::<String>(),
        prop::sample::select(vec![
            "",
            " ",
            "null",
            "~",
            "true",
            "No",
            "1",
            "-1",
            "1.5",
            "1e3",
            "0x10",
            "0o7",
            ".5",
            "...",
            "---",
            "- a",
            "a: b",
            "a #b",
            "#",
            "${vars.x}",
            "$${x}",
            "'",
            "\"",
            "\"\"\"",
            "'''",
            "\\",
            "a\\",
            "a\nb",
            "a\nb\n",
            "a\n\nb\n\n",
            "\n",
            "\na",
            " a\nb",
            "a\n b",
            "a\n\tb",
            "a \nb",
            "\ta",
            "a\r\nb",
            "\u{feff}a",
            "\u{85}",
            "\u{2028}",
            "é𐍈",
            "a\u{0}b",
            "99999999999999999999",
            "2001-01-01",
            "x:y",
            "x:",
            "[a]",
            "{a}",
            "*a",
            "&a",
            "!a",
            "%a",
            "@a",
            "`a",
            "|",
            ">",
            "?",
            "\u{7f}",
            "=",
            "<<",
            "1_000",
            "+1",
            "1.",
            "1:30",
            "a,b",
        ])
        .prop_map(str::to_owned),
    ]
}

fn key() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z][a-z-]{0,6}", text()]
}

/// A value; `null` only where YAML stays YAML.
fn value(null: bool) -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        4 => text().prop_map(Json::from),
        2 => any::<i64>().prop_map(Json::from),
        1 => any::<bool>().prop_map(Json::from),
        1 => prop::num::f64::NORMAL.prop_map(Json::from),
        1 => (-1000i64..1000).prop_map(|n| {
            #[allow(clippy::cast_precision_loss)]
            let n = n as f64;
            Json::from(n)
        }),
        1 => Just(if null { Json::Null } else { json!(0.0) }),
    ];
    leaf.prop_recursive(5, 60, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Json::from),
            prop::collection::vec((key(), inner), 0..6)
                .prop_map(|pairs| Json::Object(pairs.into_iter().collect())),
        ]
    })
}

fn document(null: bool) -> impl Strategy<Value = Json> {
    prop::collection::vec((key(), value(null)), 0..7)
        .prop_map(|pairs| Json::Object(pairs.into_iter().collect()))
}

/// JSON that is YAML too: with an escape for each character that YAML would not take as it is.
fn ascii(json: &Json) -> String {
    json.to_string()
        .chars()
        .map(|c| match c {
            ' '..='~' => c.to_string(),
            c => format!("\\U{:08X}", c as u32),
        })
        .collect()
}

/// The order of keys in every table but the document's own.
fn order(node: &Node) -> Vec<String> {
    let mut sections: Vec<String> = match &node.value {
        Value::Table(table) => table
            .iter()
            .map(|(key, entry)| format!("{key}: {}", entry.node.to_json()))
            .collect(),
        _ => Vec::new(),
    };
    sections.sort();
    sections
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn meaning_is_kept_both_ways(json in document(false)) {
        let tree = Node::from_json(&json, Default::default());
        // JSON is YAML: the first document is written by somebody else.
        let mut text = ascii(&json);
        let mut from = Language::Yaml;
        for to in [Language::Toml, Language::Toml, Language::Yaml, Language::Yaml, Language::Toml] {
            let next = written(name(from), &text, to);
            let again = read(to, &next);
            prop_assert_eq!(&again.to_json(), &tree.to_json(), "{}", next);
            prop_assert_eq!(order(&again), order(&tree), "{}", next);
            if from == to {
                prop_assert_eq!(&next, &text, "not the same the second time");
            }
            (text, from) = (next, to);
        }
    }

    #[test]
    fn yaml_keeps_null(json in document(true)) {
        let next = written("m.yaml", &ascii(&json), Language::Yaml);
        prop_assert_eq!(read(Language::Yaml, &next).to_json(), json, "{}", next);
    }

    /// Whatever can be read can be written, or is refused in words.
    #[test]
    fn any_document(text in "[a-z\\[\\]{}=:\"'\\-#&*|>!,. \n0-9]{0,60}", yaml in any::<bool>()) {
        let mut sources = Sources::default();
        let name = if yaml { "m.yaml" } else { "m.toml" };
        for to in [Language::Toml, Language::Yaml] {
            if let Err(problems) = format(name.as_ref(), &text, Some(to), &mut sources) {
                prop_assert!(!problems.is_empty());
                prop_assert!(problems.iter().all(|problem| !problem.title.contains("mean something else")), "{}", text);
            }
        }
    }
}

/// Documents with all kinds of values in all kinds of places.
const DOCUMENTS: [(Language, &str); 5] = [
    (Language::Toml, COMMENTED),
    (
        Language::Toml,
        include_str!("../../../examples/research/research.toml"),
    ),
    (
        Language::Toml,
        include_str!("../../../examples/analysers/analysers.toml"),
    ),
    (
        Language::Yaml,
        include_str!("../../../examples/detection/detection.yaml"),
    ),
    (
        Language::Yaml,
        include_str!("../../../examples/sandbox-host/host.yaml"),
    ),
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// Wherever a comment stands, it is kept, and what is in its usual form stays as it is.
    #[test]
    fn comments_anywhere(
        document in prop::sample::select(&DOCUMENTS[..]),
        places in prop::collection::vec((any::<prop::sample::Index>(), any::<bool>()), 1..6),
    ) {
        let (from, original) = document;
        let mut lines: Vec<String> = original.lines().map(str::to_owned).collect();
        for (number, (place, beside)) in places.iter().enumerate() {
            let at = place.index(lines.len());
            if *beside && !lines[at].trim().is_empty() {
                lines[at].push_str(&format!(" # comment {number}"));
            } else {
                let next = &lines[at];
                let indent = next.len() - next.trim_start().len();
                lines.insert(at, format!("{}# comment {number}", " ".repeat(indent)));
            }
        }
        let text = lines.join("\n") + "\n";
        let mut problems = Vec::new();
        let parse = |text: &str, problems: &mut Vec<_>| match from {
            Language::Toml => tree::toml::parse(0, text, problems),
            Language::Yaml => tree::yaml::parse(0, text, problems),
        };
        let wanted = parse(original, &mut problems).map(|node| node.to_json());
        // In the middle of a text it is no comment.
        prop_assume!(parse(&text, &mut problems).map(|node| node.to_json()) == wanted);
        for to in [Language::Toml, Language::Yaml] {
            let once = written(name(from), &text, to);
            for number in 0..places.len() {
                prop_assert!(once.contains(&format!("# comment {number}")), "{}\n---\n{}", text, once);
            }
            prop_assert_eq!(&written(name(to), &once, to), &once, "not the same the second time:\n{}", text);
        }
    }
}

const COMMENTED: &str = r##"# Bots of 2026.
hotcell = 1 # the version

# Where they are.
[sources.vault]
kind = "folder" # not an archive
path = "vault # 2"

# All of them.
[samples.bots]
glob = "*"
source = "vault"

[stages.run]
uses = "unicorn/linux"
# One instance each.
for-each.sample = "samples.bots"
in.file = "${sample.file}"
with.args = [
    "a",
    # the second
    "b", # beside
]
with.files."/etc/x" = """
one
two
"""
limits = { wall = "5m", events = 1_000 }

# What must hold.
[[expect]]
where = "sample.family == 'mirai'"
hits = { all = ["a"], none = ["b"] }

# The end.
"##;

#[test]
fn numbers_by_tag_are_written_as_numbers() {
    assert_eq!(
        written(
            "m.yaml",
            "seed: !!int \"7\"\nshare: !!float '1'\n",
            Language::Yaml
        ),
        "seed: 7\nshare: 1.0\n"
    );
}

#[test]
fn comments_are_kept_both_ways() {
    assert_eq!(written("m.toml", COMMENTED, Language::Toml), COMMENTED);
    let yaml = written("m.toml", COMMENTED, Language::Yaml);
    insta_like(&yaml);
    let back = written("m.yaml", &yaml, Language::Toml);
    assert_eq!(
        read(Language::Toml, &back).to_json(),
        read(Language::Toml, COMMENTED).to_json()
    );
    for comment in COMMENTED
        .lines()
        .filter_map(|line| line.split_once("# "))
        .map(|(_, comment)| comment)
    {
        let comment = comment.trim_end_matches('"');
        assert!(yaml.contains(comment), "{comment}\n{yaml}");
        assert!(back.contains(comment), "{comment}\n{back}");
    }
}

fn insta_like(yaml: &str) {
    let wanted = r##"# Bots of 2026.
hotcell: 1 # the version

# Where they are.
sources:
  vault:
    kind: folder # not an archive
    path: "vault # 2"

# All of them.
samples:
  bots: { glob: "*", source: vault }

stages:
  run:
    uses: unicorn/linux
    # One instance each.
    for-each: { sample: samples.bots }
    in: { file: "${sample.file}" }
    with:
      args:
        - a
        # the second
        - b # beside
      files:
        /etc/x: |
          one
          two
    limits: { wall: 5m, events: 1000 }

# What must hold.
expect:
  - where: sample.family == 'mirai'
    hits: { all: [a], none: [b] }

# The end.
"##;
    assert_eq!(yaml, wanted);
}
