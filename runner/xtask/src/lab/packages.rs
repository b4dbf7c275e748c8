//! Kernel and busybox of the lab's machine: Debian's packages, fetched and checked by the host's apt, kept by digest.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::common::{Failure, remove_tree};

/// What the machine is made of.
pub(super) struct Packages {
    /// Its kernel.
    pub(super) kernel: PathBuf,
    /// A busybox that needs no libraries.
    pub(super) busybox: PathBuf,
}

/// The package that depends on the newest kernel for clouds: small, with all that a virtual machine needs built in.
const KERNEL: &str = "linux-image-cloud-amd64";
const BUSYBOX: &str = "busybox-static";

/// Both, from the cache below `home` or from Debian.
pub(super) fn fetch(home: &Path) -> Result<Packages, Failure> {
    let depends = output("apt-cache", &["depends", KERNEL])?;
    let kernel = depends.lines().find_map(|line| {
        let name = line.trim().strip_prefix("Depends: ")?;
        name.starts_with("linux-image-").then_some(name)
    });
    let kernel = kernel.ok_or_else(|| {
        format!(
            "apt knows no kernel of the package {KERNEL} (Debian; `apt-get update` tells it what there is)"
        )
    })?;
    Ok(Packages {
        kernel: one(home, kernel, "boot/vmlinuz-")?,
        busybox: one(home, BUSYBOX, "bin/busybox")?,
    })
}

/// The file of a package whose path begins so.
fn one(home: &Path, package: &str, begins: &str) -> Result<PathBuf, Failure> {
    // 'URI' file length SHA256:digest
    let told = output("apt-get", &["download", "--print-uris", package])?;
    let line = told
        .lines()
        .find(|line| line.starts_with('\''))
        .unwrap_or_default();
    let digest = line
        .split_whitespace()
        .find_map(|word| word.strip_prefix("SHA256:"));
    let digest = digest.ok_or_else(|| format!("apt tells no SHA-256 of the package {package}: {told}"))?;
    let kept = home.join(digest);
    if kept.is_file() {
        return Ok(kept);
    }
    let work = home.join(format!("{digest}.{}", std::process::id()));
    remove_tree(&work)?;
    fs::create_dir_all(&work)?;
    let unpacked = unpack(&work, package, begins, &kept);
    remove_tree(&work)?;
    unpacked.map(|()| kept)
}

fn unpack(work: &Path, package: &str, begins: &str, to: &Path) -> Result<(), Failure> {
    println!("lab: fetching {package}");
    // apt compares the digest itself.
    let fetched = Command::new("apt-get")
        .args(["-qq", "download", package])
        .current_dir(work)
        .output()?;
    let found = fs::read_dir(work)?.next().transpose()?;
    let Some(file) = found.filter(|_| fetched.status.success()) else {
        let why = String::from_utf8_lossy(&fetched.stderr).into_owned();
        return Err(format!("apt-get download {package}: {}", why.trim()).into());
    };
    let tree = work.join("tree");
    let unpacked = Command::new("dpkg-deb")
        .arg("-x")
        .arg(file.path())
        .arg(&tree)
        .status()?;
    if !unpacked.success() {
        return Err(format!("dpkg-deb cannot unpack {package}").into());
    }
    let path = tree.join(begins);
    let (folder, name) = (
        path.parent().unwrap_or(&tree),
        path.file_name().unwrap_or_default(),
    );
    let entry = fs::read_dir(folder)?.flatten().find(|entry| {
        let found = entry.file_name();
        found.as_encoded_bytes().starts_with(name.as_encoded_bytes())
    });
    let entry = entry.ok_or_else(|| format!("{package} holds no {begins}"))?;
    Ok(fs::rename(entry.path(), to)?)
}

fn output(program: &str, args: &[&str]) -> Result<String, Failure> {
    let output = Command::new(program).args(args).env("LC_ALL", "C").output();
    let output = output
        .map_err(|error| format!("{program}: {error}; the lab's machine is made of Debian's packages"))?;
    if !output.status.success() {
        let why = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(format!("{program} {}: {}", args.join(" "), why.trim()).into());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
