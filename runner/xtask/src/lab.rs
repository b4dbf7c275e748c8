//! Boots a machine with four cores under QEMU and runs the real executables in it: `cargo run -p xtask -- lab FOLDER [BOOT...]`.
//!
//! In: FOLDER with built executables (`hotcell`, `hotcell-unicorn`, `hotcell-inspect`, `hotcell-lab`), Debian's kernel for
//! clouds and its static busybox (fetched by apt, kept in the cache), QEMU. Out: a line for each check that `hotcell-lab`
//! made in the machine; an error where one failed, or where the machine did not come to its end.
//!
//! | module | does |
//! |---|---|
//! | [`packages`] | kernel and busybox, by the digest of their packages |
//! | [`archive`] | the machine's first file system, as an archive of the kind newc |
//! | [`machine`] | QEMU, its console, and a deadline |

use std::{
    fs,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::common::{Failure, cache_folder, remove_tree};
use archive::Archive;

mod archive;
mod machine;
mod packages;

/// What a machine is booted with, and what for.
struct Boot {
    /// Its name: `hotcell-lab` is told it, and knows by it what to check.
    name: &'static str,
    /// What is added to the kernel's command line.
    kernel: &'static str,
    /// What it is for, in words.
    told: &'static str,
}

/// Four cores each.
const BOOTS: &[Boot] = &[
    Boot {
        name: "plain",
        kernel: "cgroup_no_v1=all",
        told: "four cores, control groups of version 2",
    },
    Boot {
        name: "isolated",
        kernel: "cgroup_no_v1=all isolcpus=2-3 nohz_full=2-3",
        told: "cores 2 and 3 taken from the scheduler at boot",
    },
    Boot {
        name: "v1",
        kernel: "",
        told: "control groups of version 1",
    },
];

/// What goes into the machine from FOLDER.
const EXECUTABLES: &[&str] = &["hotcell", "hotcell-unicorn", "hotcell-inspect", "hotcell-lab"];
/// How long a machine may take from power on to power off. It takes about a minute where nothing else runs.
const DEADLINE: Duration = Duration::from_secs(1800);

/// Boots every machine, or those that are named.
pub(crate) fn run(args: &[String]) -> Result<(), Failure> {
    let (folder, names) = args
        .split_first()
        .ok_or("name the folder of the executables, for instance target/debug")?;
    let boots: Vec<&Boot> = match names {
        [] => BOOTS.iter().collect(),
        names => {
            let find = |name: &String| {
                let found = BOOTS.iter().find(|boot| boot.name == name.as_str());
                found.ok_or_else(|| format!("no machine `{name}`; there are: {}", told(BOOTS)))
            };
            names.iter().map(find).collect::<Result<_, _>>()?
        }
    };
    if std::env::consts::ARCH != "x86_64" {
        return Err("the lab's machine is an x86_64, and runs executables of this host".into());
    }
    machine::find()?;
    let home = cache_folder()?.join("lab");
    let packages = packages::fetch(&home)?;
    let work = home.join(format!("work-{}", std::process::id()));
    remove_tree(&work)?;
    fs::create_dir_all(&work)?;
    let done = boot_all(Path::new(folder), &boots, &packages, &work);
    remove_tree(&work)?;
    done
}

fn told(boots: &[Boot]) -> String {
    let names: Vec<&str> = boots.iter().map(|boot| boot.name).collect();
    names.join(", ")
}

fn boot_all(
    folder: &Path,
    boots: &[&Boot],
    packages: &packages::Packages,
    work: &Path,
) -> Result<(), Failure> {
    let disk = work.join("initramfs");
    pack(folder, packages, work, &disk)?;
    let (mut checks, mut wrong) = (0u32, Vec::new());
    for boot in boots {
        println!("lab: {}: {}", boot.name, boot.told);
        let began = Instant::now();
        let ended = machine::boot(
            &packages.kernel,
            &disk,
            boot.name,
            boot.kernel,
            DEADLINE,
            |said| {
                let name = said["check"].as_str().unwrap_or("?");
                let told = said["told"].as_str().unwrap_or_default();
                let word = match said["ok"].as_bool() {
                    Some(true) => "ok",
                    _ => {
                        wrong.push(format!("{}: {name}", boot.name));
                        "FAILED"
                    }
                };
                checks = checks.saturating_add(1);
                println!("lab: {}: {word}: {name}{}", boot.name, indented(told));
            },
        );
        if let Err(error) = ended {
            wrong.push(format!("{}: {error}", boot.name));
        }
        println!("lab: {}: {:.0} s", boot.name, began.elapsed().as_secs_f64());
    }
    match wrong.is_empty() {
        true => {
            println!(
                "lab: {checks} checks in {} machine(s), all as they should be",
                boots.len()
            );
            Ok(())
        }
        false => Err(format!("the lab found: {}", wrong.join("; ")).into()),
    }
}

/// What a check told, below its line.
fn indented(told: &str) -> String {
    let lines = told.lines().map(|line| format!("\n       {line}"));
    lines.collect()
}

/// Writes the machine's first file system.
fn pack(folder: &Path, packages: &packages::Packages, work: &Path, to: &Path) -> Result<(), Failure> {
    let mut archive = Archive::create(to)?;
    for name in ["bin", "dev", "proc", "sys", "tmp", "etc", "root", "lab", "lib64"] {
        archive.folder(name)?;
    }
    archive.file("init", 0o755, include_bytes!("lab/init"))?;
    archive.file(
        "etc/passwd",
        0o644,
        b"root:x:0:0::/root:/bin/sh\none:x:1500:1500::/tmp/one:/bin/sh\ntwo:x:1501:1501::/tmp/two:/bin/sh\n",
    )?;
    archive.device("dev/console", 5, 1)?;
    archive.file("bin/busybox", 0o755, &fs::read(&packages.busybox)?)?;
    for name in EXECUTABLES {
        let path = folder.join(name);
        if !path.is_file() {
            return Err(format!("{}: not there; `make lab` builds it", path.display()).into());
        }
        // Without what only debuggers read the machine needs a tenth of the memory.
        let small = work.join(name);
        let stripped = Command::new("strip").arg("-o").arg(&small).arg(&path).status();
        let small = match stripped.is_ok_and(|status| status.success()) {
            true => &small,
            false => &path,
        };
        archive.file(&format!("lab/{name}"), 0o755, &fs::read(small)?)?;
        for library in libraries(&path)? {
            archive.file_with_folders(library.trim_start_matches('/'), 0o755, &fs::read(&library)?)?;
        }
    }
    archive.finish()
}

/// The shared libraries that an executable of ours is linked with, its loader included.
fn libraries(executable: &Path) -> Result<Vec<String>, Failure> {
    let output = Command::new("ldd").arg(executable).output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        return Err(format!("ldd {}: {text}", executable.display()).into());
    }
    if let Some(line) = text.lines().find(|line| line.contains("not found")) {
        return Err(format!("{}: {}", executable.display(), line.trim()).into());
    }
    let words = text
        .lines()
        .filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')));
    Ok(words.map(str::to_owned).collect())
}

/// One line that `hotcell-lab` said, where it is one.
fn said(line: &str) -> Option<Value> {
    let at = line.find("@lab ")?;
    serde_json::from_str(line.get(at..)?.strip_prefix("@lab ")?.trim()).ok()
}
