//! Loads the kernel part, and talks with it.

use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

use libbpf_rs::{Link, MapCore, MapFlags, MapHandle, Object, ObjectBuilder, RingBufferBuilder};

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

/// A system call at whose beginning the kernel part ends the task.
#[derive(Debug, Clone, Copy)]
pub struct Deny {
    /// Which call.
    pub call: syscalls::Sysno,
    /// Which of its arguments is looked at, 0 to 5.
    pub argument: u32,
    /// Bits of it that matter; 0: none, every such call is denied.
    pub mask: u64,
    /// What they are where it is denied.
    pub value: u64,
}

/// Most of them for one cell (`DENIES` of `record.h`).
pub const MOST_DENIED: usize = 8;

/// The kernel part, loaded.
#[derive(Debug)]
pub struct Kernel {
    object: Object,
    links: Vec<Link>,
}

impl Kernel {
    /// Loads it, with a ring of so many bytes (a power of two, at least a page).
    pub fn load(ring: u32) -> Result<Self, KernelError> {
        let mut builder = ObjectBuilder::default();
        let mut open = builder
            .open_memory(OBJECT)
            .map_err(at("reading the monitor's program"))?;
        if let Some(mut map) = open.maps_mut().find(|map| map.name() == "ring") {
            map.set_max_entries(ring).map_err(at("sizing the ring"))?;
        }
        let object = open.load().map_err(at("loading the monitor's program"))?;
        let kernel = Self {
            object,
            links: Vec::new(),
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
        for program in self.object.progs_mut() {
            self.links
                .push(program.attach().map_err(at("attaching the monitor's programs"))?);
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
    /// them; and what they are ended for, of which the first eight count.
    pub fn prepare(&self, cell: u32, emulated: bool, denied: &[Deny]) -> Result<(), KernelError> {
        let policies = self.map("policies")?;
        let denied = denied.get(..MOST_DENIED).unwrap_or(denied);
        let mut bytes = Vec::new();
        bytes.extend((denied.len() as u32).to_ne_bytes());
        bytes.extend(u32::from(emulated).to_ne_bytes());
        for deny in denied {
            bytes.extend(deny.call.id().to_ne_bytes());
            bytes.extend(deny.argument.to_ne_bytes());
            bytes.extend(deny.mask.to_ne_bytes());
            bytes.extend(deny.value.to_ne_bytes());
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
    /// cannot hold the reader. `drained` hears each time that there was nothing left.
    pub fn read(
        &self,
        mut take: impl FnMut(&[u8]),
        mut goes_on: impl FnMut() -> bool,
        mut drained: impl FnMut(),
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
            drained();
            if !more {
                return Ok(());
            }
            ring.poll_raw(Duration::from_millis(10));
        }
    }
}
