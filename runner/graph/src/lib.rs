//! Pictures of plans: a directed graph as text for Graphviz, as text for Mermaid, or as an SVG picture of its own.
//!
//! In: a [`Graph`] of nodes and edges with texts that manifests and samples have a hand in. Out: text in which each of these
//! stays a text, whatever characters it is made of. No other program is needed.
//!
//! | module | what it does |
//! |---|---|
//! | `dot`, `mermaid` | the two text formats |
//! | `layout` | where nodes stand and edges go: layers, few crossings, straight lines |
//! | `svg` | the layout as a picture, for light and dark pages |

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod dot;
mod layout;
mod mermaid;
mod svg;

use std::collections::HashMap;

/// A directed graph without cycles.
#[derive(Debug, Clone, Default)]
pub struct Graph {
    /// What it shows.
    pub title: String,
    nodes: Vec<Node>,
    edges: Vec<Edge>,
    /// Edges by where they begin and end, so that two nodes are joined once.
    joined: HashMap<(usize, usize), usize>,
}

/// A node.
#[derive(Debug, Clone)]
pub struct Node {
    /// Its name.
    pub label: String,
    /// What stands below the name, line by line.
    pub lines: Vec<String>,
    /// What it is.
    pub kind: Kind,
}

/// What a node is: its colour and shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Where bytes come from.
    Source,
    /// It would run.
    Run,
    /// It is stored.
    Cached,
    /// It waits for something that would run.
    Wait,
    /// It ends at once.
    End,
    /// Everything of a stage together.
    Join,
}

impl Kind {
    /// Every kind.
    const ALL: [Self; 6] = [
        Self::Source,
        Self::Run,
        Self::Cached,
        Self::Wait,
        Self::End,
        Self::Join,
    ];

    /// Its name as a class.
    const fn class(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Run => "run",
            Self::Cached => "cached",
            Self::Wait => "wait",
            Self::End => "end",
            Self::Join => "join",
        }
    }

    /// Background and border on a light page.
    const fn colours(self) -> (&'static str, &'static str) {
        match self {
            Self::Source => ("#eef1f5", "#8492a6"),
            Self::Run => ("#e3f4e8", "#2f8f4e"),
            Self::Cached => ("#f6f7f9", "#b3bcc8"),
            Self::Wait => ("#fff6de", "#c58f14"),
            Self::End => ("#fdebea", "#c8443a"),
            Self::Join => ("#ffffff", "#8492a6"),
        }
    }
}

/// An edge.
#[derive(Debug, Clone)]
pub struct Edge {
    /// Where it begins.
    pub from: usize,
    /// Where it ends.
    pub to: usize,
    /// What goes along it.
    pub label: String,
    /// How it is drawn.
    pub line: Line,
}

/// How an edge is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Line {
    /// Data.
    Solid,
    /// A condition reads the result.
    Dotted,
    /// Only order.
    Dashed,
}

/// Characters of a label that are shown.
const LABEL: usize = 60;

impl Graph {
    /// An empty graph.
    pub fn new(title: impl Into<String>) -> Self {
        Self {
            title: shown(&title.into()),
            ..Self::default()
        }
    }

    /// Adds a node and gives its number.
    pub fn node(&mut self, kind: Kind, label: &str, lines: Vec<String>) -> usize {
        self.nodes.push(Node {
            label: shown(label),
            lines: lines.iter().map(|line| shown(line)).collect(),
            kind,
        });
        self.nodes.len() - 1
    }

    /// Joins two nodes. What is joined already gets the further label; the strongest line is drawn.
    pub fn edge(&mut self, from: usize, to: usize, label: &str, line: Line) {
        let label = shown(label);
        if let Some(edge) = self
            .joined
            .get(&(from, to))
            .and_then(|index| self.edges.get_mut(*index))
        {
            edge.line = edge.line.min(line);
            if !label.is_empty() && !edge.label.split(", ").any(|part| part == label) {
                if !edge.label.is_empty() {
                    edge.label.push_str(", ");
                }
                edge.label.push_str(&label);
                edge.label = shown(&edge.label);
            }
            return;
        }
        self.joined.insert((from, to), self.edges.len());
        self.edges.push(Edge {
            from,
            to,
            label,
            line,
        });
    }

    /// All nodes, by their number.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// All edges.
    pub fn edges(&self) -> &[Edge] {
        &self.edges
    }

    /// The graph for Graphviz.
    pub fn dot(&self) -> String {
        dot::dot(self)
    }

    /// The graph for Mermaid.
    pub fn mermaid(&self) -> String {
        mermaid::mermaid(self)
    }

    /// The graph as a picture.
    pub fn svg(&self) -> String {
        svg::svg(self)
    }
}

/// A text as it is shown: in one line, bounded, and without characters that a reader would obey.
fn shown(text: &str) -> String {
    let mut out = String::new();
    for (count, character) in text.chars().enumerate() {
        if count == LABEL {
            out.push('…');
            break;
        }
        let turns =
            matches!(character, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        // What XML cannot hold at all goes too.
        if character.is_control() || turns || matches!(character, '\u{fffe}' | '\u{ffff}') {
            out.push('\u{fffd}');
        } else {
            out.push(character);
        }
    }
    out
}

#[cfg(test)]
mod tests;
