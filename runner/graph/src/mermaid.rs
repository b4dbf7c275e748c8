//! The language of Mermaid, for pages that draw it (as those of code forges do).

use std::fmt::Write as _;

use crate::{Graph, Kind, Line};

pub(crate) fn mermaid(graph: &Graph) -> String {
    let mut out = String::from("flowchart LR\n");
    for (index, node) in graph.nodes().iter().enumerate() {
        let mut text = safe(&node.label);
        for line in &node.lines {
            text.push_str("<br/>");
            text.push_str(&safe(line));
        }
        let (open, close) = match node.kind {
            Kind::Source => ("[(", ")]"),
            Kind::Join => ("((", "))"),
            _ => ("(", ")"),
        };
        // Writing to a String cannot fail.
        let _ = writeln!(out, "  n{index}{open}\"{text}\"{close}:::{}", class(node.kind));
    }
    for edge in graph.edges() {
        let arrow = match edge.line {
            Line::Solid => "-->",
            Line::Dashed | Line::Dotted => "-.->",
        };
        let label = match edge.label.is_empty() {
            true => String::new(),
            false => format!("|\"{}\"|", safe(&edge.label)),
        };
        let _ = writeln!(out, "  n{} {arrow}{label} n{}", edge.from, edge.to);
    }
    for kind in Kind::ALL {
        let (fill, border) = kind.colours();
        let _ = writeln!(
            out,
            "  classDef {} fill:{fill},stroke:{border},color:#1b2430",
            class(kind)
        );
    }
    out
}

/// `end` is a word of the language.
fn class(kind: Kind) -> String {
    format!("hc-{}", kind.class())
}

/// A text in which nothing means anything to Mermaid, its Markdown or the page it stands in.
fn safe(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_alphanumeric() || matches!(character, ' ' | '.' | ',' | '-' | '/' | '=' | '+' | '…')
        {
            out.push(character);
        } else {
            let _ = write!(out, "#{};", u32::from(character));
        }
    }
    out
}
