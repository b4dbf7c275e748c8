//! Two JSON documents by their meaning: items of lists are matched by what identifies them, not by where they stand.

use std::collections::{HashMap, HashSet};

use hotcell_schema::diff::{Change, How, Line, Sign};
use serde_json::Value as Json;
use similar::{Algorithm, DiffTag, capture_diff_slices};

use crate::lines;

/// Keys that identify an item of a list, best first.
const IDENTITIES: [&str; 10] = [
    "id", "rule", "name", "path", "port", "key", "sequence", "seq", "address", "offset",
];
/// Greatest number of changes of one comparison.
const MAX_CHANGES: usize = 1_000;
/// Greatest number of items, between the common start and end, of a list without identities that are matched.
const MAX_MATCHED: usize = 1_000;
/// Deeper than this, values are compared as wholes. (Documents are read to a depth of 128.)
const MAX_DEPTH: usize = 64;

/// What differs between two documents; `path` is what they are called.
pub fn compare(path: &str, old: &Json, new: &Json) -> Vec<Change> {
    let mut comparison = Comparison::default();
    comparison.values(path, old, new, 0);
    comparison.finish(path)
}

/// The path of a part of a document.
pub(crate) fn key(path: &str, key: &str) -> String {
    if is_plain(key) {
        format!("{path}.{key}")
    } else {
        format!("{path}[{}]", Json::from(key))
    }
}

fn item(path: &str, identity: &str) -> String {
    if is_plain(identity) {
        format!("{path}[{identity}]")
    } else {
        format!("{path}[{}]", Json::from(identity))
    }
}

fn is_plain(key: &str) -> bool {
    !key.is_empty()
        && key.len() <= 120
        && key
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"_-/:+@".contains(&byte))
}

#[derive(Default)]
struct Comparison {
    changes: Vec<Change>,
    left_out: usize,
}

impl Comparison {
    fn push(&mut self, change: Change) {
        if self.changes.len() < MAX_CHANGES {
            self.changes.push(change);
        } else {
            self.left_out += 1;
        }
    }

    fn finish(mut self, path: &str) -> Vec<Change> {
        let mut changes = find_moved(std::mem::take(&mut self.changes));
        if self.left_out > 0 {
            let text = format!("{} more changes", self.left_out);
            changes.push(Change::lines(path, vec![Line::new(Sign::Skipped, text)]));
        }
        changes
    }

    fn values(&mut self, path: &str, old: &Json, new: &Json, depth: usize) {
        if old == new {
            return;
        }
        match (old, new) {
            (Json::Object(before), Json::Object(after)) if depth < MAX_DEPTH => {
                for (name, old) in before {
                    match after.get(name) {
                        Some(new) => self.values(&key(path, name), old, new, depth + 1),
                        None => self.push(Change::removed(key(path, name), old.clone())),
                    }
                }
                for (name, new) in after.iter().filter(|(name, _)| !before.contains_key(*name)) {
                    self.push(Change::added(key(path, name), new.clone()));
                }
            }
            (Json::Array(before), Json::Array(after)) if depth < MAX_DEPTH => {
                self.lists(path, before, after, depth + 1);
            }
            (Json::String(before), Json::String(after)) if before.contains('\n') || after.contains('\n') => {
                self.texts(path, before.split('\n').collect(), after.split('\n').collect());
            }
            _ => self.push(Change::changed(path, old.clone(), new.clone())),
        }
    }

    fn texts(&mut self, path: &str, old: Vec<&str>, new: Vec<&str>) {
        self.push(Change::lines(path, lines::between(&old, &new)));
    }

    fn lists(&mut self, path: &str, old: &[Json], new: &[Json], depth: usize) {
        if let (Some(before), Some(after)) = (texts(old), texts(new)) {
            self.texts(path, before, after);
        } else if let Some(identity) = identity(old, new) {
            self.identified(path, (&identity.0, &identity.1), old, new, depth);
        } else {
            self.aligned(path, old, new, depth);
        }
    }

    /// Items that have a name: those of the same name are compared, wherever they stand.
    fn identified(
        &mut self,
        path: &str,
        (before, after): (&[String], &[String]),
        old: &[Json],
        new: &[Json],
        depth: usize,
    ) {
        let places: HashMap<&str, usize> = before.iter().map(String::as_str).zip(0..).collect();
        let present: HashSet<&str> = after.iter().map(String::as_str).collect();
        for (name, value) in before
            .iter()
            .zip(old)
            .filter(|(name, _)| !present.contains(name.as_str()))
        {
            self.push(Change::removed(item(path, name), value.clone()));
        }
        let shared: Vec<(usize, usize)> = after
            .iter()
            .enumerate()
            .filter_map(|(place, name)| Some((*places.get(name.as_str())?, place)))
            .collect();
        let steady: HashSet<usize> = increasing(&shared.iter().map(|(was, _)| *was).collect::<Vec<_>>())
            .into_iter()
            .map(|index| shared[index].1)
            .collect();
        for (place, (name, value)) in after.iter().zip(new).enumerate() {
            let path = item(path, name);
            let Some(was) = places.get(name.as_str()) else {
                self.push(Change::added(path, value.clone()));
                continue;
            };
            if !steady.contains(&place) {
                let from = format!("place {} of {}", was + 1, old.len());
                let to = format!("place {} of {}", place + 1, new.len());
                self.push(Change::moved(path.clone(), from, Some(to.into())));
            }
            if let Some(old) = old.get(*was) {
                self.values(&path, old, value, depth);
            }
        }
    }

    /// Items without a name: the longest common sequence stays, what stands in the same gap is compared.
    fn aligned(&mut self, path: &str, old: &[Json], new: &[Json], depth: usize) {
        let start = old.iter().zip(new).take_while(|(old, new)| old == new).count();
        let end = old[start..]
            .iter()
            .rev()
            .zip(new[start..].iter().rev())
            .take_while(|(old, new)| old == new)
            .count();
        let (before, after) = (&old[start..old.len() - end], &new[start..new.len() - end]);
        if before.len().max(after.len()) > MAX_MATCHED {
            self.push(Change::changed(path, old.to_vec(), new.to_vec()));
            return;
        }
        let text = |items: &[Json]| items.iter().map(Json::to_string).collect::<Vec<_>>();
        for op in capture_diff_slices(Algorithm::Myers, &text(before), &text(after)) {
            let (tag, gone, came) = op.as_tag_tuple();
            if tag == DiffTag::Equal {
                continue;
            }
            let pairs = gone.len().min(came.len());
            for offset in 0..pairs {
                let (was, is) = (gone.start + offset, came.start + offset);
                self.values(
                    &format!("{path}[{}]", start + is),
                    &before[was],
                    &after[is],
                    depth,
                );
            }
            for was in gone.skip(pairs) {
                self.push(Change::removed(
                    format!("{path}[{}]", start + was),
                    before[was].clone(),
                ));
            }
            for is in came.skip(pairs) {
                self.push(Change::added(
                    format!("{path}[{}]", start + is),
                    after[is].clone(),
                ));
            }
        }
    }
}

fn texts(items: &[Json]) -> Option<Vec<&str>> {
    items.iter().map(Json::as_str).collect()
}

/// The names of the items of both lists: by the first key that every item has and no two share.
fn identity(old: &[Json], new: &[Json]) -> Option<(Vec<String>, Vec<String>)> {
    let names = |key: &str, items: &[Json]| -> Option<Vec<String>> {
        let names: Vec<String> = items
            .iter()
            .map(|item| match item.get(key)? {
                Json::String(text) => Some(text.clone()),
                Json::Number(number) => Some(number.to_string()),
                _ => None,
            })
            .collect::<Option<_>>()?;
        let distinct: HashSet<&String> = names.iter().collect();
        (distinct.len() == names.len()).then_some(names)
    };
    if old.is_empty() && new.is_empty() {
        return None;
    }
    IDENTITIES
        .iter()
        .find_map(|key| Some((names(key, old)?, names(key, new)?)))
}

/// Indexes of a longest increasing subsequence of distinct numbers.
pub(crate) fn increasing(numbers: &[usize]) -> Vec<usize> {
    let mut ends: Vec<usize> = Vec::new();
    let mut before: Vec<Option<usize>> = Vec::with_capacity(numbers.len());
    for (index, number) in numbers.iter().enumerate() {
        let length = ends.partition_point(|end| numbers[*end] < *number);
        before.push(length.checked_sub(1).map(|last| ends[last]));
        match ends.get_mut(length) {
            Some(end) => *end = index,
            None => ends.push(index),
        }
    }
    let mut out = Vec::with_capacity(ends.len());
    let mut at = ends.last().copied();
    while let Some(index) = at {
        out.push(index);
        at = before[index];
    }
    out.reverse();
    out
}

/// What is gone at one path and came at another, and is large enough to be known again, has moved.
fn find_moved(changes: Vec<Change>) -> Vec<Change> {
    let telling = |value: &Json| match value {
        Json::Object(object) => !object.is_empty(),
        Json::Array(items) => !items.is_empty(),
        Json::String(text) => text.len() >= 8,
        _ => false,
    };
    let mut gone: HashMap<String, Vec<usize>> = HashMap::new();
    for (index, change) in changes.iter().enumerate().rev() {
        if let (How::Removed, Some(old)) = (change.how, &change.old)
            && telling(old)
        {
            gone.entry(old.to_string()).or_default().push(index);
        }
    }
    let mut taken = HashSet::new();
    let mut moved = HashMap::new();
    for (index, change) in changes.iter().enumerate() {
        if let (How::Added, Some(new)) = (change.how, &change.new)
            && telling(new)
            && let Some(from) = gone.get_mut(&new.to_string()).and_then(Vec::pop)
        {
            taken.insert(from);
            moved.insert(index, changes[from].path.clone());
        }
    }
    changes
        .into_iter()
        .enumerate()
        .filter(|(index, _)| !taken.contains(index))
        .map(|(index, change)| match moved.remove(&index) {
            Some(from) => Change::moved(change.path, from, None),
            None => change,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn paths(old: Json, new: Json) -> Vec<String> {
        compare("d", &old, &new)
            .iter()
            .map(|change| format!("{:?} {}", change.how, change.path))
            .collect()
    }

    #[test]
    fn keys_are_compared_whatever_their_order() {
        assert_eq!(paths(json!({"a": 1, "b": 2}), json!({"b": 2, "a": 1})), [""; 0]);
        assert_eq!(
            paths(
                json!({"a": {"x": 1}, "b": 2, "c d": 1}),
                json!({"a": {"x": 2}, "e": 2})
            ),
            ["Changed d.a.x", "Removed d.b", "Removed d[\"c d\"]", "Added d.e"]
        );
        assert_eq!(paths(json!({"a": 1}), json!({"a": "1"})), ["Changed d.a"]);
    }

    #[test]
    fn items_are_matched_by_their_identity() {
        let old = json!([{"id": "a", "v": 1}, {"id": "b", "v": 1}, {"id": "c", "v": 1}]);
        let new = json!([{"id": "x", "v": 1}, {"id": "a", "v": 1}, {"id": "c", "v": 2}]);
        assert_eq!(
            paths(old.clone(), new),
            ["Removed d[b]", "Added d[x]", "Changed d[c].v"]
        );
        let turned = json!([{"id": "c", "v": 1}, {"id": "a", "v": 1}, {"id": "b", "v": 3}]);
        assert_eq!(paths(old, turned), ["Moved d[c]", "Changed d[b].v"]);
        // An identity that two items share is none.
        let old = json!([{"id": 1, "name": "p"}, {"id": 1, "name": "q"}]);
        let new = json!([{"id": 1, "name": "q"}]);
        assert_eq!(paths(old, new), ["Removed d[p]"]);
    }

    #[test]
    fn items_without_identity_are_aligned() {
        assert_eq!(paths(json!([1, 2, 3, 4]), json!([1, 3, 4])), ["Removed d[1]"]);
        assert_eq!(
            paths(json!([1, [2], 3]), json!([1, [5], 3, 4])),
            ["Changed d[1][0]", "Added d[3]"]
        );
        let many: Vec<u32> = (0..5_000).collect();
        let others: Vec<u32> = (5_000..10_000).collect();
        assert_eq!(paths(json!(many), json!(others)), ["Changed d"]);
    }

    #[test]
    fn what_moved_is_not_gone_and_new() {
        let big = json!({"k": "value"});
        assert_eq!(
            paths(json!({"a": big, "n": 1}), json!({"b": big, "m": 1})),
            ["Removed d.n", "Moved d.b", "Added d.m"]
        );
    }

    #[test]
    fn lines_are_told_as_lines() {
        let change = &compare("d", &json!(["a", "b"]), &json!(["a", "c"]))[0];
        assert_eq!(change.lines.len(), 3);
        let change = &compare("d", &json!({"t": "one\ntwo"}), &json!({"t": "one\n2"}))[0];
        assert_eq!((change.path.as_str(), change.lines.len()), ("d.t", 3));
    }

    #[test]
    fn everything_is_bounded() {
        let many = |n: usize, v: usize| Json::Object((0..n).map(|k| (format!("k{k}"), json!(v))).collect());
        assert_eq!(
            compare("d", &many(3_000, 1), &many(3_000, 2)).len(),
            MAX_CHANGES + 1
        );
        let deep = |v: u8| (0..120).fold(json!(v), |inner, _| json!([inner]));
        assert_eq!(compare("d", &deep(1), &deep(2)).len(), 1);
    }

    proptest::proptest! {
        /// No difference is ever called none, and equal documents never differ.
        #[test]
        fn a_difference_is_always_told(old in document(), new in document()) {
            proptest::prop_assert_eq!(compare("d", &old, &new).is_empty(), old == new);
        }
    }

    fn document() -> impl proptest::strategy::Strategy<Value = Json> {
        use proptest::prelude::*;
        let leaf = prop_oneof![
            Just(Json::Null),
            any::<bool>().prop_map(Json::from),
            (0..3i64).prop_map(Json::from),
            prop_oneof![Just("a"), Just("b\nc"), Just("a long text")].prop_map(Json::from),
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Json::from),
                prop::collection::hash_map(prop_oneof![Just("id"), Just("name"), Just("x y")], inner, 0..3)
                    .prop_map(|map| Json::Object(map.into_iter().map(|(k, v)| (k.to_owned(), v)).collect())),
            ]
        })
    }
}
