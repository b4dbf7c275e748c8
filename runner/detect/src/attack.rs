//! The project's own copy of the ATT&CK Enterprise technique table (`data/attack-techniques.tsv`).
//!
//! One line a technique: id, name, tactics, platforms, separated by tabs; lists are separated by `;`.

use std::collections::BTreeMap;
use std::sync::LazyLock;

/// One technique of MITRE ATT&CK Enterprise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Technique {
    /// For instance `T1053.003`.
    pub id: &'static str,
    /// For instance `Scheduled Task/Job: Cron`.
    pub name: &'static str,
    /// Tactics by their short names, for instance `persistence`.
    pub tactics: Vec<&'static str>,
    /// Platforms, for instance `Linux`.
    pub platforms: Vec<&'static str>,
}

static TABLE: LazyLock<BTreeMap<&'static str, Technique>> = LazyLock::new(|| {
    include_str!("../data/attack-techniques.tsv")
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| {
            let mut cells = line.split('\t');
            let (id, name) = (cells.next()?, cells.next()?);
            let mut list = || -> Vec<&'static str> {
                let cell = cells.next().unwrap_or_default();
                cell.split(';').filter(|item| !item.is_empty()).collect()
            };
            let (tactics, platforms) = (list(), list());
            Some((
                id,
                Technique {
                    id,
                    name,
                    tactics,
                    platforms,
                },
            ))
        })
        .collect()
});

/// The technique with this id, if the table has it.
pub fn technique(id: &str) -> Option<&'static Technique> {
    TABLE.get(id)
}

/// All techniques, by id.
pub fn techniques() -> impl Iterator<Item = &'static Technique> {
    TABLE.values()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_read_whole() {
        let lines = include_str!("../data/attack-techniques.tsv");
        let rows = lines.lines().filter(|line| line.starts_with('T')).count();
        assert_eq!(techniques().count(), rows);
        assert!(rows > 600);
        for technique in techniques() {
            assert!(
                !technique.name.is_empty() && !technique.tactics.is_empty(),
                "{}",
                technique.id
            );
        }
    }

    #[test]
    fn cron_is_what_it_is() {
        let cron = technique("T1053.003").expect("in the table");
        assert_eq!(cron.name, "Scheduled Task/Job: Cron");
        assert_eq!(cron.tactics, ["execution", "persistence", "privilege-escalation"]);
        assert!(technique("T0000").is_none());
    }
}
