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
        needs: false,
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
    fetch(&store, &means(http, &Latest::default()), wanted)
}

fn means<'a>(http: &'a dyn Http, latest: &'a Latest) -> Means<'a> {
    Means {
        http,
        unpack: &unpack,
        latest,
        now: NOW,
    }
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
    let (http, latest) = (Fake::default(), Latest::default());
    let current = |check: bool, text: &str| {
        let wanted = Wanted {
            check_valid_until: check,
            ..wanted()
        };
        let mirror = Mirror {
            means: &means(&http, &latest),
            wanted: &wanted,
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

/// One command asks for many packages of one suite.
#[test]
fn an_index_is_read_once() {
    let http = mirror("pool/thing_1.deb");
    let latest = Latest::default();
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let fetch = |wanted: &Wanted<'_>| fetch(&store, &means(&http, &latest), wanted);
    for _ in 0..3 {
        assert_eq!(fetch(&wanted()).unwrap().needs, None);
    }
    let read = || {
        let asked = http.asked.lock().unwrap();
        let indexes = asked.iter().filter(|url| url.ends_with("Packages.gz"));
        indexes.count()
    };
    assert_eq!(read(), 1);
    // That of another mirror is another, and so is one that a pin does not vouch for.
    let elsewhere = Wanted {
        mirror: "http://elsewhere",
        ..wanted()
    };
    assert!(matches!(fetch(&elsewhere), Err(SourceError::Host(_))));
    fetch(&wanted()).unwrap();
    assert_eq!(read(), 2);
    let unpinned = Wanted {
        sha256: None,
        ..wanted()
    };
    assert!(fetch(&unpinned).is_err());
}

/// A pin vouches for the package alone: what it needs is believed of a signed index.
#[test]
fn what_a_package_needs_is_read_of_its_index() {
    let http = mirror("pool/thing_1.deb");
    let latest = Latest::default();
    let asking = Wanted {
        needs: true,
        ..wanted()
    };
    let means = means(&http, &latest);
    let mirror = Mirror {
        means: &means,
        wanted: &asking,
    };
    assert!(mirror.index().is_err(), "it is not signed");
    let index = |depends: &str| {
        let text = format!(
            "Package: thing\nVersion: 1\nArchitecture: armhf\nDepends: {depends}\nFilename: pool/thing_1.deb\nSize: {}\nSHA256: {}\n",
            DEB.len(),
            Digest::of(DEB)
        );
        let mut reader = Reader::default();
        reader.take(text.as_bytes());
        reader.finish().unwrap()
    };
    let found = mirror.found(&index("thing (= 1)")).unwrap();
    assert_eq!(found.needs.unwrap(), ["thing"]);
    let error = mirror.found(&index("thing, libgone (>= 2)")).err().unwrap();
    assert_eq!(
        error.to_string(),
        "thing needs libgone (>= 2), and the suite `test` has none"
    );
    let alone = wanted();
    let mirror = Mirror {
        means: &means,
        wanted: &alone,
    };
    assert!(mirror.found(&index("libgone")).unwrap().needs.is_none());
}
