//! Debian's busybox of five architectures: the same output as under qemu-user where that depends on arguments and files
//! only, written goldens for the rest.
#![allow(clippy::unwrap_used)]

use std::{collections::BTreeMap, fmt::Write as _, fs};

use hotcell_tests::{Busybox, Lab, Run, busybox, qemu};
use serde_json::{Value, json};

/// Files of the guest, below its working folder.
const FILES: &[(&str, &str)] = &[
    ("fruit", "pear\napple\nquince\napple\nfig\n"),
    ("numbers", "10\n9\n2\n33\n1\n"),
    ("table", "anna:1:x\nbert:2:y\ncarl:3:z\n"),
    ("deep/er/file", "found me\n"),
    ("deep/other", "and me\n"),
    ("empty", ""),
    (
        "script",
        "n=0\nfor i in 1 2 3 4; do n=$((n + i)); done\necho sum $n\n",
    ),
];

/// Commands whose output depends on arguments and files only: a name, and the words.
const SAME: &[(&str, &[&str])] = &[
    ("echo", &["echo", "hello", "world"]),
    ("echo-escapes", &["echo", "-e", "a\\tb\\x41\\n-"]),
    ("cat", &["cat", "fruit", "numbers"]),
    ("cat-missing", &["cat", "no-such-file"]),
    ("sha256sum", &["sha256sum", "fruit", "table", "empty"]),
    ("md5sum", &["md5sum", "fruit"]),
    ("sha512sum", &["sha512sum", "table"]),
    ("cksum", &["cksum", "fruit"]),
    ("grep", &["grep", "-n", "app", "fruit"]),
    ("grep-nothing", &["grep", "kiwi", "fruit"]),
    ("grep-regex", &["grep", "-E", "^.{3,4}$", "fruit"]),
    ("sort", &["sort", "fruit"]),
    ("sort-numbers", &["sort", "-rn", "numbers"]),
    ("wc", &["wc", "fruit", "numbers"]),
    ("head", &["head", "-n", "2", "fruit"]),
    ("tail", &["tail", "-n", "2", "fruit"]),
    ("cut", &["cut", "-d:", "-f1,3", "table"]),
    ("sed", &["sed", "-e", "s/a/A/g;2d", "fruit"]),
    (
        "awk",
        &[
            "awk",
            "-F:",
            "{ n += $2; print $1 } END { print n, n / 4 }",
            "table",
        ],
    ),
    ("tr", &["sh", "-c", "tr a-z A-Z < fruit"]),
    ("uniq", &["sh", "-c", "sort fruit | uniq -c"]),
    ("find", &["sh", "-c", "find . -type f | sort"]),
    ("find-name", &["find", "deep", "-name", "file"]),
    ("seq", &["seq", "3", "4", "20"]),
    ("expr", &["expr", "17", "*", "3"]),
    ("printf", &["printf", "%05d|%-6s|%x\\n", "42", "ab", "255"]),
    ("base64", &["base64", "fruit"]),
    ("xxd", &["xxd", "numbers"]),
    ("od", &["od", "-c", "numbers"]),
    ("rev", &["rev", "fruit"]),
    ("tac", &["tac", "fruit"]),
    ("factor", &["factor", "360360", "97"]),
    ("basename", &["basename", "/a/b/c.txt", ".txt"]),
    ("true", &["true"]),
    ("false", &["false"]),
    ("test", &["test", "-f", "fruit"]),
    ("test-not", &["test", "-d", "fruit"]),
    ("gzip", &["sh", "-c", "gzip -c fruit | gunzip -c"]),
    ("tar", &["sh", "-c", "tar -cf - deep/other | tar -tf -"]),
    ("dd", &["sh", "-c", "dd if=fruit bs=4 skip=1 count=2 2>/dev/null"]),
    ("sh-script", &["sh", "script"]),
    (
        "sh-loop",
        &["sh", "-c", "for w in a b c; do echo $w; done; echo $?"],
    ),
    ("sh-status", &["sh", "-c", "cat none 2>/dev/null || exit 7"]),
    (
        "sh-substitution",
        &["sh", "-c", "x=$(sort numbers | head -n 1); echo first=$x"],
    ),
    (
        "sh-redirect",
        &["sh", "-c", "echo x > y && cat y && rm y && ls y"],
    ),
    ("sh-append", &["sh", "-c", "echo 1 > l; echo 2 >> l; cat l; rm l"]),
    (
        "sh-subshell",
        &["sh", "-c", "(cd deep && pwd | sed 's,.*/,,'); ls"],
    ),
    ("sh-signal", &["sh", "-c", "kill -9 $$"]),
    ("sh-pipeline-status", &["sh", "-c", "false | true; echo $?"]),
    ("sh-heredoc", &["sh", "-c", "cat <<E\nhere $((6*7))\nE"]),
    ("sh-background", &["sh", "-c", "true & wait $!; echo waited $?"]),
    ("no-such-applet", &["no-such-applet"]),
];

/// Commands whose output depends on the machine: golden.
const OWN: &[(&str, &[&str])] = &[
    ("ls", &["ls", "-l"]),
    ("ls-all", &["ls", "-lan", "/", "/etc"]),
    ("id", &["id"]),
    ("uname", &["uname", "-a"]),
    ("hostname", &["hostname"]),
    ("whoami", &["whoami"]),
    ("date", &["date"]),
    ("date-sleep", &["sh", "-c", "date +%s; sleep 5; date +%s"]),
    ("pwd", &["pwd"]),
    ("env", &["env"]),
    ("passwd", &["cat", "/etc/passwd"]),
    ("cpuinfo", &["cat", "/proc/cpuinfo"]),
    ("uptime", &["cat", "/proc/uptime"]),
    ("stat", &["stat", "fruit"]),
    ("cd-tmp", &["sh", "-c", "cd /tmp && echo x > y && cat y"]),
    ("pid", &["sh", "-c", "echo $$ $PPID; sh -c 'echo $$ $PPID'; true"]),
    (
        "random",
        &["sh", "-c", "head -c 16 /dev/urandom | xxd -p; mktemp -u"],
    ),
    ("ps", &["ps"]),
    // qemu-user cannot start a second program of a foreign architecture by itself.
    ("xargs", &["sh", "-c", "find deep -type f | sort | xargs cat"]),
];

fn manifest(all: &[Busybox], commands: &[(&str, &[&str])]) -> Value {
    let files: serde_json::Map<String, Value> = FILES
        .iter()
        .map(|(name, text)| (format!("/data/{name}"), json!(text)))
        .collect();
    let axis: Vec<Value> = commands
        .iter()
        .map(|(name, words)| json!({"name": name, "args": words}))
        .collect();
    let list = all
        .iter()
        .fold("path,family,variant\n".to_owned(), |mut list, one| {
            writeln!(list, "samples/{},busybox,{0}", one.debian).unwrap();
            list
        });
    json!({
        "manifest": {
            "hotcell": 1,
            "name": "busybox",
            "seed": 3,
            "samples": {"busybox": {"list": "samples.csv"}},
            "stages": {"run": {
                "uses": "unicorn/linux",
                "for-each": {"sample": "samples.busybox", "command": axis},
                "in": {"file": "${sample.file}"},
                "with": {"path": "/bin/busybox", "argv0": "busybox", "cwd": "/data", "args": "${command.args}", "files": files},
                "limits": {"virtual-time": "60s", "wall": "5m"},
            }},
        },
        "list": list,
    })
}

fn run(lab: &Lab, all: &[Busybox], commands: &[(&str, &[&str])]) -> Run {
    for one in all {
        lab.write(&format!("samples/{}", one.debian), fs::read(&one.path).unwrap());
    }
    let both = manifest(all, commands);
    lab.write("samples.csv", both["list"].as_str().unwrap());
    lab.manifest("busybox.yaml", &both["manifest"]);
    lab.run("busybox.yaml", &["--progress", "none"])
}

/// Outcome, standard output, standard error.
type Answer = (String, String, String);

/// The answer to each command on each architecture.
fn results(run: &Run) -> BTreeMap<(String, String), Answer> {
    let mut all = BTreeMap::new();
    for instance in run.stage("run") {
        let text = |port| String::from_utf8_lossy(&run.output(instance, port)).into_owned();
        let outcome = instance
            .outcome
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default();
        all.insert(
            (instance.axes["command"].clone(), run.variant(instance)),
            (outcome, text("stdout"), text("stderr")),
        );
    }
    all
}

#[test]
fn says_the_same_as_under_qemu_user() {
    use std::os::unix::process::ExitStatusExt;

    let Some(all) = busybox() else { return };
    let lab = Lab::new();
    let run = run(&lab, &all, SAME);
    let ours = results(&run);
    assert_eq!(ours.len(), SAME.len() * all.len());
    let mut wrong = String::new();
    for one in &all {
        for (name, words) in SAME {
            // Commands write: each gets files of its own, as each of our guests does.
            let folder = lab.path(&format!("qemu/{}/{name}", one.debian));
            for (file, text) in FILES {
                lab.write(&format!("qemu/{}/{name}/{file}", one.debian), text);
            }
            let words: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
            let Some(theirs) = qemu(one.qemu, "busybox", &one.path, &words, &folder) else {
                return;
            };
            let outcome = match (theirs.status.code(), theirs.status.signal()) {
                (Some(code), _) => format!("exited {code}"),
                (_, Some(9)) => "signalled SIGKILL".into(),
                other => format!("{other:?}"),
            };
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            let theirs = (outcome, text(&theirs.stdout), text(&theirs.stderr));
            let ours = &ours[&((*name).to_owned(), one.debian.to_owned())];
            if *ours != theirs {
                writeln!(
                    wrong,
                    "{} {name}: {ours:?}\n    under qemu-user: {theirs:?}",
                    one.debian
                )
                .unwrap();
            }
        }
    }
    assert!(wrong.is_empty(), "differs:\n{wrong}");
}

#[test]
fn says_what_is_written_down() {
    let Some(all) = busybox() else { return };
    let lab = Lab::new();
    let run = run(&lab, &all, OWN);
    let ours = results(&run);
    for (name, words) in OWN {
        let mut text = format!("$ {}\n", words.join(" "));
        // Architectures that say the same stand together.
        let mut said: Vec<(Answer, Vec<&str>)> = Vec::new();
        for one in &all {
            let answer = &ours[&((*name).to_owned(), one.debian.to_owned())];
            match said.iter_mut().find(|(known, _)| known == answer) {
                Some((_, who)) => who.push(one.debian),
                None => said.push((answer.clone(), vec![one.debian])),
            }
        }
        for ((outcome, stdout, stderr), who) in said {
            writeln!(text, "== {}: {outcome}\n{stdout}", who.join(" ")).unwrap();
            if !stderr.is_empty() {
                writeln!(text, "-- stderr\n{stderr}").unwrap();
            }
        }
        insta::assert_snapshot!(format!("busybox_{name}"), text);
    }
}
