//! `inputs/<port>/index.json`: where each of the many things that are wired to a port came from, so that a program can put
//! them side by side.

use hotcell_plan::{AxisValue, Instance, Wire};
use hotcell_schema::command::{InputList, InputOrigin};
use hotcell_schema::digest::Digest;
use indexmap::IndexMap;

use crate::work::{self, Input, Shared};

/// What is put for one of many things.
pub(super) fn name(index: usize) -> String {
    format!("{index:04}")
}

/// Whether one thing is wired to a port, and not a list of things that happens to have one.
pub(crate) fn is_single(wires: &[Wire]) -> bool {
    matches!(wires, [one] if !matches!(one, Wire::All { .. } | Wire::Point { .. }))
}

/// Who gave what is wired to a port: an instance; `None` for what is no stage's output.
fn givers(shared: &Shared<'_>, wires: &[Wire]) -> Vec<Option<usize>> {
    let mut givers = Vec::new();
    for wire in wires {
        match wire {
            Wire::Output { instance, .. } => givers.push(Some(*instance)),
            Wire::All { .. } | Wire::Point { .. } => {
                givers.extend(
                    work::gives(shared, wire)
                        .into_iter()
                        .map(|(index, _)| Some(index)),
                );
            }
            Wire::Sample(_) | Wire::Item | Wire::Same { .. } => givers.push(None),
        }
    }
    givers
}

/// A digest of all that the index of a port says beside the digests of what is wired: names say stages and values of axes.
pub(crate) fn digest(shared: &Shared<'_>, wires: &[Wire]) -> Digest {
    let givers = givers(shared, wires).into_iter();
    let names = givers.map(|giver| {
        let instance = giver.and_then(|index| shared.table.instance(index));
        instance.map_or(&b""[..], |instance| instance.name.as_bytes())
    });
    Digest::of_parts(std::iter::once(&b"hotcell-inputs 1"[..]).chain(names))
}

/// The index of a port.
pub(super) fn of(shared: &Shared<'_>, wires: &[Wire], wired: &[Input<'_>]) -> InputList {
    let givers = givers(shared, wires);
    let inputs = wired.iter().enumerate().map(|(index, input)| {
        let instance = givers.get(index).copied().flatten();
        let instance = instance.and_then(|index| shared.table.instance(index));
        let origin = InputOrigin {
            path: name(index),
            digest: input.digest(),
            instance: None,
            stage: None,
            axes: IndexMap::new(),
            sample: None,
        };
        match (instance, input) {
            (Some(instance), _) => InputOrigin {
                instance: Some(instance.name.clone()),
                stage: Some(instance.stage.clone()),
                axes: shared.plan.axis_texts(instance),
                sample: sample(shared, instance),
                ..origin
            },
            (None, Input::Sample(sample)) => InputOrigin {
                sample: Some(sample.digest),
                ..origin
            },
            (None, Input::Stored(_)) => origin,
        }
    });
    InputList {
        inputs: inputs.collect(),
        ..InputList::default()
    }
}

/// The sample that an instance is about, if any.
fn sample(shared: &Shared<'_>, instance: &Instance) -> Option<Digest> {
    let index = instance.axes.values().find_map(|value| match value {
        AxisValue::Sample(index) => Some(*index),
        _ => None,
    })?;
    Some(shared.plan.samples.get(index)?.digest)
}
