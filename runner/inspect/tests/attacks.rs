//! Archives that are made to do harm: names that lead out, sizes that lie, parts that stand twice, links, archives in archives.
#![allow(clippy::unwrap_used)]

use hotcell_inspect::unpack::{Request, unpack};
use hotcell_schema::digest::Digest;
use hotcell_schema::unpack::{ArchiveIndex, Unpack, UnpackLimits, UnpackRefusal, UnpackResult, WantedMember};

fn index_within(archive: &[u8], limits: UnpackLimits) -> Result<ArchiveIndex, UnpackRefusal> {
    let request = Request {
        archive,
        password: None,
        want: &Unpack::Index,
        limits,
    };
    match unpack(&request, &mut |_, _| panic!("nothing was wanted")).unwrap() {
        UnpackResult::Index(index) => Ok(index),
        UnpackResult::Refused(refusal) => Err(refusal),
        UnpackResult::Sent => panic!("an index was wanted"),
    }
}

fn index(archive: &[u8]) -> Result<ArchiveIndex, UnpackRefusal> {
    index_within(archive, UnpackLimits::INDEX)
}

fn names(archive: &[u8]) -> Vec<String> {
    let members = index(archive).unwrap().members;
    members.into_iter().map(|member| member.name).collect()
}

/// An entry of a tar. `said` is the size that its header says.
fn entry(name: &[u8], kind: u8, said: u64, content: &[u8]) -> Vec<u8> {
    let mut block = vec![0u8; 512];
    let name = &name[..name.len().min(100)];
    block[..name.len()].copy_from_slice(name);
    block[100..108].copy_from_slice(b"0000644\0");
    block[124..136].copy_from_slice(format!("{said:011o}\0").as_bytes());
    block[156] = kind;
    block[157..167].copy_from_slice(b"/etc/passw");
    block[257..265].copy_from_slice(b"ustar\x0000");
    block[148..156].copy_from_slice(b"        ");
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block.extend_from_slice(content);
    block.resize(block.len().next_multiple_of(512), 0);
    block
}

fn file(name: &str, content: &[u8]) -> Vec<u8> {
    entry(name.as_bytes(), b'0', content.len() as u64, content)
}

fn tar(entries: &[Vec<u8>]) -> Vec<u8> {
    let mut all = entries.concat();
    all.resize(all.len() + 1024, 0);
    all
}

fn ar(parts: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut all = b"!<arch>\n".to_vec();
    for (name, content) in parts {
        all.extend_from_slice(
            format!(
                "{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`\n",
                0,
                0,
                0,
                644,
                content.len()
            )
            .as_bytes(),
        );
        all.extend_from_slice(content);
        if content.len() % 2 == 1 {
            all.push(b'\n');
        }
    }
    all
}

#[test]
fn names_are_told_as_they_are_and_lead_nowhere() {
    let long = "n/".repeat(49);
    let entries = [
        file("../../etc/passwd", b"a"),
        file("/etc/shadow", b"b"),
        file("same", b"c"),
        file("same", b"d"),
        file(&long, b"e"),
        file("\x1b[2Jred", b"f"),
        file("inner.tar", &tar(&[file("x", b"y")])),
    ];
    let found = names(&tar(&entries));
    assert_eq!(found.len(), 7, "{found:?}");
    assert_eq!(found[0], "../../etc/passwd");
    assert_eq!(found[2], found[3]);
    assert_eq!(found[6], "inner.tar", "what is in it is not looked at");
    let twice = index(&tar(&entries)).unwrap();
    assert_ne!(twice.members[2].digest, twice.members[3].digest);
}

#[test]
fn links_and_devices_are_no_samples() {
    let kinds = [b'1', b'2', b'3', b'4', b'5', b'6'];
    let mut entries: Vec<Vec<u8>> = kinds.iter().map(|kind| entry(b"link", *kind, 0, b"")).collect();
    entries.push(file("real", b"x"));
    assert_eq!(names(&tar(&entries)), ["real"]);
}

#[test]
fn sizes_that_lie_are_damage_or_too_much() {
    // More than there is.
    let archive = tar(&[entry(b"x", b'0', 1 << 30, b"short")]);
    assert!(matches!(index(&archive), Err(UnpackRefusal::Damaged(_))));
    // More than anyone may have.
    let archive = tar(&[entry(b"x", b'0', 8_589_934_591, b"short")]);
    assert!(index(&archive).is_err());
    // A long name that is none: it is as long as it says, and no longer.
    let archive = tar(&[entry(b"././@LongLink", b'L', 1 << 30, b"name"), file("y", b"z")]);
    assert!(index(&archive).is_err());
    let name = "n".repeat(300);
    let archive = tar(&[
        entry(b"././@LongLink", b'L', 301, format!("{name}\0").as_bytes()),
        file("cut", b"z"),
    ]);
    assert_eq!(names(&archive), [name.as_str()]);
    let short = UnpackLimits {
        name: 255,
        ..UnpackLimits::INDEX
    };
    assert!(matches!(
        index_within(&archive, short),
        Err(UnpackRefusal::TooMuch(_))
    ));
    // pax: a path that leads out is a name like others; a size that contradicts is not believed beyond what is there.
    let pax = |text: &str| entry(b"pax", b'x', text.len() as u64, text.as_bytes());
    assert_eq!(
        names(&tar(&[pax("16 path=../../x\n"), file("y", b"z")])),
        ["../../x"]
    );
    assert!(index(&tar(&[pax("20 size=99999999999\n"), file("y", b"z")])).is_err());
}

#[test]
fn a_package_has_each_part_once_and_one_budget() {
    let part = |name: &str| tar(&[file(name, &vec![7; 600 << 10])]);
    let whole = ar(&[
        ("debian-binary", b"2.0\n".to_vec()),
        ("control.tar", part("control")),
        ("data.tar", part("data")),
    ]);
    assert_eq!(names(&whole), ["DEBIAN/control", "data"]);
    let limits = UnpackLimits {
        bytes: 1 << 20,
        ..UnpackLimits::INDEX
    };
    assert!(matches!(
        index_within(&whole, limits),
        Err(UnpackRefusal::TooMuch(_))
    ));
    for twice in ["data.tar", "data.tar.gz", "control.tar.xz"] {
        let archive = ar(&[
            ("control.tar", part("control")),
            ("data.tar", part("data")),
            (twice, part("again")),
        ]);
        match index(&archive) {
            Err(UnpackRefusal::Damaged(why)) => assert!(why.contains("two parts"), "{why}"),
            other => panic!("{other:?}"),
        }
    }
    let many: Vec<(&str, Vec<u8>)> = (0..3000).map(|_| ("x", Vec::new())).collect();
    let few = UnpackLimits {
        members: 1000,
        ..UnpackLimits::INDEX
    };
    assert!(matches!(
        index_within(&ar(&many), few),
        Err(UnpackRefusal::TooMuch(_))
    ));
}

/// Every 4-byte size in the directories of ZIP files, made a lie: members are what they are, or the archive is damaged.
#[test]
fn a_zip_that_lies_gives_no_other_bytes() {
    for name in ["stored.zip", "deflate.zip", "zip64.zip"] {
        let whole = std::fs::read(format!("{}/tests/archives/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap();
        let honest = index(&whole).unwrap();
        let directories = whole
            .windows(4)
            .enumerate()
            .filter(|(_, word)| *word == b"PK\x01\x02");
        for (at, _) in directories {
            for (field, lie) in [
                (20, u32::MAX),
                (24, u32::MAX),
                (20, 0xfff_fff0),
                (24, 0xfff_fff0),
                (24, 0),
                (42, 0xffff),
            ] {
                let mut archive = whole.clone();
                archive[at + field..at + field + 4].copy_from_slice(&lie.to_le_bytes());
                let Ok(index) = index(&archive) else { continue };
                for member in &index.members {
                    let known = honest.members.iter().any(|one| one.digest == member.digest);
                    assert!(known || member.length <= whole.len() as u64, "{name}: {member:?}");
                    // What an index names can be had, and is what it says.
                    let want = Unpack::Members(vec![WantedMember {
                        number: member.number,
                        digest: member.digest,
                    }]);
                    let request = Request {
                        archive: &archive,
                        password: None,
                        want: &want,
                        limits: UnpackLimits::MEMBERS,
                    };
                    let result = unpack(&request, &mut |digest, bytes| {
                        assert_eq!(digest, Digest::of(bytes));
                        Ok(())
                    });
                    assert_eq!(result.unwrap(), UnpackResult::Sent);
                }
            }
        }
    }
}
