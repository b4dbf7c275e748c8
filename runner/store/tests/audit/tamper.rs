//! Every kind of tampering is found, in the line where it begins, and called by its name.

use std::io::{BufReader, Read as _};
use std::sync::LazyLock;

use proptest::prelude::*;

use super::*;

/// A journal of twelve entries. All its lines differ.
static JOURNAL: LazyLock<Vec<u8>> = LazyLock::new(|| Place::with(12).bytes());

/// A line with another content, and the digest that fits it.
fn forged(line: &[u8], change: impl Fn(&str) -> String) -> Vec<u8> {
    let text = std::str::from_utf8(line).unwrap();
    let (body, _) = text
        .split_once(",\"digest\":\"")
        .filter(|(_, tail)| tail.len() == 67)
        .unwrap();
    let body = change(&format!("{body}}}"));
    let digest = Digest::of(body.as_bytes());
    let body = body.strip_suffix('}').unwrap();
    format!("{body},\"digest\":\"{digest}\"}}\n").into_bytes()
}

fn digest_of(line: &[u8]) -> Digest {
    let text = std::str::from_utf8(line).unwrap().trim_end();
    text[text.len() - 66..text.len() - 2].parse().unwrap()
}

#[test]
fn each_kind_of_tampering_has_its_name() {
    let whole = lines(&JOURNAL);
    let tampered = |change: &dyn Fn(&mut Vec<Vec<u8>>)| {
        let mut lines = whole.clone();
        change(&mut lines);
        wrong(&lines.concat())
    };
    assert_eq!(tampered(&|_| {}), None);
    // Line N holds entry N - 1; the vector counts from 0.
    let removed = |from, to| Wrong::Removed { from, to };
    assert_eq!(tampered(&|lines| drop(lines.remove(4))), Some((5, removed(4, 4))));
    assert_eq!(
        tampered(&|lines| drop(lines.drain(1..4))),
        Some((2, removed(1, 3)))
    );
    assert_eq!(
        tampered(&|lines| lines.swap(4, 5)),
        Some((5, Wrong::Reordered { found: 5 }))
    );
    assert_eq!(
        tampered(&|lines| lines.swap(1, 12)),
        Some((2, Wrong::Reordered { found: 12 }))
    );
    assert_eq!(
        tampered(&|lines| lines.insert(5, whole[4].clone())),
        Some((6, Wrong::Inserted { found: 4 }))
    );
    assert_eq!(
        tampered(&|lines| lines[3] = lines[3].to_ascii_uppercase()),
        Some((4, Wrong::Form("it does not end with a digest".into())))
    );
    let same_length = |text: &str| text.replace("1501", "1502");
    assert_eq!(
        tampered(&|lines| lines[3] = same_length(std::str::from_utf8(&lines[3]).unwrap()).into_bytes()),
        Some((4, Wrong::Changed))
    );
    // Changed, with a new digest: the next line does not follow.
    assert_eq!(
        tampered(&|lines| lines[3] = forged(&lines[3], same_length)),
        Some((5, Wrong::Replaced))
    );
    // Inserted, with a digest and in the chain: then the number that should follow is there twice.
    let invented = forged(&whole[4], |text| text.replace("\"killed\":3", "\"killed\":0"));
    assert_eq!(
        tampered(&|lines| lines.insert(4, invented.clone())),
        Some((6, Wrong::Inserted { found: 4 }))
    );
    assert_eq!(
        tampered(&|lines| *lines.last_mut().unwrap() = b"{\"a\":\n".to_vec()).map(|(line, _)| line),
        Some(13)
    );
    assert_eq!(
        tampered(&|lines| lines.last_mut().unwrap().truncate(20)),
        Some((13, Wrong::TornEnd))
    );
    // The same in other words: sound digest, wrong form.
    for change in [
        |text: &str| text.replacen("{\"uid\":0,", "{\"uid\":0, ", 1),
        |text: &str| {
            text.replacen(
                "{\"uid\":0,\"name\":\"root\"}",
                "{\"name\":\"root\",\"uid\":0}",
                1,
            )
        },
        |text: &str| text.replacen("\"root\"", "\"r\\u006fot\"", 1),
        |text: &str| text.replacen("\"root\"", "\"root\",\"shell\":\"sh\"", 1),
        |text: &str| text.replacen("\"root\"", "\"\"", 1),
        |text: &str| text.replacen("\"uid\":0", "\"uid\":4294967296", 1),
        |text: &str| text.replacen("T15:00", "T25:00", 1),
        |text: &str| text.replacen("\"ban-user\"", "\"pardon-user\"", 1),
        |text: &str| text.replacen("\"sequence\":3", "\"sequence\":-3", 1),
    ] {
        let found = tampered(&|lines| lines[3] = forged(&lines[3], change));
        assert!(matches!(found, Some((4, Wrong::Form(_)))), "{found:?}");
    }
    // A whole new chain is sound in itself: only a digest noted elsewhere tells.
    let other = Place::new();
    let mut audit = other.open().unwrap();
    for _ in 0..20 {
        ban(&mut audit).unwrap();
    }
    let noted = digest_of(&whole[7]);
    assert_eq!(audit::verify_against(&JOURNAL[..], &noted).unwrap().count, 12);
    let made_anew = audit::verify_against(&other.bytes()[..], &noted);
    assert!(matches!(made_anew, Err(AuditFault::Absent(digest)) if digest == noted));
}

#[test]
fn what_was_cut_off_the_end_is_seen_by_who_noted_it() {
    let whole = lines(&JOURNAL);
    let last = audit::verify(&JOURNAL[..]).unwrap().last;
    assert_eq!(last, digest_of(&whole[12]));
    for entries in 0..=12 {
        let cut = whole[..=entries].concat();
        assert_eq!(audit::verify(&cut[..]).unwrap().count, entries as u64);
        assert_eq!(audit::verify_against(&cut[..], &last).is_ok(), entries == 12);
    }
    // Who noted how it stood when it was new.
    assert!(audit::verify_against(&JOURNAL[..], &Digest::of(FIRST.trim_end().as_bytes())).is_ok());
}

#[test]
fn numbers_at_their_end_do_no_harm() {
    let whole = lines(&JOURNAL);
    let last = u64::MAX.to_string();
    let far = forged(&whole[1], |text| {
        text.replacen("\"sequence\":1", &format!("\"sequence\":{last}"), 1)
    });
    let journal = [whole[0].clone(), far.clone()].concat();
    let removed = Wrong::Removed {
        from: 1,
        to: u64::MAX - 1,
    };
    assert_eq!(wrong(&journal), Some((2, removed)));
    // Who is made to continue it by a companion that says the same refuses.
    let place = Place::new();
    let head = format!(
        "{{\"format\":\"hotcell-audit-head\",\"version\":1,\"sequence\":{last},\"digest\":\"{}\"}}\n",
        digest_of(&far)
    );
    place.put(&journal, head.as_bytes());
    let mut audit = place.open().unwrap();
    assert!(matches!(ban(&mut audit), Err(StoreError::Io(_))));
    assert_eq!(place.bytes(), journal);
    let none = forged(&whole[1], |text| {
        text.replacen("\"sequence\":1", "\"sequence\":0", 1)
    });
    let journal = [whole[0].clone(), none].concat();
    assert_eq!(wrong(&journal), Some((2, Wrong::Inserted { found: 0 })));
}

#[test]
fn huge_and_strange_lines_take_no_memory_and_are_named() {
    let begun = FIRST.as_bytes();
    // A line of 256 MiB is not taken into memory, nor are those below it that are looked through.
    let endless = || std::io::repeat(b'x').take(256 << 20);
    let told = audit::verify(BufReader::new(begun.chain(endless())));
    assert!(matches!(
        told,
        Err(AuditFault::Line {
            line: 2,
            wrong: Wrong::TooLong,
            ..
        })
    ));
    let third = lines(&JOURNAL)[3].clone();
    let told = audit::verify(BufReader::new(begun.chain(&third[..]).chain(endless())));
    assert!(matches!(
        told,
        Err(AuditFault::Line {
            line: 2,
            wrong: Wrong::Removed { from: 1, to: 2 },
            ..
        })
    ));
    let deep = |open: &str, close: &str| [open.repeat(7000), close.repeat(7000)].concat();
    for strange in [
        deep("[", "]"),
        deep("[", ""),
        format!("{{\"sequence\":{}}}", deep("[", "]")),
        "1e999999999".into(),
        "\"\\ud800\"".into(),
        "null".into(),
        String::new(),
        "\0".repeat(100),
    ] {
        let found = wrong(format!("{FIRST}{strange}\n").as_bytes());
        assert!(
            matches!(found, Some((2, Wrong::NotJson(_) | Wrong::Form(_)))),
            "{found:?}"
        );
    }
    // Nested in a sealed line, where the reader of entries meets it.
    let nested = forged(&lines(&JOURNAL)[1], |text| {
        text.replacen("\"root\"", &deep("[", "]"), 1)
    });
    let found = wrong(&[begun, &nested].concat());
    assert!(matches!(found, Some((2, Wrong::Form(_)))), "{found:?}");
    let found = wrong(&[begun, b"{\"a\":\"\xff\"}\n"].concat());
    assert_eq!(found, Some((2, Wrong::NotJson("it is not UTF-8".into()))));
    // What a message quotes is short and does nothing to a terminal.
    let quoted = forged(&lines(&JOURNAL)[3], |text| {
        text.replacen("ban-user", &"\\u001b\u{202e}".repeat(1000), 1)
    });
    let told = audit::verify(&[begun, &lines(&JOURNAL)[1..3].concat(), &quoted].concat()[..]).unwrap_err();
    let told = told.to_string();
    assert!(
        told.len() < 2000 && !told.contains(['\u{1b}', '\u{202e}']),
        "{told}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn a_changed_byte_is_found_in_its_line(at in 0..JOURNAL.len(), change in 1..=255u8) {
        let mut bytes = JOURNAL.clone();
        bytes[at] ^= change;
        let line = 1 + JOURNAL[..at].iter().filter(|byte| **byte == b'\n').count() as u64;
        let found = wrong(&bytes);
        prop_assert_eq!(found.map(|(line, _)| line), Some(line));
    }

    #[test]
    fn a_byte_more_or_less_is_found_in_its_line(at in 0..JOURNAL.len(), more: Option<u8>) {
        let mut bytes = JOURNAL.clone();
        match more {
            Some(byte) => bytes.insert(at, byte),
            None => drop(bytes.remove(at)),
        }
        // A byte like its neighbour may be either of the two.
        let differs = bytes.iter().zip(JOURNAL.iter()).position(|(new, old)| new != old);
        let differs = differs.unwrap_or(JOURNAL.len().min(bytes.len()));
        let line = 1 + JOURNAL[..differs].iter().filter(|byte| **byte == b'\n').count() as u64;
        prop_assert_eq!(wrong(&bytes).map(|(line, _)| line), Some(line));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn lines_in_any_other_order_or_number_are_found(order in prop::collection::vec(0..13usize, 0..20), keep in 0..14usize) {
        // Some as they were, and then any.
        let order: Vec<usize> = (0..keep.min(13)).chain(order).collect();
        let whole = lines(&JOURNAL);
        let bytes: Vec<u8> = order.iter().flat_map(|line| whole[*line].clone()).collect();
        let differs = order.iter().enumerate().position(|(place, line)| place != *line);
        let expected = match differs {
            Some(place) => Some(place as u64 + 1),
            None if order.is_empty() => Some(1),
            // Cut off, no more: that is for the companion.
            None => None,
        };
        prop_assert_eq!(wrong(&bytes).map(|(line, _)| line), expected);
    }

    #[test]
    fn swapped_lines_are_called_so(one in 1..13usize, other in 1..13usize) {
        prop_assume!(one < other);
        let mut lines = lines(&JOURNAL);
        lines.swap(one, other);
        let found = wrong(&lines.concat());
        prop_assert_eq!(found, Some((one as u64 + 1, Wrong::Reordered { found: other as u64 })));
    }

    #[test]
    fn removed_lines_are_called_so(from in 1..12usize, count in 1..11usize) {
        let to = from + count;
        prop_assume!(to <= 12);
        let mut lines = lines(&JOURNAL);
        lines.drain(from..to);
        let found = wrong(&lines.concat());
        let removed = Wrong::Removed { from: from as u64, to: to as u64 - 1 };
        prop_assert_eq!(found, Some((from as u64 + 1, removed)));
    }

    #[test]
    fn repeated_lines_are_called_so(line in 1..13usize, place in 1..13usize) {
        prop_assume!(place >= line);
        let mut lines = lines(&JOURNAL);
        let copy = lines[line].clone();
        lines.insert(place + 1, copy);
        let found = wrong(&lines.concat());
        prop_assert_eq!(found, Some((place as u64 + 2, Wrong::Inserted { found: line as u64 })));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn any_bytes_at_all_are_no_journal(bytes: Vec<u8>, begins: bool) {
        let bytes = if begins { [FIRST.as_bytes(), &bytes].concat() } else { bytes };
        let sound = audit::verify(&bytes[..]).is_ok();
        prop_assert_eq!(sound, bytes == FIRST.as_bytes());
        let place = Place::new();
        fs_err::write(&place.path, &bytes).unwrap();
        // Opened: either it is no journal and stays as it is, or what follows the first line was torn.
        match place.open() {
            Ok(audit) => prop_assert_eq!(audit.cut().is_some(), !sound),
            Err(_) => prop_assert_eq!(place.bytes(), bytes),
        }
    }
}
