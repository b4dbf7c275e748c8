//! Names of instances: from the values of their axes, never from their position.

use hotcell_schema::digest::Digest;
use hotcell_schema::names::{bounded, file_digits, readable};
use indexmap::IndexMap;
use serde_json::Value as Json;

use crate::plan::{AxisValue, Plan};

/// The name of an instance, `run[sample=<digest>]`, with its axes in the order of their names; that of a point has `*` for the values that are not known yet.
pub(crate) fn name(
    plan: &Plan,
    stage: &str,
    axes: &IndexMap<String, AxisValue>,
    point: Option<&str>,
) -> String {
    let mut name = stage.to_owned();
    let mut values: Vec<(&str, String)> = axes
        .iter()
        .map(|(axis, value)| (axis.as_str(), plain_or_quoted(&plan.axis_text(value))))
        .collect();
    if let Some(open) = point {
        let at = values.partition_point(|(axis, _)| *axis < open);
        values.insert(at, (open, "*".to_owned()));
    }
    for (index, (axis, text)) in values.into_iter().enumerate() {
        name.push(if index == 0 { '[' } else { ',' });
        name.push_str(axis);
        name.push('=');
        name.push_str(&text);
    }
    if name.len() > stage.len() {
        name.push(']');
    }
    name
}

/// The seed of an instance: from that of the manifest, the stage and the values.
pub(crate) fn seed(plan: &Plan, seed: u64, stage: &str, axes: &IndexMap<String, AxisValue>) -> Digest {
    let seed = seed.to_le_bytes();
    let texts: Vec<(&String, String)> = axes
        .iter()
        .map(|(axis, value)| (axis, plan.axis_text(value)))
        .collect();
    let head = [b"hotcell-seed 1".as_slice(), &seed, stage.as_bytes()];
    let parts = texts
        .iter()
        .flat_map(|(axis, text)| [axis.as_bytes(), text.as_bytes()]);
    Digest::of_parts(head.into_iter().chain(parts))
}

/// Paths of ports in the work folder of a program, as expressions see them.
pub(crate) fn paths<'a>(folder: &str, ports: impl Iterator<Item = &'a String>) -> Json {
    let paths = ports.map(|port| (port.clone(), Json::from(format!("{folder}/{port}"))));
    Json::Object(paths.collect())
}

fn plain_or_quoted(text: &str) -> String {
    let plain = !text.is_empty()
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"._/:+@-".contains(&byte));
    if plain {
        text.to_owned()
    } else {
        Json::String(text.to_owned()).to_string()
    }
}

/// A folder name that people can read: file names and values, and what makes them unique.
pub(crate) fn slug(plan: &Plan, axes: &IndexMap<String, AxisValue>) -> String {
    let mut out = String::new();
    // The plan knows its instances and tells two of one name apart. What a run comes upon, it does not know.
    let found = axes.values().any(|value| matches!(value, AxisValue::Item(_)));
    let cut = |digest: &Digest| {
        if found {
            file_digits(digest)
        } else {
            digest.short()
        }
    };
    for value in axes.values() {
        let text = plan.axis_text(value);
        let (readable, digest) = match value {
            AxisValue::Sample(index) => match plan.samples.get(*index) {
                Some(sample) => (readable(&sample.name), Some(cut(&sample.digest))),
                None => continue,
            },
            // Whoever made the file chose its name: only the digest keeps two of them apart, and it is not cut short.
            AxisValue::Item(item) => (readable(item.name()), Some(text)),
            AxisValue::Literal(_) => {
                let readable = readable(&text);
                let lossy = readable != text;
                (readable, lossy.then(|| cut(&Digest::of(text.as_bytes()))))
            }
        };
        if !out.is_empty() {
            out.push('_');
        }
        out.push_str(&readable);
        if let Some(digest) = digest {
            if !readable.is_empty() {
                out.push('-');
            }
            out.push_str(&digest);
        }
    }
    bounded(out)
}
