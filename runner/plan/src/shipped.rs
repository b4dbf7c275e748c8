//! Files that are part of the program: arch profiles, personas, rules, ready manifests.

use include_dir::{Dir, include_dir};

static ARCH_PROFILES: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../../arch-profiles");
static MANIFESTS: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../../manifests");

/// What the path of a shipped file begins with where a manifest names it: `shipped:pipelines/linux-default.yaml`.
pub const PREFIX: &str = "shipped:";

/// A shipped file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shipped {
    /// Its name without folder and ending, for instance `router`.
    pub name: &'static str,
    /// Its path in its folder of the project, for instance `personas/router.toml`.
    pub path: &'static str,
    /// Its text.
    pub text: &'static str,
}

fn files(folder: Option<&'static Dir<'static>>) -> Vec<Shipped> {
    let mut found: Vec<Shipped> = folder
        .into_iter()
        .flat_map(Dir::files)
        .filter(|file| {
            matches!(
                file.path().extension().and_then(|e| e.to_str()),
                Some("toml" | "yaml" | "yml")
            )
        })
        .filter_map(|file| {
            Some(Shipped {
                name: file.path().file_stem()?.to_str()?,
                path: file.path().to_str()?,
                text: file.contents_utf8()?,
            })
        })
        .collect();
    found.sort_by_key(|file| file.path);
    found
}

/// The arch profiles (`arch-profiles/*.toml`), by name.
pub fn arch_profiles() -> Vec<Shipped> {
    files(Some(&ARCH_PROFILES))
}

/// The personas (`manifests/personas/*.toml`), by name.
pub fn personas() -> Vec<Shipped> {
    files(MANIFESTS.get_dir("personas"))
}

/// The behaviour rules (`manifests/rules/*.toml` and `*.yaml`), by name.
pub fn rules() -> Vec<Shipped> {
    files(MANIFESTS.get_dir("rules"))
}

/// The ready manifests (`manifests/pipelines/*`), by name.
pub fn pipelines() -> Vec<Shipped> {
    files(MANIFESTS.get_dir("pipelines"))
}

/// The ready manifest of that path, with or without its ending.
pub fn document(path: &str) -> Option<Shipped> {
    let bare = |path: &'static str| path.rsplit_once('.').map_or(path, |(bare, _)| bare);
    pipelines()
        .into_iter()
        .find(|file| file.path == path || bare(file.path) == path)
}
