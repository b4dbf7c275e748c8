//! The picture of who ran when on which core: a row for each core, a lane in it for each instance or stage, time to the right.
//!
//! A lane has its place and its letter, so that nothing depends on colours. Where there are more turns than can be drawn, a bar
//! stands for a piece of time and is as high as the lane's part of it.

use std::collections::{BTreeMap, BTreeSet};

use hotcell_schema::report::{CoresFacts, Report};
use hotcell_schema::turns::{Turn, Turns};
use serde::Serialize;

use crate::words;

/// Greatest number of bars.
const MAX_BARS: usize = 2_000;
/// Greatest number of groups with a colour and a letter of their own.
const MAX_GROUPS: usize = 8;
/// Greatest number of lanes before all guests are one.
const MAX_LANES: usize = 64;
/// Greatest number of cores that are drawn.
const MAX_CORES: usize = 64;
/// Where time begins, and how wide it is; the picture's own units, of which a screen has about as many points.
const LEFT: f64 = 140.0;
const WIDE: f64 = 850.0;
/// Height of the line of times.
const TOP: f64 = 22.0;
/// Space between rows.
const GAP: f64 = 8.0;

/// The picture and what is said beside it.
#[derive(Debug, Serialize)]
pub(super) struct Picture {
    width: f64,
    height: f64,
    left: f64,
    /// Where the last row ends.
    bottom: f64,
    ticks: Vec<Tick>,
    rows: Vec<Row>,
    bars: Vec<Bar>,
    legend: Vec<Key>,
    /// Whether a bar stands for a piece of time.
    parts: Option<String>,
    left_out: Option<String>,
    more_cores: usize,
}

#[derive(Debug, Serialize)]
struct Tick {
    x: String,
    text: String,
}

#[derive(Debug, Serialize)]
struct Row {
    y: String,
    height: f64,
    name: String,
    duties: String,
    /// What stands there instead of lanes.
    note: &'static str,
    lanes: Vec<Lane>,
}

#[derive(Debug, Serialize)]
struct Lane {
    group: usize,
    letter: char,
    y: String,
}

#[derive(Debug, Serialize)]
struct Bar {
    group: usize,
    x: String,
    y: String,
    width: String,
    height: String,
    text: String,
}

#[derive(Debug, Serialize)]
struct Key {
    group: usize,
    letter: char,
    name: String,
    turns: String,
    ran: String,
}

/// Who is drawn alike: each instance, each stage, or all guests.
struct Groups<'a> {
    names: Vec<String>,
    /// The group of each cell.
    of: BTreeMap<u64, usize>,
    cells: &'a BTreeMap<u64, String>,
}

impl<'a> Groups<'a> {
    /// Groups by what a name of an instance says; of too many groups the smallest are one.
    fn by(turns: &'a Turns, say: impl Fn(&str) -> String) -> Self {
        let mut ran: BTreeMap<String, u64> = BTreeMap::new();
        let mut order = Vec::new();
        for turn in &turns.turns {
            let Some(name) = turns.cells.get(&turn.cell) else {
                continue;
            };
            let said = say(name);
            let took = turn.until.saturating_sub(turn.from);
            if !ran.contains_key(&said) {
                order.push(said.clone());
            }
            let all = ran.entry(said).or_default();
            *all = all.saturating_add(took);
        }
        if order.len() > MAX_GROUPS {
            let mut large: Vec<(&String, &u64)> = ran.iter().collect();
            large.sort_by(|a, b| b.1.cmp(a.1).then(a.0.cmp(b.0)));
            let large: BTreeSet<String> = large
                .iter()
                .take(MAX_GROUPS - 1)
                .map(|(name, _)| (*name).clone())
                .collect();
            order.retain(|name| large.contains(name));
            order.push("all others".into());
        }
        let last = order.len().saturating_sub(1);
        let group = |name: &String| order.iter().position(|known| *known == say(name)).unwrap_or(last);
        let of = turns.cells.iter().map(|(cell, name)| (*cell, group(name)));
        Self {
            of: of.collect(),
            names: order.clone(),
            cells: &turns.cells,
        }
    }

    /// The finest groups of which not too many are to be drawn.
    fn new(turns: &'a Turns, report: &Report, cores: &BTreeSet<u32>) -> Self {
        let instances: BTreeSet<&String> = turns.cells.values().collect();
        if instances.len() <= MAX_GROUPS {
            let all = Self::by(turns, |name| report.shorten(name));
            if all.lanes(turns, cores) <= MAX_LANES {
                return all;
            }
        }
        let stages = Self::by(turns, |name| format!("stage {}", stage(name)));
        match stages.lanes(turns, cores) <= MAX_LANES {
            true => stages,
            false => Self::by(turns, |_| "guests".into()),
        }
    }

    fn lanes(&self, turns: &Turns, cores: &BTreeSet<u32>) -> usize {
        self.on(turns, cores).values().map(BTreeSet::len).sum()
    }

    /// The groups that ran on each core.
    fn on(&self, turns: &Turns, cores: &BTreeSet<u32>) -> BTreeMap<u32, BTreeSet<usize>> {
        let mut on: BTreeMap<u32, BTreeSet<usize>> = BTreeMap::new();
        for turn in &turns.turns {
            let Some(group) = self.of.get(&turn.cell) else {
                continue;
            };
            for core in turn.cores.iter().filter(|core| cores.contains(core)) {
                on.entry(core).or_default().insert(*group);
            }
        }
        on
    }
}

fn stage(name: &str) -> &str {
    name.split('[').next().unwrap_or(name)
}

fn letter(group: usize) -> char {
    char::from(b'A'.saturating_add(u8::try_from(group).unwrap_or(25)))
}

fn number(value: f64) -> String {
    format!("{value:.2}")
}

/// The times that are drawn.
#[derive(Clone, Copy)]
struct Span {
    from: u64,
    length: u64,
}

impl Span {
    fn of(turns: &[Turn]) -> Option<Self> {
        let from = turns.iter().map(|turn| turn.from).min()?;
        let until = turns.iter().map(|turn| turn.until).max()?;
        Some(Self {
            from,
            length: until.saturating_sub(from).max(1),
        })
    }

    fn width(self, nanos: u64) -> f64 {
        nanos as f64 / self.length as f64 * WIDE
    }

    fn x(self, at: u64) -> f64 {
        LEFT + self.width(at.saturating_sub(self.from))
    }

    /// At most nine round times.
    fn ticks(self) -> Vec<Tick> {
        let mut steps = (3..19).flat_map(|power| [1, 2, 5].map(|digit| digit * 10u64.pow(power)));
        let step = steps.find(|step| self.length / step <= 8).unwrap_or(u64::MAX);
        let (unit, name) = match self.length {
            0..2_000_000 => (1e3, "µs"),
            2_000_000..2_000_000_000 => (1e6, "ms"),
            _ => (1e9, "s"),
        };
        let decimals = usize::from((step as f64) < unit);
        let ticks = (0..=self.length / step).map(|index| {
            let at = index.saturating_mul(step);
            Tick {
                x: number(LEFT + self.width(at)),
                text: format!("{:.decimals$} {name}", at as f64 / unit),
            }
        });
        ticks.collect()
    }
}

/// The turns in a line.
pub(super) fn in_words(facts: &CoresFacts) -> String {
    let time = |seconds: f64| words::duration((seconds * 1e9) as u64);
    format!(
        "{} in slices of {}, {} switches; the longest wait of a ready guest was {} (promised: {})",
        words::count(facts.turns),
        time(facts.slice_s),
        words::count(facts.switches),
        time(facts.longest_wait_s),
        time(facts.promised_wait_s),
    )
}

/// The picture; `None` where no guest had a turn.
pub(super) fn picture(report: &Report, facts: &CoresFacts, turns: &Turns) -> Option<Picture> {
    let span = Span::of(&turns.turns)?;
    let shown = || facts.each.iter().take(MAX_CORES);
    let cores: BTreeSet<u32> = shown().map(|core| core.core).collect();
    let groups = Groups::new(turns, report, &cores);
    let on = groups.on(turns, &cores);
    let lanes: usize = on.values().map(BTreeSet::len).sum();
    let lane_height = match lanes {
        0..=20 => 15.0,
        21..=40 => 12.0,
        _ => 9.0,
    };
    let mut y = TOP;
    let mut places = BTreeMap::new();
    let mut rows = Vec::new();
    for core in shown() {
        let groups_here = on.get(&core.core).cloned().unwrap_or_default();
        let height = (groups_here.len() as f64 * lane_height).max(26.0);
        let indent = (height - groups_here.len() as f64 * lane_height) / 2.0;
        let mut lanes = Vec::new();
        for (index, group) in groups_here.iter().enumerate() {
            let at = y + indent + index as f64 * lane_height;
            places.insert((core.core, *group), at);
            lanes.push(Lane {
                group: *group,
                letter: letter(*group),
                y: number(at + lane_height * 0.75),
            });
        }
        let busy = core.busy.map(|busy| format!(", {:.0}% busy", busy * 100.0));
        rows.push(Row {
            y: number(y),
            height,
            name: format!("core {}", core.core),
            duties: format!("{}{}", core.duties.join(", "), busy.unwrap_or_default()),
            note: match core.duties.first().map(String::as_str) {
                _ if !groups_here.is_empty() => "",
                Some("control") => "runner and arbiter: no guests",
                Some("chores") => "inspection and commands: no guests",
                _ => "no guest had it",
            },
            lanes,
        });
        y += height + GAP;
    }
    let drawing = Drawing {
        groups: &groups,
        report,
        places: &places,
        span,
        height: lane_height - 3.0,
    };
    let (bars, parts) = match drawing.exact(turns) {
        Some(bars) => (bars, None),
        None => drawing.parts(turns, lanes),
    };
    Some(Picture {
        width: LEFT + WIDE + 10.0,
        height: y,
        left: LEFT,
        bottom: y - GAP,
        ticks: span.ticks(),
        rows,
        bars,
        legend: legend(&groups, turns),
        parts,
        left_out: (turns.left_out > 0).then(|| words::count(turns.left_out)),
        more_cores: facts.each.len().saturating_sub(MAX_CORES),
    })
}

fn legend(groups: &Groups<'_>, turns: &Turns) -> Vec<Key> {
    let mut sums = vec![(0u64, 0u64); groups.names.len()];
    for turn in &turns.turns {
        if let Some(sum) = groups.of.get(&turn.cell).and_then(|group| sums.get_mut(*group)) {
            let took = turn.until.saturating_sub(turn.from);
            *sum = (sum.0.saturating_add(1), sum.1.saturating_add(took));
        }
    }
    let keys = groups.names.iter().zip(sums).enumerate();
    let keys = keys.map(|(group, (name, (turns, ran)))| Key {
        group,
        letter: letter(group),
        name: name.clone(),
        turns: match turns {
            1 => "1 turn".into(),
            many => format!("{} turns", words::count(many)),
        },
        ran: words::duration(ran),
    });
    keys.collect()
}

struct Drawing<'a> {
    groups: &'a Groups<'a>,
    report: &'a Report,
    places: &'a BTreeMap<(u32, usize), f64>,
    span: Span,
    /// Of a bar that fills its lane.
    height: f64,
}

impl Drawing<'_> {
    /// A bar for each turn on each core; `None` where these are too many.
    fn exact(&self, turns: &Turns) -> Option<Vec<Bar>> {
        let mut bars = Vec::new();
        for turn in &turns.turns {
            let Some(group) = self.groups.of.get(&turn.cell) else {
                continue;
            };
            let name = self
                .groups
                .cells
                .get(&turn.cell)
                .map(|name| self.report.shorten(name));
            let name = name.unwrap_or_default();
            let [from, until] = [turn.from, turn.until].map(|at| at.saturating_sub(self.span.from));
            let (from, until) = (words::duration(from), words::duration(until));
            for core in turn.cores.iter() {
                let text = format!("{name}: {from} to {until} on core {core}");
                bars.extend(self.bar(core, *group, turn.from, turn.until, 1.0, text));
            }
            if bars.len() > MAX_BARS {
                return None;
            }
        }
        Some(bars)
    }

    /// A bar for each piece of time in which a lane was used, as high as its part of it; and how long a piece is.
    fn parts(&self, turns: &Turns, lanes: usize) -> (Vec<Bar>, Option<String>) {
        let count = (MAX_BARS / lanes.max(1)).clamp(1, 400);
        let piece = self.span.length.div_ceil(count as u64).max(1);
        let mut used: BTreeMap<(u32, usize), Vec<(u64, u32)>> = BTreeMap::new();
        for turn in &turns.turns {
            let Some(group) = self.groups.of.get(&turn.cell) else {
                continue;
            };
            let [from, until] = [turn.from, turn.until].map(|at| at.saturating_sub(self.span.from));
            for core in turn.cores.iter() {
                if !self.places.contains_key(&(core, *group)) {
                    continue;
                }
                let lane = used.entry((core, *group)).or_insert_with(|| vec![(0, 0); count]);
                for index in from / piece..=until / piece {
                    let begins = index.saturating_mul(piece);
                    let within = until
                        .min(begins.saturating_add(piece))
                        .saturating_sub(from.max(begins));
                    if let Some(part) = lane.get_mut(usize::try_from(index).unwrap_or(usize::MAX))
                        && within > 0
                    {
                        *part = (part.0.saturating_add(within), part.1.saturating_add(1));
                    }
                }
            }
        }
        let mut bars = Vec::new();
        for ((core, group), lane) in used {
            // Pieces that look alike are one bar: percent, begin, end, turns.
            let mut alike: Vec<(u64, u64, u64, u32)> = Vec::new();
            for (index, (ran, many)) in lane.into_iter().enumerate().filter(|(_, (ran, _))| *ran > 0) {
                let begins = (index as u64).saturating_mul(piece);
                let ends = begins.saturating_add(piece).min(self.span.length);
                let percent = (ran.saturating_mul(100) / ends.saturating_sub(begins).max(1)).clamp(1, 100);
                match alike.last_mut() {
                    Some((same, _, until, turns)) if *same == percent && *until == begins => {
                        *until = ends;
                        *turns = turns.saturating_add(many);
                    }
                    _ => alike.push((percent, begins, ends, many)),
                }
            }
            for (percent, begins, ends, many) in alike {
                let text = format!(
                    "{}: {percent}% of core {core} from {} to {}, {many} turns",
                    self.groups.names.get(group).map_or("", String::as_str),
                    words::duration(begins),
                    words::duration(ends),
                );
                let (from, until) = (
                    begins.saturating_add(self.span.from),
                    ends.saturating_add(self.span.from),
                );
                bars.extend(self.bar(core, group, from, until, percent as f64 / 100.0, text));
            }
        }
        (bars, Some(words::duration(piece)))
    }

    fn bar(&self, core: u32, group: usize, from: u64, until: u64, share: f64, text: String) -> Option<Bar> {
        let top = self.places.get(&(core, group))? + 1.5;
        let height = (self.height * share).max(1.0);
        Some(Bar {
            group,
            x: number(self.span.x(from)),
            y: number(top + self.height - height),
            // Of what is narrower nothing would be seen.
            width: number(self.span.width(until.saturating_sub(from)).max(0.5)),
            height: number(height),
            text,
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use hotcell_schema::report::CoreFacts;

    fn report() -> Report {
        let report = serde_json::json!({
            "format": "hotcell-report", "version": 1, "name": "x", "manifest": "0".repeat(64), "seed": 0, "hotcell": "",
            "engines": {}, "samples": {}, "instances": [],
        });
        serde_json::from_value(report).unwrap()
    }

    fn facts(cores: u32) -> CoresFacts {
        let each = (0..cores).map(|core| CoreFacts {
            core,
            duties: vec!["pool".into()],
            busy: Some(0.5),
        });
        CoresFacts {
            slice_s: 0.01,
            turns: 1,
            switches: 1,
            longest_wait_s: 0.1,
            promised_wait_s: 1.0,
            each: each.collect(),
            checks: None,
        }
    }

    /// A picture of so many instances of so many stages, each with turns on each of so many cores.
    fn drawn(instances: u64, stages: u64, cores: u32, rounds: u64) -> Picture {
        let mut turns = Turns::default();
        for cell in 0..instances {
            turns
                .cells
                .insert(cell, format!("s{:02}[n={cell}]", cell % stages));
        }
        for round in 0..rounds {
            for cell in 0..instances {
                turns.turns.extend((0..cores).map(|core| Turn {
                    cell,
                    cores: [core].into_iter().collect(),
                    from: (round * instances + cell) * 100,
                    // The first stages have more.
                    until: (round * instances + cell) * 100 + 90 - cell % stages,
                }));
            }
        }
        let picture = picture(&report(), &facts(cores), &turns).unwrap();
        assert!(picture.bars.len() <= MAX_BARS, "{} bars", picture.bars.len());
        for bar in &picture.bars {
            let [x, y, width, height] =
                [&bar.x, &bar.y, &bar.width, &bar.height].map(|n| n.parse::<f64>().unwrap());
            assert!(x >= LEFT && x + width <= picture.width, "{bar:?}");
            assert!(y >= TOP && y + height <= picture.bottom, "{bar:?}");
        }
        picture
    }

    fn names(picture: &Picture) -> Vec<&str> {
        picture.legend.iter().map(|key| key.name.as_str()).collect()
    }

    #[test]
    fn few_are_drawn_one_by_one_and_many_together() {
        let few = drawn(3, 1, 2, 5);
        assert_eq!(names(&few), ["s00[n=0]", "s00[n=1]", "s00[n=2]"]);
        assert_eq!((few.bars.len(), &few.parts), (30, &None));
        // Of one instance too many to have a colour each, stages.
        assert_eq!(names(&drawn(9, 2, 1, 1)), ["stage s00", "stage s01"]);
        let many = drawn(30, 10, 1, 1);
        assert_eq!(many.legend.len(), MAX_GROUPS);
        assert_eq!(names(&many).last(), Some(&"all others"));
        assert!(!names(&many).contains(&"stage s09"), "the smallest");
        // On many cores each has one lane, and what is beyond is counted.
        let wide = drawn(8, 8, 70, 1);
        assert_eq!((names(&wide), wide.more_cores), (vec!["guests"], 6));
        assert_eq!(wide.rows.len(), MAX_CORES);
    }

    #[test]
    fn what_cannot_be_told_apart_is_drawn_in_parts() {
        let picture = drawn(4, 1, 2, 2_000);
        assert!(picture.parts.is_some());
        let whole = picture.bars.iter().all(|bar| bar.text.contains("% of core"));
        assert!(whole && picture.bars.len() >= 8);
        // Each had a fifth of the time or more, and none all of it.
        let heights = picture.bars.iter().map(|bar| bar.height.parse::<f64>().unwrap());
        assert!(heights.into_iter().all(|height| height < 6.0));
    }

    #[test]
    fn nothing_is_drawn_of_nothing() {
        assert!(picture(&report(), &facts(2), &Turns::default()).is_none());
    }

    #[test]
    fn times_are_round() {
        let texts = |length| -> Vec<String> {
            let span = Span { from: 5, length };
            span.ticks().into_iter().map(|tick| tick.text).collect()
        };
        assert_eq!(
            texts(3_300_000_000),
            ["0.0 s", "0.5 s", "1.0 s", "1.5 s", "2.0 s", "2.5 s", "3.0 s"]
        );
        assert_eq!(texts(90_000_000), ["0 ms", "20 ms", "40 ms", "60 ms", "80 ms"]);
        for length in [1, 999, 12_345, 60_000_000_000, u64::MAX] {
            assert!((1..=9).contains(&texts(length).len()), "{length}");
        }
    }
}
