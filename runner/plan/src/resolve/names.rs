//! Names in conditions: everything that `when` and `where` say must be known where they stand, so that a slip of the pen is
//! told by the plan and not by the run.

use std::collections::{BTreeMap, BTreeSet};

use hotcell_schema::manifest::{Axis, Span, Spanned, Stage};

use super::Shared;
use crate::diagnostics::{Code, Diagnostic};

/// What a sample has, as expressions see it ([`crate::plan::Sample::context`]).
const SAMPLE: &[&str] = &[
    "digest", "set", "name", "family", "variant", "label", "arch", "length",
];
/// What an item of an axis that is expanded at run time has ([`crate::plan::Item::context`]).
const ITEM: &[&str] = &["digest", "path", "name", "length", "depth"];
/// What the expression language itself knows.
const BUILT_IN: &[&str] = &["range", "dict", "namespace", "lipsum", "cycler", "joiner"];

/// Names, and what each has; nothing where that is not known.
type Scope<'a> = BTreeMap<&'a str, Option<&'static [&'static str]>>;

/// `when` of a stage.
pub(super) fn condition(
    shared: &Shared<'_>,
    stage: &Stage,
    when: &Spanned<String>,
    problems: &mut Vec<Diagnostic>,
) {
    let mut scope = Scope::from([("stage", None), ("uses", None), ("stages", None)]);
    axes(stage, &mut scope);
    if !scope.contains_key("sample") && scope.values().any(|has| *has == Some(SAMPLE)) {
        scope.insert("sample", Some(SAMPLE));
    }
    check(shared, when, when.span, &scope, problems);
}

/// `where` of an expectation: it can name what the stages it is about have.
pub(super) fn filter(
    shared: &Shared<'_>,
    stage: Option<&str>,
    filter: &Spanned<String>,
    problems: &mut Vec<Diagnostic>,
) {
    let mut scope = Scope::from([("stage", None), ("uses", None)]);
    for (name, each) in &shared.manifest.stages {
        if stage.is_none_or(|stage| stage == name) {
            axes(each, &mut scope);
        }
    }
    // A stage with mistakes of its own may have had the axis.
    let partial = shared
        .loaded
        .tainted
        .iter()
        .any(|(section, _)| *section == "stages");
    if !partial {
        check(shared, filter, filter.span, &scope, problems);
    }
}

fn axes<'a>(stage: &'a Stage, scope: &mut Scope<'a>) {
    for (name, axis) in &stage.for_each {
        let kind = |reference: &str| match reference.split_once('.') {
            Some(("samples", _)) => Some(SAMPLE),
            Some(("stages", _)) => Some(ITEM),
            _ => None,
        };
        let has = match &axis.value {
            Axis::Reference(reference) => kind(reference),
            Axis::Over(references) => references.first().and_then(|reference| kind(reference)),
            Axis::Values(_) => None,
        };
        match scope.get_mut(name.as_str()) {
            // Two stages may use the same name for different things.
            Some(known) if *known != has => *known = None,
            Some(_) => {}
            None => _ = scope.insert(name, has),
        }
    }
}

fn check(
    shared: &Shared<'_>,
    expression: &str,
    span: Span,
    scope: &Scope<'_>,
    problems: &mut Vec<Diagnostic>,
) {
    let Ok(names) = shared.evaluator.paths(expression) else {
        return;
    };
    let mut told = BTreeSet::new();
    for path in &names {
        let mut steps = path.split('.');
        let name = steps.next().unwrap_or_default();
        let field = steps.next();
        if BUILT_IN.contains(&name) {
            continue;
        }
        let (title, wrong, known): (String, &str, Vec<&str>) = match (scope.get(name), field) {
            (None, _) => (
                format!("`{name}` is not known here"),
                name,
                scope.keys().copied().collect(),
            ),
            (Some(Some(has)), Some(field)) if !has.contains(&field) => {
                (format!("`{name}` has no `{field}`"), field, has.to_vec())
            }
            _ => continue,
        };
        if !told.insert(title.clone()) {
            continue;
        }
        let problem = Diagnostic::error(Code::UnknownName, span, title);
        let problem = shared.near.hint(problem, wrong, known.iter().copied());
        problems.push(match problem.help {
            Some(_) => problem,
            None => problem.help(format!("known here: {}", known.join(", "))),
        });
    }
}
