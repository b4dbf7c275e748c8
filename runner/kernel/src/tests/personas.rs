//! Every shipped persona on every architecture: what its files say is what its system calls say.

use std::collections::BTreeMap;

use hotcell_schema::arch::ArchProfile;
use hotcell_schema::persona::Persona;

use super::{Bench, profiles, tiny_elf};
use crate::machine::{Machine as _, Step};

/// Room in the program's own memory: for a path, and for what is read.
const PATH: u64 = 0x40_0400;
const ROOM: u64 = 0x40_0800;
const SIZE: u64 = 0x1000;

fn shipped() -> Vec<Persona> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../manifests/personas");
    let mut all: Vec<Persona> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| toml::from_str(&std::fs::read_to_string(entry.unwrap().path()).unwrap()).unwrap())
        .collect();
    all.sort_by(|a, b| a.name.cmp(&b.name));
    let names: Vec<&str> = all.iter().map(|persona| persona.name.as_str()).collect();
    assert_eq!(names, ["desktop", "router", "server"]);
    all
}

/// A persona on an architecture.
struct Here {
    bench: Bench,
    /// Who it is, for messages.
    name: String,
    wide: bool,
}

impl Here {
    fn new(profile: &ArchProfile, persona: &Persona) -> Self {
        let name = format!("{} on {}", persona.name, profile.name);
        Self {
            bench: Bench::as_persona(profile, &tiny_elf(profile), persona.clone()).unwrap(),
            name,
            wide: profile.abi.word == 64,
        }
    }

    fn memory(&mut self, address: u64, length: usize) -> Vec<u8> {
        let Step::Run { space, .. } = self.bench.next() else {
            panic!("it runs")
        };
        let mut bytes = vec![0; length];
        self.bench
            .machines
            .machine(space)
            .read(address, &mut bytes)
            .unwrap();
        bytes
    }

    /// A word of the guest: of so many bytes.
    fn number(&mut self, address: u64, size: usize) -> u64 {
        let bytes = self.memory(address, size);
        let big = self.bench.kernel.abi.big;
        let join = |number: u64, byte: &u8| number << 8 | u64::from(*byte);
        if big {
            bytes.iter().fold(0, join)
        } else {
            bytes.iter().rev().fold(0, join)
        }
    }

    fn word(&mut self, address: u64) -> u64 {
        self.number(address, if self.wide { 8 } else { 4 })
    }

    /// The text of a file; `None` when there is none.
    fn file(&mut self, path: &str) -> Option<String> {
        let Step::Run { space, .. } = self.bench.next() else {
            panic!("it runs")
        };
        let bytes = [path.as_bytes(), b"\0"].concat();
        self.bench.machines.machine(space).write(PATH, &bytes).unwrap();
        let at_cwd = -100i64 as u64;
        let fd = self.bench.call("openat", &[at_cwd, PATH, 0, 0]).unwrap();
        if fd < 0 {
            return None;
        }
        let mut text = Vec::new();
        loop {
            let got = self.bench.call("read", &[fd as u64, ROOM, SIZE]).unwrap();
            assert!(got >= 0, "{}: {path}", self.name);
            if got == 0 {
                break;
            }
            text.extend(self.memory(ROOM, got as usize));
        }
        assert_eq!(self.bench.call("close", &[fd as u64]), Some(0));
        Some(String::from_utf8(text).unwrap())
    }

    fn text(&mut self, path: &str) -> String {
        self.file(path)
            .unwrap_or_else(|| panic!("{} has no {path}", self.name))
    }

    /// Lines `name: value` of a file.
    fn lines(&mut self, path: &str) -> BTreeMap<String, String> {
        let text = self.text(path);
        let lines = text.lines().filter_map(|line| line.split_once(':'));
        lines
            .map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned()))
            .collect()
    }
}

fn everywhere(check: impl Fn(&mut Here, &Persona, &ArchProfile)) {
    for persona in shipped() {
        for profile in profiles() {
            check(&mut Here::new(&profile, &persona), &persona, &profile);
        }
    }
}

#[test]
fn names_of_the_kernel_agree() {
    everywhere(|here, persona, _| {
        assert_eq!(here.bench.call("uname", &[ROOM]), Some(0));
        let name = here.memory(ROOM, 390);
        let field = |index: usize| {
            let part = &name[65 * index..65 * (index + 1)];
            let end = part.iter().position(|byte| *byte == 0).unwrap();
            String::from_utf8(part[..end].to_vec()).unwrap()
        };
        let [system, host, release, version, _, domain] = [0, 1, 2, 3, 4, 5].map(field);
        assert_eq!((&host, &release), (&persona.hostname, &persona.kernel_release));
        for (file, value) in [
            ("ostype", &system),
            ("hostname", &host),
            ("osrelease", &release),
            ("version", &version),
            ("domainname", &domain),
        ] {
            assert_eq!(
                here.text(&format!("/proc/sys/kernel/{file}")).trim_end(),
                value,
                "{}",
                here.name
            );
        }
        let text = here.text("/proc/version");
        assert!(
            text.starts_with(&format!("{system} version {release} ("))
                && text.ends_with(&format!(" {version}\n")),
            "{}: {text}",
            here.name
        );
        assert_eq!(here.text("/etc/hostname").trim_end(), host);
        assert!(here.text("/etc/hosts").contains(&host));
        assert_eq!(here.text("/proc/cmdline").trim_end(), persona.kernel_command_line);
    });
}

#[test]
fn processors_agree() {
    everywhere(|here, persona, profile| {
        let size = here.bench.call("sched_getaffinity", &[0, 64, ROOM]).unwrap();
        let mask = here.memory(ROOM, size as usize);
        let count: u32 = mask.iter().map(|byte| byte.count_ones()).sum();
        assert_eq!(count, persona.cpus, "{}", here.name);
        let info = here.text("/proc/cpuinfo");
        let each = info.lines().filter(|line| {
            let rest = line.strip_prefix("processor").unwrap_or_default();
            rest.trim_start().starts_with(':') || rest.starts_with(' ')
        });
        assert_eq!(each.count() as u32, count, "{}", here.name);
        let stat = here.text("/proc/stat");
        let each = stat
            .lines()
            .filter(|line| line.starts_with("cpu") && !line.starts_with("cpu "));
        assert_eq!(each.count() as u32, count, "{}", here.name);
        let range = if count == 1 {
            "0\n".to_owned()
        } else {
            format!("0-{}\n", count - 1)
        };
        for name in ["online", "possible", "present"] {
            assert_eq!(here.text(&format!("/sys/devices/system/cpu/{name}")), range);
        }
        for cpu in 0..=count {
            let path = format!("/sys/devices/system/cpu/cpu{cpu}/topology/core_id");
            assert_eq!(here.file(&path).is_some(), cpu < count, "{}: {path}", here.name);
        }
        if let Some(model) = persona.cpu_models.get(&profile.name) {
            assert!(info.contains(model.as_str()), "{}: {info}", here.name);
        }
        // The abilities are those of AT_HWCAP, and no hypervisor is among them.
        let (line, sample) = match profile.name.as_str() {
            "x86" | "x86_64" => ("flags", "sse2"),
            "arm" | "armeb" => ("Features", "vfpv4"),
            "aarch64" => ("Features", "crc32"),
            "riscv64" => ("isa", "rv64imafdc"),
            "s390x" => ("features", "highgprs"),
            _ => return,
        };
        let abilities = here.lines("/proc/cpuinfo").remove(line).unwrap();
        assert!(
            abilities.split_whitespace().any(|one| one == sample),
            "{}: {abilities}",
            here.name
        );
        assert!(!abilities.contains("hypervisor"));
    });
}

#[test]
fn memory_load_and_tasks_agree() {
    everywhere(|here, persona, _| {
        assert_eq!(here.bench.call("sysinfo", &[ROOM]), Some(0));
        let word = if here.wide { 8 } else { 4 };
        let fields: Vec<u64> = (0..10).map(|index| here.word(ROOM + index * word)).collect();
        let tasks = here.number(ROOM + 10 * word, 2);
        // After the tasks, two words of high memory.
        let unit = here.number(ROOM + if here.wide { 104 } else { 52 }, 4);
        let info = here.lines("/proc/meminfo");
        let kib = |name: &str| info[name].trim_end_matches(" kB").parse::<u64>().unwrap();
        for (name, field) in [("MemTotal", 4), ("MemFree", 5), ("Buffers", 7), ("SwapTotal", 8)] {
            assert_eq!(kib(name), fields[field] * unit / 1024, "{}: {name}", here.name);
        }
        assert_eq!(kib("MemTotal"), persona.memory_mib * 1024);
        assert!(kib("MemAvailable") < kib("MemTotal"));
        let load = here.text("/proc/loadavg");
        let parts: Vec<&str> = load.split_whitespace().collect();
        for (part, field) in parts.iter().zip(&fields[1..4]) {
            let shown: f64 = part.parse().unwrap();
            assert!(
                (*field as f64 / 65_536.0 - shown).abs() < 0.005,
                "{}: {load}",
                here.name
            );
        }
        let (_, all) = parts[3].split_once('/').unwrap();
        assert_eq!(all.parse::<u64>().unwrap(), tasks, "{}", here.name);
    });
}

#[test]
fn clocks_agree() {
    everywhere(|here, persona, _| {
        let mut clock = |number: u64| {
            assert_eq!(here.bench.call("clock_gettime", &[number, ROOM]), Some(0));
            here.word(ROOM)
        };
        let [real, monotonic, boot] = [0, 1, 7].map(&mut clock);
        assert_eq!(monotonic, boot);
        assert_eq!(boot, persona.uptime_s);
        assert_eq!(real, persona.epoch_s.cast_unsigned());
        assert_eq!(here.bench.call("sysinfo", &[ROOM]), Some(0));
        assert_eq!(here.word(ROOM), boot, "{}", here.name);
        let uptime = here.text("/proc/uptime");
        let parts: Vec<f64> = uptime
            .split_whitespace()
            .map(|part| part.parse().unwrap())
            .collect();
        assert_eq!(parts[0] as u64, boot);
        assert!(parts[1] < parts[0] * f64::from(persona.cpus));
        let stat = here.text("/proc/stat");
        let started = stat.lines().find_map(|line| line.strip_prefix("btime ")).unwrap();
        assert_eq!(started.parse::<u64>().unwrap(), real - boot, "{}", here.name);
    });
}

#[test]
fn people_and_places_agree() {
    everywhere(|here, persona, profile| {
        let uid = here.bench.call("getuid", &[]).unwrap();
        assert_eq!(uid, i64::from(persona.uid));
        let passwd = here.text("/etc/passwd");
        let own = passwd
            .lines()
            .map(|line| line.split(':').collect::<Vec<_>>())
            .find(|fields| fields[2] == uid.to_string())
            .unwrap_or_else(|| panic!("{}: nobody is {uid}", here.name));
        let (name, home, shell) = (own[0].to_owned(), own[5].to_owned(), own[6].to_owned());
        assert_eq!(Some(&name), persona.env.get("USER"));
        assert_eq!(Some(&home), persona.env.get("HOME"));
        if let Some(wanted) = persona.env.get("SHELL") {
            assert_eq!(shell, *wanted);
        }
        let shadow = here.file("/etc/shadow");
        assert_eq!(shadow.is_some(), uid == 0, "{}", here.name);
        if let Some(shadow) = shadow {
            let names = |text: &str| -> Vec<String> {
                text.lines()
                    .map(|line| line.split(':').next().unwrap().to_owned())
                    .collect()
            };
            assert_eq!(names(&shadow), names(&passwd));
        }
        assert!(
            here.text("/etc/group")
                .contains(&format!("{name}:x:{}:", persona.gid))
        );
        assert!(here.text("/etc/os-release").contains("PRETTY_NAME="));
        // One machine has one number, and another for each start.
        let id = here.text("/etc/machine-id");
        assert_eq!(id.trim_end().len(), 32);
        let boot = here.text("/proc/sys/kernel/random/boot_id");
        assert_eq!(boot, here.text("/proc/sys/kernel/random/boot_id"));
        assert_eq!(&boot[14..15], "4", "{boot}");
        let path = "/proc/sys/kernel/random/uuid";
        assert_ne!(here.text(path), here.text(path));
        // Firmware as each architecture has it.
        let x86 = profile.name.starts_with("x86");
        let maker = here.file("/sys/class/dmi/id/sys_vendor");
        assert_eq!(maker.is_some(), x86 && !persona.dmi.is_empty(), "{}", here.name);
        let board = here.file("/proc/device-tree/model");
        assert_eq!(
            board.map(|board| board.trim_end_matches('\0').to_owned()),
            persona.boards.get(&profile.name).filter(|_| !x86).cloned()
        );
        assert_eq!(here.text("/proc/mounts"), here.text("/proc/self/mounts"));
        assert!(
            here.text("/proc/mounts")
                .lines()
                .any(|line| line.split(' ').nth(1) == Some("/"))
        );
        let zone = here.file("/etc/timezone");
        assert_eq!(zone.is_some(), persona.time_zone.is_some());
    });
}

#[test]
fn a_new_host_name_is_seen_everywhere() {
    let profile = super::profile("mipsel");
    let router = shipped().remove(1);
    let mut here = Here::new(&profile, &router);
    let Step::Run { space, .. } = here.bench.next() else {
        panic!("it runs")
    };
    here.bench.machines.machine(space).write(PATH, b"bot").unwrap();
    assert_eq!(here.bench.call("sethostname", &[PATH, 3]), Some(0));
    assert_eq!(here.text("/proc/sys/kernel/hostname"), "bot\n");
}
