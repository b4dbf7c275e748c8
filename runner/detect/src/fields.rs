//! The fields of events that a rule can name, and how to read them.

use std::borrow::Cow;

use hotcell_schema::event::{
    Access, ArgValue, Event, File, FileOp, MemoryBy, MemoryOp, NetworkOp, ProcessOp, Support, What, Witness,
};

use crate::value::Value;

/// What sort of values a field has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sort {
    Text,
    /// One of these texts.
    Names(&'static [&'static str]),
    Number,
    Bool,
}

/// A field of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Field {
    /// A field of the table below, by its name there.
    Plain(Plain),
    /// An argument of a system call, by its name.
    Arg(String),
}

/// Makes the enum of fields. What each kind has is in [`FIELDS`].
macro_rules! plain {
    ($($name:ident)*) => {
        /// A field with a fixed name.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Plain { $($name),* }
    };
}

plain!(NewPath Op Path Name Directory To Access Mode Bytes Digest Errno Failed Pid Tid Parent Image Witness Time Raw
    Number Result Support Child Argv CommandLine Code Signal Denied By Protocol Local Peer Host Request LocalPort LocalAddress
    PeerPort PeerAddress Start Length Protection File Limit Value Fault Pc Address);

/// Names of operations, in the order of the enums of the schema.
pub(crate) const PROCESS_OPS: &[&str] = &[
    "start", "fork", "exec", "exit", "killed", "denied", "traced", "steered", "probed", "timed",
];
pub(crate) const FILE_OPS: &[&str] = &[
    "open", "create", "written", "delete", "rename", "link", "symlink", "mkdir", "chmod", "chown",
    "truncate", "stat", "list",
];
pub(crate) const NETWORK_OPS: &[&str] = &[
    "socket", "bind", "connect", "listen", "accept", "send", "receive", "resolve", "request",
];
pub(crate) const MEMORY_OPS: &[&str] = &[
    "map-executable",
    "protect-executable",
    "write-execute",
    "written-then-executed",
    "injected",
];
const MEMORY_BY: &[&str] = &["ptrace", "process-vm", "proc-mem"];
const ACCESS: &[&str] = &["read", "write", "read-write"];
const SUPPORT: &[&str] = &["full", "partial", "refused", "missing"];
const WITNESS: &[&str] = &["engine", "plugin", "kernel", "tracer", "agent"];

/// One row of the table: name, field, sort of value, meaning.
pub(crate) type Row = (&'static str, Plain, Sort, &'static str);

/// Fields that events of every kind have.
pub(crate) const COMMON: &[Row] = &[
    ("pid", Plain::Pid, Sort::Number, "process number"),
    ("tid", Plain::Tid, Sort::Number, "thread number"),
    (
        "parent",
        Plain::Parent,
        Sort::Number,
        "the parent's process number",
    ),
    (
        "image",
        Plain::Image,
        Sort::Text,
        "path of the executable that the process runs",
    ),
    ("witness", Plain::Witness, Sort::Names(WITNESS), "who saw it"),
    ("time", Plain::Time, Sort::Number, "virtual time in nanoseconds"),
    ("raw", Plain::Raw, Sort::Text, "what the source said"),
];

/// One kind of event, as rules see it.
pub(crate) struct KindInfo {
    /// Its name.
    pub(crate) name: &'static str,
    /// Names of its operations, if it has any.
    pub(crate) ops: &'static [&'static str],
    /// Its own fields.
    pub(crate) fields: &'static [Row],
}

/// The kinds, in the order of [`What::KINDS`].
pub(crate) const FIELDS: [KindInfo; 9] = [
    KindInfo {
        name: "syscall",
        ops: &[],
        fields: &[
            ("name", Plain::Name, Sort::Text, "Linux's name for the call"),
            (
                "number",
                Plain::Number,
                Sort::Number,
                "its number in this architecture's table",
            ),
            (
                "result",
                Plain::Result,
                Sort::Number,
                "the value returned, when it succeeded",
            ),
            (
                "errno",
                Plain::Errno,
                Sort::Text,
                "name of the error, when it failed",
            ),
            ("failed", Plain::Failed, Sort::Bool, "whether it failed"),
            (
                "support",
                Plain::Support,
                Sort::Names(SUPPORT),
                "how far the engine supports it",
            ),
        ],
    },
    KindInfo {
        name: "process",
        ops: PROCESS_OPS,
        fields: &[
            ("op", Plain::Op, Sort::Names(PROCESS_OPS), "what the process did"),
            ("child", Plain::Child, Sort::Number, "the child's number (fork)"),
            ("path", Plain::Path, Sort::Text, "the executable (start, exec)"),
            ("name", Plain::Name, Sort::Text, "last part of `path`"),
            (
                "directory",
                Plain::Directory,
                Sort::Text,
                "`path` without its last part",
            ),
            ("argv", Plain::Argv, Sort::Text, "each argument (start, exec)"),
            (
                "command-line",
                Plain::CommandLine,
                Sort::Text,
                "the arguments with spaces between",
            ),
            ("code", Plain::Code, Sort::Number, "exit code (exit)"),
            (
                "signal",
                Plain::Signal,
                Sort::Text,
                "the signal that ended it (killed)",
            ),
            (
                "to",
                Plain::To,
                Sort::Number,
                "the other process (traced, steered)",
            ),
            ("denied", Plain::Denied, Sort::Text, "what it may not do (denied)"),
        ],
    },
    KindInfo {
        name: "file",
        ops: FILE_OPS,
        fields: &[
            ("op", Plain::Op, Sort::Names(FILE_OPS), "what was done"),
            ("path", Plain::Path, Sort::Text, "absolute guest path"),
            ("name", Plain::Name, Sort::Text, "last part of `path`"),
            (
                "directory",
                Plain::Directory,
                Sort::Text,
                "`path` without its last part",
            ),
            ("to", Plain::To, Sort::Text, "second path (rename, link, symlink)"),
            (
                "new-path",
                Plain::NewPath,
                Sort::Text,
                "path that has new content or a new name, when that succeeded: `to` of rename and link; `path` of create, \
                     written, symlink, and of open to write",
            ),
            (
                "access",
                Plain::Access,
                Sort::Names(ACCESS),
                "how it was opened (open, create)",
            ),
            (
                "mode",
                Plain::Mode,
                Sort::Number,
                "permission bits (create, mkdir, chmod)",
            ),
            ("bytes", Plain::Bytes, Sort::Number, "bytes written (written)"),
            (
                "digest",
                Plain::Digest,
                Sort::Text,
                "SHA-256 of the content (written)",
            ),
            (
                "errno",
                Plain::Errno,
                Sort::Text,
                "name of the error, when it failed",
            ),
            ("failed", Plain::Failed, Sort::Bool, "whether it failed"),
        ],
    },
    KindInfo {
        name: "network",
        ops: NETWORK_OPS,
        fields: &[
            ("op", Plain::Op, Sort::Names(NETWORK_OPS), "what was done"),
            (
                "protocol",
                Plain::Protocol,
                Sort::Text,
                "tcp, udp, unix, raw, netlink …",
            ),
            ("local", Plain::Local, Sort::Text, "own address and port"),
            (
                "local-address",
                Plain::LocalAddress,
                Sort::Text,
                "own address without the port",
            ),
            ("local-port", Plain::LocalPort, Sort::Number, "own port"),
            (
                "peer",
                Plain::Peer,
                Sort::Text,
                "the other side's address and port",
            ),
            (
                "peer-address",
                Plain::PeerAddress,
                Sort::Text,
                "the other side's address without the port",
            ),
            (
                "peer-port",
                Plain::PeerPort,
                Sort::Number,
                "the other side's port",
            ),
            ("host", Plain::Host, Sort::Text, "host name (resolve, HTTP)"),
            (
                "request",
                Plain::Request,
                Sort::Text,
                "what a web server was asked for: method and URL",
            ),
            ("bytes", Plain::Bytes, Sort::Number, "bytes moved"),
            (
                "errno",
                Plain::Errno,
                Sort::Text,
                "name of the error, when it failed",
            ),
            ("failed", Plain::Failed, Sort::Bool, "whether it failed"),
        ],
    },
    KindInfo {
        name: "memory",
        ops: MEMORY_OPS,
        fields: &[
            ("op", Plain::Op, Sort::Names(MEMORY_OPS), "what was done"),
            ("start", Plain::Start, Sort::Number, "first address"),
            ("length", Plain::Length, Sort::Number, "length in bytes"),
            (
                "protection",
                Plain::Protection,
                Sort::Text,
                "protection afterwards: rwx, r-x …",
            ),
            ("file", Plain::File, Sort::Text, "the mapped file"),
            (
                "to",
                Plain::To,
                Sort::Number,
                "the process whose memory it is (injected)",
            ),
            ("by", Plain::By, Sort::Names(MEMORY_BY), "by which way (injected)"),
        ],
    },
    KindInfo {
        name: "signal",
        ops: &[],
        fields: &[
            ("signal", Plain::Signal, Sort::Text, "for instance SIGTERM"),
            ("to", Plain::To, Sort::Number, "the process it goes to"),
        ],
    },
    KindInfo {
        name: "resource",
        ops: &[],
        fields: &[
            (
                "limit",
                Plain::Limit,
                Sort::Text,
                "the limit's name in the manifest",
            ),
            ("value", Plain::Value, Sort::Number, "its value"),
        ],
    },
    KindInfo {
        name: "fault",
        ops: &[],
        fields: &[
            ("fault", Plain::Fault, Sort::Text, "what kind of fault"),
            ("pc", Plain::Pc, Sort::Number, "program counter"),
            ("address", Plain::Address, Sort::Number, "data address"),
        ],
    },
    KindInfo {
        name: "library",
        ops: &[],
        fields: &[("name", Plain::Name, Sort::Text, "the function's name")],
    },
];

/// Greatest number of slots that events fall into: every kind, and every operation of a kind.
pub(crate) const SLOTS: usize = 9 * OPS_PER_KIND;
/// Room for the operations of one kind; place 0 is for kinds without any.
pub(crate) const OPS_PER_KIND: usize = 16;

/// The slot of an event, by kind and operation; nothing for a kind that rules cannot name.
pub(crate) fn slot(what: &What) -> Option<usize> {
    let (kind, op) = match what {
        What::Syscall(_) => (0, 0),
        What::Process(process) => (1, process.op as usize),
        What::File(file) => (2, file.op as usize),
        What::Network(network) => (3, network.op as usize),
        What::Memory(memory) => (4, memory.op as usize),
        What::Signal(_) => (5, 0),
        What::Resource(_) => (6, 0),
        What::Fault(_) => (7, 0),
        What::Library(_) => (8, 0),
        What::Unknown { .. } => return None,
    };
    (op < OPS_PER_KIND).then_some(kind * OPS_PER_KIND + op)
}

/// Find a field of a kind by its name.
pub(crate) fn find(kind: &KindInfo, name: &str) -> Option<(Plain, Sort)> {
    let mut rows = kind.fields.iter().chain(COMMON);
    rows.find(|row| row.0 == name).map(|row| (row.1, row.2))
}

fn process_op(op: ProcessOp) -> &'static str {
    PROCESS_OPS.get(op as usize).copied().unwrap_or_default()
}

fn file_op(op: FileOp) -> &'static str {
    FILE_OPS.get(op as usize).copied().unwrap_or_default()
}

fn network_op(op: NetworkOp) -> &'static str {
    NETWORK_OPS.get(op as usize).copied().unwrap_or_default()
}

fn memory_op(op: MemoryOp) -> &'static str {
    MEMORY_OPS.get(op as usize).copied().unwrap_or_default()
}

fn memory_by(by: MemoryBy) -> &'static str {
    MEMORY_BY.get(by as usize).copied().unwrap_or_default()
}

fn access(access: Access) -> &'static str {
    ACCESS.get(access as usize).copied().unwrap_or_default()
}

fn support(support: Support) -> &'static str {
    SUPPORT.get(support as usize).copied().unwrap_or_default()
}

fn witness(witness: Witness) -> &'static str {
    WITNESS.get(witness as usize).copied().unwrap_or_default()
}

/// The last part of a path.
fn base_name(path: &str) -> &str {
    path.rsplit_once('/').map_or(path, |(_, name)| name)
}

/// A path without its last part; `/` for what stands in the root.
fn directory(path: &str) -> &str {
    match path.rsplit_once('/') {
        Some(("", _)) => "/",
        Some((directory, _)) => directory,
        None => "",
    }
}

/// Address and port of `192.0.2.1:80` or `[2001:db8::1]:80`.
fn address_and_port(socket: &str) -> Option<(&str, u16)> {
    let (address, port) = socket.rsplit_once(':')?;
    let port = port.parse().ok()?;
    Some((address.trim_start_matches('[').trim_end_matches(']'), port))
}

/// The path as it is compared: without `//`, `/./` and `/../`, so that another spelling is not another path.
fn plain_path(path: &str) -> Cow<'_, str> {
    if !path.contains("//") && !path.contains("/.") {
        return Cow::Borrowed(path);
    }
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            _ => parts.push(part),
        }
    }
    let root = if path.starts_with('/') { "/" } else { "" };
    Cow::Owned(format!("{root}{}", parts.join("/")))
}

/// Operations that can give a path new content or a new name.
pub(crate) const NEW_PATH_OPS: [FileOp; 6] = [
    FileOp::Open,
    FileOp::Create,
    FileOp::Written,
    FileOp::Rename,
    FileOp::Link,
    FileOp::Symlink,
];

/// The path that has new content or a new name afterwards.
fn new_path(file: &File) -> Option<&str> {
    if file.errno.is_some() {
        return None;
    }
    match file.op {
        FileOp::Create | FileOp::Written | FileOp::Symlink => Some(&file.path),
        FileOp::Open if matches!(file.access, Some(Access::Write | Access::ReadWrite)) => Some(&file.path),
        FileOp::Rename | FileOp::Link => file.to.as_deref(),
        _ => None,
    }
}

/// Whether any of the field's values passes the test. A field that is absent has no value.
pub(crate) fn any_value(event: &Event, field: &Field, test: &mut dyn FnMut(Value<'_>) -> bool) -> bool {
    match field {
        Field::Plain(plain) => any_plain(event, *plain, test),
        Field::Arg(name) => {
            let args = match &event.what {
                What::Syscall(call) => call.args.as_slice(),
                What::Library(call) => call.args.as_slice(),
                _ => &[],
            };
            let mut named = args.iter().filter(|arg| arg.name == *name);
            named.any(|arg| any_arg(&arg.value, test))
        }
    }
}

fn any_arg(value: &ArgValue, test: &mut dyn FnMut(Value<'_>) -> bool) -> bool {
    match value {
        ArgValue::Int(number) => test(Value::Number((*number).into())),
        ArgValue::Time(time) => test(Value::Number((*time).into())),
        ArgValue::Address(address) => test(Value::Number(address.0.into())),
        ArgValue::Fd(fd) => test(Value::Number((*fd).into())),
        ArgValue::Path(text) | ArgValue::Text(text) | ArgValue::Name(text) | ArgValue::Socket(text) => {
            test(Value::Text(text))
        }
        ArgValue::Texts(texts) | ArgValue::Flags(texts) => texts.iter().any(|text| test(Value::Text(text))),
    }
}

fn any_plain(event: &Event, field: Plain, test: &mut dyn FnMut(Value<'_>) -> bool) -> bool {
    let common = match field {
        Plain::Pid => Some(Value::Number(event.task.pid.into())),
        Plain::Tid => Some(Value::Number(event.task.tid.into())),
        Plain::Parent => Some(Value::Number(event.task.parent.into())),
        Plain::Image => return test(Value::Text(&plain_path(&event.task.image))),
        Plain::Witness => Some(Value::Text(witness(event.witness))),
        Plain::Time => Some(Value::Number(event.time.into())),
        Plain::Raw => return event.raw.as_deref().is_some_and(|raw| test(Value::Text(raw))),
        _ => None,
    };
    if let Some(value) = common {
        return test(value);
    }
    let text = |value: &Option<String>, test: &mut dyn FnMut(Value<'_>) -> bool| {
        value.as_deref().is_some_and(|text| test(Value::Text(text)))
    };
    let number = |value: Option<i128>, test: &mut dyn FnMut(Value<'_>) -> bool| {
        value.is_some_and(|number| test(Value::Number(number)))
    };
    match &event.what {
        What::Syscall(call) => match field {
            Plain::Name => test(Value::Text(&call.name)),
            Plain::Number => test(Value::Number(call.number.into())),
            Plain::Result => number(call.result.map(Into::into), test),
            Plain::Errno => text(&call.errno, test),
            Plain::Failed => test(Value::Bool(call.errno.is_some())),
            Plain::Support => test(Value::Text(support(call.support))),
            _ => false,
        },
        What::Process(process) => match field {
            Plain::Op => test(Value::Text(process_op(process.op))),
            Plain::Child => number(process.child.map(Into::into), test),
            Plain::Path | Plain::Name | Plain::Directory => process
                .path
                .as_deref()
                .is_some_and(|path| any_path(path, field, test)),
            Plain::Argv => process.argv.iter().any(|argument| test(Value::Text(argument))),
            Plain::CommandLine if process.argv.is_empty() => false,
            Plain::CommandLine => test(Value::Text(&process.argv.join(" "))),
            Plain::Code => number(process.code.map(Into::into), test),
            Plain::Signal => text(&process.signal, test),
            Plain::Denied => process
                .denied
                .is_some_and(|denied| test(Value::Text(denied.as_str()))),
            Plain::To => number(process.to.map(Into::into), test),
            _ => false,
        },
        What::File(file) => match field {
            Plain::Op => test(Value::Text(file_op(file.op))),
            Plain::Path | Plain::Name | Plain::Directory => any_path(&file.path, field, test),
            Plain::To => file
                .to
                .as_deref()
                .is_some_and(|to| test(Value::Text(&plain_path(to)))),
            Plain::NewPath => new_path(file).is_some_and(|path| test(Value::Text(&plain_path(path)))),
            Plain::Access => file.access.is_some_and(|how| test(Value::Text(access(how)))),
            Plain::Mode => number(file.mode.map(Into::into), test),
            Plain::Bytes => number(file.bytes.map(Into::into), test),
            Plain::Digest => file
                .digest
                .as_ref()
                .is_some_and(|digest| test(Value::Text(&digest.to_string()))),
            Plain::Errno => text(&file.errno, test),
            Plain::Failed => test(Value::Bool(file.errno.is_some())),
            _ => false,
        },
        What::Network(network) => {
            let socket = match field {
                Plain::LocalPort | Plain::LocalAddress => network.local.as_deref(),
                _ => network.peer.as_deref(),
            };
            match field {
                Plain::Op => test(Value::Text(network_op(network.op))),
                Plain::Protocol => test(Value::Text(&network.protocol)),
                Plain::Local => text(&network.local, test),
                Plain::Peer => text(&network.peer, test),
                Plain::LocalPort | Plain::PeerPort => {
                    let port = socket.and_then(address_and_port).map(|(_, port)| port.into());
                    number(port, test)
                }
                Plain::LocalAddress | Plain::PeerAddress => socket
                    .and_then(address_and_port)
                    .is_some_and(|(address, _)| test(Value::Text(address))),
                Plain::Host => text(&network.host, test),
                Plain::Request => text(&network.request, test),
                Plain::Bytes => number(network.bytes.map(Into::into), test),
                Plain::Errno => text(&network.errno, test),
                Plain::Failed => test(Value::Bool(network.errno.is_some())),
                _ => false,
            }
        }
        What::Memory(memory) => match field {
            Plain::Op => test(Value::Text(memory_op(memory.op))),
            Plain::Start => test(Value::Number(memory.start.0.into())),
            Plain::Length => test(Value::Number(memory.length.into())),
            Plain::Protection => text(&memory.protection, test),
            Plain::File => text(&memory.file, test),
            Plain::To => number(memory.to.map(Into::into), test),
            Plain::By => memory.by.is_some_and(|by| test(Value::Text(memory_by(by)))),
            _ => false,
        },
        What::Signal(signal) => match field {
            Plain::Signal => test(Value::Text(&signal.signal)),
            Plain::To => test(Value::Number(signal.to.into())),
            _ => false,
        },
        What::Resource(resource) => match field {
            Plain::Limit => test(Value::Text(&resource.limit)),
            Plain::Value => test(Value::Number(resource.value.into())),
            _ => false,
        },
        What::Fault(fault) => match field {
            Plain::Fault => test(Value::Text(fault.kind.as_str())),
            Plain::Pc => test(Value::Number(fault.pc.0.into())),
            Plain::Address => number(fault.address.map(|address| address.0.into()), test),
            _ => false,
        },
        What::Library(call) => field == Plain::Name && test(Value::Text(&call.name)),
        What::Unknown { .. } => false,
    }
}

fn any_path(path: &str, field: Plain, test: &mut dyn FnMut(Value<'_>) -> bool) -> bool {
    let path = plain_path(path);
    test(Value::Text(match field {
        Plain::Name => base_name(&path),
        Plain::Directory => directory(&path),
        _ => &path,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Every name of a table is a name of the schema's enum, in the same place.
    fn same<T: serde::de::DeserializeOwned>(names: &[&str], place: impl Fn(T) -> usize) {
        for (index, name) in names.iter().enumerate() {
            let value = serde_json::from_value(json!(name)).expect("a name of the schema");
            assert_eq!(place(value), index, "{name}");
        }
    }

    #[test]
    fn names_of_operations_are_those_of_the_schema() {
        same(PROCESS_OPS, |op: ProcessOp| op as usize);
        same(FILE_OPS, |op: FileOp| op as usize);
        same(NETWORK_OPS, |op: NetworkOp| op as usize);
        same(MEMORY_OPS, |op: MemoryOp| op as usize);
        same(MEMORY_BY, |by: MemoryBy| by as usize);
        same(ACCESS, |access: Access| access as usize);
        same(SUPPORT, |support: Support| support as usize);
        same(WITNESS, |witness: Witness| witness as usize);
        // An operation added to the schema must be added to the tables here.
        let schema = schemars::schema_for!(Event).to_value();
        for (name, ours) in [
            ("ProcessOp", PROCESS_OPS),
            ("FileOp", FILE_OPS),
            ("NetworkOp", NETWORK_OPS),
            ("MemoryOp", MEMORY_OPS),
        ] {
            let variants = schema["$defs"][name]["oneOf"].as_array().expect("variants").len();
            assert_eq!(variants, ours.len(), "{name}");
            assert!(ours.len() <= OPS_PER_KIND);
        }
        assert_eq!(FIELDS.map(|kind| kind.name), What::KINDS);
    }

    #[test]
    fn a_path_has_one_spelling() {
        assert_eq!(plain_path("/etc//cron.d/./x"), "/etc/cron.d/x");
        assert_eq!(plain_path("/tmp/../etc/shadow"), "/etc/shadow");
        assert_eq!(plain_path("/home/u/.ssh/id"), "/home/u/.ssh/id");
        assert_eq!(plain_path("/../../x/"), "/x");
        assert_eq!(
            (base_name("/a/b"), directory("/a/b"), directory("/a")),
            ("b", "/a", "/")
        );
    }

    #[test]
    fn sockets_are_split() {
        assert_eq!(address_and_port("192.0.2.1:80"), Some(("192.0.2.1", 80)));
        assert_eq!(address_and_port("[2001:db8::1]:443"), Some(("2001:db8::1", 443)));
        assert_eq!(address_and_port("unix:/run/x"), None);
    }
}
