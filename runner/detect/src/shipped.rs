//! The rules that come with hotcell.

use std::sync::LazyLock;

use include_dir::{Dir, include_dir};

static FOLDER: Dir<'static> = include_dir!("$CARGO_MANIFEST_DIR/../../manifests/rules");

static RULES: LazyLock<Vec<(&'static str, &'static str)>> = LazyLock::new(|| {
    let mut rules: Vec<_> = FOLDER
        .files()
        .filter_map(|file| Some((file.path().to_str()?, file.contents_utf8()?)))
        .filter(|(name, _)| name.ends_with(".toml"))
        .collect();
    rules.sort_unstable();
    rules
});

/// Name and text of every shipped rule file (`manifests/rules/*.toml`), by name.
pub fn shipped_rules() -> &'static [(&'static str, &'static str)] {
    &RULES
}
