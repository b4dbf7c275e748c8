//! Whatever a manifest holds, the answer is a plan or diagnostics, never a panic, and soon.
#![allow(clippy::unwrap_used, missing_docs)]

use std::sync::LazyLock;

use hotcell_plan::{Loaded, Options, Profiles, load_text, plan};
use proptest::prelude::*;

static PROFILES: LazyLock<Profiles> = LazyLock::new(Profiles::shipped);

const TOML: &str = r#"hotcell = 1
name = "bots"
seed = 7
[sources.vault]
kind = "folder"
path = "."
[samples.bots]
glob = "*.none"
source = "vault"
[stages.triage]
uses = "inspect/elf"
for-each.sample = "samples.bots"
in.file = "${sample.file}"
[stages.sums]
uses = "unicorn/payload"
for-each.n = [1, "two", { name = "three", x = 1.5 }]
with = { arch = "x86", code = "90" }
[stages.run]
uses = "unicorn/linux"
for-each.sample = { over = ["samples.bots"] }
when = "stages.triage.out.info.linkage == 'static'"
in.file = "${sample.file}"
with = { args = ["${sample.name}", 'x'], persona = "router", files = { "/a" = "b" } }
limits = { virtual-time = "60s", events = 2_000_000, wall = "5m", memory = "64MiB" }
[[expect]]
where = "sample.family == 'mirai'"
hits = { all = ["a"], severity-below = "medium" }
[golden]
select = ["findings"]
[variants.ci.stages.run]
retries = 1
"#;

const YAML: &str = r#"hotcell: 1
name: rules
samples:
  droppers: &d { glob: "*.none", family: "x" }
  clean: *d
stages:
  hits:
    uses: detect/rules
    for-each: { sample: { over: [samples.droppers, samples.clean] } }
    in:
      events: stages.run.out.events
  run:
    uses: unicorn/linux
    for-each: {sample: {over: [samples.droppers, samples.clean]}}
    in: {file: "${sample.file}"}
    with:
      args: [a, 'b', "c\n"]
      cwd: |
        /text
expect:
  - { where: "sample.set == 'clean'", hits: { severity-below: medium } }
"#;

/// Loads, plans and renders: everything a person would see.
fn whole(path: &str, text: &str, options: &Options) -> Loaded {
    let mut loaded = load_text(path.as_ref(), text, options);
    let planned = plan(&mut loaded, &PROFILES);
    for problem in &loaded.diagnostics {
        assert!(!problem.plain(&loaded.sources).is_empty());
    }
    assert!(
        planned.is_some() || loaded.has_errors(),
        "refused without a reason: {text}"
    );
    loaded
}

fn mutated(base: &'static str) -> impl Strategy<Value = String> {
    let pieces = prop::sample::select(vec![
        "",
        "\n",
        " ",
        "\t",
        "[",
        "]",
        "{",
        "}",
        "\"",
        "'",
        ":",
        "=",
        ",",
        "-",
        "#",
        "&a ",
        "*a",
        "*d",
        "!!str ",
        "!x ",
        "<<",
        "|",
        ">",
        "?",
        "%",
        "---\n",
        "...\n",
        "stages",
        "samples",
        "null",
        "~",
        "1e999",
        "0x",
        "99999999999999999999",
        "${",
        "}}",
        "${sample",
        "stages.run.out.events",
        "stages.run[*].out.events",
        "\u{feff}",
        "\u{0}",
        "é",
        "𐍈",
        "[[stages]]",
        "hotcell",
        "true",
    ]);
    prop::collection::vec((0..base.len(), 0usize..12, pieces), 1..5).prop_map(move |edits| {
        let mut text = base.to_owned();
        for (at, cut, piece) in edits {
            let start = (0..=at.min(text.len()))
                .rev()
                .find(|at| text.is_char_boundary(*at))
                .unwrap();
            let end = (start + cut).min(text.len());
            let end = (end..=text.len()).find(|at| text.is_char_boundary(*at)).unwrap();
            text.replace_range(start..end, piece);
        }
        text
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

    #[test]
    fn any_text(text in any::<String>(), yaml in any::<bool>()) {
        whole(if yaml { "m.yaml" } else { "m.toml" }, &text, &Options::default());
    }

    #[test]
    fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..300), yaml in any::<bool>()) {
        whole(if yaml { "m.yaml" } else { "m.toml" }, &String::from_utf8_lossy(&bytes), &Options::default());
    }

    #[test]
    fn mutated_toml(text in mutated(TOML)) {
        whole("m.toml", &text, &Options::default());
    }

    #[test]
    fn mutated_yaml(text in mutated(YAML)) {
        whole("m.yaml", &text, &Options::default());
    }

    #[test]
    fn any_option(set in "\\PC{0,40}", variant in "\\PC{0,8}") {
        let options = Options { set: vec![set, "seed=1".into()], variants: vec![variant, "ci".into()], ..Options::default() };
        whole("m.toml", TOML, &options);
    }
}

fn codes(loaded: &Loaded) -> Vec<&str> {
    loaded.diagnostics.iter().map(|problem| problem.code).collect()
}

#[test]
fn bombs_are_refused_quickly() {
    let start = std::time::Instant::now();
    let mut bomb = String::from("hotcell: 1\na0: &a0 [x, x, x, x, x, x, x, x, x]\n");
    for level in 1..20 {
        let items = vec![format!("*a{}", level - 1); 9].join(", ");
        bomb.push_str(&format!("a{level}: &a{level} [{items}]\n"));
    }
    assert_eq!(codes(&whole("m.yaml", &bomb, &Options::default())), ["E0003"]);
    for (open, close) in [("[", "]"), ("{a: ", "}")] {
        let deep = format!("hotcell: 1\nx: {}{}\n", open.repeat(50_000), close.repeat(50_000));
        assert!(whole("m.yaml", &deep, &Options::default()).has_errors());
    }
    let deep = format!(
        "hotcell: 1\nx:\n{}",
        (1..3000)
            .map(|depth| format!("{}- \n", " ".repeat(depth)))
            .collect::<String>()
    );
    whole("m.yaml", &deep, &Options::default());
    let deep = format!("hotcell = 1\nx = {}{}\n", "[".repeat(50_000), "]".repeat(50_000));
    assert!(whole("m.toml", &deep, &Options::default()).has_errors());
    let deep = format!("hotcell = 1\n{}x = 1\n", "x.".repeat(50_000));
    assert!(whole("m.toml", &deep, &Options::default()).has_errors());
    assert!(
        start.elapsed() < std::time::Duration::from_secs(60),
        "{:?}",
        start.elapsed()
    );
}

#[test]
fn the_bases_of_mutation_are_right_but_for_missing_files() {
    assert_eq!(codes(&whole("m.toml", TOML, &Options::default())), ["E0302"]);
    // The alias is a copy with the anchor's place, so one mistake is told once.
    assert_eq!(codes(&whole("m.yaml", YAML, &Options::default())), ["E0302"]);
}
