//! `inspect/elf`: one file in `hotcell-inspect`.

use hotcell_cells::intake::Bounds;
use hotcell_plan::Instance;
use hotcell_schema::finding::Findings;
use hotcell_schema::job::{InspectJob, Job, JobResult};
use hotcell_schema::stage::InspectWith;
use indexmap::IndexMap;

use super::cell::{self, Allowed, Blobs};
use super::{required, settings};
use crate::work::{Done, Inputs, Shared};

pub(super) fn run(shared: &Shared<'_>, instance: &Instance, inputs: &Inputs<'_>) -> Result<Done, Done> {
    let with: InspectWith = settings(instance)?;
    let mut blobs = Blobs::default();
    let file = blobs.add(&shared.read(required(inputs, "file")?)?)?;
    let job = Job::Inspect(InspectJob {
        file,
        profiles: shared.options.profiles.to_vec(),
        max_strings: with.max_strings,
        disassemble: with.disassemble,
    });
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
    let JobResult::Inspect(result) = finished.result else {
        return Err(finished.known.wrong_result(finished.done));
    };
    let mut outputs = IndexMap::new();
    outputs.insert("info".to_owned(), super::put_json(shared, &result.info)?);
    outputs.insert(
        "findings".to_owned(),
        super::put_json(shared, &Findings::new(result.findings))?,
    );
    Ok(Done {
        outputs,
        ..finished.done
    })
}
