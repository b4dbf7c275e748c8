//! What differs between two results: `hotcell diff --json` and the changes of `hotcell test --json`.
//!
//! A [`Change`] names a place by its meaning (`findings[persistence-cron].severity`, `outputs.result.registers.eax`), never by
//! where it stands in a file. Items of lists are matched by what identifies them. Texts and lists of lines are told in lines.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

/// Name of the format of two runs side by side.
pub const FORMAT: &str = "hotcell-diff";
/// Version of the format of two runs side by side.
pub const VERSION: u32 = 2;

/// One difference.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Change {
    /// What differs: `outcome`, `behaviour`, `findings[persistence-cron].severity`, `outputs.stdout` …
    pub path: String,
    /// In which way.
    pub how: How,
    /// What was expected, or was there before. Absent: nothing was, or `lines` tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub old: Option<Json>,
    /// What is there now. Absent: nothing is, or `lines` tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new: Option<Json>,
    /// Where it was before (`moved`): a path, or a place in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Of texts and lists of lines: what is gone and what came, with a few of the lines around.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lines: Vec<Line>,
}

/// In which way something differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum How {
    /// It is new.
    Added,
    /// It is there no more.
    Removed,
    /// It has another value.
    Changed,
    /// It is the same, elsewhere.
    Moved,
}

/// A line of a text that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Line {
    /// Whether it is gone, came, or stayed.
    pub sign: Sign,
    /// The line; for `skipped` what is left out, in words.
    pub text: String,
}

/// What became of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Sign {
    /// It stayed.
    Same,
    /// It is gone.
    Removed,
    /// It came.
    Added,
    /// Lines that are left out.
    Skipped,
}

/// What differs between two runs: `hotcell diff --json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RunDiff {
    /// Always [`FORMAT`].
    pub format: String,
    /// [`VERSION`] of the writer.
    pub version: u32,
    /// Differences of the runs as wholes: name, manifest, seed, engines, samples.
    pub run: Vec<Change>,
    /// Instances that differ, in the order of the newer run; those that are gone come last.
    pub instances: Vec<InstanceDiff>,
    /// How many instances were compared.
    pub compared: usize,
}

/// What differs in one instance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct InstanceDiff {
    /// Its full name.
    pub name: String,
    /// Its name for people.
    pub short: String,
    /// What differs.
    pub changes: Vec<Change>,
}

impl RunDiff {
    /// Whether both runs gave the same.
    pub fn is_empty(&self) -> bool {
        self.run.is_empty() && self.instances.is_empty()
    }
}

impl Change {
    fn new(path: impl Into<String>, how: How, old: Option<Json>, new: Option<Json>) -> Self {
        Self {
            path: path.into(),
            how,
            old,
            new,
            from: None,
            lines: Vec::new(),
        }
    }

    /// Something that was not there before.
    pub fn added(path: impl Into<String>, new: impl Into<Json>) -> Self {
        Self::new(path, How::Added, None, Some(new.into()))
    }

    /// Something that is there no more.
    pub fn removed(path: impl Into<String>, old: impl Into<Json>) -> Self {
        Self::new(path, How::Removed, Some(old.into()), None)
    }

    /// Something that has another value.
    pub fn changed(path: impl Into<String>, old: impl Into<Json>, new: impl Into<Json>) -> Self {
        Self::new(path, How::Changed, Some(old.into()), Some(new.into()))
    }

    /// A text that has other lines.
    pub fn lines(path: impl Into<String>, lines: Vec<Line>) -> Self {
        Self {
            lines,
            ..Self::new(path, How::Changed, None, None)
        }
    }

    /// Something that is the same, elsewhere.
    pub fn moved(path: impl Into<String>, from: impl Into<String>, what: Option<Json>) -> Self {
        Self {
            from: Some(from.into()),
            ..Self::new(path, How::Moved, None, what)
        }
    }

    /// The part of a result that it is about: `outcome`, `behaviour`, `findings`, `unsupported`, `outputs.<port>` …
    pub fn part(&self) -> &str {
        let end = |text: &str| text.find(['.', '[']).unwrap_or(text.len());
        let first = end(&self.path);
        match self.path.get(..first) {
            Some("outputs") => {
                let rest = self.path.get(first + 1..).unwrap_or_default();
                self.path.get(..first + 1 + end(rest)).unwrap_or(&self.path)
            }
            Some(part) => part,
            None => &self.path,
        }
    }
}

impl Line {
    /// A line with its sign.
    pub fn new(sign: Sign, text: impl Into<String>) -> Self {
        Self {
            sign,
            text: text.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_knows_its_part() {
        for (path, part) in [
            ("outcome", "outcome"),
            ("findings[a.b].severity", "findings"),
            ("outputs.stdout", "outputs.stdout"),
            ("outputs.result.registers.eax", "outputs.result"),
            ("outputs.files[/x].digest", "outputs.files"),
            ("outputs", "outputs"),
            ("", ""),
        ] {
            assert_eq!(Change::added(path, 1).part(), part, "{path}");
        }
    }
}
