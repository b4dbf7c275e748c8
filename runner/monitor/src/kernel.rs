//! Loads the kernel part, and talks with it.

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::PathBuf;
use std::time::Duration;

use hotcell_schema::deny::{Denial, Denied, Deny, When};
use libbpf_rs::{Link, MapCore, MapFlags, MapHandle, Object, ObjectBuilder, RingBufferBuilder};
use syscalls::Sysno;

use crate::calls::ROWS;

/// The kernel part, compiled.
static OBJECT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/monitor.bpf.o"));

/// Why the kernel part cannot be used on this host.
#[derive(Debug, thiserror::Error)]
#[error("{doing}: {source}")]
pub struct KernelError {
    doing: &'static str,
    source: libbpf_rs::Error,
}

fn at(doing: &'static str) -> impl FnOnce(libbpf_rs::Error) -> KernelError {
    move |source| KernelError { doing, source }
}

/// What the kernel part counted of one cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Records that were told.
    pub told: u64,
    /// Records for which there was no room.
    pub lost: u64,
    /// System calls that came back.
    pub calls: u64,
    /// How often a task of the cell got a processor.
    pub switches: u64,
    /// Bytes that were mapped in all.
    pub mapped: u64,
    /// The largest mapping, in bytes.
    pub largest: u64,
    /// Calls of `malloc`, `calloc`, `realloc`.
    pub allocated: u64,
    /// Calls of `free`.
    pub freed: u64,
}

/// Most calls for which a cell's processes are ended (`DENIES` of `record.h`).
const MOST_ENDING: usize = 24;

/// `struct deny` of `record.h`: a call, the argument and its bits that decide, the rule.
fn ending(deny: &Deny) -> Vec<(Sysno, u32, u64, u32)> {
    let mut calls = Vec::new();
    for (denied, _) in deny.each().filter(|(_, denial)| *denial == Denial::Kill) {
        for call in denied.calls() {
            let (argument, bits) = match call.when {
                When::Always => (0, 0),
                When::Bits(argument, bits) => (argument, bits),
                // Where memory decides, the call is absent altogether, or hooks of the control group see it.
                When::BitsAt(..) | When::Address(_) | When::Message(_) => continue,
            };
            // The host's architecture may not have it.
            if let Ok(number) = call.name.parse() {
                calls.push((number, argument.into(), bits, denied as u32));
            }
        }
    }
    calls
}

/// Whether a program is a hook of control groups.
fn is_hook(section: &OsStr) -> bool {
    section.as_encoded_bytes().starts_with(b"cgroup/")
}

/// Where control groups of version 2 are mounted (proc_pid_mountinfo(5)).
fn control_groups() -> Option<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").ok()?;
    mounts.lines().find_map(|line| {
        let (mount, file_system) = line.split_once(" - ")?;
        let mut mount = mount.split(' ').skip(3);
        let (root, place) = (mount.next()?, mount.next()?);
        (file_system.starts_with("cgroup2 ") && root == "/").then(|| place.into())
    })
}

/// The kernel part, loaded.
#[derive(Debug)]
pub struct Kernel {
    object: Object,
    links: Vec<Link>,
    /// Why there are no hooks of control groups, where there are none.
    no_hooks: Option<String>,
}

impl Kernel {
    /// Loads it, with a ring of so many bytes (a power of two, at least a page).
    pub fn load(ring: u32) -> Result<Self, KernelError> {
        // A kernel that does not take the hooks may take the rest.
        Self::load_with(ring, true).or_else(|error| {
            let kernel = Self::load_with(ring, false)?;
            Ok(Self {
                no_hooks: Some(error.to_string()),
                ..kernel
            })
        })
    }

    fn load_with(ring: u32, hooks: bool) -> Result<Self, KernelError> {
        let mut builder = ObjectBuilder::default();
        let mut open = builder
            .open_memory(OBJECT)
            .map_err(at("reading the monitor's program"))?;
        if let Some(mut map) = open.maps_mut().find(|map| map.name() == "ring") {
            map.set_max_entries(ring).map_err(at("sizing the ring"))?;
        }
        for mut program in open.progs_mut().filter(|_| !hooks) {
            if is_hook(program.section()) {
                program.set_autoload(false);
            }
        }
        let object = open.load().map_err(at("loading the monitor's program"))?;
        let kernel = Self {
            object,
            links: Vec::new(),
            no_hooks: None,
        };
        let rows = kernel.map("rows")?;
        for row in ROWS {
            rows.update(&row.call.id().to_ne_bytes(), &row.to_bytes(), MapFlags::ANY)
                .map_err(at("writing the table of calls"))?;
        }
        Ok(kernel)
    }

    fn map(&self, name: &'static str) -> Result<MapHandle, KernelError> {
        let map = self.object.maps().find(|map| map.name() == name);
        let map = map.ok_or_else(|| KernelError {
            doing: name,
            source: std::io::Error::from(std::io::ErrorKind::NotFound).into(),
        })?;
        MapHandle::try_from(&map).map_err(at("opening a map of the monitor"))
    }

    /// Attaches all programs.
    pub fn attach(&mut self) -> Result<(), KernelError> {
        for program in self
            .object
            .progs_mut()
            .filter(|program| !is_hook(program.section()))
        {
            self.links
                .push(program.attach().map_err(at("attaching the monitor's programs"))?);
        }
        if self.no_hooks.is_none() {
            self.no_hooks = self.attach_hooks().err();
        }
        Ok(())
    }

    /// To all control groups: the hooks themselves tell whose task it is.
    fn attach_hooks(&mut self) -> Result<(), String> {
        let all = control_groups().ok_or("no control groups of version 2 are mounted here")?;
        let folder = File::open(&all).map_err(|error| format!("{}: {error}", all.display()))?;
        for program in self
            .object
            .progs_mut()
            .filter(|program| is_hook(program.section()))
        {
            let link = program.attach_cgroup(folder.as_raw_fd());
            self.links.push(link.map_err(|error| error.to_string())?);
        }
        Ok(())
    }

    /// Detaches all programs: nobody pays for them any more.
    pub fn detach(&mut self) {
        self.links.clear();
    }

    /// Watches the children that a task will make, and theirs; not the task itself.
    pub fn watch_children(&self, task: BorrowedFd<'_>, cell: u32) -> Result<(), KernelError> {
        self.mark(task, cell, true)
    }

    /// Watches a task, and the children that it will make.
    pub fn watch(&self, task: BorrowedFd<'_>, cell: u32) -> Result<(), KernelError> {
        self.mark(task, cell, false)
    }

    /// How a cell's tasks are watched from now on: whether their programs run in QEMU, which is heard only once it has begun with
    /// them; and what they may not do.
    pub fn prepare(&self, cell: u32, emulated: bool, deny: &Deny) -> Result<(), KernelError> {
        self.rule(cell, emulated, deny, false)
    }

    /// Makes all of a cell's tasks stand still, each at its next call or turn; the rest is what it was prepared with.
    pub fn freeze(&self, cell: u32, emulated: bool, deny: &Deny) -> Result<(), KernelError> {
        self.rule(cell, emulated, deny, true)
    }

    fn rule(&self, cell: u32, emulated: bool, deny: &Deny, frozen: bool) -> Result<(), KernelError> {
        if let (Some(_), Some(why)) = (deny.connect, &self.no_hooks) {
            return Err(KernelError {
                doing: "denying `connect` takes the hooks of control groups",
                source: std::io::Error::other(why.clone()).into(),
            });
        }
        let policies = self.map("policies")?;
        let ending = ending(deny);
        let ending = ending.get(..MOST_ENDING).unwrap_or(&ending);
        let mut bytes = Vec::new();
        bytes.extend((ending.len() as u32).to_ne_bytes());
        bytes.extend(u32::from(emulated).to_ne_bytes());
        // `enum connecting` of `record.h`.
        let connecting: u32 = match deny.connect {
            None => 0,
            Some(Denial::Refuse) => 1,
            Some(Denial::Kill) => 2,
        };
        bytes.extend(connecting.to_ne_bytes());
        bytes.extend((Denied::Connect as u32).to_ne_bytes());
        bytes.extend([0; 4]);
        bytes.extend(u32::from(frozen).to_ne_bytes());
        for (call, argument, bits, rule) in ending {
            bytes.extend(call.id().to_ne_bytes());
            bytes.extend(argument.to_ne_bytes());
            bytes.extend(bits.to_ne_bytes());
            bytes.extend(rule.to_ne_bytes());
            bytes.extend([0; 4]);
        }
        bytes.resize(policies.value_size() as usize, 0);
        policies
            .update(&cell.to_ne_bytes(), &bytes, MapFlags::ANY)
            .map_err(at("writing what is denied"))
    }

    fn mark(&self, task: BorrowedFd<'_>, cell: u32, silent: bool) -> Result<(), KernelError> {
        let tasks = self.map("tasks")?;
        let mut kept = vec![0; tasks.value_size() as usize];
        kept[..4].copy_from_slice(&(cell + 1).to_ne_bytes());
        kept[4..8].copy_from_slice(&u32::from(silent).to_ne_bytes());
        // `within` of `struct kept`: a call that it may be in has not begun before our eyes.
        kept[12..16].copy_from_slice(&2_u32.to_ne_bytes());
        // `begun` of `struct kept`.
        kept[20..24].copy_from_slice(&1_u32.to_ne_bytes());
        tasks
            .update(&task.as_raw_fd().to_ne_bytes(), &kept, MapFlags::ANY)
            .map_err(at("watching a task"))
    }

    /// Counts of a cell begin at zero.
    pub fn forget(&self, cell: u32) -> Result<(), KernelError> {
        let cells = self.map("cells")?;
        let processors = libbpf_rs::num_possible_cpus().map_err(at("counting processors"))?;
        let zeros = vec![vec![0; cells.value_size() as usize]; processors];
        cells
            .update_percpu(&cell.to_ne_bytes(), &zeros, MapFlags::ANY)
            .map_err(at("clearing counts"))
    }

    /// What was counted of a cell.
    pub fn counts(&self, cell: u32) -> Result<Counts, KernelError> {
        let values = self
            .map("cells")?
            .lookup_percpu(&cell.to_ne_bytes(), MapFlags::ANY)
            .map_err(at("reading counts"))?
            .unwrap_or_default();
        let mut counts = Counts::default();
        for value in &values {
            let (numbers, _) = value.as_chunks::<8>();
            let number = |index: usize| numbers.get(index).map_or(0, |bytes| u64::from_ne_bytes(*bytes));
            counts.told += number(0);
            counts.lost += number(1);
            counts.calls += number(2);
            counts.switches += number(3);
            counts.mapped += number(4);
            counts.largest = counts.largest.max(number(5));
            counts.allocated += number(6);
            counts.freed += number(7);
        }
        Ok(counts)
    }

    /// Gives records to `take` until it is told to stop: at most so many at a time, so that a producer that keeps up
    /// cannot hold the reader. `drained` hears each time that there was nothing left, and says
    /// how long to wait then for a ring that is not full enough to be read at once.
    pub fn read(
        &self,
        mut take: impl FnMut(&[u8]),
        mut goes_on: impl FnMut() -> bool,
        mut drained: impl FnMut() -> Duration,
    ) -> Result<(), KernelError> {
        let ring = self.map("ring")?;
        let mut builder = RingBufferBuilder::new();
        builder
            .add(&ring, |bytes| {
                take(bytes);
                0
            })
            .map_err(at("opening the ring"))?;
        let ring = builder.build().map_err(at("opening the ring"))?;
        loop {
            let more = goes_on();
            while ring.consume_raw_n(4096) > 0 {
                if more && !goes_on() {
                    break;
                }
            }
            let pause = drained();
            if !more {
                return Ok(());
            }
            ring.poll_raw(pause);
        }
    }
}
