//! The machine itself, thread pointers, chance, and what is refused.

use crate::abi::errno::Errno;
use crate::abi::layout::Layout;
use crate::abi::quirks::{self, arch_prctl as codes};
use crate::call::{Answer, Call};
use crate::task::Process;

/// Size of a field of `struct new_utsname`.
const NAME: usize = 65;

pub(crate) fn uname(c: &mut Call<'_>) -> Answer {
    let persona = &c.k.persona;
    let bytes = Layout::new(c.abi())
        .text("Linux", NAME)
        .text(&persona.hostname, NAME)
        .text(&persona.kernel_release, NAME)
        .text(&persona.kernel_version, NAME)
        .text(&c.k.profile.abi.machine, NAME)
        .text(&persona.domain, NAME)
        .bytes;
    c.write(c.word(0), &bytes)?;
    Ok(0)
}

pub(crate) fn sethostname(c: &mut Call<'_>) -> Answer {
    if c.process().uid[1] != 0 {
        return Err(Errno::EPERM.into());
    }
    if c.word(1) >= NAME as u64 {
        return Err(Errno::EINVAL.into());
    }
    let name = c.bytes(c.word(0), c.word(1))?;
    c.k.persona.hostname = String::from_utf8_lossy(&name).into_owned();
    Ok(0)
}

pub(crate) fn sysinfo(c: &mut Call<'_>) -> Answer {
    let memory = c.k.persona.memory_mib.saturating_mul(1 << 20);
    let processes = c.k.task_count() as u16;
    let [one, five, fifteen] = c.k.persona.load.map(|load| (u64::from(load) << 16) / 100);
    let wide = c.abi().wide;
    // A 32-bit word cannot hold more: the unit grows.
    let unit = if wide || memory < 1 << 32 { 1 } else { 4096 };
    let layout = Layout::new(c.abi())
        .word(c.k.time.since_boot() / 1_000_000_000)
        .word(one)
        .word(five)
        .word(fifteen)
        .word(memory / unit)
        .word(memory / 4 * 3 / unit)
        .word(0)
        .word(memory / 32 / unit)
        .word(0)
        .word(0)
        .u16(processes)
        .u16(0);
    let word = c.abi().word() as usize;
    let layout = layout.align(word).word(0).word(0).low(unit);
    let bytes = if wide {
        layout.align(8).bytes
    } else {
        layout.pad(8).bytes
    };
    c.write(c.word(0), &bytes)?;
    Ok(0)
}

pub(crate) fn getrandom(c: &mut Call<'_>) -> Answer {
    if c.word(2) & !7 != 0 {
        return Err(Errno::EINVAL.into());
    }
    let length = c.word(1).min(32 << 20);
    let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
    c.k.chance.guest.fill(&mut bytes);
    c.write(c.word(0), &bytes)?;
    Ok(length)
}

pub(crate) fn getcpu(c: &mut Call<'_>) -> Answer {
    for index in [0, 1] {
        if c.word(index) != 0 {
            c.put_u32(c.word(index), 0)?;
        }
    }
    Ok(0)
}

/// Kept for those who ask, and without effect: addresses are chosen without chance anyway.
pub(crate) fn personality(c: &mut Call<'_>) -> Answer {
    const ASK: u32 = u32::MAX;
    let wanted = c.word(0) as u32;
    let process = c.process();
    let before = process.personality;
    if wanted != ASK {
        process.personality = wanted;
    }
    Ok(u64::from(before))
}

pub(crate) fn syslog(c: &mut Call<'_>) -> Answer {
    match c.word(0) as u32 {
        // The buffer is empty, and of the usual size.
        2..=5 | 9 => Ok(0),
        10 => Ok(262_144),
        0 | 1 | 6..=8 => Ok(0),
        _ => Err(Errno::EINVAL.into()),
    }
}

pub(crate) fn capget(c: &mut Call<'_>) -> Answer {
    const VERSION_3: u32 = 0x2008_0522;
    let (header, data) = (c.word(0), c.word(1));
    let version = c.get_u32(header)?;
    if !matches!(version, 0x1998_0330 | 0x2007_1026 | VERSION_3) {
        c.put_u32(header, VERSION_3)?;
        return if data == 0 {
            Ok(0)
        } else {
            Err(Errno::EINVAL.into())
        };
    }
    if data == 0 {
        return Ok(0);
    }
    let all: u64 = if c.process().uid[1] == 0 { (1 << 41) - 1 } else { 0 };
    let low = all as u32;
    let mut layout = Layout::new(c.abi()).u32(low).u32(low).u32(0);
    if version != 0x1998_0330 {
        let high = (all >> 32) as u32;
        layout = layout.u32(high).u32(high).u32(0);
    }
    let bytes = layout.bytes;
    c.write(data, &bytes)?;
    Ok(0)
}

/// Processes that a priority is about (`PRIO_PROCESS`, `PRIO_PGRP`, `PRIO_USER`; 0: the caller's own).
fn with_priority(c: &mut Call<'_>) -> Result<Vec<u32>, Errno> {
    let (which, who) = (c.word(0) & 0xffff_ffff, c.word(1) as u32);
    let own = c.process();
    let (pid, group, uid) = (own.pid, own.group, own.uid[0]);
    let or = |own: u32| if who == 0 { own } else { who };
    let wanted = |process: &Process| match which {
        0 => process.pid == or(pid),
        1 => process.group == or(group),
        _ => process.uid[0] == or(uid),
    };
    if which > 2 {
        return Err(Errno::EINVAL);
    }
    let found = c.k.processes.values().filter(|process| wanted(process));
    let found: Vec<u32> = found.map(|process| process.pid).collect();
    if found.is_empty() {
        Err(Errno::ESRCH)
    } else {
        Ok(found)
    }
}

/// Linux gives 20 minus the least nice value. No turn depends on it.
pub(crate) fn getpriority(c: &mut Call<'_>) -> Answer {
    let found = with_priority(c)?;
    let values = found.iter().filter_map(|pid| c.k.processes.get(pid));
    let least = values.map(|process| process.nice).min().unwrap_or(0);
    Ok((20 - i64::from(least)).cast_unsigned())
}

pub(crate) fn setpriority(c: &mut Call<'_>) -> Answer {
    let found = with_priority(c)?;
    set_nice(c, &found, c.int(2))
}

pub(crate) fn nice(c: &mut Call<'_>) -> Answer {
    let (pid, now) = (c.pid, i32::from(c.process().nice));
    set_nice(c, &[pid], now.saturating_add(c.int(0)))
}

/// Only root makes it less.
fn set_nice(c: &mut Call<'_>, found: &[u32], value: i32) -> Answer {
    let value = i8::try_from(value.clamp(-20, 19)).unwrap_or(0);
    let root = c.process().uid[1] == 0;
    for pid in found {
        if let Some(process) = c.k.processes.get_mut(pid) {
            if value < process.nice && !root {
                return Err(Errno::EACCES.into());
            }
            process.nice = value;
        }
    }
    Ok(0)
}

/// One processor runs all threads, one after the other: each sees what the others stored.
pub(crate) fn membarrier(c: &mut Call<'_>) -> Answer {
    // MEMBARRIER_CMD_GLOBAL to MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_SYNC_CORE (linux/membarrier.h).
    const COMMANDS: u64 = 0x7f;
    let command = c.word(0) & 0xffff_ffff;
    match command {
        _ if c.word(1) & 0xffff_ffff != 0 => Err(Errno::EINVAL.into()),
        0 => Ok(COMMANDS),
        _ if command.is_power_of_two() && command & COMMANDS != 0 => Ok(0),
        _ => Err(Errno::EINVAL.into()),
    }
}

pub(crate) fn zero(_: &mut Call<'_>) -> Answer {
    Ok(0)
}

// Thread pointers.

pub(crate) fn arch_prctl(c: &mut Call<'_>) -> Answer {
    let (code, value) = (c.word(0), c.word(1));
    match code {
        codes::SET_FS => {
            c.set_thread_pointer(value);
            Ok(0)
        }
        codes::SET_GS => match c.machine.register("gs_base") {
            Some(register) => {
                c.machine.set(register, value);
                Ok(0)
            }
            None => Err(Errno::EINVAL.into()),
        },
        codes::GET_FS | codes::GET_GS => {
            let name = if code == codes::GET_FS {
                "fs_base"
            } else {
                "gs_base"
            };
            let register = c.machine.register(name).ok_or(Errno::EINVAL)?;
            let base = c.machine.get(register);
            c.put_u64(value, base)?;
            Ok(0)
        }
        _ => Err(Errno::EINVAL.into()),
    }
}

/// i386: the descriptor's base goes to the one entry there is. mips: the pointer itself.
pub(crate) fn set_thread_area(c: &mut Call<'_>) -> Answer {
    if c.abi().is_mips() {
        let value = c.word(0);
        c.set_thread_pointer(value);
        return Ok(0);
    }
    let at = c.word(0);
    let entry = c.get_u32(at.wrapping_add(quirks::USER_DESC_ENTRY))?;
    let base = c.get_u32(at.wrapping_add(quirks::USER_DESC_BASE))?;
    if entry != u32::MAX && entry != quirks::FIRST_TLS_ENTRY {
        return Err(Errno::EINVAL.into());
    }
    // A call of a 64-bit program changes a descriptor that its own thread pointer is not in.
    if !c.pending.compat {
        c.set_thread_pointer(u64::from(base));
    }
    if entry == u32::MAX {
        c.put_u32(at.wrapping_add(quirks::USER_DESC_ENTRY), quirks::FIRST_TLS_ENTRY)?;
    }
    Ok(0)
}

/// arm's private call.
pub(crate) fn set_tls(c: &mut Call<'_>) -> Answer {
    let value = c.word(0);
    c.set_thread_pointer(value);
    Ok(0)
}

/// Caches are always in step: stores drop what was translated from the bytes they change.
pub(crate) fn cacheflush(_: &mut Call<'_>) -> Answer {
    Ok(0)
}

pub(crate) fn socketcall(c: &mut Call<'_>) -> Answer {
    c.socket_call()
}
