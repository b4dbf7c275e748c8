//! Verdicts as a page: for each emulator a table of programs and architectures, and why what did not pass did not.

use std::{collections::BTreeMap, fmt::Write as _};

use super::{
    ours::{Case, Ours},
    verdict::Verdict,
};

/// One program on one architecture under one emulator.
#[derive(Debug, Clone)]
pub(super) struct Cell {
    engine: &'static str,
    program: String,
    system: String,
    verdict: Verdict,
}

impl Cell {
    pub(super) fn new(engine: &'static str, case: &Case, verdict: Verdict) -> Self {
        Self {
            engine,
            program: case.program.clone(),
            system: case.system.clone(),
            verdict,
        }
    }
}

/// The whole page.
#[derive(Debug, Default)]
pub(super) struct Page {
    /// Debian's name of each architecture and ours, in the manifest's order.
    systems: Vec<(String, String)>,
    /// Names of programs with the versions of their packages.
    programs: Vec<String>,
    versions: Vec<String>,
    about: BTreeMap<&'static str, String>,
    cells: Vec<Cell>,
}

const HEAD: &str = "# Conformance

Written by `make conformance`: Debian's own programs, as Debian builds them, on every architecture that Debian and the emulated Linux share,
under `hotcell`, qemu-user and Qiling. What runs is in [programs](programs) and [suite](suite), the manifest is
[conformance.toml](conformance.toml). `pass`: the same standard output, to the byte, as the same release of Debian has on an x86_64 itself
([expected](expected)), and exit code 0. Else so many lines of so many are the same, and the list below the table says why.

| program | does |
|---|---|
| `bash`, `dash`, `busybox-sh` | scripts: words, pipes, jobs, traps, files, subprocesses |
| `busybox-applets` | each applet of the static busybox whose output does not depend on the machine, a line for each |
| `busybox-tests` | the test-suite of busybox's source package, a line for each test (some fail on the x86_64 too; those that take millions of system calls do less: [suite.py](suite/suite.py)) |
| `coreutils` | nearly every command of the package |
| `hello` | a static program that writes its argument: as little as there is |
| `curl`, `wget` | a page of the simulated web; a server on the loopback, uploads, ranges, errors |
| `lua`, `perl`, `python3` | their libraries over files, processes, signals; Perl and Python sockets, Python threads, memory, asyncio |

";

impl Page {
    pub(super) fn new(ours: &Ours) -> Self {
        let mut programs: Vec<String> = ours.cases.iter().map(|case| case.program.clone()).collect();
        programs.sort();
        programs.dedup();
        Self {
            systems: ours.systems.clone(),
            programs,
            versions: ours.versions(),
            ..Self::default()
        }
    }

    /// What an emulator is, in a line.
    pub(super) fn about(&mut self, engine: &'static str, about: String) {
        self.about.insert(engine, about);
    }

    pub(super) fn add(&mut self, cell: Cell) {
        self.cells.push(cell);
    }

    pub(super) fn text(&self) -> String {
        let mut text = HEAD.to_owned();
        for line in &self.versions {
            let _ = writeln!(text, "{line}");
        }
        let mut engines: Vec<&str> = Vec::new();
        for cell in &self.cells {
            if !engines.contains(&cell.engine) {
                engines.push(cell.engine);
            }
        }
        for engine in engines {
            self.engine(engine, &mut text);
        }
        text
    }

    fn engine(&self, engine: &str, text: &mut String) {
        let cells: Vec<&Cell> = self.cells.iter().filter(|cell| cell.engine == engine).collect();
        let passed = cells.iter().filter(|cell| cell.verdict == Verdict::Pass).count();
        let _ = writeln!(text, "\n## {engine}\n");
        if let Some(about) = self.about.get(engine) {
            let _ = write!(text, "{about}. ");
        }
        let _ = writeln!(text, "{passed} of {} pass.\n", cells.len());
        let mut head = "|".to_owned();
        let mut rule = "\n|---".to_owned();
        for (debian, arch) in &self.systems {
            let _ = write!(
                head,
                " | {}",
                if debian == arch {
                    arch.clone()
                } else {
                    format!("{debian} ({arch})")
                }
            );
            rule.push_str("|---");
        }
        let _ = writeln!(text, "{head} |{rule}|");
        let mut reasons: BTreeMap<(&str, &str), Vec<&str>> = BTreeMap::new();
        for program in &self.programs {
            let _ = write!(text, "| `{program}`");
            for (system, _) in &self.systems {
                let cell = cells
                    .iter()
                    .find(|cell| cell.program == *program && cell.system == *system);
                let shown = match cell.map(|cell| &cell.verdict) {
                    Some(Verdict::Pass) => "pass".to_owned(),
                    Some(Verdict::Differs(same, all, _)) => format!("{same}/{all}"),
                    Some(Verdict::NotRun(_)) | None => "–".to_owned(),
                };
                let _ = write!(text, " | {shown}");
                if let Some(Verdict::Differs(_, _, why) | Verdict::NotRun(why)) =
                    cell.map(|cell| &cell.verdict)
                {
                    reasons.entry((program, why)).or_default().push(system);
                }
            }
            text.push_str(" |\n");
        }
        self.reasons(&reasons, text);
    }

    /// What is the same for all programs is said once.
    fn reasons(&self, reasons: &BTreeMap<(&str, &str), Vec<&str>>, text: &mut String) {
        if !reasons.is_empty() {
            text.push('\n');
        }
        let mut everywhere: BTreeMap<(&Vec<&str>, &str), Vec<&str>> = BTreeMap::new();
        for ((program, why), systems) in reasons {
            everywhere.entry((systems, why)).or_default().push(program);
        }
        let mut lines: Vec<String> = everywhere
            .into_iter()
            .map(|((systems, why), programs)| {
                let systems = if systems.len() == self.systems.len() {
                    "everywhere".to_owned()
                } else {
                    systems.join(", ")
                };
                let programs = if programs.len() == self.programs.len() {
                    "everything".to_owned()
                } else {
                    programs
                        .iter()
                        .map(|name| format!("`{name}`"))
                        .collect::<Vec<_>>()
                        .join(", ")
                };
                format!("- {programs} on {systems}: {why}\n").replace(" on everywhere", " everywhere")
            })
            .collect();
        lines.sort();
        text.extend(lines);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(program: &str, system: &str, verdict: Verdict) -> Cell {
        Cell {
            engine: "hotcell",
            program: program.into(),
            system: system.into(),
            verdict,
        }
    }

    fn page(cells: Vec<Cell>) -> String {
        let page = Page {
            systems: vec![
                ("amd64".into(), "x86_64".into()),
                ("s390x".into(), "s390x".into()),
            ],
            programs: vec!["dash".into(), "lua".into()],
            versions: Vec::new(),
            about: BTreeMap::new(),
            cells,
        };
        page.text()
            .split_once("\n## ")
            .map_or_else(String::new, |(_, rest)| rest.to_owned())
    }

    #[test]
    fn a_table_shows_each_verdict_and_tells_reasons_together() {
        let differs = || Verdict::Differs(3, 5, "exited 1".into());
        let text = page(vec![
            cell("dash", "amd64", Verdict::Pass),
            cell("dash", "s390x", differs()),
            cell("lua", "amd64", Verdict::NotRun("nobody was there".into())),
            cell("lua", "s390x", differs()),
        ]);
        assert_eq!(
            text,
            "hotcell\n\n1 of 4 pass.\n\n| | amd64 (x86_64) | s390x |\n|---|---|---|\n| `dash` | pass | 3/5 |\n| `lua` | – | 3/5 |\n\n\
             - `lua` on amd64: nobody was there\n- everything on s390x: exited 1\n"
        );
    }

    #[test]
    fn what_holds_for_all_is_said_once() {
        let away = || Verdict::NotRun("not installed".into());
        let cells = ["dash", "lua"]
            .iter()
            .flat_map(|program| ["amd64", "s390x"].map(|system| cell(program, system, away())));
        let text = page(cells.collect());
        assert!(
            text.ends_with("|\n\n- everything everywhere: not installed\n"),
            "{text}"
        );
    }
}
