//! Points into instances: what an axis that is expanded at run time adds to a plan.

use hotcell_schema::stage::StageType;
use serde_json::{Map, Value as Json};

use crate::expression::{self, Evaluator, ExpressionError, Piece};
use crate::naming;
use crate::plan::{AxisValue, Expansion, Instance, Item, Plan, PlannedStage, Wire};
use crate::with::With;
use crate::words;

impl Plan {
    /// The stage of an instance.
    pub fn stage_of(&self, instance: &Instance) -> Option<&PlannedStage> {
        self.stages.get(&instance.stage)
    }

    /// The axis that makes an instance a point; `None` for every other instance.
    pub fn expansion_of(&self, instance: &Instance) -> Option<&Expansion> {
        let expansion = self.stage_of(instance)?.expansion.as_ref()?;
        (!instance.axes.contains_key(&expansion.axis)).then_some(expansion)
    }

    /// The instance that a point becomes for one item. `same` finds the instance that another point has become for the same
    /// item; where there is none, what is wired to it stays [`Wire::Same`].
    pub fn child(&self, point: &Instance, item: &Item, same: &dyn Fn(usize) -> Option<usize>) -> Instance {
        let mut child = point.clone();
        let Some(expansion) = self.expansion_of(point) else {
            return child;
        };
        child
            .axes
            .insert_sorted(expansion.axis.clone(), AxisValue::Item(item.clone()));
        child.name = naming::name(self, &child.stage, &child.axes, None);
        child.slug = naming::slug(self, &child.axes);
        child.seed = naming::seed(self, self.seed, &child.stage, &child.axes);
        child.expands = Vec::new();
        for wire in child.inputs.values_mut().flatten() {
            if let Wire::Same { point, port } = wire
                && let Some(instance) = same(*point)
            {
                *wire = Wire::Output {
                    instance,
                    port: std::mem::take(port),
                };
            }
        }
        let when = child.when.iter_mut().flat_map(|when| when.reads.values_mut());
        let late = child.late.iter_mut().flat_map(|late| late.reads.values_mut());
        for read in when.chain(late) {
            if let Some(instance) = same(*read) {
                *read = instance;
            }
        }
        child
    }

    /// The settings of an instance, with what is known at run time only filled in. `stages` are the results that they read.
    pub fn late_settings(
        &self,
        instance: &Instance,
        stages: Map<String, Json>,
    ) -> Result<With, ExpressionError> {
        let mut context = self.context(instance);
        if let Json::Object(names) = &mut context {
            names.insert("stages".into(), Json::Object(stages));
        }
        let mut with = Evaluator::default().fill_all(&instance.with.json(), &context)?;
        if StageType::find(&instance.uses).is_some_and(|stage_type| stage_type.open) {
            words::of_json(&mut with);
        }
        Ok(With::from(&with))
    }

    /// The expressions in the settings of an instance, one after the other.
    pub fn late_expressions(&self, instance: &Instance) -> String {
        fn each(value: &Json, out: &mut String) {
            match value {
                Json::String(text) => {
                    for piece in expression::pieces(text).unwrap_or_default() {
                        if let Piece::Expression(expression) = piece {
                            out.push_str(&expression);
                            out.push('\n');
                        }
                    }
                }
                Json::Array(items) => items.iter().for_each(|item| each(item, out)),
                Json::Object(table) => table.values().for_each(|value| each(value, out)),
                _ => {}
            }
        }
        let mut out = String::new();
        each(&instance.with.json(), &mut out);
        out
    }

    /// Whether an instance runs code of some architecture, so that it needs an arch profile.
    pub fn runs_code(&self, instance: &Instance) -> bool {
        StageType::find(&instance.uses).is_some_and(StageType::runs_guest)
    }
}
