//! The order of Debian versions: `epoch:upstream-revision`, as dpkg has it.

use std::cmp::Ordering;

/// Compares two versions.
pub(super) fn compare(a: &str, b: &str) -> Ordering {
    let (a, b) = (split(a), split(b));
    a.0.cmp(&b.0)
        .then_with(|| part(a.1, b.1))
        .then_with(|| part(a.2, b.2))
}

fn split(version: &str) -> (u64, &str, &str) {
    let (epoch, rest) = version.split_once(':').unwrap_or(("0", version));
    let (upstream, revision) = rest.rsplit_once('-').unwrap_or((rest, ""));
    (epoch.parse().unwrap_or(0), upstream, revision)
}

/// Digits as numbers, letters before everything but `~`, which stands before the end itself.
fn part(mut a: &str, mut b: &str) -> Ordering {
    let digit = |character: char| character.is_ascii_digit();
    loop {
        let (left, right) = (a.find(digit).unwrap_or(a.len()), b.find(digit).unwrap_or(b.len()));
        let ((word_a, rest_a), (word_b, rest_b)) = (a.split_at(left), b.split_at(right));
        let order = words(word_a, word_b);
        let end = |rest: &str| rest.find(|character| !digit(character)).unwrap_or(rest.len());
        let ((number_a, next_a), (number_b, next_b)) =
            (rest_a.split_at(end(rest_a)), rest_b.split_at(end(rest_b)));
        let order = order.then_with(|| numbers(number_a, number_b));
        if order != Ordering::Equal || (next_a.is_empty() && next_b.is_empty()) {
            return order;
        }
        (a, b) = (next_a, next_b);
    }
}

fn words(a: &str, b: &str) -> Ordering {
    let rank = |byte: Option<&u8>| match byte {
        Some(b'~') => -1,
        None => 0,
        Some(byte) if byte.is_ascii_alphabetic() => i32::from(*byte),
        Some(byte) => i32::from(*byte) + 256,
    };
    let longest = a.len().max(b.len());
    (0..longest)
        .map(|at| rank(a.as_bytes().get(at)).cmp(&rank(b.as_bytes().get(at))))
        .find(|order| order.is_ne())
        .unwrap_or(Ordering::Equal)
}

fn numbers(a: &str, b: &str) -> Ordering {
    let (a, b) = (a.trim_start_matches('0'), b.trim_start_matches('0'));
    a.len().cmp(&b.len()).then_with(|| a.cmp(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_dpkg_has_it() {
        let rising = [
            "1.0~rc1",
            "1.0",
            "1.0-1",
            "1.0-1+b1",
            "1.0-1.1",
            "1.0+dfsg-1",
            "1.0.1",
            "1.9",
            "1.10",
            "1.a",
            "2.0~~",
            "2.0~",
            "2.0",
            "1:0.1",
            "1:1.35.0-4+b4",
            "1:1.35.0-4+deb12u1",
        ];
        for (at, a) in rising.iter().enumerate() {
            for (other, b) in rising.iter().enumerate() {
                assert_eq!(compare(a, b), at.cmp(&other), "{a} and {b}");
            }
        }
        assert_eq!(compare("1.01-0", "1.1"), Ordering::Equal);
    }
}
