//! Roots of guests: folders, archives and Debian packages under real programs of five architectures, and dynamically linked ones.
#![allow(clippy::print_stderr, clippy::unwrap_used)]

use std::{
    fs::{self, Permissions},
    os::unix::fs::{PermissionsExt as _, symlink},
    path::Path,
    process::Command,
};

use hotcell_tests::{Busybox, Lab, busybox};
use serde_json::{Value, json};

const SCRIPT: &str = "#! /bin/sh -e
cat /opt/file /opt/hard /opt/soft /opt/over /opt/zipped
readlink /bin; ls -ld /opt/open /opt/locked | cut -c1-10
echo kept > /var/lib/mark; cat /tmp/var/lib/mark
echo changed > /opt/file; cat /opt/file /opt/hard
";

/// A script needs the shell of its root; the root is a folder with the links of a merged `/usr`, a tar, and a Debian package
/// over both.
fn with_roots(lab: &Lab, all: &[Busybox]) -> Value {
    let mut sources = json!({
        "files": {"kind": "archive", "path": "files.tar.gz"},
        "package": {"kind": "debian", "path": "debs/*.deb"},
        "zipped": {"kind": "archive", "path": "linked.zip"},
    });
    for one in all {
        let root = lab.path(&format!("roots/{}", one.arch));
        fs::create_dir_all(root.join("usr/bin")).unwrap();
        symlink("usr/bin", root.join("bin")).unwrap();
        symlink("tmp/var", root.join("var")).unwrap();
        symlink("tmp/etc", root.join("etc")).unwrap();
        let program = root.join("usr/bin/busybox");
        fs::copy(&one.path, &program).unwrap();
        fs::set_permissions(&program, Permissions::from_mode(0o755)).unwrap();
        for applet in ["sh", "cat", "readlink", "ls", "cut"] {
            symlink("busybox", root.join("usr/bin").join(applet)).unwrap();
        }
        sources[format!("root-{}", one.arch)] =
            json!({"kind": "folder", "path": format!("roots/{}", one.arch)});
    }
    let files = lab.path("files");
    let opt = files.join("opt");
    fs::create_dir_all(opt.join("open")).unwrap();
    fs::create_dir_all(opt.join("locked")).unwrap();
    fs::set_permissions(opt.join("open"), Permissions::from_mode(0o1777)).unwrap();
    fs::set_permissions(opt.join("locked"), Permissions::from_mode(0o700)).unwrap();
    fs::write(opt.join("file"), "a file\n").unwrap();
    fs::write(opt.join("over"), "of the tar\n").unwrap();
    fs::hard_link(opt.join("file"), opt.join("hard")).unwrap();
    symlink("/opt/file", opt.join("soft")).unwrap();
    done(
        Command::new("tar")
            .arg("-czf")
            .arg(lab.path("files.tar.gz"))
            .arg("-C")
            .arg(&files)
            .arg("."),
    );
    // A link in a ZIP is a file of its kind with the target as content.
    let zip = "import sys, zipfile\nentry = zipfile.ZipInfo('opt/zipped')\nentry.create_system, entry.external_attr = 3, 0o120777 << 16\nwith zipfile.ZipFile(sys.argv[1], 'w') as out: out.writestr(entry, '/opt/over')\n";
    done(
        Command::new("python3")
            .args(["-c", zip])
            .arg(lab.path("linked.zip")),
    );
    lab.write(
        "deb/DEBIAN/control",
        "Package: over\nVersion: 1\nArchitecture: all\nMaintainer: nobody\nDescription: x\n",
    );
    lab.write("deb/opt/over", "of the package\n");
    fs::create_dir_all(lab.path("debs")).unwrap();
    done(
        Command::new("dpkg-deb")
            .args(["--root-owner-group", "-b"])
            .arg(lab.path("deb"))
            .arg(lab.path("debs")),
    );
    sources
}

fn done(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

fn has_dpkg() -> bool {
    let there = Path::new("/usr/bin/dpkg-deb").exists();
    if !there {
        eprintln!("SKIPPED: this host has no dpkg-deb, which makes the package");
    }
    there
}

/// One busybox for each arch profile.
fn programs() -> Option<Vec<Busybox>> {
    let mut all = busybox()?;
    all.dedup_by_key(|one| one.arch);
    Some(all)
}

fn manifest(lab: &Lab, sources: Value, all: &[Busybox]) {
    let archs: Vec<&str> = all.iter().map(|one| one.arch).collect();
    lab.manifest(
        "roots.yaml",
        &json!({
            "hotcell": 1,
            "name": "roots",
            "sources": sources,
            "samples": {"scripts": {"glob": "script.sh"}},
            "stages": {"run": {
                "uses": "unicorn/linux",
                "for-each": {"sample": "samples.scripts", "arch": archs},
                "in": {"file": "${sample.file}"},
                "with": {"arch": "${arch}", "sysroot": ["root-${arch}", "files", "package", "zipped"]},
            }},
        }),
    );
}

#[test]
fn a_script_finds_its_shell_in_a_root_of_several_sources() {
    let Some(all) = programs().filter(|_| has_dpkg()) else {
        return;
    };
    let lab = Lab::new();
    lab.write("script.sh", SCRIPT);
    let sources = with_roots(&lab, &all);
    manifest(&lab, sources, &all);
    let run = lab.run("roots.yaml", &[]);
    assert!(run.all_ok());
    assert_eq!(run.stage("run").count(), all.len());
    for instance in run.stage("run") {
        let stderr = String::from_utf8(run.output(instance, "stderr")).unwrap();
        assert_eq!(stderr, "", "{}", instance.name);
        // A hard link is a file of its own: what is said of the one is not said of the other.
        assert_eq!(
            String::from_utf8(run.output(instance, "stdout")).unwrap(),
            "a file\na file\na file\nof the package\nof the package\nusr/bin\ndrwx------\ndrwxrwxrwt\nkept\nchanged\na file\n",
            "{}",
            instance.name
        );
    }
    // What the root had, moved or not, is none of the guest's work.
    for instance in run.stage("run") {
        let left: Value = serde_json::from_slice(&run.output(instance, "files")).unwrap();
        let left = left["files"].as_array().unwrap().iter();
        let paths: Vec<&str> = left.map(|file| file["path"].as_str().unwrap()).collect();
        assert_eq!(paths, ["/opt/file", "/tmp/var/lib/mark"], "{}", instance.name);
    }
    // The plan says what the root is, and not name by name.
    let plan = fs::read(run.folder.join("plan.json")).unwrap();
    let plan: Value = serde_json::from_slice(&plan).unwrap();
    let (_, root) = plan["sysroots"].as_object().unwrap().iter().next().unwrap();
    assert!(
        root["names"].as_u64().unwrap() > 10 && root.get("entries").is_none(),
        "{root}"
    );
    // Nothing changed: nothing runs. One file of one root: one instance runs.
    lab.expect(0, ["lock", "roots.yaml"]);
    lab.forget_latest();
    let again = lab.run("roots.yaml", &[]);
    run.assert_same_result(&again, "nothing changed");
    assert_eq!(again.statuses().get("cached"), Some(&all.len()));
    lab.write(&format!("roots/{}/srv/new", all[0].arch), "x");
    let (_, differences) = lab.expect(2, ["lock", "roots.yaml", "--check"]);
    assert!(
        differences.contains(&format!("root-{}+files+package+zipped", all[0].arch)),
        "{differences}"
    );
    let changed = lab.run("roots.yaml", &[]);
    assert_eq!(changed.statuses().get("cached"), Some(&(all.len() - 1)));
    assert_eq!(changed.statuses().get("ok"), Some(&1));
}

#[test]
fn what_is_wrong_with_a_root_is_said_where_it_is_named() {
    let lab = Lab::new();
    lab.write("script.sh", "#!/bin/sh\n");
    lab.write("ok/etc/x", "x");
    fs::create_dir_all(lab.path("outside")).unwrap();
    lab.write("outside/evil", "x");
    done(
        Command::new("tar")
            .args([
                "-cPf",
                "evil.tar",
                "--transform",
                "s,^outside,../..,",
                "outside/evil",
            ])
            .current_dir(lab.path("")),
    );
    let cases = [
        (
            json!({"ok": {"kind": "folder", "path": "ok"}}),
            json!(["okk"]),
            "there is no source `okk`",
            "did you mean `ok`?",
        ),
        (
            json!({"no": {"kind": "folder", "path": "no-such"}}),
            json!(["no"]),
            "cannot read no-such",
            "",
        ),
        (
            json!({"src": {"kind": "debian-source", "path": "*.dsc"}}),
            json!(["src"]),
            "`src` is a source package, and no root of a guest",
            "take a source of kind",
        ),
        (
            json!({"evil": {"kind": "archive", "path": "evil.tar"}}),
            json!(["evil"]),
            "evil.tar has the name `../../evil`, which is no path of a root",
            "",
        ),
    ];
    for (sources, sysroot, title, help) in cases {
        lab.manifest(
            "wrong.yaml",
            &json!({
                "hotcell": 1,
                "sources": sources,
                "samples": {"scripts": {"glob": "script.sh"}},
                "stages": {"run": {
                    "uses": "unicorn/linux",
                    "for-each": {"sample": "samples.scripts"},
                    "in": {"file": "${sample.file}"},
                    "with": {"arch": "x86_64", "sysroot": sysroot},
                }},
            }),
        );
        let (_, said) = lab.expect(2, ["plan", "wrong.yaml"]);
        assert!(said.contains(title) && said.contains(help), "{said}");
        assert!(said.contains("wrong.yaml:"), "{said}");
    }
    // Without a root the outcome says what is missing.
    lab.manifest(
        "none.yaml",
        &json!({
            "hotcell": 1,
            "samples": {"scripts": {"glob": "script.sh"}},
            "stages": {"run": {
                "uses": "unicorn/linux",
                "for-each": {"sample": "samples.scripts"},
                "in": {"file": "${sample.file}"},
                "with": {"arch": "x86_64"},
            }},
        }),
    );
    lab.expect(5, ["run", "none.yaml"]);
    let run = lab.latest();
    let outcome = run
        .stage("run")
        .next()
        .unwrap()
        .outcome
        .as_ref()
        .unwrap()
        .to_string();
    assert!(
        outcome.contains("it is a script, and its interpreter /bin/sh cannot be run: ENOENT"),
        "{outcome}"
    );
}

/// The programs of this host, where it is a Debian for x86_64.
#[test]
fn dynamically_linked_programs_find_their_libraries() {
    const FILES: [&str; 4] = [
        "/lib64/ld-linux-x86-64.so.2",
        "/lib/x86_64-linux-gnu/libc.so.6",
        "/lib/x86_64-linux-gnu/libtinfo.so.6",
        "/bin/bash",
    ];
    if !cfg!(target_arch = "x86_64") || !FILES.iter().all(|file| Path::new(file).exists()) {
        eprintln!("SKIPPED: this host has no dynamically linked bash for x86_64");
        return;
    }
    let lab = Lab::new();
    for file in FILES {
        let to = lab.path(&format!("root{file}"));
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(file, &to).unwrap();
        fs::set_permissions(&to, Permissions::from_mode(0o755)).unwrap();
    }
    lab.write(
        "script",
        "#!/bin/bash\ndeclare -A m=([a]=1 [b]=2)\nfor i in {1..4}; do echo $((i * i)); done | { s=0; while read n; do s=$((s + n)); done; echo $s ${#m[@]}; }\n",
    );
    lab.manifest(
        "dynamic.yaml",
        &json!({
            "hotcell": 1,
            "sources": {"host": {"kind": "folder", "path": "root"}},
            "samples": {"scripts": {"glob": "script"}},
            "stages": {"run": {
                "uses": "unicorn/linux",
                "for-each": {"sample": "samples.scripts"},
                "in": {"file": "${sample.file}"},
                "with": {"arch": "x86_64", "sysroot": ["host"], "library-calls": true},
            }},
        }),
    );
    let run = lab.run("dynamic.yaml", &[]);
    let instance = run.stage("run").next().unwrap();
    // What it calls in its libraries, from the first call on.
    let events = String::from_utf8(run.output(instance, "events")).unwrap();
    let calls: Vec<Value> = events
        .lines()
        .filter_map(|line| {
            let event: Value = serde_json::from_str(line).unwrap();
            event["what"].get("library").cloned()
        })
        .collect();
    let called = |name: &str| calls.iter().filter(|call| call["name"] == name).count();
    assert_eq!(calls[0]["name"], "__libc_start_main");
    assert_eq!(calls[0]["args"][1], json!({"name": "argc", "value": {"int": 2}}));
    assert_eq!((called("fork"), called("pipe")), (2, 1), "{}", calls.len());
    let compared = calls
        .iter()
        .filter(|call| call["name"] == "strcmp" && call["args"][1]["value"]["text"].is_string());
    assert!(compared.count() > 10, "{calls:?}");
    let stderr = String::from_utf8(run.output(instance, "stderr")).unwrap();
    assert_eq!(
        (run.output(instance, "stdout").as_slice(), stderr.as_str()),
        (&b"30 2\n"[..], "")
    );
}

#[test]
fn files_are_analyzed_with_a_root_and_without_a_manifest() {
    let Some(all) = programs() else { return };
    let Some(one) = all.iter().find(|one| one.arch == "mipsel") else {
        return;
    };
    let lab = Lab::new();
    // A path that would be a pattern, and an expression.
    let root = lab.path("a [root] ${x}");
    fs::create_dir_all(root.join("bin")).unwrap();
    fs::copy(&one.path, root.join("bin/sh")).unwrap();
    fs::set_permissions(root.join("bin/sh"), Permissions::from_mode(0o755)).unwrap();
    done(
        Command::new("tar")
            .arg("-cf")
            .arg(lab.path("b {root} ${x}.tar"))
            .arg("-C")
            .arg(&root)
            .arg("bin"),
    );
    lab.write("script", "#!/bin/sh\necho $((6 * 7)) $1\n");
    for place in ["a [root] ${x}", "b {root} ${x}.tar"] {
        let (json, _) = lab.expect(
            0,
            [
                "analyze",
                "script",
                "--arch",
                "mipsel",
                "--sysroot",
                place,
                "--coverage",
                "--dump",
                "end",
                "--json",
                "--",
                "x",
            ],
        );
        let report: Value = serde_json::from_str(&json).unwrap();
        let outcome = report["instances"]
            .as_array()
            .unwrap()
            .iter()
            .find_map(|instance| instance.get("outcome"));
        assert_eq!(outcome.unwrap()["exited"], 0, "{outcome:?}");
        let run = lab.latest();
        let instance = run.stage("run").next().unwrap();
        for (port, name) in [("coverage", "1000-1.drcov"), ("dumps", "1000-end.core")] {
            let files: Value = serde_json::from_slice(&run.output(instance, port)).unwrap();
            assert_eq!(files["files"][0]["path"], name, "{files}");
        }
    }
}

/// What is wrong with a root is told where it was said: whoever analyzes a file has written no manifest.
#[test]
fn mistakes_in_options_are_told_of_the_options() {
    let lab = Lab::new();
    lab.write("script", "#!/bin/sh\n");
    let large = fs::File::create({
        fs::create_dir(lab.path("large")).unwrap();
        lab.path("large/file")
    });
    large.unwrap().set_len((1 << 30) + 1).unwrap();
    let cases: [(&[&str], &[&str]); 3] = [
        (
            &["--sysroot", "large"],
            &[
                "large has more than 1024 MiB of files",
                "1 | --sysroot large",
                "name less: a folder",
            ],
        ),
        (
            &["--arch", "mip"],
            &[
                "there is no arch profile `mip`",
                "1 | --arch mip",
                "did you mean `mips",
            ],
        ),
        (
            &["--arch", "mips", "--dump", "no-call"],
            &["no-call", "1 | --dump no-call"],
        ),
    ];
    for (options, wanted) in cases {
        let (_, said) = lab.expect(
            2,
            ["analyze", "script"].into_iter().chain(options.iter().copied()),
        );
        for wanted in wanted {
            assert!(said.contains(wanted), "{said}");
        }
        assert!(!said.contains("--set") && !said.contains("with."), "{said}");
    }
    // What says no architecture is told how to, too.
    let (said, _) = lab.expect(5, ["analyze", "script"]);
    assert!(said.contains("`--arch`"), "{said}");
}

/// A root that is in use, on which not everything may be read.
#[test]
fn what_may_not_be_read_is_left_out_of_a_root() {
    if !nix::unistd::geteuid().is_root() {
        return eprintln!("skipped: only root can have files that others may not read");
    }
    let host = Lab::with_own_executables();
    let lab = host.of_user(1500);
    lab.write("script", "#!/bin/sh\n");
    lab.write("root/etc/passwd", "");
    lab.write("root/etc/shadow", "");
    lab.write("root/root/file", "");
    for (path, mode) in [("root/etc/shadow", 0o600), ("root/root", 0o700)] {
        fs::set_permissions(lab.path(path), Permissions::from_mode(mode)).unwrap();
    }
    lab.manifest(
        "live.yaml",
        &json!({
            "hotcell": 1,
            "sources": {"live": {"kind": "folder", "path": "root"}},
            "samples": {"scripts": {"glob": "script"}},
            "stages": {"run": {
                "uses": "unicorn/linux",
                "for-each": {"sample": "samples.scripts"},
                "in": {"file": "${sample.file}"},
                "with": {"arch": "x86_64", "sysroot": ["live"]},
            }},
        }),
    );
    // It has no shell.
    let (_, said) = lab.expect(5, ["run", "live.yaml"]);
    assert!(
        said.contains("2 names may not be read, and are left out of the root: root/root is"),
        "{said}"
    );
    let plan = fs::read(lab.latest().folder.join("plan.json")).unwrap();
    let plan: Value = serde_json::from_slice(&plan).unwrap();
    let (_, root) = plan["sysroots"].as_object().unwrap().iter().next().unwrap();
    assert_eq!(root["names"], 3, "{root}");
}

/// Programs stand in `/bin` of packages and are called in `/usr/bin`; what they are called besides, their scripts say.
#[test]
fn a_root_of_packages_is_as_an_installed_debian() {
    let (Some(all), true) = (busybox(), has_dpkg()) else {
        return;
    };
    let one = all.iter().find(|one| one.arch == "x86_64").unwrap();
    let lab = Lab::new();
    for (package, priority, program) in [("plain", 5, "/bin/busybox"), ("better", 10, "/usr/bin/better")] {
        let control = format!(
            "Package: {package}\nVersion: 1\nArchitecture: all\nMaintainer: nobody\nDescription: x\n"
        );
        lab.write(&format!("{package}/DEBIAN/control"), control);
        let script = lab.write(
            &format!("{package}/DEBIAN/postinst"),
            format!("#!/bin/sh\nupdate-alternatives --install /bin/report report \\\n {program} {priority} || true\n"),
        );
        fs::set_permissions(&script, Permissions::from_mode(0o755)).unwrap();
    }
    fs::create_dir_all(lab.path("plain/bin")).unwrap();
    fs::copy(&one.path, lab.path("plain/bin/busybox")).unwrap();
    for applet in ["sh", "readlink", "env"] {
        symlink("busybox", lab.path("plain/bin").join(applet)).unwrap();
    }
    let better = lab.write("better/usr/bin/better", "#!/usr/bin/sh\necho better\n");
    for program in [better, lab.path("plain/bin/busybox")] {
        fs::set_permissions(program, Permissions::from_mode(0o755)).unwrap();
    }
    fs::create_dir_all(lab.path("debs")).unwrap();
    for package in ["plain", "better"] {
        done(
            Command::new("dpkg-deb")
                .args(["--root-owner-group", "-b"])
                .arg(lab.path(package))
                .arg(lab.path("debs")),
        );
    }
    lab.write(
        "script.sh",
        "#!/bin/env sh\nfor top in /bin /lib /sbin; do readlink $top; done; readlink /bin/report; readlink /etc/alternatives/report; report\n",
    );
    lab.manifest(
        "debian.yaml",
        &json!({
            "hotcell": 1,
            "sources": {"debs": {"kind": "debian", "path": "debs/*.deb"}},
            "samples": {"scripts": {"glob": "script.sh"}},
            "stages": {"run": {
                "uses": "unicorn/linux",
                "for-each": {"sample": "samples.scripts"},
                "in": {"file": "${sample.file}"},
                "with": {"arch": "x86_64", "sysroot": ["debs"]},
            }},
        }),
    );
    let run = lab.run("debian.yaml", &[]);
    let instance = run.stage("run").next().unwrap();
    let said = String::from_utf8(run.output(instance, "stdout")).unwrap();
    assert_eq!(
        said,
        "usr/bin\nusr/lib\nusr/sbin\n/etc/alternatives/report\n/usr/bin/better\nbetter\n"
    );
}
