//! A plan as a graph: its stages, or all its instances.

use std::collections::HashMap;

use hotcell_graph::{Graph, Kind, Line};
use hotcell_plan::{After, Plan, Wire};
use hotcell_schema::forecast::{Does, EdgeKind, StageEdge, StageForecast};

use crate::exit::Failure;
use crate::outlook::{Outlook, does, edges};

/// Greatest number of nodes of a graph of instances.
const MAX_NODES: usize = 2_000;

/// One node for each stage and each set of samples.
pub(super) fn stages(plan: &Plan, outlook: &Outlook<'_>) -> Graph {
    let mut graph = Graph::new(plan.name.as_str());
    let mut nodes: HashMap<String, usize> = HashMap::new();
    let stages = outlook.stages();
    let edges: Vec<StageEdge> = edges(plan)
        .into_iter()
        .filter(|edge| stages.contains_key(&edge.to))
        .collect();
    for edge in &edges {
        if let Some(set) = edge.from.strip_prefix("samples.")
            && !stages.contains_key(&edge.from)
            && !nodes.contains_key(&edge.from)
        {
            let count = plan.samples.iter().filter(|sample| sample.set == set).count();
            let node = graph.node(Kind::Source, &edge.from, vec![counted(count as u64, "sample")]);
            nodes.insert(edge.from.clone(), node);
        }
    }
    for (name, stage) in &stages {
        let node = graph.node(kind_of(stage), name, vec![stage.uses.clone(), counts(stage)]);
        nodes.insert(name.clone(), node);
    }
    for edge in &edges {
        if let (Some(from), Some(to)) = (nodes.get(&edge.from), nodes.get(&edge.to)) {
            let (label, line) = drawn(edge);
            graph.edge(*from, *to, &label, line);
        }
    }
    graph
}

/// How an edge between stages is drawn.
fn drawn(edge: &StageEdge) -> (String, Line) {
    let label = match (edge.kind, edge.output.as_deref(), edge.input.as_deref()) {
        (EdgeKind::Items, Some(output), _) => format!("each of {output}"),
        (_, Some(output), Some(input)) if output != input => format!("{output} → {input}"),
        (_, _, Some(input)) => input.to_owned(),
        (EdgeKind::Result, ..) => "result".to_owned(),
        (EdgeKind::Order, ..) => "before".to_owned(),
        (_, Some(output), None) => output.to_owned(),
        (_, None, None) => String::new(),
    };
    let line = match edge.kind {
        EdgeKind::Data | EdgeKind::Items => Line::Solid,
        EdgeKind::Result => Line::Dotted,
        EdgeKind::Order => Line::Dashed,
    };
    (label, line)
}

/// A stage looks like what most concerns a reader: something runs, or waits, or ends; else it is stored.
fn kind_of(stage: &StageForecast) -> Kind {
    match () {
        () if stage.run > 0 => Kind::Run,
        () if stage.wait > 0 => Kind::Wait,
        () if stage.cached > 0 => Kind::Cached,
        () if stage.end > 0 => Kind::End,
        () => Kind::Wait,
    }
}

/// The counts of a stage in words.
pub(super) fn counts(stage: &StageForecast) -> String {
    let words = [
        (stage.cached, "stored"),
        (stage.run, "to run"),
        (stage.wait, "waiting"),
        (stage.expand, "to expand"),
        (stage.end, "not to run"),
    ];
    let words: Vec<String> = words
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, word)| format!("{} {word}", thousands(*count)))
        .collect();
    match words.is_empty() {
        true => "no instances".into(),
        false => words.join(", "),
    }
}

/// A number and its word, `1 sample`, `2,000 samples`.
pub(super) fn counted(count: u64, word: &str) -> String {
    format!("{} {word}{}", thousands(count), if count == 1 { "" } else { "s" })
}

/// A number in groups of three digits.
pub(super) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// One node for each instance. What waits for all of a stage does so over a node for the whole stage.
pub(super) fn instances(plan: &Plan, outlook: &Outlook<'_>) -> Result<Graph, Failure> {
    if outlook.foreseen.len() > MAX_NODES {
        return Err(Failure::usage(format!(
            "a graph of {} instances is larger than anyone can look at; the greatest is {MAX_NODES}",
            thousands(outlook.foreseen.len() as u64)
        ))
        .help("choose some with --only PATTERN, or leave --graph-instances out for the graph of stages"));
    }
    let mut graph = Graph::new(plan.name.as_str());
    let mut nodes: HashMap<usize, usize> = HashMap::new();
    // The last point that was passed: what it became follows it.
    let mut of_stage: HashMap<&str, Vec<usize>> = HashMap::new();
    let mut point = None;
    for foreseen in &outlook.foreseen {
        let instance = &foreseen.instance;
        let kind = match does(&foreseen.forecast) {
            Does::Cached => Kind::Cached,
            Does::Run => Kind::Run,
            Does::Wait | Does::Expand => Kind::Wait,
            Does::End => Kind::End,
        };
        let node = graph.node(kind, &outlook.names.of(instance), Vec::new());
        nodes.insert(foreseen.index, node);
        of_stage.entry(instance.stage.as_str()).or_default().push(node);
        if foreseen.index < plan.instances.len() {
            point = Some(node);
        } else if let Some(point) = point {
            graph.edge(point, node, "item", Line::Solid);
        }
    }
    let mut samples: HashMap<usize, usize> = HashMap::new();
    let mut joins: HashMap<&str, usize> = HashMap::new();
    for foreseen in &outlook.foreseen {
        let Some(to) = nodes.get(&foreseen.index).copied() else {
            continue;
        };
        let instance = &foreseen.instance;
        let mut all = |graph: &mut Graph, stage: &str, label: &str, line| {
            let Some((stage, members)) = of_stage.get_key_value(stage) else {
                return;
            };
            let join = *joins.entry(*stage).or_insert_with(|| {
                let join = graph.node(Kind::Join, &format!("{stage}[*]"), Vec::new());
                for member in members {
                    graph.edge(*member, join, "", Line::Solid);
                }
                join
            });
            graph.edge(join, to, label, line);
        };
        for (port, wire) in instance
            .inputs
            .iter()
            .flat_map(|(port, wires)| wires.iter().map(move |wire| (port.as_str(), wire)))
            .chain(instance.expands.iter().map(|wire| ("items", wire)))
        {
            match wire {
                Wire::Sample(index) => {
                    let Some(sample) = plan.samples.get(*index) else {
                        continue;
                    };
                    let from = *samples.entry(*index).or_insert_with(|| {
                        graph.node(Kind::Source, &sample.name, vec![sample.digest.short()])
                    });
                    graph.edge(from, to, port, Line::Solid);
                }
                Wire::Output { instance, .. } => {
                    if let Some(from) = nodes.get(instance) {
                        graph.edge(*from, to, port, Line::Solid);
                    }
                }
                Wire::All { stage, .. } => all(&mut graph, stage, port, Line::Solid),
                Wire::Same { point, .. } | Wire::Point { point, .. } => {
                    if let Some(from) = nodes.get(point) {
                        graph.edge(*from, to, port, Line::Solid);
                    }
                }
                Wire::Item => {}
            }
        }
        for after in &instance.needs {
            match after {
                After::Instance(index) => {
                    if let Some(from) = nodes.get(index) {
                        graph.edge(*from, to, "", Line::Dashed);
                    }
                }
                After::Stage(stage) => all(&mut graph, stage, "", Line::Dashed),
            }
        }
        let when = instance.when.iter().flat_map(|when| when.reads.values());
        let late = instance.late.iter().flat_map(|late| late.reads.values());
        for index in when.chain(late) {
            if let Some(from) = nodes.get(index) {
                graph.edge(*from, to, "", Line::Dotted);
            }
        }
    }
    Ok(graph)
}

#[cfg(test)]
mod tests {
    use super::{counted, thousands};

    #[test]
    fn numbers_are_grouped() {
        let grouped: Vec<String> = [0, 999, 1000, 12_345, 1_000_000].map(thousands).into();
        assert_eq!(grouped, ["0", "999", "1,000", "12,345", "1,000,000"]);
        assert_eq!(counted(1, "sample"), "1 sample");
    }
}
