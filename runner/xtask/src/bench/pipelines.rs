//! The cost of a pipeline: plan, cold run and cached run of the same graph beside make, ninja and Snakemake.
//!
//! | module | holds |
//! |---|---|
//! | [`graph`] | the graph, written for every tool |
//! | [`manifests`] | a manifest of 20,000 lines, right and with mistakes |
//! | [`samples`] | a thousand samples through four stages |
//! | [`table`] | figures and goals |

mod graph;
mod manifests;
mod samples;
mod table;

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use self::{
    graph::{Graph, Shape},
    table::{Table, Turns, ratio},
};
use super::measure::{cost, cpu_and_output, ms};
use crate::{
    common::{Failure, cache_folder, remove_tree},
    python::python,
};

/// Version of Snakemake that we stand beside.
const SNAKEMAKE: &str = "9.27.1";
/// Middle jobs of Snakemake's graph: it does not finish 10,000 in an hour.
const SNAKEMAKE_COUNT: usize = 1000;
/// Manifest of a graph in which no two jobs are the same.
const DISTINCT: &str = "distinct.toml";
/// Most memory of the runner, in MB.
const PEAK: f64 = 60.0;

/// What can be measured by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
    Plan,
    Cold,
    Cached,
    Linear,
    Manifest,
    Samples,
    Snakemake,
}

const PARTS: [(&str, Part); 7] = [
    ("plan", Part::Plan),
    ("cold", Part::Cold),
    ("cached", Part::Cached),
    ("linear", Part::Linear),
    ("manifest", Part::Manifest),
    ("samples", Part::Samples),
    ("snakemake", Part::Snakemake),
];

/// The parts in a list with commas.
pub(super) fn parts(list: &str) -> Result<BTreeSet<Part>, Failure> {
    let find = |word: &str| {
        let found = PARTS.iter().find(|(name, _)| *name == word);
        found
            .map(|(_, part)| *part)
            .ok_or_else(|| format!("there is no part `{word}`").into())
    };
    list.split(',').map(find).collect()
}

/// How to measure.
pub(super) struct Options {
    pub only: BTreeSet<Part>,
    pub count: usize,
    pub rounds: usize,
    pub lab: Option<PathBuf>,
    pub json: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            only: PARTS.iter().map(|(_, part)| *part).collect(),
            count: 10_000,
            rounds: 7,
            lab: None,
            json: None,
        }
    }
}

/// Who does it.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Tool {
    Make,
    Ninja,
    /// The Python that has it.
    Snakemake(PathBuf),
    /// With the manifest of that name.
    Hotcell(&'static str),
}

impl Tool {
    fn name(&self) -> String {
        match self {
            Self::Make => "make".into(),
            Self::Ninja => "ninja".into(),
            Self::Snakemake(_) => "snakemake".into(),
            Self::Hotcell(manifest) => format!("hotcell {manifest}"),
        }
    }
}

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    Plan,
    Run,
}

struct Bench<'a> {
    release: &'a Path,
    lab: &'a Path,
    options: &'a Options,
    jobs: usize,
    table: Table,
}

pub(super) fn run(project: &Path, release: &Path, options: &Options) -> Result<(), Failure> {
    let lab = match &options.lab {
        Some(folder) => folder.clone(),
        None => std::env::temp_dir().join(format!("hotcell-bench-{}", std::process::id())),
    };
    remove_tree(&lab)?;
    fs::create_dir_all(&lab)?;
    let done = measure(project, release, &lab, options);
    remove_tree(&lab)?;
    done
}

fn measure(project: &Path, release: &Path, lab: &Path, options: &Options) -> Result<(), Failure> {
    let jobs = std::thread::available_parallelism().map_or(1, usize::from);
    let mut bench = Bench {
        release,
        lab,
        options,
        jobs,
        table: Table::default(),
    };
    println!(
        "pipelines: CPU time is the median, all tools of a part taking turns; -j{jobs}; {} ({})",
        lab.display(),
        file_system(lab)
    );
    for shape in [Shape::Fan, Shape::Layers] {
        let count = options.count;
        bench.graph(Graph { shape, count })?;
    }
    if bench.wants(Part::Linear) {
        bench.linear()?;
    }
    if bench.wants(Part::Manifest) {
        manifests::run(&mut bench)?;
    }
    if bench.wants(Part::Snakemake) {
        bench.snakemake()?;
    }
    if bench.wants(Part::Samples) {
        samples::run(project, &mut bench)?;
    }
    bench.table.finish(options.json.as_deref())
}

/// Name of the file system that a folder is on.
fn file_system(folder: &Path) -> String {
    let mut command = Command::new("stat");
    command.args(["-f", "-c", "%T"]).arg(folder);
    match cpu_and_output(&mut command) {
        Ok((_, name)) => name.trim().to_owned(),
        Err(_) => "unknown file system".into(),
    }
}

impl Bench<'_> {
    fn wants(&self, part: Part) -> bool {
        self.options.only.contains(&part)
    }

    fn hotcell(&self, state: &Path) -> Command {
        let mut command = Command::new(self.release.join("hotcell"));
        command
            .env_remove("HOTCELL_STORE")
            .arg("--store")
            .arg(state.join("store"))
            .arg("--state")
            .arg(state.join("state"));
        command
    }

    /// A tool at work on a graph. `files` holds what [`Graph::write`] wrote, `state` what the tool leaves.
    fn command(&self, tool: &Tool, action: Action, files: &Path, state: &Path) -> Command {
        let plan = action == Action::Plan;
        let jobs = self.jobs.to_string();
        let mut command = match tool {
            Tool::Make | Tool::Ninja => {
                let (program, file) = match tool {
                    Tool::Make => ("make", "Makefile"),
                    _ => ("ninja", "build.ninja"),
                };
                let mut command = Command::new(program);
                command
                    .env_remove("MAKEFLAGS")
                    .env_remove("MFLAGS")
                    .env_remove("MAKELEVEL");
                command.arg("-f").arg(files.join(file)).args(["-j", &jobs]);
                command.args(plan.then_some("-n"));
                command
            }
            Tool::Snakemake(python) => {
                let mut command = Command::new(python);
                command.args(["-m", "snakemake", "--quiet", "all", "--cores", &jobs]);
                command.arg("--snakefile").arg(files.join("Snakefile"));
                command.args(plan.then_some("-n"));
                command
            }
            Tool::Hotcell(manifest) => {
                let mut command = self.hotcell(state);
                let manifest = files.join(manifest);
                match action {
                    Action::Plan => command.arg("plan").arg(manifest),
                    Action::Run => command
                        .arg("run")
                        .arg(manifest)
                        .args(["--progress", "none", "-j", &jobs]),
                };
                command
            }
        };
        command.current_dir(state);
        command
    }

    /// A folder for what a tool leaves.
    fn state(&self, name: &str, fresh: bool) -> Result<PathBuf, Failure> {
        let folder = self.lab.join("work").join(name.replace([' ', '/'], "-"));
        if fresh {
            remove_tree(&folder)?;
        }
        fs::create_dir_all(&folder)?;
        Ok(folder)
    }

    /// Plan, cold run, cached run and plan of what is cached, of one graph.
    fn graph(&mut self, graph: Graph) -> Result<(), Failure> {
        let files = self.lab.join(format!("{}-{}", graph.shape.name(), graph.count));
        if [Part::Plan, Part::Cold, Part::Cached]
            .iter()
            .any(|part| self.wants(*part))
        {
            graph.write(&files)?;
        }
        let title = |what: &str| format!("{what}, {} of {}", graph.shape.name(), graph.count);
        if self.wants(Part::Plan) {
            let tools = [
                Tool::Make,
                Tool::Ninja,
                Tool::Hotcell("compact.toml"),
                Tool::Hotcell("literal.toml"),
                Tool::Hotcell("literal.yaml"),
            ];
            let title = title("plan, nothing stored");
            let turns = self.turns(&title, &tools, Action::Plan, &files, self.options.rounds, true)?;
            self.twice(&format!("{title}: hotcell against make -n"), &turns, &tools);
        }
        if !self.wants(Part::Cold) && !self.wants(Part::Cached) {
            return Ok(());
        }
        let tools = [
            Tool::Make,
            Tool::Ninja,
            Tool::Hotcell("compact.toml"),
            Tool::Hotcell(DISTINCT),
        ];
        let cold = title("cold run");
        let turns = self.turns(&cold, &tools, Action::Run, &files, self.slow_rounds(), true)?;
        // Jobs that say the same are done once: only jobs that differ are as many processes as make's.
        if let [make, .., ours] = turns.as_slice() {
            let each = |turns: &Turns| ms(turns.cpu()) / graph.jobs() as f64;
            self.limit(
                ours,
                &format!("{cold}, jobs that differ: CPU of hotcell per job"),
                each(ours),
                each(make) + 1.0,
                "ms",
            );
        }
        if self.wants(Part::Cached) {
            for (what, action) in [
                ("plan, all stored", Action::Plan),
                ("second run, all stored", Action::Run),
            ] {
                let title = title(what);
                let turns = self.turns(&title, &tools, action, &files, self.options.rounds, false)?;
                let name = if action == Action::Plan { "make -n" } else { "make" };
                self.twice(&format!("{title}: hotcell against {name}"), &turns, &tools);
            }
        }
        remove_tree(&self.lab.join("work"))?;
        Ok(())
    }

    fn slow_rounds(&self) -> usize {
        match self.options.count {
            0..=2000 => 3,
            _ => 1,
        }
    }

    /// Lets tools take turns. A tool that cannot do it is named, and has no turns.
    fn turns(
        &mut self,
        title: &str,
        tools: &[Tool],
        action: Action,
        files: &Path,
        rounds: usize,
        fresh: bool,
    ) -> Result<Vec<Turns>, Failure> {
        self.table.part(title);
        let mut all = vec![Turns::default(); tools.len()];
        let mut failed = vec![None; tools.len()];
        for _ in 0..rounds {
            for ((tool, turns), failed) in tools.iter().zip(&mut all).zip(&mut failed) {
                if failed.is_some() {
                    continue;
                }
                let state = self.state(&tool.name(), fresh)?;
                match cost(&mut self.command(tool, action, files, &state), 0) {
                    Ok(cost) => turns.add(cost),
                    Err(error) => *failed = Some(error.to_string()),
                }
            }
        }
        let peers: Vec<(String, Turns)> = tools
            .iter()
            .zip(&all)
            .filter(|(tool, _)| !matches!(tool, Tool::Hotcell(_)))
            .map(|(tool, turns)| (tool.name(), turns.clone()))
            .collect();
        for ((tool, turns), failed) in tools.iter().zip(&mut all).zip(&failed) {
            let held: Vec<(&str, &Turns)> = match tool {
                Tool::Hotcell(_) => peers.iter().map(|(name, turns)| (name.as_str(), turns)).collect(),
                _ => Vec::new(),
            };
            match failed {
                None => self.table.row(title, &tool.name(), turns, &held),
                Some(why) => {
                    self.table.left_out(title, &tool.name(), why);
                    *turns = Turns::default();
                }
            }
        }
        Ok(all)
    }

    /// A goal, where there is anything to judge.
    fn limit(&mut self, turns: &Turns, name: &str, measured: f64, most: f64, unit: &str) {
        if turns.cpu() > Duration::ZERO {
            self.table.goal(name, measured, most, unit);
            let peak = turns.peak_kib() as f64 / 1024.0;
            self.table.goal(&format!("{name}: its memory"), peak, PEAK, "MB");
        }
    }

    /// The goal of at most twice make's CPU time. The first tool is make.
    fn twice(&mut self, name: &str, turns: &[Turns], tools: &[Tool]) {
        let Some(make) = turns.first().filter(|make| make.cpu() > Duration::ZERO) else {
            return;
        };
        for (tool, ours) in tools.iter().zip(turns) {
            if *tool == Tool::Hotcell("compact.toml") {
                self.limit(ours, name, ratio(ours, make), 2.0, "x");
            }
        }
    }

    /// Ten times the jobs: not more for each.
    fn linear(&mut self) -> Result<(), Failure> {
        let tools = [Tool::Make, Tool::Hotcell(DISTINCT)];
        let counts = [self.options.count, self.options.count * 10];
        let mut each: Vec<Vec<f64>> = Vec::new();
        let steps = [
            ("plan, nothing stored", Action::Plan, 3, true),
            ("cold run", Action::Run, 1, true),
            ("plan, all stored", Action::Plan, 3, false),
            ("second run, all stored", Action::Run, 3, false),
        ];
        for count in counts {
            let shape = Shape::Fan;
            let graph = Graph { shape, count };
            let files = self.lab.join(format!("linear-{count}"));
            graph.write(&files)?;
            let mut found = Vec::new();
            for (what, action, rounds, fresh) in steps {
                let title = format!("{what}, fan of {count}");
                let turns = self.turns(&title, &tools, action, &files, rounds, fresh)?;
                let ours = turns.last().map_or(0.0, |turns| ms(turns.cpu()));
                found.push(ours / graph.jobs() as f64);
            }
            each.push(found);
            remove_tree(&self.lab.join("work"))?;
        }
        if let [few, many] = each.as_slice() {
            for (((what, ..), few), many) in steps.iter().zip(few).zip(many) {
                if *few > 0.0 && *many > 0.0 {
                    let name = format!("{what}: CPU per job of {} against {}", counts[1], counts[0]);
                    self.table.goal(&name, many / few, 1.15, "x");
                }
            }
        }
        Ok(())
    }

    /// Snakemake, on a graph that it can do.
    fn snakemake(&mut self) -> Result<(), Failure> {
        let count = SNAKEMAKE_COUNT.min(self.options.count);
        let graph = Graph {
            shape: Shape::Fan,
            count,
        };
        let files = self.lab.join("snakemake");
        graph.write(&files)?;
        let mut tools = vec![Tool::Make, Tool::Ninja, Tool::Hotcell(DISTINCT)];
        match python(&cache_folder()?, "snakemake", SNAKEMAKE, &[]) {
            Ok(python) => tools.push(Tool::Snakemake(python)),
            Err(error) => self.table.left_out("snakemake", "snakemake", &error.to_string()),
        }
        for (what, action, fresh) in [
            ("plan, nothing stored", Action::Plan, true),
            ("cold run", Action::Run, true),
            ("second run, all stored", Action::Run, false),
        ] {
            let title = format!("{what}, fan of {count}, beside Snakemake");
            self.turns(&title, &tools, action, &files, 1, fresh)?;
        }
        remove_tree(&self.lab.join("work"))?;
        Ok(())
    }
}
