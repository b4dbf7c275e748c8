//! Core files: what stands in their notes.

use goblin::elf::Elf;
use hotcell_schema::arch::AbiFamily;
use hotcell_schema::job::GuestLimits;

use super::{Bench, profile, profiles, tiny_elf};
use crate::machine::{Machine as _, SpaceId};

const ROOM: u64 = 0x40_0800;
/// CLONE_VM, FS, FILES, SIGHAND, THREAD, SYSVSEM.
const THREAD: u64 = 0x50f00;

/// Sizes of `struct elf_prstatus` and `struct elf_prpsinfo` (linux/elfcore.h), and which word of the registers is the program
/// counter (asm/ptrace.h).
const SIZES: [(&str, usize, usize, usize); 14] = [
    ("x86_64", 336, 136, 16),
    ("x86", 144, 124, 12),
    ("arm", 148, 124, 15),
    ("armeb", 148, 124, 15),
    ("aarch64", 392, 136, 32),
    ("riscv64", 376, 136, 0),
    ("mips", 256, 128, 40),
    ("mipsel", 256, 128, 40),
    ("mips64", 480, 136, 34),
    ("mips64el", 480, 136, 34),
    ("ppc", 268, 128, 32),
    ("ppc64", 504, 136, 32),
    ("ppc64le", 504, 136, 32),
    ("s390x", 336, 136, 1),
];

/// Makes a second thread, at a place of its own. The first, the number of the memory that both have, the second.
fn second_thread(bench: &mut Bench) -> (u32, SpaceId, i64) {
    let first = bench.kernel.current;
    let space = bench.kernel.tasks[&first].space;
    let args = match bench.kernel.abi.family {
        AbiFamily::S390x => [ROOM + 0x700, THREAD],
        _ => [THREAD, ROOM + 0x700],
    };
    bench.machines.machine(space).jump(0x40_0240);
    let thread = bench.call("clone", &[args[0], args[1], 0, 0, 0]).unwrap();
    (first, space, thread)
}

#[test]
fn each_task_has_its_registers_in_a_core_file() {
    for profile in profiles() {
        let name = profile.name.as_str();
        let (_, status, process, counter) = SIZES.into_iter().find(|(arch, ..)| *arch == name).unwrap();
        let mut bench = Bench::dumped(&profile, &tiny_elf(&profile), &["getpid", "end"]).unwrap();
        bench.next();
        let (first, space, thread) = second_thread(&mut bench);
        // Now the machine has the registers of the one that calls: the other's are kept.
        bench.machines.machine(space).jump(0x40_0280);
        assert_eq!(bench.call("getpid", &[]), Some(i64::from(first)), "{name}");
        assert_eq!(bench.call("exit_group", &[3]), None);
        bench.next();
        let finished = bench.finish();
        let dumps: Vec<_> = finished
            .result
            .dumps
            .iter()
            .map(|file| file.path.clone())
            .collect();
        assert_eq!(
            dumps,
            [format!("{first}-getpid.core"), format!("{first}-end.core")],
            "{name}"
        );
        for (index, tasks) in [vec![first, thread as u32], vec![first]].into_iter().enumerate() {
            let digest = finished.result.dumps[index].digest;
            let bytes = &finished.outputs.0[&("dumps", digest)];
            let elf = Elf::parse(bytes).unwrap();
            let notes: Vec<_> = elf
                .iter_note_headers(bytes)
                .unwrap()
                .map(|note| note.unwrap())
                .collect();
            assert!(notes.iter().all(|note| note.name == "CORE"), "{name}");
            let kinds: Vec<u32> = notes.iter().map(|note| note.n_type).collect();
            assert_eq!(kinds[..3], [1, 3, 0x4649_4c45], "{name}");
            let of_kind = |kind| notes.iter().filter(move |note| note.n_type == kind);
            let abi = crate::abi::Abi::new(&profile);
            let word = abi.word() as usize;
            let registers = if word == 8 { 112 } else { 72 };
            let number = |bytes: &[u8]| {
                let mut all = bytes.to_vec();
                if abi.big {
                    all.reverse();
                }
                all.iter()
                    .rev()
                    .fold(0u64, |value, byte| value << 8 | u64::from(*byte))
            };
            let mut seen = Vec::new();
            for note in of_kind(1) {
                assert_eq!(note.desc.len(), status, "{name}");
                let at = registers + word * counter;
                let tid = registers - 8 * word - 16;
                seen.push((
                    number(&note.desc[tid..tid + 4]) as u32,
                    number(&note.desc[at..at + word]),
                ));
            }
            let wanted = [(first, 0x40_0280), (thread as u32, 0x40_0240)];
            assert_eq!(seen, wanted[..tasks.len()], "{name}");
            let about = of_kind(3).next().unwrap().desc;
            assert_eq!(about.len(), process, "{name}");
            // Who has gone is known by number alone.
            let told = about.windows(10).any(|part| part == b"sample one");
            assert_eq!(told, index == 0, "{name}");
            let files = of_kind(0x4649_4c45).next().unwrap().desc;
            assert_eq!(number(&files[..word]), 1, "{name}");
            assert_eq!(number(&files[2 * word..3 * word]), 0x40_0000, "{name}");
            assert!(files.ends_with(b"/bin/sample\0"), "{name}");
        }
    }
}

#[test]
fn what_runs_is_looked_at_and_does_not_notice() {
    for name in ["x86_64", "mips", "s390x"] {
        let profile = profile(name);
        let mut bench = Bench::start(&profile, &tiny_elf(&profile), GuestLimits::default()).unwrap();
        let cores = |bench: &mut Bench| bench.kernel.cores(&mut bench.machines).unwrap();
        assert!(cores(&mut bench).is_empty(), "nothing has begun");
        bench.next();
        let (first, space, thread) = second_thread(&mut bench);
        bench.machines.machine(space).jump(0x40_0280);
        // SIGCHLD alone: another process.
        let child = match bench.kernel.abi.family {
            AbiFamily::S390x => bench.call("clone", &[0, 17, 0, 0, 0]),
            _ => bench.call("clone", &[17, 0, 0, 0, 0]),
        };
        let child = child.unwrap() as u32;
        bench
            .machines
            .machine(space)
            .write(ROOM, b"a known text")
            .unwrap();
        let before = (
            bench.kernel.save().unwrap(),
            bench.machines.count(),
            bench.machines.machine(space).program_counter(),
        );
        let cores = cores(&mut bench);
        let told: Vec<_> = cores.iter().map(|core| (core.pid, core.image.as_str())).collect();
        assert_eq!(told, [(first, "/bin/sample"), (child, "/bin/sample")], "{name}");
        let mut files = Vec::new();
        for core in &cores {
            let mut file = Vec::new();
            core.write(bench.machines.machine(core.space), &mut file).unwrap();
            assert_eq!(file.len() as u64, core.length, "{name}");
            files.push(file);
        }
        let after = (
            bench.kernel.save().unwrap(),
            bench.machines.count(),
            bench.machines.machine(space).program_counter(),
        );
        assert!(before == after, "{name}: something is another");
        let known = |file: &[u8]| file.windows(12).any(|part| part == b"a known text");
        assert!(known(&files[0]) && !known(&files[1]), "{name}");
        for (file, tasks) in files.iter().zip([vec![first, thread as u32], vec![child]]) {
            let elf = Elf::parse(file).unwrap();
            let notes = elf.iter_note_headers(file).unwrap().map(|note| note.unwrap());
            let status = notes.filter(|note| note.n_type == 1);
            assert_eq!(status.count(), tasks.len(), "{name}");
        }
        // It goes on.
        assert_eq!(bench.call("getpid", &[]), Some(i64::from(first)), "{name}");
    }
}
