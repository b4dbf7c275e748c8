//! Robust futexes: who holds one and ends leaves it to the next (Documentation/locking/robust-futex-ABI.rst).

use crate::abi::Abi;
use crate::abi::errno::Errno;
use crate::call::{Answer, Call};
use crate::kernel::Kernel;
use crate::machine::{Machine, Machines, SpaceId};
use crate::space::AddressSpace;
use crate::view::{Memory, View};

/// `FUTEX_WAITERS`, `FUTEX_OWNER_DIED`, `FUTEX_TID_MASK` (uapi/linux/futex.h).
const WAITERS: u32 = 0x8000_0000;
const OWNER_DIED: u32 = 0x4000_0000;
const OWNER: u32 = 0x3fff_ffff;
/// Longest list that is walked (`ROBUST_LIST_LIMIT`).
const MOST: usize = 2048;

/// What a task that has ended leaves: where its memory is, its number, head and length of its list.
pub(crate) type Left = (SpaceId, u32, (u64, u64));

/// `struct robust_list_head` has three words.
fn head_size(abi: &Abi) -> u64 {
    3 * abi.word()
}

pub(crate) fn set_robust_list(c: &mut Call<'_>) -> Answer {
    let (head, length) = (c.word(0), c.word(1));
    if length != head_size(c.abi()) {
        return Err(Errno::EINVAL.into());
    }
    c.task().robust_list = (head, length);
    Ok(0)
}

pub(crate) fn get_robust_list(c: &mut Call<'_>) -> Answer {
    let tid = match c.word(0) as u32 {
        0 => c.tid,
        tid => tid,
    };
    let task = c.k.tasks.get(&tid).ok_or(Errno::ESRCH)?;
    let (pid, head) = (task.pid, task.robust_list.0);
    c.may_reach(pid)?;
    let size = head_size(c.abi());
    c.put_word(c.word(2), size)?;
    c.put_word(c.word(1), head)?;
    Ok(0)
}

/// Memory of a space, as its tasks may read it.
struct Held<'a> {
    space: &'a AddressSpace,
    machine: &'a dyn Machine,
}

impl Memory for Held<'_> {
    fn read(&self, address: u64, into: &mut [u8]) -> Result<(), Errno> {
        if !self.space.allows(address, into.len() as u64, false) {
            return Err(Errno::EFAULT);
        }
        self.machine.read(address, into).map_err(|_| Errno::EFAULT)
    }
}

/// The futexes of a list, and the one that was being taken or given back.
fn futexes(view: &View<'_>, head: u64) -> (Vec<u64>, Option<u64>) {
    let word = view.abi.word();
    let mask = u64::MAX >> (64 - 8 * word);
    let get = |at: u64| view.get_word(at & mask);
    let (Ok(first), Ok(offset), Ok(pending)) = (
        get(head),
        get(head.wrapping_add(word)),
        get(head.wrapping_add(2 * word)),
    ) else {
        return (Vec::new(), None);
    };
    // The lowest bit of a link tells of priority inheritance.
    let place = |entry: u64| (entry & !1).wrapping_add(offset) & mask;
    let pending = Some(pending & !1).filter(|entry| *entry != 0);
    let mut all = Vec::new();
    let mut entry = first;
    for _ in 0..MOST {
        if entry & !1 == head {
            break;
        }
        let next = get(entry & !1);
        if Some(entry & !1) != pending {
            all.push(place(entry));
        }
        match next {
            Ok(next) => entry = next,
            Err(_) => break,
        }
    }
    (all, pending.map(place))
}

impl Kernel {
    /// A task leaves its memory: what it held is left to others before anything else runs.
    pub(crate) fn leave_robust(&mut self, tid: u32) {
        if let Some(task) = self.tasks.get_mut(&tid) {
            let list = std::mem::take(&mut task.robust_list);
            if list.0 != 0 {
                self.robust_left.push((task.space, tid, list));
            }
        }
    }

    /// Marks what tasks that have ended held, and wakes one who waits for each.
    pub(crate) fn mark_left(&mut self, machines: &mut dyn Machines) {
        for (space, tid, (head, length)) in std::mem::take(&mut self.robust_left) {
            let (Some(held), Some(machine)) = (self.spaces.get(&space), machines.get(space)) else {
                continue;
            };
            let compat = self.compat.as_ref();
            let abi = compat.filter(|abi| head_size(abi) == length).unwrap_or(&self.abi);
            let memory = Held { space: held, machine };
            let view = View { abi, memory: &memory };
            let (all, pending) = futexes(&view, head);
            let mut wakes = Vec::new();
            let mut marks = Vec::new();
            for (at, is_pending) in all
                .into_iter()
                .map(|at| (at, false))
                .chain(pending.map(|at| (at, true)))
            {
                let Some(now) = view.get_u32(at).ok().filter(|_| at & 3 == 0) else {
                    break;
                };
                if is_pending && now == 0 {
                    // It was given back, and nobody was woken yet.
                    wakes.push(at);
                } else if now & OWNER == tid {
                    marks.push((at, now & WAITERS | OWNER_DIED));
                    if now & WAITERS != 0 {
                        wakes.push(at);
                    }
                }
            }
            marks.retain(|(at, _)| held.allows(*at, 4, true));
            let big = abi.big;
            for (at, value) in marks {
                let bytes = if big {
                    value.to_be_bytes()
                } else {
                    value.to_le_bytes()
                };
                // It is there: it was read.
                let _ = machine.write(at, &bytes);
            }
            for at in wakes {
                self.futex_wake(space, at, 1);
            }
        }
    }
}
