//! What a command may use, and what its end means.

use std::io;

use super::message::{Answer, Limit};
use super::step;
use crate::process::Interruption;
use crate::supervise::Exit;

/// Most files and folders that a command has at once where outputs and temporary files are in a file system of their own.
pub const MAX_FILES_AT_ONCE: u64 = 100_000;
/// Room beside the outputs, for temporary files, whatever the limit on outputs.
const LEAST_ROOM: u64 = 16 << 20;

/// Limits on one command. All of them hold unless a stage says otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CommandLimits {
    /// Wall time in milliseconds, of the command.
    pub wall_ms: u64,
    /// CPU time in seconds, of each process.
    pub cpu_s: u64,
    /// Bytes of memory of all processes together, with what they have written, by a control group; where there is none, of
    /// the data of each process.
    pub memory: u64,
    /// Processes and threads at once: by a control group, and where commands have a user of their own, by number of that user's.
    pub tasks: u64,
    /// Bytes in one file that it writes; outputs and temporary files together may have twice as many, and 16 MiB.
    pub file_bytes: u64,
}

impl Default for CommandLimits {
    fn default() -> Self {
        Self {
            wall_ms: 300_000,
            cpu_s: 600,
            memory: 2 << 30,
            tasks: 1024,
            file_bytes: 256 << 20,
        }
    }
}

/// The limits that a place is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bounds {
    pub(super) memory: u64,
    pub(super) tasks: u64,
    /// Bytes of outputs and temporary files together.
    pub(super) room: u64,
}

impl Bounds {
    pub(super) fn of(limits: &CommandLimits) -> Self {
        Self {
            memory: limits.memory,
            tasks: limits.tasks,
            room: limits.file_bytes.saturating_mul(2).saturating_add(LEAST_ROOM),
        }
    }
}

/// How a command ended.
#[derive(Debug)]
pub enum End {
    /// By itself.
    Exit(Exit),
    /// The host or a person ended it, or it failed because it met a limit.
    Interrupted(Interruption),
    /// It never ran: which step failed, and why.
    NotStarted {
        /// Whether the executable itself could not be started, so that the fault is the manifest's.
        program: bool,
        /// What failed.
        error: io::Error,
    },
}

/// Limits that a command has met while it ran: it may have coped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Met {
    pub(super) memory: bool,
    pub(super) tasks: bool,
    pub(super) room: bool,
}

/// Resource limits of a command's first process. `grouped`: whether a control group bounds memory.
pub(super) fn resource_limits(limits: &CommandLimits, grouped: bool) -> Vec<Limit> {
    let mut all = vec![
        // A second after the signal that can be told from others comes the one that cannot be caught.
        (libc::RLIMIT_CPU, limits.cpu_s, limits.cpu_s.saturating_add(1)),
        (libc::RLIMIT_FSIZE, limits.file_bytes, limits.file_bytes),
    ];
    if !grouped {
        // Not address space: programs reserve far more of that than they use.
        all.push((libc::RLIMIT_DATA, limits.memory, limits.memory));
    }
    all
}

/// What an answer means. `asked`: why the runner asked to end the command, if it did. `met` is asked only of one that did not
/// end well.
pub(super) fn ending(
    answer: &Answer,
    asked: Option<Interruption>,
    most_cpu_s: u64,
    met: impl FnOnce() -> Met,
) -> End {
    if answer.errno != 0 {
        return End::NotStarted {
            program: answer.step == step::EXECUTE,
            error: match answer.step {
                step::EXECUTE => io::Error::from_raw_os_error(answer.errno),
                step => step::error(step.max(step::SESSION), answer.errno),
            },
        };
    }
    let exit = match libc::WIFSIGNALED(answer.status) {
        true => Exit::Signal(libc::WTERMSIG(answer.status)),
        false => Exit::Code(libc::WEXITSTATUS(answer.status)),
    };
    if exit == Exit::Code(0) {
        return End::Exit(exit);
    }
    let met = met();
    let interrupted = match (exit, asked) {
        _ if met.memory => Interruption::Memory,
        (Exit::Signal(libc::SIGKILL), Some(why)) => why,
        (Exit::Signal(libc::SIGXCPU), _) => Interruption::CpuTime,
        // A shell whose child met the limit exits by itself. The limit is counted in ticks, what was used is exact: they differ.
        _ if answer.usage().cpu_s >= 0.8 * most_cpu_s as f64 - 0.3 => Interruption::CpuTime,
        // The stage knows better which of its outputs that was.
        (Exit::Signal(libc::SIGXFSZ), _) => return End::Exit(exit),
        _ if met.tasks => Interruption::Tasks,
        _ if met.room => Interruption::Room,
        (Exit::Signal(libc::SIGKILL), None) => Interruption::Killed,
        _ => return End::Exit(exit),
    };
    End::Interrupted(interrupted)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_says_why_a_command_ended() {
        let of = |status, asked, met, cpu: u64| {
            let answer = Answer {
                status,
                cpu_ns: cpu * 1_000_000_000,
                ..Answer::default()
            };
            ending(&answer, asked, 10, || met)
        };
        let none = Met::default();
        assert!(matches!(of(0x300, None, none, 0), End::Exit(Exit::Code(3))));
        assert!(matches!(of(0, None, none, 99), End::Exit(Exit::Code(0))));
        assert!(matches!(of(11, None, none, 0), End::Exit(Exit::Signal(11))));
        let why = |status, asked, met, cpu| match of(status, asked, met, cpu) {
            End::Interrupted(why) => Some(why),
            _ => None,
        };
        let wall = Some(Interruption::WallTime);
        assert_eq!(why(9, None, none, 0), Some(Interruption::Killed));
        assert_eq!(why(9, wall.clone(), none, 0), wall);
        assert_eq!(why(0x9800, None, none, 10), Some(Interruption::CpuTime));
        assert_eq!(why(24, None, none, 1), Some(Interruption::CpuTime));
        let memory = Met { memory: true, ..none };
        assert_eq!(why(9, None, memory, 0), Some(Interruption::Memory));
        assert_eq!(why(0x100, None, memory, 0), Some(Interruption::Memory));
        let tasks = Met { tasks: true, ..none };
        assert_eq!(why(0x100, None, tasks, 0), Some(Interruption::Tasks));
        assert_eq!(why(9, wall.clone(), tasks, 0), wall);
        let room = Met { room: true, ..none };
        assert_eq!(why(0x100, None, room, 0), Some(Interruption::Room));
        // Who copes with a limit has done its work.
        assert_eq!(why(0, None, tasks, 0), None);
    }

    #[test]
    fn a_program_that_cannot_start_is_told_from_a_host_that_cannot() {
        let of = |step| {
            let answer = Answer {
                step,
                errno: libc::ENOENT,
                ..Answer::default()
            };
            ending(&answer, None, 1, Met::default)
        };
        assert!(matches!(of(step::EXECUTE), End::NotStarted { program: true, .. }));
        assert!(matches!(
            of(step::COMMAND_LIMITS),
            End::NotStarted { program: false, .. }
        ));
    }

    #[test]
    fn memory_is_bounded_with_and_without_a_group() {
        let limits = CommandLimits::default();
        let bounds = |grouped| resource_limits(&limits, grouped).len();
        assert_eq!(bounds(true) + 1, bounds(false));
        let most = CommandLimits {
            file_bytes: u64::MAX,
            ..limits
        };
        assert_eq!(Bounds::of(&most).room, u64::MAX);
    }
}
