//! The project's own rules, over the source tree: `cargo run -p xtask -- tidy`. rustfmt and clippy check the rest.
//!
//! In: every file below the project's folder but dotfolders, build output and fetched samples. Out: one line for each
//! place that breaks a rule, or silence.

use std::{
    fs,
    path::{Component, Path},
};

use crate::common::{Failure, files_below};

/// Folders at the top. Dotfolders and build output apart.
const TOP: &[&str] = &[
    "arch-profiles",
    "examples",
    "golden",
    "manifests",
    "runner",
    "schema",
    "target",
    "templates",
    "tests",
];
/// No source file is longer; tables and tests apart.
const LONGEST: usize = 700;
/// Crates that may hold `unsafe`.
const UNSAFE_CRATES: &[&str] = &["cells", "unicorn", "qemu", "monitor"];
/// Crates that talk to people: they print, and read the environment and the clock.
const FRONT: &[&str] = &["cli", "xtask"];
/// Crates whose work must not depend on the host's clock or environment at all.
const PURE: &[&str] = &[
    "detect", "inspect", "judge", "kernel", "plan", "render", "report", "schema",
];

/// What is looked at: one source file.
struct Source<'a> {
    /// Path from the project's folder.
    path: &'a str,
    /// Folder name of its crate.
    owner: &'a str,
    /// Lines before `#[cfg(test)]`; none in files of tests.
    code: Vec<(usize, &'a str)>,
}

/// Checks everything.
pub(crate) fn run(project: &Path) -> Result<(), Failure> {
    let mut wrong = Vec::new();
    for entry in fs::read_dir(project)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.file_type()?.is_dir() && !name.starts_with('.') && !TOP.contains(&name.as_str()) {
            wrong.push(format!("{name}: no such folder belongs at the top"));
        }
    }
    let files = files_below(project)?;
    for file in &files {
        let path = file.strip_prefix(project)?.to_string_lossy().into_owned();
        let Ok(text) = fs::read_to_string(file) else {
            continue;
        };
        check_text(&path, &text, &mut wrong);
        if path.ends_with(".rs") {
            let source = read_source(&path, &text);
            check_source(&source, &text, &mut wrong);
        }
        if path.ends_with("Cargo.toml") {
            check_manifest(&path, &text, &mut wrong);
        }
    }
    if wrong.is_empty() {
        eprintln!("tidy: {} files are as they should be", files.len());
        return Ok(());
    }
    for line in &wrong {
        eprintln!("{line}");
    }
    Err(format!("{} places break the project's rules", wrong.len()).into())
}

/// Rules for every text file that people write.
fn check_text(path: &str, text: &str, wrong: &mut Vec<String>) {
    const WRITTEN: &[&str] = &[
        ".rs", ".toml", ".md", ".yaml", ".yml", ".c", ".S", ".h", ".html", ".css",
    ];
    // Goldens and snapshots hold what a sample wrote; licences are others' texts.
    if !WRITTEN.iter().any(|end| path.ends_with(end)) || path.starts_with("golden/") {
        return;
    }
    if !text.is_empty() && !text.ends_with('\n') {
        wrong.push(format!("{path}: no newline at the end"));
    }
    for (number, line) in text.lines().enumerate() {
        if line.ends_with([' ', '\t']) {
            wrong.push(format!(
                "{path}:{}: white space at the end of the line",
                number + 1
            ));
        }
        if line.starts_with("<<<<<<< ") || line.starts_with(">>>>>>> ") {
            wrong.push(format!("{path}:{}: a merge was not finished", number + 1));
        }
    }
}

fn read_source<'a>(path: &'a str, text: &'a str) -> Source<'a> {
    let parts: Vec<&str> = Path::new(path)
        .components()
        .filter_map(|part| match part {
            Component::Normal(name) => name.to_str(),
            _ => None,
        })
        .collect();
    let owner = match parts.as_slice() {
        ["runner", owner, ..] => owner,
        [owner, ..] => owner,
        [] => "",
    };
    let stem = Path::new(path)
        .file_stem()
        .and_then(|stem| stem.to_str())
        .unwrap_or_default();
    let is_test = parts
        .iter()
        .any(|part| ["tests", "golden", "benches", "examples", "fuzz"].contains(part))
        || stem == "tests"
        || stem.ends_with("_tests");
    let code = text
        .lines()
        .enumerate()
        .take_while(|(_, line)| !is_test && line.trim() != "#[cfg(test)]")
        .collect();
    Source { path, owner, code }
}

fn check_source(source: &Source, text: &str, wrong: &mut Vec<String>) {
    let path = source.path;
    let mut say = |number: usize, what: &str| wrong.push(format!("{path}:{}: {what}", number + 1));
    let is_table = path
        .split('/')
        .any(|part| part == "table" || part == "tables" || part.ends_with("_table.rs") || part == "table.rs");
    if source.code.len() > LONGEST && !is_table {
        say(
            LONGEST,
            "the file is longer than 700 lines (tables and tests apart): split it",
        );
    }
    if (path.ends_with("/lib.rs") || path.ends_with("/src/main.rs")) && !text.starts_with("//!") {
        say(0, "begins without a map of the crate (//! …)");
    }
    let file = path.rsplit('/').next().unwrap_or_default();
    let may_unsafe =
        UNSAFE_CRATES.contains(&source.owner) && (file.ends_with("_unsafe.rs") || file == "ffi.rs");
    // A module whose head says when its unsafe functions may be called need not say it at each.
    let head_says = text
        .lines()
        .take_while(|line| line.starts_with("//!"))
        .any(|line| line.contains("# Safety"));
    let mut last_comment = String::new();
    for (number, line) in &source.code {
        let (number, trimmed) = (*number, line.trim_start());
        if trimmed.starts_with("//") {
            last_comment.push_str(trimmed);
            continue;
        }
        let code = without_strings(trimmed);
        let code = code.split("//").next().unwrap_or_default();
        if code.contains("allow(unsafe_code)") && !may_unsafe {
            say(
                number,
                "unsafe is allowed only in files named *_unsafe.rs or ffi.rs of crates that may hold it",
            );
        }
        if is_word(code, "unsafe")
            && !code.contains("unsafe_code")
            && !code.contains("unsafe extern")
            && !code.starts_with("#[unsafe(")
        {
            if !may_unsafe {
                say(number, "unsafe outside a file for it");
            }
            let by_head = head_says && code.contains("unsafe fn");
            let explained = ["SAFETY", "# Safety"]
                .iter()
                .any(|word| last_comment.contains(word));
            if may_unsafe && !explained && !by_head && !is_type(code) {
                say(number, "unsafe without a SAFETY comment above it");
            }
        }
        // A build script speaks to cargo by printing; a cell executable answers `--version`.
        if !FRONT.contains(&source.owner) && file != "build.rs" && !path.ends_with("/src/main.rs") {
            for name in ["println!", "eprintln!", "print!", "eprint!", "dbg!"] {
                if is_word(code, name) {
                    say(number, "only cli prints");
                }
            }
        }
        for name in ["todo!", "unimplemented!"] {
            if is_word(code, name) {
                say(number, "unfinished");
            }
        }
        if PURE.contains(&source.owner) {
            for name in [
                "SystemTime::now",
                "Instant::now",
                "env::var",
                "env::vars",
                "env::home_dir",
            ] {
                if code.contains(name) {
                    say(number, "a library reads neither clock nor environment");
                }
            }
        }
        // A comment serves the statement below it, which may begin some lines before the word.
        if code.trim().is_empty() || code.ends_with([';', '{', '}']) {
            last_comment.clear();
        }
    }
}

fn check_manifest(path: &str, text: &str, wrong: &mut Vec<String>) {
    if path == "Cargo.toml" || path.contains("/fuzz/") {
        return;
    }
    if !text.contains("[lints]\nworkspace = true") {
        wrong.push(format!("{path}: does not take the workspace's lints"));
    }
    let depends = text
        .lines()
        .any(|line| line.starts_with("unicorn-engine") || line.starts_with("hotcell-unicorn"));
    if depends && path != "runner/unicorn/Cargo.toml" {
        wrong.push(format!(
            "{path}: only runner/unicorn may link Unicorn, which is GPL-2.0"
        ));
    }
}

/// A line of code with the contents of its strings removed.
fn without_strings(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    let (mut inside, mut escaped) = (false, false);
    for character in line.chars() {
        match (inside, character) {
            (false, '"') => inside = true,
            (true, '\\') if !escaped => {
                escaped = true;
                continue;
            }
            (true, '"') if !escaped => inside = false,
            (false, character) => out.push(character),
            _ => {}
        }
        escaped = false;
    }
    out
}

/// Whether a word (or macro call) is in a line, not as part of a longer one.
fn is_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let around = |character: Option<char>| character.is_some_and(|c| c.is_alphanumeric() || c == '_');
        let before = line.get(..at).and_then(|text| text.chars().next_back());
        let after = line.get(at + word.len()..).and_then(|text| text.chars().next());
        !around(before) && (word.ends_with('!') || !around(after))
    })
}

/// Whether `unsafe` only names a type: `unsafe extern "C" fn(…)`, `unsafe fn(…)` as a field or argument.
fn is_type(code: &str) -> bool {
    code.contains(": unsafe") || code.contains("<unsafe")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(path: &str, text: &str) -> Vec<String> {
        let mut wrong = Vec::new();
        check_text(path, text, &mut wrong);
        check_source(&read_source(path, text), text, &mut wrong);
        wrong
    }

    #[test]
    fn unsafe_stays_where_it_may_be_and_is_explained() {
        let bare = "//! x\nfn f() {\n    unsafe { g() };\n}\n";
        assert_eq!(check("runner/plan/src/a.rs", bare).len(), 1);
        assert_eq!(check("runner/cells/src/a.rs", bare).len(), 1);
        assert_eq!(check("runner/cells/src/a_unsafe.rs", bare).len(), 1);
        let explained = bare.replace("    unsafe", "    // SAFETY: because\n    unsafe");
        assert_eq!(
            check("runner/cells/src/a_unsafe.rs", &explained),
            Vec::<String>::new()
        );
        assert_eq!(check("runner/plan/src/a_unsafe.rs", &explained).len(), 1);
        let function = "//! x\n//! # Safety\n//! Only at night.\nunsafe fn f() {\n    unsafe { g() };\n}\n";
        assert_eq!(check("runner/cells/src/a_unsafe.rs", function).len(), 1);
    }

    #[test]
    fn libraries_do_not_print_but_their_tests_may() {
        let prints = "//! x\nfn f() {\n    println!(\"x\");\n}\n";
        assert_eq!(check("runner/plan/src/a.rs", prints).len(), 1);
        assert_eq!(check("runner/cli/src/a.rs", prints), Vec::<String>::new());
        let tests = "//! x\n#[cfg(test)]\nmod tests {\n    fn f() { println!(\"x\"); }\n}\n";
        assert_eq!(check("runner/plan/src/a.rs", tests), Vec::<String>::new());
        assert_eq!(
            check(
                "runner/plan/src/a.rs",
                "//! x\nconst A: &str = \"println!\"; // println!\n"
            ),
            Vec::<String>::new()
        );
    }

    #[test]
    fn long_files_and_clocks_are_found() {
        let long = "fn f() {}\n".repeat(701);
        assert_eq!(check("runner/plan/src/a.rs", &long).len(), 1);
        assert_eq!(check("runner/kernel/src/table/a.rs", &long), Vec::<String>::new());
        assert_eq!(check("runner/plan/tests/a.rs", &long), Vec::<String>::new());
        let clock = "//! x\nfn f() {\n    let t = Instant::now();\n}\n";
        assert_eq!(check("runner/report/src/a.rs", clock).len(), 1);
        assert_eq!(check("runner/cells/src/a.rs", clock), Vec::<String>::new());
    }
}
