//! The graph as a picture. It follows the page's light or dark colours.

use std::fmt::Write as _;

use crate::layout::layout;
use crate::{Graph, Kind, Line};

/// Space around everything.
const MARGIN: f64 = 24.0;
/// Height of the title.
const TITLE: f64 = 34.0;
/// Height of a line of text in a node.
const LINE: f64 = 16.0;

const STYLE: &str = "
    .page { fill: #ffffff } text { font: 12px system-ui, sans-serif; fill: #1b2430; text-anchor: middle }
    .title { font-weight: 600; font-size: 15px; text-anchor: start } .name { font-weight: 600 }
    .line { font-size: 11px; fill: #5a6675 } .label { font-size: 10.5px; fill: #5a6675; stroke: #ffffff; stroke-width: 4px; paint-order: stroke }
    .edge { fill: none; stroke: #8492a6; stroke-width: 1.4 } .tip { fill: #8492a6 }
    .dashed { stroke-dasharray: 6 4 } .dotted { stroke-dasharray: 2 3 }
    .box { stroke-width: 1.4 }";

const DARK: &str = "
      .page { fill: #14181f } text { fill: #e6ebf2 } .line { fill: #9aa7b8 } .label { fill: #9aa7b8; stroke: #14181f }
      .edge { stroke: #6b7a90 } .tip { fill: #6b7a90 }";

pub(crate) fn svg(graph: &Graph) -> String {
    let sizes: Vec<(f64, f64)> = graph
        .nodes()
        .iter()
        .map(|node| {
            let width = node.lines.iter().map(|line| text_width(line, 6.2));
            let width = width.fold(text_width(&node.label, 7.3), f64::max);
            let least = if node.kind == Kind::Join { 24.0 } else { 90.0 };
            let lines = node.lines.len() as f64;
            ((width + 28.0).max(least), 30.0 + lines * LINE)
        })
        .collect();
    let labels: Vec<f64> = graph
        .edges()
        .iter()
        .map(|edge| text_width(&edge.label, 6.0))
        .collect();
    let layout = layout(graph, &sizes, &labels);
    let title = text_width(&graph.title, 8.6);
    let width = layout.width.max(title) + 2.0 * MARGIN;
    let height = layout.height + 2.0 * MARGIN + TITLE;
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = writeln!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height:.0}\" width=\"{width:.0}\" height=\"{height:.0}\" role=\"img\">\n  <title>{}</title>",
        escaped(&graph.title)
    );
    let _ = writeln!(
        out,
        "  <style>{STYLE}{}\n    @media (prefers-color-scheme: dark) {{{DARK}{}\n    }}\n  </style>",
        light(),
        dark()
    );
    let _ = writeln!(out, "  <rect class=\"page\" width=\"100%\" height=\"100%\"/>");
    let _ = writeln!(
        out,
        "  <text class=\"title\" x=\"{MARGIN}\" y=\"{:.0}\">{}</text>",
        MARGIN + 8.0,
        escaped(&graph.title)
    );
    let _ = writeln!(
        out,
        "  <g transform=\"translate({MARGIN} {:.0})\">",
        MARGIN + TITLE
    );
    for (edge, points) in graph.edges().iter().zip(&layout.edges) {
        let class = match edge.line {
            Line::Solid => "edge",
            Line::Dashed => "edge dashed",
            Line::Dotted => "edge dotted",
        };
        if let Some((way, (x, y))) = curve(points) {
            let _ = writeln!(out, "    <path class=\"{class}\" d=\"{way}\"/>");
            let _ = writeln!(out, "    <path class=\"tip\" d=\"M{:.1} {y:.1}l-8 -4v8z\"/>", x);
        }
    }
    for (edge, points) in graph.edges().iter().zip(&layout.edges) {
        if let ([from, to, ..], false) = (&points[..], edge.label.is_empty()) {
            let _ = writeln!(
                out,
                "    <text class=\"label\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
                (from.0 + to.0) / 2.0,
                (from.1 + to.1) / 2.0 - 4.0,
                escaped(&edge.label)
            );
        }
    }
    for (node, (x, y, width, height)) in graph.nodes().iter().zip(&layout.nodes) {
        let radius = match node.kind {
            Kind::Source => 2.0,
            Kind::Join => height / 2.0,
            _ => 8.0,
        };
        let top = y - height / 2.0;
        let _ = writeln!(
            out,
            "    <g><rect class=\"box {}\" x=\"{:.1}\" y=\"{top:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" rx=\"{radius:.1}\"/>",
            node.kind.class(),
            x - width / 2.0
        );
        let _ = write!(
            out,
            "      <text class=\"name\" x=\"{x:.1}\" y=\"{:.1}\">{}</text>",
            top + 19.5,
            escaped(&node.label)
        );
        for (at, line) in node.lines.iter().enumerate() {
            let _ = write!(
                out,
                "<text class=\"line\" x=\"{x:.1}\" y=\"{:.1}\">{}</text>",
                top + 19.5 + LINE * (at + 1) as f64,
                escaped(line)
            );
        }
        out.push_str("</g>\n");
    }
    out.push_str("  </g>\n</svg>\n");
    out
}

/// The colours of nodes on a light page.
fn light() -> String {
    let mut out = String::new();
    for kind in Kind::ALL {
        let (fill, border) = kind.colours();
        let _ = write!(
            out,
            "\n    .{} {{ fill: {fill}; stroke: {border} }}",
            kind.class()
        );
    }
    out
}

/// The same on a dark page: a breath of the border's colour.
fn dark() -> String {
    let mut out = String::new();
    for kind in Kind::ALL {
        let (_, border) = kind.colours();
        let (border, strength) = match kind {
            Kind::Cached => ("#5a6675", "14"),
            _ => (border, "2e"),
        };
        let _ = write!(
            out,
            "\n      .{} {{ fill: {border}{strength}; stroke: {border} }}",
            kind.class()
        );
    }
    out
}

/// A way through points that leaves and arrives level, and where its tip is.
fn curve(points: &[(f64, f64)]) -> Option<(String, (f64, f64))> {
    let (first, last) = (points.first()?, points.last()?);
    let mut way = format!("M{:.1} {:.1}", first.0, first.1);
    for (at, pair) in points.windows(2).enumerate() {
        let [from, to] = pair else { continue };
        // The line ends in the tip, not beside it.
        let end = if at + 2 == points.len() { to.0 - 7.0 } else { to.0 };
        let middle = (from.0 + end) / 2.0;
        let _ = write!(
            way,
            "C{middle:.1} {:.1} {middle:.1} {:.1} {end:.1} {:.1}",
            from.1, to.1, to.1
        );
    }
    Some((way, *last))
}

/// About how wide a text is: wide characters count twice.
fn text_width(text: &str, each: f64) -> f64 {
    text.chars()
        .map(|character| {
            if u32::from(character) < 0x1100 {
                each
            } else {
                2.0 * each
            }
        })
        .sum()
}

/// A text within XML.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            other => out.push(other),
        }
    }
    out
}
