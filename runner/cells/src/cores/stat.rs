//! What the kernel says of one process or thread (proc(5)).

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use hotcell_schema::cores::CoreSet;

/// The most bytes of a `stat` file: 52 numbers of at most 21 characters, and a name of at most 64.
pub(super) const STAT_BYTES: u64 = 4096;
/// The most bytes that are read of `status`.
const STATUS_BYTES: u64 = 16 << 10;
/// A thread of the kernel (`PF_KTHREAD`, include/linux/sched.h).
const OF_KERNEL: u32 = 0x0020_0000;

/// One thread, for as long as the host is up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Thread {
    pub(super) id: i32,
    /// When it began, in ticks since boot.
    pub(super) started: u64,
}

/// What is used of `stat`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Stat {
    /// What it calls itself: letters that do no harm, for people.
    pub(super) name: String,
    state: u8,
    flags: u32,
    /// CPU time in ticks, user and system.
    pub(super) ticks: u64,
    /// Threads of its process.
    pub(super) threads: u64,
    /// When it began, in ticks since boot.
    pub(super) started: u64,
    /// Where it is, or was last.
    pub(super) processor: u32,
}

impl Stat {
    /// `None`: it is not as proc(5) says.
    pub(super) fn parse(text: &[u8]) -> Option<Self> {
        // Field 2 is a name that the thread chooses, with any bytes, in parentheses: the last one is its end.
        let begins = text.iter().position(|&byte| byte == b'(')?;
        let ends = text.iter().rposition(|&byte| byte == b')')?;
        let name = text.get(begins.checked_add(1)?..ends)?;
        let rest = std::str::from_utf8(text.get(ends.checked_add(1)?..)?).ok()?;
        // The first is field 3.
        let fields: Vec<&str> = rest.split_ascii_whitespace().take(37).collect();
        let field = |number: usize| fields.get(number.checked_sub(3)?).copied();
        let number = |at: usize| field(at)?.parse::<u64>().ok();
        let flags = u32::try_from(number(9)?).ok()?;
        let harmless = |byte: &&u8| byte.is_ascii_alphanumeric() || b"-_./:+@ ".contains(byte);
        let name: String = name
            .iter()
            .filter(harmless)
            .take(32)
            .map(|&byte| char::from(byte))
            .collect();
        Some(Self {
            name: match flags & OF_KERNEL {
                0 => name,
                _ => format!("[{name}]"),
            },
            state: *field(3)?.as_bytes().first()?,
            flags,
            ticks: number(14)?.saturating_add(number(15)?),
            threads: number(20)?,
            started: number(22)?,
            processor: u32::try_from(number(39)?).ok()?,
        })
    }

    /// Whether it runs, or would if its processor were free.
    pub(super) fn runs(&self) -> bool {
        self.state == b'R'
    }

    /// Whether it is a thread of the kernel.
    pub(super) fn of_kernel(&self) -> bool {
        self.flags & OF_KERNEL != 0
    }

    /// Whether the process has ended. One whose first thread has ended has not, as long as it has others: `/proc` calls both
    /// zombies.
    pub(super) fn has_ended(&self) -> bool {
        matches!(self.state, b'Z' | b'X' | b'x') && self.threads <= 1
    }

    /// Whether this thread stands still, or has ended: it runs no further instruction until it is told.
    pub(super) fn stands_still(&self) -> bool {
        matches!(self.state, b'T' | b't' | b'Z' | b'X' | b'x')
    }
}

/// Reads it; `None`: it is not as proc(5) says.
pub(super) fn read(file: &Path) -> io::Result<Option<Stat>> {
    let mut text = Vec::with_capacity(512);
    File::open(file)?.take(STAT_BYTES).read_to_end(&mut text)?;
    Ok(Stat::parse(&text))
}

/// The processors that a thread may run on; `None`: it has ended.
pub(super) fn allowed(task: &Path) -> Option<CoreSet> {
    let mut text = Vec::new();
    let file = File::open(task.join("status")).ok()?;
    file.take(STATUS_BYTES).read_to_end(&mut text).ok()?;
    // The name is in the first line, with what would end a line escaped.
    let text = String::from_utf8_lossy(&text);
    let list = text
        .lines()
        .find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?;
    list.trim().parse().ok()
}

/// Entries of a folder that are numbers: processes or threads.
pub(super) fn numbers(folder: &Path) -> Vec<i32> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    let names = entries.flatten().map(|entry| entry.file_name());
    names.filter_map(|name| name.to_str()?.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_no_place_to_hide() {
        let line = |name: &str| {
            format!(
                "7 ({name}) R 1 1 1 0 -1 2097216 0 0 0 0 3 4 0 0 20 0 5 0 99 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 17 6 0 0"
            )
        };
        let stat = Stat::parse(line("a) S (\n\u{1b}[31m<b>").as_bytes()).unwrap();
        assert_eq!(stat.name, "[a S 31mb]");
        assert!(stat.runs() && stat.of_kernel());
        assert_eq!(
            (stat.ticks, stat.threads, stat.started, stat.processor),
            (7, 5, 99, 6)
        );
        for text in ["", "7", "7 (x", "7 (x)", "7 (x) R 1", "7 )x( R"] {
            assert_eq!(Stat::parse(text.as_bytes()), None, "{text}");
        }
    }
}
