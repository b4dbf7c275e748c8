//! From the tree of a file to a rule. All mistakes of a file are collected, none stops the reading of the rest.
//!
//! | module | what it reads |
//! |---|---|
//! | this | what a rule says about itself, its scope, its inline tests |
//! | [`condition`] | `when`: any, all, not, match, count, sequence, inspect |
//! | [`pattern`] | patterns over events, predicates over facts |
//! | [`field_test`] | the test of one field |
//! | [`table`] | tables with a fixed set of keys, single values, did-you-mean |

pub(crate) mod condition;
pub(crate) mod field_test;
pub(crate) mod pattern;
pub(crate) mod table;

use hotcell_schema::event::{Event, Task, What, Witness};
use hotcell_schema::finding::Severity;
use hotcell_schema::respond::Action;
use serde_json::Value as Json;

use crate::attack;
use crate::condition::Scope;
use crate::fields::{self, FIELDS};
use crate::ruleset::{Compiled, InlineTest, Rule};
use crate::source::{Node, Place, Problems, Value};
use table::Table;

/// Version of the format of rule files.
pub(crate) const VERSION: i64 = 1;
/// The key that names format and version.
pub(crate) const FORMAT_KEY: &str = "hotcell-rule";
/// Bounds of one rule.
pub(crate) const MAX_TESTS: usize = 64;
pub(crate) const MAX_TEST_EVENTS: usize = 4096;
pub(crate) const MAX_ATTACK: usize = 16;
pub(crate) const MAX_TEXTS: usize = 64;
pub(crate) const MAX_ID: usize = 64;

/// Read one file.
pub(crate) fn rule(root: &Node, problems: &mut Problems<'_>, file: &str) -> Option<(Compiled, Place)> {
    let before = problems.count();
    let mut table = Table::of(root, "a rule", problems)?;
    match table.take(FORMAT_KEY) {
        None => problems.add(
            "rules/version",
            root.at,
            format!("the file does not begin with `{FORMAT_KEY} = {VERSION}`"),
            Some("the first key names the format and its version".into()),
        ),
        Some(node) => match node.value {
            Value::Integer(VERSION) => {}
            _ => problems.add(
                "rules/version",
                node.at,
                format!("this version reads rules of version {VERSION} only"),
                None,
            ),
        },
    }
    let id_node = table.require("id", problems);
    let id_place = id_node.map_or(root.at, |node| node.at);
    let id = id_node
        .and_then(|node| rule_id(node, problems))
        .unwrap_or_default();
    let title = text_of(&mut table, "title", true, problems);
    let description = text_of(&mut table, "description", true, problems);
    let severity = severity(&mut table, problems);
    let respond = respond(&mut table, problems);
    let attack = techniques(&mut table, problems);
    let references = texts_of(&mut table, "references", problems);
    let false_positives = texts_of(&mut table, "false-positives", problems);
    let scope = scope(&mut table, problems);
    let when = table.require("when", problems);
    let parsed = when.and_then(|node| condition::read(node, problems));
    let tests = inline_tests(&mut table, problems);
    table.finish(problems);
    if problems.count() > before {
        return None;
    }
    let (condition, leaves) = parsed?;
    let about = Rule {
        file: file.to_owned(),
        id,
        title,
        description,
        severity,
        respond,
        attack,
        references,
        false_positives,
    };
    let compiled = Compiled {
        about,
        scope,
        condition,
        leaves,
        tests,
    };
    Some((compiled, id_place))
}

fn rule_id(node: &Node, problems: &mut Problems<'_>) -> Option<String> {
    let id = table::text(node, "id", problems)?;
    let well_formed = |character: char| matches!(character, 'a'..='z' | '0'..='9' | '-' | '/' | '.' | '_');
    if id.is_empty() || id.len() > MAX_ID || !id.chars().all(well_formed) {
        problems.add(
            "rules/id",
            node.at,
            format!("`{id}` is not an id"),
            Some(format!(
                "at most {MAX_ID} characters of a-z, 0-9, `-`, `_`, `.`, `/`"
            )),
        );
        return None;
    }
    Some(id.to_owned())
}

fn text_of(table: &mut Table<'_>, key: &'static str, required: bool, problems: &mut Problems<'_>) -> String {
    let node = if required {
        table.require(key, problems)
    } else {
        table.take(key)
    };
    let text = node.and_then(|node| table::text(node, key, problems).map(|text| (node, text)));
    if let Some((node, text)) = text
        && text.trim().is_empty()
    {
        problems.add("rules/empty", node.at, format!("`{key}` is empty"), None);
    }
    text.map(|(_, text)| text.trim().to_owned()).unwrap_or_default()
}

fn texts_of(table: &mut Table<'_>, key: &'static str, problems: &mut Problems<'_>) -> Vec<String> {
    let Some(node) = table.take(key) else {
        return Vec::new();
    };
    let items = table::list(node, key, MAX_TEXTS, problems);
    items
        .iter()
        .filter_map(|item| table::text(item, key, problems).map(str::to_owned))
        .collect()
}

fn severity(table: &mut Table<'_>, problems: &mut Problems<'_>) -> Severity {
    let names = Severity::ALL.map(Severity::as_str);
    let Some(node) = table.require("severity", problems) else {
        return Severity::Info;
    };
    let name = table::name_of(node, "severity", &names, problems);
    Severity::ALL
        .into_iter()
        .find(|severity| Some(severity.as_str()) == name)
        .unwrap_or(Severity::Info)
}

fn respond(table: &mut Table<'_>, problems: &mut Problems<'_>) -> Option<Action> {
    let node = table.take("respond")?;
    if matches!(&node.value, Value::Text(text) if text == "dump") {
        let message = "the memory of a guest on the host's kernel cannot be written down yet";
        let help = "write `freeze`, and it stands still until its wall time is up";
        problems.add("rules/not-yet", node.at, message, Some(help.into()));
        return None;
    }
    let name = table::name_of(node, "respond", &Action::ALL.map(Action::as_str), problems);
    Action::ALL
        .into_iter()
        .find(|action| Some(action.as_str()) == name)
}

fn techniques(table: &mut Table<'_>, problems: &mut Problems<'_>) -> Vec<String> {
    let Some(node) = table.take("attack") else {
        return Vec::new();
    };
    let mut ids: Vec<String> = Vec::new();
    for item in table::list(node, "attack", MAX_ATTACK, problems) {
        let Some(id) = table::text(item, "attack", problems) else {
            continue;
        };
        if attack::technique(id).is_none() {
            let help = table::did_you_mean(id, attack::techniques().map(|technique| technique.id));
            let message = format!("`{id}` is not an ATT&CK technique of the project's table");
            problems.add("rules/unknown-technique", item.at, message, help);
        } else if ids.iter().any(|known| known == id) {
            problems.add("rules/duplicate", item.at, format!("`{id}` stands twice"), None);
        } else {
            ids.push(id.to_owned());
        }
    }
    ids
}

fn scope(table: &mut Table<'_>, problems: &mut Problems<'_>) -> Scope {
    let mut scope = Scope::default();
    let Some(node) = table.take("only") else {
        return scope;
    };
    let Some(mut only) = Table::of(node, "`only`", problems) else {
        return scope;
    };
    let mut budget = field_test::Budget::default();
    for (key, place) in [
        ("os", &mut scope.os),
        ("arch", &mut scope.arch),
        ("engine", &mut scope.engine),
    ] {
        *place = only
            .take(key)
            .and_then(|node| field_test::test(node, key, fields::Sort::Text, 0, &mut budget, problems));
    }
    only.finish(problems);
    scope
}

fn inline_tests(table: &mut Table<'_>, problems: &mut Problems<'_>) -> Vec<InlineTest> {
    let Some(node) = table.take("tests") else {
        return Vec::new();
    };
    table::list(node, "tests", MAX_TESTS, problems)
        .iter()
        .filter_map(|item| inline_test(item, problems))
        .collect()
}

fn inline_test(node: &Node, problems: &mut Problems<'_>) -> Option<InlineTest> {
    let mut table = Table::of(node, "a test", problems)?;
    let name = text_of(&mut table, "name", true, problems);
    let hit = table
        .require("expect", problems)
        .and_then(|node| table::name_of(node, "expect", &["hit", "miss"], problems))
        == Some("hit");
    let mut events = Vec::new();
    let mut clock = 0;
    if let Some(list) = table.take("events") {
        for (seq, item) in table::list(list, "events", MAX_TEST_EVENTS, problems)
            .iter()
            .enumerate()
        {
            let event = test_event(item, seq as u64, &mut clock, problems);
            events.extend(event);
        }
    }
    let info = table.take("info").map(Node::to_json);
    let evidence = texts_of(&mut table, "evidence", problems);
    let header = |table: &mut Table<'_>, key: &'static str, otherwise: &str| match table.take(key) {
        Some(node) => node.to_json().as_str().unwrap_or(otherwise).to_owned(),
        None => otherwise.to_owned(),
    };
    let arch = header(&mut table, "arch", "x86_64");
    let engine = header(&mut table, "engine", "unicorn/linux");
    table.finish(problems);
    Some(InlineTest {
        line: node.at.line,
        name,
        hit,
        events,
        info,
        evidence,
        arch,
        engine,
    })
}

/// A short event: `{ file = { op = "written", path = "/x" }, pid = 2, time = "1s" }`. What is left out: process 1, no
/// parent, image `/sample`, the time of the event before.
fn test_event(node: &Node, seq: u64, clock: &mut u64, problems: &mut Problems<'_>) -> Option<Event> {
    let mut table = Table::of(node, "an event", problems)?;
    let pid = table::number_or(table.take("pid"), "pid", 1, problems);
    let tid = table::number_or(table.take("tid"), "tid", pid, problems);
    let parent = table::number_or(table.take("parent"), "parent", u32::from(pid != 1), problems);
    let image = match table.take("image") {
        Some(node) => table::text(node, "image", problems)?.to_owned(),
        None => "/sample".to_owned(),
    };
    if let Some(node) = table.take("time")
        && let Some(time) = table::duration(node, "time", problems)
    {
        *clock = (*clock).max(time);
    }
    let mut what = None;
    for kind in &FIELDS {
        let Some(fields) = table.take(kind.name) else {
            continue;
        };
        if what.is_some() {
            problems.add("rules/test-event", fields.at, "an event has one kind", None);
        }
        what = Some((kind, fields));
    }
    let before = problems.count();
    table.finish(problems);
    let Some((kind, fields)) = what else {
        if problems.count() > before {
            return None;
        }
        let message = "an event needs a kind, for instance `file = { op = \"open\", path = \"/x\" }`";
        problems.add("rules/test-event", node.at, message, None);
        return None;
    };
    let json = Json::Object([(kind.name.to_owned(), fields.to_json())].into_iter().collect());
    let what: What = match serde_json::from_value(json.clone()) {
        Ok(what) => what,
        Err(error) => {
            problems.add(
                "rules/test-event",
                fields.at,
                format!("not an event: {error}"),
                None,
            );
            return None;
        }
    };
    refuse_lost_fields(&json, &what, kind.name, fields, problems);
    Some(Event {
        seq,
        time: *clock,
        witness: Witness::Engine,
        task: Task {
            pid,
            tid,
            parent,
            image,
        },
        what,
        raw: None,
    })
}

/// A field that the event's type does not know is lost when it is read: say so.
fn refuse_lost_fields(json: &Json, what: &What, kind: &str, fields: &Node, problems: &mut Problems<'_>) {
    let Ok(back) = serde_json::to_value(what) else {
        return;
    };
    let (Some(given), Some(kept)) = (json.get(kind).and_then(Json::as_object), back.get(kind)) else {
        return;
    };
    let Value::Table(entries) = &fields.value else {
        return;
    };
    for entry in entries {
        let harmless = given.get(&entry.key).is_some_and(|value| {
            // Left out when written, because it says nothing.
            value.as_array().is_some_and(Vec::is_empty) || value == "full"
        });
        if kept.get(&entry.key).is_none() && !harmless {
            let message = format!("an event of kind `{kind}` has no field `{}`", entry.key);
            problems.add("rules/unknown-field", entry.at, message, None);
        }
    }
}
