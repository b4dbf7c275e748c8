//! What stages want of the cores: judged as far as the document alone can tell; the rest only the host knows.

use std::collections::BTreeMap;

use hotcell_schema::cores::CoreList;
use hotcell_schema::manifest::{Manifest, StageCores};
use hotcell_schema::stage::{STAGE_TYPES, StageType};

use super::Shared;
use crate::diagnostics::{Code, Diagnostic};
use crate::host::cores::Pool;

/// What the stages want, by their names.
pub(super) fn wanted(manifest: &Manifest) -> BTreeMap<String, StageCores> {
    let stages = manifest.stages.iter();
    stages
        .filter_map(|(name, stage)| Some((name.clone(), stage.cores?)))
        .collect()
}

/// Judges what the stages want; `pool` is absent where nobody says which cores it has, or only the host knows its end.
pub(super) fn check(shared: &Shared<'_>, pool: Option<&Pool>, problems: &mut Vec<Diagnostic>) {
    let cores = shared.manifest.cores.as_ref();
    let listed = cores.and_then(|cores| cores.pool.as_deref()?.parse::<CoreList>().ok());
    for (name, stage) in &shared.manifest.stages {
        let (Some(wanted), Some(stage_type)) = (&stage.cores, StageType::find(&stage.uses)) else {
            continue;
        };
        let key = shared.tree.key_span(&["stages", name, "cores"]);
        let at = |key: &str| shared.tree.at(&["stages", name, "cores", key]);
        let at = |wanted: &str| at(wanted).map_or(key, |node| node.span);
        let pool_at = shared.tree.at(&["cores", "pool"]).map(|node| node.span);
        if !stage_type.runs_guest() {
            let title = format!("`{}` runs no guest and has no cores of its own", stage.uses);
            let guests = STAGE_TYPES.iter().filter(|stage_type| stage_type.runs_guest());
            let guests: Vec<&str> = guests.map(|stage_type| stage_type.name).collect();
            problems.push(
                Diagnostic::error(Code::UnknownKey, key, title)
                    .help(format!("remove `cores`; it is for {}", guests.join(", "))),
            );
            continue;
        }
        if cores.is_none() && shared.tree.get("cores").is_none() {
            problems.push(
                Diagnostic::error(
                    Code::StageCores,
                    key,
                    format!("`{name}` wants cores, and the manifest reserves none"),
                )
                .help("write `[cores]`, for instance `cores = { slice = \"10ms\" }`, or remove this"),
            );
        }
        if let Some(core) = wanted.core {
            let outside = listed
                .as_ref()
                .is_some_and(|list| !list.ranges().iter().any(|range| range.contains(core)));
            if !wanted.exclusive {
                problems.push(
                    Diagnostic::error(
                        Code::StageCores,
                        at("core"),
                        "only who holds a core exclusively can say which one",
                    )
                    .help("add `exclusive = true`, or leave `core` out"),
                );
            } else if outside {
                let mut problem = Diagnostic::error(
                    Code::StageCores,
                    at("core"),
                    format!("core {core} is not in the pool"),
                )
                .help("guests run on the pool's cores only");
                if let Some(pool) = pool_at {
                    problem = problem.also(pool, "the pool");
                }
                problems.push(problem);
            }
        }
        let Some(pool) = pool else { continue };
        let (most, how, enlarge) = match wanted.exclusive {
            true => (
                pool.exclusive,
                "exclusive",
                "`cores.pool` or `cores.exclusive-max`",
            ),
            // The others may be held as long as their holders like.
            false => (
                pool.cores.saturating_sub(pool.exclusive),
                "shared in turns",
                "`cores.pool`",
            ),
        };
        let count = wanted.wanted().get();
        if usize::try_from(count).is_ok_and(|count| count > most) {
            let span = match wanted.count {
                Some(_) => at("count"),
                None => at("exclusive"),
            };
            let title = format!("`{name}` wants {count} core(s) at once, and {most} can be {how}");
            let mut problem = Diagnostic::error(Code::StageCores, span, title)
                .help(format!("ask for fewer, or enlarge {enlarge}"));
            if let Some(at) = pool_at {
                let text = format!(
                    "the pool has {} core(s), of which {} may be exclusive",
                    pool.cores, pool.exclusive
                );
                problem = problem.also(at, text);
            }
            problems.push(problem);
        }
    }
}
