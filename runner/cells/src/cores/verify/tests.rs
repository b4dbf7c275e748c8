//! Looks at a `/proc` that is made here, and at the real one.

use super::*;
use std::fs;

/// A thread in a made `/proc`.
struct Made<'a> {
    pid: i32,
    name: &'a str,
    state: char,
    flags: u32,
    ticks: u64,
    started: u64,
    processor: u32,
    allowed: &'a str,
}

const PLAIN: Made<'static> = Made {
    pid: 7,
    name: "x",
    state: 'S',
    flags: 0,
    ticks: 0,
    started: 5,
    processor: 2,
    allowed: "0-3",
};

fn write(proc: &Path, made: &Made<'_>) {
    let stat = format!(
        "{} ({}) {} 1 1 1 0 -1 {} 0 0 0 0 {} 0 0 0 20 0 1 0 {} 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 17 {} 0 0\n",
        made.pid, made.name, made.state, made.flags, made.ticks, made.started, made.processor
    );
    let status = format!("Name:\t{}\nCpus_allowed_list:\t{}\n", made.name, made.allowed);
    for folder in [made.pid.to_string(), format!("{0}/task/{0}", made.pid)] {
        fs::create_dir_all(proc.join(&folder)).unwrap();
        fs::write(proc.join(&folder).join("stat"), &stat).unwrap();
        fs::write(proc.join(&folder).join("status"), &status).unwrap();
    }
}

/// A `/proc` in which we began at tick 100, and nothing else should run on processors 2 and 3.
fn proc() -> (tempfile::TempDir, Look) {
    let folder = tempfile::tempdir().unwrap();
    let this = Made {
        pid: 1,
        started: 100,
        processor: 0,
        ..PLAIN
    };
    write(folder.path(), &this);
    std::os::unix::fs::symlink("1/task/1", folder.path().join("thread-self")).unwrap();
    let look = Look::new(folder.path(), "2-3".parse().unwrap()).unwrap();
    (folder, look)
}

fn cell(turn: Option<(Nanos, &str)>) -> Watched {
    Watched {
        pid: 7,
        should: turn.map_or(Should::Wait { since: 0 }, |(from, cpus)| Should::Run {
            from,
            on: cpus.parse().unwrap(),
        }),
    }
}

#[test]
fn a_cell_strays_by_where_it_runs_and_by_where_it_may() {
    let (folder, mut look) = proc();
    let mut strays = |made: Made<'_>, turn: Option<(Nanos, &str)>| {
        write(folder.path(), &made);
        let before = look.found.checks.strays;
        look.look(&|| vec![cell(turn)]);
        look.found.checks.strays - before
    };
    let made = |state, processor, allowed| Made {
        state,
        processor,
        allowed,
        ..PLAIN
    };
    assert_eq!(strays(made('R', 2, "2"), Some((1, "2"))), 0);
    assert_eq!(strays(made('R', 3, "2"), Some((1, "2"))), 1);
    // It sleeps where it ran last; it will wake on its core.
    assert_eq!(strays(made('S', 3, "2"), Some((1, "2"))), 0);
    assert_eq!(strays(made('S', 2, "2-3"), Some((1, "2"))), 1);
    assert_eq!(strays(made('T', 2, "2"), None), 0);
    assert_eq!(strays(made('R', 2, "2"), None), 1);
    assert_eq!(look.found.checks.looks, 6);
    // Cells are not foreign.
    assert_eq!(look.found.checks.foreign, 0);
}

#[test]
fn a_turn_that_ended_meanwhile_is_no_stray() {
    let (folder, mut look) = proc();
    let running = Made {
        state: 'R',
        allowed: "2",
        ..PLAIN
    };
    write(folder.path(), &running);
    let asked = std::cell::Cell::new(0);
    look.look(&|| {
        asked.set(asked.get() + 1);
        match asked.get() {
            1 => vec![cell(None)],
            _ => vec![cell(Some((2, "2")))],
        }
    });
    assert_eq!((asked.get(), look.found.checks.strays), (3, 0));
    // It waits again, and had a turn between the looks.
    asked.set(0);
    look.look(&|| {
        asked.set(asked.get() + 1);
        vec![Watched {
            pid: 7,
            should: Should::Wait { since: asked.get() },
        }]
    });
    assert_eq!((asked.get(), look.found.checks.strays), (3, 0));
}

#[test]
fn who_is_astray_again_and_again_is_told() {
    let (folder, look) = proc();
    let mut look = look;
    write(folder.path(), &Made { state: 'R', ..PLAIN });
    for looks in 1..4 {
        look.look(&|| vec![cell(None)]);
        assert_eq!(look.found.astray.get(&7), Some(&looks));
    }
    let told = &look.found.checks.stray_threads[0];
    assert!(told.contains("without its turn"), "{told}");
    // Who is ending is not judged, and begins anew.
    let ending = Watched {
        pid: 7,
        should: Should::End,
    };
    look.look(&|| vec![ending.clone()]);
    assert!(look.found.astray.is_empty());
    assert_eq!(look.found.checks.foreign, 0);
}

#[test]
fn foreign_is_what_ran_in_the_pool() {
    let (folder, mut look) = proc();
    let mut foreign = |made: Made<'_>| {
        write(folder.path(), &made);
        let before = look.found.checks.foreign;
        look.look(&Vec::new);
        look.found.checks.foreign - before
    };
    // It was there before us, and does nothing.
    assert_eq!(foreign(PLAIN), 0);
    assert_eq!(foreign(Made { ticks: 1, ..PLAIN }), 1);
    // Each is counted once.
    assert_eq!(foreign(Made { ticks: 2, ..PLAIN }), 0);
    let other = |pid| Made { pid, ..PLAIN };
    assert_eq!(
        foreign(Made {
            state: 'R',
            ..other(8)
        }),
        1
    );
    assert_eq!(
        foreign(Made {
            state: 'R',
            processor: 1,
            ..other(9)
        }),
        0
    );
    // It began after us, so it ran while we looked.
    assert_eq!(
        foreign(Made {
            started: 101,
            name: "<new>",
            ..other(10)
        }),
        1
    );
    // The same number, another process.
    assert_eq!(
        foreign(Made {
            started: 102,
            ..other(10)
        }),
        1
    );
    // The kernel's: one that is bound to its processor, and one that is not.
    let kernel = |pid, allowed| Made {
        state: 'R',
        flags: 0x0020_0040,
        name: "kworker/u8:1",
        allowed,
        ..other(pid)
    };
    assert_eq!(foreign(kernel(11, "2")), 0);
    assert_eq!(foreign(kernel(12, "0-3")), 1);
    // Who calls itself one of the kernel's is none.
    assert_eq!(
        foreign(Made {
            state: 'R',
            name: "kworker/2:0",
            allowed: "2",
            ..other(13)
        }),
        1
    );
    assert_eq!(
        look.found.checks.foreign_names,
        ["x", "new", "[kworker/u8:1]", "kworker/2:0"]
    );
}

#[test]
fn this_hosts_own_threads_are_found() {
    // A thread that spins on the last processor there is.
    let cpus = super::super::topology::Topology::of_this_host()
        .unwrap()
        .cpus()
        .clone();
    let last: CoreSet = cpus.iter().last().into_iter().collect();
    let (end, ended) = channel::<()>();
    let (ready, begun) = channel();
    let theirs = last.clone();
    let spinner = std::thread::spawn(move || {
        bind_this_thread(&theirs).unwrap();
        ready.send(()).unwrap();
        while ended.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
            std::hint::spin_loop();
        }
    });
    begun.recv().unwrap();
    let mut look = Look::new(Path::new("/proc"), last.clone()).unwrap();
    let pid = i32::try_from(std::process::id()).unwrap();
    // As a cell it strays: it may run where the others of this process may.
    let watched = vec![Watched {
        pid,
        should: Should::Run { from: 0, on: last },
    }];
    if cpus.len() > 1 {
        look.look(&|| watched.clone());
        assert!(look.found.checks.strays > 0, "{:?}", look.found.checks);
    }
    look.look(&Vec::new);
    assert!(look.found.checks.foreign > 0, "{:?}", look.found.checks);
    drop(end);
    spinner.join().unwrap();
}
