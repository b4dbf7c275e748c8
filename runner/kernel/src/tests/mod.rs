//! Tests of the whole kernel on a processor that does nothing but hold memory and registers.

mod bounds;
mod dumps;
mod fuzz;
mod layouts;
mod links;
mod personas;
mod proc;
mod programs;
mod robust;
mod signals;
mod sockets;
mod sysroot;
mod trace;
mod tree;
mod watches;

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::LazyLock;

use hotcell_schema::arch::{ArchProfile, ErrorStyle};
use hotcell_schema::digest::Digest;
use hotcell_schema::event::Event;
use hotcell_schema::internet::{Internet, InternetWith};
use hotcell_schema::job::{Blob, GuestFile, GuestLimits, LinuxJob};
use hotcell_schema::persona::Persona;

use crate::abi::Abi;
pub(crate) use crate::fake::tiny_elf;
use crate::fake::{FakeMachine, FakeMachines};
use crate::fs::proc::ProcLink;
use crate::fs::tree::Ino;
use crate::fs::walk::Magic;
use crate::machine::{Flow, Machine as _, Machines as _, SpaceId, Step};
use crate::{Bytes, Finished, Kernel, LoadError, StateError};

/// All profiles of the project.
pub(crate) const PROFILES: [&str; 14] = [
    include_str!("../../../../arch-profiles/x86_64.toml"),
    include_str!("../../../../arch-profiles/x86.toml"),
    include_str!("../../../../arch-profiles/arm.toml"),
    include_str!("../../../../arch-profiles/armeb.toml"),
    include_str!("../../../../arch-profiles/aarch64.toml"),
    include_str!("../../../../arch-profiles/riscv64.toml"),
    include_str!("../../../../arch-profiles/mips.toml"),
    include_str!("../../../../arch-profiles/mipsel.toml"),
    include_str!("../../../../arch-profiles/mips64.toml"),
    include_str!("../../../../arch-profiles/mips64el.toml"),
    include_str!("../../../../arch-profiles/ppc.toml"),
    include_str!("../../../../arch-profiles/ppc64.toml"),
    include_str!("../../../../arch-profiles/ppc64le.toml"),
    include_str!("../../../../arch-profiles/s390x.toml"),
];

static READ: LazyLock<Vec<ArchProfile>> = LazyLock::new(|| {
    PROFILES
        .iter()
        .map(|text| toml::from_str(text).expect("a profile can be read"))
        .collect()
});

/// The profiles, read.
pub(crate) fn profiles() -> Vec<ArchProfile> {
    READ.clone()
}

/// One profile.
pub(crate) fn profile(name: &str) -> ArchProfile {
    profiles()
        .into_iter()
        .find(|profile| profile.name == name)
        .expect("the profile is there")
}

/// A `/proc` without links.
pub(crate) struct NoMagic;

impl Magic for NoMagic {
    fn link(&self, _: ProcLink) -> Option<(Vec<u8>, Option<Ino>)> {
        None
    }

    fn descriptor(&self, _: u32, _: u32) -> Option<(Vec<u8>, Option<Ino>)> {
        None
    }
}

/// A kernel with its machines and what it told.
pub(crate) struct Bench {
    pub(crate) kernel: Kernel,
    pub(crate) machines: FakeMachines,
    pub(crate) events: Rc<RefCell<Vec<Event>>>,
    job: LinuxJob,
    blobs: [Bytes; 2],
}

/// A job around a program.
pub(crate) fn job(profile: &ArchProfile, program: &[u8], limits: GuestLimits) -> LinuxJob {
    LinuxJob {
        cell: "test".into(),
        arch: profile.clone(),
        native: false,
        persona: Persona::default(),
        program: Blob {
            index: 0,
            length: program.len() as u64,
        },
        path: "/bin/sample".into(),
        argv: vec!["sample".into(), "one".into()],
        env: None,
        cwd: Some("/tmp".into()),
        sysroot: None,
        internet: None,
        files: vec![GuestFile {
            path: "/tmp/given".into(),
            mode: 0o644,
            content: Blob { index: 1, length: 5 },
        }],
        stdin: None,
        seed: Digest::of(b"seed"),
        watch: Default::default(),
        deny: Default::default(),
        limits,
    }
}

impl Bench {
    pub(crate) fn start(
        profile: &ArchProfile,
        program: &[u8],
        limits: GuestLimits,
    ) -> Result<Self, LoadError> {
        Self::of(job(profile, program, limits), program)
    }

    /// The same, of which memory is dumped.
    pub(crate) fn dumped(profile: &ArchProfile, program: &[u8], dump: &[&str]) -> Result<Self, LoadError> {
        let mut job = job(profile, program, GuestLimits::default());
        job.watch.dump = dump.iter().map(|name| (*name).to_owned()).collect();
        Self::of(job, program)
    }

    /// The same with a simulated internet of which nothing was declared.
    pub(crate) fn online(profile: &ArchProfile, program: &[u8]) -> Result<Self, LoadError> {
        let mut job = job(profile, program, GuestLimits::default());
        job.internet = Some(Internet {
            with: InternetWith::default(),
            web: None,
        });
        Self::of(job, program)
    }

    /// The same as another persona.
    pub(crate) fn as_persona(
        profile: &ArchProfile,
        program: &[u8],
        persona: Persona,
    ) -> Result<Self, LoadError> {
        let job = job(profile, program, GuestLimits::default());
        Self::of(LinuxJob { persona, ..job }, program)
    }

    fn of(job: LinuxJob, program: &[u8]) -> Result<Self, LoadError> {
        let events: Rc<RefCell<Vec<Event>>> = Rc::default();
        let sink = Rc::clone(&events);
        let blobs: [Bytes; 2] = [program.into(), b"hello".as_slice().into()];
        let kernel = Kernel::new(
            &job,
            &|blob: Blob| blobs.get(blob.index as usize).cloned(),
            Box::new(move |event: Event| sink.borrow_mut().push(event)),
        )?;
        Ok(Self {
            kernel,
            machines: FakeMachines::new(&job.arch),
            events,
            job,
            blobs,
        })
    }

    /// Goes on with a kernel read from these bytes.
    pub(crate) fn go_on_from(&mut self, bytes: &[u8]) -> Result<(), StateError> {
        let sink = Rc::clone(&self.events);
        self.kernel = Kernel::restore(
            &self.job,
            &|blob: Blob| self.blobs.get(blob.index as usize).cloned(),
            Box::new(move |event: Event| sink.borrow_mut().push(event)),
            &mut self.machines,
            bytes,
        )?;
        Ok(())
    }

    /// Runs until the task that is next wants the processor.
    pub(crate) fn next(&mut self) -> Step {
        let step = self
            .kernel
            .next(&mut self.machines)
            .expect("the machine does not fail");
        if let Step::Run { blocks: Some(_), .. } = step {
            self.kernel.counted(10, 50);
        }
        step
    }

    /// Makes one call in the task that is next, and answers its result as the guest sees it; `None` when it stopped.
    pub(crate) fn call(&mut self, name: &str, args: &[u64]) -> Option<i64> {
        let Step::Run { space, .. } = self.next() else {
            return None;
        };
        let abi = self.kernel.abi.clone();
        let number = crate::table::table().by_name(name)?.number(abi.family)?;
        let profile = self.kernel.profile.clone();
        let machine = self.machines.machine(space);
        machine.set_call(&profile, number, args);
        let flow = self.kernel.syscall(machine);
        if flow == Flow::Stop {
            // What was deferred is done by the next `next`; the task may then be another one.
            let Step::Run { space: now, .. } = self.next() else {
                return None;
            };
            return Some(result(self.machines.machine(now), &profile, &abi));
        }
        let _ = self.machines.get(space);
        Some(result(self.machines.machine(space), &profile, &abi))
    }

    /// Puts bytes into the memory of the first program.
    pub(crate) fn put(&mut self, at: u64, bytes: &[u8]) {
        let machine = self.machines.machine(SpaceId(1));
        machine.write(at, bytes).expect("the memory is there");
    }

    /// Reads its memory.
    pub(crate) fn peek(&mut self, at: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        let machine = self.machines.machine(SpaceId(1));
        machine.read(at, &mut bytes).expect("the memory is there");
        bytes
    }

    pub(crate) fn finish(self) -> Finished {
        self.kernel.finish()
    }
}

/// The result of the last call: negative generic error numbers for errors.
pub(crate) fn result(machine: &FakeMachine, profile: &ArchProfile, abi: &Abi) -> i64 {
    let value = machine.named(&profile.abi.result);
    let failed = match profile.abi.error {
        ErrorStyle::Negative => return abi.signed(value),
        ErrorStyle::MipsA3 => machine.named("a3") != 0,
        ErrorStyle::PpcSummaryOverflow => machine.named("cr0") & 1 != 0,
    };
    if failed {
        -abi.signed(value)
    } else {
        abi.signed(value)
    }
}
