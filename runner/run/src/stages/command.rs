//! `command`: a program of the user's own over what is wired to it, in a folder of its own, confined.
//!
//! In the work folder: own files at their paths, `inputs/<port>`, `outputs/`. The README of `examples/analysers` teaches it;
//! what it may do and what not is in `hotcell_cells::command`.

mod check;
pub(crate) mod index;
pub(crate) mod live;
mod program;
mod secret;

use std::io::{self, Write};
use std::time::Duration;

use hotcell_cells::command::bounds::MAX_FILES_AT_ONCE;
use hotcell_cells::command::collect::OutputFault;
use hotcell_cells::command::{CommandEnding, CommandLimits, CommandSpec, End, PATH, Seat, Stream};
use hotcell_cells::contract::CellFault;
use hotcell_cells::process::Interruption;
use hotcell_cells::supervise::Exit;
use hotcell_plan::{Instance, Wire};
use hotcell_schema::command::{CommandOutput, CommandWith, EnvValue, OutputPlace};
use hotcell_schema::job::LeftFile;
use hotcell_schema::outcome::Status;
use hotcell_schema::stage::PortType;
use hotcell_store::Stored;
use indexmap::IndexMap;
use serde::Deserialize;
use zeroize::Zeroizing;

pub(crate) use program::Programs;

use crate::left::{self, Beginning, Left};

use super::{FilesPort, put_json, settings};
use crate::work::{self, Done, Input, Inputs, Shared, store_failed};
use check::MAX_DOCUMENT;
use program::Place;
use secret::{Scanner, Values};

/// The environment of every command, beside its folders. Nothing of the host is in it.
const ENVIRONMENT: [(&str, &str); 6] = [
    ("PATH", PATH),
    ("LANG", "C.UTF-8"),
    ("TZ", "UTC"),
    ("SOURCE_DATE_EPOCH", "0"),
    ("PYTHONHASHSEED", "0"),
    ("PYTHONDONTWRITEBYTECODE", "1"),
];
/// Names and values; a value may be a secret.
type Environment = Zeroizing<Vec<(String, String)>>;
/// How much of a command's error output is told when it failed: the last bytes.
const ERROR_TAIL: usize = 4 << 10;
/// Name of the list in the folder of a `files` input, and of several inputs.
const INDEX: &str = "index.json";

pub(super) fn run(shared: &Shared<'_>, instance: &Instance, inputs: &Inputs<'_>) -> Result<Done, Done> {
    let with: CommandWith = settings(instance)?;
    let programs = shared.options.engines.programs();
    let commands = programs.commands(shared)?;
    let command = Command {
        shared,
        instance,
        with: &with,
        limits: limits(shared, instance),
    };
    let mut seat = commands.seat(&command.limits).map_err(|fault| match fault {
        CellFault::Interrupted(why) => Done::without_outputs(
            Status::Interrupted,
            format!("{why} before the program could start; raise `limits.memory`"),
        ),
        fault => Done::failed("the host cannot run commands", fault.to_string()),
    })?;
    let done = command.run(&mut seat, inputs);
    if let Err(error) = commands.give_back(seat) {
        shared.note_confinement(&[], &[format!("its folder is not used again: {error}")]);
    }
    done
}

/// One command on its way.
struct Command<'a, 's> {
    shared: &'a Shared<'s>,
    instance: &'a Instance,
    with: &'a CommandWith,
    limits: CommandLimits,
}

/// The command is at fault: the text is the same on every machine.
fn wrong(text: impl Into<String>) -> Done {
    Done::without_outputs(Status::Failed, text)
}

impl Command<'_, '_> {
    /// Puts all that it needs into its folder; gives its program's path and its environment.
    fn place(
        &self,
        seat: &mut Seat,
        inputs: &Inputs<'_>,
        secrets: &mut Values,
    ) -> Result<(String, Environment), Done> {
        let programs = self.shared.options.engines.programs();
        let own = programs.own(self.shared.plan, self.instance)?;
        for file in own.iter() {
            put(seat, &file.name, file.executable, &file.bytes)?;
        }
        for (port, wired) in inputs {
            self.put_input(seat, port, wired)?;
        }
        let program = programs
            .program(self.shared.plan, self.instance)
            .map_err(|error| Done::failed("the program is not there", error))?;
        let path = match &program.place {
            Place::System(path) => path.clone(),
            Place::Own(name) => format!("{}/{name}", seat.work()),
        };
        Ok((path, self.environment(seat, secrets)?))
    }

    fn run(&self, seat: &mut Seat, inputs: &Inputs<'_>) -> Result<Done, Done> {
        let mut secrets = Values::default();
        let (path, environment) = self.place(seat, inputs, &mut secrets)?;
        let stdin = match &self.with.stdin {
            Some(port) => Some(self.stdin(port)?),
            None => None,
        };
        let spec = CommandSpec {
            program: &path,
            arguments: &program::arguments(self.with),
            environment: &environment,
            stdin: stdin.as_deref(),
        };
        let ending = seat
            .run(&spec, &self.shared.options.stop)
            .map_err(|fault| match fault {
                CellFault::Interrupted(why) => Done::without_outputs(Status::Interrupted, why.to_string()),
                other => Done::failed("the host cannot run commands", other.to_string()),
            })?;
        self.shared.note_confinement(&ending.layers, &ending.fallbacks);
        let facts = |done: Done| Done {
            cpu_s: ending.usage.cpu_s,
            peak_kib: ending.usage.peak_kib,
            ..done
        };
        let collected = self.judge(&ending).and_then(|()| {
            Collector {
                command: self,
                seat,
                left: self.limits.file_bytes,
                bound: self.limits.file_bytes,
                secrets: &secrets,
                objects: Vec::new(),
            }
            .collect()
        });
        collected
            .map(facts)
            .map_err(|done| facts(self.explained(seat, &secrets, done)))
    }

    /// Adds to an end that is not good what the program said, and where what it left can be looked at.
    fn explained(&self, seat: &Seat, secrets: &Values, done: Done) -> Done {
        if done.host_refuses {
            return done;
        }
        let said = error_tail(seat, secrets);
        let said = match said.contains('\n') {
            true => format!("it said:\n{said}"),
            false if said.is_empty() => said,
            false => format!("it said: {said}"),
        };
        let parts = [done.error.clone().unwrap_or_default(), said];
        let parts: Vec<&str> = parts
            .iter()
            .map(String::as_str)
            .filter(|part| !part.is_empty())
            .collect();
        Done {
            error: (!parts.is_empty()).then(|| parts.join("\n")),
            left: self.leave(seat, secrets),
            ..done
        }
    }

    /// Copies streams and outputs into the run's folder, as far as they are there and may be. Answers where they are.
    fn leave(&self, seat: &Seat, secrets: &Values) -> Option<String> {
        let left = self.shared.left.as_ref()?;
        left.forget(self.instance);
        let place = Left::place(self.instance);
        let mut any = false;
        let mut put = |path: String, copy: &mut dyn FnMut(&mut Beginning)| {
            if secrets.find(path.as_bytes()).is_some() {
                return;
            }
            let mut beginning = Beginning::new(left::MAX_FILE + secrets.longest());
            copy(&mut beginning);
            let (bytes, cut) = beginning.taken();
            let bytes = secrets.redacted_beginning(&bytes, cut);
            any |= !bytes.is_empty() && left.write(&path, &bytes);
        };
        for (name, stream) in [("stdout", Stream::Out), ("stderr", Stream::Err)] {
            // It ends with an error where the beginning is full.
            put(format!("{place}/{name}"), &mut |to| {
                _ = seat.copy_stream(stream, to)
            });
        }
        let files = self
            .with
            .outputs
            .iter()
            .filter(|(_, output)| output.from == OutputPlace::File);
        for (port, output) in files {
            let within = match output.port.0 {
                PortType::Files => seat.output_names(port).unwrap_or_default(),
                _ => vec![String::new()],
            };
            for within in within.into_iter().take(left::MAX_FILES) {
                let Ok(file) = seat.output(port, &within) else {
                    continue;
                };
                let slash = if within.is_empty() { "" } else { "/" };
                let mut file = Some(file);
                put(format!("{place}/outputs/{port}{slash}{within}"), &mut |to| {
                    _ = file.take().map(|file| file.copy_to(to));
                });
            }
        }
        any.then_some(place)
    }

    /// Puts what is wired to a port into the work folder: one thing as a file, several as files in a folder.
    fn put_input(&self, seat: &mut Seat, port: &str, wired: &[Input<'_>]) -> Result<(), Done> {
        let kinds = self.kinds(port);
        let place = format!("inputs/{port}");
        match (wired, self.is_single(port)) {
            ([one], true) => self.put_one(seat, place, one, kinds.first()),
            _ => {
                seat.put_folder(&place).map_err(not_put)?;
                for (index, one) in wired.iter().enumerate() {
                    let place = format!("{place}/{}", index::name(index));
                    self.put_one(seat, place, one, kinds.get(index))?;
                }
                let wires = self.instance.inputs.get(port).map_or(&[][..], Vec::as_slice);
                let list = serde_json::to_vec_pretty(&index::of(self.shared, wires, wired))
                    .map_err(|error| Done::failed("a list of inputs cannot be written", error.to_string()))?;
                put(seat, &format!("{place}/{INDEX}"), false, &list)
            }
        }
    }

    fn put_one(
        &self,
        seat: &mut Seat,
        place: String,
        input: &Input<'_>,
        kind: Option<&PortType>,
    ) -> Result<(), Done> {
        /// What is read of a list of files.
        #[derive(Deserialize)]
        struct List {
            files: Vec<LeftFile>,
        }
        let mut bytes = self.shared.read(input)?;
        if kind != Some(&PortType::Files) {
            if let Some(live) = self
                .with
                .live
                .as_ref()
                .filter(|_| kind == Some(&PortType::Events))
            {
                live::keep_those(live, &mut bytes);
            }
            return put(seat, &place, false, &bytes);
        }
        let list: List = serde_json::from_slice(&bytes)
            .map_err(|error| Done::failed("a stored input is gone or damaged", error.to_string()))?;
        seat.put_folder(&place).map_err(not_put)?;
        put(seat, &format!("{place}/{INDEX}"), false, &bytes)?;
        let mut there = std::collections::BTreeSet::new();
        for file in list.files {
            if there.insert(file.digest) {
                let stored = Input::Stored(Stored {
                    digest: file.digest,
                    length: file.length,
                });
                let bytes = self.shared.read(&stored)?;
                put(seat, &format!("{place}/{}", file.digest), false, &bytes)?;
            }
        }
        Ok(())
    }

    /// Whether one thing is wired to a port, and not a list of things that happens to have one.
    fn is_single(&self, port: &str) -> bool {
        let wires = self.instance.inputs.get(port);
        wires.is_some_and(|wires| index::is_single(wires))
    }

    /// The types of what is wired to a port, one by one.
    fn kinds(&self, port: &str) -> Vec<PortType> {
        let mut kinds = Vec::new();
        for wire in self.instance.inputs.get(port).into_iter().flatten() {
            let of = |stage: &str, port: &str| {
                let stage = self.shared.plan.stages.get(stage);
                stage.and_then(|stage| stage.outputs.get(port).copied())
            };
            let of_instance = |index: usize, port: &str| {
                let instance = self.shared.table.instance(index);
                instance.and_then(|instance| of(&instance.stage, port))
            };
            let kind = match wire {
                Wire::Sample(_) | Wire::Item => Some(PortType::File),
                Wire::Output { instance, port } => of_instance(*instance, port),
                Wire::Same { point, port } | Wire::Point { point, port } => of_instance(*point, port),
                Wire::All { stage, port } => of(stage, port),
            };
            let count = match wire {
                Wire::All { .. } | Wire::Point { .. } => work::gives(self.shared, wire).len(),
                _ => 1,
            };
            kinds.extend(std::iter::repeat_n(kind.unwrap_or(PortType::File), count));
        }
        kinds
    }

    fn stdin(&self, port: &str) -> Result<String, Done> {
        match self.is_single(port) && self.kinds(port) != [PortType::Files] {
            true => Ok(format!("inputs/{port}")),
            false => Err(wrong(format!(
                "standard input is one file, and several are wired to `{port}`"
            ))),
        }
    }

    fn environment(&self, seat: &Seat, secrets: &mut Values) -> Result<Environment, Done> {
        let mut all: Environment = ENVIRONMENT
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect::<Vec<_>>()
            .into();
        let work = seat.work();
        for (name, value) in [
            ("HOME", work.to_owned()),
            ("TMPDIR", seat.tmp().to_owned()),
            ("HOTCELL_INPUTS", format!("{work}/inputs")),
            ("HOTCELL_OUTPUTS", format!("{work}/outputs")),
        ] {
            all.push((name.to_owned(), value));
        }
        for (name, value) in &self.with.env {
            if name.is_empty() || name.contains(['=', '\0']) {
                return Err(wrong(format!("`{name}` is not a name of a variable")));
            }
            let value = match value {
                EnvValue::Text(text) => text.clone(),
                EnvValue::Secret(secret) => self.secret(&secret.secret, secrets)?,
            };
            all.retain(|(there, _)| there != name);
            all.push((name.clone(), value));
        }
        Ok(all)
    }

    fn secret(&self, name: &str, secrets: &mut Values) -> Result<String, Done> {
        let known = self.shared.options.secrets.ok_or_else(|| {
            Done::failed(
                format!("the secret `{name}` cannot be read"),
                "this run was given no secrets",
            )
        })?;
        let value = known.get(name).map_err(|error| {
            Done::failed(format!("the secret `{name}` cannot be read"), error.to_string())
        })?;
        let text = value
            .text()
            .ok_or_else(|| {
                wrong(format!(
                    "the secret `{name}` is not text, so no variable can hold it"
                ))
            })?
            .to_owned();
        secrets.add(name, &value);
        Ok(text)
    }

    /// Whether the program did its work.
    fn judge(&self, ending: &CommandEnding) -> Result<(), Done> {
        let name = self.with.run.first().map_or("", String::as_str);
        let CommandLimits {
            memory,
            tasks,
            file_bytes,
            ..
        } = self.limits;
        match &ending.end {
            End::Exit(Exit::Code(code)) => {
                let good = match self.with.success.as_slice() {
                    [] => *code == 0,
                    codes => codes.iter().any(|good| i32::from(*good) == *code),
                };
                match good {
                    true => Ok(()),
                    false => Err(wrong(format!("`{name}` ended with exit code {code}"))),
                }
            }
            End::Exit(Exit::Signal(libc::SIGXFSZ)) => Err(wrong(format!(
                "`{name}` wrote a file larger than `limits.file-bytes` allows, {file_bytes} bytes"
            ))),
            End::Exit(exit @ Exit::Signal(_)) => Err(wrong(format!("`{name}` ended by {exit}"))),
            End::Interrupted(why) => {
                let limit = match why {
                    Interruption::Memory => format!(": `limits.memory` is {memory} bytes"),
                    Interruption::Tasks => format!(": `limits.tasks` is {tasks}"),
                    Interruption::Room => format!(
                        ": `limits.file-bytes` is {file_bytes}, and outputs and temporary files together may have twice as many and 16 MiB, in at most {MAX_FILES_AT_ONCE} files"
                    ),
                    _ => String::new(),
                };
                Err(Done::without_outputs(
                    Status::Interrupted,
                    format!("{why}{limit}"),
                ))
            }
            End::NotStarted {
                program: false,
                error,
            } => Err(Done::failed("the host cannot run commands", error.to_string())),
            End::NotStarted { program: true, error } => {
                let hint = match error.raw_os_error() {
                    Some(libc::EACCES) => {
                        "; it must be executable (chmod +x), or name its interpreter: run = [\"sh\", …]"
                    }
                    Some(libc::ENOEXEC) => {
                        "; a script begins with its interpreter, `#!/bin/sh`, and a program is of the host's architecture"
                    }
                    _ => "",
                };
                Err(Done::failed(
                    format!("`{name}` cannot be started"),
                    format!("{error}{hint}"),
                ))
            }
        }
    }
}

/// Takes outputs, within a bound on all of them together.
struct Collector<'a, 's> {
    command: &'a Command<'a, 's>,
    seat: &'a Seat,
    left: u64,
    bound: u64,
    secrets: &'a Values,
    objects: Vec<Stored>,
}

impl Collector<'_, '_> {
    fn collect(mut self) -> Result<Done, Done> {
        let mut outputs = IndexMap::new();
        for (port, stream) in [("stdout", Stream::Out), ("stderr", Stream::Err)] {
            let stored = self.stream(port, stream)?;
            outputs.insert(port.to_owned(), stored);
        }
        for (port, output) in &self.command.with.outputs {
            if let Some(stored) = self.output(port, output)? {
                outputs.insert(port.clone(), stored);
            }
        }
        self.objects.sort_by_key(|stored| stored.digest);
        self.objects.dedup();
        Ok(Done::ok(outputs, self.objects))
    }

    fn stream(&mut self, port: &str, stream: Stream) -> Result<Stored, Done> {
        let length = self.seat.stream_length(stream).map_err(not_taken)?;
        self.spend(length)?;
        self.store(port, length, |target| {
            self.seat.copy_stream(stream, target).map_err(not_taken)
        })
    }

    fn output(&mut self, port: &str, output: &CommandOutput) -> Result<Option<Stored>, Done> {
        let wrong = |what: String| wrong(format!("the output `{port}` is wrong: {what}"));
        if output.port.0 == PortType::Files {
            return match self.seat.output_names(port) {
                Ok(names) => self.files(port, names).map(Some),
                Err(OutputFault::Missing) if output.optional => Ok(None),
                Err(fault) => Err(fault_of(port, fault)),
            };
        }
        let (bytes, place) = match output.from {
            OutputPlace::Stdout => {
                let length = self.seat.stream_length(Stream::Out).map_err(not_taken)?;
                if length == 0 && output.optional {
                    return Ok(None);
                }
                if output.port.0 == PortType::File {
                    return self.stream(port, Stream::Out).map(Some);
                }
                self.check_length(port, length)?;
                let mut bytes = Vec::new();
                self.seat
                    .copy_stream(Stream::Out, &mut bytes)
                    .map_err(not_taken)?;
                if self.command.with.live.is_some() && output.port.0 == PortType::Findings {
                    bytes = live::document(&bytes).map_err(wrong)?;
                }
                (bytes, "standard output".to_owned())
            }
            OutputPlace::File => {
                let file = match self.seat.output(port, "") {
                    Ok(file) => file,
                    Err(OutputFault::Missing) if output.optional => return Ok(None),
                    Err(fault) => return Err(fault_of(port, fault)),
                };
                self.spend(file.length)?;
                if output.port.0 == PortType::File {
                    let length = file.length;
                    let copied = self.store(port, length, |target| {
                        file.copy_to(target).map_err(|fault| fault_of(port, fault))
                    });
                    return copied.map(Some);
                }
                self.check_length(port, file.length)?;
                let place = file.path.clone();
                let mut bytes = Vec::new();
                file.copy_to(&mut bytes).map_err(|fault| fault_of(port, fault))?;
                (bytes, place)
            }
        };
        let own;
        let schema = match &output.schema {
            Some(name) => {
                let programs = self.command.shared.options.engines.programs();
                own = programs.own(self.command.shared.plan, self.command.instance)?;
                let plain = name.trim_start_matches("./");
                let file = own.iter().find(|file| file.name == plain);
                let file = file.ok_or_else(|| wrong(format!("its schema {name} is not there")))?;
                Some((name.as_str(), file.bytes.as_slice()))
            }
            None => None,
        };
        self.command
            .shared
            .options
            .engines
            .programs()
            .schemas
            .check(output.port.0, schema, &bytes)
            .map_err(|what| wrong(format!("{place}: {what}")))?;
        let length = bytes.len() as u64;
        self.store(port, length, |target| {
            target.write_all(&bytes).map_err(not_taken)?;
            Ok(length)
        })
        .map(Some)
    }

    /// A folder of files as a list and its objects.
    fn files(&mut self, port: &str, names: Vec<String>) -> Result<Stored, Done> {
        let mut files = Vec::with_capacity(names.len());
        for name in names {
            if let Some(secret) = self.secrets.find(name.as_bytes()) {
                return Err(wrong(format!(
                    "the output `{port}` is wrong: the name of a file in it holds the value of the secret `{secret}`, which may not be stored"
                )));
            }
            let file = self
                .seat
                .output(port, &name)
                .map_err(|fault| fault_of(port, fault))?;
            self.spend(file.length)?;
            let (length, executable) = (file.length, file.executable);
            let stored = self.store(port, length, |target| {
                file.copy_to(target).map_err(|fault| fault_of(port, fault))
            })?;
            self.objects.push(stored);
            files.push(LeftFile {
                path: name,
                mode: if executable { 0o755 } else { 0o644 },
                length: stored.length,
                digest: stored.digest,
            });
        }
        put_json(self.command.shared, &FilesPort::new(files))
    }

    fn spend(&mut self, length: u64) -> Result<(), Done> {
        match self.left.checked_sub(length) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => Err(wrong(format!(
                "it gives more than `limits.file-bytes` allows, {} bytes for all outputs together",
                self.bound
            ))),
        }
    }

    fn check_length(&self, port: &str, length: u64) -> Result<(), Done> {
        match length > MAX_DOCUMENT {
            true => Err(wrong(format!(
                "the output `{port}` is wrong: it has {length} bytes, and a document has at most {MAX_DOCUMENT}; give large content as a `file`"
            ))),
            false => Ok(()),
        }
    }

    /// Stores what `copy` writes, unless the value of a secret is in it.
    fn store(
        &self,
        port: &str,
        length: u64,
        copy: impl FnOnce(&mut dyn Write) -> Result<u64, Done>,
    ) -> Result<Stored, Done> {
        let store = self.command.shared.options.store;
        if length == 0 {
            return store.put(b"").map_err(store_failed);
        }
        let writer = store.writer().map_err(store_failed)?;
        let mut writer = self.command.shared.given.counted(writer);
        let mut scanner = Scanner::new(&mut writer, self.secrets);
        if let Err(done) = copy(&mut scanner) {
            return Err(match scanner.refused() {
                Some(error) => store_failed(error.into()),
                None => done,
            });
        }
        if let Some(name) = scanner.found() {
            return Err(wrong(format!(
                "the output `{port}` is wrong: it holds the value of the secret `{name}`, which may not be stored"
            )));
        }
        writer.into_inner().finish().map_err(store_failed)
    }
}

/// What holds of an instance: what its stage asks for, else what holds of every command.
fn limits(shared: &Shared<'_>, instance: &Instance) -> CommandLimits {
    let planned = shared.limits(instance);
    let default = CommandLimits::default();
    let millis = |nanos| u64::try_from(Duration::from_nanos(nanos).as_millis()).unwrap_or(u64::MAX);
    CommandLimits {
        wall_ms: planned.wall.map_or(default.wall_ms, |wall| millis(wall).max(1)),
        cpu_s: planned
            .cpu
            .map_or(default.cpu_s, |cpu| millis(cpu).div_ceil(1000).max(1)),
        memory: planned.asked.memory.unwrap_or(default.memory),
        tasks: planned.asked.tasks.map_or(default.tasks, u64::from),
        file_bytes: planned.asked.file_bytes.unwrap_or(default.file_bytes),
    }
}

/// The end of what a program wrote to standard error, to be shown to a person: lines of text without secrets, and without what
/// a terminal would obey.
fn error_tail(seat: &Seat, secrets: &Values) -> String {
    // A little more, so that no secret is cut before it is found.
    let most = (ERROR_TAIL + secrets.longest()) as u64;
    let bytes = secrets.redacted_end(&seat.error_end(most), ERROR_TAIL);
    let text = hotcell_schema::guest::text(&bytes);
    hotcell_report::visible_block(text.trim()).into_owned()
}

fn put(seat: &mut Seat, path: &str, executable: bool, bytes: &[u8]) -> Result<(), Done> {
    seat.put(path, executable, bytes).map_err(not_put)
}

fn not_put(error: io::Error) -> Done {
    Done::failed(
        "a file cannot be put into the program's folder",
        error.to_string(),
    )
}

fn not_taken(error: io::Error) -> Done {
    Done::failed("an output cannot be taken", error.to_string())
}

fn fault_of(port: &str, fault: OutputFault) -> Done {
    match fault {
        OutputFault::Host { .. } => Done::failed("an output cannot be taken", fault.to_string()),
        OutputFault::Missing => wrong(format!(
            "the output `{port}` is missing: the program ended well and left no outputs/{port}; write it to $HOTCELL_OUTPUTS/{port}, or say `optional = true`"
        )),
        fault => wrong(format!("the output `{port}` is wrong: {fault}")),
    }
}
