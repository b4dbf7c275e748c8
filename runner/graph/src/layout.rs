//! Where nodes stand and edges go: in layers from left to right, as K. Sugiyama and others draw hierarchies.
//!
//! 1. The layer of a node is the longest way to it. Sources stand just before what reads them.
//! 2. An edge over several layers gets a bend in each one between.
//! 3. Within a layer, everything is ordered by where its neighbours stand, in turns from left and right.
//! 4. Heights are those of the neighbours as far as there is room: a least-squares fit that keeps order and distance.

use crate::Graph;

/// Space between what stands in a layer.
const BETWEEN: f64 = 18.0;
/// Least space between two layers.
const GAP: f64 = 48.0;
/// How often everything is ordered, and moved, from each side.
const SWEEPS: usize = 6;

/// A node or a bend.
#[derive(Debug, Clone, Default)]
struct Spot {
    layer: usize,
    width: f64,
    height: f64,
    x: f64,
    y: f64,
    before: Vec<usize>,
    after: Vec<usize>,
}

/// A finished layout. The points of an edge are where it leaves a node, its bends, and where it arrives.
#[derive(Debug, Default)]
pub(crate) struct Layout {
    /// Middle of each node, its width and its height.
    pub nodes: Vec<(f64, f64, f64, f64)>,
    /// Points of each edge.
    pub edges: Vec<Vec<(f64, f64)>>,
    pub width: f64,
    pub height: f64,
}

/// Lays a graph out. `sizes` are those of its nodes, `labels` the widths of its edges' labels.
pub(crate) fn layout(graph: &Graph, sizes: &[(f64, f64)], labels: &[f64]) -> Layout {
    let ranks = layers(graph);
    let mut spots: Vec<Spot> = sizes
        .iter()
        .zip(&ranks)
        .map(|((width, height), layer)| Spot {
            layer: *layer,
            width: *width,
            height: *height,
            ..Spot::default()
        })
        .collect();
    let count = ranks.iter().max().map_or(0, |last| last + 1);
    let mut gaps = vec![GAP; count];
    let mut paths: Vec<Vec<usize>> = Vec::with_capacity(graph.edges().len());
    for (edge, label) in graph.edges().iter().zip(labels) {
        let (Some(from), Some(to)) = (ranks.get(edge.from).copied(), ranks.get(edge.to).copied()) else {
            paths.push(Vec::new());
            continue;
        };
        if let Some(gap) = gaps.get_mut(from) {
            *gap = gap.max(label + GAP);
        }
        let mut path = vec![edge.from];
        for layer in from + 1..to {
            spots.push(Spot {
                layer,
                height: 4.0,
                ..Spot::default()
            });
            path.push(spots.len() - 1);
        }
        path.push(edge.to);
        for pair in path.windows(2) {
            if let [a, b] = *pair
                && a != b
            {
                spots[a].after.push(b);
                spots[b].before.push(a);
            }
        }
        paths.push(path);
    }
    let mut order: Vec<Vec<usize>> = vec![Vec::new(); count];
    for (index, spot) in spots.iter().enumerate() {
        order[spot.layer].push(index);
    }
    sort(&mut order, &mut spots);
    let columns = columns(&order, &mut spots, &gaps);
    rows(&order, &mut spots);
    finish(graph, &spots, &paths, columns)
}

/// The longest way to each node. Should there be a circle, its nodes stand where the others leave them.
fn layers(graph: &Graph) -> Vec<usize> {
    let count = graph.nodes().len();
    let mut open = vec![0usize; count];
    let mut after: Vec<Vec<usize>> = vec![Vec::new(); count];
    for edge in graph.edges() {
        if edge.from < count && edge.to < count && edge.from != edge.to {
            open[edge.to] += 1;
            after[edge.from].push(edge.to);
        }
    }
    let sources: Vec<usize> = (0..count).filter(|node| open[*node] == 0).collect();
    let mut ready = sources.clone();
    let mut layers = vec![0usize; count];
    while let Some(node) = ready.pop() {
        for next in &after[node] {
            layers[*next] = layers[*next].max(layers[node] + 1);
            open[*next] -= 1;
            if open[*next] == 0 {
                ready.push(*next);
            }
        }
    }
    for source in sources {
        if let Some(first) = after[source].iter().map(|next| layers[*next]).min() {
            layers[source] = first.saturating_sub(1);
        }
    }
    // An edge that would go backwards (only in a circle) is drawn within one layer's bounds by its caller.
    layers
}

/// Orders each layer by the mean place of what its spots are joined to.
fn sort(order: &mut [Vec<usize>], spots: &mut [Spot]) {
    let mut place = vec![0.0f64; spots.len()];
    let note = |layer: &[usize], place: &mut [f64]| {
        let middle = layer.len() as f64 / 2.0;
        for (at, spot) in layer.iter().enumerate() {
            place[*spot] = at as f64 - middle;
        }
    };
    for layer in order.iter() {
        note(layer, &mut place);
    }
    for sweep in 0..2 * SWEEPS {
        let forward = sweep % 2 == 0;
        let count = order.len();
        for step in 0..count {
            let index = if forward { step } else { count - 1 - step };
            let layer = &mut order[index];
            let mean = |spot: usize| {
                let joined = if forward {
                    &spots[spot].before
                } else {
                    &spots[spot].after
                };
                match joined.len() {
                    0 => place[spot],
                    many => joined.iter().map(|other| place[*other]).sum::<f64>() / many as f64,
                }
            };
            let mut keyed: Vec<(f64, usize)> = layer.iter().map(|spot| (mean(*spot), *spot)).collect();
            keyed.sort_by(|a, b| a.0.total_cmp(&b.0));
            *layer = keyed.into_iter().map(|(_, spot)| spot).collect();
            note(layer, &mut place);
        }
    }
}

/// Gives every layer its column, and the whole width.
fn columns(order: &[Vec<usize>], spots: &mut [Spot], gaps: &[f64]) -> f64 {
    let mut x = 0.0;
    for (layer, gap) in order.iter().zip(gaps) {
        let width = layer.iter().map(|spot| spots[*spot].width).fold(0.0, f64::max);
        for spot in layer {
            spots[*spot].x = x + width / 2.0;
        }
        x += width + gap;
    }
    x - gaps.last().copied().unwrap_or(0.0)
}

/// Gives everything its height.
fn rows(order: &[Vec<usize>], spots: &mut [Spot]) {
    for layer in order {
        let mut y = 0.0;
        for spot in layer {
            spots[*spot].y = y + spots[*spot].height / 2.0;
            y += spots[*spot].height + BETWEEN;
        }
        for spot in layer {
            spots[*spot].y -= (y - BETWEEN) / 2.0;
        }
    }
    for sweep in 0..2 * SWEEPS + 1 {
        let forward = sweep % 2 == 0;
        let count = order.len();
        for step in 0..count {
            let index = if forward { step } else { count - 1 - step };
            let wanted: Vec<f64> = order[index]
                .iter()
                .map(|spot| {
                    let spot = &spots[*spot];
                    let sides = match sweep == 2 * SWEEPS {
                        // At last, both sides have a say.
                        true => [&spot.before[..], &spot.after[..]].concat(),
                        false if forward => spot.before.clone(),
                        false => spot.after.clone(),
                    };
                    match sides.len() {
                        0 => spot.y,
                        many => sides.iter().map(|other| spots[*other].y).sum::<f64>() / many as f64,
                    }
                })
                .collect();
            place(&order[index], spots, &wanted);
        }
    }
}

/// Moves the spots of a layer as near to where they want to be as order and distance let them: with the distances taken
/// off, an isotonic regression by pooling neighbours that are in each other's way.
fn place(layer: &[usize], spots: &mut [Spot], wanted: &[f64]) {
    let mut offset = 0.0;
    let mut offsets = Vec::with_capacity(layer.len());
    let mut last = 0.0;
    for (at, spot) in layer.iter().enumerate() {
        let half = spots[*spot].height / 2.0;
        if at > 0 {
            offset += last + BETWEEN + half;
        }
        last = half;
        offsets.push(offset);
    }
    // Blocks of spots that stand together: the sum of what they want, and how many they are.
    let mut blocks: Vec<(f64, usize)> = Vec::new();
    for (wanted, offset) in wanted.iter().zip(&offsets) {
        blocks.push((wanted - offset, 1));
        while let [.., before, now] = blocks[..] {
            if before.0 / before.1 as f64 <= now.0 / now.1 as f64 {
                break;
            }
            blocks.pop();
            if let Some(block) = blocks.last_mut() {
                *block = (before.0 + now.0, before.1 + now.1);
            }
        }
    }
    let places = blocks
        .iter()
        .flat_map(|(sum, count)| std::iter::repeat_n(sum / *count as f64, *count));
    for ((spot, base), offset) in layer.iter().zip(places).zip(&offsets) {
        spots[*spot].y = base + offset;
    }
}

fn finish(graph: &Graph, spots: &[Spot], paths: &[Vec<usize>], width: f64) -> Layout {
    let top = |spot: &Spot| spot.y - spot.height / 2.0;
    let bottom = |spot: &Spot| spot.y + spot.height / 2.0;
    let least = spots.iter().map(top).fold(f64::INFINITY, f64::min);
    let most = spots.iter().map(bottom).fold(f64::NEG_INFINITY, f64::max);
    if spots.is_empty() {
        return Layout::default();
    }
    let nodes = spots
        .iter()
        .take(graph.nodes().len())
        .map(|spot| (spot.x, spot.y - least, spot.width, spot.height))
        .collect();
    let edges = paths
        .iter()
        .map(|path| {
            let end = path.len().saturating_sub(1);
            path.iter()
                .enumerate()
                .map(|(at, spot)| {
                    let spot = &spots[*spot];
                    let side = match at {
                        0 => spot.width / 2.0,
                        at if at == end => -spot.width / 2.0,
                        _ => 0.0,
                    };
                    (spot.x + side, spot.y - least)
                })
                .collect()
        })
        .collect();
    Layout {
        nodes,
        edges,
        width,
        height: most - least,
    }
}
