//! An event in words, as evidence.

use hotcell_schema::deny::Denied;
use hotcell_schema::event::{
    Access, Arg, ArgValue, Event, File, FileOp, Memory, MemoryBy, MemoryOp, Network, NetworkOp, Process,
    ProcessOp, What,
};

/// Most pieces of evidence that one condition keeps.
pub(crate) const MAX_EVIDENCE: usize = 8;
/// Longest text of a piece of evidence, in characters.
const MAX_TEXT: usize = 240;

/// Text from a guest, safe to show: bounded; control characters and those that turn the direction of writing are
/// escaped.
pub(crate) fn clean(text: &str) -> String {
    let mut out = String::new();
    for (count, character) in text.chars().enumerate() {
        if count >= MAX_TEXT {
            out.push('…');
            break;
        }
        let turns =
            matches!(character, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if character.is_control() || turns {
            out.extend(character.escape_unicode());
        } else {
            out.push(character);
        }
    }
    out
}

/// What happened, in a few words: `wrote /etc/cron.d/x (12 bytes)`.
pub(crate) fn event(event: &Event) -> String {
    clean(&match &event.what {
        What::Syscall(call) => called(&call.name, &call.args) + &failed(&call.errno),
        What::Library(call) => called(&call.name, &call.args),
        What::Process(process) => self::process(process),
        What::File(file) => self::file(file),
        What::Network(network) => self::network(network),
        What::Memory(memory) => self::memory(memory),
        What::Signal(signal) => format!("sent {} to process {}", signal.signal, signal.to),
        What::Resource(resource) => format!("met the limit {} ({})", resource.limit, resource.value),
        What::Fault(fault) => format!("faulted: {} at {}", fault.kind.as_str(), fault.pc),
        What::Unknown { kind, .. } => kind.clone(),
    })
}

/// Nanoseconds as seconds, without zeroes at the end: `1.5s`.
fn seconds(time: u64) -> String {
    let text = format!("{}.{:09}", time / 1_000_000_000, time % 1_000_000_000);
    format!("{}s", text.trim_end_matches('0').trim_end_matches('.'))
}

fn failed(errno: &Option<String>) -> String {
    errno
        .as_deref()
        .map_or(String::new(), |errno| format!(": {errno}"))
}

fn called(name: &str, args: &[Arg]) -> String {
    let args: Vec<String> = args
        .iter()
        .map(|arg| match &arg.value {
            ArgValue::Int(number) => number.to_string(),
            ArgValue::Time(time) => seconds(*time),
            ArgValue::Address(address) => address.to_string(),
            ArgValue::Fd(fd) => fd.to_string(),
            ArgValue::Path(text) | ArgValue::Text(text) => format!("\"{text}\""),
            ArgValue::Name(text) | ArgValue::Socket(text) => text.clone(),
            ArgValue::Texts(texts) => format!("[{}]", texts.join(", ")),
            ArgValue::Flags(flags) => flags.join("|"),
        })
        .collect();
    format!("called {name}({})", args.join(", "))
}

fn process(process: &Process) -> String {
    let path = process.path.as_deref().unwrap_or("?");
    let arguments = match process.argv.as_slice() {
        [] | [_] => String::new(),
        argv => format!(" as `{}`", argv.join(" ")),
    };
    match process.op {
        ProcessOp::Start => format!("started {path}{arguments}"),
        ProcessOp::Fork => match process.child {
            Some(child) => format!("made process {child}"),
            None => "made a process".into(),
        },
        ProcessOp::Exec => format!("executed {path}{arguments}"),
        ProcessOp::Exit => format!("exited {}", process.code.unwrap_or(0)),
        ProcessOp::Denied => format!("was ended, because it may not {}", denied(process)),
        ProcessOp::Killed => format!("was ended by {}", process.signal.as_deref().unwrap_or("a signal")),
        ProcessOp::Traced => format!("began to trace {}", other(process.to)),
        ProcessOp::Probed => "asked the processor for a hypervisor".to_owned(),
        ProcessOp::Timed => "measured how long the processor takes".to_owned(),
        ProcessOp::Steered => format!("changed the registers of {}", other(process.to)),
    }
}

fn denied(process: &Process) -> &'static str {
    process.denied.map_or("do this", Denied::as_str)
}

fn other(pid: Option<u32>) -> String {
    pid.map_or("another process".to_owned(), |pid| format!("process {pid}"))
}

fn file(file: &File) -> String {
    let path = &file.path;
    let to = file.to.as_deref().unwrap_or("?");
    let what = match file.op {
        FileOp::Open => match file.access {
            Some(Access::Read) => format!("opened {path} to read"),
            Some(Access::Write) => format!("opened {path} to write"),
            Some(Access::ReadWrite) => format!("opened {path} to read and write"),
            None => format!("opened {path}"),
        },
        FileOp::Create => format!("created {path}"),
        FileOp::Written => match file.bytes {
            Some(bytes) => format!("wrote {path} ({bytes} bytes)"),
            None => format!("wrote {path}"),
        },
        FileOp::Delete => format!("deleted {path}"),
        FileOp::Rename => format!("renamed {path} to {to}"),
        FileOp::Link => format!("linked {to} to {path}"),
        FileOp::Symlink => format!("made {path} a symbolic link to {to}"),
        FileOp::Mkdir => format!("made directory {path}"),
        FileOp::Chmod => match file.mode {
            Some(mode) => format!("changed the mode of {path} to {mode:04o}"),
            None => format!("changed the mode of {path}"),
        },
        FileOp::Chown => format!("changed the owner of {path}"),
        FileOp::Truncate => format!("truncated {path}"),
        FileOp::Stat => format!("asked about {path}"),
        FileOp::List => format!("listed {path}"),
    };
    format!("{what}{}", failed(&file.errno))
}

fn network(network: &Network) -> String {
    let protocol = &network.protocol;
    let peer = network.peer.as_deref().or(network.host.as_deref()).unwrap_or("?");
    let local = network.local.as_deref().unwrap_or("?");
    let bytes = network
        .bytes
        .map_or("bytes".to_owned(), |bytes| format!("{bytes} bytes"));
    let what = match network.op {
        NetworkOp::Socket => format!("made a {protocol} socket"),
        NetworkOp::Bind => format!("bound {local} ({protocol})"),
        NetworkOp::Connect => format!("connected to {peer} ({protocol})"),
        NetworkOp::Listen => format!("listened on {local} ({protocol})"),
        NetworkOp::Accept => format!("took a connection from {peer} ({protocol})"),
        NetworkOp::Send => format!("sent {bytes} to {peer} ({protocol})"),
        NetworkOp::Receive => format!("received {bytes} from {peer} ({protocol})"),
        NetworkOp::Request => format!("asked {}", network.request.as_deref().unwrap_or(peer)),
        NetworkOp::Resolve => format!("looked up {}", network.host.as_deref().unwrap_or(peer)),
    };
    format!("{what}{}", failed(&network.errno))
}

fn memory(memory: &Memory) -> String {
    let whose = other(memory.to);
    let by = match memory.by {
        Some(MemoryBy::Ptrace) => " with ptrace",
        Some(MemoryBy::ProcessVm) => " with process_vm_writev",
        Some(MemoryBy::ProcMem) => " through /proc/PID/mem",
        None => "",
    };
    let injected = format!("wrote into {whose}{by}");
    let what = match memory.op {
        MemoryOp::MapExecutable => "mapped executable memory",
        MemoryOp::ProtectExecutable => "made memory executable",
        MemoryOp::WriteExecute => "memory was writable and executable at once",
        MemoryOp::WrittenThenExecuted => "executed bytes that it had written",
        MemoryOp::Injected => &injected,
    };
    let protection = memory
        .protection
        .as_deref()
        .map_or(String::new(), |protection| format!(", {protection}"));
    let file = memory
        .file
        .as_deref()
        .map_or(String::new(), |file| format!(", of {file}"));
    format!(
        "{what} at {} ({} bytes{protection}{file})",
        memory.start, memory.length
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_text_is_made_safe() {
        assert_eq!(clean("a\u{1b}[31m\n"), "a\\u{1b}[31m\\u{a}");
        assert_eq!(clean("a\u{202e}b"), "a\\u{202e}b");
        assert_eq!(clean(&"x".repeat(10_000)).chars().count(), MAX_TEXT + 1);
    }

    #[test]
    fn a_time_reads_well() {
        assert_eq!(seconds(600_000_000_000), "600s");
        assert_eq!(seconds(1_500_000_000), "1.5s");
        assert_eq!(seconds(1), "0.000000001s");
    }

    #[test]
    fn a_file_event_reads_well() {
        let mut written = File::new(FileOp::Written, "/etc/cron.d/x");
        written.bytes = Some(12);
        assert_eq!(file(&written), "wrote /etc/cron.d/x (12 bytes)");
        let mut open = File::new(FileOp::Open, "/etc/shadow");
        open.access = Some(Access::Read);
        open.errno = Some("EACCES".into());
        assert_eq!(file(&open), "opened /etc/shadow to read: EACCES");
    }
}
