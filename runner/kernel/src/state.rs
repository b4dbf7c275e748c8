//! A run as bytes, to go on with in another process, and back.
//!
//! What the job says is not in them: it is given again. Blobs of the job are named by their number. Registers are as the
//! machines give them; memory is not here at all. The bytes are hostile when they are read: whatever they say, reading them
//! ends with a state or an error, and takes memory in proportion to their length. A state that Linux could never be in may
//! make this process fail, and no other.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use hotcell_schema::event::{self, What};
use hotcell_schema::job::{Blob, LinuxJob, UnsupportedCall};
use hotcell_schema::outcome::Outcome;
use hotcell_schema::persona::Persona;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::abi::{Abi, Registers};
use crate::bytes::Bytes;
use crate::chance::Chance;
use crate::deferred::Deferred;
use crate::exec::Image;
use crate::fs::open::OpenFiles;
use crate::fs::tree::Tree;
use crate::kernel::{EventSink, Kernel};
use crate::library::Library;
use crate::machine::{MachineError, Machines, SpaceId};
use crate::made::Made;
use crate::net::Sockets;
use crate::net::outside::{Outside, World};
use crate::space::AddressSpace;
use crate::task::{Process, Task};
use crate::time::Time;

/// The bytes are not the state of a run.
#[derive(Debug, thiserror::Error)]
#[error("the state of the emulated kernel cannot be read: {0}")]
pub struct StateError(String);

macro_rules! state {
    ($($(#[$attribute:meta])* $field:ident: $type:ty,)*) => {
        /// All of a kernel that changes while it runs.
        #[derive(Deserialize)]
        struct Saved {
            positions: [u128; 3],
            $($(#[$attribute])* $field: $type,)*
        }

        /// The same, borrowed.
        #[derive(Serialize)]
        struct Lent<'a> {
            positions: [u128; 3],
            $($(#[$attribute])* $field: &'a $type,)*
        }

        impl<'a> Lent<'a> {
            fn of(kernel: &'a Kernel) -> Self {
                Self {
                    positions: kernel.chance.positions(),
                    $($field: &kernel.$field,)*
                }
            }
        }

        impl Saved {
            fn kernel(self, job: &LinuxJob, sink: Box<dyn EventSink>, world: Option<World>) -> Kernel {
                Kernel {
                    sink,
                    profile: job.arch.clone(),
                    abi: Abi::new(&job.arch),
                    compat: Abi::compat(&job.arch),
                    through: Vec::new(),
                    registers: None,
                    limits: job.limits.clone(),
                    watch: job.watch.clone(),
                    world,
                    chance: Chance::at(&job.seed, self.positions),
                    $($field: self.$field,)*
                }
            }
        }
    };
}

state! {
    sequence: u64,
    #[serde(with = "json")]
    persona: Persona,
    digested: u64,
    event_bytes: u64,
    time: Time,
    tree: Tree,
    open: OpenFiles,
    sockets: Sockets,
    outside: Outside,
    spaces: BTreeMap<SpaceId, AddressSpace>,
    processes: BTreeMap<u32, Process>,
    tasks: BTreeMap<u32, Task>,
    current: u32,
    slice: u64,
    next_pid: u32,
    next_space: u32,
    wake: u64,
    deferred: BTreeMap<u32, Deferred>,
    doomed: BTreeSet<SpaceId>,
    robust_left: Vec<crate::sys::robust::Left>,
    #[serde(with = "json")]
    later: Vec<(event::Task, What)>,
    stdin: Option<Bytes>,
    #[serde(with = "raw")]
    stdout: Vec<u8>,
    #[serde(with = "raw")]
    stderr: Vec<u8>,
    syscalls: u64,
    instructions: u64,
    tasks_ever: u32,
    #[serde(with = "json")]
    unsupported: BTreeMap<String, UnsupportedCall>,
    made: Made,
    libraries: BTreeMap<SpaceId, Library>,
    boot: Option<Image>,
    first: u32,
    #[serde(with = "json")]
    first_outcome: Option<Outcome>,
    #[serde(with = "json")]
    end: Option<Outcome>,
    failure: Option<MachineError>,
}

impl Kernel {
    /// Everything of this run that its job does not say. Not within a callback.
    pub fn save(&self) -> Result<Vec<u8>, StateError> {
        postcard::to_stdvec(&Lent::of(self)).map_err(|error| StateError(error.to_string()))
    }

    /// The kernel of a run that goes on: of the same job, with the same blobs. `machines` has the machines of all its
    /// address spaces already, their memory and registers as they were.
    pub fn restore(
        job: &LinuxJob,
        blobs: &dyn Fn(Blob) -> Option<Bytes>,
        sink: Box<dyn EventSink>,
        machines: &mut dyn Machines,
        bytes: &[u8],
    ) -> Result<Self, StateError> {
        let named = job
            .blobs()
            .filter_map(|blob| Some((blob.index, blobs(blob)?.named(blob.index))));
        let given = Given::lend(named.collect());
        let saved: Saved = postcard::from_bytes(bytes).map_err(|error| StateError(error.to_string()))?;
        drop(given);
        let world = match &job.internet {
            None => None,
            Some(internet) => {
                let blob = |blob: Blob| {
                    blobs(blob).ok_or_else(|| StateError(format!("there is no blob {}", blob.index)))
                };
                Some(World::new(internet, blob)?.map_err(StateError)?)
            }
        };
        let mut kernel = saved.kernel(job, sink, world);
        kernel.check()?;
        for space in kernel.spaces.keys() {
            let machine = machines
                .get(*space)
                .ok_or_else(|| StateError(format!("there is no machine {}", space.0)))?;
            if kernel.registers.is_none() {
                let found = Registers::resolve(&kernel.profile, machine);
                kernel.registers = Some(found.map_err(|error| StateError(error.to_string()))?);
            }
        }
        Ok(kernel)
    }

    /// What the rest takes for granted.
    fn check(&mut self) -> Result<(), StateError> {
        let wrong = |what: &str| Err(StateError(what.to_owned()));
        if !self.spaces.values_mut().all(AddressSpace::is_sound) {
            return wrong("an address space whose mappings overlap");
        }
        let spaces = &self.spaces;
        if self.boot.is_none() && self.tasks.values().any(|task| !spaces.contains_key(&task.space)) {
            return wrong("a task without an address space");
        }
        if self.tasks.iter().any(|(tid, task)| *tid != task.tid)
            || self.processes.iter().any(|(pid, process)| *pid != process.pid)
        {
            return wrong("a task or process under another number");
        }
        self.open.count();
        if !self.sockets.is_sound() {
            return wrong("sockets that hold what they do not");
        }
        if !self.tree.is_sound() {
            return wrong("a directory that is above itself");
        }
        Ok(())
    }
}

thread_local! {
    /// The job's blobs, while a state is read.
    static GIVEN: RefCell<BTreeMap<u32, Bytes>> = const { RefCell::new(BTreeMap::new()) };
}

/// Lends blobs to the reading of a state.
struct Given;

impl Given {
    fn lend(blobs: BTreeMap<u32, Bytes>) -> Self {
        GIVEN.set(blobs);
        Self
    }
}

impl Drop for Given {
    fn drop(&mut self) {
        GIVEN.take();
    }
}

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.place() {
            Some((blob, part)) => Held::Blob(blob, part),
            None => Held::Own(Raw(self)),
        }
        .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Held::<Owned>::deserialize(deserializer)? {
            Held::Own(Owned(own)) => Ok(Self::of(own)),
            Held::Blob(index, part) => GIVEN
                .with_borrow(|given| given.get(&index)?.part(part))
                .ok_or_else(|| serde::de::Error::custom(format!("there is no such part of a blob {index}"))),
        }
    }
}

/// What a state says of [`Bytes`].
#[derive(Serialize, Deserialize)]
enum Held<T> {
    /// Part of a blob of the job.
    Blob(u32, Range<usize>),
    /// The bytes themselves.
    Own(T),
}

#[derive(Deserialize)]
struct Owned(#[serde(with = "raw")] Vec<u8>);

/// Bytes in one piece.
struct Raw<'a>(&'a [u8]);

impl Serialize for Raw<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0)
    }
}

/// Bytes in one piece, not one by one.
pub(crate) mod raw {
    use std::fmt;

    use serde::{Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(bytes)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        struct Visitor;

        impl serde::de::Visitor<'_> for Visitor {
            type Value = Vec<u8>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes")
            }

            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
                Ok(bytes.to_vec())
            }

            fn visit_byte_buf<E>(self, bytes: Vec<u8>) -> Result<Vec<u8>, E> {
                Ok(bytes)
            }
        }

        deserializer.deserialize_byte_buf(Visitor)
    }
}

/// Nouns of the schema, whose form is made for JSON.
pub(crate) mod json {
    use serde::de::{DeserializeOwned, Error as _};
    use serde::ser::Error as _;
    use serde::{Deserializer, Serialize, Serializer};

    pub(crate) fn serialize<T: Serialize + ?Sized, S: Serializer>(
        value: &T,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let bytes = serde_json::to_vec(value).map_err(S::Error::custom)?;
        serializer.serialize_bytes(&bytes)
    }

    pub(crate) fn deserialize<'de, T: DeserializeOwned, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<T, D::Error> {
        let bytes = super::raw::deserialize(deserializer)?;
        serde_json::from_slice(&bytes).map_err(D::Error::custom)
    }
}

/// A call of the table, by its name.
pub(crate) mod row {
    use serde::{Deserialize, Deserializer, Serializer, de::Error as _};

    use crate::table::{Row, table};

    pub(crate) fn serialize<S: Serializer>(row: &&'static Row, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(row.name)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<&'static Row, D::Error> {
        let name = String::deserialize(deserializer)?;
        table()
            .by_name(&name)
            .ok_or_else(|| D::Error::custom("a call that the table does not have"))
    }
}
