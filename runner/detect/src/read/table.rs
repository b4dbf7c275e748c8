//! Tables with a fixed set of keys, single values, did-you-mean.

use crate::source::{Entry, Node, Place, Problems, Value};

/// Longest text in a rule, in bytes.
pub(crate) const MAX_LENGTH: usize = 4096;

/// A table whose keys are asked for one by one; what was not asked for is a mistake.
pub(crate) struct Table<'n> {
    what: String,
    at: Place,
    entries: &'n [Entry],
    asked: Vec<&'static str>,
}

impl<'n> Table<'n> {
    /// The node as a table. `what` names it in messages.
    pub(crate) fn of(node: &'n Node, what: &str, problems: &mut Problems<'_>) -> Option<Self> {
        match &node.value {
            Value::Table(entries) => {
                for (index, entry) in entries.iter().enumerate() {
                    // TOML refuses this itself.
                    if entries.iter().take(index).any(|before| before.key == entry.key) {
                        let message = format!("`{}` stands twice", entry.key);
                        problems.add("rules/duplicate", entry.at, message, None);
                    }
                }
                Some(Self {
                    what: what.to_owned(),
                    at: node.at,
                    entries,
                    asked: Vec::new(),
                })
            }
            _ => {
                let message = format!("{what} is a table, here is {}", node.type_name());
                problems.add("rules/type", node.at, message, None);
                None
            }
        }
    }

    /// The value of a key, if it is there.
    pub(crate) fn take(&mut self, key: &'static str) -> Option<&'n Node> {
        self.asked.push(key);
        self.entries
            .iter()
            .find(|entry| entry.key == key)
            .map(|entry| &entry.node)
    }

    /// The value of a key that must be there.
    pub(crate) fn require(&mut self, key: &'static str, problems: &mut Problems<'_>) -> Option<&'n Node> {
        let node = self.take(key);
        if node.is_none() {
            problems.add(
                "rules/missing",
                self.at,
                format!("{} has no `{key}`", self.what),
                None,
            );
        }
        node
    }

    /// The entries whose keys nobody asked for.
    pub(crate) fn rest(&self) -> impl Iterator<Item = &'n Entry> {
        self.entries
            .iter()
            .filter(|entry| !self.asked.iter().any(|key| *key == entry.key))
    }

    /// Say which keys are unknown.
    pub(crate) fn finish(self, problems: &mut Problems<'_>) {
        for entry in self.rest() {
            let help = did_you_mean(&entry.key, self.asked.iter().copied())
                .or_else(|| Some(format!("known: {}", self.asked.join(", "))));
            let message = format!("{} has no key `{}`", self.what, clip(&entry.key));
            problems.add("rules/unknown-key", entry.at, message, help);
        }
    }
}

/// The start of a text, for messages.
pub(crate) fn clip(text: &str) -> String {
    if text.chars().nth(60).is_some() {
        text.chars().take(60).chain(['…']).collect()
    } else {
        text.to_owned()
    }
}

/// `did you mean …?`, when a known name is near.
pub(crate) fn did_you_mean<'k>(given: &str, known: impl IntoIterator<Item = &'k str>) -> Option<String> {
    if given.len() > 64 {
        return None;
    }
    let limit = |name: &str| (given.len().max(name.len()) / 3).clamp(1, 3);
    known
        .into_iter()
        .map(|name| (strsim::osa_distance(given, name), name))
        .filter(|(distance, name)| *distance <= limit(name))
        .min()
        .map(|(_, name)| format!("did you mean `{name}`?"))
}

/// A text of bounded length.
pub(crate) fn text<'n>(node: &'n Node, key: &str, problems: &mut Problems<'_>) -> Option<&'n str> {
    match &node.value {
        Value::Text(text) if text.len() > MAX_LENGTH => {
            let message = format!("`{key}` is longer than {MAX_LENGTH} bytes");
            problems.add("rules/too-large", node.at, message, None);
            None
        }
        Value::Text(text) => Some(text),
        _ => {
            let message = format!("`{key}` is a text, here is {}", node.type_name());
            problems.add("rules/type", node.at, message, None);
            None
        }
    }
}

/// One of a few names.
pub(crate) fn name_of<'k>(
    node: &Node,
    key: &str,
    names: &[&'k str],
    problems: &mut Problems<'_>,
) -> Option<&'k str> {
    let given = text(node, key, problems)?;
    let found = names.iter().copied().find(|name| *name == given);
    if found.is_none() {
        let help = did_you_mean(given, names.iter().copied());
        let message = format!("`{key}` is one of {}, not `{}`", names.join(", "), clip(given));
        problems.add("rules/unknown-name", node.at, message, help);
    }
    found
}

/// A list of bounded length; empty when it is something else.
pub(crate) fn list<'n>(node: &'n Node, key: &str, max: usize, problems: &mut Problems<'_>) -> &'n [Node] {
    match &node.value {
        Value::List(items) if items.len() > max => {
            let message = format!("`{key}` has {} items; at most {max} are read", items.len());
            problems.add("rules/too-large", node.at, message, None);
            &[]
        }
        Value::List(items) => items,
        _ => {
            let message = format!("`{key}` is a list, here is {}", node.type_name());
            problems.add("rules/type", node.at, message, None);
            &[]
        }
    }
}

/// A number from 0 to 2^32-1, or what stands in its place.
pub(crate) fn number_or(node: Option<&Node>, key: &str, otherwise: u32, problems: &mut Problems<'_>) -> u32 {
    match node {
        None => otherwise,
        Some(node) => whole(node, key, 0, u32::MAX as usize, problems)
            .and_then(|number| u32::try_from(number).ok())
            .unwrap_or(otherwise),
    }
}

/// A whole number in a range.
pub(crate) fn whole(
    node: &Node,
    key: &str,
    min: usize,
    max: usize,
    problems: &mut Problems<'_>,
) -> Option<usize> {
    let number = match node.value {
        Value::Integer(number) => usize::try_from(number).ok(),
        _ => None,
    };
    let number = number.filter(|number| (min..=max).contains(number));
    if number.is_none() {
        let message = format!("`{key}` is a whole number from {min} to {max}");
        problems.add("rules/type", node.at, message, None);
    }
    number
}

/// A span of virtual time in nanoseconds: `10s`, `500ms`, `2m`.
pub(crate) fn duration(node: &Node, key: &str, problems: &mut Problems<'_>) -> Option<u64> {
    let nanoseconds = match &node.value {
        Value::Text(text) => parse_duration(text),
        _ => None,
    };
    if nanoseconds.is_none() {
        let message = format!("`{key}` is a span of time");
        let help = "a whole number and a unit: ns, us, ms, s, m, h; for instance \"10s\"";
        problems.add("rules/type", node.at, message, Some(help.into()));
    }
    nanoseconds
}

fn parse_duration(text: &str) -> Option<u64> {
    let digits = text.find(|character: char| !character.is_ascii_digit())?;
    let (number, unit) = text.split_at_checked(digits)?;
    let factor: u64 = match unit {
        "ns" => 1,
        "us" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_of_time() {
        assert_eq!(parse_duration("10s"), Some(10_000_000_000));
        assert_eq!(parse_duration("500ms"), Some(500_000_000));
        assert_eq!(parse_duration("2h"), Some(7_200_000_000_000));
        for bad in ["", "10", "s", "-1s", "1.5s", "10 s", "99999999999999999h", "1d"] {
            assert_eq!(parse_duration(bad), None, "{bad}");
        }
    }

    #[test]
    fn near_names_are_offered() {
        assert_eq!(
            did_you_mean("pth", ["op", "path"]),
            Some("did you mean `path`?".into())
        );
        assert_eq!(did_you_mean("colour", ["op", "path"]), None);
    }
}
