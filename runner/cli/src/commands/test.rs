//! `hotcell test`: an experiment against its goldens and expectations.

mod gaps;
mod review;
mod shared;

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use hotcell_judge::golden::{Accepted, Goldens, Run};
use hotcell_judge::{expect, html, junit};
use hotcell_plan::expression::Evaluator;
use hotcell_plan::plan::Wire;
use hotcell_plan::{AxisValue, Plan};
use hotcell_schema::golden::GoldenFile;
use hotcell_schema::report::InstanceReport;
use hotcell_schema::stage::StageType;
use hotcell_schema::verdict::{Check, Tally, Verdict, Verdicts};

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
    let shared = match &planned.plan.golden {
        Some(_) => shared::check(&planned, &args.manifest.manifest)?,
        None => {
            if args.accept {
                ui::say(&format!(
                    "{} nothing is to be accepted: the manifest has no `golden`; `[golden]` in TOML, or `golden: {{}}` in \
                     YAML, makes all results goldens",
                    ui::styled(ui::YELLOW, "note:")
                ));
            }
            false
        }
    };
    // Learning from what is stored would be learning from one run only; and what is said to be exact is held to it, where
    // that is not in the nature of its engine.
    let again = if args.repeat.is_some() {
        let commands = planned
            .plan
            .stages
            .iter()
            .filter(|(_, stage)| stage.uses == "command");
        let commands = commands.map(|(name, _)| name.clone());
        observed.iter().cloned().chain(commands).collect()
    } else {
        BTreeSet::new()
    };
    let ran = planned.run_again(&args.execute, &again)?;
    let cut = ran
        .outcome
        .report
        .instances
        .iter()
        .filter(|one| one.is_cut_short());
    let cut = cut.map(|one| one.name.as_str()).collect();
    let cut_short = gaps::of_cut_short(&planned.plan, &cut);
    let mut gaps = cut_short.clone();
    gaps.extend(gaps::of_absent(&planned.plan));
    let mut unseen = cut_short;
    unseen.extend(gaps::of_not_run(&planned.plan, &ran.not_run().collect()));
    let judging = Judging {
        goldens: goldens(&planned, args, &observed, shared).map(|all| all.with_gaps(gaps.clone())),
        gaps,
        unseen,
        ran: &ran,
        files: Files::new(ran.folder.result(), &planned.places.store),
    };
    let refused = match &judging.goldens {
        Some(goldens) if args.accept && !ran.outcome.stopped => {
            let again = if again.is_empty() { &observed } else { &again };
            accept(goldens, &judging, &planned, args, again)?
        }
        _ => Vec::new(),
    };
    if args.review {
        match &judging.goldens {
            Some(goldens) => review::review(goldens, judging.run(), args.full)?,
            None => ui::out("nothing to review: the manifest has no `golden`"),
        }
    }
    let mut checks = judging.expectations(&planned);
    let of_goldens = judging.golden_checks()?;
    if judging.goldens.is_some() && of_goldens.is_empty() && planned.selection.is_none() {
        ui::say(&format!(
            "{} no golden is judged: no stage gives what `golden.select` and `golden.stages` choose",
            ui::styled(ui::YELLOW, "note:")
        ));
    }
    checks.extend(of_goldens);
    for refused in refused {
        checks.retain(|check| (&check.name, &check.subject) != (&refused.name, &refused.subject));
        checks.push(refused);
    }
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
    // That a sample cannot be run is expected where somebody said so, in an expectation or a golden.
    let met = checks.iter().filter(|check| check.verdict == Verdict::Met);
    let expected = met.map(|check| check.subject.as_str()).collect();
    Ok(match (ran.exit_but(&expected), judged) {
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
    /// What is missing of what instances read.
    gaps: HashMap<String, String>,
    /// What is missing of what instances read because samples could not be run, or not to their end. An expectation about these is
    /// neither met nor not; a golden was accepted by a person, and may be of a sample that cannot be run.
    unseen: HashMap<String, String>,
}

impl Judging<'_> {
    fn run(&self) -> Run<'_> {
        Run {
            report: &self.ran.outcome.report,
            contents: &self.files,
        }
    }

    fn expectations(&self, planned: &Planned) -> Vec<Check> {
        let evaluator = Evaluator::default();
        let evaluate = |expression: &str, values: &serde_json::Value| {
            evaluator.truth(expression, values).map_err(|error| {
                let unknown = hotcell_plan::resolve::unknown(&evaluator, expression, values, &error);
                unknown.map_or(error.to_string(), |name| format!("`{name}` is not known here"))
            })
        };
        let literals = literals(&planned.plan);
        let axis = |instance: &InstanceReport, axis: &str| {
            let text = instance.axes.get(axis)?;
            let key = (instance.stage.as_str(), axis, text.clone());
            literals.get(&key).map(|value| (*value).clone())
        };
        let result = self.ran.folder.result();
        let read = |instance: &InstanceReport, port: &str| {
            contents::read(&result, &instance.outputs.get(port)?.path, MAX_OUTPUT)
        };
        let context = expect::Context {
            evaluate: &evaluate,
            axis: &axis,
            read: &read,
        };
        let mut checks = expect::check(&planned.plan.expect, &self.ran.outcome.report, &context);
        for check in &mut checks {
            if let (Verdict::NotMet(_), Some(gap)) = (&check.verdict, self.gaps.get(&check.subject)) {
                check.verdict = Verdict::NotJudged(gap.clone());
            }
            if let Some(gap) = self.unseen.get(&check.subject) {
                check.verdict = Verdict::NotJudged(gap.clone());
            }
        }
        checks
    }

    fn golden_checks(&self) -> Result<Vec<Check>, Failure> {
        let Some(goldens) = &self.goldens else {
            return Ok(Vec::new());
        };
        let judged = goldens
            .judge(self.run())
            .map_err(|error| Failure::host(error.to_string()))?;
        Ok(judged.into_iter().map(|judged| judged.check).collect())
    }
}

/// Values that the manifest writes out, by their stage, axis and text: a report has the text alone.
fn literals(plan: &Plan) -> HashMap<(&str, &str, String), &serde_json::Value> {
    let mut literals = HashMap::new();
    for instance in &plan.instances {
        for (axis, value) in &instance.axes {
            if let AxisValue::Literal(literal) = value {
                let key = (instance.stage.as_str(), axis.as_str(), plan.axis_text(value));
                literals.insert(key, literal);
            }
        }
    }
    literals
}

/// Makes what came out the new goldens, after as many runs as it takes; stages in `again` run in each of them, whatever is
/// stored. Answers with what was refused, because it is said to be exact and is not.
fn accept(
    goldens: &Goldens,
    judging: &Judging<'_>,
    planned: &Planned,
    args: &TestArgs,
    again: &BTreeSet<String>,
) -> Result<Vec<Check>, Failure> {
    let host = |error: hotcell_judge::golden::GoldenError| Failure::host(error.to_string());
    let runs = match args.repeat {
        Some(runs) => runs,
        None if goldens.has_to_learn(&judging.ran.outcome.report).map_err(host)? => LEARN,
        None => 1,
    };
    let mut more = Vec::new();
    for number in 2..=runs {
        ui::say(&format!("run {number} of {runs}"));
        let ran = planned.run_again(&args.execute, again)?;
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
    let done = goldens.accept(&all, args.repeat.is_some()).map_err(host)?;
    let (mut changed, mut refused) = (0, Vec::new());
    for one in done {
        match one {
            Accepted::Written(path) => {
                changed += 1;
                ui::say(&format!("accepted {}{}", path.display(), held(&path)));
            }
            Accepted::Removed(path) => {
                changed += 1;
                ui::say(&format!("removed {}", path.display()));
            }
            Accepted::Refused(check) => {
                ui::say(&format!("refused {}: it is not exact", ui::plain(&check.name)));
                refused.push(*check);
            }
        }
    }
    ui::say(&self::changed(changed));
    Ok(refused)
}

/// How many golden files are others now.
fn changed(files: usize) -> String {
    match files {
        1 => "1 golden file changed".to_owned(),
        many => format!("{many} golden files changed"),
    }
}

/// What a golden of facts holds, in words; of an exact one nothing is said.
fn held(path: &Path) -> String {
    let golden = fs_err::read(path).ok().map(|bytes| GoldenFile::read(&bytes));
    let Some(Ok(GoldenFile::Observed(golden))) = golden else {
        return String::new();
    };
    let must = golden
        .must
        .iter()
        .map(|task| task.in_order.len() + task.any_order.len());
    let may = golden.may.iter().map(|task| task.facts.len());
    format!(
        ": of {} runs, {} facts that must be and {} that may",
        golden.runs,
        must.sum::<usize>(),
        may.sum::<usize>()
    )
}

/// The goldens of the manifest, where it asks for any: beside the manifest, in a folder of its name; those of variants in one
/// of their own. `shared`: another manifest has goldens in it too.
fn goldens(planned: &Planned, args: &TestArgs, observed: &BTreeSet<String>, shared: bool) -> Option<Goldens> {
    let wanted = planned.plan.golden.as_ref()?;
    let mut name = planned.plan.name.clone();
    for (index, variant) in args.manifest.variant.iter().enumerate() {
        name.push(if index == 0 { '@' } else { '+' });
        name.push_str(variant);
    }
    let folder: PathBuf = planned.plan.folder.join("golden").join(name).into();
    let stages = wanted.stages.iter().map(|stage| stage.value.clone()).collect();
    // A `--set` may leave out what the experiment as it is written has, and so may a document that is a part of another.
    let whole = args.manifest.set.is_empty() && !shared;
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
            || instance
                .with
                .json()
                .get("observed")
                .and_then(serde_json::Value::as_bool)
                == Some(true);
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
