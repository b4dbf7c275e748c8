//! What a hostile program may try: numbers that overflow, memory that is not its own, more than its share.

use hotcell_schema::event::What;
use hotcell_schema::job::GuestLimits;
use hotcell_schema::outcome::{FaultKind, Outcome};

use super::{Bench, profile, tiny_elf};
use crate::machine::{Clock, Machine as _, Step, Trap};

const DATA: u64 = 0x40_0400;
const EFAULT: i64 = -14;

fn bench(name: &str, data: &[u8], limits: GuestLimits) -> Bench {
    let profile = profile(name);
    let mut program = tiny_elf(&profile);
    program[0x400..0x400 + data.len()].copy_from_slice(data);
    Bench::start(&profile, &program, limits).expect("the program can be loaded")
}

fn anonymous(bench: &mut Bench, length: u64, protection: u64) -> u64 {
    let start = bench.call("mmap", &[0, length, protection, 0x22, u64::MAX, 0]);
    start.expect("it runs").cast_unsigned()
}

#[test]
fn offsets_of_mappings_do_not_overflow() {
    let mut bench = bench("x86_64", b"/tmp/given\0", GuestLimits::default());
    assert_eq!(bench.call("open", &[DATA, 0, 0]), Some(3));
    let last = u64::MAX - 4095;
    assert_eq!(bench.call("mmap", &[0, 8192, 1, 2, 3, last]), Some(-75));
    // One page that ends just before the end, grown and then cut.
    let start = bench
        .call("mmap", &[0, 4096, 1, 2, 3, last - 4096])
        .expect("runs");
    assert!(start > 0);
    let start = bench
        .call("mremap", &[start.cast_unsigned(), 4096, 16384, 1, 0])
        .expect("runs");
    assert!(start > 0);
    assert_eq!(
        bench.call("munmap", &[start.cast_unsigned() + 8192, 4096]),
        Some(0)
    );
}

#[test]
fn a_program_of_many_segments_meets_the_memory_limit() {
    let profile = profile("x86_64");
    let mut program = tiny_elf(&profile);
    // Four segments of 8 MiB each: any of them fits, all do not.
    let header = program[64..120].to_vec();
    for index in 0..4usize {
        let at = 64 + 56 * index;
        program[at..at + 56].copy_from_slice(&header);
        let address = 0x40_0000 + (index as u64) * (16 << 20);
        program[at + 16..at + 24].copy_from_slice(&address.to_le_bytes());
        program[at + 24..at + 32].copy_from_slice(&address.to_le_bytes());
        program[at + 40..at + 48].copy_from_slice(&(8u64 << 20).to_le_bytes());
    }
    program[56..58].copy_from_slice(&4u16.to_le_bytes());
    let limits = GuestLimits {
        memory: 20 << 20,
        ..GuestLimits::default()
    };
    let mut bench = Bench::start(&profile, &program, limits).expect("the program can be read");
    assert_eq!(bench.next(), Step::Finished);
    assert_eq!(bench.finish().result.outcome, Outcome::Limit("memory".into()));
}

#[test]
fn a_loop_over_a_clock_meets_the_time_limit() {
    let limits = GuestLimits {
        virtual_time: 10_000,
        ..GuestLimits::default()
    };
    let mut bench = bench("x86_64", b"", limits);
    bench.next();
    let reads = (0..1000)
        .take_while(|_| {
            bench.kernel.clock(Clock::Cycles);
            !bench.kernel.is_over()
        })
        .count();
    assert!(reads < 1000);
    assert_eq!(bench.next(), Step::Finished);
    assert_eq!(
        bench.finish().result.outcome,
        Outcome::Limit("virtual-time".into())
    );
}

#[test]
fn the_end_of_the_hosts_time_keeps_what_was_seen_and_tells_nothing_of_when() {
    let mut bench = bench("x86_64", b"seen", GuestLimits::default());
    assert_eq!(bench.call("write", &[1, DATA, 4]), Some(4));
    let told = bench.kernel.events();
    bench.kernel.out_of_wall_time();
    assert_eq!(bench.next(), Step::Finished);
    assert_eq!(bench.kernel.events(), told);
    let finished = bench.finish();
    assert_eq!(finished.result.outcome, Outcome::Limit("wall".into()));
    assert_eq!(finished.stdout, b"seen");
}

#[test]
fn the_kernel_reads_and_writes_only_what_the_guest_may() {
    let mut bench = bench("x86_64", b"/dev/zero\0", GuestLimits::default());
    assert_eq!(bench.call("open", &[DATA, 0, 0]), Some(3));
    let hidden = anonymous(&mut bench, 4096, 3);
    let constant = anonymous(&mut bench, 4096, 3);
    assert_eq!(bench.call("mprotect", &[hidden, 4096, 0]), Some(0));
    assert_eq!(bench.call("mprotect", &[constant, 4096, 1]), Some(0));
    assert_eq!(bench.call("write", &[1, hidden, 1]), Some(EFAULT));
    assert_eq!(bench.call("write", &[1, constant, 1]), Some(1));
    assert_eq!(bench.call("read", &[3, constant, 1]), Some(EFAULT));
    assert_eq!(bench.call("read", &[3, DATA, 1]), Some(1));
    // A page of the machine that no mapping of the guest names.
    let Step::Run { space, .. } = bench.next() else {
        panic!("it runs")
    };
    let own = 0x10_0000;
    let page = crate::machine::Protection::READ_WRITE;
    bench.machines.machine(space).map(own, 4096, page).expect("free");
    assert_eq!(bench.call("read", &[3, own, 1]), Some(EFAULT));
    assert_eq!(bench.call("write", &[1, own, 1]), Some(EFAULT));
}

#[test]
fn children_that_ended_count_until_waited_for() {
    let limits = GuestLimits {
        tasks: 4,
        ..GuestLimits::default()
    };
    let mut bench = bench("x86_64", b"", limits);
    // The parent makes children and lets them run; each of them ends at once.
    for turn in 0..60 {
        if bench.next() == Step::Finished {
            break;
        }
        let name = match (bench.kernel.current, turn % 2) {
            (1000, 0) => "fork",
            (1000, _) => "sched_yield",
            _ => "exit_group",
        };
        bench.call(name, &[]);
    }
    assert_eq!(bench.next(), Step::Finished);
    let result = bench.finish().result;
    assert_eq!(result.outcome, Outcome::Limit("processes".into()));
    assert_eq!(result.tasks, 4);
}

#[test]
fn a_yield_gives_the_turn_to_another() {
    let mut bench = bench("x86_64", b"", GuestLimits::default());
    assert_eq!(bench.call("fork", &[]), Some(1001));
    let Step::Run { space: parent, .. } = bench.next() else {
        panic!("it runs")
    };
    bench.call("sched_yield", &[]);
    let Step::Run { space: child, .. } = bench.next() else {
        panic!("it runs")
    };
    assert_ne!(parent, child);
}

#[test]
fn regions_of_the_machine_are_bounded() {
    let mut bench = bench("x86_64", b"", GuestLimits::default());
    let length = 40_000 * 4096;
    let start = anonymous(&mut bench, length, 3);
    let mut refused = None;
    for page in (1..40_000u64).step_by(2) {
        let result = bench.call("mprotect", &[start + page * 4096, 4096, 1]);
        if result != Some(0) {
            refused = Some((page, result));
            break;
        }
    }
    let (page, result) = refused.expect("it is refused in the end");
    assert_eq!(result, Some(-12));
    assert!((15_000..17_000).contains(&page), "{page}");
    // What is there can go away, and then there is room again.
    assert_eq!(bench.call("munmap", &[start, length]), Some(0));
    let start = anonymous(&mut bench, 3 * 4096, 3);
    assert_eq!(bench.call("mprotect", &[start + 4096, 4096, 1]), Some(0));
}

#[test]
fn a_return_from_no_handler_is_told_and_kills() {
    let mut bench = bench("x86_64", b"", GuestLimits::default());
    assert_eq!(bench.call("rt_sigreturn", &[]), None);
    let kinds: Vec<String> = bench
        .events
        .borrow()
        .iter()
        .map(|event| event.what.kind().to_owned())
        .collect();
    assert_eq!(kinds, ["process", "syscall", "process"]);
    assert_eq!(
        bench.finish().result.outcome,
        Outcome::Signalled("SIGSEGV".into())
    );
}

#[test]
fn a_privileged_instruction_is_a_segmentation_fault_on_x86() {
    for (name, signal) in [("x86_64", "SIGSEGV"), ("x86", "SIGSEGV"), ("aarch64", "SIGILL")] {
        let mut bench = bench(name, b"", GuestLimits::default());
        let Step::Run { space, .. } = bench.next() else {
            panic!("it runs")
        };
        let trap = Trap {
            kind: FaultKind::Exception,
            address: None,
        };
        bench.kernel.trap(bench.machines.machine(space), trap);
        assert_eq!(bench.next(), Step::Finished);
        assert_eq!(bench.finish().result.outcome, Outcome::Signalled(signal.into()));
    }
}

#[test]
fn unknown_numbers_and_left_files_are_bounded() {
    let mut first = bench("x86_64", b"", GuestLimits::default());
    for number in 0..1500 {
        let Step::Run { space, .. } = first.next() else {
            panic!("it runs")
        };
        let profile = profile("x86_64");
        let machine = first.machines.machine(space);
        machine.set_call(&profile, 100_000 + number, &[]);
        first.kernel.syscall(machine);
    }
    let unsupported = first.finish().result.unsupported;
    assert_eq!(unsupported.len(), 1025);
    let other = unsupported.iter().find(|call| call.name == "syscall_other");
    assert_eq!(other.map(|call| call.count), Some(1500 - 1024));

    let mut second = bench("x86_64", b"/tmp/f00000\0", GuestLimits::default());
    for number in 0..10_001u64 {
        let Step::Run { space, .. } = second.next() else {
            panic!("it runs")
        };
        let name = format!("{number:05}");
        second
            .machines
            .machine(space)
            .write(DATA + 6, name.as_bytes())
            .expect("mapped");
        assert_eq!(second.call("creat", &[DATA, 0o600]), Some(3));
        assert_eq!(second.call("close", &[3]), Some(0));
    }
    second.call("exit_group", &[0]);
    assert_eq!(second.next(), Step::Finished);
    let last = second.events.borrow().last().cloned().expect("an event");
    assert!(matches!(&last.what, What::Resource(limit) if limit.limit == "files"));
    let result = second.finish().result;
    assert_eq!(result.outcome, Outcome::Limit("files".into()));
    assert_eq!(result.files.len(), 10_000);
}

#[test]
fn a_stopped_child_is_waited_for() {
    let mut bench = bench("x86_64", b"", GuestLimits::default());
    assert_eq!(bench.call("fork", &[]), Some(1001));
    assert_eq!(bench.call("kill", &[1001, 19]), Some(0));
    // WUNTRACED.
    assert_eq!(bench.call("wait4", &[u64::MAX, DATA, 2, 0]), Some(1001));
    let Step::Run { space, .. } = bench.next() else {
        panic!("it runs")
    };
    let mut status = [0; 4];
    bench
        .machines
        .machine(space)
        .read(DATA, &mut status)
        .expect("mapped");
    assert_eq!(u32::from_le_bytes(status), 19 << 8 | 0x7f);
    // Told once; WNOHANG.
    assert_eq!(bench.call("wait4", &[u64::MAX, DATA, 3, 0]), Some(0));
}

#[test]
fn a_futex_operation_stores_and_compares() {
    let mut data = [0; 8];
    data[4] = 5;
    let mut bench = bench("x86_64", &data, GuestLimits::default());
    // FUTEX_WAKE_OP: add 3 to the second word; was it 5?
    let code = 1 << 28 | 3 << 12 | 5;
    assert_eq!(bench.call("futex", &[DATA, 5, 1, 1, DATA + 4, code]), Some(0));
    let Step::Run { space, .. } = bench.next() else {
        panic!("it runs")
    };
    let mut word = [0; 4];
    bench
        .machines
        .machine(space)
        .read(DATA + 4, &mut word)
        .expect("mapped");
    assert_eq!(u32::from_le_bytes(word), 8);
}

#[test]
fn arguments_that_are_too_many_leave_the_program_running() {
    let mut bench = bench("x86_64", b"/bin/sample\0", GuestLimits::default());
    let area = anonymous(&mut bench, 4 << 20, 3);
    let Step::Run { space, .. } = bench.next() else {
        panic!("it runs")
    };
    let machine = bench.machines.machine(space);
    // 15 texts of 120 KiB, once as arguments and once as environment.
    machine.write(area, &vec![b'a'; 120 << 10]).expect("mapped");
    let list: Vec<u8> = (0..15).flat_map(|_| area.to_le_bytes()).collect();
    machine.write(area + (1 << 20), &list).expect("mapped");
    let lists = area + (1 << 20);
    assert_eq!(bench.call("execve", &[DATA, lists, lists]), Some(-7));
    assert_eq!(bench.call("getpid", &[]), Some(1000));
}

#[test]
fn mappings_without_memory_are_bounded_and_cost_memory() {
    let mut bench = bench("x86_64", b"", GuestLimits::default());
    let start = anonymous(&mut bench, 4096 * 200_000, 0);
    let holes = (0..100_000u64)
        .take_while(|hole| bench.call("munmap", &[start + 4096 * (2 * hole + 1), 4096]) == Some(0))
        .count();
    assert!((65_000..65_530).contains(&holes), "{holes}");
    let last = start + 4096 * (2 * holes as u64 + 1);
    assert_eq!(bench.call("munmap", &[last, 4096]), Some(-12));
    assert_eq!(
        bench.call("munmap", &[last, start + 4096 * 200_000 - last]),
        Some(0),
        "no hole: the end of it"
    );

    let limits = GuestLimits {
        memory: 12 << 20,
        ..GuestLimits::default()
    };
    let mut bench = self::bench("x86_64", b"", limits);
    let made = (0..60_000u64)
        .take_while(|page| {
            let address = 0x1000_0000 + page * 8192;
            bench
                .call("mmap", &[address, 4096, 0, 0x32, u64::MAX, 0])
                .is_some()
        })
        .count();
    assert!((5000..50_000).contains(&made), "{made}");
    assert_eq!(bench.finish().result.outcome, Outcome::Limit("memory".into()));
}

#[test]
fn texts_that_are_kept_for_readers_are_bounded() {
    let mut bench = bench("x86_64", b"/proc/self/maps\0", GuestLimits::default());
    for page in 0..20_000u64 {
        let address = 0x1000_0000 + page * 8192;
        let made = bench.call("mmap", &[address, 4096, 0, 0x32, u64::MAX, 0]);
        assert_eq!(made, Some(address.cast_signed()));
    }
    let opened: Vec<i64> = (0..1000)
        .map_while(|_| bench.call("open", &[DATA, 0, 0]).filter(|fd| *fd >= 0))
        .collect();
    assert!(
        (40..100).contains(&opened.len()),
        "of about a mebibyte each: {}",
        opened.len()
    );
    assert_eq!(bench.call("open", &[DATA, 0, 0]), Some(-23), "ENFILE");
    assert_eq!(bench.call("close", &[3]), Some(0));
    assert_eq!(bench.call("open", &[DATA, 0, 0]), Some(3));
}

#[test]
fn pipes_hold_what_they_are_given_and_no_more() {
    const SIZE: u64 = 1032;
    const SET_SIZE: u64 = 1031;
    let mut bench = bench("x86_64", b"", GuestLimits::default());
    let mut pipe = || {
        assert_eq!(bench.call("pipe", &[DATA]), Some(0));
        let fds = bench.peek(DATA, 4);
        let read = u64::from(fds[0]) | u64::from(fds[1]) << 8;
        let first = bench.call("fcntl", &[read, SIZE, 0]);
        (first, bench.call("fcntl", &[read, SET_SIZE, 1 << 20]))
    };
    for _ in 0..63 {
        assert_eq!(pipe(), (Some(65_536), Some(1 << 20)));
    }
    let rest: Vec<_> = (0..20).map(|_| pipe()).collect();
    assert_eq!(rest[0], (Some(65_536), Some(1 << 20)), "the last mebibyte of 64");
    assert_eq!(rest[1], (Some(4096), Some(-1)), "EPERM");
    assert_eq!(rest[19], rest[1]);

    let mut bench = self::bench("x86_64", b"", GuestLimits::default());
    assert_eq!(bench.call("pipe2", &[DATA, 0o4000]), Some(0));
    assert_eq!(bench.call("fcntl", &[4, SET_SIZE, 5000]), Some(8192));
    assert_eq!(bench.call("write", &[4, DATA, 1024]), Some(1024));
    for _ in 0..7 {
        assert_eq!(bench.call("write", &[4, DATA, 1024]), Some(1024));
    }
    assert_eq!(bench.call("write", &[4, DATA, 1]), Some(-11));
    assert_eq!(bench.call("fcntl", &[3, SET_SIZE, 4096]), Some(-16), "EBUSY");
    assert_eq!(bench.call("fcntl", &[3, SET_SIZE, 2 << 20]), Some(-1));
    assert_eq!(bench.call("fcntl", &[3, SET_SIZE, 16_384]), Some(16_384));
    assert_eq!(bench.call("write", &[4, DATA, 1]), Some(1));
}
