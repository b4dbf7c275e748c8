//! What `/proc/PID` tells of a program: its memory's own words, and the program that is there now.

use hotcell_schema::job::GuestLimits;

use super::{Bench, profile, profiles, tiny_elf};

/// Room in the program's own memory: for a path, and for what is read.
const PATH: u64 = 0x40_0400;
const ROOM: u64 = 0x40_0800;

fn bench(name: &str) -> Bench {
    let profile = profile(name);
    let mut bench = Bench::start(&profile, &tiny_elf(&profile), GuestLimits::default()).expect("it loads");
    bench.next();
    bench
}

fn open(bench: &mut Bench, path: &str) -> u64 {
    bench.put(PATH, &[path.as_bytes(), b"\0"].concat());
    let fd = bench
        .call("openat", &[-100i64 as u64, PATH, 0, 0])
        .expect("it runs");
    u64::try_from(fd).unwrap_or_else(|_| panic!("{path}: {fd}"))
}

fn read(bench: &mut Bench, path: &str) -> Vec<u8> {
    let fd = open(bench, path);
    let got = bench.call("read", &[fd, ROOM, 0x800]).expect("it runs");
    let bytes = bench.peek(ROOM, usize::try_from(got).expect("it can be read"));
    assert_eq!(bench.call("close", &[fd]), Some(0));
    bytes
}

#[test]
fn the_auxiliary_vector_is_the_one_on_the_stack() {
    for profile in profiles() {
        let mut bench = bench(&profile.name);
        let (page, big) = (bench.kernel.abi.page, bench.kernel.abi.big);
        let size = bench.kernel.abi.word() as usize;
        let bytes = read(&mut bench, "/proc/self/auxv");
        let words: Vec<u64> = bytes
            .chunks_exact(size)
            .map(|word| {
                let join = |number: u64, byte: &u8| number << 8 | u64::from(*byte);
                match big {
                    true => word.iter().fold(0, join),
                    false => word.iter().rev().fold(0, join),
                }
            })
            .collect();
        let pairs: Vec<(u64, u64)> = words.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect();
        let value = |key: u64| pairs.iter().find(|pair| pair.0 == key).map(|pair| pair.1);
        assert_eq!(value(6), Some(page), "{}", profile.name);
        assert_eq!(pairs.last(), Some(&(0, 0)), "{}", profile.name);
        // AT_EXECFN leads to the path that stands on the stack.
        let path = value(31).expect("AT_EXECFN");
        assert_eq!(bench.peek(path, 12), b"/bin/sample\0", "{}", profile.name);
    }
}

#[test]
fn arguments_are_what_memory_says() {
    for name in ["x86_64", "armeb", "s390x"] {
        let mut bench = bench(name);
        let pid = bench.kernel.first;
        let (start, end) = bench.kernel.processes[&pid].placed.arguments;
        assert_eq!(read(&mut bench, "/proc/self/cmdline"), b"sample\0one\0", "{name}");
        bench.put(start, b"S\0");
        assert_eq!(
            read(&mut bench, "/proc/self/cmdline"),
            b"S\0mple\0one\0",
            "{name}"
        );
        // A name that is longer than there was room goes on into the environment.
        let long = vec![b'n'; (end - start + 3) as usize];
        bench.put(start, &[&long[..], b"\0"].concat());
        assert_eq!(
            read(&mut bench, "/proc/self/cmdline"),
            [&long[..], b"\0"].concat(),
            "{name}"
        );
    }
}

#[test]
fn what_is_open_tells_of_the_program_that_is_executed() {
    let mut bench = bench("x86_64");
    let line = open(&mut bench, "/proc/self/cmdline");
    let comm = open(&mut bench, "/proc/self/comm");
    let environment = open(&mut bench, "/proc/self/auxv");
    bench.put(PATH, b"/tmp/other\0");
    bench.put(ROOM, b"/bin/sample\0");
    assert_eq!(bench.call("link", &[ROOM, PATH]), Some(0));
    bench.put(PATH + 0x20, b"new\0");
    bench.put(PATH + 0x40, &[(PATH + 0x20).to_le_bytes(), [0; 8]].concat());
    bench.call("execve", &[PATH, PATH + 0x40, 0]);
    for (fd, text) in [(line, b"new\0".as_slice()), (comm, b"other\n")] {
        let got = bench.call("read", &[fd, ROOM, 64]);
        assert_eq!(got, Some(text.len() as i64));
        assert_eq!(
            bench.call("write", &[1, ROOM, text.len() as u64]),
            Some(text.len() as i64)
        );
    }
    // Of the memory that was there when it was opened.
    assert!(bench.call("read", &[environment, ROOM, 64]) > Some(0));
    assert_eq!(bench.finish().stdout, b"new\0other\n");
}

#[test]
fn nobody_logged_in() {
    let mut bench = bench("mipsel");
    assert_eq!(read(&mut bench, "/proc/self/loginuid"), b"4294967295");
    assert_eq!(read(&mut bench, "/proc/self/sessionid"), b"4294967295");
    assert_eq!(read(&mut bench, "/proc/self/cgroup"), b"0::/\n");
}

#[test]
fn limits_are_told_as_they_are() {
    let mut bench = bench("x86_64");
    let text = |bench: &mut Bench| String::from_utf8(read(bench, "/proc/self/limits")).expect("a text");
    let before = text(&mut bench);
    assert_eq!(before.lines().count(), 17);
    assert_eq!(
        before.lines().nth(8),
        Some("Max open files            1024                 4096                 files     ")
    );
    assert_eq!(
        before.lines().nth(14),
        Some("Max nice priority         0                    0                    ")
    );
    // 99 files, and no file over 4,000 bytes.
    for (resource, soft) in [(7_u64, 99_u64), (1, 4000)] {
        bench.put(ROOM, &[soft.to_le_bytes(), 4096_u64.to_le_bytes()].concat());
        assert_eq!(bench.call("prlimit64", &[0, resource, ROOM, 0]), Some(0));
    }
    let after = text(&mut bench);
    assert_eq!(
        after.lines().nth(8),
        Some("Max open files            99                   4096                 files     ")
    );
    assert_eq!(
        after.lines().nth(2),
        Some("Max file size             4000                 4096                 bytes     ")
    );
}
