//! The matrix of behaviours: which run did what.

use std::collections::BTreeMap;

use hotcell_schema::report::SampleReport;
use serde::Serialize;

use super::Subject;
use crate::summary::stage_label;

/// Greatest number of different behaviours in the matrix.
const MAX_ROWS: usize = 20_000;

/// What the page's script draws.
#[derive(Serialize, Default)]
pub(super) struct Matrix {
    /// Runs: instances with behaviours.
    columns: Vec<Column>,
    /// Different behaviours, sorted.
    rows: Vec<String>,
    /// For each column the places of its behaviours in `rows`, ascending, as differences.
    cells: Vec<Vec<usize>>,
    /// How many behaviours were left out.
    left_out: usize,
}

#[derive(Serialize)]
struct Column {
    sample: String,
    architecture: String,
    family: String,
    variant: String,
    set: String,
    stage: String,
    href: String,
}

impl Matrix {
    pub(super) fn new(subjects: &[Subject<'_>]) -> Self {
        let mut matrix = Self::default();
        let mut places: BTreeMap<&str, usize> = BTreeMap::new();
        let runs = || {
            subjects.iter().flat_map(|subject| {
                subject
                    .instances
                    .iter()
                    .filter(|instance| !instance.behaviour.is_empty())
                    .map(move |instance| (subject, *instance))
            })
        };
        for (_, instance) in runs() {
            for behaviour in &instance.behaviour {
                places.insert(behaviour, 0);
            }
        }
        matrix.left_out = places.len().saturating_sub(MAX_ROWS);
        for (place, (behaviour, value)) in places.iter_mut().enumerate().take(MAX_ROWS) {
            *value = place;
            matrix.rows.push((*behaviour).to_owned());
        }
        let kept = |behaviour: &str| {
            let place = *places.get(behaviour)?;
            (matrix.rows.get(place).map(String::as_str) == Some(behaviour)).then_some(place)
        };
        for (subject, instance) in runs() {
            let mut found: Vec<usize> = instance.behaviour.iter().filter_map(|text| kept(text)).collect();
            found.sort_unstable();
            found.dedup();
            let mut last = 0;
            for place in &mut found {
                let here = *place;
                *place -= last;
                last = here;
            }
            matrix.cells.push(found);
            let of_sample = |field: fn(&SampleReport) -> Option<&String>| {
                subject.sample.and_then(field).cloned().unwrap_or_default()
            };
            matrix.columns.push(Column {
                sample: subject.name.clone(),
                architecture: instance.arch.clone().unwrap_or_else(|| subject.arch().to_owned()),
                family: of_sample(|sample| sample.family.as_ref()),
                variant: of_sample(|sample| sample.variant.as_ref()),
                set: subject
                    .sample
                    .map(SampleReport::sets_in_words)
                    .unwrap_or_default(),
                stage: stage_label(instance),
                href: subject.path.clone(),
            });
        }
        matrix
    }

    pub(super) fn is_empty(&self) -> bool {
        self.columns.is_empty()
    }
}
