//! What is used of `/proc/PID/stat` (`proc(5)`).

/// The most bytes of such a file: 52 numbers of at most 21 characters, and a name of at most 64.
pub(super) const STAT_BYTES: u64 = 4096;

/// What is used of it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Stat {
    /// Field 3.
    state: u8,
    /// Field 20.
    pub(super) threads: u64,
    /// Field 22, in clock ticks after the boot.
    pub(super) started: u64,
}

impl Stat {
    pub(super) fn read(text: &[u8]) -> Option<Self> {
        // Field 2 is a name that the process chooses, with any bytes, in parentheses: the last one is its end.
        let name_ends = text.iter().rposition(|&byte| byte == b')')?;
        let rest = std::str::from_utf8(text.get(name_ends..)?).ok()?;
        let mut fields = rest.split_ascii_whitespace().skip(1);
        let state = match fields.next()?.as_bytes() {
            [state] => *state,
            _ => return None,
        };
        let threads = fields.nth(16)?.parse().ok()?;
        let started = fields.nth(1)?.parse().ok()?;
        Some(Self {
            state,
            threads,
            started,
        })
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
