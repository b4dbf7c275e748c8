//! From events to behaviours: short lines that can be compared across architectures, engines and runs.
//!
//! A behaviour is `kind/operation object`, for instance `file/written /etc/cron.d/x`. It holds no address, process number,
//! time or ephemeral port: what differs from machine to machine for no fault of the sample is named by its role
//! (`/proc/PID/maps`, `signal/SIGKILL child`). System calls appear only where they tell something that no typed event
//! tells ([`NOTABLE`]); a name that differs by architecture alone (`setuid32`) is written as its plain form.

use std::collections::BTreeSet;

use hotcell_schema::deny::Denied;
use hotcell_schema::event::{
    Access, ArgValue, Event, File, FileOp, Memory, Network, NetworkOp, Process, ProcessOp, Signal, Syscall,
    Task, What,
};

use crate::words;

/// Greatest number of different behaviours kept for one run.
pub const MAX_BEHAVIOURS: usize = 10_000;
/// Greatest length of a behaviour's text, in characters.
pub const MAX_TEXT: usize = 400;

/// System calls that are behaviours by themselves, in their plain form. Sorted.
pub const NOTABLE: &[&str] = &[
    "acct",
    "add_key",
    "adjtimex",
    "bpf",
    "capset",
    "chroot",
    "clock_adjtime",
    "clock_settime",
    "delete_module",
    "fanotify_init",
    "finit_module",
    "init_module",
    "inotify_init",
    "inotify_init1",
    "io_uring_setup",
    "ioperm",
    "iopl",
    "kexec_file_load",
    "kexec_load",
    "keyctl",
    "memfd_create",
    "mlockall",
    "mount",
    "move_mount",
    "open_by_handle_at",
    "open_tree",
    "perf_event_open",
    "personality",
    "pivot_root",
    "prctl",
    "process_vm_readv",
    "process_vm_writev",
    "ptrace",
    "quotactl",
    "reboot",
    "request_key",
    "seccomp",
    "setdomainname",
    "setgid",
    "setgroups",
    "sethostname",
    "setns",
    "setregid",
    "setresgid",
    "setresuid",
    "setreuid",
    "setsid",
    "settimeofday",
    "setuid",
    "stime",
    "swapoff",
    "swapon",
    "syslog",
    "umount",
    "umount2",
    "unshare",
    "userfaultfd",
    "vhangup",
];

/// The behaviours of a run, collected event by event.
#[derive(Debug, Default)]
pub struct Behaviours {
    found: BTreeSet<String>,
    children: BTreeSet<i64>,
    full: bool,
}

/// The behaviours of a run: sorted, each once.
pub fn behaviour<'a>(events: impl IntoIterator<Item = &'a Event>) -> Vec<String> {
    let mut behaviours = Behaviours::default();
    for event in events {
        behaviours.add(event);
    }
    behaviours.finish()
}

impl Behaviours {
    /// Takes one more event.
    pub fn add(&mut self, event: &Event) {
        if let What::Process(Process {
            child: Some(child), ..
        }) = &event.what
            && self.children.len() < MAX_BEHAVIOURS
        {
            self.children.insert(i64::from(*child));
        }
        let Some(text) = self.line(event) else { return };
        if self.found.len() >= MAX_BEHAVIOURS && !self.found.contains(&text) {
            self.full = true;
            return;
        }
        self.found.insert(text);
    }

    /// All of them: sorted, each once. Where there were more than [`MAX_BEHAVIOURS`], `report/cut` says so.
    pub fn finish(mut self) -> Vec<String> {
        if self.full {
            self.found.insert(format!(
                "report/cut more than {MAX_BEHAVIOURS} different behaviours"
            ));
        }
        self.found.into_iter().collect()
    }

    fn line(&self, event: &Event) -> Option<String> {
        let task = &event.task;
        let text = match &event.what {
            What::Syscall(call) => syscall(call)?,
            What::Process(process) => self.process_line(process, task),
            What::File(file) => file_line(file),
            What::Network(network) => network_line(network),
            What::Memory(memory) => self.memory_line(memory, task),
            What::Signal(signal) => self.signal_line(signal, task),
            What::Resource(resource) => format!("resource/{}", resource.limit),
            What::Fault(fault) => format!("fault/{}", fault.kind.as_str()),
            // What comes of them is told by other events.
            What::Library(_) => return None,
            What::Unknown { kind, .. } => format!("{kind}/unknown"),
        };
        Some(words::cut(&text, MAX_TEXT))
    }

    fn signal_line(&self, signal: &Signal, task: &Task) -> String {
        let whom = self.whom(i64::from(signal.to), task);
        format!("signal/{} {whom}", signal.signal)
    }

    /// What another process is to this one.
    fn whom(&self, to: i64, task: &Task) -> &'static str {
        if to == i64::from(task.pid) || to == i64::from(task.tid) {
            "self"
        } else if to == i64::from(task.parent) {
            "parent"
        } else if self.children.contains(&to) {
            "child"
        } else if to == -1 {
            "everyone"
        } else if to <= 0 {
            "group"
        } else {
            "other"
        }
    }

    fn process_line(&self, process: &Process, task: &Task) -> String {
        let mut text = process_line(process, task);
        if let Some(to) = process.to {
            push_word(&mut text, self.whom(i64::from(to), task));
        }
        text
    }

    fn memory_line(&self, memory: &Memory, task: &Task) -> String {
        let mut text = format!("memory/{}", words::memory_op(memory.op));
        if let Some(to) = memory.to {
            push_word(&mut text, self.whom(i64::from(to), task));
        }
        if let Some(by) = memory.by {
            push_word(&mut text, words::memory_by(by));
        }
        if let Some(file) = &memory.file {
            push_word(&mut text, &steady_path(file));
        }
        text
    }
}

/// The form of a system call's name without what only an architecture adds to it.
fn plain_name(name: &str) -> &str {
    let name = name.strip_suffix("_time64").unwrap_or(name);
    let shorter = name.strip_suffix("32").or_else(|| name.strip_suffix("64"));
    shorter
        .filter(|plain| NOTABLE.binary_search(plain).is_ok())
        .unwrap_or(name)
}

/// The plain form of a system call's name, where the call is a behaviour by itself.
pub fn notable(name: &str) -> Option<&str> {
    let name = plain_name(name);
    NOTABLE.binary_search(&name).is_ok().then_some(name)
}

/// Whether a system call of this name is told as such.
pub(crate) fn tells(name: &str) -> bool {
    notable(name).is_some()
}

fn syscall(call: &Syscall) -> Option<String> {
    let name = notable(&call.name)?;
    let mut text = format!("syscall/{name}");
    // What it was asked for, where that is a name (`PTRACE_TRACEME`) or a path; never a number or an address.
    for arg in &call.args {
        match &arg.value {
            ArgValue::Name(value) => push_word(&mut text, value),
            ArgValue::Path(value) => push_word(&mut text, &steady_path(value)),
            ArgValue::Flags(flags) if !flags.is_empty() => push_word(&mut text, &flags.join("|")),
            _ => {}
        }
    }
    push_errno(&mut text, call.errno.as_deref());
    Some(text)
}

fn process_line(process: &Process, task: &Task) -> String {
    match process.op {
        ProcessOp::Start | ProcessOp::Exec => {
            let verb = if process.op == ProcessOp::Start {
                "start"
            } else {
                "exec"
            };
            let path = process.path.as_deref().unwrap_or(&task.image);
            let mut text = format!("process/{verb} {}", steady_path(path));
            for (place, word) in process.argv.iter().enumerate() {
                // argv[0] tells something only where it is another name: the applet of a busybox.
                let own_name = word == path || path.rsplit('/').next() == Some(word);
                if place > 0 || !own_name {
                    push_word(&mut text, &words::shell(word));
                }
            }
            text
        }
        ProcessOp::Fork => "process/fork".to_owned(),
        ProcessOp::Exit => match process.code {
            Some(code) => format!("process/exit {code}"),
            None => "process/exit".to_owned(),
        },
        ProcessOp::Traced => "process/traced".to_owned(),
        ProcessOp::Steered => "process/steered".to_owned(),
        ProcessOp::Probed => "process/probed".to_owned(),
        ProcessOp::Timed => "process/timed".to_owned(),
        ProcessOp::Denied => format!("process/denied {}", process.denied.map_or("?", Denied::as_str)),
        ProcessOp::Killed => format!("process/killed {}", process.signal.as_deref().unwrap_or("?")),
    }
}

fn file_line(file: &File) -> String {
    let path = steady_path(&file.path);
    let verb = match (file.op, file.access) {
        (FileOp::Open, Some(Access::Write | Access::ReadWrite)) => "open-write",
        (op, _) => words::file_op(op),
    };
    let mut text = format!("file/{verb} {path}");
    if let Some(to) = &file.to {
        text.push_str(" -> ");
        text.push_str(&steady_path(to));
    }
    if let (FileOp::Chmod, Some(mode)) = (file.op, file.mode) {
        text.push_str(&format!(" {mode:04o}"));
    }
    push_errno(&mut text, file.errno.as_deref());
    text
}

fn network_line(network: &Network) -> String {
    let verb = words::network_op(network.op);
    let mut text = format!("network/{verb}");
    let place = match network.op {
        NetworkOp::Bind | NetworkOp::Listen => network.local.as_deref(),
        // The other side's port is its own chance.
        NetworkOp::Accept => network.local.as_deref(),
        NetworkOp::Connect | NetworkOp::Send | NetworkOp::Receive => network.peer.as_deref(),
        NetworkOp::Resolve => network.host.as_deref(),
        NetworkOp::Request => network.request.as_deref(),
        NetworkOp::Socket => None,
    };
    // A number of netlink is its process's, which is no fact about a sample.
    let place = place.filter(|_| network.protocol != "netlink");
    match place {
        Some(place) if network.op == NetworkOp::Request => push_word(&mut text, place),
        Some(place) if network.protocol == "tcp" || network.op == NetworkOp::Resolve => {
            push_word(&mut text, place)
        }
        Some(place) => push_word(&mut text, &format!("{place}/{}", network.protocol)),
        None => push_word(&mut text, &network.protocol),
    }
    let named = matches!(network.op, NetworkOp::Resolve | NetworkOp::Request);
    if let (Some(host), false) = (&network.host, named) {
        push_word(&mut text, &format!("({host})"));
    }
    push_errno(&mut text, network.errno.as_deref());
    text
}

fn push_word(text: &mut String, word: &str) {
    text.push(' ');
    text.push_str(word);
}

fn push_errno(text: &mut String, errno: Option<&str>) {
    if let Some(errno) = errno {
        text.push_str(&format!(" ({errno})"));
    }
}

/// A path with process and inode numbers taken out: `/proc/123/task/124/maps` becomes `/proc/PID/task/PID/maps`,
/// `/pipe:[3002]` becomes `/pipe:[N]`.
pub fn steady_path(path: &str) -> String {
    for kind in ["pipe:[", "socket:["] {
        let number = path
            .trim_start_matches('/')
            .strip_prefix(kind)
            .and_then(|rest| rest.strip_suffix(']'));
        if number.is_some_and(|number| number.bytes().all(|byte| byte.is_ascii_digit())) {
            return format!("/{kind}N]");
        }
    }
    let Some(rest) = path.strip_prefix("/proc/") else {
        return path.to_owned();
    };
    let mut out = String::from("/proc");
    let mut may_be_number = true;
    for part in rest.split('/') {
        out.push('/');
        let number = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        out.push_str(if may_be_number && number { "PID" } else { part });
        // Numbers stand first and below `task`; `/proc/self/fd/3` keeps its 3.
        may_be_number = part == "task";
    }
    out
}

#[cfg(test)]
mod tests;
