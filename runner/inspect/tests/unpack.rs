//! Archives made by the tools that people use, and archives that lie.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::PathBuf;

use hotcell_inspect::unpack::{Request, unpack};
use hotcell_schema::digest::Digest;
use hotcell_schema::unpack::{
    ArchiveIndex, ArchiveKind, Unpack, UnpackLimits, UnpackRefusal, UnpackResult, WantedMember,
};
use proptest::prelude::*;

const PASSWORD: &[u8] = b"infected";

fn fixtures() -> Vec<PathBuf> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/archives");
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| !path.ends_with("make") && !path.ends_with("README.md"))
        .collect();
    files.sort();
    assert!(files.len() > 20, "{files:?}");
    files
}

fn fixture(name: &str) -> Vec<u8> {
    std::fs::read(format!("{}/tests/archives/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

fn ask(
    archive: &[u8],
    password: Option<&[u8]>,
    want: &Unpack,
    limits: UnpackLimits,
) -> (UnpackResult, Vec<Vec<u8>>) {
    let request = Request {
        archive,
        password,
        want,
        limits,
    };
    let mut given = Vec::new();
    let result = unpack(&request, &mut |digest, bytes| {
        assert_eq!(digest, Digest::of(bytes));
        given.push(bytes.to_vec());
        Ok(())
    });
    (result.unwrap(), given)
}

fn index(archive: &[u8], password: Option<&[u8]>) -> Result<ArchiveIndex, UnpackRefusal> {
    match ask(archive, password, &Unpack::Index, UnpackLimits::INDEX).0 {
        UnpackResult::Index(index) => Ok(index),
        UnpackResult::Refused(refusal) => Err(refusal),
        UnpackResult::Sent => panic!("an index was wanted"),
    }
}

/// The files that every ordinary archive holds.
fn expected() -> Vec<(&'static str, Vec<u8>)> {
    let (_, elf) = ask(
        &fixture("stored.zip"),
        None,
        &Unpack::Members(vec![wanted(&fixture("stored.zip"), None, "bin/elf")]),
        UnpackLimits::MEMBERS,
    );
    assert!(elf[0].starts_with(b"\x7fELF") && elf[0].ends_with(b"line 199 of a program\n"));
    vec![
        ("bin/elf", elf[0].clone()),
        ("deep/er/empty", Vec::new()),
        ("hello.txt", b"hello, archive\n".to_vec()),
    ]
}

fn wanted(archive: &[u8], password: Option<&[u8]>, name: &str) -> WantedMember {
    let index = index(archive, password).unwrap();
    let member = index.members.iter().find(|member| member.name == name).unwrap();
    WantedMember {
        number: member.number,
        digest: member.digest,
    }
}

#[test]
fn every_format_and_method_gives_the_same_files() {
    let expected = expected();
    let mut kinds = std::collections::BTreeSet::new();
    for path in fixtures() {
        let name = path.file_name().unwrap().to_str().unwrap();
        if ["names.zip", "bomb.zip", "cp437.zip", "zip64.zip"].contains(&name) {
            continue;
        }
        let archive = std::fs::read(&path).unwrap();
        let index = index(&archive, Some(PASSWORD)).unwrap_or_else(|refusal| panic!("{name}: {refusal:?}"));
        kinds.insert(format!("{:?}", index.kind));
        let mut members: Vec<_> = index
            .members
            .iter()
            .filter(|member| member.name != "DEBIAN/control")
            .collect();
        members.sort_by(|a, b| a.name.cmp(&b.name));
        let names: Vec<_> = members.iter().map(|member| member.name.as_str()).collect();
        let wanted_names: Vec<_> = expected.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, wanted_names, "{name}");
        for (member, (_, bytes)) in members.iter().zip(&expected) {
            assert_eq!(member.digest, Digest::of(bytes), "{name}: {}", member.name);
            assert_eq!(member.length, bytes.len() as u64);
            assert_eq!(!member.head.0.is_empty(), bytes.starts_with(b"\x7fELF"));
            // Each alone, and only that.
            let want = Unpack::Members(vec![WantedMember {
                number: member.number,
                digest: member.digest,
            }]);
            let (result, given) = ask(&archive, Some(PASSWORD), &want, UnpackLimits::MEMBERS);
            assert_eq!(
                (result, given),
                (UnpackResult::Sent, vec![bytes.clone()]),
                "{name}"
            );
        }
    }
    assert_eq!(kinds.len(), 4, "{kinds:?}");
    assert_eq!(index(&fixture("zip64.zip"), None).unwrap().members[0].length, 15);
    assert_eq!(index(&fixture("xz.deb"), None).unwrap().kind, ArchiveKind::Debian);
}

#[test]
fn passwords_are_needed_right_and_never_guessed() {
    for name in ["zipcrypto.zip", "aes.zip", "aes.7z", "headers.7z"] {
        let archive = fixture(name);
        assert_eq!(index(&archive, None), Err(UnpackRefusal::NeedsPassword), "{name}");
        for wrong in [&b"Infected"[..], b"infected\n", b"x", b"\xff\xfe"] {
            assert_eq!(
                index(&archive, Some(wrong)),
                Err(UnpackRefusal::WrongPassword),
                "{name} {wrong:?}"
            );
        }
    }
    // A password that nothing asks for does no harm.
    for name in ["deflate.zip", "lzma2.7z", "tar.gz"] {
        assert!(index(&fixture(name), Some(b"x")).is_ok(), "{name}");
    }
}

#[test]
fn names_are_data() {
    let index = index(&fixture("names.zip"), None).unwrap();
    let names: Vec<_> = index.members.iter().map(|member| member.name.as_str()).collect();
    assert_eq!(
        names,
        [
            "../up",
            "/etc/passwd",
            "a//b",
            "same",
            "same",
            "w\\in\\dows.exe",
            "grüße",
            "line\nfeed",
            " "
        ]
    );
    // Two members of one name are two members.
    assert_ne!(index.members[3].digest, index.members[4].digest);
    let want = Unpack::Members(vec![WantedMember {
        number: 4,
        digest: index.members[4].digest,
    }]);
    let (_, given) = ask(&fixture("names.zip"), None, &want, UnpackLimits::MEMBERS);
    assert_eq!(Digest::of(&given[0]), index.members[4].digest);
    let cp437 = super_index(&fixture("cp437.zip"));
    assert!(cp437.iter().any(|name| name == "hüllo.txt"), "{cp437:?}");
}

fn super_index(archive: &[u8]) -> Vec<String> {
    index(archive, None)
        .unwrap()
        .members
        .into_iter()
        .map(|member| member.name)
        .collect()
}

#[test]
fn bounds_end_the_work() {
    let bomb = fixture("bomb.zip");
    assert_eq!(index(&bomb, None).unwrap().members[0].length, 64 << 20);
    let refused = |archive: &[u8], limits| match ask(archive, None, &Unpack::Index, limits).0 {
        UnpackResult::Refused(UnpackRefusal::TooMuch(what)) => what,
        other => panic!("{other:?}"),
    };
    let bytes = UnpackLimits {
        bytes: 1 << 20,
        ..UnpackLimits::INDEX
    };
    assert!(refused(&bomb, bytes).contains("more than 1048576 bytes"));
    let few = UnpackLimits {
        members: 2,
        ..UnpackLimits::INDEX
    };
    for name in ["stored.zip", "lzma2.7z", "tar.gz", "xz.deb"] {
        assert!(
            refused(&fixture(name), few).contains("more than 2 members"),
            "{name}"
        );
    }
    let short = UnpackLimits {
        name: 4,
        ..UnpackLimits::INDEX
    };
    assert!(refused(&fixture("tar.zst"), short).contains("a name of more than 4 bytes"));
}

#[test]
fn what_is_no_archive_or_a_cut_one_is_told() {
    for bytes in [&b""[..], b"PK", b"hello", b"!<arch>\nxxx", b"\x1f\x8b\x08rest"] {
        match index(bytes, None) {
            Err(UnpackRefusal::Unsupported(_) | UnpackRefusal::Damaged(_)) => {}
            other => panic!("{bytes:?}: {other:?}"),
        }
    }
    for path in fixtures() {
        let archive = std::fs::read(&path).unwrap();
        for cut in [1, archive.len() / 3, archive.len() / 2, archive.len() - 30] {
            assert!(
                index(&archive[..cut], Some(PASSWORD)).is_err(),
                "{path:?} cut to {cut}"
            );
        }
    }
}

#[test]
fn a_member_that_is_not_there_or_another_is_damage() {
    let archive = fixture("aes.7z");
    for (number, digest) in [(0, Digest::of(b"other")), (99, Digest::of(b"hello, archive\n"))] {
        let want = Unpack::Members(vec![WantedMember { number, digest }]);
        let (result, given) = ask(&archive, Some(PASSWORD), &want, UnpackLimits::MEMBERS);
        assert!(
            matches!(result, UnpackResult::Refused(UnpackRefusal::Damaged(_))),
            "{result:?}"
        );
        assert_eq!(given, Vec::<Vec<u8>>::new());
    }
}

#[test]
fn a_compressed_text_is_unpacked_within_its_bound() {
    let (result, given) = ask(&fixture("tar.xz"), None, &Unpack::Content, UnpackLimits::INDEX);
    assert_eq!(result, UnpackResult::Sent);
    assert_eq!(given[0].len() % 512, 0);
    let small = UnpackLimits {
        bytes: 100,
        ..UnpackLimits::INDEX
    };
    let (result, _) = ask(&fixture("tar.xz"), None, &Unpack::Content, small);
    assert!(matches!(result, UnpackResult::Refused(UnpackRefusal::TooMuch(_))));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// Whatever is done to real archives: an answer, within bounds, and never a panic that gets out.
    #[test]
    fn mutated_archives_are_answered(
        which in any::<prop::sample::Index>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let files = fixtures();
        let mut archive = std::fs::read(&files[which.index(files.len())]).unwrap();
        for (at, byte) in changes {
            let at = at.index(archive.len());
            archive[at] = byte;
        }
        if let Some(cut) = cut {
            archive.truncate(cut.index(archive.len() + 1));
        }
        let limits = UnpackLimits { bytes: 1 << 20, members: 1000, name: 1000 };
        if let UnpackResult::Index(index) = ask(&archive, Some(PASSWORD), &Unpack::Index, limits).0 {
            prop_assert!(index.members.iter().map(|member| member.length).sum::<u64>() <= 1 << 20);
            let want = Unpack::Members(index.members.iter().map(|member| WantedMember { number: member.number, digest: member.digest }).collect());
            let (result, given) = ask(&archive, Some(PASSWORD), &want, limits);
            prop_assert_eq!(result, UnpackResult::Sent);
            prop_assert_eq!(given.len(), index.members.len());
        }
    }
}
