//! Compiles the kernel part for this host's architecture.
#![allow(missing_docs)]

#[cfg(feature = "kernel")]
use std::{env, ffi::OsString, path::PathBuf};

#[cfg(not(feature = "kernel"))]
fn main() {}

#[cfg(feature = "kernel")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=src/bpf");
    println!("cargo::rerun-if-env-changed=CLANG");
    let output = PathBuf::from(env::var_os("OUT_DIR").ok_or("no OUT_DIR")?).join("monitor.bpf.o");
    let mut builder = libbpf_cargo::SkeletonBuilder::new();
    builder
        .source("src/bpf/monitor.bpf.c")
        .obj(&output)
        .clang_args(["-O2", "-Wall", "-Werror", "-Wno-unknown-attributes"].map(OsString::from));
    if let Some(clang) = clang() {
        builder.clang(clang);
    }
    builder.build()?;
    Ok(())
}

#[cfg(feature = "kernel")]
/// Debian's packages of one version have no `clang` without a number.
fn clang() -> Option<PathBuf> {
    if let Some(named) = env::var_os("CLANG") {
        return Some(named.into());
    }
    let names = ["clang".to_owned()]
        .into_iter()
        .chain((14..=30).rev().map(|version| format!("clang-{version}")));
    let folders: Vec<PathBuf> = env::split_paths(&env::var_os("PATH")?).collect();
    names
        .flat_map(|name| {
            folders
                .iter()
                .map(move |folder| folder.join(&name))
                .collect::<Vec<_>>()
        })
        .find(|path| path.is_file())
}
