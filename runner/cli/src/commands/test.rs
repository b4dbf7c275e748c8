//! `hotcell test`: an experiment against its goldens and expectations.

mod review;

use std::collections::BTreeSet;
use std::path::PathBuf;

use hotcell_judge::golden::{Accepted, Goldens, Run};
use hotcell_judge::{expect, html, junit};
use hotcell_plan::Plan;
use hotcell_plan::expression::Evaluator;
use hotcell_plan::plan::Wire;
use hotcell_schema::report::InstanceReport;
use hotcell_schema::stage::StageType;
use hotcell_schema::verdict::{Check, Tally, Verdicts};

use super::run::{dry, nothing_chosen};
use crate::args::{Global, TestArgs};
use crate::contents::{self, Files};
use crate::exit::{Exit, Failure};
use crate::places;
use crate::session::{Planned, Ran};
use crate::ui;
use crate::verdicts::{self, View};

/// Longest output that an expectation reads.
const MAX_OUTPUT: u64 = 64 << 20;
/// Runs that a stage whose results differ learns from, where nobody says otherwise.
const LEARN: u32 = 3;

pub(crate) fn run(args: &TestArgs, global: &Global) -> Result<Exit, Failure> {
    if args.accept && places::in_ci() {
        return Err(
            Failure::usage("--accept is refused where CI is set: goldens are accepted by people")
                .help("run `hotcell test --accept` on your own machine and commit the golden files"),
        );
    }
    if args.review {
        review::check()?;
    }
    if args.dry_run {
        let Some(planned) = Planned::chosen(&args.manifest, &args.choose, global)? else {
            return Ok(Exit::Usage);
        };
        return dry(&planned, args.execute.jobs, args.json);
    }
    let Some(planned) = Planned::chosen_to_run(&args.manifest, &args.choose, global)? else {
        return Ok(Exit::Usage);
    };
    if nothing_chosen(&planned) {
        return Ok(Exit::Ok);
    }
    let observed = observed_stages(&planned.plan);
    // Learning from what is stored would be learning from one run only.
    let again = if args.repeat.is_some() {
        observed.clone()
    } else {
        BTreeSet::new()
    };
    let ran = planned.run_again(&args.execute, &again)?;
    let judging = Judging {
        goldens: goldens(&planned, args, &observed),
        ran: &ran,
        files: Files::new(ran.folder.result(), &planned.places.store),
    };
    if let Some(goldens) = judging
        .goldens
        .as_ref()
        .filter(|_| args.accept && !ran.outcome.stopped)
    {
        accept(goldens, &judging, &planned, args, &observed)?;
    }
    if args.review {
        match &judging.goldens {
            Some(goldens) => review::review(goldens, judging.run(), args.full)?,
            None => ui::out("nothing to review: the manifest has no `golden`"),
        }
    }
    let checks = judging.checks(&planned)?;
    if let Some(path) = &args.junit {
        let xml = junit::junit(&planned.plan.name, &checks)
            .map_err(|error| Failure::host(format!("the JUnit file cannot be made: {error}")))?;
        fs_err::write(path, xml)?;
    }
    let tally = Tally::of(&checks);
    let judged = if args.json {
        ui::out(&ui::json(&Verdicts::of(checks.clone()))?);
        verdicts::exit(tally)
    } else if args.review {
        verdicts::tally(tally)
    } else {
        if judging.goldens.is_none() && planned.plan.expect.is_empty() {
            ui::say("the manifest has neither `golden` nor `expect`: nothing is judged");
        }
        verdicts::print(&checks, View::new(args.full))
    };
    if tally.not_met > 0 {
        let page = html::of_checks(&planned.plan.name, &checks)
            .map_err(|error| Failure::host(format!("the page cannot be made: {error}")))?;
        ran.folder
            .write("diff.html", page.as_bytes())
            .map_err(|error| Failure::host(error.to_string()))?;
        ui::say(&format!(
            "changes: {}",
            ran.folder.path().join("diff.html").display()
        ));
    }
    ui::say(&format!(
        "report: {}",
        ran.folder.path().join("report.html").display()
    ));
    // Of a part, only the part is judged; that nothing of it can be is not the same as well.
    let asks = judging.goldens.is_some() || !planned.plan.expect.is_empty();
    let judged = match planned.selection.is_some() && asks && checks.is_empty() {
        true => {
            ui::say("nothing of this part is judged: no golden and no expectation is about it");
            Exit::NotJudged
        }
        false => judged,
    };
    // What was judged as not met is told first, whatever else could not be judged; a person's stop is neither.
    Ok(match (ran.exit(), judged) {
        (Exit::Interrupted, _) => Exit::Interrupted,
        (_, Exit::NotMet) => Exit::NotMet,
        (Exit::Ok, judged) => judged,
        (other, _) => other,
    })
}

/// A run, with what it is held against.
struct Judging<'a> {
    goldens: Option<Goldens>,
    ran: &'a Ran,
    files: Files,
}

impl Judging<'_> {
    fn run(&self) -> Run<'_> {
        Run {
            report: &self.ran.outcome.report,
            contents: &self.files,
        }
    }

    /// Expectations first, then goldens.
    fn checks(&self, planned: &Planned) -> Result<Vec<Check>, Failure> {
        let evaluator = Evaluator::default();
        let evaluate = |expression: &str, values: &serde_json::Value| {
            evaluator
                .truth(expression, values)
                .map_err(|error| error.to_string())
        };
        let result = self.ran.folder.result();
        let read = |instance: &InstanceReport, port: &str| {
            contents::read(&result, &instance.outputs.get(port)?.path, MAX_OUTPUT)
        };
        let context = expect::Context {
            evaluate: &evaluate,
            read: &read,
        };
        let mut checks = expect::check(&planned.plan.expect, &self.ran.outcome.report, &context);
        if let Some(goldens) = &self.goldens {
            let judged = goldens
                .judge(self.run())
                .map_err(|error| Failure::host(error.to_string()))?;
            checks.extend(judged.into_iter().map(|judged| judged.check));
        }
        Ok(checks)
    }
}

/// Makes what came out the new goldens, after as many runs as it takes.
fn accept(
    goldens: &Goldens,
    judging: &Judging<'_>,
    planned: &Planned,
    args: &TestArgs,
    observed: &BTreeSet<String>,
) -> Result<(), Failure> {
    let runs = match args.repeat {
        Some(runs) => runs,
        None if goldens.has_to_learn(&judging.ran.outcome.report) => LEARN,
        None => 1,
    };
    let mut more = Vec::new();
    for number in 2..=runs {
        ui::say(&format!("run {number} of {runs}"));
        let ran = planned.run_again(&args.execute, observed)?;
        if ran.outcome.stopped {
            return Err(Failure::new(Exit::Interrupted, "stopped: nothing was accepted"));
        }
        let files = Files::new(ran.folder.result(), &planned.places.store);
        more.push((ran, files));
    }
    let mut all = vec![judging.run()];
    all.extend(more.iter().map(|(ran, files)| Run {
        report: &ran.outcome.report,
        contents: files,
    }));
    let changed = goldens
        .accept(&all, args.repeat.is_some())
        .map_err(|error| Failure::host(error.to_string()))?;
    for one in &changed {
        match one {
            Accepted::Written(path) => ui::say(&format!("accepted {}", path.display())),
            Accepted::Removed(path) => ui::say(&format!("removed {}", path.display())),
        }
    }
    ui::say(&format!("{} golden files changed", changed.len()));
    Ok(())
}

/// The goldens of the manifest, where it asks for any: beside the manifest, in a folder of its name.
fn goldens(planned: &Planned, args: &TestArgs, observed: &BTreeSet<String>) -> Option<Goldens> {
    let wanted = planned.plan.golden.as_ref()?;
    let folder: PathBuf = planned.plan.folder.join("golden").join(&planned.plan.name).into();
    let stages = wanted.stages.iter().map(|stage| stage.value.clone()).collect();
    // A variant or a `--set` may leave out what the experiment as it is written has.
    let whole = args.manifest.variant.is_empty() && args.manifest.set.is_empty();
    Some(Goldens::new(
        folder,
        wanted.select.clone(),
        stages,
        observed.clone(),
        whole,
    ))
}

/// The stages whose results differ from run to run: by their type, by their settings, or because they read what such a
/// stage gives.
fn observed_stages(plan: &Plan) -> BTreeSet<String> {
    let mut observed = BTreeSet::new();
    // Each instance comes after what it reads.
    for instance in &plan.instances {
        if observed.contains(&instance.stage) {
            continue;
        }
        let from = |index: &usize| {
            let before = plan.instances.get(*index);
            before.is_some_and(|before| observed.contains(&before.stage))
        };
        let by_itself = StageType::find(&instance.uses).is_some_and(|stage| !stage.exact)
            || instance.with.get("observed").and_then(serde_json::Value::as_bool) == Some(true);
        let wires = instance.inputs.values().flatten().chain(&instance.expands);
        let by_input = wires.into_iter().any(|wire| match wire {
            Wire::Output { instance, .. } => from(instance),
            Wire::Same { point, .. } | Wire::Point { point, .. } => from(point),
            Wire::All { stage, .. } => observed.contains(stage),
            Wire::Sample(_) | Wire::Item => false,
        });
        let reads = instance.when.iter().flat_map(|when| when.reads.values());
        let late = instance.late.iter().flat_map(|late| late.reads.values());
        if by_itself || by_input || reads.chain(late).any(from) {
            observed.insert(instance.stage.clone());
        }
    }
    observed
}
