//! The document against the schema, and into types.
//!
//! Nearly every document is right, so it is looked at once, without a copy, by [`crate::check::fits`]. Only what does not fit
//! is given to the library that says why; all mistakes are told at once. What has none is read into types all the same, so
//! that the planner finds its own.

use std::collections::BTreeSet;

use hotcell_schema::manifest::{Manifest, Span};

use super::Loader;
use crate::check;
use crate::diagnostics::{Code, Diagnostic, Severity};
use crate::tree::{self, Node, Value};

/// Sections in which each entry stands for itself: one with a mistake is left out, the others are read.
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
        for mistake in mistakes {
            let path: Vec<&str> = mistake.path.iter().map(String::as_str).collect();
            if let [section, name, ..] = path.as_slice()
                && let Some(section) = SECTIONS.into_iter().find(|known| known == section)
            {
                tainted.insert((section, (*name).to_owned()));
            }
            prune(&mut rest, &path);
            let follows = mistake.diagnostic.span().is_some_and(|span| told.contains(&span));
            if mistake.diagnostic.code == Code::LiteralSecret.as_str()
                && let Some(span) = mistake.diagnostic.span()
            {
                self.sources.hide(span);
            }
            if !follows {
                self.problems.push(mistake.diagnostic);
            }
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

/// Takes out what has a mistake: an entry of a section (a whole stage, one key of `cores`), or else the key at the top.
fn prune(root: &mut Node, path: &[&str]) {
    let Value::Table(table) = &mut root.value else {
        return;
    };
    match path {
        [section, name, ..] => {
            if let Some(Value::Table(inner)) = table.get_mut(*section).map(|entry| &mut entry.node.value) {
                inner.shift_remove(*name);
            } else {
                table.shift_remove(*section);
            }
        }
        [key] if *key != "hotcell" => {
            table.shift_remove(*key);
        }
        _ => {}
    }
}
