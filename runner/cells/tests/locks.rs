//! Core locks: what they promise, against a simple model; who can write them; what is no table; who lives.

#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "common/map_unsafe.rs"]
mod map_unsafe;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};

use hotcell_cells::cores::locks::{
    CoreIndex, Freed, Grant, Holder, LockTable, LockView, MAX_CORES, ProcessFault, Processes, Refused,
    TableFault, ViewFault,
};
use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, FcntlArg, SealFlag, fallocate, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::mman::ProtFlags;
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;
use proptest::prelude::*;

use map_unsafe::{map, map_and_make_writable};

fn holder(pid: u32, started: u64) -> Holder {
    Holder::new(pid, started).unwrap()
}

fn cores(numbers: &[u16]) -> Vec<CoreIndex> {
    numbers.iter().map(|&number| CoreIndex::new(number)).collect()
}

fn table(cores: u16) -> LockTable {
    LockTable::new(cores, holder(1, 2)).unwrap()
}

#[test]
fn a_grant_is_all_or_none_and_says_why() {
    let table = table(4);
    let (one, other) = (holder(10, 100), holder(11, 110));
    let grant = table.acquire(&cores(&[3, 1]), one).unwrap();
    assert_eq!(grant.cores().collect::<Vec<_>>(), cores(&[1, 3]));
    assert_eq!(grant.holder(), one);
    let busy = |core| Refused::Busy {
        core: CoreIndex::new(core),
        holder: Some(one),
    };
    assert_eq!(table.acquire(&cores(&[3, 2, 1, 0]), other).unwrap_err(), busy(1));
    assert_eq!(
        table.holders(),
        [(CoreIndex::new(1), one), (CoreIndex::new(3), one)]
    );
    // Also for the holder itself.
    assert_eq!(table.acquire(&cores(&[3]), one).unwrap_err(), busy(3));
    assert_eq!(table.acquire(&[], one).unwrap_err(), Refused::NoCores);
    assert_eq!(
        table.acquire(&cores(&[0, 2, 0]), one).unwrap_err(),
        Refused::Twice {
            core: CoreIndex::new(0)
        }
    );
    let away = table.acquire(&cores(&[0, 4]), one).unwrap_err();
    assert_eq!(away.to_string(), "there is no core 4: the cores are 0 to 3");
    assert_eq!(
        busy(1).to_string(),
        "core 1 is not free: it is held by process 10 (started at tick 100)"
    );
    assert_eq!(table.release(grant), 2);
    assert_eq!(table.holders(), []);
    assert_eq!(table.query(CoreIndex::new(4)), None);
}

#[test]
fn a_table_has_one_core_at_least_and_as_many_as_linux_at_most() {
    for asked in [0, MAX_CORES + 1, u16::MAX] {
        let refused = LockTable::new(asked, holder(1, 2)).unwrap_err();
        assert!(matches!(refused, TableFault::Size { asked: found } if found == asked));
    }
    let table = table(MAX_CORES);
    let view = LockView::open(&table).unwrap();
    let all: Vec<_> = (0..MAX_CORES).map(CoreIndex::new).collect();
    let grant = table.acquire(&all, holder(5, 50)).unwrap();
    assert_eq!(view.holders().len(), usize::from(MAX_CORES));
    assert_eq!(table.release(grant), usize::from(MAX_CORES));
    assert_eq!(view.holders(), []);
}

#[test]
fn a_holder_is_a_process() {
    assert_eq!(Holder::new(0, 1), None);
    assert_eq!(Holder::new(1 << 31, 1), None);
    assert_eq!(Holder::new(u32::MAX, 1), None);
    let most = holder(i32::MAX.unsigned_abs(), u64::MAX);
    assert_eq!((most.pid(), most.started()), (i32::MAX.unsigned_abs(), u64::MAX));
    let table = table(1);
    let grant = table.acquire(&cores(&[0]), most).unwrap();
    assert_eq!(
        LockView::open(&table).unwrap().query(CoreIndex::new(0)),
        Some(most)
    );
    assert_eq!(table.release(grant), 1);
}

#[test]
fn what_a_dead_holder_had_goes_once() {
    let table = table(4);
    let (dead, living) = (holder(10, 100), holder(10, 101));
    let old = table.acquire(&cores(&[0, 2]), dead).unwrap();
    let _held = table.acquire(&cores(&[1]), living).unwrap();
    let asked = std::cell::RefCell::new(Vec::new());
    let lives = |who: Holder| {
        asked.borrow_mut().push(who);
        who == living
    };
    let freed = [0, 2].map(|core| Freed {
        core: CoreIndex::new(core),
        holder: dead,
    });
    assert_eq!(table.free_the_dead(&lives), freed);
    assert_eq!(asked.take(), [dead, living], "each is asked for once");
    assert_eq!(table.free_the_dead(&lives), []);
    // The late grant takes nothing from the next holder, even of the same process.
    let next = table.acquire(&cores(&[0, 2]), dead).unwrap();
    assert_eq!(table.release(old), 0);
    assert_eq!(table.query(CoreIndex::new(2)), Some(dead));
    assert_eq!(table.release(next), 2);
}

#[derive(Debug, Clone)]
enum Step {
    Acquire { wanted: Vec<u16>, holder: u32 },
    Release { grant: prop::sample::Index },
    Die { holder: u32 },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (prop::collection::vec(0..7_u16, 0..5), 1..6_u32)
            .prop_map(|(wanted, holder)| Step::Acquire { wanted, holder }),
        3 => any::<prop::sample::Index>().prop_map(|grant| Step::Release { grant }),
        1 => (1..6_u32).prop_map(|holder| Step::Die { holder }),
    ]
}

/// A table as anybody would write it.
#[derive(Default)]
struct Model(BTreeMap<u16, Holder>);

impl Model {
    fn allows(&self, wanted: &[u16]) -> bool {
        let each: BTreeSet<_> = wanted.iter().collect();
        !wanted.is_empty()
            && each.len() == wanted.len()
            && wanted.iter().all(|core| *core < 6 && !self.0.contains_key(core))
    }
}

proptest! {
    #[test]
    fn any_sequence_of_steps_gives_what_the_model_gives(steps in prop::collection::vec(step(), 0..60)) {
        let table = table(6);
        let view = LockView::open(&table).unwrap();
        let mut model = Model::default();
        let mut grants: Vec<Grant> = Vec::new();
        // A pid is used again after its process died: then the start time is another.
        let mut lives = [1_u64; 6];
        for step in steps {
            match step {
                Step::Acquire { wanted, holder: pid } => {
                    let who = holder(pid, lives[pid as usize]);
                    let granted = table.acquire(&cores(&wanted), who);
                    prop_assert_eq!(granted.is_ok(), model.allows(&wanted), "{:?}", granted);
                    if let Ok(grant) = granted {
                        model.0.extend(wanted.iter().map(|&core| (core, who)));
                        grants.push(grant);
                    }
                }
                Step::Release { grant } if !grants.is_empty() => {
                    let grant = grants.swap_remove(grant.index(grants.len()));
                    let (who, wanted): (_, Vec<_>) = (grant.holder(), grant.cores().collect());
                    let alive = lives[who.pid() as usize] == who.started();
                    prop_assert_eq!(table.release(grant), if alive { wanted.len() } else { 0 });
                    if alive {
                        model.0.retain(|&core, _| !wanted.contains(&CoreIndex::new(core)));
                    }
                }
                Step::Release { .. } => {}
                Step::Die { holder: pid } => {
                    let dead = holder(pid, lives[pid as usize]);
                    lives[pid as usize] += 1;
                    let freed = table.free_the_dead(&|who| lives[who.pid() as usize] == who.started());
                    let lost: Vec<_> = model.0.iter().filter(|&(_, &who)| who == dead)
                        .map(|(&core, &holder)| Freed { core: CoreIndex::new(core), holder }).collect();
                    prop_assert_eq!(freed, lost);
                    model.0.retain(|_, who| *who != dead);
                }
            }
            let held: Vec<_> = model.0.iter().map(|(&core, &who)| (CoreIndex::new(core), who)).collect();
            prop_assert_eq!(&table.holders(), &held);
            prop_assert_eq!(&view.holders(), &held);
            for core in (0..7).map(CoreIndex::new) {
                let who = model.0.get(&core.number()).copied();
                prop_assert_eq!((table.query(core), view.query(core)), (who, who));
            }
        }
    }
}

/// Memory with these bytes and all seals of a table, given out as the arbiter gives its own.
fn sealed(bytes: &[u8]) -> File {
    sealed_with(bytes, all_seals())
}

fn all_seals() -> SealFlag {
    SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_FUTURE_WRITE | SealFlag::F_SEAL_SEAL
}

fn sealed_with(bytes: &[u8], seals: SealFlag) -> File {
    let mut file = File::from(memfd_create(c"test", MFdFlags::MFD_ALLOW_SEALING).unwrap());
    file.write_all(bytes).unwrap();
    fcntl(&file, FcntlArg::F_ADD_SEALS(seals)).unwrap();
    File::open(format!("/proc/self/fd/{}", file.as_raw_fd())).unwrap()
}

/// The bytes of a table of four cores, two of them held.
fn bytes_of_a_table() -> Vec<u8> {
    let table = table(4);
    let _held = table.acquire(&cores(&[0, 3]), holder(10, 100)).unwrap();
    let file = File::from(table.as_fd().try_clone_to_owned().unwrap());
    let mut bytes = vec![0; file.metadata().unwrap().len() as usize];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

#[test]
fn a_copy_of_a_table_is_one_and_nothing_less_is() {
    let bytes = bytes_of_a_table();
    assert_eq!(bytes.len(), 64 + 4 * 64);
    let view = LockView::open(sealed(&bytes)).unwrap();
    assert_eq!((view.cores(), view.arbiter()), (4, holder(1, 2)));
    assert_eq!(
        view.holders(),
        cores(&[0, 3])
            .into_iter()
            .map(|core| (core, holder(10, 100)))
            .collect::<Vec<_>>()
    );
    for length in 0..bytes.len() {
        let fault = LockView::open(sealed(&bytes[..length])).unwrap_err();
        let found = length as u64;
        assert!(
            matches!(fault, ViewFault::Length { found: said, .. } if said == found),
            "{fault}"
        );
    }
    let longer = [bytes.as_slice(), &[0; 64]].concat();
    let fault = LockView::open(sealed(&longer)).unwrap_err();
    assert!(
        matches!(
            fault,
            ViewFault::Length {
                expected: 320,
                found: 384
            }
        ),
        "{fault}"
    );
}

#[test]
fn what_is_not_sealed_is_no_table() {
    let bytes = bytes_of_a_table();
    for seal in all_seals() {
        let fault = LockView::open(sealed_with(&bytes, all_seals() - seal)).unwrap_err();
        assert!(matches!(fault, ViewFault::NotSealed), "without {seal:?}: {fault}");
    }
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&bytes).unwrap();
    assert!(LockView::open(file).is_err());
    let (pipe, _other) = nix::unistd::pipe().unwrap();
    assert!(matches!(LockView::open(pipe), Err(ViewFault::NotSealed)));
    assert!(matches!(
        LockView::open(File::open("/proc").unwrap()),
        Err(ViewFault::NotSealed)
    ));
}

#[test]
fn each_field_of_a_header_is_checked() {
    let bytes = bytes_of_a_table();
    let with = |place: usize, value: u32| {
        let mut bytes = bytes.clone();
        bytes[place..place + 4].copy_from_slice(&value.to_ne_bytes());
        LockView::open(sealed(&bytes))
    };
    assert!(matches!(with(0, 0), Err(ViewFault::Name)));
    assert!(matches!(with(28, 1), Err(ViewFault::Name)));
    assert!(matches!(
        with(32, 2),
        Err(ViewFault::Version { found: 2, known: 1 })
    ));
    for found in [0, u32::from(MAX_CORES) + 1, 0x1_0004, u32::MAX] {
        assert!(matches!(with(36, found), Err(ViewFault::Cores { found: said }) if said == found));
    }
    for found in [3, 5, u32::from(MAX_CORES)] {
        assert!(matches!(
            with(36, found),
            Err(ViewFault::Length { found: 320, .. })
        ));
    }
    assert!(matches!(with(40, 0), Err(ViewFault::Arbiter { found: 0 })));
    assert_eq!(with(40, 99).unwrap().arbiter(), holder(99, 2));
}

proptest! {
    /// Whatever is in the slots, and whatever in the header: an error or some answer.
    #[test]
    fn hostile_bytes_are_an_error_or_an_answer(
        at in 0..320_usize, with in prop::collection::vec(any::<u8>(), 0..64), length in 0..400_usize,
    ) {
        let mut bytes = bytes_of_a_table();
        bytes.splice(at.min(bytes.len())..(at + with.len()).min(bytes.len()), with);
        bytes.resize(if length < 320 { length } else { 320 }, 0);
        if let Ok(view) = LockView::open(sealed(&bytes)) {
            prop_assert_eq!(view.cores(), 4);
            prop_assert!(view.holders().len() <= 4);
            for core in [0, 3, 4, u16::MAX] {
                let _ = view.query(CoreIndex::new(core));
            }
        } else {
            prop_assert!(at < 64 || length < 320, "the slots do not make a table none");
        }
    }

    #[test]
    fn bytes_without_sense_are_an_error(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(LockView::open(sealed(&bytes)).is_err());
    }
}

#[test]
fn nobody_but_the_arbiter_can_write() {
    let length = NonZeroUsize::new(320).unwrap();
    let table = table(4);
    let given = File::from(table.as_fd().try_clone_to_owned().unwrap());
    let read_write = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
    assert_eq!(map(&given, length, ProtFlags::PROT_READ), Ok(()));
    assert_eq!(map(&given, length, read_write), Err(Errno::EACCES));
    assert_eq!(map_and_make_writable(&given, length), Err(Errno::EACCES));
    assert_eq!(nix::unistd::write(&given, b"x"), Err(Errno::EBADF));

    // Opened anew for writing, as its owner and root can: there are the seals.
    let path = format!("/proc/self/fd/{}", given.as_raw_fd());
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o666)).unwrap();
    let writable = OpenOptions::new().read(true).write(true).open(&path).unwrap();
    assert_eq!(map(&writable, length, read_write), Err(Errno::EPERM));
    assert_eq!(map_and_make_writable(&writable, length), Err(Errno::EACCES));
    let errno = |result: std::io::Result<()>| result.unwrap_err().raw_os_error();
    assert_eq!(errno(writable.write_all_at(b"x", 0)), Some(libc::EPERM));
    assert_eq!(errno(writable.set_len(64)), Some(libc::EPERM));
    assert_eq!(errno(writable.set_len(640)), Some(libc::EPERM));
    let hole = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    assert_eq!(fallocate(&writable, hole, 0, 320), Err(Errno::EPERM));
    assert_eq!(
        fcntl(&writable, FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_WRITE)),
        Err(Errno::EPERM)
    );

    // And the arbiter still can.
    let view = LockView::open(&writable).unwrap();
    let grant = table.acquire(&cores(&[2]), holder(10, 100)).unwrap();
    assert_eq!(view.query(CoreIndex::new(2)), Some(holder(10, 100)));
    assert_eq!(table.release(grant), 1);
}

/// A child that is a copy of the arbiter, like a warden, must not have the arbiter's map.
#[test]
fn children_do_not_get_the_arbiters_map() {
    let _table = table(4);
    let smaps = fs::read_to_string("/proc/self/smaps").unwrap();
    let mut writable = 0;
    let mut ours = false;
    for line in smaps.lines() {
        if line.split(' ').nth(1).is_some_and(|access| access.len() == 4) {
            ours = line.contains("rw-s") && line.contains("hotcell-core-locks");
        } else if ours && let Some(flags) = line.strip_prefix("VmFlags:") {
            assert!(
                flags.split(' ').any(|flag| flag == "dc"),
                "copied on fork: {flags}"
            );
            writable += 1;
        }
    }
    assert!(writable >= 1, "the table's map was not found");
}

fn ended(pid: u32) {
    let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT;
    waitid(Id::Pid(Pid::from_raw(i32::try_from(pid).unwrap())), flags).unwrap();
}

#[test]
fn a_process_lives_until_it_ends_also_when_nobody_waits_for_it() {
    let processes = Processes::open(Path::new("/proc")).unwrap();
    let mut child = Command::new("sleep")
        .arg("1000")
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let living = processes.find(child.id()).unwrap().unwrap();
    assert_eq!(living.pid(), child.id());
    assert!(processes.lives(living).unwrap());
    // Another process with its pid.
    let other = holder(living.pid(), living.started() + 1);
    assert!(!processes.lives(other).unwrap());
    assert!(processes.watch(other).unwrap().is_none());

    let watch = processes.watch(living).unwrap().unwrap();
    let readable = |timeout| {
        let mut watched = [PollFd::new(watch.as_fd(), PollFlags::POLLIN)];
        poll(&mut watched, timeout).unwrap() == 1
    };
    assert!(!readable(PollTimeout::ZERO));
    child.kill().unwrap();
    assert!(readable(PollTimeout::from(10_000_u16)), "no word of its end");
    ended(child.id());
    assert!(!processes.lives(living).unwrap(), "ended, not waited for");
    child.wait().unwrap();
    assert!(!processes.lives(living).unwrap());
    assert_eq!(processes.find(living.pid()).unwrap(), None);
    assert!(processes.watch(living).unwrap().is_none());
}

/// A folder like `/proc`, with these `stat` files.
fn proc_with(stats: &[(u32, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (pid, stat) in stats {
        let process = folder.path().join(pid.to_string());
        fs::create_dir(&process).unwrap();
        fs::write(process.join("stat"), stat).unwrap();
    }
    folder
}

fn stat(pid: u32, name: &str, state: char, threads: u32, started: u64) -> String {
    format!(
        "{pid} ({name}) {state} 1 1 1 0 -1 4227148 350 0 0 0 0 0 0 0 20 0 {threads} 0 {started} 0 0 18446744073709551615 \
         0 0 0 0 0 0 0 0 0 0 0 0 17 3 0 0 0\n"
    )
}

#[test]
fn names_and_states_of_processes_are_read_with_care() {
    let texts = [
        stat(1, "init", 'S', 1, 3),
        stat(20, ") Z 1 (", 'R', 1, 200),
        stat(21, "zombie", 'Z', 1, 210),
        // Its first thread has ended, another runs on.
        stat(22, "half", 'Z', 2, 220),
        stat(23, "dead", 'X', 0, 230),
        stat(24, "stopped", 'T', 1, 240),
        "25 (short) R 1 1".into(),
        stat(26, "words", 'R', 1, 260).replace("260", "soon"),
        String::new(),
    ];
    let numbered: Vec<_> = [1, 20, 21, 22, 23, 24, 25, 26, 27]
        .into_iter()
        .zip(texts.iter().map(String::as_str))
        .collect();
    let folder = proc_with(&numbered);
    let processes = Processes::open(folder.path()).unwrap();
    let find = |pid| processes.find(pid).map(|found| found.map(Holder::started));
    assert_eq!(find(20).unwrap(), Some(200));
    assert_eq!(find(21).unwrap(), None);
    assert_eq!(find(22).unwrap(), Some(220));
    assert_eq!(find(23).unwrap(), None);
    assert_eq!(find(24).unwrap(), Some(240));
    for pid in 25..28 {
        assert!(matches!(find(pid), Err(ProcessFault::Shape { pid: said }) if said == pid));
    }
    assert_eq!(find(28).unwrap(), None);
    // Something in the way is no death.
    fs::create_dir_all(folder.path().join("29/stat")).unwrap();
    assert!(matches!(find(29), Err(ProcessFault::Host { pid: 29, .. })));
}

#[test]
fn a_proc_that_hides_others_is_refused() {
    let hidden = proc_with(&[(20, &stat(20, "own", 'R', 1, 200))]);
    assert!(matches!(
        Processes::open(hidden.path()),
        Err(ProcessFault::Hidden { .. })
    ));
}
