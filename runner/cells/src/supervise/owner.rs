//! Whose a control group is, by its name: of which runner, and whether that runner still lives.

use std::fmt::Display;
use std::fs;
use std::path::Path;

use crate::cores::locks::{Holder, Processes};

const PREFIX: &str = "hotcell-";
/// The own part of the name of a pool's group.
pub(crate) const POOL: &str = "pool";
/// And of the group for what serves it.
pub(crate) const HOUSE: &str = "house";

/// The name of this process's group with this own part: a number, [`POOL`] or [`HOUSE`].
pub(crate) fn name(own: impl Display) -> String {
    let owned = Owners::of_this_host().and_then(|owners| owners.name(&own));
    // Where `/proc` does not tell what belongs into one.
    owned.unwrap_or_else(|| plain_name(&own))
}

/// The runners that can be told from here.
#[derive(Debug)]
pub(super) struct Owners {
    processes: Processes,
    /// The pid namespace of this process: a runner in another one has numbers of its own.
    namespace: u64,
}

impl Owners {
    /// Those of this host; `None` where `/proc` does not show them.
    pub(super) fn of_this_host() -> Option<Self> {
        let link = fs::read_link("/proc/self/ns/pid").ok()?;
        // namespaces(7): `pid:[4026531836]`.
        let number = link.to_str()?.strip_prefix("pid:[")?.strip_suffix(']')?;
        Some(Self {
            processes: Processes::open(Path::new("/proc")).ok()?,
            namespace: number.parse().ok()?,
        })
    }

    fn name(&self, own: &impl Display) -> Option<String> {
        let this = self.processes.find(std::process::id()).ok()??;
        Some(format!(
            "{PREFIX}{}-{}.{}-{own}",
            this.pid(),
            this.started(),
            self.namespace
        ))
    }

    /// Whether the group with this name belongs to a runner that is no more. What cannot be told belongs to the living: a
    /// runner in another pid namespace, whoever does not say when it started and has a number that is in use.
    pub(super) fn is_abandoned(&self, name: &str) -> bool {
        let Some(rest) = name.strip_prefix(PREFIX) else {
            return false;
        };
        let parts: Vec<&str> = rest.split('-').collect();
        let number = |text: &str| text.parse::<u64>().ok();
        let pid = |text: &str| text.parse::<u32>().ok();
        let is_own = |text: &str| [POOL, HOUSE].contains(&text) || number(text).is_some();
        match parts.as_slice() {
            [runner, started, own] if is_own(own) => {
                let Some((started, namespace)) = started.split_once('.') else {
                    return false;
                };
                let holder = pid(runner)
                    .zip(number(started))
                    .and_then(|(pid, started)| Holder::new(pid, started));
                number(namespace) == Some(self.namespace)
                    && holder.is_some_and(|holder| matches!(self.processes.lives(holder), Ok(false)))
            }
            // Of versions before this was in the name.
            [runner, own] if is_own(own) => {
                pid(runner).is_some_and(|pid| matches!(self.processes.find(pid), Ok(None)))
            }
            _ => false,
        }
    }
}

fn plain_name(own: &impl Display) -> String {
    format!("{PREFIX}{}-{own}", std::process::id())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_abandoned_when_its_very_runner_is_gone() {
        let Some(owners) = Owners::of_this_host() else {
            return;
        };
        let own = owners.name(&3).unwrap();
        let pid = std::process::id();
        assert!(
            own.starts_with(&format!("hotcell-{pid}-")) && own.ends_with("-3"),
            "{own}"
        );
        assert!(!owners.is_abandoned(&own));
        let namespace = owners.namespace;
        // The number is in use, by another process than the one that had it.
        assert!(owners.is_abandoned(&format!("hotcell-{pid}-1.{namespace}-0")));
        assert!(!owners.is_abandoned(&format!("hotcell-{pid}-1.{}-0", namespace + 1)));
        assert!(!owners.is_abandoned(&plain_name(&0)));
        // The greatest number that a process can have is far below this (proc(5), pid_max).
        assert!(owners.is_abandoned("hotcell-2147483646-0"));
        for other in [
            "",
            "hotcell-",
            "hotcell-1",
            "hotcell-x-0",
            "hotcell-0-1.2-3",
            "other-2147483646-0",
            "hotcell-2147483646-x",
            "hotcell-2147483646-0-1",
        ] {
            assert!(!owners.is_abandoned(other), "{other}");
        }
    }
}
