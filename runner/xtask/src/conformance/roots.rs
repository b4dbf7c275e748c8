//! The packages of a run as folders: what hotcell's guests have as their root, other emulators have on the disk.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use hotcell_schema::digest::Digest;
use hotcell_store::{Store, Stored};

use super::ours::{Ours, Package};
use crate::common::{Failure, fingerprint, must, remove_tree};

/// Raised when what is done with packages changes.
const RECIPE: &[u8] = b"1";

/// A folder for each architecture, from the cache where the same packages were unpacked before.
pub(super) fn unpack(ours: &Ours, home: &Path) -> Result<BTreeMap<String, PathBuf>, Failure> {
    let home = home.join("conformance/roots");
    let store = Store::open_existing(&ours.store)?.ok_or("the store is gone")?;
    let mut roots = BTreeMap::new();
    for (system, packages) in &ours.packages {
        let digests = packages.iter().map(|package| package.digest.as_bytes());
        let key = fingerprint([RECIPE].into_iter().chain(digests));
        let root = home.join(format!("{system}-{key}"));
        if !root.is_dir() {
            eprintln!("conformance: unpacking {} packages for {system}", packages.len());
            let work = home.join(format!("{system}-{key}.{}", std::process::id()));
            remove_tree(&work)?;
            fs::create_dir_all(&work)?;
            for package in packages {
                one(&store, package, &work)?;
            }
            relative_links(&work)?;
            fs::rename(&work, &root)?;
        }
        roots.insert(system.clone(), root);
    }
    Ok(roots)
}

/// Links that lead to the top lead to the root's, also for who does not enter it (Qiling).
fn relative_links(root: &Path) -> Result<(), Failure> {
    let mut folders = vec![(root.to_owned(), 0)];
    while let Some((folder, depth)) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() {
                folders.push((entry.path(), depth + 1));
            } else if kind.is_symlink()
                && let Ok(inside) = fs::read_link(entry.path())?.strip_prefix("/")
            {
                let up: PathBuf = std::iter::repeat_n("..", depth).collect();
                fs::remove_file(entry.path())?;
                symlink(up.join(inside), entry.path())?;
            }
        }
    }
    Ok(())
}

fn one(store: &Store, package: &Package, root: &Path) -> Result<(), Failure> {
    let stored = Stored {
        digest: package
            .digest
            .parse::<Digest>()
            .map_err(|error| error.to_string())?,
        length: package.length,
    };
    let bytes = store
        .get(&stored)?
        .ok_or_else(|| format!("the store has no {} any more", package.name))?;
    let file = root.with_extension("deb");
    fs::write(&file, bytes)?;
    must(Command::new("dpkg-deb").arg("-x").arg(&file).arg(root))?;
    fs::remove_file(file)?;
    Ok(())
}
