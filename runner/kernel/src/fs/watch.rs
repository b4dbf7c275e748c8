//! Watches on files (`inotify(7)`): who wants to hear of which inode, and what it has not read yet.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use crate::abi::errno::Errno;
use crate::fs::tree::Ino;

/// What may happen, and how a watch is asked for (`linux/inotify.h`).
pub(crate) mod what {
    pub(crate) const ACCESS: u32 = 0x1;
    pub(crate) const MODIFY: u32 = 0x2;
    pub(crate) const ATTRIBUTES: u32 = 0x4;
    pub(crate) const CLOSE_WRITTEN: u32 = 0x8;
    pub(crate) const CLOSE: u32 = 0x10;
    pub(crate) const OPEN: u32 = 0x20;
    pub(crate) const MOVED_FROM: u32 = 0x40;
    pub(crate) const MOVED_TO: u32 = 0x80;
    pub(crate) const CREATE: u32 = 0x100;
    pub(crate) const DELETE: u32 = 0x200;
    pub(crate) const DELETE_SELF: u32 = 0x400;
    pub(crate) const MOVE_SELF: u32 = 0x800;
    /// All that can be asked for.
    pub(crate) const ALL: u32 = 0xfff;
    /// More happened than there was room for.
    pub(crate) const OVERFLOW: u32 = 0x4000;
    /// The watch is gone.
    pub(crate) const IGNORED: u32 = 0x8000;
    pub(crate) const ONLY_DIRECTORY: u32 = 0x0100_0000;
    pub(crate) const DO_NOT_FOLLOW: u32 = 0x0200_0000;
    /// Nothing of files that have lost their name.
    pub(crate) const NOT_UNLINKED: u32 = 0x0400_0000;
    /// Only where there is no watch yet.
    pub(crate) const NEW: u32 = 0x1000_0000;
    /// Beside what is watched already.
    pub(crate) const ADD: u32 = 0x2000_0000;
    /// It happened to a directory.
    pub(crate) const DIRECTORY: u32 = 0x4000_0000;
    pub(crate) const ONCE: u32 = 0x8000_0000;
}

/// `fs.inotify.max_user_instances`, `max_user_watches` (as small machines have it), `max_queued_events`.
pub(crate) const MAX_INSTANCES: usize = 128;
pub(crate) const MAX_WATCHES: usize = 8_192;
pub(crate) const MAX_QUEUED: usize = 16_384;
/// Bytes that all events together may have before they are read.
const MAX_HELD: usize = 16 << 20;
/// Bytes of a `struct inotify_event` without its name, and what a name is padded to.
pub(crate) const EVENT: usize = 16;

/// Names an instance of inotify. Never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct WatcherId(u64);

/// What happened, as one watch has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct News {
    /// Number of the watch.
    pub(crate) watch: i32,
    pub(crate) what: u32,
    /// Joins the two ends of a move.
    pub(crate) cookie: u32,
    /// In a directory: to whom it happened.
    pub(crate) name: Vec<u8>,
}

impl News {
    /// Bytes of the name as it is read: ended by a zero and padded.
    pub(crate) fn name_size(&self) -> usize {
        match self.name.len() {
            0 => 0,
            length => (length + 1).next_multiple_of(EVENT),
        }
    }

    fn size(&self) -> usize {
        EVENT + self.name_size()
    }
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Watch {
    ino: Ino,
    mask: u32,
}

/// One instance.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Watcher {
    watches: BTreeMap<i32, Watch>,
    last: i32,
    queue: VecDeque<News>,
    /// Counts what happened to it.
    activity: u64,
}

/// All instances.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Watches {
    watchers: BTreeMap<WatcherId, Watcher>,
    /// Who watches an inode, and the watch's number.
    watched: BTreeMap<Ino, BTreeMap<WatcherId, i32>>,
    next: u64,
    cookie: u32,
    count: usize,
    held: usize,
}

impl Watches {
    /// A new instance.
    pub(crate) fn make(&mut self) -> Result<WatcherId, Errno> {
        if self.watchers.len() >= MAX_INSTANCES {
            return Err(Errno::EMFILE);
        }
        let id = WatcherId(self.next);
        self.next += 1;
        self.watchers.insert(id, Watcher::default());
        Ok(id)
    }

    /// The last descriptor is gone.
    pub(crate) fn close(&mut self, id: WatcherId) {
        let Some(watcher) = self.watchers.remove(&id) else {
            return;
        };
        let held: usize = watcher.queue.iter().map(News::size).sum();
        self.held = self.held.saturating_sub(held);
        for watch in watcher.watches.values() {
            self.forget(watch.ino, id);
        }
    }

    fn forget(&mut self, ino: Ino, id: WatcherId) {
        if let Some(all) = self.watched.get_mut(&ino)
            && all.remove(&id).is_some()
        {
            self.count = self.count.saturating_sub(1);
            if all.is_empty() {
                self.watched.remove(&ino);
            }
        }
    }

    /// Whether nobody watches anything.
    pub(crate) fn is_idle(&self) -> bool {
        self.watched.is_empty()
    }

    /// Whether somebody watches this.
    pub(crate) fn is_watched(&self, ino: Ino) -> bool {
        self.watched.contains_key(&ino)
    }

    /// Watches an inode, or changes what is wanted of it: the watch's number.
    pub(crate) fn add(&mut self, id: WatcherId, ino: Ino, asked: u32) -> Result<i32, Errno> {
        let watcher = self.watchers.get_mut(&id).ok_or(Errno::EBADF)?;
        let kept = asked & (what::ALL | what::NOT_UNLINKED | what::ONCE);
        if let Some(number) = self.watched.get(&ino).and_then(|all| all.get(&id)) {
            if asked & what::NEW != 0 {
                return Err(Errno::EEXIST);
            }
            if let Some(watch) = watcher.watches.get_mut(number) {
                let before = if asked & what::ADD != 0 { watch.mask } else { 0 };
                watch.mask = before | kept;
            }
            return Ok(*number);
        }
        if self.count >= MAX_WATCHES {
            return Err(Errno::ENOSPC);
        }
        watcher.last = watcher.last.checked_add(1).ok_or(Errno::ENOSPC)?;
        watcher.watches.insert(watcher.last, Watch { ino, mask: kept });
        self.watched.entry(ino).or_default().insert(id, watcher.last);
        self.count += 1;
        Ok(watcher.last)
    }

    /// Gives a watch up, which is told too.
    pub(crate) fn remove(&mut self, id: WatcherId, number: i32) -> Result<(), Errno> {
        let watcher = self.watchers.get_mut(&id).ok_or(Errno::EBADF)?;
        let watch = watcher.watches.remove(&number).ok_or(Errno::EINVAL)?;
        self.forget(watch.ino, id);
        self.put(id, number, what::IGNORED, 0, b"");
        Ok(())
    }

    /// A number for the two ends of a move.
    pub(crate) fn cookie(&mut self) -> u32 {
        self.cookie = self.cookie.wrapping_add(1).max(1);
        self.cookie
    }

    /// Tells whoever watches an inode. `unlinked`: it happened to a file without a name. Whether anybody heard.
    pub(crate) fn tell(&mut self, ino: Ino, happened: u32, cookie: u32, name: &[u8], unlinked: bool) -> bool {
        let Some(all) = self.watched.get(&ino) else {
            return false;
        };
        let mut heard = false;
        for (id, number) in all.clone() {
            let watch = self
                .watchers
                .get(&id)
                .and_then(|watcher| watcher.watches.get(&number));
            let Some(mask) = watch.map(|watch| watch.mask) else {
                continue;
            };
            if mask & happened & what::ALL == 0 || unlinked && mask & what::NOT_UNLINKED != 0 {
                continue;
            }
            self.put(id, number, happened, cookie, name);
            heard = true;
            if mask & what::ONCE != 0 {
                let _ = self.remove(id, number);
            }
        }
        heard
    }

    /// An inode is gone, and with it all watches on it. Whether anybody heard.
    pub(crate) fn gone(&mut self, ino: Ino) -> bool {
        let heard = self.tell(ino, what::DELETE_SELF, 0, b"", false);
        let left = self.watched.get(&ino).cloned().unwrap_or_default();
        for (id, number) in &left {
            let _ = self.remove(*id, *number);
        }
        heard || !left.is_empty()
    }

    /// What procfs takes away nobody hears of (inotify(7), "Limitations and caveats"); watches on it end.
    pub(crate) fn lose(&mut self, ino: Ino) {
        for (id, number) in self.watched.get(&ino).cloned().unwrap_or_default() {
            if let Some(watcher) = self.watchers.get_mut(&id) {
                watcher.watches.remove(&number);
            }
            self.forget(ino, id);
        }
    }

    fn put(&mut self, id: WatcherId, watch: i32, happened: u32, cookie: u32, name: &[u8]) {
        let Some(watcher) = self.watchers.get_mut(&id) else {
            return;
        };
        let mut news = News {
            watch,
            what: happened,
            cookie,
            name: name.to_vec(),
        };
        if watcher.queue.len() >= MAX_QUEUED || self.held.saturating_add(news.size()) > MAX_HELD {
            news = News {
                watch: -1,
                what: what::OVERFLOW,
                cookie: 0,
                name: Vec::new(),
            };
        }
        // What is said already is not said again, whatever it was joined with (inotify(7)).
        let same = |last: &News| {
            last.watch == news.watch
                && last.what == news.what
                && last.name == news.name
                && news.what & what::IGNORED == 0
        };
        if watcher.queue.back().is_some_and(same) {
            return;
        }
        self.held = self.held.saturating_add(news.size());
        watcher.queue.push_back(news);
        watcher.activity += 1;
    }

    /// What was not read yet: in how many bytes, and how often something came.
    pub(crate) fn stands(&self, id: WatcherId) -> (usize, u64) {
        self.watchers.get(&id).map_or((0, 0), |watcher| {
            (watcher.queue.iter().map(News::size).sum(), watcher.activity)
        })
    }

    /// Whether there is something to read, and how often something came.
    pub(crate) fn has_news(&self, id: WatcherId) -> (bool, u64) {
        self.watchers.get(&id).map_or((false, 0), |watcher| {
            (!watcher.queue.is_empty(), watcher.activity)
        })
    }

    /// Takes what fits into so many bytes; nothing does: EINVAL.
    pub(crate) fn take(&mut self, id: WatcherId, room: usize) -> Result<Vec<News>, Errno> {
        let watcher = self.watchers.get_mut(&id).ok_or(Errno::EBADF)?;
        let mut taken = Vec::new();
        let mut used = 0;
        while let Some(news) = watcher.queue.pop_front_if(|news| used + news.size() <= room) {
            used += news.size();
            taken.push(news);
        }
        self.held = self.held.saturating_sub(used);
        match taken.is_empty() && !watcher.queue.is_empty() {
            true => Err(Errno::EINVAL),
            false => Ok(taken),
        }
    }
}
