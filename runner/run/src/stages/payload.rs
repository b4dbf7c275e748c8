//! `unicorn/payload`: raw code in `hotcell-unicorn`.

use hotcell_cells::intake::Bounds;
use hotcell_plan::Instance;
use hotcell_schema::job::{Job, JobResult, PayloadJob};
use hotcell_schema::outcome::Status;
use hotcell_schema::stage::PayloadWith;

use super::cell::{self, Allowed, Blobs};
use super::{only, profile, put_json, settings};
use crate::work::{Done, Inputs, Shared};

/// Instructions a payload may run when the manifest sets no limit.
const DEFAULT_INSTRUCTIONS: u64 = 100_000_000;

pub(super) fn run(shared: &Shared<'_>, instance: &Instance, inputs: &Inputs<'_>) -> Result<Done, Done> {
    let with: PayloadWith = settings(instance)?;
    let arch = profile(shared, instance)?.clone();
    let mut blobs = Blobs::default();
    let code = match (only(inputs, "code"), &with.code) {
        (Some(input), None) => blobs.add(&shared.read(input)?)?,
        (None, Some(code)) => blobs.add(&code.0)?,
        (Some(_), Some(_)) => {
            return Err(Done::without_outputs(
                Status::Refused,
                "both `in.code` and `with.code` are there; one is needed",
            ));
        }
        (None, None) => {
            return Err(Done::without_outputs(
                Status::Refused,
                "neither `in.code` nor `with.code` is there",
            ));
        }
    };
    let job = Job::Payload(Box::new(PayloadJob {
        cell: instance.name.clone(),
        arch,
        code,
        address: with.address,
        until: with.until,
        registers: with.registers,
        memory: with.memory,
        want_registers: with.want_registers,
        want_memory: with.want_memory,
        instructions: shared
            .limits(instance)
            .guest
            .instructions
            .unwrap_or(DEFAULT_INSTRUCTIONS),
        trace: with.trace,
    }));
    let allowed = Allowed {
        ports: &[],
        header: None,
        bounds: Bounds {
            events: 0,
            outputs: 0,
            ..Bounds::default()
        },
    };
    let finished = cell::run(shared, instance, &job, &blobs, &allowed, &mut cell::Watch::Engine)?;
    let JobResult::Payload(result) = finished.result else {
        return Err(finished.known.wrong_result(finished.done));
    };
    let outputs = [("result".to_owned(), put_json(shared, &result)?)]
        .into_iter()
        .collect();
    Ok(Done {
        outputs,
        ..finished.done
    })
}
