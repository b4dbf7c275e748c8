//! What a stage may multiply to: a document of a few lines can ask for any amount of work.

use hotcell_schema::manifest::Span;
use indexmap::IndexMap;
use serde_json::Value as Json;

use super::Shared;
use super::settings::Settled;
use crate::diagnostics::{Code, Diagnostic};
use crate::plan::{AxisValue, literal_text};
use crate::tree::Value as Tree;

/// Expressions of the settings of one stage, all of its instances together.
const MAX_EXPRESSIONS: usize = 2_000_000;
/// Bytes of the values and filled settings of one stage, all of its instances together.
const MAX_BYTES: usize = 512 << 20;

/// Why a stage is too much to plan: a document of a few lines may multiply to any amount of work.
pub(super) fn too_much(
    name: &str,
    axes: &IndexMap<String, Vec<AxisValue>>,
    count: usize,
    settled: Option<&Settled<'_>>,
) -> Option<String> {
    let (expressions, settings) = settled.map_or((0, 0), Settled::weight);
    let expressions = expressions.saturating_mul(count);
    if expressions > MAX_EXPRESSIONS {
        return Some(format!(
            "`with` of `{name}` has {expressions} expressions for all of its {count} instances, and {MAX_EXPRESSIONS} are the most"
        ));
    }
    let values = axes.values().fold(0usize, |all, values| {
        let length = values
            .iter()
            .fold(0usize, |all, value| all.saturating_add(weight(value)));
        let times = count / values.len().max(1);
        all.saturating_add(length.saturating_mul(times))
    });
    let bytes = values.saturating_add(settings.saturating_mul(count));
    (bytes > MAX_BYTES).then(|| {
        format!(
            "the values and settings of all {count} instances of `{name}` have more than {} MiB",
            MAX_BYTES >> 20
        )
    })
}

/// Bytes that a value takes in each instance, beside the fixed ones.
fn weight(value: &AxisValue) -> usize {
    fn each(value: &Json) -> usize {
        match value {
            Json::String(text) => text.len(),
            Json::Array(items) => items.iter().fold(8, |all, item| all.saturating_add(each(item))),
            Json::Object(table) => table.iter().fold(8, |all, (key, value)| {
                all.saturating_add(key.len()).saturating_add(each(value))
            }),
            _ => 8,
        }
    }
    match value {
        AxisValue::Literal(value) => each(value),
        AxisValue::Sample(_) | AxisValue::Item(_) => 0,
    }
}

/// Longest text that names an instance, in bytes.
const MAX_TEXT: usize = 4096;

/// A value of an axis that is too long to name an instance.
pub(super) fn too_long(
    shared: &Shared<'_>,
    stage: &str,
    axis: &str,
    span: Span,
    values: &[AxisValue],
) -> Option<Diagnostic> {
    let (index, length) = values.iter().enumerate().find_map(|(index, value)| match value {
        AxisValue::Literal(value) => {
            let length = literal_text(value).len();
            (length > MAX_TEXT).then_some((index, length))
        }
        _ => None,
    })?;
    let list = shared.tree.at(&["stages", stage, "for-each", axis]);
    let item = list.and_then(|list| match &list.value {
        Tree::List(items) => items.get(index).map(|item| item.span),
        _ => None,
    });
    let title = format!(
        "a value of the axis `{axis}` has {length} bytes, and names an instance: {MAX_TEXT} are the most"
    );
    Some(
        Diagnostic::error(Code::OutOfRange, item.unwrap_or(span), title).help(format!(
            "give it a name: `{{ name = \"short\", value = \"…\" }}`, and write `${{{axis}.value}}`"
        )),
    )
}
