//! Signals: which task takes them, how they queue, what is told of each.

use hotcell_schema::arch::ArchProfile;
use hotcell_schema::job::GuestLimits;

use super::{Bench, profile, profiles, tiny_elf};
use crate::abi::signal::Sig;
use crate::machine::Step;

/// Room after the program.
const ROOM: u64 = 0x40_0800;
/// CLONE_VM, FS, FILES, SIGHAND, THREAD, SYSVSEM.
const THREAD: u64 = 0x50f00;
const EAGAIN: i64 = -11;

fn bench(profile: &ArchProfile) -> Bench {
    let mut bench = Bench::start(profile, &tiny_elf(profile), GuestLimits::default()).unwrap();
    bench.next();
    bench
}

fn file(bench: &mut Bench, path: &str) -> String {
    let mut name = path.as_bytes().to_vec();
    name.push(0);
    bench.put(ROOM, &name);
    let fd = bench
        .call("openat", &[(-100i64).cast_unsigned(), ROOM, 0, 0])
        .unwrap();
    let fd = fd.cast_unsigned();
    let length = bench.call("read", &[fd, ROOM, 0x700]).unwrap();
    assert_eq!(bench.call("close", &[fd]), Some(0));
    String::from_utf8(bench.peek(ROOM, length as usize)).unwrap()
}

fn line(text: &str, name: &str) -> String {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(":\t"));
    line.unwrap().to_owned()
}

/// SIG_BLOCK, SIG_UNBLOCK and SIG_SETMASK of x86-64, with a set.
fn mask(bench: &mut Bench, how: u64, set: u64) {
    bench.put(ROOM, &set.to_le_bytes());
    assert_eq!(bench.call("rt_sigprocmask", &[how, ROOM, 0, 8]), Some(0));
}

/// Waits for none of a set; its siginfo is in the room then.
fn taken(bench: &mut Bench, set: u64) -> Option<i64> {
    bench.put(ROOM, &set.to_le_bytes());
    bench.put(ROOM + 8, &[0; 16]);
    bench.call("rt_sigtimedwait", &[ROOM, ROOM + 0x40, ROOM + 8, 8])
}

fn queue(bench: &mut Bench, to: u64, signal: u64, value: u64) -> Option<i64> {
    let mut info = [0u8; 128];
    info[8..12].copy_from_slice(&(-1i32).to_le_bytes());
    info[16..20].copy_from_slice(&1000u32.to_le_bytes());
    info[24..32].copy_from_slice(&value.to_le_bytes());
    bench.put(ROOM, &info);
    bench.call("rt_sigqueueinfo", &[to, signal, ROOM])
}

fn value(bench: &mut Bench) -> u64 {
    u64::from_le_bytes(bench.peek(ROOM + 0x40 + 24, 8).try_into().unwrap())
}

#[test]
fn a_signal_of_a_process_is_taken_by_whoever_wants_it() {
    let mut bench = bench(&profile("x86_64"));
    let usr1 = Sig(10);
    mask(&mut bench, 0, usr1.bit());
    let other = bench.call("clone", &[THREAD, ROOM + 0x700, 0, 0, 0]).unwrap() as u32;
    assert_eq!(bench.call("kill", &[1000, 10]), Some(0));
    let status = file(&mut bench, "/proc/self/status");
    assert_eq!(line(&status, "ShdPnd"), "0000000000000200");
    assert_eq!(line(&status, "SigPnd"), "0000000000000000");
    assert_eq!(line(&status, "SigBlk"), "0000000000000200");
    assert_eq!(line(&status, "SigQ"), "1/7824");
    assert_eq!((bench.kernel.ready(1000), bench.kernel.ready(other)), (0, 0));
    // The other does not block it any more: it is that one's. The first does not either: it goes before.
    bench.kernel.tasks.get_mut(&other).unwrap().mask = 0;
    assert_eq!(
        (bench.kernel.ready(1000), bench.kernel.ready(other)),
        (0, usr1.bit())
    );
    bench.kernel.tasks.get_mut(&1000).unwrap().mask = 0;
    assert_eq!(
        (bench.kernel.ready(1000), bench.kernel.ready(other)),
        (usr1.bit(), 0)
    );
    // Both block it, and the other waits for it.
    for tid in [1000, other] {
        bench.kernel.tasks.get_mut(&tid).unwrap().mask = usr1.bit();
    }
    bench.kernel.slice = 0;
    assert!(matches!(bench.next(), Step::Run { .. }));
    assert_eq!(bench.kernel.current, other);
    assert_eq!(taken(&mut bench, usr1.bit()), Some(10));
    assert_eq!(bench.kernel.arrived(1000), 0);
    // One that is sent to a task alone is nobody else's.
    assert_eq!(bench.call("tgkill", &[1000, 1000, 10]), Some(0));
    assert_eq!(bench.kernel.arrived(other), 0);
    assert_eq!(taken(&mut bench, usr1.bit()), Some(EAGAIN));
    let status = file(&mut bench, "/proc/self/status");
    assert_eq!(line(&status, "ShdPnd"), "0000000000000000");
    assert_eq!(line(&status, "SigPnd"), "0000000000000200");
}

#[test]
fn real_time_signals_queue_in_order_and_others_do_not() {
    let mut bench = bench(&profile("x86_64"));
    mask(&mut bench, 2, u64::MAX);
    for (signal, value) in [(34, 1), (33, 2), (34, 3), (10, 4), (10, 5), (33, 6)] {
        assert_eq!(queue(&mut bench, 1000, signal, value), Some(0));
    }
    let bytes = bench.kernel.save().unwrap();
    bench.go_on_from(&bytes).unwrap();
    for wanted in [(10, 4), (33, 2), (33, 6), (34, 1), (34, 3)] {
        let signal = taken(&mut bench, u64::MAX).unwrap();
        assert_eq!((signal, value(&mut bench)), wanted);
    }
    assert_eq!(taken(&mut bench, u64::MAX), Some(EAGAIN));
    // What a task did itself goes before what others send.
    assert_eq!(queue(&mut bench, 1000, 1, 0), Some(0));
    assert_eq!(queue(&mut bench, 1000, 11, 0), Some(0));
    assert_eq!(taken(&mut bench, u64::MAX), Some(11));
    assert_eq!(taken(&mut bench, u64::MAX), Some(1));
}

#[test]
fn the_queue_has_an_end() {
    let mut bench = bench(&profile("x86_64"));
    mask(&mut bench, 2, u64::MAX);
    bench.put(ROOM, &[3u64.to_le_bytes(), u64::MAX.to_le_bytes()].concat());
    assert_eq!(bench.call("prlimit64", &[0, 11, ROOM, 0]), Some(0));
    for value in 0..3 {
        assert_eq!(queue(&mut bench, 1000, 40, value), Some(0));
    }
    assert_eq!(queue(&mut bench, 1000, 40, 3), Some(EAGAIN));
    // kill is not told: that a signal came is kept, not from whom.
    assert_eq!(bench.call("kill", &[1000, 41]), Some(0));
    assert_eq!(bench.call("kill", &[1000, 41]), Some(0));
    assert_eq!(queue(&mut bench, 1000, 10, 9), Some(0), "the others do not count");
    let status = file(&mut bench, "/proc/self/status");
    assert_eq!(line(&status, "SigQ"), "5/3");
    let all: Vec<i64> = std::iter::from_fn(|| taken(&mut bench, u64::MAX).filter(|one| *one > 0)).collect();
    assert_eq!(all, [10, 40, 40, 40, 41]);
    assert_eq!(bench.peek(ROOM + 0x50, 8), [0; 8], "no sender");
    // However high the limit.
    bench.put(ROOM, &[u64::MAX; 2].map(u64::to_le_bytes).concat());
    bench
        .kernel
        .processes
        .get_mut(&1000)
        .unwrap()
        .limits
        .insert(11, (u64::MAX, u64::MAX));
    let room = (0..).find(|value| queue(&mut bench, 1000, 40, *value) == Some(EAGAIN));
    assert_eq!(room, Some(1 << 16));
}

#[test]
fn what_is_ignored_from_now_on_is_forgotten() {
    let mut bench = bench(&profile("x86_64"));
    mask(&mut bench, 2, u64::MAX);
    assert_eq!(bench.call("kill", &[1000, 10]), Some(0));
    assert_eq!(bench.call("kill", &[1000, 20]), Some(0), "SIGTSTP");
    assert_eq!(bench.call("kill", &[1000, 18]), Some(0), "SIGCONT");
    assert_eq!(bench.kernel.arrived(1000), Sig(10).bit() | Sig::CONT.bit());
    assert_eq!(bench.call("kill", &[1000, 20]), Some(0));
    assert_eq!(bench.kernel.arrived(1000), Sig(10).bit() | Sig::TSTP.bit());
    bench.put(ROOM, &[1u64, 0, 0, 0].map(u64::to_le_bytes).concat());
    assert_eq!(bench.call("rt_sigaction", &[10, ROOM, 0, 8]), Some(0));
    assert_eq!(bench.kernel.arrived(1000), Sig::TSTP.bit());
}

#[test]
fn a_descriptor_tells_all_that_is_known() {
    for profile in profiles() {
        let name = &profile.name;
        let mut bench = bench(&profile);
        let abi = bench.kernel.abi.clone();
        let size = if abi.is_mips() { 16 } else { 8 };
        bench.put(ROOM, &[0xff; 16]);
        let block = u64::from(abi.is_mips());
        assert_eq!(bench.call("rt_sigprocmask", &[block, ROOM, 0, size]), Some(0));
        let fd = bench
            .call("signalfd4", &[u64::MAX, ROOM, size, 0])
            .unwrap()
            .cast_unsigned();
        // SI_QUEUE, process 77, user 88, and a value whose highest bit is set.
        let word = abi.word();
        let value = 1u64 << (8 * word - 1) | 0x1234;
        let layout = crate::abi::layout::Layout::new(&abi).u32(0);
        let layout = if abi.is_mips() {
            layout.u32(u32::MAX).u32(0)
        } else {
            layout.u32(0).u32(u32::MAX)
        };
        let mut info = layout.align(word as usize).u32(77).u32(88).word(value).bytes;
        info.resize(128, 0);
        bench.put(ROOM, &info);
        assert_eq!(
            bench.call("rt_sigqueueinfo", &[1000, 35, ROOM]),
            Some(0),
            "{name}"
        );
        assert_eq!(bench.call("read", &[fd, ROOM, 0x700]), Some(128), "{name}");
        let told = bench.peek(ROOM, 128);
        let u32_at = |at: usize| abi.get_u32(told[at..at + 4].try_into().unwrap());
        let u64_at = |at: usize| abi.get_u64(told[at..at + 8].try_into().unwrap());
        assert_eq!([0, 8, 12, 16].map(u32_at), [35, u32::MAX, 77, 88], "{name}");
        assert_eq!(u64_at(48), abi.signed(value).cast_unsigned(), "{name}");
        // The union's first four bytes.
        let int = if abi.big && abi.wide { value >> 32 } else { value };
        assert_eq!(u32_at(44), int as u32, "{name}");
    }
}

#[test]
fn a_timer_that_expires_unheard_counts_and_does_not_queue() {
    let mut bench = bench(&profile("x86_64"));
    mask(&mut bench, 2, u64::MAX);
    // A value, signal 40, to the process; every millisecond.
    bench.put(
        ROOM,
        &[&7u64.to_le_bytes()[..], &40u32.to_le_bytes(), &[0; 52]].concat(),
    );
    assert_eq!(bench.call("timer_create", &[1, ROOM, ROOM + 0x80]), Some(0));
    bench.put(
        ROOM,
        &[0u64, 1_000_000, 0, 1_000_000].map(u64::to_le_bytes).concat(),
    );
    assert_eq!(bench.call("timer_settime", &[0, 0, ROOM, 0]), Some(0));
    for _ in 0..3 {
        bench.put(ROOM, &[0u64, 2_500_000].map(u64::to_le_bytes).concat());
        bench.call("nanosleep", &[ROOM, 0]);
    }
    let status = file(&mut bench, "/proc/self/status");
    assert_eq!(line(&status, "SigQ"), "1/7824");
    assert_eq!(taken(&mut bench, u64::MAX), Some(40));
    let told = bench.peek(ROOM + 0x40, 32);
    assert_eq!(told[8..12], (-2i32).to_le_bytes());
    assert_eq!(told[20..24], 6u32.to_le_bytes(), "overruns");
    assert_eq!(told[24..32], 7u64.to_le_bytes());
}

#[test]
fn who_waits_for_the_child_of_a_vfork_can_be_killed() {
    for by_thread in [false, true] {
        let mut bench = bench(&profile("x86_64"));
        let killer = bench.call("fork", &[]).unwrap() as u32;
        let thread = bench.call("clone", &[THREAD, ROOM + 0x700, 0, 0, 0]).unwrap() as u32;
        bench.call("vfork", &[]);
        let child = thread + 1;
        let waiting = bench.kernel.tasks[&1000].pending.as_ref().unwrap();
        assert_eq!(waiting.row.name, "vfork");
        // Any other signal waits with it.
        (bench.kernel.current, bench.kernel.slice) = (killer, 1000);
        assert_eq!(bench.call("tgkill", &[1000, 1000, 15]), Some(0));
        bench.next();
        assert!(bench.kernel.tasks[&1000].pending.is_some());
        if by_thread {
            (bench.kernel.current, bench.kernel.slice) = (thread, 1000);
            bench.call("exit_group", &[0]);
        } else {
            bench.call("kill", &[1000, 9]);
        }
        bench.kernel.slice = 0;
        bench.next();
        let alive: Vec<u32> = bench.kernel.tasks.keys().copied().collect();
        assert_eq!(alive, [killer, child], "{by_thread}");
    }
}

/// A machine's turn: this many blocks.
fn compute(bench: &mut Bench, tid: u32, blocks: u64) {
    (bench.kernel.current, bench.kernel.slice) = (tid, 1000);
    assert!(matches!(
        bench.kernel.next(&mut bench.machines),
        Ok(Step::Run { blocks: Some(_), .. })
    ));
    bench.kernel.counted(blocks, blocks);
    let _ = bench.kernel.next(&mut bench.machines);
}

#[test]
fn timers_of_setitimer_go_by_what_the_process_ran() {
    for (which, signal) in [(1, 26), (2, 27)] {
        let mut bench = bench(&profile("x86_64"));
        mask(&mut bench, 2, u64::MAX);
        // Every 10 ms that it runs.
        bench.put(ROOM, &[0u64, 10_000, 0, 10_000].map(u64::to_le_bytes).concat());
        assert_eq!(bench.call("setitimer", &[which, ROOM, 0]), Some(0));
        bench.put(ROOM, &[1u64, 0].map(u64::to_le_bytes).concat());
        assert_eq!(bench.call("nanosleep", &[ROOM, 0]), Some(0));
        assert_eq!(bench.kernel.arrived(1000), 0, "sleep does not count");
        compute(&mut bench, 1000, 500_000);
        assert_eq!(bench.kernel.arrived(1000), 0);
        assert_eq!(bench.call("getitimer", &[which, ROOM]), Some(0));
        let left = bench.peek(ROOM, 32);
        assert_eq!(left[8..16], 10_000u64.to_le_bytes());
        let left = u64::from_le_bytes(left[24..32].try_into().unwrap());
        assert!((4_900..=5_000).contains(&left), "{left}");
        let bytes = bench.kernel.save().unwrap();
        bench.go_on_from(&bytes).unwrap();
        compute(&mut bench, 1000, 600_000);
        assert_eq!(taken(&mut bench, u64::MAX), Some(signal));
        assert_eq!(taken(&mut bench, u64::MAX), Some(EAGAIN));
        compute(&mut bench, 1000, 1_000_000);
        assert_eq!(taken(&mut bench, u64::MAX), Some(signal), "again");
        assert_eq!(bench.call("getitimer", &[3, ROOM]), Some(-22));
    }
}

#[test]
fn posix_timers_go_by_what_a_process_or_a_task_ran() {
    let mut bench = bench(&profile("x86_64"));
    mask(&mut bench, 2, u64::MAX);
    assert_eq!(bench.call("timerfd_create", &[2, 0]), Some(-22));
    for (clock, signal) in [(2u64, 40u32), (3, 41)] {
        bench.put(ROOM, &[&[0; 8][..], &signal.to_le_bytes(), &[0; 52]].concat());
        assert_eq!(bench.call("timer_create", &[clock, ROOM, ROOM + 0x80]), Some(0));
        bench.put(ROOM, &[0u64, 0, 0, 10_000_000].map(u64::to_le_bytes).concat());
        assert_eq!(bench.call("timer_settime", &[clock - 2, 0, ROOM, 0]), Some(0));
    }
    let other = bench.call("clone", &[THREAD, ROOM + 0x700, 0, 0, 0]).unwrap() as u32;
    let (process, task) = (1 << 39, 1 << 40);
    compute(&mut bench, other, 600_000);
    assert_eq!(bench.kernel.arrived(1000), 0);
    compute(&mut bench, other, 600_000);
    assert_eq!(bench.kernel.arrived(1000), process);
    compute(&mut bench, 1000, 1_100_000);
    assert_eq!(bench.kernel.arrived(1000), process | task);
    // The clocks say so too.
    (bench.kernel.current, bench.kernel.slice) = (other, 1000);
    let mut shown = [2u64, 3].map(|clock| {
        assert_eq!(bench.call("clock_gettime", &[clock, ROOM]), Some(0));
        u64::from_le_bytes(bench.peek(ROOM + 8, 8).try_into().unwrap()) / 1_000_000
    });
    shown.sort_unstable();
    assert_eq!(shown, [12, 23]);
}
