//! Commands: what they can do, what they cannot, and that nothing of them remains.

#![allow(clippy::unwrap_used)]

mod lab;

use std::fs;
use std::path::PathBuf;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use hotcell_cells::command::collect::OutputFault;
use hotcell_cells::command::{CommandSpec, Commands, End, Stream};
use hotcell_cells::process::Interruption;
use hotcell_cells::stop::StopSignal;
use lab::*;

#[test]
fn files_and_words_go_in_and_come_out() {
    everywhere(|lab| {
        let mut seat = lab.seat();
        seat.put("inputs/file", false, b"b\na\n").unwrap();
        seat.put(
            "parts/tool.sh",
            true,
            b"#!/bin/sh\nsort inputs/file\necho $GREETING \"$@\" >&2\npwd\n",
        )
        .unwrap();
        let tool = format!("{}/parts/tool.sh", seat.work());
        let ending = run(&mut seat, &[&tool, "a b", ""]);
        assert_code(&seat, &ending, 0);
        assert_eq!(said(&seat, Stream::Out), format!("a\nb\n{}\n", seat.work()));
        assert_eq!(said(&seat, Stream::Err), "hello a b \n");
        assert!(ending.usage.cpu_s > 0.0);
        assert!(holds(&ending, "seccomp"));

        let ending = sh(
            &mut seat,
            "mkdir -p outputs/all/deep; echo x > outputs/all/deep/x; echo y > outputs/all/y; echo {} > outputs/info",
        );
        assert_code(&seat, &ending, 0);
        assert_eq!(seat.output_names("all").unwrap(), ["deep/x", "y"]);
        let mut bytes = Vec::new();
        seat.output("all", "deep/x").unwrap().copy_to(&mut bytes).unwrap();
        assert_eq!(bytes, b"x\n");
        assert_eq!(seat.output("info", "").unwrap().length, 3);
        assert!(matches!(seat.output("none", ""), Err(OutputFault::Missing)));
    });
}

#[test]
fn the_usual_programs_run() {
    everywhere(|lab| {
        let mut seat = lab.seat();
        seat.put("data", false, b"3 c\n1 a\n2 b\n").unwrap();
        for script in [
            "awk '{ n += $1 } END { exit n != 6 }' data",
            "sort data | sed 's/ /-/' | uniq | head -n 1 | grep -q 1-a",
            "perl -e 'open F, \"data\"; exit 1 unless <F> eq \"3 c\\n\"'",
            "python3 -c 'import json, subprocess, tempfile; subprocess.run([\"true\"], check=True)'",
            "file -b data | grep -q ASCII",
            "readelf -h /bin/true | grep -q ELF",
            "echo '{}' | jq -e . > outputs/json",
            "echo x > /dev/stdout; echo y > /dev/stderr; cat < /dev/null",
            "cp -p data outputs/copy; mv outputs/copy $TMPDIR/moved; ln -s x outputs/link; rm outputs/link",
            "timeout 5 true; (sleep 0 & wait)",
            "test \"$(id -u)\" != 0",
        ] {
            let ending = sh(&mut seat, script);
            assert_code(&seat, &ending, 0);
        }
        let shared = "import multiprocessing; multiprocessing.Lock()";
        let ending = run(&mut seat, &["python3", "-c", shared]);
        // /dev/shm is there where the root is its own.
        assert_code(&seat, &ending, i32::from(!holds(&ending, "private-root")));
    });
}

#[test]
fn a_command_writes_only_where_it_may_and_reads_no_more() {
    everywhere(|lab| {
        let mut seat = lab.seat();
        seat.put("own", false, b"own").unwrap();
        seat.put("inputs/in", false, b"in").unwrap();
        fs::write(lab.folder.path().join("other"), "secret").unwrap();
        let other = lab.folder.path().join("other").display().to_string();
        for script in [
            "echo x > x",
            "echo x > own",
            "echo x >> inputs/in",
            "chmod 777 own && echo x > own",
            "rm own",
            "mv own outputs/own",
            "ln own outputs/own",
            "mkdir inputs/more",
            "echo x > /etc/x",
            "echo x > /usr/x",
            "echo x > /x",
            "echo x > /dev/x",
            "ls /root",
            "cat /root/.bashrc",
            "cat /etc/shadow",
            "ls /home",
            "cat /dev/mem",
            "mknod outputs/null c 1 3",
            "mount -t tmpfs none outputs",
            "unshare -U true",
            "unshare -m true",
            "chroot . true",
            "cat /proc/1/environ",
            "ls /proc/1/fd",
            "setfattr -n user.x -v y outputs 2> /dev/null || python3 -c 'import os; os.setxattr(\"outputs\", \"user.x\", b\"y\")'",
            &format!("cat {other}"),
            &format!("ls {}", lab.folder.path().display()),
        ] {
            assert_refused(&mut seat, script);
        }
        // Whoever tries to end the warden does not succeed: the seat goes on.
        sh(&mut seat, "kill -9 1; kill -9 -1");
        let ending = sh(&mut seat, "cat own inputs/in");
        assert_code(&seat, &ending, 0);
        assert!(said(&seat, Stream::Out).ends_with("ownin"));
    });
}

#[test]
fn it_sees_no_process_but_its_own() {
    everywhere(|lab| {
        let mut seat = lab.seat();
        let ending = sh(&mut seat, "ls /proc | grep '^[0-9]'");
        if holds(&ending, "own-proc") {
            assert_code(&seat, &ending, 0);
            let text = said(&seat, Stream::Out);
            assert!(text.lines().count() <= 4, "{text}");
            assert!(!text.lines().any(|line| line == "1"), "{text}");
        }
    });
}

#[test]
fn seats_do_not_see_each_other() {
    everywhere(|lab| {
        let (mut one, mut two) = (lab.seat(), lab.seat());
        one.put("inputs/secret", false, b"one").unwrap();
        let found: Vec<PathBuf> = walk(lab.folder.path(), "secret");
        assert_eq!(found.len(), 1);
        assert_refused(&mut two, &format!("cat {}", found[0].display()));
        let ending = sh(&mut two, "find / -name secret 2> /dev/null | grep .");
        assert_code(&two, &ending, 1);
    });
}

#[test]
fn there_is_no_network() {
    everywhere(|lab| {
        let mut seat = lab.seat();
        for family in ["AF_INET", "AF_INET6", "AF_UNIX", "AF_NETLINK", "AF_PACKET"] {
            let script = format!(
                "import socket\ntry: socket.socket(socket.{family}, socket.SOCK_RAW if '{family}' == 'AF_PACKET' else socket.SOCK_DGRAM)\nexcept PermissionError: raise SystemExit(7)"
            );
            let ending = run(&mut seat, &["python3", "-c", &script]);
            assert_code(&seat, &ending, 7);
        }
        let ending = run(
            &mut seat,
            &["python3", "-c", "import socket; socket.socketpair()"],
        );
        assert_code(&seat, &ending, 0);
    });
}

#[test]
fn nothing_of_the_last_command_is_there_for_the_next() {
    everywhere(|lab| {
        let mut seat = lab.seat();
        seat.put("own", false, b"x").unwrap();
        let ending = sh(
            &mut seat,
            "echo out; echo err >&2; echo x > outputs/x; mkdir -p $TMPDIR/a/b; chmod 0 $TMPDIR/a; chmod 0 outputs; chmod 0 /dev/stdout",
        );
        assert!(matches!(ending.end, End::Exit(_)));
        lab.commands.give_back(seat).unwrap();
        let mut seat = lab.seat();
        let ending = sh(
            &mut seat,
            "ls -A . outputs inputs; test -z \"$(ls -A $TMPDIR)\" && echo new > outputs/x",
        );
        assert_code(&seat, &ending, 0);
        assert_eq!(
            said(&seat, Stream::Out),
            ".:\ninputs\noutputs\n\ninputs:\n\noutputs:\n"
        );
        assert_eq!(said(&seat, Stream::Err), "");
        // The same seat, not another.
        assert_eq!(seats(lab), 1);
    });
}

#[test]
fn everything_it_started_ends_with_it() {
    everywhere(|lab| {
        let mut seat = lab.seat();
        // A daemon as it stands in the book: two forks and a session between. It says that it lives by the lock it holds.
        let daemon = "import os, sys, time, fcntl\n\
        r, w = os.pipe()\n\
        if os.fork() == 0:\n\
        \ttry: os.setsid()\n\
        \texcept PermissionError: pass\n\
        \tif os.fork() == 0:\n\
        \t\tf = open('outputs/lock', 'w'); fcntl.flock(f, fcntl.LOCK_EX)\n\
        \t\tos.write(w, b'x'); os.close(0); time.sleep(1000)\n\
        \tos._exit(0)\n\
        os.read(r, 1)\n";
        let ending = run(&mut seat, &["python3", "-c", daemon]);
        assert_code(&seat, &ending, 0);
        // No waiting: when the answer is there, the daemon is gone, and its lock with it.
        let ending = sh(&mut seat, "flock -n outputs/lock true");
        assert_code(&seat, &ending, 0);
    });
}

#[test]
fn only_regular_files_are_outputs() {
    everywhere(|lab| {
        let mut seat = lab.seat();
        let ending = sh(
            &mut seat,
            "cd outputs; ln -s /etc/passwd link; mkfifo pipe; mkdir folder empty; ln -s .. folder/up; echo x > plain; chmod 0 plain || true",
        );
        assert_code(&seat, &ending, 0);
        for (name, kind) in [
            ("link", "symbolic link"),
            ("pipe", "named pipe"),
            ("folder", "folder"),
        ] {
            let fault = seat.output(name, "").unwrap_err().to_string();
            assert!(fault.contains(kind), "{fault}");
        }
        let fault = seat.output_names("folder").unwrap_err().to_string();
        assert!(fault.contains("outputs/folder/up is a symbolic link"), "{fault}");
        assert!(seat.output_names("plain").is_err());
        assert!(seat.output_names("link").is_err());
        assert_eq!(seat.output_names("empty").unwrap(), [""; 0]);
        assert_eq!(seat.output("plain", "").unwrap().length, 2);
        // However deep and many.
        let ending = run(
            &mut seat,
            &[
                "python3",
                "-c",
                "import os\nos.chdir('outputs')\nfor _ in range(3000): os.mkdir('d'); os.chdir('d')",
            ],
        );
        assert_code(&seat, &ending, 0);
        let fault = seat.output_names("d").unwrap_err().to_string();
        assert!(fault.contains("depth"), "{fault}");
        lab.commands.give_back(seat).unwrap();
        let mut seat = lab.seat();
        let ending = sh(&mut seat, "test -z \"$(ls -A outputs)\"");
        assert_code(&seat, &ending, 0);
    });
}

#[test]
fn an_output_that_changes_is_not_taken() {
    everywhere(|lab| {
        let mut seat = lab.seat();
        sh(&mut seat, "echo 12345 > outputs/x");
        let output = seat.output("x", "").unwrap();
        sh(&mut seat, "echo 1234567890 > outputs/x");
        let fault = output.copy_to(&mut Vec::new()).unwrap_err().to_string();
        assert!(fault.contains("changed"), "{fault}");
    });
}

#[test]
fn what_cannot_start_says_why() {
    everywhere(|lab| {
        let mut seat = lab.seat();
        let missing = run(&mut seat, &["/usr/bin/no-such-program"]);
        let End::NotStarted { program: true, error } = missing.end else {
            panic!("{missing:?}");
        };
        assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
        let long = "x".repeat(200_000);
        let ending = run(&mut seat, &["sh", &long]);
        assert!(matches!(ending.end, End::NotStarted { program: true, .. }));
        for path in ["../x", "/x", "outputs/x", "", "a/../b"] {
            assert!(seat.put(path, false, b"").is_err(), "{path}");
        }
    });
}

#[test]
fn a_person_can_stop_it() {
    everywhere(|lab| {
        let mut seat = lab.seat();
        let stop = StopSignal::new().unwrap();
        let (ready, is_ready) = mpsc::channel();
        let asker = {
            let stop = stop.clone();
            std::thread::spawn(move || {
                is_ready.recv().unwrap();
                stop.request();
                stop.request();
            })
        };
        ready.send(()).unwrap();
        let begun = Instant::now();
        let environment = [];
        let arguments = words(&["sleep", "1000"]);
        let spec = CommandSpec {
            program: "/bin/sleep",
            arguments: &arguments,
            environment: &environment,
            stdin: None,
        };
        // Before it starts or while it runs, as it happens.
        match seat.run(&spec, &stop) {
            Ok(ending) => assert_interrupted(&ending, Interruption::Stopped),
            Err(error) => assert!(error.to_string().contains("stopped"), "{error}"),
        }
        assert!(begun.elapsed() < Duration::from_secs(30));
        asker.join().unwrap();
    });
}

#[test]
fn many_at_once() {
    everywhere(|lab| {
        let commands = &lab.commands;
        std::thread::scope(|scope| {
            for thread in 0..4 {
                scope.spawn(move || {
                    for number in 0..25 {
                        let mut seat = commands.seat(&limits()).unwrap();
                        let text = format!("{thread}.{number}");
                        seat.put("inputs/x", false, text.as_bytes()).unwrap();
                        let ending = sh(&mut seat, "cat inputs/x > outputs/x; cat outputs/x");
                        assert_code(&seat, &ending, 0);
                        assert_eq!(said(&seat, Stream::Out), text);
                        commands.give_back(seat).unwrap();
                    }
                });
            }
        });
        assert!(seats(lab) <= 4);
    });
}

#[test]
fn nothing_remains() {
    let folder = folder();
    // What a runner left that was killed: its lock is nobody's.
    let abandoned = folder.path().join("hotcell-commands-1-0");
    fs::create_dir_all(abandoned.join("0/root/work/outputs/deep")).unwrap();
    fs::write(abandoned.join("lock"), "").unwrap();
    let commands = Commands::new(folder.path(), &[]).unwrap();
    assert!(!abandoned.exists());
    let mut seat = commands.seat(&limits()).unwrap();
    let ending = sh(
        &mut seat,
        "mkdir -p outputs/a $TMPDIR/b; echo x > $TMPDIR/b/c; sleep 1000 & exit 0",
    );
    assert_code(&seat, &ending, 0);
    // Another runner leaves this one alone.
    drop(Commands::new(folder.path(), &[]).unwrap());
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    drop(seat);
    drop(commands);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}
