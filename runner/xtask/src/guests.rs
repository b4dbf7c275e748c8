//! Builds the guest programs of `tests/guests/` for every target: `cargo run -p xtask -- guests`.
//!
//! In: `tests/guests/*.{c,S}` and `guest.h` (which describes the `//!` lines), clang and lld, qemu-user.
//! Out: `<cache>/guests/<fingerprint>/<target>/<guest>`, and beside the targets an `index.json` that lists each guest
//! with what it must do. The fingerprint covers sources, flags and the compiler's version.
//!
//! No engine of ours judges a guest: each one must first do what its `//!` lines say under qemu-user. A guest that does
//! not is an error here; one that says `under: native`, because qemu-user does not know what it does, must do so on this host,
//! where the host can run it. Where it was not tried, the index says `"tried": false`.

use std::{
    fmt::Write as _,
    fs,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use serde_json::{Value, json};

use crate::common::{Failure, cache_folder, fingerprint, remove_tree};

/// One target: how clang is told, and which qemu-user runs it.
struct Target {
    /// Name of the folder.
    name: &'static str,
    /// Name of the arch profile, where there is one.
    profile: Option<&'static str>,
    /// `qemu-<this>`.
    qemu: &'static str,
    /// Flags for clang.
    flags: &'static [&'static str],
    /// First major version of clang that knows it.
    clang: u32,
}

/// Raised when the recipe below changes what is built.
const RECIPE: &str = "1";

const COMMON: &[&str] = &[
    "-O1",
    "-g0",
    "-ffreestanding",
    "-fno-stack-protector",
    "-fno-asynchronous-unwind-tables",
    "-fno-ident",
    "-nostdlib",
    "-static",
    "-no-pie",
    "-fuse-ld=lld",
    "-Wall",
    "-Wextra",
    "-Wno-unused-command-line-argument",
    "-Wl,--build-id=none",
    "-Wl,-e,_start",
];

const fn target(
    name: &'static str,
    profile: Option<&'static str>,
    qemu: &'static str,
    flags: &'static [&'static str],
) -> Target {
    Target {
        name,
        profile,
        qemu,
        flags,
        clang: 14,
    }
}

const fn newer(target: Target) -> Target {
    Target { clang: 19, ..target }
}

#[rustfmt::skip]
const TARGETS: &[Target] = &[
    target("x86", Some("x86"), "i386", &["--target=i386-linux-gnu", "-march=i686"]),
    target("x86_64", Some("x86_64"), "x86_64", &["--target=x86_64-linux-gnu"]),
    target("armhf", Some("arm"), "arm", &["--target=armv7-linux-gnueabihf", "-mfloat-abi=hard", "-mfpu=vfpv3-d16"]),
    target("armel", Some("arm"), "arm", &["--target=armv5te-linux-gnueabi", "-mfloat-abi=soft"]),
    newer(target("armeb", Some("armeb"), "armeb", &["--target=armebv7-linux-gnueabi", "-mfloat-abi=soft", "-Wl,--be8"])),
    target("aarch64", Some("aarch64"), "aarch64", &["--target=aarch64-linux-gnu"]),
    target("mips", Some("mips"), "mips", &["--target=mips-linux-gnu", "-march=mips32r2", "-mno-abicalls", "-fno-pic", "-G0"]),
    target("mipsel", Some("mipsel"), "mipsel", &["--target=mipsel-linux-gnu", "-march=mips32r2", "-mno-abicalls", "-fno-pic", "-G0"]),
    target("mips64", Some("mips64"), "mips64", &["--target=mips64-linux-gnuabi64", "-march=mips64r2", "-mno-abicalls", "-fno-pic", "-G0"]),
    target("mips64el", Some("mips64el"), "mips64el", &["--target=mips64el-linux-gnuabi64", "-march=mips64r2", "-mno-abicalls", "-fno-pic", "-G0"]),
    target("ppc", Some("ppc"), "ppc", &["--target=powerpc-linux-gnu"]),
    target("ppc64", Some("ppc64"), "ppc64", &["--target=powerpc64-linux-gnu", "-mabi=elfv2"]),
    target("ppc64le", Some("ppc64le"), "ppc64le", &["--target=powerpc64le-linux-gnu"]),
    target("riscv64", Some("riscv64"), "riscv64", &["--target=riscv64-linux-gnu", "-march=rv64gc", "-mabi=lp64d", "-mno-relax"]),
    newer(target("s390x", Some("s390x"), "s390x", &["--target=s390x-linux-gnu"])),
    newer(target("sparc64", None, "sparc64", &["--target=sparc64-linux-gnu"])),
];

/// What the `//!` lines of a guest say.
#[derive(Default)]
struct Wanted {
    args: Vec<String>,
    exit: i32,
    signal: Option<String>,
    stdout: Option<String>,
    targets: Vec<String>,
    flags: Vec<String>,
    /// It must be tried by the host's own kernel: what it does, qemu-user does not know.
    native: bool,
}

/// Builds all guests unless the cache has them, and returns their folder.
pub(crate) fn run(project: &Path) -> Result<PathBuf, Failure> {
    let (clang, version) = find_clang()?;
    let mut sources = Vec::new();
    for entry in fs::read_dir(project.join("tests/guests"))? {
        let path = entry?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "c" || extension == "S" || extension == "h")
        {
            sources.push((path.clone(), fs::read(&path)?));
        }
    }
    sources.sort();
    let mut inputs: Vec<Vec<u8>> = vec![RECIPE.into(), version.clone().into(), COMMON.join(" ").into()];
    for target in TARGETS {
        inputs.push(target.name.into());
        inputs.push(target.flags.join(" ").into());
    }
    for (path, text) in &sources {
        inputs.push(path.file_name().unwrap_or_default().as_encoded_bytes().to_vec());
        inputs.push(text.clone());
    }
    let home = cache_folder()?.join("guests");
    let key = fingerprint(inputs.iter().map(Vec::as_slice));
    let done = home.join(&key);
    if done.join("index.json").is_file() {
        return Ok(done);
    }
    fs::create_dir_all(&home)?;
    let lock = fs::File::create(home.join(format!("{key}.lock")))?;
    lock.lock()?;
    if done.join("index.json").is_file() {
        return Ok(done);
    }
    let work = home.join(format!("{key}.work"));
    remove_tree(&work)?;
    let index = build_all(&clang, &version, &sources, &work)?;
    fs::write(
        work.join("index.json"),
        format!("{}\n", serde_json::to_string_pretty(&index)?),
    )?;
    remove_tree(&done)?;
    fs::rename(&work, &done)?;
    Ok(done)
}

/// The newest clang that has lld beside it, and its version.
fn find_clang() -> Result<(String, String), Failure> {
    for name in ["clang-19", "clang-20", "clang-21", "clang"] {
        let Ok(output) = Command::new(name).arg("--version").output() else {
            continue;
        };
        let linker = Command::new(name).arg("-print-prog-name=ld.lld").output()?;
        let linker = String::from_utf8_lossy(&linker.stdout).trim().to_owned();
        if output.status.success() && Command::new(&linker).arg("--version").output().is_ok() {
            let text = String::from_utf8_lossy(&output.stdout);
            return Ok((
                name.to_owned(),
                text.lines().next().unwrap_or_default().to_owned(),
            ));
        }
    }
    Err("no clang with lld found (Debian: apt install clang-19 lld-19)".into())
}

/// `19` out of `Debian clang version 19.1.7 (3~deb12u1)`.
fn major(version: &str) -> u32 {
    version
        .split("version ")
        .nth(1)
        .and_then(|rest| rest.split('.').next())
        .and_then(|number| number.parse().ok())
        .unwrap_or(0)
}

fn build_all(
    clang: &str,
    version: &str,
    sources: &[(PathBuf, Vec<u8>)],
    work: &Path,
) -> Result<Value, Failure> {
    let mut wanted = Vec::new();
    for (path, text) in sources {
        if path.extension().is_some_and(|extension| extension == "h") {
            continue;
        }
        let name = path
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let lines = read_wanted(&String::from_utf8_lossy(text))
            .map_err(|error| format!("{}: {error}", path.display()))?;
        wanted.push((name, path.clone(), lines));
    }
    let mut jobs = Vec::new();
    for target in TARGETS {
        if major(version) < target.clang {
            eprintln!(
                "guests: {version} does not know {}: left out (clang-{} does)",
                target.name, target.clang
            );
            continue;
        }
        fs::create_dir_all(work.join(target.name))?;
        for (name, path, lines) in &wanted {
            if is_for(&lines.targets, target.name) {
                jobs.push((target, name, path, lines));
            }
        }
    }
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    eprintln!(
        "guests: building {} programs of {} sources",
        jobs.len(),
        wanted.len()
    );
    let next = AtomicUsize::new(0);
    let results: Mutex<Vec<(usize, Result<Value, String>)>> = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some((target, name, path, lines)) = jobs.get(at) else {
                        return;
                    };
                    let result = build_one(clang, target, name, path, lines, work);
                    if let Ok(mut results) = results.lock() {
                        results.push((at, result));
                    }
                }
            });
        }
    });
    let mut results = results.into_inner().map_err(|_| "a thread panicked")?;
    results.sort_by_key(|(at, _)| *at);
    let mut rows = Vec::new();
    let mut errors = String::new();
    for (_, result) in results {
        match result {
            Ok(row) => rows.push(row),
            Err(error) => {
                let _ = writeln!(errors, "{error}");
            }
        }
    }
    if errors.is_empty() {
        Ok(json!({"format": "hotcell-guests", "version": 1, "compiler": version, "guests": rows}))
    } else {
        Err(format!("some guests do not do what they say:\n{errors}").into())
    }
}

/// Whether the `//! targets:` words (none: all; `!x`: all but x) name a target.
fn is_for(words: &[String], target: &str) -> bool {
    if words.iter().any(|word| word.strip_prefix('!') == Some(target)) {
        return false;
    }
    let mut positive = words.iter().filter(|word| !word.starts_with('!')).peekable();
    positive.peek().is_none() || positive.any(|word| word == target)
}

fn read_wanted(text: &str) -> Result<Wanted, String> {
    let mut wanted = Wanted::default();
    for line in text.lines() {
        let Some(rest) = line.strip_prefix("//! ") else {
            continue;
        };
        let (key, value) = rest
            .split_once(':')
            .ok_or_else(|| format!("no colon in `{line}`"))?;
        let value = value.strip_prefix(' ').unwrap_or(value);
        let words = || value.split_whitespace().map(str::to_owned);
        match key {
            "args" => wanted.args.extend(words()),
            "exit" => {
                wanted.exit = value
                    .trim()
                    .parse()
                    .map_err(|_| format!("not a number: `{line}`"))?
            }
            "signal" => wanted.signal = Some(value.trim().to_owned()),
            "stdout" => {
                let all = wanted.stdout.get_or_insert_default();
                all.push_str(value);
                all.push('\n');
            }
            "targets" => wanted.targets.extend(words()),
            "flags" => wanted.flags.extend(words()),
            "under" if value.trim() == "native" => wanted.native = true,
            _ => return Err(format!("unknown line `{line}`")),
        }
    }
    Ok(wanted)
}

fn build_one(
    clang: &str,
    target: &Target,
    name: &str,
    source: &Path,
    wanted: &Wanted,
    work: &Path,
) -> Result<Value, String> {
    let folder = work.join(target.name);
    let what = format!("{} for {}", name, target.name);
    let output = Command::new(clang)
        .args(target.flags)
        .args(COMMON)
        .args(&wanted.flags)
        // The file is named without its folder, so that the same bytes come out of any folder.
        .current_dir(source.parent().unwrap_or(source))
        .arg(source.file_name().unwrap_or_default())
        .arg("-o")
        .arg(folder.join(name))
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("{what}: {clang}: {error}"))?;
    let warnings = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() || warnings.contains("warning:") {
        return Err(format!("{what} does not compile cleanly:\n{warnings}"));
    }
    let tried = try_under_qemu(target, name, wanted, &folder).map_err(|error| format!("{what}: {error}"))?;
    Ok(json!({
        "guest": name,
        "target": target.name,
        "profile": target.profile,
        "qemu": target.qemu,
        "path": format!("{}/{name}", target.name),
        "args": wanted.args,
        "exit": if wanted.signal.is_none() { json!(wanted.exit) } else { Value::Null },
        "signal": wanted.signal,
        "stdout": wanted.stdout,
        "tried": tried,
    }))
}

impl Target {
    /// Whether this host's own processor and kernel run it.
    fn runs_here(&self) -> bool {
        cfg!(all(target_os = "linux", target_arch = "x86_64")) && matches!(self.name, "x86" | "x86_64")
    }
}

/// Runs a guest under qemu-user, or natively where it asks for that; `false` when there is neither.
fn try_under_qemu(target: &Target, name: &str, wanted: &Wanted, folder: &Path) -> Result<bool, String> {
    let scratch = folder.join(format!("{name}.scratch"));
    fs::create_dir_all(&scratch).map_err(|error| error.to_string())?;
    let judge = match (wanted.native, target.runs_here()) {
        (true, false) => return Ok(false),
        (true, true) => "this host".to_owned(),
        (false, _) => format!("qemu-{}", target.qemu),
    };
    let mut command = if wanted.native {
        Command::new(folder.join(name))
    } else {
        let mut command = Command::new(&judge);
        command.arg(folder.join(name));
        command
    };
    let output = command
        .args(&wanted.args)
        .current_dir(&scratch)
        .stdin(Stdio::null())
        .output();
    let _ = remove_tree(&scratch);
    let output = match output {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        output => output.map_err(|error| error.to_string())?,
    };
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    let ended = match (output.status.code(), output.status.signal()) {
        (Some(code), _) => format!("exit {code}"),
        (_, signal) => format!("signal {}", signal_name(signal.unwrap_or(0))),
    };
    let must = match &wanted.signal {
        Some(signal) => format!("signal {signal}"),
        None => format!("exit {}", wanted.exit),
    };
    if ended != must {
        return Err(format!("under {judge}: {ended}, not {must}; it wrote:\n{stdout}"));
    }
    match &wanted.stdout {
        Some(text) if *text != stdout => Err(format!("under {judge} it wrote\n{stdout}and not\n{text}")),
        _ => Ok(true),
    }
}

/// Names of the signals a guest may end with, by x86's numbers (`man 7 signal`): qemu-user raises the host's.
fn signal_name(number: i32) -> String {
    match number {
        4 => "SIGILL".into(),
        5 => "SIGTRAP".into(),
        6 => "SIGABRT".into(),
        7 => "SIGBUS".into(),
        8 => "SIGFPE".into(),
        9 => "SIGKILL".into(),
        11 => "SIGSEGV".into(),
        15 => "SIGTERM".into(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wanted_lines_are_read_and_unknown_ones_refused() {
        let wanted =
            read_wanted("// text\n//! args: a b\n//! exit: 3\n//! stdout: x\n//! stdout:\n//! stdout: y z\n")
                .unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(wanted.args, ["a", "b"]);
        assert_eq!(wanted.exit, 3);
        assert_eq!(wanted.stdout.as_deref(), Some("x\n\ny z\n"));
        assert!(read_wanted("//! stdin: x").is_err());
        assert!(read_wanted("//! exit: three").is_err());
    }

    #[test]
    fn targets_can_be_named_or_left_out() {
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        assert!(is_for(&words(""), "arm"));
        assert!(is_for(&words("x86 arm"), "arm"));
        assert!(!is_for(&words("x86"), "arm"));
        assert!(!is_for(&words("!arm"), "arm"));
        assert!(is_for(&words("!arm"), "x86"));
    }

    #[test]
    fn the_compilers_version_is_understood() {
        assert_eq!(major("Debian clang version 19.1.7 (3~deb12u1)"), 19);
        assert_eq!(major("something else"), 0);
    }
}
