//! What a program hides until it runs: packed programs give their original bytes, and what was written down of a run is read
//! by other tools.
#![allow(clippy::print_stderr, clippy::unwrap_used)]

use std::{fs, path::Path, process::Command};

use goblin::elf::{Elf, program_header::PT_LOAD};
use hotcell_schema::{event::Event, report::InstanceReport};
use hotcell_tests::{Busybox, Lab, Run, busybox};
use serde_json::{Value, json};

/// Packs a program with Debian's upx; `None` with a word where there is none.
fn pack(lab: &Lab, one: &Busybox, cache: &Path) -> Option<()> {
    let packer = cache.join("upx");
    if !packer.is_file() {
        eprintln!(
            "skipped: {} is not there (make test fetches it)",
            packer.display()
        );
        return None;
    }
    fs::create_dir_all(lab.path("packed")).unwrap();
    let packed = lab.path(&format!("packed/{}", one.debian));
    let done = Command::new(packer)
        .args(["-1", "-q", "-o"])
        .arg(&packed)
        .arg(&one.path)
        .output()
        .unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    Some(())
}

/// Names and contents of the files of a port, as the result has them.
fn files(run: &Run, instance: &InstanceReport, port: &str) -> Vec<(String, Vec<u8>)> {
    let path = &instance.outputs[port].path;
    let list: Value = serde_json::from_slice(&run.output(instance, port)).unwrap();
    let folder = run.folder.join("result").join(path);
    let read = |file: &Value| {
        let digest = file["digest"].as_str().unwrap();
        let path = folder.with_file_name("files").join(digest);
        (file["path"].as_str().unwrap().to_owned(), fs::read(path).unwrap())
    };
    list["files"].as_array().unwrap().iter().map(read).collect()
}

fn events(run: &Run, instance: &InstanceReport) -> Vec<Event> {
    let text = String::from_utf8(run.output(instance, "events")).unwrap();
    text.lines()
        .skip(1)
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// Of five architectures: the last layer has every segment of the program that was packed, byte for byte, except what its
/// header says of sections, which no packer keeps.
#[test]
fn upx_is_undone() {
    let Some(all) = busybox() else { return };
    let lab = Lab::new();
    let cache = all[0].path.parent().unwrap();
    for one in &all {
        if pack(&lab, one, cache).is_none() {
            return;
        }
    }
    lab.manifest(
        "m.yaml",
        &json!({
            "hotcell": 1,
            "samples": {"packed": {"glob": "packed/*"}},
            "stages": {
                "run": {
                    "uses": "unicorn/linux",
                    "for-each": {"sample": "samples.packed"},
                    "in": {"file": "${sample.file}"},
                    "with": {"path": "/bin/busybox", "args": ["echo", "unpacked"]},
                },
                "judge": {
                    "uses": "detect/rules",
                    "for-each": {"sample": "samples.packed"},
                    "in": {"events": "stages.run.out.events"},
                },
                "layer": {
                    "uses": "inspect/elf",
                    "for-each": {"item": "stages.run[*].out.layers"},
                    "in": {"file": "${item.file}"},
                },
            },
        }),
    );
    let run = lab.run("m.yaml", &[]);
    assert!(run.all_ok(), "{:?}", run.statuses());
    for one in &all {
        let instance = run
            .stage("run")
            .find(|instance| run.report.samples[&instance.axes["sample"]].name == one.debian)
            .unwrap();
        assert_eq!(run.output(instance, "stdout"), b"unpacked\n", "{}", one.debian);
        let layers = files(&run, instance, "layers");
        let names: Vec<&str> = layers.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["layer-1000-1.elf", "layer-1000-2.elf"], "{}", one.debian);
        let told: Vec<String> = events(&run, instance)
            .iter()
            .filter_map(|event| {
                serde_json::to_value(&event.what).unwrap()["memory"]["layer"]
                    .as_str()
                    .map(str::to_owned)
            })
            .collect();
        assert_eq!(told, names, "{}", one.debian);
        let original = fs::read(&one.path).unwrap();
        let elf = Elf::parse(&original).unwrap();
        let unpacked = &layers[1].1;
        let read = Elf::parse(unpacked).unwrap();
        assert_eq!(read.entry, elf.entry);
        assert_eq!(read.program_headers, elf.program_headers, "{}", one.debian);
        // e_shoff; e_shentsize, e_shnum, e_shstrndx (elf.h).
        let sections = if elf.is_64 {
            [40..48, 58..64]
        } else {
            [32..36, 46..52]
        };
        for segment in elf
            .program_headers
            .iter()
            .filter(|segment| segment.p_type == PT_LOAD)
        {
            let differs = segment.file_range().find(|at| {
                original[*at] != unpacked[*at] && !sections.iter().any(|range| range.contains(at))
            });
            assert_eq!(differs, None, "{}: offset", one.debian);
        }
    }
    // Layers are samples for other stages: of each program two were looked at.
    assert_eq!(run.stage("layer").count(), 2 * all.len());
    for instance in run.stage("judge") {
        let found = instance
            .findings
            .iter()
            .any(|finding| finding.rule == "runs-written-memory");
        assert!(found, "{}", instance.name);
    }
}

/// A line for each text, the blocks that ran, and memory before a call and at the end.
#[test]
fn other_tools_read_what_was_written_down() {
    let Some(all) = busybox() else { return };
    let lab = Lab::new();
    for one in &all {
        fs::create_dir_all(lab.path("bin")).unwrap();
        fs::copy(&one.path, lab.path(&format!("bin/{}", one.debian))).unwrap();
    }
    let with = |dump: &[&str]| {
        json!({
            "hotcell": 1,
            "samples": {"bin": {"glob": "bin/*"}},
            "stages": {"run": {
                "uses": "unicorn/linux",
                "for-each": {"sample": "samples.bin"},
                "in": {"file": "${sample.file}"},
                "with": {
                    "path": "/bin/busybox",
                    "args": ["sh", "-c", "echo 'told to a file' > /tmp/file; /bin/busybox uname; exit 0"],
                    "coverage": true,
                    "dump": dump,
                },
            }},
        })
    };
    lab.manifest("m.yaml", &with(&["uname", "end"]));
    let run = lab.run("m.yaml", &[]);
    for (one, instance) in all.iter().flat_map(|one| {
        let of = |instance: &&InstanceReport| run.report.samples[&instance.axes["sample"]].name == one.debian;
        run.stage("run").filter(of).map(move |instance| (one, instance))
    }) {
        let strings = String::from_utf8(run.output(instance, "strings")).unwrap();
        let mut texts = strings.lines();
        assert!(texts.any(|line| line == "write\ttold to a file"), "{strings}");
        assert!(texts.any(|line| line == "execve\t/bin/busybox"), "{strings}");

        let program = fs::read(&one.path).unwrap();
        let elf = Elf::parse(&program).unwrap();
        let code: Vec<_> = elf
            .program_headers
            .iter()
            .filter(|segment| segment.p_type == PT_LOAD && segment.is_executable())
            .map(|segment| segment.vm_range())
            .collect();
        // The shell, its child before and after execve.
        let coverage = files(&run, instance, "coverage");
        let names: Vec<&str> = coverage.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(
            names,
            ["1000-1.drcov", "1001-1.drcov", "1001-2.drcov"],
            "{}",
            one.debian
        );
        for (name, file) in &coverage {
            let blocks = drcov(file);
            assert!(blocks.len() > 50, "{name}: {}", blocks.len());
            for (address, length) in &blocks {
                let inside = |range: &std::ops::Range<usize>| {
                    range.contains(&(*address as usize))
                        && *address as usize + usize::from(*length) <= range.end
                };
                assert!(code.iter().any(inside), "{}: {name}: {address:#x}", one.debian);
            }
            let begins = blocks.iter().any(|(address, _)| *address == elf.entry & !1);
            assert_eq!(
                begins,
                name != "1001-1.drcov",
                "{}: {name}: the entry",
                one.debian
            );
        }

        let dumps = files(&run, instance, "dumps");
        let names: Vec<&str> = dumps.iter().map(|(name, _)| name.as_str()).collect();
        let wanted = [
            "1001-end.core",
            "1001-uname.core",
            "1001-end-2.core",
            "1000-end.core",
        ];
        assert_eq!(
            names
                .iter()
                .filter(|name| !name.starts_with("1000-uname"))
                .collect::<Vec<_>>(),
            wanted.iter().collect::<Vec<_>>(),
            "{}",
            one.debian
        );
        for (name, file) in &dumps {
            let core = Elf::parse(file).unwrap();
            assert_eq!(core.header.e_type, goblin::elf::header::ET_CORE);
            assert_eq!(core.header.e_flags, elf.header.e_flags);
            let first = code[0].start;
            let segment = core
                .program_headers
                .iter()
                .find(|segment| segment.vm_range().contains(&first))
                .unwrap();
            let offset = first - segment.p_vaddr as usize + segment.p_offset as usize;
            let in_file = elf
                .program_headers
                .iter()
                .find(|part| part.vm_range().contains(&first))
                .unwrap();
            let original = &program[in_file.file_range()];
            assert_eq!(
                &file[offset..offset + original.len()],
                original,
                "{}: {name}",
                one.debian
            );
        }
    }
    // The same again, from the manifest alone.
    lab.forget_latest();
    run.assert_same_result(&lab.run("m.yaml", &["--force"]), "when it runs again");

    lab.manifest("m.yaml", &with(&["unmae"]));
    lab.expect(5, ["run", "m.yaml"]);
    let run = lab.latest();
    let outcome = run.report.instances[0].outcome.clone().unwrap().to_string();
    assert!(outcome.contains("`unmae`, which is no system call"), "{outcome}");
}

/// Blocks of a drcov file that are in files, not in what a kernel puts into memory: address and length.
fn drcov(file: &[u8]) -> Vec<(u64, u16)> {
    let end = file.windows(5).position(|window| window == b" bbs\n").unwrap() + 5;
    let text = std::str::from_utf8(&file[..end]).unwrap();
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some("DRCOV VERSION: 2"));
    assert_eq!(lines.next(), Some("DRCOV FLAVOR: drcov"));
    let count: usize = lines
        .next()
        .and_then(|line| line.strip_prefix("Module Table: version 2, count "))
        .unwrap()
        .parse()
        .unwrap();
    assert_eq!(lines.next(), Some("Columns: id, base, end, entry, path"));
    let bases: Vec<(bool, u64)> = lines
        .by_ref()
        .take(count)
        .map(|line| {
            let base = line.split(", ").nth(1).unwrap();
            let base = u64::from_str_radix(base.trim_start_matches("0x"), 16).unwrap();
            (line.contains(", /"), base)
        })
        .collect();
    let said: usize = lines
        .next()
        .and_then(|line| line.strip_prefix("BB Table: ")?.strip_suffix(" bbs"))
        .unwrap()
        .parse()
        .unwrap();
    let blocks = &file[end..];
    assert_eq!(blocks.len(), said * 8);
    blocks
        .chunks(8)
        .map(|block| {
            let offset = u32::from_le_bytes(block[..4].try_into().unwrap());
            let length = u16::from_le_bytes(block[4..6].try_into().unwrap());
            let module = u16::from_le_bytes(block[6..].try_into().unwrap());
            let (is_file, base) = bases[usize::from(module)];
            (is_file, base + u64::from(offset), length)
        })
        .filter(|(is_file, ..)| *is_file)
        .map(|(_, address, length)| (address, length))
        .collect()
}
