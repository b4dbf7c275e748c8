//! Manifests beside a manifest that keep their goldens in the same folder, because they have the same name.

use std::path::{Path, PathBuf};

use hotcell_plan::{Options, load};

use crate::exit::Failure;
use crate::session::{Planned, utf8};

/// Files of a folder that are looked at.
const MAX_FILES: usize = 4_096;
/// A larger document is not looked at.
const MAX_BYTES: u64 = 4 << 20;

/// Whether another manifest, of which this one is a part or that is a part of this one, has the same goldens. Two that have
/// nothing to do with each other are a mistake: each would take those of the other for its own, and remove them.
pub(super) fn check(planned: &Planned, manifest: &Path) -> Result<bool, Failure> {
    let name = &planned.plan.name;
    let own = manifest.canonicalize()?;
    let mut shared = false;
    for path in beside(&own, name) {
        let Some(Ok(real)) = path
            .canonicalize()
            .ok()
            .map(|real| utf8(&real).map(ToOwned::to_owned))
        else {
            continue;
        };
        let loaded = load(&real, &Options::default());
        let golden = loaded.manifest.as_ref().is_some_and(|one| one.golden.is_some());
        if loaded.name != *name || !golden {
            continue;
        }
        let file = real.file_name().unwrap_or_default();
        let has = planned.documents.iter().any(|(path, _)| path == file);
        let is_had = loaded.documents.iter().any(|path| path.as_std_path() == own);
        if !has && !is_had {
            return Err(Failure::usage(format!(
                "{} and {} are both named `{name}`: they would share the goldens in golden/{name}",
                manifest.display(),
                manifest.with_file_name(file).display()
            ))
            .help("give one of them another `name`, and the folder of its goldens with it"));
        }
        shared = true;
    }
    Ok(shared)
}

/// Documents in the same folder that may have that name, by a quick look.
fn beside(own: &Path, name: &str) -> Vec<PathBuf> {
    let folder = own.parent().unwrap_or(Path::new("."));
    let entries = fs_err::read_dir(folder).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = entries
        .take(MAX_FILES)
        .map(|entry| entry.path())
        .filter(|path| {
            let ending = path.extension().and_then(|ending| ending.to_str());
            path != own && matches!(ending, Some("toml" | "yaml" | "yml"))
        })
        .filter(|path| {
            path.metadata()
                .is_ok_and(|facts| facts.is_file() && facts.len() <= MAX_BYTES)
        })
        .filter(|path| {
            let stem = path
                .file_stem()
                .and_then(|stem| stem.to_str())
                .unwrap_or_default();
            let text = fs_err::read_to_string(path).unwrap_or_default();
            // A golden and the name may both come from a document that it includes.
            let may = |word: &str| text.contains(word) || text.contains("include");
            text.contains("hotcell") && may("golden") && (stem.eq_ignore_ascii_case(name) || may(name))
        })
        .collect();
    paths.sort();
    paths
}
