//! Two lists of lines: what is gone and what came, with a few lines around.

use hotcell_schema::diff::{Line, Sign};
use similar::{Algorithm, DiffTag, capture_diff_slices};

/// Lines shown around a difference.
const CONTEXT: usize = 3;
/// Greatest number of lines between the common start and end that are matched line by line: the search is quadratic where
/// nothing is alike.
const MAX_MATCHED: usize = 2_000;
/// Greatest number of lines of one change.
const MAX_LINES: usize = 2_000;
/// Greatest number of characters of one line.
const MAX_TEXT: usize = 16_384;
/// Lines of each side that are shown where they were not matched.
const UNMATCHED: usize = 40;

/// What differs; nothing when the lists are the same.
pub fn between(old: &[&str], new: &[&str]) -> Vec<Line> {
    if old == new {
        return Vec::new();
    }
    let start = common(old.iter().zip(new));
    let end = common(old[start..].iter().rev().zip(new[start..].iter().rev()));
    let before = &old[start.saturating_sub(CONTEXT)..start];
    let (old_middle, new_middle) = (&old[start..old.len() - end], &new[start..new.len() - end]);
    let after = &old[old.len() - end..(old.len() - end + CONTEXT).min(old.len())];

    let mut script: Vec<(Sign, &str)> = before.iter().map(|line| (Sign::Same, *line)).collect();
    let skipped_before = start - before.len();
    let unmatched = if is_sorted(old_middle) && is_sorted(new_middle) {
        merge(old_middle, new_middle, &mut script);
        0
    } else if old_middle.len().max(new_middle.len()) <= MAX_MATCHED {
        matched(old_middle, new_middle, &mut script);
        0
    } else {
        for (sign, lines) in [(Sign::Removed, old_middle), (Sign::Added, new_middle)] {
            script.extend(lines.iter().take(UNMATCHED).map(|line| (sign, *line)));
        }
        old_middle.len().saturating_sub(UNMATCHED) + new_middle.len().saturating_sub(UNMATCHED)
    };
    if unmatched == 0 {
        script.extend(after.iter().map(|line| (Sign::Same, *line)));
    }

    let mut out = Vec::new();
    skip(&mut out, skipped_before);
    fold(&script, &mut out);
    if unmatched > 0 {
        out.push(Line::new(
            Sign::Skipped,
            format!("{unmatched} more lines that are gone or came"),
        ));
    }
    skip(&mut out, end - if unmatched == 0 { after.len() } else { 0 });
    out
}

fn common<'a, 'b: 'a>(pairs: impl Iterator<Item = (&'a &'b str, &'a &'b str)>) -> usize {
    pairs.take_while(|(old, new)| old == new).count()
}

fn is_sorted(lines: &[&str]) -> bool {
    lines.windows(2).all(|pair| pair[0] < pair[1])
}

/// Two sorted sets: linear, whatever their length. Between two lines that stayed, what is gone comes before what came.
fn merge<'a>(mut old: &[&'a str], mut new: &[&'a str], script: &mut Vec<(Sign, &'a str)>) {
    let mut came = Vec::new();
    loop {
        match (old, new) {
            ([a, rest @ ..], [b, others @ ..]) if a == b => {
                script.append(&mut came);
                script.push((Sign::Same, a));
                (old, new) = (rest, others);
            }
            ([a, rest @ ..], other) if other.first().is_none_or(|b| a < b) => {
                script.push((Sign::Removed, a));
                old = rest;
            }
            (_, [b, others @ ..]) => {
                came.push((Sign::Added, *b));
                new = others;
            }
            _ => {
                script.append(&mut came);
                return;
            }
        }
    }
}

fn matched<'a>(old: &[&'a str], new: &[&'a str], script: &mut Vec<(Sign, &'a str)>) {
    for op in capture_diff_slices(Algorithm::Myers, old, new) {
        let (tag, before, after) = op.as_tag_tuple();
        if tag == DiffTag::Equal {
            script.extend(old[before].iter().map(|line| (Sign::Same, *line)));
        } else {
            script.extend(old[before].iter().map(|line| (Sign::Removed, *line)));
            script.extend(new[after].iter().map(|line| (Sign::Added, *line)));
        }
    }
}

/// Leaves out what is the same and far from any difference.
fn fold(script: &[(Sign, &str)], out: &mut Vec<Line>) {
    let mut at = 0;
    while at < script.len() {
        let same = script[at..]
            .iter()
            .take_while(|(sign, _)| *sign == Sign::Same)
            .count();
        if same > 2 * CONTEXT + 1 && at > 0 && at + same < script.len() {
            push(script, at..at + CONTEXT, out);
            skip(out, same - 2 * CONTEXT);
            push(script, at + same - CONTEXT..at + same, out);
            at += same;
        } else {
            let step = same.max(1);
            push(script, at..at + step, out);
            at += step;
        }
        if out.len() >= MAX_LINES {
            let left = script.len() - at;
            if left > 0 {
                out.push(Line::new(Sign::Skipped, format!("{left} more lines")));
            }
            return;
        }
    }
}

fn push(script: &[(Sign, &str)], range: std::ops::Range<usize>, out: &mut Vec<Line>) {
    out.extend(
        script[range]
            .iter()
            .map(|(sign, text)| Line::new(*sign, cut(text))),
    );
}

fn skip(out: &mut Vec<Line>, count: usize) {
    match count {
        0 => {}
        1 => out.push(Line::new(Sign::Skipped, "1 line that is the same")),
        _ => out.push(Line::new(
            Sign::Skipped,
            format!("{count} lines that are the same"),
        )),
    }
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(MAX_TEXT) {
        Some((end, _)) => format!("{}… ({} bytes)", &text[..end], text.len()),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(old: &str, new: &str) -> Vec<String> {
        let (old, new): (Vec<&str>, Vec<&str>) = (old.split(' ').collect(), new.split(' ').collect());
        between(&old, &new)
            .iter()
            .map(|line| {
                let sign = match line.sign {
                    Sign::Same => " ",
                    Sign::Removed => "-",
                    Sign::Added => "+",
                    Sign::Skipped => "~",
                };
                format!("{sign}{}", line.text)
            })
            .collect()
    }

    #[test]
    fn a_change_stands_in_its_context() {
        assert_eq!(shown("a b", "a b"), [""; 0]);
        assert_eq!(shown("b a c", "b x c"), [" b", "-a", "+x", " c"]);
        assert_eq!(shown("a c d", "a b c d"), [" a", "+b", " c", " d"]);
        assert_eq!(
            shown("8 1 2 3 4 x 5 6 7 8 9", "8 1 2 3 4 y 5 6 7 8 9"),
            [
                "~2 lines that are the same",
                " 2",
                " 3",
                " 4",
                "-x",
                "+y",
                " 5",
                " 6",
                " 7",
                "~2 lines that are the same"
            ]
        );
        assert_eq!(
            shown("x 1 2 3 4 5 6 7 8 9 x", "y 1 2 3 4 5 6 7 8 9 y"),
            [
                "-x",
                "+y",
                " 1",
                " 2",
                " 3",
                "~3 lines that are the same",
                " 7",
                " 8",
                " 9",
                "-x",
                "+y"
            ]
        );
    }

    #[test]
    fn long_lists_are_bounded_and_sorted_ones_still_exact() {
        let numbers: Vec<String> = (0..30_000).map(|n| format!("{n:05}")).collect();
        let all: Vec<&str> = numbers.iter().map(String::as_str).collect();
        let mut without = all.clone();
        without.remove(15_000);
        let lines = between(&all, &without);
        assert_eq!(lines.len(), 9);
        assert_eq!(lines[4], Line::new(Sign::Removed, "15000"));
        let mut backwards = all.clone();
        backwards.reverse();
        let lines = between(&all, &backwards);
        assert!(lines.len() <= 2 * UNMATCHED + 1, "{}", lines.len());
        let odd: Vec<&str> = all.iter().copied().step_by(2).collect();
        let even: Vec<&str> = all.iter().copied().skip(1).step_by(2).collect();
        assert!(between(&odd, &even).len() <= MAX_LINES + 8);
        let long = "x".repeat(MAX_TEXT + 5);
        assert!(between(&[&long], &["y"])[0].text.ends_with("bytes)"));
    }
}
