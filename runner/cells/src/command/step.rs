//! The steps that a warden and a command take before the program runs, each of which can fail, as they are told.
//! And what holds when all of them are taken.

use std::io;

/// What holds that another host may not have, and can do without: bits of the first answer's status.
pub(super) mod holds {
    /// `/proc` is the namespace's own.
    pub(in crate::command) const OWN_PROC: i32 = 1;
    /// That `/proc` shows processes, and nothing of the machine.
    pub(in crate::command) const BARE_PROC: i32 = 2;
    /// What a command writes is in a file system of its own, bounded.
    pub(in crate::command) const SCRATCH: i32 = 4;
    /// The list of mounts, which names paths of the host, is out of sight.
    pub(in crate::command) const NO_MOUNTS: i32 = 8;
    /// The system's folders are read-only with all that is mounted in them.
    pub(in crate::command) const DEEPLY_READ_ONLY: i32 = 16;
}

/// Names, in order. The constants below count from 1.
const NAMES: [&str; 25] = [
    "descriptors",
    "control group",
    "cgroup namespace",
    "private mounts",
    "its own root folder",
    "the system's folders in it",
    "making them read-only",
    "hiding folders",
    "changing to it",
    "user and group",
    "user namespace",
    "its work folder",
    "no new privileges",
    "limits",
    "Landlock",
    "watching for ends",
    "adopting orphans",
    "seccomp",
    "new session",
    "standard streams",
    "limits of the command",
    "parent-death signal",
    "Landlock of the command",
    "seccomp of the command",
    "execute",
];

pub(super) const DESCRIPTORS: u32 = 1;
pub(super) const GROUP: u32 = 2;
pub(super) const GROUP_NAMESPACE: u32 = 3;
pub(super) const PRIVATE_MOUNTS: u32 = 4;
pub(super) const ROOT_FOLDER: u32 = 5;
pub(super) const SYSTEM_FOLDERS: u32 = 6;
pub(super) const READ_ONLY: u32 = 7;
pub(super) const HIDING: u32 = 8;
pub(super) const PIVOT: u32 = 9;
pub(super) const USER: u32 = 10;
pub(super) const USER_NAMESPACE: u32 = 11;
pub(super) const WORK: u32 = 12;
pub(super) const NO_NEW_PRIVILEGES: u32 = 13;
pub(super) const LIMITS: u32 = 14;
pub(super) const LANDLOCK: u32 = 15;
pub(super) const WATCHING: u32 = 16;
pub(super) const ADOPTING: u32 = 17;
pub(super) const SECCOMP: u32 = 18;
/// The first step of a command itself.
pub(super) const SESSION: u32 = 19;
pub(super) const STREAMS: u32 = 20;
pub(super) const COMMAND_LIMITS: u32 = 21;
pub(super) const PARENT_DEATH: u32 = 22;
pub(super) const COMMAND_LANDLOCK: u32 = 23;
pub(super) const COMMAND_SECCOMP: u32 = 24;
/// The last step: the program itself.
pub(super) const EXECUTE: u32 = 25;

/// The steps that a warden without a root of its own does not take.
const OF_ROOT: std::ops::RangeInclusive<u32> = PRIVATE_MOUNTS..=PIVOT;

/// An error of a step, so that the step is known to whoever gets it.
#[derive(Debug, thiserror::Error)]
#[error("{}: {source}", name(*step))]
struct StepError {
    step: u32,
    source: io::Error,
}

fn name(step: u32) -> &'static str {
    let index = (step as usize).checked_sub(1);
    index
        .and_then(|index| NAMES.get(index))
        .copied()
        .unwrap_or("start")
}

/// The error of a step that failed.
pub(super) fn error(step: u32, errno: i32) -> io::Error {
    let source = io::Error::from_raw_os_error(errno);
    io::Error::new(source.kind(), StepError { step, source })
}

/// Whether a step failed that only a warden with a root of its own takes.
pub(super) fn is_of_root(error: &io::Error) -> bool {
    let inner = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<StepError>());
    inner.is_some_and(|error| OF_ROOT.contains(&error.step))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_have_their_names() {
        for (step, expected) in [
            (0, "start"),
            (DESCRIPTORS, "descriptors"),
            (PIVOT, "changing to it"),
            (SESSION, "new session"),
            (EXECUTE, "execute"),
            (EXECUTE + 1, "start"),
        ] {
            assert_eq!(name(step), expected);
        }
        assert!(is_of_root(&error(READ_ONLY, libc::EPERM)));
        assert!(!is_of_root(&error(WORK, libc::EPERM)));
        assert!(!is_of_root(&io::Error::other("x")));
    }
}
