//! The same graph for every tool. Each job does nothing; where a tool needs a file to know that it is done, it touches one.

use std::{fmt::Write as _, fs, path::Path};

use crate::common::Failure;

/// Form of a graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// A root, jobs that all come after it, and a join after all of these.
    Fan,
    /// A root, the same jobs in groups, a join for each group, and a last join after these.
    Layers,
}

/// Groups of [`Shape::Layers`].
const GROUPS: usize = 100;

impl Shape {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Fan => "fan",
            Self::Layers => "layers",
        }
    }
}

/// A graph with that many jobs between root and join.
#[derive(Debug, Clone, Copy)]
pub(super) struct Graph {
    pub shape: Shape,
    pub count: usize,
}

/// A job, and what it comes after.
struct Job {
    name: String,
    after: Vec<String>,
}

impl Graph {
    /// Jobs in all.
    pub(super) fn jobs(self) -> usize {
        self.all().len()
    }

    fn groups(self) -> usize {
        GROUPS.min(self.count).max(1)
    }

    /// Names of the middle jobs, group by group.
    fn middle(self) -> Vec<Vec<String>> {
        let groups = match self.shape {
            Shape::Fan => 1,
            Shape::Layers => self.groups(),
        };
        let name = |index: usize| format!("w{index:05}");
        let mut found = vec![Vec::new(); groups];
        for index in 0..self.count {
            if let Some(group) = found.get_mut(index * groups / self.count.max(1)) {
                group.push(name(index));
            }
        }
        found
    }

    fn all(self) -> Vec<Job> {
        let job = |name: &str, after: Vec<String>| Job {
            name: name.to_owned(),
            after,
        };
        let mut jobs = vec![job("root", Vec::new())];
        let mut joins = Vec::new();
        for (index, group) in self.middle().into_iter().enumerate() {
            jobs.extend(group.iter().map(|name| job(name, vec!["root".to_owned()])));
            match self.shape {
                Shape::Fan => joins = group,
                Shape::Layers => {
                    let name = format!("j{index:02}");
                    jobs.push(job(&name, group));
                    joins.push(name);
                }
            }
        }
        jobs.push(job("join", joins));
        jobs
    }

    /// Writes the files of all tools.
    pub(super) fn write(self, folder: &Path) -> Result<(), Failure> {
        fs::create_dir_all(folder)?;
        for (name, text) in [
            ("Makefile", self.makefile()?),
            ("build.ninja", self.ninja()?),
            ("Snakefile", self.snakefile()?),
            ("compact.toml", self.compact("")?),
            ("distinct.toml", self.compact(", \"${job}\"")?),
            ("literal.toml", self.toml()?),
            ("literal.yaml", self.yaml()?),
        ] {
            fs::write(folder.join(name), text)?;
        }
        Ok(())
    }

    /// make starts `touch` without a shell, so this is the least that it can do for a job. The first rule is the default.
    fn makefile(self) -> Result<String, Failure> {
        let mut text = String::from("all: join\n");
        for job in self.all() {
            write!(text, "{}: {}\n\ttouch $@\n", job.name, job.after.join(" "))?;
        }
        Ok(text)
    }

    fn ninja(self) -> Result<String, Failure> {
        let mut text = String::from("rule touch\n  command = touch $out\n");
        for job in self.all() {
            writeln!(text, "build {}: touch {}", job.name, job.after.join(" "))?;
        }
        text.push_str("default join\n");
        Ok(text)
    }

    /// Only of [`Shape::Fan`].
    fn snakefile(self) -> Result<String, Failure> {
        let mut text = String::from("rule all:\n    input: \"join\"\n");
        let mut rule = |name: &str, input: &str, output: &str| {
            write!(
                text,
                "rule {name}:\n    input: {input}\n    output: \"{output}\"\n    shell: \"touch {{output}}\"\n"
            )
        };
        rule("root", "", "root")?;
        rule("work", "\"root\"", "w{index}")?;
        let all = format!("[f\"w{{i:05}}\" for i in range({})]", self.count);
        rule("join", &all, "join")?;
        Ok(text)
    }

    /// One stage with an axis (a stage for each group), and fan-in by `[*]`. `argument` is what the jobs are given: jobs that
    /// say the same are one piece of work to hotcell, done once; with their name as an argument each is done.
    fn compact(self, argument: &str) -> Result<String, Failure> {
        let mut text = head("compact");
        text.push_str("[stages.root]\nuses = \"command\"\nwith.run = [\"true\"]\n");
        let mut joins = Vec::new();
        for (index, group) in self.middle().iter().enumerate() {
            let stage = match self.shape {
                Shape::Fan => "work".to_owned(),
                Shape::Layers => format!("work{index:02}"),
            };
            let values: Vec<String> = group.iter().map(|name| format!("\"{name}\"")).collect();
            write!(
                text,
                "[stages.{stage}]\nuses = \"command\"\nfor-each.job = [{}]\nin.root = \"stages.root.out.stdout\"\n\
                 with.run = [\"true\"{argument}]\n",
                values.join(", ")
            )?;
            let wired = format!("\"stages.{stage}[*].out.stdout\"");
            match self.shape {
                Shape::Fan => joins.push(wired),
                Shape::Layers => {
                    write!(
                        text,
                        "[stages.j{index:02}]\nuses = \"command\"\nin.all = {wired}\nwith.run = [\"true\"]\n"
                    )?;
                    joins.push(format!("\"stages.j{index:02}.out.stdout\""));
                }
            }
        }
        write!(
            text,
            "[stages.join]\nuses = \"command\"\nin.all = [{}]\nwith.run = [\"true\"]\n",
            joins.join(", ")
        )?;
        Ok(text)
    }

    /// A stage and a line for each job, and a line for each wire of a join: twice as many lines as jobs.
    fn toml(self) -> Result<String, Failure> {
        let mut text = head("literal");
        let jobs = self.all();
        text.push_str("[stages]\n");
        for job in jobs.iter().filter(|job| job.after.len() < 2) {
            let wired = match job.after.first() {
                Some(name) => format!("in.{name} = \"stages.{name}.out.stdout\", "),
                None => String::new(),
            };
            writeln!(
                text,
                "{} = {{ uses = \"command\", {wired}with.run = [\"true\"] }}",
                job.name
            )?;
        }
        for job in jobs.iter().filter(|job| job.after.len() > 1) {
            let name = &job.name;
            write!(
                text,
                "[stages.{name}]\nuses = \"command\"\nwith.run = [\"true\"]\n[stages.{name}.in]\n"
            )?;
            for name in &job.after {
                writeln!(text, "{name} = \"stages.{name}.out.stdout\"")?;
            }
        }
        Ok(text)
    }

    fn yaml(self) -> Result<String, Failure> {
        let mut text = String::from("hotcell: 1\nname: literal\nseed: 1\nstages:\n");
        for job in self.all() {
            let name = &job.name;
            if job.after.len() < 2 {
                let wired = match job.after.first() {
                    Some(name) => format!("in: {{ {name}: stages.{name}.out.stdout }}, "),
                    None => String::new(),
                };
                writeln!(
                    text,
                    "  {name}: {{ uses: command, {wired}with: {{ run: [\"true\"] }} }}"
                )?;
                continue;
            }
            write!(
                text,
                "  {name}:\n    uses: command\n    with: {{ run: [\"true\"] }}\n    in:\n"
            )?;
            for name in &job.after {
                writeln!(text, "      {name}: stages.{name}.out.stdout")?;
            }
        }
        Ok(text)
    }
}

fn head(name: &str) -> String {
    format!("hotcell = 1\nname = \"{name}\"\nseed = 1\n")
}
