//! A tree as TOML. Sections of the document (`[stages.run]`) are headers, everything below them is `key = value`; a table that
//! is too long for a line, or has comments, is written with dotted keys. So the order of keys is kept everywhere but at the
//! top, where TOML wants values before tables.

use super::comments::Comments;
use super::{WIDTH, float, hidden, quoted};
use crate::tree::{Entry, Node, Table, Value};

pub(super) fn write(root: &Node, comments: &mut Comments) -> String {
    let mut writer = Writer {
        out: String::new(),
        comments,
    };
    if let Value::Table(table) = &root.value {
        let (sections, plain): (Vec<_>, Vec<_>) =
            table.iter().partition(|(_, entry)| is_section(&entry.node));
        for (key, entry) in plain {
            writer.pair(&mut vec![key], entry);
        }
        for (key, entry) in sections {
            writer.section(key, entry);
        }
    }
    let rest = writer.comments.rest();
    if !rest.is_empty() && !writer.out.is_empty() {
        writer.out.push('\n');
    }
    writer.lines(&rest);
    writer.out
}

fn is_section(node: &Node) -> bool {
    match &node.value {
        Value::Table(table) => !table.is_empty(),
        Value::List(items) => !items.is_empty() && items.iter().all(|item| item.as_table().is_some()),
        _ => false,
    }
}

struct Writer<'a> {
    out: String,
    comments: &'a mut Comments,
}

impl Writer<'_> {
    fn lines(&mut self, lines: &[String]) {
        for line in lines {
            self.out.push_str(line);
            self.out.push('\n');
        }
    }

    fn apart(&mut self) {
        if !self.out.is_empty() && !self.out.ends_with("\n\n") {
            self.out.push('\n');
        }
    }

    fn section(&mut self, key: &str, entry: &Entry) {
        match &entry.node.value {
            Value::List(items) => {
                for item in items {
                    self.apart();
                    let mut above = self.comments.above(entry.key.start);
                    above.extend(self.comments.above(item.span.start));
                    self.lines(&above);
                    let beside = self.comments.beside(&[entry.key.start, item.span.start]);
                    self.out.push_str(&format!("[[{}]]{beside}\n", name(key)));
                    self.body(item.as_table());
                }
            }
            Value::Table(table) if table.values().all(|entry| entry.node.as_table().is_some()) => {
                for (inner, inner_entry) in table {
                    self.apart();
                    let mut above = self.comments.above(entry.key.start);
                    above.extend(self.comments.above(inner_entry.key.start));
                    self.lines(&above);
                    let beside = self.comments.beside(&[entry.key.start, inner_entry.key.start]);
                    self.out
                        .push_str(&format!("[{}.{}]{beside}\n", name(key), name(inner)));
                    self.body(inner_entry.node.as_table());
                }
            }
            _ => {
                self.apart();
                let above = self.comments.above(entry.key.start);
                self.lines(&above);
                let beside = self.comments.beside(&[entry.key.start]);
                self.out.push_str(&format!("[{}]{beside}\n", name(key)));
                self.body(entry.node.as_table());
            }
        }
    }

    fn body(&mut self, table: Option<&Table>) {
        for (key, entry) in table.into_iter().flatten() {
            self.pair(&mut vec![key], entry);
        }
    }

    /// `a.b.c = value`, in one line or several.
    fn pair<'k>(&mut self, path: &mut Vec<&'k str>, entry: &'k Entry) {
        if self.comments.apart(entry.key.start) && !self.out.ends_with("]\n") {
            self.apart();
        }
        let above = self.comments.above(entry.key.start);
        self.lines(&above);
        let keys = path.iter().map(|key| name(key)).collect::<Vec<_>>().join(".");
        let plain = !self.comments.has(&entry.node);
        if let Value::Table(table) = &entry.node.value
            && !table.is_empty()
        {
            let short = inline(&entry.node, self.comments);
            let fits = table.len() > 1 && keys.chars().count() + short.chars().count() + 3 <= WIDTH;
            if !(plain && fits) {
                let beside = self.comments.beside(&[entry.key.start]);
                if !beside.is_empty() {
                    self.lines(&[beside.trim_start().to_owned()]);
                }
                for (key, inner) in table {
                    path.push(key);
                    self.pair(path, inner);
                    path.pop();
                }
                return;
            }
        }
        let beside = [entry.key.start, entry.node.span.start];
        match &entry.node.value {
            Value::List(items) if !items.is_empty() => {
                let short = inline(&entry.node, self.comments);
                let own = self.comments.beside(&beside);
                if plain && keys.chars().count() + short.chars().count() + 3 <= WIDTH {
                    self.out.push_str(&format!("{keys} = {short}{own}\n"));
                    return;
                }
                self.out.push_str(&format!("{keys} = [{own}\n"));
                for item in items {
                    let mut above = self.comments.above(item.span.start);
                    let own = if item.as_table().is_some() || matches!(item.value, Value::List(_)) {
                        above.extend(self.comments.within(item));
                        String::new()
                    } else {
                        self.comments.beside(&[item.span.start])
                    };
                    for line in above {
                        self.out.push_str(&format!("    {line}\n"));
                    }
                    self.out
                        .push_str(&format!("    {},{own}\n", inline(item, self.comments)));
                }
                self.out.push_str("]\n");
            }
            Value::Text(text) if text.contains('\n') && !text.contains('\r') => {
                let own = self.comments.beside(&beside);
                self.out
                    .push_str(&format!("{keys} = \"\"\"\n{}\"\"\"{own}\n", several_lines(text)));
            }
            _ => {
                let own = self.comments.beside(&beside);
                self.out
                    .push_str(&format!("{keys} = {}{own}\n", inline(&entry.node, self.comments)));
            }
        }
    }
}

/// A key as it is written.
fn name(key: &str) -> String {
    let bare = !key.is_empty()
        && key
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
    if bare { key.to_owned() } else { quoted(key) }
}

fn written(node: &Node, comments: &Comments) -> Option<String> {
    comments.number(node).map(str::to_owned)
}

/// A value in one line.
fn inline(node: &Node, comments: &Comments) -> String {
    match &node.value {
        // Told before: TOML has no word for it.
        Value::Null => "\"\"".into(),
        Value::Boolean(value) => value.to_string(),
        Value::Integer(value) => written(node, comments).unwrap_or_else(|| value.to_string()),
        Value::Float(value) => written(node, comments).unwrap_or_else(|| float(*value)),
        Value::Text(text) => {
            let literal = text.contains(['"', '\\']) && !text.contains('\'') && !text.chars().any(hidden);
            if literal {
                format!("'{text}'")
            } else {
                quoted(text)
            }
        }
        Value::List(items) => {
            let items: Vec<String> = items.iter().map(|item| inline(item, comments)).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Table(table) if table.is_empty() => "{}".into(),
        Value::Table(table) => {
            let pairs: Vec<String> = table
                .iter()
                .map(|(key, entry)| format!("{} = {}", name(key), inline(&entry.node, comments)))
                .collect();
            format!("{{ {} }}", pairs.join(", "))
        }
    }
}

/// A text between three quotes; the line break after the opening ones is not part of it.
fn several_lines(text: &str) -> String {
    let lines: Vec<String> = text
        .split('\n')
        .map(|line| {
            let inner = quoted(line);
            // Quotes need no escape here, unless three of them meet or they touch the closing ones.
            inner.get(1..inner.len() - 1).unwrap_or_default().to_owned()
        })
        .collect();
    lines.join("\n")
}
