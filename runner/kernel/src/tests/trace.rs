//! Tracing: what a tracer sees of registers, and what a saved run keeps of it. `tests/guests/injects.c` does the rest.

use hotcell_schema::event::{MemoryBy, MemoryOp, ProcessOp, What};
use hotcell_schema::job::GuestLimits;

use super::{Bench, profile, profiles, tiny_elf};
use crate::abi::Abi;
use crate::abi::traced::{View, size};

/// Data of the program, and room after it.
const DATA: u64 = 0x40_0400;
const ROOM: u64 = 0x40_0800;

#[test]
fn register_sets_have_the_sizes_of_the_headers() {
    // sizeof(elf_gregset_t), and what PTRACE_GETREGS gives.
    let wanted = [
        ("x86_64", 216, Some(216)),
        ("x86", 68, Some(68)),
        ("arm", 72, Some(72)),
        ("armeb", 72, Some(72)),
        ("aarch64", 272, None),
        ("riscv64", 256, None),
        ("mips", 180, Some(304)),
        ("mipsel", 180, Some(304)),
        ("mips64", 360, Some(304)),
        ("mips64el", 360, Some(304)),
        ("ppc", 192, Some(176)),
        ("ppc64", 384, Some(352)),
        ("ppc64le", 384, Some(352)),
        ("s390x", 216, None),
    ];
    let known = profiles();
    assert_eq!(known.len(), wanted.len());
    for (name, status, plain) in wanted {
        let abi = Abi::new(&profile(name));
        let bytes = |view| size(view, &abi, name).map(|(bytes, _)| bytes);
        assert_eq!(bytes(View::Status), Some(status), "{name}");
        assert_eq!(bytes(View::Plain), plain, "{name}");
    }
}

#[test]
fn a_saved_run_goes_on_with_a_task_that_is_held() {
    let mut program = tiny_elf(&profile("x86_64"));
    program[0x400..0x408].copy_from_slice(&0x4711u64.to_le_bytes());
    let mut bench = Bench::start(&profile("x86_64"), &program, GuestLimits::default()).unwrap();
    let child = bench.call("fork", &[]).unwrap();
    let pid = child.cast_unsigned();
    assert_eq!(
        bench.call("ptrace", &[16, 4242, 0, 0]),
        Some(-3),
        "no such process"
    );
    assert_eq!(
        bench.call("ptrace", &[1, pid, DATA, ROOM]),
        Some(-3),
        "not traced"
    );
    assert_eq!(bench.call("ptrace", &[16, pid, 0, 0]), Some(0));
    assert_eq!(bench.call("wait4", &[pid, ROOM, 0, 0]), Some(child));
    let bytes = bench.kernel.save().unwrap();
    bench.go_on_from(&bytes).unwrap();
    assert_eq!(bench.kernel.tracer_of(child as u32), 1000);
    assert_eq!(bench.call("ptrace", &[1, pid, DATA, ROOM + 8]), Some(0), "peek");
    assert_eq!(
        bench.call("ptrace", &[1, pid, 8, ROOM + 8]),
        Some(-5),
        "nothing is there"
    );
    assert_eq!(bench.call("ptrace", &[4, pid, DATA, 0x1234]), Some(0), "poke");
    assert_eq!(bench.call("ptrace", &[9, pid, 0, 0]), Some(-5), "no single steps");
    assert_eq!(bench.call("write", &[1, ROOM, 16]), Some(16));
    assert_eq!(bench.call("ptrace", &[17, pid, 0, 0]), Some(0));
    assert_eq!(bench.kernel.tracer_of(child as u32), 0);
    let told: Vec<What> = bench
        .events
        .borrow()
        .iter()
        .map(|event| event.what.clone())
        .collect();
    assert!(told.iter().any(
        |what| matches!(what, What::Process(process) if process.op == ProcessOp::Traced && process.to == Some(child as u32))
    ));
    let [injected] = told
        .iter()
        .filter_map(|what| match what {
            What::Memory(memory) if memory.op == MemoryOp::Injected => Some(memory),
            _ => None,
        })
        .collect::<Vec<_>>()[..]
    else {
        panic!("one write")
    };
    assert_eq!(
        (injected.start.0, injected.length, injected.to, injected.by),
        (DATA, 8, Some(child as u32), Some(MemoryBy::Ptrace))
    );
    let finished = bench.finish();
    // Stopped by SIGSTOP, and what was read.
    assert_eq!(finished.stdout[..4], 0x137fu32.to_le_bytes());
    assert_eq!(finished.stdout[8..], 0x4711u64.to_le_bytes());
}

#[test]
fn a_tracer_that_ends_lets_go_or_takes_with_it() {
    for (options, killed) in [(0, false), (0x10_0000, true)] {
        let program = tiny_elf(&profile("x86_64"));
        let mut bench = Bench::start(&profile("x86_64"), &program, GuestLimits::default()).unwrap();
        let child = bench.call("fork", &[]).unwrap();
        assert_eq!(
            bench.call("ptrace", &[0x4206, child.cast_unsigned(), 0, options]),
            Some(0)
        );
        assert_eq!(
            bench.call("ptrace", &[0x4207, child.cast_unsigned(), 0, 0]),
            Some(0)
        );
        assert_eq!(
            bench.call("exit_group", &[0]),
            if killed { None } else { Some(0) }
        );
        let alive = bench.kernel.processes.contains_key(&(child as u32));
        assert_eq!(alive, !killed);
        if alive {
            assert_eq!(bench.kernel.tracer_of(child as u32), 0);
            assert_eq!(bench.call("getpid", &[]), Some(child));
        }
    }
}

/// CLONE_VM, FS, FILES, SIGHAND, THREAD, SYSVSEM.
const THREAD: u64 = 0x50f00;
const SEIZE: u64 = 0x4206;
const CONT: u64 = 7;
/// PTRACE_O_TRACEEXIT, PTRACE_O_TRACEEXEC.
const EXITS: u64 = 0x40;
const EXECS: u64 = 0x10;
/// __WALL, WNOHANG, WUNTRACED.
const ALL: u64 = 0x4000_0001;
const UNTRACED: u64 = 2;

fn start() -> Bench {
    let mut program = tiny_elf(&profile("x86_64"));
    program[0x400..0x40c].copy_from_slice(b"/bin/sample\0");
    Bench::start(&profile("x86_64"), &program, GuestLimits::default()).unwrap()
}

/// Makes a call in a task; `None`: it has not come back.
fn call(bench: &mut Bench, tid: u64, name: &str, args: &[u64]) -> Option<i64> {
    (bench.kernel.current, bench.kernel.slice) = (tid as u32, 1000);
    bench.next();
    assert_eq!(bench.kernel.current, tid as u32, "it can run");
    let answer = bench.call(name, args);
    answer.filter(|_| bench.kernel.current == tid as u32)
}

/// Whom a process hears of, if there is one, and how.
fn heard(bench: &mut Bench, tid: u64, which: u64, options: u64) -> Option<(u64, u32)> {
    let got = call(bench, tid, "wait4", &[which, ROOM, options, 0]).unwrap();
    let space = bench.kernel.tasks[&(tid as u32)].space;
    let mut status = [0; 4];
    let machine = bench.machines.machine(space);
    crate::machine::Machine::read(machine, ROOM, &mut status).unwrap();
    (got > 0).then(|| (got.cast_unsigned(), u32::from_le_bytes(status)))
}

/// A child with another thread, and a traced one: what was asked for of all its threads.
fn threads(bench: &mut Bench, options: u64) -> (u64, u64) {
    let child = call(bench, 1000, "fork", &[]).unwrap().cast_unsigned();
    let thread = call(bench, child, "clone", &[THREAD, ROOM + 0x700, 0, 0, 0]).unwrap();
    let thread = thread.cast_unsigned();
    for tid in [child, thread] {
        assert_eq!(call(bench, 1000, "ptrace", &[SEIZE, tid, 0, options]), Some(0));
    }
    (child, thread)
}

#[test]
fn a_tracer_hears_of_the_end_of_each_thread() {
    for (name, args, ended) in [
        ("exit_group", [5u64, 0], 5 << 8),
        ("kill", [0, 15], 15),
        ("kill", [0, 9], 9),
    ] {
        let mut bench = start();
        let (child, thread) = threads(&mut bench, EXITS);
        let args = if name == "kill" { [child, args[1]] } else { args };
        call(&mut bench, thread, name, &args);
        (bench.kernel.current, bench.kernel.slice) = (child as u32, 1000);
        bench.next();
        if ended == 15 {
            assert_eq!(
                heard(&mut bench, 1000, u64::MAX, ALL),
                Some((child, 15 << 8 | 0x7f))
            );
            assert_eq!(call(&mut bench, 1000, "ptrace", &[CONT, child, 0, 15]), Some(0));
            (bench.kernel.current, bench.kernel.slice) = (child as u32, 1000);
            bench.next();
        }
        // Each stands still before its end, unless it was killed.
        if ended != 9 {
            for tid in [child, thread] {
                let stop = 5 << 8 | 0x7f | 6 << 16;
                assert_eq!(heard(&mut bench, 1000, u64::MAX, ALL), Some((tid, stop)));
                assert_eq!(call(&mut bench, 1000, "ptrace", &[0x4201, tid, 0, ROOM]), Some(0));
                assert_eq!(bench.peek(ROOM, 8), u64::from(ended).to_le_bytes());
            }
            let bytes = bench.kernel.save().unwrap();
            bench.go_on_from(&bytes).unwrap();
            assert_eq!(call(&mut bench, 1000, "ptrace", &[CONT, child, 0, 0]), Some(0));
            assert_eq!(
                heard(&mut bench, 1000, u64::MAX, ALL),
                None,
                "the first is heard of last"
            );
            assert_eq!(call(&mut bench, 1000, "ptrace", &[CONT, thread, 0, 0]), Some(0));
        }
        let mut all = [0; 2].map(|_| heard(&mut bench, 1000, u64::MAX, ALL).unwrap());
        all.sort_unstable();
        assert_eq!(all, [(child, ended), (thread, ended)], "{name}");
        assert_eq!(
            call(&mut bench, 1000, "wait4", &[u64::MAX, 0, ALL, 0]),
            Some(-10),
            "ECHILD"
        );
    }
}

#[test]
fn the_status_of_a_process_is_its_first_threads_when_all_end_alone() {
    let mut bench = start();
    let (child, thread) = threads(&mut bench, 0);
    call(&mut bench, child, "exit", &[3]);
    assert_eq!(heard(&mut bench, 1000, u64::MAX, ALL), None);
    call(&mut bench, thread, "exit", &[4]);
    let mut all = [0; 2].map(|_| heard(&mut bench, 1000, u64::MAX, ALL).unwrap());
    all.sort_unstable();
    assert_eq!(all, [(child, 3 << 8), (thread, 4 << 8)]);
}

#[test]
fn a_thread_that_executes_takes_the_first_ones_number() {
    for options in [EXECS, EXECS | EXITS] {
        let mut bench = start();
        let (child, thread) = threads(&mut bench, options);
        let third = call(&mut bench, thread, "clone", &[THREAD, ROOM + 0x780, 0, 0, 0]).unwrap();
        let third = third.cast_unsigned();
        assert_eq!(
            call(&mut bench, 1000, "ptrace", &[SEIZE, third, 0, options]),
            Some(0)
        );
        call(&mut bench, thread, "execve", &[DATA, 0, 0]);
        if options & EXITS != 0 {
            let stop = 5 << 8 | 0x7f | 6 << 16;
            for tid in [child, third] {
                assert_eq!(heard(&mut bench, 1000, u64::MAX, ALL), Some((tid, stop)));
                assert_eq!(call(&mut bench, 1000, "ptrace", &[CONT, tid, 0, 0]), Some(0));
            }
        }
        // The third has ended; nobody hears of the first, whose number goes on.
        assert_eq!(heard(&mut bench, 1000, u64::MAX, ALL), Some((third, 0)));
        let stop = 5 << 8 | 0x7f | 4 << 16;
        assert_eq!(heard(&mut bench, 1000, u64::MAX, ALL), Some((child, stop)));
        assert_eq!(
            call(&mut bench, 1000, "ptrace", &[0x4201, child, 0, ROOM]),
            Some(0)
        );
        assert_eq!(bench.peek(ROOM, 8), thread.to_le_bytes());
        assert_eq!(call(&mut bench, 1000, "ptrace", &[CONT, child, 0, 0]), Some(0));
        assert_eq!(call(&mut bench, child, "gettid", &[]), Some(child.cast_signed()));
        assert_eq!(heard(&mut bench, 1000, u64::MAX, ALL), None);
    }
}

#[test]
fn a_tracer_that_listens_leaves_a_stopped_process_stopped_and_hears_when_it_goes_on() {
    const LISTEN: u64 = 0x4208;
    const INTERRUPT: u64 = 0x4207;
    let mut bench = start();
    let child = call(&mut bench, 1000, "fork", &[]).unwrap().cast_unsigned();
    let ask = |bench: &mut Bench, what, data| call(bench, 1000, "ptrace", &[what, child, 0, data]);
    let run = |bench: &mut Bench| {
        (bench.kernel.current, bench.kernel.slice) = (child as u32, 1000);
        bench.next();
    };
    assert_eq!(ask(&mut bench, SEIZE, 0), Some(0));
    assert_eq!(ask(&mut bench, LISTEN, 0), Some(-3), "it runs");
    assert_eq!(call(&mut bench, 1000, "kill", &[child, 19]), Some(0));
    run(&mut bench);
    let signal = 19 << 8 | 0x7f;
    assert_eq!(heard(&mut bench, 1000, u64::MAX, ALL), Some((child, signal)));
    assert_eq!(ask(&mut bench, LISTEN, 0), Some(-5), "no stop of the process yet");
    assert_eq!(ask(&mut bench, CONT, 19), Some(0));
    run(&mut bench);
    let group = signal | 128 << 16;
    assert_eq!(heard(&mut bench, 1000, u64::MAX, ALL), Some((child, group)));
    assert_eq!(ask(&mut bench, LISTEN, 0), Some(0));
    assert_eq!(heard(&mut bench, 1000, u64::MAX, ALL), None, "it is stopped");
    assert_eq!(ask(&mut bench, CONT, 0), Some(-3), "not the tracer's");
    assert_eq!(ask(&mut bench, INTERRUPT, 0), Some(0));
    assert_eq!(
        heard(&mut bench, 1000, u64::MAX, ALL),
        Some((child, group)),
        "still"
    );
    assert_eq!(ask(&mut bench, LISTEN, 0), Some(0));
    assert_eq!(call(&mut bench, 1000, "kill", &[child, 18]), Some(0));
    // PTRACE_EVENT_STOP with SIGTRAP, then the signal itself, then it runs.
    assert_eq!(
        heard(&mut bench, 1000, u64::MAX, ALL),
        Some((child, 5 << 8 | 0x7f | 128 << 16))
    );
    assert_eq!(ask(&mut bench, CONT, 0), Some(0));
    run(&mut bench);
    assert_eq!(
        heard(&mut bench, 1000, u64::MAX, ALL),
        Some((child, 18 << 8 | 0x7f))
    );
    assert_eq!(ask(&mut bench, CONT, 18), Some(0));
    assert_eq!(call(&mut bench, child, "getpid", &[]), Some(child.cast_signed()));
}

#[test]
fn a_stop_is_told_to_the_tracer_of_each_thread_and_to_the_parent() {
    let mut bench = start();
    // The tracer is a brother of the traced one.
    let tracer = call(&mut bench, 1000, "fork", &[]).unwrap().cast_unsigned();
    let child = call(&mut bench, 1000, "fork", &[]).unwrap().cast_unsigned();
    let thread = call(&mut bench, child, "clone", &[THREAD, ROOM + 0x700, 0, 0, 0]).unwrap();
    let thread = thread.cast_unsigned();
    for tid in [child, thread] {
        assert_eq!(call(&mut bench, tracer, "ptrace", &[SEIZE, tid, 0, 0]), Some(0));
    }
    assert_eq!(call(&mut bench, tracer, "kill", &[child, 19]), Some(0));
    (bench.kernel.current, bench.kernel.slice) = (child as u32, 1000);
    bench.next();
    assert_eq!(
        heard(&mut bench, 1000, u64::MAX, ALL | UNTRACED),
        None,
        "not yet: its tracer goes first"
    );
    let signal = 19 << 8 | 0x7f;
    assert_eq!(heard(&mut bench, tracer, u64::MAX, ALL), Some((child, signal)));
    assert_eq!(call(&mut bench, tracer, "ptrace", &[CONT, child, 0, 19]), Some(0));
    (bench.kernel.current, bench.kernel.slice) = (child as u32, 1000);
    bench.next();
    for tid in [child, thread] {
        // PTRACE_EVENT_STOP.
        assert_eq!(
            heard(&mut bench, tracer, u64::MAX, ALL),
            Some((tid, signal | 128 << 16))
        );
    }
    assert_eq!(heard(&mut bench, 1000, u64::MAX, ALL), None, "who did not ask");
    assert_eq!(
        heard(&mut bench, 1000, u64::MAX, ALL | UNTRACED),
        Some((child, signal))
    );
}
