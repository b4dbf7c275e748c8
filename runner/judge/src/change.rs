//! What differs between two sets of facts.

use std::collections::BTreeSet;

use serde::Serialize;

/// One difference.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Change {
    /// What differs: `outcome`, `behaviour`, `findings`, `outputs.stdout` …
    pub what: String,
    /// What was expected, or was there before; absent: it is new.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub old: Option<String>,
    /// What is there now; absent: it is gone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub new: Option<String>,
}

impl Change {
    /// Something that was not there before.
    pub fn added(what: impl Into<String>, new: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            old: None,
            new: Some(new.into()),
        }
    }

    /// Something that is there no more.
    pub fn removed(what: impl Into<String>, old: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            old: Some(old.into()),
            new: None,
        }
    }
}

/// A value that may differ.
pub(crate) fn value<T: PartialEq>(
    changes: &mut Vec<Change>,
    what: &str,
    old: Option<&T>,
    new: Option<&T>,
    show: impl Fn(&T) -> String,
) {
    if old != new {
        changes.push(Change {
            what: what.into(),
            old: old.map(&show),
            new: new.map(&show),
        });
    }
}

/// Lists without an order: what is gone, then what is new.
pub(crate) fn set(changes: &mut Vec<Change>, what: &str, old: &[String], new: &[String]) {
    let old: BTreeSet<&String> = old.iter().collect();
    let new: BTreeSet<&String> = new.iter().collect();
    changes.extend(
        old.difference(&new)
            .map(|gone| Change::removed(what, gone.as_str())),
    );
    changes.extend(
        new.difference(&old)
            .map(|came| Change::added(what, came.as_str())),
    );
}
