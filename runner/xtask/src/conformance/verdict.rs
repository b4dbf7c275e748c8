//! What a program said, beside what it must say.

use similar::{ChangeTag, TextDiff};

/// How a run of a program went.
#[derive(Debug, Clone, Default)]
pub(super) struct Said {
    /// `exited 0`, `signalled SIGSEGV`, `no end within 300 s` …
    pub(super) ended: String,
    /// Its standard output.
    pub(super) stdout: String,
    /// What the emulator had to say, where it said why.
    pub(super) stderr: String,
}

/// What is to be said of it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Verdict {
    /// The same, to the byte, and it ended well.
    Pass,
    /// So many lines of so many are the same; why, in words.
    Differs(usize, usize, String),
    /// There is nothing to judge.
    NotRun(String),
}

/// Longest line of a reason.
const LONGEST: usize = 110;
/// Lines of a reason that are missing, and that are too many.
const SHOWN: usize = 3;

/// Compares. A program that says all it must and does not end well has not passed.
pub(super) fn judge(wanted: &str, said: &Said) -> Verdict {
    if wanted == said.stdout && said.ended == "exited 0" {
        return Verdict::Pass;
    }
    let diff = TextDiff::from_lines(wanted, &said.stdout);
    let (mut same, mut all) = (0, 0);
    let (mut missing, mut other) = (Vec::new(), Vec::new());
    for change in diff.iter_all_changes() {
        let lines = match change.tag() {
            ChangeTag::Equal => {
                (same, all) = (same + 1, all + 1);
                continue;
            }
            ChangeTag::Delete => {
                all += 1;
                &mut missing
            }
            ChangeTag::Insert => &mut other,
        };
        lines.push(change.value());
    }
    let mut why = Vec::new();
    if said.ended != "exited 0" {
        why.push(said.ended.clone());
        why.extend(said.stderr.lines().rev().map(short).find(|line| !line.is_empty()));
    }
    why.extend(some("not said", &missing));
    why.extend(some("said", &other));
    Verdict::Differs(same, all, why.join("; "))
}

/// The first lines of many, if there are any.
fn some(what: &str, lines: &[&str]) -> Option<String> {
    let shown: Vec<String> = lines
        .iter()
        .take(SHOWN)
        .map(|line| format!("`{}`", short(line)))
        .collect();
    let more = match lines.len().checked_sub(SHOWN) {
        Some(more @ 1..) => format!(" and {more} more"),
        _ => String::new(),
    };
    (!lines.is_empty()).then(|| format!("{what}: {}{more}", shown.join(", ")))
}

/// A line as it fits into a reason: in bounds, without what would be read as Markdown.
fn short(line: &str) -> String {
    let plain = line.trim().replace(['`', '|'], "'");
    let mut cut: String = plain.chars().take(LONGEST).collect();
    if cut.len() < plain.len() {
        cut.push('…');
    }
    cut
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(ended: &str, stdout: &str) -> Said {
        Said {
            ended: ended.into(),
            stdout: stdout.into(),
            stderr: "first\nlast `word`\n\n".into(),
        }
    }

    #[test]
    fn only_the_same_bytes_and_a_good_end_pass() {
        assert_eq!(judge("a\nb\n", &said("exited 0", "a\nb\n")), Verdict::Pass);
        assert_eq!(
            judge("a\nb\n", &said("exited 1", "a\nb\n")),
            Verdict::Differs(2, 2, "exited 1; last 'word'".into())
        );
        assert_eq!(
            judge("a\nb\nc\n", &said("exited 0", "a\nx\nc\nd\n")),
            Verdict::Differs(2, 3, "not said: `b`; said: `x`, `d`".into())
        );
        assert_eq!(
            judge("a\nb\nc\nd\ne\n", &said("exited 0", "x\n")),
            Verdict::Differs(0, 5, "not said: `a`, `b`, `c` and 2 more; said: `x`".into())
        );
        assert_eq!(
            judge("a\n", &said("signalled SIGSEGV", "")),
            Verdict::Differs(0, 1, "signalled SIGSEGV; last 'word'; not said: `a`".into())
        );
    }

    #[test]
    fn lines_in_a_reason_are_short() {
        let long = format!("{}\n", "ä".repeat(500));
        let Verdict::Differs(0, 1, why) = judge(&long, &said("exited 0", "")) else {
            panic!("it differs")
        };
        assert!(why.chars().count() < LONGEST + 20 && why.ends_with("…`"), "{why}");
    }
}
