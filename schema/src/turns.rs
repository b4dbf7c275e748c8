//! Who ran when on which core: `turns.jsonl` beside `run.json`, facts of the host about a run, never hashed or compared.
//!
//! A [`Header`] in the first line, then lines of [`Line`]: a cell is told before its first turn. Times are in nanoseconds since
//! the cores were taken.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::cores::CoreSet;

/// Name of the format.
pub const FORMAT: &str = "hotcell-turns";
/// Version of the format.
pub const VERSION: u32 = 1;
/// Name of the file in a run's folder.
pub const FILE: &str = "turns.jsonl";

/// The first line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Header {
    /// Always [`FORMAT`].
    pub format: String,
    /// [`VERSION`] of the writer.
    pub version: u32,
    /// The run's id.
    pub run: String,
    /// Turns that are not in the file: of very many, the oldest.
    pub left_out: u64,
}

/// A further line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Line {
    /// A cell, before its first turn.
    Cell {
        /// Its number.
        id: u64,
        /// Name of the instance that ran in it. An instance that was tried again has several cells.
        instance: String,
    },
    /// A turn.
    Turn(Turn),
}

/// A cell had its cores.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Turn {
    /// The cell's number.
    pub cell: u64,
    /// The cores, as the kernel lists them: `2-3`.
    #[schemars(with = "String")]
    pub cores: CoreSet,
    /// When it began.
    pub from: u64,
    /// When it ended.
    pub until: u64,
}

/// The turns of a run.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Turns {
    /// Instances by the numbers of their cells.
    pub cells: BTreeMap<u64, String>,
    /// Turns in the order in which they ended.
    pub turns: Vec<Turn>,
    /// Turns that are not told: of very many, the oldest.
    pub left_out: u64,
}

impl Turns {
    /// The lines after the header.
    pub fn lines(&self) -> impl Iterator<Item = Line> + '_ {
        let mut told = std::collections::BTreeSet::new();
        self.turns.iter().flat_map(move |turn| {
            let name = self.cells.get(&turn.cell).filter(|_| told.insert(turn.cell));
            let cell = name.map(|instance| Line::Cell {
                id: turn.cell,
                instance: instance.clone(),
            });
            cell.into_iter().chain([Line::Turn(turn.clone())])
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_is_told_once_before_its_turns() {
        let turn = |cell, from| Turn {
            cell,
            cores: "2-3".parse().unwrap(),
            from,
            until: from + 10,
        };
        let turns = Turns {
            cells: BTreeMap::from([(4, "run[a=1]".to_owned()), (9, "run[a=2]".to_owned())]),
            turns: vec![turn(4, 0), turn(9, 10), turn(4, 20)],
            left_out: 0,
        };
        let lines: Vec<String> = turns
            .lines()
            .map(|line| serde_json::to_string(&line).unwrap())
            .collect();
        assert_eq!(
            lines,
            [
                r#"{"cell":{"id":4,"instance":"run[a=1]"}}"#,
                r#"{"turn":{"cell":4,"cores":"2-3","from":0,"until":10}}"#,
                r#"{"cell":{"id":9,"instance":"run[a=2]"}}"#,
                r#"{"turn":{"cell":9,"cores":"2-3","from":10,"until":20}}"#,
                r#"{"turn":{"cell":4,"cores":"2-3","from":20,"until":30}}"#,
            ]
        );
        let back: Vec<Line> = lines
            .iter()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert!(turns.lines().eq(back));
    }
}
