//! What stands in the store's folders.

use std::io;

use hotcell_schema::digest::Digest;

use crate::{Kind, Store, StoreError};

/// What is told of long work: what is being done, how much of it is done, and of how much.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// What is being done, in a word or two.
    pub doing: &'static str,
    /// How many are done.
    pub done: u64,
    /// How many there are.
    pub of: u64,
}

/// Is told how far long work has come.
pub type Tell<'a> = &'a dyn Fn(Progress);

/// Files of one kind.
pub(crate) struct Listing {
    /// Digests that files are named by, sorted.
    pub digests: Vec<Digest>,
    /// Files that are named by none.
    pub strangers: u64,
}

impl Store {
    /// All files of a kind.
    pub(crate) fn list(&self, kind: Kind) -> Result<Listing, StoreError> {
        let mut listing = Listing {
            digests: Vec::new(),
            strangers: 0,
        };
        let folder = self.folder().join(kind.folder());
        for shard in entries(&folder)? {
            let (shard, is_folder) = shard?;
            if !is_folder {
                listing.strangers += 1;
                continue;
            }
            for entry in entries(&folder.join(&shard))? {
                let (name, is_folder) = entry?;
                match format!("{shard}{name}").parse() {
                    // As this store writes them: in two parts, in small letters.
                    Ok(digest)
                        if !is_folder && self.path(kind, &digest) == folder.join(&shard).join(&name) =>
                    {
                        listing.digests.push(digest);
                    }
                    _ => listing.strangers += 1,
                }
            }
        }
        listing.digests.sort_unstable();
        Ok(listing)
    }
}

/// Names in a folder, and whether each is a folder. A folder that is not there is empty. Names that are no text are told
/// with replacement characters: they are nobody's here.
fn entries(
    folder: &std::path::Path,
) -> Result<impl Iterator<Item = Result<(String, bool), StoreError>> + use<>, StoreError> {
    let entries = match fs_err::read_dir(folder) {
        Ok(entries) => Some(entries),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error.into()),
    };
    Ok(entries.into_iter().flatten().map(|entry| {
        let entry = entry?;
        let is_folder = entry.file_type()?.is_dir();
        Ok((entry.file_name().to_string_lossy().into_owned(), is_folder))
    }))
}
