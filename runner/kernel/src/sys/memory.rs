//! brk, mmap and their kin.

use hotcell_schema::event::{Memory, MemoryOp, Support, What};
use hotcell_schema::guest::text;

use crate::abi::errno::Errno;
use crate::abi::flags;
use crate::call::{Answer, Call, Fail};
use crate::deferred::Deferred;
use crate::fs::open::Target;
use crate::fs::tree::Ino;
use crate::machine::Protection;
use crate::mapping::{Backing, MapError, Mapping, Part, Wanted};
use crate::reach::Reach;
use crate::space::LOWEST;
use crate::sys::shared::Which;

const MAP_SHARED: u64 = 1;
const MAP_FIXED: u64 = 0x10;
const MAP_FIXED_NOREPLACE: u64 = 0x10_0000;
const MAP_KIND: u64 = 0xf;
/// What MAP_32BIT gives lies below (arch/x86/kernel/sys_x86_64.c).
const LOW: u64 = 0x8000_0000;

fn protection(word: u64) -> Protection {
    Protection((word & 7) as u8)
}

impl Call<'_> {
    /// Refuses more memory at once than the machine has (mm/util.c, __vm_enough_memory: OVERCOMMIT_GUESS).
    fn may_have(&self, length: u64) -> Result<(), Errno> {
        match length > self.k.persona.memory_mib.saturating_mul(1 << 20) {
            true => Err(Errno::ENOMEM),
            false => Ok(()),
        }
    }

    /// Tells of memory that can be executed.
    fn tell_executable(
        &mut self,
        op: MemoryOp,
        start: u64,
        length: u64,
        protection: Protection,
        file: Option<String>,
    ) {
        if !protection.has(Protection::EXECUTE) {
            return;
        }
        let op = if protection.has(Protection::WRITE) {
            MemoryOp::WriteExecute
        } else {
            op
        };
        let letters = Some(protection.letters());
        self.tell(What::Memory(Memory {
            protection: letters,
            file,
            ..Memory::new(op, start, length)
        }));
    }
}

pub(crate) fn brk(c: &mut Call<'_>) -> Answer {
    let wanted = c.word(0);
    let page = c.abi().page;
    let id = c.task().space;
    let Some((first, current)) = c.k.spaces.get(&id).map(|space| space.heap) else {
        return Ok(0);
    };
    if wanted < first {
        return Ok(current);
    }
    let up = |value: u64| value.checked_add(page - 1).map(|value| value & !(page - 1));
    let (Some(old_end), Some(new_end)) = (up(current), up(wanted)) else {
        return Ok(current);
    };
    if c.may_have(new_end.saturating_sub(old_end)).is_err() {
        return Ok(current);
    }
    let result = c.with_space(|space, machine, room| {
        if new_end > old_end {
            if new_end > space.search_from || space.overlaps(old_end, new_end - old_end) {
                return Err(Errno::ENOMEM.into());
            }
            let length = new_end - old_end;
            let wanted = Wanted::private(old_end, length, Protection::READ_WRITE, Backing::Heap);
            space.map(machine, room, wanted)?;
        } else if new_end < old_end {
            space.unmap(machine, new_end, old_end - new_end)?;
        }
        space.heap.1 = wanted;
        Ok(())
    });
    match result {
        Ok(()) => Ok(wanted),
        Err(Fail::Errno(_)) => Ok(current),
        Err(other) => Err(other),
    }
}

/// Maps memory. `lent`: what there is already of a file that is to be shared, by its distance from `offset`; `None` if
/// that is not known.
pub(crate) fn map(c: &mut Call<'_>, offset: u64, lent: Option<Vec<Part>>) -> Answer {
    let (hint, length, prot, flag_word) = (c.word(0), c.word(1), protection(c.word(2)), c.word(3));
    let anonymous = flag_word & flags::map_anonymous(c.abi()) != 0;
    if length == 0 || !matches!(flag_word & MAP_KIND, 1..=3) {
        return Err(Errno::EINVAL.into());
    }
    let length = c.abi().page_up(length).ok_or(Errno::ENOMEM)?;
    if offset & (c.abi().page - 1) != 0 {
        return Err(Errno::EINVAL.into());
    }
    offset.checked_add(length).ok_or(Errno::EOVERFLOW)?;
    let shared = flag_word & MAP_SHARED != 0;
    let mut content = None;
    let mut backing = Backing::Anonymous;
    let mut name = None;
    if !anonymous {
        let file = c.file(4)?;
        let path = file.path.clone();
        match file.target {
            Target::File(ino) => {
                c.settle(ino)?;
                if shared && lent.is_none() && !c.k.in_memory(ino, offset, length).is_empty() {
                    let map = Reach::Map(ino, offset, length);
                    return Err(Fail::Later(Deferred::Reach(Box::new(map))));
                }
                content = c.k.tree.part(ino, offset, length);
                let held = content.as_ref().map_or(0, |content| content.len() as u64);
                if shared && c.abi().page_up(held).is_none_or(|held| held < length) {
                    let note = "what a file is mapped for past its end is there, and holds zeros";
                    c.k.note_unsupported(c.pending.row.name, Support::Partial, note);
                }
                name = Some(text(&path));
                backing = Backing::File {
                    path: text(&path).into(),
                    offset,
                    inode: ino.0,
                };
            }
            Target::Device(_, crate::fs::tree::Device::Zero) => {}
            _ => return Err(Errno::ENODEV.into()),
        }
    }
    // What is only read, and what a file has room for, is nobody's memory (mm/mmap.c, accountable_mapping).
    let counts = if shared {
        anonymous
    } else {
        prot.has(Protection::WRITE)
    };
    if counts && flag_word & flags::map_no_reserve(c.abi()) == 0 {
        c.may_have(length)?;
    }
    let fixed = flag_word & (MAP_FIXED | MAP_FIXED_NOREPLACE) != 0;
    let keep = flag_word & MAP_FIXED_NOREPLACE != 0;
    let page = c.abi().page;
    if fixed {
        // What stood there goes, and what was stored there must not.
        c.write_back(Which::Range(hint, hint.saturating_add(length)))?;
    }
    let limit = match flag_word & flags::map_low(c.abi()) {
        0 => c.abi().task_size,
        _ => LOW,
    };
    let start = c.with_space(|space, machine, room| {
        let start = if fixed {
            if hint & (page - 1) != 0 {
                return Err(Errno::EINVAL.into());
            }
            if hint < LOWEST {
                return Err(Errno::EPERM.into());
            }
            if keep && space.overlaps(hint, length) {
                return Err(Errno::EEXIST.into());
            }
            hint
        } else {
            space.free_range(hint, length, limit).ok_or(Errno::ENOMEM)?
        };
        let mut lent = lent.unwrap_or_default();
        for part in &mut lent {
            part.start = part.start.wrapping_add(start);
        }
        let wanted = Wanted {
            shared,
            lent,
            ..Wanted::private(start, length, prot, backing)
        };
        for (from, to) in space.map(machine, room, wanted)? {
            let held = content.as_ref().map_or(0, |content| content.len());
            let part = (from - start) as usize..held.min((to - start) as usize);
            if let Some(bytes) = content.as_ref().and_then(|content| content.part(part)) {
                machine.write(from, &bytes).map_err(|_| Errno::ENOMEM)?;
            }
        }
        space.shares_files |= shared && !anonymous;
        Ok(start)
    })?;
    c.tell_executable(MemoryOp::MapExecutable, start, length, prot, name);
    Ok(start)
}

/// On i386 and s390x the arguments stand in memory (`old_mmap`).
pub(crate) fn mmap(c: &mut Call<'_>) -> Answer {
    use hotcell_schema::arch::AbiFamily;
    let old = matches!(c.abi().family, AbiFamily::I386 | AbiFamily::S390x) && c.pending.row.name == "mmap";
    // Once: the call may be tried again.
    if old && c.pending.progress == 0 {
        c.pending.progress = 1;
        let block = c.word(0);
        let mut words = [0; 8];
        for (index, word) in words.iter_mut().take(6).enumerate() {
            *word = c.get_word(block.wrapping_add(c.abi().word() * index as u64))?;
        }
        c.pending.words = words;
        c.pending.args = c.known_args();
    }
    map(c, c.word(5), None)
}

/// The offset counts 4096 bytes, whatever the page size.
pub(crate) fn mmap2(c: &mut Call<'_>) -> Answer {
    map(c, c.word(5).checked_mul(4096).ok_or(Errno::EINVAL)?, None)
}

pub(crate) fn munmap(c: &mut Call<'_>) -> Answer {
    let (start, length) = (c.word(0), c.abi().page_up(c.word(1)).ok_or(Errno::EINVAL)?);
    c.write_back(Which::Range(start, start.saturating_add(length)))?;
    c.with_space(|space, machine, _| match space.check(start, length) {
        // munmap(2): a range that is none of the process's is wrong here, not too much.
        Err(MapError::Errno(_)) => Err(Errno::EINVAL.into()),
        Err(other) => Err(other),
        Ok(_) => space.unmap(machine, start, length),
    })?;
    Ok(0)
}

pub(crate) fn mprotect(c: &mut Call<'_>) -> Answer {
    let (start, length, prot) = (
        c.word(0),
        c.abi().page_up(c.word(1)).ok_or(Errno::ENOMEM)?,
        protection(c.word(2)),
    );
    if start & (c.abi().page - 1) != 0 {
        return Err(Errno::EINVAL.into());
    }
    if length == 0 {
        return Ok(0);
    }
    c.write_back(Which::Range(start, start.saturating_add(length)))?;
    c.with_space(|space, machine, room| space.protect(machine, room, start, length, prot))?;
    c.tell_executable(MemoryOp::ProtectExecutable, start, length, prot, None);
    Ok(0)
}

/// MADV_DONTNEED empties private memory; other advice changes nothing that a guest can see.
pub(crate) fn madvise(c: &mut Call<'_>) -> Answer {
    const DONT_NEED: u64 = 4;
    let (start, length, advice) = (
        c.word(0),
        c.abi().page_up(c.word(1)).ok_or(Errno::EINVAL)?,
        c.word(2),
    );
    if start & (c.abi().page - 1) != 0 {
        return Err(Errno::EINVAL.into());
    }
    c.with_space(|space, machine, _| {
        if !space.covers(start, length) {
            return Err(Errno::ENOMEM.into());
        }
        if advice != DONT_NEED {
            return Ok(());
        }
        let zeroes = vec![0; 65_536];
        let end = start + length;
        let mut at = start;
        while at < end {
            let Some((_, mapping)) = space.find(at) else { break };
            let until = mapping.end.min(end);
            if mapping.backing == Backing::Anonymous
                && !mapping.shared
                && mapping.protection != Protection::NONE
            {
                while at < until {
                    let size = (until - at).min(zeroes.len() as u64) as usize;
                    machine
                        .write(at, zeroes.get(..size).unwrap_or_default())
                        .map_err(|_| Errno::ENOMEM)?;
                    at += size as u64;
                }
            }
            at = until;
        }
        Ok(())
    })?;
    Ok(0)
}

pub(crate) fn mremap(c: &mut Call<'_>) -> Answer {
    const MAY_MOVE: u64 = 1;
    const FIXED: u64 = 2;
    let old = c.word(0);
    let (Some(old_length), Some(length)) = (c.abi().page_up(c.word(1)), c.abi().page_up(c.word(2))) else {
        return Err(Errno::EINVAL.into());
    };
    let (page, flag_word, to) = (c.abi().page, c.word(3), c.word(4));
    let limit = c.abi().task_size;
    let target = match flag_word {
        0 | MAY_MOVE => None,
        _ if flag_word == MAY_MOVE | FIXED => Some(to),
        _ => return Err(Errno::EINVAL.into()),
    };
    if old & (page - 1) != 0 || length == 0 {
        return Err(Errno::EINVAL.into());
    }
    c.write_back(Which::Range(old, old.saturating_add(old_length)))?;
    if target.is_some() {
        c.write_back(Which::Range(to, to.saturating_add(length)))?;
    }
    // What others have in memory behind it would be another copy here.
    let id = c.task().space;
    let behind = c.k.spaces.get(&id).and_then(|space| {
        let (first, mapping) = space.find(old)?;
        match mapping.grown(old.checked_add(old_length)? - first) {
            Backing::File { offset, inode, .. } if mapping.shared && old_length > 0 => {
                Some((Ino(inode), offset))
            }
            _ => None,
        }
    });
    if let Some((ino, offset)) = behind
        && length > old_length
        && !c.k.in_memory(ino, offset, length - old_length).is_empty()
    {
        return Err(Errno::ENOMEM.into());
    }
    let counts = |mapping: &Mapping| !mapping.shared && mapping.protection.has(Protection::WRITE);
    if c.k
        .spaces
        .get(&id)
        .and_then(|space| space.find(old))
        .is_some_and(|(_, mapping)| counts(mapping))
    {
        c.may_have(length.saturating_sub(old_length))?;
    }
    let (start, file) = c.with_space(|space, machine, room| {
        let (first, mapping) = space.find(old).ok_or(Errno::EFAULT)?;
        let mapping = mapping.clone();
        // mremap(2): an old size of zero gives shared memory another place, and leaves it where it is.
        let stays = old_length == 0 && mapping.shared && flag_word & MAY_MOVE != 0;
        let old_length = if stays {
            length.min(mapping.end - old)
        } else {
            old_length
        };
        let end = old.checked_add(old_length).ok_or(Errno::EFAULT)?;
        if old_length == 0 || end > mapping.end {
            return Err(Errno::EFAULT.into());
        }
        let (kept, more) = (old_length.min(length), length.saturating_sub(old_length));
        let (protection, shared) = (mapping.protection, mapping.shared);
        let wanted = |start, length, backing| Wanted {
            shared,
            ..Wanted::private(start, length, protection, backing)
        };
        // What a file has behind, where the mapping grows.
        let grown = mapping.grown(end - first);
        let file = match &grown {
            Backing::File { offset, inode, .. } if more > 0 => Some((Ino(*inode), *offset, more, old_length)),
            _ => None,
        };
        let start = match target {
            Some(to) => {
                let to_end = to.checked_add(length).filter(|end| *end <= space.search_from);
                let apart = to_end.is_some_and(|to_end| to >= end || to_end <= old);
                if to & (page - 1) != 0 || to < LOWEST || !apart {
                    return Err(Errno::EINVAL.into());
                }
                to
            }
            None if more == 0 && !stays => {
                if length < old_length {
                    space.unmap(machine, old + length, old_length - length)?;
                }
                return Ok((old, None));
            }
            None => {
                if !stays
                    && !space.overlaps(end, more)
                    && end.checked_add(more).is_some_and(|end| end <= space.search_from)
                {
                    space.map(machine, room, wanted(end, more, grown))?;
                    return Ok((old, file));
                }
                if flag_word & MAY_MOVE == 0 {
                    return Err(Errno::ENOMEM.into());
                }
                space.free_range(0, length, limit).ok_or(Errno::ENOMEM)?
            }
        };
        if more > 0 {
            space.map(machine, room, wanted(start + kept, more, grown))?;
        }
        let moved = match shared {
            true => space.relocate(machine, room, (old, old_length), (start, kept), stays),
            false => {
                let room = room.saturating_sub(more);
                let backing = mapping.backing.after(old - first);
                space.map(machine, room, wanted(start, kept, backing)).map(|_| ())
            }
        };
        if let Err(error) = moved {
            if more > 0 {
                space.unmap(machine, start + kept, more)?;
            }
            return Err(error);
        }
        if shared {
            return Ok((start, file));
        }
        let mut chunk = vec![0; 65_536];
        let mut at = 0;
        while at < kept && protection != Protection::NONE {
            let size = (kept - at).min(chunk.len() as u64) as usize;
            let part = chunk.get_mut(..size).ok_or(Errno::EFAULT)?;
            machine.read(old + at, part).map_err(|_| Errno::EFAULT)?;
            machine.write(start + at, part).map_err(|_| Errno::EFAULT)?;
            at += size as u64;
        }
        space.unmap(machine, old, old_length)?;
        Ok((start, file))
    })?;
    if let Some((ino, offset, more, behind)) = file
        && let Some(bytes) = c.k.tree.part(ino, offset, more)
    {
        c.machine
            .write(start + behind, &bytes)
            .map_err(|_| Errno::ENOMEM)?;
    }
    Ok(start)
}

/// Calls about memory that is never swapped out and always in step with its file.
pub(crate) fn mapped_only(c: &mut Call<'_>) -> Answer {
    let (start, length) = (c.word(0), c.abi().page_up(c.word(1)).ok_or(Errno::EINVAL)?);
    c.with_space(|space, _, _| {
        if space.covers(start, length) {
            Ok(0)
        } else {
            Err(Errno::ENOMEM.into())
        }
    })
}

pub(crate) fn mincore(c: &mut Call<'_>) -> Answer {
    mapped_only(c)?;
    let pages = c.word(1).div_ceil(c.abi().page).min(1 << 20);
    let all = vec![1; pages as usize];
    c.write(c.word(2), &all)?;
    Ok(0)
}

pub(crate) fn msync(c: &mut Call<'_>) -> Answer {
    let (start, length) = (c.word(0), c.word(1));
    c.write_back(Which::Range(start, start.saturating_add(length)))?;
    mapped_only(c)
}
