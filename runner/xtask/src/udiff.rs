//! Applies a unified diff exactly: every context and removed line must be where the hunk says, byte for byte.
//!
//! No fuzz and no offsets on purpose: the source is pinned by version, so a patch that does not fit is a mistake.
//! Text before the first `---` line is a comment; paths lose their first component (`a/`, `b/`).

use std::{fmt, fs, path::Path};

/// Why a patch does not apply.
#[derive(Debug)]
pub(crate) struct Mismatch(String);

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Mismatch {}

/// Applies every file section of `patch` to the files under `tree`.
pub(crate) fn apply(patch: &str, tree: &Path) -> Result<(), Mismatch> {
    let mut lines = patch.lines().peekable();
    let mut sections = 0;
    while let Some(line) = lines.next() {
        if !line.starts_with("--- ") {
            continue;
        }
        let header = lines.next().unwrap_or_default();
        let name = header
            .strip_prefix("+++ ")
            .and_then(|path| path.split('\t').next())
            .and_then(|path| path.split_once('/'))
            .map(|(_, path)| path)
            .ok_or_else(|| Mismatch(format!("no file name in `{header}`")))?;
        let mut hunks = Vec::new();
        while let Some(line) = lines.next_if(|line| line.starts_with(['@', ' ', '+', '-', '\\'])) {
            hunks.push(line);
        }
        let path = tree.join(name);
        let old = fs::read_to_string(&path).map_err(|error| Mismatch(format!("{name}: {error}")))?;
        let new = patched(&old, &hunks).map_err(|error| Mismatch(format!("{name}: {}", error.0)))?;
        fs::write(&path, new).map_err(|error| Mismatch(format!("{name}: {error}")))?;
        sections += 1;
    }
    if sections == 0 {
        Err(Mismatch("no `---` line".into()))
    } else {
        Ok(())
    }
}

/// The text after the hunks.
fn patched(old: &str, hunks: &[&str]) -> Result<String, Mismatch> {
    let old: Vec<&str> = old.split_inclusive('\n').collect();
    let mut new = String::new();
    let mut at = 0usize;
    for line in hunks {
        if let Some(header) = line.strip_prefix("@@ -") {
            let start: usize = header
                .split([',', ' '])
                .next()
                .and_then(|number| number.parse().ok())
                .ok_or_else(|| Mismatch(format!("bad hunk header `{line}`")))?;
            let start = start.saturating_sub(1);
            let skipped = old
                .get(at..start)
                .ok_or_else(|| Mismatch(format!("hunk `{line}` is out of order or behind the end")))?;
            new.extend(skipped.iter().copied());
            at = start;
        } else if let Some(added) = line.strip_prefix('+') {
            new.push_str(added);
            new.push('\n');
        } else if let Some(wanted) = line.strip_prefix([' ', '-']) {
            let found = old.get(at).copied().unwrap_or_default();
            if found.trim_end_matches('\n') != wanted {
                return Err(Mismatch(format!(
                    "line {}: expected `{wanted}`, found `{}`",
                    at + 1,
                    found.trim_end()
                )));
            }
            if line.starts_with(' ') {
                new.push_str(found);
            }
            at += 1;
        }
    }
    new.extend(old.get(at..).unwrap_or_default().iter().copied());
    Ok(new)
}

#[cfg(test)]
mod tests {
    use super::patched;

    #[test]
    fn hunks_change_only_what_they_name() {
        let old = "one\ntwo\nthree\nfour\nfive\n";
        let hunks = [
            "@@ -1,3 +1,3 @@",
            " one",
            "-two",
            "+TWO",
            " three",
            "@@ -5,1 +5,2 @@",
            " five",
            "+six",
        ];
        assert_eq!(
            patched(old, &hunks).expect("fits"),
            "one\nTWO\nthree\nfour\nfive\nsix\n"
        );
    }

    #[test]
    fn a_hunk_that_does_not_fit_is_refused() {
        assert!(patched("one\n", &["@@ -1,1 +1,1 @@", "-eins", "+uno"]).is_err());
        assert!(patched("one\n", &["@@ -9,1 +9,1 @@", "-one", "+uno"]).is_err());
    }
}
