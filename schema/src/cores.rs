//! Processor cores as people and the kernel write them: `2-7,10`.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Greatest number of a processor that is read.
pub const MAX_CORE: u32 = 4095;
/// Greatest number of ranges of a list.
const MAX_RANGES: usize = 1024;

/// Why a list of cores cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CoreListError {
    /// A part of it is no number.
    #[error("`{0}` is no number")]
    Number(String),
    /// A number that no host has.
    #[error("no host has a core {0}")]
    TooLarge(u32),
    /// A range that ends before it begins.
    #[error("{0}-{1} runs backwards")]
    Backwards(u32, u32),
    /// More ranges than are read.
    #[error("it has more than {MAX_RANGES} ranges")]
    TooMany,
}

/// One part of a list: `4`, `2-7`, or `2-`, which ends where the host does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CoreRange {
    /// The first.
    pub first: u32,
    /// The last; absent: the host's last.
    pub last: Option<u32>,
}

impl CoreRange {
    /// Whether both name some core of a host that has it.
    pub fn overlaps(&self, other: &Self) -> bool {
        let reaches = |a: &Self, b: &Self| a.last.is_none_or(|last| b.first <= last);
        reaches(self, other) && reaches(other, self)
    }

    /// Whether a core is of the range.
    pub fn contains(&self, core: u32) -> bool {
        core >= self.first && self.last.is_none_or(|last| core <= last)
    }
}

impl fmt::Display for CoreRange {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.last {
            None => write!(out, "{}-", self.first),
            Some(last) if last == self.first => write!(out, "{last}"),
            Some(last) => write!(out, "{}-{last}", self.first),
        }
    }
}

/// Cores as a person lists them, in that order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CoreList(Vec<CoreRange>);

impl CoreList {
    /// The parts, in the order they are written.
    pub fn ranges(&self) -> &[CoreRange] {
        &self.0
    }

    /// Those of the host's cores that are listed, and those that are listed by number and that the host has not.
    pub fn among(&self, host: &CoreSet) -> (CoreSet, CoreSet) {
        let open = self.0.iter().filter(|range| range.last.is_none());
        let mut found: BTreeSet<u32> = open
            .flat_map(|range| host.iter().filter(|core| range.contains(*core)))
            .collect();
        let mut missing = BTreeSet::new();
        for range in &self.0 {
            let Some(last) = range.last else { continue };
            for core in range.first..=last {
                match host.contains(core) {
                    true => found.insert(core),
                    false => missing.insert(core),
                };
            }
        }
        (CoreSet(found), CoreSet(missing))
    }
}

impl FromStr for CoreList {
    type Err = CoreListError;

    fn from_str(text: &str) -> Result<Self, CoreListError> {
        if text.split(',').count() > MAX_RANGES {
            return Err(CoreListError::TooMany);
        }
        let range = |part: &str| {
            let (first, last) = match part.split_once('-') {
                None => (number(part)?, Some(number(part)?)),
                Some((first, last)) if last.trim().is_empty() => (number(first)?, None),
                Some((first, last)) => (number(first)?, Some(number(last)?)),
            };
            match last {
                Some(last) if last < first => Err(CoreListError::Backwards(first, last)),
                last => Ok(CoreRange { first, last }),
            }
        };
        text.split(',').map(range).collect::<Result<_, _>>().map(Self)
    }
}

fn number(text: &str) -> Result<u32, CoreListError> {
    let text = text.trim();
    // Rust reads a sign.
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse::<u32>() {
        Ok(core) if digits && core <= MAX_CORE => Ok(core),
        Ok(core) if digits => Err(CoreListError::TooLarge(core)),
        _ => Err(CoreListError::Number(text.chars().take(20).collect())),
    }
}

/// A set of processors, each by its number. Written as the kernel does: `0-3,8` (Linux, `cpuset(7)`, "List format").
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct CoreSet(BTreeSet<u32>);

impl CoreSet {
    /// Whether a processor is in it.
    pub fn contains(&self, core: u32) -> bool {
        self.0.contains(&core)
    }

    /// The numbers, smallest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = u32> + '_ {
        self.0.iter().copied()
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The smallest number.
    pub fn first(&self) -> Option<u32> {
        self.0.first().copied()
    }

    /// Whether all of it is in another set.
    pub fn is_subset(&self, of: &Self) -> bool {
        self.0.is_subset(&of.0)
    }

    /// What is in both.
    pub fn and(&self, other: &Self) -> Self {
        Self(self.0.intersection(&other.0).copied().collect())
    }

    /// What is in this one and not in the other.
    pub fn without(&self, other: &Self) -> Self {
        Self(self.0.difference(&other.0).copied().collect())
    }

    /// What is in either.
    pub fn or(&self, other: &Self) -> Self {
        Self(self.0.union(&other.0).copied().collect())
    }
}

impl FromIterator<u32> for CoreSet {
    fn from_iter<I: IntoIterator<Item = u32>>(cores: I) -> Self {
        Self(cores.into_iter().collect())
    }
}

impl FromStr for CoreSet {
    type Err = CoreListError;

    /// Reads what the kernel writes; the empty text is the empty set. A range without an end is refused.
    fn from_str(text: &str) -> Result<Self, CoreListError> {
        let text = text.trim();
        if text.is_empty() {
            return Ok(Self::default());
        }
        let list: CoreList = text.parse()?;
        let ranges = list.0.iter().map(|range| match range.last {
            Some(last) => Ok(range.first..=last),
            None => Err(CoreListError::Number(String::new())),
        });
        let ranges = ranges.collect::<Result<Vec<_>, _>>()?;
        Ok(ranges.into_iter().flatten().collect())
    }
}

impl fmt::Display for CoreSet {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut numbers = self.iter().peekable();
        let mut comma = "";
        while let Some(first) = numbers.next() {
            let mut last = first;
            while let Some(next) = numbers.next_if(|next| last.checked_add(1) == Some(*next)) {
                last = next;
            }
            let range = CoreRange {
                first,
                last: Some(last),
            };
            write!(out, "{comma}{range}")?;
            comma = ",";
        }
        Ok(())
    }
}

impl Serialize for CoreSet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for CoreSet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(text: &str) -> Result<CoreList, CoreListError> {
        text.parse()
    }

    #[test]
    fn lists_are_read_as_they_are_written() {
        let range = |first, last| CoreRange { first, last };
        assert_eq!(list("2-15").unwrap().ranges(), [range(2, Some(15))]);
        assert_eq!(
            list("2, 4-5,7-").unwrap().ranges(),
            [range(2, Some(2)), range(4, Some(5)), range(7, None)]
        );
        for wrong in [
            "", "a", "5-2", "-1", "1--2", "99999", "2-15-16", "+2", "2,,3", "-",
        ] {
            assert!(list(wrong).is_err(), "{wrong}");
        }
        let long = |count: usize| vec!["1"; count].join(",");
        assert!(list(&long(MAX_RANGES)).is_ok());
        assert_eq!(list(&long(MAX_RANGES + 1)), Err(CoreListError::TooMany));
    }

    #[test]
    fn sets_are_written_as_the_kernel_does() {
        for text in ["", "0", "0-3", "0-3,8", "1,3,5-7"] {
            assert_eq!(text.parse::<CoreSet>().unwrap().to_string(), text);
        }
        assert_eq!("3,1-2,2\n".parse::<CoreSet>().unwrap().to_string(), "1-3");
        assert!("2-".parse::<CoreSet>().is_err());
        let json = serde_json::to_string(&"0-2".parse::<CoreSet>().unwrap()).unwrap();
        assert_eq!(json, "\"0-2\"");
        assert_eq!(serde_json::from_str::<CoreSet>(&json).unwrap().len(), 3);
    }

    #[test]
    fn an_open_range_ends_with_the_host() {
        let host: CoreSet = "0-5".parse().unwrap();
        let (found, missing) = list("2-").unwrap().among(&host);
        assert_eq!((found.to_string(), missing.is_empty()), ("2-5".into(), true));
        let (found, missing) = list("4-7").unwrap().among(&host);
        assert_eq!(
            (found.to_string(), missing.to_string()),
            ("4-5".into(), "6-7".into())
        );
    }

    #[test]
    fn ranges_overlap_where_a_core_is_of_both() {
        let overlap = |a: &str, b: &str| {
            let (a, b) = (list(a).unwrap(), list(b).unwrap());
            a.ranges()[0].overlaps(&b.ranges()[0])
        };
        assert!(overlap("2-5", "5") && overlap("3-", "9") && overlap("1-9", "3-4"));
        assert!(!overlap("2-5", "6-") && !overlap("1", "2"));
    }
}
