//! Builds again when a shipped rule is added or removed, which the macro that embeds them cannot see, and digests the
//! sources of the rule engine: a change of the engine changes the cache keys of everything it judged.
#![allow(clippy::print_stdout)]

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

fn main() -> io::Result<()> {
    println!("cargo:rerun-if-changed=../../manifests/rules");
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=src");
    println!("cargo:rerun-if-changed=data");
    let mut files = BTreeMap::new();
    for folder in ["src", "data"] {
        collect(Path::new(folder), &mut files)?;
    }
    // FNV-1a, 64 bits: names a state of the sources; it protects nothing.
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in files
        .iter()
        .flat_map(|(path, content)| path.bytes().chain(content.iter().copied()))
    {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    println!("cargo:rustc-env=HOTCELL_DETECT_SOURCES={hash:016x}");
    Ok(())
}

fn collect(folder: &Path, files: &mut BTreeMap<String, Vec<u8>>) -> io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else {
            files.insert(path.to_string_lossy().into_owned(), std::fs::read(&path)?);
        }
    }
    Ok(())
}
