//! Commands that are hostile: what they try on the runner, on the host, on each other.

#![allow(clippy::unwrap_used)]

mod lab;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc;

use hotcell_cells::command::collect::OutputFault;
use hotcell_cells::command::{CommandLimits, CommandSpec, Commands, End, Means, Seat, Stream};
use hotcell_cells::process::Interruption;
use hotcell_cells::stop::StopSignal;
use hotcell_cells::supervise::Exit;
use lab::*;

#[test]
fn limits_interrupt() {
    everywhere(|lab| {
        let mut seat = lab.seat_with(CommandLimits {
            wall_ms: 300,
            ..limits()
        });
        let ending = sh(&mut seat, "sleep 1000 & sleep 1000");
        assert_interrupted(&ending, Interruption::WallTime);
        let mut seat = lab.seat_with(CommandLimits { cpu_s: 1, ..limits() });
        for busy in ["while :; do :; done", "sh -c 'while :; do :; done'; exit 1"] {
            let ending = sh(&mut seat, busy);
            assert_interrupted(&ending, Interruption::CpuTime);
        }
        // The seat is as good as before.
        let ending = sh(&mut seat, "true");
        assert_code(&seat, &ending, 0);
    });
}

/// That the seat, and another one, are as good as before.
fn assert_well(lab: &Lab, seat: &mut Seat) {
    let ending = sh(seat, "echo x > outputs/x; ls / > /dev/null; exit 7");
    assert_code(seat, &ending, 7);
    let mut other = lab.seat();
    let ending = sh(&mut other, "true");
    assert_code(&other, &ending, 0);
}

#[test]
fn a_memory_eater_is_ended_and_the_limit_named() {
    everywhere(|lab| {
        // Unasked: no default lets a command have all of the host.
        for memory in [64 << 20, CommandLimits::default().memory] {
            if memory > 64 << 20 && lab.means != ALL {
                continue;
            }
            let mut seat = lab.seat_with(CommandLimits { memory, ..limits() });
            let hog = format!("x = bytearray({memory} * 2)\nfor at in range(0, len(x), 4096): x[at] = 1");
            let ending = run(&mut seat, &["python3", "-c", &hog]);
            match holds(&ending, "memory-cgroup") {
                true => assert_interrupted(&ending, Interruption::Memory),
                false => {
                    assert!(matches!(ending.end, End::Exit(Exit::Code(1))), "{ending:?}");
                    let said = String::from_utf8_lossy(&seat.error_end(4096)).into_owned();
                    assert!(said.contains("MemoryError"), "{said}");
                }
            }
            // Many small ones are as much as a large one.
            if holds(&ending, "memory-cgroup") && memory == 64 << 20 {
                let swarm = "import os, time\nfor _ in range(8):\n\tif os.fork() == 0:\n\t\tx = b'x' * (16 << 20); time.sleep(60)\nos.wait(); raise SystemExit(1)";
                let ending = run(&mut seat, &["python3", "-c", swarm]);
                assert_interrupted(&ending, Interruption::Memory);
            }
            let ending = run(&mut seat, &["python3", "-c", "x = b'x' * (1 << 20)"]);
            assert_code(&seat, &ending, 0);
            assert_well(lab, &mut seat);
        }
    });
}

#[test]
fn a_fork_bomb_stays_small_and_ends() {
    everywhere(|lab| {
        let mut seat = lab.seat_with(CommandLimits {
            tasks: 16,
            wall_ms: 2_000,
            ..limits()
        });
        // Counts what it could start; then goes on for ever, or gives up.
        let bomb = "import os, sys\nn = 0\nwhile True:\n\ttry:\n\t\tif os.fork() == 0:\n\t\t\twhile True: os.read(0, 1) or os.sched_yield()\n\t\tn += 1\n\texcept OSError:\n\t\tprint(n, flush=True); break\nif sys.argv[1] == 'end': raise SystemExit(1)\nwhile True: os.sched_yield()";
        let ending = run(&mut seat, &["python3", "-c", bomb, "on"]);
        assert_interrupted(&ending, Interruption::WallTime);
        if holds(&ending, "pids-cgroup") {
            assert_eq!(said(&seat, Stream::Out), "15\n");
            let ending = run(&mut seat, &["python3", "-c", bomb, "end"]);
            assert_interrupted(&ending, Interruption::Tasks);
        }
        let ending = sh(
            &mut seat,
            "bomb() { bomb | bomb & }; bomb; wait; while :; do sleep 1; done",
        );
        assert!(!matches!(ending.end, End::Exit(Exit::Code(0))), "{ending:?}");
        assert_well(lab, &mut seat);
        // Unasked: a bound that programs do not meet and bombs do.
        if lab.means != ALL {
            return;
        }
        let mut seat = lab.seat();
        let ending = run(&mut seat, &["python3", "-c", bomb, "end"]);
        if holds(&ending, "pids-cgroup") {
            assert_interrupted(&ending, Interruption::Tasks);
            let most = CommandLimits::default().tasks - 1;
            assert_eq!(said(&seat, Stream::Out), format!("{most}\n"));
        }
        assert!(!matches!(ending.end, End::Exit(Exit::Code(0))), "{ending:?}");
        assert_well(lab, &mut seat);
    });
}

#[test]
fn the_bomb_of_one_seat_leaves_another_alone() {
    everywhere(|lab| {
        let bounds = CommandLimits {
            tasks: 64,
            ..limits()
        };
        let mut one = lab.seat_with(bounds);
        let ending = sh(&mut one, "true");
        if !holds(&ending, "pids-cgroup") && !lab.means.namespaces {
            return;
        }
        let (full, is_full) = mpsc::channel();
        let stop = StopSignal::new().unwrap();
        std::thread::scope(|scope| {
            let stop_one = stop.clone();
            scope.spawn(move || {
                // Says that it is full by an output that another can wait for: the first line of its stream.
                let bomb = "import os, time\ntry:\n\twhile True:\n\t\tif os.fork() == 0: time.sleep(1000)\nexcept OSError: pass\ntime.sleep(1000)";
                let arguments = words(&["python3", "-c", bomb]);
                let spec = CommandSpec {
                    program: "/usr/bin/python3",
                    arguments: &arguments,
                    environment: &[],
                    stdin: None,
                };
                full.send(()).unwrap();
                let ending = one.run(&spec, &stop_one).unwrap();
                assert_interrupted(&ending, Interruption::Stopped);
            });
            is_full.recv().unwrap();
            let mut two = lab.seat_with(bounds);
            // As many as it may have, while the other has all of its own.
            for _ in 0..5 {
                let ending = sh(&mut two, "for i in $(seq 40); do sleep 0.1 & done; wait");
                assert_code(&two, &ending, 0);
            }
            stop.request();
            stop.request();
        });
    });
}

#[test]
fn a_filler_of_files_is_ended_and_the_host_is_well() {
    everywhere(|lab| {
        let mut seat = lab.seat_with(CommandLimits {
            file_bytes: 1 << 20,
            ..limits()
        });
        let many = "import os\ni = 0\nwhile i < 200:\n\tos.write(os.open(f'{os.environ[\"TMPDIR\"]}/{i}', os.O_CREAT | os.O_WRONLY), b'x' * (1 << 20))\n\ti += 1\n";
        let ending = run(&mut seat, &["python3", "-c", many]);
        assert_interrupted(&ending, Interruption::Room);
        let scratch = holds(&ending, "scratch");
        lab.commands.give_back(seat).unwrap();
        let mut seat = lab.seat();
        // As many names as one pleases, elsewhere until they are counted.
        if !scratch {
            return assert_well(lab, &mut seat);
        }
        let names =
            "import os\nfor i in range(200_000): os.close(os.open(f'outputs/{i}', os.O_CREAT | os.O_WRONLY))";
        let ending = run(&mut seat, &["python3", "-c", names]);
        assert_interrupted(&ending, Interruption::Room);
        lab.commands.give_back(seat).unwrap();
        let mut seat = lab.seat();
        let ending = sh(&mut seat, "test -z \"$(ls -A outputs)\" && echo x > outputs/x");
        assert_code(&seat, &ending, 0);
        assert_well(lab, &mut seat);
    });
}

#[test]
fn output_is_bounded() {
    everywhere(|lab| {
        let mut seat = lab.seat_with(CommandLimits {
            file_bytes: 100_000,
            ..limits()
        });
        for script in ["exec cat /dev/zero > outputs/huge", "exec cat /dev/zero"] {
            let ending = sh(&mut seat, script);
            assert!(
                matches!(ending.end, End::Exit(Exit::Signal(libc::SIGXFSZ))),
                "{ending:?}"
            );
        }
        assert_eq!(seat.stream_length(Stream::Out).unwrap(), 100_000);
        assert_eq!(seat.output("huge", "").unwrap().length, 100_000);
    });
}

/// A host on which nothing but file modes and seccomp holds.
const BARE: Means = Means {
    landlock: 0,
    ..NO_NAMESPACES
};

fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Does a test everywhere, and where only root can keep its promises.
fn even_bare(test: impl Fn(&Lab)) {
    everywhere(&test);
    if is_root() {
        test(&Lab::with(BARE));
    }
}

#[test]
fn a_command_cannot_put_links_in_the_place_of_its_folders() {
    even_bare(|lab| {
        let mut seat = lab.seat();
        seat.put("inputs/x", false, b"x").unwrap();
        let script = "mv outputs moved; rmdir outputs; ln -sfn /etc outputs; mv inputs i; ln -s /etc inputs; cd /; mv work w; mv tmp t; rm -rf tmp; ln -sfn /etc tmp";
        sh(&mut seat, script);
        let seen = sh(
            &mut seat,
            "test -d outputs -a ! -L outputs -a -d inputs -a ! -L inputs && cat inputs/x && echo > outputs/well",
        );
        assert_code(&seat, &seen, 0);
        assert_eq!(seat.output("well", "").unwrap().length, 1);
        assert!(matches!(seat.output("passwd", ""), Err(OutputFault::Missing)));
        // Links within are told, never followed.
        let ending = sh(
            &mut seat,
            "mkdir outputs/all; ln -s /etc outputs/etc; ln -s /etc outputs/all/etc",
        );
        assert_code(&seat, &ending, 0);
        let fault = seat.output("etc", "passwd").unwrap_err().to_string();
        assert!(fault.contains("outputs/etc is a symbolic link"), "{fault}");
        let fault = seat.output("all", "etc/passwd").unwrap_err().to_string();
        assert!(fault.contains("outputs/all/etc is a symbolic link"), "{fault}");
        lab.commands.give_back(seat).unwrap();
        assert!(Path::new("/etc/passwd").exists());
    });
}

/// What one command may do to its streams, in the hope that the next one has them too.
const SPOIL: &str = "import fcntl, os, sys\n\
    for fd in (1, 2):\n\
    \tos.write(fd, b'first')\n\
    \tfcntl.flock(fd, fcntl.LOCK_EX)\n\
    \tos.fchmod(fd, 0)\n\
    \tfcntl.fcntl(fd, fcntl.F_SETFL, os.O_NONBLOCK | os.O_ASYNC)\n\
    \tos.ftruncate(fd, 2)\n\
    \tos.lseek(fd, 1000, os.SEEK_SET)\n";

#[test]
fn streams_are_new_for_each_command() {
    even_bare(|lab| {
        let mut seat = lab.seat();
        let facts = "import fcntl, os\n\
            for fd in (1, 2):\n\
            \tfcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)\n\
            \tos.write(fd, b'%d %d %o' % (fcntl.fcntl(fd, fcntl.F_GETFL), os.lseek(fd, 0, os.SEEK_CUR), os.fstat(fd).st_mode))\n";
        let ending = run(&mut seat, &["python3", "-c", facts]);
        assert_code(&seat, &ending, 0);
        let (out, err) = (said(&seat, Stream::Out), said(&seat, Stream::Err));
        // Without giving it back between, and with.
        for again in [false, true] {
            run(&mut seat, &["python3", "-c", SPOIL]);
            assert_eq!(said(&seat, Stream::Out), "fi");
            if again {
                lab.commands.give_back(seat).unwrap();
                seat = lab.seat();
            }
            let ending = run(&mut seat, &["python3", "-c", facts]);
            assert_code(&seat, &ending, 0);
            assert_eq!(
                (said(&seat, Stream::Out), said(&seat, Stream::Err)),
                (out.clone(), err.clone())
            );
        }
    });
}

#[test]
fn nothing_of_a_process_is_carried_over_to_the_next_command() {
    everywhere(|lab| {
        let mut seat = lab.seat();
        let facts = "import os, resource, signal\n\
            print(os.sched_getaffinity(0), os.getpriority(os.PRIO_PROCESS, 0), os.sched_getscheduler(0), os.umask(0))\n\
            print([(name, resource.getrlimit(getattr(resource, name))) for name in sorted(dir(resource)) if name.startswith('RLIMIT_')])\n\
            print(signal.pthread_sigmask(signal.SIG_BLOCK, []))\n\
            try: print(sorted(os.listdir('/proc/self/fd')), [line for line in open('/proc/self/status') if line.startswith(('Sig', 'Shd', 'Cpus', 'Cap'))])\n\
            except OSError: pass\n";
        let look = |seat: &mut Seat| {
            let ending = run(seat, &["python3", "-c", facts]);
            assert_code(seat, &ending, 0);
            let priority = sh(seat, "ionice -p $$; setarch --show 2> /dev/null; true");
            assert_code(seat, &priority, 0);
            said(seat, Stream::Out)
        };
        let (before, io_before) = {
            let ending = run(&mut seat, &["python3", "-c", facts]);
            assert_code(&seat, &ending, 0);
            (said(&seat, Stream::Out), look(&mut seat))
        };
        // On itself, which is its own affair; on the warden, which is its parent; on its group and its user.
        let spoil = "umask 0; renice 5 -p $$; renice 5 -g 0; renice 5 -u $(id -u); ionice -c3 -p $$; \
            for pid in 1 $PPID; do renice 5 -p $pid; renice 5 -g $pid; ionice -c3 -p $pid; ionice -c3 -P $pid; taskset -p 1 $pid; chrt -i -p 0 $pid; chrt -b -p 0 $pid; \
            prlimit --pid $pid --nofile=32:32 --nproc=3:3 --cpu=1:1; kill -STOP $pid; kill -CHLD $pid; kill -USR1 $pid; kill -RTMIN $pid; kill -RTMIN $pid; done; \
            ionice -c3 -u $(id -u); ulimit -n 16; taskset -p 1 $$";
        sh(&mut seat, spoil);
        let direct = "import ctypes, os\n\
            c = ctypes.CDLL(None)\n\
            for which in (0, 1, 2):\n\
            \tfor who in (0, 1, os.getppid(), os.getuid()): c.setpriority(which, who, 7); c.syscall(251, which + 1, who, 3 << 13)\n\
            os.sched_setaffinity(0, {0})\n\
            for pid in (1, os.getppid()):\n\
            \tfor call in (lambda: os.sched_setaffinity(pid, {0}), lambda: os.sched_setscheduler(pid, os.SCHED_IDLE, os.sched_param(0))):\n\
            \t\ttry: call()\n\
            \t\texcept OSError: pass\n";
        run(&mut seat, &["python3", "-c", direct]);
        let after = {
            let ending = run(&mut seat, &["python3", "-c", facts]);
            assert_code(&seat, &ending, 0);
            said(&seat, Stream::Out)
        };
        assert_eq!(after, before);
        assert_eq!(look(&mut seat), io_before);
    });
}

#[test]
fn without_a_mount_namespace_nothing_outside_is_changed_by_its_path() {
    for landlock in [i32::MAX, 2, 1, 0] {
        if landlock == 0 && !is_root() {
            continue;
        }
        let lab = Lab::with(Means {
            landlock,
            ..NO_NAMESPACES
        });
        let mut seat = lab.seat();
        let ending = sh(
            &mut seat,
            "echo x > outputs/mine; touch outputs/mine; cp -p inputs/x outputs/y 2> /dev/null; true",
        );
        assert_code(&seat, &ending, 0);
        let user = fs::metadata(&walk(lab.folder.path(), "mine")[0]).unwrap().uid();
        // Outside, and yet of the command's own user, for all to write: only the walls are left.
        let outside = lab.folder.path().join("outside");
        fs::write(&outside, "content").unwrap();
        std::os::unix::fs::chown(&outside, Some(user), Some(user)).unwrap();
        fs::set_permissions(&outside, fs::Permissions::from_mode(0o666)).unwrap();
        let before = fs::metadata(&outside).unwrap();
        let script = format!(
            "import ctypes, errno, os\n\
             p = {:?}\n\
             c = ctypes.CDLL(None, use_errno=True)\n\
             def refused(call):\n\
             \ttry: call()\n\
             \texcept OSError as error: assert error.errno in (errno.EPERM, errno.EACCES, errno.EOPNOTSUPP, errno.ENOSYS), error\n\
             \telse: raise SystemExit(9)\n\
             here = os.open('/', os.O_PATH)\n\
             refused(lambda: os.chmod(p, 0o777))\n\
             refused(lambda: os.chmod(p[1:], 0o777, dir_fd=here))\n\
             refused(lambda: os.chown(p, -1, os.getgid()))\n\
             refused(lambda: os.lchown(p, -1, os.getgid()))\n\
             refused(lambda: os.utime(p))\n\
             refused(lambda: os.utime(p, (1, 1)))\n\
             refused(lambda: os.utime(p, (1, 1), follow_symlinks=False))\n\
             refused(lambda: os.truncate(p, 1))\n\
             refused(lambda: os.setxattr(p, 'user.x', b'y'))\n\
             refused(lambda: os.removexattr(p, 'user.x'))\n\
             path = os.open(p, os.O_PATH)\n\
             refused(lambda: os.chmod(f'/proc/self/fd/{{path}}', 0o777))\n\
             refused(lambda: os.utime(f'/proc/self/fd/{{path}}', (1, 1)))\n\
             for number in (452, 463, 466):\n\
             \tassert c.syscall(number, path, b'', 0o777, 0x1000, 0, 0) == -1, number\n",
            outside.display().to_string()
        );
        let ending = run(&mut seat, &["python3", "-c", &script]);
        assert_code(&seat, &ending, 0);
        let after = fs::metadata(&outside).unwrap();
        let facts = |facts: &fs::Metadata| {
            (
                facts.mode(),
                facts.uid(),
                facts.gid(),
                facts.mtime(),
                facts.mtime_nsec(),
                facts.ctime_nsec(),
                facts.size(),
            )
        };
        assert_eq!(facts(&after), facts(&before), "Landlock {landlock}");
    }
}

#[test]
fn each_seat_has_a_user_of_its_own() {
    if !is_root() {
        return;
    }
    let uid = |seat: &mut Seat| -> u32 {
        let ending = sh(seat, "id -u");
        assert_code(seat, &ending, 0);
        said(seat, Stream::Out).trim().parse().unwrap()
    };
    let lab = Lab::with(NO_NAMESPACES);
    let (mut one, mut two) = (lab.seat(), lab.seat());
    let ending = sh(&mut one, "true");
    let few = ending
        .fallbacks
        .iter()
        .any(|fallback| fallback.contains("few users"));
    if few {
        return;
    }
    let (first, second) = (uid(&mut one), uid(&mut two));
    assert_ne!(first, second);
    assert!(first >= 0x7000_0000 && second >= 0x7000_0000, "{first} {second}");
    // Neither can end, or look at, what the other started.
    // What a program sees of it is the same everywhere.
    let lab = Lab::with(ALL);
    let mut seat = lab.seat();
    let ending = sh(&mut seat, "true");
    if holds(&ending, "user-namespace") {
        assert_eq!(uid(&mut seat), 65534);
        let ending = sh(
            &mut seat,
            "test \"$(stat -c %u outputs)\" = 65534 && echo x > outputs/x && test -O outputs/x",
        );
        assert_code(&seat, &ending, 0);
    }
}

#[test]
fn folders_of_commands_are_nobody_elses() {
    for (means, open) in [(ALL, false), (NO_NAMESPACES, is_root())] {
        let lab = Lab::with(means);
        let mut seat = lab.seat();
        let ending = sh(&mut seat, "true");
        let open = open || !holds(&ending, "private-root") && is_root();
        let area = fs::read_dir(lab.folder.path()).unwrap().next().unwrap().unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode(&area.path()), if open { 0o711 } else { 0o700 });
        let random = |name: &str| name.len() == 32 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
        let name = area.file_name().into_string().unwrap();
        assert!(random(name.strip_prefix("hotcell-commands-").unwrap()), "{name}");
        for entry in fs::read_dir(area.path()).unwrap().map(Result::unwrap) {
            if entry.file_type().unwrap().is_dir() {
                let name = entry.file_name().into_string().unwrap();
                assert!(random(&name), "{name}");
                assert_eq!(mode(&entry.path()), if open { 0o710 } else { 0o700 });
            }
        }
    }
}

#[test]
fn no_descriptor_leaves_a_command() {
    even_bare(|lab| {
        let mut seat = lab.seat();
        let script = "import socket, os\n\
            for kind in (socket.SOCK_DGRAM, socket.SOCK_SEQPACKET, socket.SOCK_RAW, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC):\n\
            \ttry: socket.socketpair(socket.AF_UNIX, kind)\n\
            \texcept PermissionError: pass\n\
            \telse: raise SystemExit(2)\n\
            for family in (socket.AF_INET, socket.AF_INET6, 30, 40):\n\
            \ttry: socket.socketpair(family, socket.SOCK_STREAM)\n\
            \texcept OSError: pass\n\
            \telse: raise SystemExit(3)\n\
            a, b = socket.socketpair()\n\
            for call in (lambda: a.bind('outputs/s'), lambda: a.bind(b'\\0hotcell'), lambda: a.connect(b'\\0hotcell'), lambda: a.listen(), lambda: a.accept()):\n\
            \ttry: call()\n\
            \texcept PermissionError: pass\n\
            \telse: raise SystemExit(4)\n\
            a.sendall(b'x'); assert b.recv(1) == b'x'\n";
        let ending = run(&mut seat, &["python3", "-c", script]);
        assert_code(&seat, &ending, 0);
    });
}

#[test]
fn nothing_names_paths_of_the_host() {
    for means in hosts(&[ALL, NO_LANDLOCK, LITTLE]) {
        let lab = Lab::with(means);
        let mut seat = lab.seat();
        let ending = sh(&mut seat, "true");
        if !holds(&ending, "no-mounts") || !holds(&ending, "own-proc") {
            continue;
        }
        // The word is written so that its own command line does not hold it.
        let script = "find /proc -type f -readable -exec cat {} + > outputs/all 2> /dev/null; find /proc -type l -exec readlink {} + >> outputs/all; cat /proc/self/mountinfo /proc/self/mounts > outputs/mounts; cat /proc/self/cgroup > outputs/groups; ls /proc; grep -ac 'hotcel[l]-commands' outputs/all";
        let ending = sh(&mut seat, script);
        assert!(
            matches!(ending.end, End::Exit(Exit::Code(1))),
            "{ending:?} {}",
            said(&seat, Stream::Out)
        );
        let listed = said(&seat, Stream::Out);
        for name in ["cpuinfo", "meminfo", "sys", "version", "uptime", "mounts"] {
            assert!(!listed.lines().any(|line| line == name), "{name}: {listed}");
        }
        assert_eq!(seat.output("mounts", "").unwrap().length, 0);
        let mut groups = Vec::new();
        seat.output("groups", "").unwrap().copy_to(&mut groups).unwrap();
        let groups = String::from_utf8(groups).unwrap();
        if holds(&ending, "cgroup-namespace") {
            assert!(groups.lines().all(|line| line.ends_with(":/")), "{groups}");
        }
        // What a program needs of it is there.
        let ending = sh(
            &mut seat,
            "ps > /dev/null && test -e /proc/self/exe && readlink /proc/self/fd/0",
        );
        assert_code(&seat, &ending, 0);
    }
}

#[test]
fn what_lies_in_folders_of_the_system_and_is_not_for_commands_is_hidden() {
    let hidden = ["/usr/share/doc", "/usr/bin/perl", "/no/such", "/root"].map(PathBuf::from);
    if !hidden[0].is_dir() || !hidden[1].is_file() || !has_own_root() {
        return;
    }
    for means in [ALL, NO_LANDLOCK, LITTLE] {
        let folder = folder();
        let commands = Commands::with_means(folder.path(), &hidden, means).unwrap();
        let mut seat = commands.seat(&limits()).unwrap();
        let ending = sh(
            &mut seat,
            "ls -A /usr/share/doc; cat /usr/bin/perl; perl -e 'print 1'; echo x > /usr/share/doc/x; test -d /usr/share/man",
        );
        assert_code(&seat, &ending, 0);
        assert_eq!(said(&seat, Stream::Out), "");
    }
    let folder = folder();
    let commands = Commands::with_means(folder.path(), &hidden, NO_NAMESPACES).unwrap();
    let error = commands.seat(&limits()).unwrap_err().to_string();
    assert!(
        error.contains("/usr/bin/perl") || error.contains("/usr/share/doc"),
        "{error}"
    );
    let commands = Commands::new(folder.path(), &["/usr".into()]).unwrap();
    let error = commands.seat(&limits()).unwrap_err().to_string();
    assert!(error.contains("/usr is a folder of the system"), "{error}");
}

#[test]
fn the_system_is_read_only_and_a_kernel_that_does_less_is_told() {
    for (means, deep) in [(ALL, true), (NO_LANDLOCK, true), (LITTLE, false)] {
        let lab = Lab::with(means);
        let mut seat = lab.seat();
        let script = "import os\nfor path in ('/', '/usr', '/etc', '/work', '/work/inputs'): assert os.statvfs(path).f_flag & os.ST_RDONLY, path\nfor path in ('/work/outputs', '/tmp'): assert not os.statvfs(path).f_flag & os.ST_RDONLY, path";
        let ending = run(&mut seat, &["python3", "-c", script]);
        if !holds(&ending, "private-root") {
            continue;
        }
        assert_code(&seat, &ending, 0);
        let told = ending
            .fallbacks
            .iter()
            .any(|fallback| fallback.contains("only the top"));
        assert!(told || deep, "{ending:?}");
        assert!(holds(&ending, "scratch") == means.scratch, "{ending:?}");
    }
}

#[test]
fn who_forks_on_and_on_does_not_outlive_its_command() {
    even_bare(|lab| {
        let mut seat = lab.seat();
        // Each generation tries to get away, makes the next, and ends; the command ends meanwhile.
        let runner = "import os, signal, sys\n\
            r, w = os.pipe()\n\
            for s in range(1, 64):\n\
            \ttry: signal.signal(s, signal.SIG_IGN)\n\
            \texcept OSError: pass\n\
            if os.fork() == 0:\n\
            \tf = os.open('outputs/lock', os.O_CREAT | os.O_RDWR); import fcntl; fcntl.flock(f, fcntl.LOCK_EX)\n\
            \tn = 0\n\
            \twhile True:\n\
            \t\tfor call in (os.setsid, os.setpgrp, lambda: os.setpgid(0, 0)):\n\
            \t\t\ttry: call()\n\
            \t\t\texcept OSError: pass\n\
            \t\tif os.fork() != 0: os._exit(0)\n\
            \t\tn += 1\n\
            \t\tif n == 50: os.write(w, b'x')\n\
            os.read(r, 1)\n";
        let ending = run(&mut seat, &["python3", "-c", runner]);
        assert_code(&seat, &ending, 0);
        let ending = sh(&mut seat, "flock -n outputs/lock true");
        assert_code(&seat, &ending, 0);
    });
}

#[test]
fn a_seat_that_is_let_go_of_leaves_nothing_running() {
    even_bare(|lab| {
        let folder = lab.folder.path().join("marks");
        fs::create_dir(&folder).unwrap();
        let mut seat = lab.seat_with(CommandLimits {
            wall_ms: 1,
            ..limits()
        });
        let word = format!("{}{}", std::process::id(), lab.means.landlock.max(1));
        let _ = sh(
            &mut seat,
            &format!("(trap '' TERM INT HUP; sleep 3{word}) & sleep 3{word}"),
        );
        drop(seat);
        let runs = fs::read_dir("/proc").unwrap().flatten().any(|entry| {
            let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            line.split(|byte| *byte == 0)
                .any(|argument| argument == format!("3{word}").as_bytes())
        });
        assert!(!runs);
    });
}

/// What holds for a runner that is not root, tried as one: by this test itself, as another user.
#[test]
fn a_runner_that_is_not_root_keeps_its_promises() {
    if !is_root() {
        return promises();
    }
    let folder = tempfile::tempdir_in("/var/tmp").unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let copy = folder.path().join("tests");
    fs::copy(std::env::current_exe().unwrap(), &copy).unwrap();
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o755)).unwrap();
    let output = Command::new("setpriv")
        .args(["--reuid=4711", "--regid=4711", "--clear-groups", "--"])
        .arg(&copy)
        .args([
            "--exact",
            "a_runner_that_is_not_root_keeps_its_promises",
            "--nocapture",
        ])
        .current_dir("/")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{said}");
    assert!(said.contains("1 passed"), "{said}");
}

fn promises() {
    for means in [ALL, NO_LANDLOCK, NO_NAMESPACES, LITTLE, BARE] {
        let folder = folder();
        let precious = folder.path().join("precious");
        fs::write(&precious, "content").unwrap();
        let commands = Commands::with_means(folder.path(), &[], means).unwrap();
        let mut seat = match commands.seat(&limits()) {
            Ok(seat) => seat,
            // Without both of them nothing holds.
            Err(error) if means.landlock == 0 => {
                assert!(error.to_string().contains("no Landlock"), "{error}");
                continue;
            }
            Err(error) => panic!("{error}"),
        };
        seat.put("own", false, b"own").unwrap();
        seat.put("inputs/x", false, b"x").unwrap();
        let ending = sh(
            &mut seat,
            "echo x > outputs/x && echo y > $TMPDIR/y && cat own inputs/x && id -u",
        );
        assert_code(&seat, &ending, 0);
        if holds(&ending, "user-namespace") {
            assert_eq!(said(&seat, Stream::Out), "ownx65534\n");
        }
        let path = precious.display().to_string();
        for script in [
            "echo x > x",
            "echo x > own",
            "chmod 777 own && echo x > own",
            "rm -f own",
            "mv outputs moved",
            "ln -sfn /etc inputs",
            "echo x > /x",
            "mkdir /x",
            &format!("cat {path}"),
            &format!("echo x > {path}"),
            &format!("chmod 777 {path}"),
            &format!("touch {path}"),
            &format!("rm -f {path}"),
        ] {
            let ending = sh(&mut seat, script);
            let gone = matches!(ending.end, End::Exit(Exit::Code(0)));
            assert!(
                !gone || script.starts_with("ln") || script.starts_with("rm"),
                "{means:?}: {script}"
            );
        }
        assert_eq!(fs::read_to_string(&precious).unwrap(), "content");
        let mode = fs::metadata(&precious).unwrap().permissions().mode();
        assert_ne!(mode & 0o777, 0o777);
        let ending = sh(&mut seat, "cat own; test -d inputs -a ! -L inputs");
        assert_code(&seat, &ending, 0);
        assert_eq!(said(&seat, Stream::Out), "own");
        commands.give_back(seat).unwrap();
        let mut seat = commands.seat(&limits()).unwrap();
        let ending = sh(
            &mut seat,
            "ls -A outputs inputs . $TMPDIR | grep -vE ':|^$|^inputs$|^outputs$'",
        );
        assert_code(&seat, &ending, 1);
    }
}
