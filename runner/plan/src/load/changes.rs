//! Variants and `--set`: changes on top of what the documents say.

use hotcell_schema::manifest::Span;

use super::{GIVEN, Loader, Options, SET};
use crate::diagnostics::{Code, Diagnostic};
use crate::tree::{self, Entry, Node, Value, origins};

impl Loader {
    /// Variants in the order in which they were asked for; each may change, and add, anything.
    pub(super) fn variants(&mut self, tree: &mut Node, options: &Options) {
        // A variant changes the manifest, not the variants: what they say is read before any of them is merged.
        let variants = tree
            .get("variants")
            .and_then(Node::as_table)
            .cloned()
            .unwrap_or_default();
        for name in &options.variants {
            let Some(entry) = variants.get(name) else {
                let problem =
                    Diagnostic::without_place(Code::Override, format!("there is no variant `{name}`"))
                        .did_you_mean(name, variants.keys().map(String::as_str));
                let listed = match variants.len() {
                    0 => "none".to_owned(),
                    _ => variants.keys().map(String::as_str).collect::<Vec<_>>().join(", "),
                };
                self.problems.push(match problem.help {
                    Some(_) => problem,
                    None => problem.help(format!("variants of this manifest: {listed}")),
                });
                continue;
            };
            let mut change = entry.node.clone();
            // Anything but a table is a mistake that the schema tells.
            let Value::Table(table) = &mut change.value else {
                continue;
            };
            self.unchangeable(
                table,
                "a variant",
                [
                    "documents are included before variants are looked at",
                    "a variant cannot hold variants",
                    "the version is the document's own",
                ],
            );
            let span = tree.span;
            origins::merge(tree, change, &mut self.origins);
            tree.span = span;
        }
    }

    /// What was read before changes are looked at, or is the document's own: told, never ignored.
    fn unchangeable(&mut self, table: &mut tree::Table, by: &str, why: [&str; 3]) {
        for (key, why) in ["include", "variants", "hotcell"].into_iter().zip(why) {
            if let Some(entry) = table.shift_remove(key) {
                let title = format!("`{key}` cannot be changed by {by}");
                self.problems
                    .push(Diagnostic::error(Code::Override, entry.key, title).label(why));
            }
        }
    }

    /// `--set`, last of all.
    pub(super) fn set(&mut self, tree: &mut Node, options: &Options) {
        for change in &options.set {
            let file = self.sources.add(SET, change.clone());
            match setting(file, change) {
                Some(mut node) => {
                    let span = tree.span;
                    self.literals(&node);
                    if let Value::Table(table) = &mut node.value {
                        self.unchangeable(
                            table,
                            "`--set`",
                            [
                                "documents are included before `--set` is looked at",
                                "variants are merged before `--set` is looked at",
                                "the version is the document's own",
                            ],
                        );
                    }
                    origins::merge(tree, node, &mut self.origins);
                    tree.span = span;
                }
                None => self.problems.push(
                    Diagnostic::error(
                        Code::Override,
                        Span {
                            file,
                            start: 0,
                            end: u32::try_from(change.len()).unwrap_or(0),
                        },
                        format!("`--set {change}` is not key.path=value"),
                    )
                    .help("for instance --set stages.run.limits.wall=5m"),
                ),
            }
        }
    }

    /// Options that stand for values. Whoever gave them knows nothing of keys: all of a value stands where its option does.
    pub(super) fn given(&mut self, tree: &mut Node, options: &Options) {
        for given in &options.given {
            let file = self.sources.add(GIVEN, given.option.clone());
            let place = Span {
                file,
                start: 0,
                end: u32::try_from(given.option.len()).unwrap_or(0),
            };
            match setting(file, &given.value) {
                Some(mut node) => {
                    stand_at(&mut node, place);
                    let span = tree.span;
                    origins::merge(tree, node, &mut self.origins);
                    tree.span = span;
                }
                None => {
                    let title = format!("`{}` has a value that cannot be read", given.option);
                    self.problems
                        .push(Diagnostic::error(Code::Override, place, title));
                }
            }
        }
    }
}

/// Makes all of a tree stand at one place.
fn stand_at(node: &mut Node, place: Span) {
    node.span = place;
    match &mut node.value {
        Value::List(list) => list.iter_mut().for_each(|node| stand_at(node, place)),
        Value::Table(table) => table.values_mut().for_each(|entry| {
            entry.key = place;
            stand_at(&mut entry.node, place);
        }),
        _ => {}
    }
}

/// `key.path=value` as a tree. The value is TOML; what is no TOML is a text, as shells leave it unquoted.
fn setting(file: u32, change: &str) -> Option<Node> {
    if let Some(node) = tree::toml::parse(file, change, &mut Vec::new()) {
        return node
            .as_table()
            .is_some_and(|table| !table.is_empty())
            .then_some(node);
    }
    let (key, value) = change.split_once('=')?;
    if key.contains('\n') {
        return None;
    }
    let mut node = tree::toml::parse(file, &format!("{key}=0"), &mut Vec::new())?;
    let text = value.trim();
    let at = |length: usize| u32::try_from(length).unwrap_or(u32::MAX);
    let start = change.len() - value.len() + (value.len() - value.trim_start().len());
    let leaf = Node {
        span: Span {
            file,
            start: at(start),
            end: at(start + text.len()),
        },
        value: Value::Text(text.to_owned()),
    };
    replace(&mut node, leaf).then_some(node)
}

/// Puts the value at the end of a path of tables with one key each.
fn replace(node: &mut Node, leaf: Node) -> bool {
    match &mut node.value {
        Value::Table(table) => match table.first_mut() {
            Some((_, Entry { node, .. })) => replace(node, leaf),
            None => false,
        },
        Value::Integer(0) => {
            *node = leaf;
            true
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_toml_or_texts() {
        let json = |change| setting(0, change).map(|node| node.to_json());
        assert_eq!(json("a.b=1"), Some(serde_json::json!({"a": {"b": 1}})));
        assert_eq!(json("a.b = 5m"), Some(serde_json::json!({"a": {"b": "5m"}})));
        assert_eq!(
            json("a.\"b c\"=x=y"),
            Some(serde_json::json!({"a": {"b c": "x=y"}}))
        );
        assert_eq!(json("a"), None);
        assert_eq!(json(""), None);
        assert_eq!(json("=1"), None);
        let place = setting(3, "a.b= 5m ").and_then(|node| node.at(&["a", "b"]).map(|b| b.span));
        assert_eq!(
            place,
            Some(Span {
                file: 3,
                start: 5,
                end: 7
            })
        );
    }
}
