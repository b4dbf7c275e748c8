//! Events without what chance and the host decide: tasks by their place in the tree, no numbers of processes, no times, no
//! ephemeral ports, no addresses of memory.

use std::collections::HashMap;

use hotcell_report::behaviour::{notable, steady_path};
use hotcell_report::words;
use hotcell_schema::deny::Denied;
use hotcell_schema::event::{
    Access, ArgValue, Event, File, FileOp, Memory, Network, NetworkOp, Process, ProcessOp, Syscall, Task,
    What,
};
use hotcell_schema::golden::Fact;
use indexmap::IndexMap;

/// Greatest number of tasks with a place of their own.
const MAX_TASKS: usize = 4_096;
/// The place of all further tasks.
const FURTHER: &str = "further";
/// Greatest length of a resource, in characters.
const MAX_TEXT: usize = 400;
/// Lower numbers in a text are taken for what they say: the processes of a system that has just started have such numbers, and so
/// have versions of libraries.
const LEAST_PID: u32 = 50;
/// First port that Linux gives out by itself.
const EPHEMERAL: u16 = 32_768;

/// Knows the tasks of one stream. First meets every event, then settles who stands where, then makes facts.
#[derive(Debug, Default)]
pub(crate) struct Normaliser {
    /// Place in the tree, by the number of process or thread. A number that is given out again keeps its first place.
    places: HashMap<u32, String>,
    /// Tasks in the order in which they appeared, with the numbers that may be their parent's.
    seen: IndexMap<u32, [u32; 2]>,
    /// Who forked whom, in order.
    forks: IndexMap<u32, u32>,
}

impl Normaliser {
    /// Takes note of the tasks of an event.
    pub(crate) fn meet(&mut self, event: &Event) {
        let task = &event.task;
        if self.seen.len() < MAX_TASKS {
            self.seen.entry(task.tid).or_insert([task.pid, task.parent]);
        }
        if let What::Process(Process {
            op: ProcessOp::Fork,
            child: Some(child),
            ..
        }) = &event.what
            && self.forks.len() < MAX_TASKS
        {
            self.forks.entry(*child).or_insert(task.tid);
        }
    }

    /// Gives every task its place: children in the order in which their own parent made them, whatever came first in the
    /// stream; then those whose making was not seen, in the order in which they appeared.
    pub(crate) fn settle(&mut self) {
        let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
        for (child, parent) in &self.forks {
            children.entry(*parent).or_default().push(*child);
        }
        let mut counts: HashMap<u32, u32> = HashMap::new();
        let mut roots = 0u32;
        for task in self.seen.keys().copied().collect::<Vec<_>>() {
            // Up to someone who has a place, or to the root; then down again.
            let mut line = Vec::new();
            let mut at = Some(task);
            while let Some(number) =
                at.filter(|number| !self.places.contains_key(number) && !line.contains(number))
            {
                line.push(number);
                at = self.parent(number);
            }
            while let Some(number) = line.pop() {
                if self.places.contains_key(&number) {
                    continue;
                }
                let place = match self
                    .parent(number)
                    .and_then(|parent| Some((parent, self.places.get(&parent)?)))
                {
                    Some((parent, place)) => {
                        let count = counts.entry(parent).or_default();
                        *count += 1;
                        format!("{place}.{count}")
                    }
                    None => {
                        roots += 1;
                        (roots - 1).to_string()
                    }
                };
                self.place(number, place, &children, &mut counts);
            }
        }
    }

    /// A task's place, and the places of all that it forked, and they in turn.
    fn place(
        &mut self,
        number: u32,
        place: String,
        children: &HashMap<u32, Vec<u32>>,
        counts: &mut HashMap<u32, u32>,
    ) {
        let mut left = vec![(number, place)];
        while let Some((number, place)) = left.pop() {
            // A tree that is deeper than this is a bomb, and its names would be one too.
            if self.places.contains_key(&number) || place.len() > MAX_TEXT {
                continue;
            }
            for child in children.get(&number).into_iter().flatten() {
                let count = counts.entry(number).or_default();
                *count += 1;
                left.push((*child, format!("{place}.{count}")));
            }
            self.places.insert(number, place);
        }
    }

    /// Who forked it; else a thread's process, a process's parent, where they were seen at all.
    fn parent(&self, number: u32) -> Option<u32> {
        let known = |other: &u32| {
            *other != number && (self.seen.contains_key(other) || self.forks.contains_key(other))
        };
        let forked = self.forks.get(&number).copied().filter(known);
        forked.or_else(|| self.seen.get(&number)?.iter().copied().find(known))
    }

    fn name(&self, number: u32) -> &str {
        self.places.get(&number).map_or(FURTHER, String::as_str)
    }

    /// The task, by its place, and what it did; `None` for what is no behaviour.
    pub(crate) fn fact(&self, event: &Event) -> Option<(String, Fact)> {
        let (kind, resource, result) = self.parts(event)?;
        let fact = Fact {
            kind,
            image: self.steady(&event.task.image),
            resource: words::cut(&resource, MAX_TEXT),
            result,
        };
        Some((self.name(event.task.tid).to_owned(), fact))
    }

    fn parts(&self, event: &Event) -> Option<(String, String, String)> {
        Some(match &event.what {
            What::Syscall(call) => self.syscall(call)?,
            What::Process(process) => self.process(process, &event.task),
            What::File(file) => self.file(file),
            What::Network(network) => self.network(network),
            What::Memory(memory) => self.memory(memory),
            What::Signal(signal) => {
                let to = i64::from(signal.to);
                let whom = match u32::try_from(to) {
                    Ok(to) if to == event.task.tid || to == event.task.pid => "self".to_owned(),
                    Ok(0) => "group".to_owned(),
                    Ok(to) => match self.places.get(&to) {
                        Some(place) => format!("task {place}"),
                        None => "other".to_owned(),
                    },
                    Err(_) if to == -1 => "everyone".to_owned(),
                    Err(_) => "group".to_owned(),
                };
                (format!("signal/{}", signal.signal), whom, ok())
            }
            What::Resource(resource) => ("resource".into(), resource.limit.clone(), ok()),
            What::Fault(fault) => ("fault".into(), fault.kind.as_str().into(), ok()),
            // Addresses of libraries and what a linker makes of a call are no behaviour.
            What::Library(_) => return None,
            What::Unknown { kind, .. } => (format!("{kind}/unknown"), String::new(), ok()),
        })
    }

    fn syscall(&self, call: &Syscall) -> Option<(String, String, String)> {
        let name = notable(&call.name)?;
        let mut words = Vec::new();
        for arg in &call.args {
            match &arg.value {
                ArgValue::Name(name) => words.push(name.clone()),
                ArgValue::Path(path) => words.push(self.steady(path)),
                ArgValue::Flags(flags) if !flags.is_empty() => words.push(flags.join("|")),
                _ => {}
            }
        }
        Some((
            format!("syscall/{name}"),
            words.join(" "),
            class(call.errno.as_deref()),
        ))
    }

    fn process(&self, process: &Process, task: &Task) -> (String, String, String) {
        match process.op {
            ProcessOp::Start | ProcessOp::Exec => {
                let verb = if process.op == ProcessOp::Start {
                    "start"
                } else {
                    "exec"
                };
                let path = process.path.as_deref().unwrap_or(&task.image);
                let mut words = vec![self.steady(path)];
                words.extend(
                    process
                        .argv
                        .iter()
                        .skip(1)
                        .map(|word| words::shell(&self.steady(word))),
                );
                (format!("process/{verb}"), words.join(" "), ok())
            }
            ProcessOp::Fork => {
                let child = process.child.map_or(FURTHER, |child| self.name(child));
                ("process/fork".into(), format!("task {child}"), ok())
            }
            ProcessOp::Traced | ProcessOp::Steered => {
                let other = process.to.map_or(FURTHER, |pid| self.name(pid));
                let verb = words::process_op(process.op);
                (format!("process/{verb}"), format!("task {other}"), ok())
            }
            ProcessOp::Probed | ProcessOp::Timed => {
                let verb = words::process_op(process.op);
                (format!("process/{verb}"), String::new(), ok())
            }
            ProcessOp::Denied => {
                let what = process.denied.map_or("?", Denied::as_str);
                ("process/denied".into(), what.into(), ok())
            }
            ProcessOp::Exit => {
                let code = process.code.map_or_else(ok, |code| format!("exit {code}"));
                ("process/exit".into(), String::new(), code)
            }
            ProcessOp::Killed => {
                let signal = process.signal.clone().unwrap_or_else(|| "?".into());
                ("process/killed".into(), String::new(), signal)
            }
        }
    }

    fn file(&self, file: &File) -> (String, String, String) {
        let verb = match (file.op, file.access) {
            (FileOp::Open, Some(Access::Write | Access::ReadWrite)) => "open-write",
            (op, _) => words::file_op(op),
        };
        let mut resource = self.steady(&file.path);
        if let Some(to) = &file.to {
            resource.push_str(" -> ");
            resource.push_str(&self.steady(to));
        }
        if let (FileOp::Chmod, Some(mode)) = (file.op, file.mode) {
            resource.push_str(&format!(" {mode:04o}"));
        }
        (format!("file/{verb}"), resource, class(file.errno.as_deref()))
    }

    fn network(&self, network: &Network) -> (String, String, String) {
        let address = match network.op {
            NetworkOp::Bind | NetworkOp::Listen | NetworkOp::Accept => network.local.as_deref(),
            NetworkOp::Connect | NetworkOp::Send | NetworkOp::Receive => network.peer.as_deref(),
            NetworkOp::Resolve => network.host.as_deref(),
            NetworkOp::Request => network.request.as_deref(),
            NetworkOp::Socket => None,
        };
        let mut resource = network.protocol.clone();
        if let Some(address) = address {
            resource.push(' ');
            resource.push_str(&without_ephemeral(address));
        }
        let named = matches!(network.op, NetworkOp::Resolve | NetworkOp::Request);
        if let (Some(host), false) = (&network.host, named) {
            resource.push_str(&format!(" ({host})"));
        }
        let kind = format!("network/{}", words::network_op(network.op));
        (kind, resource, class(network.errno.as_deref()))
    }

    fn memory(&self, memory: &Memory) -> (String, String, String) {
        let whose = memory.to.map(|pid| format!("task {}", self.name(pid)));
        let by = memory.by.map(|by| words::memory_by(by).to_owned());
        let file = memory.file.as_deref().map(|file| self.steady(file));
        let resource: Vec<String> = [whose, by, file].into_iter().flatten().collect();
        let verb = words::memory_op(memory.op);
        (format!("memory/{verb}"), resource.join(" "), ok())
    }

    /// A text without numbers of processes: those that `/proc` names, and every number from [`LEAST_PID`] on that a task of this
    /// stream has.
    fn steady(&self, text: &str) -> String {
        let path = steady_path(text);
        if !path.bytes().any(|byte| byte.is_ascii_digit()) {
            return path;
        }
        let mut out = String::with_capacity(path.len());
        let mut digits = String::new();
        for character in path.chars().chain(['\0']) {
            if character.is_ascii_digit() {
                digits.push(character);
                continue;
            }
            let ours = digits
                .parse::<u32>()
                .is_ok_and(|number| number >= LEAST_PID && self.places.contains_key(&number));
            out.push_str(if ours { "PID" } else { &digits });
            digits.clear();
            if character != '\0' {
                out.push(character);
            }
        }
        out
    }
}

fn ok() -> String {
    "ok".into()
}

fn class(errno: Option<&str>) -> String {
    errno.map_or_else(ok, str::to_owned)
}

/// `192.0.2.1:40000` becomes `192.0.2.1:*`.
fn without_ephemeral(address: &str) -> String {
    match address.rsplit_once(':') {
        Some((host, port)) if port.parse::<u16>().is_ok_and(|port| port >= EPHEMERAL) => format!("{host}:*"),
        _ => address.to_owned(),
    }
}
