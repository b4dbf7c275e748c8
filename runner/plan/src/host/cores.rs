//! Who may use which core.

use hotcell_schema::cores::{CoreList, CoreSet, MAX_CORE};
use hotcell_schema::manifest::Cores;
use hotcell_schema::manifest::later::OnSmallHost;

use crate::diagnostics::{Code, Diagnostic};
use crate::tree::Node;

/// The part of the pool that exclusive cells may hold where the document does not say it, in percent; also the greatest.
const HALF: usize = 50;

/// The cores for guests.
pub(crate) struct Pool {
    /// How many there are.
    pub cores: usize,
    /// How many of them may be held exclusively.
    pub exclusive: usize,
}

/// Judges the cores; the pool comes back where it can be read.
pub(crate) fn check(cores: Option<&Cores>, tree: &Node, problems: &mut Vec<Diagnostic>) -> Option<Pool> {
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
    let list = match text.parse::<CoreList>() {
        Ok(list) => list,
        Err(why) => {
            problems.push(
                Diagnostic::error(
                    Code::WrongForm,
                    at("pool"),
                    format!("`{text}` is no list of cores: {why}"),
                )
                .help("write ranges and numbers: \"2-15\", \"2-7,10,12-15\", or \"2-\" for all from 2 on"),
            );
            return None;
        }
    };
    let ranges = list.ranges();
    for (index, range) in ranges.iter().enumerate() {
        let before = ranges.iter().take(index);
        if let Some(other) = before.into_iter().find(|other| other.overlaps(range)) {
            problems.push(Diagnostic::error(
                Code::Cores,
                at("pool"),
                format!("{other} and {range} of the pool overlap"),
            ));
        }
    }
    for (key, core) in [("control", cores.control), ("chores", cores.chores)] {
        if let Some(core) = core
            && !sharing
            && ranges.iter().any(|range| range.contains(core))
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
    // How many cores an open range has, only the host knows.
    let is_open = ranges.iter().any(|range| range.last.is_none());
    let any_host: CoreSet = (0..=MAX_CORE).collect();
    let (numbers, _) = list.among(&any_host);
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
    (!is_open).then(|| Pool {
        cores: numbers.len(),
        exclusive: numbers.len() * part / 100,
    })
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
    fn parts_are_read() {
        assert_eq!(percent("50%"), Some(50));
        for wrong in ["50", "%", "101%", "-1%", "+5%", "1.5%"] {
            assert_eq!(percent(wrong), None, "{wrong}");
        }
    }
}
