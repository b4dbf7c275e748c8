//! Crashes, full disks, and others who write too: real processes, really killed.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::*;

/// Path of the journal that a child is to write; without it, what is a child's part does nothing.
const JOURNAL: &str = "HOTCELL_TEST_AUDIT";

/// This program as a child with a part of its own.
fn child(part: &str, place: &Place) -> Command {
    let mut child = Command::new(std::env::current_exe().unwrap());
    child
        .args(["--exact", &format!("crash::{part}"), "--ignored", "--nocapture"])
        .env(JOURNAL, &place.path)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    child
}

/// Waits for the child to say something.
fn wait_for(child: &mut Child, what: &str) {
    let mut said = BufReader::new(child.stderr.as_mut().unwrap()).lines();
    let heard = said.any(|line| line.unwrap() == what);
    assert!(heard, "the child never said `{what}`");
}

pub(crate) fn say(what: &str) {
    use std::io::Write as _;
    // Not `eprintln!`, which a test's harness may take away.
    let _ = writeln!(std::io::stderr().lock(), "{what}");
}

#[test]
#[ignore = "a child of the tests below"]
fn writes_without_end() {
    let Some(path) = std::env::var_os(JOURNAL) else {
        return;
    };
    let mut audit = open(Path::new(&path)).unwrap();
    let long = reason(&"why ".repeat(200));
    for number in 0u64.. {
        let act = Act::KillCells {
            of: Cells::Core(2),
            killed: number,
        };
        let because = long.clone().filter(|_| number % 2 == 0);
        audit.append(&root(), &now(), act, because).unwrap();
        if number == 0 {
            say("writing");
        }
    }
}

#[test]
fn killed_at_any_moment_the_chain_goes_on() {
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let (mut place, mut count) = (Place::new(), 0);
    for round in 0..100 {
        // A long journal takes long to check.
        if round % 10 == 0 {
            (place, count) = (Place::new(), 0);
        }
        let mut writer = child("writes_without_end", &place).spawn().unwrap();
        wait_for(&mut writer, "writing");
        // Into the first few entries: nothing tells when a call to the system is half done.
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let moment = Duration::from_micros((random >> 33) % 4000);
        let begun = Instant::now();
        while begun.elapsed() < moment {
            std::hint::spin_loop();
        }
        writer.kill().unwrap();
        writer.wait().unwrap();

        let mut audit = place.open().unwrap();
        assert!(audit.last().count > count, "round {round}");
        ban(&mut audit).unwrap();
        count = audit.last().count;
        sound(&place, count);
        let bans = place.entries();
        let bans = bans
            .iter()
            .filter(|entry| matches!(entry.act, Act::BanUser { .. }));
        assert_eq!(bans.count(), round % 10 + 1);
    }
}

/// Opens a journal that ends with torn bytes, and looks at what becomes of them.
fn continues(place: &Place, count: u64, torn: &[u8]) -> Entry {
    let mut audit = place.open().unwrap();
    let cut = audit.cut().unwrap().clone();
    let digest = Digest::of(torn);
    assert_eq!(
        cut.act,
        Act::TornLineCut {
            bytes: torn.len() as u64,
            digest
        }
    );
    let kept = place.beside(&format!(".torn-{}", digest.short()));
    assert_eq!(fs_err::read(kept).unwrap(), torn);
    assert_eq!((cut.sequence, audit.last().count), (count + 1, count + 1));
    ban(&mut audit).unwrap();
    sound(place, count + 2);
    cut
}

#[test]
fn a_line_torn_anywhere_is_set_aside_and_the_journal_says_so() {
    let place = Place::with(3);
    let (journal, head) = (place.bytes(), place.head());
    let line = {
        let because = reason(&"a longer line than the one that takes its place ".repeat(10));
        let mut audit = place.open().unwrap();
        audit
            .append(&root(), &now(), Act::BanUser { user: ci() }, because)
            .unwrap();
        place.bytes()[journal.len()..].to_vec()
    };
    let again = [1, 200, 450, line.len() - 1];
    for cut in (2..line.len()).step_by(29).chain(again) {
        let torn = &line[..cut];
        place.put(&[&journal, torn].concat(), &head);
        let told = fault(audit::check(&place.path));
        let named = matches!(
            told,
            AuditFault::Line {
                line: 5,
                sequence: Some(4),
                wrong: Wrong::TornEnd
            }
        );
        assert!(named, "{told}");
        let entry = continues(&place, 3, torn);

        // Killed while the entry is written over the torn bytes: any part of it, and a rest of them.
        if again.contains(&cut) {
            let over = lines(&place.bytes())[4].clone();
            assert_eq!(place.entries()[3], entry);
            for written in (0..over.len()).step_by(61).chain([over.len() - 1]) {
                let rest = torn.get(written..).unwrap_or_default();
                let torn = [&over[..written], rest].concat();
                place.put(&[&journal[..], &torn].concat(), &head);
                continues(&place, 3, &torn);
            }
            // The entry is whole; of the torn line a rest may still stand behind it.
            let rest = torn.get(over.len()..).unwrap_or_default();
            place.put(&[&journal[..], &over, rest].concat(), &head);
            match rest.is_empty() {
                true => assert_eq!(place.open().unwrap().last().count, 4),
                false => drop(continues(&place, 4, rest)),
            }
        }
    }
}

#[test]
fn a_line_that_a_power_cut_left_holes_in_is_set_aside_unless_it_was_reported() {
    let place = Place::with(3);
    let (journal, head) = (place.bytes(), place.head());
    ban(&mut place.open().unwrap()).unwrap();
    let after = place.head();
    let mut damaged = place.bytes()[journal.len()..].to_vec();
    damaged[20..60].fill(0);

    place.put(&[&journal[..], &damaged].concat(), &head);
    continues(&place, 3, &damaged);
    let more = [&damaged[..], b"{\"seq"].concat();
    place.put(&[&journal[..], &more].concat(), &head);
    continues(&place, 3, &more);

    // Reported as written: that was no power cut.
    for torn in [&damaged, &more] {
        let bytes = [&journal[..], torn].concat();
        place.put(&bytes, &after);
        let told = fault(place.open());
        assert!(
            matches!(
                told,
                AuditFault::Line {
                    line: 5,
                    wrong: Wrong::NotJson(_),
                    ..
                }
            ),
            "{told}"
        );
        assert_eq!(place.bytes(), bytes);
    }
    // Nor are two such lines.
    let bytes = [&journal[..], &damaged, &damaged].concat();
    place.put(&bytes, &head);
    assert!(matches!(fault(place.open()), AuditFault::Line { line: 5, .. }));
    assert_eq!(place.bytes(), bytes);
}

#[test]
fn what_is_longer_than_a_line_was_not_torn_by_a_writer() {
    let place = Place::with(3);
    let bytes = [&place.bytes()[..], &[b'x'; 2 * audit::MAX_LINE]].concat();
    fs_err::write(&place.path, &bytes).unwrap();
    assert!(matches!(
        fault(place.open()),
        AuditFault::Line {
            line: 5,
            wrong: Wrong::TooLong,
            ..
        }
    ));
    assert_eq!(place.bytes(), bytes);
}

#[test]
#[ignore = "a child of the test below"]
fn writes_until_the_disk_is_full() {
    let Some(path) = std::env::var_os(JOURNAL) else {
        return;
    };
    let path = Path::new(&path);
    let mut audit = open(path).unwrap();
    let error = loop {
        match ban(&mut audit) {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert!(
        matches!(&error, StoreError::Io(error) if error.kind() == std::io::ErrorKind::FileTooLarge),
        "{error}"
    );
    // Nothing of it is there, and it can be tried again, also by another.
    for _ in 0..3 {
        let count = audit.last().count;
        assert!(ban(&mut audit).is_err());
        assert_eq!(audit::check(path).unwrap(), audit.last());
        assert_eq!(audit.last().count, count);
        drop(audit);
        audit = open(path).unwrap();
        assert_eq!(audit.cut(), None);
    }
    say("full");
}

#[test]
fn a_full_disk_costs_the_entry_and_not_the_chain() {
    let place = Place::new();
    // No file may be longer than 8 KiB (blocks of 512 bytes); the signal that says so is ignored, and the write is cut short.
    let exe = child("writes_until_the_disk_is_full", &place);
    let mut limited = Command::new("sh");
    limited
        .args(["-c", "trap '' XFSZ; ulimit -f 16; exec \"$@\"", "sh"])
        .arg(exe.get_program())
        .args(exe.get_args())
        .env(JOURNAL, &place.path)
        .stderr(Stdio::piped());
    let output = limited.output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && told.contains("full"), "{told}");

    let length = place.bytes().len();
    assert!((7000..=8192).contains(&length), "{length}");
    let count = audit::check(&place.path).unwrap().count;
    let mut audit = place.open().unwrap();
    assert_eq!(audit.cut(), None);
    ban(&mut audit).unwrap();
    sound(&place, count + 1);
}

#[test]
#[ignore = "a child of the test below"]
fn holds_the_journal() {
    let Some(path) = std::env::var_os(JOURNAL) else {
        return;
    };
    let mut audit = open(Path::new(&path)).unwrap();
    ban(&mut audit).unwrap();
    say("holding");
    // Until it is killed.
    loop {
        std::thread::park();
    }
}

#[test]
fn a_second_writer_is_refused_until_the_first_is_gone() {
    let place = Place::new();
    let mut holder = child("holds_the_journal", &place).spawn().unwrap();
    wait_for(&mut holder, "holding");
    let refused = place.open();
    assert!(
        matches!(&refused, Err(StoreError::Busy { path, .. }) if *path == place.path),
        "{refused:?}"
    );
    // Reading is for everyone.
    sound(&place, 1);
    holder.kill().unwrap();
    holder.wait().unwrap();
    ban(&mut place.open().unwrap()).unwrap();
    sound(&place, 2);
}

#[test]
#[ignore = "a child of the test below"]
fn writes_ten_when_it_may() {
    let Some(path) = std::env::var_os(JOURNAL) else {
        return;
    };
    let mut left = 10;
    while left > 0 {
        match open(Path::new(&path)) {
            Ok(mut audit) => {
                ban(&mut audit).unwrap();
                left -= 1;
            }
            Err(StoreError::Busy { .. }) => std::thread::yield_now(),
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn writers_at_once_never_fork_the_chain() {
    // From the first moment: the journal is not there yet.
    let place = Place::new();
    let children: Vec<Child> = (0..4)
        .map(|_| child("writes_ten_when_it_may", &place).spawn().unwrap())
        .collect();
    for writer in children {
        let output = writer.wait_with_output().unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    sound(&place, 40);
    assert_eq!(place.names(), ["audit.jsonl", "audit.jsonl.head"]);
}

#[test]
fn a_journal_is_checked_while_it_is_written() {
    let place = Place::with(1);
    let mut audit = place.open().unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..200 {
                ban(&mut audit).unwrap();
            }
            done.store(true, Ordering::Release);
        });
        let mut before = 0;
        while !done.load(Ordering::Acquire) {
            let count = audit::check(&place.path).unwrap().count;
            assert!(count >= before);
            before = count;
        }
    });
    // The same with half a line at its end, as a reader may meet one that is being written.
    let half = [&place.bytes()[..], b"{\"sequence\":202,"].concat();
    fs_err::write(&place.path, half).unwrap();
    sound(&place, 201);
    drop(audit);
    assert!(matches!(
        fault(audit::check(&place.path)),
        AuditFault::Line {
            line: 203,
            wrong: Wrong::TornEnd,
            ..
        }
    ));
}
