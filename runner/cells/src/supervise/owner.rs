//! Whose a control group is, by its name: of which runner, and whether that runner still lives.

use std::fmt::Display;
use std::fs;
use std::path::Path;
use std::str::FromStr;

use crate::cores::locks::{Holder, Processes};

const PREFIX: &str = "hotcell-";
/// The own part of the name of a pool's group.
pub(crate) const POOL: &str = "pool";
/// And of the group for what serves it.
pub(crate) const HOUSE: &str = "house";

/// How the names of all groups begin that the arbiter of a host makes: no runner's.
pub(crate) const OF_HOST: &str = "arbiter";
/// The own part of the name of the group of one of its cells.
const CELL: &str = "cell";

/// How the names of the groups begin that the arbiter of a host makes which serves at a place: `place` is a word.
pub(crate) fn of_host(place: &str) -> String {
    format!("{PREFIX}{OF_HOST}-{place}-")
}

/// The name of its group for a cell's process.
pub(super) fn of_cell(of_host: &str, cell: Holder) -> String {
    let namespace = namespace().unwrap_or_default();
    format!("{of_host}{CELL}-{}-{}.{namespace}", cell.pid(), cell.started())
}

/// The pid namespace of this process.
fn namespace() -> Option<u64> {
    let link = fs::read_link("/proc/self/ns/pid").ok()?;
    // namespaces(7): `pid:[4026531836]`.
    link.to_str()?
        .strip_prefix("pid:[")?
        .strip_suffix(']')?
        .parse()
        .ok()
}

/// Whether a group of this name is one cell's: of a runner, or of the arbiter of a host.
pub(super) fn is_of_a_cell(name: &str) -> bool {
    let own = name.strip_prefix(PREFIX).and_then(|rest| rest.rsplit('-').next());
    let of_runner = own.is_some_and(|own| own.parse::<u64>().is_ok());
    let of_host = format!("-{CELL}-");
    of_runner || (name.starts_with(PREFIX) && name.contains(&of_host))
}

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
        Some(Self {
            processes: Processes::open(Path::new("/proc")).ok()?,
            namespace: namespace()?,
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
        let is_own = |text: &str| [POOL, HOUSE].contains(&text) || number::<u64>(text).is_some();
        let is_gone = |pid: &str, started: &str| {
            let Some((started, namespace)) = started.split_once('.') else {
                return false;
            };
            let known = number(pid).zip(number(started));
            let holder = known.and_then(|(pid, started)| Holder::new(pid, started));
            number(namespace) == Some(self.namespace)
                && holder.is_some_and(|holder| matches!(self.processes.lives(holder), Ok(false)))
        };
        match parts.as_slice() {
            // What a cell had whose process is gone.
            [OF_HOST, _, CELL, pid, started] => is_gone(pid, started),
            [runner, started, own] if is_own(own) => is_gone(runner, started),
            // Of versions before this was in the name.
            [runner, own] if is_own(own) => {
                number(runner).is_some_and(|pid| matches!(self.processes.find(pid), Ok(None)))
            }
            _ => false,
        }
    }
}

fn number<N: FromStr>(text: &str) -> Option<N> {
    text.parse().ok()
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
        let this = owners.processes.find(pid).unwrap().unwrap();
        let gone = Holder::new(pid, this.started() + 1).unwrap();
        assert!(!owners.is_abandoned(&of_cell(&of_host("0a"), this)));
        assert!(owners.is_abandoned(&of_cell(&of_host("0a"), gone)));
        for other in [
            "",
            "hotcell-",
            "hotcell-1",
            "hotcell-x-0",
            "hotcell-0-1.2-3",
            "other-2147483646-0",
            "hotcell-2147483646-x",
            "hotcell-2147483646-0-1",
            "hotcell-arbiter-0a-pool",
            "hotcell-arbiter-0a-cell-2147483646-1.2",
        ] {
            assert!(!owners.is_abandoned(other), "{other}");
        }
    }
}
