//! `hotcell.lock` from the command line: what is pinned, and that `--locked` refuses a change by its name.
#![allow(clippy::unwrap_used)]

use std::fs;

use hotcell_tests::Lab;

const PROGRAMS: &str = r##"
hotcell = 1
name = "programs"
[samples.shells]
glob = "sample*"
[stages.look]
uses = "inspect/elf"
for-each.sample = "samples.shells"
in.file = "${sample.file}"
[stages.found]
uses = "command"
with = { run = ["cat", "/work/in/x"] }
in.x = "stages.script.out.stdout"
[stages.script]
uses = "command"
with = { run = ["hello"], files = ["hello"] }
"##;

fn lab() -> Lab {
    let lab = Lab::new();
    lab.write("programs.toml", PROGRAMS);
    lab.write("sample", [b"\x7fELF".as_slice(), &[0; 60]].concat());
    lab.write("hello", "#!/usr/bin/env sh\necho hello\n");
    lab
}

/// The lock file, with one pin replaced by another.
fn tampered(lock: &str, name: &str) -> String {
    let mut found = false;
    let lines: Vec<String> = lock
        .lines()
        .map(|line| match line.split_once(" = ") {
            Some((key, _)) if key.trim_matches('"') == name => {
                found = true;
                format!("{key} = \"{}\"", "5".repeat(64))
            }
            _ => line.to_owned(),
        })
        .collect();
    assert!(found, "{name} is not pinned in\n{lock}");
    lines.join("\n")
}

#[test]
fn programs_and_all_profiles_that_are_read_are_pinned() {
    let lab = lab();
    lab.expect(0, ["lock", "programs.toml"]);
    let lock = fs::read_to_string(lab.path("hotcell.lock")).unwrap();
    lab.expect(0, ["lock", "programs.toml", "--check"]);
    let (_, said) = lab.expect(0, ["plan", "programs.toml", "--locked"]);
    assert!(!said.contains("note:"), "{said}");
    let programs: Vec<&str> = lock
        .lines()
        .skip_while(|line| !line.ends_with(".programs]"))
        .skip(1)
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.split('"').nth(1))
        .collect();
    let names: Vec<&str> = programs
        .iter()
        .filter_map(|path| path.rsplit('/').next())
        .collect();
    assert_eq!(names, ["cat", "sh"], "{lock}");
    // Inspection is given every profile, and names the architecture itself.
    for changed in [programs[0], programs[1], "s390x", "hello"] {
        lab.write("hotcell.lock", tampered(&lock, changed));
        for command in ["plan", "run"] {
            let (_, said) = lab.expect(2, [command, "programs.toml", "--locked"]);
            assert!(
                said.contains(changed) && said.contains("1 thing is not"),
                "{said}"
            );
        }
    }
    // Another script in its place is another file, and perhaps another interpreter.
    lab.write("hotcell.lock", &lock);
    lab.write("hello", "#!/usr/bin/env cat\n");
    let (_, said) = lab.expect(2, ["plan", "programs.toml", "--locked"]);
    assert!(said.contains("files hello"), "{said}");
    assert!(
        said.contains("/sh: pinned") && said.contains("it is gone"),
        "{said}"
    );
}

#[test]
fn the_last_version_is_read() {
    let lab = lab();
    lab.expect(0, ["lock", "programs.toml"]);
    let lock = fs::read_to_string(lab.path("hotcell.lock")).unwrap();
    assert!(lock.contains("version = 2"), "{lock}");
    // As version 1 wrote it: no programs, and only profiles that instances name.
    let mut section = "";
    let old: Vec<String> = lock
        .lines()
        .filter(|line| {
            if line.starts_with('[') {
                section = line;
            }
            !section.ends_with(".programs]") && !section.ends_with(".profiles]")
        })
        .map(|line| line.replace("version = 2", "version = 1"))
        .collect();
    let old = old.join("\n");
    lab.write("hotcell.lock", &old);
    let (_, said) = lab.expect(0, ["plan", "programs.toml", "--locked"]);
    assert!(said.contains("pins no programs"), "{said}");
    // What it did pin is held.
    lab.write("hotcell.lock", tampered(&old, "hello"));
    lab.expect(2, ["plan", "programs.toml", "--locked"]);
    lab.write("hotcell.lock", &old);
    lab.expect(0, ["lock", "programs.toml"]);
    assert_eq!(fs::read_to_string(lab.path("hotcell.lock")).unwrap(), lock);
    lab.write("hotcell.lock", lock.replace("version = 2", "version = 3"));
    let (_, said) = lab.expect(2, ["plan", "programs.toml", "--locked"]);
    assert!(said.contains("reads hotcell-lock 1 to 2"), "{said}");
}
