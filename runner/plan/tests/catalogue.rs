//! The examples of the catalogue are true: the wrong one of each page leads to its code, the right one to nothing.
#![allow(clippy::unwrap_used, missing_docs)]

use camino::Utf8Path;
use hotcell_plan::format::{Language, format};
use hotcell_plan::{Diagnostic, Options, Profiles, Sources, catalogue, host, load, plan};
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

/// What is told of the example of a section: codes, and everything in words.
///
/// A document's attributes say how it is read: `variant`, `set`, `encoding=latin-1`, and `to` for what `hotcell fmt` would be
/// asked. A folder `arch-profiles` is one of `--profiles`.
fn told(blocks: &[Block<'_>], section: &str) -> Option<(Vec<String>, String)> {
    let folder = tempfile::tempdir().unwrap();
    let folder = Utf8Path::from_path(folder.path()).unwrap();
    let mut options = Options::default();
    let mut main = None;
    let mut to = None;
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
        let mut bytes = block.text.clone().into_bytes();
        if file.is_none() {
            main = Some(path.clone());
            for (key, value) in &block.attributes {
                match *key {
                    "variant" => options.variants.push((*value).to_owned()),
                    "set" => options.set.push((*value).to_owned()),
                    "encoding" => bytes = block.text.chars().map(|c| u8::try_from(c).unwrap()).collect(),
                    "to" => to = Language::of(Utf8Path::new(&format!("x.{value}"))),
                    other => panic!("unknown attribute {other}"),
                }
            }
        }
        std::fs::write(&path, bytes).unwrap();
    }
    let main = main?;
    if let Some(to) = to {
        let text = std::fs::read_to_string(&main).unwrap();
        let mut sources = Sources::default();
        let problems = format(&main, &text, Some(to), &mut sources)
            .err()
            .unwrap_or_default();
        return Some(in_words(&problems, &sources));
    }
    let mut loaded = load(&main, &options);
    let own = folder.join("arch-profiles");
    let folders: Vec<&Utf8Path> = [own.as_path()].into_iter().filter(|own| own.is_dir()).collect();
    let profiles = Profiles::load(&folders, &mut loaded.sources, &mut loaded.diagnostics);
    let kind = loaded.manifest.as_ref().map(|manifest| manifest.kind);
    if kind == Some(Kind::Host) {
        host::check(&mut loaded, &profiles);
    } else {
        plan(&mut loaded, &profiles);
    }
    Some(in_words(&loaded.diagnostics, &loaded.sources))
}

fn in_words(problems: &[Diagnostic], sources: &Sources) -> (Vec<String>, String) {
    let codes = problems.iter().map(|problem| problem.code.to_owned()).collect();
    let words: Vec<String> = problems.iter().map(|problem| problem.plain(sources)).collect();
    (codes, words.join("\n"))
}

/// Codes that no page can show with a document alone, and where they are shown instead.
const WITHOUT_EXAMPLE: &[(&str, &str)] = &[
    ("E0013", "needs a thousand mistakes: runner/plan/tests/meaning.rs"),
    ("E0309", "needs an encrypted archive: tests/tests/sources.rs"),
    (
        "E0310",
        "needs an archive that unpacks to gigabytes: tests/tests/sources.rs, runner/inspect/tests/unpack.rs",
    ),
    (
        "E0312",
        "needs a mirror that lacks a package: tests/tests/sources.rs",
    ),
    (
        "E0313",
        "needs a mirror and a command that only looks: tests/tests/sources.rs",
    ),
    (
        "E0315",
        "needs a mirror without keys: tests/tests/sources.rs; one that is too old: runner/run/src/sources/debian/tests.rs",
    ),
    ("E0316", "needs a host that cannot fetch: tests/tests/sources.rs"),
    (
        "E0322",
        "needs a secret that cannot be read while an archive is opened: tests/tests/sources.rs",
    ),
    ("E0501", "rules are read by another crate: tests/tests/pipelines"),
];

#[test]
fn examples_are_true() {
    for page in catalogue::pages() {
        let blocks = blocks(page.text);
        let Some((errors, words)) = told(&blocks, "Wrong") else {
            assert!(
                WITHOUT_EXAMPLE.iter().any(|(code, _)| *code == page.code),
                "{} has no example",
                page.code
            );
            continue;
        };
        let exempt = WITHOUT_EXAMPLE.iter().any(|(code, _)| *code == page.code);
        assert!(!exempt, "{} has an example and is exempt", page.code);
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
