//! Waiting for descriptors and for memory: poll, select, futex.

use std::collections::BTreeSet;

use crate::abi::errno::Errno;
use crate::abi::layout::Layout;
use crate::call::{Answer, Call, Fail};
use crate::machine::SpaceId;
use crate::space::AddressSpace;
use crate::sys::ready::{ERROR, HANG_UP, IN, INVALID, OUT};

impl Call<'_> {
    /// Sets the deadline of a wait from an optional length of time, once.
    pub(super) fn until(&mut self, wait: Option<u64>) {
        if let Some(wait) = wait
            && self.pending.deadline.is_none()
        {
            self.pending.deadline = Some(self.k.time.now.saturating_add(wait));
        }
    }

    /// Tries again at a time, though it is not the end of the wait.
    pub(super) fn wake_at(&mut self, at: Option<u64>) {
        self.pending.wake_at = at;
    }

    pub(super) fn timed_out(&self) -> bool {
        self.pending.deadline.is_some_and(|at| self.k.time.now >= at)
    }

    pub(super) fn optional_time(&self, address: u64, wide: bool) -> Result<Option<u64>, Errno> {
        if address == 0 {
            Ok(None)
        } else {
            self.duration(self.time_at(address, wide)?).map(Some)
        }
    }
}

fn poll_for(c: &mut Call<'_>, wait: Option<u64>) -> Answer {
    const MOST: u64 = 1024;
    let (list, count) = (c.word(0), c.word(1));
    if count > MOST {
        return Err(Errno::EINVAL.into());
    }
    c.until(wait);
    let mut bytes = c.bytes(list, count * 8)?;
    let mut found = 0;
    let mut deadline = None;
    for entry in bytes.chunks_exact_mut(8) {
        let [a, b, d, e, f, g, ..] = *entry else { continue };
        let fd = c.abi().get_u32([a, b, d, e]);
        let wanted = c.abi().get_u16([f, g]);
        let seen = if fd.cast_signed() < 0 {
            0
        } else {
            let ready = c.ready(u64::from(fd));
            // What comes by itself can be read.
            let comes = ready.at.filter(|_| u32::from(wanted) & IN != 0);
            deadline = [deadline, comes].into_iter().flatten().min();
            (ready.events & (u32::from(wanted) | ERROR | HANG_UP | INVALID)) as u16
        };
        found += u64::from(seen != 0);
        let answer = if c.abi().big {
            seen.to_be_bytes()
        } else {
            seen.to_le_bytes()
        };
        if let Some(place) = entry.get_mut(6..8) {
            place.copy_from_slice(&answer);
        }
    }
    if found == 0 && !c.timed_out() {
        c.wake_at(deadline);
        return Err(Fail::Wait);
    }
    c.write(list, &bytes)?;
    Ok(found)
}

pub(crate) fn poll(c: &mut Call<'_>) -> Answer {
    let timeout = c.int(2);
    let wait = (timeout >= 0).then(|| u64::from(timeout.cast_unsigned()).saturating_mul(1_000_000));
    poll_for(c, wait)
}

pub(crate) fn ppoll(c: &mut Call<'_>) -> Answer {
    let wait = c.optional_time(c.word(2), false)?;
    c.wait_with_mask(c.word(3), c.word(4))?;
    poll_for(c, wait)
}

pub(crate) fn ppoll64(c: &mut Call<'_>) -> Answer {
    let wait = c.optional_time(c.word(2), true)?;
    c.wait_with_mask(c.word(3), c.word(4))?;
    poll_for(c, wait)
}

fn select_for(c: &mut Call<'_>, wait: Option<u64>) -> Answer {
    let count = c.int(0);
    if !(0..=1024).contains(&count) {
        return Err(Errno::EINVAL.into());
    }
    c.until(wait);
    let count = count.cast_unsigned() as usize;
    let bits = c.abi().word() as usize * 8;
    let mut answers = Vec::new();
    let mut found = 0;
    let mut deadline = None;
    for (index, wanted) in [(1, IN | HANG_UP | ERROR), (2, OUT | ERROR), (3, 0)] {
        let at = c.word(index);
        if at == 0 {
            continue;
        }
        let mut layout = Layout::new(&c.abi().clone()).bytes;
        for word in 0..count.div_ceil(bits) {
            let place = at.wrapping_add((word * bits / 8) as u64);
            let asked = c.get_word(place)?;
            let mut answer = 0u64;
            for bit in (0..bits).filter(|bit| word * bits + bit < count && asked & (1 << bit) != 0) {
                let ready = c.ready((word * bits + bit) as u64);
                let comes = ready.at.filter(|_| wanted & IN != 0);
                deadline = [deadline, comes].into_iter().flatten().min();
                let ready = ready.events;
                if ready & INVALID != 0 {
                    return Err(Errno::EBADF.into());
                }
                if ready & wanted != 0 {
                    answer |= 1 << bit;
                    found += 1;
                }
            }
            layout.extend(Layout::new(c.abi()).word(answer).bytes);
        }
        answers.push((at, layout));
    }
    if found == 0 && !c.timed_out() {
        c.wake_at(deadline);
        return Err(Fail::Wait);
    }
    for (at, bytes) in answers {
        c.write(at, &bytes)?;
    }
    Ok(found)
}

fn microseconds(c: &Call<'_>, address: u64) -> Result<Option<u64>, Errno> {
    if address == 0 {
        return Ok(None);
    }
    let (seconds, rest) = c.time_at(address, false)?;
    if seconds < 0 || rest < 0 {
        return Err(Errno::EINVAL);
    }
    let rest = rest.cast_unsigned().saturating_mul(1000);
    Ok(Some(
        seconds
            .cast_unsigned()
            .saturating_mul(1_000_000_000)
            .saturating_add(rest),
    ))
}

/// On i386 (and on ppc, where the first argument cannot be a count) the arguments stand in memory.
pub(crate) fn select(c: &mut Call<'_>) -> Answer {
    let old = match c.abi().family {
        hotcell_schema::arch::AbiFamily::I386 => c.pending.row.name == "select",
        _ => c.abi().is_ppc() && c.pending.row.name == "select" && c.word(0) >= 4096,
    };
    if old {
        return old_select(c);
    }
    let wait = microseconds(c, c.word(4))?;
    let found = select_for(c, wait)?;
    time_left(c, c.word(4));
    Ok(found)
}

/// select says how long it did not wait (`select(2)`, "the Linux system call modifies timeout"); in vain on memory that
/// cannot be written.
fn time_left(c: &mut Call<'_>, at: u64) {
    if at != 0
        && let Some(deadline) = c.pending.deadline
    {
        let left = deadline.saturating_sub(c.k.time.now);
        let seconds = i64::try_from(left / 1_000_000_000).unwrap_or(i64::MAX);
        let _ = c.put_time(at, seconds, left % 1_000_000_000 / 1000, false);
    }
}

fn old_select(c: &mut Call<'_>) -> Answer {
    let block = c.word(0);
    let mut words = [0; 8];
    for (index, word) in words.iter_mut().take(5).enumerate() {
        *word = c.get_word(block.wrapping_add(4 * index as u64))?;
    }
    let before = std::mem::replace(&mut c.pending.words, words);
    let wait = microseconds(c, words[4])?;
    let answer = select_for(c, wait);
    if answer.is_ok() {
        time_left(c, words[4]);
    }
    c.pending.words = before;
    answer
}

/// The mask of pselect6: its sixth argument leads to the address and the size.
fn mask_in_memory(c: &mut Call<'_>) -> Result<(), Errno> {
    let at = c.word(5);
    if at == 0 {
        return Ok(());
    }
    let (mask, size) = (c.get_word(at)?, c.get_word(at.wrapping_add(c.abi().word()))?);
    c.wait_with_mask(mask, size)
}

pub(crate) fn pselect6(c: &mut Call<'_>) -> Answer {
    let wait = c.optional_time(c.word(4), false)?;
    mask_in_memory(c)?;
    select_for(c, wait)
}

pub(crate) fn pselect6_64(c: &mut Call<'_>) -> Answer {
    let wait = c.optional_time(c.word(4), true)?;
    mask_in_memory(c)?;
    select_for(c, wait)
}

const FUTEX_WAIT: u64 = 0;
const FUTEX_WAKE: u64 = 1;
const FUTEX_REQUEUE: u64 = 3;
const FUTEX_CMP_REQUEUE: u64 = 4;
const FUTEX_WAKE_OP: u64 = 5;
const FUTEX_WAIT_BITSET: u64 = 9;
const FUTEX_WAKE_BITSET: u64 = 10;

fn futex_any(c: &mut Call<'_>, wide: bool) -> Answer {
    let address = c.word(0);
    if address & 3 != 0 {
        return Err(Errno::EINVAL.into());
    }
    match c.word(1) & 0x7f {
        FUTEX_WAIT | FUTEX_WAIT_BITSET => {
            // progress: 0 at first, 1 while waiting, 2 when woken.
            if c.pending.progress == 2 {
                return Ok(0);
            }
            if c.pending.progress == 0 {
                if c.get_u32(address)? != c.word(2) as u32 {
                    return Err(Errno::EAGAIN.into());
                }
                let wait = c.optional_time(c.word(3), wide)?;
                if c.word(1) & 0x7f == FUTEX_WAIT {
                    c.until(wait);
                } else if let Some(at) = wait {
                    // Absolute, by the clock that the flag names.
                    let real = c.word(1) & 0x100 != 0;
                    let now = if real {
                        c.k.time.real().max(0).cast_unsigned()
                    } else {
                        c.k.time.since_boot()
                    };
                    c.until(Some(at.saturating_sub(now)));
                }
                c.pending.progress = 1;
            }
            if c.timed_out() {
                Err(Errno::ETIMEDOUT.into())
            } else {
                Err(Fail::Wait)
            }
        }
        FUTEX_WAKE | FUTEX_WAKE_BITSET => Ok(wake(c, address, c.word(2))),
        // Waking all instead of moving them to another futex is allowed: they look again.
        FUTEX_REQUEUE => Ok(wake(c, address, u64::MAX)),
        FUTEX_CMP_REQUEUE => {
            if c.get_u32(address)? != c.word(5) as u32 {
                return Err(Errno::EAGAIN.into());
            }
            Ok(wake(c, address, u64::MAX))
        }
        FUTEX_WAKE_OP => {
            let second = c.word(4);
            let also = wake_operation(c, second, c.word(5) as u32)?;
            let woken = wake(c, address, c.word(2));
            Ok(woken + if also { wake(c, second, c.word(3)) } else { 0 })
        }
        _ => Err(Errno::ENOSYS.into()),
    }
}

/// Changes the second futex as FUTEX_WAKE_OP says, and compares what it was (`futex(2)`).
fn wake_operation(c: &mut Call<'_>, address: u64, code: u32) -> Result<bool, Errno> {
    if address & 3 != 0 {
        return Err(Errno::EINVAL);
    }
    // Four bits of operation, four of comparison, then two signed numbers of 12 bits.
    let signed = |bits: u32| (bits << 20).cast_signed() >> 20;
    let (operation, comparison) = (code >> 28, code >> 24 & 15);
    let (argument, other) = (signed(code >> 12), signed(code));
    let argument = if operation & 8 != 0 {
        1 << (argument & 31)
    } else {
        argument.cast_unsigned()
    };
    let old = c.get_u32(address)?;
    let new = match operation & 7 {
        0 => argument,
        1 => old.wrapping_add(argument),
        2 => old | argument,
        3 => old & !argument,
        4 => old ^ argument,
        _ => return Err(Errno::ENOSYS),
    };
    let was = old.cast_signed();
    let holds = match comparison {
        0 => was == other,
        1 => was != other,
        2 => was < other,
        3 => was <= other,
        4 => was > other,
        5 => was >= other,
        _ => return Err(Errno::ENOSYS),
    };
    c.put_u32(address, new)?;
    Ok(holds)
}

/// Wakes up to `most` tasks that wait on the address in this space.
fn wake(c: &mut Call<'_>, address: u64, most: u64) -> u64 {
    let space = c.task().space;
    c.k.futex_wake(space, address, most)
}

impl crate::kernel::Kernel {
    /// Wakes up to `most` tasks that wait on a futex: of this space, and of those that share the memory at this address. They
    /// have it from their parents at the same place; whoever is woken for nothing looks again (`futex(2)`).
    pub(crate) fn futex_wake(&mut self, space: SpaceId, address: u64, most: u64) -> u64 {
        let shares = |space: &AddressSpace| space.find(address).is_some_and(|(_, mapping)| mapping.shared);
        let shared = self.spaces.get(&space).is_some_and(shares);
        let reached: BTreeSet<SpaceId> = self
            .spaces
            .iter()
            .filter(|(id, other)| **id == space || shared && shares(other))
            .map(|(id, _)| *id)
            .collect();
        let mut woken = 0;
        for task in self
            .tasks
            .values_mut()
            .filter(|task| reached.contains(&task.space))
        {
            if woken >= most {
                break;
            }
            if let Some(pending) = &mut task.pending
                && pending.row.name.starts_with("futex")
                && pending.words[0] == address
                && pending.progress == 1
            {
                pending.progress = 2;
                woken += 1;
            }
        }
        if woken > 0 {
            self.wake += 1;
        }
        woken
    }
}

pub(crate) fn futex(c: &mut Call<'_>) -> Answer {
    futex_any(c, false)
}

pub(crate) fn futex64(c: &mut Call<'_>) -> Answer {
    futex_any(c, true)
}
