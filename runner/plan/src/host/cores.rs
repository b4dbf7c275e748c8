//! Who may use which core.

use std::ops::RangeInclusive;

use hotcell_schema::manifest::Cores;
use hotcell_schema::manifest::later::OnSmallHost;

use crate::diagnostics::{Code, Diagnostic};
use crate::tree::Node;

/// Greatest number of a core.
const MAX_CORE: u32 = 4095;
/// Greatest number of ranges of a pool.
const MAX_RANGES: usize = 1024;
/// The part of the pool that exclusive cells may hold where the document does not say it, in percent; also the greatest.
const HALF: usize = 50;

/// The cores for guests.
pub(super) struct Pool {
    /// How many there are.
    pub cores: usize,
    /// How many of them may be held exclusively.
    pub exclusive: usize,
}

/// Judges the cores; the pool comes back where it can be read.
pub(super) fn check(cores: Option<&Cores>, tree: &Node, problems: &mut Vec<Diagnostic>) -> Option<Pool> {
    let cores = cores?;
    let at = |key: &str| {
        tree.at(&["cores", key])
            .map_or_else(|| tree.key_span(&["cores"]), |node| node.span)
    };
    if cores.slice.is_some_and(|slice| slice.0 == 0) {
        problems.push(
            Diagnostic::error(
                Code::OutOfRange,
                at("slice"),
                "a slice of no time lets no cell run",
            )
            .help("10ms is a good slice for emulated programs"),
        );
    }
    let sharing = cores.on_small_host == Some(OnSmallHost::Share);
    if let (Some(control), Some(chores)) = (cores.control, cores.chores)
        && control == chores
        && !sharing
    {
        problems.push(
            Diagnostic::error(
                Code::Cores,
                at("chores"),
                format!("core {control} is for control and for chores"),
            )
            .also(at("control"), "also this core")
            .help("give each a core of its own, or say `on-small-host = \"share\"`"),
        );
    }
    let text = cores.pool.as_ref()?;
    let ranges = match read(text) {
        Ok(ranges) => ranges,
        Err(why) => {
            problems.push(
                Diagnostic::error(
                    Code::WrongForm,
                    at("pool"),
                    format!("`{text}` is no list of cores: {why}"),
                )
                .help("write ranges and numbers: \"2-15\" or \"2-7,10,12-15\""),
            );
            return None;
        }
    };
    for (index, range) in ranges.iter().enumerate() {
        let before = ranges.iter().take(index);
        if let Some(other) = before.into_iter().find(|other| overlap(other, range)) {
            problems.push(Diagnostic::error(
                Code::Cores,
                at("pool"),
                format!("{} and {} of the pool overlap", shown(other), shown(range)),
            ));
        }
    }
    for (key, core) in [("control", cores.control), ("chores", cores.chores)] {
        if let Some(core) = core
            && !sharing
            && ranges.iter().any(|range| range.contains(&core))
        {
            problems.push(
                Diagnostic::error(
                    Code::Cores,
                    at("pool"),
                    format!("core {core} is in the pool, and is the core for {key}"),
                )
                .also(at(key), format!("the core for {key}"))
                .help(
                    "only guests run on the pool's cores: leave it out, or say `on-small-host = \"share\"`",
                ),
            );
        }
    }
    let mut numbers: Vec<u32> = ranges.into_iter().flatten().collect();
    numbers.sort_unstable();
    numbers.dedup();
    let part = match cores.exclusive_max.as_deref().map(percent) {
        None => HALF,
        Some(Some(part)) if part <= HALF => part,
        Some(Some(part)) => {
            problems.push(
                Diagnostic::error(
                    Code::Cores,
                    at("exclusive-max"),
                    format!("exclusive cells would hold {part}% of the pool, and others wait for them"),
                )
                .help("at most half the pool can be exclusive: 50%"),
            );
            HALF
        }
        Some(None) => {
            problems.push(
                Diagnostic::error(
                    Code::WrongForm,
                    at("exclusive-max"),
                    "this is no part of the pool",
                )
                .help("write a whole number of percent: \"50%\""),
            );
            HALF
        }
    };
    Some(Pool {
        cores: numbers.len(),
        exclusive: numbers.len() * part / 100,
    })
}

fn overlap(a: &RangeInclusive<u32>, b: &RangeInclusive<u32>) -> bool {
    a.start() <= b.end() && b.start() <= a.end()
}

fn shown(range: &RangeInclusive<u32>) -> String {
    if range.start() == range.end() {
        range.start().to_string()
    } else {
        format!("{}-{}", range.start(), range.end())
    }
}

fn read(text: &str) -> Result<Vec<RangeInclusive<u32>>, String> {
    let number = |text: &str| match text.trim().parse::<u32>() {
        // Rust reads a sign.
        Ok(_) if text.trim().starts_with('+') => Err(format!("`{}` is no number", text.trim())),
        Ok(core) if core <= MAX_CORE => Ok(core),
        Ok(core) => Err(format!("no host has a core {core}")),
        Err(_) => Err(format!(
            "`{}` is no number",
            text.trim().chars().take(20).collect::<String>()
        )),
    };
    if text.split(',').count() > MAX_RANGES {
        return Err(format!("it has more than {MAX_RANGES} ranges"));
    }
    text.split(',')
        .map(|part| {
            let (start, end) = part.split_once('-').unwrap_or((part, part));
            let (start, end) = (number(start)?, number(end)?);
            if start > end {
                return Err(format!("{start}-{end} runs backwards"));
            }
            Ok(start..=end)
        })
        .collect()
}

fn percent(text: &str) -> Option<usize> {
    let digits = text.strip_suffix('%')?;
    let number: usize = digits.parse().ok()?;
    (number <= 100 && digits.bytes().all(|byte| byte.is_ascii_digit())).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn core_lists_are_read() {
        assert_eq!(read("2-15"), Ok(vec![2..=15]));
        assert_eq!(read("2, 4-5"), Ok(vec![2..=2, 4..=5]));
        for wrong in ["", "a", "5-2", "1-", "-1", "1--2", "99999", "2-15-16"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
        assert!(read("+2").is_err());
        let long = |count: u32| {
            (0..count)
                .map(|core| core.to_string())
                .collect::<Vec<_>>()
                .join(",")
        };
        assert_eq!(read(&long(1024)).map(|ranges| ranges.len()), Ok(1024));
        assert!(
            read(&long(1025)).is_err(),
            "what is too much is not left out without a word"
        );
        assert_eq!(percent("50%"), Some(50));
        for wrong in ["50", "%", "101%", "-1%", "+5%", "1.5%"] {
            assert_eq!(percent(wrong), None, "{wrong}");
        }
    }
}
