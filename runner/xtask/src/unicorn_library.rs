//! Builds Unicorn's C library once, patched, into a cache: `cargo run -p xtask -- unicorn-library`.
//!
//! The build script of `unicorn-engine-sys` compiles all of Unicorn (many CPU-minutes, in every new target
//! folder) unless pkg-config finds a library. This step copies the C source of the pinned crate from cargo's
//! registry folder, applies `runner/unicorn/patches/*.patch`, builds the wanted architectures as a static,
//! position-independent library, and prints the folder that holds its `unicorn.pc`:
//!
//! ```sh
//! export PKG_CONFIG_PATH=$(cargo run -q -p xtask -- unicorn-library)
//! ```
//!
//! In: the crate's source, the patches, `$HOTCELL_CACHE` (or `${XDG_CACHE_HOME:-$HOME/.cache}/hotcell`).
//! Out: `<cache>/unicorn/<version>-<digest>/{include,lib}`; the digest covers crate version, patches,
//! architectures and the recipe, so that a changed patch gives a new folder. The folder appears by one rename.

use crate::udiff;
use std::{
    env, fs, io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// Architectures of the library, as its CMakeLists.txt names them.
const ARCHITECTURES: &str = "x86;arm;aarch64;mips;ppc;riscv;s390x";
/// Raised when the steps below change in a way that changes the library.
const RECIPE: u32 = 1;
/// The crate that carries the C source.
const CRATE: &str = "unicorn-engine-sys";

/// Why no library could be made.
pub(crate) type Failure = Box<dyn std::error::Error>;

/// Makes sure that the library exists and returns the folder of its `unicorn.pc`.
pub(crate) fn run(project: &Path) -> Result<PathBuf, Failure> {
    let (version, source) = find_source(project)?;
    let patches = read_patches(&project.join("runner/unicorn/patches"))?;
    let key = format!("{version}-{}", digest(&version, &patches));
    let home = cache_folder()?.join("unicorn");
    let built = home.join(&key);
    let answer = built.join("lib/pkgconfig");
    if answer.join("unicorn.pc").is_file() {
        return Ok(answer);
    }
    fs::create_dir_all(&home)?;
    let lock = fs::File::create(home.join(format!("{key}.lock")))?;
    lock.lock()?;
    if answer.join("unicorn.pc").is_file() {
        return Ok(answer);
    }
    let work = home.join(format!("{key}.work"));
    remove_tree(&work)?;
    let tree = work.join("source");
    copy_tree(&source, &tree)?;
    for (name, text) in &patches {
        udiff::apply(text, &tree).map_err(|error| format!("{name}: {error}"))?;
        eprintln!("unicorn-library: applied {name}");
    }
    build(&tree, &work)?;
    let prefix = work.join("prefix");
    write_pkgconfig(&prefix, &version)?;
    remove_tree(&built)?;
    fs::rename(&prefix, &built)?;
    remove_tree(&work)?;
    Ok(answer)
}

/// Version and source folder of the crate that `Cargo.lock` pins.
fn find_source(project: &Path) -> Result<(String, PathBuf), Failure> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--locked"])
        .current_dir(project)
        .stderr(Stdio::inherit())
        .output()?;
    if !output.status.success() {
        return Err("`cargo metadata` failed".into());
    }
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let packages = metadata["packages"]
        .as_array()
        .ok_or("`cargo metadata` lists no packages")?;
    let found = packages
        .iter()
        .find(|package| package["name"] == CRATE)
        .ok_or_else(|| format!("{CRATE} is not in the dependency graph"))?;
    let version = found["version"]
        .as_str()
        .ok_or("a package without version")?
        .to_owned();
    let manifest = found["manifest_path"]
        .as_str()
        .ok_or("a package without manifest")?;
    let folder = Path::new(manifest).parent().ok_or("a manifest without folder")?;
    Ok((version, folder.to_owned()))
}

fn read_patches(folder: &Path) -> Result<Vec<(String, String)>, Failure> {
    let mut patches = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "patch") {
            let name = path
                .file_name()
                .map(|name| name.to_string_lossy().into_owned())
                .unwrap_or_default();
            patches.push((name, fs::read_to_string(&path)?));
        }
    }
    patches.sort();
    Ok(patches)
}

/// 128-bit FNV-1a (constants from the FNV reference) over everything that decides what the library is. It only
/// tells honest inputs apart, so a cryptographic hash is not needed.
fn digest(version: &str, patches: &[(String, String)]) -> String {
    let mut state: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    let mut feed = |text: &str| {
        for byte in text.bytes().chain([0xff]) {
            state = (state ^ u128::from(byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b);
        }
    };
    feed(version);
    feed(ARCHITECTURES);
    feed(&RECIPE.to_string());
    for (name, text) in patches {
        feed(name);
        feed(text);
    }
    format!("{:016x}", (state >> 64) as u64)
}

fn cache_folder() -> Result<PathBuf, Failure> {
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

/// Configures, compiles and installs into `work/prefix`. CMake's own output goes to stderr: stdout is the answer.
fn build(tree: &Path, work: &Path) -> Result<(), Failure> {
    let objects = work.join("build");
    let jobs = std::thread::available_parallelism()
        .map_or(1, usize::from)
        .to_string();
    eprintln!("unicorn-library: building {ARCHITECTURES} with {jobs} jobs, this takes some minutes");
    let define = |name: &str, value: &str| format!("-D{name}={value}");
    step(
        Command::new("cmake")
            .arg("-S")
            .arg(tree)
            .arg("-B")
            .arg(&objects)
            .args(["-G", "Unix Makefiles", "-Wno-dev"])
            .arg(define("CMAKE_BUILD_TYPE", "Release"))
            .arg(define("CMAKE_POSITION_INDEPENDENT_CODE", "ON"))
            .arg(define(
                "CMAKE_INSTALL_PREFIX",
                &work.join("prefix").to_string_lossy(),
            ))
            .arg(define("CMAKE_INSTALL_LIBDIR", "lib"))
            .arg(define("BUILD_SHARED_LIBS", "OFF"))
            .arg(define("UNICORN_LEGACY_STATIC_ARCHIVE", "ON"))
            .arg(define("UNICORN_BUILD_TESTS", "OFF"))
            .arg(define("UNICORN_INSTALL", "ON"))
            .arg(define("UNICORN_ARCH", ARCHITECTURES)),
    )?;
    step(
        Command::new("cmake")
            .arg("--build")
            .arg(&objects)
            .args(["--target", "install", "-j", &jobs]),
    )
}

fn step(command: &mut Command) -> Result<(), Failure> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| {
            format!(
                "cannot start {:?}: {error} (Debian: apt install cmake make gcc)",
                command.get_program()
            )
        })?;
    if let Some(mut output) = child.stdout.take() {
        io::copy(&mut output, &mut io::stderr())?;
    }
    let status = child.wait()?;
    if status.success() {
        Ok(())
    } else {
        Err(format!("{:?} ended with {status}", command.get_program()).into())
    }
}

/// A `unicorn.pc` that stays right when the folder moves: CMake's own names the folder it was installed to.
fn write_pkgconfig(prefix: &Path, version: &str) -> Result<(), Failure> {
    let folder = prefix.join("lib/pkgconfig");
    fs::create_dir_all(&folder)?;
    let text = format!(
        "prefix=${{pcfiledir}}/../..\nlibdir=${{prefix}}/lib\nincludedir=${{prefix}}/include\n\n\
         Name: unicorn\nDescription: Unicorn CPU emulator, patched, static\nVersion: {version}\n\
         Libs: -L${{libdir}} -lunicorn\nLibs.private: -lpthread -lm\nCflags: -I${{includedir}}\n"
    );
    fs::write(folder.join("unicorn.pc"), text)?;
    if !prefix.join("lib/libunicorn.a").is_file() {
        return Err("the build left no lib/libunicorn.a".into());
    }
    Ok(())
}

fn copy_tree(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_tree(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

fn remove_tree(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
