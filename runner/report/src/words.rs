//! One event, one value, one size as a line of text for people.

use std::collections::BTreeMap;

use hotcell_schema::event::{
    Access, Arg, ArgValue, Event, FileOp, MemoryBy, MemoryOp, NetworkOp, ProcessOp, Support, What,
};
use hotcell_schema::respond::{Action, Response};

/// Greatest length of an event's text in a page, in characters.
pub const MAX_EVENT_TEXT: usize = 2_000;

/// System calls whose result is an address.
const ADDRESS_CALLS: [&str; 5] = ["brk", "mmap", "mmap2", "mremap", "shmat"];

/// At most `limit` characters of a text; what was cut is said as `…(+N)`.
pub fn cut(text: &str, limit: usize) -> String {
    // A character is at least one byte: most texts need no counting.
    if text.len() <= limit {
        return text.to_owned();
    }
    let total = text.chars().count();
    if total <= limit {
        return text.to_owned();
    }
    let head: String = text.chars().take(limit).collect();
    format!("{head}…(+{})", total - limit)
}

/// A word as a shell would need it: plain where it can be, in single quotes otherwise.
pub fn shell(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./:=@%+,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

/// A command line as a shell would need it.
pub fn command(argv: &[String]) -> String {
    let words: Vec<String> = argv.iter().map(|word| shell(word)).collect();
    words.join(" ")
}

/// A length for people: `17 B`, `4.0 KiB`, `2.1 MiB`.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = "KiB";
    for larger in &UNITS[1..] {
        if value < 1023.95 {
            break;
        }
        value /= 1024.0;
        unit = larger;
    }
    format!("{value:.1} {unit}")
}

/// A whole number with thin groups of three: `12 345 678`.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            out.push('\u{202f}');
        }
        out.push(digit);
    }
    out
}

/// Virtual nanoseconds for people: `0.000 123 s` as `123 µs`.
pub fn duration(nanoseconds: u64) -> String {
    match nanoseconds {
        0..1_000 => format!("{nanoseconds} ns"),
        1_000..1_000_000 => format!("{:.1} µs", nanoseconds as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} ms", nanoseconds as f64 / 1e6),
        _ => format!("{:.2} s", nanoseconds as f64 / 1e9),
    }
}

/// The name of a file operation in JSON.
pub fn file_op(op: FileOp) -> &'static str {
    match op {
        FileOp::Open => "open",
        FileOp::Create => "create",
        FileOp::Written => "written",
        FileOp::Delete => "delete",
        FileOp::Rename => "rename",
        FileOp::Link => "link",
        FileOp::Symlink => "symlink",
        FileOp::Mkdir => "mkdir",
        FileOp::Chmod => "chmod",
        FileOp::Chown => "chown",
        FileOp::Truncate => "truncate",
        FileOp::Stat => "stat",
        FileOp::List => "list",
    }
}

/// The name of a network operation in JSON.
pub fn network_op(op: NetworkOp) -> &'static str {
    match op {
        NetworkOp::Socket => "socket",
        NetworkOp::Bind => "bind",
        NetworkOp::Connect => "connect",
        NetworkOp::Listen => "listen",
        NetworkOp::Accept => "accept",
        NetworkOp::Send => "send",
        NetworkOp::Receive => "receive",
        NetworkOp::Resolve => "resolve",
        NetworkOp::Request => "request",
    }
}

/// The name of a memory operation in JSON.
pub fn memory_op(op: MemoryOp) -> &'static str {
    match op {
        MemoryOp::MapExecutable => "map-executable",
        MemoryOp::ProtectExecutable => "protect-executable",
        MemoryOp::WriteExecute => "write-execute",
        MemoryOp::WrittenThenExecuted => "written-then-executed",
        MemoryOp::Injected => "injected",
    }
}

/// The name of a way to memory in JSON.
pub fn memory_by(by: MemoryBy) -> &'static str {
    match by {
        MemoryBy::Ptrace => "ptrace",
        MemoryBy::ProcessVm => "process-vm",
        MemoryBy::ProcMem => "proc-mem",
    }
}

/// The name of a process operation in JSON.
pub fn process_op(op: ProcessOp) -> &'static str {
    match op {
        ProcessOp::Start => "start",
        ProcessOp::Fork => "fork",
        ProcessOp::Exec => "exec",
        ProcessOp::Exit => "exit",
        ProcessOp::Killed => "killed",
        ProcessOp::Denied => "denied",
        ProcessOp::Traced => "traced",
        ProcessOp::Steered => "steered",
        ProcessOp::Probed => "probed",
        ProcessOp::Timed => "timed",
    }
}

/// The name of a support level in JSON.
pub fn support(support: Support) -> &'static str {
    match support {
        Support::Full => "full",
        Support::Partial => "partial",
        Support::Refused => "refused",
        Support::Missing => "missing",
    }
}

/// The label of an event in a table: its kind and operation, or a system call's name.
pub fn label(what: &What) -> String {
    match what {
        What::Syscall(call) => call.name.clone(),
        What::Process(process) => process_op(process.op).to_owned(),
        What::File(file) => file_op(file.op).to_owned(),
        What::Network(network) => network_op(network.op).to_owned(),
        What::Memory(memory) => memory_op(memory.op).to_owned(),
        What::Signal(signal) => signal.signal.clone(),
        What::Resource(resource) => resource.limit.clone(),
        What::Fault(fault) => fault.kind.as_str().to_owned(),
        What::Library(call) => call.name.clone(),
        What::Unknown { .. } => String::from("unknown"),
    }
}

/// What an event holds beside its kind and [`label`], in a line, at most [`MAX_EVENT_TEXT`] characters.
pub fn details(event: &Event) -> String {
    let mut text = body(&event.what);
    if let Some(raw) = &event.raw {
        text.push_str(" · raw: ");
        text.push_str(raw);
    }
    cut(&text, MAX_EVENT_TEXT)
}

fn body(what: &What) -> String {
    let mut line = Line::default();
    match what {
        What::Syscall(call) => {
            let args: Vec<String> = call.args.iter().map(argument).collect();
            line.word(&format!("({})", args.join(", ")));
            match (&call.errno, call.result) {
                (Some(errno), _) => line.word(&format!("= {errno}")),
                (None, Some(result)) if ADDRESS_CALLS.contains(&call.name.as_str()) => {
                    line.word(&format!("= {result:#x}"));
                }
                (None, Some(result)) => line.word(&format!("= {result}")),
                (None, None) => {}
            }
            if !call.support.is_full() {
                line.word(&format!("· support: {}", support(call.support)));
            }
        }
        What::Library(call) => {
            let args: Vec<String> = call.args.iter().map(argument).collect();
            line.word(&format!("({})", args.join(", ")));
        }
        What::Process(process) => {
            if let Some(path) = &process.path {
                line.word(path);
            }
            if !process.argv.is_empty() {
                line.word(&format!("· {}", command(&process.argv)));
            }
            line.pair("child", process.child);
            line.pair("code", process.code);
            line.pair("process", process.to);
            line.maybe(process.signal.as_deref());
        }
        What::File(file) => {
            line.word(&file.path);
            if let Some(to) = &file.to {
                line.word(&format!("→ {to}"));
            }
            line.maybe(file.access.map(|access| match access {
                Access::Read => "read",
                Access::Write => "write",
                Access::ReadWrite => "read-write",
            }));
            if let Some(mode) = file.mode {
                line.word(&format!("mode {mode:04o}"));
            }
            if let Some(bytes) = file.bytes {
                line.word(&size(bytes));
            }
            if let Some(digest) = file.digest {
                line.word(&format!("sha256 {digest}"));
            }
            line.errno(file.errno.as_deref());
        }
        What::Network(network) => {
            line.word(&network.protocol);
            line.maybe(network.host.as_deref());
            if let Some(local) = &network.local {
                line.word(&format!("from {local}"));
            }
            if let Some(peer) = &network.peer {
                line.word(&format!("to {peer}"));
            }
            if let Some(bytes) = network.bytes {
                line.word(&size(bytes));
            }
            line.errno(network.errno.as_deref());
        }
        What::Memory(memory) => {
            line.word(&format!("{} +{:#x}", memory.start, memory.length));
            line.pair("process", memory.to);
            line.maybe(memory.by.map(memory_by));
            line.maybe(memory.protection.as_deref());
            line.maybe(memory.file.as_deref());
        }
        What::Signal(signal) => line.word(&format!("to {}", signal.to)),
        What::Resource(resource) => line.word(&format!("at {}", resource.value)),
        What::Fault(fault) => {
            line.word(&format!("pc {}", fault.pc));
            if let Some(address) = fault.address {
                line.word(&format!("address {address}"));
            }
            if let Some(code) = &fault.code {
                line.word(&format!("code {code:?}"));
            }
        }
        What::Unknown { fields, .. } => line.word(&fields.to_string()),
    }
    line.0
}

fn argument(arg: &Arg) -> String {
    match &arg.value {
        ArgValue::Int(value) => value.to_string(),
        ArgValue::Time(value) => duration(*value),
        ArgValue::Address(value) => value.to_string(),
        ArgValue::Fd(value) => value.to_string(),
        ArgValue::Path(value) | ArgValue::Text(value) => format!("{:?}", Plain(value)),
        ArgValue::Texts(values) => {
            let quoted: Vec<String> = values.iter().map(|value| format!("{:?}", Plain(value))).collect();
            format!("[{}]", quoted.join(", "))
        }
        ArgValue::Flags(flags) if flags.is_empty() => "0".to_owned(),
        ArgValue::Flags(flags) => flags.join("|"),
        ArgValue::Name(value) | ArgValue::Socket(value) => value.clone(),
    }
}

/// Text in quotes. Line breaks are escaped; everything else was already escaped where the event was made.
struct Plain<'a>(&'a str);

impl std::fmt::Debug for Plain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = self
            .0
            .replace('"', "\\\"")
            .replace('\n', "\\n")
            .replace('\t', "\\t");
        write!(f, "\"{text}\"")
    }
}

#[derive(Default)]
struct Line(String);

impl Line {
    fn word(&mut self, word: &str) {
        if !self.0.is_empty() {
            self.0.push(' ');
        }
        self.0.push_str(word);
    }

    fn maybe(&mut self, word: Option<&str>) {
        if let Some(word) = word {
            self.word(word);
        }
    }

    fn pair(&mut self, name: &str, value: Option<impl std::fmt::Display>) {
        if let Some(value) = value {
            self.word(&format!("{name} {value}"));
        }
    }

    fn errno(&mut self, errno: Option<&str>) {
        if let Some(errno) = errno {
            self.word(&format!("= {errno}"));
        }
    }
}

/// What was done about a sample while it ran: each rule that acted, and how often. Nothing, where none did.
pub(crate) fn responses(responses: &[Response]) -> Option<String> {
    let mut counts: BTreeMap<(&str, Action), u64> = BTreeMap::new();
    for response in responses {
        *counts.entry((&response.rule, response.action)).or_default() += 1;
    }
    let mut told: Vec<String> = counts
        .iter()
        .take(MOST_RULES)
        .map(|((rule, action), times)| {
            let done = match action {
                Action::Kill => "ended it",
                Action::Freeze => "froze it",
            };
            let often = match times {
                1 => String::new(),
                times => format!(" {} times", count(*times)),
            };
            format!("`{}` {done}{often}", cut(rule, 60))
        })
        .collect();
    if counts.len() > MOST_RULES {
        told.push(format!("{} more", counts.len() - MOST_RULES));
    }
    (!told.is_empty()).then(|| told.join(", "))
}

/// Most rules that are named of those that acted upon one sample.
const MOST_RULES: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_counts_are_readable() {
        assert_eq!(size(17), "17 B");
        assert_eq!(size(4096), "4.0 KiB");
        assert_eq!(size(1024 * 1024 - 1), "1.0 MiB");
        assert_eq!(count(1_234_567), "1\u{202f}234\u{202f}567");
        assert_eq!(count(12), "12");
        assert_eq!(duration(1_500), "1.5 µs");
    }

    #[test]
    fn words_are_quoted_as_a_shell_needs_them() {
        let argv = ["sh", "-c", "echo 'x' > y", ""].map(String::from);
        assert_eq!(command(&argv), "sh -c 'echo '\\''x'\\'' > y' ''");
    }

    #[test]
    fn a_cut_text_says_how_much_is_gone() {
        assert_eq!(cut("größer", 3), "grö…(+3)");
        assert_eq!(cut("größer", 6), "größer");
    }

    #[test]
    fn rules_that_acted_are_named_and_counted() {
        let response = |rule: &str, action| Response {
            rule: rule.into(),
            action,
            event: 0,
            latency: 0,
            calls_after: 0,
        };
        let mut all = vec![response("deny.create", Action::Kill); 3];
        assert_eq!(responses(&[]), None);
        all.push(response("a", Action::Freeze));
        assert_eq!(
            responses(&all).unwrap_or_default(),
            "`a` froze it, `deny.create` ended it 3 times"
        );
        all.extend(["b", "c", "d", "e"].map(|rule| response(rule, Action::Kill)));
        assert!(
            responses(&all)
                .unwrap_or_default()
                .ends_with(", `d` ended it, 2 more")
        );
    }
}
