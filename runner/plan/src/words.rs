//! Words of a command line, and values of its environment: always texts, so that a number or truth value that `${}` puts
//! there is written out, as it would be among other text.

use serde_json::Value as Json;

use crate::tree::{Node, Value};

/// Settings of a command, filled in: `run` is a list of words, `env` a table of texts.
pub(crate) fn of_tree(with: &mut Node) {
    let Value::Table(table) = &mut with.value else {
        return;
    };
    if let Some(Value::List(run)) = table.get_mut("run").map(|entry| &mut entry.node.value) {
        run.iter_mut().for_each(written);
    }
    if let Some(Value::Table(env)) = table.get_mut("env").map(|entry| &mut entry.node.value) {
        env.values_mut().for_each(|entry| written(&mut entry.node));
    }
}

fn written(node: &mut Node) {
    if let Value::Integer(_) | Value::Float(_) | Value::Boolean(_) = node.value {
        node.value = Value::Text(node.to_json().to_string());
    }
}

/// The same of settings that are filled in while a run goes on.
pub(crate) fn of_json(with: &mut Json) {
    let write = |value: &mut Json| {
        if let Json::Number(_) | Json::Bool(_) = value {
            *value = Json::String(value.to_string());
        }
    };
    if let Some(run) = with.get_mut("run").and_then(Json::as_array_mut) {
        run.iter_mut().for_each(write);
    }
    if let Some(env) = with.get_mut("env").and_then(Json::as_object_mut) {
        env.values_mut().for_each(write);
    }
}
