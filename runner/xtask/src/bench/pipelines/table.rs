//! Figures: rows as they come, goals at the end, all of it as JSON where asked.

use std::{fs, path::Path, time::Duration};

use serde_json::{Value, json};

use crate::bench::measure::{Cost, median, ms};
use crate::common::Failure;

/// All turns of one tool at one thing.
#[derive(Debug, Clone, Default)]
pub(super) struct Turns(Vec<Cost>);

impl Turns {
    pub(super) fn add(&mut self, cost: Cost) {
        self.0.push(cost);
    }

    fn of(&self, what: impl Fn(&Cost) -> Duration) -> Vec<Duration> {
        self.0.iter().map(what).collect()
    }

    /// The median of CPU time.
    pub(super) fn cpu(&self) -> Duration {
        median(self.of(|cost| cost.cpu))
    }

    pub(super) fn peak_kib(&self) -> u64 {
        self.0.iter().map(|cost| cost.peak_kib).max().unwrap_or(0)
    }
}

/// Everything that was measured.
#[derive(Debug, Default)]
pub(super) struct Table {
    rows: Vec<Value>,
    goals: Vec<Value>,
}

impl Table {
    /// Begins a part of the table.
    pub(super) fn part(&self, title: &str) {
        println!(
            "\n{title:44} {:>5} {:>10} {:>10} {:>10} {:>9}",
            "turns", "CPU ms", "least", "wall ms", "peak MB"
        );
    }

    /// Adds a row; the first of `against` that is not empty is what the row is held against.
    pub(super) fn row(&mut self, part: &str, tool: &str, turns: &Turns, against: &[(&str, &Turns)]) {
        let cpu = turns.of(|cost| cost.cpu);
        let least = cpu.iter().min().copied().unwrap_or_default();
        let wall = median(turns.of(|cost| cost.wall));
        let held: Vec<String> = against
            .iter()
            .filter(|(_, other)| !other.0.is_empty())
            .map(|(name, other)| format!("{:.2}x {name}", ratio(turns, other)))
            .collect();
        println!(
            "  {tool:42} {:>5} {:>10.1} {:>10.1} {:>10.1} {:>9.1}   {}",
            turns.0.len(),
            ms(turns.cpu()),
            ms(least),
            ms(wall),
            turns.peak_kib() as f64 / 1024.0,
            held.join(", ")
        );
        self.rows.push(json!({
            "part": part, "tool": tool, "turns": turns.0.len(),
            "cpu_ms": ms(turns.cpu()), "least_cpu_ms": ms(least), "wall_ms": ms(wall), "peak_kib": turns.peak_kib(),
        }));
    }

    /// Says that something was left out.
    pub(super) fn left_out(&mut self, part: &str, tool: &str, why: &str) {
        println!("  {tool:42} left out: {why}");
        self.rows
            .push(json!({"part": part, "tool": tool, "left_out": why}));
    }

    /// A goal: what was measured, and the most that it may be.
    pub(super) fn goal(&mut self, name: &str, measured: f64, most: f64, unit: &str) {
        self.goals.push(json!({
            "goal": name, "measured": measured, "most": most, "unit": unit, "met": measured <= most,
        }));
    }

    /// Prints the goals, and writes everything where asked.
    pub(super) fn finish(&self, json: Option<&Path>) -> Result<(), Failure> {
        println!("\ngoals");
        for goal in &self.goals {
            println!(
                "  {:7} {:72} {:>9.2} of {:>8.2} {}",
                if goal["met"] == json!(true) {
                    "met"
                } else {
                    "NOT MET"
                },
                goal["goal"].as_str().unwrap_or_default(),
                goal["measured"].as_f64().unwrap_or_default(),
                goal["most"].as_f64().unwrap_or_default(),
                goal["unit"].as_str().unwrap_or_default(),
            );
        }
        if let Some(path) = json {
            let all =
                json!({"format": "hotcell-bench", "version": 1, "rows": self.rows, "goals": self.goals});
            fs::write(path, format!("{:#}\n", all))?;
        }
        Ok(())
    }
}

/// CPU time against CPU time.
pub(super) fn ratio(a: &Turns, b: &Turns) -> f64 {
    crate::bench::measure::ratio(a.cpu(), b.cpu())
}
