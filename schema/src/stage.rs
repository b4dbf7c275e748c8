//! The registry of stage types: what each takes, gives and can be told.
//!
//! A stage type is a row of [`STAGE_TYPES`]. The manifest reader, the JSON schema, the planner and the executor all read
//! this one table. To add one: a row here, a `with` struct below, an executor in `hotcell-run`, and a line in
//! `CONTRIBUTING.md`.

use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};

use crate::arch::ArchProfile;
use crate::command::CommandWith;
use crate::comparison::Comparison;
use crate::deny::Deny;
use crate::guest::{Address, Hex};
use crate::internet::{InternetWith, NetworkMode};
use crate::job::{MemoryIn, MemoryOut};
use crate::respond::RespondWith;

/// What flows through a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PortType {
    /// The bytes of one file.
    File,
    /// Named files.
    Files,
    /// An event stream ([`crate::event`]).
    Events,
    /// Findings ([`crate::finding::Findings`]).
    Findings,
    /// A JSON document of the named type.
    Json(&'static str),
    /// Any JSON document; its own schema, where it has one, was checked when it was made.
    Document,
    /// Whatever is wired to it. Only inputs can be so.
    Any,
}

impl PortType {
    /// The type that a manifest names: the same text as [`Display`](std::fmt::Display) writes.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "file" => Some(Self::File),
            "files" => Some(Self::Files),
            "events" => Some(Self::Events),
            "findings" => Some(Self::Findings),
            "json" => Some(Self::Document),
            _ => STAGE_TYPES
                .iter()
                .flat_map(|stage_type| stage_type.outputs)
                .map(|output| output.port)
                .find(|port| matches!(port, Self::Json(_)) && port.to_string() == text),
        }
    }

    /// Whether an input of this type takes what an output of the other type gives.
    pub fn takes(self, gives: Self) -> bool {
        self == gives || self == Self::Any
    }

    /// Whether what flows is JSON in one piece, so that expressions can read it.
    pub fn is_readable(self) -> bool {
        matches!(
            self,
            Self::Json(_) | Self::Document | Self::Findings | Self::Files
        )
    }

    /// The ending of a file that holds it.
    pub fn ending(self) -> &'static str {
        match self {
            Self::Events => ".jsonl",
            Self::File | Self::Any => "",
            Self::Json(_) | Self::Document | Self::Findings | Self::Files => ".json",
        }
    }
}

impl Serialize for PortType {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PortType {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom(format!("there is no port type `{text}`")))
    }
}

impl std::fmt::Display for PortType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File => f.write_str("file"),
            Self::Files => f.write_str("files"),
            Self::Events => f.write_str("events"),
            Self::Findings => f.write_str("findings"),
            Self::Json(name) => write!(f, "json<{name}>"),
            Self::Document => f.write_str("json"),
            Self::Any => f.write_str("anything"),
        }
    }
}

/// A named, typed input of a stage type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Input {
    /// Its name: `in.<name>`.
    pub name: &'static str,
    /// What it takes.
    pub port: PortType,
    /// Whether a stage must wire it.
    pub required: bool,
    /// Whether several outputs can be wired to it (a list, or `[*]`).
    pub many: bool,
    /// A line for people.
    pub about: &'static str,
}

/// A named, typed output of a stage type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Output {
    /// Its name: `stages.S.out.<name>`.
    pub name: &'static str,
    /// What it gives.
    pub port: PortType,
    /// A line for people.
    pub about: &'static str,
}

/// What runs the cells of a stage type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Engine {
    /// Looks at files.
    Inspect,
    /// Emulates a processor, and Linux over it.
    Unicorn,
    /// QEMU's user mode over the host's own Linux.
    QemuUser,
    /// The host's own processor and Linux.
    Native,
}

impl Engine {
    /// The executable of its cells.
    pub fn executable(self) -> &'static str {
        match self {
            Self::Inspect => "hotcell-inspect",
            Self::Unicorn => "hotcell-unicorn",
            Self::QemuUser | Self::Native => "hotcell-qemu",
        }
    }

    /// Whether the guest is made of processes of the host, which its cell keeps.
    pub fn keeps_processes(self) -> bool {
        matches!(self, Self::QemuUser | Self::Native)
    }

    /// Whether it runs guests of an arch profile on this host; the error says why not.
    pub fn runs(self, profile: &ArchProfile) -> Result<(), String> {
        let name = &profile.name;
        let unsaid = |on: &str| {
            Err(format!(
                "{on} cannot run `{name}`: its arch profile does not say how"
            ))
        };
        match self {
            Self::Unicorn if profile.unicorn.is_none() => unsaid("Unicorn"),
            Self::QemuUser if profile.qemu.is_none() => unsaid("QEMU's user mode"),
            Self::Native if *name != std::env::consts::ARCH => Err(format!(
                "this host's processor is {}, and cannot run `{name}`: `qemu-user/linux` can",
                std::env::consts::ARCH
            )),
            _ => Ok(()),
        }
    }
}

/// A stage type: one row of the registry.
#[derive(Clone, Copy)]
pub struct StageType {
    /// What `uses` says.
    pub name: &'static str,
    /// A line for people.
    pub about: &'static str,
    /// Version of its meaning: part of every cache key.
    pub version: u32,
    /// Inputs.
    pub inputs: &'static [Input],
    /// Outputs.
    pub outputs: &'static [Output],
    /// What runs its cells; none: the runner itself does what there is to do, or programs of the user's own do.
    pub engine: Option<Engine>,
    /// Whether the result is the same on every machine.
    pub exact: bool,
    /// Whether it uses the instance's seed.
    pub seeded: bool,
    /// The keys of `limits` that mean something to it.
    pub limits: &'static [&'static str],
    /// Whether it also takes inputs of any name and type, and gives the outputs that `with.outputs` declares.
    pub open: bool,
    /// The JSON schema of its `with`.
    pub with_schema: fn(&mut SchemaGenerator) -> Schema,
}

impl std::fmt::Debug for StageType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StageType")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl StageType {
    /// The stage type that `uses` names.
    pub fn find(name: &str) -> Option<&'static Self> {
        STAGE_TYPES.iter().find(|stage_type| stage_type.name == name)
    }

    /// The input of that name.
    pub fn input(&self, name: &str) -> Option<&'static Input> {
        /// What an open stage type takes under any name.
        static ANYTHING: Input = Input {
            name: "",
            port: PortType::Any,
            required: false,
            many: true,
            about: "anything",
        };
        let listed = self.inputs.iter().find(|input| input.name == name);
        listed.or_else(|| self.open.then_some(&ANYTHING))
    }

    /// Whether one of the guest's limits can change its result.
    pub fn is_limited(&self) -> bool {
        self.limits.contains(&"instructions") || !self.exact
    }

    /// Whether it runs a guest: code of some architecture, in a cell on a core of the pool.
    pub fn runs_guest(&self) -> bool {
        self.is_limited() || !self.exact
    }

    /// The output of that name.
    pub fn output(&self, name: &str) -> Option<&'static Output> {
        self.outputs.iter().find(|output| output.name == name)
    }
}

const fn input(name: &'static str, port: PortType, required: bool, about: &'static str) -> Input {
    Input {
        name,
        port,
        required,
        many: false,
        about,
    }
}

const fn output(name: &'static str, port: PortType, about: &'static str) -> Output {
    Output { name, port, about }
}

/// Limits of stage types that run no guest.
const HOST_LIMITS: &[&str] = &["wall", "cpu"];
/// Limits of stage types that run a guest in an emulator.
const GUEST_LIMITS: &[&str] = &[
    "virtual-time",
    "events",
    "syscalls",
    "instructions",
    "memory",
    "tasks",
    "file-bytes",
    "wall",
    "cpu",
];

/// Limits that end a sample, and are its outcome then.
pub fn outcome_limits() -> &'static [&'static str] {
    GUEST_LIMITS
}

/// Limits of stage types that run a guest on the host's own Linux.
const OBSERVED_LIMITS: &[&str] = &["events", "memory", "tasks", "file-bytes", "wall", "cpu"];
/// Limits of the user's own programs.
const COMMAND_LIMITS: &[&str] = &["memory", "tasks", "file-bytes", "wall", "cpu"];

/// What an engine takes whose guests run on the host's own Linux.
const OBSERVED_INPUTS: &[Input] = &[
    input("file", PortType::File, true, "the program"),
    input("stdin", PortType::File, false, "what its standard input holds"),
];

/// What it gives.
const OBSERVED_OUTPUTS: &[Output] = &[
    output(
        "events",
        PortType::Events,
        "what it did, as the host's kernel saw it",
    ),
    output("result", PortType::Json("linux-result"), "how it ended"),
    output("stdout", PortType::File, "what it wrote to standard output"),
    output("stderr", PortType::File, "what it wrote to standard error"),
    output(
        "pcap",
        PortType::File,
        "what went to the simulated internet and came from it",
    ),
    output(
        "files",
        PortType::Files,
        "the files it made or changed and left behind",
    ),
];

/// Every stage type there is.
pub static STAGE_TYPES: &[StageType] = &[
    StageType {
        name: "inspect/elf",
        about: "Look at an executable file without running it",
        version: 1,
        inputs: &[input("file", PortType::File, true, "the file to look at")],
        outputs: &[
            output(
                "info",
                PortType::Json("elf-info"),
                "headers, hashes, strings, hardening, disassembly",
            ),
            output(
                "findings",
                PortType::Findings,
                "what is wrong or remarkable about the file",
            ),
        ],
        engine: Some(Engine::Inspect),
        exact: true,
        seeded: false,
        limits: HOST_LIMITS,
        open: false,
        with_schema: |generator| generator.subschema_for::<InspectWith>(),
    },
    StageType {
        name: "unicorn/payload",
        about: "Run raw machine code and look at registers and memory",
        version: 3,
        inputs: &[input(
            "code",
            PortType::File,
            false,
            "the code, unless `with.code` holds it",
        )],
        outputs: &[output(
            "result",
            PortType::Json("payload-result"),
            "outcome, registers, memory, trace",
        )],
        engine: Some(Engine::Unicorn),
        exact: true,
        seeded: false,
        limits: GUEST_LIMITS,
        open: false,
        with_schema: |generator| generator.subschema_for::<PayloadWith>(),
    },
    StageType {
        name: "unicorn/linux",
        about: "Run a Linux program over the emulated Linux, on any architecture",
        version: 8,
        inputs: &[
            input("file", PortType::File, true, "the program"),
            input("stdin", PortType::File, false, "what its standard input holds"),
        ],
        outputs: &[
            output("events", PortType::Events, "what it did"),
            output("result", PortType::Json("linux-result"), "how it ended"),
            output("stdout", PortType::File, "what it wrote to standard output"),
            output("stderr", PortType::File, "what it wrote to standard error"),
            output(
                "pcap",
                PortType::File,
                "what went to the simulated internet and came from it",
            ),
            output(
                "files",
                PortType::Files,
                "the files it made or changed and left behind",
            ),
            output(
                "layers",
                PortType::Files,
                "code that it wrote and ran, as ELF files that other tools open",
            ),
            output(
                "dumps",
                PortType::Files,
                "its memory where `with.dump` says, as ELF core files",
            ),
            output(
                "coverage",
                PortType::Files,
                "which blocks of code ran, with `with.coverage`, in the format drcov",
            ),
            output(
                "strings",
                PortType::File,
                "texts that it gave to system calls: lines of the call and the text",
            ),
        ],
        engine: Some(Engine::Unicorn),
        exact: true,
        seeded: true,
        limits: GUEST_LIMITS,
        open: false,
        with_schema: |generator| generator.subschema_for::<LinuxWith>(),
    },
    StageType {
        name: "qemu-user/linux",
        about: "Run a Linux program under QEMU's user mode, on the host's own Linux, watched by its kernel",
        version: 1,
        inputs: OBSERVED_INPUTS,
        outputs: OBSERVED_OUTPUTS,
        engine: Some(Engine::QemuUser),
        exact: false,
        seeded: true,
        limits: OBSERVED_LIMITS,
        open: false,
        with_schema: |generator| generator.subschema_for::<QemuUserWith>(),
    },
    StageType {
        name: "native/linux",
        about: "Run a Linux program on the host's own processor and Linux, without an emulator: its kernel and a cell's walls are all that holds it",
        version: 1,
        inputs: OBSERVED_INPUTS,
        outputs: OBSERVED_OUTPUTS,
        engine: Some(Engine::Native),
        exact: false,
        seeded: true,
        limits: OBSERVED_LIMITS,
        open: false,
        with_schema: |generator| generator.subschema_for::<QemuUserWith>(),
    },
    StageType {
        name: "detect/rules",
        about: "Judge events and inspection facts by behaviour rules",
        version: 1,
        inputs: &[
            input("events", PortType::Events, false, "what a sample did"),
            input("info", PortType::Json("elf-info"), false, "what inspection found"),
        ],
        outputs: &[output("findings", PortType::Findings, "what the rules concluded")],
        engine: None,
        exact: true,
        seeded: false,
        limits: HOST_LIMITS,
        open: false,
        with_schema: |generator| generator.subschema_for::<RulesWith>(),
    },
    StageType {
        name: "compare/behaviour",
        about: "Hold two runs of one sample against each other, whatever their engines: what only one of them did",
        version: 1,
        inputs: &[
            input("left", PortType::Events, true, "what a sample did"),
            input(
                "right",
                PortType::Events,
                true,
                "what it did another time, or under another engine",
            ),
        ],
        outputs: &[
            output(
                "comparison",
                PortType::Json(Comparison::PORT),
                "what both did, what only one did, and what one could not see",
            ),
            output("findings", PortType::Findings, "one finding where they differ"),
        ],
        engine: None,
        exact: true,
        seeded: false,
        limits: HOST_LIMITS,
        open: false,
        with_schema: |generator| generator.subschema_for::<CompareWith>(),
    },
    StageType {
        name: "command",
        about: "Run a program of your own, confined, over files and JSON",
        version: 1,
        inputs: &[],
        outputs: &[
            output("stdout", PortType::File, "what it wrote to standard output"),
            output("stderr", PortType::File, "what it wrote to standard error"),
        ],
        engine: None,
        exact: true,
        seeded: false,
        limits: COMMAND_LIMITS,
        open: true,
        with_schema: |generator| generator.subschema_for::<CommandWith>(),
    },
];

/// What a name in an environment looks like.
pub(crate) const ENV_NAME: &str = "^[^=\\x00-\\x1f\\x7f]{1,255}$";

/// `with` of `inspect/elf`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct InspectWith {
    /// Greatest number of strings kept.
    pub max_strings: u32,
    /// Disassemble the entry and each symbol.
    pub disassemble: bool,
}

impl Default for InspectWith {
    fn default() -> Self {
        Self {
            max_strings: 2000,
            disassemble: true,
        }
    }
}

/// `with` of `unicorn/payload`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct PayloadWith {
    /// Name or alias of an arch profile.
    pub arch: String,
    /// The code in hexadecimal, unless `in.code` is wired.
    pub code: Option<Hex>,
    /// Where the code is mapped and starts, a multiple of 4096. Bit 0 set on arm: Thumb.
    pub address: Address,
    /// Where execution stops; absent: the end of the code.
    pub until: Option<Address>,
    /// Registers before the start.
    pub registers: BTreeMap<String, Address>,
    /// Memory before the start.
    pub memory: Vec<MemoryIn>,
    /// Registers wanted afterwards; empty: all general ones.
    pub want_registers: Vec<String>,
    /// Memory wanted afterwards.
    pub want_memory: Vec<MemoryOut>,
    /// How many executed instructions are recorded with their disassembly.
    pub trace: u32,
}

impl Default for PayloadWith {
    fn default() -> Self {
        Self {
            arch: String::new(),
            code: None,
            address: Address(0x1_0000),
            until: None,
            registers: BTreeMap::new(),
            memory: Vec::new(),
            want_registers: Vec::new(),
            want_memory: Vec::new(),
            trace: 0,
        }
    }
}

/// `with` of `unicorn/linux`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct LinuxWith {
    /// Name or alias of an arch profile; absent: the sample's own.
    pub arch: Option<String>,
    /// Arguments after argv\[0\].
    pub args: Vec<String>,
    /// argv\[0\]; absent: the guest path.
    pub argv0: Option<String>,
    /// Guest path of the program; absent: `/tmp/sample`.
    pub path: Option<String>,
    /// Environment; absent: the persona's.
    #[schemars(extend("propertyNames" = {"pattern": ENV_NAME}))]
    pub env: Option<BTreeMap<String, String>>,
    /// Working directory; absent: the persona's.
    pub cwd: Option<String>,
    /// Name of a shipped persona, or path of a persona file; absent: `server`.
    pub persona: Option<String>,
    /// Names of sources (`sources.<name>`) that the guest's root is made of, the later ones over the earlier: a folder,
    /// archives, Debian packages. For instance what a dynamically linked program needs: its loader and libraries.
    pub sysroot: Vec<String>,
    /// Further guest files: guest path to text.
    pub files: BTreeMap<String, String>,
    /// `none`: the guest has its loopback, and nothing beyond is reached. `sink`: the simulated internet.
    pub network: NetworkMode,
    /// Who is on the simulated internet, with `network = "sink"`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub internet: Option<InternetWith>,
    /// Which blocks of code ran, for each program, in the format `drcov` (port `coverage`).
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub coverage: bool,
    /// Tells what a dynamically linked program calls in its libraries, with arguments: events of the kind `library`. Costs
    /// a look at every block that runs.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub library_calls: bool,
    /// When memory is written down, as ELF core files (port `dumps`): names of system calls, before the first of each in
    /// each process, and `end`: before a process ends. For instance `["connect", "end"]`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("items" = {"type": "string", "pattern": DUMP_AT}, "maxItems" = MAX_DUMPS_AT))]
    pub dump: Vec<String>,
}

/// `with` of `qemu-user/linux` and `native/linux`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct QemuUserWith {
    /// Name or alias of an arch profile; absent: the sample's own.
    pub arch: Option<String>,
    /// Arguments after argv\[0\].
    pub args: Vec<String>,
    /// argv\[0\]; absent: the guest path.
    pub argv0: Option<String>,
    /// Guest path of the program; absent: `/tmp/sample`.
    pub path: Option<String>,
    /// Environment; absent: the persona's.
    #[schemars(extend("propertyNames" = {"pattern": ENV_NAME}))]
    pub env: Option<BTreeMap<String, String>>,
    /// Working directory; absent: the persona's.
    pub cwd: Option<String>,
    /// Name of a shipped persona, or path of a persona file; absent: `server`.
    pub persona: Option<String>,
    /// Names of sources (`sources.<name>`) that the guest's root is made of, the later ones over the earlier.
    pub sysroot: Vec<String>,
    /// Further guest files: guest path to text.
    pub files: BTreeMap<String, String>,
    /// `none`: the guest has its loopback, and nothing beyond is reached. `sink`: the simulated internet.
    #[serde(skip_serializing_if = "NetworkMode::is_none")]
    pub network: NetworkMode,
    /// Who is on the simulated internet, with `network = "sink"`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub internet: Option<InternetWith>,
    /// What the guest may not do.
    #[serde(skip_serializing_if = "Deny::is_empty")]
    pub deny: Deny,
    /// Rules that are judged while the guest runs, and act.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub respond: Option<RespondWith>,
}

impl From<QemuUserWith> for LinuxWith {
    fn from(with: QemuUserWith) -> Self {
        Self {
            arch: with.arch,
            args: with.args,
            argv0: with.argv0,
            path: with.path,
            env: with.env,
            cwd: with.cwd,
            persona: with.persona,
            sysroot: with.sysroot,
            files: with.files,
            network: with.network,
            internet: with.internet,
            ..Self::default()
        }
    }
}

/// Names at which memory can be written down.
pub const DUMP_AT: &str = "^[a-z_][a-z0-9_]{0,63}$";
/// Greatest number of them.
pub const MAX_DUMPS_AT: usize = 64;

/// `with` of `compare/behaviour`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct CompareWith {
    /// Behaviours that are left out of either side: how their lines begin, for instance `signal/SIGCHLD`.
    pub ignore: Vec<String>,
}

/// `with` of `detect/rules`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct RulesWith {
    /// Globs of rule files, from the manifest's folder; empty: the shipped rules.
    pub rules: Vec<String>,
}
