//! Watches, locks, attributes, and descriptors of processes: what a guest under qemu-user cannot show.

use hotcell_schema::job::GuestLimits;
use proptest::prelude::*;

use super::{Bench, profile, profiles, tiny_elf};
use crate::abi::errno::Errno;
use crate::fs::lock::{Holder, LAST, Lock, Locks};
use crate::fs::open::FileId;
use crate::fs::tree::Ino;
use crate::fs::watch::{MAX_QUEUED, MAX_WATCHES, Watches, what};
use crate::machine::Step;

const AT: u64 = 0x40_1000;
const HERE: u64 = (-100i64).cast_unsigned();

#[test]
fn what_nobody_reads_is_bounded_and_said_to_be_too_much() {
    let mut watches = Watches::default();
    let id = watches.make().unwrap();
    let watch = watches.add(id, Ino(7), what::ALL).unwrap();
    for round in 0..MAX_QUEUED {
        let happened = if round % 2 == 0 {
            what::ACCESS
        } else {
            what::MODIFY
        };
        assert!(watches.tell(Ino(7), happened, 0, b"", false));
    }
    for _ in 0..10 {
        watches.tell(Ino(7), what::OPEN, 0, b"name", false);
    }
    let all = watches.take(id, usize::MAX).unwrap();
    assert_eq!(all.len(), MAX_QUEUED + 1);
    let last = all.last().unwrap();
    assert_eq!((last.watch, last.what), (-1, what::OVERFLOW), "said once");
    assert_eq!(watches.stands(id).0, 0);
    watches.tell(Ino(7), what::OPEN, 0, b"name", false);
    let [again] = watches.take(id, 32).unwrap().try_into().unwrap();
    assert_eq!(
        (again.watch, again.what, again.name_size()),
        (watch, what::OPEN, 16)
    );
    for ino in 8..8 + MAX_WATCHES as u64 - 1 {
        watches.add(id, Ino(ino), what::ACCESS).unwrap();
    }
    assert_eq!(watches.add(id, Ino(2), what::ACCESS), Err(Errno::ENOSPC));
    watches.close(id);
    assert!(watches.is_idle());
}

#[test]
fn a_watch_is_changed_widened_or_kept_as_it_is() {
    let mut watches = Watches::default();
    let id = watches.make().unwrap();
    let watch = watches.add(id, Ino(7), what::OPEN).unwrap();
    assert_eq!(
        watches.add(id, Ino(7), what::CLOSE | what::NEW),
        Err(Errno::EEXIST)
    );
    assert!(watches.tell(Ino(7), what::OPEN, 0, b"", false));
    assert_eq!(watches.add(id, Ino(7), what::CLOSE | what::ADD), Ok(watch));
    assert!(watches.tell(Ino(7), what::OPEN, 0, b"", false));
    assert_eq!(
        watches.add(id, Ino(7), what::CLOSE | what::NOT_UNLINKED),
        Ok(watch)
    );
    assert!(!watches.tell(Ino(7), what::OPEN, 0, b"", false));
    assert!(
        !watches.tell(Ino(7), what::CLOSE, 0, b"x", true),
        "it has lost its name"
    );
    assert!(watches.gone(Ino(7)));
    let last = watches.take(id, usize::MAX).unwrap().pop().unwrap();
    assert_eq!((last.watch, last.what), (watch, what::IGNORED));
    assert_eq!(watches.remove(id, watch), Err(Errno::EINVAL));
}

#[test]
fn watches_on_a_process_end_with_it() {
    let mut bench = Bench::start(
        &profile("x86_64"),
        &tiny_elf(&profile("x86_64")),
        GuestLimits::default(),
    )
    .unwrap();
    let child = bench.call("fork", &[]).unwrap();
    let watcher = bench.call("inotify_init1", &[0x800]).unwrap().cast_unsigned();
    for name in ["", "/status", "/task"] {
        bench.put(AT, format!("/proc/{child}{name}\0").as_bytes());
        assert!(bench.call("inotify_add_watch", &[watcher, AT, 0xfff]).unwrap() > 0);
    }
    assert!(!bench.kernel.open.watches.is_idle());
    // Held open beyond its end.
    bench.put(AT, format!("/proc/{child}/status\0").as_bytes());
    let open = bench.call("openat", &[HERE, AT, 0, 0]).unwrap().cast_unsigned();
    assert!(
        bench.call("read", &[watcher, AT, 512]).unwrap() > 0,
        "that it was opened"
    );
    assert_eq!(bench.call("kill", &[child.cast_unsigned(), 9]), Some(0));
    assert_eq!(
        bench.call("wait4", &[child.cast_unsigned(), 0, 0, 0]),
        Some(child)
    );
    assert!(bench.kernel.open.watches.is_idle());
    assert_eq!(bench.call("close", &[open]), Some(0));
    assert_eq!(
        bench.call("read", &[watcher, AT, 512]),
        Some(-11),
        "nobody hears of it"
    );
    assert_eq!(bench.call("inotify_rm_watch", &[watcher, 1]), Some(-22));
}

fn process(pid: u32, exclusive: bool, start: u64, end: u64) -> Lock {
    Lock {
        holder: Holder::Process(pid),
        exclusive,
        start,
        end,
    }
}

#[test]
fn who_waits_for_itself_is_told() {
    let mut locks = Locks::default();
    assert_eq!(locks.wait(11, 1, 2, |_| true), Ok(()));
    assert_eq!(locks.wait(12, 2, 3, |_| true), Ok(()));
    assert_eq!(locks.wait(13, 3, 1, |_| true), Err(Errno::EDEADLK));
    // The second was interrupted: it waits no more.
    assert_eq!(locks.wait(13, 3, 1, |task| task != 12), Ok(()));
    locks.waits_no_more(13);
    assert_eq!(locks.wait(12, 2, 3, |_| true), Ok(()));
}

#[test]
fn locks_of_both_kinds_do_not_meet_and_are_bounded() {
    let mut locks = Locks::default();
    let whole = Lock {
        holder: Holder::Whole(FileId(1)),
        exclusive: true,
        start: 0,
        end: LAST,
    };
    locks.take(Ino(1), whole).unwrap();
    assert_eq!(locks.conflict(Ino(1), &process(1, true, 0, LAST)), None);
    let of_file = Lock {
        holder: Holder::File(FileId(1)),
        ..whole
    };
    locks.take(Ino(1), process(1, false, 5, 9)).unwrap();
    assert_eq!(locks.conflict(Ino(1), &of_file), Some(process(1, false, 5, 9)));
    let mut at = 100;
    let refused = loop {
        if let Err(errno) = locks.take(Ino(1), process(1, true, at, at)) {
            break errno;
        }
        at += 2;
        assert!(at < 100_000);
    };
    assert_eq!(refused, Errno::ENOLCK);
    assert!(locks.drop_all(Ino(1), Holder::Process(1)));
    assert_eq!(locks.conflict(Ino(1), &of_file), None);
}

proptest! {
    /// Whatever ranges are taken and given up, each byte is held by whom the last call says.
    #[test]
    fn ranges_hold_what_bytes_would(steps in proptest::collection::vec((0u32..3, 0u8..3, 0u64..20, 0u64..6), 1..60)) {
        let mut locks = Locks::default();
        // By byte: who reads it, who writes it.
        let mut bytes = [[None::<bool>; 3]; 32];
        for (pid, step, start, length) in steps {
            let lock = process(pid, step == 1, start, start + length);
            let range = start as usize..=(start + length) as usize;
            let others = |exclusive: bool| bytes[range.clone()].iter().any(|byte| {
                byte.iter().enumerate().any(|(other, held)| {
                    other != pid as usize && held.is_some_and(|held| held || exclusive)
                })
            });
            if step == 2 {
                locks.release(Ino(1), lock.holder, lock.start, lock.end).unwrap();
                bytes[range].iter_mut().for_each(|byte| byte[pid as usize] = None);
            } else {
                prop_assert_eq!(locks.conflict(Ino(1), &lock).is_some(), others(lock.exclusive));
                if !others(lock.exclusive) {
                    locks.take(Ino(1), lock).unwrap();
                    bytes[range].iter_mut().for_each(|byte| byte[pid as usize] = Some(lock.exclusive));
                }
            }
        }
        for pid in 0..3 {
            let held = bytes.iter().any(|byte| byte[pid as usize].is_some());
            prop_assert_eq!(locks.has(Ino(1), Holder::Process(pid)), held);
        }
    }
}

fn bench(profile: &hotcell_schema::arch::ArchProfile) -> Bench {
    let mut bench = Bench::start(profile, &tiny_elf(profile), GuestLimits::default()).unwrap();
    // It is loaded when it is about to run.
    bench.next();
    bench
}

/// Makes a call in the task that is next, which may wait then.
fn begin(bench: &mut Bench, name: &str, args: &[u64]) {
    let Step::Run { space, .. } = bench.next() else {
        panic!("somebody runs")
    };
    let abi = bench.kernel.abi.clone();
    let number = crate::table::table()
        .by_name(name)
        .and_then(|row| row.number(abi.family))
        .unwrap();
    let profile = bench.kernel.profile.clone();
    let machine = bench.machines.machine(space);
    machine.set_call(&profile, number, args);
    bench.kernel.syscall(machine);
}

#[test]
fn a_child_has_a_descriptor_from_its_beginning() {
    for profile in profiles() {
        let mut bench = bench(&profile);
        let abi = bench.kernel.abi.clone();
        let flags = 0x1000 | 17;
        // s390x has the stack first.
        let args = match abi.family {
            hotcell_schema::arch::AbiFamily::S390x => [0, flags, AT, 0, 0],
            _ => [flags, 0, AT, 0, 0],
        };
        assert_eq!(bench.call("clone", &args), Some(1001), "{}", profile.name);
        let fd = abi.get_u32(*bench.peek(AT, 4).first_chunk().unwrap());
        assert_eq!(fd, 3, "{}", profile.name);
        // P_PIDFD, WEXITED: the parent waits, the child ends.
        begin(&mut bench, "waitid", &[3, 3, AT, 4, 0]);
        assert_eq!(bench.call("exit_group", &[6]), Some(0), "{}", profile.name);
        let info = bench.peek(AT, 32);
        let word = |at: usize| abi.get_u32(*info.get(at..).unwrap().first_chunk().unwrap());
        let at = if abi.wide { 16 } else { 12 };
        assert_eq!((word(at), word(at + 8)), (1001, 6), "{}", profile.name);
        assert_eq!(bench.call("pidfd_send_signal", &[3, 0, 0, 0]), Some(-3));
    }
}

#[test]
fn who_waits_for_a_lock_has_it_when_it_is_given_up() {
    let profile = profile("x86_64");
    let mut bench = bench(&profile);
    bench.put(AT, b"/tmp/given\0");
    assert_eq!(bench.call("openat", &[HERE, AT, 2, 0]), Some(3));
    // struct flock: F_WRLCK of bytes 0 to 9; F_SETLK.
    let lock = [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 10];
    bench.put(AT + 64, &[0; 32]);
    bench.put(AT + 64, &lock);
    assert_eq!(bench.call("fcntl", &[3, 6, AT + 64]), Some(0));
    assert_eq!(bench.call("fork", &[]), Some(1001));
    begin(&mut bench, "sched_yield", &[]);
    // The child waits: F_SETLKW.
    begin(&mut bench, "fcntl", &[3, 7, AT + 64]);
    assert_eq!(bench.kernel.pid_of(bench.kernel.current), 1001);
    let state = bench.kernel.save().unwrap();
    bench.go_on_from(&state).unwrap();
    assert_eq!(bench.call("getpid", &[]), Some(1000), "the child waits");
    // Any descriptor of the file gives the process's locks up.
    bench.put(AT, b"/tmp/given\0");
    assert_eq!(bench.call("openat", &[HERE, AT, 0, 0]), Some(4));
    begin(&mut bench, "close", &[4]);
    begin(&mut bench, "fcntl", &[3, 6, AT + 64]);
    let waits = |bench: &Bench| bench.kernel.tasks.values().any(|task| task.pending.is_some());
    let Step::Run { .. } = bench.next() else { panic!() };
    assert!(!waits(&bench), "the child has it");
    let refused = bench.events.borrow().iter().any(|event| {
        matches!(&event.what, hotcell_schema::event::What::Syscall(call)
            if call.name == "fcntl" && call.errno.as_deref() == Some("EAGAIN") && event.task.pid == 1000)
    });
    assert!(refused, "and its parent has not");
}

#[test]
fn attributes_are_for_whom_their_names_say_and_capabilities_do_not_outlive_a_change() {
    let profile = profile("aarch64");
    let mut bench = bench(&profile);
    let (path, name, value) = (AT, AT + 64, 0x40_0800);
    bench.put(path, b"/tmp/given\0");
    bench.put(value, &[1, 0, 0, 2]);
    let set = |bench: &mut Bench, what: &[u8], size: u64| {
        bench.put(name, &[what, b"\0"].concat());
        bench.call("setxattr", &[path, name, value, size, 0])
    };
    assert_eq!(set(&mut bench, b"trusted.x", 4), Some(0));
    assert_eq!(
        set(&mut bench, b"security.capability", 4),
        Some(-22),
        "it is none"
    );
    assert_eq!(set(&mut bench, b"security.capability", 20), Some(0));
    assert_eq!(set(&mut bench, b"system.posix_acl_access", 4), Some(-95));
    assert_eq!(
        set(&mut bench, b"user.big", 4000),
        Some(-28),
        "a block holds no more"
    );
    assert_eq!(set(&mut bench, b"user.big", 70_000), Some(-7));
    let room = bench.kernel.tree.room;
    assert_eq!(bench.call("listxattr", &[path, value, 1000]), Some(30));
    assert_eq!(bench.call("openat", &[HERE, path, 1, 0]), Some(3));
    assert_eq!(bench.call("write", &[3, value, 1]), Some(1));
    assert_eq!(
        bench.call("listxattr", &[path, value, 1000]),
        Some(10),
        "what was changed has none"
    );
    assert_eq!(bench.call("fchmod", &[3, 0o666]), Some(0));
    assert_eq!(bench.call("setuid", &[1000]), Some(0));
    assert_eq!(set(&mut bench, b"trusted.y", 4), Some(-1));
    assert_eq!(set(&mut bench, b"security.y", 4), Some(-1));
    assert_eq!(set(&mut bench, b"user.y", 4), Some(0));
    assert_eq!(
        bench.call("flistxattr", &[3, value, 1000]),
        Some(7),
        "without what is not for it"
    );
    bench.put(name, b"trusted.x\0");
    assert_eq!(bench.call("getxattr", &[path, name, value, 100]), Some(-61));
    assert!(bench.kernel.tree.room > room, "what is gone is given back");
}

#[test]
fn a_blocked_signal_that_would_be_ignored_is_kept_for_whoever_reads_it() {
    for profile in profiles() {
        let mut bench = bench(&profile);
        let abi = bench.kernel.abi.clone();
        let (number, block, size) = if abi.is_mips() { (18, 1, 16) } else { (17, 0, 8) };
        let set = crate::abi::layout::Layout::new(&abi)
            .word(1 << (number - 1))
            .pad(16);
        bench.put(AT, &set.bytes);
        assert_eq!(bench.call("rt_sigprocmask", &[block, AT, 0, size]), Some(0));
        assert_eq!(
            bench.call("signalfd4", &[u64::MAX, AT, size, 0]),
            Some(3),
            "{}",
            profile.name
        );
        assert_eq!(bench.call("kill", &[1000, number]), Some(0));
        // struct pollfd: POLLIN.
        let poll = crate::abi::layout::Layout::new(&abi).u32(3).u16(1).u16(0).bytes;
        bench.put(AT, &poll);
        let name = if crate::table::table()
            .by_name("poll")
            .unwrap()
            .number(abi.family)
            .is_some()
        {
            "poll"
        } else {
            "ppoll"
        };
        assert_eq!(bench.call(name, &[AT, 1, 0, 0, 0]), Some(1), "{}", profile.name);
        assert_eq!(bench.call("read", &[3, AT, 200]), Some(128));
        assert_eq!(
            u64::from(abi.get_u32(*bench.peek(AT, 4).first_chunk().unwrap())),
            number
        );
        assert_eq!(bench.call("getpid", &[]), Some(1000));
    }
}
