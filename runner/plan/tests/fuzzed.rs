//! What the fuzz targets of manifests and expressions hold, for their corpora and for every document of this repository that is
//! made to be wrong. A process of its own: it works from an empty folder.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr, missing_docs)]

use std::path::{Path, PathBuf};

#[path = "../../../tests/fuzz/fuzz_targets/shared/manifest.rs"]
mod manifest;

fn files(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(folder);
    let Ok(entries) = std::fs::read_dir(&folder) else {
        return Vec::new();
    };
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_file())
        .collect();
    files.sort();
    files
}

fn run(folders: &[&str], least: usize) {
    let mut count = 0;
    for path in folders.iter().flat_map(|folder| files(folder)) {
        let bytes = std::fs::read(&path).unwrap();
        let shown = path.display().to_string();
        let toml = shown.contains("manifest_toml") || shown.ends_with(".toml");
        let yaml = shown.contains("manifest_yaml") || shown.ends_with(".yaml");
        if !toml && !yaml {
            continue;
        }
        // The name of what fails stands in the output.
        eprintln!("{shown}");
        manifest::whole(if toml { "m.toml" } else { "m.yaml" }, &bytes);
        count += 1;
    }
    assert!(count >= least, "{count} documents in {folders:?}");
}

#[test]
fn corpora_of_manifests() {
    run(
        &[
            "tests/fuzz/corpus/manifest_toml",
            "tests/fuzz/corpus/manifest_yaml",
            "tests/fuzz/artifacts/manifest_toml",
            "tests/fuzz/artifacts/manifest_yaml",
        ],
        30,
    );
}

#[test]
fn broken_and_reference_documents() {
    run(&["golden/broken", "runner/plan/tests/reference"], 80);
}
