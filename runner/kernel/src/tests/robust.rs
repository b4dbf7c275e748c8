//! Robust futexes: what a task held is left to others, however it ends, and a list of a guest's making is walked so far.

use hotcell_schema::arch::{AbiFamily, ArchProfile};
use hotcell_schema::job::GuestLimits;

use super::{Bench, profile, profiles, tiny_elf};
use crate::abi::layout::Layout;
use crate::machine::Step;

/// Room after the program: head, two entries, three futexes.
const HEAD: u64 = 0x40_0800;
const FIRST: u64 = 0x40_0840;
const SECOND: u64 = 0x40_0880;
const PENDING: u64 = 0x40_08c0;
/// From an entry to its futex.
const OFFSET: u64 = 16;
/// CLONE_VM, FS, FILES, SIGHAND, THREAD, SYSVSEM.
const THREAD: u64 = 0x50f00;
const WAITERS: u32 = 0x8000_0000;
const OWNER_DIED: u32 = 0x4000_0000;

fn words(bench: &mut Bench, at: u64, words: &[u64]) {
    let abi = bench.kernel.abi.clone();
    let layout = words
        .iter()
        .fold(Layout::new(&abi), |layout, word| layout.word(*word));
    bench.put(at, &layout.bytes);
}

fn number(bench: &mut Bench, at: u64, value: u32) {
    let abi = bench.kernel.abi.clone();
    bench.put(at, &Layout::new(&abi).u32(value).bytes);
}

fn now(bench: &mut Bench, at: u64) -> u32 {
    let bytes = bench.peek(at, 4).try_into().unwrap();
    bench.kernel.abi.get_u32(bytes)
}

/// A program with a second task, which runs.
fn two_tasks(profile: &ArchProfile) -> (Bench, u32) {
    let mut bench = Bench::start(profile, &tiny_elf(profile), GuestLimits::default()).unwrap();
    bench.next();
    let args = match bench.kernel.abi.family {
        AbiFamily::S390x => [HEAD + 0x700, THREAD],
        _ => [THREAD, HEAD + 0x700],
    };
    let thread = bench.call("clone", &[args[0], args[1], 0, 0, 0]).unwrap() as u32;
    (bench, thread)
}

#[test]
fn what_a_thread_held_is_left_and_who_waits_is_woken() {
    for profile in profiles() {
        let name = profile.name.as_str();
        let (mut bench, thread) = two_tasks(&profile);
        let word = bench.kernel.abi.word();
        words(&mut bench, HEAD, &[FIRST, OFFSET, PENDING]);
        words(&mut bench, FIRST, &[SECOND]);
        words(&mut bench, SECOND, &[HEAD]);
        number(&mut bench, FIRST + OFFSET, thread | WAITERS);
        number(&mut bench, SECOND + OFFSET, 7);
        number(&mut bench, PENDING + OFFSET, thread);
        // The first task waits for what the second one holds.
        let first = bench.kernel.current;
        let Step::Run { space, .. } = bench.next() else {
            panic!()
        };
        let abi = bench.kernel.abi.clone();
        let row = crate::table::table().by_name("futex").unwrap();
        let machine = bench.machines.machine(space);
        let held = u64::from(thread | WAITERS);
        machine.set_call(
            &profile,
            row.number(abi.family).unwrap(),
            &[FIRST + OFFSET, 0, held, 0],
        );
        bench.kernel.syscall(machine);
        bench.next();
        assert_eq!(bench.kernel.current, thread, "{name}: the first one waits");
        assert_eq!(bench.call("set_robust_list", &[HEAD, 5]), Some(-22), "{name}");
        assert_eq!(
            bench.call("set_robust_list", &[HEAD, 3 * word]),
            Some(0),
            "{name}"
        );
        assert_eq!(
            bench.call("get_robust_list", &[0, HEAD + 0x100, HEAD + 0x110]),
            Some(0)
        );
        let said = Layout::new(&abi).word(HEAD).bytes;
        assert_eq!(bench.peek(HEAD + 0x100, said.len()), said, "{name}");
        // Saved between the two: the list is known still.
        let state = bench.kernel.save().unwrap();
        bench.go_on_from(&state).unwrap();
        bench.call("exit", &[0]);
        assert_eq!(bench.kernel.current, first, "{name}: it was woken");
        assert_eq!(now(&mut bench, FIRST + OFFSET), WAITERS | OWNER_DIED, "{name}");
        assert_eq!(now(&mut bench, SECOND + OFFSET), 7, "{name}: another's");
        assert_eq!(now(&mut bench, PENDING + OFFSET), OWNER_DIED, "{name}");
    }
}

#[test]
fn a_list_without_end_is_walked_so_far() {
    let profile = profile("x86_64");
    let (mut bench, thread) = two_tasks(&profile);
    assert_eq!(bench.call("sched_yield", &[]), Some(0));
    if bench.kernel.current != thread {
        bench.next();
    }
    // An entry that leads to itself, then one that leads nowhere.
    for entry in [FIRST, !7, 1] {
        words(&mut bench, HEAD, &[FIRST, OFFSET, 0]);
        words(&mut bench, FIRST, &[entry]);
        let tid = bench.kernel.current;
        number(&mut bench, FIRST + OFFSET, tid);
        assert_eq!(bench.call("set_robust_list", &[HEAD, 24]), Some(0));
        bench.kernel.leave_robust(tid);
        bench.kernel.mark_left(&mut bench.machines);
        assert_eq!(now(&mut bench, FIRST + OFFSET), OWNER_DIED);
    }
}
