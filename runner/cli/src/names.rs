//! Names of instances for people.

use std::collections::HashMap;

use hotcell_plan::{AxisValue, Instance, Plan};
use hotcell_schema::names::{short_name, shorten};

use crate::ui;

/// Short names of a plan's instances: `run[sample=busybox-3b1f2c4d]`.
#[derive(Debug)]
pub(crate) struct Names<'a> {
    plan: &'a Plan,
    samples: HashMap<String, &'a str>,
}

impl<'a> Names<'a> {
    pub(crate) fn new(plan: &'a Plan) -> Self {
        let samples = plan.samples.iter().rev();
        Self {
            plan,
            samples: samples
                .map(|sample| (sample.digest.to_string(), sample.name.as_str()))
                .collect(),
        }
    }

    /// The short name as it is.
    pub(crate) fn of(&self, instance: &Instance) -> String {
        let axes = self.plan.axis_texts(instance);
        // A file that another instance gave is named like a sample.
        let items: HashMap<String, &str> = instance
            .axes
            .values()
            .filter_map(|value| match value {
                AxisValue::Item(item) => Some((item.digest.to_string(), item.name())),
                _ => None,
            })
            .collect();
        let axes = axes.iter().map(|(axis, value)| (axis.as_str(), value.as_str()));
        short_name(&instance.stage, axes, |digest| {
            self.samples.get(digest).or_else(|| items.get(digest)).copied()
        })
    }

    /// A text about instances, with the digests in it shortened and named like those of short names.
    pub(crate) fn shorten(&self, text: &str) -> String {
        shorten(text, |digest| self.samples.get(digest).copied())
    }

    /// The short name for a terminal.
    pub(crate) fn plain(&self, instance: &Instance) -> String {
        ui::plain(&self.of(instance))
    }
}
