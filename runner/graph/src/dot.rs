//! The language of Graphviz.

use std::fmt::Write as _;

use crate::{Graph, Kind, Line};

pub(crate) fn dot(graph: &Graph) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = writeln!(out, "digraph {} {{", quoted(&[&graph.title]));
    out.push_str("  rankdir=LR;\n  node [shape=box, style=\"rounded,filled\", fontname=\"sans-serif\", fontsize=11];\n");
    out.push_str("  edge [fontname=\"sans-serif\", fontsize=9];\n");
    for (index, node) in graph.nodes().iter().enumerate() {
        let mut lines = vec![node.label.as_str()];
        lines.extend(node.lines.iter().map(String::as_str));
        let (fill, border) = node.kind.colours();
        let shape = match node.kind {
            Kind::Source => ", shape=folder, style=filled",
            Kind::Join => ", shape=oval",
            _ => "",
        };
        let _ = writeln!(
            out,
            "  n{index} [label={}, class={}, fillcolor=\"{fill}\", color=\"{border}\"{shape}];",
            quoted(&lines),
            quoted(&[node.kind.class()])
        );
    }
    for edge in graph.edges() {
        let style = match edge.line {
            Line::Solid => "solid",
            Line::Dashed => "dashed",
            Line::Dotted => "dotted",
        };
        let label = match edge.label.is_empty() {
            true => String::new(),
            false => format!("label={}, ", quoted(&[&edge.label])),
        };
        let _ = writeln!(out, "  n{} -> n{} [{label}style={style}];", edge.from, edge.to);
    }
    out.push_str("}\n");
    out
}

/// Lines as one quoted text. A backslash begins what Graphviz fills in, so each is doubled.
fn quoted(lines: &[&str]) -> String {
    let lines: Vec<String> = lines
        .iter()
        .map(|line| line.replace('\\', "\\\\").replace('"', "\\\""))
        .collect();
    // Graphviz reads `&amp;` and its like in labels.
    format!("\"{}\"", lines.join("\\n").replace('&', "&amp;"))
}
