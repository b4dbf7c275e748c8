//! Small programs made of calls, on every architecture.

use hotcell_schema::event::{FileOp, ProcessOp, What};
use hotcell_schema::job::GuestLimits;
use hotcell_schema::outcome::Outcome;

use super::{Bench, profile, profiles, result, tiny_elf};
use crate::machine::{Machine as _, Protection, Step};

const DATA: u64 = 0x40_0400;

fn bench(profile: &hotcell_schema::arch::ArchProfile, data: &[u8], limits: GuestLimits) -> Bench {
    let mut program = tiny_elf(profile);
    program[0x400..0x400 + data.len()].copy_from_slice(data);
    Bench::start(profile, &program, limits).expect("the program can be loaded")
}

#[test]
fn a_program_writes_and_exits_on_every_architecture() {
    for profile in profiles() {
        let mut bench = bench(&profile, b"hello\n", GuestLimits::default());
        assert_eq!(bench.call("write", &[1, DATA, 6]), Some(6), "{}", profile.name);
        assert_eq!(
            bench.call("write", &[77, DATA, 6]).map(|errno| errno < 0),
            Some(true),
            "{}",
            profile.name
        );
        assert_eq!(bench.call("exit_group", &[3]), None);
        assert_eq!(bench.next(), Step::Finished);
        assert_eq!(bench.machines.count(), 0);
        let kinds: Vec<String> = bench
            .events
            .borrow()
            .iter()
            .map(|event| event.what.kind().to_owned())
            .collect();
        assert_eq!(
            kinds,
            ["process", "syscall", "syscall", "syscall", "process"],
            "{}",
            profile.name
        );
        let finished = bench.finish();
        assert_eq!(finished.result.outcome, Outcome::Exited(3));
        assert_eq!(finished.stdout, b"hello\n");
    }
}

#[test]
fn the_stack_holds_what_the_program_is_told() {
    for profile in profiles() {
        let mut bench = bench(&profile, b"", GuestLimits::default());
        let Step::Run { space, .. } = bench.next() else {
            panic!("it runs")
        };
        let abi = bench.kernel.abi.clone();
        let machine = bench.machines.machine(space);
        let stack = machine.named(&profile.abi.stack_pointer);
        assert_eq!(stack % 16, 0, "{}", profile.name);
        let word = |at: u64| {
            let mut bytes = [0; 8];
            if abi.wide {
                machine.read(at, &mut bytes).unwrap();
                abi.get_u64(bytes)
            } else {
                let mut half = [0; 4];
                machine.read(at, &mut half).unwrap();
                u64::from(abi.get_u32(half))
            }
        };
        assert_eq!(word(stack), 2);
        let mut argument = [0; 7];
        machine.read(word(stack + abi.word()), &mut argument).unwrap();
        assert_eq!(&argument, b"sample\0");
        assert_eq!(machine.program_counter(), 0x40_0200);
        // Behind arguments and environment: the shared object of calls, which can be executed and not written.
        let mut at = stack + 3 * abi.word();
        for _ in 0..2 {
            at += abi.word();
            while word(at - abi.word()) != 0 {
                at += abi.word();
            }
        }
        let mut told = std::collections::BTreeMap::new();
        while word(at) != 0 {
            told.insert(word(at), word(at + abi.word()));
            at += 2 * abi.word();
        }
        let object = told[&crate::load::stack::at::SYSINFO_EHDR];
        let mut magic = [0; 4];
        machine.read(object, &mut magic).unwrap();
        assert_eq!(&magic, b"\x7fELF", "{}", profile.name);
        assert_eq!(
            told.contains_key(&crate::load::stack::at::SYSINFO),
            profile.name == "x86"
        );
        let space = &bench.kernel.spaces[&space];
        let (start, mapping) = space.find(object).unwrap();
        assert_eq!((start, mapping.protection), (object, Protection(5)));
        assert!((object..mapping.end).contains(&space.signal_return));
        let maps = space.maps_text("08:01");
        assert!(
            maps.contains(&format!("{object:08x}-")) && maps.contains("[vdso]"),
            "{maps}"
        );
    }
}

#[test]
fn files_are_written_and_left_behind() {
    let profile = profile("mipsel");
    let mut bench = bench(&profile, b"/tmp/x\0content", GuestLimits::default());
    // mips: O_WRONLY|O_CREAT|O_TRUNC.
    let fd = bench.call("open", &[DATA, 0x301, 0o644]).unwrap();
    assert_eq!(fd, 3);
    assert_eq!(bench.call("write", &[3, DATA + 7, 7]), Some(7));
    assert_eq!(bench.call("close", &[3]), Some(0));
    bench.call("exit_group", &[0]);
    let events = bench.events.clone();
    let finished = bench.finish();
    let operations: Vec<FileOp> = events
        .borrow()
        .iter()
        .filter_map(|event| match &event.what {
            What::File(file) => Some(file.op),
            _ => None,
        })
        .collect();
    assert_eq!(operations, [FileOp::Create, FileOp::Written]);
    let [left] = finished.result.files.as_slice() else {
        panic!("one file")
    };
    assert_eq!((left.path.as_str(), left.mode, left.length), ("/tmp/x", 0o644, 7));
    assert_eq!(&*finished.outputs.0[&("files", left.digest)], b"content");
}

#[test]
fn what_is_written_to_a_shared_mapping_is_in_the_file() {
    let profile = profile("x86_64");
    let mut bench = bench(&profile, b"/tmp/x\0contents", GuestLimits::default());
    // O_RDWR|O_CREAT; PROT_READ|PROT_WRITE; MAP_SHARED.
    assert_eq!(bench.call("open", &[DATA, 0x42, 0o644]), Some(3));
    assert_eq!(bench.call("write", &[3, DATA + 7, 8]), Some(8));
    let map = bench
        .call("mmap", &[0, 4096, 3, 1, 3, 0])
        .unwrap()
        .cast_unsigned();
    // The guest writes: here a read puts the bytes there.
    assert_eq!(bench.call("pread64", &[3, map + 4, 2, 0]), Some(2));
    assert_eq!(bench.call("pread64", &[3, DATA + 64, 8, 0]), Some(8));
    let space = crate::machine::SpaceId(1);
    let read = |bench: &mut super::Bench, at: u64| {
        let mut bytes = [0; 8];
        crate::machine::Machine::read(bench.machines.machine(space), at, &mut bytes).unwrap();
        bytes
    };
    assert_eq!(
        &read(&mut bench, DATA + 64),
        b"contcots",
        "the file has what the mapping has"
    );
    // And the other way round.
    assert_eq!(bench.call("pwrite64", &[3, DATA + 7, 2, 6]), Some(2));
    assert_eq!(&read(&mut bench, map), b"contcoco");
    assert_eq!(bench.call("munmap", &[map, 4096]), Some(0));
    bench.call("exit_group", &[0]);
    let finished = bench.finish();
    let left = finished.result.files.first().unwrap();
    assert_eq!(&*finished.outputs.0[&("files", left.digest)], b"contcoco");
}

#[test]
fn a_process_is_traced_once() {
    let profile = profile("mipsel");
    let mut bench = bench(&profile, b"", GuestLimits::default());
    assert_eq!(bench.call("ptrace", &[0, 0, 0, 0]), Some(0));
    assert_eq!(bench.call("ptrace", &[0, 0, 0, 0]), Some(-1), "EPERM");
    assert_eq!(bench.call("ptrace", &[16, 1000, 0, 0]), Some(-1), "EPERM");
    assert_eq!(bench.call("ptrace", &[16, 4242, 0, 0]), Some(-3), "ESRCH");
}

#[test]
fn a_child_ends_and_its_parent_hears_of_it() {
    for profile in profiles() {
        let abi = crate::abi::Abi::new(&profile);
        let mut bench = bench(&profile, b"", GuestLimits::default());
        let name = if crate::table::table()
            .by_name("fork")
            .unwrap()
            .number(abi.family)
            .is_some()
        {
            "fork"
        } else {
            "clone"
        };
        let child = bench
            .call(name, &[if name == "clone" { 17 } else { 0 }, 0, 0, 0, 0])
            .unwrap();
        assert_eq!(child, 1001, "{}", profile.name);
        // The parent waits; the child then runs and ends; the parent has its status.
        let Step::Run { space, .. } = bench.next() else {
            panic!()
        };
        let number = crate::table::table()
            .by_name("wait4")
            .unwrap()
            .number(abi.family)
            .unwrap();
        let machine = bench.machines.machine(space);
        machine.set_call(&profile, number, &[u64::MAX, DATA, 0, 0]);
        bench.kernel.syscall(machine);
        let Step::Run { space: other, .. } = bench.next() else {
            panic!()
        };
        assert_ne!(space, other, "{}", profile.name);
        assert_eq!(result(bench.machines.machine(other), &profile, &abi), 0);
        bench.call("exit_group", &[9]);
        let Step::Run { space: again, .. } = bench.next() else {
            panic!()
        };
        assert_eq!(again, space);
        let machine = bench.machines.machine(space);
        assert_eq!(result(machine, &profile, &abi), 1001, "{}", profile.name);
        let mut status = [0; 4];
        machine.read(DATA, &mut status).unwrap();
        assert_eq!(abi.get_u32(status), 9 << 8);
        assert_eq!(bench.machines.count(), 1);
        assert_eq!(bench.kernel.finish().result.tasks, 2);
    }
}

#[test]
fn limits_are_outcomes() {
    let profile = profile("x86_64");
    let cases: [(GuestLimits, &str, u64, &[u64], &str); 5] = [
        (
            GuestLimits {
                syscalls: 5,
                ..GuestLimits::default()
            },
            "getpid",
            6,
            &[],
            "syscalls",
        ),
        (
            GuestLimits {
                events: 5,
                ..GuestLimits::default()
            },
            "getpid",
            6,
            &[],
            "events",
        ),
        (
            GuestLimits {
                file_bytes: 10,
                ..GuestLimits::default()
            },
            "write",
            6,
            &[1, DATA, 6],
            "file-bytes",
        ),
        (
            GuestLimits {
                memory: 16 << 20,
                ..GuestLimits::default()
            },
            "brk",
            2,
            &[0x4000_0000],
            "memory",
        ),
        (
            GuestLimits {
                virtual_time: 1_000_000,
                ..GuestLimits::default()
            },
            "pause",
            1,
            &[],
            "virtual-time",
        ),
    ];
    for (limits, call, times, args, outcome) in cases {
        let mut bench = bench(&profile, b"hello\n", limits);
        for _ in 0..times {
            bench.call(call, args);
        }
        assert_eq!(bench.next(), Step::Finished, "{outcome}");
        let last = bench.events.borrow().last().cloned().expect("an event");
        assert!(
            matches!(&last.what, What::Resource(limit) if limit.limit == outcome),
            "{last:?}"
        );
        assert_eq!(bench.finish().result.outcome, Outcome::Limit(outcome.into()));
    }
}

#[test]
fn an_unknown_call_is_told_by_name_and_number() {
    let profile = profile("x86_64");
    let mut bench = bench(&profile, b"", GuestLimits::default());
    assert_eq!(bench.call("io_uring_setup", &[8, DATA]), Some(-38));
    let Step::Run { space, .. } = bench.next() else {
        panic!()
    };
    let machine = bench.machines.machine(space);
    machine.set_call(&profile, 9999, &[]);
    bench.kernel.syscall(machine);
    assert_eq!(result(machine, &profile, &bench.kernel.abi), -38);
    let unsupported = bench.finish().result.unsupported;
    let names: Vec<&str> = unsupported.iter().map(|call| call.name.as_str()).collect();
    assert_eq!(names, ["io_uring_setup", "syscall_9999"]);
}

#[test]
fn a_fault_kills_and_is_told() {
    use hotcell_schema::outcome::FaultKind;
    let profile = profile("aarch64");
    let mut bench = bench(&profile, b"", GuestLimits::default());
    let Step::Run { space, .. } = bench.next() else {
        panic!()
    };
    let trap = crate::machine::Trap {
        kind: FaultKind::WriteUnmapped,
        address: Some(8),
    };
    bench.kernel.trap(bench.machines.machine(space), trap);
    assert_eq!(bench.next(), Step::Finished);
    let killed = bench
        .events
        .borrow()
        .iter()
        .any(|event| matches!(&event.what, What::Process(process) if process.op == ProcessOp::Killed));
    assert!(killed);
    assert_eq!(
        bench.finish().result.outcome,
        Outcome::Signalled("SIGSEGV".into())
    );
}

#[test]
fn two_runs_tell_the_same() {
    let run = || {
        let profile = profile("x86_64");
        let mut bench = bench(&profile, b"/proc/self/maps\0", GuestLimits::default());
        bench.call("open", &[DATA, 0, 0]);
        bench.call("read", &[3, DATA + 64, 900]);
        bench.call("getrandom", &[DATA, 64, 0]);
        bench.call("exit_group", &[0]);
        let events = bench.events.borrow().clone();
        (events, bench.finish().result)
    };
    assert_eq!(run(), run());
}

#[test]
fn another_root_is_not_left() {
    let profile = profile("x86_64");
    // Paths: 0 /tmp/jail, 16 /in, 32 /../in, 48 ., 64 /jail, 80 a buffer.
    let mut data = [0; 128];
    for (at, path) in [
        (0, "/tmp/jail"),
        (16, "/in"),
        (32, "/../in"),
        (48, "."),
        (64, "/proc"),
    ] {
        data[at..at + path.len()].copy_from_slice(path.as_bytes());
    }
    let mut bench = bench(&profile, &data, GuestLimits::default());
    assert_eq!(bench.call("mkdir", &[DATA, 0o755]), Some(0));
    assert_eq!(bench.call("chroot", &[DATA + 16]), Some(-2), "ENOENT");
    assert_eq!(bench.call("chroot", &[DATA]), Some(0));
    // O_CREAT|O_WRONLY.
    assert_eq!(bench.call("open", &[DATA + 16, 0x41, 0o600]), Some(3));
    assert_eq!(bench.call("close", &[3]), Some(0));
    assert_eq!(bench.call("open", &[DATA + 32, 0, 0]), Some(3));
    assert_eq!(bench.call("open", &[DATA + 64, 0, 0]), Some(-2), "it is outside");
    // The working directory is where it was: /tmp.
    assert_eq!(bench.call("getcwd", &[DATA + 80, 40]), Some(18));
    assert_eq!(&bench.peek(DATA + 80, 18), b"(unreachable)/tmp\0");
    assert_eq!(bench.call("chdir", &[DATA + 16]), Some(-20), "ENOTDIR");
    assert_eq!(
        bench.call("chroot", &[DATA + 48]),
        Some(0),
        "the way out that root has"
    );
    assert_eq!(bench.call("setuid", &[1000]), Some(0));
    assert_eq!(bench.call("chroot", &[DATA + 48]), Some(-1), "EPERM");
    let events = bench.events.clone();
    bench.finish();
    let made = events.borrow().iter().any(|event| match &event.what {
        What::File(file) => file.op == FileOp::Create && file.path == "/tmp/jail/in",
        _ => false,
    });
    assert!(made, "it is told where it is");
}

/// `/proc/self/exe` says where a program stands, whatever links lead to it.
#[test]
fn an_interpreter_is_known_by_where_it_stands() {
    let profile = profile("x86_64");
    let script: &[u8] = b"#!/tmp/link/sample\n";
    let texts: [(usize, &[u8]); 5] = [
        (0, b"/tmp/link"),
        (16, b"/bin"),
        (32, b"/tmp/script"),
        (64, b"/proc/self/exe"),
        (96, script),
    ];
    let mut data = [0; 192];
    for (at, text) in texts {
        data[at..at + text.len()].copy_from_slice(text);
    }
    let mut bench = bench(&profile, &data, GuestLimits::default());
    assert_eq!(bench.call("symlink", &[DATA + 16, DATA]), Some(0));
    // O_CREAT|O_WRONLY.
    assert_eq!(bench.call("open", &[DATA + 32, 0x41, 0o755]), Some(3));
    let length = script.len() as u64;
    assert_eq!(bench.call("write", &[3, DATA + 96, length]), Some(length as i64));
    assert_eq!(bench.call("close", &[3]), Some(0));
    bench.call("execve", &[DATA + 32, 0, 0]);
    assert_eq!(bench.call("readlink", &[DATA + 64, DATA + 128, 64]), Some(11));
    assert_eq!(bench.call("write", &[1, DATA + 128, 11]), Some(11));
    assert_eq!(bench.finish().stdout, b"/bin/sample");
}

/// The name of an interpreter ends at a blank or at the end of its line, and a carriage return is neither.
#[test]
fn a_line_from_elsewhere_names_an_interpreter_that_is_not_there() {
    let profile = profile("x86_64");
    for (script, expected) in [
        (&b"#! \t/bin/sample \t one \t\n"[..], None),
        (b"#!/bin/sample\r\n", Some(-2)),
        (b"#!/bin/sample\x0b\n", Some(-2)),
        (b"#! \t\n", Some(-8)),
    ] {
        let mut data = [0; 192];
        data[..11].copy_from_slice(b"/tmp/script");
        data[32..32 + script.len()].copy_from_slice(script);
        data[96..110].copy_from_slice(b"/proc/self/exe");
        let mut bench = bench(&profile, &data, GuestLimits::default());
        assert_eq!(bench.call("open", &[DATA, 0x41, 0o755]), Some(3));
        let length = script.len() as u64;
        assert_eq!(bench.call("write", &[3, DATA + 32, length]), Some(length as i64));
        assert_eq!(bench.call("close", &[3]), Some(0));
        let answer = bench.call("execve", &[DATA, 0, 0]);
        match expected {
            Some(errno) => assert_eq!(answer, Some(errno), "{script:?}"),
            None => assert_eq!(bench.call("readlink", &[DATA + 96, DATA + 128, 64]), Some(11)),
        }
    }
}

/// More memory at once than the machine has is refused, and the sample goes on.
#[test]
fn nobody_gets_more_memory_than_the_machine_has() {
    const ENOMEM: Option<i64> = Some(-12);
    for (name, no_reserve, anonymous) in [
        ("x86_64", 0x4000u64, 0x20u64),
        ("mips64", 0x400, 0x800),
        ("ppc64", 0x40, 0x20),
    ] {
        let profile = profile(name);
        let mut bench = bench(&profile, b"", GuestLimits::default());
        let memory = bench.kernel.persona.memory_mib << 20;
        let map = |bench: &mut Bench, length, prot, kind| {
            bench.call("mmap", &[0, length, prot, kind | anonymous, u64::MAX, 0])
        };
        let (private, shared) = (2, 1);
        assert_eq!(map(&mut bench, memory + 1, 3, private), ENOMEM, "{name}");
        assert_eq!(map(&mut bench, memory + 1, 3, shared), ENOMEM, "{name}");
        assert_eq!(map(&mut bench, memory + 1, 0, shared), ENOMEM, "{name}");
        // What nobody can store to is only a place.
        let place = map(&mut bench, memory + 1, 0, private);
        assert!(place > Some(0), "{name}: {place:?}");
        let place = map(&mut bench, memory + 1, 0, private | no_reserve);
        assert!(place > Some(0), "{name}: {place:?}");
        let start = bench.call("brk", &[0]).unwrap();
        let end = start.cast_unsigned() + memory + 0x10_0000;
        assert_eq!(bench.call("brk", &[end]), Some(start), "{name}");
        let small = map(&mut bench, 0x1_0000, 3, private).unwrap().cast_unsigned();
        assert_eq!(
            bench.call("mremap", &[small, 0x1_0000, memory + 0x10_0000, 1]),
            ENOMEM,
            "{name}"
        );
        assert!(matches!(bench.next(), Step::Run { .. }), "{name}: it goes on");
    }
}
