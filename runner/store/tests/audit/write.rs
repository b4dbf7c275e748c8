//! Writing, reading back, and what the files are.

use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;

use super::*;

#[test]
fn what_is_written_comes_back_in_order() {
    let place = Place::new();
    let mut written = Vec::new();
    for (number, act) in acts().into_iter().enumerate() {
        // Opened anew each time: the chain goes on.
        let mut audit = place.open().unwrap();
        assert_eq!(audit.last().count, number as u64);
        assert_eq!(audit.cut(), None);
        let because = (number % 2 == 0).then(|| "tiny \"quoted\" \u{1b}[2J\nü".parse().unwrap());
        let entry = audit
            .append(&root(), &now(), act.clone(), because.clone())
            .unwrap();
        assert_eq!((&entry.act, &entry.reason), (&act, &because));
        assert_eq!(audit.last(), sound(&place, number as u64 + 1));
        written.push(entry);
    }
    assert_eq!(place.entries(), written);
    let last = written.last().unwrap();
    let verified = audit::verify(&place.bytes()[..]).unwrap();
    assert_eq!(
        (verified.count, verified.last),
        (written.len() as u64, last.digest)
    );
    assert_eq!(place.names(), ["audit.jsonl", "audit.jsonl.head"]);
}

#[test]
fn the_bytes_are_as_the_format_says() {
    let place = Place::new();
    let mut audit = place.open().unwrap();
    audit
        .append(&root(), &now(), Act::BanUser { user: ci() }, reason("spam"))
        .unwrap();
    audit.append(&ci(), &now(), Act::ArbiterEnded, None).unwrap();

    // With nothing but what the documentation says, and SHA-256.
    let header = FIRST.trim_end();
    let body = format!(
        r#"{{"sequence":1,"time":"2026-11-22T15:00:00Z","by":{{"uid":0,"name":"root"}},"act":{{"ban-user":{{"user":{{"uid":1501}}}}}},"reason":"spam","previous":"{}"}}"#,
        Digest::of(header.as_bytes())
    );
    let one = Digest::of(body.as_bytes());
    let first = body.replace("\"}", &format!("\",\"digest\":\"{one}\"}}"));
    let body = format!(
        r#"{{"sequence":2,"time":"2026-11-22T15:00:00Z","by":{{"uid":1501}},"act":"arbiter-ended","previous":"{one}"}}"#
    );
    let two = Digest::of(body.as_bytes());
    let second = body.replace("\"}", &format!("\",\"digest\":\"{two}\"}}"));
    // The name of `by` ends the same way.
    let first = first.replacen(&format!("\"root\",\"digest\":\"{one}\"}}"), "\"root\"}", 1);
    let text = String::from_utf8(place.bytes()).unwrap();
    assert_eq!(text, format!("{header}\n{first}\n{second}\n"));
    assert_eq!(
        String::from_utf8(place.head()).unwrap(),
        format!("{{\"format\":\"hotcell-audit-head\",\"version\":1,\"sequence\":2,\"digest\":\"{two}\"}}\n")
    );
}

#[test]
fn a_journal_of_version_1_is_read() {
    // As it was first written. Never changed: this version must always be read.
    let journal = include_str!("version-1.jsonl");
    let verified = audit::verify(journal.as_bytes()).unwrap();
    assert_eq!(verified.count, acts().len() as u64 + 1);
    let read = audit::entries(journal.as_bytes()).map(|entry| entry.unwrap().act);
    let cut = Act::TornLineCut {
        bytes: 4,
        digest: Digest::of(b"torn"),
    };
    assert!(read.eq(acts().into_iter().chain([cut])));
}

#[test]
fn a_new_journal_has_no_entries() {
    let place = Place::new();
    let audit = place.open().unwrap();
    assert_eq!(audit.last().count, 0);
    assert_eq!(place.bytes(), FIRST.as_bytes());
    assert_eq!(sound(&place, 0), audit.last());
    assert_eq!(audit::entries(FIRST.as_bytes()).count(), 0);
    // Its maker was killed before there was a companion.
    drop(audit);
    fs_err::remove_file(place.beside(".head")).unwrap();
    sound(&place, 0);
    ban(&mut place.open().unwrap()).unwrap();
    sound(&place, 1);
}

#[test]
fn files_have_the_mode_that_was_asked_for() {
    for mode in [0o600, 0o640, 0o666] {
        let place = Place::new();
        let mut audit = Audit::open(&place.path, mode, &root(), &now()).unwrap();
        ban(&mut audit).unwrap();
        for name in place.names() {
            let facts = fs_err::metadata(place.folder.path().join(&name)).unwrap();
            assert_eq!(facts.permissions().mode() & 0o7777, mode, "{name}");
        }
    }
}

#[test]
fn only_the_end_is_read_to_continue() {
    let place = Place::new();
    let mut audit = place.open().unwrap();
    for _ in 0..70 {
        let because = reason(&"why ".repeat(200));
        audit.append(&root(), &now(), Act::ArbiterEnded, because).unwrap();
    }
    drop(audit);
    let mut bytes = place.bytes();
    assert!(bytes.len() > 4 * audit::MAX_LINE);
    // Damage far from the end: the writer does not see it, the checker does.
    bytes[200] ^= 1;
    fs_err::write(&place.path, &bytes).unwrap();
    ban(&mut place.open().unwrap()).unwrap();
    assert!(matches!(
        fault(audit::check(&place.path)),
        AuditFault::Line {
            line: 2,
            wrong: Wrong::Changed,
            ..
        }
    ));
}

#[test]
fn a_journal_that_ends_wrong_is_not_continued() {
    let place = Place::with(5);
    let (journal, head) = (place.bytes(), place.head());
    let whole = lines(&journal);
    let cut = |entries: usize| whole[..=entries].concat();

    // Entries cut off its end, up to all of it.
    for entries in 0..5 {
        place.put(&cut(entries), &head);
        for fault in [fault(place.open()), fault(audit::check(&place.path))] {
            let told = matches!(fault, AuditFault::Cut { count, known: 5 } if count == entries as u64);
            assert!(told, "{fault}");
        }
    }
    fs_err::remove_file(&place.path).unwrap();
    assert!(matches!(
        fault(place.open()),
        AuditFault::Cut { count: 0, known: 5 }
    ));
    assert!(!place.path.exists(), "no new journal hides that one is gone");

    // Another journal, sound in itself.
    let other = Place::new();
    let mut audit = other.open().unwrap();
    for _ in 0..6 {
        ban(&mut audit).unwrap();
    }
    place.put(&other.bytes(), &head);
    assert!(matches!(fault(place.open()), AuditFault::Other { sequence: 5 }));
    assert!(matches!(
        fault(audit::check(&place.path)),
        AuditFault::Other { sequence: 5 }
    ));

    // The companion gone, or strange.
    place.put(&journal, &head);
    fs_err::remove_file(place.beside(".head")).unwrap();
    assert!(matches!(fault(place.open()), AuditFault::NoCompanion));
    assert!(matches!(
        fault(audit::check(&place.path)),
        AuditFault::NoCompanion
    ));
    let newer = String::from_utf8(head.clone()).unwrap().replace(":1,", ":2,");
    for strange in [&b""[..], b"{}", &[b'['; 100_000], newer.as_bytes(), b"\xff\0"] {
        place.put(&journal, strange);
        assert!(matches!(fault(place.open()), AuditFault::Companion(_)));
        assert!(matches!(
            fault(audit::check(&place.path)),
            AuditFault::Companion(_)
        ));
    }

    // As it was.
    place.put(&journal, &head);
    ban(&mut place.open().unwrap()).unwrap();
    sound(&place, 6);
}

#[test]
fn an_older_companion_is_brought_up_to_the_journal() {
    let place = Place::new();
    let mut audit = place.open().unwrap();
    let mut heads = vec![place.head()];
    for _ in 0..4 {
        ban(&mut audit).unwrap();
        heads.push(place.head());
    }
    drop(audit);
    // By one entry after `kill -9`, by more after a power cut.
    for head in &heads {
        fs_err::write(place.beside(".head"), head).unwrap();
        sound(&place, 4);
        drop(place.open().unwrap());
        assert_eq!(place.head(), heads[4]);
    }
    // Not where the chain between is broken.
    let mut bytes = place.bytes();
    let second = FIRST.len() + lines(&bytes)[1].len() + 30;
    bytes[second] ^= 1;
    place.put(&bytes, &heads[1]);
    assert!(matches!(fault(place.open()), AuditFault::Line { line: 3, .. }));
    assert_eq!(place.head(), heads[1]);
}

#[test]
fn what_others_do_to_an_open_journal_is_noticed() {
    type Do = fn(&Place);
    let disturb: [Do; 5] = [
        |place| fs_err::remove_file(&place.path).unwrap(),
        |place| fs_err::rename(&place.path, place.beside(".old")).unwrap(),
        |place| fs_err::write(&place.path, FIRST).unwrap(),
        |place| {
            let mut bytes = place.bytes();
            bytes.push(b'x');
            fs_err::write(&place.path, &bytes).unwrap();
        },
        |place| {
            let bytes = place.bytes();
            fs_err::remove_file(&place.path).unwrap();
            fs_err::write(&place.path, bytes).unwrap();
        },
    ];
    for disturb in disturb {
        let place = Place::new();
        let mut audit = place.open().unwrap();
        ban(&mut audit).unwrap();
        disturb(&place);
        let names = place.names();
        assert!(matches!(fault(ban(&mut audit)), AuditFault::Disturbed(_)));
        assert_eq!(place.names(), names);
    }
}

#[test]
fn an_entry_whose_companion_cannot_be_written_is_taken_back() {
    let place = Place::with(2);
    let before = (place.bytes(), place.head());
    let mut audit = place.open().unwrap();
    let blocked = place.beside(".head.new");
    fs_err::create_dir(&blocked).unwrap();
    for _ in 0..3 {
        assert!(matches!(ban(&mut audit), Err(StoreError::Io(_))));
        assert_eq!((place.bytes(), place.head()), before);
    }
    fs_err::remove_dir(&blocked).unwrap();
    assert_eq!(ban(&mut audit).unwrap().sequence, 3);
    sound(&place, 3);
}

#[test]
fn what_is_no_audit_journal_is_neither_written_nor_believed() {
    let cases: [(&[u8], Wrong); 8] = [
        (b"", Wrong::Foreign),
        (b"\n", Wrong::Foreign),
        (b"{\"hotcell-journal\":3}\n", Wrong::Foreign),
        (
            b"{\"format\":\"hotcell-audit\",\"version\":2}\n",
            Wrong::Version(2),
        ),
        (
            b"{\"format\":\"hotcell-audit\",\"version\":\"1\"}\n",
            Wrong::Foreign,
        ),
        (b"{\"format\": \"hotcell-audit\",\"version\":1}\n", Wrong::Foreign),
        (b"{\"format\":\"hotcell-audit\",\"ver", Wrong::TornEnd),
        (b"{\"format\":\"hotcell-audit\",\"version\":1}", Wrong::TornEnd),
    ];
    for (bytes, expected) in cases {
        let place = Place::new();
        fs_err::write(&place.path, bytes).unwrap();
        assert_eq!(wrong(bytes), Some((1, expected.clone())));
        let AuditFault::Line { line: 1, wrong, .. } = fault(place.open()) else {
            panic!("{expected}");
        };
        assert_eq!(wrong, expected);
        assert_eq!(place.bytes(), bytes);
        assert_eq!(place.names(), ["audit.jsonl"]);
    }
    let place = Place::new();
    assert!(matches!(audit::check(&place.path), Err(StoreError::Io(_))));
    fs_err::create_dir(&place.path).unwrap();
    assert!(matches!(place.open(), Err(StoreError::Io(_))));
}

#[test]
fn a_disk_that_fails_says_nothing_about_the_journal() {
    struct Failing;
    impl std::io::Read for Failing {
        fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
            Err(std::io::Error::other("bad sector"))
        }
    }
    let reader = std::io::BufReader::new(FIRST.as_bytes().chain(Failing));
    assert!(matches!(audit::verify(reader), Err(AuditFault::Read(_))));
}

/// Sets or takes away the attribute `append-only`; whether that was done.
fn append_only(path: &Path, set: &str) -> bool {
    let done = std::process::Command::new("chattr").arg(set).arg(path).output();
    done.is_ok_and(|done| done.status.success())
}

#[test]
fn what_can_be_neither_written_nor_taken_back_stops_the_writer() {
    let place = Place::with(2);
    if !append_only(&place.path, "+a") {
        crate::crash::say("skipped: `chattr +a` does not work here");
        return;
    }
    // Append-only is no hindrance to opening and writing.
    let mut audit = place.open().unwrap();
    let third = ban(&mut audit);
    fs_err::create_dir(place.beside(".head.new")).unwrap();
    let fourth = ban(&mut audit);
    let fifth = ban(&mut audit);
    let count = audit.last().count;
    drop(audit);
    fs_err::remove_dir(place.beside(".head.new")).unwrap();
    let again = place.open().map(|audit| audit.last().count);
    // Torn: it cannot be set aside as long as nothing but appending is allowed.
    let mut file = fs_err::OpenOptions::new().append(true).open(&place.path).unwrap();
    std::io::Write::write_all(&mut file, b"{\"seq").unwrap();
    let torn = place.open();
    // Before anything can fail: else nobody could remove the folder.
    assert!(append_only(&place.path, "-a"));

    assert_eq!(third.unwrap().sequence, 3);
    assert!(
        matches!(fourth, Err(StoreError::Io(_))),
        "the companion: {fourth:?}"
    );
    assert!(matches!(fault(fifth), AuditFault::Disturbed(_)));
    assert_eq!(count, 3);
    assert_eq!(again.unwrap(), 4, "the fourth stayed, and counts");
    assert!(torn.unwrap_err().to_string().contains("chattr -a"));
    assert!(place.open().unwrap().cut().is_some());
    sound(&place, 5);
}
