//! The contents of `/proc`.

use std::fmt::Write as _;

use hotcell_schema::arch::AbiFamily;

use crate::fs::proc::{MachineFile, ProcFile, ProcessFile};
use crate::kernel::Kernel;
use crate::space::Backing;
use crate::task::{Process, State, Task};

const MOUNTS: &[(&str, &str, &str, &str)] = &[
    ("/dev/sda1", "/", "ext4", "rw,relatime,errors=remount-ro"),
    (
        "devtmpfs",
        "/dev",
        "devtmpfs",
        "rw,nosuid,relatime,size=1009376k,nr_inodes=252344,mode=755",
    ),
    ("proc", "/proc", "proc", "rw,nosuid,nodev,noexec,relatime"),
    ("sysfs", "/sys", "sysfs", "ro,nosuid,nodev,noexec,relatime"),
];

impl Kernel {
    /// What a file of `/proc` holds now; `None` when its process is gone.
    pub(crate) fn proc_content(&self, file: ProcFile) -> Option<Vec<u8>> {
        match file {
            ProcFile::Machine(file) => Some(self.machine_content(file).into_bytes()),
            ProcFile::Process(pid, file) => {
                let process = self.processes.get(&pid)?;
                Some(self.process_content(process, file))
            }
        }
    }

    fn machine_content(&self, file: MachineFile) -> String {
        let second = 1_000_000_000;
        let uptime = self.time.since_boot();
        match file {
            MachineFile::CpuInfo => self.cpu_info(),
            MachineFile::MemInfo => {
                let total = self.persona.memory_mib.saturating_mul(1024);
                let rows = [
                    ("MemTotal", total),
                    ("MemFree", total / 4 * 3),
                    ("MemAvailable", total / 8 * 7),
                    ("Buffers", total / 32),
                    ("Cached", total / 8),
                    ("SwapCached", 0),
                    ("Active", total / 10),
                    ("Inactive", total / 12),
                    ("SwapTotal", 0),
                    ("SwapFree", 0),
                    ("Shmem", 1024),
                    ("Slab", total / 40),
                ];
                rows.iter().fold(String::new(), |mut text, (name, kib)| {
                    let _ = writeln!(text, "{:<15} {kib:>8} kB", format!("{name}:"));
                    text
                })
            }
            MachineFile::Uptime => {
                let hundredths = uptime % second / 10_000_000;
                let idle = uptime / second * u64::from(self.persona.cpus);
                format!("{}.{hundredths:02} {idle}.00\n", uptime / second)
            }
            MachineFile::Version => format!(
                "Linux version {} (debian-kernel@lists.debian.org) (gcc-12 (Debian 12.2.0-14) 12.2.0, GNU ld (GNU Binutils for Debian) 2.40) {}\n",
                self.persona.kernel_release, self.persona.kernel_version
            ),
            MachineFile::Stat => {
                let ticks = uptime / 10_000_000;
                let mut text = String::new();
                let cpus = u64::from(self.persona.cpus.clamp(1, 256));
                let _ = writeln!(
                    text,
                    "cpu  {} 0 {} {} 0 0 0 0 0 0",
                    ticks / 50 * cpus,
                    ticks / 100 * cpus,
                    ticks / 100 * 97 * cpus
                );
                for cpu in 0..cpus {
                    let _ = writeln!(
                        text,
                        "cpu{cpu} {} 0 {} {} 0 0 0 0 0 0",
                        ticks / 50,
                        ticks / 100,
                        ticks / 100 * 97
                    );
                }
                let _ = write!(
                    text,
                    "intr {0}\nctxt {0}\nbtime {1}\nprocesses {2}\nprocs_running 1\nprocs_blocked 0\n",
                    ticks * 3,
                    self.time.boot_second(),
                    self.next_pid
                );
                text
            }
            MachineFile::LoadAverage => format!(
                "0.03 0.02 0.00 1/{} {}\n",
                self.tasks.len() + 80,
                self.next_pid.saturating_sub(1)
            ),
        }
    }

    fn cpu_info(&self) -> String {
        let model = |default: &str| {
            self.persona
                .cpu_model
                .clone()
                .unwrap_or_else(|| default.to_owned())
        };
        let count = self.persona.cpus.clamp(1, 256);
        let mut text = String::new();
        let each = |text: &mut String, body: &dyn Fn(u32) -> String| {
            for cpu in 0..count {
                text.push_str(&body(cpu));
                text.push('\n');
            }
        };
        match self.abi.family {
            AbiFamily::X86_64 | AbiFamily::I386 => each(&mut text, &|cpu| {
                format!(
                    "processor\t: {cpu}\nvendor_id\t: GenuineIntel\ncpu family\t: 6\nmodel\t\t: 85\nmodel name\t: {}\nstepping\t: 7\ncpu MHz\t\t: 2000.000\ncache size\t: 16384 KB\nphysical id\t: 0\nsiblings\t: {count}\ncore id\t\t: {cpu}\ncpu cores\t: {count}\nfpu\t\t: yes\nflags\t\t: fpu de pse tsc msr pae mce cx8 apic sep pge cmov pat clflush mmx fxsr sse sse2 syscall nx lm\nbogomips\t: 4000.00\n",
                    model("Intel(R) Xeon(R) Processor @ 2.00GHz")
                )
            }),
            AbiFamily::Generic64 if self.profile.name == "riscv64" => each(&mut text, &|cpu| {
                format!(
                    "processor\t: {cpu}\nhart\t\t: {cpu}\nisa\t\t: rv64imafdc\nmmu\t\t: sv39\nuarch\t\t: {}\n",
                    model("sifive,u74-mc")
                )
            }),
            AbiFamily::Generic64 => each(&mut text, &|cpu| {
                format!(
                    "processor\t: {cpu}\nBogoMIPS\t: 125.00\nFeatures\t: fp asimd aes pmull sha1 sha2 crc32\nCPU implementer\t: 0x41\nCPU architecture: 8\nCPU variant\t: 0x1\nCPU part\t: 0xd07\nCPU revision\t: 0\n"
                )
            }),
            AbiFamily::ArmEabi => {
                each(&mut text, &|cpu| {
                    format!(
                        "processor\t: {cpu}\nmodel name\t: {}\nBogoMIPS\t: 125.00\nFeatures\t: half thumb fastmult vfp edsp neon vfpv3 tls vfpv4 idiva idivt vfpd32\nCPU implementer\t: 0x41\nCPU architecture: 7\nCPU variant\t: 0x2\nCPU part\t: 0xc0f\nCPU revision\t: 1\n",
                        model("ARMv7 Processor rev 1 (v7l)")
                    )
                });
                text.push_str(
                    "Hardware\t: Generic DT based system\nRevision\t: 0000\nSerial\t\t: 0000000000000000\n",
                );
            }
            AbiFamily::MipsO32 | AbiFamily::MipsN64 => {
                let isa = if self.abi.wide { "mips64r2" } else { "mips32r2" };
                let _ = write!(text, "system type\t\t: MIPS Malta\nmachine\t\t\t: mti,malta\n");
                each(&mut text, &|cpu| {
                    format!(
                        "processor\t\t: {cpu}\ncpu model\t\t: {}\nBogoMIPS\t\t: 479.23\nwait instruction\t: yes\nisa\t\t\t: mips1 mips2 {isa}\n",
                        model("MIPS 24Kc V0.0  FPU V0.0")
                    )
                });
            }
            AbiFamily::Ppc32 | AbiFamily::Ppc64 => {
                let default = if self.abi.wide {
                    "POWER8 (raw), altivec supported"
                } else {
                    "7447A, altivec supported"
                };
                each(&mut text, &|cpu| {
                    format!(
                        "processor\t: {cpu}\ncpu\t\t: {}\nclock\t\t: 1000.000000MHz\nrevision\t: 2.0\n",
                        model(default)
                    )
                });
                text.push_str("timebase\t: 512000000\nplatform\t: pSeries\n");
            }
            AbiFamily::S390x => {
                let _ = write!(
                    text,
                    "vendor_id       : IBM/S390\n# processors    : {count}\nbogomips per cpu: 3033.00\nfeatures\t: esan3 zarch stfle msa ldisp eimm etf3eh highgprs \n"
                );
                for cpu in 0..count {
                    let _ = writeln!(
                        text,
                        "processor {cpu}: version = 00,  identification = 000000,  machine = 2964"
                    );
                }
            }
        }
        text
    }

    fn process_content(&self, process: &Process, file: ProcessFile) -> Vec<u8> {
        let joined = |list: &[Vec<u8>]| {
            let mut bytes = Vec::new();
            for one in list {
                bytes.extend(one);
                bytes.push(0);
            }
            bytes
        };
        match file {
            ProcessFile::CommandLine => joined(&process.argv),
            ProcessFile::Environment => joined(&process.env),
            ProcessFile::Comm => [process.comm.as_slice(), b"\n"].concat(),
            ProcessFile::Maps => self.spaces.get(&process.space).map(|space| space.maps_text("08:01")).unwrap_or_default().into_bytes(),
            ProcessFile::Mounts => MOUNTS
                .iter()
                .map(|(from, to, kind, options)| format!("{from} {to} {kind} {options} 0 0\n"))
                .collect::<String>()
                .into_bytes(),
            ProcessFile::MountInfo => (20u32..)
                .zip(MOUNTS)
                .map(|(id, (from, to, kind, options))| format!("{id} 1 8:1 / {to} {options} - {kind} {from} rw\n"))
                .collect::<String>()
                .into_bytes(),
            ProcessFile::Memory => Vec::new(),
            ProcessFile::OomScore => b"0\n".to_vec(),
            ProcessFile::Limits => b"Limit                     Soft Limit           Hard Limit           Units     \nMax open files            1024                 4096                 files     \n".to_vec(),
            ProcessFile::Stat => self.process_stat(process).into_bytes(),
            ProcessFile::Statm => {
                let pages = self.pages(process);
                format!("{pages} {} {} 1 0 {} 0\n", pages / 2, pages / 4, pages / 3).into_bytes()
            }
            ProcessFile::Status => self.process_status(process).into_bytes(),
        }
    }

    fn pages(&self, process: &Process) -> u64 {
        self.spaces
            .get(&process.space)
            .map_or(0, |space| space.size() / self.abi.page)
    }

    fn letter(&self, process: &Process) -> (char, &'static str) {
        let runs = process
            .tasks
            .iter()
            .filter_map(|tid| self.tasks.get(tid))
            .any(|task| task.state == State::Runnable);
        let held = self.tasks.get(&process.pid).is_some_and(Task::is_held);
        match (process.ended, process.stopped, runs) {
            (Some(_), ..) => ('Z', "zombie"),
            _ if held => ('t', "tracing stop"),
            (_, true, _) => ('T', "stopped"),
            (.., true) => ('R', "running"),
            _ => ('S', "sleeping"),
        }
    }

    fn process_stat(&self, process: &Process) -> String {
        let comm = String::from_utf8_lossy(&process.comm);
        let space = self.spaces.get(&process.space);
        let stack = space.and_then(|space| {
            space
                .mappings()
                .find(|(_, mapping)| mapping.backing == Backing::Stack)
        });
        let start = self
            .time
            .since_boot()
            .saturating_sub(self.time.now)
            .saturating_add(process.started)
            / 10_000_000;
        format!(
            "{} ({comm}) {} {} {} {} 0 -1 4194304 0 0 0 0 {} 0 0 0 20 0 {} 0 {start} {} {} 18446744073709551615 0 0 {} 0 0 0 0 0 0 0 0 0 17 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n",
            process.pid,
            self.letter(process).0,
            process.parent,
            process.group,
            process.session,
            process.used / 10_000_000,
            process.tasks.len(),
            space.map_or(0, |space| space.size()),
            self.pages(process) / 2,
            stack.map_or(0, |(_, mapping)| mapping.end),
        )
    }

    fn process_status(&self, process: &Process) -> String {
        let comm = String::from_utf8_lossy(&process.comm);
        let (letter, word) = self.letter(process);
        let kib = self.pages(process) * (self.abi.page / 1024);
        let [uid, euid, suid] = process.uid;
        let [gid, egid, sgid] = process.gid;
        let groups: String = process.groups.iter().map(|group| format!("{group} ")).collect();
        format!(
            "Name:\t{comm}\nUmask:\t{:04o}\nState:\t{letter} ({word})\nTgid:\t{pid}\nNgid:\t0\nPid:\t{pid}\nPPid:\t{}\nTracerPid:\t{tracer}\nUid:\t{uid}\t{euid}\t{suid}\t{euid}\nGid:\t{gid}\t{egid}\t{sgid}\t{egid}\nFDSize:\t64\nGroups:\t{groups}\nVmPeak:\t{kib:>8} kB\nVmSize:\t{kib:>8} kB\nVmRSS:\t{:>8} kB\nThreads:\t{}\nSeccomp:\t0\nCpus_allowed:\t{:x}\n",
            process.umask,
            process.parent,
            kib / 2,
            process.tasks.len(),
            (1u64 << self.persona.cpus.clamp(1, 32)) - 1,
            pid = process.pid,
            tracer = self.tracer_of(process.pid),
        )
    }
}
