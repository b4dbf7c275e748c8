//! `hotcell test`: an experiment against its goldens and expectations.

use std::path::PathBuf;

use hotcell_judge::golden::Goldens;
use hotcell_judge::{Check, Tally, expect, junit};
use hotcell_plan::expression::Evaluator;
use hotcell_schema::report::{InstanceReport, Report};

use crate::args::{Global, TestArgs};
use crate::exit::{Exit, Failure};
use crate::places;
use crate::session::{Planned, Ran};
use crate::{ui, verdicts};

/// Longest output that an expectation reads.
const MAX_OUTPUT: u64 = 64 << 20;

pub(crate) fn run(args: &TestArgs, global: &Global) -> Result<Exit, Failure> {
    if args.accept && places::in_ci() {
        return Err(
            Failure::usage("--accept is refused where CI is set: goldens are accepted by people")
                .help("run `hotcell test --accept` on your own machine and commit the golden files"),
        );
    }
    let Some(planned) = Planned::from_manifest(&args.manifest, global)? else {
        return Ok(Exit::Usage);
    };
    let ran = planned.run(&args.execute)?;
    let report = &ran.outcome.report;
    let slug = |instance: &InstanceReport| planned.slug(&instance.name);
    let goldens = goldens(&planned);
    // A variant or a `--set` may leave out what the experiment as it is written has.
    let whole = args.manifest.variant.is_empty() && args.manifest.set.is_empty();
    if let Some(goldens) = goldens.as_ref().filter(|_| args.accept) {
        let changed = goldens
            .accept(report, &slug, whole)
            .map_err(|error| Failure::host(error.to_string()))?;
        for path in &changed {
            let did = if path.exists() { "accepted" } else { "removed" };
            ui::say(&format!("{did} {}", path.display()));
        }
        ui::say(&format!("{} golden files changed", changed.len()));
    }
    let mut checks = expectations(&planned, &ran, report);
    if let Some(goldens) = &goldens {
        checks.extend(
            goldens
                .check(report, &slug)
                .map_err(|error| Failure::host(error.to_string()))?,
        );
    }
    if let Some(path) = &args.junit {
        let xml = junit::junit(&planned.plan.name, &checks)
            .map_err(|error| Failure::host(format!("the JUnit file cannot be made: {error}")))?;
        fs_err::write(path, xml)?;
    }
    let exit = if args.json {
        let tally = Tally::of(&checks);
        ui::out(&ui::json(
            &serde_json::json!({"format": "hotcell-test", "version": 1, "tally": tally, "checks": checks}),
        )?);
        verdicts::exit(tally)
    } else {
        if goldens.is_none() && planned.plan.expect.is_empty() {
            ui::say("the manifest has neither `golden` nor `expect`: nothing is judged");
        }
        verdicts::print(&checks)
    };
    ui::say(&format!(
        "report: {}",
        ran.folder.path().join("report.html").display()
    ));
    // What was judged as not met is told first, whatever else could not be judged; a person's stop is neither.
    Ok(match (ran.exit(), exit) {
        (Exit::Interrupted, _) => Exit::Interrupted,
        (_, Exit::NotMet) => Exit::NotMet,
        (Exit::Ok, judged) => judged,
        (other, _) => other,
    })
}

/// The goldens of the manifest, where it asks for any: beside the manifest, in a folder of its name.
fn goldens(planned: &Planned) -> Option<Goldens> {
    let wanted = planned.plan.golden.as_ref()?;
    let folder: PathBuf = planned.plan.folder.join("golden").join(&planned.plan.name).into();
    let stages = wanted.stages.iter().map(|stage| stage.value.clone()).collect();
    Some(Goldens::new(folder, wanted.select.clone(), stages))
}

fn expectations(planned: &Planned, ran: &Ran, report: &Report) -> Vec<Check> {
    let evaluator = Evaluator::default();
    let evaluate = |expression: &str, values: &serde_json::Value| {
        evaluator
            .truth(expression, values)
            .map_err(|error| error.to_string())
    };
    let read = |instance: &InstanceReport, port: &str| {
        let output = instance
            .outputs
            .get(port)
            .filter(|output| output.length <= MAX_OUTPUT)?;
        fs_err::read(ran.folder.result().join(&output.path)).ok()
    };
    expect::check(
        &planned.plan.expect,
        report,
        &expect::Context {
            evaluate: &evaluate,
            read: &read,
        },
    )
}
