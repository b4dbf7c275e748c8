//! Near names for wrong ones, within an allowance.

use std::cell::Cell;

use crate::diagnostics::{Diagnostic, nearest};

/// Looks for names that are near to wrong ones. To look for one costs as much as there are names, so there is an end to it:
/// it is the first mistakes that are read.
#[derive(Debug)]
pub(crate) struct Near {
    /// Work that may still be done.
    left: Cell<usize>,
}

/// Work for one step from document to plan: pairs of characters that are compared.
const WORK: usize = 10_000_000;

impl Default for Near {
    fn default() -> Self {
        Self {
            left: Cell::new(WORK),
        }
    }
}

impl Near {
    /// The known name that is near enough to be meant; nothing where looking for it would cost more than is left.
    pub(crate) fn find<'a>(&self, wrong: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
        let mut left = self.left.get();
        let mut enough = true;
        let found = nearest(
            wrong,
            known.into_iter().map_while(|name| {
                let cost = (wrong.len() + 1).saturating_mul(name.len() + 1);
                match left.checked_sub(cost) {
                    Some(rest) => left = rest,
                    None => enough = false,
                }
                enough.then_some(name)
            }),
        );
        self.left.set(if enough { left } else { 0 });
        found.filter(|_| enough)
    }

    /// Adds what was probably meant, if anything is near.
    pub(crate) fn hint<'a>(
        &self,
        diagnostic: Diagnostic,
        wrong: &str,
        known: impl IntoIterator<Item = &'a str>,
    ) -> Diagnostic {
        match self.find(wrong, known) {
            Some(name) => diagnostic.help(format!("did you mean `{name}`?")),
            None => diagnostic,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_an_end_to_looking() {
        let near = Near::default();
        assert_eq!(near.find("smaples", ["sources", "samples"]), Some("samples"));
        let names: Vec<String> = (0..100_000).map(|index| format!("stage-{index:06}")).collect();
        let wrong = |index: usize| near.find(&format!("stgae-{index:06}"), names.iter().map(String::as_str));
        assert!(wrong(0).is_none_or(|name| name == "stage-000000"));
        assert_eq!(wrong(1), None);
        let started = std::time::Instant::now();
        assert!((0..10_000).all(|index| wrong(index).is_none()));
        assert!(started.elapsed().as_secs() < 5);
    }
}
