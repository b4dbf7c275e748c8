//! inotify: who watches files hears what other calls do to them.

use crate::abi::errno::Errno;
use crate::abi::flags::{self, open};
use crate::abi::layout::Layout;
use crate::call::{Answer, Call, Fail};
use crate::fs::open::{FileId, OpenFile, Target};
use crate::fs::tree::{Ino, Kind};
use crate::fs::walk::{Place, Seat};
use crate::fs::watch::{WatcherId, what};
use crate::kernel::Kernel;

impl Kernel {
    /// Something was done to what stands at a name: those who watch its directory hear it by the name, and those who watch
    /// itself.
    pub(crate) fn notice(&mut self, happened: u32, seat: &Seat) {
        if self.open.watches.is_idle() {
            return;
        }
        let is_directory = self.tree.entries(seat.ino).is_ok();
        let happened = happened | if is_directory { what::DIRECTORY } else { 0 };
        let (directory, name) = match is_directory {
            // It stands in one directory only, however it was found.
            true => {
                let above = self.tree.parent(seat.ino);
                let watched = above != seat.ino && self.open.watches.is_watched(above);
                let name = watched.then(|| self.tree.name_in(above, seat.ino)).flatten();
                (above, name.unwrap_or_default())
            }
            false => (seat.directory, seat.name.clone()),
        };
        let mut heard = false;
        if !name.is_empty() && self.open.watches.is_watched(directory) {
            let entries = self.tree.entries(directory);
            let unlinked = entries.is_ok_and(|entries| entries.get(&name) != Some(&seat.ino));
            heard |= self.open.watches.tell(directory, happened, 0, &name, unlinked);
        }
        heard |= self.open.watches.tell(seat.ino, happened, 0, b"", false);
        self.wake += u64::from(heard);
    }

    /// Something was done through an open file.
    pub(crate) fn notice_file(&mut self, happened: u32, file: FileId) {
        if self.open.watches.is_idle() {
            return;
        }
        if let Some(seat) = self.open.get(file).and_then(|file| file.seat.clone()) {
            self.notice(happened, &seat);
        }
    }

    /// A name came, went or was moved; `ino` is what it stands for.
    fn notice_name(&mut self, happened: u32, cookie: u32, directory: Ino, name: &[u8], ino: Ino) {
        let is_directory = matches!(
            self.tree.get(ino).map(|inode| &inode.kind),
            Some(Kind::Directory { .. })
        );
        self.notice_name_of(happened, cookie, directory, name, is_directory);
    }

    fn notice_name_of(
        &mut self,
        happened: u32,
        cookie: u32,
        directory: Ino,
        name: &[u8],
        is_directory: bool,
    ) {
        let happened = happened | if is_directory { what::DIRECTORY } else { 0 };
        let heard = self.open.watches.tell(directory, happened, cookie, name, false);
        self.wake += u64::from(heard);
    }

    /// An inode itself was changed, whatever its names are.
    fn notice_self(&mut self, happened: u32, ino: Ino) {
        let heard = self.open.watches.tell(ino, happened, 0, b"", false);
        self.wake += u64::from(heard);
    }

    /// An inode that may be no more: its last name, or its last user went.
    pub(crate) fn notice_gone(&mut self, ino: Ino) {
        if self.open.watches.is_watched(ino) && self.tree.get(ino).is_none() {
            let heard = self.open.watches.gone(ino);
            self.wake += u64::from(heard);
        }
    }

    /// A name was made.
    pub(crate) fn notice_made(&mut self, place: &Place, ino: Ino) {
        self.notice_name(what::CREATE, 0, place.directory, &place.name, ino);
    }

    /// A file has one name more.
    pub(crate) fn notice_linked(&mut self, place: &Place, ino: Ino) {
        self.notice_self(what::ATTRIBUTES, ino);
        self.notice_made(place, ino);
    }

    /// A name was removed (`vfs_unlink`, `vfs_rmdir`).
    pub(crate) fn notice_removed(&mut self, place: &Place, ino: Ino, was_directory: bool) {
        if !was_directory {
            self.notice_self(what::ATTRIBUTES, ino);
        }
        self.notice_name_of(what::DELETE, 0, place.directory, &place.name, was_directory);
        self.notice_gone(ino);
    }

    /// A name was moved, over another one perhaps (`fsnotify_move`).
    pub(crate) fn notice_moved(&mut self, from: &Place, to: &Place, ino: Ino, over: Option<Ino>) {
        let moved = Seat {
            ino,
            directory: from.directory,
            name: from.name.clone(),
        };
        self.open.moved(&moved, to.directory, &to.name);
        if self.open.watches.is_idle() {
            return;
        }
        let cookie = self.open.watches.cookie();
        self.notice_name(what::MOVED_FROM, cookie, from.directory, &from.name, ino);
        self.notice_name(what::MOVED_TO, cookie, to.directory, &to.name, ino);
        if let Some(over) = over {
            self.notice_self(what::ATTRIBUTES, over);
        }
        self.notice_self(what::MOVE_SELF, ino);
        if let Some(over) = over {
            self.notice_gone(over);
        }
    }
}

impl Call<'_> {
    fn watcher(&mut self) -> Result<WatcherId, Errno> {
        match self.file(0)?.target {
            Target::Inotify(id) => Ok(id),
            _ => Err(Errno::EINVAL),
        }
    }

    /// read of an inotify: what happened.
    pub(super) fn read_watcher(
        &mut self,
        id: WatcherId,
        room: u64,
        nonblocking: bool,
    ) -> Result<Vec<u8>, Fail> {
        let room = usize::try_from(room).unwrap_or(usize::MAX);
        let taken = self.k.open.watches.take(id, room)?;
        if taken.is_empty() {
            return Err(match nonblocking {
                true => Errno::EAGAIN.into(),
                false => Fail::Wait,
            });
        }
        let mut layout = Layout::new(self.abi());
        for news in taken {
            let size = news.name_size();
            layout = layout
                .u32(news.watch.cast_unsigned())
                .u32(news.what)
                .u32(news.cookie)
                .low(size as u64);
            let padding = size.saturating_sub(news.name.len());
            layout.bytes.extend(news.name);
            layout = layout.pad(padding);
        }
        Ok(layout.bytes)
    }
}

fn make(c: &mut Call<'_>, how: u64) -> Answer {
    let how = flags::open_in(c.abi(), how & 0xffff_ffff);
    if how & !(open::NONBLOCK | open::CLOSE_ON_EXEC) != 0 {
        return Err(Errno::EINVAL.into());
    }
    c.process().files.free(0)?;
    let id = c.k.open.watches.make()?;
    let kept = how & open::NONBLOCK;
    let file = OpenFile::new(Target::Inotify(id), kept, b"anon_inode:inotify".to_vec());
    Ok(u64::from(c.install(file, how & open::CLOSE_ON_EXEC != 0)?))
}

pub(crate) fn inotify_init(c: &mut Call<'_>) -> Answer {
    make(c, 0)
}

pub(crate) fn inotify_init1(c: &mut Call<'_>) -> Answer {
    make(c, c.word(0))
}

pub(crate) fn inotify_add_watch(c: &mut Call<'_>) -> Answer {
    const KNOWN: u32 = what::ALL
        | what::ONLY_DIRECTORY
        | what::DO_NOT_FOLLOW
        | what::NOT_UNLINKED
        | what::NEW
        | what::ADD
        | what::ONCE
        // IN_UNMOUNT and what only the kernel says are taken too (ALL_INOTIFY_BITS).
        | 0x2000
        | what::OVERFLOW
        | what::IGNORED
        | what::DIRECTORY;
    let asked = c.word(2) as u32;
    if asked & KNOWN == 0 || asked & what::ADD != 0 && asked & what::NEW != 0 {
        return Err(Errno::EINVAL.into());
    }
    let id = c.watcher()?;
    let path = c.path(1)?;
    let ino = c.walk(None, &path, asked & what::DO_NOT_FOLLOW == 0)?.inode()?;
    if asked & what::ONLY_DIRECTORY != 0 && c.k.tree.entries(ino).is_err() {
        return Err(Errno::ENOTDIR.into());
    }
    c.permitted(ino, 4)?;
    let number = c.k.open.watches.add(id, ino, asked)?;
    Ok(u64::from(number.cast_unsigned()))
}

pub(crate) fn inotify_rm_watch(c: &mut Call<'_>) -> Answer {
    let id = c.watcher()?;
    let number = c.int(1);
    c.k.open.watches.remove(id, number)?;
    c.k.wake += 1;
    Ok(0)
}
