//! The examples of the catalogue are true: the wrong one of each page leads to its code, the right one to nothing.
#![allow(clippy::unwrap_used, missing_docs)]

use camino::Utf8Path;
use hotcell_plan::{Options, Profiles, Severity, catalogue, host, load, plan};
use hotcell_schema::manifest::Kind;

/// A fenced block: its section, its language, what stands behind it, its text.
struct Block<'a> {
    section: &'a str,
    language: &'a str,
    attributes: Vec<(&'a str, &'a str)>,
    text: String,
}

fn blocks(page: &str) -> Vec<Block<'_>> {
    let mut blocks = Vec::new();
    let mut section = "";
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        if let Some(title) = line.strip_prefix("## ") {
            section = title;
        } else if let Some(info) = line.strip_prefix("```") {
            let mut words = info.split(' ');
            let language = words.next().unwrap_or_default();
            let attributes = words.filter_map(|word| word.split_once('=')).collect();
            let text = lines
                .by_ref()
                .take_while(|line| *line != "```")
                .map(|line| format!("{line}\n"))
                .collect();
            blocks.push(Block {
                section,
                language,
                attributes,
                text,
            });
        }
    }
    blocks
}

/// What is told of the example of a section: codes of errors, and everything in words.
fn told(blocks: &[Block<'_>], section: &str) -> Option<(Vec<String>, String)> {
    let folder = tempfile::tempdir().unwrap();
    let folder = Utf8Path::from_path(folder.path()).unwrap();
    let mut options = Options::default();
    let mut main = None;
    for block in blocks
        .iter()
        .filter(|block| [section, "Files"].contains(&block.section))
    {
        let file = block.attributes.iter().find(|(key, _)| *key == "file");
        let name = match file {
            Some((_, name)) => (*name).to_owned(),
            None => format!("experiment.{}", block.language),
        };
        let path = folder.join(&name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &block.text).unwrap();
        if file.is_none() {
            main = Some(path);
            for (key, value) in &block.attributes {
                match *key {
                    "variant" => options.variants.push((*value).to_owned()),
                    "set" => options.set.push((*value).to_owned()),
                    other => panic!("unknown attribute {other}"),
                }
            }
        }
    }
    let mut loaded = load(&main?, &options);
    let profiles = Profiles::shipped();
    let kind = loaded.manifest.as_ref().map(|manifest| manifest.kind);
    if kind == Some(Kind::Host) {
        host::check(&mut loaded, &profiles);
    } else {
        plan(&mut loaded, &profiles);
    }
    let errors = loaded
        .diagnostics
        .iter()
        .filter(|problem| problem.severity == Severity::Error)
        .map(|problem| problem.code.to_owned())
        .collect();
    let words: Vec<String> = loaded
        .diagnostics
        .iter()
        .map(|problem| problem.plain(&loaded.sources))
        .collect();
    Some((errors, words.join("\n")))
}

/// Codes whose mistake needs what no page can hold: other bytes than text, archives, hosts, rule engines.
const WITHOUT_EXAMPLE: &[&str] = &[
    "E0002", "E0012", "E0308", "E0309", "E0310", "E0312", "E0313", "E0314", "E0315", "E0316", "E0320",
    "E0321", "E0322", "E0402", "E0501",
];

#[test]
fn examples_are_true() {
    for page in catalogue::pages() {
        let blocks = blocks(page.text);
        let Some((errors, words)) = told(&blocks, "Wrong") else {
            assert!(
                WITHOUT_EXAMPLE.contains(&page.code),
                "{} has no example",
                page.code
            );
            continue;
        };
        assert!(!errors.is_empty(), "{}: nothing is wrong", page.code);
        assert!(
            errors.iter().all(|code| code == page.code),
            "{}: {errors:?}\n{words}",
            page.code
        );
        let (errors, words) =
            told(&blocks, "Right").unwrap_or_else(|| panic!("{} has no right example", page.code));
        assert!(errors.is_empty() && words.is_empty(), "{}: {words}", page.code);
    }
}
