//! The document against the schema, and into types.
//!
//! Nearly every document is right, so it is looked at once, without a copy, by [`crate::check::fits`]. Only what does not fit
//! is given to the library that says why; all mistakes are told at once. What has none is read into types all the same, so
//! that the planner finds its own.

use std::collections::{BTreeSet, HashMap};

use hotcell_schema::manifest::{Manifest, Span};

use super::Loader;
use crate::check;
use crate::diagnostics::{Code, Diagnostic, Severity};
use crate::tree::{self, Node, Value};

/// Sections in which each entry stands for itself: one with a mistake is left out, or the part of it that has it; the others are
/// read.
const SECTIONS: [&str; 3] = ["stages", "samples", "sources"];

impl Loader {
    pub(super) fn check(
        &mut self,
        tree: &Node,
        tainted: &mut BTreeSet<(&'static str, String)>,
    ) -> Option<Manifest> {
        if check::fits(tree) {
            return self.typed(tree);
        }
        let (suspects, mut rest) = divided(tree);
        let mistakes = check::manifest(&suspects);
        // What is wrong in a place that has been told of follows from that.
        let told: BTreeSet<Span> = self.problems.iter().filter_map(Diagnostic::span).collect();
        let mut without = Without::default();
        for mistake in mistakes {
            let path: Vec<&str> = mistake.path.iter().map(String::as_str).collect();
            if let [section, name, ..] = path.as_slice()
                && let Some(section) = SECTIONS.into_iter().find(|known| known == section)
            {
                tainted.insert((section, (*name).to_owned()));
                if section == "stages" {
                    let unknown = unknown_parts(&mistake);
                    tainted.extend(unknown.iter().map(|part| (*part, (*name).to_owned())));
                }
            }
            without.add(left_out(&path, &mistake));
            let follows = mistake.diagnostic.span().is_some_and(|span| told.contains(&span))
                || self.follows_from_literal(tree, &path);
            if mistake.diagnostic.code == Code::LiteralSecret.as_str()
                && let Some(span) = mistake.diagnostic.span()
            {
                self.sources.hide(span);
            }
            if !follows {
                self.problems.push(mistake.diagnostic);
            }
        }
        without.take_out(&mut rest);
        if let Value::Table(table) = &mut rest.value
            && let Some(Value::Table(stages)) = table.get_mut("stages").map(|entry| &mut entry.node.value)
        {
            stages.retain(|_, entry| {
                entry
                    .node
                    .get("uses")
                    .is_some_and(|uses| uses.as_text().is_some())
            });
        }
        self.typed(&rest)
    }

    fn typed(&mut self, tree: &Node) -> Option<Manifest> {
        match tree::read::read::<Manifest>(tree) {
            Ok(manifest) => Some(manifest),
            Err(error) => {
                // The schema tells all it knows; what is left is what only the reader knows.
                let told = self
                    .problems
                    .iter()
                    .any(|problem| problem.severity == Severity::Error);
                if !told {
                    self.problems.push(Diagnostic::error(
                        Code::WrongType,
                        error.span.unwrap_or(tree.span),
                        error.message,
                    ));
                }
                None
            }
        }
    }
}

/// The document without the entries that fit, for the library to judge; and a copy of the whole, to take out what does not.
fn divided(tree: &Node) -> (Node, Node) {
    let mut suspects = tree.clone();
    if let Value::Table(table) = &mut suspects.value {
        for section in SECTIONS {
            if let Some(Value::Table(entries)) = table.get_mut(section).map(|entry| &mut entry.node.value) {
                entries.retain(|name, entry| !check::entry_fits(section, name, &entry.node));
            }
        }
    }
    (suspects, tree.clone())
}

/// Which parts of a stage are not known when it has a mistake: what else is said of them would follow from it. With the axes,
/// the settings are unknown too, since they may name an axis.
fn unknown_parts(mistake: &check::Mistake) -> &'static [&'static str] {
    let key = match (mistake.meant(), mistake.missing()) {
        (Some(key), _) if mistake.path.len() == 3 => key,
        (_, Some(key)) if mistake.path.len() == 2 => key,
        _ => mistake.path.get(2).map_or("", String::as_str),
    };
    match key {
        "with" => &["with"],
        "for-each" => &["for-each", "with"],
        // What a key that is not known was to say is not known either.
        _ if mistake.path.len() == 3 && mistake.meant().is_none() && mistake.is_unknown_key() => {
            &["for-each", "with"]
        }
        _ => &[],
    }
}

/// What has to be left out for a mistake: of a stage the setting, input, axis or key that has it; another entry of a section
/// (a sample set, one key of `cores`); or else the key at the top.
fn left_out<'a>(path: &[&'a str], mistake: &check::Mistake) -> Vec<&'a str> {
    match path {
        // What is missing cannot be left out.
        ["stages", _] | ["stages", _, "in"] if mistake.missing().is_some() => Vec::new(),
        ["stages", name, "uses", ..] => vec!["stages", *name],
        [
            "stages",
            name,
            part @ ("in" | "with" | "for-each" | "limits" | "needs"),
            inner,
            ..,
        ] => {
            vec!["stages", *name, *part, *inner]
        }
        ["stages", name, key, ..] => vec!["stages", *name, *key],
        [section, name, ..] => vec![*section, *name],
        [key] if *key != "hotcell" => vec![*key],
        _ => Vec::new(),
    }
}

/// What is left out of a tree.
#[derive(Debug, Default)]
struct Without {
    whole: bool,
    inner: HashMap<String, Without>,
}

impl Without {
    fn add(&mut self, path: Vec<&str>) {
        let mut node = self;
        let deep = !path.is_empty();
        for step in path {
            node = node.inner.entry(step.to_owned()).or_default();
        }
        node.whole |= deep;
    }

    /// Takes it out, in one walk. Of what is no table or list, nothing can stay.
    fn take_out(&self, node: &mut Node) -> bool {
        if self.whole {
            return false;
        }
        match &mut node.value {
            Value::Table(table) => table.retain(|key, entry| {
                let inner = self.inner.get(key);
                inner.is_none_or(|inner| inner.take_out(&mut entry.node))
            }),
            Value::List(items) => {
                let mut index = 0usize;
                items.retain_mut(|item| {
                    let inner = self.inner.get(&index.to_string());
                    index += 1;
                    inner.is_none_or(|inner| inner.take_out(item))
                });
            }
            _ => return self.inner.is_empty(),
        }
        true
    }
}
