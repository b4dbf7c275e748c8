//! What several tasks share.

use std::{env, fs, io, path::Path, path::PathBuf};

/// Why a task could not be done.
pub(crate) type Failure = Box<dyn std::error::Error>;

/// `$HOTCELL_CACHE`, or `hotcell` in the user's cache folder.
pub(crate) fn cache_folder() -> Result<PathBuf, Failure> {
    let set = |name: &str| {
        env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    set("HOTCELL_CACHE")
        .or_else(|| set("XDG_CACHE_HOME").map(|folder| folder.join("hotcell")))
        .or_else(|| set("HOME").map(|folder| folder.join(".cache/hotcell")))
        .ok_or_else(|| "none of HOTCELL_CACHE, XDG_CACHE_HOME and HOME is set".into())
}

/// 64 bits of FNV-1a over texts, as hexadecimal: tells honest inputs apart, no more is needed of it.
/// (Constants from the FNV reference, 128-bit variant, upper half kept.)
pub(crate) fn fingerprint<'a>(texts: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut state: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    for text in texts {
        for byte in text.iter().chain([&0xff]) {
            state = (state ^ u128::from(*byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b);
        }
    }
    format!("{:016x}", (state >> 64) as u64)
}

/// Removes a folder; that it is not there is well.
pub(crate) fn remove_tree(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Every file below a folder, sorted, without build output, dotfolders and fetched samples.
pub(crate) fn files_below(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            let name = entry.file_name();
            let kind = entry.file_type()?;
            if kind.is_dir() {
                let name = name.to_string_lossy();
                if !(name.starts_with('.') || name == "target" || name == "samples") {
                    folders.push(entry.path());
                }
            } else if kind.is_file() {
                found.push(entry.path());
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Runs a command that must end well.
#[cfg(any(feature = "bench", feature = "conformance"))]
pub(crate) fn must(command: &mut std::process::Command) -> Result<(), Failure> {
    let status = command
        .status()
        .map_err(|error| format!("{command:?}: {error}"))?;
    if status.success() {
        Ok(())
    } else {
        Err(format!("{command:?} ended with {status}").into())
    }
}
