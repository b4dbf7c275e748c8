//! Secrets that are written out. They are looked for in each document by itself, before anything is merged or filled in: one
//! that is overridden, or stands in a variant that nobody asked for, is there for every reader all the same. Their text is
//! taken out of the sources, so that no diagnostic shows it.

use std::collections::BTreeSet;

use hotcell_schema::manifest::Span;

use super::Loader;
use crate::check;
use crate::tree::{Node, Value};
use crate::vars;

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Literals {
    /// Places that were told.
    told: BTreeSet<Span>,
    /// Variables that stand for passwords.
    names: BTreeSet<String>,
    /// Variables as each document sets them: their texts, and the variables that they name.
    set: Vec<(String, Vec<Span>, Vec<String>)>,
}

/// What a secret can say of where it is read.
const WAYS: [&str; 3] = ["file", "command", "env"];

impl Loader {
    /// Looks through one document as it is written.
    pub(super) fn literals(&mut self, root: &Node) {
        self.literals_of(root);
        let variants = root.get("variants").and_then(Node::as_table);
        for variant in variants.into_iter().flat_map(|variants| variants.values()) {
            self.literals_of(&variant.node);
        }
    }

    fn literals_of(&mut self, document: &Node) {
        let section = |name: &str| {
            let table = document.get(name).and_then(Node::as_table);
            table
                .into_iter()
                .flatten()
                .map(|(name, entry)| (name, &entry.node))
        };
        for (name, source) in section("sources") {
            if let Some(password) = source.get("password") {
                self.password(password, &["sources", name, "password"]);
            }
            if let Some(mirror) = source.get("mirror")
                && mirror.as_text().is_some_and(|address| address.contains('@'))
            {
                self.sources.hide(mirror.span);
            }
        }
        for (name, secret) in section("secrets") {
            let steps = ["secrets", name];
            match &secret.value {
                Value::Table(table) => {
                    let other = table.iter().filter(|(key, _)| !WAYS.contains(&key.as_str()));
                    for (_, entry) in other {
                        self.written_out(&entry.node, &steps);
                    }
                    let env = secret.get("env").filter(|env| !env.as_text().is_some_and(is_env));
                    if let Some(env) = env {
                        self.hide(env);
                    }
                }
                Value::Text(_) | Value::Integer(_) | Value::Float(_) => self.written_out(secret, &steps),
                _ => {}
            }
        }
        for (name, value) in section("vars") {
            let (mut places, mut names) = (Vec::new(), Vec::new());
            texts(value, &mut |node, text| {
                places.push(node.span);
                names.extend(vars::reads(text).map(|(name, _)| name.to_owned()));
            });
            self.literals.set.push((name.clone(), places, names));
        }
    }

    fn password(&mut self, password: &Node, steps: &[&str]) {
        match &password.value {
            Value::Text(text) if text.contains("${") => {
                let names = vars::reads(text).map(|(name, _)| name.to_owned());
                self.literals.names.extend(names);
            }
            Value::Table(table) => {
                for (_, entry) in table.iter().filter(|(key, _)| *key != "secret") {
                    self.written_out(&entry.node, steps);
                }
            }
            Value::Text(_) | Value::Integer(_) | Value::Float(_) | Value::List(_) => {
                self.written_out(password, steps);
            }
            Value::Null | Value::Boolean(_) => {}
        }
    }

    fn written_out(&mut self, node: &Node, steps: &[&str]) {
        self.hide(node);
        if self.literals.told.insert(node.span) {
            self.problems.push(check::literal_secret(node.span, steps));
        }
    }

    fn hide(&mut self, node: &Node) {
        match &node.value {
            Value::List(items) => items.iter().for_each(|item| self.hide(item)),
            Value::Table(table) => table.values().for_each(|entry| self.hide(&entry.node)),
            Value::Text(_) | Value::Integer(_) | Value::Float(_) => self.sources.hide(node.span),
            Value::Null | Value::Boolean(_) => {}
        }
    }

    /// Takes out the texts of variables that stand for passwords, in all documents.
    pub(super) fn hide_variables(&mut self) {
        let mut left: Vec<String> = self.literals.names.iter().cloned().collect();
        let mut done = BTreeSet::new();
        while let Some(name) = left.pop() {
            if !done.insert(name.clone()) {
                continue;
            }
            for (_, places, names) in self.literals.set.iter().filter(|(set, _, _)| *set == name) {
                places.iter().for_each(|place| self.sources.hide(*place));
                left.extend(names.iter().cloned());
            }
        }
    }

    /// Whether a mistake in a secret follows from one that was told.
    pub(super) fn follows_from_literal(&self, tree: &Node, path: &[&str]) -> bool {
        let place = match path {
            ["sources", name, "password", ..] => tree.at(&["sources", name, "password"]),
            ["secrets", name, ..] => tree.at(&["secrets", name]),
            _ => None,
        };
        place.is_some_and(|node| self.has_told(node))
    }

    fn has_told(&self, node: &Node) -> bool {
        self.literals.told.contains(&node.span)
            || match &node.value {
                Value::List(items) => items.iter().any(|item| self.has_told(item)),
                Value::Table(table) => table.values().any(|entry| self.has_told(&entry.node)),
                _ => false,
            }
    }
}

/// All texts and numbers but names of secrets.
fn texts(node: &Node, found: &mut dyn FnMut(&Node, &str)) {
    match &node.value {
        Value::Text(text) => found(node, text),
        Value::Integer(_) | Value::Float(_) => found(node, ""),
        Value::List(items) => items.iter().for_each(|item| texts(item, found)),
        Value::Table(table) => {
            let other = table.iter().filter(|(key, _)| *key != "secret");
            other.for_each(|(_, entry)| texts(&entry.node, found));
        }
        Value::Null | Value::Boolean(_) => {}
    }
}

fn is_env(text: &str) -> bool {
    text.contains("${")
        || !text.is_empty()
            && !text.starts_with(|first: char| first.is_ascii_digit())
            && text
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}
