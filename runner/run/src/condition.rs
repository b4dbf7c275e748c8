//! `when`, with the results of other stages that it reads.

use std::collections::BTreeMap;

use hotcell_plan::expression::{Evaluator, context_name, reads};
use hotcell_plan::{Instance, When};
use hotcell_schema::outcome::Status;
use serde_json::{Map, Value as Json, json};

use crate::work::{Done, Shared};

/// Whether an instance is wanted; the error is its status when it is not.
pub(crate) fn check(shared: &Shared<'_>, instance: &Instance) -> Result<(), Done> {
    let Some(when) = &instance.when else { return Ok(()) };
    // The items of another stage can be fewer.
    let open = when.reads.iter().find(|(_, index)| {
        let read = shared.table.instance(**index);
        read.is_some_and(|read| shared.plan.expansion_of(read).is_some())
    });
    if let Some((stage, _)) = open {
        let reason = format!("`{stage}` has no instance for this item");
        return Err(Done::without_outputs(Status::Skipped, reason));
    }
    let value = match when.value {
        Some(value) => Ok(value),
        None => {
            let mut context = shared.plan.context(instance);
            if let Json::Object(context) = &mut context {
                let results = results(shared, &when.reads, &when.expression)?;
                context.insert("stages".into(), Json::Object(results));
            }
            Evaluator::default().truth(&when.expression, &context)
        }
    };
    match value {
        Ok(true) => Ok(()),
        Ok(false) => Err(Done::without_outputs(
            Status::Skipped,
            match when.expression.trim() {
                "false" => "`when` is false".to_owned(),
                expression => format!("`when` is false: {expression}"),
            },
        )),
        // What a condition reads of a stage that did not end well is not there; that is no mistake of the manifest.
        Err(_) if let Some((stage, status)) = without_outputs(shared, when) => Err(Done::without_outputs(
            Status::Skipped,
            format!("`when` reads `{stage}`, which is {status}"),
        )),
        Err(error) => Err(Done::failed(
            format!("`when` cannot be evaluated: {error}"),
            when.expression.clone(),
        )),
    }
}

/// The first stage a condition reads that has no outputs, and how it ended.
fn without_outputs<'a>(shared: &Shared<'_>, when: &'a When) -> Option<(&'a str, &'static str)> {
    when.reads.iter().find_map(|(stage, index)| {
        let status = shared.of(*index)?.status;
        (!status.has_outputs()).then(|| (stage.as_str(), status.as_str()))
    })
}

/// `stages.<name>.out.<port>`, for the outputs that a text reads and that are JSON.
pub(crate) fn results(
    shared: &Shared<'_>,
    from: &BTreeMap<String, usize>,
    text: &str,
) -> Result<Map<String, Json>, Done> {
    let mut stages: Map<String, Json> = Map::new();
    let reads = reads(text);
    for (stage, index) in from {
        let (Some(read), Some(done)) = (shared.table.instance(*index), shared.of(*index)) else {
            continue;
        };
        let mut out = Map::new();
        for port in reads
            .iter()
            .filter(|read| read.stage == *stage)
            .filter_map(|read| read.port.as_deref())
        {
            let planned = shared.plan.stage_of(read);
            let readable = planned
                .and_then(|stage| stage.outputs.get(port))
                .is_some_and(|port| port.is_readable());
            let Some(stored) = done.outputs.get(port).filter(|_| readable) else {
                continue;
            };
            let documents = &shared.documents;
            let value = documents.get::<Json>(shared, stored, "a result that is read is no JSON")?;
            out.insert(port.to_owned(), Json::clone(&value));
        }
        // A result is the same whether it was stored or not; so must be what an expression sees of it.
        let status = match done.status {
            Status::Cached => Status::Ok,
            status => status,
        };
        stages.insert(context_name(stage), json!({"out": out, "status": status}));
    }
    Ok(stages)
}
