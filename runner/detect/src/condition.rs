//! What a rule waits for.

use hotcell_schema::event::Header;

use crate::fields::Field;
use crate::pattern::{Pattern, Predicate};
use crate::value::Test;

/// A rule's condition: leaves combined.
#[derive(Debug)]
pub(crate) enum Condition {
    /// A leaf over events, by its place in the rule's list.
    Events(usize),
    /// Facts of inspection.
    Facts(Facts),
    All(Vec<Self>),
    Any(Vec<Self>),
    Not(Box<Self>),
}

impl Condition {
    /// Whether it holds for a sample that did nothing and was not inspected.
    pub(crate) fn holds_for_nothing(&self) -> bool {
        match self {
            Self::Events(_) | Self::Facts(_) => false,
            Self::All(parts) => parts.iter().all(Self::holds_for_nothing),
            Self::Any(parts) => parts.iter().any(Self::holds_for_nothing),
            Self::Not(part) => !part.holds_for_nothing(),
        }
    }
}

/// A leaf over events.
#[derive(Debug)]
pub(crate) enum Leaf {
    /// One event that fits any of the patterns.
    Match(Vec<Pattern>),
    /// Many events that fit any of the patterns.
    Count(Count),
    /// Events in order.
    Sequence(Sequence),
}

impl Leaf {
    /// Every pattern with its step and its place among the step's alternatives.
    pub(crate) fn patterns(&self) -> Vec<(usize, usize, &Pattern)> {
        let steps: Vec<&[Pattern]> = match self {
            Self::Match(patterns) => vec![patterns],
            Self::Count(count) => vec![&count.of],
            Self::Sequence(sequence) => sequence
                .steps
                .iter()
                .map(|step| step.patterns.as_slice())
                .collect(),
        };
        let numbered = steps.into_iter().enumerate();
        numbered
            .flat_map(|(step, patterns)| {
                let places = patterns.iter().enumerate();
                places.map(move |(place, pattern)| (step, place, pattern))
            })
            .collect()
    }
}

/// Many events.
#[derive(Debug)]
pub(crate) struct Count {
    pub(crate) of: Vec<Pattern>,
    pub(crate) at_least: usize,
    /// Count only different values of this field (one field per pattern, the same name).
    pub(crate) distinct: Option<Vec<Field>>,
    /// Nanoseconds of virtual time between the first and the last.
    pub(crate) within: Option<u64>,
    pub(crate) by: By,
}

/// Events in order.
#[derive(Debug)]
pub(crate) struct Sequence {
    pub(crate) steps: Vec<Step>,
    /// Number of variables.
    pub(crate) variables: usize,
    /// Nanoseconds of virtual time between the first and the last.
    pub(crate) within: Option<u64>,
    pub(crate) by: By,
}

/// One step: an event that fits any of the patterns.
#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) patterns: Vec<Pattern>,
    /// The variable that every pattern of the step asks for: waiting matches are found by its value.
    pub(crate) join: Option<usize>,
}

/// What must be the same for events to belong together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum By {
    /// The whole sample, with all its processes.
    Sample,
    /// The process.
    Process,
    /// The task (thread).
    Task,
    /// The process or one that descends from it.
    Lineage,
}

/// A condition over inspection facts.
#[derive(Debug)]
pub(crate) struct Facts {
    /// Where to look.
    pub(crate) at: FactPath,
    /// What each item there must look like; paths count from the item.
    pub(crate) predicate: Predicate<FactPath>,
    /// How many items must.
    pub(crate) at_least: usize,
}

/// A path into the facts: `sections[].entropy`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FactPath {
    /// As it was written.
    pub(crate) text: String,
    pub(crate) parts: Vec<FactPart>,
}

/// One part of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum FactPart {
    /// A key of an object.
    Key(String),
    /// Every item of a list.
    Each,
}

/// To which streams a rule applies.
#[derive(Debug, Default)]
pub(crate) struct Scope {
    pub(crate) os: Option<Test>,
    pub(crate) arch: Option<Test>,
    pub(crate) engine: Option<Test>,
}

impl Scope {
    pub(crate) fn covers(&self, header: &Header) -> bool {
        use crate::value::Value;
        let fits = |test: &Option<Test>, text: &str| {
            test.as_ref()
                .is_none_or(|test| test.holds(&|callback| callback(Value::Text(text))))
        };
        fits(&self.os, &header.os) && fits(&self.arch, &header.arch) && fits(&self.engine, &header.engine)
    }
}
