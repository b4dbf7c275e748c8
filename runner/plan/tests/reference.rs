//! The documents of the manifest reference (`schema/MANIFEST.md`): each can be read and planned.
#![allow(clippy::unwrap_used, missing_docs)]

use camino::Utf8Path;
use hotcell_plan::{Options, Profiles, Severity, host, load, plan};
use hotcell_schema::manifest::Kind;

/// Documents of which something is told, since they show what no test has at hand, or this version refuses.
const TOLD: &[(&str, &[&str])] = &[
    ("later.toml", &["E0901", "E0901"]),
    ("sources.toml", &["E0316", "E0316"]),
];

#[test]
fn every_document_can_be_planned() {
    let folder = Utf8Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference");
    let mut all: Vec<_> = folder
        .read_dir_utf8()
        .unwrap()
        .map(|entry| entry.unwrap().into_path())
        .filter(|path| matches!(path.extension(), Some("toml" | "yaml")))
        .collect();
    all.sort();
    assert!(all.len() > 10);
    for path in all {
        let mut loaded = load(&path, &Options::default());
        let profiles = Profiles::shipped();
        let kind = loaded.manifest.as_ref().map(|manifest| manifest.kind);
        if kind == Some(Kind::Host) {
            host::check(&mut loaded, &profiles);
        } else {
            plan(&mut loaded, &profiles);
        }
        let errors: Vec<&str> = loaded
            .diagnostics
            .iter()
            .filter(|problem| problem.severity == Severity::Error)
            .map(|problem| problem.code)
            .collect();
        let name = path.file_name().unwrap();
        let told = TOLD.iter().find(|(file, _)| *file == name);
        let words: Vec<String> = loaded
            .diagnostics
            .iter()
            .map(|problem| problem.plain(&loaded.sources))
            .collect();
        assert_eq!(
            errors,
            told.map_or(&[][..], |(_, codes)| codes),
            "{name}: {}",
            words.join("\n")
        );
    }
}
