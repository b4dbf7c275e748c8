use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Mutex;

use super::*;

/// A mirror in memory, and what it was asked for.
#[derive(Debug, Default)]
struct Fake {
    files: BTreeMap<String, Vec<u8>>,
    asked: Mutex<Vec<String>>,
}

impl Http for Fake {
    fn get(&self, url: &str, most: u64, out: &mut dyn Write) -> Result<u64, String> {
        self.asked.lock().unwrap().push(url.to_owned());
        let bytes = self.files.get(url).ok_or("404")?;
        assert!(bytes.len() as u64 <= most, "{url}");
        out.write_all(bytes).unwrap();
        Ok(bytes.len() as u64)
    }
}

const MIRROR: &str = "http://mirror/debian";
const DEB: &[u8] = b"a package";
/// Sat, 09 Nov 2024 10:11:26 UTC.
const NOW: i64 = 1_731_147_086;

fn wanted() -> Wanted<'static> {
    Wanted {
        package: "thing",
        version: None,
        arch: Some("armhf"),
        suite: "test",
        mirror: MIRROR,
        check_valid_until: true,
        sha256: Some(Digest::of(DEB)),
        url: None,
    }
}

fn unpack(bytes: &[u8], _: u64, take: &mut dyn FnMut(&[u8])) -> Result<(), SourceError> {
    // As a confined process sends it: in pieces that end anywhere.
    bytes.chunks(7).for_each(take);
    Ok(())
}

/// A mirror whose index says this file name of a package.
fn mirror(file_name: &str) -> Fake {
    let packages = format!(
        "Package: thing-doc\nVersion: 9\n\nPackage: thing\nVersion: 1\nArchitecture: armhf\nFilename: {file_name}\nSize: {}\nSHA256: {}\n\nPackage: other\nVersion: 2\n",
        DEB.len(),
        Digest::of(DEB)
    );
    let release = format!(
        "Suite: test\nSHA256:\n {} {} main/binary-armhf/Packages.gz\n",
        Digest::of(packages.as_bytes()),
        packages.len()
    );
    let files = [
        (format!("{MIRROR}/dists/test/Release"), release.into_bytes()),
        (
            format!("{MIRROR}/dists/test/main/binary-armhf/Packages.gz"),
            packages.into_bytes(),
        ),
        (format!("{MIRROR}/pool/thing_1.deb"), DEB.to_vec()),
        ("http://elsewhere/thing_1.deb".to_owned(), DEB.to_vec()),
        ("http://mirror/thing_1.deb".to_owned(), DEB.to_vec()),
    ];
    Fake {
        files: files.into_iter().collect(),
        ..Fake::default()
    }
}

fn fetched(http: &Fake, wanted: &Wanted<'_>) -> Result<Package, SourceError> {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    fetch(&store, http, &unpack, wanted, NOW)
}

#[test]
fn an_index_leads_nowhere_but_below_its_mirror() {
    let package = fetched(&mirror("pool/thing_1.deb"), &wanted()).unwrap();
    assert_eq!(package.url, format!("{MIRROR}/pool/thing_1.deb"));
    assert_eq!(package.files.len(), 1);
    for name in [
        "http://elsewhere/thing_1.deb",
        "../thing_1.deb",
        "/thing_1.deb",
        "//elsewhere/thing_1.deb",
        "pool/%2e%2e/thing_1.deb",
        "pool/../../thing_1.deb",
    ] {
        let http = mirror(name);
        let error = fetched(&http, &wanted()).unwrap_err();
        assert!(
            matches!(&error, SourceError::Damaged(text) if text.contains("below the mirror")),
            "{name}: {error}"
        );
        let asked = http.asked.lock().unwrap();
        assert!(!asked.iter().any(|url| url.ends_with(".deb")), "{asked:?}");
    }
}

#[test]
fn a_dsc_names_files_beside_it() {
    let orig = b"orig";
    let dsc =
        |name: &str| format!("Version: 1\nChecksums-Sha256:\n {} 4 {name}\n", Digest::of(orig)).into_bytes();
    for (name, fits) in [
        ("orig.tar", true),
        ("../orig.tar", false),
        ("a/../../orig.tar", false),
    ] {
        let bytes = dsc(name);
        let http = Fake {
            files: [
                (format!("{MIRROR}/pool/x.dsc"), bytes.clone()),
                (format!("{MIRROR}/pool/orig.tar"), orig.to_vec()),
                (format!("{MIRROR}/orig.tar"), orig.to_vec()),
            ]
            .into_iter()
            .collect(),
            ..Fake::default()
        };
        let url = format!("{MIRROR}/pool/x.dsc");
        let wanted = Wanted {
            arch: None,
            sha256: Some(Digest::of(&bytes)),
            url: Some(&url),
            ..wanted()
        };
        assert_eq!(fetched(&http, &wanted).is_ok(), fits, "{name}");
    }
}

#[test]
fn a_lock_names_an_address_without_a_user() {
    let http = mirror("pool/thing_1.deb");
    let at = |url| {
        fetched(
            &http,
            &Wanted {
                url: Some(url),
                ..wanted()
            },
        )
    };
    assert!(at("http://elsewhere/thing_1.deb").is_ok());
    for url in [
        "http://u:p@elsewhere/thing_1.deb",
        "file:///etc/passwd",
        "pool/thing_1.deb",
        "http://mirror/../x",
    ] {
        let error = at(url).unwrap_err().to_string();
        assert!(error.contains("lock file") && !error.contains("u:p"), "{error}");
    }
}

#[test]
fn a_suite_has_an_age() {
    let http = Fake::default();
    let current = |check: bool, text: &str| {
        let wanted = Wanted {
            check_valid_until: check,
            ..wanted()
        };
        let mirror = Mirror {
            http: &http,
            unpack: &unpack,
            wanted: &wanted,
            now: NOW,
        };
        mirror.current(text)
    };
    let past = "Date: Sat, 02 Nov 2024 10:11:26 UTC\nValid-Until: Sat, 09 Nov 2024 10:11:25 UTC\n";
    let now = "Date: Sat, 09 Nov 2024 10:11:30 UTC\nValid-Until: Sat, 09 Nov 2024 10:11:26 UTC\n";
    assert_eq!(current(true, now), Ok(()));
    assert_eq!(
        current(true, "Suite: test\n"),
        Ok(()),
        "stable suites say nothing"
    );
    let error = current(true, past).unwrap_err();
    assert!(matches!(error, SourceError::Expired(_)), "{error}");
    assert!(
        error.to_string().contains("Sat, 09 Nov 2024 10:11:25 UTC"),
        "{error}"
    );
    assert_eq!(current(false, past), Ok(()));
    for wrong in [
        "Date: Sat, 09 Nov 2024 11:11:26 UTC\n",
        "Valid-Until: soon\n",
        "Date: x\n",
    ] {
        assert!(
            matches!(current(true, wrong), Err(SourceError::Unverified(_))),
            "{wrong}"
        );
    }
    assert!(current(false, "Date: Sat, 09 Nov 2024 11:11:26 UTC\n").is_err());
}

#[test]
fn an_index_is_not_kept_whole() {
    let mut paragraphs = Paragraphs::of("thing");
    let other = format!("Package: other\nDescription: {}\n\n", "x".repeat(1000));
    for _ in 0..10_000 {
        paragraphs.take(other.as_bytes());
    }
    paragraphs.take(b"Version: 1\nPackage: thi");
    paragraphs.take(b"ng\nSize: 1\n");
    paragraphs.take(b"\nPackage: thing\nVersion: 2");
    assert!(paragraphs.found.capacity() + paragraphs.open.capacity() < 1 << 16);
    let text = paragraphs.finish().unwrap();
    assert_eq!(text.matches("Package: thing").count(), 2, "{text}");
    let mut paragraphs = Paragraphs::of("thing");
    for _ in 0..2000 {
        paragraphs.take(&[b'x'; 1000]);
    }
    assert!(matches!(paragraphs.finish(), Err(SourceError::TooMuch(_))));
}
