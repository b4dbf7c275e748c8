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
