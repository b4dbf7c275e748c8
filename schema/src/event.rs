//! What a sample did: one typed enum, written as JSON lines.
//!
//! A stream (`events.jsonl`) begins with one [`Header`] line, which holds what is the same for all of it
//! (format, version, cell, engine, os, architecture); each further line is an [`Event`]. Nothing of the host
//! is in it: times are virtual, process numbers are the guest's own.
//!
//! To add a kind of event: add a variant to [`What`] and its struct, list it in [`What::KINDS`] and in both
//! `match`es below, regenerate the JSON schema (`make schema`), and add a row to the table in `CONTRIBUTING.md`.

use std::fmt;

use schemars::JsonSchema;
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value as Json;

use crate::deny::Denied;
use crate::digest::Digest;
use crate::guest::Address;
use crate::outcome::Fault;

/// Name of the format in a stream's first line.
pub const FORMAT: &str = "hotcell-events";
/// Version of the format in a stream's first line.
pub const VERSION: u32 = 1;

/// First line of a stream: what all of its events share.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Header {
    /// Always [`FORMAT`].
    pub format: String,
    /// [`VERSION`] of the writer.
    pub version: u32,
    /// The instance that ran the sample, for instance `run[sample=…]`. Named by its values, never by position.
    pub cell: String,
    /// Stage type that produced the stream, for instance `unicorn/linux`.
    pub engine: String,
    /// Operating system the guest sees.
    pub os: String,
    /// Name of the arch profile.
    pub arch: String,
}

impl Header {
    /// A header of the current version.
    pub fn new(cell: impl Into<String>, engine: impl Into<String>, arch: impl Into<String>) -> Self {
        Self {
            format: FORMAT.into(),
            version: VERSION,
            cell: cell.into(),
            engine: engine.into(),
            os: "linux".into(),
            arch: arch.into(),
        }
    }
}

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Event {
    /// Place in the stream, from 0, without gaps.
    pub seq: u64,
    /// Virtual time in nanoseconds since the first process started.
    pub time: u64,
    /// Who says so.
    pub witness: Witness,
    /// Which guest task did it.
    pub task: Task,
    /// What it was.
    pub what: What,
    /// What the source said, when that is more than the fields hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raw: Option<String>,
}

/// Who saw an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Witness {
    /// The engine itself emulated it.
    Engine,
    /// A plugin inside the emulator: precise, but within the sample's reach.
    Plugin,
    /// The host's kernel: cannot be forged by the sample.
    Kernel,
    /// A tracer outside of the sample, which the host's kernel tells of each call (ptrace(2)): cannot be forged by it, but it stands
    /// still meanwhile.
    Tracer,
    /// An agent inside the guest.
    Agent,
}

/// A guest task (thread), by the guest's own numbers.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub struct Task {
    /// Process (thread group) number.
    pub pid: u32,
    /// Thread number.
    pub tid: u32,
    /// The parent's process number.
    pub parent: u32,
    /// Path of the executable that the process runs.
    pub image: String,
}

/// What happened. In JSON an object with one key, the kind: `{"file": {"op": "open", …}}`.
#[derive(Debug, Clone, PartialEq)]
pub enum What {
    /// A system call came back (or ended the task).
    Syscall(Syscall),
    /// A process started, forked, executed or ended.
    Process(Process),
    /// A file was opened, made, written, deleted …
    File(File),
    /// A socket did something.
    Network(Network),
    /// Memory was mapped or changed its protection, or written code was executed.
    Memory(Memory),
    /// A signal was sent.
    Signal(Signal),
    /// A limit was met.
    Resource(Resource),
    /// The processor could not go on.
    Fault(Fault),
    /// A program called a function of a library.
    Library(Library),
    /// A kind that this version does not know: kept as it came.
    Unknown {
        /// The kind's name.
        kind: String,
        /// Its fields.
        fields: Json,
    },
}

/// A system call, with what it was asked and what it answered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Syscall {
    /// Linux's name for it, or `syscall_N` for a number without a name.
    pub name: String,
    /// The number in this architecture's table.
    pub number: u64,
    /// Arguments in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<Arg>,
    /// The value returned; absent when the call did not return (`exit`, `execve` that succeeded) or failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<i64>,
    /// Name of the error (`ENOENT`), when it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub errno: Option<String>,
    /// How honestly the emulated Linux supports the call.
    #[serde(default, skip_serializing_if = "Support::is_full")]
    pub support: Support,
}

/// How far the engine supports a system call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Support {
    /// As Linux does it, as far as a guest can tell.
    #[default]
    Full,
    /// Some of it; the syscall table says what is missing.
    Partial,
    /// Known, and refused with the error of the table.
    Refused,
    /// Not in the table: ENOSYS.
    Missing,
}

impl Support {
    /// Whether nothing is missing.
    pub fn is_full(&self) -> bool {
        *self == Self::Full
    }
}

/// One argument of a system call or a function.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Arg {
    /// The argument's name in Linux's manual.
    pub name: String,
    /// Its value, by type.
    pub value: ArgValue,
}

/// A typed argument. In JSON an object with one key, the type.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ArgValue {
    /// A number.
    Int(i64),
    /// A guest address.
    Address(Address),
    /// A length or point of time in nanoseconds.
    Time(u64),
    /// A file descriptor.
    Fd(i32),
    /// A path as the guest gave it ([`crate::guest::text`]).
    Path(String),
    /// Text, or the start of a buffer ([`crate::guest::text_up_to`]).
    Text(String),
    /// A list of texts, for instance argv.
    Texts(Vec<String>),
    /// Names of the flags that are set; a rest without names is `0x…`.
    Flags(Vec<String>),
    /// The name of one value of a set, for instance `SIGKILL`, `AF_INET`, `AT_FDCWD`.
    Name(String),
    /// A socket address: `192.0.2.1:80`, `[2001:db8::1]:80`, `unix:/run/x`.
    Socket(String),
}

/// A process event.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Process {
    /// What the process did.
    pub op: ProcessOp,
    /// The child (`fork`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub child: Option<u32>,
    /// The executable (`start`, `exec`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The command line (`start`, `exec`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub argv: Vec<String>,
    /// Exit code (`exit`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<i32>,
    /// The signal that ended it (`killed`), for instance `SIGSEGV`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<String>,
    /// The other process (`traced`, `steered`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<u32>,
    /// What it may not do (`denied`), as `with.deny` names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub denied: Option<Denied>,
}

impl Process {
    /// An event with only the operation set.
    pub fn new(op: ProcessOp) -> Self {
        Self {
            op,
            child: None,
            path: None,
            argv: Vec::new(),
            code: None,
            signal: None,
            to: None,
            denied: None,
        }
    }
}

/// What a process did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ProcessOp {
    /// The first process of the sample began.
    Start,
    /// It made a child process or thread.
    Fork,
    /// It replaced its program.
    Exec,
    /// It ended by itself.
    Exit,
    /// A signal ended it.
    Killed,
    /// It did what `with.deny` ends a process for: the kernel ends it there.
    Denied,
    /// It began to trace another process that did not ask for it.
    Traced,
    /// It changed the registers of another process.
    Steered,
    /// It asked the processor for a hypervisor (CPUID, leaves from 0x40000000 on). Told once for each program that a process executes.
    Probed,
    /// It read the processor's counter in quick succession: around CPUID, or many times without a system call. Told once likewise.
    Timed,
}

/// A file event: what is interesting about a call that touched a path.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct File {
    /// What was done.
    pub op: FileOp,
    /// Absolute guest path, links not followed.
    pub path: String,
    /// Second path (`rename`, `link`, `symlink`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// How it was opened (`open`, `create`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access: Option<Access>,
    /// Permission bits (`create`, `mkdir`, `chmod`), as in `st_mode & 07777`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<u32>,
    /// Bytes written in all (`written`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Digest of the content (`written`), as it was when the last descriptor was closed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    /// Name of the error when the attempt failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub errno: Option<String>,
}

impl File {
    /// An event with operation and path set.
    pub fn new(op: FileOp, path: impl Into<String>) -> Self {
        Self {
            op,
            path: path.into(),
            to: None,
            access: None,
            mode: None,
            bytes: None,
            digest: None,
            errno: None,
        }
    }
}

/// What was done to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum FileOp {
    /// An existing file was opened (or could not be).
    Open,
    /// A file that was not there was made.
    Create,
    /// The last descriptor of a file that was written was closed.
    Written,
    /// A file, or an empty directory, was removed.
    Delete,
    /// A file got another name.
    Rename,
    /// A hard link was made.
    Link,
    /// A symbolic link was made.
    Symlink,
    /// A directory was made.
    Mkdir,
    /// Permission bits changed.
    Chmod,
    /// The owner changed.
    Chown,
    /// The length changed.
    Truncate,
    /// Existence, attributes or a link's target were asked for.
    Stat,
    /// A directory was listed.
    List,
}

/// How a file was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Access {
    /// To read.
    Read,
    /// To write.
    Write,
    /// Both.
    ReadWrite,
}

/// A network event.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Network {
    /// What was done.
    pub op: NetworkOp,
    /// `tcp`, `udp`, `unix`, `raw`, `netlink` …
    pub protocol: String,
    /// Own address and port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local: Option<String>,
    /// The other side's address and port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<String>,
    /// Host name (`resolve`, HTTP).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// What a web server was asked for: method and URL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
    /// Bytes moved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Name of the error when the attempt failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub errno: Option<String>,
}

/// What was done on the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum NetworkOp {
    /// A socket was made.
    Socket,
    /// An address was bound.
    Bind,
    /// A connection was attempted.
    Connect,
    /// Connections were waited for.
    Listen,
    /// A connection was taken.
    Accept,
    /// Bytes were sent.
    Send,
    /// Bytes were received.
    Receive,
    /// A name was looked up.
    Resolve,
    /// A web server was asked for something.
    Request,
}

/// A memory event.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Memory {
    /// What was done.
    pub op: MemoryOp,
    /// First address.
    pub start: Address,
    /// Length in bytes.
    pub length: u64,
    /// Protection afterwards, as in `/proc/PID/maps`: `rwx`, `r-x` …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protection: Option<String>,
    /// The mapped file, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// The layer that was kept of what was written and executed: its name in the port `layers`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layer: Option<String>,
    /// The process whose memory it is (`injected`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<u32>,
    /// By which way (`injected`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<MemoryBy>,
}

impl Memory {
    /// An event with operation and place set.
    pub fn new(op: MemoryOp, start: u64, length: u64) -> Self {
        Self {
            op,
            start: Address(start),
            length,
            protection: None,
            file: None,
            layer: None,
            to: None,
            by: None,
        }
    }
}

/// The way to another process's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum MemoryBy {
    /// `ptrace`.
    Ptrace,
    /// `process_vm_readv` and `process_vm_writev`.
    ProcessVm,
    /// `/proc/PID/mem`.
    ProcMem,
}

/// What was done to memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum MemoryOp {
    /// A mapping was made that can be executed.
    MapExecutable,
    /// A mapping became executable.
    ProtectExecutable,
    /// A mapping is writable and executable at once.
    WriteExecute,
    /// Bytes written by the sample were executed.
    WrittenThenExecuted,
    /// Bytes were written into the memory of another process.
    Injected,
}

/// A signal event.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Signal {
    /// For instance `SIGTERM`.
    pub signal: String,
    /// The process it goes to.
    pub to: i32,
}

/// A limit was met.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Resource {
    /// The limit's name in the manifest (`virtual-time`, `events`, `syscalls`, `instructions`, `memory`, `processes`,
    /// `file-bytes`).
    pub limit: String,
    /// Its value, in the limit's own unit (nanoseconds, counts or bytes).
    pub value: u64,
}

/// A program called a function of a library that it is linked with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Library {
    /// The function's name.
    pub name: String,
    /// Its arguments, where it is known what they are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<Arg>,
    /// Where it returns to: the place behind the call.
    pub from: Address,
}

impl What {
    /// Names of the known kinds, as they stand in JSON.
    pub const KINDS: [&'static str; 9] = [
        "syscall", "process", "file", "network", "memory", "signal", "resource", "fault", "library",
    ];

    /// The kind's name in JSON.
    pub fn kind(&self) -> &str {
        match self {
            Self::Syscall(_) => "syscall",
            Self::Process(_) => "process",
            Self::File(_) => "file",
            Self::Network(_) => "network",
            Self::Memory(_) => "memory",
            Self::Signal(_) => "signal",
            Self::Resource(_) => "resource",
            Self::Fault(_) => "fault",
            Self::Library(_) => "library",
            Self::Unknown { kind, .. } => kind,
        }
    }
}

impl Serialize for What {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(1))?;
        let kind = self.kind();
        match self {
            Self::Syscall(fields) => map.serialize_entry(kind, fields)?,
            Self::Process(fields) => map.serialize_entry(kind, fields)?,
            Self::File(fields) => map.serialize_entry(kind, fields)?,
            Self::Network(fields) => map.serialize_entry(kind, fields)?,
            Self::Memory(fields) => map.serialize_entry(kind, fields)?,
            Self::Signal(fields) => map.serialize_entry(kind, fields)?,
            Self::Resource(fields) => map.serialize_entry(kind, fields)?,
            Self::Fault(fields) => map.serialize_entry(kind, fields)?,
            Self::Library(fields) => map.serialize_entry(kind, fields)?,
            Self::Unknown { fields, .. } => map.serialize_entry(kind, fields)?,
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for What {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneKind;

        impl<'de> Visitor<'de> for OneKind {
            type Value = What;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object with one key, the kind of event")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<What, A::Error> {
                use serde::de::Error;
                let kind: String = map
                    .next_key()?
                    .ok_or_else(|| A::Error::custom("an event without a kind"))?;
                let what = match kind.as_str() {
                    "syscall" => What::Syscall(map.next_value()?),
                    "process" => What::Process(map.next_value()?),
                    "file" => What::File(map.next_value()?),
                    "network" => What::Network(map.next_value()?),
                    "memory" => What::Memory(map.next_value()?),
                    "signal" => What::Signal(map.next_value()?),
                    "resource" => What::Resource(map.next_value()?),
                    "fault" => What::Fault(map.next_value()?),
                    "library" => What::Library(map.next_value()?),
                    _ => What::Unknown {
                        fields: map.next_value()?,
                        kind,
                    },
                };
                match map.next_entry::<IgnoredAny, IgnoredAny>()? {
                    None => Ok(what),
                    Some(_) => Err(A::Error::custom("an event of two kinds")),
                }
            }
        }

        deserializer.deserialize_map(OneKind)
    }
}

impl JsonSchema for What {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "What".into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let properties = serde_json::json!({
            "syscall": generator.subschema_for::<Syscall>(),
            "process": generator.subschema_for::<Process>(),
            "file": generator.subschema_for::<File>(),
            "network": generator.subschema_for::<Network>(),
            "memory": generator.subschema_for::<Memory>(),
            "signal": generator.subschema_for::<Signal>(),
            "resource": generator.subschema_for::<Resource>(),
            "fault": generator.subschema_for::<Fault>(),
            "library": generator.subschema_for::<Library>(),
        });
        schemars::json_schema!({
            "type": "object",
            "description": "What happened: an object with one key, the kind. Readers keep kinds they do not know.",
            "minProperties": 1,
            "maxProperties": 1,
            "properties": properties,
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_kind_is_kept_as_it_came() {
        let line = r#"{"seq":0,"time":5,"witness":"agent","task":{"pid":1,"tid":1,"parent":0,"image":"/x"},"what":{"registry":{"key":"HKLM"}}}"#;
        let event: Event = serde_json::from_str(line).unwrap();
        assert_eq!(event.what.kind(), "registry");
        assert_eq!(serde_json::to_string(&event).unwrap(), line);
    }

    #[test]
    fn every_known_kind_round_trips_and_is_listed() {
        let file = What::File(File {
            bytes: Some(3),
            ..File::new(FileOp::Written, "/tmp/y")
        });
        let json = serde_json::to_string(&file).unwrap();
        assert_eq!(json, r#"{"file":{"op":"written","path":"/tmp/y","bytes":3}}"#);
        assert_eq!(serde_json::from_str::<What>(&json).unwrap(), file);
        assert!(What::KINDS.contains(&file.kind()));
    }

    #[test]
    fn two_kinds_in_one_event_are_refused() {
        assert!(serde_json::from_str::<What>(r#"{"signal":{"signal":"SIGKILL","to":1},"x":1}"#).is_err());
    }
}
