//! Samples in archives and packages, listed samples that are nowhere, and secrets: the real executables on real archives.
#![allow(clippy::print_stderr, clippy::unwrap_used)]

use std::{
    collections::BTreeMap,
    fs,
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Command, Output, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use hotcell_schema::{digest::Digest, outcome::Status};
use hotcell_tests::{Lab, files_below};
use serde_json::{Value, json};

/// The archives that `hotcell-inspect` is tested with: `hello.txt`, `bin/elf` (for ARM) and an empty file, in each.
fn archive(name: &str) -> Vec<u8> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../runner/inspect/tests/archives");
    fs::read(format!("{folder}/{name}")).unwrap()
}

const PASSWORD: &str = "infected";
const HELLO: &[u8] = b"hello, archive\n";

fn manifest(lab: &Lab, sources: Value, samples: Value, more: Value) {
    let mut manifest = json!({
        "hotcell": 1,
        "name": "sources",
        "sources": sources,
        "samples": samples,
        "stages": {
            "look": {
                "uses": "inspect/elf",
                "for-each": {"sample": "samples.all"},
                "in": {"file": "${sample.file}"},
            },
        },
    });
    for (key, value) in more.as_object().unwrap() {
        manifest[key] = value.clone();
    }
    lab.manifest("sources.yaml", &manifest);
}

/// Runs with a variable that holds the password, and expects an exit code.
fn with_password(lab: &Lab, code: i32, args: &[&str]) -> String {
    let output = lab
        .command(args.iter().copied())
        .env("VAULT_PW", PASSWORD)
        .output()
        .unwrap();
    all_of(&output, code)
}

fn all_of(output: &Output, code: i32) -> String {
    let text = [&output.stdout[..], &output.stderr[..]].concat();
    let text = String::from_utf8(text).unwrap();
    assert_eq!(output.status.code(), Some(code), "{text}");
    text
}

#[test]
fn samples_stand_in_encrypted_archives() {
    let places = [
        ("zipcrypto.zip", json!({"env": "VAULT_PW"})),
        ("aes.zip", json!({"file": "private/pw"})),
        ("aes.7z", json!({"command": ["cat", "private/pw"]})),
        ("headers.7z", json!({"env": "VAULT_PW"})),
    ];
    for (name, place) in places {
        let lab = Lab::new();
        lab.write(&format!("vault/{name}"), archive(name));
        lab.write("private/pw", format!("{PASSWORD}\n"));
        manifest(
            &lab,
            json!({"vault": {"kind": "archive", "path": "vault/*", "password": {"secret": "pw"}}}),
            json!({
                "all": {"glob": "bin/*", "source": "vault", "family": "none"},
                "listed": {"digests": [Digest::of(HELLO)], "source": "vault"},
            }),
            json!({
                "secrets": {"pw": place},
                "stages": {
                    "look": {
                        "uses": "inspect/elf",
                        "for-each": {"sample": {"over": ["samples.all", "samples.listed"]}},
                        "in": {"file": "${sample.file}"},
                    },
                },
            }),
        );
        // Looking writes nothing.
        let planned = with_password(&lab, 0, &["plan", "sources.yaml"]);
        assert!(planned.contains("2 to run"), "{name}: {planned}");
        assert!(
            !lab.path("store").exists() && !lab.path(".hotcell").exists(),
            "{name}"
        );

        let mut said = with_password(&lab, 0, &["run", "sources.yaml"]);
        let run = lab.latest();
        assert!(run.all_ok(), "{name}");
        let looked: Vec<Value> = run
            .stage("look")
            .map(|instance| serde_json::from_slice(&run.output(instance, "info")).unwrap())
            .collect();
        assert_eq!(looked[0]["arch"], "arm", "{name}");
        assert_eq!(looked[1]["sha256"], Digest::of(HELLO).to_string(), "{name}");
        let samples: Vec<_> = run
            .report
            .samples
            .values()
            .map(|sample| (sample.name.as_str(), sample.arch.as_deref(), sample.length))
            .collect();
        assert_eq!(samples[1], ("hello.txt", None, 15));
        assert_eq!((samples[0].0, samples[0].1), ("elf", Some("arm")));

        // The index is stored: a second run neither unpacks nor asks for the password, and runs nothing.
        fs::remove_file(lab.path("private/pw")).unwrap();
        lab.forget_latest();
        said += &all_of(&lab.hotcell(["run", "sources.yaml"]), 0);
        assert_eq!(
            lab.latest().statuses(),
            BTreeMap::from([("cached".to_owned(), 2)]),
            "{name}"
        );
        assert_eq!(run.result(), lab.latest().result(), "{name}");

        assert!(!said.contains(PASSWORD), "{said}");
        for folder in ["store", ".hotcell"] {
            for (path, bytes) in files_below(&lab.path(folder)) {
                let found = bytes
                    .windows(PASSWORD.len())
                    .any(|word| word == PASSWORD.as_bytes());
                assert!(!found, "{name}: {folder}/{path} holds the password");
            }
        }
    }
}

#[test]
fn what_is_wrong_with_a_password_is_told_apart_and_never_shown() {
    let lab = Lab::new();
    lab.write("vault/a.zip", archive("aes.zip"));
    lab.write("private/wrong", "hunter2-hunter2\n");
    let vault = json!({"kind": "archive", "path": "vault/*.zip", "password": {"secret": "pw"}});
    let all = json!({"all": {"glob": "**", "source": "vault"}});
    let with = |source: Value, secrets: Value| {
        manifest(
            &lab,
            json!({"vault": source}),
            all.clone(),
            json!({"secrets": secrets}),
        );
        all_of(&lab.hotcell(["validate", "sources.yaml"]), 2)
    };
    let wrong = with(vault.clone(), json!({"pw": {"file": "private/wrong"}}));
    assert!(
        wrong.contains("E0309") && wrong.contains("the password does not open it"),
        "{wrong}"
    );
    assert!(!wrong.contains("hunter2"), "{wrong}");
    let none = with(json!({"kind": "archive", "path": "vault/*.zip"}), json!({}));
    assert!(
        none.contains("E0309") && none.contains("names no password"),
        "{none}"
    );
    let unset = with(vault.clone(), json!({"pw": {"env": "VAULT_PW"}}));
    assert!(
        unset.contains("E0322") && unset.contains("VAULT_PW is not set"),
        "{unset}"
    );
    let fails = with(
        vault.clone(),
        json!({"pw": {"command": ["sh", "-c", "echo hunter2; exit 7"]}}),
    );
    assert!(
        fails.contains("exit status: 7") && !fails.contains("hunter2\n"),
        "{fails}"
    );
    let unknown = with(vault.clone(), json!({"pv": {"env": "VAULT_PW"}}));
    assert!(
        unknown.contains("E0320") && unknown.contains("did you mean `pv`"),
        "{unknown}"
    );
    let twice = with(vault.clone(), json!({"pw": {"env": "VAULT_PW", "file": "x"}}));
    assert!(twice.contains("E0321"), "{twice}");
    let literal = with(
        json!({"kind": "archive", "path": "vault/*.zip", "password": "x"}),
        json!({}),
    );
    assert!(literal.contains("a secret is written out"), "{literal}");
    let keys = with(json!({"kind": "archive"}), json!({}));
    assert!(keys.contains("E0311"), "{keys}");
}

#[test]
fn archives_that_cannot_be_read_say_why() {
    let lab = Lab::new();
    lab.write("vault/a.zip", archive("deflate.zip"));
    let all = |glob: &str| json!({"all": {"glob": glob, "source": "vault"}});
    let vault = json!({"vault": {"kind": "archive", "path": "vault/*"}});
    manifest(&lab, vault.clone(), all("bin/*.exe"), json!({}));
    let nothing = all_of(&lab.hotcell(["run", "sources.yaml"]), 2);
    assert!(
        nothing.contains("E0302") && nothing.contains("no file fits"),
        "{nothing}"
    );

    manifest(&lab, vault, all("**"), json!({}));
    let mut damaged = archive("deflate.zip");
    let middle = damaged.len() / 4;
    damaged[middle] ^= 0xff;
    for (name, bytes, says) in [
        ("vault/b.zip", damaged, "damaged"),
        (
            "vault/b.rar",
            b"Rar!\x1a\x07\x01\x00".to_vec(),
            "no archive of a known format",
        ),
        ("vault/b.7z", archive("lzma.7z")[..200].to_vec(), "damaged"),
    ] {
        lab.write(name, bytes);
        let text = all_of(&lab.hotcell(["run", "sources.yaml"]), 2);
        assert!(
            text.contains("E0308") && text.contains(says) && text.contains(name),
            "{text}"
        );
        fs::remove_file(lab.path(name)).unwrap();
    }
    // An archive that changes after it was looked at is another archive.
    lab.run("sources.yaml", &[]);
    lab.write("vault/a.zip", archive("names.zip"));
    lab.run("sources.yaml", &[]);
    let names: Vec<String> = lab
        .latest()
        .report
        .samples
        .into_values()
        .map(|sample| sample.name)
        .collect();
    assert_eq!(
        names,
        [
            "up", "passwd", "b", "same", "same", "dows.exe", "grüße", "linefeed", " "
        ]
    );
}

#[test]
fn absent_samples_are_skipped_or_required() {
    let lab = Lab::new();
    lab.write("vault/a.7z", archive("lzma2.7z"));
    let gone = Digest::of(b"gone");
    lab.write(
        "corpus.csv",
        format!(
            "path,sha256,family\nhello.txt,{},a\n,{gone},b\nno/such,{},c\n",
            Digest::of(HELLO),
            Digest::of(b"moved")
        ),
    );
    let vault = json!({"vault": {"kind": "archive", "path": "vault/*.7z"}});
    manifest(
        &lab,
        vault.clone(),
        json!({"all": {"list": "corpus.csv", "source": "vault"}}),
        json!({"expect": [{"stage": "look", "where": "sample.family != 'a'", "hits": {"none": ["elf/no-loaded-segment"]}}]}),
    );
    let text = all_of(&lab.hotcell(["run", "sources.yaml"]), 0);
    assert!(
        text.contains("E0314") && text.contains("2 of 3 samples of the set `all` are absent"),
        "{text}"
    );
    let run = lab.latest();
    let skipped: Vec<_> = run
        .stage("look")
        .filter(|instance| instance.status == Status::Skipped)
        .map(|instance| instance.reason.as_deref())
        .collect();
    assert_eq!(skipped, [Some("absent"), Some("absent")]);
    // What did not run is not judged.
    all_of(&lab.hotcell(["test", "sources.yaml"]), 5);
    for command in ["run", "test", "plan", "validate"] {
        let text = all_of(&lab.hotcell([command, "sources.yaml", "--require-samples"]), 2);
        assert!(
            text.contains(&gone.short()) && text.contains("no/such"),
            "{command}: {text}"
        );
        assert_eq!(text.matches("error[E0314]").count(), 2, "{command}: {text}");
    }
    // The same in a folder.
    lab.write("folder/x", HELLO);
    manifest(
        &lab,
        json!({"vault": {"kind": "folder", "path": "folder"}}),
        json!({"all": {"digests": [Digest::of(HELLO), gone], "source": "vault"}}),
        json!({}),
    );
    let run = lab.run("sources.yaml", &[]);
    assert_eq!(run.statuses().get("skipped"), Some(&1));
}

#[test]
fn packages_that_are_files() {
    let lab = Lab::new();
    for name in ["gzip.deb", "xz.deb", "zstd.deb"] {
        let lab = Lab::new();
        lab.write("packages/a.deb", archive(name));
        manifest(
            &lab,
            json!({"debs": {"kind": "debian", "path": "packages/*.deb"}}),
            json!({"all": {"glob": "{bin,DEBIAN}/*", "source": "debs"}}),
            json!({}),
        );
        let run = lab.run("sources.yaml", &[]);
        let names: Vec<_> = run
            .report
            .samples
            .values()
            .map(|sample| sample.name.as_str())
            .collect();
        assert_eq!(names, ["control", "elf"], "{name}");
    }
    // A source package: its `.dsc` says what belongs to it.
    lab.write("src/x_1.orig.tar.gz", archive("tar.gz"));
    let digest = Digest::of(&archive("tar.gz"));
    let dsc = format!("Source: x\nVersion: 1\nChecksums-Sha256:\n {digest} 739 x_1.orig.tar.gz\n");
    lab.write("src/x_1.dsc", &dsc);
    manifest(
        &lab,
        json!({"src": {"kind": "debian-source", "path": "src/*.dsc"}}),
        json!({"all": {"glob": "*", "source": "src"}}),
        json!({}),
    );
    let run = lab.run("sources.yaml", &[]);
    assert_eq!(run.report.samples.len(), 2);
    lab.write("src/x_1.orig.tar.gz", b"another");
    let text = all_of(&lab.hotcell(["run", "sources.yaml"]), 2);
    assert!(text.contains("E0304"), "{text}");
}

/// A mirror on this host, without keys.
struct Mirror {
    address: String,
    asked: Arc<AtomicUsize>,
}

impl Mirror {
    fn new(files: BTreeMap<String, Vec<u8>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut request = Vec::new();
                let mut byte = [0];
                while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() == 1 {
                    request.push(byte[0]);
                }
                let request = String::from_utf8(request).unwrap();
                let path = request
                    .split(' ')
                    .nth(1)
                    .unwrap()
                    .trim_start_matches('/')
                    .to_owned();
                count.fetch_add(1, Ordering::SeqCst);
                let (status, body) = match files.get(&path) {
                    Some(body) => ("200 OK", body.as_slice()),
                    None => ("404 Not Found", &b""[..]),
                };
                // A body that begins so stands for a redirect.
                let (status, location) = match body.strip_prefix(b"to ") {
                    Some(to) => (
                        "302 Found",
                        format!("Location: {}\r\n", String::from_utf8_lossy(to)),
                    ),
                    None => (status, String::new()),
                };
                let head = format!(
                    "HTTP/1.1 {status}\r\n{location}Content-Length: {}\r\nConnection: close\r\n\r\n",
                    body.len()
                );
                stream.write_all(head.as_bytes()).unwrap();
                stream.write_all(body).unwrap();
            }
        });
        Self { address, asked }
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

fn gzip(text: &str) -> Vec<u8> {
    let mut child = Command::new("gzip")
        .arg("-nc")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    child.wait_with_output().unwrap().stdout
}

/// A mirror with one package in two versions, and its source.
fn mirror() -> Mirror {
    mirror_with([])
}

/// The same with further files.
fn mirror_with<const N: usize>(more: [(&str, String); N]) -> Mirror {
    let mut files = BTreeMap::new();
    let (new, old, orig) = (archive("xz.deb"), archive("gzip.deb"), archive("tar.gz"));
    let binary = |version: &str, bytes: &[u8]| {
        format!(
            "Package: other\nVersion: 9\nArchitecture: armhf\nFilename: x\nSize: 1\nSHA256: x\n\nPackage: thing\nVersion: {version}\nArchitecture: armhf\nFilename: pool/t/thing_{version}_armhf.deb\nSize: {}\nSHA256: {}\n\n",
            bytes.len(),
            Digest::of(bytes)
        )
    };
    let packages = gzip(&(binary("1.10-1", &new) + &binary("1.9-1", &old)));
    let dsc = format!(
        "Source: thing\nVersion: 1.10-1\nChecksums-Sha256:\n {} {} thing_1.10.orig.tar.gz\n",
        Digest::of(&orig),
        orig.len()
    );
    let sources = gzip(&format!(
        "Package: thing\nVersion: 1.10-1\nDirectory: pool/t\nChecksums-Sha256:\n {} {} thing_1.10-1.dsc\n {} {} thing_1.10.orig.tar.gz\n",
        Digest::of(dsc.as_bytes()),
        dsc.len(),
        Digest::of(&orig),
        orig.len()
    ));
    let release = format!(
        "Suite: test\nCodename: test\nSHA256:\n {} {} main/binary-armhf/Packages.gz\n {} {} main/source/Sources.gz\n",
        Digest::of(&packages),
        packages.len(),
        Digest::of(&sources),
        sources.len()
    );
    for (path, bytes) in [
        ("dists/test/Release", release.into_bytes()),
        ("dists/test/main/binary-armhf/Packages.gz", packages),
        ("dists/test/main/source/Sources.gz", sources),
        ("pool/t/thing_1.10-1_armhf.deb", new),
        ("pool/t/thing_1.9-1_armhf.deb", old),
        ("pool/t/thing_1.10-1.dsc", dsc.into_bytes()),
        ("pool/t/thing_1.10.orig.tar.gz", orig),
    ] {
        files.insert(path.to_owned(), bytes);
    }
    for (path, text) in more {
        files.insert(path.to_owned(), text.into_bytes());
    }
    Mirror::new(files)
}

#[test]
fn packages_are_fetched_once_and_only_when_something_vouches_for_them() {
    let mirror = mirror();
    let lab = Lab::new();
    let source = |more: Value| {
        let mut source = json!({
            "kind": "debian", "package": "thing", "arch": "armhf", "suite": "test", "mirror": mirror.address,
        });
        for (key, value) in more.as_object().unwrap() {
            source[key] = value.clone();
        }
        manifest(
            &lab,
            json!({"thing": source}),
            json!({"all": {"glob": "bin/*", "source": "thing"}}),
            json!({}),
        );
    };
    // Nothing vouches for it.
    source(json!({}));
    let text = all_of(&lab.hotcell(["run", "sources.yaml"]), 2);
    assert!(text.contains("E0315") || text.contains("E0316"), "{text}");
    source(json!({"sha256": Digest::of(b"another")}));
    let text = all_of(&lab.hotcell(["run", "sources.yaml"]), 2);
    assert!(text.contains("E0312") && text.contains("pinned"), "{text}");

    // A pinned digest does. Looking fetches nothing, and says what would be.
    source(json!({"sha256": Digest::of(&archive("xz.deb"))}));
    let before = mirror.asked();
    for command in ["plan", "validate"] {
        let text = all_of(&lab.hotcell([command, "sources.yaml"]), 0);
        assert!(text.contains("E0313") && text.contains("thing (armhf)"), "{text}");
    }
    assert_eq!(mirror.asked(), before);
    let run = lab.run("sources.yaml", &[]);
    assert_eq!(run.report.samples.values().next().unwrap().name, "elf");
    let after = mirror.asked();
    assert!(after > before);
    // It is stored from now on, for those who look too.
    lab.run("sources.yaml", &[]);
    let planned = all_of(&lab.hotcell(["plan", "sources.yaml"]), 0);
    assert!(planned.contains("1 stored"), "{planned}");
    assert_eq!(mirror.asked(), after);

    // The version that is asked for, not the newest.
    source(json!({"version": "1.9-1", "sha256": Digest::of(&archive("gzip.deb"))}));
    lab.run("sources.yaml", &[]);
    source(json!({"version": "1.11-1", "sha256": Digest::of(&archive("gzip.deb"))}));
    let text = all_of(&lab.hotcell(["run", "sources.yaml"]), 2);
    assert!(text.contains("does not have thing 1.11-1"), "{text}");
}

#[test]
fn source_packages_are_fetched_with_what_they_name() {
    let mirror = mirror();
    let lab = Lab::new();
    let dsc = format!(
        "Source: thing\nVersion: 1.10-1\nChecksums-Sha256:\n {} {} thing_1.10.orig.tar.gz\n",
        Digest::of(&archive("tar.gz")),
        archive("tar.gz").len()
    );
    manifest(
        &lab,
        json!({"thing": {
            "kind": "debian-source", "package": "thing", "suite": "test", "mirror": mirror.address,
            "sha256": Digest::of(dsc.as_bytes()),
        }}),
        json!({"all": {"glob": "*", "source": "thing"}}),
        json!({}),
    );
    let run = lab.run("sources.yaml", &[]);
    let names: Vec<_> = run
        .report
        .samples
        .values()
        .map(|sample| sample.name.as_str())
        .collect();
    assert_eq!(names, ["thing_1.10-1.dsc", "thing_1.10.orig.tar.gz"]);
    assert!(run.all_ok());
}

/// Why Debian's mirror cannot be used on this host.
fn no_debian() -> Option<String> {
    let there = |program: &str| Command::new(program).arg("--version").output();
    if there("gpgv").is_err() {
        return Some("gpgv is not installed".into());
    }
    if !Path::new("/usr/share/keyrings/debian-archive-keyring.gpg").exists() {
        return Some("debian-archive-keyring is not installed".into());
    }
    let proxy = ["http_proxy", "HTTP_PROXY"]
        .iter()
        .find_map(|name| std::env::var(name).ok());
    let proxy = proxy.filter(|proxy| !proxy.is_empty());
    let to = proxy.as_deref().map_or("deb.debian.org:80", |proxy| {
        let proxy = proxy
            .strip_prefix("http://")
            .unwrap_or(proxy)
            .trim_end_matches('/');
        proxy.rsplit_once('@').map_or(proxy, |(_, host)| host)
    });
    let asked = TcpStream::connect(to).and_then(|mut stream| {
        stream.set_read_timeout(Some(std::time::Duration::from_secs(20)))?;
        let page = "http://deb.debian.org/debian/dists/bookworm/Release";
        write!(stream, "HEAD {page} HTTP/1.0\r\nHost: deb.debian.org\r\n\r\n")?;
        let mut answer = Vec::new();
        stream.take(4096).read_to_end(&mut answer)?;
        Ok(String::from_utf8_lossy(&answer)
            .lines()
            .next()
            .unwrap_or_default()
            .to_owned())
    });
    match asked {
        Ok(line) if line.contains(" 200") => None,
        Ok(line) => Some(format!("deb.debian.org answers {line:?}")),
        Err(error) => Some(format!("deb.debian.org cannot be reached: {error}")),
    }
}

#[test]
fn a_mirror_leads_only_to_itself_and_names_nobody() {
    let run = |mirror: &Mirror, code: i32, address: &str| {
        let lab = Lab::new();
        manifest(
            &lab,
            json!({"thing": {
                "kind": "debian", "package": "thing", "arch": "armhf", "suite": "test", "mirror": address,
                "sha256": Digest::of(&archive("xz.deb")),
            }}),
            json!({"all": {"glob": "bin/*", "source": "thing"}}),
            json!({}),
        );
        let before = mirror.asked();
        let text = all_of(&lab.hotcell(["run", "sources.yaml"]), code);
        (text, mirror.asked() - before)
    };
    let plain = mirror();
    let elsewhere = |path: &str| format!("to {}/{path}", plain.address);
    let deb = "pool/t/thing_1.10-1_armhf.deb";
    // Within itself: another file, which is followed to, and is not the one that the index knows.
    let moved = mirror_with([
        (deb, "to /moved".into()),
        ("moved", "to pool/t/thing_1.9-1_armhf.deb".into()),
    ]);
    let (text, _) = run(&moved, 2, &moved.address);
    assert!(text.contains("larger than"), "{text}");
    let moved = mirror_with([
        ("dists/test/Release", "to /dists/really/Release".into()),
        ("dists/really/Release", "to ../../loop".into()),
        ("loop", "to /loop".into()),
    ]);
    let (text, asked) = run(&moved, 2, &moved.address);
    assert!(
        text.contains("more than 5 redirects") && asked < 20,
        "{asked}: {text}"
    );
    // Over HTTP to another host: who stands between could lead anywhere, into this network too.
    let strays = mirror_with([(deb, elsewhere(deb))]);
    let before = plain.asked();
    let (text, _) = run(&strays, 2, &strays.address);
    assert!(
        text.contains("E0316") && text.contains("where nothing is fetched from"),
        "{text}"
    );
    assert_eq!(plain.asked(), before);
    // A user and a password in an address are secrets, and are told as such.
    let secret = plain.address.replace("http://", "http://bob:hunter2@");
    let (text, asked) = run(&plain, 2, &secret);
    assert!(text.contains("E0109") && !text.contains("hunter2"), "{text}");
    assert_eq!(asked, 0);
    run(&plain, 0, &plain.address);
}

/// Debian's own mirror and keys. `cargo test -p hotcell-tests --test sources -- --ignored`
#[test]
#[ignore = "needs the network, gpgv and debian-archive-keyring"]
fn a_package_of_debian_is_fetched_and_verified() {
    if let Some(why) = no_debian() {
        eprintln!("SKIPPED: {why}");
        return;
    }
    let lab = Lab::new();
    manifest(
        &lab,
        json!({
            "busybox": {"kind": "debian", "package": "busybox-static", "arch": "armhf", "suite": "bookworm", "mirror": "http://deb.debian.org/debian"},
            "hello": {"kind": "debian-source", "package": "hello", "suite": "bookworm", "mirror": "https://deb.debian.org/debian"},
        }),
        json!({
            "all": {"glob": "bin/busybox", "source": "busybox"},
            "source": {"glob": "*", "source": "hello"},
        }),
        json!({}),
    );
    let output = lab
        .command(["run", "sources.yaml"])
        .envs(std::env::vars().filter(|(name, _)| name.contains("proxy") || name.starts_with("SSL_CERT")))
        .output()
        .unwrap();
    all_of(&output, 0);
    let run = lab.latest();
    assert_eq!(run.report.samples.len(), 4, "{:?}", run.report.samples);
    assert_eq!(
        run.report.samples.values().next().unwrap().arch.as_deref(),
        Some("arm")
    );
}

/// The root of a dynamically linked program of another architecture, from Debian's mirror by names alone.
#[test]
#[ignore = "needs the network, gpgv and debian-archive-keyring"]
fn a_root_of_several_packages_is_fetched_and_pinned() {
    if let Some(why) = no_debian() {
        eprintln!("SKIPPED: {why}");
        return;
    }
    let lab = Lab::new();
    let mirror = "http://deb.debian.org/debian";
    lab.manifest(
        "root.yaml",
        &json!({
            "hotcell": 1,
            "sources": {"root": {
                "kind": "debian", "packages": ["libc6", "dash"], "arch": "s390x", "suite": "bookworm", "mirror": mirror,
            }},
            "samples": {"shell": {"glob": "bin/dash", "source": "root"}},
            "stages": {"run": {
                "uses": "unicorn/linux",
                "for-each": {"sample": "samples.shell"},
                "in": {"file": "${sample.file}"},
                "with": {"sysroot": ["root"], "args": ["-c", "cd /etc && echo $((6 * 7))"]},
            }},
        }),
    );
    let hotcell = |args: &[&str]| {
        let output = lab
            .command(args.iter().copied())
            .envs(std::env::vars().filter(|(name, _)| name.contains("proxy") || name.starts_with("SSL_CERT")))
            .output()
            .unwrap();
        all_of(&output, 0)
    };
    hotcell(&["run", "root.yaml"]);
    let run = lab.latest();
    assert_eq!(run.output(run.stage("run").next().unwrap(), "stdout"), b"42\n");
    hotcell(&["lock", "root.yaml"]);
    let lock = fs::read_to_string(lab.path("hotcell.lock")).unwrap();
    assert!(
        lock.contains("\"root/dash\" = \"dash ") && lock.contains("\"root/libc6\" = \"libc6 "),
        "{lock}"
    );
    hotcell(&["run", "root.yaml", "--locked"]);
}
