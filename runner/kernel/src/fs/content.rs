//! The contents of `/proc`.

use std::fmt::Write as _;

use hotcell_schema::arch::AbiFamily;

use crate::abi::quirks::VSYSCALL_MAP;
use crate::fs::cpu;
use crate::fs::identity::{self, Processors as _};
use crate::fs::proc::{MachineFile, ProcFile, ProcessFile};
use crate::fs::tree::Kind;
use crate::kernel::Kernel;
use crate::mapping::Backing;
use crate::task::{Process, State, Task};

impl Kernel {
    /// What a file of `/proc` holds now; `None` when its process is gone.
    pub(crate) fn proc_content(&mut self, file: ProcFile) -> Option<Vec<u8>> {
        match file {
            ProcFile::Net(file) => Some(self.net_content(file).into_bytes()),
            ProcFile::Machine(file) => Some(self.machine_content(file).into_bytes()),
            ProcFile::Process(pid, file) => {
                let process = self.processes.get(&pid)?;
                Some(self.process_content(process, file))
            }
        }
    }

    /// A process executed another program: whoever has its files of `/proc` open finds the new one there.
    pub(crate) fn renew_texts(&mut self, pid: u32) {
        let Some(process) = self.processes.get(&pid) else {
            return;
        };
        let mut renewed = Vec::new();
        for (id, ino) in self.open.texts() {
            if let Some(Kind::Proc(ProcFile::Process(of, file))) = self.tree.get(ino).map(|inode| &inode.kind)
                && *of == pid
                && file.follows()
            {
                renewed.push((id, self.process_content(process, *file)));
            }
        }
        for (id, text) in renewed {
            self.open.renew(id, text);
        }
    }

    fn machine_content(&mut self, file: MachineFile) -> String {
        let second = 1_000_000_000;
        let uptime = self.time.since_boot();
        match file {
            MachineFile::CpuInfo => cpu::info(&self.abi, &self.profile, &self.persona),
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
                let idle = uptime / second / 100 * 97 * u64::from(self.persona.processors());
                format!("{}.{hundredths:02} {idle}.00\n", uptime / second)
            }
            MachineFile::Version => format!(
                "Linux version {} {} {}\n",
                self.persona.kernel_release, self.persona.kernel_builder, self.persona.kernel_version
            ),
            MachineFile::Stat => {
                let ticks = uptime / 10_000_000;
                let mut text = String::new();
                let cpus = u64::from(self.persona.processors());
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
            MachineFile::LoadAverage => {
                let mut text = String::new();
                for load in self.persona.load {
                    let _ = write!(text, "{}.{:02} ", load / 100, load % 100);
                }
                let last = self.next_pid.saturating_sub(1);
                let _ = writeln!(text, "1/{} {last}", self.task_count());
                text
            }
            MachineFile::HostName => format!("{}\n", self.persona.hostname),
            MachineFile::DomainName => format!("{}\n", self.persona.domain),
            MachineFile::Uuid => {
                let random = [0; 2].map(|_: u64| self.chance.guest.number());
                identity::uuid(u128::from(random[0]) << 64 | u128::from(random[1]))
            }
        }
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
            ProcessFile::Maps => {
                let mut maps = self
                    .spaces
                    .get(&process.space)
                    .map(|space| space.maps_text("08:01"))
                    .unwrap_or_default();
                if !maps.is_empty() && self.abi.family == AbiFamily::X86_64 {
                    maps.push_str(VSYSCALL_MAP);
                }
                maps.into_bytes()
            }
            ProcessFile::Mounts => identity::mounts(&self.persona).into_bytes(),
            ProcessFile::MountInfo => identity::mount_info(&self.persona).into_bytes(),
            ProcessFile::Memory => Vec::new(),
            ProcessFile::AuxiliaryVector => process.placed.auxv.clone(),
            // No control groups but the one at the top, as the list of mounts says.
            ProcessFile::ControlGroup => b"0::/\n".to_vec(),
            // (uid_t) -1 and (unsigned int) -1 (kernel/audit.c); no line feed behind them.
            ProcessFile::Unset => b"4294967295".to_vec(),
            ProcessFile::OomScore => b"0\n".to_vec(),
            ProcessFile::Limits => process.limits_text().into_bytes(),
            ProcessFile::Stat => self.process_stat(process).into_bytes(),
            ProcessFile::Statm => {
                let pages = self.pages(process);
                format!("{pages} {} {} 1 0 {} 0\n", pages / 2, pages / 4, pages / 3).into_bytes()
            }
            ProcessFile::Status => self.process_status(process).into_bytes(),
        }
    }

    /// Tasks of the whole system: those of a machine at rest, and the sample's.
    pub(crate) fn task_count(&self) -> usize {
        80 + self.tasks.len()
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
            "{} ({comm}) {} {} {} {} 0 -1 4194304 0 0 0 0 {} {} 0 0 20 0 {} 0 {start} {} {} 18446744073709551615 0 0 {} 0 0 0 0 0 0 0 0 0 17 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n",
            process.pid,
            self.letter(process).0,
            process.parent,
            process.group,
            process.session,
            process.used.user / 10_000_000,
            process.used.system / 10_000_000,
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
        let mask = self.persona.processor_words(32).into_iter().rev();
        let mask: Vec<String> = mask.map(|word| format!("{word:x}")).collect();
        let mask = mask.join(",");
        let groups: String = process.groups.iter().map(|group| format!("{group} ")).collect();
        format!(
            "Name:\t{comm}\nUmask:\t{:04o}\nState:\t{letter} ({word})\nTgid:\t{pid}\nNgid:\t0\nPid:\t{pid}\nPPid:\t{}\nTracerPid:\t{tracer}\nUid:\t{uid}\t{euid}\t{suid}\t{euid}\nGid:\t{gid}\t{egid}\t{sgid}\t{egid}\nFDSize:\t64\nGroups:\t{groups}\nVmPeak:\t{kib:>8} kB\nVmSize:\t{kib:>8} kB\nVmRSS:\t{:>8} kB\nThreads:\t{}\n{}Seccomp:\t0\nCpus_allowed:\t{}\n",
            process.umask,
            process.parent,
            kib / 2,
            process.tasks.len(),
            self.signal_lines(process),
            mask,
            pid = process.pid,
            tracer = self.tracer_of(process.pid),
        )
    }
}
