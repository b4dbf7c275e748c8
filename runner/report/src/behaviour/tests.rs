use hotcell_schema::event::{Arg, MemoryBy, MemoryOp, Support, Witness};
use hotcell_schema::guest::Address;
use proptest::prelude::*;

use super::*;

fn event(what: What) -> Event {
    Event {
        seq: 0,
        time: 0,
        witness: Witness::Engine,
        task: Task {
            pid: 100,
            tid: 100,
            parent: 1,
            image: "/tmp/sample".into(),
        },
        what,
        raw: None,
    }
}

fn of(whats: impl IntoIterator<Item = What>) -> Vec<String> {
    let events: Vec<Event> = whats.into_iter().map(event).collect();
    behaviour(&events)
}

fn call(name: &str, value: ArgValue) -> What {
    What::Syscall(Syscall {
        name: name.into(),
        number: 26,
        args: vec![Arg {
            name: "request".into(),
            value,
        }],
        result: Some(0),
        errno: None,
        support: Support::Full,
    })
}

fn network(op: NetworkOp, protocol: &str) -> Network {
    Network {
        op,
        protocol: protocol.into(),
        local: Some("10.0.0.2:49152".into()),
        peer: Some("192.0.2.1:80".into()),
        host: None,
        request: None,
        bytes: Some(3),
        errno: None,
    }
}

#[test]
fn the_list_of_notable_calls_is_sorted() {
    assert!(NOTABLE.is_sorted());
}

#[test]
fn behaviours_are_sorted_and_each_stands_once() {
    let written = || What::File(File::new(FileOp::Written, "/tmp/y"));
    let exec = What::Process(Process {
        path: Some("/bin/busybox".into()),
        argv: ["sh", "-c", "echo x > y"].map(String::from).into(),
        ..Process::new(ProcessOp::Exec)
    });
    assert_eq!(
        of([written(), exec, written()]),
        [
            "file/written /tmp/y",
            "process/exec /bin/busybox sh -c 'echo x > y'"
        ]
    );
}

#[test]
fn what_only_an_architecture_adds_to_a_name_is_dropped() {
    assert_eq!(
        of([
            call("setuid32", ArgValue::Int(0)),
            call("setuid", ArgValue::Int(0)),
            call("clock_settime64", ArgValue::Name("CLOCK_REALTIME".into())),
            call("ptrace", ArgValue::Name("PTRACE_TRACEME".into())),
            call("getpid", ArgValue::Int(0)),
            call("memfd_create", ArgValue::Address(Address(0x1000))),
        ]),
        [
            "syscall/clock_settime CLOCK_REALTIME",
            "syscall/memfd_create",
            "syscall/ptrace PTRACE_TRACEME",
            "syscall/setuid"
        ]
    );
}

#[test]
fn process_numbers_ports_and_addresses_are_not_told() {
    let kill = |to| {
        What::Signal(Signal {
            signal: "SIGKILL".into(),
            to,
        })
    };
    let fork = What::Process(Process {
        child: Some(101),
        ..Process::new(ProcessOp::Fork)
    });
    let all = of([
        fork,
        kill(101),
        kill(100),
        kill(-1),
        kill(4242),
        What::File(File::new(FileOp::Open, "/proc/4242/task/77/maps")),
        What::File(File::new(FileOp::Open, "/proc/self/fd/3")),
        What::File(File::new(FileOp::Stat, "/pipe:[3002]")),
        What::Network(network(NetworkOp::Connect, "tcp")),
        What::Network(network(NetworkOp::Send, "udp")),
        What::Network(network(NetworkOp::Socket, "raw")),
        What::Memory(Memory {
            protection: Some("rwx".into()),
            ..Memory::new(MemoryOp::WriteExecute, 0x7f00_0000, 4096)
        }),
        What::Memory(Memory {
            to: Some(4243),
            by: Some(MemoryBy::ProcMem),
            ..Memory::new(MemoryOp::Injected, 0x7f00_0000, 4096)
        }),
        What::Process(Process {
            to: Some(4243),
            ..Process::new(ProcessOp::Traced)
        }),
    ]);
    assert_eq!(
        all,
        [
            "file/open /proc/PID/task/PID/maps",
            "file/open /proc/self/fd/3",
            "file/stat /pipe:[N]",
            "memory/injected other proc-mem",
            "memory/write-execute",
            "network/connect 192.0.2.1:80",
            "network/send 192.0.2.1:80/udp",
            "network/socket raw",
            "process/fork",
            "process/traced other",
            "signal/SIGKILL child",
            "signal/SIGKILL everyone",
            "signal/SIGKILL other",
            "signal/SIGKILL self",
        ]
    );
}

#[test]
fn a_flood_of_behaviours_is_cut_and_says_so() {
    let flood = (0..MAX_BEHAVIOURS + 5).map(|n| What::File(File::new(FileOp::Create, format!("/tmp/{n}"))));
    let all = of(flood);
    assert_eq!(all.len(), MAX_BEHAVIOURS + 1);
    assert!(all.iter().any(|line| line.starts_with("report/cut")));
}

proptest! {
    #[test]
    fn any_text_gives_bounded_sorted_lines(paths in prop::collection::vec(".*", 0..20)) {
        let all = of(paths.iter().map(|path| What::File(File::new(FileOp::Open, path.as_str()))));
        prop_assert!(all.is_sorted());
        prop_assert!(all.iter().all(|line| line.chars().count() <= MAX_TEXT + 16));
    }
}
