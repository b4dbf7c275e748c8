//! Loads the kernel part, and talks with it.

use std::cell::RefCell;
use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::{AsFd as _, AsRawFd, BorrowedFd};
use std::path::PathBuf;
use std::time::Duration;

use hotcell_schema::deny::{Denial, Denied, Deny};
use libbpf_rs::{Link, MapCore, MapFlags, MapHandle, Object, ObjectBuilder, RingBufferBuilder};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::calls::ROWS;
use crate::ending::{Ending, ending};
use crate::protocol::CELLS;
use crate::record;

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
    /// Tasks that were made and have not ended.
    pub living: u64,
}

/// Most calls for which a cell's processes are ended (`DENIES` of `record.h`).
const MOST_ENDING: usize = 32;
/// Records that are read in one turn.
const TURN: usize = 256;
/// Bytes that the ring keeps before each record (`BPF_RINGBUF_HDR_SZ`, include/uapi/linux/bpf.h).
const RECORD_HEAD: u64 = 8;
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

/// Who has how much unread in the ring. The kernel part counts what it tells, its reader what he takes; a cell that has as much
/// unread as others have room left for is told no more of, until some of it was read.
#[derive(Debug)]
struct Books {
    told: MapHandle,
    taken: MapHandle,
    ring: u64,
    /// Bytes that were taken of each cell's.
    bytes: RefCell<Vec<u64>>,
}

/// How much is unread after a turn of reading.
#[derive(Debug, Default)]
pub struct Unread {
    /// Bytes of each cell.
    cells: Vec<u64>,
    /// Bytes of the ring that nobody uses.
    pub room: u64,
}

impl Unread {
    /// Bytes of one cell.
    pub fn of(&self, cell: u32) -> u64 {
        self.cells.get(cell as usize).copied().unwrap_or(0)
    }
}

/// `struct taken` of `monitor.bpf.c`.
fn write_taken(taken: &MapHandle, ring: u64, bytes: &[u64]) -> Result<(), KernelError> {
    let numbers = std::iter::once(&ring).chain(bytes);
    let value: Vec<u8> = numbers.flat_map(|number| number.to_ne_bytes()).collect();
    taken
        .update(&0_u32.to_ne_bytes(), &value, MapFlags::ANY)
        .map_err(at("writing what was read"))
}

impl Books {
    /// A record was taken out.
    fn take(&self, record: &[u8]) {
        let mut bytes = self.bytes.borrow_mut();
        if let Some(bytes) = record::cell(record).and_then(|cell| bytes.get_mut(cell as usize)) {
            *bytes += (record.len() as u64 + RECORD_HEAD).next_multiple_of(8);
        }
    }

    /// Tells the kernel part what was taken, and hears what was told.
    fn balance(&self) -> Result<Unread, KernelError> {
        let bytes = self.bytes.borrow();
        write_taken(&self.taken, self.ring, &bytes)?;
        let told = self
            .told
            .lookup(&0_u32.to_ne_bytes(), MapFlags::ANY)
            .map_err(at("reading what was told"))?
            .unwrap_or_default();
        // `struct told` of `monitor.bpf.c`: the first number of each line.
        let (told, _) = told.as_chunks::<64>();
        let told = told.iter().filter_map(|line| line.first_chunk::<8>());
        let cells: Vec<u64> = told
            .zip(bytes.iter())
            .map(|(told, taken)| u64::from_ne_bytes(*told).saturating_sub(*taken))
            .collect();
        let room = self.ring.saturating_sub(cells.iter().sum());
        Ok(Unread { cells, room })
    }
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
        write_taken(&kernel.map("taken")?, ring.into(), &[0; CELLS as usize])?;
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
        for Ending {
            call,
            argument,
            bits,
            rule,
            family,
        } in ending
        {
            // `struct deny` of `record.h`.
            bytes.extend(call.id().to_ne_bytes());
            bytes.extend(argument.to_ne_bytes());
            bytes.extend(bits.to_ne_bytes());
            bytes.extend(rule.to_ne_bytes());
            bytes.extend(family.to_ne_bytes());
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

    fn books(&self) -> Result<Books, KernelError> {
        let ring = self.map("ring")?.max_entries();
        Ok(Books {
            told: self.map("told")?,
            taken: self.map("taken")?,
            ring: ring.into(),
            bytes: RefCell::new(vec![0; CELLS as usize]),
        })
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
            // One that ends elsewhere than where it began is taken off another processor's count.
            counts.living = counts.living.wrapping_add(number(8));
        }
        Ok(counts)
    }

    /// Gives records to `take` until it is told to stop: at most [`TURN`] at a time, before and after which `goes_on` is asked, so that a
    /// producer that keeps up cannot hold the reader. `drained` hears each time that there was nothing left, and says
    /// how long to wait then for a ring that is not full enough to be read at once. Both hear what is unread.
    pub fn read(
        &self,
        mut take: impl FnMut(&[u8]),
        mut goes_on: impl FnMut(&Unread) -> bool,
        mut drained: impl FnMut(&Unread) -> Duration,
    ) -> Result<(), KernelError> {
        let map = self.map("ring")?;
        let books = self.books()?;
        let mut builder = RingBufferBuilder::new();
        builder
            .add(&map, |bytes| {
                books.take(bytes);
                take(bytes);
                0
            })
            .map_err(at("opening the ring"))?;
        let ring = builder.build().map_err(at("opening the ring"))?;
        loop {
            let more = goes_on(&books.balance()?);
            while ring.consume_raw_n(TURN) > 0 {
                if !goes_on(&books.balance()?) && more {
                    break;
                }
            }
            let pause = drained(&books.balance()?);
            if !more {
                return Ok(());
            }
            // Nothing is read here: libbpf's own way to wait takes all that comes, and more may come than it takes.
            let mut ready = [PollFd::new(map.as_fd(), PollFlags::POLLIN)];
            let pause = PollTimeout::try_from(pause).unwrap_or(PollTimeout::ZERO);
            let _ = poll(&mut ready, pause);
        }
    }
}
