//! Points into instances: the files that others gave become items.

use hotcell_plan::{AxisValue, Expansion, Instance, Item};
use hotcell_schema::digest::Digest;
use hotcell_schema::job::LeftFile;
use hotcell_schema::outcome::Status;
use hotcell_store::Stored;
use serde::Deserialize;

use crate::work::{self, Done, Shared};

/// A `files` output, as far as an axis reads it.
#[derive(Deserialize)]
struct Files {
    files: Vec<LeftFile>,
}

/// What one level of a point gave.
#[derive(Debug)]
pub(crate) struct Level {
    /// Indexes of what the point became.
    pub children: Vec<usize>,
    /// Their items.
    pub items: Vec<Digest>,
    /// Whether the next level is to be looked for when they are done.
    pub deeper: bool,
    /// How the point ended, when this was its last level.
    pub done: Option<Done>,
}

/// Looks for the items of a level, and adds what the point becomes for them.
pub(crate) fn expand(shared: &Shared<'_>, index: usize, level: u8) -> Level {
    match try_expand(shared, index, level) {
        Ok(level) => level,
        Err(done) => Level {
            children: Vec::new(),
            items: Vec::new(),
            deeper: false,
            done: Some(done),
        },
    }
}

fn try_expand(shared: &Shared<'_>, index: usize, level: u8) -> Result<Level, Done> {
    let missing = || Done::failed("the plan expands what is no point", format!("instance {index}"));
    let point = shared.table.instance(index).ok_or_else(missing)?;
    let expansion = shared.plan.expansion_of(point).ok_or_else(missing)?;
    let found = if level == 1 {
        if shared.plan.is_absent(point) {
            return Err(Done::without_outputs(Status::Skipped, work::ABSENT));
        }
        work::check_dependencies(shared, point)?;
        let mut found = Vec::new();
        for wire in &point.expands {
            for (_, stored) in work::gives(shared, wire) {
                items(shared, stored, level, &mut found)?;
            }
        }
        found
    } else {
        let own = expansion.own.as_deref().unwrap_or_default();
        let mut found = Vec::new();
        for child in shared.table.children(index) {
            let of_last_level = shared
                .table
                .instance(child)
                .is_some_and(|child| depth(child) == level - 1);
            if let Some(stored) = work::output(shared, child, own).filter(|_| of_last_level) {
                items(shared, stored, level, &mut found)?;
            }
        }
        found
    };
    // Below the last level is only looked whether there is anything: what is left out is told.
    if level > expansion.max_depth {
        shared.table.leave_deeper(index, found);
        return Ok(Level {
            children: Vec::new(),
            items: Vec::new(),
            deeper: false,
            done: Some(ended(shared, index, expansion)),
        });
    }
    let new = shared.table.new_items(index, found, expansion.max_items as usize);
    let mut children = Vec::with_capacity(new.len());
    for item in &new {
        let same = |point: usize| shared.table.child(point, &item.digest);
        let child = shared.plan.child(point, item, &same);
        children.push(shared.table.add(index, item.digest, child));
    }
    let deeper = expansion.own.is_some() && level <= expansion.max_depth && !children.is_empty();
    Ok(Level {
        items: new.iter().map(|item| item.digest).collect(),
        children,
        deeper,
        done: (!deeper).then(|| ended(shared, index, expansion)),
    })
}

/// How a point ends that has found all its items.
fn ended(shared: &Shared<'_>, index: usize, expansion: &Expansion) -> Done {
    let (table, mut reasons) = (&shared.table, Vec::new());
    for (count, more, limit, most) in [
        (
            table.left_out(index),
            "more",
            "max-items",
            u64::from(expansion.max_items),
        ),
        (
            table.too_deep(index),
            "deeper",
            "max-depth",
            u64::from(expansion.max_depth),
        ),
    ] {
        match count {
            0 => {}
            1 => reasons.push(format!("1 {more} item was left out: `{limit}` is {most}")),
            many => reasons.push(format!("{many} {more} items were left out: `{limit}` is {most}")),
        }
    }
    Done {
        reason: (!reasons.is_empty()).then(|| reasons.join("; ")),
        ..Done::ok(indexmap::IndexMap::new(), Vec::new())
    }
}

fn depth(instance: &Instance) -> u8 {
    let item = instance.axes.values().find_map(|value| match value {
        AxisValue::Item(item) => Some(item.depth),
        _ => None,
    });
    item.unwrap_or(0)
}

/// The files that a `files` output names.
fn items(shared: &Shared<'_>, stored: Stored, depth: u8, found: &mut Vec<Item>) -> Result<(), Done> {
    let documents = &shared.documents;
    let files = documents.get::<Files>(shared, &stored, "a list of files cannot be read")?;
    found.extend(files.files.iter().map(|file| Item {
        digest: file.digest,
        length: file.length,
        path: file.path.clone(),
        depth,
    }));
    Ok(())
}
