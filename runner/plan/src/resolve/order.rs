//! An order of stages, and the circles that leave none.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, VecDeque};

use hotcell_schema::manifest::Span;
use petgraph::graph::{DiGraph, NodeIndex};
use petgraph::visit::EdgeRef as _;

use super::graph::{Reference, Wired};
use crate::diagnostics::{Code, Diagnostic};

/// An order in which each stage comes after what it reads, as near to the manifest's own as can be. Circles are told.
pub(super) fn order(stages: &[Wired<'_>], problems: &mut Vec<Diagnostic>) -> Vec<usize> {
    let indexes: std::collections::HashMap<&str, usize> = stages
        .iter()
        .enumerate()
        .map(|(index, stage)| (stage.name, index))
        .collect();
    let mut graph: DiGraph<usize, Span> = DiGraph::with_capacity(stages.len(), stages.len());
    for index in 0..stages.len() {
        graph.add_node(index);
    }
    for (index, wired) in stages.iter().enumerate() {
        let when = wired.when_span();
        let over = wired.expansion.iter().flat_map(|expansion| &expansion.over);
        let inputs = wired
            .inputs
            .iter()
            .flat_map(|(_, references)| references)
            .chain(over)
            .filter_map(|reference| match reference {
                Reference::Stage { stage, span, .. } => Some((stage.as_str(), *span)),
                Reference::Axis(_) => None,
            });
        let needs = wired.needs.iter().map(|(name, span)| (name.as_str(), *span));
        let reads = wired.reads.iter().map(|name| (name.as_str(), when));
        let late = wired.late.iter().map(|(name, span)| (name.as_str(), *span));
        for (name, span) in inputs.chain(needs).chain(reads).chain(late) {
            if let Some(before) = indexes.get(name) {
                graph.add_edge(NodeIndex::new(*before), NodeIndex::new(index), span);
            }
        }
    }
    let mut waits: Vec<usize> = graph
        .node_indices()
        .map(|node| graph.edges_directed(node, petgraph::Direction::Incoming).count())
        .collect();
    let mut ready: BinaryHeap<Reverse<usize>> = waits
        .iter()
        .enumerate()
        .filter(|(_, count)| **count == 0)
        .map(|(index, _)| Reverse(index))
        .collect();
    let mut order = Vec::with_capacity(stages.len());
    while let Some(Reverse(index)) = ready.pop() {
        order.push(index);
        for after in graph.neighbors(NodeIndex::new(index)) {
            if let Some(count) = waits.get_mut(after.index()) {
                *count = count.saturating_sub(1);
                if *count == 0 {
                    ready.push(Reverse(after.index()));
                }
            }
        }
    }
    if order.len() < stages.len() {
        circles(stages, &graph, problems);
    }
    order
}

/// Circles that are told.
const MAX_CIRCLES: usize = 20;

/// Tells circles: first those of one stage, then of each group of stages that wait for each other the shortest one. What is
/// still a circle without the arrows of those that were told is another one.
fn circles(stages: &[Wired<'_>], graph: &DiGraph<usize, Span>, problems: &mut Vec<Diagnostic>) {
    let mut graph = graph.clone();
    let mut told = 0;
    while told < MAX_CIRCLES {
        let chains: Vec<Vec<(NodeIndex, Span)>> = petgraph::algo::kosaraju_scc(&graph)
            .into_iter()
            .flat_map(|component| {
                let members: BTreeSet<NodeIndex> = component.into_iter().collect();
                let alone: Vec<_> = members
                    .iter()
                    .filter_map(|node| {
                        Some(vec![(*node, *graph.edge_weight(graph.find_edge(*node, *node)?)?)])
                    })
                    .collect();
                match (alone.is_empty(), members.first()) {
                    (true, Some(start)) if members.len() > 1 => vec![shortest(&graph, *start, &members)],
                    _ => alone,
                }
            })
            .take(MAX_CIRCLES - told)
            .collect();
        if chains.is_empty() {
            return;
        }
        told += chains.len();
        let mut gone = BTreeSet::new();
        for chain in &chains {
            let after = chain.iter().cycle().skip(1);
            gone.extend(chain.iter().zip(after).map(|((from, _), (to, _))| (*from, *to)));
        }
        tell_circles(stages, &chains, problems);
        graph.retain_edges(|graph, edge| {
            graph
                .edge_endpoints(edge)
                .is_none_or(|ends| !gone.contains(&ends))
        });
    }
}

fn tell_circles(stages: &[Wired<'_>], chains: &[Vec<(NodeIndex, Span)>], problems: &mut Vec<Diagnostic>) {
    for chain in chains {
        let Some((start, _)) = chain.first() else { continue };
        let name = |node: &NodeIndex| stages.get(node.index()).map_or("?", |stage| stage.name);
        let mut names: Vec<&str> = chain.iter().map(|(node, _)| name(node)).collect();
        names.push(name(start));
        if names.len() > 12 {
            let cut = names.len() - 12;
            names.splice(6..6 + cut, ["…"]);
        }
        let Some((_, first)) = chain.first() else { continue };
        let mut diagnostic = Diagnostic::error(
            Code::Cycle,
            *first,
            format!("stages wait for each other in a circle: {}", names.join(" -> ")),
        )
        .help("each arrow means: is done before; take one of them out");
        for (node, span) in chain.iter().skip(1).take(5) {
            diagnostic = diagnostic.also(*span, format!("`{}` is waited for here", name(node)));
        }
        problems.push(diagnostic);
    }
}

/// The shortest circle through a node within its component: nodes, each with the place of the reference to it.
fn shortest(
    graph: &DiGraph<usize, Span>,
    start: NodeIndex,
    members: &BTreeSet<NodeIndex>,
) -> Vec<(NodeIndex, Span)> {
    let mut came: std::collections::HashMap<NodeIndex, (NodeIndex, Span)> = std::collections::HashMap::new();
    let mut queue = VecDeque::from([start]);
    while let Some(node) = queue.pop_front() {
        for edge in graph.edges(node) {
            let next = edge.target();
            if !members.contains(&next) || came.contains_key(&next) {
                continue;
            }
            came.insert(next, (node, *edge.weight()));
            if next == start {
                queue.clear();
                break;
            }
            queue.push_back(next);
        }
    }
    let mut chain = Vec::new();
    let mut node = start;
    while let Some((before, span)) = came.get(&node).copied() {
        chain.push((before, span));
        node = before;
        if node == start || chain.len() > members.len() {
            break;
        }
    }
    chain.reverse();
    chain
}
