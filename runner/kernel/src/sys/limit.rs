//! Resource limits. Those of file sizes, descriptors and the address space hold; others are kept, and a report says so when a guest
//! lowers one.

use hotcell_schema::event::Support;

use crate::abi::Abi;
use crate::abi::errno::Errno;
use crate::abi::siginfo::code;
use crate::abi::signal::Sig;
use crate::call::{Answer, Call, Fail};
use crate::fs::open::{MAX_DESCRIPTORS, SOFT_DESCRIPTORS};
use crate::fs::tree::Ino;
use crate::signals;
use crate::sys::identity::other;
use crate::task::Process;

const INFINITE: u64 = u64::MAX;

/// A resource, by its number in uapi/asm-generic/resource.h.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Resource(u64);

impl Resource {
    const FILE_SIZE: Self = Self(1);
    const STACK: Self = Self(3);
    const CORE: Self = Self(4);
    const PROCESSES: Self = Self(6);
    const DESCRIPTORS: Self = Self(7);
    const LOCKED: Self = Self(8);
    const ADDRESSES: Self = Self(9);
    const SIGNALS: Self = Self(signals::LIMIT);
    const MESSAGES: Self = Self(12);
    const NICE: Self = Self(13);
    const PRIORITY: Self = Self(14);
    const LAST: Self = Self(15);

    /// The one that the guest names (mips: arch/mips/include/uapi/asm/resource.h).
    fn of(abi: &Abi, number: u64) -> Result<Self, Errno> {
        let found = match (abi.is_mips(), number) {
            (true, 5) => Self::DESCRIPTORS,
            (true, 6) => Self::ADDRESSES,
            (true, 7) => Self(5),
            (true, 8) => Self::PROCESSES,
            (true, 9) => Self::LOCKED,
            _ => Self(number),
        };
        if found.0 > Self::LAST.0 {
            return Err(Errno::EINVAL);
        }
        Ok(found)
    }

    /// Soft and hard limit of a process that set none.
    fn default(self) -> (u64, u64) {
        match self {
            Self::STACK => (8 << 20, INFINITE),
            Self::CORE => (0, INFINITE),
            Self::PROCESSES => (7824, 7824),
            Self::DESCRIPTORS => (SOFT_DESCRIPTORS.into(), MAX_DESCRIPTORS.into()),
            Self::LOCKED => (8 << 20, 8 << 20),
            Self::SIGNALS => (signals::DEFAULT_LIMIT, signals::DEFAULT_LIMIT),
            Self::MESSAGES => (819_200, 819_200),
            Self::NICE | Self::PRIORITY => (0, 0),
            _ => (INFINITE, INFINITE),
        }
    }

    /// Whether the kernel sees to it.
    fn is_enforced(self) -> bool {
        matches!(
            self,
            Self::FILE_SIZE | Self::DESCRIPTORS | Self::ADDRESSES | Self::SIGNALS | Self::CORE
        )
    }
}

/// How `/proc/PID/limits` calls each resource, and what it is counted in, by number (`lnames` in fs/proc/base.c).
const NAMES: [(&str, &str); 16] = [
    ("Max cpu time", "seconds"),
    ("Max file size", "bytes"),
    ("Max data size", "bytes"),
    ("Max stack size", "bytes"),
    ("Max core file size", "bytes"),
    ("Max resident set", "bytes"),
    ("Max processes", "processes"),
    ("Max open files", "files"),
    ("Max locked memory", "bytes"),
    ("Max address space", "bytes"),
    ("Max file locks", "locks"),
    ("Max pending signals", "signals"),
    ("Max msgqueue size", "bytes"),
    ("Max nice priority", ""),
    ("Max realtime priority", ""),
    ("Max realtime timeout", "us"),
];

impl Process {
    /// The text of `/proc/PID/limits`.
    pub(crate) fn limits_text(&self) -> String {
        let line = |name: &str, soft: &str, hard: &str| format!("{name:25} {soft:20} {hard:20} ");
        let mut text = line("Limit", "Soft Limit", "Hard Limit") + "Units     \n";
        for (number, (name, unit)) in (0..).zip(NAMES) {
            let shown = |limit: u64| match limit {
                INFINITE => "unlimited".to_owned(),
                limit => limit.to_string(),
            };
            let (soft, hard) = self.limit(Resource(number));
            text.push_str(&line(name, &shown(soft), &shown(hard)));
            if !unit.is_empty() {
                text.push_str(&format!("{unit:10}"));
            }
            text.push('\n');
        }
        text
    }

    fn limit(&self, resource: Resource) -> (u64, u64) {
        self.limits
            .get(&resource.0)
            .copied()
            .unwrap_or_else(|| resource.default())
    }

    /// Greatest size of its address space in bytes.
    pub(crate) fn most_addresses(&self) -> u64 {
        self.limit(Resource::ADDRESSES).0
    }
}

impl Call<'_> {
    /// What of a write at an offset the limit of file sizes leaves; a write that begins past it is an error, and a signal (write(2)).
    pub(super) fn within_file_size(&mut self, offset: u64, count: u64) -> Result<u64, Fail> {
        let (most, _) = self.process().limit(Resource::FILE_SIZE);
        let left = most.saturating_sub(offset);
        if left == 0 && count > 0 {
            let (pid, tid) = (self.pid, self.tid);
            self.k.tell_signal((pid, tid), pid, Sig::XFSZ);
            let info = self.own_info(code::USER);
            self.k.post_told(pid, Some(tid), Sig::XFSZ, info);
            return Err(Errno::EFBIG.into());
        }
        Ok(count.min(left))
    }

    /// The same for a file that is to be so long: only one that grows is asked about (`inode_newsize_ok` in fs/attr.c).
    pub(super) fn may_be_long(&mut self, ino: Ino, length: u64) -> Result<(), Fail> {
        let now = self.k.tree.bytes(ino).map_or(0, <[u8]>::len) as u64;
        match length.checked_sub(1).filter(|_| length > now) {
            Some(last) => self.within_file_size(last, 1).map(|_| ()),
            None => Ok(()),
        }
    }

    fn infinite(&self) -> u64 {
        // mips o32 has half of it.
        if self.abi().wide {
            INFINITE
        } else if self.abi().is_mips() {
            0x7fff_ffff
        } else {
            0xffff_ffff
        }
    }

    fn put_limit(&mut self, at: u64, limit: (u64, u64)) -> Result<(), Errno> {
        let most = self.infinite();
        let word = self.abi().word();
        self.put_word(at, limit.0.min(most))?;
        self.put_word(at.wrapping_add(word), limit.1.min(most))
    }

    fn get_limit(&self, at: u64) -> Result<(u64, u64), Errno> {
        let most = self.infinite();
        let word = self.abi().word();
        let read = |at| {
            self.get_word(at)
                .map(|value| if value >= most { INFINITE } else { value })
        };
        Ok((read(at)?, read(at.wrapping_add(word))?))
    }

    fn set_limit(&mut self, resource: Resource, new: (u64, u64)) -> Result<(), Errno> {
        let old = self.process().limit(resource);
        if new.0 > new.1 {
            return Err(Errno::EINVAL);
        }
        let over = resource == Resource::DESCRIPTORS && new.1 > u64::from(MAX_DESCRIPTORS);
        if over || new.1 > old.1 && self.process().uid[1] != 0 {
            return Err(Errno::EPERM);
        }
        let process = self.process();
        process.limits.insert(resource.0, new);
        match resource {
            Resource::DESCRIPTORS => process.files.limit(new.0),
            Resource::ADDRESSES => {
                let space = process.space;
                if let Some(space) = self.k.spaces.get_mut(&space) {
                    space.most = new.0;
                }
            }
            _ if new.0 < old.0 && !resource.is_enforced() => {
                let name = self.pending.row.name;
                let note = "a limit that was lowered is kept, but not enforced";
                self.k.note_unsupported(name, Support::Partial, note);
            }
            _ => {}
        }
        Ok(())
    }
}

/// getrlimit and ugetrlimit.
pub(crate) fn getrlimit(c: &mut Call<'_>) -> Answer {
    let resource = Resource::of(c.abi(), c.word(0))?;
    let limit = c.process().limit(resource);
    c.put_limit(c.word(1), limit)?;
    Ok(0)
}

pub(crate) fn setrlimit(c: &mut Call<'_>) -> Answer {
    let resource = Resource::of(c.abi(), c.word(0))?;
    let new = c.get_limit(c.word(1))?;
    c.set_limit(resource, new)?;
    Ok(0)
}

pub(crate) fn prlimit64(c: &mut Call<'_>) -> Answer {
    let pid = other(c, 0)?;
    if pid != c.pid {
        return Err(Errno::EPERM.into());
    }
    let resource = Resource::of(c.abi(), c.word(1))?;
    let old = c.process().limit(resource);
    let (new_at, old_at) = (c.word(2), c.word(3));
    let new = match new_at {
        0 => None,
        at => Some((c.get_u64(at)?, c.get_u64(at.wrapping_add(8))?)),
    };
    if let Some(new) = new {
        c.set_limit(resource, new)?;
    }
    if old_at != 0 {
        c.put_u64(old_at, old.0)?;
        c.put_u64(old_at.wrapping_add(8), old.1)?;
    }
    Ok(0)
}
