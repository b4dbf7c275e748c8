use super::*;

/// A name that tries to end every kind of text.
const HOSTILE: &str = "a\"]; x -> y </text><script>alert(1)</script> | ` \\N \u{1b}[2J\u{202e} #quot; & ]]>";

fn pipeline() -> Graph {
    let mut graph = Graph::new("bots");
    let samples = graph.node(Kind::Source, "samples.bots", vec!["500 samples".into()]);
    let look = graph.node(
        Kind::Cached,
        "look",
        vec!["inspect/elf".into(), "500 cached".into()],
    );
    let run = graph.node(
        Kind::Run,
        "run",
        vec!["unicorn/linux".into(), "500 to run".into()],
    );
    let hits = graph.node(Kind::Wait, "hits", vec!["detect/rules".into()]);
    let last = graph.node(Kind::Wait, "families", vec!["detect/cluster".into()]);
    graph.edge(samples, look, "file", Line::Solid);
    graph.edge(samples, run, "file", Line::Solid);
    graph.edge(look, run, "when", Line::Dotted);
    graph.edge(look, hits, "info", Line::Solid);
    graph.edge(run, hits, "events", Line::Solid);
    graph.edge(run, last, "events", Line::Solid);
    graph.edge(samples, last, "", Line::Dashed);
    graph.edge(hits, last, "findings", Line::Solid);
    graph
}

fn hostile() -> Graph {
    let mut graph = Graph::new(HOSTILE);
    let a = graph.node(Kind::Run, HOSTILE, vec![HOSTILE.into()]);
    let b = graph.node(Kind::End, "end", Vec::new());
    graph.edge(a, b, HOSTILE, Line::Dashed);
    graph
}

#[test]
fn two_nodes_are_joined_once() {
    let mut graph = Graph::new("g");
    let a = graph.node(Kind::Run, "a", Vec::new());
    let b = graph.node(Kind::Run, "b", Vec::new());
    graph.edge(a, b, "", Line::Dashed);
    graph.edge(a, b, "events", Line::Solid);
    graph.edge(a, b, "info", Line::Dotted);
    graph.edge(a, b, "info", Line::Dotted);
    assert_eq!(graph.edges().len(), 1);
    assert_eq!(
        (graph.edges()[0].label.as_str(), graph.edges()[0].line),
        ("events, info", Line::Solid)
    );
}

#[test]
fn nothing_stands_on_anything_else_and_edges_go_forward() {
    let graph = pipeline();
    let sizes = vec![(120.0, 60.0); graph.nodes().len()];
    let labels = vec![30.0; graph.edges().len()];
    let layout = crate::layout::layout(&graph, &sizes, &labels);
    for (at, a) in layout.nodes.iter().enumerate() {
        assert!(a.0 - a.2 / 2.0 >= -0.01 && a.0 + a.2 / 2.0 <= layout.width + 0.01);
        assert!(a.1 - a.3 / 2.0 >= -0.01 && a.1 + a.3 / 2.0 <= layout.height + 0.01);
        for b in &layout.nodes[at + 1..] {
            let apart = (a.0 - b.0).abs() >= (a.2 + b.2) / 2.0 || (a.1 - b.1).abs() >= (a.3 + b.3) / 2.0;
            assert!(apart, "{a:?} {b:?}");
        }
    }
    for points in &layout.edges {
        assert!(
            points.len() >= 2 && points.windows(2).all(|pair| pair[0].0 < pair[1].0),
            "{points:?}"
        );
    }
}

#[test]
fn a_thousand_nodes_are_laid_out() {
    let mut graph = Graph::new("wide");
    let join = graph.node(Kind::Join, "run[*]", Vec::new());
    for number in 0..1000 {
        let node = graph.node(Kind::Run, &format!("run[x={number}]"), Vec::new());
        graph.edge(node, join, "", Line::Solid);
    }
    assert!(graph.svg().len() > 100_000);
}

#[test]
fn hostile_texts_stay_texts() {
    let graph = hostile();
    let svg = graph.svg();
    assert!(
        !svg.contains("<script") && !svg.contains('\u{1b}') && !svg.contains('\u{202e}'),
        "{svg}"
    );
    assert_eq!(svg.matches("<text").count(), svg.matches("</text>").count());
    let mermaid = graph.mermaid();
    assert!(
        !mermaid.contains("<script") && !mermaid.contains('`'),
        "{mermaid}"
    );
    assert_eq!(mermaid.matches('|').count(), 2, "only those of the edge's label");
    // Each quote opens or closes a text; the hostile ones are written as numbers.
    assert!(mermaid.lines().all(|line| line.matches('"').count() % 2 == 0));
    assert_eq!(
        mermaid
            .lines()
            .filter(|line| line.contains("-.->") || line.contains("-->"))
            .count(),
        1
    );
    let dot = graph.dot();
    for line in dot.lines() {
        let bare = line.replace("\\\\", "").replace("\\\"", "");
        assert_eq!(bare.matches('"').count() % 2, 0, "{line}");
    }
    assert_eq!(
        dot.lines()
            .filter(|line| line.contains("] ;") || line.ends_with("];"))
            .count(),
        2 + 2 + 1
    );
}

#[test]
fn the_pictures_are_what_they_were() {
    let graph = pipeline();
    assert_eq!(
        graph.mermaid().lines().take(3).collect::<Vec<_>>(),
        [
            "flowchart LR",
            "  n0[(\"samples.bots<br/>500 samples\")]:::hc-source",
            "  n1(\"look<br/>inspect/elf<br/>500 cached\"):::hc-cached"
        ]
    );
    assert!(graph.dot().contains("  n0 -> n4 [style=dashed];\n"));
}

#[test]
fn graphviz_reads_what_is_written() {
    use std::io::Write as _;
    for graph in [pipeline(), hostile()] {
        let child = std::process::Command::new("dot")
            .arg("-Tplain")
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn();
        // Only where Graphviz is installed.
        let Ok(mut child) = child else { return };
        child
            .stdin
            .take()
            .unwrap()
            .write_all(graph.dot().as_bytes())
            .unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let nodes = String::from_utf8_lossy(&output.stdout)
            .lines()
            .filter(|line| line.starts_with("node "))
            .count();
        assert_eq!(nodes, graph.nodes().len());
    }
}
